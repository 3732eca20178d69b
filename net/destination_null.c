/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The null destination: bytes are read, verified and dropped.
 *
 * Each transfer owns one scratch piece of DESTINATION_PIECE_BYTES, and every entry of its iov is
 * that piece: the bytes stay in the cache and cost no memory traffic. The pieces are mapped once
 * and handed out last-in first-out, so that few of them are ever touched.
 */
#include "net/destination_answers.h"
#include "net/sources.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define NULL_PIECES 64u

struct null_destination {
  struct destination base;
  struct destination_answers answers;
  unsigned char *pieces;
  unsigned char *free_pieces[NULL_PIECES];
  uint32_t free_count;
  bool wants_room;
};

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
  uint64_t left = transfer->length_bytes;

  assert(left <= (uint64_t)DESTINATION_IOV_MAX * DESTINATION_PIECE_BYTES);
  if (null->free_count == 0) {
    null->wants_room = true;
    return false;
  }
  transfer->slot = null->free_pieces[--null->free_count];
  transfer->iov_count = 0;
  while (left > 0) {
    size_t piece = left < DESTINATION_PIECE_BYTES ? (size_t)left : DESTINATION_PIECE_BYTES;
    transfer->iov[transfer->iov_count++] =
        (struct iovec){.iov_base = transfer->slot, .iov_len = piece};
    left -= piece;
  }
  return true;
}

static void release(struct destination *destination, struct destination_transfer *transfer) {
  struct null_destination *null = null_of(destination);

  assert(transfer->slot != NULL && null->free_count < NULL_PIECES);
  null->free_pieces[null->free_count++] = transfer->slot;
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

  assert(null->free_count == NULL_PIECES);
  destination_answers_abort(&null->answers);
}

static void destroy(struct destination *destination) {
  struct null_destination *null = null_of(destination);

  destination_answers_end(&null->answers);
  munmap(null->pieces, (size_t)NULL_PIECES * DESTINATION_PIECE_BYTES);
  free(null);
}

enum sprout_status destination_null_create(struct reactor *reactor,
                                           struct destination **destination_out) {
  static const struct destination_ops ops = {.prepare = prepare,
                                             .map = map,
                                             .store = store,
                                             .release = release,
                                             .finish = finish,
                                             .abort = abort_fork,
                                             .destroy = destroy};
  struct null_destination *null = calloc(1, sizeof(*null));

  if (null == NULL) return SPROUT_NO_MEMORY;
  null->pieces = mmap(NULL, (size_t)NULL_PIECES * DESTINATION_PIECE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (null->pieces == MAP_FAILED) {
    free(null);
    return SPROUT_NO_MEMORY;
  }
  /* Fewer page-table entries in the receive path; refused where it is switched off. */
  (void)madvise(null->pieces, (size_t)NULL_PIECES * DESTINATION_PIECE_BYTES, MADV_HUGEPAGE);
  for (uint32_t i = 0; i < NULL_PIECES; i++)
    null->free_pieces[i] = null->pieces + (size_t)(NULL_PIECES - 1 - i) * DESTINATION_PIECE_BYTES;
  null->free_count = NULL_PIECES;
  destination_answers_init(&null->answers, &null->base, reactor);
  null->base.ops = &ops;
  null->base.aliased = true;
  *destination_out = &null->base;
  return SPROUT_OK;
}
