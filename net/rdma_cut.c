/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_cut.h"

#include <assert.h>

static uint64_t least(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

/* Steps over what is used up; false at the end of the read. */
static bool settle(const struct source_read *read, struct rdma_cursor *cursor) {
  while (cursor->range < read->range_count &&
         cursor->range_used == read->ranges[cursor->range].length_bytes) {
    cursor->range++;
    cursor->range_used = 0;
  }
  while (cursor->iov < read->iov_count && cursor->iov_used == read->iov[cursor->iov].iov_len) {
    cursor->iov++;
    cursor->iov_used = 0;
  }
  return cursor->range < read->range_count;
}

static uint64_t remote_at(const struct source_read *read, const struct rdma_map *map,
                          const struct rdma_cursor *cursor) {
  const struct source_range *range = &read->ranges[cursor->range];
  assert(range->object < map->object_count);
  return map->objects[range->object] + range->offset + cursor->range_used;
}

/* Adds up to `wanted` bytes at the cursor to the scatter list; how many it were, 0: no more room in
 * the list, or memory that is not registered yet. */
static uint64_t add_local(const struct source_read *read, const struct rdma_cut_rules *rules,
                          const struct rdma_cursor *cursor, uint64_t wanted, struct rdma_cut *cut) {
  const struct iovec *entry = &read->iov[cursor->iov];
  const unsigned char *at = (const unsigned char *)entry->iov_base + cursor->iov_used;
  const struct rdma_slice *slice = rdma_memory_find(rules->local, at);
  assert(slice != NULL); /* the destination named all memory that it hands out */
  if (!slice->ready) return 0;
  uint64_t length = least(wanted, entry->iov_len - cursor->iov_used);
  length = least(length, (uint64_t)(slice->address + slice->length_bytes - at));
  uint32_t count = cut->segment_count;
  struct verbs_segment *last = count > 0 ? &cut->segments[count - 1] : NULL;
  if (last != NULL && cut->local[count - 1] == slice &&
      last->address + last->length_bytes == (uint64_t)(uintptr_t)at) {
    last->length_bytes += (uint32_t)length;
    return length;
  }
  if (count == rules->segments_max) return 0;
  cut->segments[count] =
      (struct verbs_segment){.address = (uint64_t)(uintptr_t)at, .length_bytes = (uint32_t)length};
  cut->local[count] = slice;
  cut->segment_count++;
  return length;
}

static void begin(const struct rdma_cursor *cursor, uint64_t remote_address,
                  const struct wire_slice *slice, struct rdma_cut *cut) {
  cut->remote_address = remote_address;
  cut->remote = slice;
  cut->length_bytes = 0;
  cut->iov = cursor->iov;
  cut->iov_used = cursor->iov_used;
  cut->segment_count = 0;
}

enum rdma_cut_result rdma_cut_next(const struct source_read *read,
                                   const struct rdma_cut_rules *rules, struct rdma_cursor *cursor,
                                   struct rdma_cut *cut_out) {
  struct rdma_cut *cut = cut_out;
  assert(rules->segments_max > 0 && rules->segments_max <= RDMA_SEGMENTS_MAX);
  if (!settle(read, cursor)) return RDMA_CUT_END;
  uint64_t address = remote_at(read, rules->remote, cursor);
  const struct wire_slice *slice = rdma_map_find(rules->remote, address);
  if (slice == NULL) return rules->remote->whole ? RDMA_CUT_OUT_OF_PLACE : RDMA_CUT_WAITS;
  begin(cursor, address, slice, cut);
  uint64_t slice_left = slice->length_bytes - (address - slice->address);
  while (cut->length_bytes < rules->bytes_max && settle(read, cursor)) {
    /* The next object's bytes may lie elsewhere, or in another registration. */
    if (remote_at(read, rules->remote, cursor) != address + cut->length_bytes) break;
    uint64_t wanted = read->ranges[cursor->range].length_bytes - cursor->range_used;
    wanted = least(wanted, least(rules->bytes_max, slice_left) - cut->length_bytes);
    uint64_t length = wanted > 0 ? add_local(read, rules, cursor, wanted, cut) : 0;
    if (length == 0) break;
    cursor->range_used += length;
    cursor->iov_used += length;
    cursor->cut_bytes += length;
    cut->length_bytes += length;
  }
  return cut->length_bytes > 0 ? RDMA_CUT_PIECE : RDMA_CUT_WAITS;
}
