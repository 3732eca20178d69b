/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a path tells about a model. In a Hugging Face cache, .../models--ORG--NAME/snapshots/HASH is
 * model ORG/NAME, revision HASH; elsewhere the last part of the path is the name.
 */
#include "core/model_internal.h"

#include <stdio.h>
#include <string.h>

/* The last part of the first *length_bytes bytes of a path, which shrink to what is before it. */
static const char *last_part(const char *path, size_t *length_bytes, size_t *part_bytes_out) {
  size_t end = *length_bytes;
  while (end > 1 && path[end - 1] == '/') end--;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  *part_bytes_out = end - begin;
  *length_bytes = begin;
  return path + begin;
}

static bool part_is(const char *part, size_t part_bytes, const char *text) {
  return strlen(text) == part_bytes && memcmp(part, text, part_bytes) == 0;
}

bool model_is_snapshot(const char *directory) {
  size_t length = strlen(directory), bytes;
  (void)last_part(directory, &length, &bytes);
  const char *parent = last_part(directory, &length, &bytes);
  return part_is(parent, bytes, "snapshots");
}

/* "models--org--name" is org/name. */
static bool snapshot_names(const char *directory, struct model_names *names_out) {
  static const char prefix[] = "models--";
  const size_t prefix_bytes = sizeof(prefix) - 1;
  size_t length = strlen(directory), hash_bytes, bytes;
  if (!model_is_snapshot(directory)) return false;
  const char *hash = last_part(directory, &length, &hash_bytes);
  (void)last_part(directory, &length, &bytes);
  const char *cached = last_part(directory, &length, &bytes);
  if (bytes <= prefix_bytes || memcmp(cached, prefix, prefix_bytes) != 0) return false;
  cached += prefix_bytes;
  bytes -= prefix_bytes;
  const char *separator = memmem(cached, bytes, "--", 2);
  if (separator == NULL) {
    snprintf(names_out->model, MODEL_NAME_BYTES, "%.*s", (int)bytes, cached);
  } else {
    int organization_bytes = (int)(separator - cached);
    snprintf(names_out->model, MODEL_NAME_BYTES, "%.*s/%.*s", organization_bytes, cached,
             (int)bytes - organization_bytes - 2, separator + 2);
  }
  snprintf(names_out->revision, MODEL_NAME_BYTES, "%.*s", (int)hash_bytes, hash);
  return true;
}

void model_names_of(const char *path, const char *directory, bool is_directory,
                    struct model_names *names_out) {
  *names_out = (struct model_names){0};
  if (snapshot_names(directory, names_out)) return;
  size_t length = strlen(path), bytes;
  const char *part = last_part(path, &length, &bytes);
  bool tells = bytes > 0 && !part_is(part, bytes, ".") && !part_is(part, bytes, "..");
  if (is_directory && !tells) {
    length = strlen(directory);
    part = last_part(directory, &length, &bytes);
  }
  if (bytes == 0 || part_is(part, bytes, "/"))
    snprintf(names_out->model, MODEL_NAME_BYTES, "model");
  else
    snprintf(names_out->model, MODEL_NAME_BYTES, "%.*s", (int)bytes, part);
}
