/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The authority: who says what is right, and what happens to those that differ.
 *
 * It is the first usable source, in the order they were added, that has digests when one is needed.
 * It stays while it lives, also while it only connects again with the same version. A source whose
 * bytes or digests differ from the law is dropped; an authority whose bytes differ from its own
 * digest voids the law, and with it every conviction so far.
 */
#include "core/fork_engine_internal.h"

#include <assert.h>
#include <stdio.h>

/* --- authority --- */

/* What they were convicted by is void: all of the law, or (`by`) what one authority added to it. */
static void acquit(struct fork_engine *engine, uint32_t by) {
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *source = engine->sources[i];
    if (!source_is_lost(source) || source->drop != ENGINE_DROP_CONVICTED) continue;
    if (by != ENGINE_NO_SOURCE && source->convicted_by != by) continue;
    source_revive(source);
    engine_wake_at(engine, engine->now_ns);
  }
}

/* The first in the order they were added; one whose version changed only when there is no other. */
static uint32_t best_authority(const struct fork_engine *engine) {
  uint32_t best = ENGINE_NO_SOURCE;
  for (uint32_t i = 0; i < engine->source_count; i++) {
    const struct engine_source *source = engine->sources[i];
    if (!source->source->has_digests || !source_is_usable(source)) continue;
    if (!source->changed) return i;
    if (best == ENGINE_NO_SOURCE) best = i;
  }
  return best;
}

static void appoint(struct fork_engine *engine) {
  if (law_complete(&engine->law) && law_settled(&engine->law)) return;
  engine->authority = best_authority(engine);
  if (engine->authority == ENGINE_NO_SOURCE) return;
  if (engine->law.known_count == 0) engine->law_author = engine->authority;
  engine->digest_attempts = 0;
  engine->digest_retry_at_ns = 0;
  law_adopt(&engine->law);
}

/* Its questions will not be answered. */
static void withdraw_questions(struct fork_engine *engine) {
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    struct engine_question *question = &engine->questions[i];
    if (question->remaining > 0) law_unask(&engine->law, &question->request);
    question->remaining = 0;
  }
}

void authority_left(struct engine_source *source, bool gone) {
  struct fork_engine *engine = source->engine;
  if (engine->authority != source->index || engine->phase >= ENGINE_FINISHING) return;
  withdraw_questions(engine);
  if (!gone) return;
  engine->authority = ENGINE_NO_SOURCE;
  bool stands = law_settled(&engine->law);
  law_retire(&engine->law);
  if (!stands) acquit(engine, source->index);
}

static void ask(struct engine_source *source, struct engine_question *question) {
  question->remaining = question->request.count;
  question->told = false;
  source->source->ops->request_digests(source->source, question->request.first,
                                       question->request.count, question->request.compute);
}

void authority_ask(struct fork_engine *engine) {
  if (engine->authority == ENGINE_NO_SOURCE) appoint(engine);
  if (engine->authority == ENGINE_NO_SOURCE) return;
  struct engine_source *source = engine->sources[engine->authority];
  if (!source_is_usable(source)) return;
  if (engine->now_ns < engine->digest_retry_at_ns) {
    engine_wake_at(engine, engine->digest_retry_at_ns);
    return;
  }
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    struct engine_question *question = &engine->questions[i];
    if (question->remaining > 0) continue;
    if (!law_ask(&engine->law, &question->request)) return;
    ask(source, question);
  }
}

/* --- answers --- */

static struct engine_question *question_of(struct fork_engine *engine, uint64_t first,
                                           uint64_t count) {
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    struct engine_question *question = &engine->questions[i];
    const struct law_request *request = &question->request;
    if (question->remaining >= count && first >= request->first &&
        first - request->first <= request->count - count)
      return question;
  }
  return NULL;
}

static void close_question(struct engine_source *source, struct engine_question *question) {
  struct fork_engine *engine = source->engine;
  bool open = law_answered(&engine->law, &question->request);
  if (question->told) engine->digest_attempts = 0;
  if (!open || question->told || !question->request.compute) return;
  uint32_t attempts = ++engine->digest_attempts;
  engine->digest_retry_at_ns = engine_after(
      engine->now_ns, engine_backoff(ENGINE_BACKOFF_NS, attempts - 1, ENGINE_BACKOFF_MAX_NS));
  if (attempts < ENGINE_DIGEST_ATTEMPTS_MAX) return;
  source->notes.failed = true;
  sprout_error_set(&source->notes.error, SPROUT_UNAVAILABLE, 0, NULL,
                   "it does not tell the digests of its bytes");
}

void authority_answer(struct engine_source *source, uint64_t first, uint64_t count,
                      const struct digest *values, const bool *known) {
  struct fork_engine *engine = source->engine;
  if (engine->authority != source->index || engine->phase > ENGINE_READING || count == 0) return;
  struct engine_question *question = question_of(engine, first, count);
  if (question == NULL) {
    source->notes.failed = true;
    sprout_error_set(&source->notes.error, SPROUT_PROTOCOL, 0, NULL,
                     "it sent digests that it was not asked for");
    return;
  }
  for (uint64_t i = 0; i < count && !source->notes.deviates; i++) {
    if (!known[i]) continue;
    question->told = true;
    uint64_t chunk = first + i;
    uint8_t origin = engine->law.origin[chunk];
    enum law_verdict verdict = law_told(&engine->law, chunk, &values[i]);
    if (verdict == LAW_WRONG) authority_convict(engine, origin, chunk);
    if (verdict != LAW_DEVIATES) continue;
    source->notes.deviates = true;
    source->notes.wrong_chunk = chunk;
  }
  question->remaining -= count;
  if (question->remaining == 0) close_question(source, question);
}

/* --- convictions --- */

void authority_convict(struct fork_engine *engine, uint8_t origin, uint64_t chunk) {
  if (origin >= engine->source_count) return; /* bytes found, or of an older generation */
  struct engine_source *source = engine->sources[origin];
  if (source->notes.convicted) return;
  source->notes.convicted = true;
  source->notes.wrong_chunk = chunk;
  source->notes.liar = origin == engine->authority && bits_get(engine->law.confirmed, chunk) != 0;
}

static void name_chunk(const struct fork_engine *engine, uint64_t chunk, char *text,
                       size_t text_bytes) {
  struct manifest_chunk place = plan_chunk(engine->plan, chunk);
  const struct manifest_object *object = &engine->layout->objects[place.object];
  const char *file = object->file == MANIFEST_NONE ? "" : engine->layout->files[object->file].path;
  snprintf(text, text_bytes, "'%s'%s%s bytes %llu..%llu (chunk %llu)", object->name,
           file[0] == '\0' ? "" : " of ", file, (unsigned long long)place.offset,
           (unsigned long long)(place.offset + place.length_bytes), (unsigned long long)chunk);
}

/* Whose digest the source was measured by. */
static const char *measure_of(const struct engine_source *source) {
  const struct fork_engine *engine = source->engine;
  uint32_t by =
      source->convicted_by == ENGINE_NO_SOURCE ? engine->law_author : source->convicted_by;
  return by == ENGINE_NO_SOURCE ? "an earlier source" : engine->sources[by]->source->url;
}

/* Its bytes differ from its own digest: neither counts. */
static void drop_liar(struct engine_source *source, const char *place) {
  struct fork_engine *engine = source->engine;
  struct sprout_error error;
  sprout_error_set(&error, SPROUT_CORRUPT, 0, NULL,
                   "its bytes of %s differ from its own digest of them", place);
  source->condemned = true;
  source_drop(source, ENGINE_DROP_FINAL, &error);
  law_forget(&engine->law);
  law_reject_unproven(&engine->law, (uint8_t)source->index);
  acquit(engine, ENGINE_NO_SOURCE);
}

/* Its bytes, or its digest, differ from the law. */
static void drop_deviant(struct engine_source *source, const struct source_notes *notes,
                         const char *place) {
  struct sprout_error error;
  source->condemned = true;
  if (source->changed) {
    judge_drop_stale(source, ENGINE_DROP_STALE);
    return;
  }
  if (!notes->convicted) source->convicted_by = ENGINE_NO_SOURCE;
  sprout_error_set(&error, SPROUT_CORRUPT, 0, NULL, "its %s of %s %s from the digest of %s",
                   notes->convicted ? "bytes" : "digest", place,
                   notes->convicted ? "differ" : "differs", measure_of(source));
  source_drop(source, ENGINE_DROP_CONVICTED, &error);
}

static void clear_conviction(struct engine_source *source) {
  source->notes.convicted = source->notes.deviates = source->notes.liar = false;
}

/* The digest it was convicted by still holds. */
static bool conviction_holds(const struct fork_engine *engine, const struct source_notes *notes) {
  return notes->deviates || bits_get(engine->law.known, notes->wrong_chunk);
}

static void handle_conviction(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  struct source_notes notes = source->notes;
  char place[300];
  name_chunk(engine, notes.wrong_chunk, place, sizeof(place));
  clear_conviction(source);
  if (notes.liar) {
    drop_liar(source, place);
    return;
  }
  drop_deviant(source, &notes, place);
  law_reject_unproven(&engine->law, (uint8_t)source->index);
}

/* A liar first: its law is void, and so are the other convictions of the moment. */
static bool handle_liar(struct fork_engine *engine) {
  bool any = false;
  for (uint32_t i = 0; i < engine->source_count; i++) {
    if (!engine->sources[i]->notes.liar) continue;
    handle_conviction(engine->sources[i]);
    any = true;
  }
  for (uint32_t i = 0; i < engine->source_count && any; i++) clear_conviction(engine->sources[i]);
  return any;
}

void authority_handle_convictions(struct fork_engine *engine) {
  if (handle_liar(engine)) return;
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *source = engine->sources[i];
    if (!source->notes.convicted && !source->notes.deviates) continue;
    if (conviction_holds(engine, &source->notes))
      handle_conviction(source);
    else
      clear_conviction(source);
  }
}
