/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of each source, as the engine sees it.
 *
 * What ends a life, and what follows:
 * - stalled, timed out, protocol, denied, ...: dropped;
 * - the transport broke once it could be read: connected again, thrice without a whole read at
 *   most, or longer, within stall_timeout, while the seed itself answers; before: dropped;
 * - stale, gone, another generation granted: connected again, max_restarts times at most;
 * - busy at admission, bytes being changed: connected again until wait_ns is over;
 * - bytes or digests wrong: dropped (judge).
 * A read refused "not now" pauses the source; a few pauses without any whole read end in a drop.
 */
#include "core/fork_engine_internal.h"

#include <assert.h>

#define TO(state) (1u << ENGINE_SOURCE_##state)

/* Legal steps of a source. */
static const uint32_t legal[ENGINE_SOURCE_STATE_COUNT] = {
    [ENGINE_SOURCE_IDLE] = TO(CONNECTING) | TO(DROPPED) | TO(CLOSED),
    [ENGINE_SOURCE_CONNECTING] = TO(ACCEPTED) | TO(OPENING) | TO(CLOSING),
    [ENGINE_SOURCE_ACCEPTED] = TO(CLOSING),
    [ENGINE_SOURCE_OPENING] = TO(QUEUED) | TO(READY) | TO(CLOSING),
    [ENGINE_SOURCE_QUEUED] = TO(READY) | TO(CLOSING),
    [ENGINE_SOURCE_READY] = TO(CLOSING),
    [ENGINE_SOURCE_CLOSING] = TO(IDLE) | TO(DROPPED) | TO(CLOSED),
    [ENGINE_SOURCE_DROPPED] = TO(IDLE),
    [ENGINE_SOURCE_CLOSED] = 0,
};

void source_set_state(struct engine_source *source, enum source_state state) {
  assert(legal[source->state] & (1u << state));
  source->state = state;
}

bool source_is_lost(const struct engine_source *source) {
  return source->state == ENGINE_SOURCE_DROPPED ||
         (source->state == ENGINE_SOURCE_CLOSING && source->next == ENGINE_SOURCE_DROPPED);
}

bool source_is_usable(const struct engine_source *source) {
  return source->state >= ENGINE_SOURCE_ACCEPTED && source->state <= ENGINE_SOURCE_READY;
}

/* --- notes --- */

/* The wrapper, unless the source is being left and what it says does not matter any more. */
static struct engine_source *heard(struct source *source) {
  struct engine_source *entry = source->listener_context;
  assert(entry->state != ENGINE_SOURCE_IDLE && entry->state < ENGINE_SOURCE_DROPPED);
  if (entry->state == ENGINE_SOURCE_CLOSING) return NULL;
  engine_wake(entry->engine);
  return entry;
}

static void note_manifest(struct source *source, struct manifest *manifest) {
  struct engine_source *entry = heard(source);
  if (entry == NULL) {
    manifest_destroy(manifest);
    return;
  }
  assert(entry->state == ENGINE_SOURCE_CONNECTING && entry->notes.manifest == NULL);
  entry->notes.manifest = manifest;
}

static void note_queued(struct source *source, uint32_t position) {
  struct engine_source *entry = heard(source);
  if (entry == NULL) return;
  entry->notes.queued = true;
  entry->notes.position = position;
}

static void note_ready(struct source *source, const struct source_grant *grant) {
  struct engine_source *entry = heard(source);
  if (entry == NULL) return;
  entry->notes.ready = true;
  entry->notes.grant = *grant;
}

static void note_granted(struct source *source, const struct source_grant *grant) {
  struct engine_source *entry = heard(source);
  if (entry == NULL) return;
  entry->notes.granted = true;
  entry->notes.grant = *grant;
}

static void note_digests(struct source *source, uint64_t first, uint64_t count,
                         const struct digest *values, const bool *known) {
  struct engine_source *entry = heard(source);
  if (entry != NULL) authority_answer(entry, first, count, values, known);
}

static void note_failed(struct source *source, const struct sprout_error *error) {
  struct engine_source *entry = heard(source);
  if (entry == NULL) return;
  entry->notes.failed = true;
  entry->notes.error = *error;
}

static void note_closed(struct source *source) {
  struct engine_source *entry = source->listener_context;
  assert(entry->state == ENGINE_SOURCE_CLOSING && !entry->notes.closed);
  entry->notes.closed = true;
  engine_wake(entry->engine);
}

const struct source_listener engine_source_listener = {
    .manifest = note_manifest,
    .queued = note_queued,
    .ready = note_ready,
    .granted = note_granted,
    .digests = note_digests,
    .failed = note_failed,
    .closed = note_closed,
};

/* --- ends of a life --- */

/* For the seed's books. */
static void tell_progress(struct engine_source *source) {
  if (source->received_bytes == source->reported_bytes) return;
  source->reported_bytes = source->received_bytes;
  source->source->ops->report(source->source, source->received_bytes,
                              plan_selected_bytes(source->engine->plan));
}

/* Closes, unless there is nothing to close; `next` follows. */
static void leave(struct engine_source *source, enum source_state next, enum sprout_status result,
                  const char *reason) {
  authority_left(source, next != ENGINE_SOURCE_IDLE);
  if (source->state == ENGINE_SOURCE_CLOSING) {
    source->next = next;
    return;
  }
  if (source->notes.manifest != NULL) manifest_destroy(source->notes.manifest);
  source->notes = (struct source_notes){.convicted = source->notes.convicted,
                                        .liar = source->notes.liar,
                                        .deviates = source->notes.deviates,
                                        .wrong_chunk = source->notes.wrong_chunk};
  source->queue_position = 0;
  if (source->state == ENGINE_SOURCE_IDLE) {
    source_set_state(source, next);
    return;
  }
  source->next = next;
  source_set_state(source, ENGINE_SOURCE_CLOSING);
  tell_progress(source);
  source->source->ops->close(source->source, result, reason);
}

void source_drop(struct engine_source *source, enum source_drop drop,
                 const struct sprout_error *error) {
  struct fork_engine *engine = source->engine;
  if (source_is_lost(source)) return;
  source->drop = drop;
  source->dropped = *error;
  leave(source, ENGINE_SOURCE_DROPPED, error->status, error->message);
  if (engine->events.dropped != NULL)
    engine->events.dropped(engine->events.context, source->source, &source->dropped);
}

static void reconnect(struct engine_source *source, uint64_t wait_ns,
                      const struct sprout_error *error) {
  source->retry_at_ns = engine_after(source->engine->now_ns, wait_ns);
  source->dropped = *error; /* should the fork end before it is back */
  leave(source, ENGINE_SOURCE_IDLE, error->status, error->message);
}

/* At once the first time. */
static uint64_t wait_before(uint32_t times) {
  return times == 0 ? 0 : engine_backoff(ENGINE_BACKOFF_NS, times - 1, ENGINE_BACKOFF_MAX_NS);
}

/* Another generation, or the lease is gone. */
static void renew(struct engine_source *source, const struct sprout_error *error) {
  if (source->renewals == source->engine->options.max_restarts) {
    source_drop(source, ENGINE_DROP_FINAL, error);
    return;
  }
  uint32_t times = source->renewals++;
  reconnect(source, wait_before(times), error);
}

/* The seed's queue is full, or its bytes are being changed just now. */
static bool says_not_yet(enum sprout_status status) {
  return status == SPROUT_BUSY || status == SPROUT_TOO_EARLY;
}

/* Asks again as long as the fork would wait in the seed's queue. */
static void ask_again(struct engine_source *source, const struct sprout_error *error) {
  struct fork_engine *engine = source->engine;
  if (source->waiting_since_ns == 0) source->waiting_since_ns = engine->now_ns;
  uint64_t wait_ns = engine_backoff(ENGINE_BACKOFF_NS, source->refusals, 20 * ENGINE_BACKOFF_NS);
  uint64_t end_ns = engine_after(source->waiting_since_ns, engine->options.wait_ns);
  if (engine_after(engine->now_ns, wait_ns) >= end_ns) {
    source_drop(source, ENGINE_DROP_FINAL, error);
    return;
  }
  source->refusals++;
  reconnect(source, wait_ns, error);
}

/* A seed that gave its manifest in this life is there: only the way of its bytes is broken, perhaps
 * for a moment. */
static bool may_reconnect(const struct engine_source *source) {
  const struct fork_engine *engine = source->engine;
  uint64_t end_ns = engine_after(source->progress_ns, engine->options.stall_timeout_ns);
  bool answers = source->state >= ENGINE_SOURCE_OPENING && engine->now_ns < end_ns;
  return source->reconnects < ENGINE_RECONNECTS_MAX || answers;
}

void source_fail(struct engine_source *source, const struct sprout_error *error) {
  enum sprout_retry retry = sprout_status_info_of(error->status)->retry;
  bool was_good = source->received_bytes > 0 || source->state == ENGINE_SOURCE_READY;
  bool broke = error->status == SPROUT_DISCONNECTED && was_good;
  if (source->state == ENGINE_SOURCE_CLOSING || source_is_lost(source)) return;
  if (retry == SPROUT_RETRY_RESTART) {
    renew(source, error);
  } else if (broke && may_reconnect(source)) {
    uint32_t times = source->reconnects++;
    reconnect(source, wait_before(times), error);
  } else if (says_not_yet(error->status) && source->state < ENGINE_SOURCE_READY) {
    ask_again(source, error);
  } else {
    source_drop(source, ENGINE_DROP_FINAL, error);
  }
}

void source_revive(struct engine_source *source) {
  assert(source_is_lost(source));
  source->changed = source->condemned = false;
  source->reconnects = source->renewals = source->refusals = source->pauses = 0;
  source->waiting_since_ns = 0;
  source->retry_at_ns = source->engine->now_ns;
  if (source->state == ENGINE_SOURCE_CLOSING)
    source->next = ENGINE_SOURCE_IDLE;
  else
    source_set_state(source, ENGINE_SOURCE_IDLE);
}

void source_end(struct engine_source *source) {
  const struct sprout_error *outcome = &source->engine->outcome;
  if (source_is_lost(source)) return;
  leave(source, ENGINE_SOURCE_CLOSED, outcome->status, outcome->message);
}

/* --- acting on notes --- */

void sources_handle_failures(struct fork_engine *engine) {
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *source = engine->sources[i];
    if (!source->notes.failed) continue;
    struct sprout_error error = source->notes.error;
    source->notes.failed = false;
    source_fail(source, &error);
  }
}

static void handle_closed(struct engine_source *source) {
  source->notes = (struct source_notes){.closed = false};
  assert(source->reads_in_flight == 0);
  source->paced = false;
  source_set_state(source, source->next);
}

static void hold_rate(struct engine_source *source, uint64_t rate) {
  uint64_t now_ns = source->engine->now_ns;
  uint64_t burst_bytes = rate / 20 > DESTINATION_PIECE_BYTES ? rate / 20 : DESTINATION_PIECE_BYTES;
  if (!source->paced)
    pacer_init(&source->pacer, rate, burst_bytes, now_ns);
  else if (source->pacer.rate != rate)
    pacer_set_rate(&source->pacer, rate, now_ns);
  source->paced = true;
}

/* False when the grant shows another generation: that life is over. */
static bool take_grant(struct engine_source *source) {
  struct source_grant grant = source->notes.grant;
  source->notes.ready = source->notes.granted = false;
  if (grant.generation != source->generation) {
    struct sprout_error error;
    sprout_error_set(&error, SPROUT_STALE, 0, NULL, "the seed changed from generation %llu to %llu",
                     (unsigned long long)source->generation, (unsigned long long)grant.generation);
    renew(source, &error);
    return false;
  }
  window_set_limits(&source->window, &grant.window);
  hold_rate(source, grant.rate);
  return true;
}

static void handle_ready(struct engine_source *source) {
  window_init(&source->window, &source->notes.grant.window);
  if (!take_grant(source)) return;
  source->waiting_since_ns = 0;
  source->refusals = 0;
  source->queue_position = 0;
  source->deadline_ns = ENGINE_NEVER;
  source_set_state(source, ENGINE_SOURCE_READY);
}

static void handle_queued(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  source->queue_position = source->notes.position;
  source->notes.queued = false;
  if (source->state != ENGINE_SOURCE_OPENING) return;
  if (source->waiting_since_ns == 0) source->waiting_since_ns = engine->now_ns;
  source->deadline_ns = engine_after(source->waiting_since_ns, engine->options.wait_ns);
  source_set_state(source, ENGINE_SOURCE_QUEUED);
}

/* Once all is stored, nothing that a source has now matters any more. */
static void handle_manifest(struct engine_source *source) {
  struct manifest *manifest = source->notes.manifest;
  source->notes.manifest = NULL;
  if (source->engine->phase < ENGINE_FINISHING)
    judge_manifest(source, manifest);
  else
    manifest_destroy(manifest);
}

static bool waits_for_admission(const struct engine_source *source) {
  return source->state == ENGINE_SOURCE_OPENING || source->state == ENGINE_SOURCE_QUEUED;
}

/*
 * The first manifest decides which model is forked. When sources of different models were named,
 * the one named first shall win, not the one that answered first: for a moment the others wait for
 * it.
 */
static bool waits_for_elders(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  uint64_t end_ns = engine_after(engine->start_ns, ENGINE_ELDER_GRACE_NS);
  if (engine->layout != NULL || engine->now_ns >= end_ns) return false;
  for (uint32_t i = 0; i < source->index; i++) {
    const struct engine_source *elder = engine->sources[i];
    if (elder->state != ENGINE_SOURCE_CONNECTING || elder->notes.manifest != NULL) continue;
    engine_wake_at(engine, end_ns);
    return true;
  }
  return false;
}

void sources_handle_notes(struct fork_engine *engine) {
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *source = engine->sources[i];
    struct source_notes *notes = &source->notes;
    if (notes->closed) handle_closed(source);
    if (source->state == ENGINE_SOURCE_CONNECTING && notes->manifest != NULL &&
        !waits_for_elders(source))
      handle_manifest(source);
    if (notes->queued && waits_for_admission(source)) handle_queued(source);
    if (notes->ready && waits_for_admission(source)) handle_ready(source);
    if (notes->granted && source->state == ENGINE_SOURCE_READY) take_grant(source);
  }
}

/* --- time --- */

static void connect_now(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  source->deadline_ns = engine_after(engine->now_ns, engine->options.connect_timeout_ns);
  source_set_state(source, ENGINE_SOURCE_CONNECTING);
  source->source->ops->connect(source->source);
}

static void end_waiting(struct engine_source *source) {
  const struct fork_engine_options *options = &source->engine->options;
  struct sprout_error error;
  if (source->state == ENGINE_SOURCE_QUEUED && source->queue_position == 0)
    sprout_error_set(&error, SPROUT_BUSY, 0, "Wait longer with --wait, or ask another seed.",
                     "the seed was busy for %llu ms and gave no place in its queue",
                     (unsigned long long)(options->wait_ns / ENGINE_MS));
  else if (source->state == ENGINE_SOURCE_QUEUED)
    sprout_error_set(&error, SPROUT_BUSY, 0, "Wait longer with --wait, or ask another seed.",
                     "still at place %u of the seed's queue after %llu ms", source->queue_position,
                     (unsigned long long)(options->wait_ns / ENGINE_MS));
  else
    sprout_error_set(&error, SPROUT_TIMEOUT, 0, NULL, "no answer within %llu ms",
                     (unsigned long long)(options->connect_timeout_ns / ENGINE_MS));
  source_drop(source, ENGINE_DROP_FINAL, &error);
}

static void end_stall(struct engine_source *source) {
  struct sprout_error error;
  sprout_error_set(&error, SPROUT_STALLED, 0, NULL, "%u reads made no progress for %llu ms",
                   source->reads_in_flight,
                   (unsigned long long)(source->engine->options.stall_timeout_ns / ENGINE_MS));
  source_drop(source, ENGINE_DROP_FINAL, &error);
}

/* Landed bytes carry no time: they are seen at the next look, an eighth of the time-out later at
 * most. */
static uint64_t next_look(const struct fork_engine *engine) {
  return engine_after(engine->now_ns, engine->options.stall_timeout_ns / 8 + 1);
}

void source_begin_watch(struct engine_source *source) {
  source->progress_ns = source->engine->now_ns;
  engine_wake_at(source->engine, next_look(source->engine));
}

static void watch_reads(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  uint64_t timeout_ns = engine->options.stall_timeout_ns;
  tell_progress(source);
  if (source->reads_in_flight == 0) return;
  if (source->progressed) source->progress_ns = engine->now_ns;
  source->progressed = false;
  uint64_t end_ns = engine_after(source->progress_ns, timeout_ns);
  if (engine->now_ns >= end_ns) {
    end_stall(source);
    return;
  }
  uint64_t look_ns = next_look(engine);
  engine_wake_at(engine, look_ns < end_ns ? look_ns : end_ns);
}

/* Answers are looked for every second, so that a stop of this process is told from a silent peer.
 */
static void watch_waiting(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  if (source->deadline_ns == ENGINE_NEVER) return;
  if (engine->now_ns >= source->deadline_ns) {
    end_waiting(source);
    return;
  }
  uint64_t look_ns = source->state == ENGINE_SOURCE_QUEUED
                         ? ENGINE_NEVER
                         : engine_after(engine->now_ns, 1000 * ENGINE_MS);
  engine_wake_at(engine, look_ns < source->deadline_ns ? look_ns : source->deadline_ns);
}

static void watch_idle(struct engine_source *source) {
  if (source->held) return;
  if (source->engine->now_ns < source->retry_at_ns)
    engine_wake_at(source->engine, source->retry_at_ns);
  else
    connect_now(source);
}

static void watch(struct engine_source *source) {
  if (source->state == ENGINE_SOURCE_IDLE) watch_idle(source);
  if (source->state == ENGINE_SOURCE_CONNECTING || waits_for_admission(source))
    watch_waiting(source);
  if (source->state == ENGINE_SOURCE_READY) watch_reads(source);
}

bool sources_release_held(struct fork_engine *engine) {
  bool any = false;
  for (uint32_t i = 0; i < engine->source_count; i++) {
    if (!engine->sources[i]->held) continue;
    engine->sources[i]->held = false;
    watch(engine->sources[i]);
    any = true;
  }
  return any;
}

/* Last resorts join when nobody else is left, not even for a restart. */
static void watch_held(struct fork_engine *engine) {
  for (uint32_t i = 0; i < engine->source_count; i++)
    if (!engine->sources[i]->held && !source_is_lost(engine->sources[i])) return;
  if (!judge_prefers_restart(engine)) sources_release_held(engine);
}

void sources_watch(struct fork_engine *engine) {
  if (engine->phase >= ENGINE_FINISHING) return;
  for (uint32_t i = 0; i < engine->source_count; i++) watch(engine->sources[i]);
  watch_held(engine);
}

void sources_forgive(struct fork_engine *engine, uint64_t gap_ns) {
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *source = engine->sources[i];
    source->progress_ns = engine->now_ns;
    if (source->state == ENGINE_SOURCE_CONNECTING || source->state == ENGINE_SOURCE_OPENING)
      source->deadline_ns = engine_after(source->deadline_ns, gap_ns);
  }
}
