/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fence.h"

#include <assert.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static_assert(sizeof(_Atomic uint64_t) == FENCE_WORD_BYTES, "a device reads exactly these bytes");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "the word is plain memory, not guarded by a lock");

/* C11 orders processors among each other; devices may stand outside of their domain. (GCC's thread
 * sanitizer knows no fences; it sees the sequentially consistent store beside them.) */
static void full_barrier(void) {
#if defined(__aarch64__)
  __asm__ volatile("dmb osh" ::: "memory");
#elif !defined(__SANITIZE_THREAD__)
  atomic_thread_fence(memory_order_seq_cst);
#endif
}

static size_t page_bytes(void) {
  return (size_t)sysconf(_SC_PAGESIZE);
}

enum sprout_status fence_create(struct fence *fence_out, uint64_t generation) {
  void *page = mmap(NULL, page_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return SPROUT_NO_MEMORY;
  fence_out->word = page;
  atomic_init(fence_out->word, 2 * generation);
  return SPROUT_OK;
}

void fence_destroy(struct fence *fence) {
  if (fence->word == NULL) return;
  (void)munmap((void *)fence->word, page_bytes());
  fence->word = NULL;
}

/* One writer: the value cannot have changed between load and store. */
static void step(struct fence *fence, bool was_steady) {
  uint64_t value = atomic_load_explicit(fence->word, memory_order_relaxed);
  assert(fence_value_steady(value) == was_steady);
  full_barrier();
  atomic_store_explicit(fence->word, value + 1, memory_order_seq_cst);
  full_barrier();
}

void fence_begin(struct fence *fence) {
  step(fence, true);
}

void fence_commit(struct fence *fence) {
  step(fence, false);
}

uint64_t fence_value(const struct fence *fence) {
  return atomic_load_explicit(fence->word, memory_order_seq_cst);
}
