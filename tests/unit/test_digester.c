/* SPDX-License-Identifier: Apache-2.0 */
#include "core/digester.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define LARGE_BYTES (9u * 1024u * 1024u) /* three chunks, the last one shorter */
#define GIGABYTE 1000000000ull

struct world {
  struct reactor *reactor;
  struct model *model;
  struct digester *digester;
  unsigned char *large;
  unsigned char small[100];
  char file[64];
};

static struct world world;

static int make_world(void **state) {
  (void)state;
  struct sprout_error error;
  memset(&world, 0, sizeof world);
  world.large = malloc(LARGE_BYTES);
  for (uint32_t i = 0; i < LARGE_BYTES; i++)
    world.large[i] = (unsigned char)(i * 2654435761u >> 24);
  memset(world.small, 7, sizeof world.small);
  struct sprout_tensor tensors[2] = {{.name = "large",
                                      .dtype = "U8",
                                      .rank = 1,
                                      .shape = {LARGE_BYTES},
                                      .address = world.large,
                                      .length_bytes = LARGE_BYTES},
                                     {.name = "small",
                                      .dtype = "U8",
                                      .rank = 1,
                                      .shape = {100},
                                      .address = world.small,
                                      .length_bytes = 100}};
  struct model_options options = {.name = "m"};
  struct reactor_options reactor_options = {.workers = 2};
  assert_int_equal(reactor_create(&reactor_options, &world.reactor, &error), SPROUT_OK);
  assert_int_equal(model_from_tensors(tensors, 2, true, &options, &world.model, &error), SPROUT_OK);
  return 0;
}

static bool stopped_flag;
static void note_stopped(void *context) {
  *(bool *)context = true;
}

static int end_world(void **state) {
  (void)state;
  if (world.digester) {
    stopped_flag = false;
    digester_stop(world.digester, note_stopped, &stopped_flag);
    while (!stopped_flag) reactor_tick(world.reactor, UINT64_MAX);
    digester_destroy(world.digester);
  }
  model_destroy(world.model);
  reactor_leave(world.reactor);
  reactor_destroy(world.reactor);
  free(world.large);
  if (world.file[0]) unlink(world.file);
  return 0;
}

static void make_digester(uint64_t rate) {
  assert_int_equal(digester_create(world.reactor, world.model, rate, &world.digester), SPROUT_OK);
}

static void assert_digest(uint64_t chunk, const void *data, size_t length_bytes) {
  struct digest found, expected = digest_of(data, length_bytes);
  assert_true(digester_known(world.digester, chunk, &found));
  assert_true(digest_equal(&found, &expected));
}

static void background_finds_every_digest(void **state) {
  (void)state;
  make_digester(GIGABYTE);
  struct digest unused;
  assert_false(digester_known(world.digester, 0, &unused));
  assert_int_equal(digester_undigested_bytes(world.digester), LARGE_BYTES + 100);
  digester_start(world.digester);
  while (digester_undigested_bytes(world.digester) > 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_digest(0, world.large, SPROUT_CHUNK_BYTES);
  assert_digest(1, world.large + SPROUT_CHUNK_BYTES, SPROUT_CHUNK_BYTES);
  assert_digest(2, world.large + 2 * SPROUT_CHUNK_BYTES, LARGE_BYTES - 2 * SPROUT_CHUNK_BYTES);
  assert_digest(3, world.small, 100);
}

struct waiter {
  struct digest_wait wait;
  unsigned done;
};

static void count_done(struct digest_wait *wait) {
  container_of(wait, struct waiter, wait)->done++;
}

static void a_wait_is_served_without_background_work(void **state) {
  (void)state;
  make_digester(1);
  struct waiter last = {.wait = {.first = 3, .count = 1, .done = count_done}};
  digester_wait(world.digester, &last.wait);
  assert_int_equal(last.done, 0); /* never from inside the call */
  while (last.done == 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_int_equal(last.done, 1);
  assert_false(last.wait.failed);
  assert_digest(3, world.small, 100);
  assert_int_equal(digester_undigested_bytes(world.digester), LARGE_BYTES);
}

static void waits_overlap_and_known_ones_are_answered_too(void **state) {
  (void)state;
  make_digester(1);
  struct waiter waiters[4];
  for (unsigned i = 0; i < 4; i++) {
    waiters[i] = (struct waiter){.wait = {.first = i / 2, .count = 2 + i % 2, .done = count_done}};
    digester_wait(world.digester, &waiters[i].wait);
  }
  for (unsigned i = 0; i < 4; i++) {
    while (waiters[i].done == 0) reactor_tick(world.reactor, UINT64_MAX);
  }
  struct waiter again = {.wait = {.first = 0, .count = 2, .done = count_done}};
  digester_wait(world.digester, &again.wait);
  while (again.done == 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_int_equal(again.done, 1);
}

static void a_cancelled_wait_is_not_answered(void **state) {
  (void)state;
  make_digester(1);
  struct waiter cancelled = {.wait = {.first = 0, .count = 3, .done = count_done}};
  struct waiter kept = {.wait = {.first = 0, .count = 3, .done = count_done}};
  digester_wait(world.digester, &cancelled.wait);
  digester_wait(world.digester, &kept.wait);
  digester_cancel(world.digester, &cancelled.wait);
  while (kept.done == 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_int_equal(cancelled.done, 0);
}

static void a_truncated_file_fails_its_waits_and_nothing_else(void **state) {
  (void)state;
  model_destroy(world.model);
  snprintf(world.file, sizeof world.file, "/tmp/sprout-digester-XXXXXX");
  int fd = mkstemp(world.file);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, world.large, LARGE_BYTES), LARGE_BYTES);
  struct sprout_error error;
  const char *path = world.file;
  struct model_options options = {.paths = &path, .path_count = 1};
  assert_int_equal(model_open(&options, &world.model, &error), SPROUT_OK);
  make_digester(1);
  assert_int_equal(ftruncate(fd, SPROUT_CHUNK_BYTES + 5), 0);
  struct waiter all = {.wait = {.first = 0, .count = 3, .done = count_done}};
  digester_wait(world.digester, &all.wait);
  while (all.done == 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_true(all.wait.failed);
  struct digest unused;
  assert_digest(0, world.large, SPROUT_CHUNK_BYTES);
  assert_false(digester_known(world.digester, 1, &unused));
  assert_false(digester_known(world.digester, 2, &unused));
  close(fd);
}

/* More chunks than one job takes; ties and empty tensors are nobody's chunk. */
static void many_small_chunks_are_all_found(void **state) {
  (void)state;
  enum { TENSORS = 5000, BYTES = 64 };
  model_destroy(world.model);
  struct sprout_tensor *tensors = calloc(TENSORS, sizeof *tensors);
  char(*names)[16] = calloc(TENSORS, sizeof *names);
  assert_true(tensors && names);
  for (size_t i = 0; i < TENSORS; i++) {
    snprintf(names[i], sizeof names[i], "%06zu", i);
    tensors[i] = (struct sprout_tensor){.name = names[i],
                                        .dtype = "U8",
                                        .rank = 1,
                                        .shape = {i % 3 == 1 ? 0 : BYTES},
                                        .address = world.large + (i - i % 3) * BYTES,
                                        .length_bytes = i % 3 == 1 ? 0 : BYTES};
  }
  struct model_options options = {.name = "m"};
  struct sprout_error error;
  assert_int_equal(model_from_tensors(tensors, TENSORS, true, &options, &world.model, &error),
                   SPROUT_OK);
  make_digester(0);
  digester_start(world.digester);
  while (digester_undigested_bytes(world.digester) > 0) reactor_tick(world.reactor, UINT64_MAX);
  const uint64_t chunks = world.model->manifest->chunk_count;
  assert_int_equal(chunks, (TENSORS + 2) / 3);
  for (uint64_t i = 0; i < chunks; i++) assert_digest(i, world.large + 3 * i * BYTES, BYTES);
  free(tensors);
  free(names);
}

/* Copies are digested through their mapping, and give what the file gave. */
static void a_copy_has_the_digests_of_its_file(void **state) {
  (void)state;
  model_destroy(world.model);
  snprintf(world.file, sizeof world.file, "/tmp/sprout-digester-XXXXXX");
  int fd = mkstemp(world.file);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, world.large, LARGE_BYTES), LARGE_BYTES);
  close(fd);
  struct sprout_error error;
  const char *path = world.file;
  struct model_options options = {.paths = &path, .path_count = 1, .memory = MODEL_MEMORY_HOST};
  assert_int_equal(model_open(&options, &world.model, &error), SPROUT_OK);
  assert_int_equal(truncate(world.file, 0), 0); /* nobody misses it */
  make_digester(0);
  digester_start(world.digester);
  while (digester_undigested_bytes(world.digester) > 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_digest(1, world.large + SPROUT_CHUNK_BYTES, SPROUT_CHUNK_BYTES);
  assert_digest(2, world.large + 2 * SPROUT_CHUNK_BYTES, LARGE_BYTES - 2 * SPROUT_CHUNK_BYTES);
}

/* --- bytes that change --- */

static void change_bytes(unsigned char by) {
  for (uint32_t i = 0; i < LARGE_BYTES; i++) world.large[i] = (unsigned char)(world.large[i] + by);
}

static void assert_all_digests(void) {
  assert_digest(0, world.large, SPROUT_CHUNK_BYTES);
  assert_digest(1, world.large + SPROUT_CHUNK_BYTES, SPROUT_CHUNK_BYTES);
  assert_digest(2, world.large + 2 * SPROUT_CHUNK_BYTES, LARGE_BYTES - 2 * SPROUT_CHUNK_BYTES);
  assert_digest(3, world.small, 100);
}

static void expect_nothing_known(void) {
  struct digest unused;
  for (uint64_t chunk = 0; chunk < 4; chunk++)
    assert_false(digester_known(world.digester, chunk, &unused));
  assert_int_equal(digester_undigested_bytes(world.digester), LARGE_BYTES + 100);
}

static void a_change_voids_all_digests(void **state) {
  (void)state;
  make_digester(0);
  digester_start(world.digester);
  while (digester_undigested_bytes(world.digester) > 0) reactor_tick(world.reactor, UINT64_MAX);
  digester_suspend(world.digester);
  expect_nothing_known();
  digester_quiesce(world.digester);
  change_bytes(1);
  for (int i = 0; i < 3; i++) reactor_tick(world.reactor, 0);
  expect_nothing_known();
  digester_resume(world.digester);
  while (digester_undigested_bytes(world.digester) > 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_all_digests();
}

/* A job that is on its way when the bytes change, however far it is, tells nothing of them. */
static void a_job_amid_a_change_tells_nothing(void **state) {
  (void)state;
  make_digester(0);
  digester_start(world.digester);
  for (int round = 0; round < 30; round++) {
    reactor_tick(world.reactor, 0); /* hands a job to a worker, or takes it back */
    if (round % 3 == 0) reactor_tick(world.reactor, 300000);
    digester_suspend(world.digester);
    digester_quiesce(world.digester);
    change_bytes((unsigned char)(round + 1)); /* a sanitizer would see a worker reading */
    expect_nothing_known();
    if (round % 2 == 0) reactor_tick(world.reactor, 100000);
    digester_resume(world.digester);
  }
  while (digester_undigested_bytes(world.digester) > 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_all_digests();
}

static void waits_end_stale_and_new_ones_wait_on(void **state) {
  (void)state;
  make_digester(1);
  struct waiter before = {.wait = {.first = 0, .count = 4, .done = count_done}}, during = before;
  digester_wait(world.digester, &before.wait);
  reactor_tick(world.reactor, 0);
  digester_suspend(world.digester);
  digester_wait(world.digester, &during.wait);
  assert_int_equal(before.done, 0); /* never from inside the call */
  while (before.done == 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_true(before.wait.stale);
  digester_quiesce(world.digester);
  change_bytes(1);
  for (int i = 0; i < 3; i++) reactor_tick(world.reactor, 0);
  assert_int_equal(during.done, 0);
  digester_resume(world.digester);
  while (during.done == 0) reactor_tick(world.reactor, UINT64_MAX);
  assert_false(during.wait.stale);
  assert_int_equal(before.done, 1);
  assert_all_digests();
}

/* Stopped while a job runs and a wait hangs: the job ends, no other begins, the wait is cancelled.
 */
static void a_stop_waits_for_the_running_job_only(void **state) {
  (void)state;
  make_digester(1);
  struct waiter waiter = {.wait = {.first = 0, .count = 4, .done = count_done}};
  digester_wait(world.digester, &waiter.wait);
  reactor_tick(world.reactor, 0); /* hands the job to a worker */
  stopped_flag = false;
  digester_stop(world.digester, note_stopped, &stopped_flag);
  assert_false(stopped_flag); /* never from inside the call */
  while (!stopped_flag) reactor_tick(world.reactor, UINT64_MAX);
  digester_cancel(world.digester, &waiter.wait);
  digester_destroy(world.digester);
  world.digester = NULL;
}

int main(void) {
#define ROW(test) cmocka_unit_test_setup_teardown(test, make_world, end_world)
  const struct CMUnitTest tests[] = {
      ROW(background_finds_every_digest),
      ROW(a_wait_is_served_without_background_work),
      ROW(waits_overlap_and_known_ones_are_answered_too),
      ROW(a_cancelled_wait_is_not_answered),
      ROW(a_truncated_file_fails_its_waits_and_nothing_else),
      ROW(many_small_chunks_are_all_found),
      ROW(a_copy_has_the_digests_of_its_file),
      ROW(a_change_voids_all_digests),
      ROW(a_job_amid_a_change_tells_nothing),
      ROW(waits_end_stale_and_new_ones_wait_on),
      ROW(a_stop_waits_for_the_running_job_only),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
