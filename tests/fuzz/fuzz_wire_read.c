/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a read request. What is accepted has ranges without overflow, and comes back from
 * the encoder as it was.
 */
#include "core/limits.h"
#include "net/wire.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_range(const struct wire_range *range) {
  uint64_t reach, end, bytes;
  assert(range->count > 0);
  assert(range->count == 1 ? range->stride_bytes == 0
                           : range->length_bytes > 0 && range->stride_bytes >= range->length_bytes);
  assert(!__builtin_mul_overflow(range->count - 1, range->stride_bytes, &reach));
  assert(!__builtin_add_overflow(reach, range->length_bytes, &end));
  assert(!__builtin_add_overflow(end, range->offset, &end));
  assert(!__builtin_mul_overflow(range->count, range->length_bytes, &bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct wire_range ranges[LIMIT_READ_RANGES], again[LIMIT_READ_RANGES];
  struct wire_read read, reread;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct sprout_error error = {.status = SPROUT_OK};
  enum sprout_status status =
      wire_read_decode(data, size, ranges, LIMIT_READ_RANGES, &read, &error);
  if (status != SPROUT_OK) {
    assert(error.status == status && error.message[0]);
    return 0;
  }
  assert(read.range_count > 0 && read.range_count <= LIMIT_READ_RANGES);
  for (uint32_t i = 0; i < read.range_count; i++) check_range(&ranges[i]);
  status = wire_read_encode(&read, &buffer);
  assert(status == SPROUT_OK);
  status =
      wire_read_decode(buffer.data, buffer.length_bytes, again, LIMIT_READ_RANGES, &reread, &error);
  assert(status == SPROUT_OK);
  assert(reread.generation == read.generation && reread.range_count == read.range_count);
  assert(memcmp(ranges, again, read.range_count * sizeof(ranges[0])) == 0);
  wire_buffer_destroy(&buffer);
  return 0;
}
