/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end: every partial file is synced (several at once), then all get their final names, then
 * .sprout goes. A crash in between leaves right files under final names and the rest resumable.
 *
 * After a failure, partial files that this run made and stored nothing in are removed again.
 */
#include "net/destination_directory.h"

#include "net/destination_directory_path.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- sync; several workers take one file after the other ---- */

static int sync_file(struct directory_walker *walker, const char *path) {
  int parent_fd = -1, fd = -1, result = 0;
  const char *name = NULL;

  result = directory_walker_enter(walker, path, &parent_fd, &name);
  if (result != 0) return result;
  fd = openat(parent_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return errno;
  if (fdatasync(fd) != 0) result = errno;
  close(fd);
  return result;
}

static void run_sync(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);
  struct directory_destination *directory = job->directory;
  struct directory_walker walker;

  directory_walker_init(&walker, directory->partial_fd, false, false);
  while (!atomic_load(&directory->cancelled)) {
    uint32_t file = atomic_fetch_add(&directory->sync_next, 1);
    if (file >= directory->manifest->file_count) break;
    if (directory->files[file].state != DIRECTORY_FILE_PARTIAL) continue;
    int result = sync_file(&walker, directory->manifest->files[file].path);
    if (result == 0) continue;
    directory_io_error(directory, result, "sync", directory->manifest->files[file].path,
                       &job->error);
    break;
  }
  (void)directory_walker_finish(&walker);
}

/* ---- rename ---- */

struct renaming {
  struct directory_destination *directory;
  struct directory_walker from, to;
};

/* Without force nothing is replaced, also not what appeared since prepare. */
static int rename_file(struct renaming *renaming, const char *path) {
  unsigned flags = renaming->directory->force ? 0 : RENAME_NOREPLACE;
  int from_fd = -1, to_fd = -1;
  const char *name = NULL;
  struct stat found;
  int result = directory_walker_enter(&renaming->from, path, &from_fd, &name);

  if (result == 0) result = directory_walker_enter(&renaming->to, path, &to_fd, &name);
  if (result != 0) return result;
  if (renameat2(from_fd, name, to_fd, name, flags) == 0) return 0;
  if (errno != EINVAL || flags == 0) return errno;
  /* The file system does not know the flag. */
  if (fstatat(to_fd, name, &found, AT_SYMLINK_NOFOLLOW) == 0) return EEXIST;
  return renameat(from_fd, name, to_fd, name) == 0 ? 0 : errno;
}

static bool rename_files(struct renaming *renaming, struct sprout_error *error) {
  struct directory_destination *directory = renaming->directory;

  for (uint32_t i = 0; i < directory->manifest->file_count; i++) {
    const char *path = directory->manifest->files[i].path;
    if (directory->files[i].state != DIRECTORY_FILE_PARTIAL) continue;
    if (atomic_load(&directory->cancelled)) return true;
    int result = rename_file(renaming, path);
    if (result == 0) continue;
    if (result == EEXIST)
      sprout_error_set(error, SPROUT_EXISTS, result,
                       "Move it away, or replace it with --force: the bytes are kept.",
                       "%s/%s appeared meanwhile", directory->path, path);
    else
      directory_io_error(directory, result, "rename", path, error);
    return false;
  }
  return true;
}

/* Leftovers of other forks go as well; the lock is last. */
static void remove_private(struct directory_destination *directory) {
  directory_remove_tree(directory->private_fd, DIRECTORY_PARTIAL, true);
  (void)unlinkat(directory->private_fd, DIRECTORY_LOCK, 0);
  (void)unlinkat(directory->destination_fd, DIRECTORY_PRIVATE, AT_REMOVEDIR);
}

static void run_rename(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);
  struct directory_destination *directory = job->directory;
  struct renaming renaming = {.directory = directory};
  int result = 0;

  directory_walker_init(&renaming.from, directory->partial_fd, false, false);
  directory_walker_init(&renaming.to, directory->destination_fd, true, true);
  bool good = rename_files(&renaming, &job->error);
  (void)directory_walker_finish(&renaming.from);
  result = directory_walker_finish(&renaming.to);
  if (result == 0 && fsync(directory->destination_fd) != 0) result = errno;
  if (good && result != 0)
    directory_io_error(directory, result, "sync", "directories", &job->error);
  if (good && result == 0 && !atomic_load(&directory->cancelled)) remove_private(directory);
}

/* ---- reactor ---- */

static void rename_done(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);
  struct directory_destination *directory = job->directory;

  if (directory_job_ended(directory)) return;
  if (job->error.status == SPROUT_OK) directory_close(directory);
  directory_finished(directory, &job->error);
}

static void start_rename(struct directory_destination *directory) {
  directory->phase = DIRECTORY_RENAMING;
  directory->rename = (struct directory_job){.directory = directory,
                                             .work = {.run = run_rename, .done = rename_done}};
  directory->jobs_running++;
  reactor_work(directory->reactor, &directory->rename.work);
}

static void sync_done(struct work *work) {
  struct directory_destination *directory =
      container_of(work, struct directory_job, work)->directory;

  if (directory_job_ended(directory) || directory->jobs_running > 0) return;
  for (uint32_t i = 0; i < DIRECTORY_JOBS; i++) {
    if (directory->sync[i].error.status == SPROUT_OK) continue;
    directory_finished(directory, &directory->sync[i].error);
    return;
  }
  start_rename(directory);
}

void directory_finish_start(struct directory_destination *directory) {
  const struct sprout_error ok = {.status = SPROUT_OK};

  if (directory->dry_run) {
    directory_close(directory);
    directory_finished(directory, &ok);
    return;
  }
  directory->phase = DIRECTORY_SYNCING;
  atomic_store(&directory->sync_next, 0);
  for (uint32_t i = 0; i < DIRECTORY_JOBS; i++) {
    directory->sync[i] = (struct directory_job){.directory = directory,
                                                .work = {.run = run_sync, .done = sync_done}};
    directory->jobs_running++;
    reactor_work(directory->reactor, &directory->sync[i].work);
  }
}

/* ---- after a failure ---- */

static void remove_unused(struct directory_destination *directory) {
  struct directory_walker walker;
  int parent_fd = -1;
  const char *name = NULL;

  directory_walker_init(&walker, directory->partial_fd, false, false);
  for (uint32_t i = 0; i < directory->manifest->file_count; i++) {
    const struct directory_file *file = &directory->files[i];
    const char *path = directory->manifest->files[i].path;
    if (file->state != DIRECTORY_FILE_PARTIAL || !file->fresh || file->touched) continue;
    if (directory_walker_enter(&walker, path, &parent_fd, &name) == 0)
      (void)unlinkat(parent_fd, name, 0);
  }
  (void)directory_walker_finish(&walker);
}

static void run_cleanup(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);
  struct directory_destination *directory = job->directory;

  if (directory->lock_fd < 0 || directory->partial_fd < 0) return;
  if (directory->files != NULL) remove_unused(directory);
  directory_remove_tree(directory->private_fd, DIRECTORY_PARTIAL, false);
  if (faccessat(directory->private_fd, DIRECTORY_PARTIAL, F_OK, 0) == 0) return; /* resumable */
  (void)unlinkat(directory->private_fd, DIRECTORY_LOCK, 0);
  (void)unlinkat(directory->destination_fd, DIRECTORY_PRIVATE, AT_REMOVEDIR);
  if (directory->made_destination) (void)rmdir(directory->path); /* only when it is empty */
}

static void cleanup_done(struct work *work) {
  struct directory_destination *directory =
      container_of(work, struct directory_job, work)->directory;

  directory->jobs_running--;
  directory_close(directory);
  directory->phase = DIRECTORY_ENDED;
  directory->tell_aborted = true;
  directory_answer(directory);
}

void directory_cleanup_start(struct directory_destination *directory) {
  assert(directory->phase == DIRECTORY_ABORTING && directory->jobs_running == 0);
  directory->cleanup = (struct directory_job){.directory = directory,
                                              .work = {.run = run_cleanup, .done = cleanup_done}};
  directory->jobs_running++;
  reactor_work(directory->reactor, &directory->cleanup.work);
}

static void close_one(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

void directory_close(struct directory_destination *directory) {
  close_one(&directory->partial_fd);
  close_one(&directory->private_fd);
  close_one(&directory->destination_fd);
  close_one(&directory->lock_fd);
}
