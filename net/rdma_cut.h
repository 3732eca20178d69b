/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts a source_read into pieces, each one RDMA READ: contiguous and of one registration at the
 * seed, a short scatter list here. Neighbouring objects share a piece. Pure.
 */
#ifndef NET_RDMA_CUT_H
#define NET_RDMA_CUT_H

#include "core/source.h"
#include "net/rdma_map.h"
#include "net/rdma_memory.h"

#define RDMA_SEGMENTS_MAX 32u

/* Where the next piece begins. Zero-initialise. */
struct rdma_cursor {
  uint32_t range;      /* index */
  uint64_t range_used; /* bytes of it */
  uint32_t iov;        /* index */
  uint64_t iov_used;   /* bytes of it */
  uint64_t cut_bytes;  /* all so far */
};

struct rdma_cut_rules {
  const struct rdma_map *remote;
  const struct rdma_memory *local;
  uint32_t segments_max; /* 1 .. RDMA_SEGMENTS_MAX */
  uint64_t bytes_max;
};

/* Keys differ from rail to rail, so they are filled in when the piece is posted. */
struct rdma_cut {
  uint64_t remote_address;
  const struct wire_slice *remote; /* of the map: valid until it grows */
  uint64_t length_bytes;
  uint32_t iov; /* where it lands in the read's iov */
  uint64_t iov_used;
  uint32_t segment_count;
  struct verbs_segment segments[RDMA_SEGMENTS_MAX];  /* without keys */
  const struct rdma_slice *local[RDMA_SEGMENTS_MAX]; /* registration of each */
};

enum rdma_cut_result {
  RDMA_CUT_PIECE,
  RDMA_CUT_END,         /* the read is cut up */
  RDMA_CUT_WAITS,       /* memory of either side is not registered yet */
  RDMA_CUT_OUT_OF_PLACE /* the placement is whole and does not have these bytes */
};

enum rdma_cut_result rdma_cut_next(const struct source_read *read,
                                   const struct rdma_cut_rules *rules, struct rdma_cursor *cursor,
                                   struct rdma_cut *cut_out);
#endif
