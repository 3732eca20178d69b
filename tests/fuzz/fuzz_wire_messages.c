/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte picks a message, the rest are its bytes. What is accepted is encoded, decoded and
 * encoded again: both encodings must be the same.
 */
#include "core/limits.h"
#include "net/wire.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

#define DIGESTS_MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Decodes, and encodes what was decoded. */
typedef enum sprout_status recode(const void *data, size_t size, struct wire_buffer *buffer,
                                  struct sprout_error *error);

static enum sprout_status recode_open(const void *data, size_t size, struct wire_buffer *buffer,
                                      struct sprout_error *error) {
  struct wire_open message;
  enum sprout_status status = wire_open_decode(data, size, &message, error);
  return status == SPROUT_OK ? wire_open_encode(&message, buffer) : status;
}

static enum sprout_status recode_opened(const void *data, size_t size, struct wire_buffer *buffer,
                                        struct sprout_error *error) {
  struct wire_opened message;
  enum sprout_status status = wire_opened_decode(data, size, &message, error);
  return status == SPROUT_OK ? wire_opened_encode(&message, buffer) : status;
}

static enum sprout_status recode_heartbeat(const void *data, size_t size,
                                           struct wire_buffer *buffer, struct sprout_error *error) {
  struct wire_heartbeat message;
  enum sprout_status status = wire_heartbeat_decode(data, size, &message, error);
  return status == SPROUT_OK ? wire_heartbeat_encode(&message, buffer) : status;
}

static enum sprout_status recode_close(const void *data, size_t size, struct wire_buffer *buffer,
                                       struct sprout_error *error) {
  struct wire_close message;
  enum sprout_status status = wire_close_decode(data, size, &message, error);
  return status == SPROUT_OK ? wire_close_encode(&message, buffer) : status;
}

static enum sprout_status recode_digests(const void *data, size_t size, struct wire_buffer *buffer,
                                         struct sprout_error *error) {
  struct digest values[DIGESTS_MAX];
  bool known[DIGESTS_MAX];
  struct wire_digests message = {.values = values, .known = known};
  enum sprout_status status = wire_digests_decode(data, size, DIGESTS_MAX, &message, error);
  return status == SPROUT_OK ? wire_digests_encode(&message, buffer) : status;
}

static enum sprout_status recode_wanted(const void *data, size_t size, struct wire_buffer *buffer,
                                        struct sprout_error *error) {
  uint64_t first, count;
  enum sprout_status status = wire_digests_wanted_decode(data, size, &first, &count, error);
  return status == SPROUT_OK ? wire_digests_wanted_encode(first, count, buffer) : status;
}

static enum sprout_status recode_placement(const void *data, size_t size,
                                           struct wire_buffer *buffer, struct sprout_error *error) {
  struct wire_placement message;
  enum sprout_status status = wire_placement_decode(data, size, &message, error);
  if (status != SPROUT_OK) return status;
  status = wire_placement_encode(&message, buffer);
  wire_placement_destroy(&message);
  return status;
}

/* Any bytes are an error of some kind. */
static enum sprout_status recode_error(const void *data, size_t size, struct wire_buffer *buffer,
                                       struct sprout_error *error) {
  struct sprout_error message;
  wire_error_decode_json(data, size, 500, &message);
  assert(message.status != SPROUT_OK && message.message[0]);
  for (const char *at = message.message; *at; at++) assert((unsigned char)*at >= 0x20);
  *error = message;
  return wire_error_encode_json(&message, buffer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static recode *const kinds[] = {recode_open,  recode_opened,   recode_heartbeat,
                                  recode_close, recode_digests,  recode_wanted,
                                  recode_error, recode_placement};
  struct wire_buffer first = {NULL, 0, 0}, second = {NULL, 0, 0};
  struct sprout_error error = {.status = SPROUT_OK};
  if (size == 0) return 0;
  recode *kind = kinds[data[0] % (sizeof(kinds) / sizeof(kinds[0]))];
  enum sprout_status status = kind(data + 1, size - 1, &first, &error);
  if (status == SPROUT_OK) {
    status = kind(first.data, first.length_bytes, &second, &error);
    assert(status == SPROUT_OK && first.length_bytes == second.length_bytes);
    assert(memcmp(first.data, second.data, first.length_bytes) == 0);
  } else {
    assert(error.status == status && error.message[0] && first.length_bytes == 0);
  }
  wire_buffer_destroy(&first);
  wire_buffer_destroy(&second);
  return 0;
}
