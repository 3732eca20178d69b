/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/limits.h"
#include "core/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Parses `json` as the header of a file with `data_bytes` behind it, from a buffer of exactly that
 * size, so that a sanitizer sees reads beyond it. */
static enum sprout_status parse(const char *json, size_t json_bytes, uint64_t data_bytes,
                                struct safetensors_header *header_out, struct sprout_error *error) {
  unsigned char *head = malloc(8 + json_bytes);
  assert_non_null(head);
  for (size_t i = 0; i < 8; i++) head[i] = (unsigned char)((uint64_t)json_bytes >> (8 * i));
  memcpy(head + 8, json, json_bytes);
  enum sprout_status status = safetensors_parse("m.safetensors", head, 8 + json_bytes,
                                                8 + json_bytes + data_bytes, header_out, error);
  free(head);
  return status;
}

/* "a":{...} with the usual members */
#define T(name, dtype, shape, begin, end)                                                          \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" begin "," end   \
  "]}"

struct good_row {
  const char *json;
  uint64_t data_bytes;
  uint32_t count;
  const char *order; /* names in file order, each followed by ';', ties as "name=target;" */
};

static const struct good_row good_rows[] = {
    {"{}", 0, 0, ""},
    {"{ }   \n\t ", 0, 0, ""},
    {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, 0, ""},
    {"{\"__metadata__\":{}}", 0, 0, ""},
    {"{\"__metadata__\":null}", 0, 0, ""},
    {"{" T("a", "F32", "2,2", "0", "16") "}", 16, 1, "a;"},
    {"{ " T("a", "F32", "", "0", "4") " }        ", 4, 1, "a;"},
    {"{\"a\" : { \"shape\" : [ 1 ] ,\r\n\"data_offsets\":[0,1],\t\"dtype\":\"U8\" } }", 1, 1, "a;"},
    /* order of the file, not of the header */
    {"{" T("a", "U8", "2", "1", "3") "," T("b", "U8", "1", "0", "1") "}", 3, 2, "b;a;"},
    /* every dtype */
    {"{" T("a", "BOOL", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F4", "6", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F6_E2M3", "4", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F6_E3M2", "2,2", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "U8", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "I8", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F8_E5M2", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F8_E4M3", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F8_E8M0", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F8_E4M3FNUZ", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "F8_E5M2FNUZ", "3", "0", "3") "}", 3, 1, "a;"},
    {"{" T("a", "I16", "3", "0", "6") "}", 6, 1, "a;"},
    {"{" T("a", "U16", "3", "0", "6") "}", 6, 1, "a;"},
    {"{" T("a", "F16", "3", "0", "6") "}", 6, 1, "a;"},
    {"{" T("a", "BF16", "3", "0", "6") "}", 6, 1, "a;"},
    {"{" T("a", "I32", "3", "0", "12") "}", 12, 1, "a;"},
    {"{" T("a", "U32", "3", "0", "12") "}", 12, 1, "a;"},
    {"{" T("a", "F32", "3", "0", "12") "}", 12, 1, "a;"},
    {"{" T("a", "C64", "3", "0", "24") "}", 24, 1, "a;"},
    {"{" T("a", "F64", "3", "0", "24") "}", 24, 1, "a;"},
    {"{" T("a", "I64", "3", "0", "24") "}", 24, 1, "a;"},
    {"{" T("a", "U64", "3", "0", "24") "}", 24, 1, "a;"},
    /* zero lengths: alone, at the beginning, between, at the end, several at one place */
    {"{" T("z", "F32", "0", "0", "0") "}", 0, 1, "z;"},
    {"{" T("z", "F32", "0,7", "0", "0") "," T("a", "U8", "1", "0", "1") "}", 1, 2, "z;a;"},
    {"{" T("a", "U8", "1", "0", "1") "," T("z", "U8", "0", "1", "1") "," T("b", "U8", "1", "1",
                                                                           "2") "}",
     2, 3, "a;z;b;"},
    {"{" T("z", "U8", "0", "1", "1") "," T("a", "U8", "1", "0", "1") "," T("y", "I8", "0", "1",
                                                                           "1") "}",
     1, 3, "a;y;z;"},
    /* ties */
    {"{" T("b", "U8", "4", "0", "4") "," T("a", "F32", "1", "0", "4") "}", 4, 2, "a;b=a;"},
    {"{" T("a", "U8", "1", "0", "1") "," T("b", "U8", "1", "0", "1") "," T(
         "c", "U8", "1", "0", "1") "," T("d", "U8", "1", "1", "2") "," T("z", "U8", "0", "0",
                                                                         "0") "}",
     2, 5, "z;a;b=a;c=a;d;"},
    /* rank 8, names of any UTF-8, escapes, unknown members */
    {"{" T("a", "U8", "1,1,1,1,1,1,1,2", "0", "2") "}", 2, 1, "a;"},
    {"{" T("", "U8", "1", "0", "1") "}", 1, 1, ";"},
    {"{" T("\xF0\x9F\x8C\xB1/\\u00e9\\/\\\\", "U8", "1", "0", "1") "}", 1, 1,
     "\xF0\x9F\x8C\xB1/\xC3\xA9/\\;"},
    {"{\"a\":{\"x\":{\"y\":[1.5,true]},\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
     1, "a;"},
    /* large numbers in a zero shape do not overflow */
    {"{" T("a", "F32", "0,9223372036854775807,9223372036854775807", "0", "0") "}", 0, 1, "a;"},
};

static void good_headers_are_taken(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(good_rows); i++) {
    struct safetensors_header header;
    struct sprout_error error = {0};
    const struct good_row *row = &good_rows[i];
    char order[256] = "";
    if (parse(row->json, strlen(row->json), row->data_bytes, &header, &error) != SPROUT_OK)
      fail_msg("row %zu: %s", i, error.message);
    assert_int_equal(header.count, row->count);
    assert_int_equal(header.data_offset, 8 + strlen(row->json));
    for (uint32_t k = 0; k < header.count; k++) {
      const struct safetensors_tensor *tensor = &header.tensors[k];
      size_t used = strlen(order);
      bool tied = tensor->alias_of != UINT32_MAX;
      if (tied) assert_true(tensor->alias_of < k);
      snprintf(order + used, sizeof(order) - used, "%s%s%s;", tensor->name, tied ? "=" : "",
               tied ? header.tensors[tensor->alias_of].name : "");
    }
    assert_string_equal(order, row->order);
    safetensors_destroy(&header);
  }
}

static void fields_are_what_the_header_says(void **state) {
  (void)state;
  static const char json[] = "{\"__metadata__\":{\"format\":\"pt\",\"quant_method\":\"awq\"}," T(
      "w", "BF16", "3,5", "10", "40") "," T("v", "U8", "10", "0", "10") "}";
  struct safetensors_header header;
  struct sprout_error error;
  assert_int_equal(parse(json, strlen(json), 40, &header, &error), SPROUT_OK);
  const struct safetensors_tensor *w = &header.tensors[1];
  assert_string_equal(w->name, "w");
  assert_string_equal(w->dtype, "BF16");
  assert_int_equal(w->rank, 2);
  assert_int_equal(w->shape[0], 3);
  assert_int_equal(w->shape[1], 5);
  assert_int_equal(w->shape[2], 0);
  assert_int_equal(w->file_offset, header.data_offset + 10);
  assert_int_equal(w->length_bytes, 30);
  assert_int_equal(w->alias_of, UINT32_MAX);
  assert_string_equal(header.quantization, "awq");
  safetensors_destroy(&header);
  assert_int_equal(parse("{}", 2, 0, &header, &error), SPROUT_OK);
  assert_string_equal(header.quantization, "");
  safetensors_destroy(&header);
}

struct bad_row {
  const char *json;
  uint64_t data_bytes;
  const char *expected; /* in the message */
};

static const struct bad_row bad_rows[] = {
    /* JSON */
    {"", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"[]", 0, "does not begin with '{'"},
    {"null", 0, "does not begin with '{'"},
    {"{", 0, "not valid JSON"},
    {"{}x", 0, "something follows"},
    {"{}{}", 0, "something follows"},
    {"{,}", 0, "a name in quotes expected"},
    {"{\"a\"", 0, "':' expected"},
    {"{\"a\"}", 0, "':' expected"},
    {"{\"a\":", 0, "ends too early"},
    {"{\"a\":}", 0, "not valid JSON"},
    {"{\"a", 0, "not valid JSON"},
    {"{a:1}", 0, "a name in quotes expected"},
    {"{1:1}", 0, "a name in quotes expected"},
    {"{'a':1}", 0, "a name in quotes expected"},
    {"{" T("a", "U8", "1", "0", "1"), 1, "',' or '}' expected"},
    {"{" T("a", "U8", "1", "0", "1") ",}", 1, "a name in quotes expected"},
    {"{" T("a", "U8", "1", "0", "1") " " T("b", "U8", "1", "1", "2") "}", 2, "',' or '}'"},
    {"{" T("a", "U8", "1,", "0", "1") "}", 1, "not valid JSON"},
    {"{" T("a\xFF", "U8", "1", "0", "1") "}", 1, "not valid JSON"},
    {"{" T("a\\ud800", "U8", "1", "0", "1") "}", 1, "not valid JSON"},
    {"{" T("a\\u0000", "U8", "1", "0", "1") "}", 1, "not valid JSON"},
    {"{" T("a\\u001b[2J", "U8", "1", "0", "1") "}", 1, "control characters"},
    {"{" T("a", "U8", "1", "0", "1") "," T("a", "U8", "1", "1", "2") "}", 2,
     "tensor \"a\": two tensors have this name"},
    {"{" T("a", "U8", "1", "0", "1") "," T("\\u0061", "U8", "1", "0", "1") "}", 1,
     "two tensors have this name"},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "duplicate"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "duplicate"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "two members __metadata__"},
    /* metadata */
    {"{\"__metadata__\":[]}", 0, "__metadata__ is no JSON object"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ has a value that is no string, \"a\""},
    {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "no string"},
    /* members */
    {"{\"a\":1}", 0, "tensor \"a\": it is no JSON object"},
    {"{\"a\":[]}", 0, "it is no JSON object"},
    {"{\"a\":null}", 0, "it is no JSON object"},
    {"{\"a\":{}}", 0, "its dtype is no string"},
    {"{\"a\":{\"dtype\":\"U8\"}}", 0, "its shape is no list"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets are not two integers"},
    {"{\"a\":{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "its dtype is no string"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":{},\"data_offsets\":[0,1]}}", 1, "its shape is no list"},
    {"{" T("a", "u8", "1", "0", "1") "}", 1, "dtype \"u8\" is not known"},
    {"{" T("a", "F32\\n", "1", "0", "4") "}", 4, "dtype \"F32?\" is not known"},
    {"{" T("a", "U8", "-1", "0", "1") "}", 1, "dimension 0 of its shape"},
    {"{" T("a", "U8", "1,1.0", "0", "1") "}", 1, "dimension 1 of its shape"},
    {"{" T("a", "U8", "\"1\"", "0", "1") "}", 1, "dimension 0 of its shape"},
    {"{" T("a", "U8", "1e0", "0", "1") "}", 1, "dimension 0 of its shape"},
    {"{" T("a", "U8", "18446744073709551616", "0", "1") "}", 1, "too big integer"},
    {"{" T("a", "U8", "1,1,1,1,1,1,1,1,1", "0", "1") "}", 1, "9 dimensions, at most 8"},
    {"{" T("__header__", "U8", "1", "0", "1") "}", 1, "reserved"},
    /* offsets */
    {"{" T("a", "U8", "1", "0", "1") "}", 0, "its data ends at 1, the file's data at 0"},
    {"{" T("a", "U8", "1", "-1", "0") "}", 1, "data_offsets are not two integers"},
    {"{" T("a", "U8", "1", "0", "1,2") "}", 1, "data_offsets are not two integers"},
    {"{" T("a", "U8", "1", "0", "1.0") "}", 1, "data_offsets are not two integers"},
    {"{" T("a", "U8", "1", "1", "0") "}", 1, "ends before it begins"},
    {"{" T("a", "U8", "1", "0", "9223372036854775807") "}", 1, "its data ends at 9223372036854775"},
    {"{" T("a", "U8", "1", "9223372036854775807", "9223372036854775807") "}", 1, "its data ends"},
    /* sizes */
    {"{" T("a", "F32", "2", "0", "7") "}", 7, "has 7 bytes, its shape and dtype F32 need 8"},
    {"{" T("a", "F32", "2", "0", "9") "}", 9, "has 9 bytes, its shape and dtype F32 need 8"},
    {"{" T("a", "F4", "3", "0", "2") "}", 2, "give no whole bytes"},
    {"{" T("a", "F6_E2M3", "3", "0", "2") "}", 2, "give no whole bytes"},
    {"{" T("a", "F32", "0", "0", "4") "}", 4, "has 4 bytes, its shape and dtype F32 need 0"},
    {"{" T("a", "U8", "4294967296,4294967296", "0", "0") "}", 0, "overflows 64 bits"},
    {"{" T("a", "U8", "9223372036854775807", "0", "0") "}", 0, "overflows 64 bits"},
    {"{" T("a", "F64", "2305843009213693952", "0", "0") "}", 0, "overflows 64 bits"},
    /* places */
    {"{}", 1, "its tensors end at 0, its data at 1"},
    {"{" T("a", "U8", "1", "0", "1") "}", 2, "its tensors end at 1, its data at 2"},
    {"{" T("a", "U8", "1", "1", "2") "}", 2, "after a hole that begins at 0"},
    {"{" T("a", "U8", "1", "0", "1") "," T("b", "U8", "1", "2", "3") "}", 3,
     "tensor \"b\": its data begins at 2, after a hole that begins at 1"},
    {"{" T("a", "U8", "2", "0", "2") "," T("b", "U8", "2", "1", "3") "}", 3,
     "tensor \"b\": its data overlaps that of \"a\""},
    {"{" T("a", "U8", "1", "0", "1") "," T("b", "U8", "2", "0", "2") "}", 2,
     "tensor \"b\": its data overlaps that of \"a\""},
    {"{" T("a", "U8", "4", "0", "4") "," T("b", "U8", "2", "1", "3") "}", 4, "overlaps"},
    {"{" T("a", "U8", "4", "0", "4") "," T("z", "U8", "0", "2", "2") "}", 4,
     "tensor \"z\": its data overlaps that of \"a\""},
};

static void bad_headers_are_refused_by_name(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(bad_rows); i++) {
    struct safetensors_header header;
    struct sprout_error error = {0};
    const struct bad_row *row = &bad_rows[i];
    enum sprout_status status =
        parse(row->json, strlen(row->json), row->data_bytes, &header, &error);
    if (status == SPROUT_OK) fail_msg("row %zu was taken: %s", i, row->json);
    assert_int_equal(status, SPROUT_BAD_MODEL);
    if (strstr(error.message, row->expected) == NULL ||
        strstr(error.message, "file \"m.safe") == NULL)
      fail_msg("row %zu: expected \"%s\", got \"%s\"", i, row->expected, error.message);
    assert_true(error.hint[0] != '\0');
  }
}

/* Every proper beginning of a good header is refused, wherever it is cut. */
static void cut_headers_are_refused(void **state) {
  (void)state;
  static const char json[] = "{\"__metadata__\":{\"a\":\"b\"}," T("a", "F32", "1", "0", "4") "," T(
      "b", "U8", "1", "4", "5") "}";
  struct safetensors_header header;
  struct sprout_error error;
  assert_int_equal(parse(json, strlen(json), 5, &header, &error), SPROUT_OK);
  safetensors_destroy(&header);
  for (size_t length = 0; length < strlen(json); length++)
    assert_int_equal(parse(json, length, 5, &header, &error), SPROUT_BAD_MODEL);
}

static void lengths_are_compared_with_the_file(void **state) {
  (void)state;
  static const struct {
    unsigned char bytes[8];
    uint64_t available, file;
    const char *expected;
  } rows[] = {
      {{0}, 0, 0, "it has 0 bytes"},
      {{0}, 7, 7, "it has 7 bytes"},
      {{0}, 8, 8, "does not begin with '{'"},
      {{1}, 8, 8, "would have 1 bytes, the file has 8"},
      {{2}, 8, 10, "cut off after 8 of 10 bytes"},
      {{0x01, 0xE1, 0xF5, 0x05}, 8, UINT64_MAX, "would have 100000001 bytes, the format allows"},
      {{0x00, 0xE1, 0xF5, 0x05}, 8, UINT64_MAX, "cut off after 8 of 100000008"},
      {{0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, 8, UINT64_MAX, "the format allows"},
      {{0xF8, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F}, 8, UINT64_MAX, "the format allows"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct safetensors_header header;
    struct sprout_error error = {0};
    assert_int_equal(
        safetensors_parse("f", rows[i].bytes, rows[i].available, rows[i].file, &header, &error),
        SPROUT_BAD_MODEL);
    if (strstr(error.message, rows[i].expected) == NULL)
      fail_msg("row %zu: expected \"%s\", got \"%s\"", i, rows[i].expected, error.message);
  }
}

/* Nesting beyond what the parser bounds must not reach the stack's end. */
static void deep_json_is_refused(void **state) {
  (void)state;
  enum { DEPTH = 1000000 };
  static const char *const begins[] = {"{\"a\":", "{\"__metadata__\":"};
  char *json = malloc(DEPTH + 32);
  assert_non_null(json);
  for (size_t i = 0; i < 4; i++) {
    size_t used = strlen(begins[i / 2]);
    memcpy(json, begins[i / 2], used);
    memset(json + used, i % 2 == 0 ? '[' : '{', DEPTH);
    struct safetensors_header header;
    struct sprout_error error;
    assert_int_equal(parse(json, used + DEPTH, 0, &header, &error), SPROUT_BAD_MODEL);
  }
  free(json);
}

static void files_beyond_4_gib_are_fine(void **state) {
  (void)state;
  static const char json[] = "{" T("a", "U8", "5000000000", "0", "5000000000") "," T(
      "b", "F32", "1", "5000000000", "5000000004") "}";
  struct safetensors_header header;
  struct sprout_error error;
  assert_int_equal(parse(json, strlen(json), 5000000004, &header, &error), SPROUT_OK);
  assert_int_equal(header.tensors[1].file_offset, header.data_offset + 5000000000);
  safetensors_destroy(&header);
}

static void long_names_are_bounded(void **state) {
  (void)state;
  char *json = malloc(LIMIT_NAME_BYTES + 200);
  assert_non_null(json);
  for (int excess = 0; excess < 2; excess++) {
    struct safetensors_header header;
    struct sprout_error error;
    size_t name_bytes = LIMIT_NAME_BYTES + (size_t)excess;
    json[0] = '{';
    json[1] = '"';
    memset(json + 2, 'n', name_bytes);
    static const char rest[] = "\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}";
    memcpy(json + 2 + name_bytes, rest, sizeof(rest));
    enum sprout_status status = parse(json, strlen(json), 1, &header, &error);
    assert_int_equal(status, excess == 0 ? SPROUT_OK : SPROUT_BAD_MODEL);
    if (status == SPROUT_OK) safetensors_destroy(&header);
  }
  free(json);
}

static void dtypes_are_known(void **state) {
  (void)state;
  assert_int_equal(safetensors_dtype_bits("F4"), 4);
  assert_int_equal(safetensors_dtype_bits("F6_E3M2"), 6);
  assert_int_equal(safetensors_dtype_bits("BOOL"), 8);
  assert_int_equal(safetensors_dtype_bits("BF16"), 16);
  assert_int_equal(safetensors_dtype_bits("C64"), 64);
  assert_int_equal(safetensors_dtype_bits(""), 0);
  assert_int_equal(safetensors_dtype_bits("F33"), 0);
  assert_int_equal(safetensors_dtype_bits("f32"), 0);
}

static void many_tensors_keep_their_order(void **state) {
  (void)state;
  enum { TENSORS = 30000 };
  size_t capacity = (size_t)TENSORS * 100, used = 1;
  char *json = malloc(capacity);
  assert_non_null(json);
  json[0] = '{';
  for (int i = 0; i < TENSORS; i++) /* backwards */
    used += (size_t)snprintf(
        json + used, capacity - used,
        "%s\"t%05d\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%d,%d]}", i == 0 ? "" : ",",
        TENSORS - 1 - i, 4 * (TENSORS - 1 - i), 4 * (TENSORS - i));
  json[used++] = '}';
  struct safetensors_header header;
  struct sprout_error error;
  assert_int_equal(parse(json, used, 4ull * TENSORS, &header, &error), SPROUT_OK);
  assert_int_equal(header.count, TENSORS);
  assert_string_equal(header.tensors[0].name, "t00000");
  assert_string_equal(header.tensors[TENSORS - 1].name, "t29999");
  safetensors_destroy(&header);
  free(json);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(good_headers_are_taken),
      cmocka_unit_test(fields_are_what_the_header_says),
      cmocka_unit_test(bad_headers_are_refused_by_name),
      cmocka_unit_test(cut_headers_are_refused),
      cmocka_unit_test(lengths_are_compared_with_the_file),
      cmocka_unit_test(deep_json_is_refused),
      cmocka_unit_test(files_beyond_4_gib_are_fine),
      cmocka_unit_test(long_names_are_bounded),
      cmocka_unit_test(dtypes_are_known),
      cmocka_unit_test(many_tensors_keep_their_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
