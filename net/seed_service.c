/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seed put together: model, digests, admission, servers; and taken apart again.
 *
 * Stopping goes in two steps, each of which waits for all its parts: first the servers (their
 * connections use everything else), then digests, pace and the worker that writes JSON.
 */
#include "core/log.h"
#include "net/routes_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void drain_timed_out(struct timer *timer);
static void check_drained(struct deferred *deferred);

/* --- creation --- */

static enum sprout_status open_model(struct sprout_seed *seed,
                                     const struct sprout_seed_options *options,
                                     struct sprout_error *error) {
  const struct model_options model_options = {
      .paths = options->paths,
      .path_count = options->path_count,
      .name = options->name,
      .rank = options->rank != NULL ? options->rank : "",
      .label = options->label != NULL ? options->label : "",
      .memory = options->memory == SPROUT_SEED_MEMORY_HOST ? MODEL_MEMORY_HOST : MODEL_MEMORY_FILE};
  if (options->tensor_count > 0)
    return model_from_tensors(options->tensors, options->tensor_count, !options->tensors_mutable,
                              &model_options, &seed->model, error);
  return model_open(&model_options, &seed->model, error);
}

static enum sprout_status allocate(struct sprout_seed *seed, struct sprout_error *error) {
  const struct seed_settings *settings = &seed->settings;
  const struct admission_options admission_options = {.max_running = settings->max_forks,
                                                      .max_queued = settings->max_queue,
                                                      .keep_closed = LIMIT_FINISHED_FORKS,
                                                      .lease_ns = settings->lease_ns};
  seed->ranges = calloc(LIMIT_READ_RANGES, sizeof(*seed->ranges));
  seed->digests = calloc(LIMIT_DIGESTS_PER_REQUEST, sizeof(*seed->digests));
  seed->digests_known = calloc(LIMIT_DIGESTS_PER_REQUEST, sizeof(*seed->digests_known));
  enum sprout_status status = SPROUT_OK;
  if (seed->ranges == NULL || seed->digests == NULL || seed->digests_known == NULL)
    status = SPROUT_NO_MEMORY;
  if (status == SPROUT_OK) status = seed_metrics_create(seed);
  if (status == SPROUT_OK && seed->settings.tensors_mutable)
    status = fence_create(&seed->fence, seed->model->manifest->version.generation);
  if (status == SPROUT_OK) status = admission_create(&admission_options, &seed->admission);
  if (status == SPROUT_OK)
    status = http_pace_create(seed->reactor, settings->max_rate, &seed->pace);
  if (status == SPROUT_OK)
    status = digester_create(seed->reactor, seed->model, settings->digest_rate, &seed->digester);
  if (status == SPROUT_OK) status = routes_manifest_publish(seed);
  if (status != SPROUT_OK)
    return sprout_error_set(error, status, 0, NULL, "a seed cannot be set up: %s",
                            sprout_status_info_of(status)->summary);
  return SPROUT_OK;
}

/* Frees what there is; nothing runs (any more). */
static void free_seed(struct sprout_seed *seed) {
  rdma_seed_destroy(seed->rdma);
  http_document_release(seed->placement_whole);
  http_server_destroy(seed->server);
  http_server_destroy(seed->admin);
  if (seed->digester != NULL) digester_destroy(seed->digester);
  http_pace_destroy(seed->pace);
  admission_destroy(seed->admission);
  routes_manifest_destroy(seed);
  routes_read_destroy(seed);
  fence_destroy(&seed->fence);
  if (seed->auth != NULL) auth_destroy(seed->auth);
  if (seed->stats != NULL) stats_destroy(seed->stats);
  if (seed->model != NULL) model_destroy(seed->model);
  free(seed->ranges);
  free(seed->digests);
  free(seed->digests_known);
  free(seed);
}

static void begin(void *context) {
  struct sprout_seed *seed = context;
  digester_start(seed->digester);
  http_server_start(seed->server);
  if (seed->admin != NULL) http_server_start(seed->admin);
  seed->ready = seed->settings.transports.tcp || seed_rdma_is_open(seed);
}

static enum sprout_status assemble(struct sprout_seed *seed,
                                   const struct sprout_seed_options *options,
                                   struct sprout_error *error) {
  enum sprout_status status = auth_create(options->token_file, options->token, &seed->auth, error);
  if (status == SPROUT_OK) status = open_model(seed, options, error);
  if (status != SPROUT_OK) return status;
  routes_manifest_name_version(seed);
  status = allocate(seed, error);
  if (status == SPROUT_OK) status = seed_listen(seed, options, error);
  if (status == SPROUT_OK) status = seed_rdma_open(seed, options, error);
  return status;
}

enum sprout_status sprout_seed_create(struct sprout_service *service,
                                      const struct sprout_seed_options *options,
                                      struct sprout_seed **seed_out, struct sprout_error *error) {
  struct seed_settings settings;
  enum sprout_status status = seed_options_check(options, &settings, error);
  if (status != SPROUT_OK) return status;
  struct sprout_seed *seed = calloc(1, sizeof(*seed));
  if (seed == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a seed");
  seed->service = service;
  seed->reactor = service_reactor(service);
  seed->settings = settings;
  seed->created_ns = reactor_now(seed->reactor);
  seed->published_s = (uint64_t)time(NULL);
  http_account_init(&seed->downloads);
  list_init(&seed->blocks);
  seed->lease_timer.fired = seed_lease_fired;
  seed->drain_timer.fired = drain_timed_out;
  seed->drain_check.run = check_drained;
  routes_manifest_init(seed);
  status = assemble(seed, options, error);
  if (status != SPROUT_OK) {
    seed_rdma_abandon(seed);
    free_seed(seed);
    return status;
  }
  service_call(service, begin, seed);
  *seed_out = seed;
  return SPROUT_OK;
}

/* --- status --- */

struct status_call {
  struct sprout_seed *seed;
  struct sprout_seed_status *status;
};

static void fill_status(void *context) {
  const struct status_call *call = context;
  const struct sprout_seed *seed = call->seed;
  struct sprout_seed_status *status = call->status;
  *status = (struct sprout_seed_status){
      .ready = seed_is_ready(seed),
      .draining = seed->draining,
      .total_bytes = seed->model->manifest->total_bytes,
      .undigested_bytes = digester_undigested_bytes(seed->digester),
      .forks_running = admission_running(seed->admission),
      .forks_queued = admission_queued(seed->admission),
      .forks_finished = seed->forks_finished,
      .sent_bytes = http_pace_sent_bytes(seed->pace) + seed->rdma_sent_bytes};
  const struct manifest *manifest = seed->model->manifest;
  (void)snprintf(status->model, sizeof(status->model), "%s", manifest->identity.model);
  (void)snprintf(status->manifest_id, sizeof(status->manifest_id), "%s", manifest->id);
  (void)snprintf(status->label, sizeof(status->label), "%s", manifest->version.label);
  status->generation = manifest->version.generation;
  status->updating = seed->updating;
  status->file_count = manifest->file_count;
  status->object_count = manifest->object_count;
  (void)address_format(http_server_address(seed->server), status->listen, sizeof(status->listen));
  if (seed->admin != NULL)
    (void)address_format(http_server_address(seed->admin), status->admin_listen,
                         sizeof(status->admin_listen));
}

void sprout_seed_status(struct sprout_seed *seed, struct sprout_seed_status *status_out) {
  struct status_call call = {seed, status_out};
  service_call(seed->service, fill_status, &call);
}

/* --- draining --- */

static void end_drain(struct sprout_seed *seed) {
  if (seed->drain_over) return;
  seed->drain_over = true;
  reactor_timer_stop(seed->reactor, &seed->drain_timer);
  if (seed->drained != NULL) seed->drained(seed->drained_context);
}

static void check_drained(struct deferred *deferred) {
  struct sprout_seed *seed = container_of(deferred, struct sprout_seed, drain_check);
  bool busy = admission_running(seed->admission) > 0 || http_server_exchanges(seed->server) > 0;
  if (!busy) end_drain(seed);
}

void seed_drain_look(struct sprout_seed *seed) {
  if (seed->draining && !seed->drain_over && seed->stopping_parts == 0)
    reactor_defer(seed->reactor, &seed->drain_check);
}

static void drain_timed_out(struct timer *timer) {
  struct sprout_seed *seed = container_of(timer, struct sprout_seed, drain_timer);
  log_write(LOG_WARNING, "seed", "draining took longer than allowed: %u forks are cut off",
            admission_running(seed->admission));
  end_drain(seed);
}

struct drain_call {
  struct sprout_seed *seed;
  void (*done)(void *context);
  void *context;
};

static void begin_drain(void *context) {
  const struct drain_call *call = context;
  struct sprout_seed *seed = call->seed;
  seed->drained = call->done;
  seed->drained_context = call->context;
  if (seed->draining) {
    /* The one before is over or gets no answer: this one asks instead. */
    seed->drain_over = false;
    seed_drain_look(seed);
    return;
  }
  log_write(LOG_INFO, "seed", "draining: %u forks run", admission_running(seed->admission));
  seed->draining = true;
  admission_set_draining(seed->admission);
  reactor_timer_start(seed->reactor, &seed->drain_timer,
                      reactor_now(seed->reactor) + seed->settings.drain_timeout_ns);
  http_server_drain(seed->server);
  if (routes_manifest_publish(seed) != SPROUT_OK)
    log_write(LOG_WARNING, "seed", "no memory to tell in the manifest that the seed drains");
  seed_fork_close_all(seed, true, SPROUT_UNAVAILABLE, "the seed is draining");
  seed_drain_look(seed);
}

void sprout_seed_drain(struct sprout_seed *seed, void (*done)(void *context), void *context) {
  struct drain_call call = {seed, done, context};
  service_call(seed->service, begin_drain, &call);
}

/* --- the end --- */

static void stop_machinery(struct sprout_seed *seed);

/* Parts of the second step are marked by the servers being gone. */
void seed_part_stopped(struct sprout_seed *seed) {
  if (--seed->stopping_parts > 0) return;
  if (!seed->servers_stopped) {
    seed->servers_stopped = true;
    stop_machinery(seed);
    return;
  }
  seed->stopped = true;
  service_notify(seed->service);
}

static void part_stopped(void *context) {
  seed_part_stopped(context);
}

static void stop_machinery(struct sprout_seed *seed) {
  seed_fork_close_all(seed, false, SPROUT_UNAVAILABLE, "the seed has ended");
  reactor_timer_stop(seed->reactor, &seed->lease_timer);
  seed->stopping_parts =
      2 + (seed->manifest_json.building ? 1u : 0) + (seed->rdma_started ? 1u : 0);
  seed->manifest_json.stopping = true;
  http_pace_stop(seed->pace, part_stopped, seed);
  digester_stop(seed->digester, part_stopped, seed);
  if (seed->rdma_started) rdma_seed_close(seed->rdma, part_stopped, seed);
}

static void begin_stop(void *context) {
  struct sprout_seed *seed = context;
  seed->ready = false;
  seed->draining = seed->drain_over = true;
  admission_set_draining(seed->admission);
  seed->stopping_parts = seed->admin != NULL ? 2 : 1;
  reactor_timer_stop(seed->reactor, &seed->drain_timer);
  reactor_defer_cancel(seed->reactor, &seed->drain_check);
  http_server_stop(seed->server, part_stopped, seed);
  if (seed->admin != NULL) http_server_stop(seed->admin, part_stopped, seed);
}

void sprout_seed_destroy(struct sprout_seed *seed) {
  if (seed == NULL) return;
  struct sprout_service *service = seed->service;
  service_call(service, begin_stop, seed);
  service_wait(service, &seed->stopped);
  free_seed(seed);
}
