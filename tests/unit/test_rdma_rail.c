/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"
#include "net/rdma_module.h"
#include "net/rdma_rail.h"
#include "tests/support/fake_peer.h"
#include "tests/support/fake_verbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TICK_NS UINT64_C(1000000)
#define SECOND_NS UINT64_C(1000000000)
#define TICKS_MAX 5000
#define PLACES 64u
#define PLACE_BYTES 64u

struct bench {
  struct sprout_service *service;
  struct reactor *reactor;
  const struct verbs *verbs;
  struct rdma_selection selection;
  struct rdma_host *host;
  struct rdma_device *devices[RDMA_RAILS_MAX];
  struct verbs_domain *domain;
  struct verbs_memory *memory;
  struct fake_peer peer;
  uint32_t key;
  struct rdma_rail_options options;
  struct rdma_rail rail;
  uint32_t connected, completions, completed, ended;
  struct sprout_error error;
  bool end_when_completed;
  unsigned char here[PLACES * PLACE_BYTES], there[PLACES * PLACE_BYTES];
};

static struct bench bench;

static void on_connected(struct rdma_rail *rail) {
  struct bench *own = rail->context;
  assert_int_equal(own->connected++, 0);
  assert_int_equal(own->ended, 0);
  assert_int_equal(rail->state, RDMA_RAIL_READY);
}

static void on_completed(struct rdma_rail *rail, uint32_t count) {
  struct bench *own = rail->context;
  assert_int_equal(own->ended, 0);
  assert_true(count > 0);
  own->completions++;
  own->completed += count;
  if (own->end_when_completed) rdma_rail_end(rail);
}

static void on_ended(struct rdma_rail *rail, const struct sprout_error *error) {
  struct bench *own = rail->context;
  assert_int_equal(own->ended++, 0);
  assert_int_equal(rail->state, RDMA_RAIL_ENDED);
  assert_int_equal(fake_verbs_links(FAKE_CONNECTING, FAKE_DEVICES_MAX, NULL, 0), 0);
  own->error = *error;
}

static void tick(void) {
  reactor_tick(bench.reactor, 0);
  fake_peer_tick(&bench.peer);
}

/* With time passing. */
static void tick_slowly(void) {
  fake_peer_tick(&bench.peer);
  reactor_tick(bench.reactor, TICK_NS);
}

static void settle(void) {
  for (int i = 0; i < 20; i++) tick();
}

static void run_until(const uint32_t *count) {
  for (int i = 0; i < TICKS_MAX && *count == 0; i++) tick_slowly();
  assert_int_equal(*count, 1);
}

static void run_until_state(enum rdma_rail_state state) {
  for (int i = 0; i < TICKS_MAX && bench.rail.state != state; i++) tick_slowly();
  assert_int_equal(bench.rail.state, state);
}

static void start(void) {
  struct sprout_error error;
  const struct rdma_wish wish = {.devices = "fake0", .gid_index = -1};
  fake_verbs_excuse(true);
  assert_int_equal(rdma_select(&wish, &bench.selection, &error), SPROUT_OK);
  assert_int_equal(
      rdma_host_get(bench.service, &bench.selection, &bench.host, bench.devices, &error),
      SPROUT_OK);
  assert_int_equal(bench.verbs->domain_open(bench.devices[0]->info.device, &bench.domain), 0);
  const struct verbs_registration what = {
      .address = bench.here, .length_bytes = sizeof bench.here, .dmabuf_fd = -1};
  assert_int_equal(bench.verbs->memory_register(bench.domain, &what, &bench.memory), 0);
  fake_verbs_excuse(false);
  static const struct rdma_rail_listener listener = {
      .connected = on_connected, .completed = on_completed, .ended = on_ended};
  bench.options = (struct rdma_rail_options){.host = bench.host,
                                             .device = bench.devices[0],
                                             .local = bench.selection.rails[0].port.address,
                                             .domain = bench.domain,
                                             .peer = fake_peer_address(&bench.peer),
                                             .nonce = "a nonce of ours",
                                             .requests = 32,
                                             .connect_timeout_ns = 60 * SECOND_NS,
                                             .retries = 3};
  bench.rail = (struct rdma_rail){.listener = &listener, .context = &bench};
}

static int set_up(void **state) {
  (void)state;
  struct sprout_error error;
  memset(&bench, 0, sizeof bench);
  fake_verbs_init(2);
  bench.verbs = fake_verbs();
  rdma_module_replace(bench.verbs);
  log_set_level(LOG_ERROR);
  assert_int_equal(sprout_service_create(NULL, &bench.service, &error), SPROUT_OK);
  bench.reactor = service_reactor(bench.service);
  fake_peer_open(&bench.peer, 1);
  bench.key = fake_peer_serve(&bench.peer, bench.there, sizeof bench.there);
  for (uint32_t i = 0; i < sizeof bench.there; i++) bench.there[i] = (unsigned char)(i * 7 + 1);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  if (bench.rail.state != RDMA_RAIL_IDLE && bench.ended == 0) { /* a test that failed */
    fake_verbs_manual(false);
    rdma_rail_end(&bench.rail);
    run_until(&bench.ended);
  }
  assert_int_equal(fake_verbs_blocking_here(), 0);
  rdma_rail_destroy(&bench.rail);
  settle();
  fake_peer_close(&bench.peer);
  if (bench.memory != NULL) (void)bench.verbs->memory_release(bench.memory);
  if (bench.domain != NULL) (void)bench.verbs->domain_close(bench.domain);
  sprout_service_destroy(bench.service);
  rdma_module_replace(NULL);
  fake_verbs_end();
  log_set_level(LOG_WARNING);
  return 0;
}

/* What several cases of one test have in common: the bench as it was. */
static void renew(void) {
  (void)tear_down(NULL);
  (void)set_up(NULL);
}

static void connect_rail(void) {
  start();
  rdma_rail_connect(&bench.rail, &bench.options);
  run_until(&bench.connected);
}

/* READs of places [first, first + count) in one chain. */
static void post(uint32_t first, uint32_t count) {
  struct verbs_segment segments[PLACES];
  struct verbs_read reads[PLACES];
  for (uint32_t i = 0; i < count; i++) {
    size_t at = (size_t)(first + i) * PLACE_BYTES;
    segments[i] = (struct verbs_segment){(uint64_t)(uintptr_t)(bench.here + at), PLACE_BYTES,
                                         bench.memory->local_key};
    reads[i] = (struct verbs_read){.remote_address = (uint64_t)(uintptr_t)(bench.there + at),
                                   .remote_key = bench.key,
                                   .segment_count = 1,
                                   .segments = &segments[i]};
  }
  rdma_rail_post(&bench.rail, reads, count);
}

static bool landed(uint32_t place) {
  size_t at = (size_t)place * PLACE_BYTES;
  return memcmp(bench.here + at, bench.there + at, PLACE_BYTES) == 0;
}

static struct verbs_link *own_link(void) {
  struct verbs_link *link = NULL;
  assert_int_equal(fake_verbs_links(FAKE_CONNECTING, FAKE_DEVICES_MAX, &link, 1), 1);
  return link;
}

static void expect_end(enum sprout_status status, const char *message) {
  run_until(&bench.ended);
  settle();
  assert_int_equal(bench.error.status, status);
  assert_true(bench.error.native >= 0);
  if (strstr(bench.error.message, message) == NULL) fail_msg("'%s'", bench.error.message);
  assert_int_equal(fake_verbs_counts().queues, 1); /* the peer's */
}

static void end_quietly(void) {
  rdma_rail_end(&bench.rail);
  assert_int_equal(bench.ended, 0); /* never from within */
  expect_end(SPROUT_CANCELLED, "");
}

/* --- reading -----------------------------------------------------------------------------------
 */

static void test_connect_and_read(void **state) {
  (void)state;
  connect_rail();
  uint8_t nonce[RDMA_NONCE_BYTES];
  enum rdma_refusal refusal;
  assert_true(rdma_hello_decode(bench.peer.hello, bench.peer.hello_bytes, nonce, &refusal));
  assert_memory_equal(nonce, bench.options.nonce, sizeof nonce);
  assert_int_equal(bench.peer.asked_depth, 16);
  assert_int_equal(bench.rail.depth, 16);
  assert_int_equal(bench.rail.segments, 16);
  assert_int_equal(rdma_rail_outstanding(&bench.rail), 0);
  post(0, 3);
  assert_int_equal(bench.completed, 0); /* never from within */
  settle();
  assert_int_equal(bench.completed, 3);
  assert_int_equal(bench.completions, 1);
  post(3, 16);
  settle();
  assert_int_equal(bench.completed, 19);
  for (uint32_t i = 0; i < 19; i++) assert_true(landed(i));
  assert_false(landed(19));
  assert_int_equal(fake_device_view(0).chains, 2);
  assert_int_equal(fake_device_view(0).signalled, 2);
  end_quietly();
  assert_int_equal(bench.peer.disconnects, 1);
}

static void test_depth(void **state) {
  (void)state;
  static const struct {
    uint32_t read_depth, max_requests, max_queue_entries, requests;
    uint8_t serve_depth;
    uint32_t asked, depth;
  } cases[] = {
      {16, 1024, 4096, 64, 16, 16, 16}, /* the device */
      {16, 1024, 4096, 8, 16, 8, 8},    /* what was wanted */
      {16, 12, 4096, 64, 16, 12, 12},   /* its queue pairs */
      {16, 1024, 6, 64, 16, 5, 5},      /* its completion queues */
      {16, 1024, 4096, 64, 4, 16, 4},   /* the peer */
      {16, 1024, 4096, 64, 1, 16, 2},   /* the peer, and the fence behind the data */
      {1, 1024, 4096, 64, 16, 1, 2},    /* the device, likewise */
      {128, 1024, 4096, 64, 16, 64, 16},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    print_message("case %zu\n", i);
    struct fake_device *device = fake_verbs_device(0);
    device->read_depth = cases[i].read_depth;
    device->max_requests = cases[i].max_requests;
    device->max_queue_entries = cases[i].max_queue_entries;
    bench.peer.serve_depth = cases[i].serve_depth;
    start();
    bench.options.requests = cases[i].requests;
    rdma_rail_connect(&bench.rail, &bench.options);
    for (int k = 0; k < TICKS_MAX && bench.connected + bench.ended == 0; k++) tick_slowly();
    if (bench.ended > 0) fail_msg("%s", bench.error.message);
    assert_int_equal(bench.peer.asked_depth, cases[i].asked);
    assert_int_equal(bench.rail.depth, cases[i].depth);
    fake_verbs_manual(true);
    post(0, cases[i].depth);
    assert_int_equal(fake_verbs_step(100), cases[i].depth);
    settle();
    assert_int_equal(bench.completed, cases[i].depth);
    end_quietly();
    renew();
  }
}

static void test_sleeps_until_a_chain_is_done(void **state) {
  (void)state;
  connect_rail();
  fake_verbs_manual(true);
  post(0, 8);
  settle();
  uint64_t arms = fake_verbs_calls(FAKE_QUEUE_ARM), polls = fake_verbs_calls(FAKE_QUEUE_POLL);
  assert_int_equal(fake_verbs_step(7), 7);
  settle(); /* seven are done, and nobody wakes */
  assert_int_equal(bench.completed, 0);
  assert_int_equal(fake_verbs_calls(FAKE_QUEUE_POLL), polls);
  assert_int_equal(fake_verbs_step(1), 1);
  settle();
  assert_int_equal(bench.completed, 8);
  assert_int_equal(bench.completions, 1);
  assert_int_equal(fake_verbs_calls(FAKE_QUEUE_ARM), arms); /* nothing to wait for */
  end_quietly();
}

static void test_what_comes_before_arming_is_seen(void **state) {
  (void)state;
  connect_rail();
  fake_verbs_manual(true);
  for (uint32_t i = 0; i < 10; i++) {
    /* Then it is armed already, and the next ones make an event. */
    if (i % 2 == 0) fake_verbs_step_before_arm(2);
    post(2 * i, 2);
    settle();
    if (i % 2 != 0) fake_verbs_step(2);
    settle();
    assert_int_equal(bench.completed, 2 * i + 2);
  }
  assert_int_equal(fake_verbs_calls(FAKE_QUEUE_ARM), 5);
  end_quietly();
}

static void test_completions_held_back(void **state) {
  (void)state;
  connect_rail();
  fake_link_hold_completions(own_link(), true);
  post(0, 4);
  post(4, 4);
  settle();
  assert_int_equal(bench.completed, 0);
  fake_link_hold_completions(own_link(), false);
  settle();
  assert_int_equal(bench.completed, 8);
  end_quietly();
}

static void test_polled_at_once(void **state) {
  (void)state;
  connect_rail();
  post(0, 4);
  rdma_rail_poll(&bench.rail);
  assert_int_equal(bench.completed, 4);
  end_quietly();
}

/* --- reads that fail ---------------------------------------------------------------------------
 */

static void test_the_nth_post_fails(void **state) {
  (void)state;
  for (uint64_t nth = 1; nth <= 5; nth++) {
    connect_rail();
    fake_verbs_manual(true);
    post(0, 2);
    fake_verbs_fail(FAKE_LINK_POST, nth, ENOMEM);
    post(2, 5);
    assert_int_equal(bench.ended, 0);
    assert_int_equal(bench.rail.state, RDMA_RAIL_DRAINING);
    fake_verbs_manual(false);
    expect_end(SPROUT_DISCONNECTED, "could not be posted to 127.0.7.2:");
    assert_int_equal(bench.error.native, ENOMEM);
    assert_int_equal(bench.completed, 0);
    for (uint32_t i = 0; i < 7; i++) assert_false(landed(i));
    renew();
  }
}

static void test_the_nth_completion_in_error(void **state) {
  (void)state;
  static const struct {
    enum verbs_outcome outcome;
    enum sprout_status status;
    int native;
    const char *message;
  } cases[] = {
      {VERBS_UNREACHABLE, SPROUT_DISCONNECTED, 12, "not answered by"},
      {VERBS_REMOTE_ACCESS, SPROUT_GONE, 10, "not served any more by"},
      {VERBS_REMOTE_OTHER, SPROUT_DISCONNECTED, 11, "refused by"},
      {VERBS_LOCAL, SPROUT_DISCONNECTED, 4, "this side failed"},
      {VERBS_FLUSHED, SPROUT_DISCONNECTED, 5, "ended by"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    for (uint32_t nth = 1; nth <= 8; nth++) {
      connect_rail();
      fake_verbs_manual(true);
      post(0, 4);
      post(4, 4);
      fake_verbs_fail_read(nth, cases[i].outcome);
      assert_int_equal(fake_verbs_step(nth), nth);
      settle();
      assert_int_equal(bench.completed, nth > 4 ? 4 : 0);
      if (nth < 8) assert_int_equal(bench.rail.state, RDMA_RAIL_DRAINING); /* not flushed yet */
      assert_int_equal(fake_verbs_step(8), 8 - nth);
      expect_end(cases[i].status, cases[i].message);
      assert_int_equal(bench.error.native, cases[i].native);
      assert_int_equal(bench.completed, nth > 4 ? 4 : 0);
      renew();
    }
  }
}

static void test_memory_withdrawn_under_reads(void **state) {
  (void)state;
  connect_rail();
  fake_verbs_manual(true);
  post(0, 4);
  assert_int_equal(fake_verbs_step(2), 2);
  fake_peer_withdraw(&bench.peer);
  fake_verbs_manual(false);
  expect_end(SPROUT_GONE, "127.0.7.2");
  assert_false(landed(2));
  assert_int_equal(bench.completed, 0);
}

static void test_the_nth_completion_twice(void **state) {
  (void)state;
  for (uint64_t nth = 1; nth <= 3; nth++) {
    connect_rail();
    fake_verbs_duplicate(nth);
    for (uint32_t i = 0; i < 3 && bench.rail.state == RDMA_RAIL_READY; i++) {
      post(4 * i, 4);
      settle();
    }
    expect_end(SPROUT_DISCONNECTED, "made no sense");
    assert_int_equal(bench.completed, 4 * nth);
    renew();
  }
}

/* A device that is gone flushes nothing: it is waited for a moment, not for ever. */
static void test_no_flush_comes(void **state) {
  (void)state;
  connect_rail();
  fake_link_mute(own_link(), true);
  fake_link_mute_flush(own_link(), true);
  post(0, 4);
  rdma_rail_end(&bench.rail);
  settle();
  assert_int_equal(bench.rail.state, RDMA_RAIL_DRAINING);
  fake_link_land(own_link()); /* still may */
  assert_true(landed(3));
  expect_end(SPROUT_CANCELLED, "");
  memset(bench.here, 0, sizeof bench.here);
  fake_verbs_step(100);
  assert_false(landed(0));
  assert_int_equal(bench.completed, 0);
}

static void test_end_waits_for_the_flush(void **state) {
  (void)state;
  connect_rail();
  fake_verbs_manual(true);
  post(0, 4);
  rdma_rail_end(&bench.rail);
  for (uint32_t i = 0; i < 4; i++) {
    settle();
    assert_int_equal(bench.rail.state, RDMA_RAIL_DRAINING);
    assert_int_equal(fake_verbs_step(1), 1);
  }
  expect_end(SPROUT_CANCELLED, "");
  assert_int_equal(bench.completed, 0);
}

static void test_end_from_completed(void **state) {
  (void)state;
  connect_rail();
  fake_verbs_manual(true);
  bench.end_when_completed = true;
  post(0, 2);
  post(2, 2);
  post(4, 2);
  fake_verbs_manual(false);
  expect_end(SPROUT_CANCELLED, "");
  assert_int_equal(bench.completed, 2);
}

static void test_a_queue_that_fails(void **state) {
  (void)state;
  static const struct {
    enum fake_call call;
    const char *message;
  } cases[] = {{FAKE_QUEUE_POLL, "cannot be polled"}, {FAKE_QUEUE_ARM, "cannot be awaited"}};
  for (size_t i = 0; i < 2; i++) {
    connect_rail();
    fake_verbs_manual(true);
    fake_verbs_fail(cases[i].call, 1, EIO);
    post(0, 4);
    settle();
    fake_verbs_manual(false);
    expect_end(SPROUT_DISCONNECTED, cases[i].message);
    assert_int_equal(bench.error.native, EIO);
    renew();
  }
}

static void test_a_queue_that_fails_for_good(void **state) {
  (void)state;
  connect_rail();
  fake_verbs_fail_all(FAKE_QUEUE_POLL, EIO);
  fake_verbs_fail_all(FAKE_QUEUE_ARM, EIO);
  fake_verbs_fail_all(FAKE_LINK_DISCONNECT, EIO);
  fake_verbs_fail_all(FAKE_QUEUE_CLOSE, EBUSY);
  post(0, 4);
  expect_end(SPROUT_DISCONNECTED, "cannot be polled");
  fake_verbs_fail_all(FAKE_QUEUE_CLOSE, 0);
}

/* --- connecting that fails ---------------------------------------------------------------------
 */

static void test_each_call_fails(void **state) {
  (void)state;
  static const struct {
    enum fake_call call;
    int error;
    enum sprout_status status;
    const char *message;
  } cases[] = {
      {FAKE_LINK_OPEN, EMFILE, SPROUT_DISCONNECTED, "cannot resolve"},
      {FAKE_LINK_RESOLVE_ADDRESS, ENODEV, SPROUT_DISCONNECTED, "cannot resolve"},
      {FAKE_LINK_RESOLVE_ROUTE, EINVAL, SPROUT_DISCONNECTED, "no route to"},
      {FAKE_QUEUE_OPEN, ENOMEM, SPROUT_LIMIT, "no queue pair"},
      {FAKE_LINK_MAKE_PAIR, ENOMEM, SPROUT_LIMIT, "no queue pair"},
      {FAKE_LINK_MAKE_PAIR, EPERM, SPROUT_UNSUPPORTED, "no queue pair"},
      {FAKE_LINK_CONNECT, EINVAL, SPROUT_UNSUPPORTED, "no queue pair"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    start();
    fake_verbs_fail(cases[i].call, 1, cases[i].error);
    rdma_rail_connect(&bench.rail, &bench.options);
    assert_int_equal(bench.ended, 0);
    expect_end(cases[i].status, cases[i].message);
    assert_int_equal(bench.error.native, cases[i].error);
    assert_int_equal(bench.connected, 0);
    renew();
  }
}

static void test_unreachable_at_each_stage(void **state) {
  (void)state;
  for (int stage = 0; stage < FAKE_STAGES; stage++) {
    start();
    fake_verbs_unreachable((enum fake_stage)stage, EHOSTUNREACH);
    rdma_rail_connect(&bench.rail, &bench.options);
    expect_end(SPROUT_DISCONNECTED, "cannot reach 127.0.7.2:");
    renew();
  }
}

static void test_refused(void **state) {
  (void)state;
  static const struct {
    enum rdma_refusal refusal; /* 0: garbage */
    enum sprout_status status;
    const char *message;
  } cases[] = {
      {0, SPROUT_PROTOCOL, "did not tell"},
      {RDMA_REFUSED_VERSION, SPROUT_VERSION, "version"},
      {RDMA_REFUSED_NONCE, SPROUT_GONE, "nonce"},
      {RDMA_REFUSED_LIMIT, SPROUT_BUSY, "as many"},
      {RDMA_REFUSED_LOCAL, SPROUT_UNAVAILABLE, "queue pair"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    start();
    bench.peer.answer = FAKE_PEER_REFUSES;
    memset(bench.peer.refusal, 0xa5, sizeof bench.peer.refusal);
    bench.peer.refusal_bytes = sizeof bench.peer.refusal;
    if (cases[i].refusal != 0) {
      rdma_refusal_encode(cases[i].refusal, bench.peer.refusal);
      bench.peer.refusal_bytes = RDMA_REFUSAL_BYTES;
    }
    rdma_rail_connect(&bench.rail, &bench.options);
    expect_end(cases[i].status, cases[i].message);
    assert_non_null(strstr(bench.error.message, "fake0"));
    assert_int_equal(bench.error.native, FAKE_REJECTED_BY_LISTENER);
    renew();
  }
  start();
  ((struct sockaddr_in *)(void *)&bench.options.peer)->sin_port = htons(1); /* nobody's */
  rdma_rail_connect(&bench.rail, &bench.options);
  expect_end(SPROUT_PROTOCOL, "refused");
}

static void test_the_route_leaves_by_another_device(void **state) {
  (void)state;
  start();
  bench.options.local = fake_peer_address(&bench.peer);
  rdma_rail_connect(&bench.rail, &bench.options);
  expect_end(SPROUT_DISCONNECTED, "leaves by another device");
}

/* --- trouble at any moment ---------------------------------------------------------------------
 */

/* Where a connection may stand still. */
enum moment {
  AT_ADDRESS,
  AT_ROUTE,
  AT_PAIRING,   /* the worker makes the queue pair */
  AT_CONNECTED, /* the worker is still in the call that has connected it */
  AT_CONNECTING,
  AT_READY,
  AT_READING,
  MOMENTS
};

static void go_to(enum moment moment) {
  static const enum rdma_rail_state states[] = {
      [AT_ADDRESS] = RDMA_RAIL_ADDRESS,       [AT_ROUTE] = RDMA_RAIL_ROUTE,
      [AT_PAIRING] = RDMA_RAIL_PAIRING,       [AT_CONNECTED] = RDMA_RAIL_PAIRING,
      [AT_CONNECTING] = RDMA_RAIL_CONNECTING, [AT_READY] = RDMA_RAIL_READY,
      [AT_READING] = RDMA_RAIL_READY};
  if (moment == AT_ADDRESS) fake_verbs_hang(FAKE_STAGE_ADDRESS, true);
  if (moment == AT_ROUTE) fake_verbs_hang(FAKE_STAGE_ROUTE, true);
  if (moment == AT_PAIRING) fake_verbs_hold(FAKE_LINK_MAKE_PAIR);
  if (moment == AT_CONNECTED) fake_verbs_hold_return(FAKE_LINK_CONNECT);
  if (moment == AT_CONNECTING) bench.peer.answer = FAKE_PEER_IGNORES;
  rdma_rail_connect(&bench.rail, &bench.options);
  run_until_state(states[moment]);
  if (moment == AT_PAIRING) fake_verbs_wait_held(FAKE_LINK_MAKE_PAIR, 1);
  if (moment == AT_CONNECTED) fake_verbs_wait_held(FAKE_LINK_CONNECT, 1);
  settle();
  assert_int_equal(bench.rail.state, states[moment]);
  if (moment == AT_READING) {
    fake_verbs_manual(true);
    post(0, 4);
    settle();
  }
}

static void release_workers(void) {
  settle();
  fake_verbs_unhold(FAKE_LINK_MAKE_PAIR);
  fake_verbs_unhold(FAKE_LINK_CONNECT);
  fake_verbs_manual(false);
}

enum trouble {
  ENDED_BY_OWNER,
  DEVICE_REMOVED,
  DEVICE_FATAL,
  SAID_UNREACHABLE,
  PEER_ENDS,
  TROUBLES
};

static void cause(enum trouble trouble, enum moment moment) {
  switch (trouble) {
  case ENDED_BY_OWNER: rdma_rail_end(&bench.rail); break;
  case DEVICE_REMOVED: fake_device_remove(0); break;
  case DEVICE_FATAL: fake_device_async(0, VERBS_ASYNC_DEVICE_FATAL, 0); break;
  case SAID_UNREACHABLE: fake_link_event(own_link(), VERBS_EVENT_UNREACHABLE, -ETIMEDOUT); break;
  default:
    if (moment == AT_READY || moment == AT_READING || moment == AT_CONNECTED)
      fake_link_peer_disconnects(own_link());
    else
      fake_link_event(own_link(), VERBS_EVENT_DISCONNECTED, 0);
  }
}

static void test_trouble_at_any_moment(void **state) {
  (void)state;
  log_set_level(LOG_ERROR);
  for (int moment = 0; moment < MOMENTS; moment++) {
    for (int trouble = 0; trouble < TROUBLES; trouble++) {
      print_message("moment %d, trouble %d\n", moment, trouble);
      start();
      go_to((enum moment)moment);
      cause((enum trouble)trouble, (enum moment)moment);
      cause(ENDED_BY_OWNER, (enum moment)moment); /* on top, and in vain */
      settle();
      if (moment == AT_PAIRING || moment == AT_CONNECTED) assert_int_equal(bench.ended, 0);
      release_workers();
      run_until(&bench.ended);
      assert_int_equal(bench.completed, 0);
      assert_int_equal(bench.connected, moment >= AT_READY ? 1 : 0);
      settle();
      renew();
    }
  }
}

static void test_no_answer_in_time(void **state) {
  (void)state;
  for (int moment = 0; moment <= AT_CONNECTING; moment++) {
    start();
    bench.options.connect_timeout_ns = 20 * TICK_NS;
    go_to((enum moment)moment);
    for (int i = 0; i < 40; i++) tick_slowly();
    release_workers();
    expect_end(SPROUT_DISCONNECTED, "no answer in time from");
    renew();
  }
}

/* The word that it is connected overtakes the worker. */
static void test_established_before_the_worker_is_back(void **state) {
  (void)state;
  start();
  go_to(AT_CONNECTED);
  assert_int_equal(bench.connected, 0);
  release_workers();
  run_until(&bench.connected);
  assert_int_equal(bench.rail.depth, 16);
  post(0, 2);
  settle();
  assert_int_equal(bench.completed, 2);
  end_quietly();
}

static void test_the_peer_goes_after_reads_have_landed(void **state) {
  (void)state;
  connect_rail();
  fake_verbs_manual(true);
  post(0, 4);
  post(4, 4);
  fake_verbs_step(4);
  fake_link_peer_disconnects(own_link());
  settle();
  assert_int_equal(bench.completed, 4); /* what has landed counts */
  fake_verbs_manual(false);
  expect_end(SPROUT_DISCONNECTED, "ended by");
  assert_int_equal(bench.completed, 4);
}

static void test_the_peer_vanishes(void **state) {
  (void)state;
  connect_rail();
  fake_link_peer_vanishes(own_link());
  post(0, 4);
  expect_end(SPROUT_DISCONNECTED, "not answered by");
}

static void test_connected_anew(void **state) {
  (void)state;
  start();
  for (uint32_t i = 0; i < 5; i++) {
    const struct rdma_rail_listener *listener = bench.rail.listener;
    bench.connected = bench.ended = bench.completed = 0;
    rdma_rail_connect(&bench.rail, &bench.options);
    run_until(&bench.connected);
    assert_int_equal(bench.rail.posted, 0);
    post(i, 4);
    settle();
    assert_int_equal(bench.completed, 4);
    end_quietly();
    rdma_rail_destroy(&bench.rail);
    bench.rail.listener = listener;
    bench.rail.context = &bench;
  }
  assert_int_equal(bench.peer.requests, 5);
}

#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BENCH(test_connect_and_read),
      WITH_BENCH(test_depth),
      WITH_BENCH(test_sleeps_until_a_chain_is_done),
      WITH_BENCH(test_what_comes_before_arming_is_seen),
      WITH_BENCH(test_completions_held_back),
      WITH_BENCH(test_polled_at_once),
      WITH_BENCH(test_the_nth_post_fails),
      WITH_BENCH(test_the_nth_completion_in_error),
      WITH_BENCH(test_memory_withdrawn_under_reads),
      WITH_BENCH(test_the_nth_completion_twice),
      WITH_BENCH(test_no_flush_comes),
      WITH_BENCH(test_end_waits_for_the_flush),
      WITH_BENCH(test_end_from_completed),
      WITH_BENCH(test_a_queue_that_fails),
      WITH_BENCH(test_a_queue_that_fails_for_good),
      WITH_BENCH(test_each_call_fails),
      WITH_BENCH(test_unreachable_at_each_stage),
      WITH_BENCH(test_refused),
      WITH_BENCH(test_the_route_leaves_by_another_device),
      WITH_BENCH(test_trouble_at_any_moment),
      WITH_BENCH(test_no_answer_in_time),
      WITH_BENCH(test_established_before_the_worker_is_back),
      WITH_BENCH(test_the_peer_goes_after_reads_have_landed),
      WITH_BENCH(test_the_peer_vanishes),
      WITH_BENCH(test_connected_anew),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
