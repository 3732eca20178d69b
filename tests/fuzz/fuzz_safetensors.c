/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A safetensors file of any bytes: either refused with a message, or a header whose promises hold
 * and that the manifest takes.
 */
#include "core/manifest.h"
#include "core/safetensors.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_header(const struct safetensors_header *header, uint64_t file_bytes) {
  uint64_t end = header->data_offset;
  for (uint32_t i = 0; i < header->count; i++) {
    const struct safetensors_tensor *tensor = &header->tensors[i];
    assert(tensor->rank <= SPROUT_MAX_RANK && safetensors_dtype_bits(tensor->dtype) != 0);
    if (tensor->alias_of != UINT32_MAX) {
      const struct safetensors_tensor *target = &header->tensors[tensor->alias_of];
      assert(tensor->alias_of < i && target->alias_of == UINT32_MAX);
      assert(tensor->file_offset == target->file_offset);
      assert(tensor->length_bytes == target->length_bytes);
      continue;
    }
    assert(tensor->file_offset == end);
    end += tensor->length_bytes;
  }
  assert(end == file_bytes);
}

/* What the parser takes, the manifest takes too. */
static void build_manifest(const struct safetensors_header *header, uint64_t file_bytes) {
  struct manifest_builder *builder;
  struct manifest *manifest;
  struct sprout_error error;
  if (manifest_builder_create(&builder) != SPROUT_OK) return;
  enum sprout_status status = manifest_builder_file(builder, "f", file_bytes, false);
  struct manifest_object blob = {.name = MANIFEST_HEADER_NAME,
                                 .dtype = "",
                                 .alias_of = MANIFEST_NONE,
                                 .length_bytes = header->data_offset};
  if (status == SPROUT_OK) status = manifest_builder_object(builder, &blob, true);
  for (uint32_t i = 0; i < header->count && status == SPROUT_OK; i++) {
    const struct safetensors_tensor *tensor = &header->tensors[i];
    bool tied = tensor->alias_of != UINT32_MAX;
    struct manifest_object object = {.name = tensor->name,
                                     .dtype = tensor->dtype,
                                     .kind = SPROUT_OBJECT_TENSOR,
                                     .alias_of = tied ? tensor->alias_of + 1 : MANIFEST_NONE,
                                     .rank = tensor->rank,
                                     .length_bytes = tensor->length_bytes,
                                     .file_offset = tensor->file_offset};
    memcpy(object.shape, tensor->shape, sizeof(object.shape));
    status = manifest_builder_object(builder, &object, true);
  }
  if (status == SPROUT_OK) status = manifest_build(builder, &manifest, &error);
  assert(status == SPROUT_OK);
  manifest_destroy(manifest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct safetensors_header header;
  struct sprout_error error = {0};
  enum sprout_status status = safetensors_parse("f", data, size, size, &header, &error);
  if (status != SPROUT_OK) {
    assert(error.status == status && error.message[0] != '\0');
    return 0;
  }
  check_header(&header, size);
  build_manifest(&header, size);
  safetensors_destroy(&header);
  return 0;
}
