/* SPDX-License-Identifier: Apache-2.0 */
#include "net/file_source_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool busy(const struct file_source *source) {
  for (uint32_t i = 0; i < FILE_READS; i++) {
    if (source->reads[i].read) return true;
  }
  return false;
}

void file_source_fail(struct file_source *source, enum sprout_status status, int native,
                      const char *what) {
  if (source->state >= FILE_FAILING) return;
  sprout_error_set(&source->error, status, native, NULL, "%s%s%s", what, native ? ": " : "",
                   native ? strerror(native) : "");
  source->state = FILE_FAILING;
  reactor_defer(source->reactor, &source->tell);
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
    file_source_fail(source, SPROUT_IO, -op->result,
                     op->result ? "cannot read" : "a file was truncated");
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
  } else if (source->state == FILE_CLOSING && !busy(source) && !file_source_working(source)) {
    source->state = FILE_IDLE;
    drop_posted(source, SPROUT_CANCELLED);
    file_source_forget_model(source);
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
  assert(source->state == FILE_IDLE && !busy(source) && !file_source_working(source));
  reactor_defer_cancel(source->reactor, &source->tell);
  file_source_forget_model(source);
  free(source->directory);
  free(source);
}

static const struct source_ops ops = {
    .connect = file_source_connect,
    .open = source_open,
    .post = source_post,
    .flush = source_flush,
    .request_digests = file_source_request_digests,
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
  source->tell.run = tell;
  list_init(&source->posted);
  for (uint32_t i = 0; i < FILE_READS; i++) {
    source->reads[i].source = source;
    source->reads[i].op = (struct ring_op){.kind = RING_READ, .done = piece_read};
  }
  file_source_workers_init(source);
  *source_out = &source->base;
  return SPROUT_OK;
}
