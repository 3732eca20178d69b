/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts of one HTTP message in one growing store: target, values of the headers that matter,
 * and body, one behind the other. Pure.
 *
 * An ordinary request fits the store that is built in; what a larger one needs grows with the bytes
 * that really came, and is given back when the next message begins. Places are offsets, since the
 * store moves when it grows; offset 0 is never used.
 */
#ifndef NET_HTTP_FIELDS_H
#define NET_HTTP_FIELDS_H

#include "net/http_parser.h"

#define HTTP_FIELDS_INLINE_BYTES 512u
#define HTTP_FIELDS_NAME_BYTES 24u

/* Headers that the parser itself looks at, behind those that a message shows. */
enum {
  HTTP_FIELD_CONTENT_LENGTH = HTTP_HEADER_COUNT,
  HTTP_FIELD_TRANSFER_ENCODING,
  HTTP_FIELD_UPGRADE,
  HTTP_FIELD_COUNT,
  HTTP_FIELD_OTHER = HTTP_FIELD_COUNT
};

enum http_fields_result {
  HTTP_FIELDS_OK,
  HTTP_FIELDS_NO_MEMORY,
  HTTP_FIELDS_REPEATED /* this header may not come again: http_fields_current names it */
};

struct http_fields {
  char *store;
  uint32_t used_bytes, capacity_bytes;
  uint32_t offsets[HTTP_FIELD_COUNT]; /* of values; 0: absent */
  uint32_t value_offset;              /* of the one being received */
  uint8_t field;                      /* likewise */
  uint8_t name_bytes;
  uint8_t joined; /* values that were joined to an earlier one */
  char name[HTTP_FIELDS_NAME_BYTES];
  char store_inline[HTTP_FIELDS_INLINE_BYTES];
};

void http_fields_init(struct http_fields *fields);
void http_fields_destroy(struct http_fields *fields);
/* Forgets all texts. */
void http_fields_begin(struct http_fields *fields);

/* Appends to the store; false: no memory. */
bool http_fields_append(struct http_fields *fields, const void *data, size_t length_bytes);

/* A header arrives: its name and its value in pieces of any size, each followed by its end. */
void http_fields_name(struct http_fields *fields, const char *at, size_t length_bytes);
void http_fields_name_end(struct http_fields *fields);
bool http_fields_value(struct http_fields *fields, const char *at, size_t length_bytes);
enum http_fields_result http_fields_value_end(struct http_fields *fields);

/* NULL when absent. Valid until the store grows. */
const char *http_fields_get(const struct http_fields *fields, unsigned field);
/* Lower-case name of the header received last, "" when it is none that matters. */
const char *http_fields_current(const struct http_fields *fields);
#endif
