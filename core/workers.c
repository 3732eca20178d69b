/* SPDX-License-Identifier: Apache-2.0 */
#include "core/workers.h"

#include "core/log.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct workers {
  void (*finished)(void *context);
  void *context;
  uint32_t pending; /* the submitting thread's own */
  uint32_t thread_count, thread_limit;
  pthread_t *threads;

  pthread_mutex_t lock; /* guards what follows */
  pthread_cond_t wanted;
  struct list_node queue, done;
  uint32_t queued, idle;
  bool quit;
};

static void run_one(struct workers *workers, struct work *work) {
  workers->queued--;
  pthread_mutex_unlock(&workers->lock);
  work->run(work);
  pthread_mutex_lock(&workers->lock);
  list_append(&workers->done, &work->node);
  pthread_mutex_unlock(&workers->lock);
  workers->finished(workers->context);
  pthread_mutex_lock(&workers->lock);
}

static void *worker_main(void *argument) {
  struct workers *workers = argument;
  pthread_mutex_lock(&workers->lock);
  while (!workers->quit) {
    struct list_node *node = list_take(&workers->queue);
    if (node != NULL) {
      run_one(workers, container_of(node, struct work, node));
      continue;
    }
    workers->idle++;
    pthread_cond_wait(&workers->wanted, &workers->lock);
    workers->idle--;
  }
  pthread_mutex_unlock(&workers->lock);
  return NULL;
}

enum sprout_status workers_create(uint32_t threads, void (*finished)(void *context), void *context,
                                  struct workers **workers_out) {
  assert(threads > 0);
  struct workers *workers = calloc(1, sizeof *workers);
  if (workers == NULL) return SPROUT_NO_MEMORY;
  workers->threads = calloc(threads, sizeof *workers->threads);
  if (workers->threads == NULL) {
    free(workers);
    return SPROUT_NO_MEMORY;
  }
  workers->finished = finished;
  workers->context = context;
  workers->thread_limit = threads;
  pthread_mutex_init(&workers->lock, NULL);
  pthread_cond_init(&workers->wanted, NULL);
  list_init(&workers->queue);
  list_init(&workers->done);
  *workers_out = workers;
  return SPROUT_OK;
}

void workers_destroy(struct workers *workers) {
  if (workers == NULL) return;
  assert(workers->pending == 0);
  pthread_mutex_lock(&workers->lock);
  workers->quit = true;
  pthread_cond_broadcast(&workers->wanted);
  pthread_mutex_unlock(&workers->lock);
  for (uint32_t i = 0; i < workers->thread_count; i++) pthread_join(workers->threads[i], NULL);
  pthread_cond_destroy(&workers->wanted);
  pthread_mutex_destroy(&workers->lock);
  free(workers->threads);
  free(workers);
}

/* A thread inherits the signal mask of the one that starts it. */
static bool start_thread(struct workers *workers) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t *thread = &workers->threads[workers->thread_count];
  int result = pthread_create(thread, NULL, worker_main, workers);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (result != 0) {
    log_write(LOG_WARNING, "workers", "cannot start a thread: %s; going on with %u",
              strerrordesc_np(result), workers->thread_count);
    return false;
  }
  pthread_setname_np(*thread, "sprout-work");
  workers->thread_count++;
  return true;
}

void workers_submit(struct workers *workers, struct work *work) {
  assert(!work->queued && work->run != NULL && work->done != NULL);
  work->queued = true;
  workers->pending++;
  pthread_mutex_lock(&workers->lock);
  list_append(&workers->queue, &work->node);
  workers->queued++;
  bool more = workers->queued > workers->idle && workers->thread_count < workers->thread_limit;
  if (!more) pthread_cond_signal(&workers->wanted);
  pthread_mutex_unlock(&workers->lock);
  if (!more || start_thread(workers)) return;
  pthread_mutex_lock(&workers->lock);
  if (workers->thread_count > 0)
    pthread_cond_signal(&workers->wanted);
  else
    run_one(workers, container_of(list_take(&workers->queue), struct work, node));
  pthread_mutex_unlock(&workers->lock);
}

struct work *workers_take(struct workers *workers) {
  pthread_mutex_lock(&workers->lock);
  struct list_node *node = list_take(&workers->done);
  pthread_mutex_unlock(&workers->lock);
  if (node == NULL) return NULL;
  struct work *work = container_of(node, struct work, node);
  work->queued = false;
  workers->pending--;
  return work;
}

uint32_t workers_pending(const struct workers *workers) {
  return workers->pending;
}
