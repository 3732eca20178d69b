/* SPDX-License-Identifier: Apache-2.0 */
#include "core/json_config.h"
#include "core/log.h"
#include "core/model_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
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

enum sprout_status model_draft_finish(struct model_draft *draft,
                                      const struct manifest_identity *identity,
                                      const struct model_options *options, struct model **model_out,
                                      struct sprout_error *error) {
  struct manifest_version version = {.generation = 1};
  snprintf(version.label, sizeof version.label, "%s", options->label ? options->label : "");
  struct model *model = calloc(1, sizeof *model);
  enum sprout_status status = model ? SPROUT_OK : SPROUT_NO_MEMORY;
  if (status == SPROUT_OK &&
      getrandom(version.epoch, sizeof version.epoch, 0) != (ssize_t)sizeof version.epoch) {
    status = sprout_error_set(error, SPROUT_IO, errno, NULL, "no random bytes for the epoch");
  }
  manifest_builder_version(draft->builder, &version);
  if (status == SPROUT_OK) status = manifest_builder_identity(draft->builder, identity);
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

/* --- identity --- */

/* Texts of an identity taken from paths and config.json. */
struct names {
  char model[NAME_MAX + 1];
  char revision[NAME_MAX + 1];
  char quantization[64];
};

static void base_name(const char *path, char *name, size_t room) {
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/') end--;
  size_t start = end;
  while (start > 0 && path[start - 1] != '/') start--;
  snprintf(name, room, "%.*s", (int)(end - start), path + start);
}

/* ".../models--ORG--NAME/snapshots/HASH" of a Hugging Face cache is ORG/NAME at revision HASH. */
static bool cache_names(const char *path, struct names *names) {
  const char *snapshots = strstr(path, "/snapshots/"), *repository = NULL;
  if (!snapshots || strchr(snapshots + strlen("/snapshots/"), '/')) return false;
  for (const char *at = path; (at = strstr(at, "models--")) && at < snapshots; at++)
    repository = at;
  if (!repository || (repository > path && repository[-1] != '/')) return false;
  size_t used = 0;
  for (const char *at = repository + strlen("models--");
       at < snapshots && used + 1 < sizeof names->model; at++) {
    bool separator = at[0] == '-' && at + 1 < snapshots && at[1] == '-';
    names->model[used++] = separator ? '/' : *at;
    at += separator;
  }
  names->model[used] = 0;
  snprintf(names->revision, sizeof names->revision, "%s", snapshots + strlen("/snapshots/"));
  return true;
}

static void find_names(const struct model_options *options, bool directory, struct names *names) {
  memset(names, 0, sizeof *names);
  char *whole = realpath(options->paths[0], NULL);
  const char *path = whole ? whole : options->paths[0];
  if (!directory || !cache_names(path, names)) base_name(path, names->model, sizeof names->model);
  if (directory) json_config_quantization(path, names->quantization, sizeof names->quantization);
  if (options->name) snprintf(names->model, sizeof names->model, "%s", options->name);
  free(whole);
}

/* --- opening --- */

static enum sprout_status cannot_open(const char *path, struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_BAD_MODEL, errno,
                          "Name a directory with *.safetensors files, or such files.",
                          "cannot open %s: %s", path, strerror(errno));
}

static SPROUT_MUST_CHECK enum sprout_status add_files(struct model_draft *draft,
                                                      const struct model_options *options,
                                                      struct sprout_error *error) {
  for (size_t i = 0; i < options->path_count; i++) {
    char name[NAME_MAX + 1];
    struct stat info;
    base_name(options->paths[i], name, sizeof name);
    int fd = open(options->paths[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return cannot_open(options->paths[i], error);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
      close(fd);
      return sprout_error_set(error, SPROUT_BAD_MODEL, 0, "Name one directory, or regular files.",
                              "%s is not a regular file", options->paths[i]);
    }
    enum sprout_status status =
        model_add_file(draft, fd, name, options->paths[i], options->memory, error);
    if (status != SPROUT_OK) return status;
  }
  return SPROUT_OK;
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

enum sprout_status model_open(const struct model_options *options, struct model **model_out,
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
  struct names names;
  find_names(options, directory, &names);
  struct manifest_identity identity = {.model = names.model,
                                       .revision = names.revision,
                                       .dtype = model_draft_dtype(&draft),
                                       .quantization = names.quantization,
                                       .engine = "",
                                       .layout = "",
                                       .role = "main",
                                       .rank = options->rank ? options->rank : ""};
  return model_draft_finish(&draft, &identity, options, model_out, error);
}
