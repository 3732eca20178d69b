/* SPDX-License-Identifier: Apache-2.0 */
#include "net/service.h"

#include "core/limits.h"
#include "core/probe.h"
#include "net/rdma_host.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Who drives the reactor. */
enum driver {
  DRIVER_NONE,     /* nobody: whoever comes may */
  DRIVER_CALL,     /* a thread inside a direct service_call: does not tick, over soon */
  DRIVER_WAIT,     /* a thread inside service_wait that ticks: takes calls of others */
  DRIVER_STARTING, /* the service's own thread is about to run: takes calls */
  DRIVER_LOOP      /* the loop: takes calls */
};

struct sprout_service {
  struct reactor *reactor;
  pthread_mutex_t lock; /* guards what follows */
  pthread_cond_t changed;
  enum driver driver;
  pthread_t driver_thread; /* unless DRIVER_NONE or DRIVER_STARTING */
  uint64_t notifications;
  bool has_thread; /* started and not joined */
  pthread_t thread;
  struct rdma_host *rdma; /* the driver's */
};

/* ---- the driver ---- */

static bool drives(const struct sprout_service *service) {
  return service->driver != DRIVER_NONE && service->driver != DRIVER_STARTING &&
         pthread_equal(service->driver_thread, pthread_self());
}

static bool takes_calls(const struct sprout_service *service) {
  return service->driver == DRIVER_LOOP || service->driver == DRIVER_WAIT ||
         service->driver == DRIVER_STARTING;
}

static void set_driver(struct sprout_service *service, enum driver driver) {
  service->driver = driver;
  service->driver_thread = pthread_self();
  pthread_cond_broadcast(&service->changed);
}

bool service_on_thread(struct sprout_service *service) {
  pthread_mutex_lock(&service->lock);
  bool result = drives(service);
  pthread_mutex_unlock(&service->lock);
  return result;
}

struct reactor *service_reactor(struct sprout_service *service) {
  return service->reactor;
}

struct rdma_host **service_rdma(struct sprout_service *service) {
  return &service->rdma;
}

/* ---- creation ---- */

enum sprout_status sprout_probe(struct sprout_error *error) {
  return probe_machine(error);
}

enum sprout_status sprout_service_create(const struct sprout_service_options *options,
                                         struct sprout_service **service_out,
                                         struct sprout_error *error) {
  struct reactor_options reactor_options = {.workers = options != NULL ? options->workers : 0};
  if (reactor_options.workers > LIMIT_WORKERS)
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "%u workers: expected 1 to %d",
                            reactor_options.workers, LIMIT_WORKERS);
  struct sprout_service *service = calloc(1, sizeof *service);
  if (service == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, ENOMEM, NULL, "no memory for a service");
  enum sprout_status status = reactor_create(&reactor_options, &service->reactor, error);
  if (status != SPROUT_OK) {
    free(service);
    return status;
  }
  pthread_mutex_init(&service->lock, NULL);
  pthread_cond_init(&service->changed, NULL);
  *service_out = service;
  return SPROUT_OK;
}

void sprout_service_stop(struct sprout_service *service) {
  reactor_stop(service->reactor);
}

/* Joins the service's own thread when there is one. */
static void join(struct sprout_service *service) {
  pthread_mutex_lock(&service->lock);
  assert(!drives(service));
  bool has_thread = service->has_thread;
  service->has_thread = false;
  pthread_mutex_unlock(&service->lock);
  if (has_thread) pthread_join(service->thread, NULL);
}

void sprout_service_destroy(struct sprout_service *service) {
  if (service == NULL) return;
  sprout_service_stop(service);
  join(service);
  pthread_mutex_lock(&service->lock);
  while (service->driver != DRIVER_NONE) pthread_cond_wait(&service->changed, &service->lock);
  pthread_mutex_unlock(&service->lock);
  rdma_host_destroy(service->rdma);
  reactor_destroy(service->reactor);
  pthread_cond_destroy(&service->changed);
  pthread_mutex_destroy(&service->lock);
  free(service);
}

/* ---- the loop ---- */

static enum sprout_status already_running(struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_INVALID, 0, "Stop it first.",
                          "the service is running already");
}

/* Waits for a direct caller or a waiter to be done, then becomes `driver`; false when there is a
 * loop. */
static bool become(struct sprout_service *service, enum driver driver) {
  pthread_mutex_lock(&service->lock);
  while (!drives(service) && (service->driver == DRIVER_CALL || service->driver == DRIVER_WAIT))
    pthread_cond_wait(&service->changed, &service->lock);
  bool free_now = service->driver == DRIVER_NONE;
  if (free_now) set_driver(service, driver);
  pthread_mutex_unlock(&service->lock);
  return free_now;
}

/* The caller is the driver already, in one way or another. */
static void run_loop(struct sprout_service *service) {
  pthread_mutex_lock(&service->lock);
  set_driver(service, DRIVER_LOOP);
  pthread_mutex_unlock(&service->lock);
  reactor_run(service->reactor);
  pthread_mutex_lock(&service->lock);
  set_driver(service, DRIVER_NONE);
  pthread_mutex_unlock(&service->lock);
}

enum sprout_status sprout_service_run(struct sprout_service *service, struct sprout_error *error) {
  if (!become(service, DRIVER_LOOP)) return already_running(error);
  run_loop(service);
  return SPROUT_OK;
}

static void *thread_main(void *argument) {
  run_loop(argument);
  return NULL;
}

/* Signals are the program's business: the thread inherits a mask that blocks all. */
static int start_thread(struct sprout_service *service) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int result = pthread_create(&service->thread, NULL, thread_main, service);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (result == 0) pthread_setname_np(service->thread, "sprout");
  return result;
}

enum sprout_status sprout_service_start(struct sprout_service *service,
                                        struct sprout_error *error) {
  if (!become(service, DRIVER_STARTING)) return already_running(error);
  join(service); /* of an earlier start */
  int result = start_thread(service);
  pthread_mutex_lock(&service->lock);
  service->has_thread = result == 0;
  if (result != 0) set_driver(service, DRIVER_NONE);
  pthread_mutex_unlock(&service->lock);
  if (result == 0) return SPROUT_OK;
  return sprout_error_set(error, SPROUT_LIMIT, result,
                          "Raise the limit of threads (ulimit -u, pids.max of the container).",
                          "cannot start a thread: %s", strerrordesc_np(result));
}

/* ---- calls ---- */

/* On the caller's stack until `done`. */
struct call {
  struct deferred deferred;
  struct sprout_service *service;
  void (*call)(void *context);
  void *context;
  bool done; /* under the service's lock */
};

static void run_call(struct deferred *deferred) {
  struct call *call = container_of(deferred, struct call, deferred);
  struct sprout_service *service = call->service;
  call->call(call->context);
  pthread_mutex_lock(&service->lock);
  call->done = true; /* the caller may be gone from here on */
  pthread_cond_broadcast(&service->changed);
  pthread_mutex_unlock(&service->lock);
}

/* Under the lock, which is released meanwhile; nobody drives. */
static void call_directly(struct sprout_service *service, struct call *call) {
  set_driver(service, DRIVER_CALL);
  pthread_mutex_unlock(&service->lock);
  reactor_defer_cancel(service->reactor, &call->deferred); /* a loop may have ended before it */
  reactor_refresh(service->reactor);
  call->call(call->context);
  pthread_mutex_lock(&service->lock);
  set_driver(service, DRIVER_NONE);
}

void service_call(struct sprout_service *service, void (*function)(void *context), void *context) {
  struct call call = {
      .deferred = {.run = run_call}, .service = service, .call = function, .context = context};
  pthread_mutex_lock(&service->lock);
  if (drives(service)) {
    pthread_mutex_unlock(&service->lock);
    function(context);
    return;
  }
  bool posted = false;
  while (!call.done) {
    if (service->driver == DRIVER_NONE) {
      call_directly(service, &call);
      break;
    }
    if (takes_calls(service) && !posted) {
      reactor_post(service->reactor, &call.deferred);
      posted = true;
    }
    pthread_cond_wait(&service->changed, &service->lock);
  }
  pthread_mutex_unlock(&service->lock);
}

/* ---- waiting ---- */

void service_notify(struct sprout_service *service) {
  pthread_mutex_lock(&service->lock);
  service->notifications++;
  pthread_cond_broadcast(&service->changed);
  pthread_mutex_unlock(&service->lock);
}

struct look {
  struct sprout_service *service;
  const bool *done;
  bool result;
  uint64_t notifications; /* when it was looked at */
};

static void take_look(void *context) {
  struct look *look = context;
  pthread_mutex_lock(&look->service->lock);
  look->notifications = look->service->notifications;
  pthread_mutex_unlock(&look->service->lock);
  look->result = *look->done;
}

/* Under the lock, which is released meanwhile; nobody drives. */
static void tick_until(struct sprout_service *service, const bool *done) {
  set_driver(service, DRIVER_WAIT);
  pthread_mutex_unlock(&service->lock);
  while (!*done) reactor_tick(service->reactor, UINT64_MAX);
  reactor_leave(service->reactor);
  pthread_mutex_lock(&service->lock);
  set_driver(service, DRIVER_NONE);
}

void service_wait(struct sprout_service *service, const bool *done) {
  struct look look = {.service = service, .done = done};
  for (;;) {
    service_call(service, take_look, &look);
    if (look.result) return;
    pthread_mutex_lock(&service->lock);
    assert(!drives(service));
    while (service->notifications == look.notifications && service->driver != DRIVER_NONE)
      pthread_cond_wait(&service->changed, &service->lock);
    if (service->driver == DRIVER_NONE) tick_until(service, done);
    pthread_mutex_unlock(&service->lock);
  }
}
