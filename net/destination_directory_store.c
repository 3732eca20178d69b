/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storing: a slot's bytes go to their places in partial files, run by run (ranges that follow each
 * other in one file are one write). Short writes are continued. Descriptors come from a small
 * cache; opening and closing files, and cloning a file that must be replaced, is the workers'
 * business.
 */
#include "net/destination_directory.h"

#include "net/destination_directory_path.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static void advance(struct directory_slot *slot);

static void end_store(struct directory_slot *slot) {
  struct directory_destination *directory = slot->directory;

  list_append(&directory->stored, &slot->transfer->node);
  directory_answer(directory);
}

/* ---- descriptors ---- */

static struct directory_descriptor *find_descriptor(struct directory_destination *directory,
                                                    uint32_t file) {
  for (uint32_t i = 0; i < DIRECTORY_DESCRIPTORS; i++) {
    struct directory_descriptor *descriptor = &directory->descriptors[i];
    if (descriptor->fd >= 0 && descriptor->file == file) return descriptor;
  }
  return NULL;
}

/* The one to reuse: free, or used longest ago. There are more than slots, so there is one. */
static struct directory_descriptor *spare_descriptor(struct directory_destination *directory) {
  struct directory_descriptor *oldest = NULL;

  for (uint32_t i = 0; i < DIRECTORY_DESCRIPTORS; i++) {
    struct directory_descriptor *descriptor = &directory->descriptors[i];
    if (descriptor->users > 0) continue;
    if (descriptor->fd < 0) return descriptor;
    if (oldest == NULL || descriptor->last_used < oldest->last_used) oldest = descriptor;
  }
  assert(oldest != NULL);
  return oldest;
}

void directory_close_descriptors(struct directory_destination *directory) {
  for (uint32_t i = 0; i < DIRECTORY_DESCRIPTORS; i++) {
    struct directory_descriptor *descriptor = &directory->descriptors[i];
    assert(descriptor->users == 0);
    if (descriptor->fd >= 0) close(descriptor->fd);
    descriptor->fd = -1;
  }
}

static void run_open(struct work *work) {
  struct directory_slot *slot = container_of(work, struct directory_slot, open);
  const struct directory_destination *directory = slot->directory;
  struct directory_walker walker;
  int parent_fd = -1;
  const char *name = NULL;

  if (slot->close_fd >= 0) close(slot->close_fd);
  directory_walker_init(&walker, directory->partial_fd, false, false);
  slot->open_fd = -1;
  slot->open_errno = directory_walker_enter(&walker, directory->manifest->files[slot->file].path,
                                            &parent_fd, &name);
  if (slot->open_errno == 0) {
    slot->open_fd = openat(parent_fd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (slot->open_fd < 0) slot->open_errno = errno;
  }
  (void)directory_walker_finish(&walker);
}

static void write_run(struct directory_slot *slot);

static void open_done(struct work *work) {
  struct directory_slot *slot = container_of(work, struct directory_slot, open);
  struct directory_destination *directory = slot->directory;
  struct directory_descriptor *descriptor = &directory->descriptors[slot->descriptor];

  directory->jobs_running--;
  if (slot->open_fd < 0) {
    descriptor->users--;
    directory_io_error(directory, slot->open_errno, "open",
                       directory->manifest->files[slot->file].path, &slot->error);
    end_store(slot);
    return;
  }
  descriptor->fd = slot->open_fd;
  write_run(slot);
}

/* Two slots may open the same file at once: both descriptors are good. */
static void take_descriptor(struct directory_slot *slot) {
  struct directory_destination *directory = slot->directory;
  struct directory_descriptor *descriptor = find_descriptor(directory, slot->file);
  bool open = descriptor == NULL;

  if (open) {
    descriptor = spare_descriptor(directory);
    slot->close_fd = descriptor->fd;
    descriptor->fd = -1;
    descriptor->file = slot->file;
  }
  descriptor->users++;
  descriptor->last_used = ++directory->use_counter;
  slot->descriptor = (uint32_t)(descriptor - directory->descriptors);
  if (!open) {
    write_run(slot);
    return;
  }
  slot->open = (struct work){.run = run_open, .done = open_done};
  directory->jobs_running++;
  reactor_work(directory->reactor, &slot->open);
}

/* ---- cloning a file under its final name ---- */

static int copy_bytes(int from_fd, int to_fd, uint64_t length_bytes, const atomic_bool *cancelled) {
  while (length_bytes > 0) {
    size_t wanted = length_bytes < (64u << 20) ? (size_t)length_bytes : (size_t)(64u << 20);
    ssize_t copied = copy_file_range(from_fd, NULL, to_fd, NULL, wanted, 0);
    if (copied < 0 && errno == EINTR) continue;
    if (copied < 0) return errno;
    if (copied == 0) return EIO; /* became shorter meanwhile */
    if (atomic_load(cancelled)) return ECANCELED;
    length_bytes -= (uint64_t)copied;
  }
  return 0;
}

static int clone_into(struct directory_destination *directory, int from_fd) {
  const struct manifest_file *file = &directory->manifest->files[directory->clone_file];
  struct directory_walker walker;
  int parent_fd = -1, to_fd = -1;
  const char *name = NULL;
  int result = 0;

  directory_walker_init(&walker, directory->partial_fd, true, false);
  result = directory_walker_enter(&walker, file->path, &parent_fd, &name);
  if (result == 0) {
    to_fd = openat(parent_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                   file->executable ? 0777 : 0666);
    if (to_fd < 0) result = errno;
  }
  if (result == 0 && ioctl(to_fd, FICLONE, from_fd) != 0) {
    result = directory_allocate(to_fd, file->length_bytes);
    if (result == 0) result = copy_bytes(from_fd, to_fd, file->length_bytes, &directory->cancelled);
  }
  if (to_fd >= 0) {
    close(to_fd);
    if (result != 0) (void)unlinkat(parent_fd, name, 0);
  }
  (void)directory_walker_finish(&walker);
  return result;
}

static void run_clone(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);
  struct directory_destination *directory = job->directory;
  const char *path = directory->manifest->files[directory->clone_file].path;
  struct directory_walker walker;
  int parent_fd = -1, from_fd = -1;
  const char *name = NULL;
  int result = 0;

  job->error = (struct sprout_error){.status = SPROUT_OK};
  directory_walker_init(&walker, directory->destination_fd, false, false);
  result = directory_walker_enter(&walker, path, &parent_fd, &name);
  if (result == 0) {
    from_fd = openat(parent_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    result = from_fd < 0 ? errno : clone_into(directory, from_fd);
  }
  if (from_fd >= 0) close(from_fd);
  (void)directory_walker_finish(&walker);
  if (result != 0) directory_io_error(directory, result, "copy", path, &job->error);
}

/* Slots that waited go on; those of further files start the next clone. */
static void clone_done(struct work *work) {
  struct directory_job *job = container_of(work, struct directory_job, work);
  struct directory_destination *directory = job->directory;
  struct directory_file *file = &directory->files[directory->clone_file];
  struct list_node waiting;

  directory->jobs_running--;
  directory->cloning = false;
  file->state = job->error.status == SPROUT_OK ? DIRECTORY_FILE_PARTIAL : DIRECTORY_FILE_FINAL;
  list_move(&waiting, &directory->waiting);
  for (struct list_node *node = list_take(&waiting); node != NULL; node = list_take(&waiting)) {
    struct directory_slot *slot = container_of(node, struct directory_slot, node);
    if (slot->file == directory->clone_file && job->error.status != SPROUT_OK) {
      slot->error = job->error;
      end_store(slot);
    } else {
      advance(slot);
    }
  }
}

/* The slot's file lies whole under its final name, and differs. */
static void replace_final(struct directory_slot *slot) {
  struct directory_destination *directory = slot->directory;
  const char *path = directory->manifest->files[slot->file].path;

  if (!directory->force) {
    sprout_error_set(&slot->error, SPROUT_EXISTS, EEXIST,
                     "Move it away, give another directory, or replace it with --force.",
                     "%s/%s is in the way: it has the right size and other bytes", directory->path,
                     path);
    end_store(slot);
    return;
  }
  list_append(&directory->waiting, &slot->node);
  if (directory->cloning) return;
  directory->cloning = true;
  directory->clone_file = slot->file;
  directory->files[slot->file].state = DIRECTORY_FILE_CLONING;
  directory->clone = (struct directory_job){.directory = directory,
                                            .work = {.run = run_clone, .done = clone_done}};
  directory->jobs_running++;
  reactor_work(directory->reactor, &directory->clone.work);
}

/* ---- writing ---- */

static void write_done(struct ring_op *op) {
  struct directory_slot *slot = container_of(op, struct directory_slot, write);
  struct directory_destination *directory = slot->directory;

  if (op->result > 0) {
    slot->written += (uint64_t)op->result;
    slot->file_offset += (uint64_t)op->result;
    slot->run_bytes -= (uint64_t)op->result;
  } else if (op->result != -EINTR && op->result != -EAGAIN) {
    directory_io_error(directory, op->result == 0 ? EIO : -op->result, "write",
                       directory->manifest->files[slot->file].path, &slot->error);
    directory->descriptors[slot->descriptor].users--;
    end_store(slot);
    return;
  }
  if (slot->run_bytes > 0) {
    write_run(slot);
    return;
  }
  directory->descriptors[slot->descriptor].users--;
  advance(slot);
}

static void write_run(struct directory_slot *slot) {
  struct directory_destination *directory = slot->directory;

  directory->files[slot->file].touched = true;
  slot->iov =
      (struct iovec){.iov_base = slot->memory + slot->written, .iov_len = (size_t)slot->run_bytes};
  slot->write = (struct ring_op){.kind = RING_WRITEV,
                                 .fd = directory->descriptors[slot->descriptor].fd,
                                 .iov = &slot->iov,
                                 .iov_count = 1,
                                 .offset = slot->file_offset,
                                 .done = write_done};
  reactor_submit(directory->reactor, &slot->write);
}

/* The next ranges that lie behind each other in one file become the run. */
static void take_run(struct directory_slot *slot) {
  const struct manifest *manifest = slot->directory->manifest;
  const struct destination_transfer *transfer = slot->transfer;
  const struct source_range *range = &transfer->ranges[slot->next_range];
  const struct manifest_object *object = &manifest->objects[range->object];

  slot->file = object->file;
  slot->file_offset = object->file_offset + range->offset;
  slot->run_bytes = range->length_bytes;
  while (++slot->next_range < transfer->range_count) {
    range = &transfer->ranges[slot->next_range];
    object = &manifest->objects[range->object];
    if (object->file != slot->file ||
        object->file_offset + range->offset != slot->file_offset + slot->run_bytes)
      break;
    slot->run_bytes += range->length_bytes;
  }
}

/* Nothing of a run is under way: the next run, or the end. */
static void advance(struct directory_slot *slot) {
  struct directory_destination *directory = slot->directory;

  while (slot->run_bytes == 0 && slot->next_range < slot->transfer->range_count) take_run(slot);
  if (slot->run_bytes == 0) {
    end_store(slot);
    return;
  }
  switch (directory->files[slot->file].state) {
  case DIRECTORY_FILE_PARTIAL: take_descriptor(slot); return;
  case DIRECTORY_FILE_FINAL:
  case DIRECTORY_FILE_CLONING: replace_final(slot); return;
  case DIRECTORY_FILE_SKIPPED:
  case DIRECTORY_FILE_MISSING: break;
  }
  assert(!"stored bytes of a file that was not selected");
}

void directory_store(struct directory_slot *slot) {
  slot->error = (struct sprout_error){.status = SPROUT_OK};
  slot->next_range = 0;
  slot->written = slot->run_bytes = 0;
  slot->close_fd = -1;
  advance(slot);
}
