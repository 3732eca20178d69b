/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded library: the SPROUT_FAIL_ALLOC-th allocation of the process (counted from 0, over
 * malloc, calloc, realloc, all threads) fails. With SPROUT_FAIL_ALLOC_EVERY=1 all later ones fail
 * as well.
 *
 * Those of jansson are left alone: version 2.14 overruns its own buffer when its lexer cannot grow
 * one.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

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

static int from_jansson(const void *caller) {
  Dl_info info;
  return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "jansson") != NULL;
}

static int fails(const void *caller) {
  if (failing >= 0 && from_jansson(caller)) return 0;
  long number = atomic_fetch_add(&counted, 1);
  if (failing < 0 || !(number == failing || (every && number > failing))) return 0;
  errno = ENOMEM;
  return 1;
}

__attribute__((visibility("default"))) void *malloc(size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

__attribute__((visibility("default"))) void *realloc(void *pointer, size_t size) {
  return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(pointer, size);
}
