/* SPDX-License-Identifier: Apache-2.0 */
#include "net/http_fields.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* A store that grew no larger than this is kept for the next message. */
#define STORE_KEPT_BYTES 4096u
/* Each joined value leaves a copy behind, so there are few. */
#define JOINED_MAX 4u

static const char *const names[HTTP_FIELD_COUNT] = {
    [HTTP_HEADER_HOST] = "host",
    [HTTP_HEADER_AUTHORIZATION] = "authorization",
    [HTTP_HEADER_ACCEPT] = "accept",
    [HTTP_HEADER_RANGE] = "range",
    [HTTP_HEADER_IF_NONE_MATCH] = "if-none-match",
    [HTTP_HEADER_IF_RANGE] = "if-range",
    [HTTP_HEADER_CONTENT_TYPE] = "content-type",
    [HTTP_HEADER_CONTENT_RANGE] = "content-range",
    [HTTP_HEADER_ETAG] = "etag",
    [HTTP_HEADER_RETRY_AFTER] = "retry-after",
    [HTTP_HEADER_EXPECT] = "expect",
    [HTTP_FIELD_CONTENT_LENGTH] = "content-length",
    [HTTP_FIELD_TRANSFER_ENCODING] = "transfer-encoding",
    [HTTP_FIELD_UPGRADE] = "upgrade",
};

/* --- the store --- */

static void release(struct http_fields *fields) {
  if (fields->store != fields->store_inline) free(fields->store);
  fields->store = fields->store_inline;
  fields->capacity_bytes = HTTP_FIELDS_INLINE_BYTES;
}

static bool reserve(struct http_fields *fields, size_t bytes) {
  size_t needed = (size_t)fields->used_bytes + bytes;
  if (needed <= fields->capacity_bytes) return true;
  size_t capacity = fields->capacity_bytes;
  while (capacity < needed) capacity *= 2;
  assert(capacity <= UINT32_MAX);
  bool is_inline = fields->store == fields->store_inline;
  char *grown = is_inline ? malloc(capacity) : realloc(fields->store, capacity);
  if (!grown) return false;
  if (is_inline) memcpy(grown, fields->store_inline, fields->used_bytes);
  fields->store = grown;
  fields->capacity_bytes = (uint32_t)capacity;
  return true;
}

void http_fields_init(struct http_fields *fields) {
  fields->store = fields->store_inline;
  fields->capacity_bytes = HTTP_FIELDS_INLINE_BYTES;
  http_fields_begin(fields);
}

void http_fields_destroy(struct http_fields *fields) {
  release(fields);
}

void http_fields_begin(struct http_fields *fields) {
  if (fields->capacity_bytes > STORE_KEPT_BYTES) release(fields);
  fields->used_bytes = 1;
  memset(fields->offsets, 0, sizeof(fields->offsets));
  fields->field = HTTP_FIELD_OTHER;
  fields->name_bytes = fields->joined = 0;
}

bool http_fields_append(struct http_fields *fields, const void *data, size_t length_bytes) {
  if (!reserve(fields, length_bytes)) return false;
  memcpy(fields->store + fields->used_bytes, data, length_bytes);
  fields->used_bytes += (uint32_t)length_bytes;
  return true;
}

/* --- headers --- */

void http_fields_name(struct http_fields *fields, const char *at, size_t length_bytes) {
  if (length_bytes >= HTTP_FIELDS_NAME_BYTES - fields->name_bytes) {
    fields->name_bytes = HTTP_FIELDS_NAME_BYTES; /* longer than any that matters */
    return;
  }
  memcpy(fields->name + fields->name_bytes, at, length_bytes);
  fields->name_bytes = (uint8_t)(fields->name_bytes + length_bytes);
}

void http_fields_name_end(struct http_fields *fields) {
  size_t length = fields->name_bytes;
  fields->name_bytes = 0;
  fields->value_offset = fields->used_bytes;
  fields->field = HTTP_FIELD_OTHER;
  if (length == HTTP_FIELDS_NAME_BYTES) return;
  for (uint8_t field = 0; field < HTTP_FIELD_COUNT; field++) {
    if (strlen(names[field]) == length && strncasecmp(names[field], fields->name, length) == 0) {
      fields->field = field;
      return;
    }
  }
}

bool http_fields_value(struct http_fields *fields, const char *at, size_t length_bytes) {
  return fields->field == HTTP_FIELD_OTHER || http_fields_append(fields, at, length_bytes);
}

/* Puts "old, new" in the place of the new value, which is the last of the store. */
static bool join(struct http_fields *fields, uint32_t old_offset) {
  size_t old_bytes = strlen(fields->store + old_offset);
  size_t new_bytes = strlen(fields->store + fields->value_offset);
  if (!reserve(fields, old_bytes + 2)) return false;
  char *value = fields->store + fields->value_offset;
  memmove(value + old_bytes + 2, value, new_bytes + 1);
  memcpy(value, fields->store + old_offset, old_bytes);
  memcpy(value + old_bytes, ", ", 2);
  fields->used_bytes += (uint32_t)old_bytes + 2;
  return true;
}

static void trim(struct http_fields *fields) {
  while (fields->used_bytes > fields->value_offset) {
    char last = fields->store[fields->used_bytes - 1];
    if (last != ' ' && last != '\t') return;
    fields->used_bytes--;
  }
}

enum http_fields_result http_fields_value_end(struct http_fields *fields) {
  unsigned field = fields->field;
  if (field == HTTP_FIELD_OTHER) return HTTP_FIELDS_OK;
  trim(fields);
  if (!http_fields_append(fields, "", 1)) return HTTP_FIELDS_NO_MEMORY;
  uint32_t earlier = fields->offsets[field];
  if (earlier) {
    bool is_list = field == HTTP_HEADER_ACCEPT || field == HTTP_HEADER_IF_NONE_MATCH;
    if (!is_list || fields->joined++ == JOINED_MAX) return HTTP_FIELDS_REPEATED;
    if (!join(fields, earlier)) return HTTP_FIELDS_NO_MEMORY;
  }
  fields->offsets[field] = fields->value_offset;
  return HTTP_FIELDS_OK;
}

const char *http_fields_get(const struct http_fields *fields, unsigned field) {
  return fields->offsets[field] ? fields->store + fields->offsets[field] : NULL;
}

const char *http_fields_current(const struct http_fields *fields) {
  return fields->field == HTTP_FIELD_OTHER ? "" : names[fields->field];
}
