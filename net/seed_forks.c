/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open forks. The window of all forks together is SEED_WINDOWS_TOTAL times the window of one, so
 * few forks get what the options say and many divide it; none gets less than two chunks, enough to
 * read one while the next is on its way. Bytes in flight cost a seed no memory of its own (they are
 * the kernel's socket buffers): the total bounds how much a fork waits behind others.
 */
#include "core/log.h"
#include "core/share.h"
#include "net/routes_read.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/random.h>

#define SEED_WINDOWS_TOTAL 16u
#define WINDOW_LEAST_BYTES (2ull * SPROUT_CHUNK_BYTES)
#define RATE_PERIOD_NS (SEED_NS_PER_S / 2)
#define HEARTBEAT_LEAST_NS (SEED_NS_PER_S / 5)

static void promote(struct sprout_seed *seed);

/* --- opening --- */

static struct seed_fork *create_fork(struct sprout_seed *seed, struct admission_fork *admission) {
  struct seed_fork *fork = calloc(1, sizeof(*fork));
  if (fork == NULL) return NULL;
  fork->seed = seed;
  fork->admission = admission;
  fork->rated_ns = reactor_now(seed->reactor);
  rdma_guest_init(&fork->guest);
  http_account_init(&fork->account);
  list_init(&fork->reads);
  admission->owner = fork;
  return fork;
}

enum sprout_status seed_fork_open(struct sprout_seed *seed, const struct wire_open *open,
                                  const char *peer, struct seed_fork **fork_out) {
  uint8_t id[ADMISSION_ID_BYTES];
  if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id)) return SPROUT_INTERNAL;
  struct admission_fork *admission = NULL;
  uint64_t now_ns = reactor_now(seed->reactor);
  enum sprout_status status =
      admission_open(seed->admission, id, open->nonce, peer, now_ns, &admission);
  if (status != SPROUT_OK) return status;
  if (admission->owner == NULL) {
    if (create_fork(seed, admission) == NULL) {
      admission_close(seed->admission, admission, SPROUT_NO_MEMORY, "no memory", now_ns);
      return SPROUT_NO_MEMORY;
    }
    admission->total_bytes = open->total_bytes;
    ((struct seed_fork *)admission->owner)->wants_rdma = open->wants_rdma;
    if (admission->state == ADMISSION_RUNNING) seed_metrics_fork_started(seed, admission);
    log_write(LOG_INFO, "seed", "fork from %s %s", peer,
              admission->state == ADMISSION_RUNNING ? "runs" : "waits in the queue");
  }
  seed_lease_watch(seed);
  seed_forks_share_rate(seed);
  *fork_out = admission->owner;
  return SPROUT_OK;
}

/* Over HTTP: the rate is held by the seed itself, and told so that the fork knows. */
static void grant_http(const struct seed_fork *fork, struct source_grant *grant_out) {
  const struct sprout_seed *seed = fork->seed;
  uint32_t running = admission_running(seed->admission);
  uint64_t rate = seed->settings.max_rate;
  const struct share_limits limits = {.total = seed->settings.inflight_bytes * SEED_WINDOWS_TOTAL,
                                      .most = seed->settings.inflight_bytes,
                                      .least = seed->settings.inflight_bytes < WINDOW_LEAST_BYTES
                                                   ? seed->settings.inflight_bytes
                                                   : WINDOW_LEAST_BYTES};
  grant_out->window = (struct window_limits){.operations = SEED_WINDOW_OPERATIONS,
                                             .bytes = share_window(&limits, running),
                                             .depth = LIMIT_PIPELINED_REQUESTS};
  grant_out->rate = running > 1 ? rate / running : rate;
}

/*
 * How often the fork shall ask. What is read over HTTP is held here; one-sided reads learn of other
 * readers by heartbeats alone, so these come soon after a change and less and less often then;
 * least often from who has read nothing since the last one: many idle forks shall cost next to
 * nothing.
 */
static uint64_t heartbeat(const struct seed_fork *fork, const struct source_grant *grant) {
  uint64_t most_ns = fork->seed->settings.lease_ns / SEED_HEARTBEATS_PER_LEASE;
  uint64_t least_ns = most_ns < HEARTBEAT_LEAST_NS ? most_ns : HEARTBEAT_LEAST_NS;
  if (!seed_rdma_is_reader(fork, reactor_now(fork->seed->reactor))) return most_ns;
  bool changed = grant->window.bytes != fork->grant.window_bytes || grant->rate != fork->grant.rate;
  if (changed || fork->heartbeat_ns == 0) return least_ns;
  bool idle = fork->admission->received_bytes == fork->heard_bytes;
  if (idle)
    most_ns = fork->seed->settings.lease_ns * 3 / 10; /* a lost one is made up for in time */
  return 2 * fork->heartbeat_ns < most_ns ? 2 * fork->heartbeat_ns : most_ns;
}

static void grant(struct seed_fork *fork, struct source_grant *grant_out) {
  const struct sprout_seed *seed = fork->seed;
  *grant_out = (struct source_grant){.generation = seed->model->manifest->version.generation,
                                     .draining = seed->draining};
  if (seed_rdma_is_reader(fork, reactor_now(seed->reactor)))
    seed_rdma_grant(fork, grant_out);
  else
    grant_http(fork, grant_out);
  fork->heartbeat_ns = heartbeat(fork, grant_out);
  fork->heard_bytes = fork->admission->received_bytes;
  fork->window_bytes_before = fork->window_bytes;
  fork->window_bytes = grant_out->window.bytes;
  rdma_grant_given(&fork->grant, grant_out->window.bytes, grant_out->rate);
}

void seed_fork_describe(struct seed_fork *fork, bool opening, struct wire_opened *opened_out) {
  struct sprout_seed *seed = fork->seed;
  const struct admission_fork *admission = fork->admission;
  *opened_out = (struct wire_opened){.queued = admission->state == ADMISSION_QUEUED,
                                     .position = admission_position(seed->admission, admission),
                                     .protocol = WIRE_PROTOCOL_MAX,
                                     .lease_ns = seed->settings.lease_ns};
  for (size_t i = 0; i < WIRE_ID_BYTES; i++) opened_out->fork_id[i] = admission->id[i];
  if (!opened_out->queued) seed_rdma_invite(fork, opening, opened_out);
  grant(fork, &opened_out->grant);
  opened_out->heartbeat_ns = fork->heartbeat_ns;
}

void seed_forks_share_rate(struct sprout_seed *seed) {
  struct rdma_rates rates = rdma_grant_rates(seed->settings.max_rate,
                                             admission_running(seed->admission), seed->rdma_forks);
  if (rates.rest != http_pace_rate(seed->pace)) http_pace_set_rate(seed->pace, rates.rest);
}

/* --- figures --- */

void seed_fork_rate(struct seed_fork *fork, uint64_t now_ns) {
  struct admission_fork *admission = fork->admission;
  uint64_t bytes = fork->account.sent_bytes + fork->rdma_bytes;
  admission->sent_bytes = bytes;
  admission->inflight_bytes = fork->inflight_bytes;
  uint64_t past_ns = now_ns - fork->rated_ns;
  /* What is read one-sidedly is known from heartbeats alone. */
  bool between = fork->reads_rdma && bytes == fork->rated_bytes;
  if (past_ns < RATE_PERIOD_NS || (between && past_ns < fork->seed->settings.lease_ns)) return;
  double rate = (double)(bytes - fork->rated_bytes) * 1e9 / (double)past_ns;
  double old = (double)fork->rate_bytes_per_second;
  fork->rate_bytes_per_second = (uint64_t)(fork->rated_bytes == 0 ? rate : (old + rate) / 2);
  fork->rated_ns = now_ns;
  fork->rated_bytes = bytes;
}

/* --- ends --- */

void seed_fork_release(struct seed_fork *fork) {
  if (fork->admission != NULL || !list_empty(&fork->reads)) return;
  assert(fork->account.sender_count == 0);
  free(fork);
}

/* The admission's part is over: says so, breaks what is on its way. */
static void detach(struct seed_fork *fork) {
  struct sprout_seed *seed = fork->seed;
  struct admission_fork *admission = fork->admission;
  seed_rdma_leave(fork);
  admission->sent_bytes = fork->account.sent_bytes + fork->rdma_bytes;
  admission->inflight_bytes = 0;
  admission->owner = NULL;
  fork->admission = NULL;
  seed->forks_finished++;
  seed_metrics_fork_finished(seed, admission);
  log_write(LOG_INFO, "seed", "fork from %s ended: %s%s%s, %llu bytes sent", admission->peer,
            sprout_status_info_of(admission->result)->name,
            admission->reason[0] != '\0' ? ": " : "", admission->reason,
            (unsigned long long)admission->sent_bytes);
  read_abort_all(fork);
  seed_fork_release(fork);
}

void seed_fork_close(struct seed_fork *fork, enum sprout_status result, const char *reason) {
  struct sprout_seed *seed = fork->seed;
  admission_close(seed->admission, fork->admission, result, reason, reactor_now(seed->reactor));
  detach(fork);
  promote(seed);
  seed_drain_look(seed);
}

struct close_order {
  struct sprout_seed *seed;
  bool queued_only;
  enum sprout_status result;
  const char *reason;
};

static void close_one(struct admission_fork *admission, void *context) {
  const struct close_order *order = context;
  struct sprout_seed *seed = order->seed;
  if (admission->state == ADMISSION_CLOSED) return;
  if (order->queued_only && admission->state != ADMISSION_QUEUED) return;
  struct seed_fork *fork = admission->owner;
  admission_close(seed->admission, admission, order->result, order->reason,
                  reactor_now(seed->reactor));
  detach(fork);
}

void seed_fork_close_all(struct sprout_seed *seed, bool queued_only, enum sprout_status result,
                         const char *reason) {
  struct close_order order = {seed, queued_only, result, reason};
  admission_each(seed->admission, close_one, &order);
  seed_forks_share_rate(seed);
  seed_lease_watch(seed);
  seed_drain_look(seed);
}

/* --- leases --- */

static void promote(struct sprout_seed *seed) {
  struct admission_fork *admission;
  while ((admission = admission_promote(seed->admission, reactor_now(seed->reactor))) != NULL)
    seed_metrics_fork_started(seed, admission);
  seed_forks_share_rate(seed);
  seed_lease_watch(seed);
}

void seed_lease_watch(struct sprout_seed *seed) {
  uint64_t expiry_ns = admission_next_expiry(seed->admission);
  if (expiry_ns == UINT64_MAX)
    reactor_timer_stop(seed->reactor, &seed->lease_timer);
  else
    reactor_timer_start(seed->reactor, &seed->lease_timer, expiry_ns);
}

void seed_lease_fired(struct timer *timer) {
  struct sprout_seed *seed = container_of(timer, struct sprout_seed, lease_timer);
  struct admission_fork *admission;
  uint64_t now_ns = reactor_now(seed->reactor);
  while ((admission = admission_expire(seed->admission, now_ns)) != NULL) detach(admission->owner);
  promote(seed);
  seed_drain_look(seed);
}
