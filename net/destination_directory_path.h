/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks relative paths below a directory without following symbolic links, so that nothing outside
 * of it is ever touched. Blocks: worker threads only.
 *
 * A walker remembers the directory of the last path: files of one directory cost one walk.
 */
#ifndef NET_DESTINATION_DIRECTORY_PATH_H
#define NET_DESTINATION_DIRECTORY_PATH_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stddef.h>

struct directory_walker {
  int root_fd;      /* borrowed */
  bool create;      /* makes missing directories */
  bool sync;        /* fsyncs a directory when the walker leaves it */
  int fd;           /* the last directory, -1: none (root_fd then) */
  char *path;       /* of it; "" is the root */
  size_t path_size; /* allocated */
};

void directory_walker_init(struct directory_walker *walker, int root_fd, bool create, bool sync);
/* Closes the last directory; 0, or the errno of an fsync that failed. */
int directory_walker_finish(struct directory_walker *walker);

/*
 * Opens the directory part of `path` (a valid manifest path); *directory_fd_out is the walker's and
 * valid until the next call, *name_out the last part, inside path. Returns 0 or an errno: ENOENT
 * (missing, and not `create`), ENOTDIR (a part is a symbolic link or a file).
 */
int directory_walker_enter(struct directory_walker *walker, const char *path, int *directory_fd_out,
                           const char **name_out);

/* Removes a directory and its content, as far as that is possible; without `files` only directories
 * that hold no file. */
void directory_remove_tree(int parent_fd, const char *name, bool files);
#endif
