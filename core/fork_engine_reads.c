/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads: a batch of chunks is picked, mapped, posted, lands, and is stored or released.
 *
 * Three limits hold at once for what is in flight: the source's window, the source's share of
 * inflight_bytes (the limit divided by the sources that can be read now, so that a stalled one
 * cannot hold all of it), and inflight_bytes for the whole fork including bytes being stored. Each
 * lets one chunk through when nothing of its own is in flight: no limit is too small to go on.
 */
#include "core/fork_engine_internal.h"

#include <assert.h>
#include <stdlib.h>

static void read_landed(struct source_read *read, const void *data, uint64_t length_bytes);
static void read_done(struct source_read *read, enum sprout_status status);
static void transfer_stored(struct destination_transfer *transfer,
                            const struct sprout_error *error);

enum sprout_status reads_create(struct fork_engine *engine) {
  uint64_t count = engine->options.inflight_bytes / (PLAN_BATCH_BYTES / 2);
  if (count < engine->options.reads_per_source) count = engine->options.reads_per_source;
  if (count > ENGINE_READS_MAX) count = ENGINE_READS_MAX;
  engine->read_count = (uint32_t)count;
  engine->reads =
      aligned_alloc(_Alignof(struct engine_read), engine->read_count * sizeof(struct engine_read));
  if (engine->reads == NULL) return SPROUT_NO_MEMORY;
  list_init(&engine->free_reads);
  list_init(&engine->completed);
  list_init(&engine->stored);
  for (uint32_t i = 0; i < engine->read_count; i++) {
    struct engine_read *read = &engine->reads[i];
    read->engine = engine;
    read->read = (struct source_read){.landed = read_landed, .done = read_done};
    read->transfer = (struct destination_transfer){.stored = transfer_stored};
    list_init(&read->node);
    list_init(&read->read.node);
    list_init(&read->transfer.node);
    list_append(&engine->free_reads, &read->node);
  }
  return SPROUT_OK;
}

/* --- callbacks: landing --- */

static void end_chunk(struct engine_read *read, const struct digest *digest) {
  read->digests[read->at++] = *digest;
  read->filled_bytes = 0;
}

/* Digests while the bytes are in cache, chunk by chunk. */
static void digest_landed(struct engine_read *read, const unsigned char *data,
                          uint64_t length_bytes) {
  while (length_bytes > 0) {
    assert(read->at < read->batch.count);
    uint32_t left = read->lengths[read->at] - read->filled_bytes;
    if (read->filled_bytes == 0 && length_bytes >= left) {
      struct digest digest = digest_of(data, left);
      end_chunk(read, &digest);
    } else {
      if (read->filled_bytes == 0) digest_begin(&read->stream);
      if (left > length_bytes) left = (uint32_t)length_bytes;
      digest_update(&read->stream, data, left);
      read->filled_bytes += left;
      if (read->filled_bytes == read->lengths[read->at]) {
        struct digest digest = digest_end(&read->stream);
        end_chunk(read, &digest);
      }
    }
    data += left;
    length_bytes -= left;
  }
}

static void read_landed(struct source_read *posted, const void *data, uint64_t length_bytes) {
  struct engine_read *read = container_of(posted, struct engine_read, read);
  struct fork_engine *engine = read->engine;
  read->source->progressed = true;
  read->source->received_bytes += length_bytes;
  engine->received_bytes += length_bytes;
  if (engine->judging) digest_landed(read, data, length_bytes);
}

static void read_done(struct source_read *posted, enum sprout_status status) {
  struct engine_read *read = container_of(posted, struct engine_read, read);
  assert(!list_linked(&read->node));
  read->status = status;
  list_append(&read->engine->completed, &read->node);
  engine_wake(read->engine);
}

static void transfer_stored(struct destination_transfer *transfer,
                            const struct sprout_error *error) {
  struct engine_read *read = container_of(transfer, struct engine_read, transfer);
  assert(!list_linked(&read->node));
  read->store_error = *error;
  list_append(&read->engine->stored, &read->node);
  engine_wake(read->engine);
}

/* --- tick: completed reads --- */

static void free_read(struct engine_read *read) {
  read->engine->inflight_bytes -= read->batch.length_bytes;
  list_append(&read->engine->free_reads, &read->node);
}

static void give_back_chunks(struct engine_read *read) {
  for (uint32_t i = 0; i < read->batch.count; i++)
    plan_set(read->engine->plan, read->batch.chunks[i], PLAN_NEEDED);
}

static void release(struct engine_read *read) {
  struct fork_engine *engine = read->engine;
  give_back_chunks(read);
  engine->mapped--;
  engine->destination->ops->release(engine->destination, &read->transfer);
  free_read(read);
}

static void store(struct engine_read *read) {
  struct fork_engine *engine = read->engine;
  engine->mapped--;
  engine->storing++;
  engine->destination->ops->store(engine->destination, &read->transfer);
}

/* All chunks that can be judged are right. */
static bool judge_read(struct engine_read *read) {
  struct fork_engine *engine = read->engine;
  for (uint32_t i = 0; i < read->batch.count; i++) {
    uint64_t chunk = read->batch.chunks[i];
    if (law_judge(&engine->law, chunk, &read->digests[i]) != LAW_WRONG) continue;
    authority_convict(engine, (uint8_t)read->source->index, chunk);
    return false;
  }
  return true;
}

static void keep(struct engine_read *read) {
  struct fork_engine *engine = read->engine;
  for (uint32_t i = 0; i < read->batch.count; i++) {
    uint64_t chunk = read->batch.chunks[i];
    if (engine->judging) {
      law_landed(&engine->law, chunk, &read->digests[i], (uint8_t)read->source->index);
    } else {
      plan_set(engine->plan, chunk, PLAN_LANDED);
      plan_set(engine->plan, chunk, PLAN_VERIFIED);
    }
  }
  store(read);
}

static void settle_whole(struct engine_read *read) {
  struct fork_engine *engine = read->engine;
  struct engine_source *source = read->source;
  assert(!engine->judging || read->at == read->batch.count);
  bool counts = read->era == engine->era && !source->condemned && engine->phase == ENGINE_READING;
  if (!counts || (engine->judging && !judge_read(read))) {
    engine->retries++;
    release(read);
    return;
  }
  source->reconnects = source->renewals = source->pauses = 0;
  engine->last_landed_ns = engine->now_ns - engine->start_ns;
  keep(read);
}

/* "Not now": a pause, unless one was just made for another read. */
static void pause_source(struct engine_source *source, const struct sprout_error *error) {
  uint64_t now_ns = source->engine->now_ns;
  if (now_ns < source->pause_until_ns) return;
  if (source->pauses == ENGINE_PAUSES_MAX) {
    source_drop(source, ENGINE_DROP_FINAL, error);
    return;
  }
  source->pause_until_ns =
      engine_after(now_ns, engine_backoff(ENGINE_PAUSE_NS, source->pauses, ENGINE_NEVER));
  source->pauses++;
}

static void settle_failed(struct engine_read *read) {
  struct engine_source *source = read->source;
  const struct sprout_status_info *info = sprout_status_info_of(read->status);
  struct sprout_error error;
  read->engine->retries++;
  release(read);
  if (source->state != ENGINE_SOURCE_READY || read->status == SPROUT_CANCELLED) return;
  sprout_error_set(&error, read->status, 0, NULL, "a read failed: %s", info->summary);
  if (info->retry == SPROUT_RETRY_SAME_SOURCE)
    pause_source(source, &error);
  else
    source_fail(source, &error);
}

void reads_settle(struct fork_engine *engine) {
  struct list_node *node;
  while ((node = list_take(&engine->completed)) != NULL) {
    struct engine_read *read = container_of(node, struct engine_read, node);
    struct engine_source *source = read->source;
    source->reads_in_flight--;
    source->bytes_in_flight -= read->batch.length_bytes;
    source->progressed = true;
    window_give(&source->window, read->batch.length_bytes, 1);
    if (read->status == SPROUT_OK)
      settle_whole(read);
    else
      settle_failed(read);
  }
}

/* --- tick: stores --- */

static void settle_stored_chunk(struct plan *plan, uint64_t chunk, bool ok) {
  switch (plan_state(plan, chunk)) {
  case PLAN_VERIFIED: plan_set(plan, chunk, ok ? PLAN_STORED : PLAN_NEEDED); break;
  case PLAN_LANDED: plan_set(plan, chunk, ok ? PLAN_UNPROVEN : PLAN_NEEDED); break;
  case PLAN_REJECTED: plan_set(plan, chunk, PLAN_NEEDED); break;
  default: assert(!"a chunk left its store"); break;
  }
}

void reads_settle_stores(struct fork_engine *engine) {
  struct list_node *node;
  while ((node = list_take(&engine->stored)) != NULL) {
    struct engine_read *read = container_of(node, struct engine_read, node);
    bool ok = read->store_error.status == SPROUT_OK;
    engine->storing--;
    for (uint32_t i = 0; i < read->batch.count; i++)
      settle_stored_chunk(engine->plan, read->batch.chunks[i], ok);
    if (!ok) engine_end(engine, &read->store_error);
    free_read(read);
  }
}

/* --- tick: posting --- */

/* One range per chunk: a batch of several never holds two of one object, full ones travel alone. */
static void make_ranges(struct engine_read *read) {
  for (uint32_t i = 0; i < read->batch.count; i++) {
    struct manifest_chunk chunk = plan_chunk(read->engine->plan, read->batch.chunks[i]);
    read->lengths[i] = chunk.length_bytes;
    read->ranges[i] = (struct source_range){
        .object = chunk.object, .offset = chunk.offset, .length_bytes = chunk.length_bytes};
  }
}

static bool map(struct engine_read *read, const struct engine_source *source) {
  struct destination *destination = read->engine->destination;
  make_ranges(read);
  read->transfer.ranges = read->ranges;
  read->transfer.range_count = read->batch.count;
  read->transfer.length_bytes = read->batch.length_bytes;
  read->transfer.ordered = source->source->ordered;
  read->transfer.iov = read->iov;
  read->transfer.iov_count = 0;
  if (!destination->ops->map(destination, &read->transfer)) return false;
  assert(read->transfer.iov_count > 0 && read->transfer.iov_count <= DESTINATION_IOV_MAX);
  read->read.ranges = read->ranges;
  read->read.range_count = read->batch.count;
  read->read.iov = read->iov;
  read->read.iov_count = read->transfer.iov_count;
  read->read.length_bytes = read->batch.length_bytes;
  return true;
}

/* Narrows the room by one more limit. While nothing that it counts is under way it lets one chunk
 * through, whatever its value. */
static void narrow(struct plan_room *room, uint64_t limit, uint64_t used) {
  uint64_t left = used < limit ? limit - used : 0;
  uint64_t first = used == 0 && left < SPROUT_CHUNK_BYTES ? SPROUT_CHUNK_BYTES : left;
  if (left < room->bytes) room->bytes = left;
  if (first < room->first_bytes) room->first_bytes = first;
}

static bool grants_anything(const struct window *window) {
  const struct window_limits *limits = &window->limits;
  return limits->operations > 0 && limits->depth > 0 && limits->bytes > 0;
}

/* What the source may be asked for now by window and shares. */
static struct plan_room room_for(const struct engine_source *source, uint64_t share_bytes) {
  const struct fork_engine *engine = source->engine;
  const struct window *window = &source->window;
  bool open = grants_anything(window) && window->used.operations < window->limits.operations &&
              window->used.depth < window->limits.depth;
  struct plan_room room = {0, 0};
  if (!open) return room;
  room = (struct plan_room){UINT64_MAX, UINT64_MAX};
  narrow(&room, window->limits.bytes, window->used.bytes);
  narrow(&room, share_bytes, source->bytes_in_flight);
  narrow(&room, engine->options.inflight_bytes, engine->inflight_bytes);
  return room;
}

/* A rate is held by posting nothing while in debt. */
static bool pacer_allows(struct fork_engine *engine, struct pacer *pacer) {
  if (pacer_allowance(pacer, engine->now_ns) > 0) return true;
  uint64_t ready_ns = pacer_ready_at(pacer, 1, engine->now_ns);
  engine_wake_at(engine, ready_ns > engine->now_ns ? ready_ns : engine->now_ns + 1);
  return false;
}

/* Time holds it back; a tick is asked for. */
static bool held_back(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  if (engine->now_ns < source->pause_until_ns) {
    engine_wake_at(engine, source->pause_until_ns);
    return true;
  }
  return !pacer_allows(engine, &engine->pacer) || !pacer_allows(engine, &source->pacer);
}

static void post(struct engine_read *read, struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  read->source = source;
  read->era = engine->era;
  read->at = read->filled_bytes = 0;
  for (uint32_t i = 0; i < read->batch.count; i++)
    plan_set(engine->plan, read->batch.chunks[i], PLAN_IN_FLIGHT);
  pacer_spend(&engine->pacer, read->batch.length_bytes);
  pacer_spend(&source->pacer, read->batch.length_bytes);
  engine->mapped++;
  engine->inflight_bytes += read->batch.length_bytes;
  if (source->reads_in_flight++ == 0) source_begin_watch(source);
  source->bytes_in_flight += read->batch.length_bytes;
  source->posted = true;
  source->source->ops->post(source->source, &read->read);
}

/* One read, if there is a chunk for it. False: none of the source's for now. */
static bool post_one(struct engine_source *source, uint64_t share_bytes) {
  struct fork_engine *engine = source->engine;
  struct plan_room room = room_for(source, share_bytes);
  if (room.first_bytes == 0 || list_empty(&engine->free_reads)) return false;
  struct engine_read *read = container_of(engine->free_reads.next, struct engine_read, node);
  if (!plan_pick(engine->plan, &source->coverage, room, &read->batch)) return false;
  bool taken = window_take(&source->window, read->batch.length_bytes, 1);
  assert(taken);
  if (!map(read, source)) {
    window_give(&source->window, read->batch.length_bytes, 1);
    give_back_chunks(read);
    engine->blocked = true;
    return false;
  }
  list_remove(&read->node);
  post(read, source);
  return true;
}

static bool may_post(struct engine_source *source, uint32_t ready_count) {
  struct fork_engine *engine = source->engine;
  uint32_t limit = engine->read_count / ready_count;
  if (limit > engine->options.reads_per_source) limit = engine->options.reads_per_source;
  if (limit == 0) limit = 1;
  return source->state == ENGINE_SOURCE_READY && source->reads_in_flight < limit &&
         !engine->blocked && plan_has_needed(engine->plan) && !held_back(source);
}

static bool hinders(struct engine_source *source) {
  if (source_is_lost(source) || source->held) return false;
  return source->state != ENGINE_SOURCE_READY || !grants_anything(&source->window) ||
         held_back(source);
}

/* Nothing is under way, every source that is left may be read, none is paused or paced. */
static bool nothing_hinders(struct fork_engine *engine) {
  if (engine->blocked || engine->mapped + engine->storing > 0) return false;
  for (uint32_t i = 0; i < engine->source_count; i++)
    if (hinders(engine->sources[i])) return false;
  return true;
}

bool reads_post(struct fork_engine *engine) {
  uint32_t ready_count = 0;
  for (uint32_t i = 0; i < engine->source_count; i++)
    if (engine->sources[i]->state == ENGINE_SOURCE_READY) ready_count++;
  if (ready_count == 0 || !plan_has_needed(engine->plan)) return false;
  uint64_t share_bytes = engine->options.inflight_bytes / ready_count;
  bool any;
  do {
    any = false;
    for (uint32_t i = 0; i < engine->source_count; i++) {
      struct engine_source *source = engine->sources[(engine->rotation + i) % engine->source_count];
      if (may_post(source, ready_count) && post_one(source, share_bytes)) any = true;
    }
  } while (any);
  engine->rotation = (engine->rotation + 1) % engine->source_count;
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *source = engine->sources[i];
    if (source->posted) source->source->ops->flush(source->source);
    source->posted = false;
  }
  return plan_has_needed(engine->plan) && nothing_hinders(engine);
}
