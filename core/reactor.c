/* SPDX-License-Identifier: Apache-2.0 */
#include "core/reactor.h"

#include "core/limits.h"
#include "core/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_DEFAULT 2u

/* Deferred callbacks that defer further ones get so many rounds before I/O has its turn again. */
#define DEFER_ROUNDS 8

/*
 * Waking: whoever adds work from outside sets `woken` and, when it was clear, writes to the
 * eventfd, which a read in the ring waits for. The reactor clears `woken` before it looks at the
 * work, so that nothing is missed, and many posts cost one write.
 */
struct reactor {
  struct ring *ring;
  struct timer_heap timers;
  struct workers *workers;
  uint64_t now_ns;

  pthread_mutex_t lock; /* guards `deferred` and the `queued` of its members */
  struct list_node deferred;

  int wake_fd;
  struct ring_op wake;
  uint64_t wake_value;
  atomic_bool woken, stop;
  bool closing;

  _Atomic uint64_t ticks, completions, busy_ns, max_loop_ns;
};

static uint64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- waking ---- */

/* Async-signal-safe. */
static void wake(struct reactor *reactor) {
  if (atomic_exchange(&reactor->woken, true)) return;
  int saved_errno = errno;
  uint64_t one = 1;
  while (write(reactor->wake_fd, &one, sizeof one) < 0 && errno == EINTR) {
  }
  errno = saved_errno;
}

static void wake_from_worker(void *context) {
  wake(context);
}

static void wake_arrived(struct ring_op *op) {
  struct reactor *reactor = container_of(op, struct reactor, wake);
  if (reactor->closing) return;
  atomic_store(&reactor->woken, false);
  ring_submit(reactor->ring, op);
}

/* ---- creation ---- */

static enum sprout_status open_wake(struct reactor *reactor, struct sprout_error *error) {
  /* Blocking: the ring's read waits instead of failing with EAGAIN. */
  reactor->wake_fd = eventfd(0, EFD_CLOEXEC);
  if (reactor->wake_fd < 0)
    return sprout_error_set(error, SPROUT_LIMIT, errno, "Raise the limit: ulimit -n 65536",
                            "cannot open an eventfd");
  reactor->wake = (struct ring_op){.kind = RING_READ,
                                   .fd = reactor->wake_fd,
                                   .buffer = &reactor->wake_value,
                                   .length = sizeof reactor->wake_value,
                                   .done = wake_arrived};
  ring_submit(reactor->ring, &reactor->wake);
  return SPROUT_OK;
}

static enum sprout_status assemble(struct reactor *reactor, const struct reactor_options *options,
                                   struct sprout_error *error) {
  struct ring_options ring_options = {.entries = options->ring_entries != 0 ? options->ring_entries
                                                                            : LIMIT_RING_ENTRIES,
                                      .pooled_count = LIMIT_POOLED_BUFFERS,
                                      .pooled_bytes = LIMIT_POOLED_BUFFER_BYTES};
  uint32_t workers = options->workers != 0 ? options->workers : WORKERS_DEFAULT;
  if (workers > LIMIT_WORKERS) workers = LIMIT_WORKERS;
  if (workers_create(workers, wake_from_worker, reactor, &reactor->workers) != SPROUT_OK ||
      timer_heap_init(&reactor->timers, LIMIT_TIMERS) != SPROUT_OK)
    return sprout_error_set(error, SPROUT_NO_MEMORY, ENOMEM, NULL, "no memory for a reactor");
  enum sprout_status status = ring_create(&ring_options, &reactor->ring, error);
  return status == SPROUT_OK ? open_wake(reactor, error) : status;
}

static void dismantle(struct reactor *reactor) {
  workers_destroy(reactor->workers); /* first: its threads write to wake_fd */
  ring_destroy(reactor->ring);
  if (reactor->wake_fd >= 0) close(reactor->wake_fd);
  if (reactor->timers.entries != NULL) timer_heap_destroy(&reactor->timers);
  pthread_mutex_destroy(&reactor->lock);
  free(reactor);
}

enum sprout_status reactor_create(const struct reactor_options *options,
                                  struct reactor **reactor_out, struct sprout_error *error) {
  struct reactor *reactor = calloc(1, sizeof *reactor);
  if (reactor == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, ENOMEM, NULL, "no memory for a reactor");
  pthread_mutex_init(&reactor->lock, NULL);
  list_init(&reactor->deferred);
  reactor->wake_fd = -1;
  reactor->now_ns = clock_ns();
  enum sprout_status status = assemble(reactor, options, error);
  if (status != SPROUT_OK) {
    dismantle(reactor);
    return status;
  }
  *reactor_out = reactor;
  return SPROUT_OK;
}

void reactor_destroy(struct reactor *reactor) {
  if (reactor == NULL) return;
  assert(ring_in_flight(reactor->ring) == 1); /* the wake */
  assert(list_empty(&reactor->deferred) && workers_pending(reactor->workers) == 0);
  reactor->closing = true;
  ring_cancel(reactor->ring, &reactor->wake);
  while (ring_in_flight(reactor->ring) > 0) ring_wait(reactor->ring, UINT64_MAX);
  dismantle(reactor);
}

/* ---- a tick ---- */

static struct deferred *take_deferred(struct reactor *reactor, struct list_node *batch) {
  pthread_mutex_lock(&reactor->lock);
  struct list_node *node = list_take(batch);
  struct deferred *deferred = NULL;
  if (node != NULL) {
    deferred = container_of(node, struct deferred, node);
    deferred->queued = false;
  }
  pthread_mutex_unlock(&reactor->lock);
  return deferred;
}

/* Runs what is queued, and what that queues, in rounds. */
static void run_deferred(struct reactor *reactor) {
  for (int round = 0; round < DEFER_ROUNDS; round++) {
    struct list_node batch;
    pthread_mutex_lock(&reactor->lock);
    list_move(&batch, &reactor->deferred);
    pthread_mutex_unlock(&reactor->lock);
    if (list_empty(&batch)) return;
    struct deferred *deferred = NULL;
    while ((deferred = take_deferred(reactor, &batch)) != NULL) deferred->run(deferred);
  }
}

/* Timers that callbacks start anew wait for the next tick, however short they are. */
static void run_timers(struct reactor *reactor) {
  uint32_t most = reactor->timers.count;
  for (uint32_t i = 0; i < most; i++) {
    struct timer *timer = timer_expire(&reactor->timers, reactor->now_ns);
    if (timer == NULL) return;
    timer->fired(timer);
  }
}

static void run_finished_work(struct reactor *reactor) {
  uint32_t most = workers_pending(reactor->workers);
  for (uint32_t i = 0; i < most; i++) {
    struct work *work = workers_take(reactor->workers);
    if (work == NULL) return;
    work->done(work);
  }
}

/* How long the ring may sleep. */
static uint64_t sleep_limit(struct reactor *reactor, uint64_t timeout_ns) {
  pthread_mutex_lock(&reactor->lock);
  bool pending = !list_empty(&reactor->deferred);
  pthread_mutex_unlock(&reactor->lock);
  if (pending) return 0;
  uint64_t next_ns = timer_next(&reactor->timers);
  if (next_ns == TIMER_NEVER) return timeout_ns;
  uint64_t until_ns = next_ns > reactor->now_ns ? next_ns - reactor->now_ns : 0;
  return until_ns < timeout_ns ? until_ns : timeout_ns;
}

/* Written by one thread only; read by any. */
static void count(_Atomic uint64_t *counter, uint64_t amount) {
  uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
  atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

static void account(struct reactor *reactor, uint64_t busy_ns, uint32_t completions) {
  count(&reactor->ticks, 1);
  count(&reactor->completions, completions);
  count(&reactor->busy_ns, busy_ns);
  if (busy_ns > atomic_load_explicit(&reactor->max_loop_ns, memory_order_relaxed))
    atomic_store_explicit(&reactor->max_loop_ns, busy_ns, memory_order_relaxed);
}

/* Begins at the time that now_ns tells. Reads the clock twice: where it is no more than a
 * memory access that costs nothing, where it is a system call (virtual machines, tracing) more
 * would show. */
static void tick(struct reactor *reactor, uint64_t timeout_ns) {
  uint64_t limit_ns = sleep_limit(reactor, timeout_ns);
  uint64_t start_ns = reactor->now_ns;
  ring_reap(reactor->ring, limit_ns);
  reactor->now_ns = clock_ns();
  if (limit_ns > 0) start_ns = reactor->now_ns; /* what came before was sleep */
  uint32_t completions = ring_deliver(reactor->ring);
  run_finished_work(reactor);
  run_timers(reactor);
  run_deferred(reactor);
  reactor->now_ns = clock_ns();
  account(reactor, reactor->now_ns - start_ns, completions);
}

void reactor_tick(struct reactor *reactor, uint64_t timeout_ns) {
  reactor_refresh(reactor);
  tick(reactor, timeout_ns);
}

void reactor_run(struct reactor *reactor) {
  reactor_refresh(reactor);
  while (!atomic_exchange(&reactor->stop, false)) tick(reactor, UINT64_MAX);
  reactor_leave(reactor);
}

void reactor_leave(struct reactor *reactor) {
  reactor_refresh(reactor);
  ring_detach(reactor->ring);
}

void reactor_stop(struct reactor *reactor) {
  atomic_store(&reactor->stop, true);
  wake(reactor);
}

/* ---- what callers ask for ---- */

uint64_t reactor_now(const struct reactor *reactor) {
  return reactor->now_ns;
}

void reactor_refresh(struct reactor *reactor) {
  reactor->now_ns = clock_ns();
}

struct ring *reactor_ring(struct reactor *reactor) {
  return reactor->ring;
}

void reactor_stats_get(const struct reactor *reactor, struct reactor_stats *stats_out) {
  *stats_out = (struct reactor_stats){
      .ticks = atomic_load_explicit(&reactor->ticks, memory_order_relaxed),
      .completions = atomic_load_explicit(&reactor->completions, memory_order_relaxed),
      .busy_ns = atomic_load_explicit(&reactor->busy_ns, memory_order_relaxed),
      .max_loop_ns = atomic_load_explicit(&reactor->max_loop_ns, memory_order_relaxed)};
}

void reactor_submit(struct reactor *reactor, struct ring_op *op) {
  ring_submit(reactor->ring, op);
}

void reactor_cancel(struct reactor *reactor, struct ring_op *op) {
  ring_cancel(reactor->ring, op);
}

void reactor_timer_start(struct reactor *reactor, struct timer *timer, uint64_t deadline_ns) {
  assert(timer_running(timer) || reactor->timers.count < LIMIT_TIMERS);
  enum sprout_status status = timer_start(&reactor->timers, timer, deadline_ns);
  assert(status == SPROUT_OK); /* room for LIMIT_TIMERS was made at the start */
  (void)status;
}

void reactor_timer_stop(struct reactor *reactor, struct timer *timer) {
  timer_stop(&reactor->timers, timer);
}

void reactor_defer(struct reactor *reactor, struct deferred *deferred) {
  pthread_mutex_lock(&reactor->lock);
  if (!deferred->queued) {
    deferred->queued = true;
    list_append(&reactor->deferred, &deferred->node);
  }
  pthread_mutex_unlock(&reactor->lock);
}

void reactor_defer_cancel(struct reactor *reactor, struct deferred *deferred) {
  pthread_mutex_lock(&reactor->lock);
  if (deferred->queued) {
    deferred->queued = false;
    list_remove(&deferred->node);
  }
  pthread_mutex_unlock(&reactor->lock);
}

void reactor_post(struct reactor *reactor, struct deferred *deferred) {
  reactor_defer(reactor, deferred);
  wake(reactor);
}

void reactor_work(struct reactor *reactor, struct work *work) {
  workers_submit(reactor->workers, work);
}
