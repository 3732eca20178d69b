/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a seed's objects lie in its memory, and with which keys they are read: the placement that a
 * connected fork was told, as it grows. Pure.
 */
#ifndef NET_RDMA_MAP_H
#define NET_RDMA_MAP_H

#include "net/wire.h"

struct rdma_map {
  uint64_t *objects; /* address of each object */
  uint32_t object_count;
  struct wire_slice *slices; /* ascending by address */
  uint32_t slice_count, slice_capacity;
  uint32_t rail_count;
  uint64_t fence_address; /* 0: the bytes never change */
  uint64_t generation;
  uint64_t next; /* placement to ask for next */
  bool whole;
};

/*
 * Takes over what is new in *placement (whose arrays it may take; destroy the message all the
 * same). The first one must have the objects, `object_count` of them. SPROUT_PROTOCOL: wrong number
 * of objects or rails, overlapping slices, another fence than before or one that cannot be read.
 * SPROUT_STALE: of another generation than before.
 */
SPROUT_MUST_CHECK enum sprout_status rdma_map_add(struct rdma_map *map, uint32_t object_count,
                                                  struct wire_placement *placement,
                                                  struct sprout_error *error);
/* The slice that holds `address`, NULL: none (yet). O(log slices). */
const struct wire_slice *rdma_map_find(const struct rdma_map *map, uint64_t address);
void rdma_map_clear(struct rdma_map *map);
#endif
