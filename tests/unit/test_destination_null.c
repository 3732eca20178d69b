/* SPDX-License-Identifier: Apache-2.0 */
#include "net/sources.h"
#include "tests/support/destination_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

static struct manifest *make_manifest(void) {
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct manifest_object object = {.name = "blob",
                                   .dtype = "",
                                   .kind = SPROUT_OBJECT_BLOB,
                                   .alias_of = MANIFEST_NONE,
                                   .length_bytes = 3ull * SPROUT_CHUNK_BYTES};
  struct sprout_error error;

  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  assert_int_equal(manifest_builder_file(builder, "blob", object.length_bytes, false), SPROUT_OK);
  assert_int_equal(manifest_builder_object(builder, &object, true), SPROUT_OK);
  assert_int_equal(manifest_build(builder, &manifest, &error), SPROUT_OK);
  return manifest;
}

static struct driver_transfer *begin_chunk(struct driver *driver, uint64_t chunk) {
  struct driver_transfer *transfer = calloc(1, sizeof(*transfer));
  struct manifest_chunk place = manifest_chunk_at(driver->manifest, chunk);

  assert_non_null(transfer);
  transfer->ranges[0] = (struct source_range){
      .object = place.object, .offset = place.offset, .length_bytes = place.length_bytes};
  transfer->transfer.range_count = 1;
  transfer->transfer.ordered = true;
  if (driver_begin(driver, transfer)) return transfer;
  free(transfer);
  return NULL;
}

static void test_whole_life(void **state) {
  struct manifest *manifest = make_manifest();
  struct driver driver;
  struct destination *destination = NULL;

  (void)state;
  driver_init(&driver, manifest);
  assert_int_equal(destination_null_create(driver.reactor, 4 * SPROUT_CHUNK_BYTES, &destination),
                   SPROUT_OK);
  driver_set(&driver, destination);
  assert_int_equal(driver_prepare(&driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver_store_all(&driver), SPROUT_OK);
  assert_int_equal(driver_finish(&driver), SPROUT_OK);
  driver_unset(&driver);
  driver_end(&driver);
  manifest_destroy(manifest);
}

/* Pieces of different transfers are different memory; those of one are the same. When they run out
 * map says so, and room follows. */
static void test_pieces(void **state) {
  struct manifest *manifest = make_manifest();
  struct driver driver;
  struct destination *destination = NULL;
  struct driver_transfer *transfers[256];
  size_t count = 0;

  (void)state;
  driver_init(&driver, manifest);
  assert_int_equal(destination_null_create(driver.reactor, 4 * SPROUT_CHUNK_BYTES, &destination),
                   SPROUT_OK);
  driver_set(&driver, destination);
  assert_int_equal(driver_prepare(&driver, NULL, true), SPROUT_OK);
  while (count < 256 && (transfers[count] = begin_chunk(&driver, 0)) != NULL) count++;
  assert_true(count >= 16 && count < 256);
  for (size_t i = 0; i < count; i++) {
    assert_int_equal(transfers[i]->transfer.iov_count, 16);
    assert_ptr_equal(transfers[i]->iov[0].iov_base, transfers[i]->iov[15].iov_base);
    for (size_t j = 0; j < i; j++)
      assert_ptr_not_equal(transfers[i]->iov[0].iov_base, transfers[j]->iov[0].iov_base);
  }
  destination->ops->release(destination, &transfers[0]->transfer);
  assert_int_equal(driver.rooms, 0);
  reactor_tick(driver.reactor, 0);
  assert_int_equal(driver.rooms, 1);
  for (size_t i = 1; i < count; i++)
    destination->ops->release(destination, &transfers[i]->transfer);
  for (size_t i = 0; i < count; i++) free(transfers[i]);
  driver_abort(&driver);
  driver_unset(&driver);
  driver_end(&driver);
  manifest_destroy(manifest);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_whole_life),
      cmocka_unit_test(test_pieces),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
