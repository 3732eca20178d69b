/* SPDX-License-Identifier: Apache-2.0 */
#include "core/limits.h"
#include "core/reactor.h"
#include "core/workers.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct reactor *create(uint32_t workers) {
  struct reactor_options options = {.workers = workers};
  struct reactor *reactor = NULL;
  struct sprout_error error;
  assert_int_equal(reactor_create(&options, &reactor, &error), SPROUT_OK);
  return reactor;
}

/* What happened, in order, as letters. */
static char diary[256];

static void note(char letter) {
  size_t length = strlen(diary);
  if (length + 1 < sizeof diary) {
    diary[length] = letter;
    diary[length + 1] = '\0';
  }
}

/* ---- creation ---- */

static enum sprout_status try_create(struct sprout_error *error) {
  struct reactor_options options = {0};
  struct reactor *reactor = NULL;
  enum sprout_status status = reactor_create(&options, &reactor, error);
  if (status == SPROUT_OK)
    reactor_destroy(reactor);
  else
    assert_null(reactor);
  return status;
}

/* Every descriptor that is missing is reported, and nothing leaks. */
static void test_create_without_descriptors(void **state) {
  (void)state;
  struct rlimit before;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  int next = dup(STDERR_FILENO);
  close(next);
  enum sprout_status status = SPROUT_LIMIT;
  for (rlim_t room = 0; status != SPROUT_OK; room++) {
    assert_true(room < 10);
    struct rlimit low = {.rlim_cur = (rlim_t)next + room, .rlim_max = before.rlim_max};
    struct sprout_error error;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    status = try_create(&error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(status == SPROUT_OK || status == SPROUT_LIMIT);
    if (status == SPROUT_LIMIT) assert_non_null(strstr(error.hint, "ulimit -n"));
  }
  int still = dup(STDERR_FILENO);
  assert_int_equal(still, next);
  close(still);
}

#if !defined(__SANITIZE_ADDRESS__) &&                                                              \
    !defined(__SANITIZE_THREAD__) /* they need memory themselves */
#define MEMORY_CAN_RUN_OUT

static int allocations_left = -1; /* then they fail; -1: never */

void *__libc_calloc(size_t count, size_t size);

void *calloc(size_t count, size_t size) {
  if (allocations_left == 0) return NULL;
  if (allocations_left > 0) allocations_left--;
  return __libc_calloc(count, size);
}

static void test_create_without_memory(void **state) {
  (void)state;
  int tries = 0;
  for (enum sprout_status status = SPROUT_NO_MEMORY; status != SPROUT_OK; tries++) {
    struct sprout_error error;
    allocations_left = tries;
    status = try_create(&error);
    allocations_left = -1;
    assert_true(status == SPROUT_OK || status == SPROUT_NO_MEMORY);
  }
  assert_true(tries > 5);
}

#endif

/* ---- order and rounds ---- */

struct entry {
  struct ring_op op;
  struct timer timer;
  struct deferred deferred;
  struct work work;
  struct reactor *reactor;
  struct entry *next; /* deferred by the deferred callback */
  int left;           /* so often */
};

static void op_done(struct ring_op *op) {
  struct entry *entry = container_of(op, struct entry, op);
  note('o');
  reactor_defer(entry->reactor, &entry->deferred);
  reactor_timer_start(entry->reactor, &entry->timer, 0);
}

static void timer_fired(struct timer *timer) {
  (void)timer;
  note('t');
}

static void deferred_run(struct deferred *deferred) {
  struct entry *entry = container_of(deferred, struct entry, deferred);
  note('d');
  if (entry->left-- > 0) reactor_defer(entry->reactor, deferred);
}

static struct entry make_entry(struct reactor *reactor) {
  return (struct entry){.op = {.kind = RING_NOP, .done = op_done},
                        .timer = {.fired = timer_fired},
                        .deferred = {.run = deferred_run},
                        .reactor = reactor};
}

/* Completions, then timers, then deferred callbacks and what they defer. */
static void test_order(void **state) {
  (void)state;
  struct reactor *reactor = create(0);
  struct entry entry = make_entry(reactor);
  entry.left = 3;
  diary[0] = '\0';
  reactor_submit(reactor, &entry.op);
  reactor_tick(reactor, UINT64_MAX);
  assert_string_equal(diary, "otdddd");
  reactor_tick(reactor, 0);
  assert_string_equal(diary, "otdddd");
  reactor_destroy(reactor);
  reactor_destroy(NULL);
}

/* A callback that defers itself for ever leaves I/O its turn, and nobody sleeps meanwhile. */
static void test_no_starvation(void **state) {
  (void)state;
  struct reactor *reactor = create(0);
  struct entry entry = make_entry(reactor);
  entry.left = 1000;
  diary[0] = '\0';
  reactor_defer(reactor, &entry.deferred);
  reactor_defer(reactor, &entry.deferred); /* queued already: harmless */
  reactor_tick(reactor, UINT64_MAX);
  assert_true(entry.left > 900);
  struct entry other = make_entry(reactor);
  reactor_submit(reactor, &other.op);
  reactor_tick(reactor, UINT64_MAX);
  assert_non_null(strchr(diary, 'o'));
  reactor_defer_cancel(reactor, &entry.deferred);
  reactor_defer_cancel(reactor, &entry.deferred);
  int left = entry.left;
  reactor_tick(reactor, 0);
  assert_int_equal(entry.left, left);
  reactor_destroy(reactor);
}

struct canceller {
  struct deferred deferred;
  struct reactor *reactor;
  struct deferred *victim;
};

static void cancel_victim(struct deferred *deferred) {
  struct canceller *canceller = container_of(deferred, struct canceller, deferred);
  reactor_defer_cancel(canceller->reactor, canceller->victim);
}

static void test_cancel_in_the_same_round(void **state) {
  (void)state;
  struct reactor *reactor = create(0);
  struct entry entry = make_entry(reactor);
  struct canceller canceller = {
      .deferred = {.run = cancel_victim}, .reactor = reactor, .victim = &entry.deferred};
  diary[0] = '\0';
  reactor_defer(reactor, &canceller.deferred);
  reactor_defer(reactor, &entry.deferred);
  reactor_tick(reactor, 0);
  assert_string_equal(diary, "");
  reactor_destroy(reactor);
}

/* ---- timers ---- */

struct again {
  struct timer timer;
  struct reactor *reactor;
  int fired;
  uint64_t at_ns;
};

static void fire_again(struct timer *timer) {
  struct again *again = container_of(timer, struct again, timer);
  again->fired++;
  again->at_ns = reactor_now(again->reactor);
  if (again->fired < 3) reactor_timer_start(again->reactor, timer, again->at_ns);
}

static void test_timers(void **state) {
  (void)state;
  struct reactor *reactor = create(0);
  struct again again = {.timer = {.fired = fire_again}, .reactor = reactor};
  uint64_t deadline_ns = reactor_now(reactor) + 2000000;
  reactor_timer_start(reactor, &again.timer, deadline_ns);
  while (again.fired == 0) reactor_tick(reactor, UINT64_MAX);
  assert_true(again.at_ns >= deadline_ns);
  assert_int_equal(again.fired, 1); /* the next one, though due, is of a later tick */
  reactor_tick(reactor, UINT64_MAX);
  assert_int_equal(again.fired, 2);
  reactor_timer_stop(reactor, &again.timer);
  reactor_tick(reactor, 0);
  assert_int_equal(again.fired, 2);
  reactor_destroy(reactor);
}

static void test_all_timers(void **state) {
  (void)state;
  struct reactor *reactor = create(0);
  struct timer *timers = calloc(LIMIT_TIMERS, sizeof *timers);
  assert_non_null(timers);
  for (int i = 0; i < LIMIT_TIMERS; i++) {
    timers[i].fired = timer_fired;
    reactor_timer_start(reactor, &timers[i], TIMER_NEVER - (uint64_t)i);
  }
  reactor_timer_start(reactor, &timers[5], 1); /* a running one needs no room */
  reactor_tick(reactor, UINT64_MAX);
  assert_false(timer_running(&timers[5]));
  for (int i = 0; i < LIMIT_TIMERS; i++) reactor_timer_stop(reactor, &timers[i]);
  free(timers);
  reactor_destroy(reactor);
}

/* ---- threads ---- */

static void *run_reactor(void *argument) {
  reactor_run(argument);
  return NULL;
}

static pthread_t start(struct reactor *reactor) {
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, run_reactor, reactor), 0);
  return thread;
}

#define POSTERS 4
#define POSTS 25000

struct posted {
  struct deferred deferred;
  int runs;
};

static atomic_int posts_run;

static void count_post(struct deferred *deferred) {
  container_of(deferred, struct posted, deferred)->runs++;
  atomic_fetch_add(&posts_run, 1);
}

struct posting {
  struct reactor *reactor;
  struct posted *all;
};

static void *post_all(void *argument) {
  struct posting *posting = argument;
  for (int i = 0; i < POSTS; i++) {
    reactor_post(posting->reactor, &posting->all[i].deferred);
    if (i % 7 == 0) reactor_post(posting->reactor, &posting->all[i].deferred);
  }
  return NULL;
}

static void stop_reactor(struct deferred *deferred) {
  struct canceller *canceller = container_of(deferred, struct canceller, deferred);
  reactor_stop(canceller->reactor);
}

static void test_posts(void **state) {
  (void)state;
  struct reactor *reactor = create(0);
  pthread_t loop = start(reactor), threads[POSTERS];
  struct posting postings[POSTERS];
  for (int i = 0; i < POSTERS; i++) {
    postings[i] = (struct posting){reactor, calloc(POSTS, sizeof(struct posted))};
    assert_non_null(postings[i].all);
    for (int k = 0; k < POSTS; k++) postings[i].all[k].deferred.run = count_post;
    assert_int_equal(pthread_create(&threads[i], NULL, post_all, &postings[i]), 0);
  }
  for (int i = 0; i < POSTERS; i++) pthread_join(threads[i], NULL);
  struct canceller last = {.deferred = {.run = stop_reactor}, .reactor = reactor};
  reactor_post(reactor, &last.deferred);
  pthread_join(loop, NULL);
  for (int i = 0; i < POSTERS; i++) {
    for (int k = 0; k < POSTS; k++) {
      int runs = postings[i].all[k].runs;
      assert_true(runs == 1 || (runs == 2 && k % 7 == 0));
    }
    free(postings[i].all);
  }
  assert_true(atomic_load(&posts_run) >= POSTERS * POSTS);
  reactor_destroy(reactor);
}

/* With nothing to do the loop does not turn, and uses no CPU. */
static void test_idle(void **state) {
  (void)state;
  struct reactor *reactor = create(0);
  struct entry entry = make_entry(reactor);
  int fds[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  char byte;
  entry.op = (struct ring_op){
      .kind = RING_RECV, .fd = fds[0], .buffer = &byte, .length = 1, .done = op_done};
  reactor_submit(reactor, &entry.op);
  reactor_timer_start(reactor, &entry.timer, reactor_now(reactor) + 3600000000000u);
  pthread_t loop = start(reactor);
  struct canceller first = {
      .deferred = {.run = cancel_victim}, .reactor = reactor, .victim = &entry.deferred};
  reactor_post(reactor, &first.deferred); /* at least one tick */
  clockid_t clock;
  assert_int_equal(pthread_getcpuclockid(loop, &clock), 0);

  /* On a busy machine the loop may take a while to fall asleep; one that polls never does. */
  int nothing = eventfd(0, EFD_CLOEXEC);
  struct pollfd waiting = {.fd = nothing, .events = POLLIN};
  struct reactor_stats before = {0}, after = {0};
  struct timespec cpu_before = {0}, cpu_after = {0};
  bool idle = false;
  for (int i = 0; i < 50 && !idle; i++) {
    reactor_stats_get(reactor, &before);
    clock_gettime(clock, &cpu_before);
    assert_int_equal(poll(&waiting, 1, 100), 0);
    reactor_stats_get(reactor, &after);
    clock_gettime(clock, &cpu_after);
    idle = after.ticks > 0 && before.ticks == after.ticks && before.busy_ns == after.busy_ns &&
           cpu_before.tv_sec == cpu_after.tv_sec && cpu_before.tv_nsec == cpu_after.tv_nsec;
  }
  assert_true(idle);

  assert_int_equal(write(fds[1], "x", 1), 1);
  struct canceller last = {.deferred = {.run = stop_reactor}, .reactor = reactor};
  reactor_post(reactor, &last.deferred);
  pthread_join(loop, NULL);
  if (entry.op.in_flight) reactor_tick(reactor, UINT64_MAX);
  reactor_timer_stop(reactor, &entry.timer);
  reactor_defer_cancel(reactor, &entry.deferred);
  reactor_stats_get(reactor, &after);
  assert_true(after.ticks > before.ticks && after.completions > before.completions);
  assert_true(after.busy_ns > before.busy_ns && after.max_loop_ns > 0);
  close(nothing);
  close(fds[0]);
  close(fds[1]);
  reactor_destroy(reactor);
}

#ifndef __SANITIZE_THREAD__ /* which keeps signals back, also while the loop sleeps in the ring */
#define SIGNALS_ARRIVE

static struct reactor *stopped_by_signal;

static void on_signal(int number) {
  (void)number;
  reactor_stop(stopped_by_signal);
}

static void test_stop_from_a_signal(void **state) {
  (void)state;
  struct reactor *reactor = stopped_by_signal = create(0);
  struct sigaction action = {.sa_handler = on_signal}, before;
  sigaction(SIGUSR1, &action, &before);
  for (int i = 0; i < 200; i++) {
    pthread_t loop = start(reactor);
    pthread_kill(loop, SIGUSR1);
    pthread_join(loop, NULL);
  }
  sigaction(SIGUSR1, &before, NULL);
  reactor_destroy(reactor);
}

#endif

/* ---- the worker pool ---- */

#define JOBS 1000

struct job {
  struct work work;
  struct reactor *reactor;
  pthread_t thread;
  int ran, done;
  int *left; /* the reactor stops at 0 */
};

static void run_job(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  sigset_t mask;
  pthread_sigmask(SIG_BLOCK, NULL, &mask);
  job->thread = pthread_self();
  job->ran += sigismember(&mask, SIGTERM) == 1 ? 1 : 100;
}

static void job_done(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  assert_false(work->queued);
  job->done++;
  if (--*job->left == 0) reactor_stop(job->reactor);
}

static void run_jobs(uint32_t workers) {
  struct reactor *reactor = create(workers);
  struct job *jobs = calloc(JOBS, sizeof *jobs);
  assert_non_null(jobs);
  int left = JOBS;
  for (int i = 0; i < JOBS; i++) {
    jobs[i] =
        (struct job){.work = {.run = run_job, .done = job_done}, .reactor = reactor, .left = &left};
    reactor_work(reactor, &jobs[i].work);
  }
  reactor_run(reactor);
  for (int i = 0; i < JOBS; i++) {
    assert_int_equal(jobs[i].ran, 1);
    assert_int_equal(jobs[i].done, 1);
    assert_false(pthread_equal(jobs[i].thread, pthread_self()));
  }
  free(jobs);
  reactor_destroy(reactor);
}

static void test_workers(void **state) {
  (void)state;
  static const uint32_t counts[] = {0, 1, 2, 16, 1000};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) run_jobs(counts[i]);
}

/* Two jobs that need each other: both run at once, the pool does not wait to grow. */
struct meeting {
  pthread_barrier_t barrier;
  struct job jobs[2];
};

static struct meeting meeting;

static void meet(struct work *work) {
  container_of(work, struct job, work)->ran++;
  pthread_barrier_wait(&meeting.barrier);
}

static void test_workers_run_at_once(void **state) {
  (void)state;
  struct reactor *reactor = create(2);
  int left = 0;
  pthread_barrier_init(&meeting.barrier, NULL, 2);
  for (int round = 0; round < 50; round++) {
    left = 2;
    for (int i = 0; i < 2; i++) {
      meeting.jobs[i] =
          (struct job){.work = {.run = meet, .done = job_done}, .reactor = reactor, .left = &left};
      reactor_work(reactor, &meeting.jobs[i].work);
    }
    reactor_run(reactor);
  }
  pthread_barrier_destroy(&meeting.barrier);
  reactor_destroy(reactor);
}

#if !defined(__SANITIZE_ADDRESS__) &&                                                              \
    !defined(__SANITIZE_THREAD__) /* they need memory themselves */
#define MEMORY_CAN_RUN_OUT

static void run_alone(struct work *work) {
  container_of(work, struct job, work)->thread = pthread_self();
}

/* Where no thread can be had the call runs on the reactor's. */
static void test_workers_without_threads(void **state) {
  (void)state;
  struct rlimit before;
  assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
  struct reactor *reactor = create(1);
  int left = 1;
  struct job job = {
      .work = {.run = run_alone, .done = job_done}, .reactor = reactor, .left = &left};
  struct rlimit none = {.rlim_cur = 1, .rlim_max = before.rlim_max}; /* no stack can be mapped */
  assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
  reactor_work(reactor, &job.work);
  assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
  reactor_run(reactor);
  assert_int_equal(job.done, 1);
  assert_true(pthread_equal(job.thread, pthread_self()));
  reactor_destroy(reactor);
}

#endif

int main(void) {
  const struct CMUnitTest tests[] = {
#ifdef MEMORY_CAN_RUN_OUT /* first: no stack of an ended thread is kept for reuse yet */
      cmocka_unit_test(test_workers_without_threads),
      cmocka_unit_test(test_create_without_memory),
#endif
      cmocka_unit_test(test_create_without_descriptors),
      cmocka_unit_test(test_order),
      cmocka_unit_test(test_no_starvation),
      cmocka_unit_test(test_cancel_in_the_same_round),
      cmocka_unit_test(test_timers),
      cmocka_unit_test(test_all_timers),
      cmocka_unit_test(test_posts),
      cmocka_unit_test(test_idle),
#ifdef SIGNALS_ARRIVE
      cmocka_unit_test(test_stop_from_a_signal),
#endif
      cmocka_unit_test(test_workers),
      cmocka_unit_test(test_workers_run_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
