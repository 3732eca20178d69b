/* SPDX-License-Identifier: Apache-2.0 */
#include "core/destination.h"
#include "net/http_client_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BODY_LIMIT_DEFAULT (1u << 20)

static struct http_call *first_waiting(struct http_client *client) {
  if (list_empty(&client->waiting)) return NULL;
  return container_of(client->waiting.next, struct http_call, node);
}

static SPROUT_MUST_CHECK bool begin_body(struct http_client *client, struct http_call *call) {
  const struct http_message *message = http_parser_message(client->parser);
  call->status_code = message->status_code;
  const char *retry_after = message->headers[HTTP_HEADER_RETRY_AFTER];
  call->retry_after_s = retry_after ? (uint32_t)strtoul(retry_after, NULL, 10) : 0;
  client->keep_alive = message->keep_alive;
  client->body_bytes = message->content_length;
  client->body_used = 0;
  if (!message->has_content_length && message->status_code != 204 && message->status_code != 304) {
    http_client_fail(client, SPROUT_PROTOCOL, 0, "answered without a Content-Length");
    return false;
  }
  if (call->sink && message->status_code == 200) {
    client->answer = ANSWER_SINK;
    if (client->body_bytes == call->sink_bytes) return true;
    http_client_fail(client, SPROUT_PROTOCOL, 0,
                     "answered a read with another length than was asked for");
    return false;
  }
  client->answer = ANSWER_BODY;
  uint64_t limit = call->body_limit_bytes ? call->body_limit_bytes : BODY_LIMIT_DEFAULT;
  if (client->body_bytes > limit) {
    http_client_fail(client, SPROUT_PROTOCOL, 0, "sent a larger answer than is allowed here");
    return false;
  }
  if (client->body_bytes > client->body_capacity) {
    unsigned char *grown = realloc(client->body, client->body_bytes);
    if (!grown) {
      http_client_fail(client, SPROUT_NO_MEMORY, 0, "no memory for its answer");
      return false;
    }
    client->body = grown;
    client->body_capacity = client->body_bytes;
  }
  return true;
}

/* Where the next byte of the body goes, and how much fits there in one piece. */
static unsigned char *body_target(struct http_client *client, struct http_call *call,
                                  uint64_t *room_out) {
  if (client->answer == ANSWER_BODY) {
    *room_out = client->body_bytes - client->body_used;
    return client->body + client->body_used;
  }
  while (call->sink_used == call->sink[call->sink_index].iov_len) {
    call->sink_index++;
    call->sink_used = 0;
    assert(call->sink_index < call->sink_count);
  }
  const struct iovec *entry = &call->sink[call->sink_index];
  uint64_t room = entry->iov_len - call->sink_used;
  *room_out = room < DESTINATION_PIECE_BYTES ? room : DESTINATION_PIECE_BYTES;
  return (unsigned char *)entry->iov_base + call->sink_used;
}

static void body_landed(struct http_client *client, struct http_call *call, unsigned char *data,
                        uint64_t length_bytes) {
  client->body_used += length_bytes;
  if (client->answer == ANSWER_BODY) return;
  call->sink_used += length_bytes;
  if (call->landed) call->landed(call, data, length_bytes);
}

static void answer_done(struct http_client *client, struct http_call *call) {
  call->body = client->answer == ANSWER_BODY ? client->body : NULL;
  call->body_bytes = client->answer == ANSWER_BODY ? (size_t)client->body_bytes : 0;
  client->answer = ANSWER_HEAD;
  http_parser_next(client->parser);
  struct sprout_error none = {.status = SPROUT_OK};
  http_client_finish_call(client, call, &none);
  client->answered = true;
  if (!client->keep_alive) http_client_lose(client, 0, "closed the connection");
}

/* Takes one step with what is in the input buffer; false: more bytes are needed, or the connection
 * has ended. */
static bool step(struct http_client *client, struct http_call *call) {
  uint32_t have = client->input_end - client->input_begin;
  if (client->answer == ANSWER_HEAD) {
    if (have == 0) return false;
    size_t taken;
    struct sprout_error error;
    enum http_parser_state state =
        http_parser_feed(client->parser, client->input + client->input_begin, have, &taken, &error);
    client->input_begin += (uint32_t)taken;
    if (state == HTTP_PARSER_ERROR) http_client_fail(client, error.status, 0, error.message);
    return state == HTTP_PARSER_MESSAGE && begin_body(client, call);
  }
  if (client->body_used == client->body_bytes) {
    answer_done(client, call);
    return client->state == CLIENT_OPEN;
  }
  if (have == 0) return false;
  uint64_t room;
  unsigned char *target = body_target(client, call, &room);
  uint32_t part = room < have ? (uint32_t)room : have;
  memcpy(target, client->input + client->input_begin, part);
  client->input_begin += part;
  body_landed(client, call, target, part);
  return client->state == CLIENT_OPEN;
}

/* Small entries are filled from the input buffer: one receive for many of them. */
static void receive_more(struct http_client *client, struct http_call *call) {
  struct ring_op *op = &client->receive_op;
  op->fd = client->fd;
  op->buffer = client->input;
  op->length = client->options.input_bytes;
  if (client->answer != ANSWER_HEAD) {
    uint64_t room;
    unsigned char *target = body_target(client, call, &room);
    if (room >= client->options.input_bytes || room == client->body_bytes - client->body_used) {
      op->buffer = target;
      op->length = room;
    }
  }
  reactor_submit(client->reactor, op);
}

void http_client_advance(struct http_client *client) {
  if (client->receive_op.in_flight) return;
  while (client->state == CLIENT_OPEN) {
    struct http_call *call = first_waiting(client);
    if (!call) return;
    if (step(client, call)) continue;
    if (client->state != CLIENT_OPEN) return;
    client->input_begin = client->input_end = 0;
    receive_more(client, call);
    return;
  }
}

void http_client_received(struct ring_op *op) {
  struct http_client *client = container_of(op, struct http_client, receive_op);
  if (http_client_ended(client)) return;
  if (op->result <= 0) {
    http_client_lose(client, -op->result,
                     op->result ? "the connection failed" : "closed the connection");
    return;
  }
  if (op->buffer == client->input) {
    client->input_end = (uint32_t)op->result;
  } else {
    body_landed(client, first_waiting(client), op->buffer, (uint64_t)op->result);
  }
  http_client_advance(client);
}
