/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fork_engine_law.h"

#include "tests/support/memory.h"
#include "tests/support/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct fixture {
  struct manifest *manifest;
  struct plan *plan;
  struct law law;
};

/* `count` tensors of `length_bytes`, all of them selected or every `step`th. */
static struct fixture make(uint32_t count, uint64_t length_bytes, uint32_t step) {
  struct fixture fixture;
  struct small_object *objects = calloc(count, sizeof(*objects));
  char(*names)[16] = calloc(count, sizeof(*names));
  uint64_t *selected = calloc(count / 64 + 1, sizeof(*selected));
  assert_true(objects != NULL && names != NULL && selected != NULL);
  for (uint32_t i = 0; i < count; i++) {
    snprintf(names[i], sizeof(names[i]), "t%u", i);
    objects[i] = (struct small_object){.file = "f", .name = names[i], .length_bytes = length_bytes};
    if (i % step == 0) bits_set(selected, i);
  }
  const struct small_model model = {.objects = objects, .count = count};
  fixture.manifest = small_manifest(&model);
  assert_int_equal(plan_create(fixture.manifest, selected, &fixture.plan), SPROUT_OK);
  assert_int_equal(law_init(&fixture.law, fixture.plan, fixture.manifest->chunk_count), SPROUT_OK);
  law_adopt(&fixture.law);
  free(objects);
  free(names);
  free(selected);
  return fixture;
}

static void unmake(struct fixture *fixture) {
  law_check(&fixture->law);
  plan_check(fixture->plan);
  law_destroy(&fixture->law);
  plan_destroy(fixture->plan);
  manifest_destroy(fixture->manifest);
}

static struct digest number(uint8_t value) {
  return (struct digest){.bytes = {value}};
}

static enum law_verdict tell(struct law *law, uint64_t chunk, uint8_t value) {
  struct digest digest = number(value);
  enum law_verdict verdict = law_told(law, chunk, &digest);
  law_check(law);
  return verdict;
}

static enum law_verdict land(struct law *law, uint64_t chunk, uint8_t value, uint8_t origin) {
  struct digest digest = number(value);
  plan_set(law->plan, chunk, PLAN_QUEUED);
  plan_set(law->plan, chunk, PLAN_IN_FLIGHT);
  enum law_verdict verdict = law_landed(law, chunk, &digest, origin);
  law_check(law);
  return verdict;
}

static void find(struct law *law, uint64_t chunk, uint8_t value) {
  struct digest digest = number(value);
  law_found(law, chunk, &digest);
  law_check(law);
}

/* Asks and compares with what is expected; `count` 0: nothing to ask. */
static struct law_request expect_ask(struct law *law, uint64_t first, uint64_t count,
                                     bool compute) {
  struct law_request request = {.count = 0};
  bool any = law_ask(law, &request);
  assert_int_equal(any, count > 0);
  assert_int_equal(request.count, count);
  if (count > 0) assert_int_equal(request.first, first);
  if (count > 0) assert_int_equal(request.compute, compute);
  law_check(law);
  return request;
}

#define STATE(fixture, chunk) plan_state((fixture).plan, chunk)

static void test_known_before_landing(void **state) {
  (void)state;
  struct fixture fixture = make(4, 10, 1);
  assert_int_equal(tell(&fixture.law, 0, 7), LAW_UNKNOWN);
  assert_int_equal(land(&fixture.law, 0, 7, 3), LAW_RIGHT);
  assert_int_equal(STATE(fixture, 0), PLAN_VERIFIED);
  tell(&fixture.law, 1, 7);
  assert_int_equal(land(&fixture.law, 1, 8, 3), LAW_WRONG);
  assert_int_equal(STATE(fixture, 1), PLAN_IN_FLIGHT);
  unmake(&fixture);
}

static void test_known_after_landing(void **state) {
  (void)state;
  struct fixture fixture = make(4, 10, 1);
  for (uint64_t chunk = 0; chunk < 4; chunk++) {
    assert_int_equal(land(&fixture.law, chunk, 7, 3), LAW_UNKNOWN);
    if (chunk >= 2) plan_set(fixture.plan, chunk, PLAN_UNPROVEN);
  }
  assert_int_equal(tell(&fixture.law, 0, 7), LAW_RIGHT);
  assert_int_equal(tell(&fixture.law, 1, 8), LAW_WRONG);
  assert_int_equal(tell(&fixture.law, 2, 7), LAW_RIGHT);
  assert_int_equal(tell(&fixture.law, 3, 8), LAW_WRONG);
  assert_int_equal(STATE(fixture, 0), PLAN_VERIFIED);
  assert_int_equal(STATE(fixture, 1), PLAN_REJECTED); /* still being stored */
  assert_int_equal(STATE(fixture, 2), PLAN_STORED);
  assert_int_equal(STATE(fixture, 3), PLAN_NEEDED);
  assert_true(law_complete(&fixture.law));
  unmake(&fixture);
}

static void test_found(void **state) {
  (void)state;
  struct fixture fixture = make(6, 10, 2);
  tell(&fixture.law, 0, 7);
  tell(&fixture.law, 2, 7);
  find(&fixture.law, 0, 7);
  find(&fixture.law, 1, 7); /* not selected: nothing */
  find(&fixture.law, 2, 8);
  find(&fixture.law, 4, 7);
  assert_int_equal(STATE(fixture, 0), PLAN_STORED);
  assert_int_equal(STATE(fixture, 1), PLAN_SKIPPED);
  assert_int_equal(STATE(fixture, 2), PLAN_NEEDED);
  assert_int_equal(STATE(fixture, 4), PLAN_UNPROVEN);
  assert_int_equal(fixture.law.found_right_bytes, 10);
  assert_int_equal(fixture.law.origin[2], LAW_ORIGIN_FOUND);
  assert_int_equal(tell(&fixture.law, 4, 7), LAW_RIGHT);
  assert_int_equal(fixture.law.found_right_bytes, 20);
  unmake(&fixture);
}

static void test_reject_unproven(void **state) {
  (void)state;
  struct fixture fixture = make(4, 10, 1);
  tell(&fixture.law, 3, 7);
  land(&fixture.law, 0, 7, 1);
  land(&fixture.law, 1, 7, 1);
  plan_set(fixture.plan, 1, PLAN_UNPROVEN);
  land(&fixture.law, 2, 7, 2);
  land(&fixture.law, 3, 7, 1);
  law_reject_unproven(&fixture.law, 1);
  assert_int_equal(STATE(fixture, 0), PLAN_REJECTED);
  assert_int_equal(STATE(fixture, 1), PLAN_NEEDED);
  assert_int_equal(STATE(fixture, 2), PLAN_LANDED);   /* another source's */
  assert_int_equal(STATE(fixture, 3), PLAN_VERIFIED); /* proven */
  unmake(&fixture);
}

static void test_asks_windows_once(void **state) {
  (void)state;
  struct fixture fixture = make(SOURCE_DIGESTS_MAX * 2 + 10, 1, 1);
  struct law *law = &fixture.law;
  struct law_request first = expect_ask(law, 0, SOURCE_DIGESTS_MAX, false);
  expect_ask(law, SOURCE_DIGESTS_MAX, SOURCE_DIGESTS_MAX, false);
  expect_ask(law, 2 * SOURCE_DIGESTS_MAX, 10, false);
  expect_ask(law, 0, 0, false);
  law_unask(law, &first); /* the source went away */
  expect_ask(law, 0, SOURCE_DIGESTS_MAX, false);
  expect_ask(law, 0, 0, false);
  unmake(&fixture);
}

static void test_asks_for_selected_chunks_only(void **state) {
  (void)state;
  struct fixture fixture = make(SOURCE_DIGESTS_MAX * 3, 1, SOURCE_DIGESTS_MAX * 2 + 5);
  expect_ask(&fixture.law, 0, 1, false);
  expect_ask(&fixture.law, 2 * SOURCE_DIGESTS_MAX + 5, 1, false);
  expect_ask(&fixture.law, 0, 0, false);
  unmake(&fixture);
}

/* Unknown ones are asked to be computed when they matter: landed before the answer, or after it. */
static void test_wants_what_landed(void **state) {
  (void)state;
  struct fixture fixture = make(10, 1, 1);
  struct law *law = &fixture.law;
  struct law_request all = expect_ask(law, 0, 10, false);
  land(law, 4, 7, 0);
  expect_ask(law, 0, 0, false);
  tell(law, 6, 7);
  assert_true(law_answered(law, &all));
  struct law_request some = expect_ask(law, 4, 2, true); /* up to 6, which is known */
  land(law, 5, 7, 0);                                    /* asked already */
  land(law, 8, 7, 0);
  struct law_request rest = expect_ask(law, 8, 2, true);
  expect_ask(law, 0, 0, false);
  tell(law, 4, 7);
  assert_true(law_answered(law, &some)); /* 5 is still unknown: again */
  expect_ask(law, 5, 1, true);
  tell(law, 8, 7);
  tell(law, 9, 7);
  assert_false(law_answered(law, &rest));
  unmake(&fixture);
}

static void test_lost_questions_are_asked_again(void **state) {
  (void)state;
  struct fixture fixture = make(4, 1, 1);
  struct law *law = &fixture.law;
  struct law_request all = expect_ask(law, 0, 4, false);
  law_answered(law, &all);
  land(law, 1, 7, 0);
  struct law_request run = expect_ask(law, 1, 3, true);
  law_unask(law, &run);
  expect_ask(law, 1, 3, true);
  unmake(&fixture);
}

static void test_runs_are_bounded(void **state) {
  (void)state;
  struct fixture many = make(LAW_COMPUTE_CHUNKS + 5, 1, 1);
  struct law_request all = expect_ask(&many.law, 0, LAW_COMPUTE_CHUNKS + 5, false);
  law_answered(&many.law, &all);
  land(&many.law, 0, 7, 0);
  expect_ask(&many.law, 0, LAW_COMPUTE_CHUNKS, true);
  unmake(&many);
  struct fixture large = make(70, SPROUT_CHUNK_BYTES, 1);
  all = expect_ask(&large.law, 0, 70, false);
  law_answered(&large.law, &all);
  land(&large.law, 0, 7, 0);
  expect_ask(&large.law, 0, LAW_COMPUTE_BYTES / SPROUT_CHUNK_BYTES, true);
  unmake(&large);
}

/* The first authority told 0 and 1; the next one inherits that. */
static struct fixture make_succession(void) {
  struct fixture fixture = make(4, 10, 1);
  struct law_request all = expect_ask(&fixture.law, 0, 4, false);
  tell(&fixture.law, 0, 7);
  tell(&fixture.law, 1, 7);
  law_answered(&fixture.law, &all);
  land(&fixture.law, 0, 7, 0);
  plan_set(fixture.plan, 0, PLAN_STORED);
  law_retire(&fixture.law);
  assert_true(law_settled(&fixture.law)); /* it was alone: what it said stands */
  assert_int_equal(fixture.law.known_count, 2);
  law_adopt(&fixture.law);
  assert_false(law_settled(&fixture.law));
  expect_ask(&fixture.law, 0, 4, false);
  return fixture;
}

static void test_successor_agrees(void **state) {
  (void)state;
  struct fixture fixture = make_succession();
  struct law *law = &fixture.law;
  const struct law_request all = {.first = 0, .count = 4};
  assert_int_equal(tell(law, 0, 7), LAW_RIGHT);
  tell(law, 2, 7);
  tell(law, 3, 7);
  assert_true(law_complete(law));
  assert_false(law_settled(law)); /* 1 is not confirmed */
  law_answered(law, &all);
  expect_ask(law, 1, 1, true); /* it matters, though nothing of it landed */
  assert_int_equal(tell(law, 1, 7), LAW_RIGHT);
  assert_true(law_settled(law));
  law_retire(law);
  assert_true(law_complete(law) && law_settled(law)); /* it agreed with all: its words stand */
  unmake(&fixture);
}

static void test_successor_deviates(void **state) {
  (void)state;
  struct fixture fixture = make_succession();
  assert_int_equal(tell(&fixture.law, 1, 8), LAW_DEVIATES);
  assert_int_equal(fixture.law.known_count, 2);
  unmake(&fixture);
}

/* A successor that goes before it confirmed everything leaves nothing behind. */
static void test_additions_of_the_unsettled_are_void(void **state) {
  (void)state;
  struct fixture fixture = make_succession();
  struct law *law = &fixture.law;
  tell(law, 2, 7);
  tell(law, 3, 7);
  land(law, 2, 7, 1);
  plan_set(fixture.plan, 2, PLAN_STORED);
  find(law, 3, 7);
  assert_int_equal(STATE(fixture, 3), PLAN_STORED);
  law_retire(law);
  assert_int_equal(law->known_count, 2);
  assert_true(law_settled(law));
  assert_int_equal(STATE(fixture, 0), PLAN_STORED);
  assert_int_equal(STATE(fixture, 2), PLAN_UNPROVEN);
  assert_int_equal(STATE(fixture, 3), PLAN_UNPROVEN);
  assert_int_equal(law->found_right_bytes, 0);
  unmake(&fixture);
}

static void test_forget(void **state) {
  (void)state;
  struct fixture fixture = make(4, 10, 1);
  struct law *law = &fixture.law;
  for (uint64_t chunk = 0; chunk < 4; chunk++) tell(law, chunk, 7);
  land(law, 0, 7, 0);
  land(law, 1, 7, 0);
  plan_set(fixture.plan, 1, PLAN_STORED);
  find(law, 2, 7);
  law_forget(law);
  assert_int_equal(STATE(fixture, 0), PLAN_LANDED);
  assert_int_equal(STATE(fixture, 1), PLAN_UNPROVEN);
  assert_int_equal(STATE(fixture, 2), PLAN_UNPROVEN);
  assert_int_equal(law->found_right_bytes, 0);
  expect_ask(law, 0, 4, false);
  /* New digests judge what was read before, without reading it again. */
  assert_int_equal(tell(law, 0, 7), LAW_RIGHT);
  assert_int_equal(tell(law, 1, 9), LAW_WRONG);
  assert_int_equal(STATE(fixture, 0), PLAN_VERIFIED);
  assert_int_equal(STATE(fixture, 1), PLAN_NEEDED);
  unmake(&fixture);
}

static void test_disown(void **state) {
  (void)state;
  struct fixture fixture = make(4, 10, 1);
  struct law *law = &fixture.law;
  land(law, 0, 7, 1);
  land(law, 1, 7, 2);
  find(law, 2, 7);
  law_disown(law, 1);
  assert_int_equal(law->origin[0], LAW_ORIGIN_OLD);
  assert_int_equal(law->origin[1], 2);
  law_disown(law, LAW_ORIGIN_NONE);
  assert_int_equal(law->origin[1], LAW_ORIGIN_OLD);
  assert_int_equal(law->origin[2], LAW_ORIGIN_FOUND);
  assert_int_equal(law->origin[3], LAW_ORIGIN_NONE);
  unmake(&fixture);
}

static void test_no_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct fixture fixture = make(4, 10, 1);
  struct law law;
  for (long count = 0;; count++) {
    memory_fail_after(count);
    enum sprout_status status = law_init(&law, fixture.plan, 4);
    if (!memory_restore()) break;
    assert_int_equal(status, SPROUT_NO_MEMORY);
    law_destroy(&law); /* harmless */
  }
  law_destroy(&law);
  unmake(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_known_before_landing),
      cmocka_unit_test(test_known_after_landing),
      cmocka_unit_test(test_found),
      cmocka_unit_test(test_reject_unproven),
      cmocka_unit_test(test_asks_windows_once),
      cmocka_unit_test(test_asks_for_selected_chunks_only),
      cmocka_unit_test(test_wants_what_landed),
      cmocka_unit_test(test_lost_questions_are_asked_again),
      cmocka_unit_test(test_runs_are_bounded),
      cmocka_unit_test(test_successor_agrees),
      cmocka_unit_test(test_successor_deviates),
      cmocka_unit_test(test_additions_of_the_unsettled_are_void),
      cmocka_unit_test(test_forget),
      cmocka_unit_test(test_disown),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
