/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a file source. file_source.c holds its life and the reads, file_source_workers.c what
 * blocks: laying the directory out, digests.
 */
#ifndef NET_FILE_SOURCE_INTERNAL_H
#define NET_FILE_SOURCE_INTERNAL_H

#include "core/region.h"
#include "net/sources.h"

#include <stdatomic.h>

#define FILE_READS 16u
#define IDENTITY_KEYS 8u

enum file_state {
  FILE_IDLE,    /* waits for connect */
  FILE_OPENING, /* waits for the worker that lays the directory out */
  FILE_KNOWN,   /* waits for open */
  FILE_READY,   /* reads */
  FILE_FAILING, /* waits for its operations, then tells failed */
  FILE_FAILED,  /* waits for close */
  FILE_CLOSING  /* waits for its operations and workers, then tells closed */
};

/* One read on its way: one piece at a time. */
struct file_read {
  struct ring_op op;
  struct file_source *source;
  struct source_read *read; /* NULL: free */
  uint32_t range;           /* of read->ranges */
  uint64_t range_used;
};

struct file_digests {
  struct work work;
  struct file_source *source;
  bool busy;
  uint64_t first, count;
  struct digest *values;
  bool *known;
  enum sprout_status status;
};

struct file_source {
  struct source base;
  struct reactor *reactor;
  enum file_state state;
  char *directory;
  const struct manifest *(*reference)(void *context);
  void *reference_context;

  struct work open;
  bool opening;
  bool has_reference;
  char *identity[IDENTITY_KEYS]; /* of the reference, copied for the worker */
  char label[MANIFEST_LABEL_MAX + 1];
  struct model *model;
  struct manifest *manifest; /* made by the worker, handed to the listener */
  struct sprout_error error;
  bool announce_ready;

  struct file_read reads[FILE_READS];
  struct list_node posted;
  struct file_digests digests[SOURCE_DIGEST_REQUESTS];
  atomic_bool stop; /* digest workers end early */
  struct deferred tell;
};

static inline struct file_source *file_of(struct source *source) {
  return container_of(source, struct file_source, base);
}

/* Ends the source (once; later ones are ignored); `failed` follows. */
void file_source_fail(struct file_source *source, enum sprout_status status, int native,
                      const char *what);

/* The source's operations that go to workers. */
void file_source_connect(struct source *base);
void file_source_request_digests(struct source *base, uint64_t first, uint64_t count, bool compute);
void file_source_workers_init(struct file_source *source);
bool file_source_working(const struct file_source *source);
/* Nothing is working any more. */
void file_source_forget_model(struct file_source *source);
#endif
