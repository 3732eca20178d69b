/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of its own for a test, and files in it. Whatever goes wrong fails the test.
 */
#ifndef TESTS_SUPPORT_SCRATCH_H
#define TESTS_SUPPORT_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

#define SCRATCH_PATH_BYTES 256

/* Makes a directory and writes its path. */
void scratch_make(char path_out[SCRATCH_PATH_BYTES]);
/* Removes it and all that is in it. */
void scratch_remove(const char *path);
/* Writes `length` bytes that depend on `salt` into directory/name, making one level of directory
 * when name has one. */
void scratch_write(const char *directory, const char *name, size_t length, unsigned salt);
bool scratch_same(const char *directory_a, const char *directory_b, const char *name);
bool scratch_has(const char *directory, const char *name);
#endif
