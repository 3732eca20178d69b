/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both HTTP targets share: an input is parsed whole and again in pieces, and both must show
 * the same messages, errors and ends.
 */
#ifndef TESTS_FUZZ_HTTP_FUZZ_H
#define TESTS_FUZZ_HTTP_FUZZ_H

#include "net/http_parser.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A small bound, so that the search reaches it. */
#define HTTP_FUZZ_BODY_LIMIT 300u

/* FNV-1a of all that a run showed. */
struct http_run {
  struct http_parser *parser;
  enum http_parser_kind kind;
  void (*check)(const struct http_message *message);
  uint64_t shown;
  uint64_t body_left; /* of a response whose head was parsed alone */
};

static inline void http_run_show(struct http_run *run, const void *data, size_t length) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < length; i++) run->shown = (run->shown ^ bytes[i]) * 0x100000001b3u;
}

static inline void http_run_text(struct http_run *run, const char *text) {
  if (text) http_run_show(run, text, strlen(text) + 1);
  http_run_show(run, text ? "t" : "n", 1);
}

static inline void http_run_message(struct http_run *run) {
  const struct http_message *message = http_parser_message(run->parser);
  http_run_show(run, &message->method, sizeof(message->method));
  http_run_show(run, &message->status_code, sizeof(message->status_code));
  http_run_text(run, message->path);
  http_run_text(run, message->query);
  for (int i = 0; i < HTTP_HEADER_COUNT; i++) http_run_text(run, message->headers[i]);
  http_run_show(run, &message->content_length, sizeof(message->content_length));
  http_run_show(run, message->keep_alive ? "k" : "c", 1);
  http_run_show(run, message->body, message->body_bytes);
  assert(message->body_bytes <= HTTP_FUZZ_BODY_LIMIT);
  run->check(message);
  if (run->kind == HTTP_PARSE_RESPONSE_HEADS) run->body_left = message->content_length;
}

/* One piece, in memory of its own; false after an error. */
static inline bool http_run_piece(struct http_run *run, const uint8_t *data, size_t length) {
  uint8_t *copy = malloc(length ? length : 1);
  assert(copy);
  memcpy(copy, data, length);
  bool alive = true;
  for (size_t at = 0; at < length && alive;) {
    struct sprout_error error = {.status = SPROUT_OK};
    size_t taken = 0;
    if (run->body_left > 0) {
      taken = run->body_left < length - at ? (size_t)run->body_left : length - at;
      run->body_left -= taken;
      at += taken;
      continue;
    }
    enum http_parser_state state =
        http_parser_feed(run->parser, copy + at, length - at, &taken, &error);
    at += taken;
    assert(at <= length && (state != HTTP_PARSER_MORE || at == length));
    if (state == HTTP_PARSER_ERROR) {
      assert(error.status != SPROUT_OK && error.message[0]);
      http_run_show(run, &error.status, sizeof(error.status));
      http_run_show(run, &error.native, sizeof(error.native));
      alive = false;
    } else if (state == HTTP_PARSER_MESSAGE) {
      http_run_message(run);
      http_parser_next(run->parser);
      assert(!http_parser_in_message(run->parser));
    }
  }
  free(copy);
  return alive;
}

static inline uint64_t http_run(enum http_parser_kind kind, const uint8_t *data, size_t length,
                                size_t piece, void (*check)(const struct http_message *message)) {
  struct http_run run = {.kind = kind, .check = check, .shown = 0xcbf29ce484222325u};
  enum sprout_status status = http_parser_create(kind, HTTP_FUZZ_BODY_LIMIT, &run.parser);
  assert(status == SPROUT_OK);
  for (size_t at = 0; at < length; at += piece) {
    if (!http_run_piece(&run, data + at, length - at < piece ? length - at : piece)) break;
  }
  http_run_show(&run, http_parser_in_message(run.parser) ? "m" : "i", 1);
  http_parser_destroy(run.parser);
  return run.shown;
}

/* The first byte says how large the pieces are. */
static inline void http_run_both(enum http_parser_kind kind, const uint8_t *data, size_t size,
                                 void (*check)(const struct http_message *message)) {
  if (size < 2) return;
  size_t piece = 1 + data[0] % 64;
  uint64_t whole = http_run(kind, data + 1, size - 1, size, check);
  uint64_t pieces = http_run(kind, data + 1, size - 1, piece, check);
  assert(whole == pieces);
}
#endif
