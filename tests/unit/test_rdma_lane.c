/* SPDX-License-Identifier: Apache-2.0 */
/* The RDMA lane: reading, credits, fences, memory. */
#include "tests/support/lane_bench_test.h"
#include "tests/support/memory.h"

#include <errno.h>

/* --- reading -----------------------------------------------------------------------------------
 */

static void test_read_all(void **state) {
  (void)state;
  for (uint32_t rails = 1; rails <= 2; rails++) {
    for (uint32_t each = 1; each <= 32; each *= 4) {
      make_ready(&(struct wishes){.rails = rails});
      post_all(each);
      expect_all();
      assert_int_equal(bench.lane->landed_bytes, MEMORY_BYTES);
      assert_int_equal(rdma_lane_rails(bench.lane), rails);
      assert_true(rdma_lane_take_peak(bench.lane) > 0);
      assert_int_equal(rdma_lane_take_peak(bench.lane), 0);
      unmake();
    }
  }
}

static void test_two_rails_over_one_device(void **state) {
  (void)state;
  make_ready(&(struct wishes){.rails = 2, .devices = 1});
  post_all(4);
  expect_all();
  assert_int_equal(fake_verbs_counts().pairs, 4);
  unmake();
}

static void test_scatter_lists(void **state) {
  (void)state;
  static const uint64_t entries[] = {1000, 4096, 64 * KI, 1000};
  for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
    make_ready(&(struct wishes){.rails = 1});
    for (uint32_t k = 0; k < 64; k++) post_entries(k, 1, entries[i], i < 3);
    flush();
    run_until(&bench.done_count, bench.read_count);
    assert_true(fake_device_view(0).segments_max > 1 || i == 3);
    assert_true(fake_device_view(0).segments_max <= 16);
    unmake();
  }
}

/* Neighbours share a READ; what lies apart does not. */
static void test_small_objects(void **state) {
  (void)state;
  make_ready(&(struct wishes){.object_count = 512, .object_bytes = 8 * KI, .unfenced = true});
  for (uint32_t i = 0; i < 512; i += 128) post(i, 128, 0);
  flush();
  run_until(&bench.done_count, bench.read_count);
  assert_int_equal(fake_device_view(0).posted, 4);
  assert_int_equal(fake_device_view(0).segments_max, 1);
  unmake();
  make_ready(&(struct wishes){
      .object_count = 512, .object_bytes = 8 * KI, .object_stride = 16 * KI, .unfenced = true});
  for (uint32_t i = 0; i < 512; i += 128) post(i, 128, 0);
  flush();
  run_until(&bench.done_count, bench.read_count);
  assert_int_equal(fake_device_view(0).posted, 512);
  unmake();
}

static void test_posted_before_ready(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2});
  start();
  post_all(8);
  expect_all();
  unmake();
}

/* Few doorbells, fewer wake-ups. */
static void test_chains(void **state) {
  (void)state;
  make_ready(&(struct wishes){.window_bytes = MI});
  fake_verbs_manual(true);
  post_all(8);
  step_until_done(1);
  const struct fake_view view = fake_device_view(0);
  assert_int_equal(view.signalled, view.chains); /* one completion each */
  assert_true(view.chains <= MEMORY_BYTES / (MI / (LANE_CHAINS + 1)));
  assert_int_equal(view.done_bytes, MEMORY_BYTES + view.chains * sizeof fence_word);
  unmake();
}

/* --- credits -----------------------------------------------------------------------------------
 */

static void test_window_and_depth(void **state) {
  (void)state;
  static const uint64_t windows[] = {1, 8 * KI, 64 * KI, 100000, 256 * KI, MI, 3 * MI, 64 * MI};
  static const uint8_t depths[] = {1, 3, 16};
  for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
    for (size_t k = 0; k < sizeof depths; k++) {
      make(&(struct wishes){.rails = 2, .window_bytes = windows[i]});
      for (uint32_t n = 0; n < 2; n++) bench.peers[n].serve_depth = depths[k];
      fake_verbs_manual(true);
      start();
      run_until(&bench.ready, 1);
      post_all(4);
      step_until_done(3);
      uint32_t depth = depths[k] < 2 ? 2 : depths[k];
      for (uint32_t n = 0; n < 2; n++)
        assert_true(fake_link_view(link_of(n)).max_requests <= depth);
      assert_memory_equal(here, truth, sizeof truth);
      assert_int_equal(rdma_lane_take_peak(bench.lane) > windows[i] && windows[i] > 64 * KI, 0);
      unmake();
    }
  }
}

static void test_operations(void **state) {
  (void)state;
  static const uint32_t operations[] = {0, 1, 2, 5, 9};
  for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
    for (int unfenced = 0; unfenced < 2; unfenced++) {
      make(&(struct wishes){.rails = 2, .unfenced = unfenced == 1});
      bench.window.operations = operations[i];
      fake_verbs_manual(true);
      start();
      run_until(&bench.ready, 1);
      post_all(1);
      uint32_t least = unfenced == 1 ? 1 : 2, limit = operations[i];
      for (int k = 0; k < TICKS_MAX && bench.done_count < bench.read_count; k++) {
        uint32_t requests = fake_device_view(0).requests + fake_device_view(1).requests;
        assert_true(requests <= (limit > least ? limit : least));
        if (k == 20) fake_link_break(link_of(0), VERBS_UNREACHABLE);
        fake_verbs_step(1);
        tick_for(k % 16 == 15 ? TICK_NS / 4 : 0);
      }
      assert_int_equal(bench.done_count, bench.read_count);
      unmake();
    }
  }
}

/* The grant goes up and down; what a lost rail had in large pieces obeys the smaller one too. */
static void test_the_window_changes(void **state) {
  (void)state;
  static const uint64_t windows[] = {4 * MI, 256 * KI, 70000, 2 * MI, 128 * KI};
  make_ready(&(struct wishes){.rails = 2, .window_bytes = 6 * MI});
  fake_verbs_manual(true);
  post_all(8);
  for (uint32_t i = 0; i < 60 && bench.done_count < bench.read_count; i++) {
    grant(windows[i % 5]);
    check_window();
    if (i == 1) fake_link_break(link_of(0), VERBS_UNREACHABLE);
    fake_verbs_step(2);
    tick_for(TICK_NS / 4);
  }
  step_until_done(4);
  assert_memory_equal(here, truth, sizeof truth);
  unmake();
}

/* Two rails are left, one with a piece outstanding and an idle one: the piece of the lost one is
 * more than what the window has left. */
static void test_large_pieces_of_a_lost_rail_wait_for_room(void **state) {
  (void)state;
  static const uint32_t objects[] = {8, 8, 6}; /* a piece each, one per rail */
  make_ready(&(struct wishes){.rails = 3, .window_bytes = 6 * MI, .unfenced = true});
  fake_verbs_manual(true);
  for (uint32_t i = 0, first = 0; i < 3; first += objects[i++]) post(first, objects[i], 0);
  flush();
  run_until_posted();
  uint32_t kept = 0, lost = 0;
  for (uint32_t i = 0; i < 3; i++) *(fake_device_view(i).bytes < MI ? &kept : &lost) = i;
  uint32_t idle = 3 - kept - lost;
  assert_int_equal(fake_device_view(kept).bytes, 768 * KI);
  assert_int_equal(fake_device_view(lost).bytes, MI);
  grant(1200 * KI);
  fake_device_step(idle, 100);
  settle();
  fake_link_break(link_of(lost), VERBS_UNREACHABLE);
  for (int i = 0; i < TICKS_MAX && rdma_lane_of(bench.lane)->open_rails == 3; i++)
    tick_for(TICK_NS / 4);
  settle();
  assert_int_equal(rdma_lane_of(bench.lane)->inflight_bytes, 768 * KI);
  assert_int_equal(fake_device_view(idle).bytes, 0);
  step_until_done(2);
  unmake();
}

static void test_nothing_is_posted_when_the_lease_is_over(void **state) {
  (void)state;
  make_ready(&(struct wishes){.rails = 2});
  fake_verbs_manual(true);
  bench.lane->ops->grant(bench.lane, &bench.window, reactor_now(bench.reactor) - 1);
  post_all(8);
  settle();
  assert_int_equal(fake_device_view(0).posted + fake_device_view(1).posted, 0);
  grant(bench.window.bytes);
  run_until_posted();
  bench.lane->ops->grant(bench.lane, &bench.window, 0); /* with reads under way */
  uint64_t posted = fake_device_view(0).posted;
  fake_verbs_step(1000);
  settle();
  assert_int_equal(fake_device_view(0).posted, posted);
  grant(bench.window.bytes);
  step_until_done(8);
  unmake();
}

/* --- fences ------------------------------------------------------------------------------------
 */

static void count_reads(void *context) {
  struct bench *own = context;
  if (++own->executed != own->change_at) return;
  __atomic_store_n(&fence_word, UINT64_C(2) * GENERATION + 1, __ATOMIC_RELEASE);
  for (uint64_t i = 0; i < MEMORY_BYTES; i++) there[i] = (unsigned char)~there[i];
  __atomic_store_n(&fence_word, UINT64_C(2) * GENERATION + 2, __ATOMIC_RELEASE);
}

/* The bytes change before the n-th READ: what is told to have landed is of the old ones alone,
 * which on_landed compares. */
static void change_between_reads(bool any_order) {
  for (uint32_t rails = 1; rails <= 2; rails++) {
    for (uint32_t at = 1; at <= 40; at += 3) {
      make_ready(&(struct wishes){.rails = rails, .window_bytes = rails * MI / 4});
      bench.change_at = at;
      fake_verbs_any_order(any_order);
      fake_verbs_before_copy(count_reads, &bench);
      post_all(8);
      run_until(&bench.failed, 1);
      assert_int_equal(bench.error.status, SPROUT_STALE);
      expect_no_late_byte();
      unmake();
    }
  }
}

static void test_the_generation_changes_between_reads(void **state) {
  (void)state;
  change_between_reads(false);
}

/* A fence that was answered before the bytes that it vouches for would prove nothing. */
static void test_the_generation_changes_between_reads_in_any_order(void **state) {
  (void)state;
  change_between_reads(true);
}

static void test_words_that_are_not_of_this_generation(void **state) {
  (void)state;
  static const struct {
    uint64_t word;
    const char *message;
  } cases[] = {{2 * GENERATION + 1, "being changed"},
               {2 * GENERATION + 2, "generation 6"},
               {2 * GENERATION - 2, "generation 4"},
               {0, "generation 0"},
               {UINT64_MAX, "changed"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    make_ready(&(struct wishes){.rails = 2});
    fence_word = cases[i].word;
    post_all(8);
    run_until(&bench.failed, 1);
    assert_int_equal(bench.lane->landed_bytes, 0);
    expect_failure(SPROUT_STALE, cases[i].message);
  }
}

static void test_bytes_that_never_change_need_no_fence(void **state) {
  (void)state;
  make_ready(&(struct wishes){.rails = 2, .unfenced = true});
  fence_word = 1;
  post_all(8);
  expect_all();
  assert_int_equal(fake_device_view(0).done_bytes + fake_device_view(1).done_bytes, MEMORY_BYTES);
  unmake();
}

/* --- shares ------------------------------------------------------------------------------------
 */

static void test_rails_share_by_measured_progress(void **state) {
  (void)state;
  make_ready(&(struct wishes){.rails = 2, .window_bytes = 1000 * KI, .unfenced = true});
  fake_verbs_manual(true);
  for (int round = 0; round < 12; round++) { /* the same bytes over and over */
    if (round == 6) fake_verbs_reset_views();
    bench.read_count = bench.done_count = 0;
    post_all(8);
    for (int i = 0; i < TICKS_MAX && bench.done_count < bench.read_count; i++) {
      fake_device_step(0, 6);
      fake_device_step(1, 1);
      for (int k = 0; k < 4; k++) tick_for(TICK_NS / 4);
    }
    assert_int_equal(bench.done_count, bench.read_count);
  }
  uint64_t fast = fake_device_view(0).done_bytes, slow = fake_device_view(1).done_bytes;
  print_message("fast %" PRIu64 ", slow %" PRIu64 "\n", fast, slow);
  assert_true(slow > 0);
  assert_true(fast >= 3 * slow); /* 6 in truth; the window is 7 pieces wide */
  assert_true(fast <= 30 * slow);
  unmake();
}

/* --- memory of both sides ----------------------------------------------------------------------
 */

static void test_own_memory_is_not_registered_yet(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2});
  for (uint32_t i = 0; i < 2; i++) bench.devices[i]->info.max_memory_bytes = MI;
  fake_verbs_hold(FAKE_MEMORY_REGISTER);
  start();
  run_until(&bench.ready, 1);
  post_all(4);
  settle();
  assert_int_equal(fake_device_view(0).posted + fake_device_view(1).posted, 0);
  uint32_t done = 0;
  for (int i = 0; i < 40 && bench.done_count < bench.read_count; i++) {
    fake_verbs_let(FAKE_MEMORY_REGISTER, 1);
    for (int k = 0; k < 4; k++) tick_for(TICK_NS);
    assert_true(bench.done_count >= done);
    done = bench.done_count;
  }
  assert_true(done > 0); /* some, while the rest waits */
  assert_true(bench.signs_of_life > 0);
  fake_verbs_unhold(FAKE_MEMORY_REGISTER);
  expect_all();
  unmake();
}

static void test_own_memory_cannot_be_registered(void **state) {
  (void)state;
  for (uint64_t nth = 1; nth <= 18; nth += 4) {
    make(&(struct wishes){.rails = 2});
    for (uint32_t i = 0; i < 2; i++) bench.devices[i]->info.max_memory_bytes = MI;
    start();
    run_until(&bench.ready, 1);
    fake_verbs_fail(FAKE_MEMORY_REGISTER, nth, EFAULT);
    post_all(4);
    expect_failure(SPROUT_UNSUPPORTED, "registered");
  }
}

static void test_no_domain(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2});
  fake_verbs_fail(FAKE_DOMAIN_OPEN, 2, ENOMEM);
  start();
  expect_failure(SPROUT_UNSUPPORTED, "protection domain");
}

static void test_the_placement_grows(void **state) {
  (void)state;
  make(&(struct wishes){.rails = 2, .whole_bytes = 3 * MI, .answer_later = true});
  start();
  run_until(&bench.asked, 1);
  assert_int_equal(bench.asked_since, 0);
  assert_int_equal(bench.ready, 0);
  rdma_lane_placement_later(bench.lane); /* "too early" */
  run_until(&bench.asked, 2);
  assert_int_equal(bench.asked_since, 0);
  bring_placement(true);
  run_until(&bench.ready, 1);
  post_all(8); /* 1 MiB each */
  run_until(&bench.done_count, 3);
  run_until(&bench.asked, 3);
  assert_int_equal(bench.asked_since, 2);
  assert_int_equal(bench.done_count, 3);
  bring_placement(false);
  assert_true(bench.signs_of_life > 0);
  expect_all();
  for (int i = 0; i < 50; i++) tick_for(TICK_NS);
  assert_int_equal(bench.asked, 3); /* it is whole */
  unmake();
}

static void spoil(struct wire_placement *placement, int how) {
  switch (how) {
  case 0: placement->object_count--; break;
  case 1: placement->rail_count = 1; break;
  case 2: placement->rail_count = 0; break;
  case 3: placement->slices[1].address = placement->slices[0].address + 5; break;
  case 4: placement->slices[0].length_bytes = 0; break;
  case 5: placement->slices[0].length_bytes = UINT64_MAX; break;
  case 6: placement->fence_address++; break;
  case 7: placement->slice_count--; break; /* the fence's */
  case 8: placement->slices[1].length_bytes = 4; break;
  default: placement->objects[3] = 12345; /* nowhere */
  }
}

static void test_placements_that_cannot_be(void **state) {
  (void)state;
  for (int how = 0; how < 10; how++) {
    struct wire_placement placement;
    make(&(struct wishes){.rails = 2, .answer_later = true});
    start();
    run_until(&bench.asked, 1);
    make_placement(&placement, true);
    spoil(&placement, how);
    rdma_lane_placement(bench.lane, &placement);
    wire_placement_destroy(&placement);
    post_all(8);
    expect_failure(SPROUT_PROTOCOL, "placement");
  }
}

static void test_a_placement_of_another_generation(void **state) {
  (void)state;
  for (uint64_t generation = GENERATION - 1; generation <= GENERATION + 1; generation += 2) {
    struct wire_placement placement;
    make(&(struct wishes){.rails = 1, .unfenced = true, .answer_later = true});
    start();
    run_until(&bench.asked, 1);
    make_placement(&placement, true);
    placement.generation = generation;
    rdma_lane_placement(bench.lane, &placement);
    wire_placement_destroy(&placement);
    post_all(8);
    expect_failure(SPROUT_STALE, "placement is of generation");
  }
}

static void test_no_placement(void **state) {
  (void)state;
  const struct sprout_error error = {.status = SPROUT_GONE, .message = "lease over"};
  make(&(struct wishes){.rails = 1, .answer_later = true});
  start();
  run_until(&bench.asked, 1);
  rdma_lane_no_placement(bench.lane, &error);
  expect_failure(SPROUT_GONE, "lease over");
}

/* --- no memory ---------------------------------------------------------------------------------
 */

static void test_no_memory_to_create(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  make(&(struct wishes){.rails = 2});
  struct lane *lane = NULL;
  struct rdma_lane_options options = {
      .host = bench.host, .selection = &bench.selection, .landing = bench.landing};
  memcpy(options.devices, bench.devices, sizeof options.devices);
  long count = 0;
  for (;; count++) {
    memory_fail_after(count);
    enum sprout_status status = rdma_lane_create(&options, &lane);
    if (!memory_restore()) {
      assert_int_equal(status, SPROUT_OK);
      break;
    }
    assert_int_equal(status, SPROUT_NO_MEMORY);
    assert_null(lane);
  }
  assert_true(count >= 3);
  lane->ops->destroy(lane);
  start();
  run_until(&bench.ready, 1);
  unmake();
}

static void test_no_memory_for_a_placement(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct wire_placement placement;
  make(&(struct wishes){.rails = 1, .answer_later = true});
  start();
  run_until(&bench.asked, 1);
  make_placement(&placement, true);
  memory_fail_after(0);
  rdma_lane_placement(bench.lane, &placement);
  assert_true(memory_restore());
  wire_placement_destroy(&placement);
  expect_failure(SPROUT_NO_MEMORY, "placement");
}

static void test_no_memory_to_register(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  long count = 0;
  for (bool failed = true; failed; count++) {
    make_ready(&(struct wishes){.rails = 1});
    fake_verbs_manual(true);
    post(0, 8, 0);
    memory_fail_after(count);
    flush();
    failed = memory_restore();
    fake_verbs_manual(false);
    if (failed)
      expect_failure(SPROUT_NO_MEMORY, "registered memory");
    else
      unmake();
  }
  assert_true(count >= 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_read_all),
      cmocka_unit_test(test_two_rails_over_one_device),
      cmocka_unit_test(test_scatter_lists),
      cmocka_unit_test(test_small_objects),
      cmocka_unit_test(test_posted_before_ready),
      cmocka_unit_test(test_chains),
      cmocka_unit_test(test_window_and_depth),
      cmocka_unit_test(test_operations),
      cmocka_unit_test(test_the_window_changes),
      cmocka_unit_test(test_large_pieces_of_a_lost_rail_wait_for_room),
      cmocka_unit_test(test_nothing_is_posted_when_the_lease_is_over),
      cmocka_unit_test(test_the_generation_changes_between_reads),
      cmocka_unit_test(test_the_generation_changes_between_reads_in_any_order),
      cmocka_unit_test(test_words_that_are_not_of_this_generation),
      cmocka_unit_test(test_bytes_that_never_change_need_no_fence),
      cmocka_unit_test(test_rails_share_by_measured_progress),
      cmocka_unit_test(test_own_memory_is_not_registered_yet),
      cmocka_unit_test(test_own_memory_cannot_be_registered),
      cmocka_unit_test(test_no_domain),
      cmocka_unit_test(test_the_placement_grows),
      cmocka_unit_test(test_placements_that_cannot_be),
      cmocka_unit_test(test_a_placement_of_another_generation),
      cmocka_unit_test(test_no_placement),
      cmocka_unit_test(test_no_memory_to_create),
      cmocka_unit_test(test_no_memory_for_a_placement),
      cmocka_unit_test(test_no_memory_to_register),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
