/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building a manifest. Adding copies and bounds; manifest_build validates. The first failure of
 * adding is kept with its text, so that a caller who only looks at manifest_build gets it too.
 */
#include "core/limits.h"
#include "core/manifest_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct manifest_builder {
  struct manifest *manifest;
  uint32_t object_capacity, file_capacity;
  struct sprout_error problem; /* status OK: none */
};

/* Large enough that 30,000 names take few blocks, small enough for a model of three files. */
enum { ARENA_BLOCK_BYTES = 64 * 1024 };

const char *manifest_arena_copy(struct manifest_private *part, const char *text,
                                size_t length_bytes) {
  if (length_bytes == 0) return "";
  struct manifest_arena_block *block = part->arena;
  if (block == NULL || block->capacity_bytes - block->used_bytes <= length_bytes) {
    size_t capacity = length_bytes >= ARENA_BLOCK_BYTES ? length_bytes + 1 : ARENA_BLOCK_BYTES;
    block = malloc(sizeof(*block) + capacity);
    if (block == NULL) return NULL;
    *block = (struct manifest_arena_block){.next = part->arena, .capacity_bytes = capacity};
    part->arena = block;
  }
  char *copy = block->data + block->used_bytes;
  memcpy(copy, text, length_bytes);
  copy[length_bytes] = '\0';
  block->used_bytes += length_bytes + 1;
  part->text_bytes += length_bytes;
  return copy;
}

static const char *const no_text = "";

static enum sprout_status out_of_memory(struct manifest_builder *builder) {
  return sprout_error_set(&builder->problem, SPROUT_NO_MEMORY, 0, NULL,
                          "no memory for the manifest");
}

/* Copies a text of the caller's (NULL: "") after checking its length; `what` is for the message. */
static enum sprout_status copy_text(struct manifest_builder *builder, const char *what,
                                    const char *text, const char **copy_out) {
  struct manifest_private *part = builder->manifest->private_part;
  char quoted[MANIFEST_QUOTE_BYTES];
  size_t length = text == NULL ? 0 : strnlen(text, LIMIT_NAME_BYTES + 1);
  if (length > LIMIT_NAME_BYTES)
    return sprout_error_set(&builder->problem, SPROUT_LIMIT, 0, NULL,
                            "%s \"%s\" is longer than %d bytes", what, manifest_quote(text, quoted),
                            LIMIT_NAME_BYTES);
  if (part->text_bytes + length > LIMIT_MANIFEST_BYTES)
    return sprout_error_set(&builder->problem, SPROUT_LIMIT, 0, NULL,
                            "the names of the manifest have more than %d bytes",
                            LIMIT_MANIFEST_BYTES);
  const char *copy = length == 0 ? no_text : manifest_arena_copy(part, text, length);
  if (copy == NULL) return out_of_memory(builder);
  *copy_out = copy;
  return SPROUT_OK;
}

enum sprout_status manifest_builder_create(struct manifest_builder **builder_out) {
  struct manifest_builder *builder = calloc(1, sizeof(*builder));
  struct manifest *manifest = calloc(1, sizeof(*manifest));
  struct manifest_private *part = calloc(1, sizeof(*part));
  if (builder == NULL || manifest == NULL || part == NULL) {
    free(builder);
    free(manifest);
    free(part);
    return SPROUT_NO_MEMORY;
  }
  manifest->identity = (struct manifest_identity){no_text, no_text, no_text, no_text,
                                                  no_text, no_text, no_text, no_text};
  manifest->private_part = part;
  builder->manifest = manifest;
  *builder_out = builder;
  return SPROUT_OK;
}

void manifest_builder_destroy(struct manifest_builder *builder) {
  if (builder == NULL) return;
  manifest_destroy(builder->manifest);
  free(builder);
}

enum sprout_status manifest_builder_identity(struct manifest_builder *builder,
                                             const struct manifest_identity *identity) {
  if (builder->problem.status != SPROUT_OK) return builder->problem.status;
  struct manifest_identity copy;
  const struct {
    const char *what, *from;
    const char **to;
  } keys[] = {
      {"model", identity->model, &copy.model},
      {"revision", identity->revision, &copy.revision},
      {"dtype", identity->dtype, &copy.dtype},
      {"quantization", identity->quantization, &copy.quantization},
      {"engine", identity->engine, &copy.engine},
      {"layout", identity->layout, &copy.layout},
      {"role", identity->role, &copy.role},
      {"rank", identity->rank, &copy.rank},
  };
  for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
    char quoted[MANIFEST_QUOTE_BYTES];
    enum sprout_status status = copy_text(builder, keys[i].what, keys[i].from, keys[i].to);
    if (status != SPROUT_OK) return status;
    if (!manifest_text_ok(*keys[i].to))
      return sprout_error_set(&builder->problem, SPROUT_BAD_MODEL, 0, NULL,
                              "%s \"%s\" is not UTF-8 without control characters", keys[i].what,
                              manifest_quote(*keys[i].to, quoted));
  }
  builder->manifest->identity = copy;
  return SPROUT_OK;
}

void manifest_builder_version(struct manifest_builder *builder,
                              const struct manifest_version *version) {
  builder->manifest->version = *version;
}

/* Makes room for one more row in a doubling array. */
static void *grow(void *rows, uint32_t count, uint32_t *capacity, size_t row_bytes) {
  if (count < *capacity) return rows;
  uint32_t doubled = *capacity == 0 ? 16 : *capacity * 2;
  void *grown = reallocarray(rows, doubled, row_bytes);
  if (grown != NULL) *capacity = doubled;
  return grown;
}

enum sprout_status manifest_builder_file(struct manifest_builder *builder, const char *path,
                                         uint64_t length_bytes, bool executable) {
  struct manifest *manifest = builder->manifest;
  if (builder->problem.status != SPROUT_OK) return builder->problem.status;
  if (manifest->file_count >= LIMIT_FILES)
    return sprout_error_set(&builder->problem, SPROUT_LIMIT, 0, NULL,
                            "the model has more than %d files", LIMIT_FILES);
  struct manifest_file *files =
      grow(manifest->files, manifest->file_count, &builder->file_capacity, sizeof(*files));
  if (files == NULL) return out_of_memory(builder);
  manifest->files = files;
  struct manifest_file file = {.length_bytes = length_bytes,
                               .first_object = manifest->object_count,
                               .executable = executable};
  enum sprout_status status = copy_text(builder, "path", path, &file.path);
  if (status == SPROUT_OK) manifest->files[manifest->file_count++] = file;
  return status;
}

/* Joins the file that was started last. */
static enum sprout_status join_file(struct manifest_builder *builder,
                                    struct manifest_object *object) {
  struct manifest *manifest = builder->manifest;
  char quoted[MANIFEST_QUOTE_BYTES];
  if (manifest->file_count == 0)
    return sprout_error_set(&builder->problem, SPROUT_BAD_MODEL, 0, NULL,
                            "object \"%s\" belongs to a file, but none was started",
                            manifest_quote(object->name, quoted));
  struct manifest_file *file = &manifest->files[manifest->file_count - 1];
  if (file->first_object + file->object_count != manifest->object_count)
    return sprout_error_set(&builder->problem, SPROUT_BAD_MODEL, 0, NULL,
                            "object \"%s\" is apart from the other objects of its file",
                            manifest_quote(object->name, quoted));
  object->file = manifest->file_count - 1;
  file->object_count++;
  return SPROUT_OK;
}

/* Neighbours mostly share their dtype: one copy serves them all. */
static enum sprout_status copy_dtype(struct manifest_builder *builder, const char *dtype,
                                     const char **copy_out) {
  const struct manifest *manifest = builder->manifest;
  if (manifest->object_count > 0 && dtype != NULL) {
    const char *previous = manifest->objects[manifest->object_count - 1].dtype;
    if (strcmp(previous, dtype) == 0) {
      *copy_out = previous;
      return SPROUT_OK;
    }
  }
  return copy_text(builder, "dtype", dtype, copy_out);
}

enum sprout_status manifest_builder_object(struct manifest_builder *builder,
                                           const struct manifest_object *object, bool in_file) {
  struct manifest *manifest = builder->manifest;
  char quoted[MANIFEST_QUOTE_BYTES];
  if (builder->problem.status != SPROUT_OK) return builder->problem.status;
  if (manifest->object_count >= LIMIT_OBJECTS)
    return sprout_error_set(&builder->problem, SPROUT_LIMIT, 0, NULL,
                            "the model has more than %d objects", LIMIT_OBJECTS);
  if (object->rank > SPROUT_MAX_RANK)
    return sprout_error_set(&builder->problem, SPROUT_BAD_MODEL, 0, NULL,
                            "tensor \"%s\" has %u dimensions, at most %d are supported",
                            manifest_quote(object->name == NULL ? "" : object->name, quoted),
                            object->rank, SPROUT_MAX_RANK);
  struct manifest_object *objects =
      grow(manifest->objects, manifest->object_count, &builder->object_capacity, sizeof(*objects));
  if (objects == NULL) return out_of_memory(builder);
  manifest->objects = objects;
  struct manifest_object copy = {.kind = object->kind,
                                 .file = MANIFEST_NONE,
                                 .alias_of = object->alias_of,
                                 .rank = object->rank,
                                 .length_bytes = object->length_bytes,
                                 .file_offset = object->file_offset,
                                 .generation = object->generation};
  memcpy(copy.shape, object->shape, object->rank * sizeof(copy.shape[0]));
  memcpy(copy.strides, object->strides, object->rank * sizeof(copy.strides[0]));
  enum sprout_status status = copy_text(builder, "object", object->name, &copy.name);
  if (status == SPROUT_OK) status = copy_dtype(builder, object->dtype, &copy.dtype);
  if (status == SPROUT_OK && in_file) status = join_file(builder, &copy);
  if (status == SPROUT_OK) manifest->objects[manifest->object_count++] = copy;
  return status;
}

/* A label from a stranger need not be terminated. */
static enum sprout_status check_label(const struct manifest_version *version,
                                      struct sprout_error *error) {
  if (memchr(version->label, '\0', sizeof(version->label)) == NULL ||
      !manifest_text_ok(version->label))
    return sprout_error_set(error, SPROUT_BAD_MODEL, 0, NULL,
                            "the version label is not UTF-8 of at most %d bytes without control "
                            "characters",
                            MANIFEST_LABEL_MAX);
  return SPROUT_OK;
}

enum sprout_status manifest_build(struct manifest_builder *builder, struct manifest **manifest_out,
                                  struct sprout_error *error) {
  struct manifest *manifest = builder->manifest;
  if (builder->problem.status != SPROUT_OK) {
    if (error != NULL) *error = builder->problem;
    return builder->problem.status;
  }
  enum sprout_status status = check_label(&manifest->version, error);
  if (status == SPROUT_OK) status = manifest_check_files(manifest, error);
  if (status == SPROUT_OK) status = manifest_check_objects(manifest, error);
  if (status == SPROUT_OK) status = manifest_derive_chunks(manifest, error);
  if (status == SPROUT_OK) status = manifest_index(manifest, error);
  if (status != SPROUT_OK) {
    /* A second attempt would start from half-derived values. */
    if (error != NULL) builder->problem = *error;
    builder->problem.status = status;
    return status;
  }
  manifest->layout = manifest_layout_digest(manifest);
  digest_to_hex(&manifest->layout, manifest->id);
  *manifest_out = manifest;
  builder->manifest = NULL;
  free(builder);
  return SPROUT_OK;
}
