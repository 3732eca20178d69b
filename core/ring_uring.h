/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the io_uring back-end: what its files share. Reactor's thread only.
 *
 * ring_uring.c owns the ring and the life of operations, ring_uring_prepare.c turns an operation
 * into a submission entry, ring_uring_pool.c owns the shared receive buffers, ring_fault.c bends
 * results in test builds.
 */
#ifndef CORE_RING_URING_H
#define CORE_RING_URING_H

#include "core/ring.h"

struct io_uring;
struct io_uring_buf_ring;
struct io_uring_sqe;

/*
 * Shared receive buffers: a ring of descriptors the kernel takes from, and the memory behind them.
 * A buffer is with the kernel, or out (from the reaping of its completion until it is returned).
 */
struct ring_pool {
  struct io_uring_buf_ring *descriptors; /* mapped; NULL without a pool */
  uint8_t *memory;                       /* mapped: count * bytes */
  uint32_t count, bytes;
  uint32_t out; /* buffers not with the kernel */
  bool *is_out; /* per buffer, to catch a double return */
};

#define RING_POOL_GROUP 0

/* Maps the memory and registers it. count 0: an empty pool. */
SPROUT_MUST_CHECK enum sprout_status ring_pool_init(struct ring_pool *pool, struct io_uring *uring,
                                                    const struct ring_options *options,
                                                    struct sprout_error *error);
/* After the io_uring is gone. */
void ring_pool_destroy(struct ring_pool *pool);
/* The kernel filled buffer `index`. */
void *ring_pool_take(struct ring_pool *pool, uint16_t index);
void ring_pool_give(struct ring_pool *pool, uint16_t index);

/* Fills sqe from op; user_data is the caller's. `short_bytes`: transfer at most so many, 0: all. */
void ring_prepare(struct ring_op *op, struct io_uring_sqe *sqe, uint64_t short_bytes);

#ifdef SPROUT_FAULTS
struct ring_fault {
  ring_fault_hook hook;
  void *context;
  uint64_t number;      /* completions so far */
  uint64_t fail_at;     /* from the environment; UINT64_MAX: none */
  int32_t fail_with;    /* likewise */
  uint64_t short_bytes; /* likewise; 0: whole transfers */
};

/* `text` is the value of SPROUT_FAULT_RING or NULL: "N:-ERRNO", "SHORT:N", or both with a comma. */
SPROUT_MUST_CHECK enum sprout_status ring_fault_init(struct ring_fault *fault, const char *text,
                                                     struct sprout_error *error);
/* The result to deliver; a descriptor that a failed accept hides is closed. */
int32_t ring_fault_apply(struct ring_fault *fault, const struct ring_op *op, int32_t result);
#endif
#endif
