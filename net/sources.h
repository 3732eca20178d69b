/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Constructors of sources and destinations that do I/O through the reactor. Each is owned by the
 * fork engine it is added to.
 */
#ifndef NET_SOURCES_H
#define NET_SOURCES_H

#include "core/destination.h"
#include "core/filter.h"
#include "core/reactor.h"
#include "core/source.h"
#include "net/address.h"

struct rdma_lane_options;

/* A seed elsewhere. */
struct remote_source_options {
  const char *url;  /* for people */
  const char *host; /* Host header */
  struct address address;
  const char *token;           /* NULL: none; copied */
  const char *model, *rank;    /* manifest to ask for; NULL: the only one */
  uint32_t connections;        /* data connections, 1..16 */
  uint64_t control_timeout_ns; /* for one control request: 10 s */
  uint64_t total_bytes;        /* 0 */
  bool without_tcp;            /* reads must not go over TCP (control does) */
  uint32_t fallbacks;          /* that happened already: RDMA was wanted and is not to be had */
  /* RDMA is tried first; NULL: not wanted. want_placement is the source's. Copied. */
  const struct rdma_lane_options *rdma;
};

SPROUT_MUST_CHECK enum sprout_status
remote_source_create(struct reactor *reactor, const struct remote_source_options *options,
                     struct source **source_out);

/*
 * A local directory of the same model, the last resort: lays it out as a seed would and reads
 * through the ring.
 *
 * A directory does not know the identity of the model it holds. `reference` (may be NULL) gives the
 * manifest in force when the source connects, or NULL: the directory then takes that identity and
 * label over, and the engine compares files and objects. Its digests are computed from its own
 * bytes: they are asked for only when no seed is left to ask.
 */
SPROUT_MUST_CHECK enum sprout_status
file_source_create(struct reactor *reactor, const char *url, const char *directory,
                   const struct manifest *(*reference)(void *context), void *context,
                   struct source **source_out);

struct directory_options {
  const char *path;
  bool force;       /* replace files in the way */
  bool dry_run;     /* check only: create nothing; with reuse, re-hash what is there all the same */
  bool verify_only; /* a dry run that looks at final names alone, follows links, and takes a file of
                       another length as missing instead of refusing it */
  uint64_t staging_bytes;           /* upper bound of staging memory */
  const struct fork_filter *filter; /* borrowed; says which empty files are wanted; NULL: all */
};

SPROUT_MUST_CHECK enum sprout_status
destination_directory_create(struct reactor *reactor, const struct directory_options *options,
                             struct destination **destination_out, struct sprout_error *error);
/* Tensors are borrowed until finished or aborted. */
SPROUT_MUST_CHECK enum sprout_status destination_memory_create(struct reactor *reactor,
                                                               const struct sprout_tensor *tensors,
                                                               size_t count,
                                                               struct destination **destination_out,
                                                               struct sprout_error *error);
/* `staging_bytes`: upper bound of the memory that unordered sources land in. */
SPROUT_MUST_CHECK enum sprout_status destination_null_create(struct reactor *reactor,
                                                             uint64_t staging_bytes,
                                                             struct destination **destination_out);
#endif
