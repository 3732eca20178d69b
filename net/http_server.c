/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listener: binds, accepts, keeps the number of connections bounded, stops in two phases.
 */
#include "net/http_server_private.h"

#include "core/log.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 1024
/* Beyond the maximum so many more are told that it is reached; others are just closed. */
#define REFUSED_MAX 64u
#define ACCEPT_RETRY_NS 1000000000ull

static void accepted(struct ring_op *op);
static void retry_accept(struct timer *timer);
static void check_stopped(struct deferred *deferred);

/* --- creation --- */

static enum sprout_status fail_bind(const struct address *address, int fd,
                                    struct sprout_error *error) {
  int code = errno;
  char text[ADDRESS_TEXT_BYTES];
  const char *hint = "Check the address and the limits of this process.";
  if (code == EADDRINUSE) hint = "Stop the other program, or choose another port (0 picks one).";
  if (code == EADDRNOTAVAIL) hint = "Listen on an address that this machine has.";
  if (code == EACCES) hint = "Choose a port above 1023.";
  if (fd >= 0) (void)close(fd);
  return sprout_error_set(error, code == EMFILE || code == ENFILE ? SPROUT_LIMIT : SPROUT_IO, code,
                          hint, "cannot listen on %s: %s",
                          address_format(address, text, sizeof(text)), strerror(code));
}

static enum sprout_status open_listener(struct http_server *server, struct sprout_error *error) {
  const struct address *address = &server->options.address;
  int family = address->storage.ss_family, one = 1;
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0)
    return fail_bind(address, fd, error);
  /* An IPv6 wildcard serves IPv4 as well, whatever the system's default is. */
  int zero = 0;
  if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero)) != 0)
    return fail_bind(address, fd, error);
  if (bind(fd, (const struct sockaddr *)&address->storage, address->length) != 0 ||
      listen(fd, BACKLOG) != 0)
    return fail_bind(address, fd, error);
  server->address.length = sizeof(server->address.storage);
  if (getsockname(fd, (struct sockaddr *)&server->address.storage, &server->address.length) != 0)
    return fail_bind(address, fd, error);
  server->fd = fd;
  return SPROUT_OK;
}

enum sprout_status http_server_create(const struct http_server_options *options,
                                      struct http_server **server_out, struct sprout_error *error) {
  struct http_server *server = calloc(1, sizeof(*server));
  if (server == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, ENOMEM, NULL, "no memory for a server");
  server->options = *options;
  if (options->header_timeout_ms == 0) server->options.header_timeout_ms = LIMIT_HEADER_TIMEOUT_MS;
  if (options->idle_timeout_ms == 0) server->options.idle_timeout_ms = LIMIT_IDLE_TIMEOUT_MS;
  if (options->send_timeout_ms == 0) server->options.send_timeout_ms = LIMIT_SEND_TIMEOUT_MS;
  server->fd = -1;
  server->accept.done = accepted;
  server->accept_timer.fired = retry_accept;
  server->check_stopped.run = check_stopped;
  list_init(&server->connections);
  list_init(&server->spare_exchanges);
  enum sprout_status status = open_listener(server, error);
  if (status != SPROUT_OK) {
    free(server);
    return status;
  }
  *server_out = server;
  return SPROUT_OK;
}

void http_server_destroy(struct http_server *server) {
  if (server == NULL) return;
  assert(list_empty(&server->connections) && !server->accept.in_flight);
  exchange_free_spares(server);
  if (server->fd >= 0) (void)close(server->fd);
  free(server);
}

const struct address *http_server_address(const struct http_server *server) {
  return &server->address;
}

/* --- accepting --- */

void server_limit_hit(struct http_server *server, const char *limit) {
  if (server->options.limit_hit != NULL) server->options.limit_hit(server->options.context, limit);
}

static void accept_more(struct http_server *server) {
  if (server->stopping || !server->started || server->accept.in_flight) return;
  reactor_timer_stop(server->options.reactor, &server->accept_timer);
  server->accept.kind = RING_ACCEPT;
  server->accept.fd = server->fd;
  server->accept.multishot = true;
  reactor_submit(server->options.reactor, &server->accept);
}

static void take_connection(struct http_server *server, int fd) {
  bool refused = server->connection_count >= server->options.max_connections;
  if (server->stopping || (refused && server->refused_count >= REFUSED_MAX)) {
    (void)close(fd);
    return;
  }
  server->accepted++;
  if (refused) {
    server_limit_hit(server, "connections");
    server->refused_count++;
    server->refused_total++;
  } else {
    server->connection_count++;
  }
  connection_create(server, fd, refused);
}

/* Out of descriptors or memory: the kernel would report it again at once, so accepting rests until
 * a connection has gone or a second has passed. */
static void rest(struct http_server *server, int error) {
  static const char hint[] = "raise the descriptor limit (ulimit -n) or lower the load";
  if (error == EMFILE || error == ENFILE) server_limit_hit(server, "descriptors");
  log_write(LOG_WARNING, "http", "cannot accept connections for now: %s; %s", strerror(error),
            hint);
  reactor_timer_start(server->options.reactor, &server->accept_timer,
                      reactor_now(server->options.reactor) + ACCEPT_RETRY_NS);
}

static void accepted(struct ring_op *op) {
  struct http_server *server = container_of(op, struct http_server, accept);
  if (op->result >= 0) take_connection(server, op->result);
  if (op->more) return;
  if (server->stopping) {
    reactor_defer(server->options.reactor, &server->check_stopped);
    return;
  }
  bool passing = op->result >= 0 || op->result == -ECONNABORTED || op->result == -EINTR ||
                 op->result == -EAGAIN;
  if (passing)
    accept_more(server);
  else
    rest(server, -op->result);
}

static void retry_accept(struct timer *timer) {
  accept_more(container_of(timer, struct http_server, accept_timer));
}

void server_connection_gone(struct http_server *server, bool refused) {
  if (refused)
    server->refused_count--;
  else
    server->connection_count--;
  if (server->stopping)
    reactor_defer(server->options.reactor, &server->check_stopped);
  else if (timer_running(&server->accept_timer))
    accept_more(server);
}

void http_server_start(struct http_server *server) {
  server->started = true;
  accept_more(server);
}

/* --- ends --- */

static bool is_idle(const struct http_connection *connection) {
  return connection->state == CONNECTION_OPEN && list_empty(&connection->exchanges) &&
         connection->began_ns == 0;
}

void http_server_drain(struct http_server *server) {
  server->draining = true;
  struct list_node *node, *next;
  list_for_each_safe (node, next, &server->connections) {
    struct http_connection *connection = container_of(node, struct http_connection, node);
    if (is_idle(connection) && !connection->kept) connection_close(connection);
  }
}

static bool has_pieces_left(struct http_connection *connection) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &connection->exchanges) {
    const struct http_exchange *exchange = container_of(node, struct http_exchange, node);
    if (exchange->next_piece != NULL && exchange->body_sent < exchange->body_bytes) return true;
  }
  return false;
}

/*
 * A send from memory may wait in the kernel for room in the socket, where cancelling reaches it
 * only later. Shutting the socket does at once what is needed: it takes the socket's lock, so a
 * send that copies just now has ended when it returns, and every later one fails before it reads.
 */
void http_server_break_pieces(struct http_server *server) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &server->connections) {
    struct http_connection *connection = container_of(node, struct http_connection, node);
    if (!has_pieces_left(connection)) continue;
    (void)shutdown(connection->fd, SHUT_RDWR); /* open: it is closed after the last exchange */
    connection_close(connection);
  }
}

static void check_stopped(struct deferred *deferred) {
  struct http_server *server = container_of(deferred, struct http_server, check_stopped);
  if (server->accept.in_flight || !list_empty(&server->connections)) return;
  void (*stopped)(void *) = server->stopped;
  server->stopped = NULL;
  if (stopped != NULL) stopped(server->stopped_context);
}

void http_server_stop(struct http_server *server, void (*stopped)(void *context), void *context) {
  assert(!server->stopping);
  server->stopping = true;
  server->stopped = stopped;
  server->stopped_context = context;
  reactor_timer_stop(server->options.reactor, &server->accept_timer);
  reactor_cancel(server->options.reactor, &server->accept);
  struct list_node *node, *next;
  list_for_each_safe (node, next, &server->connections)
    connection_close(container_of(node, struct http_connection, node));
  reactor_defer(server->options.reactor, &server->check_stopped);
}

uint32_t http_server_exchanges(const struct http_server *server) {
  return server->exchange_count;
}

void http_server_stats_get(const struct http_server *server, struct http_server_stats *stats_out) {
  *stats_out =
      (struct http_server_stats){.accepted = server->accepted, .refused = server->refused_total};
  struct list_node *node, *next;
  list_for_each_safe (node, next, &server->connections) {
    if (is_idle(container_of(node, struct http_connection, node)))
      stats_out->idle++;
    else
      stats_out->active++;
  }
}
