/* SPDX-License-Identifier: Apache-2.0 */
#include "net/json_manifest.h"

#include <stdio.h>

static json_t *identity_of(const struct manifest_identity *identity) {
  return json_pack(
      "{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "model", json_text_string(identity->model), "revision",
      json_text_string(identity->revision), "dtype", json_text_string(identity->dtype),
      "quantization", json_text_string(identity->quantization), "engine",
      json_text_string(identity->engine), "layout", json_text_string(identity->layout), "role",
      json_text_string(identity->role), "rank", json_text_string(identity->rank));
}

static json_t *version_of(const struct manifest_version *version) {
  char epoch[2 * MANIFEST_EPOCH_BYTES + 1];
  for (size_t i = 0; i < MANIFEST_EPOCH_BYTES; i++)
    (void)snprintf(epoch + 2 * i, 3, "%02x", version->epoch[i]);
  return json_pack("{s:s,s:I,s:o}", "epoch", epoch, "generation", (json_int_t)version->generation,
                   "label", json_text_string(version->label));
}

json_t *json_manifest_summary(const struct manifest *manifest, bool draining) {
  return json_pack("{s:s,s:o,s:o,s:s,s:s,s:I,s:I,s:I,s:I,s:I}", "id", manifest->id, "identity",
                   identity_of(&manifest->identity), "version", version_of(&manifest->version),
                   "state", draining ? "draining" : "ready", "digest", "xxh3-128", "chunk_bytes",
                   (json_int_t)SPROUT_CHUNK_BYTES, "chunk_count", (json_int_t)manifest->chunk_count,
                   "total_bytes", (json_int_t)manifest->total_bytes, "object_count",
                   (json_int_t)manifest->object_count, "file_count",
                   (json_int_t)manifest->file_count);
}

static json_t *file_of(const struct manifest_file *file) {
  return json_pack("{s:o,s:I,s:I,s:I,s:b}", "path", json_text_string(file->path), "length_bytes",
                   (json_int_t)file->length_bytes, "first_object", (json_int_t)file->first_object,
                   "object_count", (json_int_t)file->object_count, "executable",
                   file->executable ? 1 : 0);
}

static json_t *shape_of(const struct manifest_object *object) {
  json_t *shape = json_array();
  for (uint32_t i = 0; shape != NULL && i < object->rank; i++)
    if (json_array_append_new(shape, json_integer((json_int_t)object->shape[i])) != 0) {
      json_decref(shape);
      return NULL;
    }
  return shape;
}

static json_t *object_of(const struct manifest *manifest, const struct manifest_object *object) {
  bool is_tensor = object->kind == SPROUT_OBJECT_TENSOR;
  json_t *value =
      json_pack("{s:o,s:s,s:I,s:I}", "name", json_text_string(object->name), "kind",
                is_tensor ? "tensor" : "blob", "length_bytes", (json_int_t)object->length_bytes,
                "first_chunk", (json_int_t)object->first_chunk);
  int failed = 0;
  if (value != NULL && object->file != MANIFEST_NONE) {
    const char *path = manifest->files[object->file].path;
    failed |= json_object_set_new(value, "file", json_text_string(path));
    failed |=
        json_object_set_new(value, "file_offset", json_integer((json_int_t)object->file_offset));
  }
  if (value != NULL && is_tensor) {
    failed |= json_object_set_new(value, "dtype", json_text_string(object->dtype));
    failed |= json_object_set_new(value, "shape", shape_of(object));
  }
  if (value != NULL && object->alias_of != MANIFEST_NONE)
    failed |= json_object_set_new(value, "alias_of", json_integer(object->alias_of));
  if (failed == 0) return value;
  json_decref(value);
  return NULL;
}

enum sprout_status json_manifest_encode(const struct manifest *manifest, bool draining,
                                        struct wire_buffer *buffer) {
  json_t *root = json_manifest_summary(manifest, draining), *files = json_array(),
         *objects = json_array();
  int failed = root == NULL || files == NULL || objects == NULL;
  for (uint32_t i = 0; failed == 0 && i < manifest->file_count; i++)
    failed |= json_array_append_new(files, file_of(&manifest->files[i]));
  for (uint32_t i = 0; failed == 0 && i < manifest->object_count; i++)
    failed |= json_array_append_new(objects, object_of(manifest, &manifest->objects[i]));
  failed |= json_object_set_new(root, "files", files);
  failed |= json_object_set_new(root, "objects", objects);
  if (failed == 0) return json_text_encode(root, buffer);
  json_decref(root);
  return SPROUT_NO_MEMORY;
}
