/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/limits.h"
#include "net/http_parser.h"
#include "tests/support/memory.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HOST "Host: h\r\n"
#define REQUEST(line) line "\r\n" HOST "\r\n"

/* What a run over one input showed, as text, so that runs can be compared and cases written down.
 */
struct transcript {
  char text[4096];
  size_t used;
};

static void say(struct transcript *transcript, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(transcript->text + transcript->used,
                         sizeof(transcript->text) - transcript->used, format, arguments);
  va_end(arguments);
  assert_true(length >= 0 && transcript->used + (size_t)length < sizeof(transcript->text));
  transcript->used += (size_t)length;
}

static void say_message(struct transcript *transcript, enum http_parser_kind kind,
                        const struct http_message *message) {
  if (kind == HTTP_PARSE_REQUESTS) {
    say(transcript, "%d %s", (int)message->method, message->path);
    if (message->query[0]) say(transcript, "?%s", message->query);
  } else {
    say(transcript, "%d", message->status_code);
  }
  for (int i = 0; i < HTTP_HEADER_COUNT; i++) {
    if (message->headers[i] && i != HTTP_HEADER_HOST)
      say(transcript, " [%d=%s]", i, message->headers[i]);
  }
  if (message->has_content_length)
    say(transcript, " length %llu", (unsigned long long)message->content_length);
  if (message->body_bytes)
    say(transcript, " body %.*s", (int)message->body_bytes, (const char *)message->body);
  say(transcript, "%s\n", message->keep_alive ? "" : " close");
}

/* Feeds one piece, which is copied to memory of exactly its size; false after an error. */
static bool feed(struct http_parser *parser, enum http_parser_kind kind, const char *data,
                 size_t length, struct transcript *transcript) {
  char *copy = malloc(length ? length : 1);
  assert_non_null(copy);
  memcpy(copy, data, length);
  size_t at = 0;
  bool alive = true;
  for (bool more = true; more && alive;) {
    size_t taken = 0;
    struct sprout_error error = {0};
    switch (http_parser_feed(parser, copy + at, length - at, &taken, &error)) {
    case HTTP_PARSER_MORE:
      assert_int_equal(at + taken, length);
      more = false;
      break;
    case HTTP_PARSER_MESSAGE:
      assert_false(http_parser_in_message(parser));
      say_message(transcript, kind, http_parser_message(parser));
      http_parser_next(parser);
      at += taken;
      assert_true(at <= length);
      more = at < length;
      break;
    case HTTP_PARSER_ERROR:
      say(transcript, "%s %d\n", sprout_status_info_of(error.status)->name, error.native);
      assert_true(error.message[0]);
      alive = false;
      break;
    }
  }
  free(copy);
  return alive;
}

/* A whole input, cut at `first` and `second`. */
static struct transcript run_cut(enum http_parser_kind kind, const char *data, size_t length,
                                 size_t first, size_t second) {
  struct transcript transcript = {.used = 0};
  struct http_parser *parser = NULL;
  assert_int_equal(http_parser_create(kind, 0, &parser), SPROUT_OK);
  if (feed(parser, kind, data, first, &transcript) &&
      feed(parser, kind, data + first, second - first, &transcript))
    (void)feed(parser, kind, data + second, length - second, &transcript);
  if (http_parser_in_message(parser)) say(&transcript, "...\n");
  http_parser_destroy(parser);
  return transcript;
}

static struct transcript run_bytes(enum http_parser_kind kind, const char *data, size_t length) {
  struct transcript transcript = {.used = 0};
  struct http_parser *parser = NULL;
  assert_int_equal(http_parser_create(kind, 0, &parser), SPROUT_OK);
  for (size_t i = 0; i < length; i++) {
    if (!feed(parser, kind, data + i, 1, &transcript)) break;
  }
  if (http_parser_in_message(parser)) say(&transcript, "...\n");
  http_parser_destroy(parser);
  return transcript;
}

/* Whole, byte by byte, cut in two at every place, and in three around every place. */
static void check_everywhere(enum http_parser_kind kind, const char *data, size_t length,
                             const char *expected) {
  struct transcript got = run_cut(kind, data, length, length, length);
  if (strcmp(got.text, expected) != 0)
    print_error("input:\n%s\nexpected:\n%s\ngot:\n%s\n", data, expected, got.text);
  assert_string_equal(got.text, expected);
  got = run_bytes(kind, data, length);
  assert_string_equal(got.text, expected);
  for (size_t i = 0; i <= length; i++) {
    got = run_cut(kind, data, length, i, length);
    assert_string_equal(got.text, expected);
    got = run_cut(kind, data, length, i, i < length ? i + 1 : i);
    assert_string_equal(got.text, expected);
  }
}

struct example {
  const char *input;
  const char *expected;
};

static void check_examples(enum http_parser_kind kind, const struct example *examples,
                           size_t count) {
  for (size_t i = 0; i < count; i++)
    check_everywhere(kind, examples[i].input, strlen(examples[i].input), examples[i].expected);
}

static void requests_are_read_at_every_split(void **state) {
  (void)state;
  static const struct example examples[] = {
      {REQUEST("GET / HTTP/1.1"), "0 /\n"},
      {REQUEST("GET /v1/manifests?x=1&y=%20 HTTP/1.1"), "0 /v1/manifests?x=1&y=%20\n"},
      {REQUEST("GET /a?b?c=/../d HTTP/1.1"), "0 /a?b?c=/../d\n"},
      {"\r\n" REQUEST("HEAD /a HTTP/1.1"), "1 /a\n"},
      {"GET / HTTP/1.0\r\n\r\n", "0 / close\n"},
      {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "0 /\n"},
      {"GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", "0 / close\n"},
      {"GET /x HTTP/1.1\r\nHOST: a\r\nauthorization:Bearer t \t\r\nAccept:\ta\r\nX: y\r\n\r\n",
       "0 /x [1=Bearer t] [2=a]\n"},
      {"GET /x HTTP/1.1\r\nhost:\r\nRange: bytes=0-\r\nIf-Range: \"e\"\r\n\r\n",
       "0 /x [3=bytes=0-] [5=\"e\"]\n"},
      {"GET /x HTTP/1.1\r\n" HOST "Accept: a\r\nAccept: b\r\nAccept:c\r\n\r\n",
       "0 /x [2=a, b, c]\n"},
      {"GET /x HTTP/1.1\r\n" HOST "Accept: a\r\nIf-None-Match: x\r\nAccept: b\r\n"
       "If-None-Match: \r\nAccept: c\r\nAccept:\r\n\r\n",
       "0 /x [2=a, b, c, ] [4=x, ]\n"},
      {"GET /x HTTP/1.1\r\n" HOST "Accept: a\r\nAccept: a\r\nAccept: a\r\nAccept: a\r\n"
       "Accept: a\r\nAccept: a\r\n\r\n",
       "invalid 0\n"},
      {"POST /r HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Type: application/msgpack\r\n\r\n"
       "hello",
       "2 /r [6=application/msgpack] length 5 body hello\n"},
      {"POST /r HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", "2 /r length 0\n"},
      {"POST /r HTTP/1.1\r\n" HOST "\r\n", "2 /r\n"},
      {"GET /r HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc", "0 /r length 3 body abc\n"},
      {"POST /r HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n"
       "0123456789\r\n0\r\n\r\n",
       "2 /r body abc0123456789\n"},
      {"POST /r HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "2 /r\n"},
      {REQUEST("PUT /p HTTP/1.1") REQUEST("PATCH /q HTTP/1.1") REQUEST("DELETE /d HTTP/1.1")
           REQUEST("OPTIONS /o HTTP/1.1"),
       "3 /p\n4 /q\n5 /d\n6 /o\n"},
      {"POST /a HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nab"
       "POST /b HTTP/1.1\r\n" HOST
       "Transfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n" REQUEST("GET /c HTTP/1.1"),
       "2 /a length 2 body ab\n2 /b body c\n0 /c\n"},
      {"GET /a HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n" REQUEST("GET /b HTTP/1.1"),
       "0 /a close\n0 /b\n"},
      {"GET http://other:99/v1/x?y HTTP/1.1\r\n" HOST "\r\n", "0 /v1/x?y\n"},
      {"GET HTTP://other HTTP/1.1\r\n" HOST "\r\n", "0 /\n"},
      {"GET http://other?q HTTP/1.1\r\n" HOST "\r\n", "0 /?q\n"},
      {"GET /half HTTP/1.1\r\n" HOST, "...\n"},
      {"POST /r HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhell", "...\n"},
      {"POST /r HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r",
       "...\n"},
      {"", ""},
      {"\r\n\r\n", ""},
  };
  check_examples(HTTP_PARSE_REQUESTS, examples, COUNT(examples));
}

static void paths_are_decoded_once_and_checked(void **state) {
  (void)state;
  static const struct example examples[] = {
      {REQUEST("GET /a%20b/%e4%bd%a0 HTTP/1.1"), "0 /a b/\xe4\xbd\xa0\n"},
      {REQUEST("GET /%2541 HTTP/1.1"), "0 /%41\n"},
      {REQUEST("GET /a%2fb HTTP/1.1"), "0 /a/b\n"},
      {REQUEST("GET /a/ HTTP/1.1"), "0 /a/\n"},
      {REQUEST("GET /a\\..\\b HTTP/1.1"), "0 /a\\..\\b\n"},
      {REQUEST("GET /...//..a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /.../..a HTTP/1.1"), "0 /.../..a\n"},
      {REQUEST("GET /a%00b HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a%0d%0a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a%7f HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a%4 HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a%zz HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a% HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a/../b HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a/%2e%2E/b HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a/..%2fb HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /.. HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /./a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a/. HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET //a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a//b HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a%2f%2fb HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a#b HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET * HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET http:///a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET ftp://h/a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET https://h/a HTTP/1.1"), "invalid 0\n"},
      {REQUEST("GET /a\xff HTTP/1.1"), "invalid 0\n"},
  };
  check_examples(HTTP_PARSE_REQUESTS, examples, COUNT(examples));
}

static void other_protocols_are_refused(void **state) {
  (void)state;
  static const struct example examples[] = {
      {REQUEST("OPTIONS * HTTP/1.1"), "method 0\n"},
      {REQUEST("CONNECT a:1 HTTP/1.1"), "method 0\n"},
      {REQUEST("BREW /pot HTTP/1.1"), "method 501\n"},
      {REQUEST("get / HTTP/1.1"), "method 501\n"},
      {REQUEST("GET / HTTP/2.0"), "invalid 505\n"},
      {REQUEST("GET / HTTP/3.0"), "invalid 505\n"},
      {REQUEST("GET / HTTP/0.9"), "invalid 505\n"},
      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "invalid 505\n"},
      {REQUEST("DESCRIBE /x RTSP/1.0"), "invalid 0\n"},
      {REQUEST("OPTIONS /x RTSP/1.0"), "invalid 0\n"},
      {REQUEST("SOURCE /x ICE/1.0"), "invalid 0\n"},
      {"GET /\r\n", "invalid 0\n"},
      {"GET  HTTP/1.1\r\n" HOST "\r\n", "invalid 0\n"},
      {"GET   / HTTP/1.1\r\n" HOST "\r\n", "invalid 0\n"},
      {"GET / / HTTP/1.1\r\n" HOST "\r\n", "invalid 0\n"},
      {" GET / HTTP/1.1\r\n" HOST "\r\n", "method 501\n"},
      {"GET /  HTTP/1.1\r\n" HOST "\r\n", "invalid 0\n"},
      {"GET\t/ HTTP/1.1\r\n" HOST "\r\n", "invalid 0\n"},
      {"GET / HTTP/1.1 \r\n" HOST "\r\n", "invalid 0\n"},
      {"GET / HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
       "invalid 0\n"},
      {"GET / HTTP/1.1\r\n" HOST "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
       "invalid 0\n"},
      {"GET / HTTP/1.1\r\nAccept: x\r\n\r\n", "invalid 0\n"},
      {"POST / HTTP/1.1\r\n" HOST "Expect: tea\r\nContent-Length: 1\r\n\r\nx", "invalid 417\n"},
      {"\x16\x03\x01\x02", "invalid 0\n"},
  };
  check_examples(HTTP_PARSE_REQUESTS, examples, COUNT(examples));
}

static void smuggling_is_refused(void **state) {
  (void)state;
#define POST "POST / HTTP/1.1\r\n" HOST
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
  static const struct example examples[] = {
      {POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "invalid 0\n"},
      {POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "invalid 0\n"},
      {POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length: 3, 3\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length: +3\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length: -3\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length: 0x3\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length: 3 3\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length:\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length: 18446744073709551616\r\n\r\n", "invalid 0\n"},
      {POST "Content-Length: 99999999999999999999999\r\n\r\n", "invalid 0\n"},
      {POST "Content-Length : 3\r\n\r\nabc", "invalid 0\n"},
      {POST "Content-Length\t: 3\r\n\r\nabc", "invalid 0\n"},
      {POST " Content-Length: 3\r\n\r\nabc", "invalid 0\n"},
      {POST "X: a\r\n Content-Length: 3\r\n\r\nabc", "invalid 0\n"},
      {POST "X:\r\n\tb\r\n\r\n", "invalid 0\n"},
      {"GET / HTTP/1.1\r\n X: y\r\n" HOST "\r\n", "invalid 0\n"},
      {POST "X: a\nContent-Length: 3\r\n\r\nabc", "invalid 0\n"},
      {POST "X: a\rContent-Length: 3\r\n\r\nabc", "invalid 0\n"},
      {POST "X: a\r\r\n\r\n", "invalid 0\n"},
      {"GET / HTTP/1.1\n" HOST "\n", "invalid 0\n"},
      {POST "X: a\r\n\nGET / HTTP/1.1\r\n", "invalid 0\n"},
      {"\nGET / HTTP/1.1\r\n" HOST "\r\n", "invalid 0\n"},
      {POST "X: a\x01\r\n\r\n", "invalid 0\n"},
      {POST "X: a\x7f\r\n\r\n", "invalid 0\n"},
      {POST "X\x80: a\r\n\r\n", "invalid 0\n"},
      {POST "X\r\n\r\n", "invalid 0\n"},
      {POST ": a\r\n\r\n", "invalid 0\n"},
      {POST "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", "invalid 0\n"},
      {POST "Host: i\r\n\r\n", "invalid 0\n"},
      {POST "Range: bytes=0-1\r\nRange: bytes=2-3\r\n\r\n", "invalid 0\n"},
      {POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "invalid 501\n"},
      {POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "invalid 501\n"},
      {POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "invalid 501\n"},
      {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
       "invalid 501\n"},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "3\nabc\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "3\r\nabc\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "3\r\nabcd\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "3;a\nb\r\nabc\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "3 \r\nabc\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED " 3\r\nabc\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "+3\r\nabc\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "\r\n0\r\n\r\n", "invalid 0\n"},
      {CHUNKED "10000000000000000\r\n", "invalid 0\n"},
      {CHUNKED "0\r\nX: y\r\n\r\n", "invalid 0\n"},
      {CHUNKED "0\r\n\n", "invalid 0\n"},
      {CHUNKED "0\n\r\n", "invalid 0\n"},
      {CHUNKED "FFFFFFFFFFFFFFFF\r\nabc", "...\n"},
  };
  check_examples(HTTP_PARSE_REQUESTS, examples, COUNT(examples));
  static const char nul[] = POST "X: a\0b\r\n\r\n";
  check_everywhere(HTTP_PARSE_REQUESTS, nul, sizeof(nul) - 1, "invalid 0\n");
  static const char nul_target[] = "GET /a\0b HTTP/1.1\r\n" HOST "\r\n";
  check_everywhere(HTTP_PARSE_REQUESTS, nul_target, sizeof(nul_target) - 1, "invalid 0\n");
}

static void answers_are_read_at_every_split(void **state) {
  (void)state;
  static const struct example examples[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: \"x\"\r\n\r\nok",
       "200 [8=\"x\"] length 2 body ok\n"},
      {"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "200 length 0\n"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
       "HTTP/1.1 429 Busy\r\nRetry-After: 3\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
       "200 body ok\n429 [9=3] length 1 body x close\n"},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\n"
       "Content-Length: 9\r\n\r\nHTTP/1.1 404 N\r\nContent-Length: 1\r\n\r\nx",
       "100\n204\n304 length 0\n404 length 1 body x\n"},
      {"HTTP/1.1 200 OK\r\n\r\nto the end", "protocol 0\n"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "protocol 0\n"},
      {"HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\n", "protocol 0\n"},
      {"HTTP/1.1 20 OK\r\nContent-Length: 1\r\n\r\n", "protocol 0\n"},
      {"HTTP/1.1 0200 OK\r\nContent-Length: 1\r\n\r\n", "protocol 0\n"},
      {"HTTP/1.1 600 OK\r\nContent-Length: 1\r\n\r\n", "protocol 0\n"},
      {"HTTP/2.0 200 OK\r\nContent-Length: 1\r\n\r\n", "protocol 0\n"},
      {"GET / HTTP/1.1\r\n" HOST "\r\n", "protocol 0\n"},
      {"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "protocol 0\n"},
      {"HTTP/1.1 101 S\r\n\r\n", "protocol 0\n"},
      {"SSH-2.0-OpenSSH_9.2\r\n", "protocol 0\n"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "too_large 0\n"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "protocol 0\n"},
  };
  check_examples(HTTP_PARSE_RESPONSES, examples, COUNT(examples));
}

static void heads_end_where_the_body_begins(void **state) {
  (void)state;
  static const struct example examples[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "200 length 99999999999\n"},
      {"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\n"
       "HTTP/1.1 206 P\r\nContent-Length: 4\r\nContent-Range: bytes 0-3/9\r\n\r\n"
       "HTTP/1.1 304 P\r\nContent-Length: 4\r\n\r\n",
       "409 length 4\n206 [7=bytes 0-3/9] length 4\n304 length 0\n"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "protocol 0\n"},
      {"HTTP/1.1 200 OK\r\n\r\n", "protocol 0\n"},
  };
  check_examples(HTTP_PARSE_RESPONSE_HEADS, examples, COUNT(examples));

  static const char input[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200";
  struct http_parser *parser = NULL;
  assert_int_equal(http_parser_create(HTTP_PARSE_RESPONSE_HEADS, 0, &parser), SPROUT_OK);
  size_t taken = 0;
  assert_int_equal(http_parser_feed(parser, input, sizeof(input) - 1, &taken, NULL),
                   HTTP_PARSER_MESSAGE);
  assert_string_equal(input + taken, "abcHTTP/1.1 200");
  assert_int_equal(http_parser_feed(parser, input, 5, &taken, NULL), HTTP_PARSER_MESSAGE);
  assert_int_equal(taken, 0);
  http_parser_next(parser);
  assert_false(http_parser_in_message(parser));
  http_parser_destroy(parser);
}

/* Builds prefix + count * unit + suffix. */
static char *build(const char *prefix, const char *unit, size_t count, const char *suffix) {
  size_t unit_bytes = strlen(unit);
  size_t bytes = strlen(prefix) + unit_bytes * count + strlen(suffix) + 1;
  char *text = malloc(bytes);
  assert_non_null(text);
  char *at = text + snprintf(text, bytes, "%s", prefix);
  for (size_t i = 0; i < count; i++, at += unit_bytes) memcpy(at, unit, unit_bytes);
  (void)snprintf(at, bytes - (size_t)(at - text), "%s", suffix);
  return text;
}

static void check_long(const char *prefix, const char *unit, size_t count, const char *suffix,
                       const char *expected) {
  char *text = build(prefix, unit, count, suffix);
  size_t length = strlen(text);
  struct transcript got = run_bytes(HTTP_PARSE_REQUESTS, text, length);
  assert_string_equal(got.text, expected);
  got = run_cut(HTTP_PARSE_REQUESTS, text, length, length / 2, length - 1);
  assert_string_equal(got.text, expected);
  free(text);
}

static void limits_hold(void **state) {
  (void)state;
  static const char tail[] = " HTTP/1.1\r\n" HOST "\r\n";
  check_long("GET /", "x", LIMIT_TARGET_BYTES, tail, "too_large 414\n");
  check_long("GET /", "x", 1u << 20, "", "too_large 414\n");
  check_long("X", "X", 1u << 20, "", "method 501\n");
  check_long("GET / HTTP/1.1\r\n" HOST, "X: y\r\n", LIMIT_HEADER_BYTES / 6, "\r\n",
             "too_large 431\n");
  check_long("GET / HTTP/1.1\r\n" HOST, "X: y\r\n", LIMIT_HEADER_BYTES / 6 - 3, "\r\n", "0 /\n");
  check_long("GET / HTTP/1.1\r\n" HOST "X: ", "z", 1u << 20, "", "too_large 431\n");
  check_long("GET / HTTP/1.1\r\n" HOST, "X", 1u << 20, "", "too_large 431\n");
  check_long("", "\r\n", 1000, "", "invalid 0\n");
  check_long("POST / HTTP/1.1\r\n" HOST "Content-Length: 1048577\r\n\r\n", "x", 9, "",
             "too_large 0\n");
  check_long("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n100001\r\n", "x",
             LIMIT_BODY_BYTES + 1, "", "too_large 0\n");
  check_long("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1;", "x",
             LIMIT_HEADER_BYTES * 2, "", "too_large 0\n");
  check_long("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
             "1;xxxxxxxxxxx\r\nx\r\n", 20000, "", "too_large 0\n");
}

static void a_target_of_the_limit_is_taken(void **state) {
  (void)state;
  char *text = build("GET /", "x", LIMIT_TARGET_BYTES - 1, " HTTP/1.1\r\n" HOST "\r\n");
  struct http_parser *parser = NULL;
  size_t taken = 0;
  assert_int_equal(http_parser_create(HTTP_PARSE_REQUESTS, 0, &parser), SPROUT_OK);
  assert_int_equal(http_parser_feed(parser, text, strlen(text), &taken, NULL), HTTP_PARSER_MESSAGE);
  assert_int_equal(strlen(http_parser_message(parser)->path), LIMIT_TARGET_BYTES);
  http_parser_next(parser);
  http_parser_destroy(parser);
  free(text);
}

static void a_whole_body_arrives(void **state) {
  (void)state;
  char *text = build("POST / HTTP/1.1\r\n" HOST "Content-Length: 1048576\r\n\r\n", "b",
                     LIMIT_BODY_BYTES, "GET");
  size_t length = strlen(text);
  struct http_parser *parser = NULL;
  assert_int_equal(http_parser_create(HTTP_PARSE_REQUESTS, 0, &parser), SPROUT_OK);
  for (int round = 0; round < 2; round++) {
    size_t at = 0;
    enum http_parser_state parsed = HTTP_PARSER_MORE;
    while (parsed == HTTP_PARSER_MORE) {
      size_t taken = 0, piece = length - at < 8192 ? length - at : 8192;
      assert_true(piece > 0);
      parsed = http_parser_feed(parser, text + at, piece, &taken, NULL);
      at += taken;
    }
    assert_int_equal(parsed, HTTP_PARSER_MESSAGE);
    assert_string_equal(text + at, "GET");
    const struct http_message *message = http_parser_message(parser);
    assert_int_equal(message->body_bytes, LIMIT_BODY_BYTES);
    assert_memory_equal(message->body, strstr(text, "\r\n\r\n") + 4, LIMIT_BODY_BYTES);
    http_parser_next(parser);
  }
  http_parser_destroy(parser);
  free(text);
}

static void a_waiting_client_is_noticed(void **state) {
  (void)state;
  static const char head[] = "POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\n"
                             "Expect: 100-Continue\r\n\r\n";
  struct http_parser *parser = NULL;
  size_t taken = 0;
  assert_int_equal(http_parser_create(HTTP_PARSE_REQUESTS, 0, &parser), SPROUT_OK);
  assert_false(http_parser_expects_continue(parser));
  assert_int_equal(http_parser_feed(parser, head, sizeof(head) - 1, &taken, NULL),
                   HTTP_PARSER_MORE);
  assert_true(http_parser_expects_continue(parser));
  assert_true(http_parser_in_message(parser));
  assert_int_equal(http_parser_feed(parser, "a", 1, &taken, NULL), HTTP_PARSER_MORE);
  assert_false(http_parser_expects_continue(parser));
  assert_int_equal(http_parser_feed(parser, "b", 1, &taken, NULL), HTTP_PARSER_MESSAGE);
  assert_string_equal(http_parser_message(parser)->headers[HTTP_HEADER_EXPECT], "100-Continue");
  http_parser_next(parser);
  http_parser_destroy(parser);
}

static void errors_stay(void **state) {
  (void)state;
  struct http_parser *parser = NULL;
  struct sprout_error error = {0};
  size_t taken = 0;
  assert_int_equal(http_parser_create(HTTP_PARSE_REQUESTS, 0, &parser), SPROUT_OK);
  assert_int_equal(http_parser_feed(parser, "\n", 1, &taken, &error), HTTP_PARSER_ERROR);
  memset(&error, 0, sizeof(error));
  assert_int_equal(http_parser_feed(parser, "GET", 3, &taken, &error), HTTP_PARSER_ERROR);
  assert_int_equal(taken, 0);
  assert_int_equal(error.status, SPROUT_INVALID);
  assert_non_null(strstr(error.message, "CR LF"));
  http_parser_destroy(parser);
}

static void encoded_paths_come_back(void **state) {
  (void)state;
  char path[256 + 2] = "/", encoded[1024], request[1200];
  for (int c = 0x20; c < 0x7f; c++) path[c - 0x1f] = (char)(c == '/' ? 'x' : c);
  for (int c = 0x80; c < 0x100; c++) path[c - 0x20] = (char)c;
  assert_true(http_query_encode(path + 1, encoded, sizeof(encoded)));
  (void)snprintf(request, sizeof(request), "GET /%s HTTP/1.1\r\n" HOST "\r\n", encoded);
  struct http_parser *parser = NULL;
  size_t taken = 0;
  assert_int_equal(http_parser_create(HTTP_PARSE_REQUESTS, 0, &parser), SPROUT_OK);
  assert_int_equal(http_parser_feed(parser, request, strlen(request), &taken, NULL),
                   HTTP_PARSER_MESSAGE);
  assert_string_equal(http_parser_message(parser)->path, path);
  http_parser_destroy(parser);
}

static void memory_may_run_out(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  char *texts[] = {
      build("GET /", "x", 2000, " HTTP/1.1\r\n" HOST "\r\n"),
      build("GET / HTTP/1.1\r\n" HOST "Range: ", "x", 2000, "\r\n\r\n"),
      build("GET / HTTP/1.1\r\n" HOST "Accept: ", "x", 450, "\r\nAccept: y\r\n\r\n"),
      build("POST / HTTP/1.1\r\n" HOST "Content-Length: 2000\r\n\r\n", "x", 2000, ""),
      build("POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n7d0\r\n", "x", 2000,
            "\r\n0\r\n\r\n"),
  };
  for (size_t i = 0; i < COUNT(texts); i++) {
    enum http_parser_state parsed = HTTP_PARSER_ERROR;
    for (long count = 0; parsed != HTTP_PARSER_MESSAGE; count++) {
      struct http_parser *parser = NULL;
      struct sprout_error error = {.status = SPROUT_OK};
      size_t taken = 0;
      memory_fail_after(count);
      enum sprout_status created = http_parser_create(HTTP_PARSE_REQUESTS, 0, &parser);
      if (created == SPROUT_OK)
        parsed = http_parser_feed(parser, texts[i], strlen(texts[i]), &taken, &error);
      bool failed = memory_restore();
      assert_int_equal(parsed == HTTP_PARSER_MESSAGE, !failed);
      if (failed) assert_true(created == SPROUT_NO_MEMORY || error.status == SPROUT_NO_MEMORY);
      http_parser_destroy(parser);
    }
    free(texts[i]);
  }
}

/* Ordinary requests must not allocate: a seed answers thousands a second. */
static void an_ordinary_request_needs_no_memory(void **state) {
  (void)state;
  static const char text[] = "POST /v1/forks/0123456789abcdef0123456789abcdef/read HTTP/1.1\r\n"
                             "Host: seed.example:7117\r\nAuthorization: Bearer 0123456789abcdef\r\n"
                             "Content-Type: application/msgpack\r\nContent-Length: 60\r\n\r\n"
                             "012345678901234567890123456789012345678901234567890123456789";
  struct http_parser *parser = NULL;
  if (!memory_can_fail()) skip();
  assert_int_equal(http_parser_create(HTTP_PARSE_REQUESTS, 0, &parser), SPROUT_OK);
  memory_fail_after(0);
  enum http_parser_state parsed = HTTP_PARSER_MESSAGE;
  for (int i = 0; i < 10 && parsed == HTTP_PARSER_MESSAGE; i++) {
    size_t taken = 0;
    parsed = http_parser_feed(parser, text, sizeof(text) - 1, &taken, NULL);
    if (parsed == HTTP_PARSER_MESSAGE) http_parser_next(parser);
  }
  assert_false(memory_restore());
  assert_int_equal(parsed, HTTP_PARSER_MESSAGE);
  http_parser_destroy(parser);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(requests_are_read_at_every_split),
      cmocka_unit_test(paths_are_decoded_once_and_checked),
      cmocka_unit_test(other_protocols_are_refused),
      cmocka_unit_test(smuggling_is_refused),
      cmocka_unit_test(answers_are_read_at_every_split),
      cmocka_unit_test(heads_end_where_the_body_begins),
      cmocka_unit_test(limits_hold),
      cmocka_unit_test(a_target_of_the_limit_is_taken),
      cmocka_unit_test(a_whole_body_arrives),
      cmocka_unit_test(a_waiting_client_is_noticed),
      cmocka_unit_test(errors_stay),
      cmocka_unit_test(memory_may_run_out),
      cmocka_unit_test(an_ordinary_request_needs_no_memory),
      cmocka_unit_test(encoded_paths_come_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
