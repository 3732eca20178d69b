/* SPDX-License-Identifier: Apache-2.0 */
#include "net/sources.h"
#include "tests/support/destination_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define WEIGHT_BYTES (2u * SPROUT_CHUNK_BYTES + 12345u)
#define HEADER_BYTES 77u

/* model.safetensors (header, w, v), sub/dir/config.json, empty.txt, run.sh (executable). */
static struct manifest *make_manifest(void) {
  struct manifest_object header = {.name = "__header__",
                                   .dtype = "",
                                   .kind = SPROUT_OBJECT_BLOB,
                                   .alias_of = MANIFEST_NONE,
                                   .length_bytes = HEADER_BYTES};
  struct manifest_object weight = {.name = "w",
                                   .dtype = "U8",
                                   .kind = SPROUT_OBJECT_TENSOR,
                                   .alias_of = MANIFEST_NONE,
                                   .rank = 1,
                                   .shape = {WEIGHT_BYTES},
                                   .length_bytes = WEIGHT_BYTES,
                                   .file_offset = HEADER_BYTES};
  struct manifest_object value = weight;
  struct manifest_object config = header, script = header;
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct sprout_error error;

  value.name = "v";
  value.shape[0] = value.length_bytes = 4096;
  value.file_offset = HEADER_BYTES + WEIGHT_BYTES;
  config.name = "sub/dir/config.json";
  config.length_bytes = 500;
  script.name = "run.sh";
  script.length_bytes = 20;
  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  assert_int_equal(manifest_builder_file(builder, "model.safetensors",
                                         HEADER_BYTES + WEIGHT_BYTES + 4096, false),
                   SPROUT_OK);
  assert_int_equal(manifest_builder_object(builder, &header, true), SPROUT_OK);
  assert_int_equal(manifest_builder_object(builder, &weight, true), SPROUT_OK);
  assert_int_equal(manifest_builder_object(builder, &value, true), SPROUT_OK);
  assert_int_equal(manifest_builder_file(builder, "sub/dir/config.json", 500, false), SPROUT_OK);
  assert_int_equal(manifest_builder_object(builder, &config, true), SPROUT_OK);
  assert_int_equal(manifest_builder_file(builder, "empty.txt", 0, false), SPROUT_OK);
  assert_int_equal(manifest_builder_file(builder, "run.sh", 20, true), SPROUT_OK);
  assert_int_equal(manifest_builder_object(builder, &script, true), SPROUT_OK);
  if (manifest_build(builder, &manifest, &error) != SPROUT_OK) fail_msg("%s", error.message);
  return manifest;
}

/* --- surroundings of one test --- */

struct place {
  char root[64];
  char path[96]; /* the destination, below root */
  struct manifest *manifest;
  struct driver driver;
  struct directory_options options;
};

static int remove_entry(const char *path, const struct stat *found, int kind, struct FTW *walk) {
  (void)found;
  (void)kind;
  (void)walk;
  return remove(path);
}

static int set_up(void **state) {
  struct place *place = calloc(1, sizeof(*place));

  assert_non_null(place);
  snprintf(place->root, sizeof(place->root), "%s", "/tmp/sprout-directory-XXXXXX");
  assert_non_null(mkdtemp(place->root));
  snprintf(place->path, sizeof(place->path), "%s/model", place->root);
  place->manifest = make_manifest();
  place->options =
      (struct directory_options){.path = place->path, .staging_bytes = 3ull * SPROUT_CHUNK_BYTES};
  driver_init(&place->driver, place->manifest);
  *state = place;
  return 0;
}

static int tear_down(void **state) {
  struct place *place = *state;

  driver_end(&place->driver);
  manifest_destroy(place->manifest);
  (void)umount(place->path); /* of a test that failed */
  nftw(place->root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
  free(place);
  return 0;
}

static void open_directory(struct place *place) {
  struct destination *destination = NULL;
  struct sprout_error error;

  if (destination_directory_create(place->driver.reactor, &place->options, &destination, &error) !=
      SPROUT_OK)
    fail_msg("%s", error.message);
  driver_set(&place->driver, destination);
}

static char *name_of(const struct place *place, const char *path) {
  static char name[256];

  snprintf(name, sizeof(name), "%s/%s", place->path, path);
  return name;
}

static bool is_there(const struct place *place, const char *path) {
  struct stat found;

  return lstat(name_of(place, path), &found) == 0;
}

static void write_file(const char *name, const char *text) {
  FILE *file = fopen(name, "we");

  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

/* Flips one byte. */
static void damage(const char *name, long offset) {
  FILE *file = fopen(name, "r+e");
  int byte = 0;

  assert_non_null(file);
  assert_int_equal(fseek(file, offset, SEEK_SET), 0);
  byte = fgetc(file);
  assert_int_equal(fseek(file, offset, SEEK_SET), 0);
  fputc(byte ^ 0x55, file);
  fclose(file);
}

static void expect_files(const struct place *place) {
  const struct manifest *manifest = place->manifest;

  for (uint32_t i = 0; i < manifest->file_count; i++) {
    const struct manifest_file *file = &manifest->files[i];
    FILE *stream = fopen(name_of(place, file->path), "re");
    struct stat found;
    assert_non_null(stream);
    assert_int_equal(fstat(fileno(stream), &found), 0);
    assert_int_equal(found.st_size, file->length_bytes);
    assert_int_equal((found.st_mode & 0100) != 0, file->executable);
    for (uint32_t j = 0; j < file->object_count; j++) {
      uint32_t object = file->first_object + j;
      for (uint64_t k = 0; k < manifest->objects[object].length_bytes; k++)
        if (fgetc(stream) != driver_byte(&place->driver, object, k))
          fail_msg("%s differs in %s at %zu", file->path, manifest->objects[object].name,
                   (size_t)k);
    }
    fclose(stream);
  }
}

/* A whole fork into place. */
static void fork_once(struct place *place) {
  open_directory(place);
  assert_int_equal(driver_prepare(&place->driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver_store_all(&place->driver), SPROUT_OK);
  assert_int_equal(driver_finish(&place->driver), SPROUT_OK);
  driver_unset(&place->driver);
}

static void abort_and_unset(struct place *place) {
  driver_abort(&place->driver);
  driver_unset(&place->driver);
}

/* --- tests --- */

static void test_new_directory(void **state) {
  struct place *place = *state;

  open_directory(place);
  assert_int_equal(driver_prepare(&place->driver, NULL, true), SPROUT_OK);
  assert_int_equal(place->driver.existing, 0);
  assert_int_equal(driver_store_all(&place->driver), SPROUT_OK);
  assert_false(is_there(place, "model.safetensors")); /* not before all is whole */
  assert_int_equal(driver_finish(&place->driver), SPROUT_OK);
  driver_unset(&place->driver);
  expect_files(place);
  assert_false(is_there(place, ".sprout"));
}

/* What was stored before an abort is found again, and nothing else. */
static void test_resume(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;

  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver_store_chunk(driver, 0), SPROUT_OK);
  assert_int_equal(driver_store_chunk(driver, 2), SPROUT_OK);
  abort_and_unset(place);
  assert_true(is_there(place, ".sprout"));
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver->existing_right, 2);
  for (uint64_t i = 0; i < place->manifest->chunk_count; i++)
    if (i != 0 && i != 2) assert_int_equal(driver_store_chunk(driver, i), SPROUT_OK);
  assert_int_equal(driver_finish(driver), SPROUT_OK);
  driver_unset(driver);
  expect_files(place);
}

static void test_no_reuse_starts_over(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;

  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver_store_chunk(driver, 0), SPROUT_OK);
  abort_and_unset(place);
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, false), SPROUT_OK);
  assert_int_equal(driver->existing, 0);
  abort_and_unset(place);
  assert_false(is_there(place, ".sprout")); /* nothing kept */
}

static void test_whole_already(void **state) {
  struct place *place = *state;

  fork_once(place);
  open_directory(place);
  assert_int_equal(driver_prepare(&place->driver, NULL, true), SPROUT_OK);
  assert_int_equal(place->driver.existing_right, place->manifest->chunk_count);
  assert_int_equal(driver_finish(&place->driver), SPROUT_OK);
  driver_unset(&place->driver);
  expect_files(place);
  assert_false(is_there(place, ".sprout"));
}

/* All files of another size are named, nothing is made; force replaces them. */
static void test_other_sizes_in_the_way(void **state) {
  struct place *place = *state;

  assert_int_equal(mkdir(place->path, 0777), 0);
  write_file(name_of(place, "model.safetensors"), "other");
  write_file(name_of(place, "empty.txt"), "other");
  write_file(name_of(place, "mine.txt"), "mine");
  open_directory(place);
  assert_int_equal(driver_prepare(&place->driver, NULL, true), SPROUT_EXISTS);
  assert_non_null(strstr(place->driver.error.message, "2 files are in the way"));
  assert_non_null(strstr(place->driver.error.message, "model.safetensors, empty.txt"));
  abort_and_unset(place);
  assert_false(is_there(place, ".sprout"));
  place->options.force = true;
  fork_once(place);
  expect_files(place);
  assert_true(is_there(place, "mine.txt"));
}

/* Right size, other bytes: in the way when a chunk of it must be stored. */
static void test_other_bytes_in_the_way(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;

  fork_once(place);
  damage(name_of(place, "model.safetensors"), HEADER_BYTES + 5);
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver->existing_right, place->manifest->chunk_count - 1);
  assert_int_equal(driver_store_chunk(driver, 1), SPROUT_EXISTS);
  assert_non_null(strstr(driver->error.message, "model.safetensors"));
  abort_and_unset(place);
  assert_false(is_there(place, ".sprout"));
  place->options.force = true;
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver_store_chunk(driver, 1), SPROUT_OK);
  assert_int_equal(driver_finish(driver), SPROUT_OK);
  driver_unset(driver);
  expect_files(place);
  assert_false(is_there(place, ".sprout"));
}

static void test_one_at_a_time(void **state) {
  struct place *place = *state;
  struct driver second;
  struct destination *destination = NULL;
  struct sprout_error error;

  open_directory(place);
  assert_int_equal(driver_prepare(&place->driver, NULL, true), SPROUT_OK);
  driver_init(&second, place->manifest);
  assert_int_equal(
      destination_directory_create(second.reactor, &place->options, &destination, &error),
      SPROUT_OK);
  driver_set(&second, destination);
  assert_int_equal(driver_prepare(&second, NULL, true), SPROUT_BUSY);
  driver_abort(&second);
  driver_unset(&second);
  driver_end(&second);
  assert_int_equal(driver_store_all(&place->driver), SPROUT_OK); /* the first goes on unharmed */
  assert_int_equal(driver_finish(&place->driver), SPROUT_OK);
  driver_unset(&place->driver);
  expect_files(place);
}

/* Nothing outside of the destination is written through links that lie in it. */
static void test_links(void **state) {
  struct place *place = *state;
  char outside[96];

  snprintf(outside, sizeof(outside), "%s/outside", place->root);
  assert_int_equal(mkdir(outside, 0777), 0);
  assert_int_equal(mkdir(place->path, 0777), 0);
  assert_int_equal(symlink(outside, name_of(place, "sub")), 0);
  for (int force = 0; force < 2; force++) {
    place->options.force = force != 0;
    open_directory(place);
    assert_int_equal(driver_prepare(&place->driver, NULL, true), SPROUT_EXISTS);
    assert_non_null(strstr(place->driver.error.message, "sub/dir/config.json"));
    abort_and_unset(place);
  }
  assert_int_equal(unlink(name_of(place, "sub")), 0);
  assert_int_equal(symlink(outside, name_of(place, ".sprout")), 0);
  open_directory(place);
  assert_int_not_equal(driver_prepare(&place->driver, NULL, true), SPROUT_OK);
  abort_and_unset(place);
  assert_int_equal(unlink(name_of(place, ".sprout")), 0);
  assert_int_equal(symlink(outside, name_of(place, "model.safetensors")), 0);
  place->options.force = true; /* replaces the link, not what it points to */
  fork_once(place);
  expect_files(place);
  assert_int_equal(rmdir(outside), 0); /* still empty */
}

static void test_full(void **state) {
  struct place *place = *state;
  struct rlimit before, limit;

  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  limit = before;
  limit.rlim_cur = SPROUT_CHUNK_BYTES;
  open_directory(place);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  assert_int_equal(driver_prepare(&place->driver, NULL, true), SPROUT_NO_SPACE);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  assert_non_null(strstr(place->driver.error.message, "more bytes"));
  abort_and_unset(place);
  assert_false(is_there(place, ""));
}

static void select_objects(uint64_t *selected, uint32_t first, uint32_t count) {
  for (uint32_t i = first; i < first + count; i++) selected[i / 64] |= 1ull << (i % 64);
}

static void test_selection(void **state) {
  struct place *place = *state;
  uint64_t selected[1] = {0};
  const char *const globs[] = {"sub/*"};
  const struct fork_filter filter = {.include = globs, .include_count = 1};

  select_objects(selected, 3, 1); /* config.json */
  place->options.filter = &filter;
  open_directory(place);
  assert_int_equal(driver_prepare(&place->driver, selected, true), SPROUT_OK);
  assert_int_equal(driver_store_chunk(&place->driver, place->manifest->objects[3].first_chunk),
                   SPROUT_OK);
  assert_int_equal(driver_finish(&place->driver), SPROUT_OK);
  driver_unset(&place->driver);
  assert_true(is_there(place, "sub/dir/config.json"));
  assert_false(is_there(place, "model.safetensors") || is_there(place, "run.sh"));
  assert_false(is_there(place, "empty.txt"));
  select_objects(selected, 1, 1); /* one tensor of a file: it would have holes */
  open_directory(place);
  assert_int_equal(driver_prepare(&place->driver, selected, true), SPROUT_INVALID);
  abort_and_unset(place);
}

static void test_dry_run(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;

  place->options.dry_run = true;
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  abort_and_unset(place);
  assert_false(is_there(place, ""));
  place->options.dry_run = false;
  fork_once(place);
  damage(name_of(place, "run.sh"), 3);
  assert_int_equal(truncate(name_of(place, "sub/dir/config.json"), 499), 0);
  place->options.dry_run = true;
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_EXISTS);
  abort_and_unset(place);
  place->options.verify_only = true; /* another length is a missing file */
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver->existing, place->manifest->chunk_count - 1);
  assert_int_equal(driver->existing_right, place->manifest->chunk_count - 2);
  assert_int_equal(driver_finish(driver), SPROUT_OK);
  driver_unset(driver);
  assert_false(is_there(place, ".sprout"));
}

/* A crash between two renames: one file has its final name, the others are still partial. */
static void test_crash_between_renames(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;
  char partial[128];

  fork_once(place);
  assert_int_equal(mkdir(name_of(place, ".sprout"), 0777), 0);
  assert_int_equal(mkdir(name_of(place, ".sprout/partial"), 0777), 0);
  snprintf(partial, sizeof(partial), "%s", name_of(place, ".sprout/partial/run.sh"));
  assert_int_equal(rename(name_of(place, "run.sh"), partial), 0);
  snprintf(partial, sizeof(partial), "%s", name_of(place, ".sprout/partial/empty.txt"));
  assert_int_equal(rename(name_of(place, "empty.txt"), partial), 0);
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver->existing_right, place->manifest->chunk_count);
  assert_int_equal(driver_finish(driver), SPROUT_OK);
  driver_unset(driver);
  expect_files(place);
  assert_false(is_there(place, ".sprout"));
}

/* What appears under a final name while the fork runs is not replaced without force. */
static void test_appeared_meanwhile(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;

  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver_store_all(driver), SPROUT_OK);
  write_file(name_of(place, "run.sh"), "mine");
  assert_int_equal(driver_finish(driver), SPROUT_EXISTS);
  assert_non_null(strstr(driver->error.message, "run.sh"));
  abort_and_unset(place);
  assert_int_equal(unlink(name_of(place, "run.sh")), 0);
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  assert_int_equal(driver->existing_right, place->manifest->chunk_count);
  assert_int_equal(driver_finish(driver), SPROUT_OK);
  driver_unset(driver);
  expect_files(place);
}

/* A file system that is too small, then has room. */
static void test_small_file_system(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;

  assert_int_equal(mkdir(place->path, 0777), 0);
  if (mount("tmpfs", place->path, "tmpfs", 0, "size=4m") != 0) skip();
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_NO_SPACE);
  assert_non_null(strstr(driver->error.message, "more bytes"));
  abort_and_unset(place);
  assert_false(is_there(place, ".sprout"));
  assert_int_equal(mount("tmpfs", place->path, "tmpfs", MS_REMOUNT, "size=64m"), 0);
  fork_once(place);
  expect_files(place);
  assert_int_equal(umount(place->path), 0);
}

/* Staging runs out, and comes back. */
static void test_room(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;
  struct driver_transfer *transfers = calloc(4, sizeof(*transfers));

  assert_non_null(transfers);
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  for (int i = 0; i < 4; i++) {
    struct manifest_chunk chunk = manifest_chunk_at(place->manifest, (uint64_t)i);
    transfers[i].ranges[0] = (struct source_range){
        .object = chunk.object, .offset = chunk.offset, .length_bytes = chunk.length_bytes};
    transfers[i].transfer.range_count = 1;
    assert_int_equal(driver_begin(driver, &transfers[i]), i < 3);
  }
  driver_fill(&transfers[1]);
  assert_int_equal(driver_store(&transfers[1]), SPROUT_OK);
  assert_int_equal(driver->rooms, 1);
  assert_true(driver_begin(driver, &transfers[3]));
  driver->destination->ops->release(driver->destination, &transfers[0].transfer);
  driver->destination->ops->release(driver->destination, &transfers[2].transfer);
  driver->destination->ops->release(driver->destination, &transfers[3].transfer);
  abort_and_unset(place);
  free(transfers);
}

/* Ranges of several objects and files in one transfer. */
static void test_batch(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;
  struct driver_transfer *transfer = calloc(1, sizeof(*transfer));

  assert_non_null(transfer);
  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  for (uint32_t chunk = 1; chunk < 4; chunk++)
    assert_int_equal(driver_store_chunk(driver, chunk), SPROUT_OK);
  transfer->ranges[0] = (struct source_range){.object = 0, .length_bytes = HEADER_BYTES};
  transfer->ranges[1] = (struct source_range){.object = 2, .length_bytes = 4096};
  transfer->ranges[2] = (struct source_range){.object = 3, .length_bytes = 500};
  transfer->ranges[3] = (struct source_range){.object = 4, .length_bytes = 20};
  transfer->transfer.range_count = 4;
  assert_true(driver_begin(driver, transfer));
  driver_fill(transfer);
  assert_int_equal(driver_store(transfer), SPROUT_OK);
  assert_int_equal(driver_finish(driver), SPROUT_OK);
  driver_unset(driver);
  expect_files(place);
  free(transfer);
}

/* Abort in every phase: before, during and after prepare, and during finish. */
static void test_abort_anywhere(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;

  open_directory(place);
  abort_and_unset(place);
  fork_once(place);
  for (int ticks = 0; ticks < 12; ticks++) {
    open_directory(place);
    driver->destination->ops->prepare(driver->destination, place->manifest, NULL, true);
    for (int i = 0; i < ticks; i++) reactor_tick(driver->reactor, 0);
    abort_and_unset(place);
  }
  expect_files(place);
  for (int ticks = 0; ticks < 6; ticks++) {
    place->options.force = true;
    open_directory(place);
    assert_int_equal(driver_prepare(driver, NULL, false), SPROUT_OK);
    assert_int_equal(driver_store_all(driver), SPROUT_OK);
    driver->destination->ops->finish(driver->destination);
    for (int i = 0; i < ticks && !driver->finished; i++) reactor_tick(driver->reactor, 0);
    if (!driver->finished) driver_abort(driver);
    driver_unset(driver);
  }
  fork_once(place);
  expect_files(place);
}

static void test_bad_places(void **state) {
  struct place *place = *state;
  struct destination *destination = NULL;
  struct sprout_error error;
  char name[128];
  const struct {
    const char *path;
    enum sprout_status status;
  } rows[] = {{"a/b", SPROUT_IO},
              {"file", SPROUT_EXISTS},
              {"file/x", SPROUT_IO},
              {"dangling", SPROUT_EXISTS}};

  snprintf(name, sizeof(name), "%s/file", place->root);
  write_file(name, "x");
  snprintf(name, sizeof(name), "%s/dangling", place->root);
  assert_int_equal(symlink("nowhere", name), 0);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    snprintf(name, sizeof(name), "%s/%s", place->root, rows[i].path);
    place->options.path = name;
    assert_int_equal(
        destination_directory_create(place->driver.reactor, &place->options, &destination, &error),
        rows[i].status);
    assert_non_null(strstr(error.message, place->root));
  }
}

#ifdef SPROUT_FAULTS
struct fault {
  uint64_t at;
  int32_t result;
};

static int32_t inject(void *context, uint64_t number, const struct ring_op *op, int32_t result) {
  const struct fault *fault = context;

  if (op->kind != RING_WRITEV || number < fault->at) return result;
  if (fault->result > 0 && result > fault->result) return fault->result;
  return fault->result > 0 ? result : fault->result;
}

static void test_write_faults(void **state) {
  struct place *place = *state;
  struct driver *driver = &place->driver;
  struct fault fault = {.at = 0, .result = -ENOSPC};

  open_directory(place);
  assert_int_equal(driver_prepare(driver, NULL, true), SPROUT_OK);
  ring_fault_set(reactor_ring(driver->reactor), inject, &fault);
  assert_int_equal(driver_store_chunk(driver, 1), SPROUT_NO_SPACE);
  fault.result = -EIO;
  assert_int_equal(driver_store_chunk(driver, 1), SPROUT_IO);
  fault.result = 100000; /* short writes are continued */
  assert_int_equal(driver_store_chunk(driver, 1), SPROUT_OK);
  ring_fault_set(reactor_ring(driver->reactor), NULL, NULL);
  assert_int_equal(driver_store_all(driver), SPROUT_OK);
  assert_int_equal(driver_finish(driver), SPROUT_OK);
  driver_unset(driver);
  expect_files(place);
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_new_directory, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_resume, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_no_reuse_starts_over, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_whole_already, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_other_sizes_in_the_way, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_other_bytes_in_the_way, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_one_at_a_time, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_links, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_selection, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_dry_run, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_crash_between_renames, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_appeared_meanwhile, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_small_file_system, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_room, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_batch, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_abort_anywhere, set_up, tear_down),
      cmocka_unit_test_setup_teardown(test_bad_places, set_up, tear_down),
#ifdef SPROUT_FAULTS
      cmocka_unit_test_setup_teardown(test_write_faults, set_up, tear_down),
#endif
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
