/* SPDX-License-Identifier: Apache-2.0 */
/*
 * updating_seed [--updates N] [--forks N] [--megabytes N] [--random N] [--listen ADDR:PORT]
 *               [--transport LIST] [--hold 1]: a seed whose bytes change at random moments while
 * forks read them into memory, half of them without verification, and one more reads so slowly that
 * bodies of it are always under way. With --hold it is served on, unchanged, until its standard
 * input ends.
 *
 * Every 8 bytes of the weights tell their generation and their place, so a fork that completed is
 * seen to hold one whole generation, or not. An update comes when forks have received a random
 * number of bytes since the last one: between none and what lets each of them complete twice.
 * Prints one JSON line; exit 0 only when no fork held a mix, and the last generation was forked.
 */
#include "sprout/sprout.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FORKS_MAX 16
#define TENSORS_MAX 512
#define SMALL_TENSORS 300
#define SMALL_WORDS 1000u
#define MEDIUM_WORDS ((1u << 20) / 8)
/* A fork that lets so much time pass without a byte has stalled: the test has failed. */
#define PATIENCE_S 30
#define SLOW_RATE 2000000u

struct settings {
  long updates, forks, megabytes, random, hold;
  const char *listen, *transport;
};

/* The weights, and the same shapes for a fork. */
struct weights {
  uint64_t *words;
  uint64_t count;
  struct sprout_tensor *tensors;
  size_t tensor_count;
};

struct forker {
  pthread_t thread;
  struct weights weights;
  bool verify, slow;
  struct sprout_fork *fork; /* while it may be cancelled; guarded by cancelling */
  uint64_t seen_bytes;      /* of the fork that runs, at its last progress */
};

/* Figures and the end, guarded by `lock`; `moved` after each change of received_bytes. */
static struct {
  pthread_mutex_t lock;
  pthread_cond_t moved;
  uint64_t received_bytes;
  long completed, failed, corrupt, torn, mislabelled;
  uint64_t last_generation; /* that a fork completed */
  char first_failure[600];
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

/* Held while a fork is cancelled: not the lock above, which callbacks need to go on. */
static pthread_mutex_t cancelling = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool ending;
static struct settings settings = {20, 2, 48, 1, 0, "127.0.0.1:0", NULL};
static struct sprout_service *fork_service;
static char url[96], names[TENSORS_MAX][16];

static void die(const char *what, const struct sprout_error *error) {
  fprintf(stderr, "updating_seed: %s: %s %s\n", what, error->message, error->hint);
  exit(1);
}

/* --- weights --- */

static uint64_t word_of(uint64_t generation, uint64_t i) {
  return generation << 40 | i;
}

static void write_generation(const struct weights *weights, uint64_t generation) {
  for (uint64_t i = 0; i < weights->count; i++) weights->words[i] = word_of(generation, i);
}

/* The generation of all words; 0: a mix, or bytes that were never there. */
static uint64_t read_generation(const struct weights *weights) {
  uint64_t generation = weights->words[0] >> 40;
  for (uint64_t i = 0; i < weights->count; i++)
    if (weights->words[i] != word_of(generation, i)) return 0;
  return generation;
}

static void make_names(void) {
  for (size_t i = 0; i < TENSORS_MAX; i++) snprintf(names[i], sizeof names[i], "t%04zu", i);
}

static void add_tensor(struct weights *weights, uint64_t words) {
  size_t i = weights->tensor_count++;
  if (i == TENSORS_MAX) abort();
  weights->tensors[i] = (struct sprout_tensor){.name = names[i],
                                               .dtype = "I64",
                                               .rank = 1,
                                               .shape = {words},
                                               .address = weights->words + weights->count,
                                               .length_bytes = 8 * words};
  weights->count += words;
}

/* Tensors of a few KiB, of a MiB, and one that has all the rest. */
static void make_weights(struct weights *weights) {
  uint64_t total = (uint64_t)settings.megabytes << 17;
  *weights = (struct weights){.words = malloc(8 * total),
                              .tensors = calloc(TENSORS_MAX, sizeof *weights->tensors)};
  if (!weights->words || !weights->tensors) abort();
  for (int i = 0; i < SMALL_TENSORS; i++) add_tensor(weights, SMALL_WORDS);
  for (int i = 0; i < 4; i++) add_tensor(weights, MEDIUM_WORDS);
  add_tensor(weights, total - weights->count);
}

static void free_weights(struct weights *weights) {
  free(weights->words);
  free(weights->tensors);
}

/* --- forks --- */

static void note_progress(void *context, const struct sprout_fork_progress *progress) {
  struct forker *forker = context;
  if (forker->slow || progress->received_bytes <= forker->seen_bytes) return;
  pthread_mutex_lock(&shared.lock);
  shared.received_bytes += progress->received_bytes - forker->seen_bytes;
  forker->seen_bytes = progress->received_bytes;
  pthread_cond_broadcast(&shared.moved);
  pthread_mutex_unlock(&shared.lock);
}

static void note_result(const struct forker *forker, const struct sprout_fork_result *result) {
  bool whole = result->status == SPROUT_OK;
  uint64_t generation = whole ? read_generation(&forker->weights) : 0;
  pthread_mutex_lock(&shared.lock);
  if (whole) {
    shared.completed++;
    shared.torn += generation == 0;
    shared.mislabelled += generation != 0 && generation != result->generation;
    if (generation > shared.last_generation) shared.last_generation = generation;
  } else if (!forker->slow) {
    shared.corrupt += result->status == SPROUT_CORRUPT; /* a mix that a digest has shown */
    if (shared.failed++ == 0)
      snprintf(shared.first_failure, sizeof shared.first_failure, "%s: %s",
               sprout_status_info_of(result->status)->name, result->error.message);
  }
  pthread_cond_broadcast(&shared.moved);
  pthread_mutex_unlock(&shared.lock);
}

/* The slow one never gets far enough; it is cancelled in the end. */
static void run_fork(struct forker *forker) {
  const char *urls[] = {url};
  struct sprout_fork_options options = {.struct_bytes = sizeof options,
                                        .urls = urls,
                                        .url_count = 1,
                                        .tensors = forker->weights.tensors,
                                        .tensor_count = forker->weights.tensor_count,
                                        .transports = settings.transport,
                                        .no_verify = !forker->verify,
                                        .max_rate = forker->slow ? SLOW_RATE : 0,
                                        .progress_interval_ns = 1000000,
                                        .progress = note_progress,
                                        .context = forker};
  struct sprout_error error;
  struct sprout_fork *fork;
  forker->seen_bytes = 0;
  memset(forker->weights.words, 0xA5, 8 * forker->weights.count);
  if (sprout_fork_create(fork_service, &options, &fork, &error) != SPROUT_OK) die("fork", &error);
  pthread_mutex_lock(&cancelling);
  forker->fork = fork;
  if (forker->slow && atomic_load(&ending)) sprout_fork_cancel(fork);
  pthread_mutex_unlock(&cancelling);
  note_result(forker, sprout_fork_wait(fork));
  pthread_mutex_lock(&cancelling);
  forker->fork = NULL;
  pthread_mutex_unlock(&cancelling);
  sprout_fork_destroy(fork);
}

static void *fork_again_and_again(void *context) {
  struct forker *forker = context;
  do {
    run_fork(forker);
  } while (!atomic_load(&ending));
  return NULL;
}

/* --- updates --- */

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static bool last_generation_is(uint64_t generation) {
  return shared.last_generation >= generation;
}

static bool received_is(uint64_t bytes) {
  return shared.received_bytes >= bytes;
}

/* Under the lock: waits until `reached(value)`; false when nothing moves any more. Seconds are
 * counted one by one: a process that was stopped for a while has not got stuck. */
static bool await(bool (*reached)(uint64_t value), uint64_t value) {
  uint64_t seen_bytes = shared.received_bytes;
  for (int idle_s = 0; !reached(value) && idle_s < PATIENCE_S;) {
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec++;
    bool woken = pthread_cond_timedwait(&shared.moved, &shared.lock, &limit) == 0;
    if (!woken) idle_s++;
    if (seen_bytes != shared.received_bytes) idle_s = 0;
    seen_bytes = shared.received_bytes;
  }
  return reached(value);
}

static int by_value(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

/* False: forks got stuck. */
static bool update_again_and_again(struct sprout_seed *seed, const struct weights *weights,
                                   double *begins) {
  unsigned short state[3] = {(unsigned short)settings.random, 7, 117};
  double most = (double)weights->count * 8 * 2 * (double)settings.forks;
  struct sprout_error error;
  char label[32];
  for (long i = 0; i < settings.updates; i++) {
    pthread_mutex_lock(&shared.lock);
    bool moves = await(received_is, shared.received_bytes + (uint64_t)(erand48(state) * most));
    pthread_mutex_unlock(&shared.lock);
    if (!moves) return false;
    double before = microseconds();
    if (sprout_seed_update_begin(seed, &error) != SPROUT_OK) die("begin", &error);
    begins[i] = microseconds() - before;
    write_generation(weights, (uint64_t)i + 2);
    snprintf(label, sizeof label, "step-%ld", i + 2);
    if (sprout_seed_update_commit(seed, label, &error) != SPROUT_OK) die("commit", &error);
  }
  pthread_mutex_lock(&shared.lock);
  bool whole = await(last_generation_is, (uint64_t)settings.updates + 1);
  pthread_mutex_unlock(&shared.lock);
  return whole;
}

/* --- all of it --- */

static bool parse(int argc, char **argv) {
  const struct {
    const char *name;
    long *number;
    const char **text;
  } rows[] = {{"--updates", &settings.updates, NULL},     {"--forks", &settings.forks, NULL},
              {"--megabytes", &settings.megabytes, NULL}, {"--random", &settings.random, NULL},
              {"--hold", &settings.hold, NULL},           {"--listen", NULL, &settings.listen},
              {"--transport", NULL, &settings.transport}};
  for (int i = 1; i < argc; i += 2) {
    size_t row = 0, count = sizeof rows / sizeof rows[0];
    while (row < count && strcmp(argv[i], rows[row].name) != 0) row++;
    if (row == count || i + 1 == argc) return false;
    if (rows[row].text) *rows[row].text = argv[i + 1];
    if (rows[row].number) *rows[row].number = strtol(argv[i + 1], NULL, 10);
  }
  return settings.updates > 0 && settings.forks > 0 && settings.forks < FORKS_MAX &&
         settings.megabytes >= 8 && settings.megabytes <= 4096;
}

static struct sprout_seed *start_seed(struct sprout_service *service,
                                      const struct weights *weights) {
  struct sprout_seed_options options = {.struct_bytes = sizeof options,
                                        .tensors = weights->tensors,
                                        .tensor_count = weights->tensor_count,
                                        .tensors_mutable = true,
                                        .name = "updating",
                                        .listen = settings.listen,
                                        .allow_anonymous = true,
                                        .transports = settings.transport};
  struct sprout_error error;
  struct sprout_seed *seed;
  struct sprout_seed_status status;
  if (sprout_seed_create(service, &options, &seed, &error) != SPROUT_OK) die("seed", &error);
  if (sprout_service_start(service, &error) != SPROUT_OK) die("start", &error);
  sprout_seed_status(seed, &status);
  snprintf(url, sizeof url, "http://%s", status.listen);
  return seed;
}

static void start_forkers(struct forker *forkers) {
  for (long i = 0; i <= settings.forks; i++) {
    struct forker *forker = &forkers[i];
    forker->verify = i % 2 == 0;
    forker->slow = i == settings.forks;
    make_weights(&forker->weights);
    if (pthread_create(&forker->thread, NULL, fork_again_and_again, forker) != 0) abort();
  }
}

static void stop_forkers(struct forker *forkers) {
  pthread_mutex_lock(&cancelling);
  atomic_store(&ending, true);
  if (forkers[settings.forks].fork) sprout_fork_cancel(forkers[settings.forks].fork);
  pthread_mutex_unlock(&cancelling);
  for (long i = 0; i <= settings.forks; i++) {
    pthread_join(forkers[i].thread, NULL);
    free_weights(&forkers[i].weights);
  }
}

static void report(double *begins, bool moved) {
  size_t count = (size_t)settings.updates;
  qsort(begins, count, sizeof *begins, by_value);
  printf("{\"updates\": %ld, \"completed\": %ld, \"failed\": %ld, \"corrupt\": %ld, \"torn\": %ld, "
         "\"mislabelled\": %ld, \"stuck\": %s, \"last_generation\": %llu, \"begin_p50_us\": %.0f, "
         "\"begin_max_us\": %.0f, \"received_bytes\": %llu, \"first_failure\": \"%s\"}\n",
         settings.updates, shared.completed, shared.failed, shared.corrupt, shared.torn,
         shared.mislabelled, moved ? "false" : "true", (unsigned long long)shared.last_generation,
         begins[count / 2], begins[count - 1], (unsigned long long)shared.received_bytes,
         shared.first_failure);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (!parse(argc, argv)) {
    fprintf(stderr, "usage: updating_seed [--updates N] [--forks N] [--megabytes N] [--random N] "
                    "[--listen ADDR:PORT] [--transport LIST] [--hold 1]\n");
    return 2;
  }
  struct sprout_error error;
  struct sprout_service *service;
  struct weights weights;
  struct forker forkers[FORKS_MAX] = {{.slow = false}};
  double *begins = calloc((size_t)settings.updates, sizeof *begins);
  if (!begins) abort();
  make_names();
  make_weights(&weights);
  write_generation(&weights, 1);
  if (sprout_service_create(NULL, &service, &error) != SPROUT_OK) die("service", &error);
  if (sprout_service_create(NULL, &fork_service, &error) != SPROUT_OK) die("service", &error);
  if (sprout_service_start(fork_service, &error) != SPROUT_OK) die("start", &error);
  struct sprout_seed *seed = start_seed(service, &weights);
  start_forkers(forkers);
  bool moved = update_again_and_again(seed, &weights, begins);
  stop_forkers(forkers);
  report(begins, moved);
  while (settings.hold != 0 && getchar() != EOF) continue;
  sprout_seed_destroy(seed);
  sprout_service_destroy(service);
  sprout_service_destroy(fork_service);
  free_weights(&weights);
  free(begins);
  return shared.torn + shared.corrupt + shared.mislabelled > 0 || !moved;
}
