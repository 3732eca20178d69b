/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seed_house LEASE_MS TRANSPORTS PATH...: seeds that live in one process, one for each PATH, with
 * leases of that length. Prints a JSON line with the url of each, then does what it reads:
 * "destroy N" ends seed number N and says so. Ends them all at the end of its input.
 */
#include "sprout/sprout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS_MAX 8

static void die(const char *what, const struct sprout_error *error) {
  fprintf(stderr, "seed_house: %s: %s %s\n", what, error->message, error->hint);
  exit(1);
}

static struct sprout_seed *settle(struct sprout_service *service, const char *const *path,
                                  const char *transports, uint64_t lease_ms) {
  struct sprout_seed_options options = {.struct_bytes = sizeof options,
                                        .paths = path,
                                        .path_count = 1,
                                        .listen = "127.0.0.1:0",
                                        .lease_ns = lease_ms * 1000000u,
                                        .transports = transports};
  struct sprout_error error;
  struct sprout_seed *seed;
  if (sprout_seed_create(service, &options, &seed, &error) != SPROUT_OK) die(*path, &error);
  return seed;
}

static void print_url(struct sprout_seed *seed) {
  struct sprout_seed_status status;
  sprout_seed_status(seed, &status);
  printf("{\"url\": \"http://%s\"}\n", status.listen);
  fflush(stdout);
}

static void obey(struct sprout_seed **seeds, size_t count) {
  static const char order[] = "destroy ";
  char line[64];
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (strncmp(line, order, strlen(order)) != 0) continue;
    size_t which = strtoul(line + strlen(order), NULL, 10);
    if (which >= count) continue;
    sprout_seed_destroy(seeds[which]);
    seeds[which] = NULL;
    printf("{\"destroyed\": %zu}\n", which);
    fflush(stdout);
  }
}

int main(int argc, char **argv) {
  size_t count = argc > 3 ? (size_t)argc - 3 : 0;
  if (count == 0 || count > SEEDS_MAX) {
    fprintf(stderr, "usage: seed_house LEASE_MS TRANSPORTS PATH...\n");
    return 2;
  }
  struct sprout_error error;
  struct sprout_service *service;
  struct sprout_seed *seeds[SEEDS_MAX];
  if (sprout_service_create(NULL, &service, &error) != SPROUT_OK) die("service", &error);
  if (sprout_service_start(service, &error) != SPROUT_OK) die("start", &error);
  for (size_t i = 0; i < count; i++)
    seeds[i] =
        settle(service, (const char *const *)argv + 3 + i, argv[2], strtoull(argv[1], NULL, 10));
  for (size_t i = 0; i < count; i++) print_url(seeds[i]);
  obey(seeds, count);
  for (size_t i = 0; i < count; i++) sprout_seed_destroy(seeds[i]);
  sprout_service_destroy(service);
  return 0;
}
