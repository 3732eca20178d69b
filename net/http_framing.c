/* SPDX-License-Identifier: Apache-2.0 */
#include "net/http_framing.h"

#include "core/limits.h"

#include <string.h>

/* Method, version and blanks of a request line; a status line with its reason. */
#define FIRST_LINE_EXTRA_BYTES 64u
#define BLANK_LINES_MAX 8u
#define REQUEST_EDGE_BYTES 9u
#define REQUEST_BLANKS 2u
#define STATUS_CODE_AT 9u

void http_framing_begin(struct http_framing *framing, bool request) {
  *framing = (struct http_framing){.request = request, .first_line = true};
}

/* " HTTP/1.1" */
static bool request_line_ok(const struct http_framing *framing) {
  static const char version[] = " HTTP/";
  return framing->line_bytes >= REQUEST_EDGE_BYTES && framing->blanks == REQUEST_BLANKS &&
         memcmp(framing->edge, version, sizeof(version) - 1) == 0;
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 " or "HTTP/1.1 200" */
static bool status_line_ok(const struct http_framing *framing) {
  static const char version[] = "HTTP/";
  const char *edge = framing->edge, *code = edge + STATUS_CODE_AT;
  return framing->line_bytes >= STATUS_CODE_AT + 3 &&
         memcmp(edge, version, sizeof(version) - 1) == 0 && code[-1] == ' ' && is_digit(code[0]) &&
         is_digit(code[1]) && is_digit(code[2]) &&
         (framing->line_bytes == STATUS_CODE_AT + 3 || code[3] == ' ');
}

/* Remembers what end_first_line looks at. A request line has exactly two blanks. */
static void take_first_line_byte(struct http_framing *framing, char c) {
  if (framing->request) {
    if ((c == ' ' && ++framing->blanks > REQUEST_BLANKS) || c == '\t')
      framing->wrong = "a request line with more than three parts";
    memmove(framing->edge, framing->edge + 1, REQUEST_EDGE_BYTES - 1);
    framing->edge[REQUEST_EDGE_BYTES - 1] = c;
  } else if (framing->line_bytes < sizeof(framing->edge)) {
    framing->edge[framing->line_bytes] = c;
  }
}

/* The first line ends: empty ones before it are skipped (RFC 9112 2.2). */
static void end_first_line(struct http_framing *framing) {
  if (framing->line_bytes == 0) {
    if (++framing->blank_lines > BLANK_LINES_MAX)
      framing->wrong = "empty lines where a message should begin";
    return;
  }
  if (framing->request && !request_line_ok(framing))
    framing->wrong = "the request line does not end in HTTP/1.1";
  if (!framing->request && !status_line_ok(framing))
    framing->wrong = "the status line is not HTTP/1.1 and three digits";
  framing->first_line = false;
}

/* LF behind CR. True at the end of the head. */
static bool end_line(struct http_framing *framing) {
  bool end = !framing->first_line && framing->line_bytes == 0;
  if (framing->first_line) {
    end_first_line(framing);
  } else if (!end && framing->in_name) {
    framing->wrong = "a header line without a colon";
  }
  framing->line_bytes = 0;
  framing->in_name = !framing->first_line;
  return end;
}

/* A byte of a header's name, or the colon behind it. */
static void take_name_byte(struct http_framing *framing, char c) {
  if (c == ' ' || c == '\t')
    framing->wrong = framing->line_bytes ? "a blank in a header's name" : "a folded header line";
  if (c == ':' && framing->line_bytes == 0) framing->wrong = "a header without a name";
  if (c == ':') framing->in_name = false;
}

/* A byte that is neither CR nor LF. */
static void take_byte(struct http_framing *framing, char c) {
  unsigned char value = (unsigned char)c;
  framing->begun = true;
  if ((value < 0x20 && c != '\t') || value == 0x7f) {
    framing->wrong = "a control character in the head";
  } else if (framing->first_line) {
    take_first_line_byte(framing, c);
  } else if (framing->in_name) {
    take_name_byte(framing, c);
  }
  framing->line_bytes++;
}

static enum http_framing_verdict take(struct http_framing *framing, char c) {
  bool end = false;
  if (!framing->first_line) framing->head_bytes++;
  if (framing->after_cr != (c == '\n')) {
    framing->wrong = "a line that does not end in CR LF";
  } else if (c == '\n') {
    framing->after_cr = false;
    end = end_line(framing);
  } else if (c == '\r') {
    framing->after_cr = true;
  } else {
    take_byte(framing, c);
  }
  if (framing->wrong) return HTTP_FRAMING_BAD;
  if (framing->line_bytes > LIMIT_TARGET_BYTES + FIRST_LINE_EXTRA_BYTES && framing->first_line)
    return HTTP_FRAMING_LONG_LINE;
  if (framing->head_bytes > LIMIT_HEADER_BYTES) return HTTP_FRAMING_LONG_HEADERS;
  return end ? HTTP_FRAMING_END : HTTP_FRAMING_MORE;
}

enum http_framing_verdict http_framing_head(struct http_framing *framing, const char *data,
                                            size_t length_bytes, size_t *taken_out) {
  enum http_framing_verdict verdict = HTTP_FRAMING_MORE;
  size_t taken = 0;
  while (taken < length_bytes && verdict == HTTP_FRAMING_MORE)
    verdict = take(framing, data[taken++]);
  *taken_out = taken;
  return verdict;
}

bool http_framing_chunk(struct http_framing *framing, const char *from, const char *to) {
  for (; from < to; from++) {
    if (framing->after_cr != (*from == '\n')) return false;
    framing->after_cr = *from == '\r';
  }
  return true;
}
