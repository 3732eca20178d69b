/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matches a caller's tensors with a manifest's objects: by name, dtype, shape, strides and length,
 * never by size alone. Pure apart from logging differences that do not fit into the error.
 */
#ifndef NET_DESTINATION_MEMORY_MATCH_H
#define NET_DESTINATION_MEMORY_MATCH_H

#include "core/manifest.h"

/* Where the bytes of one object land. Aliases have none: their target has. */
struct memory_object {
  unsigned char *address; /* NULL: not wanted */
  uint32_t first_copy;    /* further places of the same bytes, or MANIFEST_NONE */
};

struct memory_copy {
  unsigned char *address;
  uint32_t next; /* or MANIFEST_NONE */
};

/* Zero-initialised: empty. */
struct memory_match {
  struct memory_object *objects; /* one per object of the manifest */
  struct memory_copy *copies;
};

/*
 * What can be checked without a manifest: names there and unique, rank and dtype given, memory kind
 * reachable, addresses not NULL. SPROUT_INVALID or SPROUT_UNSUPPORTED names the tensor.
 */
SPROUT_MUST_CHECK enum sprout_status memory_match_check_tensors(const struct sprout_tensor *tensors,
                                                                size_t count,
                                                                struct sprout_error *error);
/* SPROUT_MISMATCH lists every difference. Tensors passed memory_match_check_tensors. */
SPROUT_MUST_CHECK enum sprout_status
memory_match_create(const struct manifest *manifest, const struct sprout_tensor *tensors,
                    size_t count, struct memory_match *match_out, struct sprout_error *error);
void memory_match_destroy(struct memory_match *match);
#endif
