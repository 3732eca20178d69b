/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which lane carries a remote source's reads. RDMA where both ends have it; TCP when it cannot be
 * set up, or has failed twice while it read. A lane that fails before a byte has landed hands its
 * reads over; afterwards the source fails, and its next life begins with a fresh connection.
 */
#include "core/log.h"
#include "net/remote_source_internal.h"

#include <assert.h>

#define STRIKES_MAX 2u
/* A chunk is cut up while the next one waits, however small the seed's window. */
#define ENGINE_WINDOW_MIN (2ull * SPROUT_CHUNK_BYTES)

static void lane_ready(struct lane *lane);
static void lane_failed(struct lane *lane, const struct sprout_error *error);
static void lane_stopped(struct lane *lane);

static const struct lane_listener listener = {
    .ready = lane_ready, .failed = lane_failed, .stopped = lane_stopped};

/* --- grants --- */

struct source_grant remote_lanes_engine_grant(const struct remote_source *source) {
  struct source_grant grant = source->grant;
  if (source->lane == NULL || source->lane->ordered) return grant;
  if (grant.window.bytes < ENGINE_WINDOW_MIN) grant.window.bytes = ENGINE_WINDOW_MIN;
  grant.window.depth = grant.window.operations;
  return grant;
}

void remote_lanes_grant(struct remote_source *source, bool changed) {
  if (source->lane == NULL) return;
  source->lane->ops->grant(source->lane, &source->grant.window, source->post_until_ns);
  if (source->state != REMOTE_READY || !changed) return;
  struct source_grant grant = remote_lanes_engine_grant(source);
  source->base.listener->granted(&source->base, &grant);
}

/* --- starting --- */

bool remote_lanes_want_rdma(const struct remote_source *source) {
  return source->rdma != NULL && (source->strikes < STRIKES_MAX || source->tcp == NULL);
}

static void start_lane(struct remote_source *source, struct lane *lane,
                       const struct wire_opened *opened) {
  const struct lane_start start = {.generation = source->generation,
                                   .object_count = source->object_count,
                                   .fork_id = source->fork_hex,
                                   .opened = opened};
  source->lane = lane;
  source->base.transport = lane->transport;
  source->base.ordered = lane->ordered;
  if (lane == source->rdma)
    source->rdma_started = true;
  else
    source->tcp_started = true;
  lane->ops->start(lane, &start);
  lane->ops->grant(lane, &source->grant.window, source->post_until_ns);
}

static void note_fallback(struct remote_source *source, const struct sprout_error *error) {
  source->base.fallbacks++;
  log_write(LOG_WARNING, "fork", "%s is read over TCP instead of RDMA: %s%s%s", source->base.url,
            error->message, error->hint[0] != '\0' ? " - " : "", error->hint);
}

/* A seed that has read over RDMA before is one whose link is down, not one without RDMA. */
static void explain_no_endpoint(const struct remote_source *source, struct sprout_error *error) {
  if (source->proven)
    (void)sprout_error_set(error, SPROUT_DISCONNECTED, 0,
                           "Look at the link (rdma link), or fork with --transport auto.",
                           "the seed has no RDMA endpoint any more: its link is down");
  else
    (void)sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                           "Start the seed with --transport rdma,tcp on a machine with an RDMA "
                           "device, or fork with --transport auto.",
                           "the seed offers no RDMA endpoint");
}

/* RDMA is wanted, and cannot be had in this life. */
static void start_without_rdma(struct remote_source *source, const struct wire_opened *opened) {
  struct sprout_error error;
  explain_no_endpoint(source, &error);
  if (opened->endpoint_count > 0)
    (void)sprout_error_set(&error, SPROUT_DISCONNECTED, 0, NULL, "reading over RDMA failed twice");
  if (source->tcp == NULL) {
    remote_source_fail(source, &error);
    return;
  }
  /* Not having it is no fall: the seed says so in its own log. */
  if (source->proven) note_fallback(source, &error);
  start_lane(source, source->tcp, opened);
}

void remote_lanes_start(struct remote_source *source, const struct wire_opened *opened) {
  source->state = REMOTE_CONNECTING;
  if (remote_lanes_want_rdma(source) && opened->endpoint_count > 0)
    start_lane(source, source->rdma, opened);
  else if (source->rdma != NULL)
    start_without_rdma(source, opened);
  else
    start_lane(source, source->tcp, opened);
}

static struct remote_source *source_of(struct lane *lane) {
  return lane->context;
}

static void lane_ready(struct lane *lane) {
  struct remote_source *source = source_of(lane);
  if (source->lane != lane || source->state != REMOTE_CONNECTING) return;
  source->state = REMOTE_READY;
  if (lane == source->rdma) source->proven = true;
  struct source_grant grant = remote_lanes_engine_grant(source);
  source->base.listener->ready(&source->base, &grant);
}

/* --- failing --- */

/* Another lane may carry on with what this one was given: nothing has landed, and it is not the
 * seed's bytes or the lease that are gone. */
static bool may_fall_back(const struct remote_source *source, const struct lane *lane,
                          const struct sprout_error *error) {
  bool again = sprout_status_info_of(error->status)->retry == SPROUT_RETRY_RESTART;
  return lane == source->rdma && source->tcp != NULL && lane->landed_bytes == 0 &&
         error->status != SPROUT_STALE && !(again && source->state == REMOTE_READY);
}

static void hand_over(struct remote_source *source, struct lane *from) {
  const struct wire_opened none = {.endpoint_count = 0};
  struct list_node *node;
  start_lane(source, source->tcp, &none);
  while ((node = list_take(&from->returned)) != NULL)
    source->tcp->ops->post(source->tcp, container_of(node, struct source_read, node));
  source->tcp->ops->flush(source->tcp);
  /* The engine's credits are those of the other lane now. */
  struct source_grant grant = remote_lanes_engine_grant(source);
  if (source->state == REMOTE_READY) source->base.listener->granted(&source->base, &grant);
}

static void stop_lane(struct remote_source *source, struct lane *lane) {
  bool *started = lane == source->rdma ? &source->rdma_started : &source->tcp_started;
  bool *stopping = lane == source->rdma ? &source->rdma_stopping : &source->tcp_stopping;
  if (lane == NULL || !*started || *stopping) return;
  *stopping = true;
  source->open_parts++;
  lane->ops->stop(lane);
}

static void lane_failed(struct lane *lane, const struct sprout_error *error) {
  struct remote_source *source = source_of(lane);
  if (source->lane != lane || source->state >= REMOTE_FAILING) return;
  if (may_fall_back(source, lane, error)) {
    note_fallback(source, error);
    hand_over(source, lane);
    stop_lane(source, lane);
    return;
  }
  if (lane == source->rdma && source->state == REMOTE_READY)
    source->strikes = lane->landed_bytes >= SPROUT_CHUNK_BYTES ? 1 : source->strikes + 1;
  remote_source_fail_lane(source, error);
}

/* --- ending --- */

static void take_returned(struct remote_source *source, struct lane *lane) {
  struct list_node *node;
  while ((node = list_take(&lane->returned)) != NULL) list_append(&source->unposted, node);
}

static void lane_stopped(struct lane *lane) {
  struct remote_source *source = source_of(lane);
  if (lane == source->rdma)
    source->rdma_started = source->rdma_stopping = false;
  else
    source->tcp_started = source->tcp_stopping = false;
  take_returned(source, lane);
  remote_source_part_ended(source);
}

void remote_lanes_stop(struct remote_source *source, enum sprout_status status) {
  source->give_back = status;
  source->lane = NULL;
  stop_lane(source, source->rdma);
  stop_lane(source, source->tcp);
}

void remote_lanes_give_back(struct remote_source *source) {
  struct list_node *node;
  while ((node = list_take(&source->unposted)) != NULL) {
    struct source_read *read = container_of(node, struct source_read, node);
    read->done(read, source->give_back);
  }
}

/* --- reads --- */

void remote_lanes_post(struct source *base, struct source_read *read) {
  struct remote_source *source = remote_of(base);
  if (source->lane != NULL && source->state == REMOTE_READY) {
    source->lane->ops->post(source->lane, read);
    return;
  }
  /* Given back from the reactor's queue: no op calls back. */
  list_append(&source->unposted, &read->node);
  reactor_defer(source->reactor, &source->tell);
}

void remote_lanes_flush(struct source *base) {
  struct remote_source *source = remote_of(base);
  if (source->lane != NULL && source->state == REMOTE_READY) source->lane->ops->flush(source->lane);
}

/* --- making --- */

static void want_placement(void *context, uint64_t since) {
  remote_control_placement(context, since);
}

static void adopt(struct remote_source *source, struct lane *lane) {
  lane->listener = &listener;
  lane->context = source;
}

enum sprout_status remote_lanes_create(struct remote_source *source,
                                       const struct remote_source_options *options) {
  const struct tcp_lane_options tcp = {.address = options->address,
                                       .host = source->host,
                                       .token = source->token,
                                       .connections = options->connections};
  enum sprout_status status = SPROUT_OK;
  list_init(&source->unposted);
  if (!options->without_tcp) status = tcp_lane_create(source->reactor, &tcp, &source->tcp);
  if (status == SPROUT_OK && options->rdma != NULL) {
    struct rdma_lane_options rdma = *options->rdma;
    rdma.want_placement = want_placement;
    rdma.context = source;
    status = rdma_lane_create(&rdma, &source->rdma);
  }
  if (source->tcp != NULL) adopt(source, source->tcp);
  if (source->rdma != NULL) adopt(source, source->rdma);
  return status;
}

void remote_lanes_destroy(struct remote_source *source) {
  if (source->tcp != NULL) source->tcp->ops->destroy(source->tcp);
  if (source->rdma != NULL) source->rdma->ops->destroy(source->rdma);
}
