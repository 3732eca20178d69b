/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Posting: pieces are cut from the oldest read that can be cut, given to rails, and leave in
 * chains.
 */
#include "net/rdma_lane_internal.h"

#include <assert.h>

/* A rail that would land a piece so much later than the best one does not get it. */
#define LATER_FACTOR 4.0

/* --- credits --- */

static uint64_t chains_of(const struct rdma_lane *lane) {
  return lane->window.bytes < LANE_SHARED_WINDOW && lane->open_rails == 1 ? 1 : LANE_CHAINS;
}

/* Every rail is to have its chains in the window. */
static uint64_t piece_bytes_max(const struct rdma_lane *lane) {
  uint64_t bytes = LANE_PIECE_MAX, parts = chains_of(lane) * (uint64_t)lane->open_rails;
  while (bytes > LANE_PIECE_MIN && bytes * parts > lane->window.bytes) bytes /= 2;
  return bytes;
}

static uint64_t in_chains(const struct rdma_lane *lane) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < lane->rail_count; i++) bytes += lane->rails[i].chain_bytes;
  return bytes;
}

static bool is_fenced(const struct rdma_lane *lane) {
  return lane->map.fence_address != 0;
}

/* Whether the chain may have one more request: several chains have to fit into depth and window, or
 * a rail would idle from the end of one to the next. */
static bool chain_is_full(const struct lane_rail *rail, uint64_t bytes) {
  const struct rdma_lane *lane = rail->lane;
  return rail->chain_count > 0 &&
         ((rail->chain_count + 1) * chains_of(lane) > rail->rail.depth ||
          (rail->chain_bytes + bytes) * chains_of(lane) > lane->window.bytes);
}

/* A request for a piece is free, and one for the fence behind it. */
static bool has_request(const struct lane_rail *rail) {
  uint32_t used = rdma_rail_outstanding(&rail->rail) + rail->chain_count;
  uint32_t own = is_fenced(rail->lane) ? 2 : 1;
  if (rail->rail.state != RDMA_RAIL_READY || used + own > rail->rail.depth) return false;
  return !is_fenced(rail->lane) || rail->fences < LANE_FENCES;
}

static double rate_of(const struct lane_rail *rail) {
  return rail->bytes_per_ns > 0 ? rail->bytes_per_ns : 1e-6;
}

static double all_rates(const struct rdma_lane *lane) {
  double sum = 0;
  for (uint32_t i = 0; i < lane->rail_count; i++)
    if (lane->rails[i].rail.state == RDMA_RAIL_READY) sum += rate_of(&lane->rails[i]);
  return sum;
}

/* Bytes that may be in flight on the rail: its share of the window by rate, so that one that hangs
 * does not hold all of it. */
static bool within_share(const struct lane_rail *rail, uint64_t bytes) {
  const struct rdma_lane *lane = rail->lane;
  double share = (double)lane->window.bytes * rate_of(rail) / all_rates(lane);
  uint64_t used = rail->outstanding_bytes + rail->chain_bytes;
  return used == 0 || (double)(used + bytes) <= share * 1.001;
}

static double expected_ns(const struct lane_rail *rail, uint64_t bytes) {
  return (double)(rail->outstanding_bytes + rail->chain_bytes + bytes) / rate_of(rail);
}

/* The rail on which the bytes are expected first, of those that have credit. */
static struct lane_rail *choose_rail(struct rdma_lane *lane, uint64_t bytes) {
  struct lane_rail *best = NULL;
  double soonest_ns = -1;
  for (uint32_t i = 0; i < lane->rail_count; i++) {
    struct lane_rail *rail = &lane->rails[i];
    if (rail->rail.state != RDMA_RAIL_READY) continue;
    double ns = expected_ns(rail, bytes);
    if (soonest_ns < 0 || ns < soonest_ns) soonest_ns = ns;
    if (!has_request(rail) || chain_is_full(rail, bytes) || !within_share(rail, bytes)) continue;
    if (best == NULL || ns < expected_ns(best, bytes)) best = rail;
  }
  if (best != NULL && expected_ns(best, bytes) > LATER_FACTOR * soonest_ns) return NULL;
  return best;
}

/* --- pieces --- */

static struct lane_piece *take_piece(struct list_node *free) {
  struct list_node *node = list_take(free);
  return node != NULL ? container_of(node, struct lane_piece, of_rail) : NULL;
}

static void out_of_place(struct rdma_lane *lane) {
  struct sprout_error error;
  (void)sprout_error_set(&error, SPROUT_PROTOCOL, 0, NULL,
                         "its placement lacks memory of an object");
  lane_fail(lane, &error);
}

/* The next piece of the queue, unlinked; NULL: nothing can be cut now. */
static struct lane_piece *cut_piece(struct rdma_lane *lane, uint64_t bytes_max) {
  const struct rdma_cut_rules rules = {.remote = &lane->map,
                                       .local = rdma_landing_memory(lane->options.landing),
                                       .segments_max = lane->segments_max,
                                       .bytes_max = bytes_max};
  struct list_node *node, *next;
  if (rules.local == NULL) return NULL;
  struct lane_piece *piece = take_piece(&lane->free_pieces);
  if (piece == NULL) return NULL;
  list_for_each_safe (node, next, &lane->queue) {
    struct lane_read *entry = container_of(node, struct lane_read, node);
    enum rdma_cut_result result = rdma_cut_next(entry->read, &rules, &entry->cursor, &piece->cut);
    if (result == RDMA_CUT_WAITS) continue; /* another read may lie where memory is ready */
    if (result == RDMA_CUT_OUT_OF_PLACE) {
      out_of_place(lane);
      break;
    }
    assert(result == RDMA_CUT_PIECE);
    piece->read = entry;
    piece->landed = false;
    list_append(&entry->pieces, &piece->of_read);
    if (entry->cursor.cut_bytes == entry->read->length_bytes) {
      list_remove(&entry->node);
      list_append(&lane->flying, &entry->node);
    }
    return piece;
  }
  list_prepend(&lane->free_pieces, &piece->of_rail);
  return NULL;
}

/* The least that the next piece may have: one that was cut before is known; how far the bytes of
 * another lie together is seen when it is cut. */
static uint64_t next_bytes(const struct rdma_lane *lane) {
  if (list_empty(&lane->retry)) return 1;
  return container_of(lane->retry.next, struct lane_piece, of_rail)->cut.length_bytes;
}

/* Pieces whose rail ended go first. The registration of the seed's memory may have moved in the map
 * since they were cut. */
static struct lane_piece *next_piece(struct rdma_lane *lane) {
  struct list_node *node = list_take(&lane->retry);
  if (node != NULL) {
    struct lane_piece *piece = container_of(node, struct lane_piece, of_rail);
    piece->cut.remote = rdma_map_find(&lane->map, piece->cut.remote_address);
    return piece;
  }
  return cut_piece(lane, piece_bytes_max(lane));
}

/* --- chains --- */

static void fill_request(const struct lane_rail *rail, struct lane_piece *piece,
                         struct verbs_read *request) {
  struct rdma_cut *cut = &piece->cut;
  for (uint32_t i = 0; i < cut->segment_count; i++)
    cut->segments[i].local_key = cut->local[i]->memories[rail->local]->local_key;
  *request = (struct verbs_read){.remote_address = cut->remote_address,
                                 .remote_key = cut->remote->keys[rail->remote],
                                 .segment_count = cut->segment_count,
                                 .segments = cut->segments,
                                 .after_all = piece->read == NULL}; /* see core/fence.h */
}

/* Where the fence lies here and there becomes a piece without a read. False: not readable yet. */
static bool cut_fence(struct lane_rail *rail, struct lane_piece *fence) {
  struct rdma_lane *lane = rail->lane;
  uint32_t index = rail->next_fence % LANE_FENCES;
  const struct rdma_memory *memory = rdma_landing_memory(lane->options.landing);
  const struct rdma_slice *local = rdma_memory_find(memory, &rail->words[index]);
  const struct wire_slice *remote = rdma_map_find(&lane->map, lane->map.fence_address);
  if (local == NULL || !local->ready || remote == NULL) return false;
  fence->read = NULL;
  fence->fence = index;
  fence->cut = (struct rdma_cut){.remote_address = lane->map.fence_address,
                                 .remote = remote,
                                 .length_bytes = sizeof(uint64_t),
                                 .segment_count = 1,
                                 .segments = {{.address = (uint64_t)(uintptr_t)&rail->words[index],
                                               .length_bytes = sizeof(uint64_t)}},
                                 .local = {local}};
  __atomic_store_n(&rail->words[index], UINT64_MAX, __ATOMIC_RELEASE);
  return true;
}

static bool add_fence(struct lane_rail *rail) {
  struct lane_piece *fence = take_piece(&rail->lane->free_fences);
  if (fence == NULL) return false;
  if (!cut_fence(rail, fence)) {
    list_prepend(&rail->lane->free_fences, &fence->of_rail);
    return false;
  }
  rail->chain[rail->chain_count++] = fence;
  rail->next_fence++;
  rail->fences++;
  return true;
}

/* What cannot be sent after all waits for the next pass. */
static void unmake_chain(struct lane_rail *rail) {
  struct rdma_lane *lane = rail->lane;
  while (rail->chain_count > 0)
    list_prepend(&lane->retry, &rail->chain[--rail->chain_count]->of_rail);
  rail->chain_bytes = 0;
}

/* False: nothing was posted. */
static bool post_chain(struct lane_rail *rail) {
  struct rdma_lane *lane = rail->lane;
  uint64_t bytes = rail->chain_bytes;
  if (rail->chain_count == 0) return false;
  bool may = rail->rail.state == RDMA_RAIL_READY && lane->state == LANE_READY;
  if (!may || (is_fenced(lane) && !add_fence(rail))) {
    unmake_chain(rail);
    return false;
  }
  if (rail->outstanding_bytes == 0) {
    rail->busy_since_ns = reactor_now(lane->reactor);
    rail->busy_bytes = 0;
  }
  for (uint32_t i = 0; i < rail->chain_count; i++) {
    fill_request(rail, rail->chain[i], &lane->requests[i]);
    list_append(&rail->posted, &rail->chain[i]->of_rail);
  }
  uint32_t count = rail->chain_count;
  rail->chain_count = 0;
  rail->chain_bytes = 0;
  rail->outstanding_bytes += bytes;
  lane->inflight_bytes += bytes;
  if (lane->inflight_bytes > lane->peak_bytes) lane->peak_bytes = lane->inflight_bytes;
  rdma_rail_post(&rail->rail, lane->requests, count);
  return true;
}

static bool has_work(const struct rdma_lane *lane) {
  return !list_empty(&lane->retry) || !list_empty(&lane->queue);
}

static bool any_idle(const struct rdma_lane *lane) {
  for (uint32_t i = 0; i < lane->rail_count; i++)
    if (lane->rails[i].rail.state == RDMA_RAIL_READY && lane->rails[i].outstanding_bytes == 0)
      return true;
  return false;
}

/* Room for a chain that is worth a doorbell and a wake-up; or a rail with nothing in flight, which
 * must not wait for what others have: they may hang. */
static bool worth_a_pass(const struct rdma_lane *lane) {
  uint64_t room =
      lane->inflight_bytes < lane->window.bytes ? lane->window.bytes - lane->inflight_bytes : 0;
  return room >= lane->window.bytes / chains_of(lane) || any_idle(lane);
}

static bool fits_window(const struct rdma_lane *lane, uint64_t bytes) {
  uint64_t used = lane->inflight_bytes + in_chains(lane);
  return used == 0 || used + bytes <= lane->window.bytes;
}

/* Work requests over all rails, the fences of chains that are being made included. */
static bool fits_operations(const struct rdma_lane *lane) {
  uint32_t own = is_fenced(lane) ? 2 : 1;
  uint64_t used = 0;
  for (uint32_t i = 0; i < lane->rail_count; i++) {
    const struct lane_rail *rail = &lane->rails[i];
    if (rail->rail.state == RDMA_RAIL_ENDED) continue; /* what it had is void */
    used += rdma_rail_outstanding(&rail->rail) + rail->chain_count;
    if (rail->chain_count > 0) used += own - 1;
  }
  return used == 0 || used + own <= lane->window.operations;
}

/* Gives pieces to rails until credits or work run out. */
static void make_chains(struct rdma_lane *lane) {
  while (has_work(lane) && fits_window(lane, next_bytes(lane)) && fits_operations(lane)) {
    if (choose_rail(lane, next_bytes(lane)) == NULL) return;
    struct lane_piece *piece = next_piece(lane);
    if (piece == NULL || lane->state != LANE_READY) return;
    uint64_t bytes = piece->cut.length_bytes;
    struct lane_rail *rail = fits_window(lane, bytes) ? choose_rail(lane, bytes) : NULL;
    if (rail == NULL) {
      list_prepend(&lane->retry, &piece->of_rail);
      return;
    }
    rail->chain[rail->chain_count++] = piece;
    rail->chain_bytes += piece->cut.length_bytes;
  }
}

/* Reads wait for the lease to be renewed: by a heartbeat, which calls grant. */
static bool lease_holds(const struct rdma_lane *lane) {
  return reactor_now(lane->reactor) <= lane->post_until_ns;
}

void lane_pump(struct rdma_lane *lane) {
  bool posted = true;
  while (posted && lane->state == LANE_READY && has_work(lane)) {
    if (!worth_a_pass(lane) || !lease_holds(lane)) return;
    posted = false;
    make_chains(lane);
    for (uint32_t i = 0; i < lane->rail_count; i++)
      if (post_chain(&lane->rails[i])) posted = true;
  }
}
