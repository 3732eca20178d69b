/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /v1/forks/{id}/read: ranges of objects, concatenated.
 *
 * Checked whole before the first byte leaves: lease, generation, every range, the window. Ranges
 * that are neighbours in memory become one piece. Pieces of small reads are kept in the exchange,
 * those of reads with many ranges in a block that is used again.
 */
#include "net/routes_read.h"

#include <assert.h>
#include <stdlib.h>

#define INLINE_PIECES 4u
#define SPARE_BLOCKS_MAX 128u
/* Runs of one read, strides counted out: each costs a system call. */
#define RUNS_MAX 16384u

/* `count` runs of `length_bytes`, each `stride_bytes` behind the other, in one region. */
struct read_piece {
  uint64_t offset, length_bytes, stride_bytes, count;
  uint32_t region;
};

struct read_block {
  struct list_node node;
  struct read_piece pieces[LIMIT_READ_RANGES];
};

/* A read on its way, in the exchange's store. */
struct read_body {
  struct seed_fork *fork;
  struct list_node node; /* in fork->reads */
  struct http_exchange *exchange;
  uint64_t total_bytes;
  uint32_t index;           /* piece that is sent next */
  uint64_t repeat;          /* run of it */
  struct read_block *block; /* NULL: the few pieces are kept here */
  struct read_piece few[INLINE_PIECES];
};

static_assert(sizeof(struct read_body) <= HTTP_STORE_BYTES, "fits the exchange's store");

/* --- checking --- */

/* Bytes that the range covers, from its first to its last, and bytes that it asks for. False: they
 * do not exist as numbers. */
static bool measure_range(const struct wire_range *range, uint64_t *end_out, uint64_t *bytes_out) {
  uint64_t span = 0, end = 0;
  if (range->count == 0) return false;
  if (__builtin_mul_overflow(range->count - 1, range->stride_bytes, &span)) return false;
  if (__builtin_add_overflow(range->offset, span, &end)) return false;
  if (__builtin_add_overflow(end, range->length_bytes, &end)) return false;
  if (__builtin_mul_overflow(range->count, range->length_bytes, bytes_out)) return false;
  *end_out = end;
  return true;
}

enum sprout_status read_check_ranges(const struct manifest *manifest, const struct wire_read *read,
                                     uint64_t *total_out, struct sprout_error *error) {
  uint64_t total = 0, runs = 0;
  for (uint32_t i = 0; i < read->range_count; i++) {
    const struct wire_range *range = &read->ranges[i];
    uint64_t end = 0, bytes = 0;
    if (range->object >= manifest->object_count)
      return sprout_error_set(error, SPROUT_RANGE, 0, "Fetch the manifest again.",
                              "range %u: there is no object %u", i, range->object);
    const struct manifest_object *object = &manifest->objects[range->object];
    if (!measure_range(range, &end, &bytes) || __builtin_add_overflow(total, bytes, &total))
      return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                              "range %u: offset, length, stride and count do not fit 64 bits", i);
    if (end > object->length_bytes)
      return sprout_error_set(error, SPROUT_RANGE, 0, "Ask for bytes below the object's length.",
                              "range %u ends at byte %llu of object '%.100s', which has %llu", i,
                              (unsigned long long)end, object->name,
                              (unsigned long long)object->length_bytes);
    if (range->count > RUNS_MAX || (runs += range->count) > RUNS_MAX)
      return sprout_error_set(error, SPROUT_INVALID, 0, "Split the read.",
                              "a read asks for more than %u separate runs", RUNS_MAX);
    /* Here, not at the end: a sum of ranges must not wrap to something small. */
    if (total > LIMIT_READ_BYTES)
      return sprout_error_set(error, SPROUT_OVER_WINDOW, 0, "Split the read.",
                              "a read asks for more than %u bytes", LIMIT_READ_BYTES);
  }
  *total_out = total;
  return SPROUT_OK;
}

/* --- pieces --- */

/* Appends the range, or lengthens the last piece. `pieces` has room for one per range. */
static void add_range(const struct model *model, const struct wire_range *range,
                      struct read_piece *pieces, uint32_t *count) {
  if (range->length_bytes == 0) return;
  const struct placement *place = &model->placements[range->object];
  struct read_piece piece = {.region = place->region,
                             .offset = place->offset + range->offset,
                             .length_bytes = range->length_bytes,
                             .stride_bytes = range->stride_bytes,
                             .count = range->count};
  if (piece.count > 1 && piece.stride_bytes == piece.length_bytes) {
    piece.length_bytes *= piece.count;
    piece.count = 1;
  }
  struct read_piece *last = *count > 0 ? &pieces[*count - 1] : NULL;
  bool joins = last != NULL && last->region == piece.region && last->count == 1 &&
               piece.count == 1 && last->offset + last->length_bytes == piece.offset;
  if (joins)
    last->length_bytes += piece.length_bytes;
  else
    pieces[(*count)++] = piece;
}

static struct read_block *take_block(struct sprout_seed *seed) {
  struct list_node *node = list_take(&seed->blocks);
  if (node == NULL) return malloc(sizeof(struct read_block));
  seed->block_count--;
  return container_of(node, struct read_block, node);
}

static void give_block(struct sprout_seed *seed, struct read_block *block) {
  if (block == NULL) return;
  if (seed->block_count >= SPARE_BLOCKS_MAX) {
    free(block);
    return;
  }
  list_append(&seed->blocks, &block->node);
  seed->block_count++;
}

void routes_read_destroy(struct sprout_seed *seed) {
  struct list_node *node;
  while ((node = list_take(&seed->blocks)) != NULL)
    free(container_of(node, struct read_block, node));
}

static void next_piece(struct http_exchange *exchange, struct http_piece *piece_out) {
  struct read_body *body = http_exchange_store(exchange);
  const struct read_piece *piece =
      body->block != NULL ? &body->block->pieces[body->index] : &body->few[body->index];
  const struct region *region = &body->fork->seed->model->regions[piece->region];
  uint64_t begin = piece->offset + body->repeat * piece->stride_bytes;
  *piece_out = (struct http_piece){.base = region->base + begin,
                                   .length_bytes = piece->length_bytes,
                                   .fd = region->immutable ? region->fd : -1,
                                   .fd_offset = region->fd_offset + begin};
  if (++body->repeat < piece->count) return;
  body->repeat = 0;
  body->index++;
}

/* --- the route --- */

static void read_ended(struct http_exchange *exchange, bool whole) {
  (void)whole;
  struct read_body *body = http_exchange_store(exchange);
  struct seed_fork *fork = body->fork;
  give_block(fork->seed, body->block);
  list_remove(&body->node);
  fork->inflight_reads--;
  fork->inflight_bytes -= body->total_bytes;
  seed_fork_release(fork);
}

/* Keeps the read in the exchange; its ranges are good. */
static bool begin_read(struct seed_fork *fork, struct http_exchange *exchange,
                       const struct wire_read *read, uint64_t total_bytes) {
  struct sprout_seed *seed = fork->seed;
  struct read_body *body = http_exchange_store(exchange);
  *body = (struct read_body){.fork = fork, .exchange = exchange, .total_bytes = total_bytes};
  struct read_piece *pieces = body->few;
  if (read->range_count > INLINE_PIECES) {
    body->block = take_block(seed);
    if (body->block == NULL) return false;
    pieces = body->block->pieces;
  }
  uint32_t count = 0;
  for (uint32_t i = 0; i < read->range_count; i++)
    add_range(seed->model, &read->ranges[i], pieces, &count);
  if (body->block != NULL && count <= INLINE_PIECES) {
    for (uint32_t i = 0; i < count; i++) body->few[i] = pieces[i];
    give_block(seed, body->block);
    body->block = NULL;
  }
  exchange->ended = read_ended;
  list_append(&fork->reads, &body->node);
  fork->inflight_reads++;
  fork->inflight_bytes += total_bytes;
  return true;
}

void read_abort_all(struct seed_fork *fork) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fork->reads)
    http_exchange_abort(container_of(node, struct read_body, node)->exchange);
}

/* The running fork of the path, with its lease; else answers. */
static struct seed_fork *find_running(struct route_call *call) {
  struct admission_fork *admission = route_find_fork(call);
  if (admission == NULL) return NULL;
  if (admission->state == ADMISSION_QUEUED) {
    route_fail(call, SPROUT_OVER_WINDOW, "Send heartbeats until it runs.",
               "the fork still waits in the queue");
    return NULL;
  }
  if (admission->state == ADMISSION_CLOSED ||
      admission->lease_until_ns <= reactor_now(call->seed->reactor)) {
    route_fail(call, SPROUT_GONE, "Open a new fork.", "the fork's lease is over");
    return NULL;
  }
  return admission->owner;
}

/* A single read larger than the window goes alone, as core/window.h lets the client. */
static bool fits_window(const struct seed_fork *fork, uint64_t total_bytes) {
  uint64_t window = fork->window_bytes > fork->window_bytes_before ? fork->window_bytes
                                                                   : fork->window_bytes_before;
  if (fork->inflight_reads == 0) return true;
  return fork->inflight_reads < SEED_WINDOW_OPERATIONS &&
         fork->inflight_bytes + total_bytes <= window;
}

void route_read(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  const struct http_message *request = call->request;
  struct sprout_error error;
  struct seed_fork *fork = find_running(call);
  if (fork == NULL) return;
  if (!seed->settings.transports.tcp) {
    route_fail(call, SPROUT_UNSUPPORTED,
               "Fork with --transport rdma, or auto, on a machine that "
               "has RDMA.",
               "this seed's weights are read over RDMA only");
    return;
  }
  struct wire_read read;
  uint64_t total_bytes = 0;
  enum sprout_status status = wire_read_decode(request->body, request->body_bytes, seed->ranges,
                                               LIMIT_READ_RANGES, &read, &error);
  uint64_t generation = seed->model->manifest->version.generation;
  if (status == SPROUT_OK && seed->updating) status = route_stale_error(seed, &error);
  if (status == SPROUT_OK && read.generation != generation)
    status = sprout_error_set(&error, SPROUT_STALE, 0, "Fetch the manifest again.",
                              "the seed holds generation %llu, not %llu",
                              (unsigned long long)generation, (unsigned long long)read.generation);
  if (status == SPROUT_OK)
    status = read_check_ranges(seed->model->manifest, &read, &total_bytes, &error);
  if (status == SPROUT_OK && !fits_window(fork, total_bytes))
    status = sprout_error_set(
        &error, SPROUT_OVER_WINDOW, 0, "Wait for earlier reads; heartbeats tell the window.",
        "%u reads of %llu bytes are in flight and the window is %llu bytes", fork->inflight_reads,
        (unsigned long long)fork->inflight_bytes, (unsigned long long)fork->window_bytes);
  if (status == SPROUT_OK && !begin_read(fork, call->exchange, &read, total_bytes))
    status = sprout_error_set(&error, SPROUT_NO_MEMORY, 0, "Try again.", "no memory for a read");
  if (status != SPROUT_OK) {
    http_exchange_fail(call->exchange, &error);
    return;
  }
  seed_rdma_note_http(fork);
  struct http_answer answer = {.status_code = 200,
                               .content_type = "application/octet-stream",
                               .body_bytes = total_bytes,
                               .next_piece = total_bytes > 0 ? next_piece : NULL,
                               .account = &fork->account};
  http_exchange_answer(call->exchange, &answer);
}
