/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completions. A piece has landed when its READ and the fence behind it are done; a read hears of
 * its bytes in order.
 */
#include "net/rdma_lane_internal.h"

#include <assert.h>

static void free_piece(struct rdma_lane *lane, struct lane_piece *piece) {
  piece->read = NULL;
  piece->landed = false;
  list_prepend(&lane->free_pieces, &piece->of_rail); /* the one in cache first */
}

static void free_fence(struct rdma_lane *lane, struct lane_piece *fence) {
  list_prepend(&lane->free_fences, &fence->of_rail);
}

/* --- reads --- */

static void tell_landed(struct rdma_lane *lane, const struct lane_piece *piece) {
  struct source_read *read = piece->read->read;
  uint32_t entry = piece->cut.iov;
  uint64_t used = piece->cut.iov_used, left = piece->cut.length_bytes;
  while (left > 0) {
    const struct iovec *iov = &read->iov[entry++];
    uint64_t length = iov->iov_len - used < left ? iov->iov_len - used : left;
    if (length > 0) read->landed(read, (const unsigned char *)iov->iov_base + used, length);
    used = 0;
    left -= length;
  }
  read->landed_bytes += piece->cut.length_bytes;
  lane->base.landed_bytes += piece->cut.length_bytes;
}

static void end_read(struct rdma_lane *lane, struct lane_read *entry) {
  struct source_read *read = entry->read;
  entry->read = NULL;
  list_remove(&entry->node);
  list_append(&lane->free_reads, &entry->node);
  read->done(read, SPROUT_OK);
}

/* Tells all bytes that are there now without a gap. */
static void advance(struct rdma_lane *lane, struct lane_read *entry) {
  while (!list_empty(&entry->pieces)) {
    struct lane_piece *piece = container_of(entry->pieces.next, struct lane_piece, of_read);
    if (!piece->landed) return;
    list_remove(&piece->of_read);
    tell_landed(lane, piece);
    free_piece(lane, piece);
  }
  if (entry->cursor.cut_bytes == entry->read->length_bytes) end_read(lane, entry);
}

static void land(struct rdma_lane *lane, struct lane_piece *piece) {
  piece->landed = true;
  if (piece->read->pieces.next == &piece->of_read) advance(lane, piece->read);
}

/* --- fences --- */

static void fence_moved(struct rdma_lane *lane, uint64_t word) {
  struct sprout_error error;
  (void)sprout_error_set(&error, SPROUT_STALE, 0, NULL,
                         "the seed's bytes changed while they were read: generation %llu%s, not "
                         "%llu",
                         (unsigned long long)(word / 2), word % 2 != 0 ? " is being changed" : "",
                         (unsigned long long)lane->generation);
  lane_fail(lane, &error);
}

/* The seed's word in its own byte order: both ends are little-endian, as the manifest says. */
static bool fence_holds(const struct lane_rail *rail, const struct lane_piece *fence,
                        uint64_t *word_out) {
  *word_out = __atomic_load_n(&rail->words[fence->fence], __ATOMIC_ACQUIRE);
  return *word_out == 2 * rail->lane->generation;
}

static void take_fence(struct lane_rail *rail, struct lane_piece *fence) {
  struct rdma_lane *lane = rail->lane;
  uint64_t word = 0;
  bool holds = fence_holds(rail, fence, &word);
  rail->fences--;
  free_fence(lane, fence);
  if (!holds) {
    fence_moved(lane, word);
    return;
  }
  struct list_node *node;
  while (lane->state == LANE_READY && (node = list_take(&rail->unfenced)) != NULL)
    land(lane, container_of(node, struct lane_piece, of_rail));
}

/* --- the rail's reports --- */

/* How fast the rail is while it has something to do. */
static void measure(struct lane_rail *rail, uint64_t bytes) {
  uint64_t now_ns = reactor_now(rail->lane->reactor);
  rail->busy_bytes += bytes;
  uint64_t past_ns = now_ns - rail->busy_since_ns;
  if (past_ns < 1000000) return; /* too short to tell */
  double rate = (double)rail->busy_bytes / (double)past_ns;
  rail->bytes_per_ns += (rate - rail->bytes_per_ns) / 4;
  rail->busy_since_ns = now_ns;
  rail->busy_bytes = 0;
}

void lane_completed(struct lane_rail *rail, uint32_t count) {
  struct rdma_lane *lane = rail->lane;
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < count; i++) {
    struct list_node *node = list_take(&rail->posted);
    assert(node != NULL);
    struct lane_piece *piece = container_of(node, struct lane_piece, of_rail);
    if (piece->read == NULL) {
      take_fence(rail, piece);
      continue;
    }
    bytes += piece->cut.length_bytes;
    if (lane->map.fence_address != 0 || lane->state != LANE_READY)
      list_append(&rail->unfenced, node);
    else
      land(lane, piece);
  }
  rail->outstanding_bytes -= bytes;
  lane->inflight_bytes -= bytes;
  measure(rail, bytes);
}

void lane_reclaim(struct lane_rail *rail) {
  struct rdma_lane *lane = rail->lane;
  struct list_node *node;
  while ((node = list_take(&rail->unfenced)) != NULL) list_append(&lane->retry, node);
  while ((node = list_take(&rail->posted)) != NULL) {
    struct lane_piece *piece = container_of(node, struct lane_piece, of_rail);
    if (piece->read != NULL)
      list_append(&lane->retry, node);
    else
      free_fence(lane, piece);
  }
  lane->inflight_bytes -= rail->outstanding_bytes;
  rail->outstanding_bytes = 0;
  rail->fences = 0;
}

/* --- the end --- */

static void drop_pieces(struct rdma_lane *lane, struct lane_read *entry) {
  struct list_node *node;
  while ((node = list_take(&entry->pieces)) != NULL) {
    struct lane_piece *piece = container_of(node, struct lane_piece, of_read);
    list_remove(&piece->of_rail);
    free_piece(lane, piece);
  }
}

static void return_read(struct rdma_lane *lane, struct lane_read *entry) {
  drop_pieces(lane, entry);
  list_remove(&entry->node);
  list_append(&lane->base.returned, &entry->read->node);
  entry->read = NULL;
  list_append(&lane->free_reads, &entry->node);
}

void lane_return_reads(struct rdma_lane *lane) {
  for (;;) { /* few, and rarely: the oldest each time */
    struct lane_read *oldest = NULL;
    for (uint32_t i = 0; i < LANE_READS; i++) {
      struct lane_read *entry = &lane->reads[i];
      if (entry->read != NULL && (oldest == NULL || entry->number < oldest->number)) oldest = entry;
    }
    if (oldest == NULL) return;
    return_read(lane, oldest);
  }
}
