/* SPDX-License-Identifier: Apache-2.0 */
#include "core/filter.h"

#include "core/bitmap.h"
#include "tests/support/memory.h"
#include "tests/support/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct small_object objects[] = {
    {.file = "model-1.safetensors", .name = "__header__", .length_bytes = 8, .blob = true},
    {.file = "model-1.safetensors", .name = "embed", .length_bytes = 16},
    {.file = "model-1.safetensors", .name = "lm_head", .length_bytes = 16, .alias = true},
    {.file = "model-1.safetensors", .name = "layer.0", .length_bytes = 4},
    {.file = "sub/model-2.safetensors", .name = "layer.1", .length_bytes = 4},
    {.file = "sub/empty"},
    {.file = "config.json", .name = "config.json", .length_bytes = 3, .blob = true},
    {.name = "loose", .length_bytes = 9},
};
/* 0 header, 1 embed, 2 lm_head, 3 layer.0, 4 layer.1, 5 config.json, 6 loose */
#define OBJECTS 7u

static struct manifest *make(void) {
  const struct small_model model = {.objects = objects,
                                    .count = sizeof(objects) / sizeof(objects[0])};
  struct manifest *manifest = small_manifest(&model);
  assert_int_equal(manifest->object_count, OBJECTS);
  return manifest;
}

struct row {
  const char *include, *exclude, *tensor; /* one glob each; NULL: none */
  const char *selected;                   /* "x" per object; NULL: refused */
};

static const struct row rows[] = {
    {NULL, NULL, NULL, "xxxxxxx"},
    {"*", NULL, NULL, "xxxxxxx"},
    {"*.safetensors", NULL, NULL, "xxxxx.."},
    {"model-*", NULL, NULL, "xxxx..."},
    {"sub/*", NULL, NULL, "....x.."},
    {NULL, "*.safetensors", NULL, ".....xx"},
    {"*.safetensors", "sub/*", NULL, "xxxx..."},
    {NULL, NULL, "layer.*", "...xx.."},
    {NULL, NULL, "lm_head", ".xx...."}, /* and whose bytes they are */
    {NULL, NULL, "l*", ".xxxx.x"},
    {"sub/*", NULL, "layer.*", "....x.."},
    {"sub/empty", NULL, NULL, "......."}, /* a file without bytes is something */
    {NULL, NULL, "config.json", NULL},    /* no tensor */
    {"nothing", NULL, NULL, NULL},
    {NULL, "*", NULL, NULL},
    {"sub/empty", NULL, "layer.*", NULL},
};

static struct fork_filter filter_of(const struct row *row) {
  return (struct fork_filter){.include = &row->include,
                              .include_count = row->include != NULL,
                              .exclude = &row->exclude,
                              .exclude_count = row->exclude != NULL,
                              .tensor = &row->tensor,
                              .tensor_count = row->tensor != NULL};
}

static void test_globs(void **state) {
  (void)state;
  struct manifest *manifest = make();
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct fork_filter filter = filter_of(&rows[i]);
    struct sprout_error error = {.status = SPROUT_OK};
    uint64_t *selected = NULL;
    enum sprout_status status = filter_select(manifest, &filter, &selected, &error);
    if (rows[i].selected == NULL) {
      assert_int_equal(status, SPROUT_INVALID);
      assert_int_equal(error.status, SPROUT_INVALID);
      continue;
    }
    assert_int_equal(status, SPROUT_OK);
    for (uint32_t object = 0; object < OBJECTS; object++)
      assert_int_equal(selected == NULL || bits_get(selected, object),
                       rows[i].selected[object] == 'x');
    free(selected);
  }
  manifest_destroy(manifest);
}

static void test_refusal_names_the_globs(void **state) {
  (void)state;
  struct manifest *manifest = make();
  const struct row row = {"a*", "b*", "c*", NULL};
  struct fork_filter filter = filter_of(&row);
  struct sprout_error error;
  uint64_t *selected;
  assert_int_equal(filter_select(manifest, &filter, &selected, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.message, "--include 'a*' --exclude 'b*' --tensor 'c*'"));
  assert_true(error.hint[0] != '\0');
  manifest_destroy(manifest);
}

static void test_many_globs_fit(void **state) {
  (void)state;
  struct manifest *manifest = make();
  static const char *globs[200];
  for (size_t i = 0; i < 200; i++) globs[i] = "no-such-thing-*";
  struct fork_filter filter = {.include = globs, .include_count = 200};
  struct sprout_error error;
  uint64_t *selected;
  assert_int_equal(filter_select(manifest, &filter, &selected, &error), SPROUT_INVALID);
  assert_true(strlen(error.message) < sizeof(error.message));
  manifest_destroy(manifest);
}

/* Names are taken as they are, globs and missing names do not matter. */
static void test_exact_names(void **state) {
  (void)state;
  struct manifest *manifest = make();
  static const char *const names[] = {"layer.1", "missing", "lm_head", "*"};
  static const char *const include[] = {"nothing"};
  struct fork_filter filter = {
      .exact = names, .exact_count = 4, .include = include, .include_count = 1};
  uint64_t *selected = NULL;
  assert_int_equal(filter_select(manifest, &filter, &selected, NULL), SPROUT_OK);
  assert_int_equal(selected[0], 1u << 1 | 1u << 2 | 1u << 4);
  free(selected);
  filter.exact_count = 0;
  assert_int_equal(filter_select(manifest, &filter, &selected, NULL), SPROUT_OK);
  assert_non_null(selected);
  assert_int_equal(selected[0], 0);
  free(selected);
  manifest_destroy(manifest);
}

static void test_no_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct manifest *manifest = make();
  const struct row row = {"*", NULL, NULL, NULL};
  struct fork_filter filter = filter_of(&row);
  uint64_t *selected;
  memory_fail_after(0);
  enum sprout_status status = filter_select(manifest, &filter, &selected, NULL);
  assert_true(memory_restore());
  assert_int_equal(status, SPROUT_NO_MEMORY);
  manifest_destroy(manifest);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_globs),          cmocka_unit_test(test_refusal_names_the_globs),
      cmocka_unit_test(test_many_globs_fit), cmocka_unit_test(test_exact_names),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
