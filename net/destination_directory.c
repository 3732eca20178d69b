/* SPDX-License-Identifier: Apache-2.0 */
#include "net/destination_directory.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct directory_destination *directory_of(struct destination *destination) {
  return container_of(destination, struct directory_destination, base);
}

/* ---- answers ---- */

void directory_answer(struct directory_destination *directory) {
  reactor_defer(directory->reactor, &directory->answer);
}

/* The last answer may destroy the destination: nothing is touched after it. */
static void answer_now(struct deferred *deferred) {
  struct directory_destination *directory =
      container_of(deferred, struct directory_destination, answer);
  struct destination *destination = &directory->base;
  const struct destination_listener *listener = destination->listener;
  bool prepared = directory->tell_prepared, finished = directory->tell_finished;
  bool aborted = directory->tell_aborted, room = directory->tell_room;
  struct list_node stored;

  directory->tell_prepared = directory->tell_finished = false;
  directory->tell_aborted = directory->tell_room = false;
  list_move(&stored, &directory->stored);
  for (struct list_node *node = list_take(&stored); node != NULL; node = list_take(&stored)) {
    struct destination_transfer *transfer = container_of(node, struct destination_transfer, node);
    struct directory_slot *slot = transfer->slot;
    struct sprout_error error = slot->error;
    transfer->slot = NULL;
    directory->free_slots[directory->free_count++] = slot;
    directory->busy_slots--;
    room = room || directory->wants_room;
    transfer->stored(transfer, &error);
  }
  if (room) directory->wants_room = false;
  if (room) listener->room(destination);
  if (prepared) listener->prepared(destination, &directory->result);
  if (finished) listener->finished(destination, &directory->result);
  if (aborted) listener->aborted(destination);
}

void directory_prepared(struct directory_destination *directory, const struct sprout_error *error) {
  directory->result = *error;
  directory->phase = error->status == SPROUT_OK ? DIRECTORY_OPEN : DIRECTORY_ENDED;
  directory->tell_prepared = true;
  directory_answer(directory);
}

void directory_finished(struct directory_destination *directory, const struct sprout_error *error) {
  directory->result = *error;
  directory->phase = DIRECTORY_ENDED;
  directory->tell_finished = true;
  directory_answer(directory);
}

bool directory_job_ended(struct directory_destination *directory) {
  assert(directory->jobs_running > 0);
  directory->jobs_running--;
  if (directory->phase != DIRECTORY_ABORTING) return false;
  if (directory->jobs_running == 0) directory_cleanup_start(directory);
  return true;
}

/* ---- prepare ---- */

static void setup_done(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);
  struct directory_destination *directory = job->directory;

  if (directory_job_ended(directory)) return;
  if (job->error.status != SPROUT_OK || !directory->reuse)
    directory_prepared(directory, &job->error);
  else
    directory_hash_start(directory);
}

static void prepare(struct destination *destination, const struct manifest *manifest,
                    const uint64_t *selected, bool reuse) {
  struct directory_destination *directory = directory_of(destination);
  struct sprout_error error = {.status = SPROUT_OK};

  assert(directory->phase == DIRECTORY_NEW);
  directory->manifest = manifest;
  directory->selected = selected;
  directory->reuse = reuse;
  directory->files = calloc((size_t)manifest->file_count + 1, sizeof(*directory->files));
  if (directory->files == NULL) {
    sprout_error_set(&error, SPROUT_NO_MEMORY, 0, NULL, "no memory for %u files",
                     manifest->file_count);
    directory_prepared(directory, &error);
    return;
  }
  directory->phase = DIRECTORY_SETUP;
  directory->setup = (struct directory_job){
      .directory = directory, .work = {.run = directory_setup_run, .done = setup_done}};
  directory->jobs_running++;
  reactor_work(directory->reactor, &directory->setup.work);
}

/* ---- transfers ---- */

static bool map(struct destination *destination, struct destination_transfer *transfer) {
  struct directory_destination *directory = directory_of(destination);
  struct directory_slot *slot = NULL;
  uint64_t mapped = 0;

  assert(directory->phase == DIRECTORY_OPEN && !directory->dry_run);
  assert(transfer->length_bytes <= SPROUT_CHUNK_BYTES);
  if (directory->free_count == 0) {
    directory->wants_room = true;
    return false;
  }
  slot = directory->free_slots[--directory->free_count];
  directory->busy_slots++;
  slot->transfer = transfer;
  transfer->slot = slot;
  transfer->iov_count = 0;
  while (mapped < transfer->length_bytes) {
    uint64_t piece = transfer->length_bytes - mapped;
    if (piece > DESTINATION_PIECE_BYTES) piece = DESTINATION_PIECE_BYTES;
    transfer->iov[transfer->iov_count++] =
        (struct iovec){.iov_base = slot->memory + mapped, .iov_len = (size_t)piece};
    mapped += piece;
  }
  return true;
}

static void tell_room(struct directory_destination *directory) {
  if (!directory->wants_room) return;
  directory->wants_room = false;
  directory->tell_room = true;
  directory_answer(directory);
}

static uint32_t landing(struct destination *destination, const struct iovec **spans_out) {
  struct directory_destination *directory = directory_of(destination);
  directory->landing = (struct iovec){
      .iov_base = directory->memory, .iov_len = (size_t)directory->slot_count * SPROUT_CHUNK_BYTES};
  *spans_out = &directory->landing;
  return 1;
}

static void release(struct destination *destination, struct destination_transfer *transfer) {
  struct directory_destination *directory = directory_of(destination);

  directory->free_slots[directory->free_count++] = transfer->slot;
  directory->busy_slots--;
  transfer->slot = NULL;
  tell_room(directory);
}

static void store(struct destination *destination, struct destination_transfer *transfer) {
  (void)destination;
  directory_store(transfer->slot);
}

static void finish(struct destination *destination) {
  struct directory_destination *directory = directory_of(destination);

  assert(directory->phase == DIRECTORY_OPEN && directory->busy_slots == 0);
  directory_close_descriptors(directory);
  directory_finish_start(directory);
}

static void abort_fork(struct destination *destination) {
  struct directory_destination *directory = directory_of(destination);

  assert(directory->busy_slots == 0);
  directory->phase = DIRECTORY_ABORTING;
  atomic_store(&directory->cancelled, true);
  directory->tell_prepared = directory->tell_finished = directory->tell_room = false;
  directory_close_descriptors(directory);
  if (directory->jobs_running == 0) directory_cleanup_start(directory);
}

static void destroy(struct destination *destination) {
  struct directory_destination *directory = directory_of(destination);

  assert(directory->jobs_running == 0 && directory->busy_slots == 0);
  reactor_defer_cancel(directory->reactor, &directory->answer);
  directory_close_descriptors(directory);
  directory_close(directory);
  if (directory->memory != NULL)
    munmap(directory->memory, (size_t)directory->slot_count * SPROUT_CHUNK_BYTES);
  free(directory->hash);
  free(directory->slots);
  free(directory->free_slots);
  free(directory->files);
  free(directory->path);
  free(directory);
}

/* ---- creation ---- */

/* Staging memory is mapped at once and touched as it is used. */
static bool make_slots(struct directory_destination *directory, uint64_t staging_bytes) {
  uint64_t count = staging_bytes / SPROUT_CHUNK_BYTES;
  size_t bytes = 0;

  if (count < 1) count = 1;
  if (count > DIRECTORY_SLOTS_MAX) count = DIRECTORY_SLOTS_MAX;
  directory->slot_count = (uint32_t)count;
  bytes = (size_t)count * SPROUT_CHUNK_BYTES;
  directory->slots = calloc((size_t)count, sizeof(*directory->slots));
  directory->free_slots = calloc((size_t)count, sizeof(*directory->free_slots));
  if (directory->slots == NULL || directory->free_slots == NULL) return false;
  directory->memory =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (directory->memory == MAP_FAILED) {
    directory->memory = NULL;
    return false;
  }
  (void)madvise(directory->memory, bytes, MADV_HUGEPAGE); /* advice only */
  for (uint32_t i = 0; i < directory->slot_count; i++) {
    struct directory_slot *slot = &directory->slots[directory->slot_count - 1 - i];
    slot->directory = directory;
    slot->memory = directory->memory + (size_t)(directory->slot_count - 1 - i) * SPROUT_CHUNK_BYTES;
    list_init(&slot->node);
    directory->free_slots[directory->free_count++] = slot;
  }
  return true;
}

/* What can be said before there is a manifest: DEST is a directory, or can become one. */
static enum sprout_status check_path(const char *path, bool dry_run, struct sprout_error *error) {
  struct stat found;
  char parent[PATH_MAX];
  size_t length = strlen(path);

  if (length == 0 || length >= sizeof(parent))
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                            "the destination directory's path is empty or too long");
  if (stat(path, &found) == 0) {
    if (S_ISDIR(found.st_mode)) return SPROUT_OK;
    return sprout_error_set(error, SPROUT_EXISTS, ENOTDIR, "Give another destination.",
                            "%s is there and not a directory", path);
  }
  if (errno != ENOENT)
    return sprout_error_set(error, SPROUT_IO, errno, NULL, "cannot look at %s: %s", path,
                            strerror(errno));
  if (lstat(path, &found) == 0)
    return sprout_error_set(error, SPROUT_EXISTS, ENOENT, "Give another destination.",
                            "%s is a symbolic link that leads nowhere", path);
  if (dry_run) return SPROUT_OK;
  while (length > 1 && path[length - 1] == '/') length--;
  while (length > 0 && path[length - 1] != '/') length--;
  memcpy(parent, path, length);
  parent[length] = '\0';
  if (stat(length == 0 ? "." : parent, &found) != 0 || !S_ISDIR(found.st_mode))
    return sprout_error_set(error, SPROUT_IO, ENOENT,
                            "Create it first; only the last part is made.",
                            "there is no directory %s to create %s in", parent, path);
  return SPROUT_OK;
}

static void set_initial(struct directory_destination *directory, struct reactor *reactor,
                        const struct directory_options *options) {
  directory->reactor = reactor;
  directory->force = options->force;
  directory->dry_run = options->dry_run || options->verify_only;
  directory->verify_only = options->verify_only;
  directory->filter = options->filter;
  directory->destination_fd = directory->private_fd = -1;
  directory->partial_fd = directory->lock_fd = -1;
  for (uint32_t i = 0; i < DIRECTORY_DESCRIPTORS; i++) directory->descriptors[i].fd = -1;
  list_init(&directory->stored);
  list_init(&directory->waiting);
  directory->answer.run = answer_now;
  directory->base.resumes = true;
}

enum sprout_status destination_directory_create(struct reactor *reactor,
                                                const struct directory_options *options,
                                                struct destination **destination_out,
                                                struct sprout_error *error) {
  static const struct destination_ops ops = {.prepare = prepare,
                                             .map = map,
                                             .landing = landing,
                                             .store = store,
                                             .release = release,
                                             .finish = finish,
                                             .abort = abort_fork,
                                             .destroy = destroy};
  bool dry_run = options->dry_run || options->verify_only;
  enum sprout_status status = check_path(options->path, dry_run, error);
  struct directory_destination *directory = NULL;

  if (status != SPROUT_OK) return status;
  directory = calloc(1, sizeof(*directory));
  if (directory == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a destination");
  set_initial(directory, reactor, options);
  directory->base.ops = &ops;
  directory->path = strdup(options->path);
  if (directory->path == NULL || (!dry_run && !make_slots(directory, options->staging_bytes))) {
    destroy(&directory->base);
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, "Lower --inflight.",
                            "no memory for staging");
  }
  *destination_out = &directory->base;
  return SPROUT_OK;
}
