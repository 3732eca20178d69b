/* SPDX-License-Identifier: Apache-2.0 */
#include "net/service.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct sprout_service *create(void) {
  struct sprout_service *service = NULL;
  struct sprout_error error;
  assert_int_equal(sprout_service_create(NULL, &service, &error), SPROUT_OK);
  return service;
}

static void start(struct sprout_service *service) {
  struct sprout_error error;
  assert_int_equal(sprout_service_start(service, &error), SPROUT_OK);
}

/* What a call saw. */
struct seen {
  struct sprout_service *service;
  pthread_t thread;
  int count;
  bool on_thread;
  uint64_t now_ns;
};

static void see(void *context) {
  struct seen *seen = context;
  seen->thread = pthread_self();
  seen->on_thread = service_on_thread(seen->service);
  seen->count++;
}

static void test_options(void **state) {
  (void)state;
  struct sprout_service *service = NULL;
  struct sprout_error error;
  struct sprout_service_options options = {.workers = 17};
  assert_int_equal(sprout_service_create(&options, &service, &error), SPROUT_INVALID);
  assert_null(service);
  options.workers = 16;
  assert_int_equal(sprout_service_create(&options, &service, &error), SPROUT_OK);
  sprout_service_destroy(service);
  sprout_service_destroy(NULL);
  assert_int_equal(sprout_probe(&error), SPROUT_OK);
}

static void test_call_when_not_running(void **state) {
  (void)state;
  struct sprout_service *service = create();
  struct seen seen = {.service = service};
  service_call(service, see, &seen);
  assert_int_equal(seen.count, 1);
  assert_true(seen.on_thread);
  assert_true(pthread_equal(seen.thread, pthread_self()));
  assert_false(service_on_thread(service));
  sprout_service_destroy(service);
}

static void see_clock(void *context) {
  struct seen *seen = context;
  seen->now_ns = reactor_now(service_reactor(seen->service));
}

/* Deadlines that are set before the service runs count from now, not from its creation. */
static void test_clock_when_not_running(void **state) {
  (void)state;
  struct seen seen = {.service = create()};
  struct timespec now;
  for (int i = 0; i < 3; i++) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    service_call(seen.service, see_clock, &seen);
    assert_true(seen.now_ns >= (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
  }
  sprout_service_destroy(seen.service);
}

static void nested(void *context) {
  struct seen *seen = context;
  service_call(seen->service, see, seen);
}

static void test_call_when_running(void **state) {
  (void)state;
  struct sprout_service *service = create();
  start(service);
  struct seen seen = {.service = service};
  service_call(service, see, &seen);
  service_call(service, nested, &seen);
  assert_int_equal(seen.count, 2);
  assert_true(seen.on_thread);
  assert_false(pthread_equal(seen.thread, pthread_self()));
  sprout_service_stop(service);
  sprout_service_destroy(service);
}

static void test_start_twice(void **state) {
  (void)state;
  struct sprout_service *service = create();
  struct sprout_error error;
  start(service);
  assert_int_equal(sprout_service_start(service, &error), SPROUT_INVALID);
  assert_int_equal(sprout_service_run(service, &error), SPROUT_INVALID);
  sprout_service_destroy(service);
}

static void stop(void *context) {
  sprout_service_stop(context);
}

/* Stopped from inside, started again, always on a new thread. */
static void test_restart(void **state) {
  (void)state;
  struct sprout_service *service = create();
  struct sprout_error error;
  struct seen seen = {.service = service};
  for (int i = 0; i < 20; i++) {
    while (sprout_service_start(service, &error) != SPROUT_OK)
      service_call(service, see, &seen); /* the loop before is still ending */
    service_call(service, see, &seen);
    service_call(service, stop, service);
  }
  sprout_service_destroy(service);
}

static void test_stop_before_run(void **state) {
  (void)state;
  struct sprout_service *service = create();
  struct sprout_error error;
  sprout_service_stop(service);
  assert_int_equal(sprout_service_run(service, &error), SPROUT_OK);
  sprout_service_destroy(service);
}

#ifndef __SANITIZE_THREAD__ /* which keeps signals back, also while the loop sleeps in the ring */
#define SIGNALS_ARRIVE

static struct sprout_service *signalled;

static void on_signal(int number) {
  (void)number;
  sprout_service_stop(signalled);
}

struct raiser {
  struct sprout_service *service;
  pthread_t target;
};

static void raise_signal(void *context) {
  pthread_kill(((struct raiser *)context)->target, SIGUSR1);
}

static void *raise_from_thread(void *argument) {
  struct raiser *raiser = argument;
  service_call(raiser->service, raise_signal, raiser);
  return NULL;
}

/* sprout_service_run on the caller's thread, ended by a signal handler. */
static void test_run_until_signal(void **state) {
  (void)state;
  struct sprout_service *service = signalled = create();
  struct sigaction action = {.sa_handler = on_signal}, before;
  sigaction(SIGUSR1, &action, &before);
  struct raiser raiser = {.service = service, .target = pthread_self()};
  struct sprout_error error;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, raise_from_thread, &raiser), 0);
  assert_int_equal(sprout_service_run(service, &error), SPROUT_OK);
  pthread_join(thread, NULL);
  sigaction(SIGUSR1, &before, NULL);
  sprout_service_destroy(service);
}

#endif

/* An operation that is pending for ever and is closed in two phases, as seeds and forks do. */
struct object {
  struct sprout_service *service;
  struct ring_op op;
  int fds[2];
  bool closed;
};

static void object_closed(struct ring_op *op) {
  struct object *object = container_of(op, struct object, op);
  assert_int_equal(op->result, -ECANCELED);
  object->closed = true;
  service_notify(object->service);
}

static void open_object(void *context) {
  struct object *object = context;
  assert_int_equal(pipe(object->fds), 0);
  object->op = (struct ring_op){
      .kind = RING_POLL, .fd = object->fds[0], .poll_events = POLLIN, .done = object_closed};
  reactor_submit(service_reactor(object->service), &object->op);
}

static void close_object(void *context) {
  struct object *object = context;
  reactor_cancel(service_reactor(object->service), &object->op);
}

static void destroy_object(struct object *object) {
  service_call(object->service, close_object, object);
  service_wait(object->service, &object->closed);
  assert_true(object->closed);
  close(object->fds[0]);
  close(object->fds[1]);
}

static void test_object_that_never_ran(void **state) {
  (void)state;
  struct object object = {.service = create()};
  service_call(object.service, open_object, &object);
  destroy_object(&object);
  sprout_service_destroy(object.service);
}

static void test_object_while_running(void **state) {
  (void)state;
  struct object object = {.service = create()};
  start(object.service);
  service_call(object.service, open_object, &object);
  destroy_object(&object);
  sprout_service_destroy(object.service);
}

/* The thread that submitted the operation has ended: it is still there, and can be closed. */
static void test_object_after_stop(void **state) {
  (void)state;
  struct object object = {.service = create()};
  start(object.service);
  struct seen seen = {.service = object.service};
  service_call(object.service, open_object, &object);
  service_call(object.service, see, &seen);
  sprout_service_stop(object.service);
  destroy_object(&object);
  sprout_service_destroy(object.service);
}

struct delayed {
  struct sprout_service *service;
  struct timer timer;
  bool fired;
};

static void delay_over(struct timer *timer) {
  struct delayed *delayed = container_of(timer, struct delayed, timer);
  delayed->fired = true;
  service_notify(delayed->service);
}

static void start_delay(void *context) {
  struct delayed *delayed = context;
  struct reactor *reactor = service_reactor(delayed->service);
  delayed->timer.fired = delay_over;
  reactor_timer_start(reactor, &delayed->timer, reactor_now(reactor) + 5000000);
}

/* The waiter sleeps until it is notified, and looks again. */
static void test_wait_for_something_slow(void **state) {
  (void)state;
  struct sprout_service *service = create();
  for (int round = 0; round < 4; round++) {
    if (round == 2) start(service);
    struct delayed delayed = {.service = service};
    service_call(service, start_delay, &delayed);
    service_notify(service); /* of something else */
    service_wait(service, &delayed.fired);
    assert_true(delayed.fired);
  }
  sprout_service_destroy(service);
}

/* Many threads call and wait while the service starts and stops under them. */
struct crowd {
  struct sprout_service *service;
  int calls;
};

#define CROWD_THREADS 6
#define CROWD_ROUNDS 300

static void count_call(void *context) {
  struct crowd *crowd = context;
  crowd->calls++; /* no lock: calls never overlap */
}

struct flag {
  struct sprout_service *service;
  struct deferred deferred;
  bool set;
};

static void set_flag(struct deferred *deferred) {
  struct flag *flag = container_of(deferred, struct flag, deferred);
  flag->set = true;
  service_notify(flag->service);
}

static void defer_flag(void *context) {
  struct flag *flag = context;
  reactor_defer(service_reactor(flag->service), &flag->deferred);
}

static void *crowd_main(void *argument) {
  struct crowd *crowd = argument;
  for (int i = 0; i < CROWD_ROUNDS; i++) {
    service_call(crowd->service, count_call, crowd);
    struct flag flag = {.service = crowd->service, .deferred = {.run = set_flag}};
    service_call(crowd->service, defer_flag, &flag);
    service_wait(crowd->service, &flag.set);
  }
  return NULL;
}

static void test_crowd(void **state) {
  (void)state;
  struct crowd crowd = {.service = create()};
  struct sprout_error error;
  pthread_t threads[CROWD_THREADS];
  for (int i = 0; i < CROWD_THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, crowd_main, &crowd), 0);
  for (int i = 0; i < 50; i++) {
    if (sprout_service_start(crowd.service, &error) == SPROUT_OK)
      sprout_service_stop(crowd.service);
    service_call(crowd.service, count_call, &crowd);
  }
  for (int i = 0; i < CROWD_THREADS; i++) pthread_join(threads[i], NULL);
  struct seen seen = {.service = crowd.service};
  service_call(crowd.service, see, &seen);
  assert_int_equal(crowd.calls, CROWD_THREADS * CROWD_ROUNDS + 50);
  sprout_service_destroy(crowd.service);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_options),
      cmocka_unit_test(test_call_when_not_running),
      cmocka_unit_test(test_clock_when_not_running),
      cmocka_unit_test(test_call_when_running),
      cmocka_unit_test(test_start_twice),
      cmocka_unit_test(test_restart),
      cmocka_unit_test(test_stop_before_run),
#ifdef SIGNALS_ARRIVE
      cmocka_unit_test(test_run_until_signal),
#endif
      cmocka_unit_test(test_object_that_never_ran),
      cmocka_unit_test(test_object_while_running),
      cmocka_unit_test(test_object_after_stop),
      cmocka_unit_test(test_wait_for_something_slow),
      cmocka_unit_test(test_crowd),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
