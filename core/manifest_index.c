/* SPDX-License-Identifier: Apache-2.0 */
/* The name and path index: built once by sorting, asked by binary search; finds duplicates. */
#include "core/manifest_private.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_of(const char *name, size_t length_bytes) {
  struct digest digest = digest_of(name, length_bytes);
  uint64_t hash;
  memcpy(&hash, digest.bytes, sizeof(hash));
  return hash;
}

static int compare_names(const void *a_pointer, const void *b_pointer) {
  const struct manifest_name *a = a_pointer, *b = b_pointer;
  if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
  int order = strcmp(a->name, b->name);
  if (order != 0) return order;
  if (a->file != b->file) return a->file < b->file ? -1 : 1;
  return a->object < b->object ? -1 : a->object > b->object;
}

/* Byte order with '/' before all others: what lies below "a" follows "a" at once. */
static int path_rank(char c) {
  if (c == '\0') return 0;
  return c == '/' ? 1 : (int)(unsigned char)c + 1;
}

static int compare_paths(const char *a, const char *b) {
  while (*a != '\0' && *a == *b) a++, b++;
  return path_rank(*a) - path_rank(*b);
}

static int compare_files(const void *a, const void *b, void *context) {
  const struct manifest *manifest = context;
  return compare_paths(manifest->files[*(const uint32_t *)a].path,
                       manifest->files[*(const uint32_t *)b].path);
}

static enum sprout_status index_names(struct manifest *manifest, struct sprout_error *error) {
  struct manifest_private *part = manifest->private_part;
  part->names = calloc((size_t)manifest->object_count + 1, sizeof(*part->names));
  if (part->names == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for the name index");
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    const struct manifest_object *object = &manifest->objects[i];
    part->names[i] = (struct manifest_name){.hash = hash_of(object->name, strlen(object->name)),
                                            .name = object->name,
                                            .file = object->file,
                                            .object = i};
  }
  qsort(part->names, manifest->object_count, sizeof(*part->names), compare_names);
  for (uint32_t i = 1; i < manifest->object_count; i++) {
    const struct manifest_name *a = &part->names[i - 1], *b = &part->names[i];
    if (a->hash != b->hash || a->file != b->file || strcmp(a->name, b->name) != 0) continue;
    char name[MANIFEST_QUOTE_BYTES], file[MANIFEST_QUOTE_BYTES];
    if (a->file == MANIFEST_NONE)
      return sprout_error_set(error, SPROUT_BAD_MODEL, 0, NULL, "two objects are named \"%s\"",
                              manifest_quote(a->name, name));
    return sprout_error_set(
        error, SPROUT_BAD_MODEL, 0, NULL, "file \"%s\": two objects are named \"%s\"",
        manifest_quote(manifest->files[a->file].path, file), manifest_quote(a->name, name));
  }
  return SPROUT_OK;
}

static enum sprout_status index_paths(struct manifest *manifest, struct sprout_error *error) {
  struct manifest_private *part = manifest->private_part;
  part->paths = calloc((size_t)manifest->file_count + 1, sizeof(*part->paths));
  if (part->paths == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for the path index");
  for (uint32_t i = 0; i < manifest->file_count; i++) part->paths[i] = i;
  qsort_r(part->paths, manifest->file_count, sizeof(*part->paths), compare_files, manifest);
  for (uint32_t i = 1; i < manifest->file_count; i++) {
    const char *above = manifest->files[part->paths[i - 1]].path;
    const char *path = manifest->files[part->paths[i]].path;
    size_t length = strlen(above);
    if (strncmp(above, path, length) != 0 || (path[length] != '\0' && path[length] != '/'))
      continue;
    char name[MANIFEST_QUOTE_BYTES];
    return sprout_error_set(error, SPROUT_BAD_MODEL, 0, NULL,
                            path[length] == '\0' ? "two files have the path \"%s\""
                                                 : "\"%s\" is a file and a directory",
                            manifest_quote(above, name));
  }
  return SPROUT_OK;
}

enum sprout_status manifest_index(struct manifest *manifest, struct sprout_error *error) {
  enum sprout_status status = index_names(manifest, error);
  return status == SPROUT_OK ? index_paths(manifest, error) : status;
}

uint32_t manifest_find_object(const struct manifest *manifest, const char *name) {
  const struct manifest_name *names = manifest->private_part->names;
  const struct manifest_name key = {.hash = hash_of(name, strlen(name)), .name = name};
  uint32_t low = 0, high = manifest->object_count; /* the first not below key is in [low, high] */
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    if (compare_names(&names[middle], &key) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  bool found = low < manifest->object_count && names[low].hash == key.hash &&
               strcmp(names[low].name, name) == 0;
  return found ? names[low].object : MANIFEST_NONE;
}

uint32_t manifest_find_file(const struct manifest *manifest, const char *path) {
  const uint32_t *paths = manifest->private_part->paths;
  uint32_t low = 0, high = manifest->file_count;
  while (low < high) {
    uint32_t middle = low + (high - low) / 2;
    int order = compare_paths(manifest->files[paths[middle]].path, path);
    if (order == 0) return paths[middle];
    if (order < 0)
      low = middle + 1;
    else
      high = middle;
  }
  return MANIFEST_NONE;
}
