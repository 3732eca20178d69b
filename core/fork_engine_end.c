/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a fork: when it is complete, when it cannot become so, what is said about that, and
 * the order in which everything is closed: sources first (no byte lands from then on), then the
 * last stores, then the destination.
 */
#include "core/fork_engine_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const struct sprout_error well = {.status = SPROUT_OK};

/* --- why --- */

/* Statuses that stand for the whole fork when every source was dropped for them. */
static bool speaks_for_all(enum sprout_status status) {
  switch (status) {
  case SPROUT_INVALID:
  case SPROUT_DENIED:
  case SPROUT_NOT_FOUND:
  case SPROUT_STALE:
  case SPROUT_TOO_EARLY:
  case SPROUT_BUSY:
  case SPROUT_UNAVAILABLE:
  case SPROUT_VERSION:
  case SPROUT_MISMATCH:
  case SPROUT_CORRUPT:
  case SPROUT_BAD_MODEL:
  case SPROUT_UNSUPPORTED:
  case SPROUT_NO_MEMORY:
  case SPROUT_LIMIT: return true;
  default: return false;
  }
}

static bool distrusts(enum sprout_status status) {
  return status == SPROUT_MISMATCH || status == SPROUT_CORRUPT;
}

/* One cause for all lost sources, or NO_SOURCE. */
static enum sprout_status common_cause(const struct fork_engine *engine) {
  enum sprout_status common = SPROUT_OK;
  for (uint32_t i = 0; i < engine->source_count; i++) {
    const struct engine_source *source = engine->sources[i];
    if (!source_is_lost(source)) continue;
    enum sprout_status status = source->dropped.status;
    if (!speaks_for_all(status)) return SPROUT_NO_SOURCE;
    if (common == SPROUT_OK) common = status;
    if (common == status) continue;
    if (!distrusts(common) || !distrusts(status)) return SPROUT_NO_SOURCE;
    common = SPROUT_CORRUPT;
  }
  return common == SPROUT_OK ? SPROUT_NO_SOURCE : common;
}

/* "URL: reason; URL: reason" */
static void list_dropped(const struct fork_engine *engine, char *text, size_t text_bytes) {
  size_t used = 0;
  text[0] = '\0';
  for (uint32_t i = 0; i < engine->source_count && used < text_bytes; i++) {
    const struct engine_source *source = engine->sources[i];
    if (!source_is_lost(source)) continue;
    int wrote = snprintf(text + used, text_bytes - used, "%s%s: %s", used > 0 ? "; " : "",
                         source->source->url, source->dropped.message);
    used += wrote > 0 ? (size_t)wrote : 0;
  }
}

static const struct sprout_error *only_dropped(const struct fork_engine *engine) {
  return engine->source_count == 1 ? &engine->sources[0]->dropped : NULL;
}

static void end_without_source(struct fork_engine *engine, const char *what) {
  struct sprout_error error;
  char list[sizeof(error.message)];
  list_dropped(engine, list, sizeof(list));
  const struct sprout_error *only = only_dropped(engine);
  const char *hint = only != NULL && only->hint[0] != '\0' ? only->hint : NULL;
  sprout_error_set(&error, common_cause(engine), only != NULL ? only->native : 0, hint, "%s%s%s",
                   what, list[0] != '\0' ? ": " : "", list);
  engine_end(engine, &error);
}

/* The seeds are gone that could have told digests; bytes without a digest are not taken. */
static void end_without_digests(struct fork_engine *engine) {
  struct sprout_error error;
  char list[sizeof(error.message)];
  list_dropped(engine, list, sizeof(list));
  enum sprout_status status = common_cause(engine);
  sprout_error_set(&error, status, 0,
                   "Ask a running seed too, or take the bytes unverified with --no-verify.",
                   "no seed is left that can tell the digests of the model%s%s",
                   list[0] != '\0' ? ": " : "", list);
  engine_end(engine, &error);
}

void end_uncovered(struct fork_engine *engine) {
  end_without_source(engine, "no source that is left has all of the model");
}

/* --- whether --- */

static bool judged(const struct fork_engine *engine) {
  return !engine->judging || law_settled(&engine->law);
}

/* Something is missing that only a source can give. */
static bool lacks_source(const struct fork_engine *engine) {
  const struct plan *plan = engine->plan;
  if (plan == NULL) return true;
  if (engine->phase == ENGINE_READING && plan_count(plan, PLAN_UNPROVEN) > 0) return true;
  if (engine->options.verify_only || engine->options.dry_run) return !judged(engine);
  return plan_count(plan, PLAN_NEEDED) + plan_count(plan, PLAN_IN_FLIGHT) +
                 plan_count(plan, PLAN_LANDED) + plan_count(plan, PLAN_REJECTED) >
             0 ||
         !judged(engine);
}

/* Digests are lacking (not only bytes). */
static bool lacks_digests(const struct fork_engine *engine) {
  if (!engine->judging) return false;
  if (engine->plan == NULL) return true;
  if (engine->options.dry_run) return false;
  if (!engine->options.verify_only) return !law_complete(&engine->law) || !judged(engine);
  return plan_count(engine->plan, PLAN_UNPROVEN) > 0 || !judged(engine);
}

static bool any_left(const struct fork_engine *engine, bool with_digests) {
  bool with_held = !judge_prefers_restart(engine);
  for (uint32_t i = 0; i < engine->source_count; i++) {
    const struct engine_source *source = engine->sources[i];
    if (source_is_lost(source) || (source->held && !with_held)) continue;
    if (!with_digests || source->source->has_digests) return true;
  }
  return false;
}

static bool complete(const struct fork_engine *engine) {
  if (engine->phase != ENGINE_READING || !judged(engine)) return false;
  if (engine->options.verify_only) return plan_count(engine->plan, PLAN_UNPROVEN) == 0;
  return plan_complete(engine->plan);
}

/* --- the report of verify_only --- */

struct difference {
  uint64_t wrong_bytes, missing_bytes;
};

static struct difference compare_object(const struct fork_engine *engine, uint32_t index) {
  const struct manifest_object *object = &engine->layout->objects[index];
  struct difference difference = {0, 0};
  if (object->alias_of != MANIFEST_NONE) return difference;
  for (uint64_t i = 0; i < object->chunk_count; i++) {
    uint64_t chunk = object->first_chunk + i;
    if (plan_state(engine->plan, chunk) != PLAN_NEEDED) continue;
    uint32_t length = plan_chunk(engine->plan, chunk).length_bytes;
    if (engine->law.origin[chunk] == LAW_ORIGIN_FOUND)
      difference.wrong_bytes += length;
    else
      difference.missing_bytes += length;
  }
  return difference;
}

/* Files that differ, and the first ones by name. */
struct difference_report {
  uint32_t files;
  char names[300];
};

static void report_difference(const struct fork_engine *engine, const char *name,
                              struct difference difference, struct difference_report *report) {
  if (difference.wrong_bytes + difference.missing_bytes == 0) return;
  size_t used = strlen(report->names);
  if (used + strlen(name) + 3 < sizeof(report->names))
    snprintf(report->names + used, sizeof(report->names) - used, "%s%s", used > 0 ? ", " : "",
             name);
  report->files++;
  if (engine->events.differs != NULL)
    engine->events.differs(engine->events.context, name, difference.wrong_bytes,
                           difference.missing_bytes);
}

static void compare_files(const struct fork_engine *engine, struct difference_report *report) {
  const struct manifest *manifest = engine->layout;
  for (uint32_t i = 0; i < manifest->file_count; i++) {
    const struct manifest_file *file = &manifest->files[i];
    struct difference sum = {0, 0};
    for (uint32_t k = file->first_object; k < file->first_object + file->object_count; k++) {
      struct difference one = compare_object(engine, k);
      sum.wrong_bytes += one.wrong_bytes;
      sum.missing_bytes += one.missing_bytes;
    }
    report_difference(engine, file->path, sum, report);
  }
  for (uint32_t k = 0; k < manifest->object_count; k++)
    if (manifest->objects[k].file == MANIFEST_NONE)
      report_difference(engine, manifest->objects[k].name, compare_object(engine, k), report);
}

static void end_compared(struct fork_engine *engine) {
  struct difference_report report = {.files = 0};
  struct sprout_error error = well;
  if (!plan_complete(engine->plan)) compare_files(engine, &report);
  if (report.files > 0)
    sprout_error_set(&error, SPROUT_MISMATCH, 0,
                     "Fork again to repair them, with --force where bytes differ.",
                     "%u files differ from the seed's: %s%s", report.files, report.names,
                     strlen(report.names) > 200 ? ", ..." : "");
  engine->completed_verified = report.files == 0;
  engine_end(engine, &error);
}

/* --- deciding --- */

static void complete_fork(struct fork_engine *engine) {
  if (engine->options.verify_only) {
    end_compared(engine);
    return;
  }
  engine_set_phase(engine, ENGINE_FINISHING);
  engine->destination->ops->finish(engine->destination);
}

void end_if_decided(struct fork_engine *engine) {
  if (complete(engine)) {
    complete_fork(engine);
    return;
  }
  if (!lacks_source(engine)) return;
  bool no_source = !any_left(engine, false);
  bool no_digests = lacks_digests(engine) && !any_left(engine, true);
  if (!no_source && !no_digests) return;
  if (judge_restart(engine)) return;
  if (no_source)
    end_without_source(engine, "no source is left");
  else
    end_without_digests(engine);
}

/* --- closing --- */

void engine_end(struct fork_engine *engine, const struct sprout_error *outcome) {
  if (engine->phase >= ENGINE_CLOSING) return;
  engine->outcome = *outcome;
  engine_set_phase(engine, ENGINE_CLOSING);
  for (uint32_t i = 0; i < engine->source_count; i++) source_end(engine->sources[i]);
}

static bool all_closed(const struct fork_engine *engine) {
  for (uint32_t i = 0; i < engine->source_count; i++) {
    enum source_state state = engine->sources[i]->state;
    if (state != ENGINE_SOURCE_DROPPED && state != ENGINE_SOURCE_CLOSED) return false;
  }
  return engine->mapped == 0 && engine->storing == 0;
}

/* It was stopped while the destination made the whole of it, which then succeeded all the same. */
static void take_late_finish(struct fork_engine *engine) {
  if (engine->destination_done || !engine->destination_finished ||
      engine->finish_error.status != SPROUT_OK)
    return;
  engine->destination_done = true;
  engine->completed_verified = engine->judging;
  engine->outcome = well;
}

void end_step(struct fork_engine *engine) {
  if (engine->phase == ENGINE_CLOSING && all_closed(engine)) {
    take_late_finish(engine);
    assert(list_empty(&engine->completed) && list_empty(&engine->stored));
    engine->deadline_ns = ENGINE_NEVER;
    if (engine->destination_done) {
      engine_set_phase(engine, ENGINE_FINISHED);
    } else {
      engine_set_phase(engine, ENGINE_ABORTING);
      engine->destination->ops->abort(engine->destination);
    }
  }
  if (engine->phase == ENGINE_ABORTING && engine->aborted)
    engine_set_phase(engine, ENGINE_FINISHED);
}
