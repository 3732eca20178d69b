/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fence: one word that tells which generation of bytes lies in memory, and whether they are
 * being changed just now; a seqlock whose readers may be devices.
 *
 * The word is 64 bits in the machine's byte order, naturally aligned, alone in a page of its own so
 * that it can be registered without its neighbours:
 *
 *   2 * generation        steady: all bytes are of this generation
 *   2 * generation + 1    changing: bytes are of it, of the next one, or torn
 *
 * It never goes back, so a value seen twice means that nothing changed in between.
 *
 * Ordering, writer: fence_begin makes the odd value visible to every coherent observer before it
 * returns, and so before any byte that the caller changes afterwards; fence_commit makes the even
 * value visible after every byte that was changed before it was called (by this thread, or by one
 * that this thread synchronised with). Both are a sequentially consistent store between full
 * barriers. A device that reads memory coherently (DMA snoops the caches, as on x86-64 and on
 * coherent AArch64 hosts) sees stores in the order in which they become visible to the other
 * processors; on AArch64 the barriers reach the outer shareable domain, in which devices are.
 * Memory that is changed by another device (a GPU) must have been synchronised by the caller before
 * fence_commit.
 *
 * Ordering, reader: the word is read, and its value has arrived, before the first read of bytes is
 * posted; and it is read again by a read that is posted after the last read of bytes completed.
 * Equal and even: all those bytes are of one generation. Reads that are in flight together have no
 * order that could be relied on: the bus may answer them in any, also when they are of one queue
 * pair. So the completion in between is what orders them, or the queue pair's own fence, by which a
 * read begins only when those before it have ended (after_all of struct verbs_read).
 *
 * Threads: begin and commit are called by one thread at a time; value by any.
 */
#ifndef CORE_FENCE_H
#define CORE_FENCE_H

#include "sprout/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FENCE_WORD_BYTES 8u

/* Zeroed: there is none, the bytes never change. */
struct fence {
  _Atomic uint64_t *word; /* page-aligned; stays where it is until fence_destroy */
};

/* Steady at `generation`. SPROUT_NO_MEMORY. */
SPROUT_MUST_CHECK enum sprout_status fence_create(struct fence *fence_out, uint64_t generation);
/* Nothing reads the word any more. A zeroed fence is harmless. */
void fence_destroy(struct fence *fence);
/* Steady before: the bytes may be changed once it has returned. */
void fence_begin(struct fence *fence);
/* Changing before: steady at the next generation. */
void fence_commit(struct fence *fence);
uint64_t fence_value(const struct fence *fence);

static inline bool fence_value_steady(uint64_t value) {
  return (value & 1u) == 0;
}

static inline uint64_t fence_value_generation(uint64_t value) {
  return value >> 1;
}
#endif
