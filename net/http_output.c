/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection's way out: one thing at a time, the answers in order.
 *
 * Heads and documents are gathered, several answers at once, into one send of the ring. An answer
 * made of pieces waits for its turn in the pace. In a turn, the head goes with MSG_MORE so that it
 * shares the first segment with the body, then sendfile until the socket is full or the turn is
 * used up; then the ring says when the socket is writable. Pieces without a descriptor go by a
 * send of the ring, one piece at a time.
 */
#include "net/http_server_private.h"

#include "core/log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/sendfile.h>
#include <time.h>

static void out_done(struct ring_op *op);
static uint64_t take_turn(struct http_sender *sender, uint64_t budget_bytes);

static struct reactor *reactor_of(const struct http_connection *connection) {
  return connection->server->options.reactor;
}

void output_init(struct http_connection *connection) {
  connection->output = OUTPUT_IDLE;
  connection->out.done = out_done;
  connection->sender.turn = take_turn;
  list_init(&connection->sender.node);
}

void output_cancel(struct http_connection *connection) {
  if (connection->sender.account != NULL)
    http_pace_leave(connection->server->options.pace, &connection->sender);
  reactor_cancel(reactor_of(connection), &connection->out);
}

static bool has_pieces(const struct http_exchange *exchange) {
  return exchange->next_piece != NULL && exchange->body_bytes > 0;
}

/* --- bookkeeping --- */

/* `bytes` of the first exchanges have left; finishes those that are whole. */
static void account_sent(struct http_connection *connection, uint64_t bytes) {
  connection->progress_ns = reactor_now(reactor_of(connection));
  while (bytes > 0) {
    struct http_exchange *exchange = connection_first(connection);
    assert(exchange != NULL && exchange->answered);
    uint64_t head = exchange->head_bytes - exchange->head_sent;
    if (head > bytes) head = bytes;
    exchange->head_sent += (uint32_t)head;
    uint64_t body = bytes - head, left = exchange->body_bytes - exchange->body_sent;
    if (body > left) body = left;
    exchange->body_sent += body;
    if (has_pieces(exchange)) {
      exchange->piece.base += body;
      exchange->piece.length_bytes -= body;
      exchange->piece.fd_offset += body;
    }
    bytes -= head + body;
    if (exchange->head_sent < exchange->head_bytes || exchange->body_sent < exchange->body_bytes) {
      assert(bytes == 0);
      return;
    }
    connection_exchange_done(connection);
  }
}

static void wait_writable(struct http_connection *connection) {
  connection->output = OUTPUT_POLLING;
  connection->out.kind = RING_POLL;
  connection->out.fd = connection->fd;
  connection->out.poll_events = POLLOUT;
  connection->out.multishot = false;
  reactor_submit(reactor_of(connection), &connection->out);
}

static void send_gathered(struct http_connection *connection, uint32_t iov_count) {
  connection->output = OUTPUT_SENDING;
  connection->out.kind = RING_SENDMSG;
  connection->out.fd = connection->fd;
  connection->out.iov = connection->iov;
  connection->out.iov_count = iov_count;
  connection->out.msg_flags = 0;
  reactor_submit(reactor_of(connection), &connection->out);
}

static void add_iov(struct http_connection *connection, uint32_t *count, const void *base,
                    uint64_t length_bytes) {
  if (length_bytes == 0) return;
  assert(*count < OUTPUT_IOV_MAX);
  connection->iov[*count].iov_base = (void *)(uintptr_t)base;
  connection->iov[*count].iov_len = length_bytes;
  (*count)++;
}

/* --- turns --- */

static struct http_piece *current_piece(struct http_exchange *exchange) {
  if (exchange->piece.length_bytes == 0) {
    exchange->next_piece(exchange, &exchange->piece);
    assert(exchange->piece.length_bytes > 0);
    assert(exchange->piece.length_bytes <= exchange->body_bytes - exchange->body_sent);
  }
  return &exchange->piece;
}

/* A piece without a descriptor, and the head if it has not left: by the ring. */
static void send_from_memory(struct http_connection *connection, struct http_exchange *exchange,
                             uint64_t budget_bytes) {
  const struct http_piece *piece = &exchange->piece;
  uint64_t length = piece->length_bytes < budget_bytes ? piece->length_bytes : budget_bytes;
  uint32_t count = 0;
  add_iov(connection, &count, exchange->head + exchange->head_sent,
          exchange->head_bytes - exchange->head_sent);
  add_iov(connection, &count, piece->base, length);
  send_gathered(connection, count);
}

enum step { STEP_SENT, STEP_FULL, STEP_BROKEN };

static enum step classify(int error) {
  return error == EAGAIN || error == EINTR ? STEP_FULL : STEP_BROKEN;
}

static enum step send_head(struct http_connection *connection, struct http_exchange *exchange) {
  uint32_t left = exchange->head_bytes - exchange->head_sent;
  if (left == 0) return STEP_SENT;
  ssize_t sent = send(connection->fd, exchange->head + exchange->head_sent, left,
                      MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE);
  if (sent < 0) return classify(errno);
  account_sent(connection, (uint64_t)sent);
  return (uint32_t)sent == left ? STEP_SENT : STEP_FULL;
}

/* Sends from the current piece. *sent_out also when the socket is full now. */
static enum step send_from_file(struct http_connection *connection, struct http_exchange *exchange,
                                uint64_t budget_bytes, uint64_t *sent_out) {
  struct http_piece *piece = &exchange->piece;
  uint64_t length = piece->length_bytes < budget_bytes ? piece->length_bytes : budget_bytes;
  off_t offset = (off_t)piece->fd_offset;
  ssize_t sent = sendfile(connection->fd, piece->fd, &offset, length);
  *sent_out = sent > 0 ? (uint64_t)sent : 0;
  if (sent > 0) {
    account_sent(connection, (uint64_t)sent);
    return (uint64_t)sent == length ? STEP_SENT : STEP_FULL;
  }
  if (sent == 0) {
    log_write(LOG_ERROR, "seed",
              "a served file became shorter at offset %llu; restore it and "
              "restart the seed",
              (unsigned long long)piece->fd_offset);
    return STEP_BROKEN;
  }
  if (errno != EINVAL && errno != ENOSYS) return classify(errno);
  piece->fd = -1; /* a file system that cannot: from memory */
  return STEP_SENT;
}

/* System calls of one turn: tiny pieces must not hold up the others. */
#define TURN_STEPS_MAX 256u

static uint64_t run_turn(struct http_connection *connection, uint64_t budget_bytes) {
  struct http_account *account = connection_first(connection)->account;
  uint64_t used = 0;
  connection->output = OUTPUT_IDLE;
  connection->progress_ns = reactor_now(reactor_of(connection)); /* waiting was not its fault */
  for (uint32_t steps = 0;; steps++) {
    struct http_exchange *exchange = connection_first(connection);
    bool mine = exchange != NULL && exchange->answered && has_pieces(exchange) &&
                exchange->account == account;
    if (!mine) {
      connection_wake(connection);
      return used;
    }
    if (used >= budget_bytes || steps >= TURN_STEPS_MAX) break;
    const struct http_piece *piece = current_piece(exchange);
    if (piece->fd < 0) {
      send_from_memory(connection, exchange, budget_bytes - used);
      return used;
    }
    enum step step = send_head(connection, exchange);
    uint64_t sent = 0;
    if (step == STEP_SENT) step = send_from_file(connection, exchange, budget_bytes - used, &sent);
    used += sent;
    if (step == STEP_BROKEN) {
      connection_close(connection);
      return used;
    }
    if (step == STEP_FULL) break;
  }
  wait_writable(connection);
  return used;
}

/*
 * sendfile has no MSG_NOSIGNAL: a peer that has gone would end the whole program. The thread may be
 * the host's, so its signal mask is lent for the turn only, and our SIGPIPE does not stay behind.
 */
struct pipe_guard {
  sigset_t pipe, before;
  bool was_pending;
};

static void guard_pipe(struct pipe_guard *guard) {
  sigset_t pending;
  sigemptyset(&guard->pipe);
  sigaddset(&guard->pipe, SIGPIPE);
  (void)pthread_sigmask(SIG_BLOCK, &guard->pipe, &guard->before);
  guard->was_pending = sigismember(&guard->before, SIGPIPE) == 1 && sigpending(&pending) == 0 &&
                       sigismember(&pending, SIGPIPE) == 1;
}

static void unguard_pipe(const struct pipe_guard *guard, bool broken) {
  static const struct timespec no_time;
  if (broken && !guard->was_pending) {
    while (sigtimedwait(&guard->pipe, NULL, &no_time) < 0 && errno == EINTR) continue;
  }
  (void)pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
}

static uint64_t take_turn(struct http_sender *sender, uint64_t budget_bytes) {
  struct http_connection *connection = container_of(sender, struct http_connection, sender);
  struct pipe_guard guard;
  guard_pipe(&guard);
  uint64_t used = run_turn(connection, budget_bytes);
  unguard_pipe(&guard, connection->state >= CONNECTION_CLOSING);
  return used;
}

static void wait_for_turn(struct http_connection *connection) {
  struct http_exchange *exchange = connection_first(connection);
  connection->output = OUTPUT_WAITING;
  connection->sender.waiting_bytes = 0;
  struct list_node *node, *next;
  list_for_each_safe (node, next, &connection->exchanges) {
    struct http_exchange *each = container_of(node, struct http_exchange, node);
    if (!each->answered || !has_pieces(each) || each->account != exchange->account) break;
    connection->sender.waiting_bytes += each->body_bytes - each->body_sent;
  }
  http_pace_wait(connection->server->options.pace, exchange->account, &connection->sender);
}

/* --- documents --- */

/* Heads and documents of the answers in front, up to the first that has pieces or is not there. */
static void send_documents(struct http_connection *connection) {
  uint32_t count = 0;
  struct list_node *node, *next;
  list_for_each_safe (node, next, &connection->exchanges) {
    struct http_exchange *exchange = container_of(node, struct http_exchange, node);
    if (!exchange->answered || has_pieces(exchange) || count + 2 > OUTPUT_IOV_MAX) break;
    add_iov(connection, &count, exchange->head + exchange->head_sent,
            exchange->head_bytes - exchange->head_sent);
    if (exchange->body_bytes > exchange->body_sent)
      add_iov(connection, &count,
              exchange->document->data + exchange->document_offset + exchange->body_sent,
              exchange->body_bytes - exchange->body_sent);
  }
  send_gathered(connection, count);
}

void output_push(struct http_connection *connection) {
  struct http_exchange *exchange = connection_first(connection);
  if (connection->output != OUTPUT_IDLE || exchange == NULL || !exchange->answered) return;
  connection->progress_ns = reactor_now(reactor_of(connection));
  if (has_pieces(exchange))
    wait_for_turn(connection);
  else
    send_documents(connection);
}

/* --- completions --- */

static void poll_done(struct http_connection *connection, int32_t result) {
  if (result < 0 || (result & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
    connection_close(connection);
    return;
  }
  connection->output = OUTPUT_IDLE;
  output_push(connection);
}

static void send_done(struct http_connection *connection, int32_t result) {
  if (result < 0 && result != -EAGAIN && result != -EINTR) {
    connection_close(connection);
    return;
  }
  connection->output = OUTPUT_IDLE;
  if (result <= 0) return;
  struct http_exchange *exchange = connection_first(connection);
  if (has_pieces(exchange)) {
    uint64_t head = exchange->head_bytes - exchange->head_sent;
    if ((uint64_t)result > head)
      http_pace_spend(connection->server->options.pace, exchange->account, (uint64_t)result - head);
  }
  account_sent(connection, (uint64_t)result);
}

static void out_done(struct ring_op *op) {
  struct http_connection *connection = container_of(op, struct http_connection, out);
  if (connection->state < CONNECTION_CLOSING) {
    if (connection->output == OUTPUT_POLLING)
      poll_done(connection, op->result);
    else
      send_done(connection, op->result);
  }
  connection_wake(connection);
}
