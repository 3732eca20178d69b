/* SPDX-License-Identifier: Apache-2.0 */
#include "core/region.h"
#include "core/synth.h"
#include "core/synth_internal.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char scratch[64];

static int make_scratch(void **state) {
  (void)state;
  snprintf(scratch, sizeof scratch, "/tmp/sprout-synth-XXXXXX");
  return mkdtemp(scratch) ? 0 : -1;
}

static int remove_scratch(void **state) {
  (void)state;
  char command[96];
  snprintf(command, sizeof command, "rm -rf '%s'", scratch);
  return system(command);
}

static const char *in_scratch(const char *name) {
  static char paths[4][128];
  static unsigned next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
  return path;
}

static unsigned char *read_file(const char *path, size_t *length_out) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  fseek(file, 0, SEEK_END);
  size_t length = (size_t)ftell(file);
  rewind(file);
  unsigned char *data = malloc(length + 1);
  assert_non_null(data);
  assert_int_equal(fread(data, 1, length, file), length);
  fclose(file);
  *length_out = length;
  return data;
}

static void assert_same(const char *a, const char *b, bool expected) {
  size_t a_bytes, b_bytes;
  unsigned char *a_data = read_file(a, &a_bytes), *b_data = read_file(b, &b_bytes);
  assert_int_equal(a_bytes == b_bytes && memcmp(a_data, b_data, a_bytes) == 0, expected);
  free(a_data);
  free(b_data);
}

static void same_seed_gives_same_bytes(void **state) {
  (void)state;
  struct sprout_error error;
  assert_int_equal(synth_write("tiny", in_scratch("a"), 7, NULL, NULL, &error), SPROUT_OK);
  assert_int_equal(synth_write("tiny", in_scratch("b"), 7, NULL, NULL, &error), SPROUT_OK);
  assert_int_equal(synth_write("tiny", in_scratch("c"), 8, NULL, NULL, &error), SPROUT_OK);
  assert_same(in_scratch("a/model.safetensors"), in_scratch("b/model.safetensors"), true);
  assert_same(in_scratch("a/model.safetensors"), in_scratch("c/model.safetensors"), false);
  assert_same(in_scratch("a/config.json"), in_scratch("c/config.json"), true);
}

static void true_shapes(void **state) {
  (void)state;
  static const struct {
    const char *spec;
    size_t tensors;
    uint64_t bytes;
  } rows[] = {
      {"all-minilm-l6-v2", 104, 90856960}, /* 22,713,216 F32 weights, 512 I64 positions */
      {"llama-3.2-1b", 146, 2471628800},   /* 1,235,814,400 parameters */
      {"llama-3.1-8b", 291, 16060522496},  /* 8,030,261,248 parameters */
      {"qwen2.5-0.5b", 290, 988065536},    /* 494,032,768 parameters */
      {"qwen3-0.6b", 311, 1503264768},     /* 751,632,384 with the head that is saved twice */
      {"tensors:30000x4KiB", 30000, 30000ull * 4096},
  };
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    struct synth_layout layout;
    struct sprout_error error;
    assert_int_equal(synth_layout_create(rows[i].spec, &layout, &error), SPROUT_OK);
    assert_int_equal(layout.count, rows[i].tensors);
    assert_int_equal(layout.total_bytes, rows[i].bytes);
    synth_layout_destroy(&layout);
  }
}

static void sizes_are_met(void **state) {
  (void)state;
  static const struct {
    const char *spec;
    uint64_t bytes;
  } rows[] = {{"size:50MB", 50000000},
              {"size:1GB", 1000000000},
              {"size:4.2GB", 4200000000},
              {"size:100GB", 100000000000}};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    struct synth_layout layout;
    struct sprout_error error;
    assert_int_equal(synth_layout_create(rows[i].spec, &layout, &error), SPROUT_OK);
    assert_true(layout.total_bytes > rows[i].bytes / 100 * 99);
    assert_true(layout.total_bytes < rows[i].bytes / 100 * 101);
    synth_layout_destroy(&layout);
  }
}

static void unknown_specs_are_refused(void **state) {
  (void)state;
  static const char *const specs[] = {
      "",         "gpt-9",        "size:",     "size:0",       "size:-1",
      "tensors:", "tensors:0x4K", "tensors:5", "tensors:5y4K", "tensors:99999999x1"};
  for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
    struct sprout_error error = {0};
    assert_int_equal(synth_write(specs[i], in_scratch("never"), 1, NULL, NULL, &error),
                     SPROUT_INVALID);
    assert_non_null(strstr(error.hint, "llama-3.1-8b"));
  }
  struct stat info;
  assert_int_not_equal(stat(in_scratch("never"), &info), 0);
}

static void directory_that_is_not_empty_is_refused(void **state) {
  (void)state;
  struct sprout_error error = {0};
  assert_int_equal(mkdir(in_scratch("full"), 0755), 0);
  FILE *file = fopen(in_scratch("full/mine"), "w");
  assert_non_null(file);
  fclose(file);
  assert_int_equal(synth_write("tiny", in_scratch("full"), 1, NULL, NULL, &error), SPROUT_EXISTS);
  assert_int_equal(synth_write("tiny", in_scratch("no/parent"), 1, NULL, NULL, &error), SPROUT_IO);
}

/* The second file does not fit: nothing of the first is left, nor the directory. */
static void failures_leave_nothing(void **state) {
  (void)state;
  struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
  struct rlimit limit, small;
  struct sprout_error error = {0};
  struct stat info;
  assert_int_equal(sigaction(SIGXFSZ, &ignore, &before), 0);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
  small = limit;
  small.rlim_cur = 4096;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
  enum sprout_status made = synth_write("tiny", in_scratch("new"), 1, NULL, NULL, &error);
  assert_int_equal(mkdir(in_scratch("old"), 0755), 0);
  enum sprout_status kept = synth_write("tiny", in_scratch("old"), 1, NULL, NULL, &error);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  assert_int_equal(sigaction(SIGXFSZ, &before, NULL), 0);
  assert_int_equal(made, SPROUT_NO_SPACE);
  assert_int_equal(kept, SPROUT_NO_SPACE);
  assert_int_not_equal(stat(in_scratch("new"), &info), 0);
  assert_int_equal(rmdir(in_scratch("old")), 0); /* empty, as it was */
}

static void too_large_a_model_is_refused_at_once(void **state) {
  (void)state;
  struct sprout_error error = {0};
  struct stat info;
  assert_int_equal(synth_write("tensors:1000x1TB", in_scratch("huge"), 1, NULL, NULL, &error),
                   SPROUT_NO_SPACE);
  assert_non_null(strstr(error.message, "the model needs 1000000000 MB"));
  assert_int_not_equal(stat(in_scratch("huge"), &info), 0);
}

/* What is written is what a seed takes, with the shapes that were asked for. */
static void models_can_be_opened(void **state) {
  (void)state;
  static const char *const specs[] = {"tiny", "tensors:3x4", "tensors:2x0"};
  for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
    char path[128];
    const char *const paths[] = {path};
    const struct model_options options = {.paths = paths, .path_count = 1};
    struct sprout_error error = {0};
    struct model *model;
    snprintf(path, sizeof path, "%s/%zu", scratch, i);
    assert_int_equal(synth_write(specs[i], path, 1, NULL, NULL, &error), SPROUT_OK);
    if (model_open(&options, &model, &error) != SPROUT_OK) fail_msg("%s", error.message);
    if (i == 0) {
      uint32_t object = manifest_find_object(model->manifest, "model.layers.3.mlp.up_proj.weight");
      assert_int_not_equal(object, MANIFEST_NONE);
      assert_int_equal(model->manifest->objects[object].shape[0], 192);
      assert_int_equal(model->manifest->objects[object].shape[1], 64);
      assert_string_equal(model->manifest->identity.dtype, "BF16");
    }
    model_destroy(model);
  }
}

static void note_progress(void *context, uint64_t done_bytes, uint64_t total_bytes) {
  uint64_t *last = context;
  assert_true(done_bytes > *last && done_bytes <= total_bytes);
  *last = done_bytes;
}

static void progress_reaches_the_end(void **state) {
  (void)state;
  uint64_t last = 0;
  struct sprout_error error;
  assert_int_equal(
      synth_write("tensors:300x8KiB", in_scratch("p"), 1, note_progress, &last, &error), SPROUT_OK);
  assert_int_equal(last, 300u * 8192u);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(same_seed_gives_same_bytes, make_scratch, remove_scratch),
      cmocka_unit_test(true_shapes),
      cmocka_unit_test(sizes_are_met),
      cmocka_unit_test_setup_teardown(unknown_specs_are_refused, make_scratch, remove_scratch),
      cmocka_unit_test_setup_teardown(directory_that_is_not_empty_is_refused, make_scratch,
                                      remove_scratch),
      cmocka_unit_test_setup_teardown(failures_leave_nothing, make_scratch, remove_scratch),
      cmocka_unit_test_setup_teardown(too_large_a_model_is_refused_at_once, make_scratch,
                                      remove_scratch),
      cmocka_unit_test_setup_teardown(models_can_be_opened, make_scratch, remove_scratch),
      cmocka_unit_test_setup_teardown(progress_reaches_the_end, make_scratch, remove_scratch),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
