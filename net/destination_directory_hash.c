/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Re-hashing of what is there already: spans of chunks go to the worker pool, a few at a time;
 * holes are skipped, chunks that cannot be read are not reported (they are then read again).
 */
#include "net/destination_directory.h"

#include "net/destination_directory_path.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define HASH_PIECE_BYTES (256u * 1024u) /* stays in the cache between read and digest */

/* ---- worker ---- */

static bool is_hole(int fd, uint64_t offset, uint64_t length_bytes) {
  off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

  if (data < 0) return errno == ENXIO;
  return (uint64_t)data >= offset + length_bytes;
}

static bool hash_chunk(int fd, unsigned char *piece, uint64_t offset, uint64_t length_bytes,
                       const atomic_bool *cancelled, struct digest *digest_out) {
  struct digest_stream stream;

  digest_begin(&stream);
  while (length_bytes > 0) {
    size_t wanted = length_bytes < HASH_PIECE_BYTES ? (size_t)length_bytes : HASH_PIECE_BYTES;
    ssize_t got = pread(fd, piece, wanted, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0 || atomic_load(cancelled)) return false;
    digest_update(&stream, piece, (size_t)got);
    offset += (uint64_t)got;
    length_bytes -= (uint64_t)got;
  }
  *digest_out = digest_end(&stream);
  return true;
}

static int open_for_hash(const struct directory_destination *directory, uint32_t file) {
  bool final = directory->files[file].state == DIRECTORY_FILE_FINAL;
  struct directory_walker walker;
  int parent_fd = -1, fd = -1;
  const char *name = NULL;

  directory_walker_init(&walker, final ? directory->destination_fd : directory->partial_fd, false,
                        false);
  if (directory_walker_enter(&walker, directory->manifest->files[file].path, &parent_fd, &name) ==
      0)
    fd = openat(parent_fd, name, O_RDONLY | O_CLOEXEC | (directory->verify_only ? 0 : O_NOFOLLOW));
  (void)directory_walker_finish(&walker);
  return fd;
}

static void run_job(struct work *work) {
  struct directory_hash_job *job = container_of(work, struct directory_hash_job, work);
  const struct directory_destination *directory = job->directory;
  unsigned char *piece = malloc(HASH_PIECE_BYTES);
  int fd = open_for_hash(directory, job->file);

  for (uint32_t i = 0; i < job->count; i++) {
    struct manifest_chunk chunk = manifest_chunk_at(directory->manifest, job->chunks[i]);
    uint64_t offset = directory->manifest->objects[chunk.object].file_offset + chunk.offset;
    job->found[i] =
        piece != NULL && fd >= 0 && !atomic_load(&directory->cancelled) &&
        !is_hole(fd, offset, chunk.length_bytes) &&
        hash_chunk(fd, piece, offset, chunk.length_bytes, &directory->cancelled, &job->digests[i]);
  }
  if (fd >= 0) close(fd);
  free(piece);
}

/* ---- reactor ---- */

static bool file_has_bytes(const struct directory_destination *directory, uint32_t file) {
  const struct directory_file *state = &directory->files[file];

  return state->state == DIRECTORY_FILE_FINAL ||
         (state->state == DIRECTORY_FILE_PARTIAL && !state->fresh);
}

static bool wants_object(const struct directory_destination *directory, uint32_t object) {
  const uint64_t *selected = directory->selected;

  if (directory->manifest->objects[object].alias_of != MANIFEST_NONE) return false;
  return selected == NULL || (selected[object / 64] >> (object % 64) & 1) != 0;
}

/* Fills the job with chunks of the cursor's file and moves the cursor; false at the end of it. */
static bool fill_from_file(struct directory_destination *directory,
                           struct directory_hash_job *job) {
  const struct manifest *manifest = directory->manifest;
  const struct manifest_file *file = &manifest->files[directory->hash_file];
  uint64_t bytes = 0;

  job->file = directory->hash_file;
  job->count = 0;
  while (directory->hash_object < file->object_count) {
    uint32_t index = file->first_object + directory->hash_object;
    const struct manifest_object *object = &manifest->objects[index];
    if (!wants_object(directory, index) || directory->hash_chunk >= object->chunk_count) {
      directory->hash_object++;
      directory->hash_chunk = 0;
      continue;
    }
    if (job->count == DIRECTORY_HASH_CHUNKS || bytes >= DIRECTORY_HASH_BYTES) return true;
    job->chunks[job->count++] = object->first_chunk + directory->hash_chunk++;
    bytes += object->length_bytes < SPROUT_CHUNK_BYTES ? object->length_bytes : SPROUT_CHUNK_BYTES;
  }
  return job->count > 0;
}

static bool next_span(struct directory_destination *directory, struct directory_hash_job *job) {
  while (directory->hash_file < directory->manifest->file_count) {
    if (file_has_bytes(directory, directory->hash_file) && fill_from_file(directory, job))
      return true;
    directory->hash_file++;
    directory->hash_object = 0;
    directory->hash_chunk = 0;
  }
  return false;
}

static void start_job(struct directory_destination *directory, struct directory_hash_job *job) {
  if (!next_span(directory, job)) return;
  directory->jobs_running++;
  reactor_work(directory->reactor, &job->work);
}

static void job_done(struct work *work) {
  struct directory_hash_job *job = container_of(work, struct directory_hash_job, work);
  struct directory_destination *directory = job->directory;
  const struct sprout_error ok = {.status = SPROUT_OK};

  if (directory_job_ended(directory)) return;
  for (uint32_t i = 0; i < job->count; i++) {
    if (!job->found[i]) continue;
    directory->base.listener->existing(&directory->base, job->chunks[i], &job->digests[i]);
    if (directory->phase != DIRECTORY_HASHING) return; /* aborted by the listener */
  }
  start_job(directory, job);
  if (directory->jobs_running == 0) directory_prepared(directory, &ok);
}

void directory_hash_start(struct directory_destination *directory) {
  struct sprout_error error = {.status = SPROUT_OK};

  directory->phase = DIRECTORY_HASHING;
  directory->hash = calloc(DIRECTORY_JOBS, sizeof(*directory->hash));
  if (directory->hash == NULL) {
    sprout_error_set(&error, SPROUT_NO_MEMORY, 0, NULL, "no memory to look at existing files");
    directory_prepared(directory, &error);
    return;
  }
  for (uint32_t i = 0; i < DIRECTORY_JOBS; i++) {
    directory->hash[i].directory = directory;
    directory->hash[i].work = (struct work){.run = run_job, .done = job_done};
    start_job(directory, &directory->hash[i]);
  }
  if (directory->jobs_running == 0) directory_prepared(directory, &error);
}
