/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/log.h"
#include "core/region.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* --- a scratch directory, which is the working directory of every test ---------------------------
 */

static char scratch[64];
static int home = -1;

static int enter_scratch(void **state) {
  (void)state;
  snprintf(scratch, sizeof(scratch), "/tmp/sprout-model-XXXXXX");
  home = open(".", O_RDONLY | O_DIRECTORY);
  return home >= 0 && mkdtemp(scratch) != NULL ? chdir(scratch) : -1;
}

static int remove_one(const char *path, const struct stat *attributes, int type, struct FTW *walk) {
  (void)attributes, (void)type, (void)walk;
  return remove(path);
}

static int leave_scratch(void **state) {
  (void)state;
  if (fchdir(home) != 0 || close(home) != 0) return -1;
  return nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void write_bytes(const char *path, const void *data, size_t length_bytes) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, data, length_bytes), (ssize_t)length_bytes);
  assert_int_equal(close(fd), 0);
}

static void write_text(const char *path, const char *text) {
  write_bytes(path, text, strlen(text));
}

/* A safetensors file with this header and `data_bytes` counted bytes behind it. */
static void write_safetensors(const char *path, const char *json, size_t data_bytes) {
  size_t json_bytes = strlen(json), total = 8 + json_bytes + data_bytes;
  unsigned char *file = malloc(total);
  assert_non_null(file);
  for (size_t i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)json_bytes >> (8 * i));
  memcpy(file + 8, json, json_bytes);
  for (size_t i = 0; i < data_bytes; i++) file[8 + json_bytes + i] = (unsigned char)i;
  write_bytes(path, file, total);
  free(file);
}

#define TWO_TENSORS                                                                                \
  "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"                               \
  "\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]}}"

static struct model_options options_of(const char *const *paths, size_t count) {
  return (struct model_options){.paths = paths, .path_count = count};
}

static struct model *open_good(const char *path, enum model_memory memory) {
  const char *const paths[] = {path};
  struct model_options options = options_of(paths, 1);
  struct model *model = NULL;
  struct sprout_error error = {0};
  options.memory = memory;
  if (model_open(&options, &model, &error) != SPROUT_OK) fail_msg("%s", error.message);
  return model;
}

/* Refused, and the message has this text. */
static void assert_refused(const char *const *paths, size_t count, enum sprout_status status,
                           const char *expected) {
  const struct model_options options = options_of(paths, count);
  struct model *model = NULL;
  struct sprout_error error = {0};
  enum sprout_status got = model_open(&options, &model, &error);
  if (got != status || strstr(error.message, expected) == NULL)
    fail_msg("expected %d \"%s\", got %d \"%s\"", (int)status, expected, (int)got, error.message);
  assert_null(model);
}

static void assert_path_refused(const char *path, enum sprout_status status, const char *expected) {
  assert_refused(&path, 1, status, expected);
}

/* "path path path", in the manifest's order */
static void assert_files(const struct model *model, const char *expected) {
  char files[1024] = "";
  for (uint32_t i = 0; i < model->manifest->file_count; i++) {
    size_t used = strlen(files);
    snprintf(files + used, sizeof(files) - used, "%s%s", i == 0 ? "" : " ",
             model->manifest->files[i].path);
  }
  assert_string_equal(files, expected);
}

/* Every object's bytes in memory are those of the file on disk, and of the region's descriptor. */
static void assert_bytes(const struct model *model, const char *directory) {
  const struct manifest *manifest = model->manifest;
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    const struct manifest_object *object = &manifest->objects[i];
    if (object->length_bytes == 0) continue;
    char path[512];
    size_t length = (size_t)object->length_bytes;
    unsigned char *expected = malloc(length), *sent = malloc(length);
    assert_true(expected != NULL && sent != NULL);
    snprintf(path, sizeof(path), "%s/%s", directory, manifest->files[object->file].path);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, expected, length, (off_t)object->file_offset), (ssize_t)length);
    close(fd);
    assert_memory_equal(model_bytes(model, i, 0), expected, length);
    const struct placement *placement = &model->placements[i];
    const struct region *region = &model->regions[placement->region];
    assert_true(region->immutable && region->mapped);
    assert_true(placement->offset + length <= region->length_bytes);
    assert_int_equal(
        pread(region->fd, sent, length, (off_t)(region->fd_offset + placement->offset)),
        (ssize_t)length);
    assert_memory_equal(sent, expected, length);
    free(expected);
    free(sent);
  }
}

/* --- directories ---------------------------------------------------------------------------------
 */

static void make_model(const char *directory) {
  char path[128];
  assert_int_equal(mkdir(directory, 0755), 0);
  snprintf(path, sizeof(path), "%s/model.safetensors", directory);
  write_safetensors(path, TWO_TENSORS, 11);
  snprintf(path, sizeof(path), "%s/config.json", directory);
  write_text(path, "{\"quantization_config\":{\"quant_method\":\"fp8\"}}");
  snprintf(path, sizeof(path), "%s/run.sh", directory);
  write_text(path, "#!/bin/sh\n");
  assert_int_equal(chmod(path, 0755), 0);
  snprintf(path, sizeof(path), "%s/empty", directory);
  write_text(path, "");
  snprintf(path, sizeof(path), "%s/1_Pooling", directory);
  assert_int_equal(mkdir(path, 0755), 0);
  snprintf(path, sizeof(path), "%s/1_Pooling/config.json", directory);
  write_text(path, "{}");
}

static void check_model(enum model_memory memory) {
  make_model("m");
  struct model *model = open_good("m", memory);
  const struct manifest *manifest = model->manifest;
  assert_files(model, "1_Pooling/config.json config.json empty model.safetensors run.sh");
  assert_int_equal(manifest->object_count, 6);
  assert_string_equal(manifest->objects[0].name, "1_Pooling/config.json");
  assert_string_equal(manifest->objects[2].name, MANIFEST_HEADER_NAME);
  assert_string_equal(manifest->objects[3].name, "b");
  assert_string_equal(manifest->objects[4].name, "a");
  assert_int_equal(manifest->files[2].object_count, 0);
  assert_false(manifest->files[3].executable);
  assert_true(manifest->files[4].executable);
  assert_string_equal(manifest->identity.model, "m");
  assert_string_equal(manifest->identity.dtype, "F32");
  assert_string_equal(manifest->identity.quantization, "fp8");
  assert_string_equal(manifest->identity.role, "main");
  assert_string_equal(manifest->identity.revision, "");
  assert_int_equal(manifest->version.generation, 1);
  assert_int_equal(model->region_count, 4);
  assert_bytes(model, "m");
  model_destroy(model);
}

static void a_directory_is_mapped(void **state) {
  (void)state;
  check_model(MODEL_MEMORY_FILE);
}

static void a_directory_is_copied(void **state) {
  (void)state;
  check_model(MODEL_MEMORY_HOST);
}

static void equal_directories_have_equal_layouts(void **state) {
  (void)state;
  make_model("m");
  assert_int_equal(mkdir("copy", 0755), 0);
  /* Made in another order, and with a link where the other has a file. */
  assert_int_equal(rename("m/empty", "copy/empty"), 0);
  assert_int_equal(rename("m/run.sh", "copy/run.sh"), 0);
  assert_int_equal(rename("m/1_Pooling", "copy/1_Pooling"), 0);
  assert_int_equal(rename("m/model.safetensors", "copy/model.safetensors"), 0);
  assert_int_equal(rename("m/config.json", "copy/config.json"), 0);
  assert_int_equal(rmdir("m"), 0);
  make_model("m");
  const char *const paths[][1] = {{"m"}, {"copy"}};
  struct model *models[2];
  for (size_t i = 0; i < 2; i++) {
    struct sprout_error error;
    struct model_options options = options_of(paths[i], 1);
    options.name = "same";
    options.rank = "tp=0/2";
    options.label = i == 0 ? "step 1" : "step 2";
    assert_int_equal(model_open(&options, &models[i], &error), SPROUT_OK);
  }
  assert_string_equal(models[0]->manifest->id, models[1]->manifest->id);
  assert_string_equal(models[0]->manifest->version.label, "step 1");
  assert_string_equal(models[0]->manifest->identity.rank, "tp=0/2");
  assert_memory_not_equal(models[0]->manifest->version.epoch, models[1]->manifest->version.epoch,
                          MANIFEST_EPOCH_BYTES);
  model_destroy(models[0]);
  model_destroy(models[1]);
}

static void what_tools_keep_is_left_out(void **state) {
  (void)state;
  static const char *const directories[] = {"m",         "m/.git", "m/.cache",
                                            "m/.sprout", "m/sub",  "m/sub/.git"};
  static const char *const files[] = {"m/.git/HEAD",      "m/.cache/x",   "m/.sprout/x",
                                      "m/a.lock",         "m/sub/.git/x", "m/sub/.hidden",
                                      "m/.gitattributes", "m/block",      "m/lock"};
  for (size_t i = 0; i < COUNT(directories); i++) assert_int_equal(mkdir(directories[i], 0755), 0);
  for (size_t i = 0; i < COUNT(files); i++) write_text(files[i], "x");
  struct model *model = open_good("m", MODEL_MEMORY_FILE);
  assert_files(model, ".gitattributes block lock sub/.hidden");
  model_destroy(model);
}

static void links_inside_are_followed_and_others_skipped(void **state) {
  (void)state;
  assert_int_equal(mkdir("m", 0755), 0);
  assert_int_equal(mkdir("m/sub", 0755), 0);
  assert_int_equal(mkdir("m-outside", 0755), 0);
  write_text("m/file", "file");
  write_text("m/sub/deep", "deep");
  write_text("m-outside/secret", "secret");
  assert_int_equal(symlink("file", "m/link"), 0);
  assert_int_equal(symlink("link", "m/link-to-link"), 0);
  assert_int_equal(symlink("sub", "m/sub-link"), 0);
  assert_int_equal(symlink("../file", "m/sub/up"), 0);
  assert_int_equal(symlink("..", "m/sub/loop"), 0);
  assert_int_equal(symlink(".", "m/self"), 0);
  assert_int_equal(symlink("circle", "m/circle"), 0);
  assert_int_equal(symlink("nowhere", "m/dangling"), 0);
  assert_int_equal(symlink("../m-outside/secret", "m/leaving"), 0);
  assert_int_equal(symlink("../m-outside", "m/leaving-directory"), 0);
  assert_int_equal(symlink("/etc/passwd", "m/absolute"), 0);
  assert_int_equal(symlink("/dev/zero", "m/device"), 0);
  assert_int_equal(mkfifo("m/fifo", 0644), 0);
  assert_int_equal(symlink("fifo", "m/fifo-link"), 0);
  struct model *model = open_good("m", MODEL_MEMORY_FILE);
  assert_files(model, "file link link-to-link sub-link/deep sub-link/up sub/deep sub/up");
  assert_bytes(model, "m");
  model_destroy(model);
}

static void snapshots_of_a_cache_work_as_they_are(void **state) {
  (void)state;
  static const char *const directories[] = {"hub",
                                            "hub/models--org--name--v2",
                                            "hub/models--org--name--v2/blobs",
                                            "hub/models--org--name--v2/snapshots",
                                            "hub/models--org--name--v2/snapshots/abc123",
                                            "hub/models--org--name--v2/snapshots/abc123/sub",
                                            "hub/other"};
  for (size_t i = 0; i < COUNT(directories); i++) assert_int_equal(mkdir(directories[i], 0755), 0);
  write_safetensors("hub/models--org--name--v2/blobs/0a1b", TWO_TENSORS, 11);
  write_text("hub/models--org--name--v2/blobs/2c3d", "{}");
  write_text("hub/other/secret", "secret");
  const char *snapshot = "hub/models--org--name--v2/snapshots/abc123";
  int fd = open(snapshot, O_RDONLY | O_DIRECTORY);
  assert_true(fd >= 0);
  assert_int_equal(symlinkat("../../blobs/0a1b", fd, "model.safetensors"), 0);
  assert_int_equal(symlinkat("../../../blobs/2c3d", fd, "sub/config.json"), 0);
  assert_int_equal(symlinkat("../../blobs", fd, "blobs"), 0);
  assert_int_equal(symlinkat("../../../other/secret", fd, "leaving"), 0);
  close(fd);
  assert_int_equal(symlink(snapshot, "link"), 0);
  char absolute[256], slash[256];
  snprintf(absolute, sizeof(absolute), "%s/%s", scratch, snapshot);
  snprintf(slash, sizeof(slash), "%s//", snapshot);
  const char *const paths[] = {snapshot, slash, absolute, "link", "link/.", "link/sub/.."};
  char id[DIGEST_HEX_BYTES] = "";
  for (size_t i = 0; i < COUNT(paths); i++) {
    struct model *model = open_good(paths[i], MODEL_MEMORY_FILE);
    assert_files(model, "model.safetensors sub/config.json");
    assert_string_equal(model->manifest->identity.model, "org/name--v2");
    assert_string_equal(model->manifest->identity.revision, "abc123");
    assert_bytes(model, snapshot);
    if (i == 0) memcpy(id, model->manifest->id, sizeof(id));
    assert_string_equal(model->manifest->id, id);
    model_destroy(model);
  }
  assert_int_equal(chdir(snapshot), 0);
  struct model *model = open_good(".", MODEL_MEMORY_FILE);
  assert_string_equal(model->manifest->id, id);
  model_destroy(model);
  model = open_good("model.safetensors", MODEL_MEMORY_FILE);
  assert_string_equal(model->manifest->identity.model, "org/name--v2");
  model_destroy(model);
}

static void names_come_from_the_path(void **state) {
  (void)state;
  assert_int_equal(mkdir("plain", 0755), 0);
  assert_int_equal(mkdir("plain/snapshots", 0755), 0);
  assert_int_equal(mkdir("plain/snapshots/x", 0755), 0);
  assert_int_equal(mkdir("models--single", 0755), 0);
  assert_int_equal(mkdir("models--single/snapshots", 0755), 0);
  assert_int_equal(mkdir("models--single/snapshots/r", 0755), 0);
  write_text("plain/snapshots/x/f", "f");
  write_text("models--single/snapshots/r/f", "f");
  assert_int_equal(symlink("plain/snapshots/x", "nick"), 0);
  static const char *const rows[][3] = {
      {"plain/snapshots/x", "x", ""},
      {"plain/snapshots/x/", "x", ""},
      {"nick", "nick", ""},
      {"nick/.", "x", ""},
      {"models--single/snapshots/r", "single", "r"},
      {"plain/snapshots/x/f", "f", ""},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct model *model = open_good(rows[i][0], MODEL_MEMORY_FILE);
    assert_string_equal(model->manifest->identity.model, rows[i][1]);
    assert_string_equal(model->manifest->identity.revision, rows[i][2]);
    model_destroy(model);
  }
}

static void single_files_have_their_base_names(void **state) {
  (void)state;
  assert_int_equal(mkdir("x", 0755), 0);
  assert_int_equal(mkdir("y", 0755), 0);
  write_safetensors("x/model.safetensors", TWO_TENSORS, 11);
  write_text("y/config.json", "{}");
  write_text("y/model.safetensors", "");
  const char *const good[] = {"x/model.safetensors", "y/config.json"};
  const struct model_options options = options_of(good, 2);
  struct model *model;
  struct sprout_error error;
  assert_int_equal(model_open(&options, &model, &error), SPROUT_OK);
  assert_files(model, "config.json model.safetensors");
  assert_string_equal(model->manifest->identity.model, "model.safetensors");
  model_destroy(model);

  const char *const twice[] = {"y/config.json", "./y/config.json"};
  assert_refused(twice, 2, SPROUT_BAD_MODEL, "two files have the path \"config.json\"");
  const char *const mixed[] = {"y/config.json", "x"};
  assert_refused(mixed, 2, SPROUT_INVALID, "x is a directory beside other paths");
  const char *const directories[] = {"x", "y"};
  assert_refused(directories, 2, SPROUT_INVALID, "x is a directory beside other paths");
  const char *const garbage[] = {"y/model.safetensors"};
  assert_refused(garbage, 1, SPROUT_BAD_MODEL, "model.safetensors\": it has 0 bytes");
  assert_refused(NULL, 0, SPROUT_INVALID, "no model was named");
}

static void what_is_no_model_is_refused(void **state) {
  (void)state;
  assert_int_equal(mkdir("empty", 0755), 0);
  assert_int_equal(mkdir("empty/sub", 0755), 0);
  assert_int_equal(mkfifo("fifo", 0644), 0);
  write_text("empty/a.lock", "");
  assert_path_refused("missing", SPROUT_IO, "cannot open missing: No such file");
  assert_path_refused("empty", SPROUT_BAD_MODEL, "empty has no file that could be served");
  assert_path_refused("fifo", SPROUT_BAD_MODEL, "fifo is not a regular file");
  assert_int_equal(mkdir("bad", 0755), 0);
  assert_int_equal(mkdir("bad/sub", 0755), 0);
  write_text("bad/sub/x.safetensors", "this is no safetensors file");
  assert_path_refused("bad", SPROUT_BAD_MODEL,
                      "file \"bad/sub/x.safetensors\": its header would have");
  write_safetensors("bad/sub/x.safetensors", TWO_TENSORS, 10);
  assert_path_refused("bad", SPROUT_BAD_MODEL,
                      "file \"bad/sub/x.safetensors\": tensor \"a\": its data ends at 11");
  write_safetensors("bad/sub/x.safetensors", TWO_TENSORS, 11);
  write_text("bad/new\nline", "x");
  assert_path_refused("bad", SPROUT_BAD_MODEL, "the name of \"new?line\" in bad");
  const char *const paths[] = {"bad/sub"};
  struct model_options options = options_of(paths, 1);
  struct model *model;
  struct sprout_error error;
  options.label = "12345678901234567890123456789012345678901234567890123456789012345";
  assert_int_equal(model_open(&options, &model, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.message, "label is longer than 64 bytes"));
}

static void unreadable_files_are_named(void **state) {
  (void)state;
  if (geteuid() != 0) skip(); /* who is not root cannot become nobody and back */
  assert_int_equal(mkdir("m", 0755), 0);
  assert_int_equal(chmod(".", 0755), 0);
  write_text("m/private", "x");
  assert_int_equal(chmod("m/private", 0600), 0);
  assert_int_equal(seteuid(65534), 0);
  assert_path_refused("m", SPROUT_IO, "m/private: Permission denied");
  assert_int_equal(seteuid(0), 0);
  assert_int_equal(chmod("m", 0700), 0);
  assert_int_equal(seteuid(65534), 0);
  assert_path_refused("m", SPROUT_IO, "Permission denied");
  assert_int_equal(seteuid(0), 0);
}

static void deep_directories_are_bounded(void **state) {
  (void)state;
  char path[256] = "m";
  assert_int_equal(mkdir(path, 0755), 0);
  for (int i = 1; i < 32; i++) {
    snprintf(path + strlen(path), sizeof(path) - strlen(path), "/d");
    assert_int_equal(mkdir(path, 0755), 0);
  }
  write_text("m/f", "x");
  model_destroy(open_good("m", MODEL_MEMORY_FILE));
  snprintf(path + strlen(path), sizeof(path) - strlen(path), "/d");
  assert_int_equal(mkdir(path, 0755), 0);
  assert_path_refused("m", SPROUT_LIMIT, "nested more than 32 deep");
}

/* Links that fan out make paths without end from few files. */
static void link_explosions_are_bounded(void **state) {
  (void)state;
  char path[32], target[32];
  assert_int_equal(mkdir("m", 0755), 0);
  for (int i = 0; i < 24; i++) {
    snprintf(path, sizeof(path), "m/%d", i);
    assert_int_equal(mkdir(path, 0755), 0);
    for (int k = 0; k < 2; k++) {
      snprintf(path, sizeof(path), "m/%d/%d", i, k);
      snprintf(target, sizeof(target), "../%d", i + 1);
      assert_int_equal(symlink(target, path), 0);
    }
  }
  assert_int_equal(mkdir("m/24", 0755), 0);
  write_text("m/24/f", "x");
  assert_path_refused("m", SPROUT_LIMIT, "more than");
}

static void descriptors_run_out_with_a_remedy(void **state) {
  (void)state;
  char path[32];
  struct rlimit before, few;
  assert_int_equal(mkdir("m", 0755), 0);
  for (int i = 0; i < 64; i++) {
    snprintf(path, sizeof(path), "m/%d", i);
    write_text(path, "x");
  }
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  few = before;
  few.rlim_cur = 40;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
  const char *const paths[] = {"m"};
  const struct model_options options = options_of(paths, 1);
  struct model *model;
  struct sprout_error error;
  enum sprout_status status = model_open(&options, &model, &error);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  assert_int_equal(status, SPROUT_LIMIT);
  assert_non_null(strstr(error.hint, "ulimit -n"));
  model_destroy(open_good("m", MODEL_MEMORY_FILE)); /* nothing was left open */
}

static void sparse_files_beyond_4_gib_work(void **state) {
  (void)state;
  const uint64_t data_bytes = 5000000004;
  static const char json[] =
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[5000000000],\"data_offsets\":[0,5000000000]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[5000000000,5000000004]}}";
  assert_int_equal(mkdir("m", 0755), 0);
  write_safetensors("m/model.safetensors", json, 0);
  off_t length = (off_t)(8 + strlen(json) + data_bytes);
  assert_int_equal(truncate("m/model.safetensors", length), 0);
  int fd = open("m/model.safetensors", O_WRONLY);
  assert_int_equal(pwrite(fd, "tail", 4, length - 4), 4);
  close(fd);
  struct model *model = open_good("m", MODEL_MEMORY_FILE);
  assert_int_equal(model->manifest->total_bytes, (uint64_t)length);
  assert_memory_equal(model_bytes(model, 2, 0), "tail", 4);
  assert_int_equal(model->placements[2].offset, (uint64_t)length - 4);
  model_destroy(model);
}

static void copies_outlive_their_files_and_are_sealed(void **state) {
  (void)state;
  make_model("m");
  struct model *model = open_good("m", MODEL_MEMORY_HOST);
  write_safetensors("m/model.safetensors", "{}", 0);
  assert_int_equal(unlink("m/run.sh"), 0);
  const struct region *region = &model->regions[0];
  assert_int_equal(region->memory, SPROUT_MEMORY_HOST);
  assert_memory_equal(model_bytes(model, 5, 0), "#!/bin/sh\n", 10);
  assert_int_equal(model_bytes(model, 4, 0)[2], 10);
  assert_int_equal(pwrite(region->fd, "x", 1, 0), -1);
  assert_int_equal(ftruncate(region->fd, 0), -1);
  assert_ptr_equal(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, region->fd, 0), MAP_FAILED);
  model_destroy(model);

  assert_int_equal(mkdir("empty-files", 0755), 0);
  write_text("empty-files/f", "");
  model_destroy(open_good("empty-files", MODEL_MEMORY_HOST));
  model_destroy(open_good("empty-files", MODEL_MEMORY_FILE));
}

static void copies_that_do_not_fit_are_refused(void **state) {
  (void)state;
  write_text("huge", "");
  if (truncate("huge", (off_t)1 << 43) != 0) skip(); /* the file system has no such lengths */
  const char *const paths[] = {"huge"};
  struct model_options options = options_of(paths, 1);
  struct model *model;
  struct sprout_error error;
  options.memory = MODEL_MEMORY_HOST;
  assert_int_equal(model_open(&options, &model, &error), SPROUT_NO_MEMORY);
  assert_non_null(strstr(error.message, "needs 8796093 MB"));
}

/* --- tensors in memory ---------------------------------------------------------------------------
 */

static unsigned char memory[4096];

#define TENSOR(the_name, the_dtype, extent, at, length)                                            \
  {                                                                                                \
    .name = (the_name), .dtype = (the_dtype), .rank = 1, .shape = {extent},                        \
    .address = memory + (at), .length_bytes = (length)                                             \
  }

static enum sprout_status from_tensors(const struct sprout_tensor *tensors, size_t count,
                                       struct model **model_out, struct sprout_error *error) {
  const struct model_options options = {.name = "embedded"};
  return model_from_tensors(tensors, count, false, &options, model_out, error);
}

static void tensors_are_laid_out_by_name(void **state) {
  (void)state;
  static const struct sprout_tensor tensors[] = {
      TENSOR("z", "F32", 4, 1000, 16),
      TENSOR("b", "BF16", 8, 0, 16),
      TENSOR("tied", "BF16", 8, 0, 16),
      TENSOR("a", "U8", 16, 16, 16),
      TENSOR("over", "U8", 24, 20, 24),
      TENSOR("inside", "U8", 2, 21, 2),
      TENSOR("none", "F32", 0, 7, 0),
      TENSOR("viewed", "I32", 4, 0, 16),
      {.name = "null", .dtype = "F32", .rank = 1},
  };
  static const struct {
    const char *name;
    uint32_t alias_of, region;
    uint64_t offset;
  } expected[] = {
      {"a", MANIFEST_NONE, 0, 16},
      {"b", MANIFEST_NONE, 0, 0},
      {"inside", MANIFEST_NONE, 0, 21},
      {"none", MANIFEST_NONE, 0, 0},
      {"null", MANIFEST_NONE, 0, 0},
      {"over", MANIFEST_NONE, 0, 20},
      {"tied", 1, 0, 0},
      {"viewed", 1, 0, 0},
      {"z", MANIFEST_NONE, 1, 0},
  };
  struct model *model, *shuffled;
  struct sprout_error error;
  assert_int_equal(from_tensors(tensors, COUNT(tensors), &model, &error), SPROUT_OK);
  assert_int_equal(model->manifest->object_count, COUNT(expected));
  for (uint32_t i = 0; i < COUNT(expected); i++) {
    const struct manifest_object *object = &model->manifest->objects[i];
    assert_string_equal(object->name, expected[i].name);
    assert_int_equal(object->alias_of, expected[i].alias_of);
    assert_int_equal(object->file, MANIFEST_NONE);
    assert_int_equal(model->placements[i].region, expected[i].region);
    assert_int_equal(model->placements[i].offset, expected[i].offset);
  }
  assert_int_equal(model->region_count, 2);
  assert_ptr_equal(model->regions[0].base, memory);
  assert_int_equal(model->regions[0].length_bytes, 44);
  assert_false(model->regions[0].immutable);
  assert_int_equal(model->regions[0].fd, -1);
  assert_ptr_equal(model_bytes(model, 8, 3), memory + 1003);
  assert_string_equal(model->manifest->identity.model, "embedded");
  assert_string_equal(model->manifest->identity.dtype, "U8");

  struct sprout_tensor reversed[COUNT(tensors)];
  for (size_t i = 0; i < COUNT(tensors); i++) reversed[i] = tensors[COUNT(tensors) - 1 - i];
  assert_int_equal(from_tensors(reversed, COUNT(reversed), &shuffled, &error), SPROUT_OK);
  assert_string_equal(shuffled->manifest->id, model->manifest->id);
  model_destroy(model);
  model_destroy(shuffled);
}

static void bad_tensors_are_refused_by_name(void **state) {
  (void)state;
  static const struct {
    struct sprout_tensor tensor;
    enum sprout_status status;
    const char *expected;
  } rows[] = {
      {{.dtype = "U8"}, SPROUT_INVALID, "has no name"},
      {{.name = "t"}, SPROUT_INVALID, "\"t\" has no dtype"},
      {TENSOR("t", "U8", 3, 0, 4), SPROUT_INVALID, "tensor \"t\" has 4 bytes, its shape"},
      {TENSOR("t", "torch.uint8", 4, 0, 4), SPROUT_INVALID, "\"t\" has a dtype that is not known"},
      {TENSOR("first", "U8", 1, 0, 1), SPROUT_INVALID, "two objects are named \"first\""},
      {TENSOR("a\nb", "U8", 1, 0, 1), SPROUT_INVALID, "\"a?b\" has a name that is not"},
      {TENSOR("t", "U8", 1ull << 50, 0, 1ull << 50), SPROUT_LIMIT, "object \"t\""},
      {{.name = "t", .dtype = "U8", .rank = 1, .shape = {1}, .length_bytes = 1},
       SPROUT_INVALID,
       "\"t\" has no address"},
      {{.name = "t",
        .dtype = "U8",
        .rank = 1,
        .shape = {UINT64_MAX},
        .address = memory,
        .length_bytes = UINT64_MAX},
       SPROUT_INVALID,
       "beyond the address space"},
      {{.name = "t", .dtype = "U8", .rank = 9, .address = memory},
       SPROUT_INVALID,
       "more than 8 dimensions"},
      {{.name = "t",
        .dtype = "U8",
        .memory = SPROUT_MEMORY_CUDA,
        .address = memory,
        .length_bytes = 1},
       SPROUT_UNSUPPORTED,
       "\"t\" does not lie in host memory"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    const struct sprout_tensor tensors[] = {TENSOR("first", "U8", 1, 0, 1), rows[i].tensor};
    struct model *model = NULL;
    struct sprout_error error = {0};
    enum sprout_status status = from_tensors(tensors, 2, &model, &error);
    if (status != rows[i].status || strstr(error.message, rows[i].expected) == NULL)
      fail_msg("row %zu: expected %d \"%s\", got %d \"%s\"", i, (int)rows[i].status,
               rows[i].expected, (int)status, error.message);
    assert_null(model);
  }
}

static void models_need_a_tensor_but_not_a_byte(void **state) {
  (void)state;
  static const struct sprout_tensor nothing[] = {{.name = "null", .dtype = "F32", .rank = 1}};
  struct model *model;
  struct sprout_error error;
  assert_int_equal(from_tensors(NULL, 0, &model, &error), SPROUT_INVALID);
  assert_int_equal(from_tensors(NULL, 0, &model, NULL), SPROUT_INVALID);
  assert_int_equal(from_tensors(nothing, 1, &model, NULL), SPROUT_OK);
  assert_int_equal(model->manifest->total_bytes, 0);
  assert_null(model_bytes(model, 0, 0));
  model_destroy(model);
}

/* 30,000 tensors in one allocation are one region. */
static void many_tensors_share_a_region(void **state) {
  (void)state;
  enum { TENSORS = 30000, BYTES = 64 };
  struct sprout_tensor *tensors = calloc(TENSORS, sizeof(*tensors));
  char(*names)[16] = calloc(TENSORS, sizeof(*names));
  unsigned char *weights = malloc((size_t)TENSORS * BYTES);
  assert_true(tensors != NULL && names != NULL && weights != NULL);
  for (size_t i = 0; i < TENSORS; i++) {
    snprintf(names[i], sizeof(names[i]), "%zu", i * 7919 % TENSORS);
    tensors[i] = (struct sprout_tensor){.name = names[i],
                                        .dtype = "U8",
                                        .rank = 1,
                                        .shape = {BYTES},
                                        .address = weights + i * BYTES,
                                        .length_bytes = BYTES};
  }
  struct model *model;
  struct sprout_error error;
  assert_int_equal(from_tensors(tensors, TENSORS, &model, &error), SPROUT_OK);
  assert_int_equal(model->region_count, 1);
  assert_int_equal(model->regions[0].length_bytes, (uint64_t)TENSORS * BYTES);
  model_destroy(model);
  free(tensors);
  free(names);
  free(weights);
}

#define IN_SCRATCH(test) cmocka_unit_test_setup_teardown(test, enter_scratch, leave_scratch)

int main(void) {
  const struct CMUnitTest tests[] = {
      IN_SCRATCH(a_directory_is_mapped),
      IN_SCRATCH(a_directory_is_copied),
      IN_SCRATCH(equal_directories_have_equal_layouts),
      IN_SCRATCH(what_tools_keep_is_left_out),
      IN_SCRATCH(links_inside_are_followed_and_others_skipped),
      IN_SCRATCH(snapshots_of_a_cache_work_as_they_are),
      IN_SCRATCH(names_come_from_the_path),
      IN_SCRATCH(single_files_have_their_base_names),
      IN_SCRATCH(what_is_no_model_is_refused),
      IN_SCRATCH(unreadable_files_are_named),
      IN_SCRATCH(deep_directories_are_bounded),
      IN_SCRATCH(link_explosions_are_bounded),
      IN_SCRATCH(descriptors_run_out_with_a_remedy),
      IN_SCRATCH(sparse_files_beyond_4_gib_work),
      IN_SCRATCH(copies_outlive_their_files_and_are_sealed),
      IN_SCRATCH(copies_that_do_not_fit_are_refused),
      cmocka_unit_test(tensors_are_laid_out_by_name),
      cmocka_unit_test(bad_tensors_are_refused_by_name),
      cmocka_unit_test(models_need_a_tensor_but_not_a_byte),
      cmocka_unit_test(many_tensors_share_a_region),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
