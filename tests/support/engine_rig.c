/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/engine_rig.h"

#include "tests/support/small_model.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define FOR_EACH_SOURCE(rig, source)                                                               \
  for (struct rig_source *source = (rig)->sources; source < (rig)->sources + (rig)->source_count;  \
       source++)

static const struct small_object objects[RIG_CHUNKS] = {
    {.file = "one", .name = "t0", .length_bytes = RIG_CHUNK_BYTES},
    {.file = "one", .name = "t1", .length_bytes = RIG_CHUNK_BYTES},
    {.file = "one", .name = "t2", .length_bytes = RIG_CHUNK_BYTES},
    {.file = "two", .name = "t3", .length_bytes = RIG_CHUNK_BYTES},
    {.file = "two", .name = "t4", .length_bytes = RIG_CHUNK_BYTES},
    {.file = "two", .name = "t5", .length_bytes = RIG_CHUNK_BYTES},
};

static unsigned char byte_of(uint64_t chunk, uint32_t variant) {
  return (unsigned char)(chunk + 1 + 50 * variant);
}

struct digest rig_digest(uint64_t chunk, uint32_t variant) {
  unsigned char bytes[RIG_CHUNK_BYTES];
  memset(bytes, byte_of(chunk, variant), sizeof(bytes));
  return digest_of(bytes, sizeof(bytes));
}

/* --- source --- */

static struct rig_source *of_source(struct source *source) {
  return (struct rig_source *)source;
}

static void source_connect(struct source *source) {
  of_source(source)->connects++;
}

static void source_open(struct source *source) {
  of_source(source)->opens++;
}

static void source_post(struct source *base, struct source_read *read) {
  struct rig_source *source = of_source(base);
  assert(source->posted_count < RIG_READS && !source->closing);
  read->landed_bytes = 0;
  source->posted[source->posted_count++] = read;
}

static void source_flush(struct source *source) {
  of_source(source)->flushes++;
}

static void source_request_digests(struct source *base, uint64_t first, uint64_t count,
                                   bool compute) {
  struct rig_source *source = of_source(base);
  assert(source->question_count < SOURCE_DIGEST_REQUESTS);
  source->questions[source->question_count++] =
      (struct rig_question){.first = first, .count = count, .compute = compute};
  source->questions_ever++;
}

static void source_report(struct source *source, uint64_t received_bytes, uint64_t total_bytes) {
  assert(total_bytes > 0);
  of_source(source)->reported_bytes = received_bytes;
}

static void source_close(struct source *base, enum sprout_status result, const char *reason) {
  struct rig_source *source = of_source(base);
  assert(!source->closing && reason != NULL);
  source->closing = true;
  source->closes++;
  source->closed_with = result;
}

static void source_destroy(struct source *source) {
  assert(!of_source(source)->closing);
  of_source(source)->destroyed = true;
}

static const struct source_ops source_ops = {
    .connect = source_connect,
    .open = source_open,
    .post = source_post,
    .flush = source_flush,
    .request_digests = source_request_digests,
    .report = source_report,
    .close = source_close,
    .destroy = source_destroy,
};

static struct source_read *take_read(struct rig_source *source) {
  assert(source->posted_count > 0);
  struct source_read *read = source->posted[0];
  source->posted_count--;
  memmove(source->posted, source->posted + 1, source->posted_count * sizeof(read));
  return read;
}

static bool finish_closing(struct rig_source *source) {
  if (!source->closing) return false;
  while (source->posted_count > 0) rig_refuse(source, SPROUT_CANCELLED);
  source->closing = false;
  source->question_count = 0;
  source->source.listener->closed(&source->source);
  return true;
}

/* --- destination --- */

static struct rig_destination *of_destination(struct destination *destination) {
  return (struct rig_destination *)destination;
}

static void destination_prepare(struct destination *base, const struct manifest *manifest,
                                const uint64_t *selected, bool reuse) {
  (void)manifest;
  (void)selected;
  of_destination(base)->prepare_asked = true;
  of_destination(base)->reuse = reuse;
}

static bool destination_map(struct destination *base, struct destination_transfer *transfer) {
  struct rig_destination *destination = of_destination(base);
  if (destination->no_room) return false;
  transfer->iov_count = 0;
  for (uint32_t i = 0; i < transfer->range_count; i++)
    transfer->iov[transfer->iov_count++] =
        (struct iovec){.iov_base = destination->bytes[transfer->ranges[i].object],
                       .iov_len = transfer->ranges[i].length_bytes};
  destination->ordered = transfer->ordered;
  destination->mapped++;
  destination->maps++;
  return true;
}

static void destination_store(struct destination *base, struct destination_transfer *transfer) {
  struct rig_destination *destination = of_destination(base);
  destination->mapped--;
  destination->stores++;
  destination->storing[destination->storing_count++] = transfer;
}

static void destination_release(struct destination *base, struct destination_transfer *transfer) {
  (void)transfer;
  of_destination(base)->mapped--;
  of_destination(base)->releases++;
}

static void destination_finish(struct destination *base) {
  of_destination(base)->finish_asked = true;
}

static void destination_abort(struct destination *base) {
  assert(of_destination(base)->mapped == 0 && of_destination(base)->storing_count == 0);
  of_destination(base)->abort_asked = true;
}

static void destination_destroy(struct destination *base) {
  (void)base;
}

static const struct destination_ops destination_ops = {
    .prepare = destination_prepare,
    .map = destination_map,
    .store = destination_store,
    .release = destination_release,
    .finish = destination_finish,
    .abort = destination_abort,
    .destroy = destination_destroy,
};

static struct sprout_error error_of(enum sprout_status status) {
  struct sprout_error error;
  sprout_error_set(&error, status, 0, NULL, "rig says %s", sprout_status_info_of(status)->name);
  return error;
}

static bool finish_destination(struct rig_destination *destination) {
  struct destination *base = &destination->destination;
  struct sprout_error error;
  if (destination->storing_count > 0) {
    error = error_of(destination->store_fails);
    struct destination_transfer *transfer = destination->storing[--destination->storing_count];
    transfer->stored(transfer, &error);
  } else if (destination->prepare_asked) {
    destination->prepare_asked = false;
    error = error_of(destination->prepare_fails);
    base->listener->prepared(base, &error);
  } else if (destination->finish_asked) {
    destination->finish_asked = false;
    error = error_of(destination->finish_fails);
    destination->over = error.status == SPROUT_OK;
    base->listener->finished(base, &error);
  } else if (destination->abort_asked) {
    destination->abort_asked = false;
    destination->over = true;
    base->listener->aborted(base);
  } else {
    return false;
  }
  return true;
}

/* --- owner --- */

static void told_wake(void *context) {
  ((struct rig *)context)->woken = true;
}

static void told_finished(void *context, const struct sprout_error *error) {
  struct rig *rig = context;
  assert(!rig->finished && rig->destination.over);
  rig->finished = true;
  rig->result = *error;
}

static void told_dropped(void *context, const struct source *source,
                         const struct sprout_error *error) {
  struct rig *rig = context;
  (void)source;
  rig->dropped++;
  rig->last_dropped = *error;
  if (rig->add_when_dropped == NULL) return;
  enum sprout_status status = fork_engine_add_source(rig->engine, rig->add_when_dropped);
  assert(status == SPROUT_OK);
  rig->add_when_dropped = NULL;
}

static void told_differs(void *context, const char *file, uint64_t wrong_bytes,
                         uint64_t missing_bytes) {
  struct rig *rig = context;
  size_t used = strlen(rig->differs);
  snprintf(rig->differs + used, sizeof(rig->differs) - used, "%s %llu %llu;", file,
           (unsigned long long)wrong_bytes, (unsigned long long)missing_bytes);
}

void rig_make(struct rig *rig, const struct fork_engine_options *options) {
  const struct fork_engine_events events = {.wake = told_wake,
                                            .finished = told_finished,
                                            .dropped = told_dropped,
                                            .differs = told_differs,
                                            .context = rig};
  struct fork_engine_options used = {.verify = true};
  *rig = (struct rig){.now_ns = 1000 * RIG_MS};
  rig->destination.destination.ops = &destination_ops;
  if (options != NULL) used = *options;
  if (used.stall_timeout_ns == 0) used.stall_timeout_ns = 1000 * RIG_MS;
  if (used.wait_ns == 0) used.wait_ns = 60000 * RIG_MS;
  enum sprout_status status =
      fork_engine_create(&used, &events, &rig->destination.destination, &rig->engine);
  assert(status == SPROUT_OK);
}

/* Makes one, without adding it. */
static struct rig_source *make_source(struct rig *rig) {
  assert(rig->source_count < RIG_SOURCES);
  struct rig_source *source = &rig->sources[rig->source_count++];
  *source = (struct rig_source){.rig = rig, .generation = 1};
  source->source =
      (struct source){.ops = &source_ops, .transport = "rig", .ordered = true, .has_digests = true};
  snprintf(source->source.url, sizeof(source->source.url), "rig://%u", rig->source_count - 1);
  return source;
}

struct rig_source *rig_add(struct rig *rig) {
  struct rig_source *source = make_source(rig);
  enum sprout_status status = fork_engine_add_source(rig->engine, &source->source);
  assert(status == SPROUT_OK);
  return source;
}

void rig_start(struct rig *rig) {
  fork_engine_start(rig->engine, rig->now_ns);
  rig_tick(rig);
}

void rig_unmake(struct rig *rig) {
  fork_engine_destroy(rig->engine);
}

void rig_tick(struct rig *rig) {
  rig->woken = false;
  rig->ticks++;
  fork_engine_tick(rig->engine, rig->now_ns);
  fork_engine_check(rig->engine);
}

uint32_t rig_wait(struct rig *rig, uint64_t wait_ns) {
  uint64_t end_ns = rig->now_ns + wait_ns;
  uint32_t ticks = rig->ticks;
  while (!rig->finished) {
    uint64_t next_ns = rig->woken ? rig->now_ns : fork_engine_deadline(rig->engine);
    if (next_ns > end_ns) break;
    if (next_ns > rig->now_ns) rig->now_ns = next_ns;
    rig_tick(rig);
  }
  rig->now_ns = end_ns;
  return rig->ticks - ticks;
}

void rig_settle(struct rig *rig) {
  bool any = true;
  while (any && !rig->finished) {
    rig_tick(rig);
    any = finish_destination(&rig->destination) || rig->woken;
    FOR_EACH_SOURCE(rig, source) if (finish_closing(source)) any = true;
  }
}

/* --- answers --- */

void rig_manifest(struct rig_source *source) {
  const struct small_model model = {.objects = objects,
                                    .count = RIG_CHUNKS,
                                    .model = source->model,
                                    .rank = source->rank,
                                    .label = source->label,
                                    .epoch = 7,
                                    .generation = source->generation};
  source->source.listener->manifest(&source->source, small_manifest(&model));
}

void rig_queued(struct rig_source *source, uint32_t position) {
  source->source.listener->queued(&source->source, position);
}

static struct source_grant grant_of(const struct rig_source *source) {
  return (struct source_grant){.window = {.operations = 8, .bytes = 1 << 20, .depth = 8},
                               .generation = source->generation};
}

void rig_ready(struct rig_source *source) {
  struct source_grant grant = grant_of(source);
  source->source.listener->ready(&source->source, &grant);
}

void rig_grant(struct rig_source *source, uint32_t operations, uint64_t rate) {
  struct source_grant grant = grant_of(source);
  grant.window.operations = operations;
  grant.rate = rate;
  source->source.listener->granted(&source->source, &grant);
}

void rig_admit(struct rig_source *source) {
  rig_manifest(source);
  rig_settle(source->rig);
  rig_ready(source);
  rig_settle(source->rig);
}

void rig_fail(struct rig_source *source, enum sprout_status status) {
  struct sprout_error error = error_of(status);
  while (source->posted_count > 0) rig_refuse(source, status);
  source->source.listener->failed(&source->source, &error);
}

void rig_tell(struct rig_source *source, uint64_t known) {
  while (source->question_count > 0) {
    struct rig_question question = source->questions[--source->question_count];
    struct digest values[RIG_CHUNKS];
    bool tells[RIG_CHUNKS];
    for (uint64_t i = 0; i < question.count; i++) {
      tells[i] = (known >> (question.first + i)) & 1;
      values[i] = rig_digest(question.first + i, source->variant);
    }
    source->source.listener->digests(&source->source, question.first, question.count, values,
                                     tells);
  }
}

void rig_land_part(struct rig_source *source, uint64_t length_bytes) {
  struct source_read *read = source->posted[0];
  assert(source->posted_count > 0);
  while (length_bytes > 0 && read->landed_bytes < read->length_bytes) {
    uint64_t piece = read->landed_bytes / RIG_CHUNK_BYTES, in_piece = read->landed_bytes % 1000;
    uint64_t length = RIG_CHUNK_BYTES - in_piece;
    if (length > length_bytes) length = length_bytes;
    unsigned char *out = (unsigned char *)read->iov[piece].iov_base + in_piece;
    memset(out, byte_of(read->ranges[piece].object, source->variant), length);
    read->landed_bytes += length;
    length_bytes -= length;
    read->landed(read, out, length);
  }
}

void rig_land(struct rig_source *source) {
  rig_land_part(source, UINT64_MAX);
  rig_refuse(source, SPROUT_OK);
}

void rig_refuse(struct rig_source *source, enum sprout_status status) {
  struct source_read *read = take_read(source);
  read->done(read, status);
}

void rig_land_all(struct rig_source *source) {
  rig_settle(source->rig);
  while (source->posted_count > 0) {
    rig_land(source);
    rig_settle(source->rig);
  }
}

/* --- looking --- */

bool rig_holds(const struct rig *rig, uint32_t variant) {
  for (uint64_t chunk = 0; chunk < RIG_CHUNKS; chunk++)
    for (uint32_t i = 0; i < RIG_CHUNK_BYTES; i++)
      if (rig->destination.bytes[chunk][i] != byte_of(chunk, variant)) return false;
  return true;
}

struct sprout_source_status rig_status(const struct rig *rig, uint32_t index) {
  struct sprout_source_status sources[SPROUT_MAX_SOURCES];
  struct sprout_fork_progress progress;
  fork_engine_progress(rig->engine, rig->now_ns, &progress, sources);
  assert(index < progress.source_count);
  return sources[index];
}

struct sprout_fork_progress rig_progress(const struct rig *rig) {
  static struct sprout_source_status sources[SPROUT_MAX_SOURCES];
  struct sprout_fork_progress progress;
  fork_engine_progress(rig->engine, rig->now_ns, &progress, sources);
  return progress;
}
