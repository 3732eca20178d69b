/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ring.h"
#include "core/ring_uring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* An operation that keeps book of its completions. */
struct tracked {
  struct ring_op op;
  int calls;  /* completions delivered */
  int lasts;  /* of which the last one */
  int result; /* of the latest */
  int64_t sum;
  char bytes[64];
};

static void track(struct ring_op *op) {
  struct tracked *tracked = container_of(op, struct tracked, op);
  tracked->calls++;
  tracked->lasts += op->more ? 0 : 1;
  tracked->result = op->result;
  tracked->sum += op->result;
}

static struct ring *create(uint32_t entries, uint32_t pooled_count, uint32_t pooled_bytes) {
  struct ring_options options = {
      .entries = entries, .pooled_count = pooled_count, .pooled_bytes = pooled_bytes};
  struct ring *ring = NULL;
  struct sprout_error error;
  assert_int_equal(ring_create(&options, &ring, &error), SPROUT_OK);
  return ring;
}

/* Waits for the operation's last completion, and that there is exactly one. */
static void finish(struct ring *ring, struct tracked *tracked) {
  while (tracked->lasts == 0) ring_wait(ring, UINT64_MAX);
  assert_int_equal(tracked->lasts, 1);
  assert_false(tracked->op.in_flight);
}

static int run(struct ring *ring, struct ring_op op) {
  struct tracked tracked = {.op = op};
  tracked.op.done = track;
  ring_submit(ring, &tracked.op);
  finish(ring, &tracked);
  return tracked.result;
}

static void make_pair(int fds[2]) {
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
}

static void close_pair(int fds[2]) {
  close(fds[0]);
  close(fds[1]);
}

static int listen_on(struct sockaddr_in *address_out, int backlog) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  *address_out =
      (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof *address_out;
  assert_int_equal(bind(fd, (struct sockaddr *)address_out, length), 0);
  assert_int_equal(listen(fd, backlog), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)address_out, &length), 0);
  return fd;
}

static int connect_to(const struct sockaddr_in *address) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
  return fd;
}

static struct ring_op connect_op(int fd, const struct sockaddr_in *address) {
  return (struct ring_op){.kind = RING_CONNECT,
                          .fd = fd,
                          .address = (const struct sockaddr *)address,
                          .address_length = sizeof *address};
}

/* ---- each kind does what it says ---- */

static void test_nop_and_wait(void **state) {
  (void)state;
  struct ring *ring = create(8, 0, 0);
  assert_int_equal(ring_wait(ring, 0), 0);
  assert_int_equal(ring_wait(ring, 1000000), 0);
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_NOP}), 0);
  assert_int_equal(ring_in_flight(ring), 0);
  ring_destroy(ring);
  ring_destroy(NULL);
}

static void test_sockets(void **state) {
  (void)state;
  struct ring *ring = create(8, 0, 0);
  struct sockaddr_in address;
  int listener = listen_on(&address, 8);
  struct tracked accept_one = {.op = {.kind = RING_ACCEPT, .fd = listener, .done = track}};
  ring_submit(ring, &accept_one.op);
  int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  assert_int_equal(run(ring, connect_op(client, &address)), 0);
  finish(ring, &accept_one);
  int server = accept_one.result;
  assert_true(server >= 0);
  assert_true((fcntl(server, F_GETFL) & O_NONBLOCK) != 0);
  assert_true((fcntl(server, F_GETFD) & FD_CLOEXEC) != 0);

  /* A receive waits, although the socket is non-blocking. */
  struct tracked receive = {
      .op = {
          .kind = RING_RECV, .fd = server, .buffer = receive.bytes, .length = 64, .done = track}};
  ring_submit(ring, &receive.op);
  assert_int_equal(ring_wait(ring, 0), 0);
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_SEND,
                                              .fd = client,
                                              .buffer = (void *)(uintptr_t) "hello",
                                              .length = 5}),
                   5);
  finish(ring, &receive);
  assert_int_equal(receive.result, 5);
  assert_memory_equal(receive.bytes, "hello", 5);

  char a[] = "ab", b[] = "cde";
  struct iovec iov[] = {{a, 2}, {NULL, 0}, {b, 3}};
  assert_int_equal(
      run(ring, (struct ring_op){.kind = RING_SENDMSG, .fd = client, .iov = iov, .iov_count = 3}),
      5);
  char got[8];
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_RECV,
                                              .fd = server,
                                              .buffer = got,
                                              .length = 5,
                                              .msg_flags = MSG_WAITALL}),
                   5);
  assert_memory_equal(got, "abcde", 5);

  /* To a closed peer: an error, no signal. */
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_CLOSE, .fd = server}), 0);
  assert_int_equal(fcntl(server, F_GETFD), -1);
  int result = 1;
  while (result > 0)
    result = run(ring, (struct ring_op){.kind = RING_SEND, .fd = client, .buffer = a, .length = 1});
  assert_true(result == -EPIPE || result == -ECONNRESET);
  close(client);
  close(listener);
  client = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(run(ring, connect_op(client, &address)), -ECONNREFUSED);
  close(client);
  ring_destroy(ring);
}

static void test_files(void **state) {
  (void)state;
  struct ring *ring = create(8, 0, 0);
  int fd = memfd_create("ring", MFD_CLOEXEC);
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_FALLOCATE, .fd = fd, .length = 8192}),
                   0);
  assert_int_equal(lseek(fd, 0, SEEK_END), 8192);
  char a[] = "ab", b[] = "cde";
  struct iovec iov[] = {{a, 2}, {b, 3}};
  assert_int_equal(
      run(ring,
          (struct ring_op){
              .kind = RING_WRITEV, .fd = fd, .iov = iov, .iov_count = 2, .offset = 4096}),
      5);
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_FSYNC, .fd = fd}), 0);
  char got[16];
  assert_int_equal(
      run(ring,
          (struct ring_op){
              .kind = RING_READ, .fd = fd, .buffer = got, .length = 16, .offset = 8192 - 4092}),
      16);
  assert_memory_equal(got, "e", 1);
  assert_int_equal(
      run(ring,
          (struct ring_op){
              .kind = RING_READ, .fd = fd, .buffer = got, .length = 16, .offset = 8192}),
      0);
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_CLOSE, .fd = fd}), 0);
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_FSYNC, .fd = fd}), -EBADF);
  ring_destroy(ring);
}

static void test_poll(void **state) {
  (void)state;
  struct ring *ring = create(8, 0, 0);
  int fds[2];
  make_pair(fds);
  struct ring_op writable = {.kind = RING_POLL, .fd = fds[0], .poll_events = POLLOUT};
  assert_int_equal(run(ring, writable), POLLOUT);
  struct tracked many = {.op = {.kind = RING_POLL,
                                .fd = fds[0],
                                .multishot = true,
                                .poll_events = POLLIN,
                                .done = track}};
  ring_submit(ring, &many.op);
  for (int i = 1; i <= 3; i++) {
    assert_int_equal(write(fds[1], "x", 1), 1);
    while (many.calls < i) ring_wait(ring, UINT64_MAX);
    assert_true((many.result & POLLIN) != 0 && many.op.more);
  }
  ring_cancel(ring, &many.op);
  finish(ring, &many);
  assert_int_equal(many.result, -ECANCELED);
  close_pair(fds);
  ring_destroy(ring);
}

/* More connections than the ring has completion entries, and an ended listener. */
static void test_accept_multishot(void **state) {
  (void)state;
  struct ring *ring = create(2, 0, 0);
  struct sockaddr_in address;
  int listener = listen_on(&address, 128);
  struct tracked many = {
      .op = {.kind = RING_ACCEPT, .fd = listener, .multishot = true, .done = track}};
  ring_submit(ring, &many.op);
  ring_wait(ring, 0);
  int clients[100];
  for (int i = 0; i < 100; i++) clients[i] = connect_to(&address);
  int highest = 0;
  while (many.calls < 100) {
    ring_wait(ring, UINT64_MAX);
    assert_true(many.result >= 0);
    if (many.result > highest) highest = many.result;
    if (!many.op.in_flight) { /* the kernel may end it; its owner arms it again */
      many.lasts = 0;
      ring_submit(ring, &many.op);
    }
  }
  ring_cancel(ring, &many.op);
  finish(ring, &many);
  assert_int_equal(many.calls, 101);
  assert_int_equal(many.result, -ECANCELED);
  for (int i = 0; i < 100; i++) close(clients[i]);
  for (int fd = clients[99] + 1; fd <= highest; fd++) close(fd);
  close(listener);
  ring_destroy(ring);
}

/* ---- callbacks ---- */

struct counter {
  struct ring_op op;
  struct ring *ring;
  struct tracked *other; /* cancelled in the callback */
  int left, calls;
};

static void count_again(struct ring_op *op) {
  struct counter *counter = container_of(op, struct counter, op);
  counter->calls++;
  if (--counter->left > 0) ring_submit(counter->ring, op);
}

static void free_itself(struct ring_op *op) {
  free(container_of(op, struct counter, op));
}

static void cancel_other(struct ring_op *op) {
  struct counter *counter = container_of(op, struct counter, op);
  ring_cancel(counter->ring, &counter->other->op);
}

static void test_callbacks_own_their_operation(void **state) {
  (void)state;
  struct ring *ring = create(4, 0, 0);
  struct counter again = {.op = {.kind = RING_NOP, .done = count_again}, .ring = ring, .left = 100};
  ring_submit(ring, &again.op);
  while (again.left > 0) assert_true(ring_wait(ring, UINT64_MAX) <= 1); /* one step at a time */
  assert_int_equal(again.calls, 100);
  for (int i = 0; i < 50; i++) {
    struct counter *counter = calloc(1, sizeof *counter);
    assert_non_null(counter);
    counter->op = (struct ring_op){.kind = RING_NOP, .done = free_itself};
    ring_submit(ring, &counter->op);
    if (i % 3 == 0) ring_cancel(ring, &counter->op);
    if (i % 5 == 0) ring_wait(ring, 0);
  }
  while (ring_in_flight(ring) > 0) ring_wait(ring, UINT64_MAX);
  ring_destroy(ring);
}

/* Both completions lie in the ready list when the first one's callback cancels the second. */
static void test_cancel_of_a_reaped_one(void **state) {
  (void)state;
  struct ring *ring = create(4, 0, 0);
  struct tracked second = {.op = {.kind = RING_NOP, .done = track}};
  struct counter first = {
      .op = {.kind = RING_NOP, .done = cancel_other}, .ring = ring, .other = &second};
  ring_submit(ring, &first.op);
  ring_submit(ring, &second.op);
  finish(ring, &second);
  assert_int_equal(second.result, 0);
  ring_destroy(ring);
}

/* ---- cancellation ---- */

/* What the operations of the table below work on. */
struct bench {
  int pair[2];   /* nothing to read at [0] */
  int full[2];   /* [0] takes nothing more */
  int empty[2];  /* a pipe */
  int listener;  /* nobody connects */
  int crowded;   /* accepts nothing more */
  int crowd[16]; /* connections that filled it */
  struct sockaddr_in crowded_address;
  int connecting;
  int file;
  int spare; /* to be closed */
  char bytes[4096];
  struct iovec iov;
};

static void fill_up(int fd) {
  char block[4096] = {0};
  while (send(fd, block, sizeof block, MSG_DONTWAIT) > 0) {
  }
}

static void open_bench(struct bench *bench) {
  memset(bench, 0, sizeof *bench);
  struct sockaddr_in address;
  make_pair(bench->pair);
  make_pair(bench->full);
  fcntl(bench->full[0], F_SETFL, O_NONBLOCK); /* the ring waits all the same */
  fcntl(bench->pair[0], F_SETFL, O_NONBLOCK);
  fill_up(bench->full[0]);
  assert_int_equal(pipe(bench->empty), 0);
  bench->listener = listen_on(&address, 8);
  bench->crowded = listen_on(&bench->crowded_address, 0);
  for (int i = 0; i < 16; i++) {
    bench->crowd[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int result = connect(bench->crowd[i], (struct sockaddr *)&bench->crowded_address,
                         sizeof bench->crowded_address);
    assert_true(result == 0 || errno == EINPROGRESS);
  }
  bench->connecting = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  bench->file = memfd_create("bench", MFD_CLOEXEC);
  bench->spare = dup(bench->file);
  bench->iov = (struct iovec){bench->bytes, sizeof bench->bytes};
}

static void close_bench(struct bench *bench) {
  close_pair(bench->pair);
  close_pair(bench->full);
  close_pair(bench->empty);
  for (int i = 0; i < 16; i++) close(bench->crowd[i]);
  close(bench->listener);
  close(bench->crowded);
  close(bench->connecting);
  close(bench->file);
  if (fcntl(bench->spare, F_GETFD) >= 0) close(bench->spare);
}

enum life {
  AT_ONCE, /* done with the submission */
  SOON,    /* on a thread of the kernel */
  STAYS    /* pending until cancelled */
};

struct cancel_row {
  const char *name;
  enum ring_kind kind;
  enum life life;
  bool multishot, pooled;
};

static const struct cancel_row cancel_rows[] = {
    {"nop", RING_NOP, AT_ONCE, false, false},
    {"accept", RING_ACCEPT, STAYS, false, false},
    {"accept multishot", RING_ACCEPT, STAYS, true, false},
    {"connect", RING_CONNECT, STAYS, false, false},
    {"recv", RING_RECV, STAYS, false, false},
    {"recv pooled", RING_RECV, STAYS, false, true},
    {"send", RING_SEND, STAYS, false, false},
    {"sendmsg", RING_SENDMSG, STAYS, false, false},
    {"poll", RING_POLL, STAYS, false, false},
    {"poll multishot", RING_POLL, STAYS, true, false},
    {"read", RING_READ, STAYS, false, false},
    {"writev", RING_WRITEV, SOON, false, false},
    {"fallocate", RING_FALLOCATE, SOON, false, false},
    {"fsync", RING_FSYNC, SOON, false, false},
    {"close", RING_CLOSE, AT_ONCE, false, false},
};

static struct ring_op row_op(const struct cancel_row *row, struct bench *bench) {
  struct ring_op op = {.kind = row->kind,
                       .multishot = row->multishot,
                       .pooled = row->pooled,
                       .buffer = bench->bytes,
                       .length = sizeof bench->bytes,
                       .iov = &bench->iov,
                       .iov_count = 1,
                       .done = track};
  switch (row->kind) {
  case RING_ACCEPT: op.fd = bench->listener; break;
  case RING_CONNECT:
    op.fd = bench->connecting;
    op.address = (struct sockaddr *)&bench->crowded_address;
    op.address_length = sizeof bench->crowded_address;
    break;
  case RING_RECV: op.fd = bench->pair[0]; break;
  case RING_SEND:
  case RING_SENDMSG: op.fd = bench->full[0]; break;
  case RING_POLL:
    op.fd = bench->empty[0];
    op.poll_events = POLLIN;
    break;
  case RING_READ: op.fd = bench->empty[0]; break;
  case RING_CLOSE: op.fd = bench->spare; break;
  default: op.fd = bench->file;
  }
  return op;
}

enum cancel_when { BEFORE_SUBMIT, IN_FLIGHT, AFTER_REAP, AFTER_DONE, WHEN_COUNT };

static void check_cancel(const struct cancel_row *row, enum cancel_when when) {
  struct bench bench;
  open_bench(&bench);
  struct ring *ring = create(8, 2, 64);
  struct tracked tracked = {.op = row_op(row, &bench)};
  ring_cancel(ring, &tracked.op); /* not in flight: harmless */
  ring_submit(ring, &tracked.op);
  if (when == IN_FLIGHT) {
    uint32_t delivered = ring_wait(ring, 0);
    if (row->life != SOON) assert_int_equal(delivered, row->life == STAYS ? 0 : 1);
  }
  if (when == AFTER_REAP) ring_reap(ring, 0);
  if (when == AFTER_DONE && row->life != STAYS) finish(ring, &tracked);
  ring_cancel(ring, &tracked.op);
  ring_cancel(ring, &tracked.op); /* twice: harmless */
  if (when == AFTER_REAP) ring_deliver(ring);
  finish(ring, &tracked);
  assert_int_equal(tracked.calls, 1);
  if (row->life == STAYS || when == BEFORE_SUBMIT)
    assert_int_equal(tracked.result, -ECANCELED);
  else if (row->life == AT_ONCE || when == AFTER_DONE)
    assert_int_not_equal(tracked.result, -ECANCELED);
  ring_cancel(ring, &tracked.op);
  assert_int_equal(ring_wait(ring, 0), 0);
  assert_int_equal(ring_in_flight(ring), 0);
  ring_destroy(ring);
  close_bench(&bench);
}

static void test_cancel_every_kind(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof cancel_rows / sizeof cancel_rows[0]; i++)
    for (int when = 0; when < WHEN_COUNT; when++) check_cancel(&cancel_rows[i], when);
}

/* A cancelled receive either got the bytes or left them in the socket. */
static void test_cancelled_receive_loses_nothing(void **state) {
  (void)state;
  struct ring *ring = create(8, 4, 16);
  for (int i = 0; i < 200; i++) {
    int fds[2];
    make_pair(fds);
    struct tracked receive = {.op = {.kind = RING_RECV,
                                     .fd = fds[0],
                                     .buffer = receive.bytes,
                                     .length = 8,
                                     .pooled = i % 2 == 0,
                                     .done = track}};
    ring_submit(ring, &receive.op);
    if (i % 3 != 0) ring_wait(ring, 0);
    assert_int_equal(write(fds[1], "12345678", 8), 8);
    if (i % 5 == 0) ring_reap(ring, 0);
    ring_cancel(ring, &receive.op);
    if (i % 5 == 0) ring_deliver(ring);
    finish(ring, &receive);
    if (receive.op.pooled_buffer != NULL) ring_buffer_return(ring, receive.op.pooled_index);
    char rest[8];
    ssize_t left = recv(fds[0], rest, sizeof rest, MSG_DONTWAIT);
    assert_int_equal((receive.result > 0 ? receive.result : 0) + (left > 0 ? left : 0), 8);
    close_pair(fds);
  }
  ring_destroy(ring);
}

/* ---- bounds ---- */

#define MANY 10000

static void test_more_than_slots(void **state) {
  (void)state;
  struct ring *ring = create(512, 0, 0);
  struct tracked *all = calloc(MANY, sizeof *all);
  assert_non_null(all);
  for (int i = 0; i < MANY; i++) {
    all[i].op = (struct ring_op){.kind = RING_NOP, .done = track};
    ring_submit(ring, &all[i].op);
  }
  assert_int_equal(ring_in_flight(ring), MANY);
  while (ring_in_flight(ring) > 0) ring_wait(ring, UINT64_MAX);
  for (int i = 0; i < MANY; i++) assert_int_equal(all[i].calls, 1);
  free(all);
  ring_destroy(ring);
}

/* All pending at once, then all cancelled at once: far more completions than the queue has room. */
static void test_more_than_slots_pending(void **state) {
  (void)state;
  struct ring *ring = create(512, 0, 0);
  int fds[2];
  assert_int_equal(pipe(fds), 0);
  struct tracked *all = calloc(MANY, sizeof *all);
  assert_non_null(all);
  for (int i = 0; i < MANY; i++) {
    all[i].op =
        (struct ring_op){.kind = RING_POLL, .fd = fds[0], .poll_events = POLLIN, .done = track};
    ring_submit(ring, &all[i].op);
  }
  assert_int_equal(ring_wait(ring, 0), 0);
  for (int i = 0; i < MANY; i += 2) ring_cancel(ring, &all[i].op);
  while (ring_in_flight(ring) > MANY / 2) ring_wait(ring, UINT64_MAX);
  assert_int_equal(write(fds[1], "x", 1), 1);
  while (ring_in_flight(ring) > 0) ring_wait(ring, UINT64_MAX);
  for (int i = 0; i < MANY; i++) {
    assert_int_equal(all[i].calls, 1);
    assert_int_equal(all[i].result, i % 2 == 0 ? -ECANCELED : POLLIN);
  }
  free(all);
  close_pair(fds);
  ring_destroy(ring);
}

/* ---- pooled receives ---- */

#define RECEIVERS 10

struct receivers {
  struct ring *ring;
  int fds[RECEIVERS][2];
  struct tracked all[RECEIVERS];
  int order[RECEIVERS]; /* of completion */
  int ordered;
};

static struct receivers *current;

static void received(struct ring_op *op) {
  track(op);
  struct tracked *tracked = container_of(op, struct tracked, op);
  current->order[current->ordered++] = (int)(tracked - current->all);
}

static void open_receivers(struct receivers *receivers, uint32_t buffers) {
  memset(receivers, 0, sizeof *receivers);
  current = receivers;
  receivers->ring = create(8, buffers, 16);
  for (int i = 0; i < RECEIVERS; i++) {
    make_pair(receivers->fds[i]);
    receivers->all[i].op = (struct ring_op){
        .kind = RING_RECV, .fd = receivers->fds[i][0], .pooled = true, .done = received};
    ring_submit(receivers->ring, &receivers->all[i].op);
  }
}

static void close_receivers(struct receivers *receivers) {
  for (int i = 0; i < RECEIVERS; i++) ring_cancel(receivers->ring, &receivers->all[i].op);
  while (ring_in_flight(receivers->ring) > 0) ring_wait(receivers->ring, UINT64_MAX);
  for (int i = 0; i < RECEIVERS; i++) close_pair(receivers->fds[i]);
  ring_destroy(receivers->ring);
}

static void wait_for(struct receivers *receivers, int count) {
  while (receivers->ordered < count) ring_wait(receivers->ring, UINT64_MAX);
  while (ring_wait(receivers->ring, 0) > 0) {
  }
  assert_int_equal(receivers->ordered, count);
}

/* Data for all, two buffers: the rest waits, in order, and loses nothing. */
static void test_pool_exhausted_and_back(void **state) {
  (void)state;
  struct receivers receivers;
  open_receivers(&receivers, 2);
  ring_wait(receivers.ring, 0);
  for (int i = 0; i < RECEIVERS; i++)
    assert_int_equal(write(receivers.fds[i][1], &"0123456789"[i], 1), 1);
  for (int served = 2; served <= RECEIVERS; served++) {
    wait_for(&receivers, served);
    struct tracked *oldest = &receivers.all[receivers.order[served - 2]];
    assert_int_equal(oldest->result, 1);
    assert_int_equal(*(char *)oldest->op.pooled_buffer, "0123456789"[receivers.order[served - 2]]);
    ring_buffer_return(receivers.ring, oldest->op.pooled_index);
  }
  for (int i = 0; i < RECEIVERS; i++) assert_int_equal(receivers.order[i], i);
  ring_buffer_return(receivers.ring, receivers.all[RECEIVERS - 1].op.pooled_index);
  close_receivers(&receivers);
}

/* While the pool is empty idle receives starve too; they must not keep a buffer from one with data.
 */
static void test_pool_idle_receives_do_not_block(void **state) {
  (void)state;
  struct receivers receivers;
  open_receivers(&receivers, 1);
  ring_wait(receivers.ring, 0);
  assert_int_equal(write(receivers.fds[0][1], "a", 1), 1);
  wait_for(&receivers, 1);
  struct tracked *first = &receivers.all[0];
  uint16_t held = first->op.pooled_index;
  /* Armed again without a buffer around: all starve. */
  for (int i = 1; i < RECEIVERS; i++) ring_cancel(receivers.ring, &receivers.all[i].op);
  wait_for(&receivers, RECEIVERS);
  receivers.ordered = 0;
  for (int i = 1; i < RECEIVERS; i++) {
    receivers.all[i].lasts = 0;
    ring_submit(receivers.ring, &receivers.all[i].op);
  }
  wait_for(&receivers, 0);
  assert_int_equal(write(receivers.fds[RECEIVERS - 1][1], "z", 1), 1);
  ring_buffer_return(receivers.ring, held);
  wait_for(&receivers, 1);
  assert_int_equal(receivers.order[0], RECEIVERS - 1);
  /* One that starves can be cancelled. */
  assert_int_equal(write(receivers.fds[1][1], "b", 1), 1);
  wait_for(&receivers, 1);
  ring_cancel(receivers.ring, &receivers.all[1].op);
  wait_for(&receivers, 2);
  assert_int_equal(receivers.all[1].result, -ECANCELED);
  ring_buffer_return(receivers.ring, receivers.all[RECEIVERS - 1].op.pooled_index);
  close_receivers(&receivers);
}

/* End of stream, errors and injected errors keep no buffer. */
static void test_pool_leaks_nothing(void **state) {
  (void)state;
  struct ring *ring = create(8, 1, 16);
  for (int i = 0; i < 20; i++) {
    int fds[2];
    make_pair(fds);
    struct ring_op op = {.kind = RING_RECV, .fd = fds[0], .pooled = true};
    close(fds[1]);
    assert_int_equal(run(ring, op), 0);
    close(fds[0]);
    assert_int_equal(run(ring, op), -EBADF);
    make_pair(fds);
    assert_int_equal(write(fds[1], "0123456789abcdefXY", 18), 18);
    struct tracked receive = {
        .op = {.kind = RING_RECV, .fd = fds[0], .pooled = true, .done = track}};
    ring_submit(ring, &receive.op);
    finish(ring, &receive);
    assert_int_equal(receive.result, 16); /* longer input comes in pieces */
    ring_buffer_return(ring, receive.op.pooled_index);
    close_pair(fds);
  }
  ring_destroy(ring);
}

/* ---- from thread to thread ---- */

static void *wait_for_all(void *argument) {
  struct ring *ring = argument;
  while (ring_in_flight(ring) > 0) ring_wait(ring, UINT64_MAX);
  ring_detach(ring);
  return NULL;
}

static void *wait_once(void *argument) {
  ring_wait(argument, 0);
  ring_detach(argument);
  return NULL;
}

static void on_thread(void *(*body)(void *), struct ring *ring) {
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, body, ring), 0);
  pthread_join(thread, NULL);
}

/* Submitted on a thread that ends: pending operations outlive it and complete on another. */
static void test_detach(void **state) {
  (void)state;
  struct ring *ring = create(8, 2, 64);
  ring_detach(ring); /* not bound: harmless */
  struct bench bench;
  open_bench(&bench);
  enum { ROWS = sizeof cancel_rows / sizeof cancel_rows[0] };
  struct tracked all[ROWS];
  memset(all, 0, sizeof all);
  for (int i = 0; i < ROWS; i++) {
    if (cancel_rows[i].pooled) continue; /* two receives of one socket */
    all[i].op = row_op(&cancel_rows[i], &bench);
    ring_submit(ring, &all[i].op);
  }
  on_thread(wait_once, ring);
  for (int i = 0; i < ROWS; i++)
    if (cancel_rows[i].life == STAYS && cancel_rows[i].kind != RING_CONNECT &&
        !cancel_rows[i].pooled)
      assert_int_equal(all[i].calls, 0);
    else if (cancel_rows[i].kind == RING_CONNECT)
      assert_int_equal(all[i].result, -ECANCELED);
  on_thread(wait_once, ring); /* armed, and taken back again */
  assert_int_equal(write(bench.pair[1], "pair", 4), 4);
  assert_int_equal(write(bench.empty[1], "empty", 5), 5);
  for (int i = 0; i < ROWS; i++)
    if (cancel_rows[i].kind != RING_RECV && cancel_rows[i].kind != RING_READ &&
        !(cancel_rows[i].kind == RING_POLL && !cancel_rows[i].multishot))
      ring_cancel(ring, &all[i].op);
  on_thread(wait_for_all, ring);
  for (int i = 0; i < ROWS; i++) {
    if (cancel_rows[i].pooled) continue;
    assert_int_equal(all[i].lasts, 1);
    if (cancel_rows[i].kind == RING_RECV) assert_int_equal(all[i].result, 4);
    if (cancel_rows[i].kind == RING_READ) assert_int_equal(all[i].result, 5);
  }
  ring_destroy(ring);
  close_bench(&bench);
}

/* ---- faults ---- */

#ifdef SPROUT_FAULTS

struct fault_at {
  uint64_t number;
  int32_t result;
  uint64_t seen;
};

static int32_t fail_at(void *context, uint64_t number, const struct ring_op *op, int32_t result) {
  (void)op;
  struct fault_at *at = context;
  at->seen = number;
  return number == at->number ? at->result : result;
}

static void test_fault_hook(void **state) {
  (void)state;
  struct ring *ring = create(8, 2, 64);
  struct fault_at at = {.number = 2, .result = -EIO};
  ring_fault_set(ring, fail_at, &at);
  for (uint64_t i = 0; i < 4; i++) {
    assert_int_equal(run(ring, (struct ring_op){.kind = RING_NOP}), i == 2 ? -EIO : 0);
    assert_int_equal(at.seen, i);
  }
  /* A pooled receive that fails keeps no buffer. */
  int fds[2];
  make_pair(fds);
  for (at.number = 4; at.number < 8; at.number++) {
    assert_int_equal(write(fds[1], "x", 1), 1);
    struct ring_op op = {.kind = RING_RECV, .fd = fds[0], .pooled = true};
    assert_int_equal(run(ring, op), -EIO);
  }
  close_pair(fds);
  ring_destroy(ring);
}

/* An injected error is a multishot operation's last completion, and hides no descriptor. */
static void test_fault_in_multishot(void **state) {
  (void)state;
  struct ring *ring = create(8, 0, 0);
  struct fault_at at = {.number = 1, .result = -EMFILE};
  ring_fault_set(ring, fail_at, &at);
  struct sockaddr_in address;
  int listener = listen_on(&address, 8);
  struct tracked many = {
      .op = {.kind = RING_ACCEPT, .fd = listener, .multishot = true, .done = track}};
  ring_submit(ring, &many.op);
  ring_wait(ring, 0);
  int first = connect_to(&address), second = connect_to(&address);
  finish(ring, &many);
  assert_int_equal(many.calls, 2);
  assert_int_equal(many.result, -EMFILE);
  char byte;
  assert_int_equal(recv(second, &byte, 1, 0), 0); /* the hidden descriptor was closed */
  close((int)(many.sum + EMFILE));
  close(first);
  close(second);
  close(listener);
  ring_destroy(ring);
}

static void test_fault_environment(void **state) {
  (void)state;
  static const struct {
    const char *text;
    enum sprout_status status;
    uint64_t fail_at;
    int32_t fail_with;
    uint64_t short_bytes;
  } rows[] = {
      {NULL, SPROUT_OK, UINT64_MAX, 0, 0},
      {"", SPROUT_OK, UINT64_MAX, 0, 0},
      {"7:-5", SPROUT_OK, 7, -5, 0},
      {"SHORT:3", SPROUT_OK, UINT64_MAX, 0, 3},
      {"SHORT:3,7:-104", SPROUT_OK, 7, -104, 3},
      {"7", SPROUT_INVALID, 0, 0, 0},
      {"7:5", SPROUT_INVALID, 0, 0, 0},
      {"7:-5000", SPROUT_INVALID, 0, 0, 0},
      {"x:-5", SPROUT_INVALID, 0, 0, 0},
      {"7:-5x", SPROUT_INVALID, 0, 0, 0},
      {"SHORT:0", SPROUT_INVALID, 0, 0, 0},
      {"SHORT:", SPROUT_INVALID, 0, 0, 0},
      {"7:-5,", SPROUT_INVALID, 0, 0, 0},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    struct ring_fault fault;
    struct sprout_error error;
    assert_int_equal(ring_fault_init(&fault, rows[i].text, &error), rows[i].status);
    if (rows[i].status != SPROUT_OK) continue;
    assert_int_equal(fault.fail_at, rows[i].fail_at);
    assert_int_equal(fault.fail_with, rows[i].fail_with);
    assert_int_equal(fault.short_bytes, rows[i].short_bytes);
  }
}

static void test_fault_short_transfers(void **state) {
  (void)state;
  setenv("SPROUT_FAULT_RING", "SHORT:3,2:-5", 1);
  struct ring *ring = create(8, 2, 64);
  unsetenv("SPROUT_FAULT_RING");
  int fds[2];
  make_pair(fds);
  int file = memfd_create("short", MFD_CLOEXEC);
  char text[] = "abcdefgh", got[8];
  struct iovec iov[] = {{text, 0}, {text, 8}};
  struct ring_op send = {.kind = RING_SEND, .fd = fds[1], .buffer = text, .length = 8};
  struct ring_op gather = {.kind = RING_SENDMSG, .fd = fds[1], .iov = iov, .iov_count = 2};
  struct ring_op write = {.kind = RING_WRITEV, .fd = file, .iov = iov, .iov_count = 2};
  struct ring_op receive = {.kind = RING_RECV, .fd = fds[0], .buffer = got, .length = 8};
  assert_int_equal(run(ring, send), 3);
  assert_int_equal(run(ring, gather), 3);
  assert_int_equal(run(ring, (struct ring_op){.kind = RING_NOP}), -5);
  assert_int_equal(run(ring, write), 3);
  assert_int_equal(run(ring, receive), 3);
  assert_memory_equal(got, "abc", 3);
  struct tracked pooled = {.op = {.kind = RING_RECV, .fd = fds[0], .pooled = true, .done = track}};
  ring_submit(ring, &pooled.op);
  finish(ring, &pooled);
  assert_int_equal(pooled.result, 3);
  ring_buffer_return(ring, pooled.op.pooled_index);
  close_pair(fds);
  close(file);
  ring_destroy(ring);
}

#endif

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_nop_and_wait),
      cmocka_unit_test(test_sockets),
      cmocka_unit_test(test_files),
      cmocka_unit_test(test_poll),
      cmocka_unit_test(test_accept_multishot),
      cmocka_unit_test(test_callbacks_own_their_operation),
      cmocka_unit_test(test_cancel_of_a_reaped_one),
      cmocka_unit_test(test_cancel_every_kind),
      cmocka_unit_test(test_cancelled_receive_loses_nothing),
      cmocka_unit_test(test_more_than_slots),
      cmocka_unit_test(test_more_than_slots_pending),
      cmocka_unit_test(test_pool_exhausted_and_back),
      cmocka_unit_test(test_pool_idle_receives_do_not_block),
      cmocka_unit_test(test_pool_leaks_nothing),
      cmocka_unit_test(test_detach),
#ifdef SPROUT_FAULTS
      cmocka_unit_test(test_fault_hook),
      cmocka_unit_test(test_fault_in_multishot),
      cmocka_unit_test(test_fault_environment),
      cmocka_unit_test(test_fault_short_transfers),
#endif
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
