/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/limits.h"
#include "net/wire.h"
#include "net/wire_pack.h"
#include "net/wire_value.h"
#include "tests/support/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define FIXTURE SPROUT_SOURCE_DIR "/tests/fixtures/wire/v1/manifest.msgpack"
#define HEADER_BYTES 32u
#define WEIGHT_BYTES (5ull * SPROUT_CHUNK_BYTES)

static void must(enum sprout_status status) {
  assert_int_equal(status, SPROUT_OK);
}

/* The manifest of the fixture. */
static struct manifest *build_tiny(void) {
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct manifest_identity identity = {"tiny", "main", "bf16", "", "", "", "main", "tp=0/2"};
  struct manifest_version version = {
      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, 7, "step-100"};
  struct manifest_object blob = {.name = "config.json",
                                 .dtype = "",
                                 .alias_of = MANIFEST_NONE,
                                 .length_bytes = 5,
                                 .generation = 7};
  struct manifest_object weight = {.name = "a.weight",
                                   .dtype = "BF16",
                                   .kind = SPROUT_OBJECT_TENSOR,
                                   .alias_of = MANIFEST_NONE,
                                   .rank = 2,
                                   .shape = {5120, 2048},
                                   .length_bytes = WEIGHT_BYTES,
                                   .file_offset = HEADER_BYTES,
                                   .generation = 6};
  struct manifest_object loose = {.name = "loose",
                                  .dtype = "F32",
                                  .kind = SPROUT_OBJECT_TENSOR,
                                  .alias_of = MANIFEST_NONE,
                                  .rank = 1,
                                  .shape = {4},
                                  .length_bytes = 16,
                                  .generation = 7};
  must(manifest_builder_create(&builder));
  must(manifest_builder_identity(builder, &identity));
  manifest_builder_version(builder, &version);
  must(manifest_builder_file(builder, "config.json", 5, false));
  must(manifest_builder_object(builder, &blob, true));
  must(manifest_builder_file(builder, "empty", 0, false));
  must(manifest_builder_file(builder, "sub/model.safetensors", HEADER_BYTES + WEIGHT_BYTES, true));
  blob.name = MANIFEST_HEADER_NAME;
  blob.length_bytes = HEADER_BYTES;
  must(manifest_builder_object(builder, &blob, true));
  must(manifest_builder_object(builder, &weight, true));
  weight.name = "b.weight";
  weight.alias_of = 2;
  must(manifest_builder_object(builder, &weight, true));
  must(manifest_builder_object(builder, &loose, false));
  must(manifest_build(builder, &manifest, NULL));
  return manifest;
}

static void check_object(const struct manifest_object *a, const struct manifest_object *b) {
  assert_string_equal(a->name, b->name);
  assert_string_equal(a->dtype, b->dtype);
  assert_int_equal(a->kind, b->kind);
  assert_int_equal(a->file, b->file);
  assert_int_equal(a->alias_of, b->alias_of);
  assert_int_equal(a->rank, b->rank);
  assert_memory_equal(a->shape, b->shape, sizeof(a->shape));
  assert_memory_equal(a->strides, b->strides, sizeof(a->strides));
  assert_int_equal(a->length_bytes, b->length_bytes);
  assert_int_equal(a->file_offset, b->file_offset);
  assert_int_equal(a->generation, b->generation);
  assert_int_equal(a->first_chunk, b->first_chunk);
  assert_int_equal(a->chunk_count, b->chunk_count);
}

static void check_same(const struct manifest *a, const struct manifest *b) {
  char text[256];
  assert_false(manifest_identity_differs(&a->identity, &b->identity, text, sizeof(text)));
  assert_memory_equal(a->version.epoch, b->version.epoch, MANIFEST_EPOCH_BYTES);
  assert_int_equal(a->version.generation, b->version.generation);
  assert_string_equal(a->version.label, b->version.label);
  assert_int_equal(a->object_count, b->object_count);
  assert_int_equal(a->file_count, b->file_count);
  assert_int_equal(a->chunk_count, b->chunk_count);
  assert_int_equal(a->total_bytes, b->total_bytes);
  assert_string_equal(a->id, b->id);
  for (uint32_t i = 0; i < a->object_count; i++) check_object(&a->objects[i], &b->objects[i]);
  for (uint32_t i = 0; i < a->file_count; i++) {
    assert_string_equal(a->files[i].path, b->files[i].path);
    assert_int_equal(a->files[i].length_bytes, b->files[i].length_bytes);
    assert_int_equal(a->files[i].first_object, b->files[i].first_object);
    assert_int_equal(a->files[i].object_count, b->files[i].object_count);
    assert_int_equal(a->files[i].executable, b->files[i].executable);
  }
}

/* Decodes from memory of exactly this size; NULL and *error on failure. */
static struct manifest *decode(const void *data, size_t length, struct sprout_error *error) {
  struct manifest *manifest = NULL;
  void *copy = malloc(length ? length : 1);
  assert_non_null(copy);
  memcpy(copy, data, length);
  enum sprout_status status = wire_manifest_decode(copy, length, &manifest, error);
  free(copy);
  assert_int_equal(status == SPROUT_OK, manifest != NULL);
  if (!manifest) assert_int_equal(status, error->status);
  return manifest;
}

static void a_manifest_comes_back(void **state) {
  (void)state;
  struct manifest *manifest = build_tiny();
  for (int draining = 0; draining < 2; draining++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct sprout_error error = {0};
    must(wire_manifest_encode(manifest, draining, &buffer));
    struct manifest *again = decode(buffer.data, buffer.length_bytes, &error);
    if (!again) fail_msg("%s", error.message);
    check_same(manifest, again);
    manifest_destroy(again);
    wire_buffer_destroy(&buffer);
  }
  manifest_destroy(manifest);
}

static void the_manifest_of_protocol_1_stays_readable(void **state) {
  (void)state;
  char data[2048];
  struct sprout_error error = {0};
  FILE *file = fopen(FIXTURE, "rb");
  assert_non_null(file);
  size_t length = fread(data, 1, sizeof(data), file);
  assert_int_equal(fclose(file), 0);
  struct manifest *manifest = build_tiny();
  struct manifest *kept = decode(data, length, &error);
  if (!kept) fail_msg("%s (the layout is %s)", error.message, manifest->id);
  check_same(manifest, kept);
  manifest_destroy(kept);
  manifest_destroy(manifest);
}

static void an_empty_manifest_comes_back(void **state) {
  (void)state;
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct sprout_error error = {0};
  must(manifest_builder_create(&builder));
  must(manifest_build(builder, &manifest, NULL));
  must(wire_manifest_encode(manifest, false, &buffer));
  struct manifest *again = decode(buffer.data, buffer.length_bytes, &error);
  assert_non_null(again);
  check_same(manifest, again);
  manifest_destroy(again);
  manifest_destroy(manifest);
  wire_buffer_destroy(&buffer);
}

static void every_cut_is_refused(void **state) {
  (void)state;
  struct manifest *manifest = build_tiny();
  struct wire_buffer buffer = {NULL, 0, 0};
  must(wire_manifest_encode(manifest, false, &buffer));
  for (size_t length = 0; length < buffer.length_bytes; length++) {
    struct sprout_error error = {0};
    assert_null(decode(buffer.data, length, &error));
    assert_int_equal(error.status, SPROUT_PROTOCOL);
    assert_true(error.message[0]);
  }
  wire_buffer_destroy(&buffer);
  manifest_destroy(manifest);
}

/* One byte changed anywhere is refused, or changes only what the layout does not cover. */
static void any_changed_byte_is_survived(void **state) {
  (void)state;
  struct manifest *manifest = build_tiny();
  struct wire_buffer buffer = {NULL, 0, 0};
  must(wire_manifest_encode(manifest, false, &buffer));
  for (size_t at = 0; at < buffer.length_bytes; at++) {
    unsigned char kept = buffer.data[at];
    for (unsigned bit = 0; bit < 8; bit++) {
      struct sprout_error error = {0};
      buffer.data[at] = (unsigned char)(kept ^ 1u << bit);
      struct manifest *changed = decode(buffer.data, buffer.length_bytes, &error);
      if (changed) assert_string_equal(changed->id, manifest->id);
      manifest_destroy(changed);
    }
    buffer.data[at] = kept;
  }
  wire_buffer_destroy(&buffer);
  manifest_destroy(manifest);
}

/* --- records made by hand --- */

/* What differs from a right manifest of one file with one object; zero: nothing. */
struct forgery {
  const char *sprout, *critical;
  uint64_t protocol_min, protocol_max, chunk, objects, files;
  uint64_t rank, kind, alias;
  uint32_t extra_head_keys, extra_records, extra_elements;
  bool no_layout, wrong_layout, no_file, short_object, wrong_stride, text_kind;
};

static void write_forged_head(struct wire_writer *writer, const struct forgery *forgery,
                              const struct digest *layout) {
  uint32_t keys = 9u + (forgery->critical != NULL) + forgery->extra_head_keys - forgery->no_layout;
  wire_write_map(writer, keys);
  if (forgery->critical) {
    wire_write_text(writer, "critical");
    wire_write_array(writer, 2);
    wire_write_text(writer, "layout");
    wire_write_text(writer, forgery->critical);
  }
  for (uint32_t i = 0; i < forgery->extra_head_keys; i++) {
    wire_write_text(writer, "later");
    wire_write_unsigned(writer, i);
  }
  wire_write_text(writer, "sprout");
  wire_write_text(writer, forgery->sprout ? forgery->sprout : "manifest");
  wire_write_text(writer, "protocol");
  wire_write_protocol(writer, forgery->protocol_min ? (uint32_t)forgery->protocol_min : 1,
                      forgery->protocol_max ? (uint32_t)forgery->protocol_max : 1);
  wire_write_text(writer, "identity");
  wire_write_map(writer, 0);
  wire_write_text(writer, "epoch");
  wire_write_bytes(writer, layout->bytes, MANIFEST_EPOCH_BYTES);
  wire_write_text(writer, "generation");
  wire_write_unsigned(writer, 1);
  wire_write_text(writer, "objects");
  wire_write_unsigned(writer, forgery->objects ? forgery->objects : 1);
  wire_write_text(writer, "files");
  wire_write_unsigned(writer, forgery->files ? forgery->files : 1);
  wire_write_text(writer, "chunk");
  wire_write_unsigned(writer, forgery->chunk ? forgery->chunk : SPROUT_CHUNK_BYTES);
  if (forgery->no_layout) return;
  wire_write_text(writer, "layout");
  wire_write_bytes(writer, layout->bytes, DIGEST_BYTES);
}

static void write_forged_object(struct wire_writer *writer, const struct forgery *forgery) {
  wire_write_array(writer, forgery->short_object ? 10 : 11 + forgery->extra_elements);
  if (forgery->text_kind) {
    wire_write_text(writer, "object");
  } else {
    wire_write_unsigned(writer, 1);
  }
  wire_write_text(writer, "t");
  wire_write_unsigned(writer, forgery->kind ? forgery->kind : SPROUT_OBJECT_TENSOR);
  wire_write_text(writer, "U8");
  wire_write_unsigned(writer, 6);
  wire_write_unsigned(writer, 0);
  wire_write_bool(writer, true);
  if (forgery->alias) {
    wire_write_unsigned(writer, forgery->alias);
  } else {
    wire_write_nil(writer);
  }
  wire_write_unsigned(writer, 1);
  wire_write_array(writer, forgery->rank ? forgery->rank : 2);
  wire_write_unsigned(writer, 2);
  wire_write_unsigned(writer, 3);
  for (uint64_t i = 2; i < forgery->rank; i++) wire_write_unsigned(writer, 1);
  if (forgery->short_object) return;
  if (forgery->wrong_stride) {
    wire_write_array(writer, 2);
    wire_write_unsigned(writer, UINT64_MAX);
    wire_write_unsigned(writer, 1);
  } else {
    wire_write_nil(writer);
  }
  for (uint32_t i = 0; i < forgery->extra_elements; i++) wire_write_text(writer, "later");
}

static struct wire_buffer forge(const struct forgery *forgery, const struct digest *layout) {
  struct wire_buffer buffer = {NULL, 0, 0};
  struct wire_writer writer;
  wire_writer_begin(&writer, &buffer);
  write_forged_head(&writer, forgery, layout);
  for (uint32_t i = 0; i < forgery->extra_records; i++) {
    wire_write_array(&writer, 2);
    wire_write_unsigned(&writer, 2 + i);
    wire_write_map(&writer, 0);
  }
  if (!forgery->no_file) {
    wire_write_array(&writer, 4 + forgery->extra_elements);
    wire_write_unsigned(&writer, 0);
    wire_write_text(&writer, "f");
    wire_write_unsigned(&writer, 6);
    wire_write_bool(&writer, false);
    for (uint32_t i = 0; i < forgery->extra_elements; i++) wire_write_nil(&writer);
  }
  write_forged_object(&writer, forgery);
  must(wire_writer_end(&writer));
  return buffer;
}

/* The right layout of the forged manifest. */
static struct digest forged_layout(void) {
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct manifest_object object = {.name = "t",
                                   .dtype = "U8",
                                   .kind = SPROUT_OBJECT_TENSOR,
                                   .alias_of = MANIFEST_NONE,
                                   .rank = 2,
                                   .shape = {2, 3},
                                   .length_bytes = 6,
                                   .generation = 1};
  must(manifest_builder_create(&builder));
  must(manifest_builder_file(builder, "f", 6, false));
  must(manifest_builder_object(builder, &object, true));
  must(manifest_build(builder, &manifest, NULL));
  struct digest layout = manifest->layout;
  manifest_destroy(manifest);
  return layout;
}

static void forgeries_are_told_apart(void **state) {
  (void)state;
  static const struct {
    struct forgery forgery;
    enum sprout_status status;
    const char *message;
  } cases[] = {
      {{.sprout = NULL}, SPROUT_OK, ""},
      {{.extra_elements = 3}, SPROUT_OK, ""},
      {{.extra_records = 3}, SPROUT_OK, ""},
      {{.extra_head_keys = 20}, SPROUT_OK, ""},
      {{.critical = "chunk"}, SPROUT_OK, ""},
      {{.protocol_max = 9}, SPROUT_OK, ""},
      {{.critical = "sparse"}, SPROUT_VERSION, "\"sparse\""},
      {{.protocol_min = 2, .protocol_max = 3}, SPROUT_VERSION, "protocol 2 to 3"},
      {{.protocol_min = 2}, SPROUT_PROTOCOL, "min above max"},
      {{.sprout = "something"}, SPROUT_PROTOCOL, "something else"},
      {{.chunk = 1}, SPROUT_PROTOCOL, "\"chunk\""},
      {{.no_layout = true}, SPROUT_PROTOCOL, "\"layout\" is missing"},
      {{.wrong_layout = true}, SPROUT_PROTOCOL, "\"layout\" is not the digest"},
      {{.objects = 2}, SPROUT_PROTOCOL, "fewer"},
      {{.files = 2}, SPROUT_PROTOCOL, "fewer"},
      {{.objects = LIMIT_OBJECTS + 1}, SPROUT_PROTOCOL, "\"objects\""},
      {{.files = LIMIT_FILES + 1}, SPROUT_PROTOCOL, "\"files\""},
      {{.no_file = true}, SPROUT_PROTOCOL, "\"t\""},
      {{.short_object = true}, SPROUT_PROTOCOL, "too few elements"},
      {{.text_kind = true}, SPROUT_PROTOCOL, "begins with its kind"},
      {{.kind = 2}, SPROUT_PROTOCOL, "\"kind\""},
      {{.alias = 1}, SPROUT_PROTOCOL, "\"alias\""},
      {{.alias = UINT64_MAX}, SPROUT_PROTOCOL, "\"alias\""},
      {{.rank = 8}, SPROUT_PROTOCOL, "\"layout\" is not the digest"},
      {{.rank = 9}, SPROUT_PROTOCOL, "\"shape\""},
      {{.rank = 200}, SPROUT_PROTOCOL, "\"shape\""},
      {{.rank = 300}, SPROUT_PROTOCOL, "too many"},
      {{.wrong_stride = true}, SPROUT_PROTOCOL, "\"strides\""},
  };
  struct digest layout = forged_layout();
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct sprout_error error = {0};
    struct digest stated = layout;
    if (cases[i].forgery.wrong_layout) stated.bytes[3] ^= 1;
    struct wire_buffer buffer = forge(&cases[i].forgery, &stated);
    struct manifest *manifest = decode(buffer.data, buffer.length_bytes, &error);
    if (error.status != cases[i].status || !strstr(error.message, cases[i].message))
      fail_msg("case %zu: %s", i, error.message);
    manifest_destroy(manifest);
    wire_buffer_destroy(&buffer);
  }
}

static void hostile_msgpack_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t length;
  } cases[] = {
#define BYTES(text) {text, sizeof(text) - 1}
      BYTES(""),
      BYTES("\xdd\xff\xff\xff\xff"),
      BYTES("\xdf\xff\xff\xff\xff"),
      BYTES("\x81\xa6sprout\xdb\xff\xff\xff\xff"),
      BYTES("\xc1"),
      BYTES("\xc0"),
      BYTES("\x80"),
      BYTES("\x90"),
      BYTES("{\"error\":{}}"),
      BYTES("<html>"),
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct sprout_error error = {0};
    assert_null(decode(cases[i].bytes, cases[i].length, &error));
    assert_int_equal(error.status, SPROUT_PROTOCOL);
  }
  /* A record of unbounded length. */
  size_t length = 1u << 20;
  char *large = calloc(1, length);
  struct sprout_error error = {0};
  assert_non_null(large);
  memcpy(large, "\x81\xa1x\xc6\x00\x0f\xff\x00", 8);
  assert_null(decode(large, length, &error));
  assert_non_null(strstr(error.message, "too long"));
  free(large);
}

static void endless_unknown_records_are_refused(void **state) {
  (void)state;
  struct forgery forgery = {.extra_records = LIMIT_OBJECTS + 1};
  struct digest layout = forged_layout();
  struct wire_buffer buffer = forge(&forgery, &layout);
  struct sprout_error error = {0};
  assert_null(decode(buffer.data, buffer.length_bytes, &error));
  assert_non_null(strstr(error.message, "unknown kinds"));
  wire_buffer_destroy(&buffer);
}

static void memory_may_run_out(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct manifest *manifest = build_tiny();
  struct wire_buffer kept = {NULL, 0, 0};
  enum sprout_status status = SPROUT_NO_MEMORY;
  for (long count = 0; status != SPROUT_OK; count++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    memory_fail_after(count);
    status = wire_manifest_encode(manifest, false, &buffer);
    assert_int_equal(memory_restore(), status == SPROUT_NO_MEMORY);
    assert_int_equal(buffer.data != NULL, status == SPROUT_OK);
    kept = buffer;
  }
  status = SPROUT_NO_MEMORY;
  for (long count = 0; status != SPROUT_OK; count++) {
    struct manifest *again = NULL;
    struct sprout_error error = {.status = SPROUT_OK};
    memory_fail_after(count);
    status = wire_manifest_decode(kept.data, kept.length_bytes, &again, &error);
    assert_int_equal(memory_restore(), status == SPROUT_NO_MEMORY);
    assert_int_equal(again != NULL, status == SPROUT_OK);
    manifest_destroy(again);
  }
  wire_buffer_destroy(&kept);
  manifest_destroy(manifest);
}

/* --- size --- */

static struct manifest *build_large(uint32_t count) {
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  must(manifest_builder_create(&builder));
  must(manifest_builder_file(builder, "model.safetensors", 4096ull * count, false));
  for (uint32_t i = 0; i < count; i++) {
    char name[64];
    (void)snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.%u.up_proj.weight", i / 256,
                   i % 256);
    struct manifest_object object = {.name = name,
                                     .dtype = "BF16",
                                     .kind = SPROUT_OBJECT_TENSOR,
                                     .alias_of = MANIFEST_NONE,
                                     .rank = 2,
                                     .shape = {32, 64},
                                     .length_bytes = 4096,
                                     .file_offset = 4096ull * i,
                                     .generation = 1};
    must(manifest_builder_object(builder, &object, true));
  }
  must(manifest_build(builder, &manifest, NULL));
  return manifest;
}

static double seconds_now(void) {
  struct timespec now;
  assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void a_hundred_thousand_objects_come_back(void **state) {
  (void)state;
  static const uint32_t counts[] = {30000, 100000};
  for (size_t i = 0; i < COUNT(counts); i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct manifest *again = NULL, *manifest = build_large(counts[i]);
    struct sprout_error error = {0};
    double begin = seconds_now();
    must(wire_manifest_encode(manifest, false, &buffer));
    double encoded = seconds_now();
    must(wire_manifest_decode(buffer.data, buffer.length_bytes, &again, &error));
    double decoded = seconds_now();
    print_message("%u objects: %zu bytes, encoded in %.1f ms, decoded in %.1f ms\n", counts[i],
                  buffer.length_bytes, (encoded - begin) * 1e3, (decoded - encoded) * 1e3);
    check_same(manifest, again);
    manifest_destroy(again);
    manifest_destroy(manifest);
    wire_buffer_destroy(&buffer);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_manifest_comes_back),
      cmocka_unit_test(the_manifest_of_protocol_1_stays_readable),
      cmocka_unit_test(an_empty_manifest_comes_back),
      cmocka_unit_test(every_cut_is_refused),
      cmocka_unit_test(any_changed_byte_is_survived),
      cmocka_unit_test(forgeries_are_told_apart),
      cmocka_unit_test(hostile_msgpack_is_refused),
      cmocka_unit_test(endless_unknown_records_are_refused),
      cmocka_unit_test(memory_may_run_out),
      cmocka_unit_test(a_hundred_thousand_objects_come_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
