/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests of a model's chunks, computed from where the bytes lie. Blocks: worker threads.
 *
 * Mapped files are read, not touched through their mapping: a file that somebody truncates is an
 * error then, not SIGBUS (10 GB/s of one core instead of 25). Copies are sealed and tensors are the
 * caller's own: these are digested where they lie.
 */
#ifndef CORE_MODEL_DIGEST_H
#define CORE_MODEL_DIGEST_H

#include "core/region.h"

/* Read and digested piece by piece while the piece is in the second-level cache. */
#define MODEL_PIECE_BYTES (256u * 1024u)

/* 0, or errno (ENODATA: the file is shorter than the region). `piece` has MODEL_PIECE_BYTES. */
int model_digest_chunk(const struct model *model, uint64_t chunk, unsigned char *piece,
                       struct digest *digest_out);
#endif
