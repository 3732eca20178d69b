/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reactor: the one thread that does all I/O. It owns the ring, timers, deferred callbacks and
 * the worker pool.
 *
 * A tick: submit and wait in the ring, reap all, run completions, then due timers, then deferred
 * callbacks until none is left. Callbacks never nest: a callback may start anything, but what it
 * starts calls back from a later step. With nothing to do the thread sleeps in the kernel.
 */
#ifndef CORE_REACTOR_H
#define CORE_REACTOR_H

#include "core/list.h"
#include "core/ring.h"
#include "core/timer.h"
#include "sprout/status.h"

#include <stdint.h>

struct reactor;

/* A callback to run later on the reactor's thread; caller-owned, may be queued once at a time. */
struct deferred {
  void (*run)(struct deferred *deferred);
  struct list_node node;
  bool queued;
};

/* A blocking call for the worker pool; caller-owned until done. `run` on a worker thread (with all
 * signals blocked), `done` on the reactor's. */
struct work {
  void (*run)(struct work *work);
  void (*done)(struct work *work);
  struct list_node node;
  bool queued;
};

struct reactor_options {
  uint32_t workers;      /* threads, started when first needed; 0: 2 */
  uint32_t ring_entries; /* 0: LIMIT default */
};

struct reactor_stats {
  uint64_t ticks;
  uint64_t completions;
  uint64_t busy_ns;     /* time not spent waiting */
  uint64_t max_loop_ns; /* the busy part of the longest tick */
};

SPROUT_MUST_CHECK enum sprout_status reactor_create(const struct reactor_options *options,
                                                    struct reactor **reactor_out,
                                                    struct sprout_error *error);
/* Not while running; no operation, timer or work may be pending. */
void reactor_destroy(struct reactor *reactor);

/* Runs on the calling thread until reactor_stop. May be called again afterwards, on any thread. */
void reactor_run(struct reactor *reactor);
/*
 * One tick that waits at most timeout_ns; for tests and for draining during destruction. Ticks bind
 * the reactor to their thread until reactor_leave (reactor_run leaves by itself).
 */
void reactor_tick(struct reactor *reactor, uint64_t timeout_ns);
/* Called by the thread that ticked, before another one ticks or runs. See ring_detach. */
void reactor_leave(struct reactor *reactor);
/* Any thread; async-signal-safe. A stop that comes while nobody runs ends the next run at once. */
void reactor_stop(struct reactor *reactor);

/* CLOCK_MONOTONIC as of the last wake-up: what callbacks of one tick do takes no time. */
uint64_t reactor_now(const struct reactor *reactor);
/* Reads the clock for reactor_now: for who uses the reactor while it does not tick. */
void reactor_refresh(struct reactor *reactor);
struct ring *reactor_ring(struct reactor *reactor);
void reactor_stats_get(const struct reactor *reactor, struct reactor_stats *stats_out);

void reactor_submit(struct reactor *reactor, struct ring_op *op);
void reactor_cancel(struct reactor *reactor, struct ring_op *op);

/* Never fails for timers within LIMIT_TIMERS; beyond that an assertion fails (a bug). */
void reactor_timer_start(struct reactor *reactor, struct timer *timer, uint64_t deadline_ns);
void reactor_timer_stop(struct reactor *reactor, struct timer *timer);

/*
 * Runs `deferred` after the current callback, in this tick. Reactor's thread. Queued already:
 * harmless. What is deferred by deferred callbacks runs in the same tick as well, up to a bound
 * that lets I/O have its turn.
 */
void reactor_defer(struct reactor *reactor, struct deferred *deferred);
/* Any thread, but only on the reactor's it is certain that `deferred` does not run just now. */
void reactor_defer_cancel(struct reactor *reactor, struct deferred *deferred);
/* The same as reactor_defer from any thread: wakes the reactor. */
void reactor_post(struct reactor *reactor, struct deferred *deferred);

/*
 * Hands a blocking call to the pool. It cannot be cancelled; wait for done. On a machine that gives
 * us no thread at all it runs on the reactor's.
 */
void reactor_work(struct reactor *reactor, struct work *work);
#endif
