/* SPDX-License-Identifier: Apache-2.0 */
#include "core/json_members.h"

#include <stdio.h>

void json_members_begin(struct json_members *members, const char *text, size_t length_bytes) {
  *members = (struct json_members){.text = text, .length_bytes = length_bytes};
}

void json_members_end(struct json_members *members) {
  json_decref(members->key);
  json_decref(members->value);
  members->key = members->value = NULL;
}

static enum json_step bad(struct json_members *members, const char *problem) {
  snprintf(members->problem, sizeof(members->problem), "%s", problem);
  return JSON_STEP_BAD;
}

/* The next byte that is no white space, not taken; -1 at the end. */
static int peek(struct json_members *members) {
  while (members->at < members->length_bytes) {
    char c = members->text[members->at];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return (unsigned char)c;
    members->at++;
  }
  return -1;
}

/* Parses one value at the cursor and moves behind it. */
static enum json_step parse(struct json_members *members, json_t **value_out) {
  const size_t flags = JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES;
  json_error_t error;
  if (peek(members) < 0) return bad(members, "it ends too early");
  json_t *value =
      json_loadb(members->text + members->at, members->length_bytes - members->at, flags, &error);
  if (error.position > 0) members->at += (size_t)error.position;
  if (value == NULL) {
    if (json_error_code(&error) == json_error_out_of_memory) return JSON_STEP_NO_MEMORY;
    return bad(members, error.text);
  }
  *value_out = value;
  return JSON_STEP_MEMBER;
}

/* After the closing brace. */
static enum json_step finish(struct json_members *members) {
  members->at++;
  return peek(members) < 0 ? JSON_STEP_END : bad(members, "something follows the object");
}

enum json_step json_members_next(struct json_members *members) {
  json_members_end(members);
  int c = peek(members);
  if (!members->begun) {
    if (c != '{') return bad(members, "it is no object");
    members->begun = true;
    members->at++;
    if (peek(members) == '}') return finish(members);
  } else {
    if (c == '}') return finish(members);
    if (c != ',') return bad(members, "',' or '}' expected");
    members->at++;
  }
  if (peek(members) != '"') return bad(members, "a name in quotes expected");
  enum json_step step = parse(members, &members->key);
  if (step != JSON_STEP_MEMBER) return step;
  if (peek(members) != ':') return bad(members, "':' expected");
  members->at++;
  return parse(members, &members->value);
}
