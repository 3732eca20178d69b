/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What manifest_build asks of objects and files, one rule per function. The manifest may come from
 * a stranger: every number is compared before it is used. Messages name file and object.
 */
#include "core/limits.h"
#include "core/manifest_private.h"
#include "core/safetensors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "file "F": object "O": REASON" */
static enum sprout_status SPROUT_PRINTF(4, 5)
    refuse(const struct manifest *manifest, const struct manifest_object *object,
           struct sprout_error *error, const char *format, ...) {
  char file[MANIFEST_QUOTE_BYTES], name[MANIFEST_QUOTE_BYTES], reason[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof(reason), format, arguments);
  va_end(arguments);
  const char *what = object->kind == SPROUT_OBJECT_TENSOR ? "tensor" : "object";
  if (object->file == MANIFEST_NONE)
    return sprout_error_set(error, SPROUT_BAD_MODEL, 0, NULL, "%s \"%s\" %s", what,
                            manifest_quote(object->name, name), reason);
  return sprout_error_set(error, SPROUT_BAD_MODEL, 0, NULL, "file \"%s\": %s \"%s\" %s",
                          manifest_quote(manifest->files[object->file].path, file), what,
                          manifest_quote(object->name, name), reason);
}

/* Strides that say row-major become zeros, so that both spellings have one layout digest. */
static void normalize_strides(struct manifest_object *object) {
  uint64_t expected = 1;
  for (uint32_t i = object->rank; i-- > 0;) {
    if (object->shape[i] != 1 && object->strides[i] != (int64_t)expected) return;
    uint64_t extent = object->shape[i] == 0 ? 1 : object->shape[i]; /* as frameworks do */
    if (__builtin_mul_overflow(expected, extent, &expected)) return;
  }
  memset(object->strides, 0, sizeof(object->strides));
}

/* Elements from the first to the last in storage, both included; false on overflow. */
static bool span_elements(const struct manifest_object *object, uint64_t *elements_out) {
  bool strided = false;
  uint64_t product = 1, last = 0;
  for (uint32_t i = 0; i < object->rank; i++) {
    strided |= object->strides[i] != 0;
    if (object->shape[i] == 0) {
      *elements_out = 0;
      return true;
    }
  }
  for (uint32_t i = 0; i < object->rank; i++) {
    uint64_t step =
        object->strides[i] < 0 ? 0 - (uint64_t)object->strides[i] : (uint64_t)object->strides[i];
    uint64_t reach;
    if (__builtin_mul_overflow(object->shape[i] - 1, step, &reach) ||
        __builtin_add_overflow(last, reach, &last))
      return false;
    if (!strided && __builtin_mul_overflow(product, object->shape[i], &product)) return false;
  }
  if (strided && __builtin_add_overflow(last, 1, &product)) return false;
  *elements_out = product;
  return true;
}

static enum sprout_status check_tensor(const struct manifest *manifest,
                                       struct manifest_object *object, uint32_t dtype_bits,
                                       struct sprout_error *error) {
  uint64_t elements, bits, have;
  if (object->dtype[0] == '\0') return refuse(manifest, object, error, "has no dtype");
  normalize_strides(object);
  if (!span_elements(object, &elements))
    return refuse(manifest, object, error, "has a shape that overflows 64 bits");
  if (dtype_bits == 0) return SPROUT_OK;
  if (__builtin_mul_overflow(elements, dtype_bits, &bits) ||
      __builtin_mul_overflow(object->length_bytes, (uint64_t)8, &have))
    return refuse(manifest, object, error, "has a size that overflows 64 bits");
  if (bits % 8 != 0)
    return refuse(manifest, object, error,
                  "has %llu elements of %s, which is no whole number of bytes",
                  (unsigned long long)elements, object->dtype);
  if (bits != have)
    return refuse(manifest, object, error, "has %llu bytes, its shape and dtype %s need %llu",
                  (unsigned long long)object->length_bytes, object->dtype,
                  (unsigned long long)(bits / 8));
  return SPROUT_OK;
}

static enum sprout_status check_alias(const struct manifest *manifest, uint32_t index,
                                      struct sprout_error *error) {
  const struct manifest_object *object = &manifest->objects[index];
  if (object->alias_of == MANIFEST_NONE) return SPROUT_OK;
  if (object->alias_of >= index)
    return refuse(manifest, object, error, "is an alias of an object that does not precede it");
  const struct manifest_object *target = &manifest->objects[object->alias_of];
  if (target->alias_of != MANIFEST_NONE)
    return refuse(manifest, object, error, "is an alias of an alias");
  if (target->kind != SPROUT_OBJECT_TENSOR || object->kind != SPROUT_OBJECT_TENSOR)
    return refuse(manifest, object, error, "is an alias, but not of one tensor to another");
  if (target->file != object->file)
    return refuse(manifest, object, error, "is an alias into another file");
  if (target->length_bytes != object->length_bytes || target->file_offset != object->file_offset)
    return refuse(manifest, object, error, "is an alias of other length or place than its target");
  return SPROUT_OK;
}

/* An object of a file begins where the one before it ended; an alias stands right behind what it is
 * an alias of. `begin` and `end` are those of the last object that is no alias. */
static enum sprout_status check_place(const struct manifest *manifest,
                                      const struct manifest_object *object, uint64_t *begin,
                                      uint64_t *end, struct sprout_error *error) {
  if (object->file == MANIFEST_NONE)
    return object->file_offset == 0
               ? SPROUT_OK
               : refuse(manifest, object, error, "has a place in a file, but no file");
  if (object->alias_of != MANIFEST_NONE)
    return object->file_offset == *begin
               ? SPROUT_OK
               : refuse(manifest, object, error, "does not stand next to what it is an alias of");
  if (object->file_offset != *end)
    return refuse(manifest, object, error, "begins at byte %llu, %s at %llu",
                  (unsigned long long)object->file_offset,
                  object->file_offset < *end ? "inside of the one before, which ends"
                                             : "after a hole that begins",
                  (unsigned long long)*end);
  *begin = object->file_offset;
  if (__builtin_add_overflow(*end, object->length_bytes, end) ||
      *end > manifest->files[object->file].length_bytes)
    return refuse(manifest, object, error, "ends beyond the end of its file");
  return SPROUT_OK;
}

static enum sprout_status check_object(struct manifest *manifest, uint32_t index,
                                       uint32_t dtype_bits, struct sprout_error *error) {
  struct manifest_object *object = &manifest->objects[index];
  if (!manifest_text_ok(object->name))
    return refuse(manifest, object, error,
                  "has a name that is not UTF-8 without control characters");
  if (object->kind == SPROUT_OBJECT_TENSOR) {
    enum sprout_status status = check_tensor(manifest, object, dtype_bits, error);
    if (status != SPROUT_OK) return status;
  } else if (object->kind != SPROUT_OBJECT_BLOB) {
    return refuse(manifest, object, error, "is neither tensor nor blob");
  } else if (object->rank != 0 || object->dtype[0] != '\0') {
    return refuse(manifest, object, error, "is a blob with a shape or a dtype");
  }
  return check_alias(manifest, index, error);
}

/* After the last object of a file. */
static enum sprout_status check_file_end(const struct manifest *manifest, uint32_t file,
                                         uint64_t end, struct sprout_error *error) {
  char name[MANIFEST_QUOTE_BYTES];
  if (end == manifest->files[file].length_bytes) return SPROUT_OK;
  return sprout_error_set(
      error, SPROUT_BAD_MODEL, 0, NULL, "file \"%s\" has %llu bytes, its objects end at %llu",
      manifest_quote(manifest->files[file].path, name),
      (unsigned long long)manifest->files[file].length_bytes, (unsigned long long)end);
}

enum sprout_status manifest_check_objects(struct manifest *manifest, struct sprout_error *error) {
  const char *dtype = NULL; /* equal neighbours share the pointer */
  uint32_t dtype_bits = 0;
  uint64_t begin = 0, end = 0;
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    struct manifest_object *object = &manifest->objects[i];
    if (object->dtype != dtype) {
      dtype = object->dtype;
      if (!manifest_text_ok(dtype))
        return refuse(manifest, object, error, "has a dtype that is no text");
      dtype_bits = safetensors_dtype_bits(dtype);
    }
    bool first = object->file != MANIFEST_NONE && manifest->files[object->file].first_object == i;
    if (first) begin = end = 0;
    enum sprout_status status = check_object(manifest, i, dtype_bits, error);
    if (status == SPROUT_OK) status = check_place(manifest, object, &begin, &end, error);
    bool last = i + 1 == manifest->object_count || manifest->objects[i + 1].file != object->file;
    if (status == SPROUT_OK && last && object->file != MANIFEST_NONE)
      status = check_file_end(manifest, object->file, end, error);
    if (status != SPROUT_OK) return status;
  }
  return SPROUT_OK;
}

/* Whether some part of the path is `part`. */
static bool has_part(const char *path, const char *part) {
  size_t part_length = strlen(part);
  for (;;) {
    size_t length = strcspn(path, "/");
    if (length == part_length && memcmp(path, part, length) == 0) return true;
    if (path[length] == '\0') return false;
    path += length + 1;
  }
}

enum sprout_status manifest_check_files(const struct manifest *manifest,
                                        struct sprout_error *error) {
  char name[MANIFEST_QUOTE_BYTES];
  for (uint32_t i = 0; i < manifest->file_count; i++) {
    const struct manifest_file *file = &manifest->files[i];
    if (!manifest_path_ok(file->path))
      return sprout_error_set(error, SPROUT_BAD_MODEL, 0, NULL,
                              "\"%s\" is no relative path of UTF-8 without \".\", \"..\", empty "
                              "parts and control characters",
                              manifest_quote(file->path, name));
    if (has_part(file->path, ".sprout") || has_part(file->path, ".git"))
      return sprout_error_set(error, SPROUT_BAD_MODEL, 0, NULL,
                              "path \"%s\" has a reserved part (.sprout, .git)",
                              manifest_quote(file->path, name));
    if (file->object_count == 0) {
      enum sprout_status status = check_file_end(manifest, i, 0, error);
      if (status != SPROUT_OK) return status;
    }
  }
  return SPROUT_OK;
}

/* Chunks and totals, and the list of objects that own chunks. */
enum sprout_status manifest_derive_chunks(struct manifest *manifest, struct sprout_error *error) {
  struct manifest_private *part = manifest->private_part;
  part->starts = calloc((size_t)manifest->object_count + 1, sizeof(*part->starts));
  if (part->starts == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for the chunk index");
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    struct manifest_object *object = &manifest->objects[i];
    if (object->alias_of != MANIFEST_NONE) {
      const struct manifest_object *target = &manifest->objects[object->alias_of];
      object->first_chunk = target->first_chunk;
      object->chunk_count = target->chunk_count;
      continue;
    }
    uint64_t chunks = object->length_bytes / SPROUT_CHUNK_BYTES +
                      (object->length_bytes % SPROUT_CHUNK_BYTES != 0);
    if (chunks > LIMIT_CHUNKS - manifest->chunk_count) {
      char name[MANIFEST_QUOTE_BYTES];
      return sprout_error_set(error, SPROUT_LIMIT, 0, NULL,
                              "the model has more than %d chunks of 4 MiB, with object \"%s\" of "
                              "%llu bytes",
                              LIMIT_CHUNKS, manifest_quote(object->name, name),
                              (unsigned long long)object->length_bytes);
    }
    object->first_chunk = manifest->chunk_count;
    object->chunk_count = (uint32_t)chunks;
    manifest->chunk_count += chunks;
    manifest->total_bytes += object->length_bytes; /* bounded by the chunks */
    if (chunks > 0) part->starts[part->start_count++] = i;
  }
  return SPROUT_OK;
}
