/* SPDX-License-Identifier: Apache-2.0 */
#include "core/filter.h"

#include "core/bitmap.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool matches_any(const char *const *globs, size_t count, const char *text) {
  for (size_t i = 0; i < count; i++)
    if (fnmatch(globs[i], text, 0) == 0) return true;
  return false;
}

bool filter_selects_path(const struct fork_filter *filter, const char *path) {
  if (filter->include_count > 0 && !matches_any(filter->include, filter->include_count, path))
    return false;
  return !matches_any(filter->exclude, filter->exclude_count, path);
}

static bool tensor_selected(const struct fork_filter *filter,
                            const struct manifest_object *object) {
  if (filter->tensor_count == 0) return true;
  return object->kind == SPROUT_OBJECT_TENSOR &&
         matches_any(filter->tensor, filter->tensor_count, object->name);
}

static void select_exact(const struct manifest *manifest, const struct fork_filter *filter,
                         uint64_t *selected) {
  for (size_t i = 0; i < filter->exact_count; i++) {
    uint32_t object = manifest_find_object(manifest, filter->exact[i]);
    if (object != MANIFEST_NONE) bits_set(selected, object);
  }
}

/* Objects of one file, or of none: paths are matched once per file. True when anything matched. */
static bool select_run(const struct manifest *manifest, const struct fork_filter *filter,
                       uint32_t first, uint32_t count, uint64_t *selected) {
  bool any = false;
  for (uint32_t i = first; i < first + count; i++) {
    if (!tensor_selected(filter, &manifest->objects[i])) continue;
    bits_set(selected, i);
    any = true;
  }
  return any;
}

static bool select_globs(const struct manifest *manifest, const struct fork_filter *filter,
                         uint64_t *selected) {
  bool any = false;
  for (uint32_t i = 0; i < manifest->file_count; i++) {
    const struct manifest_file *file = &manifest->files[i];
    if (!filter_selects_path(filter, file->path)) continue;
    if (select_run(manifest, filter, file->first_object, file->object_count, selected)) any = true;
    if (file->object_count == 0 && filter->tensor_count == 0) any = true;
  }
  if (!filter_selects_path(filter, "")) return any;
  for (uint32_t i = 0; i < manifest->object_count; i++)
    if (manifest->objects[i].file == MANIFEST_NONE && select_run(manifest, filter, i, 1, selected))
      any = true;
  return any;
}

static void select_alias_targets(const struct manifest *manifest, uint64_t *selected) {
  for (uint32_t i = manifest->object_count; i-- > 0;)
    if (bits_get(selected, i) && manifest->objects[i].alias_of != MANIFEST_NONE)
      bits_set(selected, manifest->objects[i].alias_of);
}

static void append_globs(char *text, size_t text_bytes, const char *option,
                         const char *const *globs, size_t count) {
  for (size_t i = 0; i < count; i++) {
    size_t used = strlen(text);
    snprintf(text + used, text_bytes - used, " %s '%s'", option, globs[i]);
  }
}

static enum sprout_status report_nothing(const struct fork_filter *filter,
                                         struct sprout_error *error) {
  char globs[400] = "";
  append_globs(globs, sizeof(globs), "--include", filter->include, filter->include_count);
  append_globs(globs, sizeof(globs), "--exclude", filter->exclude, filter->exclude_count);
  append_globs(globs, sizeof(globs), "--tensor", filter->tensor, filter->tensor_count);
  return sprout_error_set(error, SPROUT_INVALID, 0,
                          "List the names with: sprout ls URL (quote globs from the shell).",
                          "nothing of the model is selected by%s", globs);
}

enum sprout_status filter_select(const struct manifest *manifest, const struct fork_filter *filter,
                                 uint64_t **selected_out, struct sprout_error *error) {
  bool exact = filter->exact != NULL;
  if (!exact && filter->include_count + filter->exclude_count + filter->tensor_count == 0) {
    *selected_out = NULL;
    return SPROUT_OK;
  }
  uint64_t *selected = calloc(bits_words(manifest->object_count) + 1, sizeof(*selected));
  if (selected == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory to select objects");
  if (exact) {
    select_exact(manifest, filter, selected);
  } else if (!select_globs(manifest, filter, selected)) {
    free(selected);
    return report_nothing(filter, error);
  }
  select_alias_targets(manifest, selected);
  *selected_out = selected;
  return SPROUT_OK;
}
