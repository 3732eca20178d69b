/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/small_model.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char * or (const char *text, const char *otherwise) {
  return text != NULL ? text : otherwise;
}

static bool same_file(const char *a, const char *b) {
  return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static uint64_t file_length(const struct small_model *model, uint32_t first) {
  uint64_t length_bytes = 0;
  for (uint32_t i = first; i < model->count; i++)
    if (same_file(model->objects[i].file, model->objects[first].file) && !model->objects[i].alias)
      length_bytes += model->objects[i].length_bytes;
  return length_bytes;
}

static void add_object(struct manifest_builder *builder, const struct small_object *object,
                       uint32_t alias_of, uint64_t offset) {
  struct manifest_object added = {.name = object->name,
                                  .dtype = object->blob ? "" : "U8",
                                  .kind = object->blob ? SPROUT_OBJECT_BLOB : SPROUT_OBJECT_TENSOR,
                                  .alias_of = alias_of,
                                  .rank = object->blob ? 0 : 1,
                                  .shape = {object->blob ? 0 : object->length_bytes},
                                  .length_bytes = object->length_bytes,
                                  .file_offset = object->file != NULL ? offset : 0};
  enum sprout_status status = manifest_builder_object(builder, &added, object->file != NULL);
  assert(status == SPROUT_OK);
}

static void add_objects(struct manifest_builder *builder, const struct small_model *model) {
  uint64_t offset = 0;
  uint32_t index = 0;
  for (uint32_t i = 0; i < model->count; i++) {
    const struct small_object *object = &model->objects[i];
    if (object->file != NULL && (i == 0 || !same_file(model->objects[i - 1].file, object->file))) {
      enum sprout_status status =
          manifest_builder_file(builder, object->file, file_length(model, i), false);
      assert(status == SPROUT_OK);
      offset = 0;
    }
    if (object->name == NULL) continue;
    if (object->alias) offset -= object->length_bytes;
    add_object(builder, object, object->alias ? index - 1 : MANIFEST_NONE, offset);
    offset += object->length_bytes;
    index++;
  }
}

struct manifest *small_manifest(const struct small_model *model) {
  struct manifest_builder *builder;
  struct manifest *manifest;
  struct sprout_error error;
  struct manifest_version version = {.generation = model->generation};
  struct manifest_identity identity = {.model = or (model->model, "small"),
                                       .revision = "",
                                       .dtype = "",
                                       .quantization = "",
                                       .engine = "",
                                       .layout = "",
                                       .role = "main",
                                       .rank = or (model->rank, "")};
  memcpy(version.epoch, &model->epoch, sizeof(model->epoch));
  snprintf(version.label, sizeof(version.label), "%s", or (model->label, ""));
  enum sprout_status status = manifest_builder_create(&builder);
  assert(status == SPROUT_OK);
  status = manifest_builder_identity(builder, &identity);
  assert(status == SPROUT_OK);
  manifest_builder_version(builder, &version);
  add_objects(builder, model);
  status = manifest_build(builder, &manifest, &error);
  if (status != SPROUT_OK) fprintf(stderr, "small_manifest: %s\n", error.message);
  assert(status == SPROUT_OK);
  return manifest;
}
