/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ring_uring.h"

#ifdef SPROUT_FAULTS

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum sprout_status malformed(struct sprout_error *error, const char *text) {
  return sprout_error_set(error, SPROUT_INVALID, 0, "Expected N:-ERRNO, SHORT:N, or both: A,B.",
                          "SPROUT_FAULT_RING is \"%s\"", text);
}

/* Parses one of the two forms; false when malformed. *end_out is behind it. */
static bool parse_item(struct ring_fault *fault, const char *text, char **end_out) {
  errno = 0;
  if (strncmp(text, "SHORT:", 6) == 0) {
    fault->short_bytes = strtoull(text + 6, end_out, 10);
    return errno == 0 && *end_out != text + 6 && fault->short_bytes > 0;
  }
  fault->fail_at = strtoull(text, end_out, 10);
  if (errno != 0 || *end_out == text || **end_out != ':') return false;
  const char *code = *end_out + 1;
  long value = strtol(code, end_out, 10);
  if (errno != 0 || *end_out == code || value >= 0 || value < -4095) return false;
  fault->fail_with = (int32_t)value;
  return true;
}

enum sprout_status ring_fault_init(struct ring_fault *fault, const char *text,
                                   struct sprout_error *error) {
  *fault = (struct ring_fault){.fail_at = UINT64_MAX};
  if (text == NULL || *text == '\0') return SPROUT_OK;
  for (const char *item = text;;) {
    char *end = NULL;
    if (!parse_item(fault, item, &end)) return malformed(error, text);
    if (*end == '\0') return SPROUT_OK;
    if (*end != ',') return malformed(error, text);
    item = end + 1;
  }
}

int32_t ring_fault_apply(struct ring_fault *fault, const struct ring_op *op, int32_t result) {
  uint64_t number = fault->number++;
  int32_t bent = result;
  if (number == fault->fail_at) bent = fault->fail_with;
  if (fault->hook != NULL) bent = fault->hook(fault->context, number, op, bent);
  if (op->kind == RING_ACCEPT && result >= 0 && bent < 0) close(result);
  return bent;
}

#endif
