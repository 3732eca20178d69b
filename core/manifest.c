/* SPDX-License-Identifier: Apache-2.0 */
/* Asking a manifest: names, paths, chunks, identity. */
#include "core/manifest_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void manifest_private_destroy(struct manifest_private *part) {
  if (part == NULL) return;
  while (part->arena != NULL) {
    struct manifest_arena_block *block = part->arena;
    part->arena = block->next;
    free(block);
  }
  free(part->names);
  free(part->paths);
  free(part->starts);
  free(part);
}

void manifest_destroy(struct manifest *manifest) {
  if (manifest == NULL) return;
  manifest_private_destroy(manifest->private_part);
  free(manifest->objects);
  free(manifest->files);
  free(manifest);
}

struct manifest_chunk manifest_chunk_at(const struct manifest *manifest, uint64_t chunk) {
  assert(chunk < manifest->chunk_count);
  const struct manifest_private *part = manifest->private_part;
  uint32_t low = 0, high = part->start_count; /* the owner is in [low, high) */
  while (high - low > 1) {
    uint32_t middle = low + (high - low) / 2;
    if (manifest->objects[part->starts[middle]].first_chunk <= chunk)
      low = middle;
    else
      high = middle;
  }
  const struct manifest_object *owner = &manifest->objects[part->starts[low]];
  uint64_t offset = (chunk - owner->first_chunk) * SPROUT_CHUNK_BYTES;
  uint64_t rest = owner->length_bytes - offset;
  return (struct manifest_chunk){.object = part->starts[low],
                                 .offset = offset,
                                 .length_bytes = rest < SPROUT_CHUNK_BYTES ? (uint32_t)rest
                                                                           : SPROUT_CHUNK_BYTES};
}

struct identity_key {
  const char *name;
  const char *here, *there;
};

bool manifest_identity_differs(const struct manifest_identity *a, const struct manifest_identity *b,
                               char *text_out, size_t text_bytes) {
  const struct identity_key keys[] = {
      {"model", a->model, b->model},    {"revision", a->revision, b->revision},
      {"dtype", a->dtype, b->dtype},    {"quantization", a->quantization, b->quantization},
      {"engine", a->engine, b->engine}, {"layout", a->layout, b->layout},
      {"role", a->role, b->role},       {"rank", a->rank, b->rank},
  };
  size_t used = 0;
  bool differs = false;
  if (text_bytes > 0) text_out[0] = '\0';
  for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
    if (strcmp(keys[i].here, keys[i].there) == 0) continue;
    char here[MANIFEST_QUOTE_BYTES], there[MANIFEST_QUOTE_BYTES];
    int length = snprintf(text_out + used, text_bytes - used, "%s%s: %s here, %s there",
                          differs ? "; " : "", keys[i].name,
                          keys[i].here[0] == '\0' ? "none" : manifest_quote(keys[i].here, here),
                          keys[i].there[0] == '\0' ? "none" : manifest_quote(keys[i].there, there));
    differs = true;
    if (length > 0) used += (size_t)length;
    if (used >= text_bytes) used = text_bytes; /* cut; the rest is counted only */
  }
  return differs;
}
