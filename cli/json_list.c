/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/json_list.h"

#include "cli/json_text.h"

static json_t *file_object(const struct sprout_file_info *file) {
  return json_pack("{s:o,s:o,s:b}", "path", json_text(file->path), "length_bytes",
                   json_integer((json_int_t)file->length_bytes), "executable",
                   file->executable ? 1 : 0);
}

static json_t *tensor_object(const struct sprout_object_info *tensor) {
  json_t *shape = json_array();
  for (uint32_t i = 0; i < tensor->rank; i++)
    (void)json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
  return json_pack("{s:o,s:o,s:o,s:o,s:o}", "name", json_text(tensor->name), "file",
                   json_text(tensor->file), "dtype", json_text(tensor->dtype), "shape", shape,
                   "length_bytes", json_integer((json_int_t)tensor->length_bytes));
}

/* Both arrays are filled as far as memory goes; jansson tells the first failure. */
static enum sprout_status fill(const struct sprout_manifest *manifest,
                               const struct sprout_manifest_info *info, json_t *files,
                               json_t *tensors) {
  for (uint32_t i = 0; i < info->file_count; i++) {
    struct sprout_file_info file;
    enum sprout_status status = sprout_manifest_file(manifest, i, &file);
    if (status != SPROUT_OK) return status;
    if (json_array_append_new(files, file_object(&file)) != 0) return SPROUT_NO_MEMORY;
  }
  for (uint32_t i = 0; i < info->object_count; i++) {
    struct sprout_object_info object;
    enum sprout_status status = sprout_manifest_object(manifest, i, &object);
    if (status != SPROUT_OK) return status;
    if (object.kind != SPROUT_OBJECT_TENSOR) continue;
    if (json_array_append_new(tensors, tensor_object(&object)) != 0) return SPROUT_NO_MEMORY;
  }
  return SPROUT_OK;
}

enum sprout_status json_list_print(FILE *out, const struct sprout_manifest *manifest) {
  struct sprout_manifest_info info;
  sprout_manifest_info(manifest, &info);
  json_t *files = json_array(), *tensors = json_array();
  enum sprout_status status = fill(manifest, &info, files, tensors);
  json_t *root =
      json_pack("{s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:o}", "model", json_text(info.model), "rank",
                json_text(info.rank), "label", json_text(info.label), "id", info.id, "generation",
                json_integer((json_int_t)info.generation), "total_bytes",
                json_integer((json_int_t)info.total_bytes), "files", files, "tensors", tensors);
  if (root == NULL) return SPROUT_NO_MEMORY;
  if (status == SPROUT_OK)
    json_line_print(out, root);
  else
    json_decref(root);
  return status;
}
