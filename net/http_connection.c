/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection's life. Completions and answers only change its state and wake it; the step that
 * follows in the same tick (advance) draws the conclusions, so that nothing is freed under a caller
 * and no callback nests.
 */
#include "net/http_server_private.h"

#include "core/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_MS 1000000ull
#define LINGER_MS 2000u
#define LINGER_BYTES (4u << 20)

static struct reactor *reactor_of(const struct http_connection *connection) {
  return connection->server->options.reactor;
}

static uint64_t now_of(const struct http_connection *connection) {
  return reactor_now(reactor_of(connection));
}

void connection_wake(struct http_connection *connection) {
  reactor_defer(reactor_of(connection), &connection->advance);
}

void connection_finish(struct http_connection *connection) {
  if (connection->state == CONNECTION_OPEN) connection->state = CONNECTION_FINISHING;
}

void connection_close(struct http_connection *connection) {
  if (connection->state >= CONNECTION_CLOSING) return;
  connection->state = CONNECTION_CLOSING;
  output_cancel(connection);
  reactor_cancel(reactor_of(connection), &connection->receive);
  reactor_timer_stop(reactor_of(connection), &connection->timer);
  connection_wake(connection);
}

void connection_exchange_done(struct http_connection *connection) {
  struct http_exchange *exchange = connection_first(connection);
  list_remove(&exchange->node);
  list_append(&connection->done, &exchange->node);
  connection->exchange_count--;
  if (exchange->is_last) connection_finish(connection);
  connection_wake(connection);
}

/* --- requests --- */

static struct http_exchange *begin_exchange(struct http_connection *connection,
                                            const struct http_message *request) {
  struct http_exchange *exchange = exchange_create(connection, request);
  if (exchange == NULL) {
    connection_close(connection);
    return NULL;
  }
  list_append(&connection->exchanges, &exchange->node);
  connection->exchange_count++;
  return exchange;
}

static void dispatch(struct http_connection *connection) {
  struct http_server *server = connection->server;
  const struct http_message *request = http_parser_message(connection->parser);
  struct http_exchange *exchange = begin_exchange(connection, request);
  if (exchange == NULL) return;
  if (!request->keep_alive) {
    exchange->is_last = true;
    connection_finish(connection);
  }
  connection->continued = false;
  exchange->request = request;
  server->options.handle(server->options.context, exchange);
  exchange->request = NULL;
  connection->kept = connection->kept || exchange->keeps_open;
  http_parser_next(connection->parser);
  connection->began_ns = 0;
}

/* The input cannot be understood any further: says so in its turn, then ends. */
static void refuse_input(struct http_connection *connection, const struct sprout_error *error) {
  struct http_exchange *exchange = begin_exchange(connection, NULL);
  if (exchange == NULL) return;
  connection_finish(connection);
  struct http_answer answer = {.close = true};
  http_exchange_fail_with(exchange, error, &answer);
}

/* The client waits for "100 Continue" before it sends the body. */
static void invite_body(struct http_connection *connection) {
  if (connection->continued) return;
  connection->continued = true;
  struct http_exchange *exchange = begin_exchange(connection, NULL);
  if (exchange != NULL) exchange_answer_interim(exchange);
}

/* Keeps input for which there is no room. */
static void hold_input(struct http_connection *connection, const unsigned char *data,
                       size_t length_bytes) {
  assert(connection->held == NULL);
  server_limit_hit(connection->server, "pipelined_requests");
  connection->held = malloc(length_bytes);
  if (connection->held == NULL) {
    connection_close(connection);
    return;
  }
  memcpy(connection->held, data, length_bytes);
  connection->held_bytes = length_bytes;
}

static void take_input(struct http_connection *connection, const unsigned char *data,
                       size_t length_bytes) {
  while (length_bytes > 0 && connection->state == CONNECTION_OPEN) {
    if (connection->exchange_count >= LIMIT_PIPELINED_REQUESTS) {
      hold_input(connection, data, length_bytes);
      return;
    }
    struct sprout_error error;
    size_t taken = 0;
    enum http_parser_state state =
        http_parser_feed(connection->parser, data, length_bytes, &taken, &error);
    data += taken;
    length_bytes -= taken;
    if (state == HTTP_PARSER_ERROR) {
      refuse_input(connection, &error);
      return;
    }
    if (state == HTTP_PARSER_MESSAGE) dispatch(connection);
    if (http_parser_expects_continue(connection->parser)) invite_body(connection);
  }
  if (connection->state != CONNECTION_OPEN) return;
  if (!http_parser_in_message(connection->parser))
    connection->began_ns = 0;
  else if (connection->began_ns == 0)
    connection->began_ns = now_of(connection);
}

static void take_held(struct http_connection *connection) {
  if (connection->held == NULL || connection->exchange_count >= LIMIT_PIPELINED_REQUESTS) return;
  unsigned char *held = connection->held;
  connection->held = NULL;
  take_input(connection, held, connection->held_bytes);
  free(held);
}

/* --- receiving --- */

static void take_end(struct http_connection *connection, int32_t result) {
  if (connection->state == CONNECTION_OPEN && result == 0 &&
      !http_parser_in_message(connection->parser)) {
    connection->peer_ended = true;
    connection_finish(connection);
  } else {
    connection_close(connection);
  }
}

static void discard_input(struct http_connection *connection, size_t length_bytes) {
  connection->discarded_bytes += length_bytes;
  if (connection->discarded_bytes > LINGER_BYTES) connection_close(connection);
}

static void received(struct ring_op *op) {
  struct http_connection *connection = container_of(op, struct http_connection, receive);
  if (op->result > 0) {
    if (connection->state == CONNECTION_OPEN)
      take_input(connection, op->pooled_buffer, (size_t)op->result);
    else
      discard_input(connection, (size_t)op->result);
  } else if (op->result != -ENOBUFS && op->result != -EINTR && op->result != -EAGAIN) {
    take_end(connection, op->result);
  }
  if (op->pooled_buffer != NULL) {
    ring_buffer_return(reactor_ring(reactor_of(connection)), op->pooled_index);
    op->pooled_buffer = NULL;
  }
  connection_wake(connection);
}

static void receive_more(struct http_connection *connection) {
  bool wanted = connection->state == CONNECTION_LINGERING ||
                (connection->state == CONNECTION_OPEN && connection->held == NULL &&
                 connection->exchange_count < LIMIT_PIPELINED_REQUESTS);
  if (!wanted || connection->receive.in_flight) return;
  connection->receive.kind = RING_RECV;
  connection->receive.fd = connection->fd;
  connection->receive.pooled = true;
  connection->receive.done = received;
  reactor_submit(reactor_of(connection), &connection->receive);
}

/* --- time-outs --- */

static uint64_t sooner(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

static uint64_t deadline_of(const struct http_connection *connection) {
  uint64_t deadline = TIMER_NEVER;
  if (connection->state == CONNECTION_LINGERING) return connection->idle_ns + LINGER_MS * NS_PER_MS;
  if (connection->output == OUTPUT_POLLING || connection->output == OUTPUT_SENDING)
    deadline = connection->progress_ns + connection->server->options.send_timeout_ms * NS_PER_MS;
  if (connection->state != CONNECTION_OPEN) return deadline;
  if (connection->began_ns != 0 && connection->receive.in_flight)
    deadline = sooner(deadline, connection->began_ns +
                                    connection->server->options.header_timeout_ms * NS_PER_MS);
  else if (list_empty(&connection->exchanges))
    deadline = sooner(deadline, connection->idle_ns +
                                    connection->server->options.idle_timeout_ms * NS_PER_MS);
  return deadline;
}

/* The timer may fire early, never late: moving a deadline on costs nothing. */
static void watch(struct http_connection *connection) {
  uint64_t deadline = deadline_of(connection);
  if (deadline == TIMER_NEVER) return;
  if (timer_running(&connection->timer) && connection->timer.deadline_ns <= deadline) return;
  reactor_timer_start(reactor_of(connection), &connection->timer, deadline);
}

static bool request_is_late(const struct http_connection *connection, uint64_t now_ns) {
  return connection->state == CONNECTION_OPEN && connection->began_ns != 0 &&
         connection->receive.in_flight &&
         connection->began_ns + connection->server->options.header_timeout_ms * NS_PER_MS <= now_ns;
}

static void time_out(struct timer *timer) {
  struct http_connection *connection = container_of(timer, struct http_connection, timer);
  uint64_t now_ns = now_of(connection);
  if (deadline_of(connection) > now_ns) {
    watch(connection);
    return;
  }
  if (request_is_late(connection, now_ns)) {
    server_limit_hit(connection->server, "header_timeout_ms");
    struct sprout_error error;
    (void)sprout_error_set(&error, SPROUT_TIMEOUT, 0, "Send the request in one go.",
                           "the request was not whole after %u ms",
                           connection->server->options.header_timeout_ms);
    refuse_input(connection, &error);
    connection_wake(connection);
    return;
  }
  if (connection->output != OUTPUT_IDLE) server_limit_hit(connection->server, "send_timeout_ms");
  connection_close(connection);
}

/* --- ends --- */

static void end_all(struct list_node *list, bool whole) {
  struct list_node *node;
  while ((node = list_take(list)) != NULL)
    exchange_end(container_of(node, struct http_exchange, node), whole);
}

static void closed(struct ring_op *op) {
  struct http_connection *connection = container_of(op, struct http_connection, close);
  connection->state = CONNECTION_CLOSED;
  connection_wake(connection);
}

static void free_connection(struct http_connection *connection) {
  struct http_server *server = connection->server;
  bool refused = connection->refused;
  list_remove(&connection->node);
  reactor_defer_cancel(reactor_of(connection), &connection->advance);
  http_parser_destroy(connection->parser);
  free(connection->held);
  free(connection);
  server_connection_gone(server, refused);
}

/* Second phase of closing: nothing is freed while an operation may still read it. */
static void finish_close(struct http_connection *connection) {
  if (connection->out.in_flight) return;
  end_all(&connection->exchanges, false);
  connection->exchange_count = 0;
  if (connection->receive.in_flight || connection->close.in_flight) return;
  if (connection->state == CONNECTION_CLOSED) {
    free_connection(connection);
    return;
  }
  connection->close.kind = RING_CLOSE;
  connection->close.fd = connection->fd;
  connection->close.done = closed;
  reactor_submit(reactor_of(connection), &connection->close);
}

/* All was answered. Closing with input unread would make the kernel reset the connection and the
 * peer lose the answer: so shut our side and wait for its end. */
static void linger(struct http_connection *connection) {
  if (connection->peer_ended || shutdown(connection->fd, SHUT_WR) != 0) {
    connection_close(connection);
    return;
  }
  connection->state = CONNECTION_LINGERING;
  connection->idle_ns = now_of(connection);
}

static void advance(struct deferred *deferred) {
  struct http_connection *connection = container_of(deferred, struct http_connection, advance);
  if (!list_empty(&connection->done)) {
    end_all(&connection->done, true);
    connection->idle_ns = now_of(connection);
  }
  if (connection->state == CONNECTION_OPEN) take_held(connection);
  if (connection->state < CONNECTION_LINGERING) output_push(connection);
  if (connection->state == CONNECTION_FINISHING) {
    struct http_exchange *first = connection_first(connection);
    if (first == NULL)
      linger(connection);
    else if (connection->peer_ended && !first->answered)
      connection_close(connection);
  }
  if (connection->state >= CONNECTION_CLOSING) {
    finish_close(connection);
    return;
  }
  receive_more(connection);
  watch(connection);
}

/* --- beginning --- */

static bool prepare_socket(int fd) {
  int one = 1;
  /* Without it the tail of each answer waits for the peer's delayed acknowledgement. */
  if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0) return false;
  return fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0;
}

static void refuse_connection(struct http_connection *connection) {
  struct sprout_error error;
  (void)sprout_error_set(&error, SPROUT_LIMIT, 0, "Try again later, or ask another seed.",
                         "the seed serves its maximum of %u connections",
                         connection->server->options.max_connections);
  struct http_exchange *exchange = begin_exchange(connection, NULL);
  if (exchange == NULL) return;
  connection_finish(connection);
  struct http_answer answer = {.close = true, .retry_after_s = 1};
  http_exchange_fail_with(exchange, &error, &answer);
}

void connection_create(struct http_server *server, int fd, bool refused) {
  struct http_connection *connection = calloc(1, sizeof(*connection));
  struct http_parser *parser = NULL;
  if (connection == NULL || !prepare_socket(fd) ||
      http_parser_create(HTTP_PARSE_REQUESTS, LIMIT_REQUEST_BODY_BYTES, &parser) != SPROUT_OK) {
    free(connection);
    (void)close(fd);
    server_connection_gone(server, refused);
    return;
  }
  connection->server = server;
  connection->fd = fd;
  connection->refused = refused;
  connection->parser = parser;
  connection->advance.run = advance;
  connection->timer.fired = time_out;
  list_init(&connection->exchanges);
  list_init(&connection->done);
  list_append(&server->connections, &connection->node);
  output_init(connection);
  connection->peer.length = sizeof(connection->peer.storage);
  if (getpeername(fd, (struct sockaddr *)&connection->peer.storage, &connection->peer.length) != 0)
    connection->peer = (struct address){0};
  (void)address_format(&connection->peer, connection->peer_text, sizeof(connection->peer_text));
  connection->idle_ns = connection->progress_ns = now_of(connection);
  if (refused) refuse_connection(connection);
  connection_wake(connection);
}
