/* SPDX-License-Identifier: Apache-2.0 */
/* The way through a fork, what ends it, and who may take part. */
#include "tests/support/engine_rig_test.h"
#include "tests/support/memory.h"

/* --- the way through --- */

static void test_whole_journey(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  assert_int_equal(source->connects, 1);
  assert_string_equal(rig_status(&rig, 0).state, "connecting");
  rig.now_ns += 5 * MS;
  rig_manifest(source);
  rig_tick(&rig);
  assert_int_equal(source->opens, 1);
  assert_true(rig.destination.prepare_asked && rig.destination.reuse);
  assert_int_equal(source->question_count, 1); /* needs no admission */
  assert_int_equal(fork_engine_manifest_ns(rig.engine), 5 * MS);
  rig_queued(source, 3);
  rig_settle(&rig);
  assert_string_equal(rig_status(&rig, 0).state, "queued");
  assert_int_equal(rig_status(&rig, 0).queue_position, 3);
  rig_ready(source);
  rig_tick(&rig);
  assert_int_equal(source->posted_count, 1);
  assert_int_equal(source->flushes, 1);
  assert_string_equal(rig_status(&rig, 0).state, "reading");
  rig_tell(source, ALL_KNOWN);
  rig.now_ns += 5 * MS;
  rig_land_all(source);
  assert_true(rig.finished);
  assert_int_equal(rig.result.status, SPROUT_OK);
  assert_int_equal(fork_engine_verified(rig.engine), SPROUT_VERIFIED_XXH3);
  assert_int_equal(fork_engine_last_landed_ns(rig.engine), 10 * MS);
  assert_int_equal(source->closed_with, SPROUT_OK);
  assert_int_equal(source->reported_bytes, 6000);
  struct sprout_fork_progress progress = rig_progress(&rig);
  assert_int_equal(progress.done_bytes, 6000);
  assert_int_equal(progress.received_bytes, 6000);
  assert_int_equal(progress.retries, 0);
  assert_string_equal(rig_status(&rig, 0).state, "closed");
  assert_true(rig_holds(&rig, 0));
  rig_unmake(&rig);
  assert_true(source->destroyed);
}

static void test_unverified_asks_no_digest(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(&(struct fork_engine_options){.verify = false});
  rig_admit(source);
  rig_land_all(source);
  assert_int_equal(source->questions_ever, 0);
  assert_false(rig.destination.reuse);
  assert_int_equal(fork_engine_verified(rig.engine), SPROUT_VERIFIED_NONE);
  expect_end(SPROUT_OK);
}

/* The landing place is free again before the digest is known; the fork is not over, though. */
static void test_stores_before_digests_are_known(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_admit(source);
  rig_tell(source, 0);
  rig_land(source);
  rig_settle(&rig);
  assert_int_equal(rig.destination.stores, 1);
  assert_int_equal(rig_progress(&rig).done_bytes, 0);
  assert_false(rig.finished);
  assert_true(source->questions[0].compute);
  rig_tell(source, ALL_KNOWN);
  expect_end(SPROUT_OK);
}

static void test_found_bytes_are_not_read(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig_manifest(source);
  rig_tick(&rig);
  for (uint64_t chunk = 0; chunk < RIG_CHUNKS; chunk++) {
    struct digest digest = rig_digest(chunk, chunk == 4 ? 1 : 0); /* 4 is wrong */
    struct destination *destination = &rig.destination.destination;
    destination->listener->existing(destination, chunk, &digest);
  }
  rig_tell(source, ALL_KNOWN);
  rig_ready(source);
  rig_settle(&rig);
  assert_int_equal(source->posted[0]->length_bytes, 1000);
  assert_int_equal(source->posted[0]->ranges[0].object, 4);
  assert_int_equal(rig_progress(&rig).reused_bytes, 5000);
  rig_land(source);
  expect_end(SPROUT_OK);
}

/* --- what only sources can give is gone --- */

struct cause {
  enum sprout_status dropped, result;
};

static void test_only_source_dropped(void **state) {
  (void)state;
  static const struct cause causes[] = {
      {SPROUT_DENIED, SPROUT_DENIED},           {SPROUT_MISMATCH, SPROUT_MISMATCH},
      {SPROUT_CORRUPT, SPROUT_CORRUPT},         {SPROUT_VERSION, SPROUT_VERSION},
      {SPROUT_UNAVAILABLE, SPROUT_UNAVAILABLE}, {SPROUT_INVALID, SPROUT_INVALID},
      {SPROUT_NOT_FOUND, SPROUT_NOT_FOUND},     {SPROUT_BAD_MODEL, SPROUT_BAD_MODEL},
      {SPROUT_DISCONNECTED, SPROUT_NO_SOURCE},  {SPROUT_STALLED, SPROUT_NO_SOURCE},
      {SPROUT_TIMEOUT, SPROUT_NO_SOURCE},       {SPROUT_PROTOCOL, SPROUT_NO_SOURCE},
      {SPROUT_TOO_LARGE, SPROUT_NO_SOURCE},
  };
  for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
    struct rig_source *source = start_with_one(NULL);
    rig_fail(source, causes[i].dropped);
    rig_settle(&rig);
    assert_int_equal(rig.dropped, 1);
    expect_in(rig.result.message, "rig://0: rig says");
    assert_string_equal(rig_status(&rig, 0).state, "dropped");
    assert_int_equal(rig_status(&rig, 0).dropped_for, causes[i].dropped);
    expect_end(causes[i].result);
  }
}

struct causes {
  enum sprout_status first, second, result;
};

static void test_all_sources_dropped(void **state) {
  (void)state;
  static const struct causes causes[] = {
      {SPROUT_DENIED, SPROUT_DENIED, SPROUT_DENIED},
      {SPROUT_DENIED, SPROUT_DISCONNECTED, SPROUT_NO_SOURCE},
      {SPROUT_DENIED, SPROUT_VERSION, SPROUT_NO_SOURCE},
      {SPROUT_MISMATCH, SPROUT_MISMATCH, SPROUT_MISMATCH},
      {SPROUT_MISMATCH, SPROUT_CORRUPT, SPROUT_CORRUPT},
      {SPROUT_STALLED, SPROUT_STALLED, SPROUT_NO_SOURCE},
  };
  for (size_t i = 0; i < sizeof(causes) / sizeof(causes[0]); i++) {
    rig_make(&rig, NULL);
    struct rig_source *first = rig_add(&rig), *second = rig_add(&rig);
    rig_start(&rig);
    rig_fail(first, causes[i].first);
    rig_settle(&rig);
    assert_false(rig.finished);
    rig_fail(second, causes[i].second);
    rig_settle(&rig);
    expect_in(rig.result.message, "rig://0");
    expect_in(rig.result.message, "rig://1");
    expect_end(causes[i].result);
  }
}

static void test_no_source_at_all(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  rig_start(&rig);
  expect_end(SPROUT_NO_SOURCE);
}

static void test_source_added_when_dropped(void **state) {
  (void)state;
  struct rig_source *first = start_with_one(NULL);
  struct rig_source *second = &rig.sources[rig.source_count++];
  *second = *first;
  second->connects = 0;
  rig.add_when_dropped = &second->source;
  rig_fail(first, SPROUT_DISCONNECTED);
  rig_settle(&rig);
  assert_false(rig.finished);
  assert_int_equal(second->connects, 1);
  rig_admit(second);
  rig_tell(second, ALL_KNOWN);
  rig_land_all(second);
  expect_end(SPROUT_OK);
}

static void test_last_resort_waits_for_the_others(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *seed = rig_add(&rig);
  struct rig_source *last = &rig.sources[rig.source_count++];
  *last = *seed;
  last->source.last_resort = true;
  last->source.has_digests = false;
  assert_int_equal(fork_engine_add_source(rig.engine, &last->source), SPROUT_OK);
  rig_start(&rig);
  rig_admit(seed);
  rig_tell(seed, ALL_KNOWN);
  rig_wait(&rig, 300 * MS);
  assert_int_equal(last->connects, 0);
  rig_fail(seed, SPROUT_PROTOCOL);
  rig_settle(&rig);
  assert_int_equal(last->connects, 1);
  rig_admit(last);
  rig_land_all(last);
  expect_end(SPROUT_OK); /* judged by the digests the seed had told */
}

static void test_directory_alone_cannot_be_verified(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *source = rig_add(&rig);
  source->source.has_digests = false;
  rig_start(&rig);
  rig_settle(&rig);
  expect_in(rig.result.message, "digests");
  expect_in(rig.result.hint, "--no-verify");
  expect_end(SPROUT_NO_SOURCE);
}

/* What a source is when the read is posted counts: it may be another in its next life. */
static void test_destination_hears_of_order(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *source = rig_add(&rig);
  source->source.ordered = false;
  rig_start(&rig);
  rig_admit(source);
  assert_true(rig.destination.maps > 0);
  assert_false(rig.destination.ordered);
  rig_tell(source, ALL_KNOWN);
  rig_land_all(source);
  expect_end(SPROUT_OK);
}

static void test_nobody_has_the_rest(void **state) {
  (void)state;
  const uint64_t half = 7;
  rig_make(&rig, NULL);
  struct rig_source *source = rig_add(&rig);
  source->source.coverage = &half;
  rig_start(&rig);
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  assert_int_equal(source->posted[0]->length_bytes, 3000);
  rig_land(source);
  rig_settle(&rig);
  expect_in(rig.result.message, "all of the model");
  expect_end(SPROUT_NO_SOURCE);
}

/* --- what a source must be --- */

static void test_expectations(void **state) {
  (void)state;
  static const struct fork_engine_options expected[] = {
      {.verify = true, .model = "large"},
      {.verify = true, .rank = "tp=1/2"},
      {.verify = true, .label = "step-9"},
  };
  static const char *const texts[] = {"model: 'large' expected, 'small' there",
                                      "rank: 'tp=1/2' expected, '' there",
                                      "label: 'step-9' expected, '' there"};
  for (size_t i = 0; i < 3; i++) {
    struct rig_source *source = start_with_one(&expected[i]);
    rig_manifest(source);
    rig_settle(&rig);
    assert_int_equal(source->opens, 0);
    expect_in(rig.result.message, texts[i]);
    expect_end(SPROUT_MISMATCH);
  }
}

static void test_others_must_agree_with_the_first(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *first = rig_add(&rig), *other = rig_add(&rig), *later = rig_add(&rig);
  first->label = later->label = "step-1";
  other->model = "large";
  later->label = "step-2";
  rig_start(&rig);
  rig_admit(first);
  rig_manifest(other);
  rig_tick(&rig);
  assert_int_equal(rig.last_dropped.status, SPROUT_MISMATCH);
  expect_in(rig.last_dropped.message, "model: ");
  rig_manifest(later);
  rig_tick(&rig);
  assert_int_equal(rig.last_dropped.status, SPROUT_MISMATCH);
  expect_in(rig.last_dropped.message, "label: 'step-1' is being forked, 'step-2' there");
  rig_settle(&rig);
  rig_tell(first, ALL_KNOWN);
  rig_land_all(first);
  expect_end(SPROUT_OK);
}

static void test_first_in_order_is_the_authority(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *first = rig_add(&rig), *second = rig_add(&rig);
  rig_start(&rig);
  rig_manifest(second);
  rig_manifest(first);
  rig_tick(&rig);
  assert_int_equal(first->question_count, 1);
  assert_int_equal(second->question_count, 0);
  fork_engine_cancel(rig.engine, SPROUT_CANCELLED);
  expect_end(SPROUT_CANCELLED);
}

static void test_selection_of_nothing(void **state) {
  (void)state;
  static const char *const glob[] = {"nothing*"};
  const struct fork_engine_options options = {.verify = true,
                                              .filter = {.tensor = glob, .tensor_count = 1}};
  struct rig_source *source = start_with_one(&options);
  rig_manifest(source);
  rig_settle(&rig);
  expect_in(rig.result.message, "'nothing*'");
  assert_false(rig.destination.prepare_asked);
  expect_end(SPROUT_INVALID);
}

/* --- several sources --- */

static void test_sources_share_the_work(void **state) {
  (void)state;
  const struct fork_engine_options options = {.verify = false, .inflight_bytes = 2000};
  rig_make(&rig, &options);
  struct rig_source *first = rig_add(&rig), *second = rig_add(&rig);
  rig_start(&rig);
  rig_manifest(first);
  rig_manifest(second);
  rig_settle(&rig);
  rig_ready(first);
  rig_ready(second);
  rig_settle(&rig);
  while (!rig.finished) {
    /* Neither holds more than its half. */
    assert_in_range(first->posted_count, 0, 1);
    assert_in_range(second->posted_count, 0, 1);
    if (first->posted_count > 0) rig_land(first);
    if (second->posted_count > 0) rig_land(second);
    rig_settle(&rig);
  }
  assert_int_equal(rig_status(&rig, 0).received_bytes, 3000);
  assert_int_equal(rig_status(&rig, 1).received_bytes, 3000);
  expect_end(SPROUT_OK);
}

static void test_so_many_sources(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *source = rig_add(&rig);
  static struct rig_source others[SPROUT_MAX_SOURCES];
  for (uint32_t i = 1; i < SPROUT_MAX_SOURCES; i++) {
    others[i] = *source;
    assert_int_equal(fork_engine_add_source(rig.engine, &others[i].source), SPROUT_OK);
  }
  others[0] = *source;
  assert_int_equal(fork_engine_add_source(rig.engine, &others[0].source), SPROUT_LIMIT);
  rig_unmake(&rig);
  assert_true(others[SPROUT_MAX_SOURCES - 1].destroyed && !others[0].destroyed);
}

/* --- other endings --- */

static void test_destination_fails(void **state) {
  (void)state;
  struct rig_source *source = start_with_one(NULL);
  rig.destination.prepare_fails = SPROUT_EXISTS;
  rig_manifest(source);
  expect_end(SPROUT_EXISTS);

  source = start_with_one(NULL);
  rig.destination.store_fails = SPROUT_NO_SPACE;
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig_land(source);
  rig_settle(&rig);
  assert_int_equal(source->closed_with, SPROUT_NO_SPACE);
  expect_end(SPROUT_NO_SPACE);

  source = start_with_one(NULL);
  rig.destination.finish_fails = SPROUT_IO;
  rig_admit(source);
  rig_tell(source, ALL_KNOWN);
  rig_land_all(source);
  assert_int_equal(fork_engine_verified(rig.engine), SPROUT_VERIFIED_NONE);
  expect_end(SPROUT_IO);
}

/* Steps of a whole fork; true while there is one more. */
static bool step(struct rig_source *source, uint32_t number) {
  switch (number) {
  case 0: rig_manifest(source); return true;
  case 1: rig_tick(&rig); return true;
  case 2: rig_settle(&rig); return true;
  case 3: rig_queued(source, 1); return true;
  case 4: rig_tick(&rig); return true;
  case 5: rig_ready(source); return true;
  case 6: rig_tick(&rig); return true;
  case 7: rig_land_part(source, 1500); return true;
  case 8: rig_land(source); return true;
  case 9: rig_tick(&rig); return true; /* being stored, digests unknown */
  default: return false;
  }
}

static void test_cancel_at_any_moment(void **state) {
  (void)state;
  for (uint32_t steps = 0; steps <= 10; steps++) {
    struct rig_source *source = start_with_one(NULL);
    for (uint32_t i = 0; i < steps; i++) step(source, i);
    fork_engine_cancel(rig.engine, SPROUT_CANCELLED);
    fork_engine_cancel(rig.engine, SPROUT_INTERNAL); /* the first one counts */
    rig_settle(&rig);
    assert_int_equal(source->closes, 1);
    assert_int_equal(rig.destination.mapped, 0);
    expect_end(SPROUT_CANCELLED);
  }
}

static void test_cancel_before_start(void **state) {
  (void)state;
  rig_make(&rig, NULL);
  struct rig_source *source = rig_add(&rig);
  fork_engine_cancel(rig.engine, SPROUT_CANCELLED);
  rig_start(&rig);
  assert_int_equal(source->connects, 0);
  expect_end(SPROUT_CANCELLED);
}

/* The destination was faster than the owner's change of mind. */
static void test_cancel_while_finishing(void **state) {
  (void)state;
  for (int late = 0; late < 2; late++) {
    struct rig_source *source = start_with_one(NULL);
    rig_admit(source);
    rig_tell(source, ALL_KNOWN);
    rig_land(source);
    rig_tick(&rig);
    struct destination *destination = &rig.destination.destination;
    struct destination_transfer *transfer = rig.destination.storing[0];
    const struct sprout_error well = {.status = SPROUT_OK};
    rig.destination.storing_count = 0;
    transfer->stored(transfer, &well);
    rig_tick(&rig);
    assert_true(rig.destination.finish_asked);
    fork_engine_cancel(rig.engine, SPROUT_CANCELLED);
    if (late) rig_tick(&rig);
    rig.destination.finish_asked = false;
    rig.destination.over = true;
    destination->listener->finished(destination, &well);
    expect_end(SPROUT_OK);
  }
}

static void test_dry_run(void **state) {
  (void)state;
  struct rig_source *source =
      start_with_one(&(struct fork_engine_options){.verify = true, .dry_run = true});
  rig_manifest(source);
  rig_settle(&rig);
  assert_int_equal(source->opens, 0);
  assert_int_equal(rig.destination.maps, 0);
  assert_int_equal(fork_engine_verified(rig.engine), SPROUT_VERIFIED_NONE);
  expect_end(SPROUT_OK);
}

static struct rig_source *start_comparing(void) {
  struct rig_source *source = start_with_one(&(struct fork_engine_options){.verify_only = true});
  rig_manifest(source);
  rig_tick(&rig);
  assert_int_equal(source->opens, 0);
  return source;
}

static void find(uint64_t chunk, uint32_t variant) {
  struct digest digest = rig_digest(chunk, variant);
  struct destination *destination = &rig.destination.destination;
  destination->listener->existing(destination, chunk, &digest);
}

static void test_verify_only(void **state) {
  (void)state;
  struct rig_source *source = start_comparing();
  find(0, 0);
  find(2, 1); /* 1 is missing, 2 is wrong */
  find(3, 0);
  find(4, 0);
  rig_tell(source, 1); /* the others are to be computed */
  rig_settle(&rig);
  assert_true(source->questions[0].compute);
  rig_tell(source, ALL_KNOWN);
  rig_settle(&rig);
  assert_string_equal(rig.differs, "one 1000 1000;two 0 1000;");
  expect_in(rig.result.message, "2 files differ");
  expect_in(rig.result.message, "one, two");
  assert_int_equal(rig.destination.maps, 0);
  expect_end(SPROUT_MISMATCH);

  source = start_comparing();
  for (uint64_t chunk = 0; chunk < RIG_CHUNKS; chunk++) find(chunk, 0);
  rig_tell(source, ALL_KNOWN);
  rig_settle(&rig);
  assert_string_equal(rig.differs, "");
  assert_int_equal(fork_engine_verified(rig.engine), SPROUT_VERIFIED_XXH3);
  expect_end(SPROUT_OK);
}

static void test_no_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  rig_make(&rig, NULL);
  rig_unmake(&rig);
  /* Where everything that depends on the manifest is made. */
  for (long count = 0;; count++) {
    struct rig_source *source = start_with_one(NULL);
    rig_manifest(source);
    memory_fail_after(count);
    rig_tick(&rig);
    bool failed = memory_restore();
    if (!failed) fork_engine_cancel(rig.engine, SPROUT_CANCELLED);
    expect_end(failed ? SPROUT_NO_MEMORY : SPROUT_CANCELLED);
    if (!failed) break;
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole_journey),
      cmocka_unit_test(test_unverified_asks_no_digest),
      cmocka_unit_test(test_stores_before_digests_are_known),
      cmocka_unit_test(test_found_bytes_are_not_read),
      cmocka_unit_test(test_only_source_dropped),
      cmocka_unit_test(test_all_sources_dropped),
      cmocka_unit_test(test_no_source_at_all),
      cmocka_unit_test(test_source_added_when_dropped),
      cmocka_unit_test(test_last_resort_waits_for_the_others),
      cmocka_unit_test(test_directory_alone_cannot_be_verified),
      cmocka_unit_test(test_destination_hears_of_order),
      cmocka_unit_test(test_nobody_has_the_rest),
      cmocka_unit_test(test_expectations),
      cmocka_unit_test(test_others_must_agree_with_the_first),
      cmocka_unit_test(test_first_in_order_is_the_authority),
      cmocka_unit_test(test_selection_of_nothing),
      cmocka_unit_test(test_sources_share_the_work),
      cmocka_unit_test(test_so_many_sources),
      cmocka_unit_test(test_destination_fails),
      cmocka_unit_test(test_cancel_at_any_moment),
      cmocka_unit_test(test_cancel_before_start),
      cmocka_unit_test(test_cancel_while_finishing),
      cmocka_unit_test(test_dry_run),
      cmocka_unit_test(test_verify_only),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
