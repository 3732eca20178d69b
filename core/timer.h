/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers: a bounded binary heap of caller-owned timers. Pure: the clock is an argument.
 */
#ifndef CORE_TIMER_H
#define CORE_TIMER_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Owned by the caller; zero-initialised means idle. May be freed only while idle. */
struct timer {
  uint64_t deadline_ns; /* CLOCK_MONOTONIC */
  void (*fired)(struct timer *timer);
  uint32_t heap_index; /* 1-based; 0: idle */
};

struct timer_heap {
  struct timer **entries;
  uint32_t count, capacity;
};

/* No deadline. */
#define TIMER_NEVER UINT64_MAX

SPROUT_MUST_CHECK enum sprout_status timer_heap_init(struct timer_heap *heap, uint32_t capacity);
void timer_heap_destroy(struct timer_heap *heap);
/* Starts or restarts; the heap grows when full (SPROUT_NO_MEMORY only then). */
SPROUT_MUST_CHECK enum sprout_status timer_start(struct timer_heap *heap, struct timer *timer,
                                                 uint64_t deadline_ns);
void timer_stop(struct timer_heap *heap, struct timer *timer);
static inline bool timer_running(const struct timer *timer) {
  return timer->heap_index != 0;
}
/* Earliest deadline or TIMER_NEVER. */
uint64_t timer_next(const struct timer_heap *heap);
/* Takes one due timer out (it is idle then) or returns NULL; the caller calls fired. */
struct timer *timer_expire(struct timer_heap *heap, uint64_t now_ns);
#endif
