/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fork_engine_internal.h"

#include <assert.h>
#include <stdlib.h>

#define TO(phase) (1u << ENGINE_##phase)

/* Legal steps of the engine. */
static const uint32_t legal[ENGINE_PHASE_COUNT] = {
    [ENGINE_CREATED] = TO(CHOOSING),
    [ENGINE_CHOOSING] = TO(PREPARING) | TO(CLOSING),
    [ENGINE_PREPARING] = TO(READING) | TO(CLOSING),
    [ENGINE_READING] = TO(FINISHING) | TO(CLOSING),
    [ENGINE_FINISHING] = TO(CLOSING),
    [ENGINE_CLOSING] = TO(ABORTING) | TO(FINISHED),
    [ENGINE_ABORTING] = TO(FINISHED),
    [ENGINE_FINISHED] = 0,
};

void engine_set_phase(struct fork_engine *engine, enum engine_phase phase) {
  assert(legal[engine->phase] & (1u << phase));
  engine->phase = phase;
}

void engine_wake(struct fork_engine *engine) {
  engine->events.wake(engine->events.context);
}

void engine_wake_at(struct fork_engine *engine, uint64_t at_ns) {
  if (at_ns < engine->deadline_ns) engine->deadline_ns = at_ns;
}

uint64_t engine_after(uint64_t now_ns, uint64_t wait_ns) {
  uint64_t at_ns;
  return __builtin_add_overflow(now_ns, wait_ns, &at_ns) ? ENGINE_NEVER : at_ns;
}

uint64_t engine_backoff(uint64_t first_ns, uint32_t times, uint64_t limit_ns) {
  uint64_t wait_ns = times < 32 ? first_ns << times : limit_ns;
  return wait_ns < limit_ns ? wait_ns : limit_ns;
}

/* --- notes of the destination --- */

static struct fork_engine *engine_of(struct destination *destination) {
  return destination->listener_context;
}

static void note_existing(struct destination *destination, uint64_t chunk,
                          const struct digest *digest) {
  struct fork_engine *engine = engine_of(destination);
  if (engine->phase == ENGINE_PREPARING && engine->judging) law_found(&engine->law, chunk, digest);
}

static void note_prepared(struct destination *destination, const struct sprout_error *error) {
  struct fork_engine *engine = engine_of(destination);
  engine->prepared = true;
  engine->prepare_error = *error;
  engine_wake(engine);
}

static void note_room(struct destination *destination) {
  struct fork_engine *engine = engine_of(destination);
  engine->blocked = false;
  engine_wake(engine);
}

static void note_finished(struct destination *destination, const struct sprout_error *error) {
  struct fork_engine *engine = engine_of(destination);
  engine->destination_finished = true;
  engine->finish_error = *error;
  engine_wake(engine);
}

static void note_aborted(struct destination *destination) {
  struct fork_engine *engine = engine_of(destination);
  assert(engine->phase == ENGINE_ABORTING);
  engine->aborted = true;
  engine_wake(engine);
}

static const struct destination_listener destination_listener = {
    .existing = note_existing,
    .prepared = note_prepared,
    .room = note_room,
    .finished = note_finished,
    .aborted = note_aborted,
};

/* --- life --- */

static void use_defaults(struct fork_engine_options *options) {
  if (options->inflight_bytes == 0) options->inflight_bytes = 32ull * 1024 * 1024;
  if (options->reads_per_source == 0) options->reads_per_source = 32;
  if (options->stall_timeout_ns == 0) options->stall_timeout_ns = 3000 * ENGINE_MS;
  if (options->connect_timeout_ns == 0) options->connect_timeout_ns = 10000 * ENGINE_MS;
  if (options->max_restarts == 0) options->max_restarts = 16;
}

enum sprout_status fork_engine_create(const struct fork_engine_options *options,
                                      const struct fork_engine_events *events,
                                      struct destination *destination,
                                      struct fork_engine **engine_out) {
  struct fork_engine *engine = calloc(1, sizeof(*engine));
  if (engine == NULL) return SPROUT_NO_MEMORY;
  engine->options = *options;
  use_defaults(&engine->options);
  engine->events = *events;
  engine->judging = options->verify || options->verify_only;
  engine->authority = engine->law_author = ENGINE_NO_SOURCE;
  engine->deadline_ns = ENGINE_NEVER;
  if (reads_create(engine) != SPROUT_OK) {
    free(engine);
    return SPROUT_NO_MEMORY;
  }
  engine->destination = destination;
  destination->listener = &destination_listener;
  destination->listener_context = engine;
  *engine_out = engine;
  return SPROUT_OK;
}

enum sprout_status fork_engine_add_source(struct fork_engine *engine, struct source *source) {
  if (engine->source_count == SPROUT_MAX_SOURCES) return SPROUT_LIMIT;
  if (engine->phase >= ENGINE_FINISHING) return SPROUT_CANCELLED;
  struct engine_source *entry = calloc(1, sizeof(*entry));
  if (entry == NULL) return SPROUT_NO_MEMORY;
  entry->engine = engine;
  entry->source = source;
  entry->index = engine->source_count;
  entry->held = source->last_resort;
  source->listener = &engine_source_listener;
  source->listener_context = entry;
  engine->sources[engine->source_count++] = entry;
  if (engine->phase != ENGINE_CREATED) engine_wake(engine);
  return SPROUT_OK;
}

void fork_engine_destroy(struct fork_engine *engine) {
  assert(engine->phase == ENGINE_CREATED || engine->phase == ENGINE_FINISHED);
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *entry = engine->sources[i];
    entry->source->ops->destroy(entry->source);
    free(entry);
  }
  engine->destination->ops->destroy(engine->destination);
  law_destroy(&engine->law);
  plan_destroy(engine->plan);
  if (engine->manifest != engine->layout) manifest_destroy(engine->manifest);
  if (engine->layout != NULL) manifest_destroy(engine->layout);
  free(engine->selected);
  free(engine->reads);
  free(engine);
}

void fork_engine_start(struct fork_engine *engine, uint64_t now_ns) {
  engine->start_ns = engine->now_ns = engine->rate_ns = now_ns;
  uint64_t burst_bytes = engine->options.max_rate / 20;
  if (burst_bytes < DESTINATION_PIECE_BYTES) burst_bytes = DESTINATION_PIECE_BYTES;
  pacer_init(&engine->pacer, engine->options.max_rate, burst_bytes, now_ns);
  engine_set_phase(engine, ENGINE_CHOOSING);
  engine->deadline_ns = now_ns;
  engine_wake(engine);
}

void fork_engine_cancel(struct fork_engine *engine, enum sprout_status status) {
  assert(status != SPROUT_OK);
  if (engine->phase == ENGINE_FINISHED) return;
  if (engine->cancelled == SPROUT_OK) engine->cancelled = status;
  engine_wake(engine);
}

/* --- tick --- */

/*
 * Time passed. When this tick comes much later than it was asked for, the process was stopped or
 * the machine slept: the sources had no chance to be heard.
 */
static void take_time(struct fork_engine *engine, uint64_t now_ns) {
  uint64_t before_ns = engine->now_ns, asked_ns = engine->deadline_ns;
  assert(now_ns >= before_ns);
  if (asked_ns < before_ns) asked_ns = before_ns;
  engine->now_ns = now_ns;
  engine->deadline_ns = ENGINE_NEVER;
  if (now_ns > engine_after(asked_ns, engine->options.stall_timeout_ns / 4))
    sources_forgive(engine, now_ns - before_ns);
}

static void heed_owner(struct fork_engine *engine) {
  struct sprout_error error;
  if (engine->phase >= ENGINE_CLOSING) return;
  if (engine->cancelled != SPROUT_OK) {
    sprout_error_set(&error, engine->cancelled, 0, NULL, "the fork was stopped: %s",
                     sprout_status_info_of(engine->cancelled)->summary);
    engine_end(engine, &error);
    return;
  }
  if (engine->options.timeout_ns == 0) return;
  uint64_t end_ns = engine_after(engine->start_ns, engine->options.timeout_ns);
  engine_wake_at(engine, end_ns);
  if (engine->now_ns < end_ns) return;
  sprout_error_set(&error, SPROUT_TIMEOUT, 0, "Allow more time with --timeout.",
                   "the fork was not whole after %llu ms",
                   (unsigned long long)(engine->options.timeout_ns / ENGINE_MS));
  engine_end(engine, &error);
}

static void handle_prepared(struct fork_engine *engine) {
  static const struct sprout_error nothing = {.status = SPROUT_OK};
  if (engine->phase != ENGINE_PREPARING || !engine->prepared) return;
  if (engine->prepare_error.status != SPROUT_OK)
    engine_end(engine, &engine->prepare_error);
  else if (engine->options.dry_run)
    engine_end(engine, &nothing);
  else
    engine_set_phase(engine, ENGINE_READING);
}

static void handle_finished(struct fork_engine *engine) {
  if (engine->phase != ENGINE_FINISHING || !engine->destination_finished) return;
  engine->destination_done = engine->finish_error.status == SPROUT_OK;
  engine->completed_verified = engine->destination_done && engine->judging;
  engine_end(engine, &engine->finish_error);
}

static void transfer(struct fork_engine *engine) {
  if (engine->phase != ENGINE_PREPARING && engine->phase != ENGINE_READING) return;
  if (engine->judging) authority_ask(engine);
  end_if_decided(engine);
  if (engine->phase != ENGINE_READING || engine->options.verify_only) return;
  if (reads_post(engine) && !sources_release_held(engine)) end_uncovered(engine);
}

/* Bytes per second over about a second, without a clock of its own. */
static void update_rate(struct fork_engine *engine) {
  uint64_t elapsed_ns = engine->now_ns - engine->rate_ns;
  if (elapsed_ns < 100 * ENGINE_MS) return;
  double bytes = (double)(engine->received_bytes - engine->rate_bytes);
  double seconds = (double)elapsed_ns / 1e9;
  engine->rate = (uint64_t)(((double)engine->rate + bytes) / (1.0 + seconds));
  engine->rate_bytes = engine->received_bytes;
  engine->rate_ns = engine->now_ns;
}

void fork_engine_tick(struct fork_engine *engine, uint64_t now_ns) {
  if (engine->phase == ENGINE_CREATED || engine->phase == ENGINE_FINISHED) return;
  take_time(engine, now_ns);
  handle_finished(engine);
  heed_owner(engine);
  sources_handle_failures(engine);
  reads_settle(engine);
  reads_settle_stores(engine);
  if (engine->judging) authority_handle_convictions(engine);
  sources_handle_notes(engine);
  handle_prepared(engine);
  sources_watch(engine);
  if (engine->phase == ENGINE_CHOOSING) end_if_decided(engine);
  transfer(engine);
  end_step(engine);
  update_rate(engine);
  /* The last act: the owner may destroy the engine in it. */
  if (engine->phase == ENGINE_FINISHED)
    engine->events.finished(engine->events.context, &engine->outcome);
}

uint64_t fork_engine_deadline(const struct fork_engine *engine) {
  return engine->deadline_ns;
}
