/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors on the wire: {"error":{"code","message","hint"}} with the HTTP status of the code.
 */
#include "net/wire.h"
#include "net/wire_pack.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* A longer body is not one of ours. */
#define ERROR_BODY_BYTES 8192u

/* --- encoding --- */

static int append(const char *data, size_t length_bytes, void *context) {
  struct wire_buffer *buffer = context;
  if (wire_buffer_reserve(buffer, length_bytes) != SPROUT_OK) return -1;
  memcpy(buffer->data + buffer->length_bytes, data, length_bytes);
  buffer->length_bytes += length_bytes;
  return 0;
}

/* JSON takes UTF-8 only; an error may quote anything. Other bytes become '?', which also mends a
 * character that was cut in the middle. */
static json_t *text_of(const char *text) {
  json_t *value = json_string(text);
  if (value) return value;
  char ascii[sizeof(((struct sprout_error *)0)->message)];
  size_t length = strnlen(text, sizeof(ascii));
  for (size_t i = 0; i < length; i++) ascii[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
  return json_stringn_nocheck(ascii, length);
}

enum sprout_status wire_error_encode_json(const struct sprout_error *error,
                                          struct wire_buffer *buffer) {
  size_t start_bytes = buffer->length_bytes;
  /* "o" takes over the references, also when packing fails; NULL makes it fail. */
  json_t *document =
      json_pack("{s:{s:s,s:o,s:o}}", "error", "code", sprout_status_info_of(error->status)->name,
                "message", text_of(error->message), "hint", text_of(error->hint));
  if (!document) return SPROUT_NO_MEMORY;
  int result = json_dump_callback(document, append, buffer, JSON_COMPACT);
  json_decref(document);
  if (result == 0 && append("\n", 1, buffer) == 0) return SPROUT_OK;
  buffer->length_bytes = start_bytes;
  return SPROUT_NO_MEMORY;
}

/* --- decoding --- */

/* What an HTTP status alone means to a fork. */
static enum sprout_status status_of_http(int http_status) {
  switch (http_status) {
  case 401:
  case 403: return SPROUT_DENIED;
  case 404: return SPROUT_NOT_FOUND;
  case 405: return SPROUT_METHOD;
  case 408: return SPROUT_TIMEOUT;
  case 409: return SPROUT_STALE;
  case 410: return SPROUT_GONE;
  case 413:
  case 414:
  case 431: return SPROUT_TOO_LARGE;
  case 416: return SPROUT_RANGE;
  case 425: return SPROUT_TOO_EARLY;
  case 429: return SPROUT_BUSY;
  default: return http_status >= 500 && http_status < 600 ? SPROUT_UNAVAILABLE : SPROUT_PROTOCOL;
  }
}

/*
 * What a seed's code means on this side. Codes about the seed's own files, memory or bugs must not
 * be taken for ours, which end a fork; nor can a stranger make a fork look cancelled.
 */
static enum sprout_status status_of_peer(enum sprout_status status) {
  switch (status) {
  case SPROUT_DENIED:
  case SPROUT_NOT_FOUND:
  case SPROUT_METHOD:
  case SPROUT_STALE:
  case SPROUT_GONE:
  case SPROUT_TOO_EARLY:
  case SPROUT_BUSY:
  case SPROUT_OVER_WINDOW:
  case SPROUT_UNAVAILABLE:
  case SPROUT_TOO_LARGE:
  case SPROUT_RANGE:
  case SPROUT_TIMEOUT:
  case SPROUT_PROTOCOL:
  case SPROUT_VERSION:
  case SPROUT_MISMATCH: return status;
  case SPROUT_INVALID: return SPROUT_PROTOCOL;
  case SPROUT_UNSUPPORTED: return SPROUT_VERSION;
  default: return SPROUT_UNAVAILABLE;
  }
}

/* Copies, cut to fit; control characters, which a terminal might obey, become '?'. */
static void copy_text(char *to, size_t to_bytes, const json_t *value) {
  const char *text = json_string_value(value);
  size_t length = text ? strnlen(text, to_bytes - 1) : 0;
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    to[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
  }
  to[length] = '\0';
}

/* The "error" object of our own kind, or NULL. */
static json_t *parse_body(const void *data, size_t length_bytes) {
  if (length_bytes == 0 || length_bytes > ERROR_BODY_BYTES) return NULL;
  return json_loadb(data, length_bytes, JSON_REJECT_DUPLICATES, NULL);
}

void wire_error_decode_json(const void *data, size_t length_bytes, int http_status,
                            struct sprout_error *error_out) {
  json_t *document = parse_body(data, length_bytes);
  const json_t *body = json_object_get(document, "error");
  const char *code = json_string_value(json_object_get(body, "code"));
  enum sprout_status status = code ? sprout_status_from_name(code) : SPROUT_INTERNAL;
  /* A code of a later version is read as its HTTP status; an error never says "ok". */
  bool known =
      code && status != SPROUT_OK && strcmp(sprout_status_info_of(status)->name, code) == 0;
  status = known ? status_of_peer(status) : status_of_http(http_status);
  *error_out = (struct sprout_error){.status = status, .native = http_status};
  if (code) {
    copy_text(error_out->message, sizeof(error_out->message), json_object_get(body, "message"));
    copy_text(error_out->hint, sizeof(error_out->hint), json_object_get(body, "hint"));
  }
  json_decref(document);
  if (!error_out->message[0])
    (void)sprout_error_set(error_out, status, http_status,
                           "Check that a sprout seed, not another server, listens there.",
                           "the answer was HTTP %d, not in a seed's form: %s", http_status,
                           sprout_status_info_of(status)->summary);
}

bool wire_error_is_seeds(const void *data, size_t length_bytes) {
  json_t *document = parse_body(data, length_bytes);
  bool is_seeds = json_is_string(json_object_get(json_object_get(document, "error"), "code"));
  json_decref(document);
  return is_seeds;
}
