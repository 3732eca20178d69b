/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status table and the one way to fill an error.
 *
 * Retry classes are about the answering source: "other source" drops it, "fatal" means that the
 * request itself, or this machine, is at fault and no source can help. Exit codes group causes by
 * what a script would do next: 2 fix the command, 3 fix the token, 4 find another source, 5
 * distrust the bytes, 6 fix this machine, 75 try again later, 130 it was stopped.
 */
#include "sprout/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ROW(status, name, http, retry, exit, summary) [status] = {name, summary, http, retry, exit}

static const struct sprout_status_info table[SPROUT_STATUS_COUNT] = {
    ROW(SPROUT_OK, "ok", 200, SPROUT_RETRY_NONE, 0, "done"),
    ROW(SPROUT_INVALID, "invalid", 400, SPROUT_RETRY_FATAL, 2,
        "an argument, option or request is malformed"),
    ROW(SPROUT_DENIED, "denied", 401, SPROUT_RETRY_OTHER_SOURCE, 3,
        "the token is missing, wrong or expired"),
    ROW(SPROUT_NOT_FOUND, "not_found", 404, SPROUT_RETRY_OTHER_SOURCE, 4,
        "there is no such route, model, object or file"),
    ROW(SPROUT_METHOD, "method", 405, SPROUT_RETRY_OTHER_SOURCE, 4,
        "the route does not take this method"),
    ROW(SPROUT_STALE, "stale", 409, SPROUT_RETRY_RESTART, 75,
        "the seed now holds another generation of the model"),
    ROW(SPROUT_GONE, "gone", 410, SPROUT_RETRY_RESTART, 75,
        "the manifest or the lease no longer exists"),
    ROW(SPROUT_TOO_EARLY, "too_early", 425, SPROUT_RETRY_SAME_SOURCE, 75,
        "the region is not ready yet"),
    ROW(SPROUT_BUSY, "busy", 429, SPROUT_RETRY_SAME_SOURCE, 75, "the seed's queue is full"),
    ROW(SPROUT_OVER_WINDOW, "over_window", 429, SPROUT_RETRY_SAME_SOURCE, 75,
        "the read exceeds the credits that were granted"),
    ROW(SPROUT_UNAVAILABLE, "unavailable", 503, SPROUT_RETRY_OTHER_SOURCE, 75,
        "the seed is not ready or is draining"),
    ROW(SPROUT_TOO_LARGE, "too_large", 413, SPROUT_RETRY_OTHER_SOURCE, 4,
        "a request, header or message exceeds its maximum"),
    ROW(SPROUT_RANGE, "range", 416, SPROUT_RETRY_OTHER_SOURCE, 4,
        "the range lies outside the object or file"),
    ROW(SPROUT_TIMEOUT, "timeout", 408, SPROUT_RETRY_OTHER_SOURCE, 75, "a time limit ran out"),
    ROW(SPROUT_DISCONNECTED, "disconnected", 502, SPROUT_RETRY_OTHER_SOURCE, 4,
        "the peer could not be reached or closed the connection"),
    ROW(SPROUT_STALLED, "stalled", 504, SPROUT_RETRY_OTHER_SOURCE, 4,
        "granted reads made no progress"),
    ROW(SPROUT_NO_SOURCE, "no_source", 503, SPROUT_RETRY_FATAL, 4,
        "every source was dropped before the fork was whole"),
    ROW(SPROUT_PROTOCOL, "protocol", 400, SPROUT_RETRY_OTHER_SOURCE, 4,
        "the peer sent something that the protocol does not allow"),
    ROW(SPROUT_VERSION, "version", 400, SPROUT_RETRY_OTHER_SOURCE, 4,
        "the peer has no protocol version in common with this program"),
    ROW(SPROUT_MISMATCH, "mismatch", 409, SPROUT_RETRY_OTHER_SOURCE, 5,
        "the model, layout, label or a tensor differs from what was expected"),
    ROW(SPROUT_CORRUPT, "corrupt", 500, SPROUT_RETRY_OTHER_SOURCE, 5,
        "bytes differ from their digest"),
    ROW(SPROUT_BAD_MODEL, "bad_model", 500, SPROUT_RETRY_FATAL, 5,
        "a file is not the model file that it claims to be"),
    ROW(SPROUT_IO, "io", 500, SPROUT_RETRY_FATAL, 6, "a local file or device failed"),
    ROW(SPROUT_NO_SPACE, "no_space", 507, SPROUT_RETRY_FATAL, 6, "the destination is full"),
    ROW(SPROUT_EXISTS, "exists", 409, SPROUT_RETRY_FATAL, 6, "another file is in the way"),
    ROW(SPROUT_NO_MEMORY, "no_memory", 503, SPROUT_RETRY_FATAL, 6, "memory is exhausted"),
    ROW(SPROUT_LIMIT, "limit", 503, SPROUT_RETRY_FATAL, 6, "a local limit is exhausted"),
    ROW(SPROUT_UNSUPPORTED, "unsupported", 501, SPROUT_RETRY_FATAL, 6,
        "the kernel, the build or the machine lacks what is needed"),
    ROW(SPROUT_CANCELLED, "cancelled", 503, SPROUT_RETRY_FATAL, 130, "it was asked to stop"),
    ROW(SPROUT_INTERNAL, "internal", 500, SPROUT_RETRY_FATAL, 6, "a bug in sprout"),
};

const struct sprout_status_info *sprout_status_info_of(enum sprout_status status) {
  unsigned index = (unsigned)status;
  return &table[index < SPROUT_STATUS_COUNT ? index : SPROUT_INTERNAL];
}

enum sprout_status sprout_status_from_name(const char *name) {
  if (name == NULL) return SPROUT_INTERNAL;
  for (unsigned i = 0; i < SPROUT_STATUS_COUNT; i++)
    if (strcmp(table[i].name, name) == 0) return (enum sprout_status)i;
  return SPROUT_INTERNAL;
}

/* Cuts `text` after at most room - 1 bytes, never inside a UTF-8 sequence. */
static size_t cut_length(const char *text, size_t room) {
  size_t length = strnlen(text, room);
  if (length < room) return length;
  length = room - 1;
  while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
  return length;
}

/* Messages quote what peers and files say: no control character of theirs reaches a terminal. */
static void copy_text(char *to, size_t to_bytes, const char *from) {
  size_t length = cut_length(from, to_bytes);
  memmove(to, from, length);
  to[length] = '\0';
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)to[i];
    if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F) to[i] = '?';
  }
}

enum sprout_status sprout_error_set(struct sprout_error *error, enum sprout_status status,
                                    int native, const char *hint, const char *format, ...) {
  assert((unsigned)status < SPROUT_STATUS_COUNT && format != NULL);
  if (error == NULL) return status;
  /* Composed aside, one byte longer than the field to see a cut: arguments may point into *error.
   */
  char message[sizeof(error->message) + 1];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  if (length < 0) message[0] = '\0';
  copy_text(error->hint, sizeof(error->hint), hint != NULL ? hint : "");
  copy_text(error->message, sizeof(error->message), message);
  error->status = status;
  error->native = native;
  return status;
}
