/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the directory destination. Shared by destination_directory*.c only.
 *
 * Files are written under DEST/.sprout/partial/PATH (no path of a manifest has a part ".sprout")
 * and get their final names at the end, when all of them are whole and on the disk.
 * DEST/.sprout/lock is held (flock) while a fork works on DEST.
 *
 *   _setup.c   worker: opens, locks, surveys, makes partial files and their space
 *   _hash.c    workers: digests of what is there already, chunk by chunk
 *   _store.c   reactor + ring: staging slots to partial files
 *   _finish.c  workers: sync, rename, clean up; clean up after a failure
 *
 * What is in the way. A file under a final name is never changed. When its size is right it counts
 * as there (its chunks are reported as existing); only when a chunk of it has to be stored it is in
 * the way: without `force` that store fails with SPROUT_EXISTS, with `force` the file is cloned
 * into a partial one first. When its size or type is wrong, prepare fails with SPROUT_EXISTS naming
 * all such files, or, with `force`, it is replaced at the end. Files that the model does not have
 * are left alone.
 *
 * Threads: worker jobs see what they are handed; `files` states change on the reactor's thread only
 * (setup runs while nothing else does). `cancelled` is read by jobs.
 */
#ifndef NET_DESTINATION_DIRECTORY_H
#define NET_DESTINATION_DIRECTORY_H

#include "net/sources.h"

#include <stdatomic.h>

#define DIRECTORY_SLOTS_MAX 32u
#define DIRECTORY_DESCRIPTORS 64u /* partial files held open; more than slots */
#define DIRECTORY_JOBS 4u         /* hash or sync jobs at once */
#define DIRECTORY_HASH_CHUNKS 256u
#define DIRECTORY_HASH_BYTES (64u * 1024u * 1024u)

#define DIRECTORY_PRIVATE ".sprout"
#define DIRECTORY_PARTIAL "partial"
#define DIRECTORY_LOCK "lock"

enum directory_file_state {
  DIRECTORY_FILE_SKIPPED, /* not selected */
  DIRECTORY_FILE_PARTIAL, /* written under .sprout, renamed at the end */
  DIRECTORY_FILE_FINAL,   /* right size under its final name: not touched unless it must be */
  DIRECTORY_FILE_CLONING, /* was FINAL; waits for its copy under .sprout */
  DIRECTORY_FILE_MISSING  /* dry run: nothing there */
};

struct directory_file {
  enum directory_file_state state;
  bool fresh;   /* made by this run: holds nothing yet */
  bool touched; /* bytes were stored by this run */
};

struct directory_destination;

/* A staging slot: memory for one transfer, and the writing of it. */
struct directory_slot {
  struct directory_destination *directory;
  unsigned char *memory; /* SPROUT_CHUNK_BYTES */
  struct destination_transfer *transfer;
  struct sprout_error error;
  uint32_t next_range;  /* first range that is not written yet */
  uint64_t written;     /* bytes of the transfer that are */
  uint64_t run_bytes;   /* left of the run being written */
  uint64_t file_offset; /* where they go */
  uint32_t file;        /* of the run */
  uint32_t descriptor;  /* index in descriptors, while writing */
  struct iovec iov;
  struct ring_op write;
  struct work open; /* or clone */
  int open_errno;
  int open_fd, close_fd;
  struct list_node node; /* in waiting */
};

/* An open partial file. */
struct directory_descriptor {
  int fd; /* -1: free, or being opened */
  uint32_t file;
  uint32_t users;
  uint64_t last_used;
};

/* One span of chunks being re-hashed. */
struct directory_hash_job {
  struct directory_destination *directory;
  struct work work;
  uint32_t file;
  uint32_t count;
  uint64_t chunks[DIRECTORY_HASH_CHUNKS];
  struct digest digests[DIRECTORY_HASH_CHUNKS];
  bool found[DIRECTORY_HASH_CHUNKS]; /* not a hole, and read */
};

struct directory_job {
  struct directory_destination *directory;
  struct work work;
  struct sprout_error error;
};

enum directory_phase {
  DIRECTORY_NEW,      /* waits for prepare */
  DIRECTORY_SETUP,    /* waits for the setup job */
  DIRECTORY_HASHING,  /* waits for hash jobs */
  DIRECTORY_OPEN,     /* takes transfers */
  DIRECTORY_SYNCING,  /* waits for sync jobs */
  DIRECTORY_RENAMING, /* waits for the rename job */
  DIRECTORY_ENDED,    /* finished, or a phase failed: waits for abort or destroy */
  DIRECTORY_ABORTING, /* waits for jobs to end, then for the clean-up job */
};

struct directory_destination {
  struct destination base;
  struct reactor *reactor;
  char *path;
  bool force, dry_run, verify_only;
  const struct fork_filter *filter;
  enum directory_phase phase;
  atomic_bool cancelled;
  const struct manifest *manifest;
  const uint64_t *selected;
  bool reuse;

  /* made by setup */
  bool made_destination; /* DEST itself */
  int destination_fd, private_fd, partial_fd, lock_fd;
  struct directory_file *files;

  /* staging */
  uint32_t slot_count, free_count, busy_slots;
  unsigned char *memory;
  struct iovec landing; /* the same */
  struct directory_slot *slots;
  struct directory_slot **free_slots; /* a stack: the hottest first */
  bool wants_room;
  struct directory_descriptor descriptors[DIRECTORY_DESCRIPTORS];
  uint64_t use_counter;
  struct list_node waiting; /* slots that wait for a clone */
  bool cloning;
  struct directory_job clone;
  uint32_t clone_file;

  /* jobs */
  uint32_t jobs_running;
  struct directory_job setup, rename, cleanup;
  struct directory_job sync[DIRECTORY_JOBS];
  atomic_uint sync_next;           /* next file to sync */
  struct directory_hash_job *hash; /* DIRECTORY_JOBS, while hashing */
  uint32_t hash_file, hash_object; /* cursor */
  uint64_t hash_chunk;             /* within the object */

  /* answers, told by one deferred callback */
  struct deferred answer;
  bool tell_prepared, tell_finished, tell_aborted, tell_room;
  struct sprout_error result;
  struct list_node stored; /* transfers; their slots are free again */
};

/* --- destination_directory.c --- */
void directory_answer(struct directory_destination *directory);
/* Ends the present phase with *error. */
void directory_prepared(struct directory_destination *directory, const struct sprout_error *error);
void directory_finished(struct directory_destination *directory, const struct sprout_error *error);
/* A job ended: goes on with an abort that waits for it. True when there is one. */
bool directory_job_ended(struct directory_destination *directory);

/* --- destination_directory_setup.c; worker --- */
void directory_setup_run(struct work *work);
/* Makes or re-opens a partial file of its full length with its space allocated. errno or 0. */
int directory_allocate(int fd, uint64_t length_bytes);
/* "needs N bytes, M available". */
void directory_space_error(const struct directory_destination *directory, int native,
                           uint64_t needed_bytes, struct sprout_error *error);
/* SPROUT_NO_SPACE, SPROUT_NO_MEMORY, SPROUT_LIMIT or SPROUT_IO for an errno of a file call;
 * path "": DEST itself. */
void directory_io_error(const struct directory_destination *directory, int native, const char *what,
                        const char *path, struct sprout_error *error);

/* --- destination_directory_hash.c --- */
void directory_hash_start(struct directory_destination *directory);

/* --- destination_directory_store.c --- */
void directory_store(struct directory_slot *slot);
void directory_close_descriptors(struct directory_destination *directory);

/* --- destination_directory_finish.c --- */
void directory_finish_start(struct directory_destination *directory);
void directory_cleanup_start(struct directory_destination *directory);
/* Closes what setup opened; the lock goes with it. */
void directory_close(struct directory_destination *directory);
#endif
