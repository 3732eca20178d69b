/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model while it is laid out: the builder of its manifest, and beside it regions and placements
 * in the same order.
 */
#ifndef CORE_MODEL_INTERNAL_H
#define CORE_MODEL_INTERNAL_H

#include "core/region.h"

#include <sys/types.h>

struct model_draft {
  struct manifest_builder *builder;
  struct region *regions;
  struct placement *placements;
  uint32_t region_count, region_capacity;
  uint32_t object_count, object_capacity;
  uint32_t tensor_files; /* safetensors files so far */
  char **dtypes;         /* of the tensors so far, for the identity: most bytes win */
  uint64_t *dtype_bytes;
  uint32_t dtype_count;
  char quantization[64]; /* that config.json or a header's metadata names */
};

/* "cannot VERB PATH: ..." with the status and the hint that fit errno `code`. */
enum sprout_status model_io_error(struct sprout_error *error, int code, const char *verb,
                                  const char *path);

SPROUT_MUST_CHECK enum sprout_status model_draft_init(struct model_draft *draft);
/* Frees everything, closes and unmaps regions. */
void model_draft_destroy(struct model_draft *draft);
/* Takes *region over; *index_out is its number. */
SPROUT_MUST_CHECK enum sprout_status
model_draft_region(struct model_draft *draft, const struct region *region, uint32_t *index_out);
/* Adds one object and where it lies. */
SPROUT_MUST_CHECK enum sprout_status model_draft_object(struct model_draft *draft,
                                                        const struct manifest_object *object,
                                                        bool in_file, uint32_t region,
                                                        uint64_t offset);
/* The dtype that most bytes of the model have; "" without tensors. */
const char *model_draft_dtype(const struct model_draft *draft);
/* Builds; the draft is empty afterwards, whatever happened. */
SPROUT_MUST_CHECK enum sprout_status model_draft_finish(struct model_draft *draft,
                                                        const struct manifest_identity *identity,
                                                        const struct model_options *options,
                                                        struct model **model_out,
                                                        struct sprout_error *error);

/* Opens, maps or reads, and adds one regular file under `name`; `path` is for messages. Takes `fd`
 * over. */
SPROUT_MUST_CHECK enum sprout_status model_add_file(struct model_draft *draft, int fd,
                                                    const char *name, const char *path,
                                                    enum model_memory memory,
                                                    struct sprout_error *error);
/* Adds every file below a directory. Takes `fd` over. */
SPROUT_MUST_CHECK enum sprout_status model_add_directory(struct model_draft *draft, int fd,
                                                         const char *path, enum model_memory memory,
                                                         struct sprout_error *error);

/* What a path tells. `directory` is resolved: the model's, or that of its first file. Texts are cut
 * to the room. */
#define MODEL_NAME_BYTES 512
struct model_names {
  char model[MODEL_NAME_BYTES];
  char revision[MODEL_NAME_BYTES];
};
void model_names_of(const char *path, const char *directory, bool is_directory,
                    struct model_names *names_out);
/* Whether `directory` is ".../snapshots/NAME", as in a Hugging Face cache. */
bool model_is_snapshot(const char *directory);

void region_close(struct region *region);
#endif
