/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"
#include "core/model_digest.h"
#include "core/region.h"
#include "net/sources.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static struct file_source *file_of(struct source *source) {
  return container_of(source, struct file_source, base);
}

static void set_error(struct file_source *source, enum sprout_status status, int native,
                      const char *what) {
  sprout_error_set(&source->error, status, native, NULL, "%s: %s%s%s", source->base.url, what,
                   native ? ": " : "", native ? strerror(native) : "");
}

static bool busy(const struct file_source *source) {
  for (uint32_t i = 0; i < FILE_READS; i++) {
    if (source->reads[i].read) return true;
  }
  return false;
}

static bool working(const struct file_source *source) {
  bool any = source->opening;
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) any |= source->digests[i].busy;
  return any;
}

static void fail(struct file_source *source, enum sprout_status status, int native,
                 const char *what) {
  if (source->state >= FILE_FAILING) return;
  set_error(source, status, native, what);
  source->state = FILE_FAILING;
  reactor_defer(source->reactor, &source->tell);
}

/* --- laying out, on a worker --- */

static const char *const *identity_keys(const struct manifest_identity *identity) {
  _Static_assert(sizeof *identity == IDENTITY_KEYS * sizeof(char *),
                 "an identity is its keys and nothing else");
  return (const char *const *)identity;
}

static SPROUT_MUST_CHECK enum sprout_status add_objects(struct manifest_builder *builder,
                                                        const struct manifest *own,
                                                        const struct manifest_file *file) {
  enum sprout_status status =
      manifest_builder_file(builder, file->path, file->length_bytes, file->executable);
  for (uint32_t i = 0; i < file->object_count && status == SPROUT_OK; i++) {
    status = manifest_builder_object(builder, &own->objects[file->first_object + i], true);
  }
  return status;
}

/* The directory's own manifest under the reference's identity and label. */
static SPROUT_MUST_CHECK enum sprout_status rename_manifest(struct file_source *source,
                                                            const struct manifest *own) {
  struct manifest_builder *builder;
  struct manifest_identity identity = own->identity;
  struct manifest_version version = own->version;
  enum sprout_status status = manifest_builder_create(&builder);
  if (status != SPROUT_OK) return status;
  if (source->has_reference) {
    memcpy(&identity, source->identity, sizeof identity);
    memcpy(version.label, source->label, sizeof version.label);
  }
  status = manifest_builder_identity(builder, &identity);
  manifest_builder_version(builder, &version);
  for (uint32_t i = 0; i < own->file_count && status == SPROUT_OK; i++)
    status = add_objects(builder, own, &own->files[i]);
  if (status == SPROUT_OK) status = manifest_build(builder, &source->manifest, &source->error);
  if (status != SPROUT_OK) manifest_builder_destroy(builder);
  return status;
}

static void open_directory(struct work *work) {
  struct file_source *source = container_of(work, struct file_source, open);
  const char *path = source->directory;
  struct model_options options = {
      .paths = &path, .path_count = 1, .rank = "", .label = "", .memory = MODEL_MEMORY_FILE};
  source->error.status = model_open(&options, &source->model, &source->error);
  if (source->error.status != SPROUT_OK) return;
  enum sprout_status status = rename_manifest(source, source->model->manifest);
  if (status != SPROUT_OK) set_error(source, status, 0, "its layout cannot be taken over");
}

static void opened(struct work *work) {
  struct file_source *source = container_of(work, struct file_source, open);
  source->opening = false;
  if (source->state != FILE_OPENING) {
    reactor_defer(source->reactor, &source->tell);
    return;
  }
  if (source->error.status != SPROUT_OK) {
    source->state = FILE_FAILING;
    reactor_defer(source->reactor, &source->tell);
    return;
  }
  source->state = FILE_KNOWN;
  struct manifest *manifest = source->manifest;
  source->manifest = NULL;
  source->base.listener->manifest(&source->base, manifest);
}

static void forget_model(struct file_source *source) {
  manifest_destroy(source->manifest);
  source->manifest = NULL;
  model_destroy(source->model);
  source->model = NULL;
  for (size_t i = 0; i < IDENTITY_KEYS; i++) {
    free(source->identity[i]);
    source->identity[i] = NULL;
  }
}

static void source_connect(struct source *base) {
  struct file_source *source = file_of(base);
  const struct manifest *reference =
      source->reference ? source->reference(source->reference_context) : NULL;
  source->state = FILE_OPENING;
  source->error.status = SPROUT_OK;
  source->has_reference = reference != NULL;
  atomic_store(&source->stop, false);
  for (size_t i = 0; reference && i < IDENTITY_KEYS; i++) {
    source->identity[i] = strdup(identity_keys(&reference->identity)[i]);
    if (!source->identity[i]) {
      fail(source, SPROUT_NO_MEMORY, 0, "no memory for its identity");
      return;
    }
  }
  if (reference) memcpy(source->label, reference->version.label, sizeof source->label);
  source->opening = true;
  reactor_work(source->reactor, &source->open);
}

static void source_open(struct source *base) {
  struct file_source *source = file_of(base);
  source->announce_ready = true;
  reactor_defer(source->reactor, &source->tell);
}

/* --- reads --- */

static void read_next(struct file_read *slot);

static void finish_read(struct file_read *slot, enum sprout_status status) {
  struct file_source *source = slot->source;
  struct source_read *read = slot->read;
  slot->read = NULL;
  read->done(read, status);
  reactor_defer(source->reactor, &source->tell); /* starts posted reads, or ends a phase */
}

static void piece_read(struct ring_op *op) {
  struct file_read *slot = container_of(op, struct file_read, op);
  struct file_source *source = slot->source;
  struct source_read *read = slot->read;
  if (source->state != FILE_READY) {
    finish_read(slot, source->state == FILE_CLOSING ? SPROUT_CANCELLED : source->error.status);
    return;
  }
  if (op->result <= 0) {
    fail(source, SPROUT_IO, -op->result, op->result ? "cannot read" : "a file was truncated");
    finish_read(slot, SPROUT_IO);
    return;
  }
  uint64_t got = (uint64_t)op->result;
  read->landed_bytes += got;
  read->iov_used += got;
  slot->range_used += got;
  read->landed(read, op->buffer, got);
  read_next(slot);
}

/* Submits the next piece: within one range and one entry of the scatter list. */
static void read_next(struct file_read *slot) {
  struct file_source *source = slot->source;
  struct source_read *read = slot->read;
  if (read->landed_bytes == read->length_bytes) {
    finish_read(slot, SPROUT_OK);
    return;
  }
  while (slot->range_used == read->ranges[slot->range].length_bytes) {
    slot->range++;
    slot->range_used = 0;
  }
  while (read->iov_used == read->iov[read->iov_index].iov_len) {
    read->iov_index++;
    read->iov_used = 0;
  }
  const struct source_range *range = &read->ranges[slot->range];
  const struct iovec *entry = &read->iov[read->iov_index];
  const struct placement *placement = &source->model->placements[range->object];
  const struct region *region = &source->model->regions[placement->region];
  uint64_t length = range->length_bytes - slot->range_used, room = entry->iov_len - read->iov_used;
  if (length > room) length = room;
  if (length > DESTINATION_PIECE_BYTES) length = DESTINATION_PIECE_BYTES;
  slot->op.fd = region->fd;
  slot->op.buffer = (char *)entry->iov_base + read->iov_used;
  slot->op.length = length;
  slot->op.offset = region->fd_offset + placement->offset + range->offset + slot->range_used;
  reactor_submit(source->reactor, &slot->op);
}

static void start_reads(struct file_source *source) {
  for (uint32_t i = 0; i < FILE_READS && !list_empty(&source->posted); i++) {
    struct file_read *slot = &source->reads[i];
    if (slot->read) continue;
    slot->read = container_of(list_take(&source->posted), struct source_read, node);
    slot->range = 0;
    slot->range_used = 0;
    slot->read->landed_bytes = 0;
    slot->read->iov_index = 0;
    slot->read->iov_used = 0;
    read_next(slot);
  }
}

static void source_post(struct source *base, struct source_read *read) {
  struct file_source *source = file_of(base);
  list_append(&source->posted, &read->node);
}

static void source_flush(struct source *base) {
  struct file_source *source = file_of(base);
  reactor_defer(source->reactor, &source->tell); /* a read without bytes would be done at once */
}

/* --- digests, on a worker --- */

static void run_digests(struct work *work) {
  struct file_digests *digests = container_of(work, struct file_digests, work);
  unsigned char *piece = malloc(MODEL_PIECE_BYTES);
  digests->status = piece ? SPROUT_OK : SPROUT_NO_MEMORY;
  for (uint64_t i = 0; i < digests->count && digests->status == SPROUT_OK; i++) {
    if (atomic_load(&digests->source->stop)) break;
    int error =
        model_digest_chunk(digests->source->model, digests->first + i, piece, &digests->values[i]);
    digests->status = error == 0 ? SPROUT_OK : SPROUT_IO;
    digests->known[i] = digests->status == SPROUT_OK;
  }
  free(piece);
}

static void digests_done(struct work *work) {
  struct file_digests *digests = container_of(work, struct file_digests, work);
  struct file_source *source = digests->source;
  digests->busy = false;
  if (source->state >= FILE_FAILING) {
    reactor_defer(source->reactor, &source->tell);
  } else if (digests->status != SPROUT_OK) {
    fail(source, digests->status, 0, "its bytes cannot be read");
  } else {
    source->base.listener->digests(&source->base, digests->first, digests->count, digests->values,
                                   digests->known);
  }
  free(digests->values);
  free(digests->known);
  digests->values = NULL;
  digests->known = NULL;
}

static void source_request_digests(struct source *base, uint64_t first, uint64_t count,
                                   bool compute) {
  struct file_source *source = file_of(base);
  (void)compute; /* there is nobody else who would compute them */
  struct file_digests *digests = source->digests;
  while (digests->busy) digests++;
  assert(digests < source->digests + SOURCE_DIGEST_REQUESTS);
  digests->values = calloc(count, sizeof *digests->values);
  digests->known = calloc(count, sizeof *digests->known);
  if (!digests->values || !digests->known) {
    free(digests->values);
    free(digests->known);
    digests->values = NULL;
    digests->known = NULL;
    fail(source, SPROUT_NO_MEMORY, 0, "no memory for digests");
    return;
  }
  digests->first = first;
  digests->count = count;
  digests->busy = true;
  reactor_work(source->reactor, &digests->work);
}

/* --- ending --- */

static void drop_posted(struct file_source *source, enum sprout_status status) {
  struct list_node *node;
  while ((node = list_take(&source->posted))) {
    struct source_read *read = container_of(node, struct source_read, node);
    read->done(read, status);
  }
}

static void announce(struct file_source *source) {
  source->announce_ready = false;
  source->state = FILE_READY;
  struct source_grant grant = {
      .window = {.operations = FILE_READS, .bytes = UINT64_MAX, .depth = FILE_READS},
      .generation = source->model->manifest->version.generation};
  source->base.listener->ready(&source->base, &grant);
}

/* Everything that an op asked for, and the ends of phases. The last call may destroy the source. */
static void tell(struct deferred *deferred) {
  struct file_source *source = container_of(deferred, struct file_source, tell);
  if (source->announce_ready && source->state == FILE_KNOWN) announce(source);
  if (source->state == FILE_READY) start_reads(source);
  if (source->state == FILE_FAILING && !busy(source)) {
    source->state = FILE_FAILED;
    drop_posted(source, source->error.status);
    struct sprout_error error = source->error;
    source->base.listener->failed(&source->base, &error);
  } else if (source->state == FILE_CLOSING && !busy(source) && !working(source)) {
    source->state = FILE_IDLE;
    drop_posted(source, SPROUT_CANCELLED);
    forget_model(source);
    source->base.listener->closed(&source->base);
  }
}

static void source_close(struct source *base, enum sprout_status result, const char *reason) {
  struct file_source *source = file_of(base);
  (void)result;
  (void)reason;
  source->state = FILE_CLOSING;
  source->announce_ready = false;
  atomic_store(&source->stop, true);
  for (uint32_t i = 0; i < FILE_READS; i++) {
    if (source->reads[i].read) reactor_cancel(source->reactor, &source->reads[i].op);
  }
  reactor_defer(source->reactor, &source->tell);
}

static void source_report(struct source *base, uint64_t received_bytes, uint64_t total_bytes) {
  (void)base, (void)received_bytes, (void)total_bytes; /* a directory keeps no books */
}

static void source_destroy(struct source *base) {
  struct file_source *source = file_of(base);
  assert(source->state == FILE_IDLE && !busy(source) && !working(source));
  reactor_defer_cancel(source->reactor, &source->tell);
  forget_model(source);
  free(source->directory);
  free(source);
}

static const struct source_ops ops = {
    .connect = source_connect,
    .open = source_open,
    .post = source_post,
    .flush = source_flush,
    .request_digests = source_request_digests,
    .report = source_report,
    .close = source_close,
    .destroy = source_destroy,
};

enum sprout_status file_source_create(struct reactor *reactor, const char *url,
                                      const char *directory,
                                      const struct manifest *(*reference)(void *context),
                                      void *context, struct source **source_out) {
  struct file_source *source = calloc(1, sizeof *source);
  char *copy = strdup(directory);
  if (!source || !copy) {
    free(source);
    free(copy);
    return SPROUT_NO_MEMORY;
  }
  source->base = (struct source){
      .ops = &ops, .transport = "file", .last_resort = true, .ordered = true, .has_digests = true};
  snprintf(source->base.url, sizeof source->base.url, "%s", url);
  source->reactor = reactor;
  source->directory = copy;
  source->reference = reference;
  source->reference_context = context;
  source->open = (struct work){.run = open_directory, .done = opened};
  source->tell.run = tell;
  list_init(&source->posted);
  for (uint32_t i = 0; i < FILE_READS; i++) {
    source->reads[i].source = source;
    source->reads[i].op = (struct ring_op){.kind = RING_READ, .done = piece_read};
  }
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    source->digests[i].source = source;
    source->digests[i].work = (struct work){.run = run_digests, .done = digests_done};
  }
  *source_out = &source->base;
  return SPROUT_OK;
}
