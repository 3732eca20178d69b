/* SPDX-License-Identifier: Apache-2.0 */
#include "net/sources.h"
#include "tests/support/scratch.h"
#include "tests/support/source_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BIG_BYTES (SPROUT_CHUNK_BYTES + 70000u)

struct scene {
  char path[SCRATCH_PATH_BYTES];
  struct source_driver driver;
  const struct manifest *reference;
};

/* What scratch_write has written; both files with salt 0. */
static unsigned char byte_of(void *context, uint32_t object, uint64_t offset) {
  (void)context;
  (void)object;
  return (unsigned char)((offset * 7 + (offset >> 10) * 3) & 0xff);
}

static int set_up(void **state) {
  struct scene *scene = calloc(1, sizeof(*scene));

  assert_non_null(scene);
  scratch_make(scene->path);
  scratch_write(scene->path, "big.bin", BIG_BYTES, 0);
  scratch_write(scene->path, "sub/small.bin", 300, 0);
  scratch_write(scene->path, "empty.txt", 0, 0);
  source_driver_init(&scene->driver);
  scene->driver.byte = byte_of;
  *state = scene;
  return 0;
}

static int tear_down(void **state) {
  struct scene *scene = *state;

  source_driver_end(&scene->driver);
  scratch_remove(scene->path);
  free(scene);
  return 0;
}

static const struct manifest *reference_of(void *context) {
  return ((struct scene *)context)->reference;
}

static void open_source(struct scene *scene) {
  struct source *source = NULL;

  assert_int_equal(file_source_create(scene->driver.reactor, "file:///model", scene->path,
                                      reference_of, scene, &source),
                   SPROUT_OK);
  assert_true(source->last_resort && source->ordered && source->has_digests);
  source_driver_set(&scene->driver, source);
}

static uint32_t object_of(const struct scene *scene, const char *path) {
  uint32_t file = manifest_find_file(scene->driver.manifest, path);

  assert_int_not_equal(file, MANIFEST_NONE);
  return scene->driver.manifest->files[file].first_object;
}

static void post_some(struct scene *scene) {
  struct source_driver *driver = &scene->driver;
  struct driven_read *read = source_driver_new_read(driver);
  uint32_t big = object_of(scene, "big.bin"), small = object_of(scene, "sub/small.bin");

  read->ranges[0] = (struct source_range){.object = small, .offset = 10, .length_bytes = 50};
  read->ranges[1] = (struct source_range){.object = big, .offset = 99, .length_bytes = 1000};
  read->ranges[2] = (struct source_range){.object = small, .offset = 0, .length_bytes = 300};
  source_driver_post_ranges(driver, read, 3, 64, false);
  source_driver_post(driver, big, 0, 300000, DESTINATION_PIECE_BYTES, true);
  source_driver_post(driver, big, SPROUT_CHUNK_BYTES, 70000, 70000, false);
  for (int i = 0; i < 20; i++) source_driver_post(driver, big, (uint64_t)i, 1000, 512, false);
  source_driver_flush(driver);
}

static void test_whole_life(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  open_source(scene);
  for (int life = 0; life < 2; life++) {
    assert_true(source_driver_ready(driver));
    post_some(scene);
    source_driver_finish_reads(driver);
    for (uint32_t i = 0; i < driver->read_count; i++) source_driver_expect(&driver->reads[i]);
    driver->source->ops->request_digests(driver->source, 0, driver->manifest->chunk_count, true);
    for (int i = 0; i < 10000 && driver->digests < driver->manifest->chunk_count; i++)
      source_driver_step(driver);
    assert_int_equal(driver->digests_known, driver->manifest->chunk_count);
    source_driver_close(driver, SPROUT_OK, "");
  }
  source_driver_unset(driver);
}

/* The identity and label of the manifest in force are taken over: the layouts then agree. */
static void test_reference(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;
  struct manifest_identity identity = {.model = "other",
                                       .revision = "r2",
                                       .dtype = "BF16",
                                       .quantization = "",
                                       .engine = "e",
                                       .layout = "",
                                       .role = "main",
                                       .rank = "tp=0/2"};
  struct manifest reference = {.identity = identity, .version = {.label = "step-9"}};

  scene->reference = &reference;
  open_source(scene);
  assert_true(source_driver_ready(driver));
  assert_string_equal(driver->manifest->identity.model, "other");
  assert_string_equal(driver->manifest->identity.rank, "tp=0/2");
  assert_string_equal(driver->manifest->version.label, "step-9");
  source_driver_unset(driver);
}

static void test_missing(void **state) {
  struct scene *scene = *state;
  struct source *source = NULL;
  bool never = false;

  assert_int_equal(file_source_create(scene->driver.reactor, "file:///nowhere", "/nowhere/at/all",
                                      NULL, NULL, &source),
                   SPROUT_OK);
  source_driver_set(&scene->driver, source);
  source_driver_connect(&scene->driver);
  assert_false(source_driver_until(&scene->driver, &never));
  assert_non_null(strstr(scene->driver.error.message, "nowhere"));
  source_driver_unset(&scene->driver);
}

/* A file that shrinks under the fork is an error, not a wait. */
static void test_truncated(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;
  char path[SCRATCH_PATH_BYTES + 16];
  bool never = false;

  open_source(scene);
  assert_true(source_driver_ready(driver));
  snprintf(path, sizeof(path), "%s/big.bin", scene->path);
  assert_int_equal(truncate(path, 1000), 0);
  source_driver_post(driver, object_of(scene, "big.bin"), 0, 100000, 65536, false);
  source_driver_flush(driver);
  assert_false(source_driver_until(driver, &never));
  assert_int_equal(driver->error.status, SPROUT_IO);
  source_driver_unset(driver);
}

static void test_close_anywhere(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  for (int steps = 0; steps < 30; steps++) {
    open_source(scene);
    source_driver_connect(driver);
    for (int i = 0; i < steps; i++) {
      bool known = driver->got_manifest, ready = driver->ready;
      source_driver_step(driver);
      if (!known && driver->got_manifest) source_driver_open(driver);
      if (ready || !driver->ready) continue;
      post_some(scene);
      driver->source->ops->request_digests(driver->source, 0, 2, false);
    }
    source_driver_unset(driver);
  }
}

#ifdef SPROUT_FAULTS
struct fault {
  uint64_t at, seen;
  bool hit;
};

static int32_t inject(void *context, uint64_t number, const struct ring_op *op, int32_t result) {
  struct fault *fault = context;

  (void)number;
  if (op->length == sizeof(uint64_t) || fault->seen++ != fault->at) return result; /* the wake */
  fault->hit = true;
  return -EIO;
}

static void test_read_faults(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;
  bool hit = true;

  for (uint64_t at = 0; hit; at++) {
    struct fault fault = {.at = at};
    open_source(scene);
    assert_true(source_driver_ready(driver));
    ring_fault_set(reactor_ring(driver->reactor), inject, &fault);
    post_some(scene);
    source_driver_finish_reads(driver);
    source_driver_step(driver);
    hit = fault.hit;
    assert_int_equal(driver->failed, hit);
    if (hit) assert_int_equal(driver->error.status, SPROUT_IO);
    ring_fault_set(reactor_ring(driver->reactor), NULL, NULL);
    source_driver_unset(driver);
  }
}
#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_whole_life),  TEST(test_reference),      TEST(test_missing),
      TEST(test_truncated),   TEST(test_close_anywhere),
#ifdef SPROUT_FAULTS
      TEST(test_read_faults),
#endif
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
