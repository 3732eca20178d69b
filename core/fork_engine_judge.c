/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference: what all sources must agree with, and what happens when it changes.
 *
 * The first acceptable manifest is the reference: every other source must have its layout digest
 * and label. A source without digests (a plain directory) knows no label; where bytes are verified
 * that does not matter.
 *
 * A source whose version changed while the fork ran is not of the reference any more. When another
 * source still is, the changed one may help as far as its bytes still agree with the law
 * (unverified forks drop it: nobody could tell). When it is the last, the fork starts over with
 * what it holds now: digests are asked anew and judge what was read; unverified forks read
 * everything again.
 */
#include "core/fork_engine_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* --- reference --- */

/* A plain directory carries no label; its bytes are taken only where digests agree with them. */
static bool knows_label(const struct engine_source *source) {
  return source->source->has_digests || !source->engine->judging;
}

static enum sprout_status check_expected(const struct fork_engine *engine,
                                         const struct engine_source *source,
                                         const struct manifest *manifest,
                                         struct sprout_error *error) {
  const struct fork_engine_options *options = &engine->options;
  const struct manifest_identity *identity = &manifest->identity;
  if (options->model != NULL && strcmp(options->model, identity->model) != 0)
    return sprout_error_set(error, SPROUT_MISMATCH, 0, NULL, "model: '%s' expected, '%s' there",
                            options->model, identity->model);
  if (options->rank != NULL && strcmp(options->rank, identity->rank) != 0)
    return sprout_error_set(error, SPROUT_MISMATCH, 0, NULL, "rank: '%s' expected, '%s' there",
                            options->rank, identity->rank);
  if (knows_label(source) && options->label != NULL &&
      strcmp(options->label, manifest->version.label) != 0)
    return sprout_error_set(error, SPROUT_MISMATCH, 0, NULL, "label: '%s' expected, '%s' there",
                            options->label, manifest->version.label);
  return SPROUT_OK;
}

static enum sprout_status check_layout(const struct fork_engine *engine,
                                       const struct manifest *manifest,
                                       struct sprout_error *error) {
  char text[400];
  if (digest_equal(&engine->layout->layout, &manifest->layout)) return SPROUT_OK;
  if (manifest_identity_differs(&engine->layout->identity, &manifest->identity, text, sizeof(text)))
    return sprout_error_set(error, SPROUT_MISMATCH, 0, NULL, "another model than the first: %s",
                            text);
  return sprout_error_set(error, SPROUT_MISMATCH, 0, NULL,
                          "its layout differs from the first source's: objects or files are not "
                          "the same");
}

static bool same_version(const struct manifest_version *a, const struct manifest_version *b) {
  return memcmp(a->epoch, b->epoch, sizeof(a->epoch)) == 0 && a->generation == b->generation &&
         strcmp(a->label, b->label) == 0;
}

/* Another source is, or will again be, of the reference. */
static bool others_hold(const struct fork_engine *engine, const struct engine_source *except) {
  for (uint32_t i = 0; i < engine->source_count; i++) {
    const struct engine_source *source = engine->sources[i];
    if (source != except && source->versioned && !source_is_lost(source)) return true;
  }
  return false;
}

/* Everything that depends on the layout. */
static enum sprout_status set_up(struct fork_engine *engine, struct manifest *manifest,
                                 struct sprout_error *error) {
  enum sprout_status status =
      filter_select(manifest, &engine->options.filter, &engine->selected, error);
  if (status != SPROUT_OK) return status;
  status = plan_create(manifest, engine->selected, &engine->plan);
  if (status == SPROUT_OK && engine->judging)
    status = law_init(&engine->law, engine->plan, manifest->chunk_count);
  if (status == SPROUT_OK) return SPROUT_OK;
  return sprout_error_set(error, status, 0, NULL, "no memory for the plan of %llu chunks",
                          (unsigned long long)manifest->chunk_count);
}

static void adopt_reference(struct engine_source *source, struct manifest *manifest) {
  struct fork_engine *engine = source->engine;
  struct sprout_error error;
  engine->layout = engine->manifest = manifest;
  engine->reference_open = !knows_label(source);
  engine->manifest_ns = engine->now_ns - engine->start_ns;
  if (set_up(engine, manifest, &error) != SPROUT_OK) {
    engine_end(engine, &error);
    return;
  }
  engine_set_phase(engine, ENGINE_PREPARING);
  engine->destination->ops->prepare(engine->destination, manifest, engine->selected,
                                    engine->judging);
}

/* The manifest is in force from now on; plan and destination keep the one they were made from. */
static void put_in_force(struct fork_engine *engine, struct manifest *manifest) {
  if (engine->manifest != engine->layout) manifest_destroy(engine->manifest);
  engine->manifest = manifest;
  engine->reference_open = false;
}

static bool revivable(const struct engine_source *source) {
  return source_is_lost(source) && source->drop == ENGINE_DROP_STALE;
}

/* What was read of the old version does not count, unless new digests say so; sources that were
 * ahead of it are tried again. */
static void start_over(struct fork_engine *engine) {
  engine->restarts++;
  engine->era++;
  engine->authority = ENGINE_NO_SOURCE;
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) engine->questions[i].remaining = 0;
  if (engine->judging) {
    law_forget(&engine->law);
    law_disown(&engine->law, LAW_ORIGIN_NONE);
  } else {
    plan_restart(engine->plan);
  }
  for (uint32_t i = 0; i < engine->source_count; i++) {
    struct engine_source *source = engine->sources[i];
    source->changed = false;
    if (!revivable(source)) continue;
    source->versioned = false;
    source_revive(source);
    engine_wake_at(engine, engine->now_ns);
  }
}

void judge_drop_stale(struct engine_source *source, enum source_drop drop) {
  struct sprout_error error;
  sprout_error_set(&error, SPROUT_STALE, 0, NULL,
                   "the seed changed its weights during the fork (label '%s', generation %llu)",
                   source->version.label, (unsigned long long)source->version.generation);
  source_drop(source, drop, &error);
}

/* A source of the reference came back with another version. False: it was dropped. `restart_out`:
 * it is the new reference. */
static bool allow_change(struct engine_source *source, bool same_label, bool *restart_out) {
  struct fork_engine *engine = source->engine;
  *restart_out = false;
  if (!others_hold(engine, source)) {
    if (engine->restarts == engine->options.max_restarts) {
      judge_drop_stale(source, ENGINE_DROP_FINAL);
      return false;
    }
    *restart_out = true;
    return true;
  }
  if (same_label && engine->judging) {
    source->changed = true;
    authority_left(source, true);
    law_disown(&engine->law, (uint8_t)source->index);
    return true;
  }
  judge_drop_stale(source, ENGINE_DROP_STALE);
  return false;
}

/* Compares with the reference. False: it was dropped. `force_out`: the manifest is to be in force.
 */
static bool allow(struct engine_source *source, const struct manifest *manifest, bool *force_out) {
  struct fork_engine *engine = source->engine;
  struct sprout_error error;
  if (check_expected(engine, source, manifest, &error) != SPROUT_OK ||
      check_layout(engine, manifest, &error) != SPROUT_OK) {
    source_drop(source, ENGINE_DROP_FINAL, &error);
    return false;
  }
  bool same_label =
      !knows_label(source) || strcmp(manifest->version.label, engine->manifest->version.label) == 0;
  struct manifest_version before = source->version;
  source->version = manifest->version;
  *force_out = engine->reference_open && knows_label(source);
  if (engine->reference_open) return true;
  if (source->versioned && !same_version(&before, &manifest->version)) {
    bool restart = false;
    source->reconnects = 0; /* seeds break bodies off when their bytes change */
    if (!allow_change(source, same_label, &restart)) return false;
    if (restart) start_over(engine);
    *force_out = restart;
    return true;
  }
  if (same_label) return true;
  sprout_error_set(&error, SPROUT_MISMATCH, 0, NULL, "label: '%s' is being forked, '%s' there",
                   engine->manifest->version.label, manifest->version.label);
  source_drop(source, ENGINE_DROP_FINAL, &error);
  return false;
}

static void admit(struct engine_source *source) {
  struct fork_engine *engine = source->engine;
  source->versioned = true;
  source->generation = source->version.generation;
  source->coverage = (struct plan_coverage){.objects = source->source->coverage};
  if (engine->options.dry_run || engine->options.verify_only) {
    source->deadline_ns = ENGINE_NEVER;
    source_set_state(source, ENGINE_SOURCE_ACCEPTED);
    return;
  }
  source->deadline_ns = engine_after(engine->now_ns, engine->options.connect_timeout_ns);
  source_set_state(source, ENGINE_SOURCE_OPENING);
  source->source->ops->open(source->source);
}

void judge_manifest(struct engine_source *source, struct manifest *manifest) {
  struct fork_engine *engine = source->engine;
  struct sprout_error error;
  bool force = false;
  if (engine->layout == NULL) {
    source->version = manifest->version;
    if (check_expected(engine, source, manifest, &error) != SPROUT_OK) {
      source_drop(source, ENGINE_DROP_FINAL, &error);
      manifest_destroy(manifest);
      return;
    }
    adopt_reference(source, manifest);
    if (engine->phase == ENGINE_PREPARING) admit(source);
    return;
  }
  bool allowed = allow(source, manifest, &force);
  if (allowed && force)
    put_in_force(engine, manifest);
  else
    manifest_destroy(manifest);
  if (allowed) admit(source);
}

/* --- restarts --- */

static bool may_restart(const struct fork_engine *engine) {
  if (engine->restarts >= engine->options.max_restarts || engine->plan == NULL) return false;
  for (uint32_t i = 0; i < engine->source_count; i++)
    if (revivable(engine->sources[i])) return true;
  return false;
}

bool judge_prefers_restart(const struct fork_engine *engine) {
  if (!may_restart(engine)) return false;
  return !engine->judging || !law_complete(&engine->law) || !law_settled(&engine->law);
}

bool judge_restart(struct fork_engine *engine) {
  if (!may_restart(engine)) return false;
  start_over(engine);
  engine->reference_open = true;
  return true;
}
