/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the manifest: arena, name index and the steps of manifest_build. For core/manifest*.c.
 */
#ifndef CORE_MANIFEST_PRIVATE_H
#define CORE_MANIFEST_PRIVATE_H

#include "core/manifest.h"

/* Strings live in blocks that never move. */
struct manifest_arena_block {
  struct manifest_arena_block *next;
  size_t used_bytes, capacity_bytes;
  char data[];
};

/* One row of the name index, ordered by (hash, name, file, object). The hash makes comparing cheap;
 * the order makes the worst case n log n even for names made to collide. */
struct manifest_name {
  uint64_t hash;
  const char *name;
  uint32_t file;
  uint32_t object;
};

struct manifest_private {
  struct manifest_arena_block *arena;
  uint64_t text_bytes;
  struct manifest_name *names; /* object_count */
  uint32_t *paths;             /* file indexes by path, '/' before all other bytes */
  uint32_t *starts;            /* objects that own chunks, by first_chunk */
  uint32_t start_count;
};

/* Copies text into the arena; NULL when out of memory. */
const char *manifest_arena_copy(struct manifest_private *part, const char *text,
                                size_t length_bytes);
void manifest_private_destroy(struct manifest_private *part);

/* The steps of manifest_build, in this order. */
SPROUT_MUST_CHECK enum sprout_status manifest_check_objects(struct manifest *manifest,
                                                            struct sprout_error *error);
SPROUT_MUST_CHECK enum sprout_status manifest_check_files(const struct manifest *manifest,
                                                          struct sprout_error *error);
SPROUT_MUST_CHECK enum sprout_status manifest_derive_chunks(struct manifest *manifest,
                                                            struct sprout_error *error);
SPROUT_MUST_CHECK enum sprout_status manifest_index(struct manifest *manifest,
                                                    struct sprout_error *error);
struct digest manifest_layout_digest(const struct manifest *manifest);
#endif
