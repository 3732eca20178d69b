/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the head of an HTTP message ends, by stricter rules than any parser's: lines end in CR LF
 * and in nothing else, no folding, no blank in or around a header's name, no control characters,
 * bounds on everything. Pure; no allocation.
 *
 * Two programs that disagree about where a message ends is how requests are smuggled. What passes
 * here is read alike by everybody.
 */
#ifndef NET_HTTP_FRAMING_H
#define NET_HTTP_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_framing_verdict {
  HTTP_FRAMING_MORE,        /* all bytes are fine, the head is not whole */
  HTTP_FRAMING_END,         /* the head ends with the last byte taken */
  HTTP_FRAMING_BAD,         /* the last byte taken is wrong: see `wrong` */
  HTTP_FRAMING_LONG_LINE,   /* the first line is longer than LIMIT_TARGET_BYTES and a little */
  HTTP_FRAMING_LONG_HEADERS /* the lines behind it are longer than LIMIT_HEADER_BYTES */
};

struct http_framing {
  bool request;    /* the first line must end in a version */
  bool first_line; /* this is still it */
  bool begun;      /* something but empty lines came */
  bool in_name;    /* a header line whose colon was not seen yet */
  bool after_cr;
  uint8_t blank_lines;
  uint8_t blanks;      /* in a request line */
  uint32_t line_bytes; /* of this line, without its end */
  uint32_t head_bytes; /* of all lines behind the first */
  char edge[13];       /* the last 9 bytes of a request line, the first 13 of a status line */
  const char *wrong;   /* static text */
};

void http_framing_begin(struct http_framing *framing, bool request);
/* Looks at bytes of a head; *taken_out: how many belong to it, the one that decided included. */
enum http_framing_verdict http_framing_head(struct http_framing *framing, const char *data,
                                            size_t length_bytes, size_t *taken_out);
/* Looks at framing bytes of a chunked body, [from, to), content left out. False: a line end that is
 * not CR LF. */
bool http_framing_chunk(struct http_framing *framing, const char *from, const char *to);
#endif
