/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"
#include "core/model_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define DTYPES_MAX 64u

void region_close(struct region *region) {
  if (region->mapped && region->base) munmap((void *)(uintptr_t)region->base, region->length_bytes);
  if (region->mapped && region->fd >= 0) close(region->fd);
}

/* --- the draft --- */

enum sprout_status model_draft_init(struct model_draft *draft) {
  memset(draft, 0, sizeof *draft);
  draft->dtypes = calloc(DTYPES_MAX, sizeof *draft->dtypes);
  draft->dtype_bytes = calloc(DTYPES_MAX, sizeof *draft->dtype_bytes);
  enum sprout_status status = draft->dtypes && draft->dtype_bytes ? SPROUT_OK : SPROUT_NO_MEMORY;
  if (status == SPROUT_OK) status = manifest_builder_create(&draft->builder);
  if (status != SPROUT_OK) model_draft_destroy(draft);
  return status;
}

void model_draft_destroy(struct model_draft *draft) {
  manifest_builder_destroy(draft->builder);
  for (uint32_t i = 0; i < draft->region_count; i++) region_close(&draft->regions[i]);
  for (uint32_t i = 0; i < draft->dtype_count; i++) free(draft->dtypes[i]);
  free(draft->regions);
  free(draft->placements);
  free(draft->dtypes);
  free(draft->dtype_bytes);
  memset(draft, 0, sizeof *draft);
}

enum sprout_status model_draft_region(struct model_draft *draft, const struct region *region,
                                      uint32_t *index_out) {
  if (draft->region_count == draft->region_capacity) {
    uint32_t capacity = draft->region_capacity ? draft->region_capacity * 2 : 16;
    struct region *grown = realloc(draft->regions, capacity * sizeof *grown);
    if (!grown) return SPROUT_NO_MEMORY;
    draft->regions = grown;
    draft->region_capacity = capacity;
  }
  *index_out = draft->region_count;
  draft->regions[draft->region_count++] = *region;
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status count_dtype(struct model_draft *draft,
                                                        const struct manifest_object *object) {
  if (object->kind != SPROUT_OBJECT_TENSOR || object->alias_of != MANIFEST_NONE) return SPROUT_OK;
  uint32_t i = 0;
  while (i < draft->dtype_count && strcmp(draft->dtypes[i], object->dtype) != 0) i++;
  if (i == DTYPES_MAX) return SPROUT_OK;
  if (i == draft->dtype_count) {
    draft->dtypes[i] = strdup(object->dtype);
    if (!draft->dtypes[i]) return SPROUT_NO_MEMORY;
    draft->dtype_count++;
  }
  draft->dtype_bytes[i] += object->length_bytes;
  return SPROUT_OK;
}

enum sprout_status model_draft_object(struct model_draft *draft,
                                      const struct manifest_object *object, bool in_file,
                                      uint32_t region, uint64_t offset) {
  if (draft->object_count == draft->object_capacity) {
    uint32_t capacity = draft->object_capacity ? draft->object_capacity * 2 : 256;
    struct placement *grown = realloc(draft->placements, capacity * sizeof *grown);
    if (!grown) return SPROUT_NO_MEMORY;
    draft->placements = grown;
    draft->object_capacity = capacity;
  }
  enum sprout_status status = manifest_builder_object(draft->builder, object, in_file);
  if (status != SPROUT_OK) return status;
  draft->placements[draft->object_count++] = (struct placement){.region = region, .offset = offset};
  return count_dtype(draft, object);
}

const char *model_draft_dtype(const struct model_draft *draft) {
  const char *dtype = "";
  uint64_t most = 0;
  for (uint32_t i = 0; i < draft->dtype_count; i++) {
    if (draft->dtype_bytes[i] <= most) continue;
    most = draft->dtype_bytes[i];
    dtype = draft->dtypes[i];
  }
  return dtype;
}

static SPROUT_MUST_CHECK enum sprout_status copy_label(const char *label, char *label_out,
                                                       struct sprout_error *error) {
  size_t length = label ? strnlen(label, MANIFEST_LABEL_MAX + 1) : 0;
  if (length > MANIFEST_LABEL_MAX || (label && !manifest_text_ok(label)))
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                            "the label is longer than %d bytes, or not UTF-8 without control "
                            "characters",
                            MANIFEST_LABEL_MAX);
  if (length > 0) memcpy(label_out, label, length);
  label_out[length] = 0;
  return SPROUT_OK;
}

enum sprout_status model_draft_finish(struct model_draft *draft,
                                      const struct manifest_identity *identity,
                                      const struct model_options *options, struct model **model_out,
                                      struct sprout_error *error) {
  struct manifest_version version = {.generation = 1};
  struct model *model = calloc(1, sizeof *model);
  enum sprout_status status = model ? SPROUT_OK : SPROUT_NO_MEMORY;
  if (status == SPROUT_OK) status = copy_label(options->label, version.label, error);
  if (status == SPROUT_OK &&
      getrandom(version.epoch, sizeof version.epoch, 0) != (ssize_t)sizeof version.epoch) {
    status = sprout_error_set(error, SPROUT_IO, errno, NULL, "no random bytes for the epoch");
  }
  manifest_builder_version(draft->builder, &version);
  /* Building says in words what the builder refused. */
  if (status == SPROUT_OK &&
      manifest_builder_identity(draft->builder, identity) == SPROUT_NO_MEMORY)
    status = SPROUT_NO_MEMORY;
  if (status == SPROUT_NO_MEMORY)
    sprout_error_set(error, status, 0, NULL, "no memory for the model's layout");
  if (status == SPROUT_OK) status = manifest_build(draft->builder, &model->manifest, error);
  if (status != SPROUT_OK) {
    free(model);
    model_draft_destroy(draft);
    return status;
  }
  draft->builder = NULL; /* consumed */
  model->regions = draft->regions;
  model->region_count = draft->region_count;
  model->placements = draft->placements;
  draft->regions = NULL;
  draft->placements = NULL;
  draft->region_count = 0;
  model_draft_destroy(draft);
  *model_out = model;
  return SPROUT_OK;
}

void model_destroy(struct model *model) {
  if (!model) return;
  manifest_destroy(model->manifest);
  for (uint32_t i = 0; i < model->region_count; i++) region_close(&model->regions[i]);
  free(model->regions);
  free(model->placements);
  free(model);
}

/* --- opening --- */

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* A directory, or that of a file, resolved; NULL when it cannot be. Free it. */
static char *resolve_directory(const char *path, bool directory) {
  if (directory) return realpath(path, NULL);
  size_t length = (size_t)(base_name(path) - path);
  char *parent = length == 0 ? strdup(".") : strndup(path, length);
  char *resolved = parent ? realpath(parent, NULL) : NULL;
  free(parent);
  return resolved;
}

static void find_names(const struct model_options *options, bool directory,
                       struct model_names *names) {
  char *resolved = resolve_directory(options->paths[0], directory);
  model_names_of(options->paths[0], resolved ? resolved : "", directory, names);
  free(resolved);
}

static int compare_base_names(const void *a, const void *b) {
  return strcmp(base_name(*(const char *const *)a), base_name(*(const char *const *)b));
}

static SPROUT_MUST_CHECK enum sprout_status add_single(struct model_draft *draft, const char *path,
                                                       enum model_memory memory,
                                                       struct sprout_error *error) {
  struct stat info;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return model_io_error(error, errno, "open", path);
  bool known = fstat(fd, &info) == 0;
  if (known && S_ISREG(info.st_mode))
    return model_add_file(draft, fd, base_name(path), path, memory, error);
  close(fd);
  if (known && S_ISDIR(info.st_mode))
    return sprout_error_set(error, SPROUT_INVALID, 0, "Name one directory, or any number of files.",
                            "%s is a directory beside other paths", path);
  return sprout_error_set(error, SPROUT_BAD_MODEL, 0, "Name one directory, or regular files.",
                          "%s is not a regular file", path);
}

static SPROUT_MUST_CHECK enum sprout_status add_files(struct model_draft *draft,
                                                      const struct model_options *options,
                                                      struct sprout_error *error) {
  const char **paths = calloc(options->path_count, sizeof *paths);
  if (!paths) return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for the paths");
  memcpy(paths, options->paths, options->path_count * sizeof *paths);
  qsort(paths, options->path_count, sizeof *paths, compare_base_names);
  enum sprout_status status = SPROUT_OK;
  for (size_t i = 0; i < options->path_count && status == SPROUT_OK; i++)
    status = add_single(draft, paths[i], options->memory, error);
  free(paths);
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status add_paths(struct model_draft *draft,
                                                      const struct model_options *options,
                                                      bool *directory_out,
                                                      struct sprout_error *error) {
  *directory_out = false;
  if (options->path_count == 0) {
    return sprout_error_set(error, SPROUT_INVALID, 0, "Name a model directory or files.",
                            "no model was named");
  }
  int fd =
      options->path_count == 1 ? open(options->paths[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (fd < 0) return add_files(draft, options, error);
  *directory_out = true;
  enum sprout_status status =
      model_add_directory(draft, fd, options->paths[0], options->memory, error);
  if (status == SPROUT_OK && draft->tensor_files == 0) {
    log_write(LOG_WARNING, "seed", "%s has no *.safetensors file: its files are served as they are",
              options->paths[0]);
  }
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status open_model(const struct model_options *options,
                                                       struct model **model_out,
                                                       struct sprout_error *error) {
  struct model_draft draft;
  if (model_draft_init(&draft) != SPROUT_OK) {
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory to lay out a model");
  }
  bool directory;
  enum sprout_status status = add_paths(&draft, options, &directory, error);
  if (status != SPROUT_OK) {
    model_draft_destroy(&draft);
    return status;
  }
  struct model_names names;
  find_names(options, directory, &names);
  struct manifest_identity identity = {.model = options->name ? options->name : names.model,
                                       .revision = names.revision,
                                       .dtype = model_draft_dtype(&draft),
                                       .quantization = draft.quantization,
                                       .engine = "",
                                       .layout = "",
                                       .role = "main",
                                       .rank = options->rank ? options->rank : ""};
  return model_draft_finish(&draft, &identity, options, model_out, error);
}

enum sprout_status model_open(const struct model_options *options, struct model **model_out,
                              struct sprout_error *error) {
  struct sprout_error local = {0}; /* its status is looked at on the way */
  enum sprout_status status = open_model(options, model_out, &local);
  if (status != SPROUT_OK && error) *error = local;
  return status;
}
