/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim.h"

#include "core/bitmap.h"

#include <stdlib.h>
#include <string.h>

static struct sim_source *of(struct source *source) {
  return (struct sim_source *)source;
}

/* Events carry the life that they belong to, and up to 8 bits of their own. */
static void later(struct sim_source *source, uint64_t wait_ns, sim_action *action, uint8_t detail) {
  sim_after(source->sim, wait_ns, action, source, source->life << 8 | detail);
}

static bool alive(const struct sim_source *source, uint64_t argument) {
  return source->connected && !source->failed && argument >> 8 == source->life;
}

static uint64_t latency(struct sim_source *source) {
  return 1 + sim_below(&source->sim->random, source->plan.latency_ns);
}

static bool stale(const struct sim_source *source) {
  return source->generation != source->generation_told;
}

/* --- failing --- */

static void give_back(struct sim_source *source, enum sprout_status status) {
  struct list_node *node;
  while ((node = list_take(&source->unflushed)) != NULL) list_append(&source->posted, node);
  while ((node = list_take(&source->posted)) != NULL) {
    struct source_read *read = container_of(node, struct source_read, node);
    read->done(read, status);
  }
}

static void tell_failed(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  struct sprout_error error;
  if (!source->connected || argument >> 8 != source->life) return;
  enum sprout_status status = (enum sprout_status)(argument & 255);
  sprout_error_set(&error, status, 0, NULL, "simulated: %s", sprout_status_info_of(status)->name);
  sim_say(sim, "source %u failed: %s", source->index, sprout_status_info_of(status)->name);
  source->source.listener->failed(&source->source, &error);
}

static void fail(struct sim_source *source, enum sprout_status status) {
  give_back(source, status);
  source->failed = true;
  uint64_t wait_ns = sim_chance(&source->sim->random, 50) ? 0 : latency(source);
  later(source, wait_ns, tell_failed, (uint8_t)status);
}

static void fail_later(struct sim *sim, void *target, uint64_t argument) {
  (void)sim;
  if (alive(target, argument)) fail(target, (enum sprout_status)(argument & 255));
}

/* --- connecting --- */

static const char *label_of(struct sim_source *source, char label[65]) {
  sim_model_label(&source->sim->model, source->plan.variant, label);
  if (source->plan.other_label) return "other";
  return source->plan.file ? "" : label;
}

static void draw_coverage(struct sim_source *source) {
  struct sim_random random = {.state = source->sim->seed * 31 + source->index};
  source->coverage[0] = 0;
  const struct sim_source_plan *plan = &source->plan;
  for (uint32_t i = 0; i < source->sim->model.object_count; i++)
    if (plan->half > 0 ? i % 2 == plan->half - 1 : sim_chance(&random, plan->coverage_percent))
      source->coverage[0] |= UINT64_C(1) << i;
  if (plan->half > 0 || plan->coverage_percent < 100) source->source.coverage = source->coverage;
}

static void tell_manifest(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  char label[65];
  if (!alive(source, argument)) return;
  source->generation_told = source->generation;
  struct manifest *manifest = sim_model_manifest(&sim->model, source->plan.kinship, source->epoch,
                                                 source->generation, label_of(source, label));
  draw_coverage(source);
  sim_say(sim, "source %u manifest: generation %llu label '%s'", source->index,
          (unsigned long long)source->generation, manifest->version.label);
  source->source.listener->manifest(&source->source, manifest);
}

static void source_connect(struct source *base) {
  struct sim_source *source = of(base);
  const struct sim_source_plan *plan = &source->plan;
  struct sim *sim = source->sim;
  sim->ops++;
  sim_require(sim, !source->connected && !source->closing);
  source->life++;
  source->connected = true;
  source->failed = source->admitted = source->moving = false;
  source->generation_told = 0;
  memset(source->questions, 0, sizeof(source->questions));
  list_init(&source->unflushed);
  list_init(&source->posted);
  sim_say(sim, "source %u connect", source->index);
  if (plan->connect_hangs) return;
  if (plan->refuses != SPROUT_OK)
    later(source, latency(source), fail_later, (uint8_t)plan->refuses);
  else if (sim->clock.now_ns < source->down_until_ns)
    later(source, latency(source), fail_later, SPROUT_DISCONNECTED);
  else
    later(source, latency(source), tell_manifest, 0);
}

/* --- admission --- */

static struct source_grant grant_now(struct sim_source *source) {
  struct sim_random *random = &source->sim->random;
  struct source_grant grant = {.window = source->plan.window,
                               .rate = source->plan.rate,
                               .generation = source->generation,
                               .draining = sim_chance(random, 5)};
  if (sim_chance(random, 30)) grant.window.operations = (uint32_t)sim_between(random, 1, 8);
  if (sim_chance(random, 30)) grant.window.bytes = sim_between(random, 1, 1 << 20);
  source->granted = grant.window;
  return grant;
}

static void heartbeat(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  if (!alive(source, argument)) return;
  struct source_grant grant = grant_now(source);
  source->source.listener->granted(&source->source, &grant);
  if ((argument & 255) > 0)
    later(source, sim_between(&sim->random, 50, 2000) * SIM_MS, heartbeat,
          (uint8_t)((argument & 255) - 1));
}

static void tell_ready(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  if (!alive(source, argument)) return;
  struct source_grant grant = grant_now(source);
  source->admitted = true;
  sim_say(sim, "source %u ready", source->index);
  source->source.listener->ready(&source->source, &grant);
  later(source, sim_between(&sim->random, 50, 2000) * SIM_MS, heartbeat, 3);
}

static void tell_queued(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  uint8_t position = (uint8_t)(argument & 255);
  if (!alive(source, argument) || source->admitted) return;
  sim_say(sim, "source %u queued at %u", source->index, position);
  source->source.listener->queued(&source->source, position);
  if (position > 1)
    later(source, sim_between(&sim->random, 1, 500) * SIM_MS, tell_queued, (uint8_t)(position - 1));
}

static void source_open(struct source *base) {
  struct sim_source *source = of(base);
  struct sim_source_plan *plan = &source->plan;
  source->sim->ops++;
  sim_require(source->sim, source->connected);
  sim_say(source->sim, "source %u open: admission %d", source->index, (int)plan->admission);
  switch (plan->admission) {
  case SIM_ADMITS: later(source, latency(source), tell_ready, 0); break;
  case SIM_QUEUES:
    later(source, latency(source), tell_queued, 5);
    later(source, plan->latency_ns + 1 + plan->queue_ns, tell_ready, 0);
    break;
  case SIM_QUEUES_FOREVER: later(source, latency(source), tell_queued, 9); break;
  case SIM_FULL:
    if (plan->full_times > 0) {
      plan->full_times--;
      later(source, latency(source), fail_later, SPROUT_BUSY);
    } else {
      later(source, latency(source), tell_ready, 0);
    }
    break;
  case SIM_ADMISSION_HANGS: break;
  }
}

/* --- reads --- */

static void move(struct sim *sim, void *target, uint64_t argument);

static void keep_moving(struct sim_source *source, uint64_t wait_ns) {
  if (source->moving || source->stuck || source->failed || list_empty(&source->posted)) return;
  source->moving = true;
  later(source, wait_ns, move, 0);
}

static bool lies_about(const struct sim_source *source, uint32_t one_in, uint64_t chunk) {
  return one_in > 0 && sim_mix(source->epoch * 977 + chunk) % one_in == 0;
}

/* Whether the first byte of the chunk is wrong this time. */
static bool corrupts(struct sim_source *source, uint64_t chunk) {
  if (!lies_about(source, source->plan.lies_bytes, chunk)) return false;
  if (source->plan.lies_once && bits_get(source->lied, chunk)) return false;
  bits_set(source->lied, chunk);
  return true;
}

/* Bytes of an object, chunk by chunk. */
static void fill(struct sim_source *source, const struct source_range *range, uint64_t skip,
                 unsigned char *out, uint64_t length_bytes) {
  const struct sim_model *model = &source->sim->model;
  const struct manifest_object *object = &model->manifest->objects[range->object];
  uint64_t at = range->offset + skip, end = at + length_bytes;
  while (at < end) {
    uint64_t chunk = object->first_chunk + at / SPROUT_CHUNK_BYTES;
    uint64_t in_chunk = at % SPROUT_CHUNK_BYTES;
    uint64_t length = SPROUT_CHUNK_BYTES - in_chunk;
    if (length > end - at) length = end - at;
    sim_model_bytes(model, source->plan.variant, chunk, in_chunk, out, length);
    if (in_chunk == 0 && corrupts(source, chunk)) out[0] ^= 0x40;
    out += length;
    at += length;
  }
}

/* Writes the next `length` bytes of the read at `out`. */
static void fill_read(struct sim_source *source, const struct source_read *read, unsigned char *out,
                      uint64_t length_bytes) {
  uint64_t skip = read->landed_bytes;
  for (uint32_t i = 0; i < read->range_count && length_bytes > 0; i++) {
    const struct source_range *range = &read->ranges[i];
    if (skip >= range->length_bytes) {
      skip -= range->length_bytes;
      continue;
    }
    uint64_t length = range->length_bytes - skip;
    if (length > length_bytes) length = length_bytes;
    fill(source, range, skip, out, length);
    out += length;
    length_bytes -= length;
    skip = 0;
  }
}

static uint64_t land(struct sim_source *source, struct source_read *read) {
  struct sim *sim = source->sim;
  const struct iovec *iov = &read->iov[read->iov_index];
  uint64_t length = iov->iov_len - read->iov_used;
  if (sim_chance(&sim->random, 30)) length = sim_between(&sim->random, 1, length);
  unsigned char *out = (unsigned char *)iov->iov_base + read->iov_used;
  sim_require(sim, !sim->finished);
  fill_read(source, read, out, length);
  read->landed_bytes += length;
  read->iov_used += length;
  if (read->iov_used == iov->iov_len) {
    read->iov_index++;
    read->iov_used = 0;
  }
  source->landed_bytes += length;
  read->landed(read, out, length);
  return length;
}

static struct source_read *choose(struct sim_source *source) {
  struct list_node *node = source->posted.next;
  while (!source->plan.ordered && node->next != &source->posted &&
         sim_chance(&source->sim->random, 40))
    node = node->next;
  return container_of(node, struct source_read, node);
}

static void answer_read(struct source_read *read, enum sprout_status status) {
  list_remove(&read->node);
  read->done(read, status);
}

static void resume(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  (void)sim;
  if (!alive(source, argument)) return;
  source->stuck = false;
  keep_moving(source, 0);
}

/* True when it happened, and this is not a good moment to go on. */
static bool meet_fate(struct sim_source *source) {
  struct sim_source_plan *plan = &source->plan;
  struct sim *sim = source->sim;
  if (plan->deaths == 0 || source->landed_bytes < plan->fate_bytes) return false;
  plan->deaths--;
  plan->fate_bytes += source->landed_bytes;
  sim_say(sim, "source %u meets its fate %d", source->index, (int)plan->fate);
  switch (plan->fate) {
  case SIM_LIVES: return false;
  case SIM_DIES:
    source->down_until_ns = plan->reachable_again ? sim->clock.now_ns + plan->fate_ns : SIM_NEVER;
    if (sim_chance(&sim->random, 50)) source->epoch++;
    fail(source, SPROUT_DISCONNECTED);
    return true;
  case SIM_STALLS: source->stuck = true; return true;
  case SIM_PAUSES:
    source->stuck = true;
    later(source, plan->fate_ns, resume, 0);
    return true;
  case SIM_SLOWS: plan->bytes_per_ms = plan->bytes_per_ms / 50 + 1; return false;
  case SIM_LOSES_LEASE: fail(source, SPROUT_GONE); return true;
  }
  return false;
}

/* New bytes: whoever reads the old ones is told sooner or later, but never gets both. */
static void change(struct sim_source *source) {
  struct sim_source_plan *plan = &source->plan;
  struct sim *sim = source->sim;
  if (plan->changes == 0 || plan->variant + 1 >= SIM_VARIANTS) return;
  plan->changes--;
  plan->variant++;
  source->generation++;
  source->computed[0] = source->computed[1] = 0;
  sim_say(sim, "source %u changes to variant %u", source->index, plan->variant);
  if (!source->connected || source->failed || source->generation_told == 0) return;
  if (sim_chance(&sim->random, 40)) {
    give_back(source, SPROUT_STALE);
  } else if (source->admitted && sim_chance(&sim->random, 50)) {
    struct source_grant grant = grant_now(source);
    source->source.listener->granted(&source->source, &grant);
  }
}

static void change_by_bytes(struct sim_source *source) {
  struct sim_source_plan *plan = &source->plan;
  if (plan->changes == 0 || plan->change_ns > 0 || source->landed_bytes < plan->change_bytes)
    return;
  plan->change_bytes += source->landed_bytes;
  change(source);
}

static void move(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  struct sim_source_plan *plan = &source->plan;
  if (!alive(source, argument)) return;
  source->moving = false;
  change_by_bytes(source);
  if (list_empty(&source->posted) || source->stuck || meet_fate(source)) return;
  struct source_read *read = choose(source);
  uint64_t wait_ns = 1;
  if (stale(source)) {
    answer_read(read, SPROUT_STALE);
  } else if (plan->read_refusals > 0 && read->landed_bytes == 0 && sim_chance(&sim->random, 50)) {
    plan->read_refusals--;
    answer_read(read, plan->read_refusal);
  } else {
    wait_ns += land(source, read) * SIM_MS / plan->bytes_per_ms;
    if (read->landed_bytes == read->length_bytes) answer_read(read, SPROUT_OK);
  }
  keep_moving(source, wait_ns);
}

static void count_reads(const struct list_node *list, uint32_t *count, uint64_t *bytes) {
  for (const struct list_node *node = list->next; node != list; node = node->next) {
    *bytes += container_of(node, struct source_read, node)->length_bytes;
    (*count)++;
  }
}

/* One read too large for the window may go alone, and then it is a single chunk. */
static void check_window(const struct sim_source *source, const struct source_read *read) {
  uint32_t count = 0;
  uint64_t bytes = read->length_bytes;
  count_reads(&source->unflushed, &count, &bytes);
  count_reads(&source->posted, &count, &bytes);
  sim_require(source->sim, count < source->granted.operations && count < source->granted.depth);
  bool alone = count == 0 && read->range_count == 1;
  sim_require(source->sim, alone || bytes <= source->granted.bytes);
}

static void source_post(struct source *base, struct source_read *read) {
  struct sim_source *source = of(base);
  struct sim *sim = source->sim;
  uint64_t in_ranges = 0, in_iov = 0;
  sim->ops++;
  sim_require(sim, source->connected && source->admitted && !sim->finished);
  for (uint32_t i = 0; i < read->range_count; i++) {
    uint32_t object = read->ranges[i].object;
    in_ranges += read->ranges[i].length_bytes;
    if (source->source.coverage != NULL) sim_require(sim, bits_get(source->coverage, object));
  }
  for (uint32_t i = 0; i < read->iov_count; i++) in_iov += read->iov[i].iov_len;
  sim_require(sim, in_ranges == read->length_bytes && in_iov == read->length_bytes && in_iov > 0);
  check_window(source, read);
  read->landed_bytes = read->iov_used = 0;
  read->iov_index = 0;
  list_append(&source->unflushed, &read->node);
}

static void source_flush(struct source *base) {
  struct sim_source *source = of(base);
  struct list_node *node;
  sim_require(source->sim, source->connected && !list_empty(&source->unflushed));
  while ((node = list_take(&source->unflushed)) != NULL) list_append(&source->posted, node);
  keep_moving(source, latency(source));
}

/* --- digests --- */

static bool knows(struct sim_source *source, uint64_t chunk, bool compute) {
  const struct sim_source_plan *plan = &source->plan;
  switch (plan->digests) {
  case SIM_DIGESTS_KNOWN: return true;
  case SIM_DIGESTS_LATER:
    if (source->sim->clock.now_ns >= plan->digests_ns || lies_about(source, 2, chunk)) return true;
    break;
  case SIM_DIGESTS_ON_DEMAND: break;
  case SIM_DIGESTS_EVEN:
  case SIM_DIGESTS_ODD:
    if (chunk % 2 == (plan->digests == SIM_DIGESTS_ODD)) return true;
    break;
  case SIM_DIGESTS_SHY:
    if (compute && source->shy < 3) return false;
    break;
  case SIM_DIGESTS_NEVER:
  case SIM_DIGESTS_HANG: return false;
  }
  if (compute) bits_set(source->computed, chunk);
  return bits_get(source->computed, chunk);
}

static void tell_part(struct sim_source *source, uint64_t first, uint64_t count, bool compute) {
  struct digest values[SIM_CHUNKS_MAX];
  bool known[SIM_CHUNKS_MAX];
  for (uint64_t i = 0; i < count; i++) {
    known[i] = knows(source, first + i, compute);
    values[i] = sim_model_digest(&source->sim->model, source->plan.variant, first + i);
    if (lies_about(source, source->plan.lies_digests, first + i)) values[i].bytes[3] ^= 1;
  }
  source->source.listener->digests(&source->source, first, count, values, known);
}

static void answer(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  if (!alive(source, argument)) return;
  struct sim_question question = source->questions[argument & 255];
  source->questions[argument & 255].used = false;
  if (stale(source)) {
    fail(source, SPROUT_STALE);
    return;
  }
  uint64_t split = sim_chance(&sim->random, 50) ? sim_below(&sim->random, question.count) : 0;
  if (sim_chance(&sim->random, 50) && split > 0) {
    tell_part(source, question.first + split, question.count - split, question.compute);
    tell_part(source, question.first, split, question.compute);
  } else {
    if (split > 0) tell_part(source, question.first, split, question.compute);
    tell_part(source, question.first + split, question.count - split, question.compute);
  }
  if (question.compute) source->shy++;
}

static uint64_t computing_ns(const struct sim_source *source) {
  bool slow = source->plan.digests == SIM_DIGESTS_EVEN || source->plan.digests == SIM_DIGESTS_ODD;
  return slow ? 3 * SIM_S : 300 * SIM_MS;
}

static void source_request_digests(struct source *base, uint64_t first, uint64_t count,
                                   bool compute) {
  struct sim_source *source = of(base);
  struct sim *sim = source->sim;
  sim->ops++;
  sim_require(sim, source->connected && source->source.has_digests && count > 0);
  sim_require(sim,
              count <= SOURCE_DIGESTS_MAX && first + count <= sim->model.manifest->chunk_count);
  uint8_t slot = 0;
  while (source->questions[slot].used) {
    const struct sim_question *other = &source->questions[slot++];
    sim_require(sim, slot < SOURCE_DIGEST_REQUESTS);
    sim_require(sim, first + count <= other->first || other->first + other->count <= first);
  }
  source->questions[slot] =
      (struct sim_question){.first = first, .count = count, .compute = compute, .used = true};
  if (source->plan.digests == SIM_DIGESTS_HANG || source->stuck)
    later(source, 10 * SIM_S, fail_later, SPROUT_TIMEOUT);
  else
    later(source, latency(source) + (compute ? sim_below(&sim->random, computing_ns(source)) : 0),
          answer, slot);
}

/* --- closing --- */

static void tell_closed(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  (void)argument;
  sim_require(sim, source->closing && list_empty(&source->posted));
  source->closing = false;
  source->life++;
  source->source.listener->closed(&source->source);
}

static void wind_up(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  (void)argument;
  if (!list_empty(&source->posted) && !stale(source) && !source->failed) {
    /* A part, or all, of one read was on its way. */
    struct source_read *read = container_of(source->posted.next, struct source_read, node);
    bool whole = sim_chance(&sim->random, 30);
    do land(source, read);
    while (whole && read->landed_bytes < read->length_bytes);
    if (read->landed_bytes == read->length_bytes) answer_read(read, SPROUT_OK);
  }
  give_back(source, SPROUT_CANCELLED);
  later(source, latency(source), tell_closed, 0);
}

static void source_close(struct source *base, enum sprout_status result, const char *reason) {
  struct sim_source *source = of(base);
  source->sim->ops++;
  sim_say(source->sim, "source %u close: %s: %s", source->index,
          sprout_status_info_of(result)->name, reason);
  sim_require(source->sim, source->connected && !source->closing);
  source->life++;
  source->connected = false;
  source->closing = true;
  uint64_t wait_ns = sim_below(&source->sim->random, source->plan.close_ns);
  later(source, wait_ns + latency(source), wind_up, 0);
}

static void source_report(struct source *base, uint64_t received_bytes, uint64_t total_bytes) {
  sim_require(of(base)->sim, received_bytes > 0 && total_bytes > 0);
}

static void source_destroy(struct source *base) {
  struct sim_source *source = of(base);
  sim_require(source->sim, !source->connected && !source->closing && !source->destroyed);
  source->destroyed = true;
}

static void change_in_time(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  (void)argument;
  change(source);
  if (source->plan.changes > 0) sim_after(sim, source->plan.change_ns, change_in_time, source, 0);
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

struct sim_source *sim_source_create(struct sim *sim, uint32_t index,
                                     const struct sim_source_plan *plan) {
  struct sim_source *source = calloc(1, sizeof(*source));
  sim_require(sim, source != NULL);
  *source = (struct sim_source){.sim = sim, .index = index, .plan = *plan};
  source->source = (struct source){.ops = &ops,
                                   .transport = plan->file ? "file" : "tcp",
                                   .last_resort = plan->last_resort,
                                   .ordered = plan->ordered,
                                   .has_digests = !plan->file};
  snprintf(source->source.url, sizeof(source->source.url), "sim://%u", index);
  source->epoch = 1000 + index * 100;
  source->generation = 1;
  list_init(&source->unflushed);
  list_init(&source->posted);
  if (plan->changes > 0 && plan->change_ns > 0)
    sim_after(sim, plan->change_ns, change_in_time, source, 0);
  return source;
}
