/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libFuzzer's main: feeds the empty input and every file of a kept corpus to a fuzz
 * target, so that what fuzzing once found is tested in every build. usage: PROGRAM CORPUS_DIR
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Inputs are made by people and by libFuzzer; neither makes them larger. */
enum { REPLAY_INPUT_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feeds one file in a buffer of exactly its size, so that a sanitizer sees reads past its end. */
static int replay_file(const char *path) {
  static uint8_t input[REPLAY_INPUT_MAX];
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    perror(path);
    return -1;
  }
  size_t size = fread(input, 1, sizeof(input), file);
  int failed = ferror(file) || fgetc(file) != EOF;
  fclose(file);
  uint8_t *exact = malloc(size > 0 ? size : 1);
  if (failed || exact == NULL) {
    fprintf(stderr, "%s: cannot be read, or larger than %d bytes\n", path, REPLAY_INPUT_MAX);
    free(exact);
    return -1;
  }
  memcpy(exact, input, size);
  printf("%s: %zu bytes\n", path, size);
  fflush(stdout); /* a crash must not lose the name of its input */
  LLVMFuzzerTestOneInput(exact, size);
  free(exact);
  return 0;
}

static int replay_corpus(const char *corpus_path) {
  DIR *corpus = opendir(corpus_path);
  if (corpus == NULL) {
    perror(corpus_path);
    return -1;
  }
  int count = 0;
  for (struct dirent *entry = readdir(corpus); entry != NULL && count >= 0;
       entry = readdir(corpus)) {
    char path[4096];
    if (entry->d_name[0] == '.') continue;
    int length = snprintf(path, sizeof(path), "%s/%s", corpus_path, entry->d_name);
    if (length < 0 || (size_t)length >= sizeof(path) || replay_file(path) != 0)
      count = -1;
    else
      count++;
  }
  closedir(corpus);
  return count;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s CORPUS_DIR\n", argv[0]);
    return 2;
  }
  LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
  int count = replay_corpus(argv[1]);
  if (count <= 0) {
    fprintf(stderr, "%s: no input was replayed\n", argv[1]);
    return 1;
  }
  printf("replayed %d inputs\n", count);
  return 0;
}
