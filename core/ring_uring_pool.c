/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ring_uring.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>

/* The kernel wants the descriptors page-aligned; the newest ones may hand out 2^15 at most. */
#define POOL_COUNT_MAX 32768u

static size_t descriptors_bytes(const struct ring_pool *pool) {
  return pool->count * sizeof(struct io_uring_buf);
}

static void *map(size_t length_bytes) {
  void *memory =
      mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

/* Makes the buffer visible to the kernel. */
static void publish(struct ring_pool *pool, uint16_t index) {
  io_uring_buf_ring_add(pool->descriptors, pool->memory + (size_t)index * pool->bytes, pool->bytes,
                        index, io_uring_buf_ring_mask(pool->count), 0);
  io_uring_buf_ring_advance(pool->descriptors, 1);
}

static enum sprout_status allocate(struct ring_pool *pool, const struct ring_options *options) {
  pool->count = options->pooled_count;
  pool->bytes = options->pooled_bytes;
  pool->descriptors = map(descriptors_bytes(pool));
  pool->memory = map((size_t)pool->count * pool->bytes);
  pool->is_out = calloc(pool->count, sizeof *pool->is_out);
  if (pool->descriptors == NULL || pool->memory == NULL || pool->is_out == NULL)
    return SPROUT_NO_MEMORY;
  return SPROUT_OK;
}

enum sprout_status ring_pool_init(struct ring_pool *pool, struct io_uring *uring,
                                  const struct ring_options *options, struct sprout_error *error) {
  *pool = (struct ring_pool){0};
  if (options->pooled_count == 0) return SPROUT_OK;
  assert(options->pooled_count <= POOL_COUNT_MAX && options->pooled_bytes > 0);
  assert((options->pooled_count & (options->pooled_count - 1)) == 0);
  if (allocate(pool, options) != SPROUT_OK) {
    ring_pool_destroy(pool);
    return sprout_error_set(error, SPROUT_NO_MEMORY, ENOMEM, NULL,
                            "no memory for %u receive buffers of %u bytes", options->pooled_count,
                            options->pooled_bytes);
  }
  struct io_uring_buf_reg registration = {.ring_addr = (uint64_t)(uintptr_t)pool->descriptors,
                                          .ring_entries = pool->count,
                                          .bgid = RING_POOL_GROUP};
  int result = io_uring_register_buf_ring(uring, &registration, 0);
  if (result < 0) {
    ring_pool_destroy(pool);
    return sprout_error_set(error, SPROUT_UNSUPPORTED, -result,
                            "Linux 6.1 or newer is needed; check the locked-memory limit too "
                            "(ulimit -l).",
                            "the kernel took no ring of receive buffers");
  }
  io_uring_buf_ring_init(pool->descriptors);
  for (uint32_t i = 0; i < pool->count; i++) publish(pool, (uint16_t)i);
  return SPROUT_OK;
}

void ring_pool_destroy(struct ring_pool *pool) {
  if (pool->descriptors != NULL) munmap(pool->descriptors, descriptors_bytes(pool));
  if (pool->memory != NULL) munmap(pool->memory, (size_t)pool->count * pool->bytes);
  free(pool->is_out);
  *pool = (struct ring_pool){0};
}

void *ring_pool_take(struct ring_pool *pool, uint16_t index) {
  assert(index < pool->count && !pool->is_out[index]);
  pool->is_out[index] = true;
  pool->out++;
  return pool->memory + (size_t)index * pool->bytes;
}

void ring_pool_give(struct ring_pool *pool, uint16_t index) {
  assert(index < pool->count && pool->is_out[index]);
  pool->is_out[index] = false;
  pool->out--;
  publish(pool, index);
}
