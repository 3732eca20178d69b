/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages about bytes: what to read, and digests.
 */
#include "core/limits.h"
#include "net/wire.h"
#include "net/wire_pack.h"
#include "net/wire_value.h"

#include <assert.h>
#include <stdlib.h>

/* Values of a message besides the elements of its list, those of later versions included. */
#define MESSAGE_VALUES 256u
/* Of one range, those of later versions included. */
#define RANGE_VALUES 8u

/* --- read --- */

enum { READ_GENERATION, READ_RANGES, READ_KEYS };
static const char *const read_keys[READ_KEYS] = {"generation", "ranges"};
/* [object, offset, length] or [object, offset, length, stride, count] */
#define RANGE_SHORT 3u
#define RANGE_LONG 5u

static void write_range(struct wire_writer *writer, const struct wire_range *range) {
  bool strided = range->count != 1;
  wire_write_array(writer, strided ? RANGE_LONG : RANGE_SHORT);
  wire_write_unsigned(writer, range->object);
  wire_write_unsigned(writer, range->offset);
  wire_write_unsigned(writer, range->length_bytes);
  if (!strided) return;
  wire_write_unsigned(writer, range->stride_bytes);
  wire_write_unsigned(writer, range->count);
}

enum sprout_status wire_read_encode(const struct wire_read *message, struct wire_buffer *buffer) {
  struct wire_writer writer;
  wire_writer_begin(&writer, buffer);
  wire_write_map(&writer, READ_KEYS);
  wire_write_text(&writer, read_keys[READ_GENERATION]);
  wire_write_unsigned(&writer, message->generation);
  wire_write_text(&writer, read_keys[READ_RANGES]);
  wire_write_array(&writer, message->range_count);
  for (uint32_t i = 0; i < message->range_count; i++) write_range(&writer, &message->ranges[i]);
  return wire_writer_end(&writer);
}

/* Neither the end of the range nor its bytes overflow, and its pieces are apart and not empty. */
static bool range_ok(const struct wire_range *range) {
  uint64_t reach = 0, end = 0, bytes = 0;
  if (range->count == 0) return false;
  if (range->count > 1 && (range->length_bytes == 0 || range->stride_bytes < range->length_bytes))
    return false;
  return !__builtin_mul_overflow(range->count - 1, range->stride_bytes, &reach) &&
         !__builtin_add_overflow(range->offset, range->length_bytes, &end) &&
         !__builtin_add_overflow(end, reach, &end) &&
         !__builtin_mul_overflow(range->count, range->length_bytes, &bytes);
}

static void get_range(struct wire_reading *reading, const struct wire_value *value,
                      struct wire_range *range_out) {
  struct wire_range range = {.count = 1};
  if (value->type != WIRE_ARRAY || (value->size != RANGE_SHORT && value->size < RANGE_LONG)) {
    wire_fail(reading, "a range is not [object, offset, length, stride, count]");
    return;
  }
  const struct wire_value *element = value + 1;
  wire_get_u32(reading, element, "object", &range.object);
  element = wire_skip(element);
  wire_get_unsigned(reading, element, "offset", &range.offset);
  element = wire_skip(element);
  wire_get_unsigned(reading, element, "length", &range.length_bytes);
  if (value->size >= RANGE_LONG) {
    element = wire_skip(element);
    wire_get_unsigned(reading, element, "stride", &range.stride_bytes);
    element = wire_skip(element);
    wire_get_unsigned(reading, element, "count", &range.count);
  }
  if (range.count == 1) range.stride_bytes = 0;
  if (!range_ok(&range)) wire_fail(reading, "a range overflows, overlaps itself or has no bytes");
  if (reading->status == SPROUT_OK) *range_out = range;
}

static void get_ranges(struct wire_reading *reading, const struct wire_value *list,
                       struct wire_range *ranges, uint32_t capacity, uint32_t *count_out) {
  if (!wire_require(reading, list, "ranges") || reading->status != SPROUT_OK) return;
  if (list->type != WIRE_ARRAY) {
    wire_fail_field(reading, "ranges", "is not a list");
  } else if (list->size == 0 || list->size > capacity) {
    wire_fail_field(reading, "ranges", list->size ? "has too many elements" : "is empty");
  }
  if (reading->status != SPROUT_OK) return;
  const struct wire_value *range = list + 1;
  for (uint32_t i = 0; i < list->size && reading->status == SPROUT_OK; i++) {
    get_range(reading, range, &ranges[i]);
    range = wire_skip(range);
  }
  *count_out = list->size;
}

enum sprout_status wire_read_decode(const void *data, size_t length_bytes,
                                    struct wire_range *ranges, uint32_t capacity,
                                    struct wire_read *message_out, struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_INVALID, "read request", error, SPROUT_OK};
  /* 68 KiB of stack rather than an allocation for every read. */
  struct wire_value entries[MESSAGE_VALUES + LIMIT_READ_RANGES * RANGE_VALUES];
  struct wire_values values = {entries, 0, sizeof(entries) / sizeof(entries[0])};
  const struct wire_value *fields[READ_KEYS];
  struct wire_read message = {.ranges = ranges};
  if (!wire_parse_single(&reading, data, length_bytes, &values)) return reading.status;
  wire_map_fields(&reading, entries, read_keys, READ_KEYS, fields);
  wire_get_unsigned(&reading, wire_require(&reading, fields[READ_GENERATION], "generation"),
                    "generation", &message.generation);
  get_ranges(&reading, fields[READ_RANGES], ranges, capacity, &message.range_count);
  if (reading.status == SPROUT_OK) *message_out = message;
  return reading.status;
}

/* --- digests --- */

enum { DIGESTS_FIRST, DIGESTS_GENERATION, DIGESTS_VALUES, DIGESTS_KEYS };
static const char *const digests_keys[DIGESTS_KEYS] = {"first", "generation", "digests"};

enum sprout_status wire_digests_encode(const struct wire_digests *message,
                                       struct wire_buffer *buffer) {
  struct wire_writer writer;
  wire_writer_begin(&writer, buffer);
  wire_write_map(&writer, DIGESTS_KEYS);
  wire_write_text(&writer, digests_keys[DIGESTS_FIRST]);
  wire_write_unsigned(&writer, message->first);
  wire_write_text(&writer, digests_keys[DIGESTS_GENERATION]);
  wire_write_unsigned(&writer, message->generation);
  wire_write_text(&writer, digests_keys[DIGESTS_VALUES]);
  wire_write_array(&writer, message->count);
  for (uint64_t i = 0; i < message->count; i++) {
    if (message->known[i]) {
      wire_write_bytes(&writer, message->values[i].bytes, DIGEST_BYTES);
    } else {
      wire_write_nil(&writer);
    }
  }
  return wire_writer_end(&writer);
}

/* The list's elements: 16 bytes, or nil while unknown. */
static void get_digests(struct wire_reading *reading, const struct wire_value *list,
                        uint64_t capacity, struct wire_digests *message) {
  if (!wire_require(reading, list, "digests") || reading->status != SPROUT_OK) return;
  if (list->type != WIRE_ARRAY || list->size > capacity ||
      list->size > UINT64_MAX - message->first) {
    wire_fail_field(reading, "digests", "is not a list of at most as many as were asked for");
    return;
  }
  const struct wire_value *value = list + 1;
  for (uint32_t i = 0; i < list->size && reading->status == SPROUT_OK; i++) {
    message->known[i] = value->type != WIRE_NIL;
    message->values[i] = (struct digest){{0}};
    if (message->known[i])
      wire_get_bytes(reading, value, "digests", message->values[i].bytes, DIGEST_BYTES);
    value = wire_skip(value);
  }
  message->count = list->size;
}

enum sprout_status wire_digests_decode(const void *data, size_t length_bytes, uint64_t capacity,
                                       struct wire_digests *message, struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_PROTOCOL, "digests answer", error, SPROUT_OK};
  const struct wire_value *fields[DIGESTS_KEYS];
  struct wire_digests decoded = {.values = message->values, .known = message->known};
  assert(capacity <= LIMIT_DIGESTS_PER_REQUEST);
  struct wire_values values = {NULL, 0, (uint32_t)capacity + MESSAGE_VALUES};
  values.entries = malloc(values.capacity * sizeof(*values.entries));
  if (!values.entries) return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory");
  if (wire_parse_single(&reading, data, length_bytes, &values)) {
    wire_map_fields(&reading, values.entries, digests_keys, DIGESTS_KEYS, fields);
    wire_get_unsigned(&reading, wire_require(&reading, fields[DIGESTS_FIRST], "first"), "first",
                      &decoded.first);
    wire_get_unsigned(&reading, fields[DIGESTS_GENERATION], "generation", &decoded.generation);
    get_digests(&reading, fields[DIGESTS_VALUES], capacity, &decoded);
  }
  free(values.entries);
  if (reading.status == SPROUT_OK) *message = decoded;
  return reading.status;
}

/* --- digests wanted --- */

enum { WANTED_FIRST, WANTED_COUNT, WANTED_KEYS };
static const char *const wanted_keys[WANTED_KEYS] = {"first", "count"};

enum sprout_status wire_digests_wanted_encode(uint64_t first, uint64_t count,
                                              struct wire_buffer *buffer) {
  struct wire_writer writer;
  wire_writer_begin(&writer, buffer);
  wire_write_map(&writer, WANTED_KEYS);
  wire_write_text(&writer, wanted_keys[WANTED_FIRST]);
  wire_write_unsigned(&writer, first);
  wire_write_text(&writer, wanted_keys[WANTED_COUNT]);
  wire_write_unsigned(&writer, count);
  return wire_writer_end(&writer);
}

enum sprout_status wire_digests_wanted_decode(const void *data, size_t length_bytes,
                                              uint64_t *first_out, uint64_t *count_out,
                                              struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_INVALID, "digests request", error, SPROUT_OK};
  struct wire_value entries[MESSAGE_VALUES];
  struct wire_values values = {entries, 0, MESSAGE_VALUES};
  const struct wire_value *fields[WANTED_KEYS];
  uint64_t first = 0, count = 0, end;
  if (!wire_parse_single(&reading, data, length_bytes, &values)) return reading.status;
  wire_map_fields(&reading, entries, wanted_keys, WANTED_KEYS, fields);
  wire_get_unsigned(&reading, wire_require(&reading, fields[WANTED_FIRST], "first"), "first",
                    &first);
  wire_get_unsigned(&reading, wire_require(&reading, fields[WANTED_COUNT], "count"), "count",
                    &count);
  if (count > LIMIT_DIGESTS_PER_REQUEST || __builtin_add_overflow(first, count, &end))
    wire_fail_field(&reading, "count", "is out of range");
  if (reading.status != SPROUT_OK) return reading.status;
  *first_out = first;
  *count_out = count;
  return SPROUT_OK;
}
