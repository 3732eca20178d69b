/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing msgpack into a wire_buffer. Private to net/wire*.c. Pure.
 *
 * A writer remembers the first failed allocation, so that a message is written without a check on
 * every line; wire_writer_end tells, and then leaves the buffer as it was.
 */
#ifndef NET_WIRE_PACK_H
#define NET_WIRE_PACK_H

#include "net/wire.h"

struct wire_writer {
  struct wire_buffer *buffer;
  size_t start_bytes; /* length of the buffer before */
  bool failed;
};

/* Makes room for `bytes` more. */
SPROUT_MUST_CHECK enum sprout_status wire_buffer_reserve(struct wire_buffer *buffer, size_t bytes);

void wire_writer_begin(struct wire_writer *writer, struct wire_buffer *buffer);
/* SPROUT_NO_MEMORY, or all was written. */
SPROUT_MUST_CHECK enum sprout_status wire_writer_end(struct wire_writer *writer);

void wire_write_nil(struct wire_writer *writer);
void wire_write_bool(struct wire_writer *writer, bool value);
void wire_write_unsigned(struct wire_writer *writer, uint64_t value);
void wire_write_signed(struct wire_writer *writer, int64_t value);
void wire_write_text(struct wire_writer *writer, const char *text);
void wire_write_bytes(struct wire_writer *writer, const void *data, size_t length_bytes);
/* The elements, or keys and values in turn, follow. */
void wire_write_array(struct wire_writer *writer, size_t count);
void wire_write_map(struct wire_writer *writer, size_t count);
/* "protocol": {"min", "max"}. */
void wire_write_protocol(struct wire_writer *writer, uint32_t min, uint32_t max);
/* The value of "endpoints". */
void wire_write_endpoints(struct wire_writer *writer, const struct wire_endpoint *endpoints,
                          uint32_t count);
#endif
