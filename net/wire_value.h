/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading msgpack: one top-level record becomes a flat list of values in caller memory. Private to
 * net/wire*.c. Pure; allocates nothing; texts and bytes point into the input.
 *
 * A container is followed by its elements (a map by key, value, key, value ...), each with its own
 * elements behind it. A list that wire_parse filled is whole: walking it by counts stays inside.
 * Memory is bounded by the list's capacity whatever counts a record claims, time by its length, and
 * depth by msgpack-c's stack of 32.
 */
#ifndef NET_WIRE_VALUE_H
#define NET_WIRE_VALUE_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wire_type {
  WIRE_NIL,
  WIRE_BOOL,
  WIRE_UNSIGNED,
  WIRE_NEGATIVE,
  WIRE_TEXT,
  WIRE_BYTES,
  WIRE_ARRAY,
  WIRE_MAP,
  WIRE_OTHER /* floats and extensions: nothing here asks for them */
};

struct wire_value {
  uint8_t type;
  uint32_t size; /* bytes of texts and bytes; elements of arrays; pairs of maps */
  union {
    uint64_t number; /* WIRE_BOOL, WIRE_UNSIGNED */
    int64_t negative;
    const char *bytes;
  };
};

struct wire_values {
  struct wire_value *entries;
  uint32_t count, capacity;
};

/*
 * One decoding. It remembers the first failure: after that every function below does nothing, so
 * that a decoder reads straight on and looks at `status` once, at its end.
 */
struct wire_reading {
  enum sprout_status malformed; /* SPROUT_INVALID for requests, SPROUT_PROTOCOL for answers */
  const char *what;             /* "read request", for messages */
  struct sprout_error *error;   /* may be NULL */
  enum sprout_status status;    /* so far */
};

/* Fails the reading: "malformed WHAT: DETAIL". */
void wire_fail(struct wire_reading *reading, const char *detail);
/* Likewise about the field `name`. */
void wire_fail_field(struct wire_reading *reading, const char *name, const char *detail);

/*
 * Parses the record at *offset of `data` into values (entries and capacity set by the caller) and
 * moves *offset behind it. A record is at most record_limit_bytes long. False: the reading failed,
 * and values hold nothing to look at.
 */
bool wire_parse(struct wire_reading *reading, const void *data, size_t length_bytes,
                size_t record_limit_bytes, size_t *offset, struct wire_values *values);
/* A message that is one record and nothing behind it. */
bool wire_parse_single(struct wire_reading *reading, const void *data, size_t length_bytes,
                       struct wire_values *values);

/* The value behind this one and its elements. */
const struct wire_value *wire_skip(const struct wire_value *value);

/*
 * Finds the fields of a map: fields_out[i] is the value of keys[i], NULL when absent (all are after
 * a failure). Unknown keys are ignored, unless "critical" lists them: SPROUT_VERSION by name.
 * Repeated keys are malformed.
 */
void wire_map_fields(struct wire_reading *reading, const struct wire_value *map,
                     const char *const *keys, uint32_t key_count,
                     const struct wire_value **fields_out);

/* Each reads one value of its kind. Absent is NULL; then *_out stays as it is. `name` is for
 * messages. */
void wire_get_unsigned(struct wire_reading *reading, const struct wire_value *value,
                       const char *name, uint64_t *number_out);
/* Likewise, at most UINT32_MAX. */
void wire_get_u32(struct wire_reading *reading, const struct wire_value *value, const char *name,
                  uint32_t *number_out);
void wire_get_bool(struct wire_reading *reading, const struct wire_value *value, const char *name,
                   bool *flag_out);
/* Copies with a terminator; no NUL inside, shorter than buffer_bytes. */
void wire_get_text(struct wire_reading *reading, const struct wire_value *value, const char *name,
                   char *buffer_out, size_t buffer_bytes);
/* Exactly `length_bytes` bytes. */
void wire_get_bytes(struct wire_reading *reading, const struct wire_value *value, const char *name,
                    void *bytes_out, size_t length_bytes);
/* Passes the value on; NULL (absent) fails the reading. */
const struct wire_value *wire_require(struct wire_reading *reading, const struct wire_value *value,
                                      const char *name);
/* Is it there and a text of exactly these characters? */
bool wire_text_is(const struct wire_value *value, const char *text);
/* "protocol": {"min", "max"}. */
void wire_get_protocol(struct wire_reading *reading, const struct wire_value *value,
                       uint32_t *min_out, uint32_t *max_out);
/* "endpoints": appends those that this side can use, WIRE_ENDPOINTS_MAX in all; others are left
 * out. */
struct wire_endpoint;
void wire_get_endpoints(struct wire_reading *reading, const struct wire_value *list,
                        struct wire_endpoint *endpoints_out, uint32_t *count_out);
#endif
