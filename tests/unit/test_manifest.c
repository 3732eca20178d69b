/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/limits.h"
#include "core/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NONE MANIFEST_NONE
#define MIB (1024ull * 1024)

/* One step of building: a file (path set) or an object (name set). */
struct step {
  const char *path;
  const char *name, *dtype;
  uint64_t length_bytes, offset;
  uint32_t alias_of; /* + 1; 0: none */
  uint32_t rank;
  uint64_t shape[SPROUT_MAX_RANK];
  int64_t strides[SPROUT_MAX_RANK];
  bool loose; /* the object is in no file */
};

#define FILE_STEP(the_path, length)                                                                \
  { .path = (the_path), .length_bytes = (length) }
#define BLOB(the_name, length)                                                                     \
  { .name = (the_name), .dtype = "", .length_bytes = (length) }
#define TENSOR(the_name, the_dtype, extent, at, length)                                            \
  {                                                                                                \
    .name = (the_name), .dtype = (the_dtype), .rank = 1, .shape = {extent}, .offset = (at),        \
    .length_bytes = (length)                                                                       \
  }
#define ALIAS(the_name, the_dtype, extent, at, length, target)                                     \
  {                                                                                                \
    .name = (the_name), .dtype = (the_dtype), .rank = 1, .shape = {extent}, .offset = (at),        \
    .length_bytes = (length), .alias_of = (target) + 1                                             \
  }
#define LOOSE(the_name, the_dtype, extent, length)                                                 \
  {                                                                                                \
    .name = (the_name), .dtype = (the_dtype), .rank = 1, .shape = {extent},                        \
    .length_bytes = (length), .loose = true                                                        \
  }

static enum sprout_status add(struct manifest_builder *builder, const struct step *step) {
  if (step->path != NULL)
    return manifest_builder_file(builder, step->path, step->length_bytes, false);
  struct manifest_object object = {
      .name = step->name,
      .dtype = step->dtype,
      .kind = step->dtype[0] == '\0' && step->rank == 0 ? SPROUT_OBJECT_BLOB : SPROUT_OBJECT_TENSOR,
      .alias_of = step->alias_of == 0 ? NONE : step->alias_of - 1,
      .rank = step->rank,
      .length_bytes = step->length_bytes,
      .file_offset = step->offset};
  memcpy(object.shape, step->shape, sizeof(object.shape));
  memcpy(object.strides, step->strides, sizeof(object.strides));
  return manifest_builder_object(builder, &object, !step->loose);
}

static enum sprout_status build(const struct step *steps, size_t count,
                                const struct manifest_identity *identity,
                                struct manifest **manifest_out, struct sprout_error *error) {
  struct manifest_builder *builder;
  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  if (identity != NULL) assert_int_equal(manifest_builder_identity(builder, identity), SPROUT_OK);
  /* A failure of adding is looked at only where it matters: build reports it again. */
  for (size_t i = 0; i < count; i++)
    if (add(builder, &steps[i]) != SPROUT_OK) break;
  enum sprout_status status = manifest_build(builder, manifest_out, error);
  if (status != SPROUT_OK) manifest_builder_destroy(builder);
  return status;
}

static struct manifest *build_good(const struct step *steps, size_t count) {
  struct manifest *manifest = NULL;
  struct sprout_error error = {0};
  if (build(steps, count, NULL, &manifest, &error) != SPROUT_OK) fail_msg("%s", error.message);
  return manifest;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A header, two tensors with an alias, an empty file, a small blob: the shape of a real model. */
static const struct step model[] = {
    FILE_STEP("config.json", 100),
    BLOB("config.json", 100),
    FILE_STEP("empty", 0),
    FILE_STEP("model.safetensors", 64 + 10 * MIB + 8),
    BLOB(MANIFEST_HEADER_NAME, 64),
    TENSOR("nothing", "F32", 0, 64, 0),
    TENSOR("a", "U8", 10 * MIB, 64, 10 * MIB),
    ALIAS("a.tied", "I8", 10 * MIB, 64, 10 * MIB, 3),
    TENSOR("b", "F32", 2, 64 + 10 * MIB, 8),
};

static void chunks_and_sums_are_derived(void **state) {
  (void)state;
  struct manifest *manifest = build_good(model, COUNT(model));
  assert_int_equal(manifest->object_count, 6);
  assert_int_equal(manifest->file_count, 3);
  assert_int_equal(manifest->files[1].object_count, 0);
  assert_int_equal(manifest->files[2].first_object, 1);
  assert_int_equal(manifest->files[2].object_count, 5);
  assert_int_equal(manifest->total_bytes, 100 + 64 + 10 * MIB + 8);
  assert_int_equal(manifest->chunk_count, 1 + 1 + 0 + 3 + 1);
  assert_int_equal(manifest->objects[2].chunk_count, 0);
  assert_int_equal(manifest->objects[3].first_chunk, 2);
  assert_int_equal(manifest->objects[3].chunk_count, 3);
  assert_int_equal(manifest->objects[4].first_chunk, 2);
  assert_int_equal(manifest->objects[4].chunk_count, 3);
  assert_int_equal(manifest->objects[5].first_chunk, 5);
  static const struct manifest_chunk expected[] = {
      {0, 0, 100},           {1, 0, 64}, {3, 0, 4 * MIB}, {3, 4 * MIB, 4 * MIB},
      {3, 8 * MIB, 2 * MIB}, {5, 0, 8},
  };
  for (uint64_t i = 0; i < manifest->chunk_count; i++) {
    struct manifest_chunk chunk = manifest_chunk_at(manifest, i);
    assert_int_equal(chunk.object, expected[i].object);
    assert_int_equal(chunk.offset, expected[i].offset);
    assert_int_equal(chunk.length_bytes, expected[i].length_bytes);
  }
  manifest_destroy(manifest);
}

static void names_and_paths_are_found(void **state) {
  (void)state;
  static const struct step steps[] = {
      LOOSE("both", "U8", 1, 1), FILE_STEP("a!", 1), BLOB("both", 1),
      FILE_STEP("a/x", 1),       BLOB("x", 1),       FILE_STEP("a/y", 2),
      BLOB("both", 2),
  };
  struct manifest *manifest = build_good(steps, COUNT(steps));
  assert_int_equal(manifest_find_object(manifest, "x"), 2);
  assert_int_equal(manifest_find_object(manifest, "both"), 1); /* in a file before in none */
  assert_int_equal(manifest_find_object(manifest, "bot"), NONE);
  assert_int_equal(manifest_find_object(manifest, ""), NONE);
  assert_int_equal(manifest_find_file(manifest, "a!"), 0);
  assert_int_equal(manifest_find_file(manifest, "a/x"), 1);
  assert_int_equal(manifest_find_file(manifest, "a/y"), 2);
  assert_int_equal(manifest_find_file(manifest, "a"), NONE);
  assert_int_equal(manifest_find_file(manifest, "a\x01x"), NONE);
  assert_int_equal(manifest_find_file(manifest, ""), NONE);
  manifest_destroy(manifest);
  manifest = build_good(NULL, 0);
  assert_int_equal(manifest_find_object(manifest, "x"), NONE);
  assert_int_equal(manifest_find_file(manifest, "x"), NONE);
  assert_int_equal(manifest->chunk_count, 0);
  manifest_destroy(manifest);
}

struct bad_row {
  const char *expected; /* in the message */
  struct step steps[5];
};

static const struct bad_row bad_rows[] = {
    /* paths */
    {"\"\" is no relative path", {FILE_STEP("", 0)}},
    {"\"/etc/passwd\" is no relative path", {FILE_STEP("/etc/passwd", 0)}},
    {"\"../x\" is no relative path", {FILE_STEP("../x", 0)}},
    {"no relative path", {FILE_STEP("a/../x", 0)}},
    {"no relative path", {FILE_STEP("a/..", 0)}},
    {"no relative path", {FILE_STEP("./a", 0)}},
    {"no relative path", {FILE_STEP("a//b", 0)}},
    {"no relative path", {FILE_STEP("a/", 0)}},
    {"\"a?b\" is no relative path", {FILE_STEP("a\nb", 0)}},
    {"\"a?\" is no relative path", {FILE_STEP("a\xFF", 0)}},
    {"reserved part", {FILE_STEP(".git/hooks/post-checkout", 0)}},
    {"reserved part", {FILE_STEP("a/.sprout", 0)}},
    {"two files have the path \"a\"", {FILE_STEP("a", 0), FILE_STEP("b", 0), FILE_STEP("a", 0)}},
    {"\"a\" is a file and a directory",
     {FILE_STEP("a/b", 0), FILE_STEP("a!", 0), FILE_STEP("a", 0)}},
    /* places */
    {"file \"f\" has 1 bytes, its objects end at 0", {FILE_STEP("f", 1)}},
    {"file \"f\" has 3 bytes, its objects end at 2", {FILE_STEP("f", 3), BLOB("f", 2)}},
    {"ends beyond the end", {FILE_STEP("f", 1), BLOB("f", 2)}},
    {"file \"f\": tensor \"t\" begins at byte 2, after a hole that begins at 1",
     {FILE_STEP("f", 3), BLOB("h", 1), TENSOR("t", "U8", 1, 2, 1)}},
    {"inside of the one before, which ends at 2",
     {FILE_STEP("f", 3), BLOB("h", 2), TENSOR("t", "U8", 2, 1, 2)}},
    {"begins at byte 2, after a hole that begins at 0",
     {FILE_STEP("f", 3), TENSOR("t", "U8", 1, 2, 1)}},
    {"has 2 bytes, its objects end at 1",
     {FILE_STEP("f", 2), BLOB("f", 1), FILE_STEP("g", 1), BLOB("g", 1)}},
    {"ends beyond the end", {FILE_STEP("f", 9), BLOB("f", 1), TENSOR("t", "X", 1, 1, UINT64_MAX)}},
    {"no file", {{.name = "t", .dtype = "U8", .length_bytes = 1, .offset = 5, .loose = true}}},
    {"none was started", {TENSOR("t", "U8", 1, 0, 1)}},
    {"apart from the other objects of its file",
     {FILE_STEP("f", 2), BLOB("f", 1), LOOSE("l", "U8", 1, 1), TENSOR("t", "U8", 1, 1, 1)}},
    /* names */
    {"file \"f\": two objects are named \"t\"",
     {FILE_STEP("f", 2), TENSOR("t", "U8", 1, 0, 1), TENSOR("t", "U8", 1, 1, 1)}},
    {"two objects are named \"t\"", {LOOSE("t", "U8", 1, 1), LOOSE("t", "U8", 1, 1)}},
    {"tensor \"a?[2J\" has a name that is not", {LOOSE("a\x1b[2J", "U8", 1, 1)}},
    {"tensor \"?\" has a name that is not", {LOOSE("\xC0", "U8", 1, 1)}},
    {"tensor \"???\" has a name that is not", {LOOSE("\xED\xA0\x80", "U8", 1, 1)}},
    {"has a dtype that is no text", {LOOSE("t", "U\x01", 1, 1)}},
    {"has no dtype", {{.name = "t", .dtype = "", .rank = 1, .loose = true}}},
    /* shapes */
    {"tensor \"t\" has 3 bytes, its shape and dtype F32 need 4", {LOOSE("t", "F32", 1, 3)}},
    {"has 4 bytes, its shape and dtype U8 need 0", {LOOSE("t", "U8", 0, 4)}},
    {"3 elements of F4, which is no whole number of bytes", {LOOSE("t", "F4", 3, 2)}},
    {"overflows 64 bits",
     {{.name = "t", .dtype = "X", .rank = 2, .shape = {1ull << 32, 1ull << 32}, .loose = true}}},
    {"overflows 64 bits", {LOOSE("t", "F64", 1ull << 61, 0)}},
    {"overflows 64 bits", {LOOSE("t", "U8", 0, 1ull << 62)}},
    {"overflows 64 bits",
     {{.name = "t",
       .dtype = "U8",
       .rank = 1,
       .shape = {2},
       .strides = {INT64_MIN},
       .loose = true,
       .length_bytes = 2}}},
    {"overflows 64 bits",
     {{.name = "t",
       .dtype = "U8",
       .rank = 2,
       .shape = {1ull << 33, 2},
       .loose = true,
       .strides = {1ll << 33, 7},
       .length_bytes = 2}}},
    {"has 4 bytes, its shape and dtype U8 need 7",
     {{.name = "t",
       .dtype = "U8",
       .rank = 2,
       .shape = {2, 2},
       .strides = {5, 1},
       .loose = true,
       .length_bytes = 4}}},
    {"has 9 dimensions", {{.name = "t", .dtype = "U8", .rank = 9, .loose = true}}},
    /* aliases */
    {"does not precede it", {FILE_STEP("f", 1), ALIAS("t", "U8", 1, 0, 1, 0)}},
    {"does not precede it",
     {FILE_STEP("f", 1), ALIAS("t", "U8", 1, 0, 1, 1), TENSOR("u", "U8", 1, 0, 1)}},
    {"alias of an alias",
     {FILE_STEP("f", 1), TENSOR("t", "U8", 1, 0, 1), ALIAS("u", "U8", 1, 0, 1, 0),
      ALIAS("v", "U8", 1, 0, 1, 1)}},
    {"of other length or place",
     {FILE_STEP("f", 2), TENSOR("t", "U8", 2, 0, 2), ALIAS("u", "U8", 1, 0, 1, 0)}},
    {"of other length or place",
     {FILE_STEP("f", 2), TENSOR("t", "U8", 2, 0, 2), ALIAS("u", "U8", 2, 1, 2, 0)}},
    {"not of one tensor to another",
     {FILE_STEP("f", 2), BLOB("t", 2), ALIAS("u", "U8", 2, 0, 2, 0)}},
    {"into another file",
     {FILE_STEP("f", 1), TENSOR("t", "U8", 1, 0, 1), FILE_STEP("g", 1),
      ALIAS("u", "U8", 1, 0, 1, 0)}},
    {"does not stand next to",
     {FILE_STEP("f", 2), TENSOR("t", "U8", 1, 0, 1), TENSOR("u", "U8", 1, 1, 1),
      ALIAS("v", "U8", 1, 0, 1, 0)}},
};

static void bad_manifests_are_refused_by_name(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(bad_rows); i++) {
    struct sprout_error error = {0};
    struct manifest *manifest = NULL;
    size_t count = 0;
    while (count < COUNT(bad_rows[i].steps) &&
           (bad_rows[i].steps[count].path != NULL || bad_rows[i].steps[count].name != NULL))
      count++;
    enum sprout_status status = build(bad_rows[i].steps, count, NULL, &manifest, &error);
    if (status == SPROUT_BAD_MODEL && strstr(error.message, bad_rows[i].expected) != NULL) continue;
    fail_msg("row %zu: expected \"%s\", got %d \"%s\"", i, bad_rows[i].expected, (int)status,
             error.message);
  }
}

static void odd_but_valid_manifests_are_taken(void **state) {
  (void)state;
  static const struct step steps[] = {
      FILE_STEP("a\\b.txt", 0),
      FILE_STEP(".hidden/..x/x..", 1),
      BLOB("", 1), /* an empty name is a name */
      FILE_STEP("caf\xC3\xA9", 3),
      TENSOR("\xF0\x9F\x8C\xB1", "F4", 6, 0, 3),
      {.name = "scalar", .dtype = "F64", .length_bytes = 8, .loose = true, .rank = 0},
      {.name = "unknown dtype",
       .dtype = "Q3_K",
       .rank = 1,
       .shape = {256},
       .length_bytes = 110,
       .loose = true},
      {.name = "transposed",
       .dtype = "F32",
       .rank = 2,
       .shape = {3, 5},
       .strides = {1, 3},
       .length_bytes = 60,
       .loose = true},
      {.name = "reversed",
       .dtype = "U8",
       .rank = 1,
       .shape = {4},
       .strides = {-2},
       .length_bytes = 7,
       .loose = true},
  };
  struct manifest *manifest = build_good(steps, COUNT(steps));
  assert_int_equal(manifest_find_object(manifest, ""), 0);
  manifest_destroy(manifest);
}

/* The form is documented in manifest_layout.c; this value was computed from it independently. */
static void the_layout_digest_is_canonical(void **state) {
  (void)state;
  static const struct manifest_identity identity = {
      .model = "org/name", .revision = "r1", .dtype = "F32", .role = "main", .rank = "tp=0/2"};
  static const struct step steps[] = {
      FILE_STEP("m.safetensors", 20),
      BLOB(MANIFEST_HEADER_NAME, 12),
      {.name = "t",
       .dtype = "F32",
       .rank = 2,
       .shape = {1, 2},
       .strides = {2, 1},
       .offset = 12,
       .length_bytes = 8},
      ALIAS("u", "F32", 2, 12, 8, 1),
  };
  struct manifest *manifest = NULL;
  struct sprout_error error = {0};
  assert_int_equal(build(steps, COUNT(steps), &identity, &manifest, &error), SPROUT_OK);
  assert_int_equal(manifest->objects[1].strides[0], 0); /* row-major has one spelling */
  assert_string_equal(manifest->id, "9d21c920488cca192f3c7534f9ca5d9c");
  manifest_destroy(manifest);
}

static struct digest layout_of(const struct step *steps, size_t count,
                               const struct manifest_identity *identity) {
  struct manifest *manifest = NULL;
  struct sprout_error error = {0};
  assert_int_equal(build(steps, count, identity, &manifest, &error), SPROUT_OK);
  struct digest layout = manifest->layout;
  manifest_destroy(manifest);
  return layout;
}

static void the_layout_digest_sees_every_part(void **state) {
  (void)state;
  const struct manifest_identity none = {0};
  struct digest base = layout_of(model, COUNT(model), &none), other;
  const struct manifest_identity identities[] = {
      {.model = "x"},  {.revision = "x"}, {.dtype = "x"}, {.quantization = "x"},
      {.engine = "x"}, {.layout = "x"},   {.role = "x"},  {.rank = "x"},
  };
  for (size_t i = 0; i < COUNT(identities); i++) {
    other = layout_of(model, COUNT(model), &identities[i]);
    assert_false(digest_equal(&base, &other));
  }
  struct step changed[COUNT(model)];
  memcpy(changed, model, sizeof(model));
  changed[0].path = "config.jsoo";
  other = layout_of(changed, COUNT(changed), &none);
  assert_false(digest_equal(&base, &other));
  memcpy(changed, model, sizeof(model));
  changed[8].dtype = "I32";
  other = layout_of(changed, COUNT(changed), &none);
  assert_false(digest_equal(&base, &other));
  other = layout_of(model, COUNT(model), NULL);
  assert_true(digest_equal(&base, &other));
}

static void version_is_kept_but_not_part_of_the_layout(void **state) {
  (void)state;
  struct manifest_version version = {.epoch = {1, 2, 3}, .generation = 7, .label = "step 9"};
  struct manifest *manifest, *plain = build_good(NULL, 0);
  struct manifest_builder *builder;
  struct sprout_error error;
  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  manifest_builder_version(builder, &version);
  assert_int_equal(manifest_build(builder, &manifest, &error), SPROUT_OK);
  assert_memory_equal(&manifest->version, &version, sizeof(version));
  assert_string_equal(manifest->id, plain->id);
  manifest_destroy(manifest);
  manifest_destroy(plain);

  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  memset(version.label, 'x', sizeof(version.label));
  manifest_builder_version(builder, &version);
  assert_int_equal(manifest_build(builder, &manifest, &error), SPROUT_BAD_MODEL);
  version = (struct manifest_version){.label = "a\nb"};
  manifest_builder_destroy(builder);
  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  manifest_builder_version(builder, &version);
  assert_int_equal(manifest_build(builder, &manifest, &error), SPROUT_BAD_MODEL);
  manifest_builder_destroy(builder);
}

static void limits_hold_and_say_so(void **state) {
  (void)state;
  char *name = malloc(LIMIT_NAME_BYTES + 2);
  assert_non_null(name);
  memset(name, 'n', LIMIT_NAME_BYTES + 1);
  name[LIMIT_NAME_BYTES + 1] = '\0';
  struct manifest *manifest;
  struct sprout_error error = {0};
  const struct step too_long[] = {LOOSE(name, "U8", 1, 1)};
  assert_int_equal(build(too_long, 1, NULL, &manifest, &error), SPROUT_LIMIT);
  assert_non_null(strstr(error.message, "longer than 4096 bytes"));
  const struct step too_long_path[] = {FILE_STEP(name, 0)};
  assert_int_equal(build(too_long_path, 1, NULL, &manifest, &error), SPROUT_LIMIT);
  name[LIMIT_NAME_BYTES] = '\0';
  const struct step fits[] = {LOOSE(name, "U8", 1, 1)};
  manifest_destroy(build_good(fits, 1));
  const struct step huge[] = {LOOSE("t", "X", 1, 1ull << 60)};
  assert_int_equal(build(huge, 1, NULL, &manifest, &error), SPROUT_LIMIT);
  assert_non_null(strstr(error.message, "object \"t\""));
  const struct step overflowing[] = {LOOSE("t", "X", 1, UINT64_MAX),
                                     LOOSE("u", "X", 1, UINT64_MAX)};
  assert_int_equal(build(overflowing, 2, NULL, &manifest, &error), SPROUT_LIMIT);
  free(name);

  struct manifest_builder *builder;
  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  enum sprout_status status = SPROUT_OK;
  for (uint32_t i = 0; i <= LIMIT_FILES && status == SPROUT_OK; i++) {
    char path[16];
    snprintf(path, sizeof(path), "%u", i);
    status = manifest_builder_file(builder, path, 0, false);
    assert_int_equal(status, i < LIMIT_FILES ? SPROUT_OK : SPROUT_LIMIT);
  }
  manifest_builder_destroy(builder);
}

static void identities_are_compared_key_by_key(void **state) {
  (void)state;
  const struct manifest_identity a = {"m", "", "F32", "", "", "", "main", "tp=0/2"};
  struct manifest_identity b = a;
  char text[256];
  assert_false(manifest_identity_differs(&a, &b, text, sizeof(text)));
  assert_string_equal(text, "");
  b.rank = "tp=1/2";
  b.dtype = "";
  assert_true(manifest_identity_differs(&a, &b, text, sizeof(text)));
  assert_string_equal(text, "dtype: F32 here, none there; rank: tp=0/2 here, tp=1/2 there");
  char small[12];
  assert_true(manifest_identity_differs(&a, &b, small, sizeof(small)));
  assert_string_equal(small, "dtype: F32 ");
}

static void identity_texts_are_checked(void **state) {
  (void)state;
  struct manifest_builder *builder;
  struct manifest *manifest;
  struct sprout_error error;
  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  const struct manifest_identity bad = {.model = "a\rb"};
  assert_int_equal(manifest_builder_identity(builder, &bad), SPROUT_BAD_MODEL);
  assert_int_equal(manifest_build(builder, &manifest, &error), SPROUT_BAD_MODEL);
  assert_non_null(strstr(error.message, "model \"a?b\""));
  manifest_builder_destroy(builder);
}

static void quotes_are_short_and_printable(void **state) {
  (void)state;
  char buffer[MANIFEST_QUOTE_BYTES], text[1000];
  assert_string_equal(manifest_quote("a\xC3\xA9\x7F\x1b\xFFz", buffer), "a\xC3\xA9\x7F??z");
  for (size_t i = 0; i + 1 < sizeof(text); i += 3) memcpy(text + i, "\xE2\x82\xAC", 3);
  text[sizeof(text) - 1] = '\0';
  manifest_quote(text, buffer);
  assert_true(manifest_text_ok(buffer));
  assert_true(strlen(buffer) < MANIFEST_QUOTE_BYTES);
  assert_string_equal(buffer + strlen(buffer) - 3, "...");
}

/* A big model of small tensors, names sharing long beginnings. */
static void many_objects_are_no_problem(void **state) {
  (void)state;
  enum { OBJECTS = 100000 };
  struct manifest_builder *builder;
  struct manifest *manifest;
  struct sprout_error error;
  char name[64];
  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  for (uint32_t i = 0; i < OBJECTS; i++) {
    snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.%u.weight", i / 256, i % 256);
    const struct step step = LOOSE(name, "BF16", 8, 16);
    assert_int_equal(add(builder, &step), SPROUT_OK);
  }
  assert_int_equal(manifest_build(builder, &manifest, &error), SPROUT_OK);
  assert_int_equal(manifest->chunk_count, OBJECTS);
  for (uint32_t i = 0; i < OBJECTS; i += 37) {
    snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.%u.weight", i / 256, i % 256);
    assert_int_equal(manifest_find_object(manifest, name), i);
    assert_int_equal(manifest_chunk_at(manifest, i).object, i);
  }
  manifest_destroy(manifest);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(chunks_and_sums_are_derived),
      cmocka_unit_test(names_and_paths_are_found),
      cmocka_unit_test(bad_manifests_are_refused_by_name),
      cmocka_unit_test(odd_but_valid_manifests_are_taken),
      cmocka_unit_test(the_layout_digest_is_canonical),
      cmocka_unit_test(the_layout_digest_sees_every_part),
      cmocka_unit_test(version_is_kept_but_not_part_of_the_layout),
      cmocka_unit_test(limits_hold_and_say_so),
      cmocka_unit_test(identities_are_compared_key_by_key),
      cmocka_unit_test(identity_texts_are_checked),
      cmocka_unit_test(quotes_are_short_and_printable),
      cmocka_unit_test(many_objects_are_no_problem),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
