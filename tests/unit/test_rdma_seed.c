/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The publication by itself, over the fake verbs layer: its life, its guests' connections, and what
 * happens when devices and calls fail.
 */
#include "core/log.h"
#include "net/rdma_module.h"
#include "net/rdma_seed.h"
#include "net/service.h"
#include "tests/support/memory.h"
#include "tests/support/rdma_peer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define TICK_NS 2000000u
#define TICKS_MAX 5000u
#define SPANS 3u
#define SPAN_BYTES 16384u
/* Apart, so that they are not coalesced. */
#define STEP_BYTES (4u * SPAN_BYTES)

static struct {
  struct sprout_service *service;
  struct rdma_seed *rdma;
  unsigned char *memory;
  bool admits, opened, ready, failed, closed;
  struct sprout_error error;
  uint32_t depth, changes, refused[RDMA_REFUSED_LOCAL + 1];
} test;

static void tick(void) {
  reactor_tick(service_reactor(test.service), TICK_NS);
}

#define TICK_UNTIL(condition)                                                                      \
  do {                                                                                             \
    for (uint32_t ticks = 0; ticks < TICKS_MAX && !(condition); ticks++) tick();                   \
    assert_true(condition);                                                                        \
  } while (0)

static bool admits(void *context, const struct rdma_guest *guest) {
  (void)context;
  (void)guest;
  return test.admits;
}

static uint32_t read_depth(void *context, const struct rdma_guest *guest) {
  (void)context;
  (void)guest;
  return test.depth;
}

static void links_changed(void *context, struct rdma_guest *guest) {
  (void)context;
  (void)guest;
  test.changes++;
}

static void refused(void *context, enum rdma_refusal refusal) {
  (void)context;
  test.refused[refusal]++;
}

static void opened(void *context) {
  (void)context;
  test.opened = true;
}

static void ready(void *context) {
  (void)context;
  test.ready = true;
}

static void failed(void *context, const struct sprout_error *error) {
  (void)context;
  assert_false(test.failed);
  test.failed = true;
  test.error = *error;
}

static void closed(void *context) {
  (void)context;
  test.closed = true;
}

static struct rdma_seed_view look(void) {
  struct rdma_seed_view view;
  rdma_seed_look(test.rdma, &view);
  return view;
}

static enum sprout_status create(uint32_t max_links) {
  struct rdma_span spans[SPANS];
  struct sprout_error error;
  const struct rdma_wish wish = {.gid_index = -1};
  struct rdma_seed_options options = {.max_links = max_links,
                                      .spans = spans,
                                      .span_count = SPANS,
                                      .listener = {.admits = admits,
                                                   .read_depth = read_depth,
                                                   .links_changed = links_changed,
                                                   .refused = refused,
                                                   .opened = opened,
                                                   .ready = ready,
                                                   .failed = failed}};
  for (uint32_t i = 0; i < SPANS; i++)
    spans[i] = (struct rdma_span){test.memory + i * STEP_BYTES, SPAN_BYTES, -1, 0};
  options.service = test.service;
  assert_int_equal(rdma_select(&wish, &options.selection, &error), SPROUT_OK);
  return rdma_seed_create(&options, &test.rdma);
}

/* Devices with their faults are there already. */
static void prepare(void) {
  struct sprout_error error;
  memset(&test, 0, sizeof(test));
  test.admits = true;
  test.depth = 4;
  log_set_level(LOG_ERROR);
  rdma_module_replace(fake_verbs());
  rdma_peers_open(tick);
  assert_int_equal(sprout_service_create(NULL, &test.service, &error), SPROUT_OK);
  test.memory =
      mmap(NULL, SPANS * STEP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  assert_ptr_not_equal(test.memory, MAP_FAILED);
  for (uint32_t i = 0; i < SPANS * STEP_BYTES; i++) test.memory[i] = (unsigned char)(i >> 8 ^ i);
}

static void start(uint32_t max_links) {
  prepare();
  assert_int_equal(create(max_links), SPROUT_OK);
  rdma_seed_start(test.rdma);
}

static void start_well(uint32_t devices) {
  fake_verbs_init(devices);
  start(100);
  TICK_UNTIL(test.ready && look().ready_count == SPANS);
  assert_true(test.opened);
}

static void stop(void) {
  if (test.rdma != NULL) {
    rdma_seed_close(test.rdma, closed, NULL);
    TICK_UNTIL(test.closed);
    rdma_seed_destroy(test.rdma);
  }
  sprout_service_destroy(test.service);
  rdma_peers_close();
  rdma_module_replace(NULL);
  fake_verbs_end();
  (void)munmap(test.memory, SPANS * STEP_BYTES);
}

static uint32_t invite(struct rdma_guest *guest, struct wire_endpoint *endpoints) {
  return rdma_seed_invite(test.rdma, guest, endpoints);
}

/* --- connections --- */

static void guests_connect_and_read(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct wire_placement placement;
  struct rdma_peer peers[2];
  unsigned char bytes[1000];
  start_well(2);
  rdma_guest_init(&guest);
  assert_int_equal(invite(&guest, endpoints), 2);
  assert_memory_not_equal(endpoints[0].nonce, endpoints[1].nonce, RDMA_NONCE_BYTES);
  assert_int_equal(rdma_seed_placement(test.rdma, 0, &placement), SPROUT_OK);
  assert_true(placement.whole);
  assert_int_equal(placement.slice_count, SPANS);
  for (uint32_t i = 0; i < 2; i++) {
    rdma_peer_hello(&peers[i], &endpoints[i]);
    uint64_t blocking = fake_verbs_blocking_here();
    assert_int_equal(rdma_peer_wait(&peers[i]), RDMA_PEER_CONNECTED);
    assert_int_equal(peers[i].read_depth, 4);
    TICK_UNTIL(guest.link_count == i + 1);
    assert_int_equal(fake_verbs_blocking_here(), blocking);
    memset(bytes, 0, sizeof(bytes));
    assert_true(rdma_peer_read(&peers[i], placement.slices[1].address + 7,
                               placement.slices[1].keys[endpoints[i].rail], bytes, sizeof(bytes)));
    assert_memory_equal(bytes, (void *)(uintptr_t)(placement.slices[1].address + 7), sizeof(bytes));
  }
  assert_true(guest.proven);
  assert_int_equal(look().link_count, 2);
  /* The key of the other device's domain opens nothing here. */
  if (placement.slices[1].keys[0] != placement.slices[1].keys[1])
    assert_false(rdma_peer_read(&peers[0], placement.slices[1].address, placement.slices[1].keys[1],
                                bytes, 1));
  wire_placement_destroy(&placement);
  uint64_t blocking = fake_verbs_blocking_here();
  rdma_guest_leave(test.rdma, &guest);
  for (uint32_t i = 0; i < 2; i++) rdma_peer_wait_gone(&peers[i]);
  TICK_UNTIL(look().pair_count == 0);
  assert_int_equal(fake_verbs_blocking_here(), blocking);
  for (uint32_t i = 0; i < 2; i++) rdma_peer_end(&peers[i]);
  stop();
}

/* Who leaves is cut off before leave returns, not when a worker comes round. */
static void leaving_stops_reads_at_once(void **state) {
  (void)state;
  struct rdma_guest guests[2];
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct wire_placement placement;
  struct rdma_peer peers[2];
  unsigned char byte;
  start_well(1);
  assert_int_equal(rdma_seed_placement(test.rdma, 0, &placement), SPROUT_OK);
  uint64_t address = placement.slices[0].address;
  uint32_t key = placement.slices[0].keys[0];
  wire_placement_destroy(&placement);
  for (uint32_t i = 0; i < 2; i++) {
    rdma_guest_init(&guests[i]);
    assert_int_equal(invite(&guests[i], endpoints), 1);
    rdma_peer_hello(&peers[i], &endpoints[0]);
    assert_int_equal(rdma_peer_wait(&peers[i]), RDMA_PEER_CONNECTED);
    TICK_UNTIL(guests[i].link_count == 1);
    assert_true(rdma_peer_read(&peers[i], address, key, &byte, 1));
  }
  fake_verbs_hold(FAKE_LINK_END);
  rdma_guest_leave(test.rdma, &guests[0]);
  assert_false(rdma_peer_read(&peers[0], address, key, &byte, 1));
  assert_true(rdma_peer_read(&peers[1], address, key, &byte, 1));
  fake_verbs_unhold(FAKE_LINK_END);
  rdma_guest_leave(test.rdma, &guests[1]);
  rdma_guest_leave(test.rdma, &guests[1]); /* harmless */
  for (uint32_t i = 0; i < 2; i++) rdma_peer_end(&peers[i]);
  stop();
}

static void ask_and_expect(const struct wire_endpoint *endpoint, const void *data, uint8_t bytes,
                           enum sprout_status status, enum rdma_refusal refusal) {
  struct rdma_peer peer;
  uint32_t before = test.refused[refusal];
  rdma_peer_ask(&peer, endpoint, data, bytes);
  assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_REJECTED);
  assert_int_equal(peer.refusal, status);
  assert_int_equal(test.refused[refusal], before + 1);
  assert_int_equal(look().pair_count, 0);
  rdma_peer_end(&peer);
}

static void strangers_are_turned_away(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX], old[WIRE_ENDPOINTS_MAX];
  uint8_t hello[VERBS_PRIVATE_CONNECT_BYTES] = {0};
  start_well(2);
  rdma_guest_init(&guest);
  assert_int_equal(invite(&guest, old), 2);
  assert_int_equal(invite(&guest, endpoints), 2);
  const struct wire_endpoint *door = &endpoints[0];
  ask_and_expect(door, NULL, 0, SPROUT_PROTOCOL, RDMA_REFUSED_MALFORMED);
  ask_and_expect(door, "GET / HTTP/1.1\r\n\r\n", 18, SPROUT_PROTOCOL, RDMA_REFUSED_MALFORMED);
  rdma_hello_encode(door->nonce, hello);
  hello[5] = 9;
  ask_and_expect(door, hello, RDMA_HELLO_BYTES, SPROUT_VERSION, RDMA_REFUSED_VERSION);
  rdma_hello_encode(door->nonce, hello);
  hello[RDMA_HELLO_BYTES] = 1;
  ask_and_expect(door, hello, RDMA_HELLO_BYTES + 1, SPROUT_PROTOCOL, RDMA_REFUSED_MALFORMED);
  /* No nonce, one from before the fresh ones, and one of another rail. */
  const uint8_t none[RDMA_NONCE_BYTES] = {0};
  const uint8_t *const nonces[] = {none, old[0].nonce, endpoints[1].nonce};
  for (size_t i = 0; i < sizeof(nonces) / sizeof(nonces[0]); i++) {
    rdma_hello_encode(nonces[i], hello);
    ask_and_expect(door, hello, RDMA_HELLO_BYTES, SPROUT_GONE, RDMA_REFUSED_NONCE);
  }
  assert_false(guest.proven);
  /* Not admitted just now, and not later with the same nonce either. */
  rdma_hello_encode(door->nonce, hello);
  test.admits = false;
  ask_and_expect(door, hello, RDMA_HELLO_BYTES, SPROUT_GONE, RDMA_REFUSED_NONCE);
  test.admits = true;
  ask_and_expect(door, hello, RDMA_HELLO_BYTES, SPROUT_GONE, RDMA_REFUSED_NONCE);
  /* Gone. */
  assert_int_equal(invite(&guest, endpoints), 2);
  rdma_guest_leave(test.rdma, &guest);
  rdma_hello_encode(door->nonce, hello);
  ask_and_expect(door, hello, RDMA_HELLO_BYTES, SPROUT_GONE, RDMA_REFUSED_NONCE);
  stop();
}

static void a_nonce_is_good_once(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_peer first, second;
  start_well(1);
  rdma_guest_init(&guest);
  assert_int_equal(invite(&guest, endpoints), 1);
  fake_verbs_hold(FAKE_LINK_ACCEPT);
  rdma_peer_hello(&first, &endpoints[0]);
  rdma_peer_hello(&second, &endpoints[0]);
  assert_int_equal(rdma_peer_wait(&second), RDMA_PEER_REJECTED);
  fake_verbs_unhold(FAKE_LINK_ACCEPT);
  assert_int_equal(rdma_peer_wait(&first), RDMA_PEER_CONNECTED);
  TICK_UNTIL(guest.link_count == 1);
  rdma_peer_end(&second);
  rdma_peer_hello(&second, &endpoints[0]);
  assert_int_equal(rdma_peer_wait(&second), RDMA_PEER_REJECTED);
  assert_int_equal(test.refused[RDMA_REFUSED_NONCE], 2);
  rdma_peer_end(&second);
  rdma_guest_leave(test.rdma, &guest);
  rdma_peer_end(&first);
  stop();
}

static void connections_are_limited(void **state) {
  (void)state;
  struct rdma_guest guests[2];
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_peer peers[2];
  fake_verbs_init(1);
  start(1);
  TICK_UNTIL(test.ready);
  for (uint32_t i = 0; i < 2; i++) {
    rdma_guest_init(&guests[i]);
    assert_int_equal(invite(&guests[i], endpoints), 1);
    rdma_peer_hello(&peers[i], &endpoints[0]);
    assert_int_equal(rdma_peer_wait(&peers[i]), i == 0 ? RDMA_PEER_CONNECTED : RDMA_PEER_REJECTED);
  }
  assert_int_equal(peers[1].refusal, SPROUT_BUSY);
  rdma_peer_end(&peers[1]);
  /* The place is free again when the first one's queue pair is gone. */
  rdma_guest_leave(test.rdma, &guests[0]);
  TICK_UNTIL(look().pair_count == 0);
  assert_int_equal(invite(&guests[1], endpoints), 1);
  rdma_peer_hello(&peers[1], &endpoints[0]);
  assert_int_equal(rdma_peer_wait(&peers[1]), RDMA_PEER_CONNECTED);
  rdma_guest_leave(test.rdma, &guests[1]);
  for (uint32_t i = 0; i < 2; i++) rdma_peer_end(&peers[i]);
  stop();
}

static void leaving_while_being_accepted(void **state) {
  (void)state;
  static const enum fake_call calls[] = {FAKE_LINK_MAKE_PAIR, FAKE_LINK_ACCEPT};
  for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
    struct rdma_guest guest;
    struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
    struct rdma_peer peer;
    start_well(1);
    rdma_guest_init(&guest);
    assert_int_equal(invite(&guest, endpoints), 1);
    rdma_peer_hello(&peer, &endpoints[0]);
    fake_verbs_hold(calls[i]);
    TICK_UNTIL(look().pair_count == 1);
    fake_verbs_wait_held(calls[i], 1);
    rdma_guest_leave(test.rdma, &guest);
    memset(&guest, 0xa5, sizeof(guest)); /* freed, as the fork's struct would be */
    fake_verbs_unhold(calls[i]);
    TICK_UNTIL(look().pair_count == 0);
    rdma_peer_look(&peer);
    assert_true(peer.state == RDMA_PEER_REJECTED || peer.gone);
    assert_int_equal(look().link_count, 0);
    assert_int_equal(test.changes, 0);
    rdma_peer_end(&peer);
    stop();
  }
}

static void accepting_may_fail(void **state) {
  (void)state;
  static const enum fake_call calls[] = {FAKE_LINK_MAKE_PAIR, FAKE_LINK_ACCEPT};
  log_set_level(LOG_ERROR);
  for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
    struct rdma_guest guest;
    struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
    struct rdma_peer peer;
    start_well(1);
    rdma_guest_init(&guest);
    assert_int_equal(invite(&guest, endpoints), 1);
    rdma_peer_hello(&peer, &endpoints[0]);
    fake_verbs_fail(calls[i], 1, ENOMEM);
    assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_REJECTED);
    assert_int_equal(peer.refusal, SPROUT_UNAVAILABLE);
    assert_int_equal(test.refused[RDMA_REFUSED_LOCAL], 1);
    TICK_UNTIL(look().pair_count == 0);
    rdma_peer_end(&peer);
    /* Fresh ones work. */
    assert_int_equal(invite(&guest, endpoints), 1);
    rdma_peer_hello(&peer, &endpoints[0]);
    assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_CONNECTED);
    rdma_guest_leave(test.rdma, &guest);
    rdma_peer_end(&peer);
    stop();
  }
}

static void the_peer_may_leave(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_peer peer;
  start_well(1);
  rdma_guest_init(&guest);
  assert_int_equal(invite(&guest, endpoints), 1);
  rdma_peer_hello(&peer, &endpoints[0]);
  assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_CONNECTED);
  TICK_UNTIL(guest.link_count == 1);
  assert_int_equal(test.changes, 1);
  rdma_peer_end(&peer);
  TICK_UNTIL(guest.link_count == 0);
  assert_int_equal(test.changes, 2);
  TICK_UNTIL(look().pair_count == 0);
  assert_true(guest.proven);
  rdma_guest_leave(test.rdma, &guest);
  stop();
}

static void the_depth_is_the_least_of_all(void **state) {
  (void)state;
  static const struct {
    uint32_t granted, device, agreed;
  } cases[] = {{4, 16, 4}, {200, 16, 16}, {64, 8, 8}, {0, 16, 1}, {16, 1, 1}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct rdma_guest guest;
    struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
    struct rdma_peer peer;
    fake_verbs_init(1);
    fake_verbs_device(0)->serve_depth = cases[i].device;
    start(1);
    test.depth = cases[i].granted;
    TICK_UNTIL(test.ready);
    rdma_guest_init(&guest);
    assert_int_equal(invite(&guest, endpoints), 1);
    rdma_peer_hello(&peer, &endpoints[0]);
    assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_CONNECTED);
    assert_int_equal(peer.read_depth, cases[i].agreed);
    rdma_guest_leave(test.rdma, &guest);
    rdma_peer_end(&peer);
    stop();
  }
}

/* --- memory and devices --- */

static void the_placement_grows(void **state) {
  (void)state;
  struct wire_placement placement;
  bool seen[SPANS] = {false};
  fake_verbs_init(1);
  fake_verbs_hold(FAKE_MEMORY_REGISTER);
  start(1);
  TICK_UNTIL(test.opened);
  assert_false(test.ready);
  assert_int_equal(rdma_seed_placement(test.rdma, 0, &placement), SPROUT_OK);
  assert_int_equal(placement.slice_count, 0);
  assert_false(placement.whole);
  wire_placement_destroy(&placement);
  for (uint32_t i = 0; i < SPANS; i++) {
    fake_verbs_let(FAKE_MEMORY_REGISTER, 1);
    TICK_UNTIL(look().ready_count == i + 1);
    assert_int_equal(rdma_seed_placement(test.rdma, i, &placement), SPROUT_OK);
    assert_int_equal(placement.slice_count, 1);
    assert_int_equal(placement.next, i + 1);
    assert_int_equal(placement.whole, i + 1 == SPANS);
    uint64_t offset = placement.slices[0].address - (uint64_t)(uintptr_t)test.memory;
    assert_int_equal(offset % STEP_BYTES, 0);
    assert_false(seen[offset / STEP_BYTES]);
    seen[offset / STEP_BYTES] = true;
    wire_placement_destroy(&placement);
  }
  fake_verbs_unhold(FAKE_MEMORY_REGISTER);
  assert_int_equal(look().registered_bytes, SPANS * SPAN_BYTES);
  assert_int_equal(look().total_bytes, SPANS * SPAN_BYTES);
  stop();
}

static void a_failed_device_takes_only_its_rail(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_peer peers[2];
  struct rdma_rail_view rail;
  start_well(2);
  rdma_guest_init(&guest);
  assert_int_equal(invite(&guest, endpoints), 2);
  for (uint32_t i = 0; i < 2; i++) {
    rdma_peer_hello(&peers[i], &endpoints[i]);
    assert_int_equal(rdma_peer_wait(&peers[i]), RDMA_PEER_CONNECTED);
    TICK_UNTIL(guest.link_count == i + 1);
  }
  fake_device_remove(1);
  TICK_UNTIL(guest.link_count == 1);
  assert_false(test.failed);
  rdma_seed_rail(test.rdma, 1, &rail);
  assert_false(rail.up);
  assert_int_equal(rail.listens, 0);
  assert_int_equal(rail.link_count, 0);
  rdma_seed_rail(test.rdma, 0, &rail);
  assert_true(rail.up);
  assert_int_equal(rail.link_count, 1);
  struct rdma_guest later;
  rdma_guest_init(&later);
  assert_int_equal(invite(&later, endpoints), 1);
  assert_int_equal(endpoints[0].rail, 0);
  rdma_guest_leave(test.rdma, &later);
  /* The peers' own side is the other device: it goes last. */
  rdma_guest_leave(test.rdma, &guest);
  for (uint32_t i = 0; i < 2; i++) rdma_peer_end(&peers[i]);
  fake_device_remove(0);
  TICK_UNTIL(test.failed);
  assert_int_equal(test.error.status, SPROUT_UNSUPPORTED);
  assert_int_equal(look().state, RDMA_SEED_CLOSED);
  assert_int_equal(invite(&later, endpoints), 0);
  stop();
}

/* Only the listeners hear of it, as when the connection manager's device goes first. */
static void a_listener_without_its_device_is_not_offered(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_rail_view rail;
  struct verbs_link *listener = NULL;
  start_well(2);
  rdma_guest_init(&guest);
  assert_int_equal(fake_verbs_links(FAKE_LISTENING, 1, &listener, 1), 1);
  fake_link_event(listener, VERBS_EVENT_REMOVED, 0);
  TICK_UNTIL(fake_verbs_links(FAKE_LISTENING, 1, &listener, 1) == 0);
  rdma_seed_rail(test.rdma, 1, &rail);
  assert_int_equal(rail.listens, 0);
  assert_false(test.failed);
  assert_int_equal(invite(&guest, endpoints), 1);
  assert_int_equal(endpoints[0].rail, 0);
  rdma_guest_leave(test.rdma, &guest);
  assert_int_equal(fake_verbs_links(FAKE_LISTENING, 0, &listener, 1), 1);
  fake_link_event(listener, VERBS_EVENT_REMOVED, 0);
  TICK_UNTIL(test.failed);
  assert_int_equal(look().state, RDMA_SEED_CLOSED);
  stop();
}

static void a_port_that_is_down_is_not_offered(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_rail_view rail;
  start_well(2);
  rdma_guest_init(&guest);
  fake_device_port(0, 1, false);
  rdma_seed_rail(test.rdma, 0, &rail);
  for (uint32_t i = 0; i < TICKS_MAX && rail.up; i++) {
    tick();
    rdma_seed_rail(test.rdma, 0, &rail);
  }
  assert_false(rail.up);
  assert_int_equal(invite(&guest, endpoints), 1);
  assert_int_equal(endpoints[0].rail, 1);
  /* None is up: it may be for a moment only. */
  fake_device_port(1, 1, false);
  for (uint32_t i = 0; i < TICKS_MAX && invite(&guest, endpoints) != 2; i++) tick();
  assert_int_equal(invite(&guest, endpoints), 2);
  fake_device_port(1, 1, true);
  fake_device_port(0, 1, true);
  for (uint32_t i = 0; i < TICKS_MAX && invite(&guest, endpoints) != 2; i++) tick();
  assert_int_equal(invite(&guest, endpoints), 2);
  rdma_guest_leave(test.rdma, &guest);
  stop();
}

static void whatever_fails_while_opening_is_told(void **state) {
  (void)state;
  static const struct {
    enum fake_call call;
    uint64_t nth;
    int error;
    enum sprout_status status;
  } cases[] = {
      {FAKE_EVENTS_OPEN, 1, ENOENT, SPROUT_UNSUPPORTED},
      {FAKE_CHANNEL_OPEN, 1, ENOMEM, SPROUT_UNSUPPORTED},
      {FAKE_CHANNEL_OPEN, 2, ENOMEM, SPROUT_UNSUPPORTED},
      {FAKE_DOMAIN_OPEN, 1, ENOMEM, SPROUT_UNSUPPORTED},
      {FAKE_DOMAIN_OPEN, 2, ENOMEM, SPROUT_UNSUPPORTED},
      {FAKE_QUEUE_OPEN, 2, ENOMEM, SPROUT_UNSUPPORTED},
      {FAKE_MEMORY_REGISTER, 1, ENOMEM, SPROUT_LIMIT},
      {FAKE_MEMORY_REGISTER, 6, ENOMEM, SPROUT_LIMIT},
      {FAKE_MEMORY_REGISTER, 3, EFAULT, SPROUT_UNSUPPORTED},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    fake_verbs_init(2);
    /* Behind what the peers open for themselves. */
    uint64_t own = cases[i].call == FAKE_DOMAIN_OPEN || cases[i].call == FAKE_QUEUE_OPEN ||
                           cases[i].call == FAKE_EVENTS_OPEN
                       ? 1
                       : 0;
    fake_verbs_fail(cases[i].call, cases[i].nth + own, cases[i].error);
    start(1);
    TICK_UNTIL(test.failed);
    assert_int_equal(test.error.status, cases[i].status);
    assert_true(test.error.message[0] != '\0');
    assert_int_equal(look().state, RDMA_SEED_CLOSED);
    stop();
  }
}

static void a_rail_that_cannot_listen_is_left_out(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  static const enum fake_call calls[] = {FAKE_LINK_OPEN, FAKE_LINK_LISTEN};
  for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
    fake_verbs_init(2);
    fake_verbs_fail(calls[i], 1, EADDRINUSE);
    start(1);
    TICK_UNTIL(test.ready);
    rdma_guest_init(&guest);
    assert_int_equal(invite(&guest, endpoints), 1);
    assert_int_equal(endpoints[0].rail, 1);
    rdma_guest_leave(test.rdma, &guest);
    stop();
    fake_verbs_init(2);
    fake_verbs_fail_all(calls[i], EADDRINUSE);
    start(1);
    TICK_UNTIL(test.failed);
    assert_int_equal(test.error.status, SPROUT_UNSUPPORTED);
    stop();
  }
}

static void it_can_be_withdrawn_at_any_time(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_peer peers[2];
  /* At once, and after so many steps. */
  for (uint32_t steps = 0; steps < 12; steps++) {
    fake_verbs_init(2);
    start(1);
    for (uint32_t i = 0; i < steps; i++) reactor_tick(service_reactor(test.service), 0);
    stop();
  }
  /* With connections, one of which is being accepted. */
  start_well(1);
  rdma_guest_init(&guest);
  for (uint32_t i = 0; i < 2; i++) {
    assert_int_equal(invite(&guest, endpoints), 1);
    if (i == 1) fake_verbs_hold(FAKE_LINK_ACCEPT);
    rdma_peer_hello(&peers[i], &endpoints[0]);
    if (i == 0) assert_int_equal(rdma_peer_wait(&peers[i]), RDMA_PEER_CONNECTED);
    TICK_UNTIL(look().pair_count == i + 1);
  }
  fake_verbs_wait_held(FAKE_LINK_ACCEPT, 1);
  rdma_seed_close(test.rdma, closed, NULL);
  tick();
  assert_false(test.closed);
  fake_verbs_unhold(FAKE_LINK_ACCEPT);
  TICK_UNTIL(test.closed);
  assert_int_equal(guest.link_count, 0);
  rdma_guest_leave(test.rdma, &guest);
  test.closed = false;
  for (uint32_t i = 0; i < 2; i++) {
    rdma_peer_look(&peers[i]);
    assert_true(peers[i].gone || peers[i].state == RDMA_PEER_REJECTED);
    rdma_peer_end(&peers[i]);
  }
  stop(); /* closing twice is harmless */
}

/* --- without memory --- */

/* The n-th allocation fails: it opens, or says that it cannot; nothing is left behind. */
static void it_survives_a_lack_of_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  bool failing = true;
  for (long count = 0; failing; count++) {
    fake_verbs_init(2);
    prepare();
    memory_fail_after(count);
    enum sprout_status status = create(1);
    if (status == SPROUT_OK) rdma_seed_start(test.rdma);
    for (uint32_t i = 0; i < TICKS_MAX && status == SPROUT_OK && !test.ready && !test.failed; i++)
      tick();
    failing = memory_restore();
    assert_true(status == SPROUT_OK ? test.ready || test.failed : status == SPROUT_NO_MEMORY);
    if (status != SPROUT_OK) test.rdma = NULL;
    stop();
    assert_true(count < 1000);
  }
}

static void a_connection_needs_memory(void **state) {
  (void)state;
  struct rdma_guest guest;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  struct rdma_peer peer;
  if (!memory_can_fail()) skip();
  start_well(1);
  rdma_guest_init(&guest);
  for (long count = 0; count < 3; count++) {
    assert_int_equal(invite(&guest, endpoints), 1);
    rdma_peer_hello(&peer, &endpoints[0]);
    memory_fail_after(count);
    enum rdma_peer_state got = rdma_peer_wait(&peer);
    (void)memory_restore();
    assert_true(got == RDMA_PEER_CONNECTED || peer.refusal == SPROUT_UNAVAILABLE);
    rdma_guest_leave(test.rdma, &guest);
    rdma_peer_end(&peer);
    TICK_UNTIL(look().pair_count == 0);
  }
  stop();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(guests_connect_and_read),
      cmocka_unit_test(leaving_stops_reads_at_once),
      cmocka_unit_test(strangers_are_turned_away),
      cmocka_unit_test(a_nonce_is_good_once),
      cmocka_unit_test(connections_are_limited),
      cmocka_unit_test(leaving_while_being_accepted),
      cmocka_unit_test(accepting_may_fail),
      cmocka_unit_test(the_peer_may_leave),
      cmocka_unit_test(the_depth_is_the_least_of_all),
      cmocka_unit_test(the_placement_grows),
      cmocka_unit_test(a_failed_device_takes_only_its_rail),
      cmocka_unit_test(a_listener_without_its_device_is_not_offered),
      cmocka_unit_test(a_port_that_is_down_is_not_offered),
      cmocka_unit_test(whatever_fails_while_opening_is_told),
      cmocka_unit_test(a_rail_that_cannot_listen_is_left_out),
      cmocka_unit_test(it_can_be_withdrawn_at_any_time),
      cmocka_unit_test(it_survives_a_lack_of_memory),
      cmocka_unit_test(a_connection_needs_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
