/* SPDX-License-Identifier: Apache-2.0 */
/* Sources that are wrong, slow, gone for a while, or change under the fork. */
#include "tests/support/engine_rig_test.h"

/* --- bytes that are wrong --- */

static void test_wrong_bytes_are_named_and_read_elsewhere(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *truth = rig_add(&rig), *wrong = rig_add(&rig);
  wrong->variant = 1;
  rig_start(&rig);
  rig_manifest(truth);
  rig_admit(wrong);
  rig_tell(truth, ALL_KNOWN);
  rig_land(wrong);
  rig_settle(&rig);
  assert_int_equal(rig.last_dropped.status, SPROUT_CORRUPT);
  expect_in(rig.last_dropped.message, "bytes of 't0' of one bytes 0..1000 (chunk 0)");
  expect_in(rig.last_dropped.message, "rig://0");
  assert_int_equal(rig.destination.stores, 0);
  assert_int_equal(rig.destination.releases, 1);
  rig_ready(truth);
  rig_land_all(truth);
  assert_true(rig_holds(&rig, 0));
  expect_end(SPROUT_OK);
}

/* One wrong chunk is enough: nothing of that source that nobody has proven is kept. */
static void test_unproven_bytes_of_a_convict_are_read_again(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *truth = rig_add(&rig), *wrong = rig_add(&rig);
  wrong->variant = 1;
  rig_start(&rig);
  rig_manifest(truth);
  rig_admit(wrong);
  rig_land(wrong);
  rig_settle(&rig);
  assert_int_equal(rig.destination.stores, 1);
  rig_tell(truth, 1);
  rig_ready(truth);
  rig_settle(&rig);
  assert_int_equal(rig.last_dropped.status, SPROUT_CORRUPT);
  assert_int_equal(truth->posted[0]->length_bytes, 6000);
  rig_land(truth);
  rig_settle(&rig);
  rig_tell(truth, ALL_KNOWN);
  expect_end(SPROUT_OK);
}

static void test_wrong_bytes_of_the_only_source(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  source->variant = 1;
  rig_land(source);
  rig_settle(&rig);
  expect_in(rig.result.message, "its own digest");
  expect_end(SPROUT_CORRUPT);
}

/* The authority contradicts itself: who was dropped by its word comes back. */
static void test_liar_acquits(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *liar = rig_add(&rig), *truth = rig_add(&rig);
  rig_start(&rig);
  rig_manifest(liar);
  rig_admit(truth);
  liar->variant = 1; /* its digests only */
  rig_tell(liar, ALL_KNOWN);
  rig_land(truth);
  rig_settle(&rig);
  assert_string_equal(rig_status(&rig, 1).state, "dropped");
  liar->variant = 0;
  rig_ready(liar);
  rig_settle(&rig);
  rig_land(liar);
  rig_settle(&rig);
  assert_string_equal(rig_status(&rig, 0).state, "dropped");
  assert_int_equal(truth->connects, 2);
  rig_admit(truth);
  rig_tell(truth, ALL_KNOWN);
  rig_land_all(truth);
  assert_true(rig_holds(&rig, 0));
  expect_end(SPROUT_OK);
}

/* One that inherits the law must agree with it. */
static void test_successor_that_deviates(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *first = rig_add(&rig), *second = rig_add(&rig);
  rig_start(&rig);
  rig_admit(first);
  rig_manifest(second);
  rig_tell(first, 1); /* only chunk 0 */
  rig_settle(&rig);
  rig_fail(first, SPROUT_PROTOCOL);
  rig_settle(&rig);
  assert_int_equal(second->question_count, 1);
  second->variant = 1;
  rig_tell(second, ALL_KNOWN);
  rig_settle(&rig);
  assert_int_equal(rig.last_dropped.status, SPROUT_CORRUPT);
  expect_in(rig.last_dropped.message, "its digest of 't0'");
  expect_end(SPROUT_NO_SOURCE);
}

static void test_complete_waits_for_confirmation(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *first = rig_add(&rig), *second = rig_add(&rig);
  rig_start(&rig);
  rig_admit(first);
  rig_manifest(second);
  rig_settle(&rig);
  rig_tell(first, 7);
  rig_land(first);
  rig_settle(&rig);
  rig_fail(first, SPROUT_PROTOCOL);
  rig_settle(&rig);
  rig_tell(second, 7u << 3); /* the rest, but not what the first said */
  rig_settle(&rig);
  assert_int_equal(rig_progress(&rig).done_bytes, 6000);
  assert_false(rig.finished || rig.destination.finish_asked);
  assert_true(second->questions[0].compute);
  rig_tell(second, ALL_KNOWN);
  expect_end(SPROUT_OK);
}

static void test_digests_nobody_asked_for(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  struct digest digest = rig_digest(0, 0);
  bool known = true;
  source->source.listener->digests(&source->source, 0, 1, &digest, &known);
  rig_settle(&rig);
  assert_int_equal(rig.last_dropped.status, SPROUT_PROTOCOL);
  expect_end(SPROUT_NO_SOURCE);
}

/* Questions that bring nothing are repeated with growing pauses, a few times. */
static void test_digests_never_told(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, 0);
  rig_land(source);
  rig_settle(&rig);
  uint32_t attempts = 0;
  uint64_t begun_ns = rig.now_ns;
  while (!rig.finished && attempts < 100) {
    attempts++;
    rig_tell(source, 0);
    rig_settle(&rig);
    assert_int_equal(source->question_count, 0); /* not at once */
    if (!rig.finished) rig_wait(&rig, fork_engine_deadline(rig.engine) - rig.now_ns);
  }
  assert_int_equal(attempts, ENGINE_DIGEST_ATTEMPTS_MAX);
  assert_in_range(rig.now_ns - begun_ns, 1000 * MS, 5000 * MS);
  expect_end(SPROUT_UNAVAILABLE);
}

/* --- time --- */

/* A stall is seen in time, with next to no work, and the chunks are read elsewhere. */
static void test_stall(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *stalled = rig_add(&rig), *other = rig_add(&rig);
  rig_start(&rig);
  rig_admit(stalled);
  rig_tell(stalled, ALL_KNOWN);
  rig_manifest(other);
  rig_settle(&rig);
  rig_ready(other);
  rig_settle(&rig);
  rig_land_part(stalled, 500);
  rig_wait(&rig, 100 * MS);
  uint32_t ticks = rig_wait(&rig, 890 * MS);
  assert_int_equal(rig.dropped, 0);
  assert_in_range(ticks, 1, 10);
  rig_wait(&rig, 1000 * MS);
  assert_int_equal(rig.last_dropped.status, SPROUT_STALLED);
  rig_land_all(other);
  assert_int_equal(rig_progress(&rig).retries, 1);
  expect_end(SPROUT_OK);
}

static void test_progress_is_no_stall(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  for (int i = 0; i < 10; i++) {
    rig_wait(&rig, 850 * MS);
    rig_land_part(source, 10);
  }
  rig_land(source);
  expect_end(SPROUT_OK);
}

static void test_waiting_without_reads_is_no_stall(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, 0);
  rig_land(source);
  rig_settle(&rig);
  assert_int_equal(rig_wait(&rig, 9000 * MS), 0); /* the source watches over its own questions */
  assert_int_equal(rig.dropped, 0);
  rig_tell(source, ALL_KNOWN);
  expect_end(SPROUT_OK);
}

/* This process was stopped, not the source. */
static void test_stopped_process(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig.now_ns += 100000 * MS;
  rig_tick(&rig);
  assert_int_equal(rig.dropped, 0);
  rig_wait(&rig, 900 * MS);
  assert_int_equal(rig.dropped, 0);
  rig_wait(&rig, 300 * MS);
  assert_int_equal(rig.last_dropped.status, SPROUT_STALLED);
  expect_end(SPROUT_NO_SOURCE);
}

static void test_connecting_takes_too_long(void **state) {
  (void)state;
  start_with_one(&(struct fork_engine_options){.verify = true, .connect_timeout_ns = 400 * MS});
  rig_wait(&rig, 399 * MS);
  assert_int_equal(rig.dropped, 0);
  rig_wait(&rig, 1 * MS);
  assert_int_equal(rig.last_dropped.status, SPROUT_TIMEOUT);
  expect_end(SPROUT_NO_SOURCE);
}

static void test_queue_takes_too_long(void **state) {
  (void)state;
  struct rig_source *source =
      start_with_one(&(struct fork_engine_options){.verify = true, .wait_ns = 5000 * MS});
  rig_manifest(source);
  rig_tick(&rig);
  rig_queued(source, 9);
  rig_settle(&rig);
  rig_wait(&rig, 4999 * MS);
  rig_queued(source, 8);
  rig_wait(&rig, 0);
  assert_int_equal(rig.dropped, 0);
  rig_wait(&rig, 1 * MS);
  expect_in(rig.last_dropped.message, "place 8");
  expect_end(SPROUT_BUSY);
}

static void test_full_queue_all_the_time(void **state) {
  (void)state;
  struct rig_source *source =
      start_with_one(&(struct fork_engine_options){.verify = true, .wait_ns = 5000 * MS});
  rig_manifest(source);
  rig_tick(&rig);
  rig_queued(source, 0);
  rig_settle(&rig);
  rig_wait(&rig, 5000 * MS);
  expect_in(rig.last_dropped.message, "gave no place in its queue");
  expect_end(SPROUT_BUSY);
}

static void test_full_queue_is_asked_again(void **state) {
  (void)state;
  struct rig_source *source =
      start_with_one(&(struct fork_engine_options){.verify = true, .wait_ns = 5000 * MS});
  while (!rig.finished) {
    rig_fail(source, SPROUT_BUSY);
    rig_settle(&rig);
    if (!rig.finished) rig_wait(&rig, 2000 * MS);
    assert_in_range(source->connects, 1, 20);
  }
  assert_in_range(rig.now_ns, 3000 * MS, 8000 * MS);
  expect_end(SPROUT_BUSY);
}

static void test_whole_fork_takes_too_long(void **state) {
  (void)state;
  struct rig_source *source =
      start_with_one(&(struct fork_engine_options){.verify = true, .timeout_ns = 700 * MS});
  rig_admit(source);
  rig_wait(&rig, 699 * MS);
  assert_int_equal(source->closes, 0);
  rig_wait(&rig, 1 * MS);
  assert_int_equal(source->closes, 1);
  expect_end(SPROUT_TIMEOUT);
}

/* 6000 bytes one by one at 1000 bytes a second: the first 256 KiB are free, so spend them before.
 */
static void test_rate_is_held(void **state) {
  (void)state;
  const struct fork_engine_options options = {
      .verify = false, .max_rate = 1000, .inflight_bytes = 1};
  struct rig_source *source = start_with_one(&options);
  pacer_spend(&rig.engine->pacer, DESTINATION_PIECE_BYTES);
  rig_admit(source);
  uint64_t begun_ns = rig.now_ns;
  while (!rig.finished) {
    assert_in_range(source->posted_count, 0, 1);
    if (source->posted_count > 0) rig_land(source);
    rig_settle(&rig);
    if (!rig.finished) rig_wait(&rig, 1 * MS);
  }
  assert_in_range(rig.now_ns - begun_ns, 4900 * MS, 6100 * MS);
  assert_in_range(rig.ticks, 6, 100000);
  expect_end(SPROUT_OK);
}

static void test_grant_of_nothing_pauses(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(&(struct fork_engine_options){.inflight_bytes = 1});
  rig_admit(source);
  rig_grant(source, 0, 0);
  rig_settle(&rig);
  rig_land(source);
  rig_settle(&rig);
  assert_int_equal(source->posted_count, 0);
  assert_int_equal(rig_wait(&rig, 50000 * MS), 0);
  assert_int_equal(rig.dropped, 0);
  rig_grant(source, 1, 0);
  rig_land_all(source);
  expect_end(SPROUT_OK);
}

/* --- trouble that passes --- */

static void test_not_now(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  uint64_t begun_ns = rig.now_ns;
  uint32_t refused = 0;
  while (!rig.finished) {
    if (source->posted_count > 0) {
      rig_refuse(source, SPROUT_OVER_WINDOW);
      refused++;
    }
    rig_settle(&rig);
    if (!rig.finished) rig_wait(&rig, fork_engine_deadline(rig.engine) - rig.now_ns);
  }
  assert_int_equal(refused, ENGINE_PAUSES_MAX + 1);
  assert_in_range(rig.now_ns - begun_ns, 12000 * MS, 13000 * MS);
  expect_end(SPROUT_NO_SOURCE);
}

/* A broken transport is tried again, as long as there is progress; then a little longer. */
static void test_transport_breaks(void **state) {
  (void)state;
  struct rig_source *source =
      start_with_one(&(struct fork_engine_options){.verify = true, .inflight_bytes = 1});
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  for (uint32_t i = 1; i <= 3; i++) {
    rig_land(source);
    rig_settle(&rig);
    rig_fail(source, SPROUT_DISCONNECTED);
    rig_settle(&rig);
    assert_string_equal(rig_status(&rig, 0).state, "connecting");
    rig_wait(&rig, 100 * MS);
    assert_int_equal(source->connects, i + 1);
    rig_admit(source);
    assert_int_equal(source->questions_ever, 1); /* the same version: its word still holds */
  }
  for (uint32_t i = 1; i <= 2; i++) {
    rig_fail(source, SPROUT_DISCONNECTED); /* again, without a read in between */
    rig_settle(&rig);
    rig_wait(&rig, i * 100 * MS - 1);
    assert_int_equal(source->connects, 3 + i);
    rig_wait(&rig, 1);
  }
  rig_fail(source, SPROUT_DISCONNECTED);
  assert_int_equal(source->connects, 6);
  expect_end(SPROUT_NO_SOURCE);
}

/* It was ready, and broke before the first byte: seeds do so when their bytes change. */
static void test_transport_breaks_before_the_first_byte(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_fail(source, SPROUT_DISCONNECTED);
  rig_settle(&rig);
  assert_int_equal(source->connects, 2);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig_land_all(source);
  expect_end(SPROUT_OK);
}

/* Bytes that are being changed: the seed is asked again, as long as a fork would wait in a queue.
 */
static void test_waits_for_a_change(void **state) {
  (void)state;
  struct rig_source *source =
      start_with_one(&(struct fork_engine_options){.verify = true, .wait_ns = 1000 * MS});
  for (uint32_t i = 1; i <= 3; i++) {
    rig_fail(source, SPROUT_TOO_EARLY);
    rig_settle(&rig);
    assert_string_equal(rig_status(&rig, 0).state, "connecting");
    rig_wait(&rig, fork_engine_deadline(rig.engine) - rig.now_ns);
    assert_int_equal(source->connects, 1 + i);
  }
  rig_fail(source, SPROUT_TOO_EARLY); /* 0.7 s are over, the next pause would be 0.8 s */
  expect_end(SPROUT_TOO_EARLY);
}

static void test_lost_lease_is_taken_again(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig_refuse(source, SPROUT_GONE);
  rig_settle(&rig);
  assert_int_equal(source->connects, 2);
  rig_admit(source);
  rig_land_all(source);
  expect_end(SPROUT_OK);
}

static void test_no_room(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig.destination.no_room = true;
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig_settle(&rig);
  assert_int_equal(source->posted_count, 0);
  assert_int_equal(rig_wait(&rig, 60000 * MS), 0);
  rig.destination.no_room = false;
  rig.destination.destination.listener->room(&rig.destination.destination);
  rig_land_all(source);
  expect_end(SPROUT_OK);
}

/* --- new bytes during the fork --- */

/* What was read before is judged by the new digests; only what changed is read again. */
static void test_new_generation_of_the_only_source(void **state) {
  (void)state;
  const struct fork_engine_options options = {.verify = true, .inflight_bytes = 1};
  struct rig_source *source = start_with_one(&options);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig_land(source);
  rig_settle(&rig);
  source->generation = 2;
  source->variant = 1;
  rig_grant(source, 8, 0); /* a heartbeat tells */
  rig_settle(&rig);
  assert_int_equal(source->connects, 2);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig_land_all(source);
  assert_true(rig_holds(&rig, 1));
  assert_int_equal(fork_engine_manifest(rig.engine)->version.generation, 2);
  expect_end(SPROUT_OK);
}

static void test_too_many_generations(void **state) {
  (void)state;
  const struct fork_engine_options options = {.verify = true, .max_restarts = 3};
  struct rig_source *source = start_with_one(&options);
  for (uint32_t i = 0; i < 100 && !rig.finished; i++) {
    rig_admit(source);
    if (rig.finished) break;
    source->generation++;
    rig_grant(source, 8, 0);
    rig_settle(&rig);
    rig_wait(&rig, 1000 * MS);
  }
  assert_in_range(source->connects, 3, 5);
  expect_end(SPROUT_STALE);
}

/* Its answer to close comes; reads that it still has do not. */
static void close_without_reads(struct rig_source *source) {
  assert_true(source->closing);
  source->closing = false;
  source->source.listener->closed(&source->source);
  rig_tick(&rig);
}

/* Unverified, a read that was posted before does not count, whatever its source says. */
static void test_reads_of_an_older_era_do_not_count(void **state) {
  (void)state;
  const uint64_t first_four = 15;
  rig_make(&rig, &(struct fork_engine_options){.verify = false});
  struct rig_source *changing = rig_add(&rig), *slow = rig_add(&rig);
  changing->source.coverage = &first_four;
  rig_start(&rig);
  rig_admit(changing);
  rig_manifest(slow);
  rig_settle(&rig);
  rig_ready(slow);
  rig_settle(&rig);
  rig_land(changing);
  rig_settle(&rig);
  assert_int_equal(slow->posted[0]->length_bytes, 2000);
  /* The slow one is given up, but its read is still on its way when the other one starts over. */
  struct sprout_error error = {.status = SPROUT_PROTOCOL, .message = "test"};
  slow->source.listener->failed(&slow->source, &error);
  rig_tick(&rig);
  changing->generation = 2;
  changing->variant = 1;
  changing->source.coverage = NULL;
  rig_grant(changing, 8, 0);
  rig_tick(&rig);
  close_without_reads(changing);
  rig_manifest(changing);
  rig_tick(&rig);
  assert_int_equal(rig.engine->era, 1);
  rig_land(slow);
  rig_settle(&rig);
  rig_ready(changing);
  rig_land_all(changing);
  assert_true(rig_holds(&rig, 1));
  expect_end(SPROUT_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_wrong_bytes_are_named_and_read_elsewhere),
      cmocka_unit_test(test_unproven_bytes_of_a_convict_are_read_again),
      cmocka_unit_test(test_wrong_bytes_of_the_only_source),
      cmocka_unit_test(test_liar_acquits),
      cmocka_unit_test(test_successor_that_deviates),
      cmocka_unit_test(test_complete_waits_for_confirmation),
      cmocka_unit_test(test_digests_nobody_asked_for),
      cmocka_unit_test(test_digests_never_told),
      cmocka_unit_test(test_stall),
      cmocka_unit_test(test_progress_is_no_stall),
      cmocka_unit_test(test_waiting_without_reads_is_no_stall),
      cmocka_unit_test(test_stopped_process),
      cmocka_unit_test(test_connecting_takes_too_long),
      cmocka_unit_test(test_queue_takes_too_long),
      cmocka_unit_test(test_full_queue_all_the_time),
      cmocka_unit_test(test_full_queue_is_asked_again),
      cmocka_unit_test(test_whole_fork_takes_too_long),
      cmocka_unit_test(test_rate_is_held),
      cmocka_unit_test(test_grant_of_nothing_pauses),
      cmocka_unit_test(test_not_now),
      cmocka_unit_test(test_transport_breaks),
      cmocka_unit_test(test_transport_breaks_before_the_first_byte),
      cmocka_unit_test(test_waits_for_a_change),
      cmocka_unit_test(test_lost_lease_is_taken_again),
      cmocka_unit_test(test_no_room),
      cmocka_unit_test(test_new_generation_of_the_only_source),
      cmocka_unit_test(test_too_many_generations),
      cmocka_unit_test(test_reads_of_an_older_era_do_not_count),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
