/* SPDX-License-Identifier: Apache-2.0 */
#include "core/timer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MANY 10000

static void ignore(struct timer *timer) {
  (void)timer;
}

static void test_empty(void **state) {
  (void)state;
  struct timer_heap heap;
  assert_int_equal(timer_heap_init(&heap, 0), SPROUT_OK);
  assert_true(timer_next(&heap) == TIMER_NEVER);
  assert_null(timer_expire(&heap, UINT64_MAX));
  struct timer timer = {.fired = ignore};
  timer_stop(&heap, &timer); /* idle: harmless */
  assert_false(timer_running(&timer));
  timer_heap_destroy(&heap);
}

static void test_one(void **state) {
  (void)state;
  struct timer_heap heap;
  assert_int_equal(timer_heap_init(&heap, 1), SPROUT_OK);
  struct timer timer = {.fired = ignore};
  assert_int_equal(timer_start(&heap, &timer, 100), SPROUT_OK);
  assert_true(timer_running(&timer));
  assert_null(timer_expire(&heap, 99));
  assert_int_equal(timer_start(&heap, &timer, 50), SPROUT_OK); /* restart */
  assert_true(timer_next(&heap) == 50);
  assert_int_equal(timer_start(&heap, &timer, 70), SPROUT_OK);
  assert_null(timer_expire(&heap, 69));
  assert_ptr_equal(timer_expire(&heap, 70), &timer);
  assert_false(timer_running(&timer));
  assert_null(timer_expire(&heap, UINT64_MAX));
  timer_heap_destroy(&heap);
}

static void test_never(void **state) {
  (void)state;
  struct timer_heap heap;
  assert_int_equal(timer_heap_init(&heap, 4), SPROUT_OK);
  struct timer timer = {.fired = ignore};
  assert_int_equal(timer_start(&heap, &timer, TIMER_NEVER), SPROUT_OK);
  assert_true(timer_next(&heap) == TIMER_NEVER);
  assert_null(timer_expire(&heap, UINT64_MAX));
  timer_stop(&heap, &timer);
  timer_heap_destroy(&heap);
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* Random timers, half of them moved, a third stopped, against a sorted list. */
static void test_many(void **state) {
  (void)state;
  struct timer_heap heap;
  struct timer *timers = calloc(MANY, sizeof *timers);
  uint64_t *expected = calloc(MANY, sizeof *expected);
  assert_non_null(timers);
  assert_non_null(expected);
  assert_int_equal(timer_heap_init(&heap, 16), SPROUT_OK);
  uint64_t random = 88172645463325252u;
  size_t count = 0;
  for (int i = 0; i < 3 * MANY; i++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    struct timer *timer = &timers[random % MANY];
    if (i % 3 == 2)
      timer_stop(&heap, timer);
    else
      assert_int_equal(timer_start(&heap, timer, (random >> 20) % 5000), SPROUT_OK);
  }
  for (int i = 0; i < MANY; i++)
    if (timer_running(&timers[i])) expected[count++] = timers[i].deadline_ns;
  assert_int_equal(heap.count, count);
  qsort(expected, count, sizeof *expected, by_value);
  for (size_t i = 0; i < count; i++) {
    assert_true(timer_next(&heap) == expected[i]);
    if (expected[i] > 0) assert_null(timer_expire(&heap, expected[i] - 1));
    struct timer *timer = timer_expire(&heap, expected[i]);
    assert_non_null(timer);
    assert_true(timer->deadline_ns == expected[i]);
  }
  timer_heap_destroy(&heap);
  free(timers);
  free(expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_empty),
      cmocka_unit_test(test_one),
      cmocka_unit_test(test_never),
      cmocka_unit_test(test_many),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
