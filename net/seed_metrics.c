/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed counts. Events are counted when they happen; what others keep is sampled before a
 * scrape.
 */
#include "core/stats_table.h"
#include "net/seed_private.h"

#include <stdio.h>

enum sprout_status seed_metrics_create(struct sprout_seed *seed) {
  const struct manifest_identity *identity = &seed->model->manifest->identity;
  seed->stats = stats_create(stats_table, STAT_COUNT);
  if (seed->stats == NULL) return SPROUT_NO_MEMORY;
  stats_set(seed->stats, STAT_BUILD_INFO, STAT_LABELS(sprout_version(), "io_uring", "seed"), 1);
  stats_set(seed->stats, STAT_SEED_READY, STAT_LABELS(identity->model, identity->rank), 0);
  stats_set(seed->stats, STAT_SENT_BYTES, STAT_LABELS("tcp"), 0);
  stats_set(seed->stats, STAT_SENT_BYTES, STAT_LABELS("rdma"), 0);
  stats_set(seed->stats, STAT_SEED_PUBLISHED_TIMESTAMP_SECONDS, NULL, (double)seed->published_s);
  return SPROUT_OK;
}

static void sample_model(struct sprout_seed *seed) {
  static const char *const kinds[] = {
      [SPROUT_MEMORY_HOST] = "host", [SPROUT_MEMORY_FILE] = "file", [SPROUT_MEMORY_CUDA] = "cuda"};
  const struct model *model = seed->model;
  double bytes[3] = {0};
  for (uint32_t i = 0; i < model->region_count; i++)
    bytes[model->regions[i].memory] += (double)model->regions[i].length_bytes;
  for (size_t i = 0; i < 3; i++)
    if (bytes[i] > 0)
      stats_set(seed->stats, STAT_SEED_REGISTERED_BYTES, STAT_LABELS(kinds[i]), bytes[i]);
  stats_set(seed->stats, STAT_SEED_READY,
            STAT_LABELS(model->manifest->identity.model, model->manifest->identity.rank),
            seed_is_ready(seed) ? 1 : 0);
  stats_set(seed->stats, STAT_SEED_GENERATION, NULL, (double)model->manifest->version.generation);
  stats_set(seed->stats, STAT_SEED_UNDIGESTED_BYTES, NULL,
            (double)digester_undigested_bytes(seed->digester));
}

static void add_inflight(struct admission_fork *admission, void *context) {
  const struct seed_fork *fork = admission->owner;
  double *sums = context;
  if (fork == NULL) return;
  sums[0] += (double)fork->inflight_bytes;
  sums[1] += (double)fork->window_bytes;
}

static void sample_forks(struct sprout_seed *seed) {
  double sums[2] = {0, 0};
  admission_each(seed->admission, add_inflight, sums);
  stats_set(seed->stats, STAT_SEED_FORKS, STAT_LABELS("running"),
            admission_running(seed->admission));
  stats_set(seed->stats, STAT_SEED_FORKS, STAT_LABELS("queued"), admission_queued(seed->admission));
  stats_set(seed->stats, STAT_SEED_FORKS_LIMIT, NULL, seed->settings.max_forks);
  stats_set(seed->stats, STAT_WINDOW_INFLIGHT_BYTES, NULL, sums[0]);
  stats_set(seed->stats, STAT_WINDOW_LIMIT_BYTES, NULL, sums[1]);
}

static void sample_rdma(struct sprout_seed *seed) {
  struct rdma_seed_view view;
  stats_set(seed->stats, STAT_SENT_BYTES, STAT_LABELS("rdma"), (double)seed->rdma_sent_bytes);
  if (seed->rdma == NULL) return;
  rdma_seed_look(seed->rdma, &view);
  stats_set(seed->stats, STAT_RDMA_QUEUE_PAIRS, NULL, view.pair_count);
  stats_set(seed->stats, STAT_RDMA_REGISTERED_BYTES, NULL, (double)view.registered_bytes);
  for (uint32_t i = 0; i < view.rail_count; i++) {
    struct rdma_rail_view rail;
    char port[16];
    rdma_seed_rail(seed->rdma, i, &rail);
    (void)snprintf(port, sizeof(port), "%u", rail.port);
    stats_set(seed->stats, STAT_RDMA_PORT_UP, STAT_LABELS(rail.device, port), rail.up ? 1 : 0);
  }
}

void seed_metrics_refresh(struct sprout_seed *seed) {
  struct http_server_stats server;
  struct reactor_stats reactor;
  http_server_stats_get(seed->server, &server);
  reactor_stats_get(seed->reactor, &reactor);
  stats_collect_process(seed->stats);
  sample_model(seed);
  sample_forks(seed);
  sample_rdma(seed);
  stats_set(seed->stats, STAT_SENT_BYTES, STAT_LABELS("tcp"),
            (double)http_pace_sent_bytes(seed->pace));
  stats_set(seed->stats, STAT_THROTTLED_SECONDS, NULL,
            (double)http_pace_throttled_ns(seed->pace) / 1e9);
  stats_set(seed->stats, STAT_RATE_LIMIT_BYTES_PER_SECOND, NULL, (double)seed->settings.max_rate);
  stats_set(seed->stats, STAT_HTTP_CONNECTIONS, STAT_LABELS("active"), server.active);
  stats_set(seed->stats, STAT_HTTP_CONNECTIONS, STAT_LABELS("idle"), server.idle);
  stats_set(seed->stats, STAT_REACTOR_BUSY_SECONDS, NULL, (double)reactor.busy_ns / 1e9);
  stats_set(seed->stats, STAT_REACTOR_WAKEUPS, NULL, (double)reactor.ticks);
}

void seed_metrics_request(struct sprout_seed *seed, const struct http_exchange *exchange,
                          uint64_t now_ns) {
  char code[16] = "aborted";
  if (exchange->status_code != 0) (void)snprintf(code, sizeof(code), "%d", exchange->status_code);
  stats_add(seed->stats, STAT_HTTP_REQUESTS, STAT_LABELS(exchange->route, code), 1);
  stats_observe(seed->stats, STAT_HTTP_REQUEST_DURATION_SECONDS, STAT_LABELS(exchange->route),
                (double)(now_ns - exchange->began_ns) / 1e9);
}

void seed_metrics_limit(struct sprout_seed *seed, const char *limit) {
  stats_add(seed->stats, STAT_LIMIT_HITS, STAT_LABELS(limit), 1);
}

void seed_metrics_auth_failure(struct sprout_seed *seed, const char *reason) {
  stats_add(seed->stats, STAT_AUTH_FAILURES, STAT_LABELS(reason), 1);
}

void seed_metrics_fork_started(struct sprout_seed *seed, const struct admission_fork *fork) {
  stats_add(seed->stats, STAT_SEED_FORKS_STARTED, NULL, 1);
  stats_observe(seed->stats, STAT_SEED_QUEUE_WAIT_SECONDS, NULL,
                (double)(fork->started_ns - fork->opened_ns) / 1e9);
}

void seed_metrics_fallback(struct sprout_seed *seed, enum sprout_status reason) {
  stats_add(seed->stats, STAT_FALLBACKS,
            STAT_LABELS("rdma", "tcp", sprout_status_info_of(reason)->name), 1);
}

void seed_metrics_rdma_refused(struct sprout_seed *seed, enum rdma_refusal refusal) {
  static const char *const names[] = {[RDMA_REFUSED_MALFORMED] = "malformed",
                                      [RDMA_REFUSED_VERSION] = "version",
                                      [RDMA_REFUSED_NONCE] = "nonce",
                                      [RDMA_REFUSED_LIMIT] = "limit",
                                      [RDMA_REFUSED_LOCAL] = "local"};
  stats_add(seed->stats, STAT_RDMA_CONNECTIONS_REFUSED, STAT_LABELS(names[refusal]), 1);
}

static const char *result_name(const struct admission_fork *fork) {
  if (fork->result == SPROUT_OK) return "complete";
  if (fork->result == SPROUT_CANCELLED) return "cancelled";
  return fork->expired ? "expired" : "failed";
}

void seed_metrics_fork_finished(struct sprout_seed *seed, const struct admission_fork *fork) {
  const char *result = result_name(fork);
  stats_add(seed->stats, STAT_SEED_FORKS_FINISHED,
            STAT_LABELS(seed->model->manifest->identity.model, result,
                        sprout_status_info_of(fork->result)->name),
            1);
  if (fork->started_ns != 0)
    stats_observe(seed->stats, STAT_SEED_FORK_DURATION_SECONDS, STAT_LABELS(result),
                  (double)(fork->ended_ns - fork->started_ns) / 1e9);
}

void seed_metrics_updated(struct sprout_seed *seed, const struct seed_update_phases *phases) {
  stats_observe(seed->stats, STAT_UPDATE_DURATION_SECONDS, STAT_LABELS("begin"), phases->begin);
  stats_observe(seed->stats, STAT_UPDATE_DURATION_SECONDS, STAT_LABELS("change"), phases->change);
  stats_observe(seed->stats, STAT_UPDATE_DURATION_SECONDS, STAT_LABELS("commit"), phases->commit);
  stats_set(seed->stats, STAT_SEED_PUBLISHED_TIMESTAMP_SECONDS, NULL, (double)seed->published_s);
}
