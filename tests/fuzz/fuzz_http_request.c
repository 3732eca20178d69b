/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte cuts the rest, which are requests, into pieces. However it is cut, the parser
 * shows the same; a path that it shows stays below its root; and what it hands to the small parsers
 * of queries and ranges keeps their promises.
 */
#include "tests/fuzz/http_fuzz.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_path(const char *path) {
  char encoded[3 * 8192 + 1];
  assert(path[0] == '/');
  for (const char *part = path; part; part = strchr(part, '/')) {
    if (*part == '/') part++;
    size_t length = strcspn(part, "/");
    assert(length > 0 || part[length] == '\0');
    assert(!(length == 1 && part[0] == '.') && !(length == 2 && memcmp(part, "..", 2) == 0));
    for (size_t i = 0; i < length; i++) assert((unsigned char)part[i] >= 0x20 && part[i] != 0x7f);
  }
  bool fits = http_query_encode(path, encoded, sizeof(encoded));
  assert(fits);
}

static void check_request(const struct http_message *message) {
  char value[16];
  uint64_t offset = 0, length = 0, total = 1000;
  check_path(message->path);
  (void)http_query_value(message->query, "count", value, sizeof(value));
  if (http_range_parse(message->headers[HTTP_HEADER_RANGE], total, &offset, &length) ==
      HTTP_RANGE_OK)
    assert(length > 0 && offset < total && length <= total - offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  http_run_both(HTTP_PARSE_REQUESTS, data, size, check_request);
  return 0;
}
