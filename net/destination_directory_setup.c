/* SPDX-License-Identifier: Apache-2.0 */
#include "net/destination_directory.h"

#include "core/log.h"
#include "net/destination_directory_path.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define LOCK_ATTEMPTS 10

/* ---- errors ---- */

void directory_io_error(const struct directory_destination *directory, int native, const char *what,
                        const char *path, struct sprout_error *error) {
  enum sprout_status status = SPROUT_IO;
  const char *hint = "Look at the file system and its permissions.";

  if (native == ENOSPC || native == EDQUOT || native == EFBIG) {
    directory_space_error(directory, native, 0, error);
    return;
  }
  if (native == ENOMEM) status = SPROUT_NO_MEMORY;
  if (native == EMFILE || native == ENFILE) {
    status = SPROUT_LIMIT;
    hint = "Raise the limit: ulimit -n 65536";
  }
  if (native == EROFS || native == EACCES || native == EPERM)
    hint = "Give a directory that this user may write to.";
  if (native == ENOTDIR) {
    status = SPROUT_EXISTS;
    hint = "A file or a symbolic link stands where the model has a directory; move it away.";
  }
  sprout_error_set(error, status, native, hint, "cannot %s %s%s%s: %s", what, path,
                   path[0] == '\0' ? "" : " below ", directory->path, strerror(native));
}

void directory_space_error(const struct directory_destination *directory, int native,
                           uint64_t needed_bytes, struct sprout_error *error) {
  struct statvfs space;
  uint64_t available = 0;
  char needed[48] = "";

  if (directory->destination_fd >= 0 && fstatvfs(directory->destination_fd, &space) == 0)
    available = (uint64_t)space.f_bavail * space.f_frsize;
  if (needed_bytes > 0)
    snprintf(needed, sizeof(needed), " needs %" PRIu64 " more bytes;", needed_bytes);
  if (native == EFBIG) {
    sprout_error_set(error, SPROUT_NO_SPACE, native, "Raise the limit: ulimit -f unlimited",
                     "%s:%s a file is longer than this process or file system allows",
                     directory->path, needed);
    return;
  }
  sprout_error_set(error, SPROUT_NO_SPACE, native,
                   "Free some space and run it again: what is there already is kept.",
                   "%s:%s %" PRIu64 " bytes are available (%s)", directory->path, needed, available,
                   strerror(native));
}

/* ---- DEST and the lock ---- */

/* A dry run goes on without a directory. */
static bool open_destination(struct directory_destination *directory, struct sprout_error *error) {
  int fd = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  if (fd < 0 && errno == ENOENT) {
    if (directory->dry_run) return true;
    directory->made_destination = mkdir(directory->path, 0777) == 0;
    if (!directory->made_destination && errno != EEXIST) {
      directory_io_error(directory, errno, "create", "", error);
      return false;
    }
    fd = open(directory->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  if (fd < 0) {
    directory_io_error(directory, errno, "open", "", error);
    return false;
  }
  directory->destination_fd = fd;
  return true;
}

static int open_private_part(int parent_fd, const char *name, bool create) {
  if (create && mkdirat(parent_fd, name, 0777) != 0 && errno != EEXIST) return -1;
  return openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The lock file may vanish with the directory when another fork finishes: then again (ESTALE,
 * ENOENT). 0 or errno; EWOULDBLOCK: another fork holds it. */
static int try_lock(struct directory_destination *directory) {
  struct stat held, named;
  int result = 0;
  int private_fd = open_private_part(directory->destination_fd, DIRECTORY_PRIVATE, true);
  int lock_fd = -1;

  if (private_fd < 0) return errno;
  lock_fd = openat(private_fd, DIRECTORY_LOCK, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (lock_fd < 0 || flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
    result = errno;
  } else if (fstat(lock_fd, &held) != 0 ||
             fstatat(directory->destination_fd, DIRECTORY_PRIVATE "/" DIRECTORY_LOCK, &named,
                     AT_SYMLINK_NOFOLLOW) != 0 ||
             held.st_ino != named.st_ino || held.st_dev != named.st_dev) {
    result = ESTALE;
  }
  if (result != 0) {
    if (lock_fd >= 0) close(lock_fd);
    close(private_fd);
    return result;
  }
  directory->private_fd = private_fd;
  directory->lock_fd = lock_fd;
  return 0;
}

static bool lock_destination(struct directory_destination *directory, struct sprout_error *error) {
  int result = ESTALE;

  for (int i = 0; i < LOCK_ATTEMPTS && (result == ESTALE || result == ENOENT); i++)
    result = try_lock(directory);
  if (result == EWOULDBLOCK) {
    sprout_error_set(error, SPROUT_BUSY, 0, "Wait until it is done, or give another directory.",
                     "another fork into %s is running", directory->path);
    return false;
  }
  if (result == 0) {
    directory->partial_fd = open_private_part(directory->private_fd, DIRECTORY_PARTIAL, true);
    if (directory->partial_fd >= 0) return true;
    result = errno;
  }
  directory_io_error(directory, result, "open", DIRECTORY_PRIVATE, error);
  return false;
}

/* ---- survey ---- */

struct survey {
  struct directory_destination *directory;
  struct directory_walker final, partial;
  size_t conflicts, listed, used;
  char text[320];
};

static void add_conflict(struct survey *survey, const char *path) {
  size_t room = sizeof(survey->text) - survey->used;
  int written;

  survey->conflicts++;
  log_write(LOG_ERROR, "fork", "another file is in the way: %s/%s", survey->directory->path, path);
  if (survey->listed + 1 < survey->conflicts) return;
  written =
      snprintf(survey->text + survey->used, room, "%s%s", survey->used == 0 ? "" : ", ", path);
  if (written < 0 || (size_t)written >= room) {
    survey->text[survey->used] = '\0';
    return;
  }
  survey->used += (size_t)written;
  survey->listed++;
}

static bool object_selected(const struct directory_destination *directory, uint32_t object) {
  const uint64_t *selected = directory->selected;
  uint32_t target = directory->manifest->objects[object].alias_of;

  if (selected == NULL || (selected[object / 64] >> (object % 64) & 1) != 0) return true;
  return target != MANIFEST_NONE && (selected[target / 64] >> (target % 64) & 1) != 0;
}

/* How many of a file's objects with bytes are selected, and whether any is. */
static void count_selected(const struct directory_destination *directory,
                           const struct manifest_file *file, bool *any_out, bool *whole_out) {
  const struct fork_filter *filter = directory->filter;

  *any_out = directory->selected == NULL;
  if (file->object_count == 0)
    *any_out =
        filter == NULL || (filter->tensor_count == 0 && filter_selects_path(filter, file->path));
  *whole_out = true;
  for (uint32_t i = 0; i < file->object_count; i++) {
    uint32_t object = file->first_object + i;
    if (object_selected(directory, object))
      *any_out = true;
    else if (directory->manifest->objects[object].length_bytes > 0)
      *whole_out = false;
  }
}

/* The file `path` below a root: 1 regular, 0 missing, -1 something else or unreachable (conflict).
 */
static int look_at(struct directory_walker *walker, const char *path, bool follow,
                   struct stat *found_out) {
  int parent_fd = -1;
  const char *name = NULL;
  int result = 0;

  if (walker->root_fd < 0) return 0;
  result = directory_walker_enter(walker, path, &parent_fd, &name);
  if (result == ENOENT) return 0;
  if (result != 0) return -1;
  if (fstatat(parent_fd, name, found_out, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT ? 0 : -1;
  return S_ISREG(found_out->st_mode) ? 1 : -1;
}

/* Decides what a selected file is; see the table in the header. */
static void survey_file(struct survey *survey, uint32_t index) {
  struct directory_destination *directory = survey->directory;
  const struct manifest_file *file = &directory->manifest->files[index];
  struct directory_file *state = &directory->files[index];
  struct stat final = {.st_mode = 0}, partial = {.st_mode = 0};
  int has_final = look_at(&survey->final, file->path, directory->verify_only, &final);
  int has_partial = look_at(&survey->partial, file->path, false, &partial);
  bool right_size = has_final == 1 && (uint64_t) final.st_size == file->length_bytes;

  /* A fork with --force that was interrupted goes on with its partial file. */
  if (right_size && directory->reuse && !(directory->force && has_partial == 1)) {
    state->state = DIRECTORY_FILE_FINAL;
    return;
  }
  /* A directory, or a file where the model has a directory, cannot be replaced. */
  bool fixed = has_final < 0 && (final.st_mode == 0 || S_ISDIR(final.st_mode));
  if (has_final != 0 && !directory->verify_only && (!directory->force || fixed))
    add_conflict(survey, file->path);
  state->state = DIRECTORY_FILE_PARTIAL;
  if (directory->dry_run && (directory->verify_only || has_partial != 1 ||
                             (uint64_t)partial.st_size != file->length_bytes))
    state->state = DIRECTORY_FILE_MISSING;
}

static bool survey_files(struct survey *survey, struct sprout_error *error) {
  struct directory_destination *directory = survey->directory;

  for (uint32_t i = 0; i < directory->manifest->file_count; i++) {
    const struct manifest_file *file = &directory->manifest->files[i];
    bool any = false, whole = false;
    if (atomic_load(&directory->cancelled)) break;
    count_selected(directory, file, &any, &whole);
    if (!any) continue;
    if (!whole && !directory->dry_run) {
      sprout_error_set(error, SPROUT_INVALID, 0,
                       "Select whole files (--include, --exclude), or fork tensors to null:.",
                       "%s would have holes: not all of its tensors are selected", file->path);
      return false;
    }
    survey_file(survey, i);
  }
  if (survey->conflicts == 0) return true;
  sprout_error_set(error, SPROUT_EXISTS, EEXIST,
                   "Move them away, give another directory, or replace them with --force.",
                   "%zu file%s in the way in %s: %s%s", survey->conflicts,
                   survey->conflicts == 1 ? " is" : "s are", directory->path, survey->text,
                   survey->listed < survey->conflicts ? ", ... (see the log)" : "");
  return false;
}

/* Tensors without a file have no place in a directory. */
static bool check_placed(const struct directory_destination *directory,
                         struct sprout_error *error) {
  for (uint32_t i = 0; i < directory->manifest->object_count; i++) {
    if (directory->manifest->objects[i].file != MANIFEST_NONE || !object_selected(directory, i))
      continue;
    sprout_error_set(error, SPROUT_INVALID, 0,
                     "Fork it into memory through the library, or to null:.",
                     "the seed serves %s without a file, so it has no place in a directory",
                     directory->manifest->objects[i].name);
    return false;
  }
  return true;
}

/* ---- space ---- */

int directory_allocate(int fd, uint64_t length_bytes) {
  struct rlimit limit;

  if (length_bytes > INT64_MAX) return EFBIG;
  /* Asked first: the kernel would also send SIGXFSZ. */
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      length_bytes > limit.rlim_cur)
    return EFBIG;
  if (ftruncate(fd, (off_t)length_bytes) != 0) return errno;
  if (length_bytes == 0) return 0;
  while (fallocate(fd, 0, 0, (off_t)length_bytes) != 0) {
    if (errno == EOPNOTSUPP || errno == ENOSYS) return 0;
    if (errno != EINTR) return errno;
  }
  return 0;
}

/* Opens or creates the partial file of `file`, of its full length. 0 or errno. */
static int make_partial(struct survey *survey, uint32_t index) {
  struct directory_destination *directory = survey->directory;
  const struct manifest_file *file = &directory->manifest->files[index];
  struct directory_file *state = &directory->files[index];
  int parent_fd = -1, fd = -1, result = 0;
  const char *name = NULL;
  mode_t mode = file->executable ? 0777 : 0666;

  result = directory_walker_enter(&survey->partial, file->path, &parent_fd, &name);
  if (result != 0) return result;
  if (!directory->reuse && unlinkat(parent_fd, name, 0) != 0 && errno != ENOENT) return errno;
  fd = openat(parent_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) {
    state->fresh = true;
    fd = openat(parent_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
  }
  if (fd < 0) return errno;
  result = directory_allocate(fd, file->length_bytes);
  close(fd);
  return result;
}

static bool make_partials(struct survey *survey, struct sprout_error *error) {
  struct directory_destination *directory = survey->directory;
  uint64_t needed = 0;

  for (uint32_t i = 0; i < directory->manifest->file_count; i++) {
    int result = 0;
    if (directory->files[i].state != DIRECTORY_FILE_PARTIAL) continue;
    if (atomic_load(&directory->cancelled)) return true;
    result = make_partial(survey, i);
    if (result == 0) continue;
    for (uint32_t j = i; j < directory->manifest->file_count; j++)
      if (directory->files[j].state == DIRECTORY_FILE_PARTIAL)
        needed += directory->manifest->files[j].length_bytes;
    if (result == ENOSPC || result == EDQUOT || result == EFBIG)
      directory_space_error(directory, result, needed, error);
    else
      directory_io_error(directory, result, "create", directory->manifest->files[i].path, error);
    return false;
  }
  return true;
}

/* ---- all of it ---- */

static bool set_up(struct directory_destination *directory, struct sprout_error *error) {
  struct survey survey = {.directory = directory};
  bool good = check_placed(directory, error) && open_destination(directory, error);

  if (good && !directory->dry_run) good = lock_destination(directory, error);
  if (good && directory->dry_run && directory->destination_fd >= 0 && !directory->verify_only) {
    int private_fd = open_private_part(directory->destination_fd, DIRECTORY_PRIVATE, false);
    if (private_fd >= 0)
      directory->partial_fd = open_private_part(private_fd, DIRECTORY_PARTIAL, false);
    directory->private_fd = private_fd;
  }
  if (!good) return false;
  directory_walker_init(&survey.final, directory->destination_fd, false, false);
  directory_walker_init(&survey.partial, directory->partial_fd, false, false);
  good = survey_files(&survey, error);
  (void)directory_walker_finish(&survey.final);
  (void)directory_walker_finish(&survey.partial);
  if (!good || directory->dry_run) return good;
  directory_walker_init(&survey.partial, directory->partial_fd, true, false);
  good = make_partials(&survey, error);
  (void)directory_walker_finish(&survey.partial);
  return good;
}

void directory_setup_run(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);

  job->error = (struct sprout_error){.status = SPROUT_OK};
  if (!set_up(job->directory, &job->error)) return;
  job->error.status = SPROUT_OK;
}
