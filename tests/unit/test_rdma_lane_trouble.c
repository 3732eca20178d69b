/* SPDX-License-Identifier: Apache-2.0 */
/* The RDMA lane in trouble: rails that are lost, stops at any moment, and all of it at random. */
#include "tests/support/lane_bench_test.h"

#include <errno.h>

/* --- rails that are lost -----------------------------------------------------------------------
 */

enum loss {
  READ_FAILS,
  KEY_REVOKED,
  PEER_ENDS,
  PEER_VANISHES,
  DEVICE_GOES,
  POST_FAILS,
  TWICE,
  LOSSES
};

static void lose(uint32_t device, enum loss loss) {
  switch (loss) {
  case READ_FAILS: fake_link_break(link_of(device), VERBS_UNREACHABLE); break;
  case KEY_REVOKED: fake_peer_withdraw(&bench.peers[device]); break;
  case PEER_ENDS: fake_link_peer_disconnects(link_of(device)); break;
  case PEER_VANISHES: fake_link_peer_vanishes(link_of(device)); break;
  case DEVICE_GOES: fake_device_remove(device); break;
  case POST_FAILS: fake_verbs_fail(FAKE_LINK_POST, 2, ENOMEM); break;
  default: fake_verbs_duplicate(1);
  }
}

static void test_one_rail_is_lost_and_the_other_goes_on(void **state) {
  (void)state;
  for (int loss = 0; loss < LOSSES; loss++) {
    for (uint32_t steps = 0; steps <= 24; steps += 4) {
      print_message("loss %d after %u reads\n", loss, steps);
      make_ready(&(struct wishes){.rails = 2, .window_bytes = MI});
      fake_verbs_manual(true);
      post_all(4);
      run_until_posted();
      for (uint32_t i = 0; i < steps; i += 2) {
        fake_verbs_step(2);
        tick_for(0);
      }
      lose(steps / 4 % 2, (enum loss)loss);
      step_until_done(2);
      assert_memory_equal(here, truth, sizeof truth);
      assert_int_equal(rdma_lane_rails(bench.lane), 1);
      unmake();
    }
  }
}

static void test_all_rails_are_lost(void **state) {
  (void)state;
  for (int loss = 0; loss <= DEVICE_GOES; loss++) {
    for (uint32_t steps = 0; steps <= 24; steps += 6) {
      make_ready(&(struct wishes){.rails = 2, .window_bytes = MI});
      fake_verbs_manual(true);
      post_all(4);
      run_until_posted();
      for (uint32_t i = 0; i < steps; i += 2) {
        fake_verbs_step(2);
        tick_for(0);
      }
      lose(0, (enum loss)loss);
      lose(1, (enum loss)loss);
      uint64_t landed = bench.lane->landed_bytes;
      for (int i = 0; i < TICKS_MAX && bench.failed == 0; i++) {
        fake_verbs_step(1);
        tick_for(i % 16 == 15 ? TICK_NS / 4 : 0);
      }
      assert_int_equal(bench.failed, 1);
      assert_true(bench.lane->landed_bytes >= landed && bench.lane->landed_bytes < MEMORY_BYTES);
      expect_no_late_byte();
      post(0, 1, 0); /* too late: given back as well */
      unmake();
    }
  }
}

/* Bytes of a lost rail land late, until its end is told: they are asked for again all the same. */
static void test_late_bytes_of_a_lost_rail(void **state) {
  (void)state;
  make_ready(&(struct wishes){.rails = 2, .window_bytes = MI});
  fake_verbs_manual(true);
  post_all(4);
  run_until_posted();
  struct verbs_link *lost = link_of(0);
  fake_link_peer_disconnects(lost);
  tick_for(0);
  fake_link_land(lost);
  step_until_done(2);
  assert_memory_equal(here, truth, sizeof truth);
  unmake();
}

/* A rail that hangs holds the first piece of a read; the other one lands what follows it, as far as
 * the lane has pieces for it. When the rail is lost the rest goes on, though every piece is in use.
 */
static void test_a_rail_hangs_and_is_lost_late(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2,
                        .object_count = 512,
                        .object_bytes = 4 * KI,
                        .object_stride = 16 * KI,
                        .whole_bytes = 16 * KI,
                        .answer_later = true});
  bench.peers[0].serve_depth = 1;
  start();
  run_until(&bench.asked, 1);
  bring_placement(true); /* has the first object alone */
  run_until(&bench.ready, 1);
  run_until_rails(2);
  fake_link_mute(link_of(0), true);
  struct test_read *own = post(0, 512, 0);
  for (uint32_t i = 512; i < RANGES_MAX; i++) { /* objects that were there before, once more */
    own->ranges[i] = own->ranges[i - 511];
    own->iov[i] = own->iov[i - 511];
  }
  own->read.range_count = own->read.iov_count = RANGES_MAX;
  own->read.length_bytes = RANGES_MAX * bench.wishes.object_bytes;
  flush();
  run_until(&bench.asked, 2);
  assert_int_equal(fake_device_view(0).requests, 2); /* and a fence */
  bring_placement(false);
  for (int i = 0; i < 400; i++) tick_for(TICK_NS / 16);
  assert_true(list_empty(&rdma_lane_of(bench.lane)->free_pieces));
  fake_link_break(link_of(0), VERBS_UNREACHABLE);
  run_until(&bench.done_count, 1);
  unmake();
}

/* Which share of the window each has, whatever the clock says. */
static void set_rates(double first, double second) {
  rdma_lane_of(bench.lane)->rails[0].bytes_per_ns = first;
  rdma_lane_of(bench.lane)->rails[1].bytes_per_ns = second;
}

/* The rail that hangs had most of the window: what is left of it is the other one's, all the time.
 */
static void test_the_faster_rail_hangs(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2, .unfenced = true});
  fake_verbs_manual(true);
  start();
  run_until(&bench.ready, 1);
  run_until_rails(2);
  set_rates(3, 1);
  post_all(8); /* a piece each */
  run_until_posted();
  fake_link_mute(link_of(0), true);
  for (int i = 0; i < TICKS_MAX && bench.done_count < 5; i++) {
    set_rates(3, 1);
    fake_device_step(1, 1);
    tick_for(TICK_NS / 16);
  }
  assert_int_equal(fake_device_view(0).requests, 3);
  assert_int_equal(bench.done_count, 5);
  fake_link_mute(link_of(0), false);
  step_until_done(2);
  unmake();
}

static void test_rails_that_never_connect(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2});
  bench.peers[0].answer = FAKE_PEER_REFUSES;
  start();
  run_until(&bench.ready, 1);
  post_all(8);
  expect_all();
  unmake();
  make(&(struct wishes){.rails = 2});
  bench.peers[0].answer = bench.peers[1].answer = FAKE_PEER_REFUSES;
  start();
  expect_failure(SPROUT_PROTOCOL, "refused a connection");
}

static void test_endpoints_that_are_none(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2});
  (void)snprintf(bench.opened.endpoints[0].address, 64, "seed.example");
  start();
  run_until(&bench.ready, 1);
  assert_int_equal(rdma_lane_rails(bench.lane), 1);
  post_all(8);
  expect_all();
  unmake();
  make(&(struct wishes){.rails = 2});
  for (int i = 0; i < 2; i++) (void)snprintf(bench.opened.endpoints[i].address, 64, "seed.example");
  start();
  expect_failure(SPROUT_UNSUPPORTED, "none of the seed's RDMA endpoints");
}

/* A scatter list that the one device takes is too long for the other, which comes later. */
static void test_rails_with_different_scatter_lists(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2, .window_bytes = MI});
  bench.devices[1]->info.max_segments = 3;
  fake_verbs_device(1)->max_segments = 3;
  bench.peers[1].answer = FAKE_PEER_IGNORES;
  start();
  run_until(&bench.ready, 1);
  fake_verbs_manual(true);
  for (uint32_t i = 0; i < 64; i++) post_entries(i, 1, 9000, true);
  flush();
  for (int i = 0; i < TICKS_MAX && fake_device_view(0).posted == 0; i++) tick_for(TICK_NS / 4);
  assert_true(fake_device_view(0).posted > 0);
  run_until(&bench.peers[1].requests, 1);
  const struct verbs_connect offer = {.serve_depth = 16};
  const struct verbs_link_limits limits = {.segments = 1};
  struct fake_peer *peer = &bench.peers[1];
  fake_verbs_excuse(true);
  assert_int_equal(fake_verbs()->link_make_pair(peer->links[0], peer->domain, peer->queue, &limits),
                   0);
  assert_int_equal(fake_verbs()->link_accept(peer->links[0], &offer), 0);
  fake_verbs_excuse(false);
  run_until_rails(2);
  fake_link_break(link_of(0), VERBS_UNREACHABLE);
  step_until_done(4);
  assert_true(fake_device_view(1).done > 0);
  unmake();
}

/* --- stopping ----------------------------------------------------------------------------------
 */

enum moment {
  OPENING,
  CONNECTING,
  PAIRING,
  WAITING,
  REGISTERING,
  READING,
  FLUSHING,
  FAILING,
  MOMENTS
};

static void go_to(enum moment moment) {
  make(&(struct wishes){.rails = 2, .answer_later = moment == WAITING});
  if (moment == OPENING) fake_verbs_hold(FAKE_DOMAIN_OPEN);
  if (moment == CONNECTING) fake_verbs_hang(FAKE_STAGE_CONNECT, true);
  if (moment == PAIRING) fake_verbs_hold(FAKE_LINK_MAKE_PAIR);
  if (moment == REGISTERING) fake_verbs_hold(FAKE_MEMORY_REGISTER);
  fake_verbs_manual(true);
  start();
  if (moment >= REGISTERING) run_until(&bench.ready, 1);
  post_all(8);
  for (int i = 0; i < 20; i++) tick_for(TICK_NS / 4);
  if (moment >= READING) assert_true(fake_device_view(0).requests > 0);
  if (moment == FLUSHING)
    for (uint32_t i = 0; i < 2; i++) fake_link_peer_disconnects(link_of(i));
  if (moment == FAILING) {
    fake_verbs_hold(FAKE_LINK_END); /* it does not get any further */
    fence_word++;
    fake_verbs_step(64);
  }
  if (moment >= FLUSHING) tick_for(0);
}

static void test_stop_at_any_moment(void **state) {
  (void)state;
  for (int moment = 0; moment < MOMENTS; moment++) {
    print_message("moment %d\n", moment);
    go_to((enum moment)moment);
    if (bench.failed > 0) fail_msg("%s", bench.error.message);
    bench.lane->ops->stop(bench.lane);
    assert_int_equal(bench.stopped, 0);
    settle();
    fake_verbs_unhold(FAKE_DOMAIN_OPEN);
    fake_verbs_unhold(FAKE_LINK_MAKE_PAIR);
    fake_verbs_unhold(FAKE_MEMORY_REGISTER);
    fake_verbs_unhold(FAKE_LINK_END);
    if (moment == READING || moment == FLUSHING) {
      assert_int_equal(bench.stopped, 0); /* what was posted is not flushed yet */
      fake_verbs_step(1000);
    }
    run_until(&bench.stopped, 1);
    assert_int_equal(bench.failed, 0);
    expect_no_late_byte();
    unmake();
  }
}

static void test_stopped_after_failed(void **state) {
  (void)state;
  make_ready(&(struct wishes){.rails = 2});
  post_all(8);
  for (uint32_t i = 0; i < 2; i++) fake_device_remove(i);
  run_until(&bench.failed, 1);
  settle();
  unmake();
}

static void test_several_lives(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2, .window_bytes = MI});
  for (uint32_t life = 0; life < 6; life++) {
    bench.ready = bench.stopped = bench.failed = bench.read_count = bench.done_count = 0;
    bench.asked = 0;
    memset(here, 0, sizeof here);
    fake_verbs_manual(life % 2 == 1);
    start();
    run_until(&bench.ready, 1);
    assert_int_equal(bench.lane->landed_bytes, 0);
    post_all(8);
    if (life % 2 == 0) {
      expect_all();
    } else {
      fake_verbs_step(5);
      settle();
      if (life == 3) {
        fake_link_break(link_of(0), VERBS_UNREACHABLE);
        fake_link_break(link_of(1), VERBS_UNREACHABLE);
        fake_verbs_manual(false);
        run_until(&bench.failed, 1);
      }
      fake_verbs_manual(false);
    }
    stop_lane();
    expect_returned();
  }
  bench.read_count = bench.done_count = 0;
  unmake();
}

/* --- all of it at random -----------------------------------------------------------------------
 */

static uint64_t random_state;

static uint32_t random_below(uint32_t limit) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)((random_state >> 33) % limit);
}

static void make_mischief(void) {
  uint32_t device = random_below(2);
  const struct rdma_rail *rail = &rdma_lane_of(bench.lane)->rails[device].rail;
  struct verbs_link *link = rail->link;
  bool is_there = rail->state == RDMA_RAIL_READY; /* else a worker may be at it */
  switch (random_below(40)) {
  case 0: fake_verbs_fail_read(1 + random_below(20), VERBS_UNREACHABLE + random_below(4)); break;
  case 1: fake_verbs_fail(FAKE_LINK_POST, 1 + random_below(40), ENOMEM); break;
  case 2: fake_verbs_duplicate(1 + random_below(10)); break;
  case 3: grant(1 + random_below(4 << 20)); break;
  case 4: grant(4 * MI); break;
  case 5: fake_device_port(device, 1, false); break;
  case 6: fake_device_port(device, 1, true); break;
  case 7: fake_verbs_fail(FAKE_QUEUE_ARM, 1 + random_below(30), EIO); break;
  case 8:
    if (is_there) fake_link_hold_completions(link, true);
    break;
  case 9:
    if (is_there) fake_link_land(link);
    break;
  default:
    if (is_there) fake_link_hold_completions(link, false);
  }
}

static void test_at_random(void **state) {
  (void)state;
  uint32_t complete = 0, failed = 0;
  for (uint32_t seed = 1; seed <= 40; seed++) {
    random_state = seed;
    make_ready(&(struct wishes){.rails = 2, .window_bytes = (1 + random_below(40)) * 100 * KI});
    fake_verbs_manual(true);
    for (uint32_t i = 0; i < 64;) {
      uint32_t count = 1 + random_below(8);
      if (count > 64 - i) count = 64 - i;
      post(i, count, 4096 + random_below(200000));
      i += count;
    }
    flush();
    for (int i = 0; i < 400 && bench.done_count < bench.read_count && bench.failed == 0; i++) {
      make_mischief();
      fake_verbs_step(random_below(12));
      tick_for(i % 16 == 15 ? TICK_NS / 8 : 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
      const struct rdma_rail *rail = &rdma_lane_of(bench.lane)->rails[i].rail;
      fake_device_port(i, 1, true);
      if (rail->state == RDMA_RAIL_READY) fake_link_hold_completions(rail->link, false);
    }
    grant(4 * MI);
    fake_verbs_manual(false);
    for (int i = 0; i < TICKS_MAX && bench.done_count < bench.read_count && bench.failed == 0; i++)
      tick_for(TICK_NS / 4);
    if (bench.failed > 0) {
      failed++;
      expect_no_late_byte();
    } else {
      complete++;
      assert_memory_equal(here, truth, sizeof truth);
    }
    unmake();
  }
  print_message("%u complete, %u failed\n", complete, failed);
  assert_true(complete > 10 && failed > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_one_rail_is_lost_and_the_other_goes_on),
      cmocka_unit_test(test_all_rails_are_lost),
      cmocka_unit_test(test_late_bytes_of_a_lost_rail),
      cmocka_unit_test(test_a_rail_hangs_and_is_lost_late),
      cmocka_unit_test(test_the_faster_rail_hangs),
      cmocka_unit_test(test_rails_that_never_connect),
      cmocka_unit_test(test_endpoints_that_are_none),
      cmocka_unit_test(test_rails_with_different_scatter_lists),
      cmocka_unit_test(test_stop_at_any_moment),
      cmocka_unit_test(test_stopped_after_failed),
      cmocka_unit_test(test_several_lives),
      cmocka_unit_test(test_at_random),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
