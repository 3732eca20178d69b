/* SPDX-License-Identifier: Apache-2.0 */
#include "net/tcp_source_internal.h"

#include <assert.h>
#include <stdio.h>

static void read_landed(struct http_call *call, const void *data, uint64_t length_bytes) {
  struct tcp_read *slot = container_of(call, struct tcp_read, call);
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
  struct tcp_source *source = slot->source;
  struct source_read *read = slot->read;
  slot->read = NULL;
  enum sprout_status status = error->status == SPROUT_OK ? status_of_answer(call) : error->status;
  bool lost = error->status != SPROUT_OK && source->state < TCP_FAILING;
  read->done(read, status);
  if (lost) tcp_source_fail(source, error);
  if (source->state == TCP_READY && !list_empty(&source->posted)) tcp_read_flush(&source->base);
}

void tcp_read_init(struct tcp_source *source) {
  list_init(&source->posted);
  for (uint32_t i = 0; i < TCP_READS; i++) {
    struct tcp_read *slot = &source->reads[i];
    slot->source = source;
    slot->call.landed = read_landed;
    slot->call.done = read_done;
  }
}

void tcp_read_post(struct source *base, struct source_read *read) {
  struct tcp_source *source = tcp_of(base);
  read->landed_bytes = 0;
  list_append(&source->posted, &read->node);
  /* Given back from the reactor's queue: no op calls back. */
  if (source->state != TCP_READY) reactor_defer(source->reactor, &source->tell);
}

void tcp_read_drop_posted(struct tcp_source *source, enum sprout_status status) {
  struct list_node *node;
  while ((node = list_take(&source->posted))) {
    struct source_read *read = container_of(node, struct source_read, node);
    read->done(read, status);
  }
}

static struct tcp_read *free_slot(struct tcp_source *source) {
  for (uint32_t i = 0; i < TCP_READS; i++) {
    if (!source->reads[i].read) return &source->reads[i];
  }
  return NULL;
}

static uint32_t least_loaded(const struct tcp_source *source) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < source->connections; i++) {
    if (http_client_pending(source->data[i]) < http_client_pending(source->data[best])) best = i;
  }
  return best;
}

static SPROUT_MUST_CHECK enum sprout_status
encode_read(struct tcp_source *source, struct tcp_read *slot, const struct source_read *read) {
  assert(read->range_count <= LIMIT_READ_RANGES);
  for (uint32_t i = 0; i < read->range_count; i++) {
    source->ranges[i] = (struct wire_range){.object = read->ranges[i].object,
                                            .offset = read->ranges[i].offset,
                                            .length_bytes = read->ranges[i].length_bytes,
                                            .count = 1};
  }
  struct wire_read message = {
      .generation = source->generation, .ranges = source->ranges, .range_count = read->range_count};
  source->body.length_bytes = 0;
  enum sprout_status status = wire_read_encode(&message, &source->body);
  if (status != SPROUT_OK) return status;
  char target[64];
  snprintf(target, sizeof target, "/v1/forks/%s/read", source->fork_hex);
  struct http_request request = {.method = "POST",
                                 .target = target,
                                 .host = source->host,
                                 .token = source->token[0] ? source->token : NULL,
                                 .content_type = WIRE_CONTENT_TYPE,
                                 .body = source->body.data,
                                 .body_bytes = source->body.length_bytes};
  return http_request_build(&request, &slot->request);
}

void tcp_read_flush(struct source *base) {
  struct tcp_source *source = tcp_of(base);
  if (source->state != TCP_READY || reactor_now(source->reactor) > source->post_until_ns) return;
  struct tcp_read *slot;
  while (!list_empty(&source->posted) && (slot = free_slot(source))) {
    struct source_read *read = container_of(list_take(&source->posted), struct source_read, node);
    enum sprout_status status = encode_read(source, slot, read);
    if (status != SPROUT_OK) {
      struct sprout_error error;
      list_prepend(&source->posted, &read->node); /* given back when the source has failed */
      sprout_error_set(&error, status, 0, NULL, "no memory for a request");
      tcp_source_fail(source, &error);
      return;
    }
    slot->read = read;
    slot->connection = least_loaded(source);
    slot->call.request = slot->request.data;
    slot->call.request_bytes = slot->request.length_bytes;
    slot->call.sink = read->iov;
    slot->call.sink_count = read->iov_count;
    slot->call.sink_bytes = read->length_bytes;
    http_client_call(source->data[slot->connection], &slot->call);
  }
  for (uint32_t i = 0; i < source->connections; i++) http_client_flush(source->data[i]);
}
