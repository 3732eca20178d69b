/* SPDX-License-Identifier: Apache-2.0 */
/*
 * many_forks URL COUNT TRANSPORTS: COUNT verified forks of a seed at once in one process, which
 * keep nothing. Prints one JSON line: the bytes of one fork, the time from the first start to the
 * last end, and the time of each fork; exit 0 only when all are complete.
 */
#include "sprout/sprout.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define FORKS_MAX 256

static double now_seconds(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void die(const struct sprout_error *error) {
  fprintf(stderr, "many_forks: %s %s\n", error->message, error->hint);
  exit(1);
}

/* Waits for all and prints; how many are not complete. */
static int report(struct sprout_fork **forks, long count, double begun) {
  int failed = 0;
  for (long i = 0; i < count; i++) {
    const struct sprout_fork_result *result = sprout_fork_wait(forks[i]);
    if (result->status == SPROUT_OK && result->verified == SPROUT_VERIFIED_XXH3) continue;
    fprintf(stderr, "many_forks: fork %ld: %s\n", i, result->error.message);
    failed++;
  }
  double wall = now_seconds() - begun;
  printf("{\"bytes\": %llu, \"wall\": %.6f, \"seconds\": [",
         (unsigned long long)sprout_fork_wait(forks[0])->progress.done_bytes, wall);
  for (long i = 0; i < count; i++)
    printf("%s%.6f", i == 0 ? "" : ", ", sprout_fork_wait(forks[i])->seconds);
  printf("]}\n");
  return failed;
}

int main(int argc, char **argv) {
  static struct sprout_fork *forks[FORKS_MAX];
  long count = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
  if (count < 1 || count > FORKS_MAX) {
    fprintf(stderr, "usage: many_forks URL COUNT TRANSPORTS (at most %d)\n", FORKS_MAX);
    return 2;
  }
  const char *url = argv[1];
  struct sprout_error error;
  struct sprout_service *service;
  if (sprout_service_create(NULL, &service, &error) != SPROUT_OK) die(&error);
  if (sprout_service_start(service, &error) != SPROUT_OK) die(&error);
  const struct sprout_fork_options options = {
      .struct_bytes = sizeof(options), .urls = &url, .url_count = 1, .transports = argv[3]};
  double begun = now_seconds();
  for (long i = 0; i < count; i++)
    if (sprout_fork_create(service, &options, &forks[i], &error) != SPROUT_OK) die(&error);
  int failed = report(forks, count, begun);
  for (long i = 0; i < count; i++) sprout_fork_destroy(forks[i]);
  sprout_service_destroy(service);
  return failed != 0;
}
