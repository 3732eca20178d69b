/* SPDX-License-Identifier: Apache-2.0 */
#include "net/http_client_internal.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

void http_client_fail(struct http_client *client, enum sprout_status status, int native,
                      const char *what) {
  if (client->state == CLIENT_FAILED || client->state == CLIENT_CLOSING) return;
  const char *name = client->options.name;
  sprout_error_set(&client->error, status, native, NULL, "%s%s%s%s%s", name ? name : "",
                   name ? ": " : "", what, native ? ": " : "", native ? strerror(native) : "");
  stop_operations(client, CLIENT_FAILED);
}

void http_client_lose(struct http_client *client, int native, const char *what) {
  bool between =
      client->answer == ANSWER_HEAD && client->parser && !http_parser_in_message(client->parser);
  if (client->state == CLIENT_OPEN && client->answered && between) {
    stop_operations(client, CLIENT_RENEWING);
  } else {
    http_client_fail(client, SPROUT_DISCONNECTED, native, what);
  }
}

void http_client_finish_call(struct http_client *client, struct http_call *call,
                             const struct sprout_error *error) {
  list_remove(&call->node);
  client->pending--;
  call->done(call, error);
}

static void give_back(struct http_client *client, struct list_node *list) {
  struct list_node *node;
  struct sprout_error error = client->error;
  while ((node = list_take(list)))
    http_client_finish_call(client, container_of(node, struct http_call, node), &error);
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

bool http_client_ended(struct http_client *client) {
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
  if (http_client_ended(client)) return;
  if (op->result <= 0) {
    http_client_lose(client, -op->result, "cannot send");
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
  http_client_advance(client);
}

/* --- connecting and ending --- */

static void connected(struct ring_op *op) {
  struct http_client *client = container_of(op, struct http_client, connect_op);
  if (http_client_ended(client)) return;
  if (op->result < 0) {
    http_client_fail(client, SPROUT_DISCONNECTED, -op->result, "cannot connect");
    return;
  }
  client->state = CLIENT_OPEN;
  send_more(client);
}

static void start_connection(struct http_client *client) {
  if (!client->parser &&
      http_parser_create(HTTP_PARSE_RESPONSE_HEADS, 0, &client->parser) != SPROUT_OK) {
    http_client_fail(client, SPROUT_NO_MEMORY, 0, "no memory for a connection");
    return;
  }
  client->fd = socket(client->options.address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client->fd < 0) {
    http_client_fail(client, errno == EMFILE || errno == ENFILE ? SPROUT_LIMIT : SPROUT_IO, errno,
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
  client->receive_op = (struct ring_op){.kind = RING_RECV, .done = http_client_received};
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
  http_client_fail(client, status, 0, "the connection was closed by this side");
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
