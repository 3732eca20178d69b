/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: the memory in which a seed's objects lie.
 *
 * Immutable regions with a descriptor can be sent by sendfile; all others are sent by copy.
 */
#ifndef CORE_REGION_H
#define CORE_REGION_H

#include "core/manifest.h"

struct region {
  const unsigned char *base; /* NULL when length is 0 */
  uint64_t length_bytes;
  enum sprout_memory_kind memory;
  bool immutable;
  int fd;             /* backing file, memfd, or -1 */
  uint64_t fd_offset; /* of base in it */
  bool mapped;        /* unmap and close on destruction */
};

/* Where an object lies; {0, 0} for an empty one. */
struct placement {
  uint32_t region;
  uint64_t offset;
};

/*
 * A model that a seed serves: manifest plus where its bytes are in this process. Immutable after
 * creation.
 *
 * Another process may cut off a mapped file: touching the mapping behind the cut is SIGBUS, while
 * pread and sendfile on the region's descriptor end early or fail. So read through the descriptor
 * where there is one.
 */
struct model {
  struct manifest *manifest;
  struct region *regions;
  uint32_t region_count;
  struct placement *placements; /* one per object */
};

/* Pointer to byte `offset` of object `object`; the caller checked the range. */
static inline const unsigned char *model_bytes(const struct model *model, uint32_t object,
                                               uint64_t offset) {
  const struct placement *placement = &model->placements[object];
  return model->regions[placement->region].base + placement->offset + offset;
}

enum model_memory { MODEL_MEMORY_FILE, MODEL_MEMORY_HOST };

struct model_options {
  const char *const *paths; /* one directory, or files */
  size_t path_count;
  const char *name;  /* NULL: base name of the first path ("snapshots/<hash>" of a Hugging Face
                        cache: the repo name) */
  const char *rank;  /* NULL: "" */
  const char *label; /* NULL: "" */
  enum model_memory memory;
};

/*
 * Opens and lays out a directory (recursively: every regular file; *.safetensors become header +
 * tensors, any other file one blob) or single files, which are laid out under their base names.
 * Files are ordered by the bytes of their paths, so that equal directories have equal layouts.
 *
 * Symbolic links are followed when they stay inside the directory or lead to a file in ../../blobs/
 * of a Hugging Face cache; others, and what is neither file nor directory, are skipped with a
 * warning. ".git", ".cache", ".sprout" and "*.lock" are left out at every level. The epoch is
 * random, the generation 1.
 *
 * SPROUT_BAD_MODEL: a missing path, a directory without any regular file, a broken safetensors
 * file, a name that is no text, a file that changed its length meanwhile. SPROUT_IO: an unreadable
 * file. SPROUT_NO_MEMORY: HOST, and the model is larger than the available memory. SPROUT_LIMIT:
 * not enough descriptors (one per file that is not empty for FILE), too many files. SPROUT_INVALID:
 * a directory beside other paths, a bad label. Blocks (reads headers, or whole files for HOST).
 */
SPROUT_MUST_CHECK enum sprout_status model_open(const struct model_options *options,
                                                struct model **model_out,
                                                struct sprout_error *error);

/*
 * Lays out tensors in the caller's memory (borrowed, not copied), ordered by name whatever their
 * order here. Overlaps, duplicates and aliases are accepted: of tensors with the same span, all but
 * the first by name are its aliases; neighbours share a region. Of the options only name, rank and
 * label are read. SPROUT_INVALID names the tensor and the reason.
 */
SPROUT_MUST_CHECK enum sprout_status model_from_tensors(const struct sprout_tensor *tensors,
                                                        size_t count, bool immutable,
                                                        const struct model_options *options,
                                                        struct model **model_out,
                                                        struct sprout_error *error);
void model_destroy(struct model *model);
#endif
