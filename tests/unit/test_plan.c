/* SPDX-License-Identifier: Apache-2.0 */
#include "core/plan.h"

#include "core/bitmap.h"
#include "tests/support/memory.h"
#include "tests/support/small_model.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB UINT64_C(1024)
#define CHUNK ((uint64_t)SPROUT_CHUNK_BYTES)
#define ANY UINT64_MAX

/* Chunks: a 0, b 1-3 (the last one of 100 bytes), d 4, e 5, f 6; c is empty, g lies where f lies.
 */
static const struct small_object objects[] = {
    {.file = "one", .name = "a", .length_bytes = 10},
    {.file = "one", .name = "b", .length_bytes = 2 * CHUNK + 100},
    {.file = "one", .name = "c", .length_bytes = 0},
    {.file = "two", .name = "d", .length_bytes = 700 * KIB},
    {.file = "two", .name = "e", .length_bytes = 700 * KIB},
    {.file = "two", .name = "f", .length_bytes = 50},
    {.file = "two", .name = "g", .length_bytes = 50, .alias = true},
};
#define CHUNKS 7u

static struct manifest *manifest_of(const struct small_object *list, uint32_t count) {
  const struct small_model model = {.objects = list, .count = count};
  return small_manifest(&model);
}

struct fixture {
  struct manifest *manifest;
  struct plan *plan;
};

static struct fixture make(const uint64_t *selected) {
  struct fixture fixture = {.manifest = manifest_of(objects, 7)};
  assert_int_equal(fixture.manifest->chunk_count, CHUNKS);
  assert_int_equal(plan_create(fixture.manifest, selected, &fixture.plan), SPROUT_OK);
  return fixture;
}

static void unmake(struct fixture *fixture) {
  plan_check(fixture->plan);
  plan_destroy(fixture->plan);
  manifest_destroy(fixture->manifest);
}

/* Picks, and compares with "0" or "1,2,3"; "" for nothing. */
static void expect_pick_in(struct plan *plan, struct plan_coverage *coverage, struct plan_room room,
                           const char *expected) {
  struct plan_batch batch = {.count = 0};
  char text[64] = "";
  bool any = plan_pick(plan, coverage, room, &batch);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < batch.count; i++) {
    size_t used = strlen(text);
    snprintf(text + used, sizeof(text) - used, "%s%u", i > 0 ? "," : "", (unsigned)batch.chunks[i]);
    sum += plan_chunk(plan, batch.chunks[i]).length_bytes;
    assert_int_equal(plan_state(plan, batch.chunks[i]), PLAN_QUEUED);
  }
  assert_string_equal(text, expected);
  assert_int_equal(any, expected[0] != '\0');
  assert_int_equal(batch.length_bytes, sum);
  plan_check(plan);
}

static void expect_pick(struct plan *plan, struct plan_coverage *coverage, uint64_t room_bytes,
                        const char *expected) {
  expect_pick_in(plan, coverage, (struct plan_room){room_bytes, room_bytes}, expected);
}

static void walk(struct plan *plan, uint64_t chunk, const enum plan_state *steps, size_t count) {
  for (size_t i = 0; i < count; i++) plan_set(plan, chunk, steps[i]);
}
#define WALK(plan, chunk, ...)                                                                     \
  walk(plan, chunk, (const enum plan_state[]){__VA_ARGS__},                                        \
       sizeof((const enum plan_state[]){__VA_ARGS__}) / sizeof(enum plan_state))

static void test_picks_in_order(void **state) {
  (void)state;
  struct fixture fixture = make(NULL);
  assert_int_equal(plan_selected_chunks(fixture.plan), CHUNKS);
  assert_int_equal(plan_selected_bytes(fixture.plan), fixture.manifest->total_bytes);
  expect_pick(fixture.plan, NULL, ANY, "0"); /* a full chunk does not fit behind it */
  expect_pick(fixture.plan, NULL, ANY, "1");
  expect_pick(fixture.plan, NULL, ANY, "2");
  expect_pick(fixture.plan, NULL, ANY, "3,4"); /* 100 B + 700 KiB; another 700 do not fit */
  expect_pick(fixture.plan, NULL, ANY, "5,6");
  assert_false(plan_has_needed(fixture.plan));
  expect_pick(fixture.plan, NULL, ANY, "");
  unmake(&fixture);
}

static void test_room_bounds_a_batch(void **state) {
  (void)state;
  struct fixture fixture = make(NULL);
  expect_pick(fixture.plan, NULL, 9, "");
  expect_pick(fixture.plan, NULL, 10, "0");
  expect_pick(fixture.plan, NULL, CHUNK - 1, ""); /* smaller ones behind it have to wait */
  expect_pick(fixture.plan, NULL, CHUNK, "1");
  expect_pick(fixture.plan, NULL, CHUNK, "2");
  expect_pick(fixture.plan, NULL, 700 * KIB, "3");
  expect_pick(fixture.plan, NULL, 700 * KIB + 49, "4");
  expect_pick(fixture.plan, NULL, 700 * KIB + 50, "5,6");
  unmake(&fixture);
}

/* A limit smaller than a chunk lets one through, alone. */
static void test_first_may_exceed_the_room(void **state) {
  (void)state;
  struct fixture fixture = make(NULL);
  expect_pick_in(fixture.plan, NULL, (struct plan_room){CHUNK, 0}, "0");
  expect_pick_in(fixture.plan, NULL, (struct plan_room){CHUNK, 10}, "1");
  expect_pick_in(fixture.plan, NULL, (struct plan_room){CHUNK, 10}, "2");
  expect_pick_in(fixture.plan, NULL, (struct plan_room){CHUNK, 99}, "3");
  expect_pick_in(fixture.plan, NULL, (struct plan_room){CHUNK, 100}, "4");
  expect_pick_in(fixture.plan, NULL, (struct plan_room){CHUNK, CHUNK}, "5,6");
  unmake(&fixture);
}

static void test_returned_come_first(void **state) {
  (void)state;
  struct fixture fixture = make(NULL);
  expect_pick(fixture.plan, NULL, ANY, "0");
  expect_pick(fixture.plan, NULL, ANY, "1");
  WALK(fixture.plan, 0, PLAN_IN_FLIGHT, PLAN_NEEDED);
  plan_set(fixture.plan, 1, PLAN_NEEDED);
  expect_pick(fixture.plan, NULL, ANY, "0");
  expect_pick(fixture.plan, NULL, ANY, "1");
  expect_pick(fixture.plan, NULL, ANY, "2");
  unmake(&fixture);
}

static void test_batch_holds_so_many_chunks(void **state) {
  (void)state;
  enum { COUNT = PLAN_BATCH_CHUNKS + 3 };
  static char names[COUNT][8];
  static struct small_object many[COUNT];
  for (uint32_t i = 0; i < COUNT; i++) {
    snprintf(names[i], sizeof(names[i]), "t%u", i);
    many[i] = (struct small_object){.file = "f", .name = names[i], .length_bytes = 5};
  }
  struct manifest *manifest = manifest_of(many, COUNT);
  const struct plan_room everything = {ANY, ANY};
  struct plan *plan;
  struct plan_batch batch;
  assert_int_equal(plan_create(manifest, NULL, &plan), SPROUT_OK);
  assert_true(plan_pick(plan, NULL, everything, &batch));
  assert_int_equal(batch.count, PLAN_BATCH_CHUNKS);
  assert_true(plan_pick(plan, NULL, everything, &batch));
  assert_int_equal(batch.count, 3);
  plan_destroy(plan);
  manifest_destroy(manifest);
}

static void test_selection(void **state) {
  (void)state;
  const uint64_t b_and_e = 1u << 1 | 1u << 4;
  struct fixture fixture = make(&b_and_e);
  assert_int_equal(plan_selected_chunks(fixture.plan), 4);
  assert_int_equal(plan_state(fixture.plan, 0), PLAN_SKIPPED);
  expect_pick(fixture.plan, NULL, ANY, "1");
  expect_pick(fixture.plan, NULL, ANY, "2");
  expect_pick(fixture.plan, NULL, ANY, "3,5");
  unmake(&fixture);
}

static void test_alias_selects_its_target(void **state) {
  (void)state;
  const uint64_t only_g = 1u << 6;
  struct fixture fixture = make(&only_g);
  expect_pick(fixture.plan, NULL, ANY, "6");
  assert_int_equal(plan_chunk(fixture.plan, 6).object, 5);
  unmake(&fixture);
}

static void test_nothing_selected_is_complete(void **state) {
  (void)state;
  const uint64_t only_c = 1u << 2; /* empty */
  struct fixture fixture = make(&only_c);
  assert_true(plan_complete(fixture.plan));
  expect_pick(fixture.plan, NULL, ANY, "");
  unmake(&fixture);
}

static void test_coverage(void **state) {
  (void)state;
  const uint64_t a_and_e = 1u << 0 | 1u << 4;
  struct fixture fixture = make(NULL);
  struct plan_coverage coverage = {.objects = &a_and_e};
  expect_pick(fixture.plan, &coverage, ANY, "0,5");
  expect_pick(fixture.plan, &coverage, ANY, "");
  /* What returns behind the cursor is found again. */
  plan_set(fixture.plan, 0, PLAN_NEEDED);
  expect_pick(fixture.plan, &coverage, ANY, "0");
  expect_pick(fixture.plan, NULL, ANY, "1");
  unmake(&fixture);
}

static void test_journeys(void **state) {
  (void)state;
  struct fixture fixture = make(NULL);
  struct plan *plan = fixture.plan;
  WALK(plan, 0, PLAN_QUEUED, PLAN_IN_FLIGHT, PLAN_LANDED, PLAN_VERIFIED, PLAN_STORED);
  WALK(plan, 1, PLAN_QUEUED, PLAN_IN_FLIGHT, PLAN_LANDED, PLAN_UNPROVEN, PLAN_STORED);
  WALK(plan, 2, PLAN_QUEUED, PLAN_IN_FLIGHT, PLAN_LANDED, PLAN_REJECTED, PLAN_NEEDED);
  WALK(plan, 3, PLAN_UNPROVEN, PLAN_NEEDED);
  WALK(plan, 4, PLAN_STORED);
  WALK(plan, 5, PLAN_QUEUED, PLAN_IN_FLIGHT, PLAN_LANDED, PLAN_VERIFIED, PLAN_LANDED);
  assert_int_equal(plan_count(plan, PLAN_STORED), 3);
  assert_int_equal(plan_count(plan, PLAN_NEEDED), 3);
  struct plan_counts counts;
  plan_counts_get(plan, &counts);
  assert_int_equal(counts.bytes[PLAN_STORED], 10 + CHUNK + 700 * KIB);
  assert_false(plan_complete(plan));
  unmake(&fixture);
}

/* Puts chunk 0 in any state by legal steps. */
static void bring(struct plan *plan, enum plan_state state) {
  WALK(plan, 0, PLAN_QUEUED);
  if (state == PLAN_QUEUED) return;
  if (state == PLAN_NEEDED) {
    WALK(plan, 0, PLAN_NEEDED);
    return;
  }
  WALK(plan, 0, PLAN_IN_FLIGHT);
  if (state == PLAN_IN_FLIGHT) return;
  WALK(plan, 0, PLAN_LANDED);
  if (state == PLAN_LANDED) return;
  if (state == PLAN_STORED) WALK(plan, 0, PLAN_VERIFIED);
  WALK(plan, 0, state);
}

static bool dies(enum plan_state from, enum plan_state to) {
  pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    signal(SIGABRT, SIG_DFL); /* tidy: allow banned-calls: undoes the test runner's own handler */
    struct fixture fixture = make(NULL);
    bring(fixture.plan, from);
    plan_set(fixture.plan, 0, to);
    _exit(0);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* No step that the table does not have. */
static void test_illegal_steps_are_caught(void **state) {
  (void)state;
  static const char *const legal[PLAN_STATE_COUNT] = {
      [PLAN_NEEDED] = "..x....xx",   [PLAN_QUEUED] = ".x.x.....",   [PLAN_IN_FLIGHT] = ".x..x....",
      [PLAN_LANDED] = ".x...xxx.",   [PLAN_VERIFIED] = ".x..x.x.x", [PLAN_REJECTED] = ".x.......",
      [PLAN_UNPROVEN] = ".x......x", [PLAN_STORED] = ".x.....x.",
  };
  for (unsigned from = PLAN_NEEDED; from < PLAN_STATE_COUNT; from++)
    for (unsigned to = 0; to < PLAN_STATE_COUNT; to++)
      assert_int_equal(dies((enum plan_state)from, (enum plan_state)to), legal[from][to] != 'x');
}

static void put_in_all_states(struct plan *plan) {
  WALK(plan, 0, PLAN_QUEUED, PLAN_IN_FLIGHT);
  WALK(plan, 1, PLAN_QUEUED, PLAN_IN_FLIGHT, PLAN_LANDED);
  WALK(plan, 2, PLAN_QUEUED, PLAN_IN_FLIGHT, PLAN_LANDED, PLAN_VERIFIED);
  WALK(plan, 3, PLAN_QUEUED, PLAN_IN_FLIGHT, PLAN_LANDED, PLAN_REJECTED);
  WALK(plan, 4, PLAN_UNPROVEN);
  WALK(plan, 5, PLAN_STORED);
}

static void expect_states(const struct plan *plan, const enum plan_state expected[CHUNKS]) {
  for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
    assert_int_equal(plan_state(plan, chunk), expected[chunk]);
}

static void test_restart(void **state) {
  (void)state;
  struct fixture fixture = make(NULL);
  put_in_all_states(fixture.plan);
  plan_restart(fixture.plan);
  expect_states(fixture.plan, (const enum plan_state[CHUNKS]){
                                  PLAN_IN_FLIGHT, PLAN_REJECTED, PLAN_REJECTED, PLAN_REJECTED,
                                  PLAN_NEEDED, PLAN_NEEDED, PLAN_NEEDED});
  unmake(&fixture);
}

static void test_distrust(void **state) {
  (void)state;
  struct fixture fixture = make(NULL);
  put_in_all_states(fixture.plan);
  plan_distrust(fixture.plan);
  expect_states(fixture.plan, (const enum plan_state[CHUNKS]){
                                  PLAN_IN_FLIGHT, PLAN_LANDED, PLAN_LANDED, PLAN_REJECTED,
                                  PLAN_UNPROVEN, PLAN_UNPROVEN, PLAN_NEEDED});
  unmake(&fixture);
}

static void test_no_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct manifest *manifest = manifest_of(objects, 7);
  struct plan *plan = NULL;
  for (long count = 0;; count++) {
    memory_fail_after(count);
    enum sprout_status status = plan_create(manifest, NULL, &plan);
    if (!memory_restore()) break;
    assert_int_equal(status, SPROUT_NO_MEMORY);
    assert_null(plan);
  }
  plan_destroy(plan);
  manifest_destroy(manifest);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_picks_in_order),
      cmocka_unit_test(test_room_bounds_a_batch),
      cmocka_unit_test(test_first_may_exceed_the_room),
      cmocka_unit_test(test_returned_come_first),
      cmocka_unit_test(test_batch_holds_so_many_chunks),
      cmocka_unit_test(test_selection),
      cmocka_unit_test(test_alias_selects_its_target),
      cmocka_unit_test(test_nothing_selected_is_complete),
      cmocka_unit_test(test_coverage),
      cmocka_unit_test(test_journeys),
      cmocka_unit_test(test_illegal_steps_are_caught),
      cmocka_unit_test(test_restart),
      cmocka_unit_test(test_distrust),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
