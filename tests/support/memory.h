/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that runs out on purpose. Included by the one source file of a test program, it replaces
 * malloc, calloc and realloc of the whole program (so it cannot stand in a library: that would
 * replace them everywhere). Sanitizers bring their own, so there nothing can be made to fail. One
 * thread.
 */
#ifndef TESTS_SUPPORT_MEMORY_H
#define TESTS_SUPPORT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_OWN_ALLOCATOR 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEMORY_OWN_ALLOCATOR 0
#endif
#endif
#ifndef MEMORY_OWN_ALLOCATOR
#define MEMORY_OWN_ALLOCATOR 1
#endif

static long memory_left = -1; /* negative: no end */
static bool memory_failed;

/* False under a sanitizer: skip the test. */
static inline bool memory_can_fail(void) {
  if (!MEMORY_OWN_ALLOCATOR)
    printf("a sanitizer has an allocator of its own: see the debug build\n");
  return MEMORY_OWN_ALLOCATOR;
}

/* The next `count` allocations succeed, all after them fail. */
static inline void memory_fail_after(long count) {
  memory_failed = false;
  memory_left = count;
}

/* All succeed again; true when one failed since memory_fail_after. */
static inline bool memory_restore(void) {
  memory_left = -1;
  return memory_failed;
}

#if MEMORY_OWN_ALLOCATOR

/* glibc's own allocator under its other names. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *memory, size_t bytes);

static bool memory_allowed(void) {
  if (memory_left < 0) return true;
  if (memory_left == 0) {
    memory_failed = true;
    return false;
  }
  memory_left--;
  return true;
}

void *malloc(size_t bytes) {
  return memory_allowed() ? __libc_malloc(bytes) : NULL;
}

void *calloc(size_t count, size_t bytes) {
  return memory_allowed() ? __libc_calloc(count, bytes) : NULL;
}

void *realloc(void *memory, size_t bytes) {
  return memory_allowed() ? __libc_realloc(memory, bytes) : NULL;
}

#endif
#endif
