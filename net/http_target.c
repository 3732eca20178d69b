/* SPDX-License-Identifier: Apache-2.0 */
#include "net/http_target.h"

#include "net/http_parser.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

/* Value of a hex digit, or -1. */
static int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* Decodes the escape at `text` ("%41"), or -1. Stops at a terminator. */
static int decode_escape(const char *text) {
  int high = hex_value(text[1]);
  if (high < 0) return -1;
  int low = hex_value(text[2]);
  if (low < 0) return -1;
  return high << 4 | low;
}

static bool is_control(unsigned char c) {
  return c < 0x20 || c == 0x7f;
}

/* Percent-decodes in place; what is wrong, or NULL. */
static const char *decode_path(char *path) {
  char *to = path;
  for (const char *from = path; *from; from++) {
    int c = (unsigned char)*from;
    if (c == '%') {
      c = decode_escape(from);
      if (c < 0) return "an escape in the path is not %XX";
      from += 2;
    }
    if (is_control((unsigned char)c)) return "a control character in the path";
    *to++ = (char)c;
  }
  *to = '\0';
  return NULL;
}

/* Checks the parts between slashes; a trailing slash is allowed. What is wrong, or NULL. */
static const char *check_parts(const char *path) {
  for (const char *part = path; *part == '/';) {
    part++;
    size_t length = strcspn(part, "/");
    bool last = part[length] == '\0';
    if (length == 0 && !last) return "an empty part in the path";
    if ((length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
      return "a \".\" or \"..\" part in the path";
    part += length;
  }
  return NULL;
}

/* Skips "http://authority" of an absolute-form target. The result begins with '/', '?' or is
 * empty; NULL when the target is of another form. */
static char *skip_authority(char *target) {
  static const char scheme[] = "http://";
  if (strncasecmp(target, scheme, sizeof(scheme) - 1) != 0) return NULL;
  char *authority = target + sizeof(scheme) - 1;
  size_t length = strcspn(authority, "/?");
  return length ? authority + length : NULL;
}

const char *http_target_split(char *target, const char **path_out, const char **query_out) {
  char *path = target;
  if (strchr(target, '#')) return "a fragment in the request target";
  if (path[0] != '/') {
    path = skip_authority(target);
    if (!path) return "the request target is no absolute path";
  }
  char *query = strchr(path, '?');
  if (query) {
    *query++ = '\0';
  } else {
    query = path + strlen(path);
  }
  if (path[0] == '\0') {
    /* "http://host" asks for its root; the authority before it leaves room for the slash. */
    path--;
    path[0] = '/';
  }
  const char *wrong = decode_path(path);
  if (!wrong) wrong = check_parts(path);
  if (wrong) return wrong;
  *path_out = path;
  *query_out = query;
  return NULL;
}

/* Decodes [value, end) of a query ('+' is a space there); false when malformed or too long. */
static bool decode_value(const char *value, const char *end, char *buffer, size_t buffer_bytes) {
  size_t used = 0;
  for (; value < end; value++) {
    int c = (unsigned char)*value;
    if (c == '+') c = ' ';
    if (c == '%') {
      c = end - value > 2 ? decode_escape(value) : -1;
      value += 2;
    }
    if (c <= 0 || is_control((unsigned char)c) || used + 1 >= buffer_bytes) return false;
    buffer[used++] = (char)c;
  }
  if (used >= buffer_bytes) return false;
  buffer[used] = '\0';
  return true;
}

bool http_query_value(const char *query, const char *name, char *buffer, size_t buffer_bytes) {
  size_t name_bytes = strlen(name);
  while (*query) {
    size_t length = strcspn(query, "&");
    if (length >= name_bytes && memcmp(query, name, name_bytes) == 0 &&
        (length == name_bytes || query[name_bytes] == '=')) {
      const char *value = query + name_bytes + (length > name_bytes);
      return decode_value(value, query + length, buffer, buffer_bytes);
    }
    query += length;
    if (*query == '&') query++;
  }
  return false;
}

/* Reads decimal digits; moves *text behind them. False when there is none or they overflow. */
static bool read_number(const char **text, uint64_t *value_out) {
  const char *at = *text;
  uint64_t value = 0;
  for (; *at >= '0' && *at <= '9'; at++) {
    if (__builtin_mul_overflow(value, 10u, &value) ||
        __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
      return false;
  }
  if (at == *text) return false;
  *text = at;
  *value_out = value;
  return true;
}

/* The last `count` bytes ("bytes=-N"). */
static enum http_range_result last_bytes(uint64_t count, uint64_t total, uint64_t *offset_out,
                                         uint64_t *length_out) {
  if (count == 0 || total == 0) return HTTP_RANGE_UNSATISFIABLE;
  *length_out = count < total ? count : total;
  *offset_out = total - *length_out;
  return HTTP_RANGE_OK;
}

enum http_range_result http_range_parse(const char *header, uint64_t total, uint64_t *offset_out,
                                        uint64_t *length_out) {
  static const char unit[] = "bytes=";
  if (!header || strncasecmp(header, unit, sizeof(unit) - 1) != 0) return HTTP_RANGE_NONE;
  const char *at = header + sizeof(unit) - 1;
  uint64_t first, last = UINT64_MAX;
  if (*at == '-') {
    at++;
    if (!read_number(&at, &first) || *at) return HTTP_RANGE_NONE;
    return last_bytes(first, total, offset_out, length_out);
  }
  if (!read_number(&at, &first) || *at++ != '-') return HTTP_RANGE_NONE;
  if (*at && (!read_number(&at, &last) || *at || last < first)) return HTTP_RANGE_NONE;
  if (first >= total) return HTTP_RANGE_UNSATISFIABLE;
  if (last > total - 1) last = total - 1;
  *offset_out = first;
  *length_out = last - first + 1;
  return HTTP_RANGE_OK;
}

/* RFC 3986's unreserved characters: those that stand for themselves everywhere. */
static bool is_unreserved(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         (c && strchr("-._~", c));
}

bool http_query_encode(const char *value, char *buffer, size_t buffer_bytes) {
  static const char digits[] = "0123456789ABCDEF";
  size_t used = 0;
  for (; *value; value++) {
    unsigned char c = (unsigned char)*value;
    bool plain = is_unreserved(c);
    if (used + (plain ? 1u : 3u) >= buffer_bytes) return false;
    if (plain) {
      buffer[used++] = (char)c;
    } else {
      buffer[used++] = '%';
      buffer[used++] = digits[c >> 4];
      buffer[used++] = digits[c & 15];
    }
  }
  if (used >= buffer_bytes) return false;
  buffer[used] = '\0';
  return true;
}
