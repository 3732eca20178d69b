/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msgpack-c's own unpacker allocates for whatever count a container claims (24 bytes for each of up
 * to 4 billion elements), so its parser template is used with callbacks that only fill a bounded
 * list.
 */
#include "net/wire_value.h"

#include <msgpack/unpack.h>
#include <msgpack/unpack_define.h>
#include <string.h>

/* --- what the parser template calls; a negative result ends it --- */

/* The template passes around an object per value; the list needs none. */
typedef char unused_object;

static inline int add(struct wire_values *values, struct wire_value value) {
  if (values->count == values->capacity) return MSGPACK_UNPACK_NOMEM_ERROR;
  values->entries[values->count++] = value;
  return 0;
}

static inline int add_unsigned(struct wire_values *values, uint64_t number) {
  return add(values, (struct wire_value){.type = WIRE_UNSIGNED, .number = number});
}

static inline int add_signed(struct wire_values *values, int64_t number) {
  if (number >= 0) return add_unsigned(values, (uint64_t)number);
  return add(values, (struct wire_value){.type = WIRE_NEGATIVE, .negative = number});
}

static inline int add_other(struct wire_values *values, double number) {
  (void)number;
  return add(values, (struct wire_value){.type = WIRE_OTHER});
}

static inline int add_simple(struct wire_values *values, enum wire_type type, bool flag) {
  return add(values, (struct wire_value){.type = (uint8_t)type, .number = flag});
}

static inline int add_span(struct wire_values *values, enum wire_type type, const char *bytes,
                           size_t length_bytes) {
  return add(values, (struct wire_value){
                         .type = (uint8_t)type, .size = (uint32_t)length_bytes, .bytes = bytes});
}

static inline int add_container(struct wire_values *values, enum wire_type type, unsigned count) {
  return add(values, (struct wire_value){.type = (uint8_t)type, .size = count});
}

#define NUMBER_CALLBACK(name, type, add_number)                                                    \
  static inline int callback_##name(struct wire_values **values, type number, char *object) {      \
    *object = 0;                                                                                   \
    return add_number(*values, number);                                                            \
  }
#define SIMPLE_CALLBACK(name, type, flag)                                                          \
  static inline int callback_##name(struct wire_values **values, char *object) {                   \
    *object = 0;                                                                                   \
    return add_simple(*values, type, flag);                                                        \
  }
#define SPAN_CALLBACK(name, type)                                                                  \
  static inline int callback_##name(struct wire_values **values, const char *base, const char *at, \
                                    size_t length, char *object) {                                 \
    (void)base;                                                                                    \
    *object = 0;                                                                                   \
    return add_span(*values, type, at, length);                                                    \
  }
#define CONTAINER_CALLBACK(name, type)                                                             \
  static inline int callback_##name(struct wire_values **values, unsigned count, char *object) {   \
    *object = 0;                                                                                   \
    return add_container(*values, type, count);                                                    \
  }

NUMBER_CALLBACK(_uint8, uint8_t, add_unsigned)
NUMBER_CALLBACK(_uint16, uint16_t, add_unsigned)
NUMBER_CALLBACK(_uint32, uint32_t, add_unsigned)
NUMBER_CALLBACK(_uint64, uint64_t, add_unsigned)
NUMBER_CALLBACK(_int8, int8_t, add_signed)
NUMBER_CALLBACK(_int16, int16_t, add_signed)
NUMBER_CALLBACK(_int32, int32_t, add_signed)
NUMBER_CALLBACK(_int64, int64_t, add_signed)
NUMBER_CALLBACK(_float, float, add_other)
NUMBER_CALLBACK(_double, double, add_other)
SIMPLE_CALLBACK(_nil, WIRE_NIL, false)
SIMPLE_CALLBACK(_true, WIRE_BOOL, true)
SIMPLE_CALLBACK(_false, WIRE_BOOL, false)
SPAN_CALLBACK(_str, WIRE_TEXT)
SPAN_CALLBACK(_bin, WIRE_BYTES)
SPAN_CALLBACK(_ext, WIRE_OTHER)
CONTAINER_CALLBACK(_array, WIRE_ARRAY)
CONTAINER_CALLBACK(_map, WIRE_MAP)

static inline char callback__root(struct wire_values **values) {
  (void)values;
  return 0;
}

static inline int callback__array_item(struct wire_values **values, char *container, char item) {
  (void)values;
  (void)container;
  (void)item;
  return 0;
}

static inline int callback__map_item(struct wire_values **values, char *container, char key,
                                     char item) {
  (void)values;
  (void)container;
  (void)key;
  (void)item;
  return 0;
}

#define msgpack_unpack_struct(name) struct template##name
#define msgpack_unpack_func(type, name) static inline type template##name
#define msgpack_unpack_callback(name) callback_##name
#define msgpack_unpack_object unused_object
#define msgpack_unpack_user struct wire_values *
#include <msgpack/unpack_template.h>

/* --- failing --- */

static const char version_hint[] = "Both sides should run compatible versions of sprout.";

void wire_fail(struct wire_reading *reading, const char *detail) {
  if (reading->status != SPROUT_OK) return;
  reading->status = sprout_error_set(reading->error, reading->malformed, 0, version_hint,
                                     "malformed %s: %s", reading->what, detail);
}

void wire_fail_field(struct wire_reading *reading, const char *name, const char *detail) {
  if (reading->status != SPROUT_OK) return;
  reading->status = sprout_error_set(reading->error, reading->malformed, 0, version_hint,
                                     "malformed %s: \"%s\" %s", reading->what, name, detail);
}

/* --- parsing --- */

bool wire_parse(struct wire_reading *reading, const void *data, size_t length_bytes,
                size_t record_limit_bytes, size_t *offset, struct wire_values *values) {
  struct template_context context = {.user = values};
  size_t left = length_bytes - *offset, taken = 0;
  bool cut = left > record_limit_bytes;
  if (reading->status != SPROUT_OK) return false;
  values->count = 0;
  template_init(&context);
  int result = template_execute(&context, (const char *)data + *offset,
                                cut ? record_limit_bytes : left, &taken);
  if (result == MSGPACK_UNPACK_NOMEM_ERROR) {
    wire_fail(reading, "too many or too deeply nested values");
  } else if (result < 0) {
    wire_fail(reading, "not msgpack");
  } else if (result == 0) {
    wire_fail(reading, cut ? "a record is too long" : "it is cut short");
  }
  *offset += taken;
  return reading->status == SPROUT_OK;
}

bool wire_parse_single(struct wire_reading *reading, const void *data, size_t length_bytes,
                       struct wire_values *values) {
  size_t offset = 0;
  if (!wire_parse(reading, data, length_bytes, length_bytes, &offset, values)) return false;
  if (offset != length_bytes) wire_fail(reading, "something follows it");
  return reading->status == SPROUT_OK;
}

/* --- walking --- */

const struct wire_value *wire_skip(const struct wire_value *value) {
  for (uint64_t left = 1; left > 0; left--, value++) {
    if (value->type == WIRE_ARRAY) left += value->size;
    if (value->type == WIRE_MAP) left += 2 * (uint64_t)value->size;
  }
  return value;
}

bool wire_text_is(const struct wire_value *value, const char *text) {
  size_t length = strlen(text);
  return value && value->type == WIRE_TEXT && value->size == length &&
         (length == 0 || memcmp(value->bytes, text, length) == 0);
}

/* Index of a key among the known ones, or key_count. */
static uint32_t find_key(const struct wire_value *key, const char *const *keys,
                         uint32_t key_count) {
  uint32_t i = 0;
  while (i < key_count && !wire_text_is(key, keys[i])) i++;
  return i;
}

static void fail_critical(struct wire_reading *reading, const struct wire_value *key) {
  reading->status = sprout_error_set(
      reading->error, SPROUT_VERSION, 0, "Update sprout on this side, or use an older peer.",
      "the %s needs \"%.*s\", which this version does not know", reading->what,
      key->size > 64 ? 64 : (int)key->size, key->bytes);
}

/* "critical" lists the keys that must be understood. */
static void check_critical(struct wire_reading *reading, const struct wire_value *list,
                           const char *const *keys, uint32_t key_count) {
  if (list->type != WIRE_ARRAY) {
    wire_fail_field(reading, "critical", "is not a list");
    return;
  }
  const struct wire_value *key = list + 1;
  for (uint32_t i = 0; i < list->size && reading->status == SPROUT_OK; i++) {
    if (key->type != WIRE_TEXT) {
      wire_fail_field(reading, "critical", "is not a list of keys");
    } else if (find_key(key, keys, key_count) == key_count) {
      fail_critical(reading, key);
    }
    key = wire_skip(key);
  }
}

void wire_map_fields(struct wire_reading *reading, const struct wire_value *map,
                     const char *const *keys, uint32_t key_count,
                     const struct wire_value **fields_out) {
  const struct wire_value *critical = NULL;
  for (uint32_t i = 0; i < key_count; i++) fields_out[i] = NULL;
  if (reading->status != SPROUT_OK) return;
  if (map->type != WIRE_MAP) {
    wire_fail(reading, "not a map");
    return;
  }
  const struct wire_value *key = map + 1;
  for (uint32_t i = 0; i < map->size; i++) {
    const struct wire_value *value = wire_skip(key), **field = NULL;
    uint32_t index = find_key(key, keys, key_count);
    if (index < key_count) {
      field = &fields_out[index];
    } else if (wire_text_is(key, "critical")) {
      field = &critical;
    }
    if (field && *field) wire_fail(reading, "a key came twice");
    if (field) *field = value;
    key = wire_skip(value);
  }
  if (critical) check_critical(reading, critical, keys, key_count);
}

/* --- reading values --- */

void wire_get_unsigned(struct wire_reading *reading, const struct wire_value *value,
                       const char *name, uint64_t *number_out) {
  if (!value || reading->status != SPROUT_OK) return;
  if (value->type == WIRE_UNSIGNED) {
    *number_out = value->number;
  } else {
    wire_fail_field(reading, name, "is not an unsigned integer");
  }
}

void wire_get_u32(struct wire_reading *reading, const struct wire_value *value, const char *name,
                  uint32_t *number_out) {
  uint64_t number = *number_out;
  wire_get_unsigned(reading, value, name, &number);
  if (number > UINT32_MAX) {
    wire_fail_field(reading, name, "is out of range");
  } else {
    *number_out = (uint32_t)number;
  }
}

void wire_get_bool(struct wire_reading *reading, const struct wire_value *value, const char *name,
                   bool *flag_out) {
  if (!value || reading->status != SPROUT_OK) return;
  if (value->type == WIRE_BOOL) {
    *flag_out = value->number != 0;
  } else {
    wire_fail_field(reading, name, "is neither true nor false");
  }
}

void wire_get_text(struct wire_reading *reading, const struct wire_value *value, const char *name,
                   char *buffer_out, size_t buffer_bytes) {
  if (!value || reading->status != SPROUT_OK) return;
  if (value->type != WIRE_TEXT) {
    wire_fail_field(reading, name, "is not a text");
  } else if (value->size >= buffer_bytes) {
    wire_fail_field(reading, name, "is too long");
  } else if (value->size && memchr(value->bytes, 0, value->size)) {
    wire_fail_field(reading, name, "has a NUL inside");
  } else {
    if (value->size) memcpy(buffer_out, value->bytes, value->size);
    buffer_out[value->size] = '\0';
  }
}

void wire_get_bytes(struct wire_reading *reading, const struct wire_value *value, const char *name,
                    void *bytes_out, size_t length_bytes) {
  if (!value || reading->status != SPROUT_OK) return;
  if (value->type == WIRE_BYTES && value->size == length_bytes) {
    memcpy(bytes_out, value->bytes, length_bytes);
  } else {
    wire_fail_field(reading, name, "is not a byte string of the right length");
  }
}

const struct wire_value *wire_require(struct wire_reading *reading, const struct wire_value *value,
                                      const char *name) {
  if (!value) wire_fail_field(reading, name, "is missing");
  return value;
}
