/* SPDX-License-Identifier: Apache-2.0 */
#include "net/http_client.h"

#include "core/destination.h"
#include "net/http_parser.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEND_IOV 64u
#define BODY_LIMIT_DEFAULT (1u << 20)

enum client_state {
  CLIENT_IDLE,       /* no socket: the first flush connects */
  CLIENT_CONNECTING, /* waits for the connect */
  CLIENT_OPEN,       /* sends and receives as calls ask */
  CLIENT_RENEWING,   /* the peer ended an idle connection: waits for its operations, then connects
                        anew */
  CLIENT_FAILED,     /* waits for its operations, then gives calls back; refuses new ones */
  CLIENT_CLOSING     /* the same, then calls closed */
};

enum answer_state {
  ANSWER_HEAD, /* waits for the head of the first waiting call's answer */
  ANSWER_SINK, /* its body lands in the sink */
  ANSWER_BODY  /* its body is buffered */
};

struct http_client {
  struct reactor *reactor;
  struct http_client_options options;
  enum client_state state;
  enum answer_state answer;
  int fd;
  struct http_parser *parser;
  struct ring_op connect_op, send_op, receive_op;
  struct msghdr message;
  struct iovec send_iov[SEND_IOV];
  struct list_node unsent;  /* not sent whole */
  struct list_node waiting; /* sent, in order; the first is being answered */
  uint32_t pending;
  unsigned char *input;
  uint32_t input_begin, input_end;
  unsigned char *body;
  uint64_t body_bytes, body_used, body_capacity;
  bool keep_alive;
  bool answered; /* this connection has answered a call: it may be renewed once it ends between
                    answers */
  struct sprout_error error; /* why it failed */
  struct deferred settle;    /* gives back calls and ends phases outside of callers */
  void (*closed)(void *context);
  void *closed_context;
};

static void advance(struct http_client *client);

static bool quiet(const struct http_client *client) {
  return !client->connect_op.in_flight && !client->send_op.in_flight &&
         !client->receive_op.in_flight;
}

static void stop_operations(struct http_client *client, enum client_state next) {
  client->state = next;
  reactor_cancel(client->reactor, &client->connect_op);
  reactor_cancel(client->reactor, &client->send_op);
  reactor_cancel(client->reactor, &client->receive_op);
  reactor_defer(client->reactor, &client->settle);
}

/* Enters FAILED: settle gives the calls back when nothing is in flight any more. */
static void fail(struct http_client *client, enum sprout_status status, int native,
                 const char *what) {
  if (client->state == CLIENT_FAILED || client->state == CLIENT_CLOSING) return;
  sprout_error_set(&client->error, status, native, NULL, "%s: %s%s%s", client->options.name, what,
                   native ? ": " : "", native ? strerror(native) : "");
  stop_operations(client, CLIENT_FAILED);
}

/* The connection ended. Between two answers that is a server's right (an idle time-out): unanswered
 * calls are sent again on a new one. All calls of this program may be repeated. */
static void lose_connection(struct http_client *client, int native, const char *what) {
  bool between =
      client->answer == ANSWER_HEAD && client->parser && !http_parser_in_message(client->parser);
  if (client->state == CLIENT_OPEN && client->answered && between) {
    stop_operations(client, CLIENT_RENEWING);
  } else {
    fail(client, SPROUT_DISCONNECTED, native, what);
  }
}

static void finish_call(struct http_client *client, struct http_call *call,
                        const struct sprout_error *error) {
  list_remove(&call->node);
  client->pending--;
  call->done(call, error);
}

static void give_back(struct http_client *client, struct list_node *list) {
  struct list_node *node;
  struct sprout_error error = client->error;
  while ((node = list_take(list)))
    finish_call(client, container_of(node, struct http_call, node), &error);
}

static void forget_connection(struct http_client *client) {
  if (client->fd >= 0) close(client->fd);
  client->fd = -1;
  free(client->body);
  client->body = NULL;
  client->body_capacity = 0;
  client->input_begin = client->input_end = 0;
  client->answer = ANSWER_HEAD;
  client->answered = false;
  http_parser_destroy(client->parser);
  client->parser = NULL;
}

/* Calls that were sent go out again, before those that were not. */
static void renew(struct http_client *client) {
  forget_connection(client);
  client->state = CLIENT_IDLE;
  while (!list_empty(&client->waiting)) {
    struct list_node *last = client->waiting.prev;
    list_remove(last);
    list_prepend(&client->unsent, last);
  }
  for (struct list_node *node = client->unsent.next; node != &client->unsent; node = node->next) {
    container_of(node, struct http_call, node)->sent_bytes = 0;
  }
  http_client_flush(client);
}

static void settle(struct deferred *deferred) {
  struct http_client *client = container_of(deferred, struct http_client, settle);
  if (!quiet(client)) return; /* the last completion defers again */
  if (client->state == CLIENT_RENEWING) {
    renew(client);
    return;
  }
  if (client->state != CLIENT_FAILED && client->state != CLIENT_CLOSING) return;
  forget_connection(client);
  give_back(client, &client->waiting);
  give_back(client, &client->unsent);
  if (client->state != CLIENT_CLOSING) return;
  client->state = CLIENT_IDLE;
  void (*closed)(void *) = client->closed;
  client->closed = NULL;
  if (closed) closed(client->closed_context);
}

/* True when the completion belongs to a connection that has ended. */
static bool ended(struct http_client *client) {
  if (client->state == CLIENT_CONNECTING || client->state == CLIENT_OPEN) return false;
  reactor_defer(client->reactor, &client->settle);
  return true;
}

/* --- sending --- */

static void send_more(struct http_client *client) {
  if (client->send_op.in_flight || list_empty(&client->unsent) || client->state != CLIENT_OPEN)
    return;
  uint32_t count = 0;
  for (struct list_node *node = client->unsent.next; node != &client->unsent && count < SEND_IOV;
       node = node->next) {
    struct http_call *call = container_of(node, struct http_call, node);
    client->send_iov[count].iov_base = (char *)(uintptr_t)call->request + call->sent_bytes;
    client->send_iov[count++].iov_len = call->request_bytes - call->sent_bytes;
  }
  client->send_op.fd = client->fd;
  client->send_op.iov = client->send_iov;
  client->send_op.iov_count = count;
  reactor_submit(client->reactor, &client->send_op);
}

static void sent(struct ring_op *op) {
  struct http_client *client = container_of(op, struct http_client, send_op);
  if (ended(client)) return;
  if (op->result <= 0) {
    lose_connection(client, -op->result, "cannot send");
    return;
  }
  size_t left = (size_t)op->result;
  while (left > 0) {
    struct http_call *call = container_of(client->unsent.next, struct http_call, node);
    size_t part = call->request_bytes - call->sent_bytes;
    if (part > left) part = left;
    call->sent_bytes += part;
    left -= part;
    if (call->sent_bytes < call->request_bytes) break;
    list_remove(&call->node);
    list_append(&client->waiting, &call->node);
  }
  send_more(client);
  advance(client);
}

/* --- receiving --- */

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
    fail(client, SPROUT_PROTOCOL, 0, "answered without a Content-Length");
    return false;
  }
  if (call->sink && message->status_code == 200) {
    client->answer = ANSWER_SINK;
    if (client->body_bytes == call->sink_bytes) return true;
    fail(client, SPROUT_PROTOCOL, 0, "answered a read with another length than was asked for");
    return false;
  }
  client->answer = ANSWER_BODY;
  uint64_t limit = call->body_limit_bytes ? call->body_limit_bytes : BODY_LIMIT_DEFAULT;
  if (client->body_bytes > limit) {
    fail(client, SPROUT_PROTOCOL, 0, "sent a larger answer than is allowed here");
    return false;
  }
  if (client->body_bytes > client->body_capacity) {
    unsigned char *grown = realloc(client->body, client->body_bytes);
    if (!grown) {
      fail(client, SPROUT_NO_MEMORY, 0, "no memory for its answer");
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
  finish_call(client, call, &none);
  client->answered = true;
  if (!client->keep_alive) lose_connection(client, 0, "closed the connection");
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
    if (state == HTTP_PARSER_ERROR) fail(client, error.status, 0, error.message);
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

/* Uses up the input, then arms the next receive while an answer is awaited. */
static void advance(struct http_client *client) {
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

static void received(struct ring_op *op) {
  struct http_client *client = container_of(op, struct http_client, receive_op);
  if (ended(client)) return;
  if (op->result <= 0) {
    lose_connection(client, -op->result,
                    op->result ? "the connection failed" : "closed the connection");
    return;
  }
  if (op->buffer == client->input) {
    client->input_end = (uint32_t)op->result;
  } else {
    body_landed(client, first_waiting(client), op->buffer, (uint64_t)op->result);
  }
  advance(client);
}

/* --- connecting and ending --- */

static void connected(struct ring_op *op) {
  struct http_client *client = container_of(op, struct http_client, connect_op);
  if (ended(client)) return;
  if (op->result < 0) {
    fail(client, SPROUT_DISCONNECTED, -op->result, "cannot connect");
    return;
  }
  client->state = CLIENT_OPEN;
  send_more(client);
}

static void start_connection(struct http_client *client) {
  if (!client->parser &&
      http_parser_create(HTTP_PARSE_RESPONSE_HEADS, 0, &client->parser) != SPROUT_OK) {
    fail(client, SPROUT_NO_MEMORY, 0, "no memory for a connection");
    return;
  }
  client->fd = socket(client->options.address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client->fd < 0) {
    fail(client, errno == EMFILE || errno == ENFILE ? SPROUT_LIMIT : SPROUT_IO, errno,
         "cannot make a socket");
    return;
  }
  int on = 1;
  setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  client->state = CLIENT_CONNECTING;
  client->connect_op.fd = client->fd;
  client->connect_op.address = (const struct sockaddr *)&client->options.address.storage;
  client->connect_op.address_length = client->options.address.length;
  reactor_submit(client->reactor, &client->connect_op);
}

enum sprout_status http_client_create(struct reactor *reactor,
                                      const struct http_client_options *options,
                                      struct http_client **client_out) {
  struct http_client *client = calloc(1, sizeof *client);
  unsigned char *input = malloc(options->input_bytes);
  if (!client || !input) {
    free(client);
    free(input);
    return SPROUT_NO_MEMORY;
  }
  client->reactor = reactor;
  client->options = *options;
  client->input = input;
  client->fd = -1;
  client->connect_op = (struct ring_op){.kind = RING_CONNECT, .done = connected};
  client->send_op = (struct ring_op){.kind = RING_SENDMSG, .done = sent};
  client->receive_op = (struct ring_op){.kind = RING_RECV, .done = received};
  client->settle.run = settle;
  list_init(&client->unsent);
  list_init(&client->waiting);
  *client_out = client;
  return SPROUT_OK;
}

void http_client_call(struct http_client *client, struct http_call *call) {
  call->sent_bytes = 0;
  call->sink_index = 0;
  call->sink_used = 0;
  call->status_code = 0;
  list_append(&client->unsent, &call->node);
  client->pending++;
  if (client->state == CLIENT_FAILED) reactor_defer(client->reactor, &client->settle);
}

void http_client_flush(struct http_client *client) {
  if (list_empty(&client->unsent)) return;
  if (client->state == CLIENT_IDLE) start_connection(client);
  send_more(client);
}

void http_client_close(struct http_client *client, enum sprout_status status,
                       void (*closed)(void *context), void *context) {
  assert(client->state != CLIENT_CLOSING);
  fail(client, status, 0, "the connection was closed by this side");
  client->state = CLIENT_CLOSING;
  client->closed = closed;
  client->closed_context = context;
  reactor_defer(client->reactor, &client->settle);
}

uint32_t http_client_pending(const struct http_client *client) {
  return client->pending;
}

void http_client_destroy(struct http_client *client) {
  if (!client) return;
  assert(quiet(client) && client->pending == 0);
  reactor_defer_cancel(client->reactor, &client->settle);
  forget_connection(client);
  free(client->input);
  free(client);
}
