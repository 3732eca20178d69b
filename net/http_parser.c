/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the work is divided: http_framing cuts the head out of the input, and only then llhttp gets
 * it; both must agree where it ends. A body with Content-Length is taken here; a chunked one by
 * llhttp. llhttp is reset for every message, so none can reach into the next.
 */
#include "net/http_parser.h"

#include "core/limits.h"
#include "net/http_fields.h"
#include "net/http_framing.h"
#include "net/http_target.h"

#include <assert.h>
#include <llhttp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Offsets into the store are 32 bits. */
#define BODY_LIMIT_MAX (1u << 30)
/* Framing bytes that a chunked body may have for each byte of content, beyond LIMIT_HEADER_BYTES.
 */
#define CHUNK_OVERHEAD 8u

enum phase {
  PHASE_HEAD,    /* waits for the end of the head */
  PHASE_LENGTH,  /* waits for body_left bytes of body */
  PHASE_CHUNKED, /* waits for the last chunk */
  PHASE_WHOLE,   /* waits for http_parser_next */
  PHASE_FAILED   /* for good */
};

/* Why a connection is beyond repair. Texts are static. */
struct failure {
  enum sprout_status status;
  int native;
  const char *message;
  const char *detail; /* NULL: none */
  const char *hint;
};

struct http_parser {
  llhttp_t llhttp;
  enum http_parser_kind kind;
  enum phase phase;
  size_t body_limit;
  struct http_framing framing;
  struct failure failure;

  bool head_done; /* llhttp saw the end of the head */
  bool chunked;
  bool keep_alive;
  uint32_t target_offset, path_offset, query_offset, body_offset; /* in the fields' store */
  uint64_t body_left;
  uint64_t chunk_raw_bytes; /* of a chunked body, framing included */
  const char *unframed;     /* in the input: behind the last content of a chunk */

  struct http_message message;
  struct http_fields fields;
};

/* --- failing --- */

static void fail(struct http_parser *parser, enum sprout_status status, int native,
                 const char *message, const char *hint) {
  if (parser->phase == PHASE_FAILED) return;
  parser->phase = PHASE_FAILED;
  if (parser->kind != HTTP_PARSE_REQUESTS && status != SPROUT_TOO_LARGE &&
      status != SPROUT_NO_MEMORY) {
    status = SPROUT_PROTOCOL;
    native = 0;
    hint = "Is this address really a sprout seed?";
  }
  parser->failure = (struct failure){status, native, message, NULL, hint};
}

static void fail_bad(struct http_parser *parser, const char *message) {
  fail(parser, SPROUT_INVALID, 0, message, "Send plain HTTP/1.1 (RFC 9112).");
}

static const char unknown_coding[] = "a transfer coding other than chunked";

static void fail_llhttp(struct http_parser *parser, llhttp_errno_t code) {
  switch (code) {
  case HPE_INVALID_METHOD:
    fail(parser, SPROUT_METHOD, 501, "unknown HTTP method",
         "Use GET, HEAD, POST, PATCH or DELETE.");
    break;
  case HPE_INVALID_VERSION:
  case HPE_PAUSED_H2_UPGRADE:
    fail(parser, SPROUT_INVALID, 505, "this HTTP version is not spoken here", "Use HTTP/1.1.");
    break;
  case HPE_INVALID_TRANSFER_ENCODING:
    fail(parser, SPROUT_INVALID, 501, unknown_coding, NULL);
    break;
  default:
    fail_bad(parser, "malformed HTTP message");
    parser->failure.detail = llhttp_get_error_reason(&parser->llhttp);
    break;
  }
}

static enum http_parser_state report_failure(const struct http_parser *parser,
                                             struct sprout_error *error) {
  const struct failure *failure = &parser->failure;
  (void)sprout_error_set(error, failure->status, failure->native, failure->hint, "%s%s%s",
                         failure->message, failure->detail ? ": " : "",
                         failure->detail ? failure->detail : "");
  return HTTP_PARSER_ERROR;
}

static void fail_memory(struct http_parser *parser) {
  fail(parser, SPROUT_NO_MEMORY, 0, "no memory for an HTTP message", NULL);
}

/* Appends to the store, or fails the parser. Results are llhttp's. */
static int keep(struct http_parser *parser, const void *data, size_t length_bytes) {
  if (http_fields_append(&parser->fields, data, length_bytes)) return 0;
  fail_memory(parser);
  return -1;
}

/* --- llhttp's callbacks: only for the head and for chunked bodies --- */

static int on_target(llhttp_t *llhttp, const char *at, size_t length_bytes) {
  struct http_parser *parser = llhttp->data;
  if (!parser->target_offset) parser->target_offset = parser->fields.used_bytes;
  if (parser->fields.used_bytes - parser->target_offset + length_bytes > LIMIT_TARGET_BYTES) {
    fail(parser, SPROUT_TOO_LARGE, 414, "the request target is too long", NULL);
    return -1;
  }
  return keep(parser, at, length_bytes);
}

static int on_target_complete(llhttp_t *llhttp) {
  return keep(llhttp->data, "", 1);
}

static int on_name(llhttp_t *llhttp, const char *at, size_t length_bytes) {
  struct http_parser *parser = llhttp->data;
  if (parser->head_done) {
    fail_bad(parser, "trailers behind a chunked body are not taken");
    return -1;
  }
  http_fields_name(&parser->fields, at, length_bytes);
  return 0;
}

static int on_name_complete(llhttp_t *llhttp) {
  struct http_parser *parser = llhttp->data;
  http_fields_name_end(&parser->fields);
  return 0;
}

static int on_value(llhttp_t *llhttp, const char *at, size_t length_bytes) {
  struct http_parser *parser = llhttp->data;
  if (http_fields_value(&parser->fields, at, length_bytes)) return 0;
  fail_memory(parser);
  return -1;
}

static int on_value_complete(llhttp_t *llhttp) {
  struct http_parser *parser = llhttp->data;
  switch (http_fields_value_end(&parser->fields)) {
  case HTTP_FIELDS_OK: return 0;
  case HTTP_FIELDS_NO_MEMORY: fail_memory(parser); break;
  case HTTP_FIELDS_REPEATED:
    fail_bad(parser, "a header came again that must not");
    parser->failure.detail = http_fields_current(&parser->fields);
    break;
  }
  return -1;
}

static int on_head_complete(llhttp_t *llhttp) {
  struct http_parser *parser = llhttp->data;
  parser->head_done = true;
  parser->keep_alive = llhttp_should_keep_alive(llhttp);
  return 0;
}

/* The framing of a chunked body has the same lines as a head; llhttp takes bare line feeds there.
 */
static bool check_chunk_framing(struct http_parser *parser, const char *end) {
  bool fine = http_framing_chunk(&parser->framing, parser->unframed, end);
  if (!fine) fail_bad(parser, "a chunk's line that does not end in CR LF");
  return fine;
}

static int on_body(llhttp_t *llhttp, const char *at, size_t length_bytes) {
  struct http_parser *parser = llhttp->data;
  assert(parser->phase == PHASE_CHUNKED);
  if (!check_chunk_framing(parser, at)) return -1;
  parser->unframed = at + length_bytes;
  if (length_bytes > parser->body_limit - (parser->fields.used_bytes - parser->body_offset)) {
    fail(parser, SPROUT_TOO_LARGE, 0, "the body is too large", NULL);
    return -1;
  }
  return keep(parser, at, length_bytes);
}

static int on_complete(llhttp_t *llhttp) {
  struct http_parser *parser = llhttp->data;
  return parser->phase == PHASE_CHUNKED ? HPE_PAUSED : 0;
}

static const llhttp_settings_t settings = {
    .on_url = on_target,
    .on_url_complete = on_target_complete,
    .on_header_field = on_name,
    .on_header_field_complete = on_name_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_head_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* --- from head to message --- */

static enum http_method method_of(const llhttp_t *llhttp) {
  switch (llhttp->method) {
  case HTTP_GET: return HTTP_METHOD_GET;
  case HTTP_HEAD: return HTTP_METHOD_HEAD;
  case HTTP_POST: return HTTP_METHOD_POST;
  case HTTP_PUT: return HTTP_METHOD_PUT;
  case HTTP_PATCH: return HTTP_METHOD_PATCH;
  case HTTP_DELETE: return HTTP_METHOD_DELETE;
  default: return HTTP_METHOD_OTHER;
  }
}

/* The strict reading of Content-Length: digits. */
static bool parse_length(const char *text, uint64_t *length_out) {
  uint64_t value = 0;
  if (!*text) return false;
  for (; *text; text++) {
    if (*text < '0' || *text > '9' || __builtin_mul_overflow(value, 10u, &value) ||
        __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
      return false;
  }
  *length_out = value;
  return true;
}

/* Where the body ends (RFC 9112 6.3), without the cases in which nobody can tell. */
static void frame_body(struct http_parser *parser) {
  struct http_message *message = &parser->message;
  const char *length = http_fields_get(&parser->fields, HTTP_FIELD_CONTENT_LENGTH);
  const char *coding = http_fields_get(&parser->fields, HTTP_FIELD_TRANSFER_ENCODING);
  if (length && coding) {
    fail_bad(parser, "both Content-Length and Transfer-Encoding");
  } else if (coding && parser->llhttp.http_minor == 0) {
    fail_bad(parser, "Transfer-Encoding in HTTP/1.0");
  } else if (coding && strcasecmp(coding, "chunked") != 0) {
    fail(parser, SPROUT_INVALID, 501, unknown_coding, NULL);
  } else if (length && !parse_length(length, &message->content_length)) {
    fail_bad(parser, "Content-Length is not a number of bytes");
  }
  parser->chunked = coding != NULL;
  message->has_content_length = length != NULL;
  if (parser->kind == HTTP_PARSE_REQUESTS) return;
  int code = message->status_code;
  if (code < 100 || code > 599) {
    fail_bad(parser, "a status code that is not 100 to 599");
  } else if (code == 101) {
    fail_bad(parser, "a switch to another protocol");
  } else if (code / 100 == 1 || code == 204 || code == 304) {
    message->content_length = 0;
    parser->chunked = false;
  } else if (!length && (!coding || parser->kind == HTTP_PARSE_RESPONSE_HEADS)) {
    fail_bad(parser, "an answer without Content-Length");
  }
}

static void check_request(struct http_parser *parser) {
  struct http_message *message = &parser->message;
  message->method = method_of(&parser->llhttp);
  assert(parser->target_offset != 0);
  char *target = parser->fields.store + parser->target_offset;
  const char *expect = http_fields_get(&parser->fields, HTTP_HEADER_EXPECT);
  if (parser->llhttp.method == HTTP_CONNECT ||
      (parser->llhttp.method == HTTP_OPTIONS && strcmp(target, "*") == 0)) {
    fail(parser, SPROUT_METHOD, 0, "this HTTP method is not taken here",
         "Use GET, HEAD, POST, PATCH or DELETE.");
    return;
  }
  if (!http_fields_get(&parser->fields, HTTP_HEADER_HOST) && parser->llhttp.http_minor > 0)
    fail_bad(parser, "HTTP/1.1 without a Host header");
  if (http_fields_get(&parser->fields, HTTP_FIELD_UPGRADE))
    fail_bad(parser, "Upgrade to another protocol is not taken");
  if (expect && strcasecmp(expect, "100-continue") != 0)
    fail(parser, SPROUT_INVALID, 417, "an expectation other than 100-continue", NULL);
  const char *path = target, *query = target;
  const char *wrong = http_target_split(target, &path, &query);
  if (wrong) fail(parser, SPROUT_INVALID, 0, wrong, "Ask for an absolute path, \"/v1/...\".");
  parser->path_offset = (uint32_t)(path - parser->fields.store);
  parser->query_offset = (uint32_t)(query - parser->fields.store);
}

/* The message is whole: pointers into the store, which moves no more. */
static void finish(struct http_parser *parser) {
  struct http_message *message = &parser->message;
  for (unsigned i = 0; i < HTTP_HEADER_COUNT; i++)
    message->headers[i] = http_fields_get(&parser->fields, i);
  if (parser->kind == HTTP_PARSE_REQUESTS) {
    message->path = parser->fields.store + parser->path_offset;
    message->query = parser->fields.store + parser->query_offset;
  }
  message->keep_alive = parser->keep_alive;
  message->body = (const unsigned char *)parser->fields.store + parser->body_offset;
  message->body_bytes = parser->fields.used_bytes - parser->body_offset;
  parser->phase = PHASE_WHOLE;
}

static void finish_head(struct http_parser *parser) {
  struct http_message *message = &parser->message;
  if (!parser->head_done && parser->llhttp.method != HTTP_PRI) {
    fail_bad(parser, "malformed head");
    return;
  }
  if (!parser->head_done || parser->llhttp.http_major != 1 || parser->llhttp.http_minor > 1) {
    fail_llhttp(parser, HPE_INVALID_VERSION);
    return;
  }
  message->status_code = parser->llhttp.status_code;
  if (parser->kind == HTTP_PARSE_REQUESTS) check_request(parser);
  frame_body(parser);
  if (parser->phase == PHASE_FAILED) return;
  parser->body_offset = parser->fields.used_bytes;
  parser->body_left = message->content_length;
  if (parser->kind == HTTP_PARSE_RESPONSE_HEADS || (!parser->chunked && !parser->body_left)) {
    finish(parser);
  } else if (parser->body_left > parser->body_limit) {
    fail(parser, SPROUT_TOO_LARGE, 0, "the body is too large", NULL);
  } else {
    parser->phase = parser->chunked ? PHASE_CHUNKED : PHASE_LENGTH;
  }
}

/* --- taking input, each part as far as it goes --- */

static void fail_framing(struct http_parser *parser, enum http_framing_verdict verdict) {
  switch (verdict) {
  case HTTP_FRAMING_LONG_LINE:
    fail(parser, SPROUT_TOO_LARGE, 414, "the request target is too long", NULL);
    break;
  case HTTP_FRAMING_LONG_HEADERS:
    fail(parser, SPROUT_TOO_LARGE, 431, "the headers are too long", NULL);
    break;
  default: fail_bad(parser, parser->framing.wrong); break;
  }
}

static size_t take_head(struct http_parser *parser, const char *data, size_t length_bytes) {
  size_t taken = 0;
  enum http_framing_verdict verdict =
      http_framing_head(&parser->framing, data, length_bytes, &taken);
  bool wrong = verdict != HTTP_FRAMING_MORE && verdict != HTTP_FRAMING_END;
  /* What llhttp finds before the byte that is wrong came first, however the input is cut. */
  llhttp_errno_t code = llhttp_execute(&parser->llhttp, data, taken - wrong);
  if (parser->phase == PHASE_FAILED) return taken;
  if (code != HPE_OK && code != HPE_PAUSED_UPGRADE) {
    fail_llhttp(parser, code);
  } else if (wrong) {
    fail_framing(parser, verdict);
  } else if (verdict == HTTP_FRAMING_END) {
    finish_head(parser);
  } else if (parser->head_done) {
    fail_bad(parser, "malformed head");
  }
  return taken;
}

static size_t take_length(struct http_parser *parser, const char *data, size_t length_bytes) {
  size_t taken = parser->body_left < length_bytes ? (size_t)parser->body_left : length_bytes;
  if (keep(parser, data, taken) != 0) return 0;
  parser->body_left -= taken;
  if (parser->body_left == 0) finish(parser);
  return taken;
}

static size_t take_chunked(struct http_parser *parser, const char *data, size_t length_bytes) {
  parser->unframed = data;
  llhttp_errno_t code = llhttp_execute(&parser->llhttp, data, length_bytes);
  if (parser->phase == PHASE_FAILED) return length_bytes;
  size_t taken = length_bytes;
  if (code == HPE_PAUSED) taken = (size_t)(llhttp_get_error_pos(&parser->llhttp) - data);
  assert(taken <= length_bytes);
  if (!check_chunk_framing(parser, data + taken)) return taken;
  parser->chunk_raw_bytes += taken;
  uint64_t body_bytes = parser->fields.used_bytes - parser->body_offset;
  if (code != HPE_OK && code != HPE_PAUSED) {
    fail_llhttp(parser, code);
  } else if (parser->chunk_raw_bytes > LIMIT_HEADER_BYTES + body_bytes * (1 + CHUNK_OVERHEAD)) {
    fail(parser, SPROUT_TOO_LARGE, 0, "the chunked body has more framing than content",
         "Send larger chunks without extensions.");
  } else if (code == HPE_PAUSED) {
    finish(parser);
  }
  return taken;
}

/* --- the interface --- */

static void begin_message(struct http_parser *parser) {
  llhttp_reset(&parser->llhttp);
  http_fields_begin(&parser->fields);
  parser->phase = PHASE_HEAD;
  http_framing_begin(&parser->framing, parser->kind == HTTP_PARSE_REQUESTS);
  parser->head_done = parser->chunked = parser->keep_alive = false;
  parser->target_offset = parser->path_offset = parser->query_offset = 0;
  parser->chunk_raw_bytes = 0;
  parser->message = (struct http_message){.path = "", .query = ""};
}

enum sprout_status http_parser_create(enum http_parser_kind kind, size_t body_limit_bytes,
                                      struct http_parser **parser_out) {
  assert(body_limit_bytes <= BODY_LIMIT_MAX);
  struct http_parser *parser = calloc(1, sizeof(*parser));
  if (!parser) return SPROUT_NO_MEMORY;
  parser->kind = kind;
  parser->body_limit = body_limit_bytes ? body_limit_bytes : LIMIT_BODY_BYTES;
  http_fields_init(&parser->fields);
  llhttp_init(&parser->llhttp, kind == HTTP_PARSE_REQUESTS ? HTTP_REQUEST : HTTP_RESPONSE,
              &settings);
  parser->llhttp.data = parser;
  begin_message(parser);
  *parser_out = parser;
  return SPROUT_OK;
}

void http_parser_destroy(struct http_parser *parser) {
  if (!parser) return;
  http_fields_destroy(&parser->fields);
  free(parser);
}

enum http_parser_state http_parser_feed(struct http_parser *parser, const void *data,
                                        size_t length_bytes, size_t *taken_out,
                                        struct sprout_error *error) {
  const char *at = data;
  size_t left = length_bytes;
  while (left > 0 && parser->phase < PHASE_WHOLE) {
    size_t taken = 0;
    if (parser->phase == PHASE_HEAD) {
      taken = take_head(parser, at, left);
    } else if (parser->phase == PHASE_LENGTH) {
      taken = take_length(parser, at, left);
    } else {
      taken = take_chunked(parser, at, left);
    }
    at += taken;
    left -= taken;
  }
  *taken_out = length_bytes - left;
  if (parser->phase == PHASE_FAILED) return report_failure(parser, error);
  return parser->phase == PHASE_WHOLE ? HTTP_PARSER_MESSAGE : HTTP_PARSER_MORE;
}

const struct http_message *http_parser_message(const struct http_parser *parser) {
  assert(parser->phase == PHASE_WHOLE);
  return &parser->message;
}

void http_parser_next(struct http_parser *parser) {
  assert(parser->phase == PHASE_WHOLE);
  begin_message(parser);
}

bool http_parser_in_message(const struct http_parser *parser) {
  return parser->framing.begun && parser->phase < PHASE_WHOLE;
}

bool http_parser_expects_continue(const struct http_parser *parser) {
  if (parser->phase != PHASE_LENGTH && parser->phase != PHASE_CHUNKED) return false;
  return http_fields_get(&parser->fields, HTTP_HEADER_EXPECT) &&
         parser->fields.used_bytes == parser->body_offset && parser->chunk_raw_bytes == 0;
}
