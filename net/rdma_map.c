/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int compare_slices(const void *a, const void *b) {
  const struct wire_slice *x = a, *y = b;
  return x->address < y->address ? -1 : x->address > y->address;
}

static SPROUT_MUST_CHECK enum sprout_status refuse(struct sprout_error *error, const char *what) {
  return sprout_error_set(error, SPROUT_PROTOCOL, 0, NULL, "its placement is refused: %s", what);
}

static SPROUT_MUST_CHECK enum sprout_status check(const struct rdma_map *map, uint32_t object_count,
                                                  const struct wire_placement *placement,
                                                  struct sprout_error *error) {
  bool first = map->objects == NULL;
  if (!first && placement->generation != map->generation)
    return sprout_error_set(
        error, SPROUT_STALE, 0, NULL, "the seed changed from generation %llu to %llu",
        (unsigned long long)map->generation, (unsigned long long)placement->generation);
  if (first && placement->object_count != object_count)
    return refuse(error, "it does not have the addresses of the manifest's objects");
  if (placement->rail_count == 0 || placement->rail_count > WIRE_ENDPOINTS_MAX ||
      (!first && placement->rail_count != map->rail_count))
    return refuse(error, "its number of rails");
  if (!first && placement->fence_address != map->fence_address)
    return refuse(error, "its fence has moved");
  if (placement->fence_address % sizeof(uint64_t) != 0)
    return refuse(error, "its fence is not aligned");
  return SPROUT_OK;
}

/* Room for `more` further slices. */
static bool grow(struct rdma_map *map, uint32_t more) {
  uint64_t wanted = (uint64_t)map->slice_count + more;
  if (wanted <= map->slice_capacity) return true;
  if (wanted > UINT32_MAX / 2) return false;
  struct wire_slice *slices = realloc(map->slices, wanted * 2 * sizeof(*slices));
  if (slices == NULL) return false;
  map->slices = slices;
  map->slice_capacity = (uint32_t)wanted * 2;
  return true;
}

static bool overlaps(const struct wire_slice *slices, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint64_t end;
    if (slices[i].length_bytes == 0 ||
        __builtin_add_overflow(slices[i].address, slices[i].length_bytes, &end))
      return true;
    if (i + 1 < count && end > slices[i + 1].address) return true;
  }
  return false;
}

/* It can be read, now or later. */
static bool has_fence(const struct rdma_map *map) {
  if (map->fence_address == 0) return true;
  const struct wire_slice *slice = rdma_map_find(map, map->fence_address);
  if (slice == NULL) return !map->whole;
  return slice->length_bytes - (map->fence_address - slice->address) >= sizeof(uint64_t);
}

enum sprout_status rdma_map_add(struct rdma_map *map, uint32_t object_count,
                                struct wire_placement *placement, struct sprout_error *error) {
  enum sprout_status status = check(map, object_count, placement, error);
  if (status != SPROUT_OK) return status;
  if (!grow(map, placement->slice_count))
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a placement");
  if (map->objects == NULL) {
    map->objects = placement->objects;
    map->object_count = placement->object_count;
    placement->objects = NULL;
    placement->object_count = 0;
  }
  if (placement->slice_count > 0)
    memcpy(map->slices + map->slice_count, placement->slices,
           placement->slice_count * sizeof(*map->slices));
  map->slice_count += placement->slice_count;
  if (map->slice_count > 0)
    qsort(map->slices, map->slice_count, sizeof(*map->slices), compare_slices);
  map->rail_count = placement->rail_count;
  map->generation = placement->generation;
  map->fence_address = placement->fence_address;
  map->next = placement->next;
  map->whole = placement->whole;
  if (overlaps(map->slices, map->slice_count)) return refuse(error, "slices overlap");
  return has_fence(map) ? SPROUT_OK : refuse(error, "its fence is in none of its slices");
}

const struct wire_slice *rdma_map_find(const struct rdma_map *map, uint64_t address) {
  uint32_t low = 0, high = map->slice_count;
  while (low < high) { /* the first slice that begins behind the address */
    uint32_t middle = low + (high - low) / 2;
    if (map->slices[middle].address <= address)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return NULL;
  const struct wire_slice *slice = &map->slices[low - 1];
  return address - slice->address < slice->length_bytes ? slice : NULL;
}

void rdma_map_clear(struct rdma_map *map) {
  free(map->objects);
  free(map->slices);
  *map = (struct rdma_map){.slices = NULL};
}
