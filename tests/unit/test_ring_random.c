/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random operations, cancellations, detaches and buffer shortages over many streams: every byte
 * arrives once and in order, every operation ends exactly once. A failing seed is printed.
 */
#include "core/ring.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define STREAMS 24
#define STEPS 3000
#define SEEDS 100
#define POOLED 4
#define POOLED_BYTES 32

struct stream {
  struct ring_op op;
  int fds[2];
  uint8_t sent, received; /* running byte values */
  uint64_t sent_bytes, received_bytes;
  uint8_t buffer[48];
  int held; /* index of a pooled buffer that was not returned yet, or -1 */
};

struct world {
  struct ring *ring;
  struct stream streams[STREAMS];
  uint64_t random;
};

static uint32_t roll(struct world *world, uint32_t limit) {
  world->random ^= world->random << 13;
  world->random ^= world->random >> 7;
  world->random ^= world->random << 17;
  return (uint32_t)(world->random % limit);
}

static void received(struct ring_op *op) {
  struct stream *stream = container_of(op, struct stream, op);
  assert_false(op->more);
  if (op->result == -ECANCELED) return;
  assert_true(op->result > 0);
  const uint8_t *bytes = op->pooled ? op->pooled_buffer : stream->buffer;
  for (int i = 0; i < op->result; i++) assert_int_equal(bytes[i], stream->received++);
  stream->received_bytes += (uint64_t)op->result;
  if (op->pooled) stream->held = op->pooled_index;
}

static void give_back(struct world *world, struct stream *stream) {
  if (stream->held < 0) return;
  ring_buffer_return(world->ring, (uint16_t)stream->held);
  stream->held = -1;
}

static void send_some(struct world *world, struct stream *stream) {
  uint8_t bytes[64];
  uint32_t length = 1 + roll(world, sizeof bytes);
  for (uint32_t i = 0; i < length; i++) bytes[i] = (uint8_t)(stream->sent + i);
  ssize_t taken = send(stream->fds[1], bytes, length, MSG_DONTWAIT);
  if (taken <= 0) return;
  stream->sent = (uint8_t)(stream->sent + taken);
  stream->sent_bytes += (uint64_t)taken;
}

static void receive_some(struct world *world, struct stream *stream) {
  if (stream->op.in_flight) return;
  give_back(world, stream);
  stream->op = (struct ring_op){.kind = RING_RECV,
                                .fd = stream->fds[0],
                                .pooled = roll(world, 3) != 0,
                                .buffer = stream->buffer,
                                .length = 1 + roll(world, sizeof stream->buffer),
                                .done = received};
  ring_submit(world->ring, &stream->op);
}

static void step(struct world *world) {
  struct stream *stream = &world->streams[roll(world, STREAMS)];
  switch (roll(world, 8)) {
  case 0:
  case 1: send_some(world, stream); return;
  case 2:
  case 3: receive_some(world, stream); return;
  case 4: ring_cancel(world->ring, &stream->op); return;
  case 5: give_back(world, stream); return;
  case 6: ring_wait(world->ring, 0); return;
  default:
    ring_reap(world->ring, 0);
    ring_cancel(world->ring, &stream->op);
    ring_deliver(world->ring);
    if (roll(world, 10) == 0) ring_detach(world->ring);
  }
}

/* Receives the rest of every stream, with the full pool. */
static void drain(struct world *world) {
  for (int i = 0; i < STREAMS; i++) {
    struct stream *stream = &world->streams[i];
    while (stream->received_bytes < stream->sent_bytes) {
      for (int k = 0; k < STREAMS; k++) give_back(world, &world->streams[k]);
      receive_some(world, stream);
      ring_wait(world->ring, UINT64_MAX);
    }
  }
  for (int i = 0; i < STREAMS; i++) ring_cancel(world->ring, &world->streams[i].op);
  while (ring_in_flight(world->ring) > 0) ring_wait(world->ring, UINT64_MAX);
  for (int i = 0; i < STREAMS; i++) give_back(world, &world->streams[i]);
}

static void run_seed(uint64_t number) {
  struct world world = {.random = number * 0x9e3779b97f4a7c15u + 1};
  struct ring_options options = {
      .entries = 4, .pooled_count = POOLED, .pooled_bytes = POOLED_BYTES};
  struct sprout_error error;
  assert_int_equal(ring_create(&options, &world.ring, &error), SPROUT_OK);
  for (int i = 0; i < STREAMS; i++) {
    world.streams[i].held = -1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, world.streams[i].fds), 0);
  }
  for (int i = 0; i < STEPS; i++) step(&world);
  drain(&world);
  for (int i = 0; i < STREAMS; i++) {
    assert_int_equal(world.streams[i].received_bytes, world.streams[i].sent_bytes);
    close(world.streams[i].fds[0]);
    close(world.streams[i].fds[1]);
  }
  ring_destroy(world.ring);
}

static uint64_t seed;

static void test_random(void **state) {
  (void)state;
  for (seed = 1; seed <= SEEDS; seed++) run_seed(seed);
}

/* After a failure too: says which seed to look at. */
static int print_seed(void **state) {
  (void)state;
  if (seed <= SEEDS) print_message("failed with seed %llu\n", (unsigned long long)seed);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_random, print_seed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
