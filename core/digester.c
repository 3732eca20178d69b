/* SPDX-License-Identifier: Apache-2.0 */
#include "core/digester.h"

#include "core/log.h"
#include "core/model_digest.h"
#include "core/pacer.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A job is long enough to pay for its hand-over and short enough that a waiting fork is next soon.
 */
#define JOB_BYTES (16u * 1024u * 1024u)
#define JOB_CHUNKS 1024u
#define JOBS 1u
#define BURST_BYTES (2u * JOB_BYTES)

enum chunk_state {
  CHUNK_UNKNOWN,   /* waits for a job */
  CHUNK_RUNNING,   /* a job computes it */
  CHUNK_KNOWN,     /* its digest is in the table */
  CHUNK_UNREADABLE /* its bytes cannot be read */
};

struct job {
  struct work work;
  struct digester *digester;
  bool running;
  uint64_t era; /* of the digester when it was handed over */
  uint64_t first, count;
  struct digest digests[JOB_CHUNKS];
  int errors[JOB_CHUNKS]; /* 0 or errno; ENODATA: the file is shorter than the region */
  unsigned char *piece;
};

struct digester {
  struct reactor *reactor;
  const struct model *model;
  struct digest *digests;
  unsigned char *states; /* enum chunk_state */
  uint64_t cursor;       /* background: all chunks below are not unknown */
  uint64_t undigested_bytes;
  struct pacer pacer;
  struct timer timer;
  struct deferred settle; /* answers waits and schedules, outside of callers */
  struct list_node waits;
  struct job jobs[JOBS];
  /* Counts suspensions. A job of an earlier era reads nothing more and tells nothing. */
  _Atomic uint64_t era;
  pthread_mutex_t reading; /* held by a worker while it reads bytes */
  bool started, stopping, suspended, logged;
  void (*stopped)(void *context);
  void *stopped_context;
};

static void settle(struct deferred *deferred);
static void schedule(struct digester *digester);

/* --- on a worker --- */

/* False: the bytes are being changed, or were. */
static bool digest_chunk(struct job *job, uint64_t i) {
  struct digester *digester = job->digester;
  pthread_mutex_lock(&digester->reading);
  bool fresh = atomic_load(&digester->era) == job->era;
  if (fresh)
    job->errors[i] =
        model_digest_chunk(digester->model, job->first + i, job->piece, &job->digests[i]);
  pthread_mutex_unlock(&digester->reading);
  return fresh;
}

static void run_job(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  for (uint64_t i = 0; i < job->count; i++) {
    if (!digest_chunk(job, i)) return;
  }
}

/* --- on the reactor --- */

static void note_unreadable(struct digester *digester, uint64_t chunk, int error) {
  digester->states[chunk] = CHUNK_UNREADABLE;
  if (digester->logged) return;
  digester->logged = true;
  struct manifest_chunk at = manifest_chunk_at(digester->model->manifest, chunk);
  log_write(LOG_ERROR, "seed",
            "cannot read object %s at %llu: %s; replace the model's directory instead of changing "
            "its files, and "
            "start the seed again",
            digester->model->manifest->objects[at.object].name, (unsigned long long)at.offset,
            error == ENODATA ? "the file was truncated" : strerror(error));
}

/* What it has is of other bytes: its chunks are to be computed again. */
static void discard(struct digester *digester, const struct job *job) {
  for (uint64_t i = 0; i < job->count; i++) digester->states[job->first + i] = CHUNK_UNKNOWN;
  if (digester->cursor > job->first) digester->cursor = job->first;
}

static void job_done(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  struct digester *digester = job->digester;
  job->running = false;
  reactor_defer(digester->reactor, &digester->settle);
  if (job->era != atomic_load(&digester->era)) {
    discard(digester, job);
    return;
  }
  for (uint64_t i = 0; i < job->count; i++) {
    uint64_t chunk = job->first + i;
    assert(digester->states[chunk] == CHUNK_RUNNING);
    if (job->errors[i] != 0) {
      note_unreadable(digester, chunk, job->errors[i]);
      continue;
    }
    digester->digests[chunk] = job->digests[i];
    digester->states[chunk] = CHUNK_KNOWN;
    digester->undigested_bytes -= manifest_chunk_at(digester->model->manifest, chunk).length_bytes;
  }
}

/* Takes unknown chunks from `first` on, up to `end` and a job's size; returns their bytes. */
static uint64_t start_job(struct digester *digester, struct job *job, uint64_t first,
                          uint64_t end) {
  uint64_t bytes = 0;
  job->era = atomic_load(&digester->era);
  job->first = first;
  job->count = 0;
  while (first < end && job->count < JOB_CHUNKS && bytes < JOB_BYTES &&
         digester->states[first] == CHUNK_UNKNOWN) {
    bytes += manifest_chunk_at(digester->model->manifest, first).length_bytes;
    digester->states[first++] = CHUNK_RUNNING;
    job->count++;
  }
  job->running = true;
  reactor_work(digester->reactor, &job->work);
  return bytes;
}

static struct job *free_job(struct digester *digester) {
  for (size_t i = 0; i < JOBS; i++) {
    if (!digester->jobs[i].running) return &digester->jobs[i];
  }
  return NULL;
}

/* Moves wait->next over everything that is settled; true when the whole range is. */
static bool advance(struct digester *digester, struct digest_wait *wait) {
  uint64_t end = wait->first + wait->count;
  if (wait->stale) return true;
  for (; wait->next < end; wait->next++) {
    unsigned char state = digester->states[wait->next];
    if (state == CHUNK_UNREADABLE) wait->failed = true;
    if (state != CHUNK_KNOWN && state != CHUNK_UNREADABLE) return false;
  }
  return true;
}

/* The first unknown chunk that somebody waits for; running ones are on their way. */
static bool find_wanted(struct digester *digester, uint64_t *first_out, uint64_t *end_out) {
  for (struct list_node *node = digester->waits.next; node != &digester->waits; node = node->next) {
    struct digest_wait *wait = container_of(node, struct digest_wait, node);
    uint64_t end = wait->first + wait->count;
    for (uint64_t chunk = wait->next; chunk < end; chunk++) {
      if (digester->states[chunk] != CHUNK_UNKNOWN) continue;
      *first_out = chunk;
      *end_out = end;
      return true;
    }
  }
  return false;
}

static bool start_background(struct digester *digester, struct job *job) {
  uint64_t total = digester->model->manifest->chunk_count, now_ns = reactor_now(digester->reactor);
  while (digester->cursor < total && digester->states[digester->cursor] != CHUNK_UNKNOWN)
    digester->cursor++;
  if (!digester->started || digester->cursor == total) return false;
  if (pacer_allowance(&digester->pacer, now_ns) == 0) {
    reactor_timer_start(digester->reactor, &digester->timer,
                        pacer_ready_at(&digester->pacer, 1, now_ns));
    return false;
  }
  pacer_spend(&digester->pacer, start_job(digester, job, digester->cursor, total));
  return true;
}

static void schedule(struct digester *digester) {
  struct job *job;
  while (!digester->stopping && !digester->suspended && (job = free_job(digester))) {
    uint64_t first, end;
    if (find_wanted(digester, &first, &end)) {
      start_job(digester, job, first, end);
    } else if (!start_background(digester, job)) {
      return;
    }
  }
}

static bool any_running(const struct digester *digester) {
  for (size_t i = 0; i < JOBS; i++) {
    if (digester->jobs[i].running) return true;
  }
  return false;
}

static void settle(struct deferred *deferred) {
  struct digester *digester = container_of(deferred, struct digester, settle);
  struct list_node waits, *node;
  list_move(&waits, &digester->waits);
  while ((node = list_take(&waits))) {
    struct digest_wait *wait = container_of(node, struct digest_wait, node);
    if (!advance(digester, wait)) {
      list_append(&digester->waits, &wait->node);
      continue;
    }
    wait->done(wait); /* may free itself, start or cancel others: also ones in the local list */
  }
  schedule(digester);
  if (digester->stopping && !any_running(digester) && digester->stopped) {
    void (*stopped)(void *) = digester->stopped;
    digester->stopped = NULL;
    stopped(digester->stopped_context);
  }
}

static void timer_fired(struct timer *timer) {
  schedule(container_of(timer, struct digester, timer));
}

enum sprout_status digester_create(struct reactor *reactor, const struct model *model,
                                   uint64_t rate, struct digester **digester_out) {
  struct digester *digester = calloc(1, sizeof *digester);
  if (!digester) return SPROUT_NO_MEMORY;
  uint64_t chunks = model->manifest->chunk_count;
  digester->digests = calloc(chunks + 1, sizeof *digester->digests);
  digester->states = calloc(chunks + 1, 1);
  bool whole = digester->digests && digester->states;
  for (size_t i = 0; i < JOBS; i++) {
    struct job *job = &digester->jobs[i];
    *job = (struct job){.digester = digester, .work = {.run = run_job, .done = job_done}};
    job->piece = malloc(MODEL_PIECE_BYTES);
    whole = whole && job->piece;
  }
  digester->reactor = reactor;
  digester->model = model;
  digester->undigested_bytes = model->manifest->total_bytes;
  digester->timer.fired = timer_fired;
  digester->settle.run = settle;
  pthread_mutex_init(&digester->reading, NULL);
  list_init(&digester->waits);
  pacer_init(&digester->pacer, rate, BURST_BYTES, reactor_now(reactor));
  if (!whole) {
    digester_destroy(digester);
    return SPROUT_NO_MEMORY;
  }
  *digester_out = digester;
  return SPROUT_OK;
}

void digester_start(struct digester *digester) {
  digester->started = true;
  reactor_defer(digester->reactor, &digester->settle);
}

void digester_stop(struct digester *digester, void (*stopped)(void *context), void *context) {
  digester->stopping = true;
  digester->stopped = stopped;
  digester->stopped_context = context;
  reactor_timer_stop(digester->reactor, &digester->timer);
  reactor_defer(digester->reactor, &digester->settle);
}

void digester_destroy(struct digester *digester) {
  if (!digester) return;
  assert(!any_running(digester) && list_empty(&digester->waits));
  reactor_timer_stop(digester->reactor, &digester->timer);
  reactor_defer_cancel(digester->reactor, &digester->settle);
  for (size_t i = 0; i < JOBS; i++) free(digester->jobs[i].piece);
  pthread_mutex_destroy(&digester->reading);
  free(digester->digests);
  free(digester->states);
  free(digester);
}

bool digester_known(const struct digester *digester, uint64_t chunk, struct digest *digest_out) {
  if (digester->states[chunk] != CHUNK_KNOWN) return false;
  *digest_out = digester->digests[chunk];
  return true;
}

uint64_t digester_undigested_bytes(const struct digester *digester) {
  return digester->undigested_bytes;
}

void digester_wait(struct digester *digester, struct digest_wait *wait) {
  assert(wait->first + wait->count <= digester->model->manifest->chunk_count);
  wait->next = wait->first;
  wait->failed = wait->stale = false;
  list_append(&digester->waits, &wait->node);
  reactor_defer(digester->reactor, &digester->settle);
}

void digester_cancel(struct digester *digester, struct digest_wait *wait) {
  (void)digester;
  list_remove(&wait->node);
}

/* --- bytes that change --- */

/* Chunks of a running job stay its own: job_done gives them back. */
static void void_table(struct digester *digester) {
  uint64_t chunks = digester->model->manifest->chunk_count;
  for (uint64_t chunk = 0; chunk < chunks; chunk++)
    if (digester->states[chunk] != CHUNK_RUNNING) digester->states[chunk] = CHUNK_UNKNOWN;
  digester->cursor = 0;
  digester->undigested_bytes = digester->model->manifest->total_bytes;
  digester->logged = false;
}

void digester_suspend(struct digester *digester) {
  assert(!digester->suspended);
  digester->suspended = true;
  atomic_fetch_add(&digester->era, 1);
  reactor_timer_stop(digester->reactor, &digester->timer);
  void_table(digester);
  struct list_node *node, *next;
  list_for_each_safe (node, next, &digester->waits)
    container_of(node, struct digest_wait, node)->stale = true;
  reactor_defer(digester->reactor, &digester->settle);
}

void digester_quiesce(struct digester *digester) {
  pthread_mutex_lock(&digester->reading);
  pthread_mutex_unlock(&digester->reading);
}

void digester_resume(struct digester *digester) {
  assert(digester->suspended);
  digester->suspended = false;
  reactor_defer(digester->reactor, &digester->settle);
}
