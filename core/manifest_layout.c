/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layout digest: XXH3-128 of a canonical byte form, so that it is equal on every machine and in
 * every program that holds the same model. Numbers are little-endian; a text is its length in bytes
 * as u32, then its bytes.
 *
 *   text "sprout layout 1"
 *   text model, revision, dtype, quantization, engine, layout, role, rank
 *   u32 object count, then per object:
 *     text name, text dtype, u8 kind (0 blob, 1 tensor), u32 file, u32 alias_of (none: 2^32 - 1),
 *     u64 length, u64 file offset, u32 rank, rank times { u64 extent, i64 stride }
 *     (strides are 0 for row-major)
 *   u32 file count, then per file:
 *     text path, u64 length, u32 first object, u32 object count, u8 executable (0, 1)
 *
 * Epoch, generation and label are not part of it: they say when the bytes are, not how they lie.
 */
#include "core/manifest_private.h"

#include <string.h>

/* Small fields are gathered, so that the digest sees long pieces. */
struct sink {
  struct digest_stream stream;
  size_t used_bytes;
  unsigned char gathered[4096];
};

static void flush(struct sink *sink) {
  digest_update(&sink->stream, sink->gathered, sink->used_bytes);
  sink->used_bytes = 0;
}

static void put_bytes(struct sink *sink, const void *data, size_t length_bytes) {
  if (length_bytes > sizeof(sink->gathered) - sink->used_bytes) flush(sink);
  if (length_bytes > sizeof(sink->gathered)) {
    digest_update(&sink->stream, data, length_bytes);
    return;
  }
  memcpy(sink->gathered + sink->used_bytes, data, length_bytes);
  sink->used_bytes += length_bytes;
}

static void put_number(struct sink *sink, uint64_t value, size_t width_bytes) {
  unsigned char bytes[8];
  for (size_t i = 0; i < width_bytes; i++) bytes[i] = (unsigned char)(value >> (8 * i));
  put_bytes(sink, bytes, width_bytes);
}

static void put_text(struct sink *sink, const char *text) {
  size_t length = strlen(text);
  put_number(sink, length, 4);
  put_bytes(sink, text, length);
}

static void put_object(struct sink *sink, const struct manifest_object *object) {
  put_text(sink, object->name);
  put_text(sink, object->dtype);
  put_number(sink, object->kind == SPROUT_OBJECT_TENSOR, 1);
  put_number(sink, object->file, 4);
  put_number(sink, object->alias_of, 4);
  put_number(sink, object->length_bytes, 8);
  put_number(sink, object->file_offset, 8);
  put_number(sink, object->rank, 4);
  for (uint32_t i = 0; i < object->rank; i++) {
    put_number(sink, object->shape[i], 8);
    put_number(sink, (uint64_t)object->strides[i], 8);
  }
}

static void put_file(struct sink *sink, const struct manifest_file *file) {
  put_text(sink, file->path);
  put_number(sink, file->length_bytes, 8);
  put_number(sink, file->first_object, 4);
  put_number(sink, file->object_count, 4);
  put_number(sink, file->executable, 1);
}

struct digest manifest_layout_digest(const struct manifest *manifest) {
  struct sink sink;
  const struct manifest_identity *identity = &manifest->identity;
  digest_begin(&sink.stream);
  sink.used_bytes = 0;
  put_text(&sink, "sprout layout 1");
  put_text(&sink, identity->model);
  put_text(&sink, identity->revision);
  put_text(&sink, identity->dtype);
  put_text(&sink, identity->quantization);
  put_text(&sink, identity->engine);
  put_text(&sink, identity->layout);
  put_text(&sink, identity->role);
  put_text(&sink, identity->rank);
  put_number(&sink, manifest->object_count, 4);
  for (uint32_t i = 0; i < manifest->object_count; i++) put_object(&sink, &manifest->objects[i]);
  put_number(&sink, manifest->file_count, 4);
  for (uint32_t i = 0; i < manifest->file_count; i++) put_file(&sink, &manifest->files[i]);
  flush(&sink);
  return digest_end(&sink.stream);
}
