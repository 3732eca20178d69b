/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seed's publication over RDMA: which forks are invited, what they are granted, and what happens
 * when there is no RDMA (any more). The connections themselves are net/rdma_seed.h's.
 */
#include "core/log.h"
#include "net/seed_private.h"

#include <errno.h>
#include <stdlib.h>

static struct seed_fork *fork_of(const struct rdma_guest *guest) {
  return container_of(guest, struct seed_fork, guest);
}

bool seed_rdma_is_open(const struct sprout_seed *seed) {
  struct rdma_seed_view view;
  if (seed->rdma == NULL) return false;
  rdma_seed_look(seed->rdma, &view);
  return view.state == RDMA_SEED_OPEN;
}

/* --- opening --- */

/* A machine without any device is no surprise. */
static void fall_back(struct sprout_seed *seed, const struct sprout_error *error) {
  seed->rdma_error = *error;
  log_write(error->native == ENODEV ? LOG_INFO : LOG_WARNING, "seed",
            "weights are served over TCP: %s - %s", error->message, error->hint);
  seed_metrics_fallback(seed, error->status);
}

static void settle(struct sprout_seed *seed) {
  if (seed->rdma_settled) return;
  seed->rdma_settled = true;
  service_notify(seed->service);
}

static void publication_opened(void *context) {
  struct sprout_seed *seed = context;
  if (seed->settings.transports.automatic) settle(seed);
}

static void publication_ready(void *context) {
  settle(context);
}

static void publication_failed(void *context, const struct sprout_error *error) {
  struct sprout_seed *seed = context;
  seed->rdma_error = *error;
  if (!seed->rdma_settled) { /* seed_rdma_open takes it from here */
    seed->rdma_refused = true;
    settle(seed);
    return;
  }
  if (seed->settings.transports.tcp) {
    fall_back(seed, error);
    return;
  }
  seed->ready = false;
  log_write(LOG_ERROR, "seed", "the seed serves nothing any more: %s - %s", error->message,
            error->hint);
}

static bool admits(void *context, const struct rdma_guest *guest) {
  const struct sprout_seed *seed = context;
  const struct admission_fork *admission = fork_of(guest)->admission;
  return admission != NULL && admission->state == ADMISSION_RUNNING &&
         admission->lease_until_ns > reactor_now(seed->reactor);
}

static uint32_t read_depth(void *context, const struct rdma_guest *guest) {
  (void)context;
  (void)guest;
  return RDMA_READ_DEPTH;
}

static void count_reader(struct seed_fork *fork, bool reads) {
  if (fork->reads_rdma == reads) return;
  fork->reads_rdma = reads;
  if (reads)
    fork->seed->rdma_forks++;
  else
    fork->seed->rdma_forks--;
  if (reads) fork->admission->transport = "rdma";
}

static void links_changed(void *context, struct rdma_guest *guest) {
  count_reader(fork_of(guest), guest->link_count > 0);
  seed_forks_share_rate(context);
}

static void refused(void *context, enum rdma_refusal refusal) {
  seed_metrics_rdma_refused(context, refusal);
  if (refusal == RDMA_REFUSED_LIMIT) seed_metrics_limit(context, "rdma_links");
}

/* The regions, and the page of the fence. */
static SPROUT_MUST_CHECK enum sprout_status create(struct sprout_seed *seed,
                                                   struct rdma_seed_options *options) {
  const struct model *model = seed->model;
  struct rdma_span *spans = calloc(model->region_count + 1u, sizeof(*spans));
  if (spans == NULL) return SPROUT_NO_MEMORY;
  for (uint32_t i = 0; i < model->region_count; i++)
    spans[i] = (struct rdma_span){.address = (unsigned char *)(uintptr_t)model->regions[i].base,
                                  .length_bytes = model->regions[i].length_bytes,
                                  .dmabuf_fd = -1};
  options->spans = spans;
  options->span_count = model->region_count;
  if (seed->fence.word != NULL) {
    spans[options->span_count++] = (struct rdma_span){.address = (unsigned char *)seed->fence.word,
                                                      .length_bytes = FENCE_WORD_BYTES,
                                                      .dmabuf_fd = -1};
    options->fence_address = (uint64_t)(uintptr_t)seed->fence.word;
  }
  enum sprout_status status = rdma_seed_create(options, &seed->rdma);
  free(spans);
  return status;
}

static void start(void *context) {
  struct sprout_seed *seed = context;
  seed->rdma_started = true;
  rdma_seed_start(seed->rdma);
}

static SPROUT_MUST_CHECK enum sprout_status publish(struct sprout_seed *seed, const char *devices,
                                                    struct sprout_error *error) {
  struct rdma_seed_options options = {.service = seed->service,
                                      .port = seed->settings.rdma_port,
                                      .max_links = LIMIT_RDMA_LINKS,
                                      .listener = {.admits = admits,
                                                   .read_depth = read_depth,
                                                   .links_changed = links_changed,
                                                   .refused = refused,
                                                   .opened = publication_opened,
                                                   .ready = publication_ready,
                                                   .failed = publication_failed,
                                                   .context = seed}};
  const struct rdma_wish wish = {.devices = devices, .gid_index = seed->settings.rdma_gid_index};
  enum sprout_status status = rdma_select(&wish, &options.selection, error);
  if (status != SPROUT_OK) return status;
  if (create(seed, &options) != SPROUT_OK)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory to publish over RDMA");
  service_call(seed->service, start, seed);
  service_wait(seed->service, &seed->rdma_settled);
  /* One that fails later does so on the reactor's thread, perhaps just now. */
  if (!seed->rdma_refused) return SPROUT_OK;
  *error = seed->rdma_error;
  return error->status;
}

enum sprout_status seed_rdma_open(struct sprout_seed *seed,
                                  const struct sprout_seed_options *options,
                                  struct sprout_error *error) {
  const struct transports *transports = &seed->settings.transports;
  struct sprout_error reason;
  if (!transports->rdma) return SPROUT_OK;
  enum sprout_status status = publish(seed, options->rdma_devices, &reason);
  if (status == SPROUT_OK) return SPROUT_OK;
  /* What was asked for by a wrong name is never done without. */
  if (transports->automatic && status != SPROUT_INVALID) {
    fall_back(seed, &reason);
    return SPROUT_OK;
  }
  if (error != NULL) *error = reason;
  return status;
}

static void closed(void *context) {
  struct sprout_seed *seed = context;
  seed->rdma_closed = true;
  service_notify(seed->service);
}

static void begin_close(void *context) {
  struct sprout_seed *seed = context;
  rdma_seed_close(seed->rdma, closed, seed);
}

void seed_rdma_abandon(struct sprout_seed *seed) {
  if (!seed->rdma_started) return;
  service_call(seed->service, begin_close, seed);
  service_wait(seed->service, &seed->rdma_closed);
}

/* --- forks --- */

void seed_rdma_invite(struct seed_fork *fork, bool opening, struct wire_opened *opened) {
  struct sprout_seed *seed = fork->seed;
  if (seed->rdma == NULL || !fork->wants_rdma || fork->guest.proven) return;
  /* An open that is repeated lost its answer, and with it the nonces. */
  if (fork->invited && !opening) return;
  opened->endpoint_count = rdma_seed_invite(seed->rdma, &fork->guest, opened->endpoints);
  fork->invited = true;
  fork->invited_ns = reactor_now(seed->reactor);
}

/* Who has just been invited will connect any moment. */
static bool is_expected(const struct seed_fork *fork, uint64_t now_ns) {
  return fork->invited && !fork->guest.proven && list_linked(&fork->guest.node) &&
         now_ns - fork->invited_ns < fork->seed->settings.lease_ns / SEED_HEARTBEATS_PER_LEASE;
}

bool seed_rdma_is_reader(const struct seed_fork *fork, uint64_t now_ns) {
  return fork->reads_rdma || is_expected(fork, now_ns);
}

void seed_rdma_grant(struct seed_fork *fork, struct source_grant *grant_out) {
  const struct sprout_seed *seed = fork->seed;
  uint32_t readers = seed->rdma_forks + (fork->reads_rdma ? 0 : 1);
  grant_out->window =
      (struct window_limits){.operations = RDMA_WINDOW_OPERATIONS,
                             .bytes = rdma_grant_window(seed->settings.inflight_bytes, readers),
                             .depth = RDMA_READ_DEPTH};
  grant_out->rate =
      rdma_grant_rates(seed->settings.max_rate, admission_running(seed->admission), readers).each;
}

void seed_rdma_received(struct seed_fork *fork, uint64_t received_bytes) {
  if (!fork->guest.proven || received_bytes <= fork->account.sent_bytes) return;
  uint64_t bytes = received_bytes - fork->account.sent_bytes;
  if (bytes <= fork->rdma_bytes) return;
  fork->seed->rdma_sent_bytes += bytes - fork->rdma_bytes;
  fork->rdma_bytes = bytes;
}

bool seed_rdma_heard(struct seed_fork *fork, const struct wire_heartbeat *heartbeat, char *reason,
                     size_t reason_bytes) {
  if (!fork->guest.proven) return true;
  seed_rdma_received(fork, heartbeat->received_bytes);
  return rdma_grant_judge(&fork->grant, heartbeat->peak_inflight_bytes, heartbeat->received_bytes,
                          reactor_now(fork->seed->reactor), reason, reason_bytes);
}

void seed_rdma_note_http(struct seed_fork *fork) {
  if (!fork->reads_rdma) fork->admission->transport = "tcp";
  if (fork->fell_back || !fork->invited || fork->reads_rdma) return;
  fork->fell_back = true;
  seed_metrics_fallback(fork->seed, SPROUT_DISCONNECTED);
}

void seed_rdma_leave(struct seed_fork *fork) {
  rdma_guest_leave(fork->seed->rdma, &fork->guest);
  count_reader(fork, false);
}
