/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that sprout reads from (a seed's regions) or writes to (a fork's destination tensors).
 *
 * The caller owns the memory. A seed's region must stay mapped and, when immutable, unchanged from
 * sprout_seed_create until sprout_seed_destroy returns; a fork's destination until the fork's
 * result was reported.
 */
#ifndef SPROUT_MEMORY_H
#define SPROUT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sprout/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a range of memory lives. */
enum sprout_memory_kind {
  SPROUT_MEMORY_HOST, /* pageable or pinned host memory */
  SPROUT_MEMORY_FILE, /* a read-only mapping of a file (internal to stand-alone seeds) */
  SPROUT_MEMORY_CUDA  /* device memory of a CUDA device */
};

/* Dimensions a tensor may have at most. */
#define SPROUT_MAX_RANK 8

/*
 * One tensor by name in caller memory. `shape` has `rank` entries; `dtype` is the safetensors name
 * ("F32", "BF16", "F8_E4M3", "F4", ...). `length_bytes` is the size of its smallest contiguous
 * storage span. Strides are in elements; all zero means row-major contiguous.
 */
struct sprout_tensor {
  const char *name;
  const char *dtype;
  uint32_t rank;
  uint64_t shape[SPROUT_MAX_RANK];
  int64_t strides[SPROUT_MAX_RANK];
  void *address;
  uint64_t length_bytes;
  enum sprout_memory_kind memory;
};

#ifdef __cplusplus
}
#endif
#endif
