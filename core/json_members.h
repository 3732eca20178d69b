/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the members of one large JSON object without building it: each key and each value is parsed
 * alone by jansson and freed before the next. Twice as fast as loading the whole and bounded in
 * memory by the largest member. Pure; any thread.
 *
 * jansson refuses malformed UTF-8, NUL characters, nesting beyond 2048, integers beyond 2^63 - 1,
 * and duplicate keys inside a value. Duplicate keys of the walked object are the caller's to find.
 */
#ifndef CORE_JSON_MEMBERS_H
#define CORE_JSON_MEMBERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct json_members {
  const char *text; /* borrowed, not terminated */
  size_t length_bytes;
  size_t at; /* of the next byte, or of the problem */
  bool begun;
  json_t *key, *value; /* the current member's; valid until the next step */
  char problem[JSON_ERROR_TEXT_LENGTH];
};

enum json_step {
  JSON_STEP_MEMBER,   /* key (a string) and value are there */
  JSON_STEP_END,      /* the object was whole and only white space followed */
  JSON_STEP_BAD,      /* `problem` says why, `at` where */
  JSON_STEP_NO_MEMORY /* an allocation failed */
};

void json_members_begin(struct json_members *members, const char *text, size_t length_bytes);
enum json_step json_members_next(struct json_members *members);
/* Frees the current member. Harmless when there is none. */
void json_members_end(struct json_members *members);
#endif
