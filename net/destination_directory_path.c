/* SPDX-License-Identifier: Apache-2.0 */
#include "net/destination_directory_path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_BYTES 256
#define TREE_DEPTH_MAX 64

void directory_walker_init(struct directory_walker *walker, int root_fd, bool create, bool sync) {
  *walker = (struct directory_walker){.root_fd = root_fd, .create = create, .sync = sync, .fd = -1};
}

/* Leaves the last directory. */
static int leave(struct directory_walker *walker) {
  int result = 0;

  if (walker->fd < 0) return 0;
  if (walker->sync && fsync(walker->fd) != 0) result = errno;
  close(walker->fd);
  walker->fd = -1;
  return result;
}

int directory_walker_finish(struct directory_walker *walker) {
  int result = leave(walker);

  free(walker->path);
  walker->path = NULL;
  walker->path_size = 0;
  return result;
}

/* One step down; returns the descriptor or -errno. */
static int step(const struct directory_walker *walker, int parent_fd, const char *part) {
  int fd = openat(parent_fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

  if (fd < 0 && errno == ENOENT && walker->create) {
    if (mkdirat(parent_fd, part, 0777) != 0 && errno != EEXIST) return -errno;
    if (walker->sync && fsync(parent_fd) != 0) return -errno;
    fd = openat(parent_fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  }
  if (fd >= 0) return fd;
  return errno == ELOOP ? -ENOTDIR : -errno;
}

/* Walks `length` characters of path from the root; leaves the descriptor in walker->fd. */
static int descend(struct directory_walker *walker, const char *path, size_t length) {
  int fd = -1;

  while (length > 0) {
    const char *slash = memchr(path, '/', length);
    size_t part_length = slash != NULL ? (size_t)(slash - path) : length;
    size_t taken = slash != NULL ? part_length + 1 : part_length;
    char part[PART_BYTES];
    int next = -ENAMETOOLONG;
    if (part_length < sizeof(part)) {
      memcpy(part, path, part_length);
      part[part_length] = '\0';
      next = step(walker, fd < 0 ? walker->root_fd : fd, part);
    }
    if (fd >= 0) close(fd);
    if (next < 0) return -next;
    fd = next;
    path += taken;
    length -= taken;
  }
  walker->fd = fd;
  return 0;
}

/* Remembers which directory walker->fd is. */
static int remember(struct directory_walker *walker, const char *path, size_t length) {
  if (length + 1 > walker->path_size) {
    char *grown = realloc(walker->path, length + 1);
    if (grown == NULL) return ENOMEM;
    walker->path = grown;
    walker->path_size = length + 1;
  }
  memcpy(walker->path, path, length);
  walker->path[length] = '\0';
  return 0;
}

int directory_walker_enter(struct directory_walker *walker, const char *path, int *directory_fd_out,
                           const char **name_out) {
  const char *slash = strrchr(path, '/');
  size_t length = slash != NULL ? (size_t)(slash - path) : 0;
  bool same =
      walker->fd >= 0 && strlen(walker->path) == length && memcmp(walker->path, path, length) == 0;
  int result = 0;

  *name_out = slash != NULL ? slash + 1 : path;
  if (length > 0 && !same) {
    result = leave(walker);
    if (result == 0) result = remember(walker, path, length);
    if (result == 0) result = descend(walker, path, length);
    if (result != 0) return result;
  }
  *directory_fd_out = length > 0 ? walker->fd : walker->root_fd;
  return 0;
}

static void remove_content(int fd, bool files, int depth) {
  DIR *directory = fdopendir(fd);
  struct dirent *entry = NULL;

  if (directory == NULL) {
    close(fd);
    return;
  }
  while ((entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (files && unlinkat(fd, entry->d_name, 0) == 0) continue;
    int child = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (child < 0) continue;
    if (depth < TREE_DEPTH_MAX)
      remove_content(child, files, depth + 1);
    else
      close(child);
    (void)unlinkat(fd, entry->d_name, AT_REMOVEDIR);
  }
  closedir(directory);
}

void directory_remove_tree(int parent_fd, const char *name, bool files) {
  int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

  if (fd >= 0) remove_content(fd, files, 0);
  (void)unlinkat(parent_fd, name, AT_REMOVEDIR);
}
