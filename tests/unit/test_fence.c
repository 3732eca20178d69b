/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fence.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

static void counts_generations(void **state) {
  (void)state;
  struct fence fence = {0};
  assert_int_equal(fence_create(&fence, 7), SPROUT_OK);
  _Atomic uint64_t *word = fence.word;
  assert_int_equal(fence_value(&fence), 14);
  for (uint64_t generation = 7; generation < 10; generation++) {
    assert_true(fence_value_steady(fence_value(&fence)));
    assert_int_equal(fence_value_generation(fence_value(&fence)), generation);
    fence_begin(&fence);
    assert_int_equal(fence_value(&fence), 2 * generation + 1);
    assert_false(fence_value_steady(fence_value(&fence)));
    assert_int_equal(fence_value_generation(fence_value(&fence)), generation);
    fence_commit(&fence);
    assert_int_equal(fence_value(&fence), 2 * (generation + 1));
  }
  assert_ptr_equal(fence.word, word);
  fence_destroy(&fence);
  assert_null(fence.word);
}

static void has_a_page_of_its_own(void **state) {
  (void)state;
  struct fence fences[3] = {{0}};
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  for (size_t i = 0; i < 3; i++) assert_int_equal(fence_create(&fences[i], 1), SPROUT_OK);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal((uintptr_t)fences[i].word % page, 0);
    for (size_t k = 0; k < i; k++) assert_ptr_not_equal(fences[i].word, fences[k].word);
  }
  for (size_t i = 0; i < 3; i++) fence_destroy(&fences[i]);
}

static void destroying_none_is_harmless(void **state) {
  (void)state;
  struct fence fence = {0};
  fence_destroy(&fence);
  assert_null(fence.word);
}

/* A reader that obeys the rules never takes a mixed pair for whole. */
#define CHANGES 20000u

static struct fence shared;
static _Atomic uint64_t left, right; /* equal in every generation */

static void *change(void *context) {
  (void)context;
  for (uint64_t i = 1; i <= CHANGES; i++) {
    fence_begin(&shared);
    atomic_store_explicit(&left, i, memory_order_relaxed);
    atomic_store_explicit(&right, i, memory_order_relaxed);
    fence_commit(&shared);
  }
  return NULL;
}

static void a_reader_sees_one_generation(void **state) {
  (void)state;
  pthread_t writer;
  uint64_t whole = 0, value = 0;
  assert_int_equal(fence_create(&shared, 0), SPROUT_OK);
  assert_int_equal(pthread_create(&writer, NULL, change, NULL), 0);
  while (fence_value_generation(value) < CHANGES) {
    value = fence_value(&shared);
    /* The bytes: two separate reads, ordered by what a device's completion orders. */
    uint64_t a = atomic_load_explicit(&left, memory_order_acquire);
    uint64_t b = atomic_load_explicit(&right, memory_order_acquire);
    if (!fence_value_steady(value) || fence_value(&shared) != value) continue;
    assert_int_equal(a, b);
    assert_int_equal(a, fence_value_generation(value));
    whole++;
  }
  assert_int_equal(pthread_join(writer, NULL), 0);
  assert_true(whole > 0);
  fence_destroy(&shared);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(counts_generations),
      cmocka_unit_test(has_a_page_of_its_own),
      cmocka_unit_test(destroying_none_is_harmless),
      cmocka_unit_test(a_reader_sees_one_generation),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
