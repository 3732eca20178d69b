/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded library: the SPROUT_FAIL_ALLOC-th allocation of the process (counted from 0, over
 * malloc, calloc, realloc, all threads) fails. With SPROUT_FAIL_ALLOC_EVERY=1 all later ones fail
 * as well.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *pointer, size_t size);

static atomic_long counted;
static long failing = -1;
static int every;

__attribute__((constructor)) static void read_environment(void) {
  const char *number = getenv("SPROUT_FAIL_ALLOC");
  every = getenv("SPROUT_FAIL_ALLOC_EVERY") != NULL;
  atomic_store(&counted, 0);
  failing = number ? strtol(number, NULL, 10) : -1;
}

static int fails(void) {
  long number = atomic_fetch_add(&counted, 1);
  if (failing < 0 || !(number == failing || (every && number > failing))) return 0;
  errno = ENOMEM;
  return 1;
}

__attribute__((visibility("default"))) void *malloc(size_t size) {
  return fails() ? NULL : __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t size) {
  return fails() ? NULL : __libc_calloc(count, size);
}

__attribute__((visibility("default"))) void *realloc(void *pointer, size_t size) {
  return fails() ? NULL : __libc_realloc(pointer, size);
}
