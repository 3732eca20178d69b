/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_entry(const char *path, const struct stat *found, int kind, struct FTW *walk) {
  (void)found;
  (void)kind;
  (void)walk;
  return remove(path);
}

void scratch_make(char path_out[SCRATCH_PATH_BYTES]) {
  const char *base = getenv("TMPDIR");

  snprintf(path_out, SCRATCH_PATH_BYTES, "%s/sprout-test-XXXXXX", base != NULL ? base : "/tmp");
  assert_non_null(mkdtemp(path_out));
}

void scratch_remove(const char *path) {
  nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void name_of(const char *directory, const char *name,
                    char path_out[2 * SCRATCH_PATH_BYTES]) {
  int written = snprintf(path_out, 2 * SCRATCH_PATH_BYTES, "%s/%s", directory, name);

  assert_true(written > 0 && written < 2 * SCRATCH_PATH_BYTES);
}

void scratch_write(const char *directory, const char *name, size_t length, unsigned salt) {
  char path[2 * SCRATCH_PATH_BYTES];
  FILE *file = NULL;

  name_of(directory, name, path);
  if (strchr(name, '/') != NULL) {
    *strrchr(path, '/') = '\0';
    (void)mkdir(path, 0777);
    name_of(directory, name, path);
  }
  file = fopen(path, "we");
  assert_non_null(file);
  for (size_t i = 0; i < length; i++) fputc((int)((i * 7 + (i >> 10) * 3 + salt) & 0xff), file);
  assert_int_equal(fclose(file), 0);
}

bool scratch_has(const char *directory, const char *name) {
  char path[2 * SCRATCH_PATH_BYTES];

  name_of(directory, name, path);
  return access(path, F_OK) == 0;
}

bool scratch_same(const char *directory_a, const char *directory_b, const char *name) {
  char path[2 * SCRATCH_PATH_BYTES];
  FILE *a = NULL, *b = NULL;
  int byte = 0;
  bool same = true;

  name_of(directory_a, name, path);
  a = fopen(path, "re");
  name_of(directory_b, name, path);
  b = fopen(path, "re");
  assert_non_null(a);
  if (b == NULL) same = false;
  while (same && byte != EOF) {
    byte = fgetc(a);
    same = byte == fgetc(b);
  }
  fclose(a);
  if (b != NULL) fclose(b);
  return same;
}
