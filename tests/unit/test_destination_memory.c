/* SPDX-License-Identifier: Apache-2.0 */
#include "net/sources.h"
#include "tests/support/destination_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIG_BYTES (SPROUT_CHUNK_BYTES + 1000u)

/* One file: header blob, big (U8), half (F16 [2,3]), half_tied (the same bytes), empty, scalar. */
static struct manifest *make_manifest(void) {
  const struct manifest_object objects[] = {
      {.name = "__header__",
       .dtype = "",
       .kind = SPROUT_OBJECT_BLOB,
       .alias_of = MANIFEST_NONE,
       .length_bytes = 100},
      {.name = "big",
       .dtype = "U8",
       .kind = SPROUT_OBJECT_TENSOR,
       .alias_of = MANIFEST_NONE,
       .rank = 1,
       .shape = {BIG_BYTES},
       .length_bytes = BIG_BYTES,
       .file_offset = 100},
      {.name = "half",
       .dtype = "F16",
       .kind = SPROUT_OBJECT_TENSOR,
       .alias_of = MANIFEST_NONE,
       .rank = 2,
       .shape = {2, 3},
       .length_bytes = 12,
       .file_offset = 100 + BIG_BYTES},
      {.name = "half_tied",
       .dtype = "F16",
       .kind = SPROUT_OBJECT_TENSOR,
       .alias_of = 2,
       .rank = 2,
       .shape = {2, 3},
       .length_bytes = 12,
       .file_offset = 100 + BIG_BYTES},
      {.name = "empty",
       .dtype = "F32",
       .kind = SPROUT_OBJECT_TENSOR,
       .alias_of = MANIFEST_NONE,
       .rank = 1,
       .shape = {0},
       .file_offset = 112 + BIG_BYTES},
      {.name = "scalar",
       .dtype = "F32",
       .kind = SPROUT_OBJECT_TENSOR,
       .alias_of = MANIFEST_NONE,
       .length_bytes = 4,
       .file_offset = 112 + BIG_BYTES},
  };
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct sprout_error error;

  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  assert_int_equal(manifest_builder_file(builder, "m.safetensors", 116 + BIG_BYTES, false),
                   SPROUT_OK);
  for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++)
    assert_int_equal(manifest_builder_object(builder, &objects[i], true), SPROUT_OK);
  if (manifest_build(builder, &manifest, &error) != SPROUT_OK) fail_msg("%s", error.message);
  return manifest;
}

static unsigned char big[BIG_BYTES + 16], half[12], tied[12], scalar[4];

static struct sprout_tensor tensor_big(void) {
  return (struct sprout_tensor){.name = "big",
                                .dtype = "U8",
                                .rank = 1,
                                .shape = {BIG_BYTES},
                                .address = big + 3,
                                .length_bytes = BIG_BYTES};
}

static struct sprout_tensor tensor_half(const char *name, void *address) {
  return (struct sprout_tensor){.name = name,
                                .dtype = "F16",
                                .rank = 2,
                                .shape = {2, 3},
                                .address = address,
                                .length_bytes = 12};
}

static struct sprout_tensor tensor_scalar(void *address) {
  return (struct sprout_tensor){
      .name = "scalar", .dtype = "F32", .address = address, .length_bytes = 4};
}

static void store_object(struct driver *driver, uint32_t object) {
  const struct manifest_object *place = &driver->manifest->objects[object];

  for (uint32_t i = 0; i < place->chunk_count; i++)
    assert_int_equal(driver_store_chunk(driver, place->first_chunk + i), SPROUT_OK);
}

static void expect_object(const struct driver *driver, uint32_t object, const unsigned char *at) {
  for (uint64_t i = 0; i < driver->manifest->objects[object].length_bytes; i++)
    if (at[i] != driver_byte(driver, object, i)) fail_msg("byte %zu differs", (size_t)i);
}

static void test_lands_by_name(void **state) {
  struct sprout_tensor tensors[] = {tensor_scalar(scalar), tensor_half("half_tied", tied),
                                    tensor_big(), tensor_half("half", half)};
  struct manifest *manifest = make_manifest();
  struct driver driver;
  struct destination *destination = NULL;
  struct sprout_error error;

  (void)state;
  memset(big, 0xee, sizeof(big));
  driver_init(&driver, manifest);
  assert_int_equal(destination_memory_create(driver.reactor, tensors, 4, &destination, &error),
                   SPROUT_OK);
  driver_set(&driver, destination);
  assert_int_equal(driver_prepare(&driver, NULL, true), SPROUT_OK);
  store_object(&driver, 1);
  store_object(&driver, 2);
  store_object(&driver, 5);
  assert_int_equal(driver_finish(&driver), SPROUT_OK);
  driver_unset(&driver);
  expect_object(&driver, 1, big + 3);
  expect_object(&driver, 2, half);
  expect_object(&driver, 2, tied);
  expect_object(&driver, 5, scalar);
  assert_true(big[2] == 0xee && big[3 + BIG_BYTES] == 0xee);
  driver_end(&driver);
  manifest_destroy(manifest);
}

/* Neighbours in memory share an entry; others get their own. */
static void test_batch(void **state) {
  unsigned char together[16];
  struct sprout_tensor tensors[] = {tensor_half("half", together), tensor_scalar(together + 12)};
  struct manifest *manifest = make_manifest();
  struct driver driver;
  struct destination *destination = NULL;
  struct driver_transfer *transfer = calloc(1, sizeof(*transfer));
  struct sprout_error error;

  (void)state;
  assert_non_null(transfer);
  driver_init(&driver, manifest);
  assert_int_equal(destination_memory_create(driver.reactor, tensors, 2, &destination, &error),
                   SPROUT_OK);
  driver_set(&driver, destination);
  assert_int_equal(driver_prepare(&driver, NULL, true), SPROUT_OK);
  transfer->ranges[0] = (struct source_range){.object = 2, .length_bytes = 12};
  transfer->ranges[1] = (struct source_range){.object = 5, .length_bytes = 4};
  transfer->transfer.range_count = 2;
  assert_true(driver_begin(&driver, transfer));
  assert_int_equal(transfer->transfer.iov_count, 1);
  driver_fill(transfer);
  assert_int_equal(driver_store(transfer), SPROUT_OK);
  expect_object(&driver, 2, together);
  expect_object(&driver, 5, together + 12);
  free(transfer);
  driver_abort(&driver);
  driver_unset(&driver);
  driver_end(&driver);
  manifest_destroy(manifest);
}

static void expect_mismatch(const struct sprout_tensor *tensors, size_t count,
                            const char *const *words) {
  struct manifest *manifest = make_manifest();
  struct driver driver;
  struct destination *destination = NULL;
  struct sprout_error error;

  driver_init(&driver, manifest);
  assert_int_equal(destination_memory_create(driver.reactor, tensors, count, &destination, &error),
                   SPROUT_OK);
  driver_set(&driver, destination);
  assert_int_equal(driver_prepare(&driver, NULL, true), SPROUT_MISMATCH);
  for (; *words != NULL; words++)
    if (strstr(driver.error.message, *words) == NULL)
      fail_msg("\"%s\" not in \"%s\"", *words, driver.error.message);
  driver_abort(&driver);
  driver_unset(&driver);
  driver_end(&driver);
  manifest_destroy(manifest);
}

static void test_all_differences_at_once(void **state) {
  struct sprout_tensor tensors[] = {tensor_scalar(scalar), tensor_half("half", half), tensor_big(),
                                    tensor_half("nowhere", tied), tensor_half("half_tied", tied)};
  const char *const words[] = {"5 tensors do not match",
                               "scalar is BF16[] here, F32[] at the seed",
                               "half is F16[3,2] here, F16[2,3] at the seed",
                               "big has 7 bytes here",
                               "nowhere is not at the seed",
                               "half_tied has other strides",
                               NULL};

  (void)state;
  tensors[0].dtype = "BF16";
  tensors[1].shape[0] = 3;
  tensors[1].shape[1] = 2;
  tensors[2].length_bytes = 7;
  tensors[4].strides[0] = 1;
  tensors[4].strides[1] = 2;
  expect_mismatch(tensors, 5, words);
}

static void test_many_differences(void **state) {
  enum { COUNT = 500 };
  static struct sprout_tensor tensors[COUNT];
  static char names[COUNT][32];
  const char *const words[] = {"500 tensors do not match", "layer.0 is not at the seed",
                               "more (see the log)", NULL};

  (void)state;
  for (int i = 0; i < COUNT; i++) {
    snprintf(names[i], sizeof(names[i]), "layer.%d", i);
    tensors[i] = tensor_half(names[i], half);
  }
  expect_mismatch(tensors, COUNT, words);
}

static void test_overlap(void **state) {
  struct sprout_tensor tensors[] = {tensor_half("half", half), tensor_scalar(half + 8)};
  struct sprout_tensor same_place[] = {tensor_half("half", half), tensor_half("half_tied", half)};
  const char *const words[] = {"half and scalar overlap here", NULL};
  struct manifest *manifest = make_manifest();
  struct driver driver;
  struct destination *destination = NULL;
  struct sprout_error error;

  (void)state;
  expect_mismatch(tensors, 2, words);
  driver_init(&driver, manifest);
  assert_int_equal(destination_memory_create(driver.reactor, same_place, 2, &destination, &error),
                   SPROUT_OK);
  driver_set(&driver, destination);
  assert_int_equal(driver_prepare(&driver, NULL, true), SPROUT_OK);
  store_object(&driver, 2);
  expect_object(&driver, 2, half);
  driver_abort(&driver);
  driver_unset(&driver);
  driver_end(&driver);
  manifest_destroy(manifest);
}

/* Explicit row-major strides are the same as none; a dimension of length one may have any. */
static void test_strides(void **state) {
  struct sprout_tensor tensors[] = {tensor_half("half", half)};
  struct manifest *manifest = make_manifest();
  struct driver driver;
  struct destination *destination = NULL;
  struct sprout_error error;

  (void)state;
  tensors[0].strides[0] = 3;
  tensors[0].strides[1] = 1;
  driver_init(&driver, manifest);
  assert_int_equal(destination_memory_create(driver.reactor, tensors, 1, &destination, &error),
                   SPROUT_OK);
  driver_set(&driver, destination);
  assert_int_equal(driver_prepare(&driver, NULL, true), SPROUT_OK);
  driver_abort(&driver);
  driver_unset(&driver);
  driver_end(&driver);
  manifest_destroy(manifest);
}

static void test_refused_at_once(void **state) {
  struct sprout_tensor tensors[2] = {tensor_half("half", half), tensor_half("half", tied)};
  struct destination *destination = NULL;
  struct sprout_error error;

  (void)state;
  assert_int_equal(destination_memory_create(NULL, tensors, 2, &destination, &error),
                   SPROUT_INVALID);
  assert_non_null(strstr(error.message, "given twice"));
  tensors[1].name = NULL;
  assert_int_equal(destination_memory_create(NULL, tensors, 2, &destination, &error),
                   SPROUT_INVALID);
  tensors[1] = tensor_half("x", NULL);
  assert_int_equal(destination_memory_create(NULL, tensors, 2, &destination, &error),
                   SPROUT_INVALID);
  tensors[1] = tensor_half("x", tied);
  tensors[1].memory = SPROUT_MEMORY_CUDA;
  assert_int_equal(destination_memory_create(NULL, tensors, 2, &destination, &error),
                   SPROUT_UNSUPPORTED);
  tensors[1] = tensor_half("x", tied);
  tensors[1].rank = SPROUT_MAX_RANK + 1;
  assert_int_equal(destination_memory_create(NULL, tensors, 2, &destination, &error),
                   SPROUT_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_lands_by_name),
      cmocka_unit_test(test_batch),
      cmocka_unit_test(test_all_differences_at_once),
      cmocka_unit_test(test_many_differences),
      cmocka_unit_test(test_overlap),
      cmocka_unit_test(test_strides),
      cmocka_unit_test(test_refused_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
