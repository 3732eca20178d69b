/* SPDX-License-Identifier: Apache-2.0 */
#include "core/synth.h"
#include "core/synth_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The size at which the usual writers of sharded checkpoints begin a new file. */
#define SHARD_BYTES 5000000000ull
#define BLOCK_BYTES (1u << 20)

struct writer {
  int directory;
  const char *directory_name;
  const struct synth_layout *layout;
  uint64_t seed;
  synth_progress_fn *progress;
  void *context;
  uint64_t done_bytes;
  uint64_t *block; /* BLOCK_BYTES */
  bool made_directory;
  char (*written)[64]; /* names of whole files, to take back what a failure left */
  size_t written_count;
  struct sprout_error *error;
};

/* Tensors [first, end) of one file. */
struct shard {
  size_t first, end;
  char name[64];
};

/* SplitMix64 (Steele, Lea, Flood 2014): one multiply-xorshift chain per word, no state to carry
 * between blocks. */
static uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

static void fill_block(uint64_t *block, uint64_t start) {
  for (size_t i = 0; i < BLOCK_BYTES / sizeof *block; i++) {
    start += 0x9e3779b97f4a7c15ull;
    block[i] = mix(start);
  }
}

static enum sprout_status io_error(struct writer *writer, const char *file) {
  int code = errno;
  bool full = code == ENOSPC || code == EDQUOT || code == EFBIG;
  return sprout_error_set(writer->error, full ? SPROUT_NO_SPACE : SPROUT_IO, code,
                          full ? "Free some space, or name another directory."
                               : "Check the directory's permissions.",
                          "cannot write %s/%s: %s", writer->directory_name, file, strerror(code));
}

static SPROUT_MUST_CHECK enum sprout_status
write_all(struct writer *writer, int fd, const char *file, const void *data, size_t length_bytes) {
  const char *next = data;
  while (length_bytes > 0) {
    ssize_t written = write(fd, next, length_bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return io_error(writer, file);
    next += written;
    length_bytes -= (size_t)written;
  }
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status write_tensor(struct writer *writer, int fd,
                                                         const char *file, size_t index) {
  uint64_t left = writer->layout->tensors[index].length_bytes;
  uint64_t start = mix(writer->seed * 0x9e3779b97f4a7c15ull + index + 1);
  while (left > 0) {
    size_t part = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
    fill_block(writer->block, start);
    start = mix(start + 1);
    enum sprout_status status = write_all(writer, fd, file, writer->block, part);
    if (status != SPROUT_OK) return status;
    left -= part;
    writer->done_bytes += part;
    if (writer->progress)
      writer->progress(writer->context, writer->done_bytes, writer->layout->total_bytes);
  }
  return SPROUT_OK;
}

/* The header of one shard, padded with spaces to a multiple of 8 as the reference writer does. */
static char *make_header(const struct synth_layout *layout, const struct shard *shard,
                         size_t *length_out) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  if (!out) return NULL;
  fputs("{\"__metadata__\":{\"format\":\"pt\"}", out);
  uint64_t offset = 0;
  for (size_t i = shard->first; i < shard->end; i++) {
    const struct synth_tensor *tensor = &layout->tensors[i];
    fprintf(out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%" PRIu64, tensor->name, tensor->dtype,
            tensor->shape[0]);
    if (tensor->rank == 2) fprintf(out, ",%" PRIu64, tensor->shape[1]);
    fprintf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset,
            offset + tensor->length_bytes);
    offset += tensor->length_bytes;
  }
  fputc('}', out);
  fflush(out);
  for (size_t padding = (8 - length % 8) % 8; padding > 0; padding--) fputc(' ', out);
  if (fclose(out) != 0) {
    free(text);
    return NULL;
  }
  *length_out = length;
  return text;
}

static SPROUT_MUST_CHECK enum sprout_status write_weights(struct writer *writer, int fd,
                                                          const struct shard *shard) {
  size_t length;
  char *header = make_header(writer->layout, shard, &length);
  if (!header)
    return sprout_error_set(writer->error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a header");
  unsigned char prefix[8];
  for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)length >> (8 * i));
  enum sprout_status status = write_all(writer, fd, shard->name, prefix, sizeof prefix);
  if (status == SPROUT_OK) status = write_all(writer, fd, shard->name, header, length);
  free(header);
  for (size_t i = shard->first; i < shard->end && status == SPROUT_OK; i++) {
    status = write_tensor(writer, fd, shard->name, i);
  }
  return status;
}

/* Writes one file under a temporary name and renames it when it is whole: weights of a shard, or a
 * text. */
static SPROUT_MUST_CHECK enum sprout_status
write_file(struct writer *writer, const char *name, const struct shard *shard, const char *text) {
  char temporary[80];
  snprintf(temporary, sizeof temporary, ".%s.part", name);
  int fd = openat(writer->directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return io_error(writer, name);
  enum sprout_status status =
      shard ? write_weights(writer, fd, shard) : write_all(writer, fd, name, text, strlen(text));
  if (close(fd) != 0 && status == SPROUT_OK) status = io_error(writer, name);
  if (status == SPROUT_OK && renameat(writer->directory, temporary, writer->directory, name) != 0) {
    status = io_error(writer, name);
  }
  if (status != SPROUT_OK) {
    unlinkat(writer->directory, temporary, 0);
    return status;
  }
  snprintf(writer->written[writer->written_count++], sizeof writer->written[0], "%s", name);
  return SPROUT_OK;
}

/* A model that is not whole is of no use, and where the disk is full it is in the way. */
static void take_back(struct writer *writer) {
  for (size_t i = 0; i < writer->written_count; i++)
    unlinkat(writer->directory, writer->written[i], 0);
  if (writer->made_directory) rmdir(writer->directory_name);
}

/* Cuts the tensors into files; returns how many. Called with shards NULL it only counts. */
static size_t cut_shards(const struct synth_layout *layout, struct shard *shards) {
  size_t count = 0, first = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i <= layout->count; i++) {
    bool last = i == layout->count;
    if (last || (i > first && bytes + layout->tensors[i].length_bytes > SHARD_BYTES)) {
      if (shards) shards[count] = (struct shard){.first = first, .end = i};
      count++;
      first = i;
      bytes = 0;
    }
    if (!last) bytes += layout->tensors[i].length_bytes;
  }
  return count;
}

static SPROUT_MUST_CHECK enum sprout_status write_index(struct writer *writer,
                                                        const struct shard *shards, size_t count) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  if (!out)
    return sprout_error_set(writer->error, SPROUT_NO_MEMORY, 0, NULL, "no memory for the index");
  fprintf(out, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {",
          writer->layout->total_bytes);
  const char *separator = "\n";
  for (size_t s = 0; s < count; s++) {
    for (size_t i = shards[s].first; i < shards[s].end; i++) {
      fprintf(out, "%s    \"%s\": \"%s\"", separator, writer->layout->tensors[i].name,
              shards[s].name);
      separator = ",\n";
    }
  }
  fputs("\n  }\n}\n", out);
  enum sprout_status status = SPROUT_NO_MEMORY;
  if (fclose(out) == 0) status = write_file(writer, "model.safetensors.index.json", NULL, text);
  free(text);
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status write_shards(struct writer *writer) {
  size_t count = cut_shards(writer->layout, NULL);
  struct shard *shards = calloc(count, sizeof *shards);
  if (!shards)
    return sprout_error_set(writer->error, SPROUT_NO_MEMORY, 0, NULL, "no memory for %zu shards",
                            count);
  cut_shards(writer->layout, shards);
  enum sprout_status status = SPROUT_OK;
  for (size_t i = 0; i < count && status == SPROUT_OK; i++) {
    if (count == 1) {
      snprintf(shards[i].name, sizeof shards[i].name, "model.safetensors");
    } else {
      snprintf(shards[i].name, sizeof shards[i].name, "model-%05zu-of-%05zu.safetensors", i + 1,
               count);
    }
    status = write_file(writer, shards[i].name, &shards[i], NULL);
  }
  if (status == SPROUT_OK) status = write_index(writer, shards, count);
  free(shards);
  return status;
}

static const char tokenizer_text[] = "{\n  \"version\": \"1.0\",\n  \"model\": {\"type\": \"BPE\", "
                                     "\"vocab\": {}, \"merges\": []}\n}\n";
static const char generation_text[] =
    "{\n  \"do_sample\": true,\n  \"temperature\": 0.6,\n  \"top_p\": 0.9\n}\n";

/* Better now than after minutes. */
static SPROUT_MUST_CHECK enum sprout_status check_space(struct writer *writer) {
  struct statvfs system;
  if (fstatvfs(writer->directory, &system) != 0) return SPROUT_OK; /* writing will tell */
  uint64_t available;
  if (__builtin_mul_overflow((uint64_t)system.f_bavail, (uint64_t)system.f_frsize, &available) ||
      available >= writer->layout->total_bytes)
    return SPROUT_OK;
  return sprout_error_set(
      writer->error, SPROUT_NO_SPACE, ENOSPC, "Free some space, or name another directory.",
      "%s has room for %" PRIu64 " MB, the model needs %" PRIu64 " MB", writer->directory_name,
      available / 1000000, writer->layout->total_bytes / 1000000);
}

static SPROUT_MUST_CHECK enum sprout_status write_model(struct writer *writer) {
  writer->written = calloc(cut_shards(writer->layout, NULL) + 4, sizeof *writer->written);
  if (!writer->written)
    return sprout_error_set(writer->error, SPROUT_NO_MEMORY, 0, NULL, "no memory for file names");
  enum sprout_status status = write_file(writer, "config.json", NULL, writer->layout->config);
  if (status == SPROUT_OK) status = write_file(writer, "tokenizer.json", NULL, tokenizer_text);
  if (status == SPROUT_OK)
    status = write_file(writer, "generation_config.json", NULL, generation_text);
  return status == SPROUT_OK ? write_shards(writer) : status;
}

static bool directory_empty(int fd) {
  int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *directory = copy < 0 ? NULL : fdopendir(copy);
  if (!directory) {
    if (copy >= 0) close(copy);
    return false;
  }
  bool empty = true;
  for (struct dirent *entry; empty && (entry = readdir(directory));) {
    empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
  }
  closedir(directory);
  return empty;
}

static SPROUT_MUST_CHECK enum sprout_status open_directory(struct writer *writer) {
  writer->made_directory = mkdir(writer->directory_name, 0755) == 0;
  if (!writer->made_directory && errno != EEXIST) {
    return sprout_error_set(writer->error, SPROUT_IO, errno, "Create its parent directory first.",
                            "cannot create %s: %s", writer->directory_name, strerror(errno));
  }
  writer->directory = open(writer->directory_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (writer->directory < 0) {
    return sprout_error_set(writer->error, SPROUT_IO, errno, NULL, "cannot open %s: %s",
                            writer->directory_name, strerror(errno));
  }
  if (directory_empty(writer->directory)) return SPROUT_OK;
  return sprout_error_set(
      writer->error, SPROUT_EXISTS, 0, "Name a new directory, or empty this one.",
      "%s is not empty, and nothing there is overwritten", writer->directory_name);
}

enum sprout_status synth_write(const char *spec, const char *directory, uint64_t seed,
                               synth_progress_fn *progress, void *context,
                               struct sprout_error *error) {
  struct synth_layout layout;
  enum sprout_status status = synth_layout_create(spec, &layout, error);
  if (status != SPROUT_OK) return status;
  struct writer writer = {.directory = -1,
                          .directory_name = directory,
                          .layout = &layout,
                          .seed = seed,
                          .progress = progress,
                          .context = context,
                          .error = error};
  writer.block = malloc(BLOCK_BYTES);
  if (!writer.block) {
    status = sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a block of %u bytes",
                              BLOCK_BYTES);
  } else {
    status = open_directory(&writer);
  }
  if (status == SPROUT_OK) {
    status = check_space(&writer);
    if (status == SPROUT_OK) status = write_model(&writer);
    if (status != SPROUT_OK) take_back(&writer);
  }
  if (writer.directory >= 0) close(writer.directory);
  free(writer.block);
  free(writer.written);
  synth_layout_destroy(&layout);
  return status;
}
