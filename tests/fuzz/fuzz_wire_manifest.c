/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a manifest. What is accepted has the digest that it states, and comes back from the
 * encoder as the same manifest.
 */
#include "net/wire.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_indexes(const struct manifest *manifest) {
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    const struct manifest_object *object = &manifest->objects[i];
    assert(object->rank <= SPROUT_MAX_RANK);
    assert(object->file == MANIFEST_NONE || object->file < manifest->file_count);
    assert(object->alias_of == MANIFEST_NONE || object->alias_of < i);
    assert(object->first_chunk + object->chunk_count <= manifest->chunk_count);
  }
  for (uint32_t i = 0; i < manifest->file_count; i++) {
    assert(manifest_path_ok(manifest->files[i].path));
    assert((uint64_t)manifest->files[i].first_object + manifest->files[i].object_count <=
           manifest->object_count);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct manifest *manifest = NULL, *again = NULL;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct sprout_error error = {.status = SPROUT_OK};
  enum sprout_status status = wire_manifest_decode(data, size, &manifest, &error);
  if (status != SPROUT_OK) {
    assert(error.status == status && error.message[0] && !manifest);
    return 0;
  }
  check_indexes(manifest);
  status = wire_manifest_encode(manifest, false, &buffer);
  assert(status == SPROUT_OK);
  status = wire_manifest_decode(buffer.data, buffer.length_bytes, &again, &error);
  assert(status == SPROUT_OK && strcmp(manifest->id, again->id) == 0);
  assert(manifest->version.generation == again->version.generation);
  assert(manifest->chunk_count == again->chunk_count);
  wire_buffer_destroy(&buffer);
  manifest_destroy(manifest);
  manifest_destroy(again);
  return 0;
}
