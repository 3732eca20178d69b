/* SPDX-License-Identifier: Apache-2.0 */
#include "net/wire_pack.h"

#include <assert.h>
#include <msgpack/pack.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_MIN_BYTES 256u

void wire_buffer_destroy(struct wire_buffer *buffer) {
  free(buffer->data);
  *buffer = (struct wire_buffer){NULL, 0, 0};
}

enum sprout_status wire_buffer_reserve(struct wire_buffer *buffer, size_t bytes) {
  size_t needed, capacity = buffer->capacity_bytes ? buffer->capacity_bytes : BUFFER_MIN_BYTES;
  if (__builtin_add_overflow(buffer->length_bytes, bytes, &needed)) return SPROUT_NO_MEMORY;
  if (needed <= buffer->capacity_bytes) return SPROUT_OK;
  while (capacity < needed) {
    if (__builtin_mul_overflow(capacity, (size_t)2, &capacity)) return SPROUT_NO_MEMORY;
  }
  unsigned char *grown = realloc(buffer->data, capacity);
  if (!grown) return SPROUT_NO_MEMORY;
  buffer->data = grown;
  buffer->capacity_bytes = capacity;
  return SPROUT_OK;
}

/* msgpack's output. */
static int append(void *context, const char *data, size_t length_bytes) {
  struct wire_writer *writer = context;
  if (writer->failed || wire_buffer_reserve(writer->buffer, length_bytes) != SPROUT_OK) {
    writer->failed = true;
    return -1;
  }
  if (length_bytes) memcpy(writer->buffer->data + writer->buffer->length_bytes, data, length_bytes);
  writer->buffer->length_bytes += length_bytes;
  return 0;
}

void wire_writer_begin(struct wire_writer *writer, struct wire_buffer *buffer) {
  *writer = (struct wire_writer){.buffer = buffer, .start_bytes = buffer->length_bytes};
}

enum sprout_status wire_writer_end(struct wire_writer *writer) {
  if (!writer->failed) return SPROUT_OK;
  writer->buffer->length_bytes = writer->start_bytes;
  return SPROUT_NO_MEMORY;
}

/* What the packing functions return is remembered by `append`: it is their only way to fail. */
static msgpack_packer packer_of(struct wire_writer *writer) {
  msgpack_packer packer;
  msgpack_packer_init(&packer, writer, append);
  return packer;
}

void wire_write_nil(struct wire_writer *writer) {
  msgpack_packer packer = packer_of(writer);
  (void)msgpack_pack_nil(&packer);
}

void wire_write_bool(struct wire_writer *writer, bool value) {
  msgpack_packer packer = packer_of(writer);
  (void)(value ? msgpack_pack_true(&packer) : msgpack_pack_false(&packer));
}

void wire_write_unsigned(struct wire_writer *writer, uint64_t value) {
  msgpack_packer packer = packer_of(writer);
  (void)msgpack_pack_uint64(&packer, value);
}

void wire_write_signed(struct wire_writer *writer, int64_t value) {
  msgpack_packer packer = packer_of(writer);
  (void)msgpack_pack_int64(&packer, value);
}

void wire_write_text(struct wire_writer *writer, const char *text) {
  msgpack_packer packer = packer_of(writer);
  size_t length = strlen(text);
  assert(length <= UINT32_MAX);
  (void)msgpack_pack_str(&packer, length);
  (void)msgpack_pack_str_body(&packer, text, length);
}

void wire_write_bytes(struct wire_writer *writer, const void *data, size_t length_bytes) {
  msgpack_packer packer = packer_of(writer);
  assert(length_bytes <= UINT32_MAX);
  (void)msgpack_pack_bin(&packer, length_bytes);
  (void)msgpack_pack_bin_body(&packer, data, length_bytes);
}

void wire_write_array(struct wire_writer *writer, size_t count) {
  msgpack_packer packer = packer_of(writer);
  (void)msgpack_pack_array(&packer, count);
}

void wire_write_map(struct wire_writer *writer, size_t count) {
  msgpack_packer packer = packer_of(writer);
  (void)msgpack_pack_map(&packer, count);
}
