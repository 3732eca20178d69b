/* SPDX-License-Identifier: Apache-2.0 */
#include "core/bitmap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static uint64_t next_slowly(const struct bitmap *bitmap, uint64_t from) {
  for (uint64_t bit = from; bit < bitmap->bit_count; bit++)
    if (bitmap_get(bitmap, bit)) return bit;
  return BITMAP_NONE;
}

static const uint64_t sizes[] = {0, 1, 63, 64, 65, 4095, 4096, 4097, 300001};

static void test_empty(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    struct bitmap bitmap;
    assert_int_equal(bitmap_init(&bitmap, sizes[i]), SPROUT_OK);
    assert_int_equal(bitmap_next(&bitmap, 0), BITMAP_NONE);
    assert_int_equal(bitmap_next(&bitmap, sizes[i]), BITMAP_NONE);
    bitmap_clear_all(&bitmap);
    bitmap_destroy(&bitmap);
  }
}

static void test_ends(void **state) {
  (void)state;
  for (size_t i = 1; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    struct bitmap bitmap;
    uint64_t last = sizes[i] - 1;
    assert_int_equal(bitmap_init(&bitmap, sizes[i]), SPROUT_OK);
    bitmap_set(&bitmap, last);
    bitmap_set(&bitmap, last);
    assert_int_equal(bitmap.set_count, 1);
    assert_int_equal(bitmap_next(&bitmap, 0), last);
    assert_int_equal(bitmap_next(&bitmap, last), last);
    bitmap_set(&bitmap, 0);
    assert_int_equal(bitmap_next(&bitmap, 0), 0);
    bitmap_clear(&bitmap, last);
    bitmap_clear(&bitmap, last);
    assert_int_equal(bitmap.set_count, last == 0 ? 0 : 1);
    bitmap_destroy(&bitmap);
  }
}

/* Against a plain search, dense and sparse. */
static void test_agrees_with_plain_search(void **state) {
  (void)state;
  struct bitmap bitmap;
  uint64_t random = 1;
  assert_int_equal(bitmap_init(&bitmap, 20000), SPROUT_OK);
  for (int round = 0; round < 20000; round++) {
    random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
    uint64_t bit = (random >> 20) % 20000;
    if (round < 3000 || (random >> 60) > 6)
      bitmap_set(&bitmap, bit);
    else
      for (uint64_t i = 0; i < 20 && bit + i < 20000; i++) bitmap_clear(&bitmap, bit + i);
    if (round % 100 == 0)
      assert_int_equal(bitmap_next(&bitmap, bit / 2), next_slowly(&bitmap, bit / 2));
  }
  bitmap_clear_all(&bitmap);
  assert_int_equal(bitmap.set_count, 0);
  assert_int_equal(bitmap_next(&bitmap, 0), BITMAP_NONE);
  bitmap_destroy(&bitmap);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_empty),
      cmocka_unit_test(test_ends),
      cmocka_unit_test(test_agrees_with_plain_search),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
