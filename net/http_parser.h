/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 messages, parsed incrementally with llhttp; the one file that knows it. Pure: bytes in,
 * message out.
 *
 * One parser parses one message after the other of one connection. Untrusted input: limits of
 * core/limits.h; RTSP, ICE, CONNECT and Upgrade, obs-fold, bare CR or LF, both Content-Length and
 * Transfer-Encoding, codings other than chunked, trailers, and repeated headers (Accept and
 * If-None-Match are joined) are refused. Paths: an invalid escape, a control character, an empty,
 * "." or ".." part after decoding is refused.
 *
 * Memory: about 1 KiB per idle parser; what a message needs beyond that grows with the bytes that
 * really arrived and is given back by http_parser_next.
 */
#ifndef NET_HTTP_PARSER_H
#define NET_HTTP_PARSER_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_method {
  HTTP_METHOD_GET,
  HTTP_METHOD_HEAD,
  HTTP_METHOD_POST,
  HTTP_METHOD_PUT,
  HTTP_METHOD_PATCH,
  HTTP_METHOD_DELETE,
  HTTP_METHOD_OTHER
};

/* Headers that somebody here asks for; others are checked and dropped. */
enum http_header {
  HTTP_HEADER_HOST,
  HTTP_HEADER_AUTHORIZATION,
  HTTP_HEADER_ACCEPT,
  HTTP_HEADER_RANGE,
  HTTP_HEADER_IF_NONE_MATCH,
  HTTP_HEADER_IF_RANGE,
  HTTP_HEADER_CONTENT_TYPE,
  HTTP_HEADER_CONTENT_RANGE,
  HTTP_HEADER_ETAG,
  HTTP_HEADER_RETRY_AFTER,
  HTTP_HEADER_EXPECT,
  HTTP_HEADER_COUNT
};

/* Valid until the next http_parser_next or _destroy. */
struct http_message {
  enum http_method method; /* requests */
  const char
      *path; /* requests: percent-decoded, absolute, NUL-terminated, without "." and ".." parts */
  const char *query;                      /* requests: raw, "" when there is none */
  int status_code;                        /* responses */
  const char *headers[HTTP_HEADER_COUNT]; /* NULL when absent; NUL-terminated */
  bool keep_alive;
  bool has_content_length;
  uint64_t content_length;   /* 0 for answers that never have a body (1xx, 204, 304) */
  const unsigned char *body; /* requests, and responses parsed with buffered bodies */
  size_t body_bytes;
};

enum http_parser_kind {
  HTTP_PARSE_REQUESTS,      /* bodies are buffered */
  HTTP_PARSE_RESPONSES,     /* bodies are buffered */
  HTTP_PARSE_RESPONSE_HEADS /* stops after each head: the caller takes content_length body bytes
                               itself */
};

enum http_parser_state {
  HTTP_PARSER_MORE,    /* all input taken, message not whole */
  HTTP_PARSER_MESSAGE, /* a message (or head) is there; input beyond it was not taken */
  HTTP_PARSER_ERROR    /* connection is beyond repair; see error */
};

struct http_parser;

/* `body_limit_bytes`: 0: LIMIT_BODY_BYTES. */
SPROUT_MUST_CHECK enum sprout_status http_parser_create(enum http_parser_kind kind,
                                                        size_t body_limit_bytes,
                                                        struct http_parser **parser_out);
void http_parser_destroy(struct http_parser *parser);

/*
 * Takes bytes until a message is whole or they end. *taken_out: how many were taken; the next
 * message begins right behind them. While a message waits to be taken (before http_parser_next)
 * nothing is taken.
 *
 * On ERROR *error has status, message and hint; the error stays. Requests: INVALID, TOO_LARGE or
 * METHOD, with the HTTP code in `native` where it is not the table's (400, 413, 405): 414, 417,
 * 431, 501, 505. Responses: PROTOCOL, or TOO_LARGE for a body over the limit. NO_MEMORY for both.
 */
enum http_parser_state http_parser_feed(struct http_parser *parser, const void *data,
                                        size_t length_bytes, size_t *taken_out,
                                        struct sprout_error *error);
/* After MESSAGE, while it is valid. */
const struct http_message *http_parser_message(const struct http_parser *parser);
/* Makes ready for the next message. For RESPONSE_HEADS the caller has consumed the body outside the
 * parser. HEAD answers have no body: the caller knows. */
void http_parser_next(struct http_parser *parser);
/* True when a message has begun and is not whole (header time-out applies). */
bool http_parser_in_message(const struct http_parser *parser);

/* True when a request's head is whole, its body has not begun, and it waits for "100 Continue". */
bool http_parser_expects_continue(const struct http_parser *parser);

/* Value of `name` in a raw query, percent-decoded into buffer; false when absent, malformed or too
 * long. */
bool http_query_value(const char *query, const char *name, char *buffer, size_t buffer_bytes);

enum http_range_result { HTTP_RANGE_NONE, HTTP_RANGE_OK, HTTP_RANGE_UNSATISFIABLE };
/* A single "bytes=" range against `total`; malformed or multiple ranges count as NONE (RFC
 * 9110 14.2 lets a server ignore them). */
enum http_range_result http_range_parse(const char *header, uint64_t total, uint64_t *offset_out,
                                        uint64_t *length_out);
/* Percent-encodes the value of one name of a query. False when it does not fit. */
bool http_query_encode(const char *value, char *buffer, size_t buffer_bytes);
#endif
