/* SPDX-License-Identifier: Apache-2.0 */
/*
 * late_bytes URL SEED_PID RUNS SEED: forks a model into memory again and again, makes each fork
 * fail (the seed is stopped) or cancels it at a random byte, refills the memory with a pattern,
 * lets the seed go on, and counts bytes that changed afterwards. SEED_PID 0: cancels them all;
 * negative: kills the seed -SEED_PID in the first run and looks for bytes for a while. Prints one
 * JSON line; exit 0 only when no byte changed and the runs were cut short.
 */
#include "sprout/sprout.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN 0xA5
#define KILLED_WAIT_MS 300

struct run {
  _Atomic(struct sprout_fork *) fork; /* callbacks may come before create has returned */
  uint64_t cut_at_bytes;
  pid_t seed_pid; /* 0: cancel instead of stopping the seed; negative: kill it */
  atomic_bool cut;
};

static void cut_short(void *context, const struct sprout_fork_progress *progress) {
  struct run *run = context;
  struct sprout_fork *fork = atomic_load(&run->fork);
  if (!fork || progress->received_bytes < run->cut_at_bytes || atomic_exchange(&run->cut, true))
    return;
  if (run->seed_pid < 0) {
    kill(-run->seed_pid, SIGKILL);
  } else if (run->seed_pid > 0) {
    kill(run->seed_pid, SIGSTOP);
  } else {
    sprout_fork_cancel(fork);
  }
}

static void die(const char *what, const struct sprout_error *error) {
  fprintf(stderr, "late_bytes: %s: %s\n", what, error->message);
  exit(1);
}

/* Destination tensors for every tensor of the seed's manifest, in one block of memory. */
static size_t make_tensors(const struct sprout_manifest *manifest,
                           struct sprout_tensor **tensors_out, unsigned char **memory_out,
                           uint64_t *bytes_out) {
  struct sprout_manifest_info info;
  sprout_manifest_info(manifest, &info);
  struct sprout_tensor *tensors = calloc(info.object_count, sizeof *tensors);
  unsigned char *memory = malloc(info.total_bytes + 1);
  if (!tensors || !memory) abort();
  size_t count = 0;
  uint64_t used = 0;
  for (uint32_t i = 0; i < info.object_count; i++) {
    struct sprout_object_info object;
    if (sprout_manifest_object(manifest, i, &object) != SPROUT_OK) abort();
    if (object.kind != SPROUT_OBJECT_TENSOR) continue;
    struct sprout_tensor *tensor = &tensors[count++];
    tensor->name = object.name;
    tensor->dtype = object.dtype;
    tensor->rank = object.rank;
    memcpy(tensor->shape, object.shape, sizeof tensor->shape);
    tensor->address = memory + used;
    tensor->length_bytes = object.length_bytes;
    used += object.length_bytes;
  }
  *tensors_out = tensors;
  *memory_out = memory;
  *bytes_out = used;
  return count;
}

static uint64_t count_changed(const unsigned char *memory, uint64_t bytes) {
  uint64_t changed = 0;
  for (uint64_t i = 0; i < bytes; i++) changed += memory[i] != PATTERN;
  return changed;
}

/* Returns when what the seed still had to send has been sent or dropped. */
static void settle(const char *url, pid_t seed_pid) {
  struct sprout_error error;
  char *json;
  if (seed_pid < 0) { /* adapters may have more to say than the process */
    poll(NULL, 0, KILLED_WAIT_MS);
    return;
  }
  if (seed_pid > 0) kill(seed_pid, SIGCONT);
  if (sprout_json_fetch(url, "/v1/status", NULL, &json, &error) != SPROUT_OK) die("status", &error);
  sprout_json_free(json);
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: late_bytes URL SEED_PID RUNS SEED\n");
    return 2;
  }
  const char *url = argv[1];
  pid_t seed_pid = (pid_t)strtol(argv[2], NULL, 10);
  long runs = strtol(argv[3], NULL, 10);
  unsigned short random_state[3] = {(unsigned short)strtol(argv[4], NULL, 10), 7, 117};
  struct sprout_error error;
  struct sprout_service *service;
  struct sprout_manifest *manifest;
  if (sprout_service_create(NULL, &service, &error) != SPROUT_OK) die("service", &error);
  if (sprout_service_start(service, &error) != SPROUT_OK) die("start", &error);
  if (sprout_manifest_fetch(url, NULL, &manifest, &error) != SPROUT_OK) die("manifest", &error);

  struct sprout_tensor *tensors;
  unsigned char *memory;
  uint64_t bytes, changed = 0;
  long cut = 0;
  size_t count = make_tensors(manifest, &tensors, &memory, &bytes);
  for (long i = 0; i < runs; i++) {
    struct run run = {.cut_at_bytes = (uint64_t)(erand48(random_state) * (double)bytes * 0.5) + 1,
                      .seed_pid = i % 2 || seed_pid < 0 ? seed_pid : 0};
    struct sprout_fork_options options = {.struct_bytes = sizeof options,
                                          .urls = &url,
                                          .url_count = 1,
                                          .tensors = tensors,
                                          .tensor_count = count,
                                          .stall_timeout_ns = 200000000,
                                          .progress_interval_ns = 1000000,
                                          .progress = cut_short,
                                          .context = &run};
    struct sprout_fork *fork;
    if (sprout_fork_create(service, &options, &fork, &error) != SPROUT_OK) die("fork", &error);
    atomic_store(&run.fork, fork);
    const struct sprout_fork_result *result = sprout_fork_wait(fork);
    cut += result->status != SPROUT_OK;
    memset(memory, PATTERN, bytes);
    settle(url, seed_pid);
    sprout_fork_destroy(fork);
    changed += count_changed(memory, bytes);
  }
  printf("{\"runs\": %ld, \"cut_short\": %ld, \"changed_bytes\": %llu}\n", runs, cut,
         (unsigned long long)changed);
  free(tensors);
  free(memory);
  sprout_manifest_destroy(manifest);
  sprout_service_destroy(service);
  return changed || cut < runs / 2;
}
