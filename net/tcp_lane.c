/* SPDX-License-Identifier: Apache-2.0 */
#include "net/tcp_lane.h"

#include "core/limits.h"
#include "net/http_client.h"
#include "net/http_request.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define READS 64u
/* Heads of read answers are about 150 bytes: what comes with them beyond that is copied: 16 KiB of
 * 4 MiB. */
#define INPUT_BYTES 16384u

enum tcp_lane_state {
  TCP_LANE_IDLE,    /* waits for start */
  TCP_LANE_READY,   /* reads */
  TCP_LANE_FAILING, /* waits for its connections to end, then tells failed */
  TCP_LANE_FAILED,  /* waits for stop */
  TCP_LANE_STOPPING /* waits for its connections to end, then tells stopped */
};

struct tcp_lane;

struct tcp_read {
  struct http_call call;
  struct tcp_lane *lane;
  struct source_read *read; /* NULL: the slot is free */
  struct wire_buffer request;
};

struct tcp_lane {
  struct lane base;
  struct reactor *reactor;
  struct tcp_lane_options options;
  enum tcp_lane_state state;
  struct http_client *clients[TCP_LANE_CONNECTIONS_MAX];
  uint32_t open_clients; /* that are being closed */
  char fork_id[2 * WIRE_ID_BYTES + 1];
  uint64_t generation, post_until_ns;
  struct tcp_read reads[READS];
  struct list_node posted; /* struct source_read, not sent yet */
  struct wire_range ranges[LIMIT_READ_RANGES];
  struct wire_buffer body;
  struct sprout_error error;
  bool tells_ready;
  struct deferred later; /* answers that must not come from inside an op */
};

static void flush(struct lane *base);

static struct tcp_lane *lane_of(struct lane *base) {
  return container_of(base, struct tcp_lane, base);
}

/* --- ending --- */

static void client_closed(void *context) {
  struct tcp_lane *lane = context;
  assert(lane->open_clients > 0);
  if (--lane->open_clients == 0) reactor_defer(lane->reactor, &lane->later);
}

static void close_clients(struct tcp_lane *lane, enum sprout_status status) {
  lane->open_clients = lane->options.connections;
  for (uint32_t i = 0; i < lane->options.connections; i++)
    http_client_close(lane->clients[i], status, client_closed, lane);
}

static void return_posted(struct tcp_lane *lane) {
  struct list_node *node;
  while ((node = list_take(&lane->posted)) != NULL) list_append(&lane->base.returned, node);
}

static void tell(struct deferred *deferred) {
  struct tcp_lane *lane = container_of(deferred, struct tcp_lane, later);
  const struct lane_listener *listener = lane->base.listener;
  if (lane->state == TCP_LANE_READY && lane->tells_ready) {
    lane->tells_ready = false;
    listener->ready(&lane->base);
  } else if (lane->state == TCP_LANE_FAILING && lane->open_clients == 0) {
    return_posted(lane);
    lane->state = TCP_LANE_FAILED;
    listener->failed(&lane->base, &lane->error);
  } else if (lane->state == TCP_LANE_STOPPING && lane->open_clients == 0) {
    return_posted(lane);
    lane->state = TCP_LANE_IDLE;
    listener->stopped(&lane->base);
  }
}

static void fail(struct tcp_lane *lane, const struct sprout_error *error) {
  if (lane->state != TCP_LANE_READY) return;
  lane->state = TCP_LANE_FAILING;
  lane->error = *error;
  close_clients(lane, error->status);
}

static void stop(struct lane *base) {
  struct tcp_lane *lane = lane_of(base);
  enum tcp_lane_state before = lane->state;
  assert(before != TCP_LANE_IDLE && before != TCP_LANE_STOPPING);
  lane->state = TCP_LANE_STOPPING;
  if (before == TCP_LANE_READY)
    close_clients(lane, SPROUT_CANCELLED);
  else if (lane->open_clients == 0)
    reactor_defer(lane->reactor, &lane->later);
}

/* --- reads --- */

static void read_landed(struct http_call *call, const void *data, uint64_t length_bytes) {
  struct tcp_read *slot = container_of(call, struct tcp_read, call);
  slot->lane->base.landed_bytes += length_bytes;
  slot->read->landed_bytes += length_bytes;
  slot->read->landed(slot->read, data, length_bytes);
}

static enum sprout_status status_of_answer(const struct http_call *call) {
  if (call->status_code == 200) return SPROUT_OK;
  struct sprout_error error;
  wire_error_decode_json(call->body, call->body_bytes, call->status_code, &error);
  return error.status;
}

static void read_done(struct http_call *call, const struct sprout_error *error) {
  struct tcp_read *slot = container_of(call, struct tcp_read, call);
  struct tcp_lane *lane = slot->lane;
  struct source_read *read = slot->read;
  slot->read = NULL;
  if (error->status == SPROUT_OK) {
    read->done(read, status_of_answer(call));
  } else {
    list_append(&lane->base.returned, &read->node);
    fail(lane, error);
  }
  if (lane->state == TCP_LANE_READY && !list_empty(&lane->posted)) flush(&lane->base);
}

static struct tcp_read *free_slot(struct tcp_lane *lane) {
  for (uint32_t i = 0; i < READS; i++) {
    if (!lane->reads[i].read) return &lane->reads[i];
  }
  return NULL;
}

static struct http_client *least_loaded(const struct tcp_lane *lane) {
  struct http_client *best = lane->clients[0];
  for (uint32_t i = 1; i < lane->options.connections; i++) {
    if (http_client_pending(lane->clients[i]) < http_client_pending(best)) best = lane->clients[i];
  }
  return best;
}

static SPROUT_MUST_CHECK enum sprout_status
encode_read(struct tcp_lane *lane, struct tcp_read *slot, const struct source_read *read) {
  assert(read->range_count <= LIMIT_READ_RANGES);
  for (uint32_t i = 0; i < read->range_count; i++) {
    lane->ranges[i] = (struct wire_range){.object = read->ranges[i].object,
                                          .offset = read->ranges[i].offset,
                                          .length_bytes = read->ranges[i].length_bytes,
                                          .count = 1};
  }
  struct wire_read message = {
      .generation = lane->generation, .ranges = lane->ranges, .range_count = read->range_count};
  lane->body.length_bytes = 0;
  enum sprout_status status = wire_read_encode(&message, &lane->body);
  if (status != SPROUT_OK) return status;
  char target[64];
  snprintf(target, sizeof target, "/v1/forks/%s/read", lane->fork_id);
  struct http_request request = {.method = "POST",
                                 .target = target,
                                 .host = lane->options.host,
                                 .token = lane->options.token[0] ? lane->options.token : NULL,
                                 .content_type = WIRE_CONTENT_TYPE,
                                 .body = lane->body.data,
                                 .body_bytes = lane->body.length_bytes};
  return http_request_build(&request, &slot->request);
}

static void send_read(struct tcp_lane *lane, struct tcp_read *slot, struct source_read *read) {
  enum sprout_status status = encode_read(lane, slot, read);
  if (status != SPROUT_OK) {
    struct sprout_error error;
    list_prepend(&lane->posted, &read->node); /* given back when the lane has failed */
    sprout_error_set(&error, status, 0, NULL, "no memory for a request");
    fail(lane, &error);
    return;
  }
  slot->read = read;
  slot->call.request = slot->request.data;
  slot->call.request_bytes = slot->request.length_bytes;
  slot->call.sink = read->iov;
  slot->call.sink_count = read->iov_count;
  slot->call.sink_bytes = read->length_bytes;
  http_client_call(least_loaded(lane), &slot->call);
}

/* --- ops --- */

static void start(struct lane *base, const struct lane_start *start) {
  struct tcp_lane *lane = lane_of(base);
  assert(lane->state == TCP_LANE_IDLE && list_empty(&base->returned));
  lane->state = TCP_LANE_READY;
  lane->tells_ready = true;
  lane->generation = start->generation;
  snprintf(lane->fork_id, sizeof lane->fork_id, "%s", start->fork_id);
  base->landed_bytes = 0;
  reactor_defer(lane->reactor, &lane->later);
}

static void post(struct lane *base, struct source_read *read) {
  struct tcp_lane *lane = lane_of(base);
  read->landed_bytes = 0;
  list_append(lane->state == TCP_LANE_READY ? &lane->posted : &base->returned, &read->node);
}

/* Sends what was posted, as far as lease and slots allow. */
static void flush(struct lane *base) {
  struct tcp_lane *lane = lane_of(base);
  struct tcp_read *slot;
  if (reactor_now(lane->reactor) > lane->post_until_ns) return;
  while (lane->state == TCP_LANE_READY && !list_empty(&lane->posted) && (slot = free_slot(lane)))
    send_read(lane, slot, container_of(list_take(&lane->posted), struct source_read, node));
  if (lane->state != TCP_LANE_READY) return;
  for (uint32_t i = 0; i < lane->options.connections; i++) http_client_flush(lane->clients[i]);
}

static void grant(struct lane *base, const struct window_limits *window, uint64_t post_until_ns) {
  struct tcp_lane *lane = lane_of(base);
  (void)window; /* the engine keeps it: a read goes out whole */
  lane->post_until_ns = post_until_ns;
  if (!list_empty(&lane->posted)) flush(base); /* reads may have waited for the lease */
}

static void destroy(struct lane *base) {
  struct tcp_lane *lane = lane_of(base);
  assert(lane->state == TCP_LANE_IDLE && lane->open_clients == 0);
  reactor_defer_cancel(lane->reactor, &lane->later);
  for (uint32_t i = 0; i < lane->options.connections; i++) http_client_destroy(lane->clients[i]);
  for (uint32_t i = 0; i < READS; i++) wire_buffer_destroy(&lane->reads[i].request);
  wire_buffer_destroy(&lane->body);
  free(lane);
}

static SPROUT_MUST_CHECK enum sprout_status make_clients(struct tcp_lane *lane) {
  const struct http_client_options options = {
      .address = lane->options.address, .name = NULL, .input_bytes = INPUT_BYTES};
  enum sprout_status status = SPROUT_OK;
  for (uint32_t i = 0; i < lane->options.connections && status == SPROUT_OK; i++)
    status = http_client_create(lane->reactor, &options, &lane->clients[i]);
  return status;
}

enum sprout_status tcp_lane_create(struct reactor *reactor, const struct tcp_lane_options *options,
                                   struct lane **lane_out) {
  static const struct lane_ops ops = {.start = start,
                                      .post = post,
                                      .flush = flush,
                                      .grant = grant,
                                      .stop = stop,
                                      .destroy = destroy};
  struct tcp_lane *lane = calloc(1, sizeof *lane);
  if (!lane) return SPROUT_NO_MEMORY;
  lane->base = (struct lane){.ops = &ops, .transport = "tcp", .ordered = true};
  lane->reactor = reactor;
  lane->options = *options;
  if (lane->options.connections == 0) lane->options.connections = 1;
  if (lane->options.connections > TCP_LANE_CONNECTIONS_MAX)
    lane->options.connections = TCP_LANE_CONNECTIONS_MAX;
  lane->later.run = tell;
  list_init(&lane->base.returned);
  list_init(&lane->posted);
  for (uint32_t i = 0; i < READS; i++) {
    lane->reads[i].lane = lane;
    lane->reads[i].call.landed = read_landed;
    lane->reads[i].call.done = read_done;
  }
  if (make_clients(lane) != SPROUT_OK) {
    destroy(&lane->base);
    return SPROUT_NO_MEMORY;
  }
  *lane_out = &lane->base;
  return SPROUT_OK;
}
