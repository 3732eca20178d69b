/* SPDX-License-Identifier: Apache-2.0 */
#include "net/service.h"
#include "sprout/sprout.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIG_BYTES (3u * SPROUT_CHUNK_BYTES + 70000u)

/* A seed in a service of its own, and a service for forks. */
struct scene {
  char root[SCRATCH_PATH_BYTES];
  char model[SCRATCH_PATH_BYTES + 8], target[SCRATCH_PATH_BYTES + 8];
  char url[96];
  struct sprout_service *seed_service, *service;
  struct sprout_seed *seed;
};

static void start_seed(struct scene *scene, const struct sprout_tensor *tensors, size_t count) {
  const char *path = scene->model;
  struct sprout_seed_options options = {.struct_bytes = sizeof(options),
                                        .paths = tensors == NULL ? &path : NULL,
                                        .path_count = tensors == NULL ? 1 : 0,
                                        .tensors = tensors,
                                        .tensor_count = count,
                                        .name = "model",
                                        .label = "step-5",
                                        .listen = "127.0.0.1:0",
                                        .lease_ns = 1000000000ull};
  struct sprout_seed_status status;
  struct sprout_error error;

  assert_int_equal(sprout_service_create(NULL, &scene->seed_service, &error), SPROUT_OK);
  if (sprout_seed_create(scene->seed_service, &options, &scene->seed, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  assert_int_equal(sprout_service_start(scene->seed_service, &error), SPROUT_OK);
  sprout_seed_status(scene->seed, &status);
  snprintf(scene->url, sizeof(scene->url), "http://%s", status.listen);
}

static void stop_seed(struct scene *scene) {
  sprout_seed_destroy(scene->seed);
  scene->seed = NULL;
  sprout_service_destroy(scene->seed_service);
  scene->seed_service = NULL;
}

static int set_up(void **state) {
  struct scene *scene = calloc(1, sizeof(*scene));
  struct sprout_error error;

  assert_non_null(scene);
  scratch_make(scene->root);
  snprintf(scene->model, sizeof(scene->model), "%s/model", scene->root);
  snprintf(scene->target, sizeof(scene->target), "%s/target", scene->root);
  scratch_write(scene->root, "model/big.bin", BIG_BYTES, 1);
  scratch_write(scene->root, "model/small.bin", 300, 2);
  scratch_write(scene->root, "model/empty.txt", 0, 0);
  start_seed(scene, NULL, 0);
  assert_int_equal(sprout_service_create(NULL, &scene->service, &error), SPROUT_OK);
  assert_int_equal(sprout_service_start(scene->service, &error), SPROUT_OK);
  *state = scene;
  return 0;
}

static int tear_down(void **state) {
  struct scene *scene = *state;

  sprout_service_destroy(scene->service);
  if (scene->seed != NULL) stop_seed(scene);
  scratch_remove(scene->root);
  free(scene);
  return 0;
}

/* Runs a fork and returns how it ended; `url` NULL: the scene's. */
static struct sprout_fork_result run(struct scene *scene, struct sprout_fork_options *options) {
  const char *url = scene->url;
  struct sprout_fork *fork = NULL;
  struct sprout_fork_result result;
  struct sprout_error error;

  options->struct_bytes = sizeof(*options);
  if (options->urls == NULL) {
    options->urls = &url;
    options->url_count = 1;
  }
  if (sprout_fork_create(scene->service, options, &fork, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  result = *sprout_fork_wait(fork);
  sprout_fork_destroy(fork);
  if (options->urls == &url) options->urls = NULL;
  return result;
}

static void expect_ok(const struct sprout_fork_result *result) {
  if (result->status != SPROUT_OK) fail_msg("%s", result->error.message);
}

static void expect_target(const struct scene *scene) {
  assert_true(scratch_same(scene->model, scene->target, "big.bin"));
  assert_true(scratch_same(scene->model, scene->target, "small.bin"));
  assert_true(scratch_same(scene->model, scene->target, "empty.txt"));
}

/* --- */

static void test_null(void **state) {
  struct sprout_fork_options options = {.model = "model", .label = "step-5"};
  struct sprout_fork_result result = run(*state, &options);

  expect_ok(&result);
  assert_int_equal(result.verified, SPROUT_VERIFIED_XXH3);
  assert_int_equal(result.progress.total_bytes, BIG_BYTES + 300);
  assert_int_equal(result.progress.done_bytes, BIG_BYTES + 300);
  assert_int_equal(result.progress.received_bytes, BIG_BYTES + 300);
  assert_int_equal(result.progress.source_count, 1);
  assert_int_equal(strlen(result.manifest_id), 32);
  assert_string_equal(result.label, "step-5");
  assert_true(result.seconds > 0 && result.manifest_seconds > 0);
  options.no_verify = true;
  result = run(*state, &options);
  expect_ok(&result);
  assert_int_equal(result.verified, SPROUT_VERIFIED_NONE);
}

static void test_directory(void **state) {
  struct scene *scene = *state;
  struct sprout_fork_options options = {.directory = scene->target, .connections = 3};
  struct sprout_fork_result result = run(scene, &options);

  expect_ok(&result);
  expect_target(scene);
  result = run(scene, &options);
  expect_ok(&result);
  assert_int_equal(result.progress.reused_bytes, BIG_BYTES + 300);
  assert_int_equal(result.progress.received_bytes, 0);
}

static void test_globs(void **state) {
  struct scene *scene = *state;
  const char *const include[] = {"*.bin"}, *const exclude[] = {"big*"};
  struct sprout_fork_options options = {.directory = scene->target,
                                        .include = include,
                                        .include_count = 1,
                                        .exclude = exclude,
                                        .exclude_count = 1};
  struct sprout_fork_result result = run(scene, &options);

  expect_ok(&result);
  assert_true(scratch_has(scene->target, "small.bin"));
  assert_false(scratch_has(scene->target, "big.bin"));
  assert_false(scratch_has(scene->target, "empty.txt"));
}

static void count_differs(void *context, const char *file, uint64_t wrong_bytes,
                          uint64_t missing_bytes) {
  unsigned *counts = context;

  if (strcmp(file, "big.bin") == 0 && wrong_bytes > 0 && missing_bytes == 0) counts[0]++;
  if (strcmp(file, "small.bin") == 0 && wrong_bytes == 0 && missing_bytes == 300) counts[1]++;
}

static void test_verify_only(void **state) {
  struct scene *scene = *state;
  unsigned counts[2] = {0, 0};
  struct sprout_fork_options options = {.directory = scene->target};
  struct sprout_fork_result result = run(scene, &options);

  expect_ok(&result);
  options.verify_only = true;
  options.differs = count_differs;
  options.context = counts;
  result = run(scene, &options);
  expect_ok(&result);
  scratch_write(scene->target, "big.bin", BIG_BYTES, 9);
  scratch_write(scene->target, "small.bin", 299, 2);
  result = run(scene, &options);
  assert_int_equal(result.status, SPROUT_MISMATCH);
  assert_int_equal(counts[0], 1);
  assert_int_equal(counts[1], 1);
}

static void test_dry_run(void **state) {
  struct scene *scene = *state;
  struct sprout_fork_options options = {.directory = scene->target, .dry_run = true};
  struct sprout_fork_result result = run(scene, &options);

  expect_ok(&result);
  assert_false(scratch_has(scene->root, "target"));
  assert_int_equal(result.progress.received_bytes, 0);
}

static void test_tensors(void **state) {
  struct scene *scene = *state;
  static unsigned char from[6000], to[6000], again[24];
  struct sprout_tensor seeded[] = {{.name = "a",
                                    .dtype = "U8",
                                    .rank = 1,
                                    .shape = {5000},
                                    .address = from,
                                    .length_bytes = 5000},
                                   {.name = "b",
                                    .dtype = "F32",
                                    .rank = 2,
                                    .shape = {2, 3},
                                    .address = from + 5000,
                                    .length_bytes = 24},
                                   {.name = "b_tied",
                                    .dtype = "F32",
                                    .rank = 2,
                                    .shape = {2, 3},
                                    .address = from + 5000,
                                    .length_bytes = 24}};
  struct sprout_tensor wanted[3];
  struct sprout_fork_options options = {.tensors = wanted, .tensor_count = 3};
  struct sprout_fork_result result;

  for (size_t i = 0; i < sizeof(from); i++) from[i] = (unsigned char)(i * 11 + i / 256);
  stop_seed(scene);
  start_seed(scene, seeded, 3);
  memcpy(wanted, seeded, sizeof(wanted));
  wanted[0].address = to;
  wanted[1].address = to + 5500;
  wanted[2].address = again;
  result = run(scene, &options);
  expect_ok(&result);
  assert_memory_equal(to, from, 5000);
  assert_memory_equal(to + 5500, from + 5000, 24);
  assert_memory_equal(again, from + 5000, 24);
  options.tensor_count = 1; /* a part of them */
  result = run(scene, &options);
  expect_ok(&result);
  assert_int_equal(result.progress.total_bytes, 5000);
  wanted[0].dtype = "I8";
  result = run(scene, &options);
  assert_int_equal(result.status, SPROUT_MISMATCH);
  assert_non_null(strstr(result.error.message, "a is I8[5000] here, U8[5000] at the seed"));
}

/* Tensors that need care: none of their bytes, other strides, bytes within another's; and every
 * difference is told at once, before a byte lands. */
static void test_odd_tensors(void **state) {
  struct scene *scene = *state;
  static unsigned char from[6000], to[6000], inner[64];
  struct sprout_tensor seeded[] = {{.name = "empty", .dtype = "F32", .rank = 2, .shape = {0, 4}},
                                   {.name = "transposed",
                                    .dtype = "F32",
                                    .rank = 2,
                                    .shape = {30, 50},
                                    .strides = {1, 30},
                                    .address = from,
                                    .length_bytes = 6000},
                                   {.name = "within",
                                    .dtype = "U8",
                                    .rank = 1,
                                    .shape = {64},
                                    .address = from + 100,
                                    .length_bytes = 64}};
  struct sprout_tensor wanted[3];
  struct sprout_fork_options options = {.tensors = wanted, .tensor_count = 3};
  struct sprout_fork_result result;

  for (size_t i = 0; i < sizeof(from); i++) from[i] = (unsigned char)(i * 7 + i / 256);
  stop_seed(scene);
  start_seed(scene, seeded, 3);
  memcpy(wanted, seeded, sizeof(wanted));
  wanted[1].address = to;
  wanted[2].address = inner;
  result = run(scene, &options);
  expect_ok(&result);
  assert_memory_equal(to, from, 6000);
  assert_memory_equal(inner, from + 100, 64);
  memset(to, 0, sizeof(to));
  wanted[0].shape[1] = 5;
  memset(wanted[1].strides, 0, sizeof(wanted[1].strides));
  wanted[2].name = "without";
  result = run(scene, &options);
  assert_int_equal(result.status, SPROUT_MISMATCH);
  assert_non_null(strstr(result.error.message, "empty is F32[0,5] here, F32[0,4] at the seed"));
  assert_non_null(strstr(result.error.message, "transposed has other strides at the seed"));
  assert_non_null(strstr(result.error.message, "without is not at the seed"));
  for (size_t i = 0; i < sizeof(to); i++) assert_int_equal(to[i], 0);
}

static void test_file_alone(void **state) {
  struct scene *scene = *state;
  char url[SCRATCH_PATH_BYTES + 16];
  const char *urls[] = {url};
  struct sprout_fork_options options = {.urls = urls, .url_count = 1, .directory = scene->target};
  struct sprout_fork_result result;

  snprintf(url, sizeof(url), "file://%s", scene->model);
  result = run(scene, &options);
  expect_ok(&result);
  assert_int_equal(result.verified, SPROUT_VERIFIED_XXH3);
  expect_target(scene);
}

/* The seed is gone: the directory steps in. */
static void test_last_resort(void **state) {
  struct scene *scene = *state;
  char file[SCRATCH_PATH_BYTES + 16];
  const char *urls[] = {file, scene->url};
  struct sprout_fork_options options = {.urls = urls, .url_count = 2, .directory = scene->target};
  struct sprout_fork_result result;

  snprintf(file, sizeof(file), "file://%s", scene->model);
  result = run(scene, &options);
  expect_ok(&result);
  for (uint32_t i = 0; i < result.progress.source_count; i++) /* not used while a seed lives */
    assert_true(result.progress.received_bytes == BIG_BYTES + 300);
  stop_seed(scene);
  options.force = true;
  options.no_verify = true;
  result = run(scene, &options);
  expect_ok(&result);
  expect_target(scene);
}

/* A name with several addresses is several sources; that one of them is dead does not matter. */
static void test_name(void **state) {
  struct scene *scene = *state;
  char url[96];
  const char *urls[] = {url};
  struct sprout_fork_options options = {.urls = urls, .url_count = 1};
  struct sprout_fork_result result;

  snprintf(url, sizeof(url), "http://localhost%s", strrchr(scene->url, ':'));
  result = run(scene, &options);
  expect_ok(&result);
}

static void test_no_source(void **state) {
  struct scene *scene = *state;
  struct sprout_fork_options options = {.model = NULL};
  struct sprout_fork_result result;
  const char *const nowhere[] = {"http://does-not-exist.invalid"};

  options.urls = nowhere;
  options.url_count = 1;
  result = run(scene, &options);
  assert_int_equal(result.status, SPROUT_NO_SOURCE);
  assert_non_null(strstr(result.error.message, "does-not-exist.invalid"));
  stop_seed(scene);
  options.urls = NULL;
  result = run(scene, &options);
  assert_int_equal(sprout_status_info_of(result.status)->exit_code, 4);
  assert_true(result.error.message[0] != '\0');
}

static void test_refused_options(void **state) {
  struct scene *scene = *state;
  const char *const good[] = {"http://127.0.0.1:1"}, *const bad[] = {"ftp://x"};
  const char *const none[] = {NULL};
  static const char *many[SPROUT_MAX_SOURCES + 1];
  static char buffer[4];
  const struct sprout_tensor tensor = {
      .name = "a", .dtype = "F32", .address = buffer, .length_bytes = 4};
  const size_t size = sizeof(struct sprout_fork_options);
  for (size_t i = 0; i <= SPROUT_MAX_SOURCES; i++) many[i] = good[0];
  const struct sprout_fork_options rows[] = {
      {.urls = good, .url_count = 1},
      {.struct_bytes = size},
      {.struct_bytes = size, .urls = bad, .url_count = 1},
      {.struct_bytes = size, .urls = many, .url_count = SPROUT_MAX_SOURCES + 1},
      {.struct_bytes = size,
       .urls = good,
       .url_count = 1,
       .directory = "/tmp",
       .tensors = &tensor,
       .tensor_count = 1},
      {.struct_bytes = size, .urls = good, .url_count = 1, .connections = 17},
      {.struct_bytes = size, .urls = good, .url_count = 1, .verify_only = true},
      {.struct_bytes = size, .urls = good, .url_count = 1, .tensor_count = 1},
      {.struct_bytes = size, .urls = good, .url_count = 1, .tensors = &tensor},
      {.struct_bytes = size, .urls = none, .url_count = 1},
      {.struct_bytes = size, .urls = good, .url_count = 1, .include_count = 1},
      {.struct_bytes = size, .urls = good, .url_count = 1, .exclude = none, .exclude_count = 1},
      {.struct_bytes = size, .urls = good, .url_count = 1, .token = "a\r\nX-Other: b"},
      {.struct_bytes = size, .urls = good, .url_count = 1, .token_file = "/nowhere/token"},
  };
  struct sprout_fork *fork = NULL;
  struct sprout_error error;

  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    error.message[0] = '\0';
    if (sprout_fork_create(scene->service, &rows[i], &fork, &error) != SPROUT_INVALID)
      fail_msg("row %zu", i);
    assert_true(error.message[0] != '\0');
  }
}

/* --- callbacks, cancelling, destroying --- */

struct watch {
  struct sprout_fork *fork;
  atomic_uint progress, finished;
  uint64_t last_done_bytes;
  bool cancel_in_progress, destroy_in_finished;
  atomic_bool created;
};

static void on_progress(void *context, const struct sprout_fork_progress *progress) {
  struct watch *watch = context;

  assert_true(progress->done_bytes >= watch->last_done_bytes);
  watch->last_done_bytes = progress->done_bytes;
  atomic_fetch_add(&watch->progress, 1);
  if (watch->cancel_in_progress && atomic_load(&watch->created)) sprout_fork_cancel(watch->fork);
}

static void on_finished(void *context, const struct sprout_fork_result *result) {
  struct watch *watch = context;

  (void)result;
  if (watch->destroy_in_finished) {
    while (!atomic_load(&watch->created)) {
    }
    sprout_fork_destroy(watch->fork);
  }
  atomic_fetch_add(&watch->finished, 1);
}

static struct sprout_fork_options watched(struct watch *watch, const char *const *urls) {
  return (struct sprout_fork_options){.struct_bytes = sizeof(struct sprout_fork_options),
                                      .urls = urls,
                                      .url_count = 1,
                                      .progress = on_progress,
                                      .finished = on_finished,
                                      .progress_interval_ns = 1000000,
                                      .context = watch};
}

static void test_cancel_in_progress(void **state) {
  struct scene *scene = *state;
  const char *urls[] = {scene->url};
  struct watch watch = {.cancel_in_progress = true};
  struct sprout_fork_options options = watched(&watch, urls);
  struct sprout_error error;

  options.max_rate = 1000000; /* slow enough */
  assert_int_equal(sprout_fork_create(scene->service, &options, &watch.fork, &error), SPROUT_OK);
  atomic_store(&watch.created, true);
  assert_int_equal(sprout_fork_wait(watch.fork)->status, SPROUT_CANCELLED);
  assert_true(atomic_load(&watch.progress) > 0);
  sprout_fork_destroy(watch.fork);
  assert_int_equal(atomic_load(&watch.finished), 1);
}

static void test_destroy_running(void **state) {
  struct scene *scene = *state;
  const char *urls[] = {scene->url};
  struct sprout_error error;

  for (int i = 0; i < 20; i++) {
    struct watch watch = {.fork = NULL};
    struct sprout_fork_options options = watched(&watch, urls);
    options.directory = i % 2 == 0 ? scene->target : NULL;
    if (i % 3 == 0) options.max_rate = 1000000;
    assert_int_equal(sprout_fork_create(scene->service, &options, &watch.fork, &error), SPROUT_OK);
    while (atomic_load(&watch.progress) < (unsigned)i % 4 && atomic_load(&watch.finished) == 0)
      sched_yield();
    sprout_fork_destroy(watch.fork);
    assert_int_equal(atomic_load(&watch.finished), 1);
  }
}

static void test_destroy_in_finished(void **state) {
  struct scene *scene = *state;
  const char *urls[] = {scene->url};
  struct watch watch = {.destroy_in_finished = true};
  struct sprout_fork_options options = watched(&watch, urls);
  struct sprout_error error;

  assert_int_equal(sprout_fork_create(scene->service, &options, &watch.fork, &error), SPROUT_OK);
  atomic_store(&watch.created, true);
  while (atomic_load(&watch.finished) == 0) sched_yield();
}

/* A service that runs nowhere: the fork is created, and destroyed without ever running. */
static void test_service_not_running(void **state) {
  struct scene *scene = *state;
  const char *urls[] = {scene->url};
  struct watch watch = {.fork = NULL};
  struct sprout_fork_options options = watched(&watch, urls);
  struct sprout_service *service = NULL;
  struct sprout_error error;

  assert_int_equal(sprout_service_create(NULL, &service, &error), SPROUT_OK);
  assert_int_equal(sprout_fork_create(service, &options, &watch.fork, &error), SPROUT_OK);
  sprout_fork_destroy(watch.fork);
  sprout_service_destroy(service);
  assert_int_equal(atomic_load(&watch.finished), 1);
}

/* Several forks at once in one service. */
static void test_many(void **state) {
  enum { FORKS = 12 };
  struct scene *scene = *state;
  const char *urls[] = {scene->url};
  struct watch watches[FORKS] = {{.fork = NULL}};
  struct sprout_error error;

  for (int i = 0; i < FORKS; i++) {
    struct sprout_fork_options options = watched(&watches[i], urls);
    assert_int_equal(sprout_fork_create(scene->service, &options, &watches[i].fork, &error),
                     SPROUT_OK);
  }
  for (int i = 0; i < FORKS; i++) {
    expect_ok(sprout_fork_wait(watches[i].fork));
    sprout_fork_destroy(watches[i].fork);
  }
}

#ifdef SPROUT_FAULTS
struct fault {
  uint64_t at, seen;
  int32_t result;
  bool hit;
};

static int32_t inject(void *context, uint64_t number, const struct ring_op *op, int32_t result) {
  struct fault *fault = context;

  (void)number;
  if (op->kind == RING_READ || fault->seen++ != fault->at) return result; /* the reactor's wake */
  fault->hit = true;
  return fault->result;
}

/* Each completion in turn fails: the fork ends well or with a cause, and a directory is then
 * whole or resumable. */
static void test_completion_faults(void **state) {
  struct scene *scene = *state;
  bool hit = true;

  for (uint64_t at = 0; hit; at += 1 + at / 8) {
    struct fault fault = {.at = at, .result = at % 2 == 0 ? -ECONNRESET : -ENOSPC};
    struct sprout_fork_options options = {.directory = scene->target, .timeout_ns = 20000000000ull};
    struct sprout_service *service = scene->service;
    struct sprout_error error;

    assert_int_equal(sprout_service_create(NULL, &scene->service, &error), SPROUT_OK);
    ring_fault_set(reactor_ring(service_reactor(scene->service)), inject, &fault);
    assert_int_equal(sprout_service_start(scene->service, &error), SPROUT_OK);
    struct sprout_fork_result result = run(scene, &options);
    sprout_service_destroy(scene->service);
    scene->service = service;
    hit = fault.hit;
    if (result.status != SPROUT_OK) {
      assert_true(hit && result.error.message[0] != '\0');
      result = run(scene, &options); /* goes on where that one stopped */
      expect_ok(&result);
    }
    expect_target(scene);
    scratch_remove(scene->target);
  }
}
#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_null),
      TEST(test_directory),
      TEST(test_globs),
      TEST(test_verify_only),
      TEST(test_dry_run),
      TEST(test_tensors),
      TEST(test_odd_tensors),
      TEST(test_file_alone),
      TEST(test_last_resort),
      TEST(test_name),
      TEST(test_no_source),
      TEST(test_refused_options),
      TEST(test_cancel_in_progress),
      TEST(test_destroy_running),
      TEST(test_destroy_in_finished),
      TEST(test_service_not_running),
      TEST(test_many),
#ifdef SPROUT_FAULTS
      TEST(test_completion_faults),
#endif
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
