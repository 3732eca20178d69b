/* SPDX-License-Identifier: Apache-2.0 */
#include "core/timer.h"

#include <assert.h>
#include <stdlib.h>

/* entries[0] is unused: the children of i are 2i and 2i + 1. */

static void place(struct timer_heap *heap, uint32_t index, struct timer *timer) {
  heap->entries[index] = timer;
  timer->heap_index = index;
}

static void sift_up(struct timer_heap *heap, uint32_t index, struct timer *timer) {
  while (index > 1 && heap->entries[index / 2]->deadline_ns > timer->deadline_ns) {
    place(heap, index, heap->entries[index / 2]);
    index /= 2;
  }
  place(heap, index, timer);
}

static void sift_down(struct timer_heap *heap, uint32_t index, struct timer *timer) {
  for (;;) {
    uint32_t child = 2 * index;
    if (child > heap->count) break;
    if (child < heap->count &&
        heap->entries[child + 1]->deadline_ns < heap->entries[child]->deadline_ns)
      child++;
    if (heap->entries[child]->deadline_ns >= timer->deadline_ns) break;
    place(heap, index, heap->entries[child]);
    index = child;
  }
  place(heap, index, timer);
}

static void settle(struct timer_heap *heap, uint32_t index, struct timer *timer) {
  if (index > 1 && heap->entries[index / 2]->deadline_ns > timer->deadline_ns)
    sift_up(heap, index, timer);
  else
    sift_down(heap, index, timer);
}

enum sprout_status timer_heap_init(struct timer_heap *heap, uint32_t capacity) {
  *heap = (struct timer_heap){.capacity = capacity > 0 ? capacity : 1};
  heap->entries = calloc((size_t)heap->capacity + 1, sizeof(struct timer *));
  return heap->entries != NULL ? SPROUT_OK : SPROUT_NO_MEMORY;
}

void timer_heap_destroy(struct timer_heap *heap) {
  assert(heap->count == 0);
  free(heap->entries);
  *heap = (struct timer_heap){0};
}

static enum sprout_status grow(struct timer_heap *heap) {
  uint32_t capacity = 0;
  if (__builtin_mul_overflow(heap->capacity, 2u, &capacity)) return SPROUT_NO_MEMORY;
  struct timer **entries = realloc(heap->entries, ((size_t)capacity + 1) * sizeof(struct timer *));
  if (entries == NULL) return SPROUT_NO_MEMORY;
  heap->entries = entries;
  heap->capacity = capacity;
  return SPROUT_OK;
}

enum sprout_status timer_start(struct timer_heap *heap, struct timer *timer, uint64_t deadline_ns) {
  if (timer->heap_index != 0) {
    timer->deadline_ns = deadline_ns;
    settle(heap, timer->heap_index, timer);
    return SPROUT_OK;
  }
  if (heap->count == heap->capacity) {
    enum sprout_status status = grow(heap);
    if (status != SPROUT_OK) return status;
  }
  timer->deadline_ns = deadline_ns;
  sift_up(heap, ++heap->count, timer);
  return SPROUT_OK;
}

void timer_stop(struct timer_heap *heap, struct timer *timer) {
  uint32_t index = timer->heap_index;
  if (index == 0) return;
  assert(index <= heap->count && heap->entries[index] == timer);
  struct timer *last = heap->entries[heap->count--];
  timer->heap_index = 0;
  if (last != timer) settle(heap, index, last);
}

uint64_t timer_next(const struct timer_heap *heap) {
  return heap->count > 0 ? heap->entries[1]->deadline_ns : TIMER_NEVER;
}

struct timer *timer_expire(struct timer_heap *heap, uint64_t now_ns) {
  if (heap->count == 0 || heap->entries[1]->deadline_ns > now_ns) return NULL;
  struct timer *timer = heap->entries[1];
  if (timer->deadline_ns == TIMER_NEVER) return NULL;
  timer_stop(heap, timer);
  return timer;
}
