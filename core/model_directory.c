/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds the files of a model directory, in byte order of their paths, so that equal directories
 * give equal layouts.
 */
#include "core/limits.h"
#include "core/log.h"
#include "core/model_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Deeper and wider than any model. Links can make paths without end from few directories. */
#define DEPTH_MAX 32u
#define DIRECTORIES_MAX 65536u

struct scan {
  int root;
  uint32_t directories;
  struct stat visiting[DEPTH_MAX]; /* the directory being listed and those above it */

  const char *root_path;
  char real_root[PATH_MAX];
  char blobs[PATH_MAX]; /* where links of a Hugging Face snapshot lead; "" when it is none */
  char **paths;
  size_t count, capacity;
  struct sprout_error *error;
};

static enum sprout_status out_of_memory(struct scan *scan) {
  return sprout_error_set(scan->error, SPROUT_NO_MEMORY, 0, NULL, "no memory to list %s",
                          scan->root_path);
}

static bool is_below(const char *path, const char *directory) {
  size_t length = strlen(directory);
  if (length == 1) return true; /* "/" */
  return length > 0 && strncmp(path, directory, length) == 0 &&
         (path[length] == '/' || path[length] == 0);
}

static bool ends_with(const char *name, const char *ending) {
  size_t length = strlen(name), tail = strlen(ending);
  return length >= tail && strcmp(name + length - tail, ending) == 0;
}

/* Not part of a model: version control, download caches, our own partial files, locks. */
static bool left_out(const char *name) {
  return strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, ".git") == 0 ||
         strcmp(name, ".cache") == 0 || strcmp(name, ".sprout") == 0 || ends_with(name, ".lock");
}

/* A link may lead to something inside the directory, or into the cache's blobs. */
static bool link_allowed(struct scan *scan, const char *relative, bool *into_blobs_out) {
  char path[PATH_MAX], real[PATH_MAX];
  if ((size_t)snprintf(path, sizeof path, "%s/%s", scan->real_root, relative) >= sizeof path ||
      !realpath(path, real)) {
    log_write(LOG_WARNING, "seed", "%s/%s is a link that leads nowhere: skipped", scan->root_path,
              relative);
    return false;
  }
  *into_blobs_out = is_below(real, scan->blobs);
  if (is_below(real, scan->real_root) || *into_blobs_out) return true;
  log_write(LOG_WARNING, "seed", "%s/%s is a link that leaves the directory: skipped",
            scan->root_path, relative);
  return false;
}

static SPROUT_MUST_CHECK enum sprout_status remember(struct scan *scan, const char *relative) {
  if (scan->count == LIMIT_FILES) {
    return sprout_error_set(scan->error, SPROUT_LIMIT, 0, "Serve a part of it.",
                            "%s has more than %d files", scan->root_path, LIMIT_FILES);
  }
  if (scan->count == scan->capacity) {
    size_t capacity = scan->capacity ? scan->capacity * 2 : 64;
    char **grown = realloc(scan->paths, capacity * sizeof *grown);
    if (!grown) return out_of_memory(scan);
    scan->paths = grown;
    scan->capacity = capacity;
  }
  scan->paths[scan->count] = strdup(relative);
  if (!scan->paths[scan->count]) return out_of_memory(scan);
  scan->count++;
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status scan_directory(struct scan *scan, int fd,
                                                           const char *prefix, unsigned depth);

static enum sprout_status cannot(struct scan *scan, const char *verb, const char *relative) {
  char path[PATH_MAX];
  int code = errno;
  snprintf(path, sizeof path, "%s%s%s", scan->root_path, relative[0] ? "/" : "", relative);
  return model_io_error(scan->error, code, verb, path);
}

static SPROUT_MUST_CHECK enum sprout_status scan_subdirectory(struct scan *scan,
                                                              const char *relative,
                                                              const struct stat *info,
                                                              unsigned depth) {
  /* A link to a directory that is being listed would never end. */
  for (unsigned i = 0; i <= depth; i++) {
    if (scan->visiting[i].st_dev != info->st_dev || scan->visiting[i].st_ino != info->st_ino)
      continue;
    log_write(LOG_WARNING, "seed", "%s/%s is a link that leads back to where it is: skipped",
              scan->root_path, relative);
    return SPROUT_OK;
  }
  if (depth + 1 == DEPTH_MAX || ++scan->directories == DIRECTORIES_MAX) {
    return sprout_error_set(scan->error, SPROUT_LIMIT, 0, "Name the directory of one model.",
                            "%s/%s is nested more than %u deep, or one of more than %u directories",
                            scan->root_path, relative, DEPTH_MAX, DIRECTORIES_MAX);
  }
  scan->visiting[depth + 1] = *info;
  int fd = openat(scan->root, relative, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return cannot(scan, "list", relative);
  return scan_directory(scan, fd, relative, depth + 1);
}

static SPROUT_MUST_CHECK enum sprout_status scan_entry(struct scan *scan, const char *prefix,
                                                       const char *name, unsigned depth) {
  char relative[PATH_MAX];
  struct stat info;
  if (left_out(name)) return SPROUT_OK;
  if ((size_t)snprintf(relative, sizeof relative, "%s%s%s", prefix, prefix[0] ? "/" : "", name) >=
          sizeof relative ||
      !manifest_path_ok(relative)) {
    char quoted[MANIFEST_QUOTE_BYTES];
    return sprout_error_set(scan->error, SPROUT_BAD_MODEL, 0, "Rename it or move it elsewhere.",
                            "the name of \"%s\" in %s is too long, not UTF-8, or has control "
                            "characters",
                            manifest_quote(name, quoted), scan->root_path);
  }
  if (fstatat(scan->root, relative, &info, AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT ? SPROUT_OK /* gone meanwhile */ : cannot(scan, "look at", relative);
  if (S_ISLNK(info.st_mode)) {
    bool into_blobs;
    if (!link_allowed(scan, relative, &into_blobs) || fstatat(scan->root, relative, &info, 0) != 0)
      return SPROUT_OK;
    if (into_blobs && S_ISDIR(info.st_mode)) return SPROUT_OK; /* the whole cache */
  }
  if (S_ISDIR(info.st_mode)) return scan_subdirectory(scan, relative, &info, depth);
  if (S_ISREG(info.st_mode)) return remember(scan, relative);
  log_write(LOG_WARNING, "seed", "%s/%s is neither file nor directory: skipped", scan->root_path,
            relative);
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status scan_directory(struct scan *scan, int fd,
                                                           const char *prefix, unsigned depth) {
  DIR *directory = fdopendir(fd);
  if (!directory) {
    close(fd);
    return out_of_memory(scan);
  }
  enum sprout_status status = SPROUT_OK;
  while (status == SPROUT_OK) {
    errno = 0;
    struct dirent *entry = readdir(directory);
    if (!entry && errno != 0) status = cannot(scan, "list", prefix);
    if (!entry) break;
    status = scan_entry(scan, prefix, entry->d_name, depth);
  }
  closedir(directory);
  return status;
}

static int compare_paths(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static void find_roots(struct scan *scan) {
  scan->blobs[0] = 0;
  if (!realpath(scan->root_path, scan->real_root)) {
    snprintf(scan->real_root, sizeof scan->real_root, "%s", scan->root_path);
    return;
  }
  char up[PATH_MAX];
  if ((size_t)snprintf(up, sizeof up, "%s/../../blobs", scan->real_root) >= sizeof up ||
      !model_is_snapshot(scan->real_root))
    return;
  if (!realpath(up, scan->blobs)) scan->blobs[0] = 0;
}

static SPROUT_MUST_CHECK enum sprout_status add_found(struct scan *scan, struct model_draft *draft,
                                                      enum model_memory memory) {
  for (size_t i = 0; i < scan->count; i++) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", scan->root_path, scan->paths[i]);
    int fd = openat(scan->root, scan->paths[i], O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return model_io_error(scan->error, errno, "open", path);
    enum sprout_status status =
        model_add_file(draft, fd, scan->paths[i], path, memory, scan->error);
    if (status != SPROUT_OK) return status;
  }
  return SPROUT_OK;
}

enum sprout_status model_add_directory(struct model_draft *draft, int fd, const char *path,
                                       enum model_memory memory, struct sprout_error *error) {
  struct scan *scan = calloc(1, sizeof *scan);
  int copy = scan ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (!scan || copy < 0) {
    free(scan);
    close(fd);
    return sprout_error_set(error, SPROUT_NO_MEMORY, errno, NULL,
                            "no memory or descriptor to list %s", path);
  }
  scan->root = fd;
  scan->root_path = path;
  scan->error = error;
  find_roots(scan);
  enum sprout_status status = SPROUT_OK;
  if (fstat(fd, &scan->visiting[0]) != 0) {
    close(copy);
    status = cannot(scan, "look at", "");
  } else {
    status = scan_directory(scan, copy, "", 0);
  }
  if (status == SPROUT_OK && scan->count == 0) {
    status =
        sprout_error_set(error, SPROUT_BAD_MODEL, 0, "Name a directory with *.safetensors files.",
                         "%s has no file that could be served", path);
  }
  if (status == SPROUT_OK) {
    qsort(scan->paths, scan->count, sizeof *scan->paths, compare_paths);
    status = add_found(scan, draft, memory);
  }
  for (size_t i = 0; i < scan->count; i++) free(scan->paths[i]);
  free(scan->paths);
  free(scan);
  close(fd);
  return status;
}
