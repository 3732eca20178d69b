/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte cuts the rest, which are answers, into pieces, and says whether their bodies are
 * buffered or taken beside the parser. However they are cut, the parser shows the same.
 */
#include "tests/fuzz/http_fuzz.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_answer(const struct http_message *message) {
  assert(message->status_code >= 100 && message->status_code <= 999);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  http_run_both(data[0] & 0x40 ? HTTP_PARSE_RESPONSE_HEADS : HTTP_PARSE_RESPONSES, data, size,
                check_answer);
  return 0;
}
