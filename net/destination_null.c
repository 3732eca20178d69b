/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The null destination: bytes are read, verified and dropped.
 *
 * A transfer of an ordered source owns one scratch piece of DESTINATION_PIECE_BYTES, and every
 * entry of its iov is that piece: the bytes stay in the cache and cost no memory traffic. One of an
 * unordered source owns a slot of a chunk's size. Both are mapped once and handed out last-in
 * first-out, so that few of them are ever touched.
 */
#include "net/destination_answers.h"
#include "net/sources.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define NULL_PIECES 64u
/* Two reads under way, one in store. More would only be pinned, and fall out of the cache. */
#define NULL_SLOTS 3u

/* Memory of one size, cut up and handed out. */
struct scratch_stack {
  unsigned char *memory;
  size_t piece_bytes;
  uint32_t count, free_count;
  unsigned char *free[NULL_PIECES];
};

struct null_destination {
  struct destination base;
  struct destination_answers answers;
  struct scratch_stack pieces, slots;
  struct iovec landing;
  bool wants_room;
};

static bool map_scratch(struct scratch_stack *stack, uint32_t count, size_t piece_bytes) {
  void *memory =
      mmap(NULL, count * piece_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  /* Fewer page-table entries in the receive path; refused where it is switched off. */
  (void)madvise(memory, count * piece_bytes, MADV_HUGEPAGE);
  *stack = (struct scratch_stack){
      .memory = memory, .piece_bytes = piece_bytes, .count = count, .free_count = count};
  for (uint32_t i = 0; i < count; i++)
    stack->free[i] = stack->memory + (size_t)(count - 1 - i) * piece_bytes;
  return true;
}

static void unmap_scratch(struct scratch_stack *stack) {
  if (stack->memory != NULL) munmap(stack->memory, stack->count * stack->piece_bytes);
}

static struct scratch_stack *stack_of(struct null_destination *null,
                                      const struct destination_transfer *transfer) {
  return transfer->ordered ? &null->pieces : &null->slots;
}

static struct null_destination *null_of(struct destination *destination) {
  return container_of(destination, struct null_destination, base);
}

static void prepare(struct destination *destination, const struct manifest *manifest,
                    const uint64_t *selected, bool reuse) {
  (void)manifest;
  (void)selected;
  (void)reuse;
  destination_answers_give(&null_of(destination)->answers, ANSWER_PREPARED);
}

static bool map(struct destination *destination, struct destination_transfer *transfer) {
  struct null_destination *null = null_of(destination);
  struct scratch_stack *stack = stack_of(null, transfer);
  uint64_t left = transfer->length_bytes, offset = 0;

  assert(left <= (uint64_t)DESTINATION_IOV_MAX * DESTINATION_PIECE_BYTES);
  if (stack->free_count == 0) {
    null->wants_room = true;
    return false;
  }
  transfer->slot = stack->free[--stack->free_count];
  transfer->iov_count = 0;
  while (left > 0) {
    size_t piece = left < DESTINATION_PIECE_BYTES ? (size_t)left : DESTINATION_PIECE_BYTES;
    transfer->iov[transfer->iov_count++] =
        (struct iovec){.iov_base = (unsigned char *)transfer->slot + offset, .iov_len = piece};
    if (!transfer->ordered) offset += piece;
    left -= piece;
  }
  return true;
}

static uint32_t landing(struct destination *destination, const struct iovec **spans_out) {
  struct null_destination *null = null_of(destination);
  const struct scratch_stack *slots = &null->slots;

  null->landing =
      (struct iovec){.iov_base = slots->memory, .iov_len = slots->count * slots->piece_bytes};
  *spans_out = &null->landing;
  return 1;
}

static void release(struct destination *destination, struct destination_transfer *transfer) {
  struct null_destination *null = null_of(destination);
  struct scratch_stack *stack = stack_of(null, transfer);

  assert(transfer->slot != NULL && stack->free_count < stack->count);
  stack->free[stack->free_count++] = transfer->slot;
  transfer->slot = NULL;
  if (null->wants_room) {
    null->wants_room = false;
    destination_answers_give(&null->answers, ANSWER_ROOM);
  }
}

static void store(struct destination *destination, struct destination_transfer *transfer) {
  struct null_destination *null = null_of(destination);

  release(destination, transfer);
  destination_answers_stored(&null->answers, transfer);
}

static void finish(struct destination *destination) {
  destination_answers_give(&null_of(destination)->answers, ANSWER_FINISHED);
}

static void abort_fork(struct destination *destination) {
  struct null_destination *null = null_of(destination);

  assert(null->pieces.free_count == null->pieces.count &&
         null->slots.free_count == null->slots.count);
  destination_answers_abort(&null->answers);
}

static void destroy(struct destination *destination) {
  struct null_destination *null = null_of(destination);

  destination_answers_end(&null->answers);
  unmap_scratch(&null->pieces);
  unmap_scratch(&null->slots);
  free(null);
}

enum sprout_status destination_null_create(struct reactor *reactor, uint64_t staging_bytes,
                                           struct destination **destination_out) {
  static const struct destination_ops ops = {.prepare = prepare,
                                             .map = map,
                                             .landing = landing,
                                             .store = store,
                                             .release = release,
                                             .finish = finish,
                                             .abort = abort_fork,
                                             .destroy = destroy};
  struct null_destination *null = calloc(1, sizeof(*null));
  uint64_t slots = staging_bytes / SPROUT_CHUNK_BYTES;

  if (null == NULL) return SPROUT_NO_MEMORY;
  if (slots > NULL_SLOTS) slots = NULL_SLOTS;
  if (slots < 2) slots = 2;
  if (!map_scratch(&null->pieces, NULL_PIECES, DESTINATION_PIECE_BYTES) ||
      !map_scratch(&null->slots, (uint32_t)slots, SPROUT_CHUNK_BYTES)) {
    unmap_scratch(&null->pieces);
    free(null);
    return SPROUT_NO_MEMORY;
  }
  destination_answers_init(&null->answers, &null->base, reactor);
  null->base.ops = &ops;
  *destination_out = &null->base;
  return SPROUT_OK;
}
