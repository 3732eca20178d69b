/* SPDX-License-Identifier: Apache-2.0 */
#include "core/plan.h"

#include "core/bitmap.h"

#include <assert.h>
#include <stdlib.h>

struct plan {
  const struct manifest *manifest;
  uint8_t *states;      /* enum plan_state, one per chunk */
  uint32_t *objects;    /* of each chunk */
  struct bitmap needed; /* chunks in PLAN_NEEDED */
  uint64_t returns;     /* steps back to needed: coverages search again */
  uint64_t selected_chunks;
  uint64_t selected_bytes;
  struct plan_counts counts;
};

#define TO(state) (1u << PLAN_##state)

/* Legal steps. Distrust and restart go through the same table. */
static const uint32_t legal[PLAN_STATE_COUNT] = {
    [PLAN_SKIPPED] = 0,
    [PLAN_NEEDED] = TO(QUEUED) | TO(UNPROVEN) | TO(STORED), /* the last two: found in place */
    [PLAN_QUEUED] = TO(NEEDED) | TO(IN_FLIGHT),
    [PLAN_IN_FLIGHT] = TO(NEEDED) | TO(LANDED),
    [PLAN_LANDED] = TO(NEEDED) | TO(VERIFIED) | TO(REJECTED) | TO(UNPROVEN),
    [PLAN_VERIFIED] = TO(NEEDED) | TO(LANDED) | TO(REJECTED) | TO(STORED),
    [PLAN_REJECTED] = TO(NEEDED),
    [PLAN_UNPROVEN] = TO(NEEDED) | TO(STORED),
    [PLAN_STORED] = TO(NEEDED) | TO(UNPROVEN),
};

static uint32_t chunk_length(const struct plan *plan, uint64_t chunk) {
  const struct manifest_object *object = &plan->manifest->objects[plan->objects[chunk]];
  uint64_t left = object->length_bytes - (chunk - object->first_chunk) * SPROUT_CHUNK_BYTES;
  return left < SPROUT_CHUNK_BYTES ? (uint32_t)left : SPROUT_CHUNK_BYTES;
}

static void count_all(const struct plan *plan, struct plan_counts *counts) {
  *counts = (struct plan_counts){.chunks = {0}};
  for (uint64_t chunk = 0; chunk < plan->manifest->chunk_count; chunk++) {
    counts->chunks[plan->states[chunk]]++;
    counts->bytes[plan->states[chunk]] += chunk_length(plan, chunk);
  }
}

static void lay_out(struct plan *plan, const uint64_t *selected) {
  const struct manifest *manifest = plan->manifest;
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    const struct manifest_object *object = &manifest->objects[i];
    bool wanted = selected == NULL || bits_get(selected, i);
    for (uint64_t c = 0; c < object->chunk_count; c++) {
      uint64_t chunk = object->first_chunk + c;
      if (object->alias_of == MANIFEST_NONE) plan->objects[chunk] = i;
      if (!wanted) continue;
      plan->states[chunk] = PLAN_NEEDED;
      bitmap_set(&plan->needed, chunk);
    }
  }
}

enum sprout_status plan_create(const struct manifest *manifest, const uint64_t *selected,
                               struct plan **plan_out) {
  struct plan *plan = calloc(1, sizeof(*plan));
  if (plan == NULL) return SPROUT_NO_MEMORY;
  size_t room = (size_t)manifest->chunk_count + 1; /* never zero */
  plan->manifest = manifest;
  plan->states = calloc(room, sizeof(*plan->states));
  plan->objects = calloc(room, sizeof(*plan->objects));
  if (plan->states == NULL || plan->objects == NULL ||
      bitmap_init(&plan->needed, manifest->chunk_count) != SPROUT_OK) {
    plan_destroy(plan);
    return SPROUT_NO_MEMORY;
  }
  lay_out(plan, selected);
  count_all(plan, &plan->counts);
  plan->selected_chunks = plan->counts.chunks[PLAN_NEEDED];
  plan->selected_bytes = plan->counts.bytes[PLAN_NEEDED];
  *plan_out = plan;
  return SPROUT_OK;
}

void plan_destroy(struct plan *plan) {
  if (plan == NULL) return;
  bitmap_destroy(&plan->needed);
  free(plan->objects);
  free(plan->states);
  free(plan);
}

void plan_set(struct plan *plan, uint64_t chunk, enum plan_state state) {
  assert(chunk < plan->manifest->chunk_count);
  enum plan_state from = plan->states[chunk];
  assert(legal[from] & (1u << state));
  uint64_t length = chunk_length(plan, chunk);
  plan->counts.chunks[from]--;
  plan->counts.bytes[from] -= length;
  plan->counts.chunks[state]++;
  plan->counts.bytes[state] += length;
  plan->states[chunk] = (uint8_t)state;
  if (from == PLAN_NEEDED) bitmap_clear(&plan->needed, chunk);
  if (state == PLAN_NEEDED) {
    bitmap_set(&plan->needed, chunk);
    plan->returns++;
  }
}

enum plan_state plan_state(const struct plan *plan, uint64_t chunk) {
  assert(chunk < plan->manifest->chunk_count);
  return plan->states[chunk];
}

/* The lowest needed chunk >= from that the coverage has, or BITMAP_NONE. */
static uint64_t next_covered(const struct plan *plan, const uint64_t *objects, uint64_t from) {
  for (;;) {
    uint64_t chunk = bitmap_next(&plan->needed, from);
    if (chunk == BITMAP_NONE || objects == NULL) return chunk;
    const struct manifest_object *object = &plan->manifest->objects[plan->objects[chunk]];
    if (bits_get(objects, plan->objects[chunk])) return chunk;
    from = object->first_chunk + object->chunk_count;
  }
}

/* Where to start: all needed chunks before are known not to be covered. */
static uint64_t first_covered(const struct plan *plan, struct plan_coverage *coverage) {
  if (coverage == NULL || coverage->objects == NULL) return bitmap_next(&plan->needed, 0);
  if (coverage->returns != plan->returns) coverage->cursor = 0;
  coverage->returns = plan->returns;
  uint64_t chunk = next_covered(plan, coverage->objects, coverage->cursor);
  coverage->cursor = chunk == BITMAP_NONE ? plan->manifest->chunk_count : chunk;
  return chunk;
}

bool plan_pick(struct plan *plan, struct plan_coverage *coverage, struct plan_room room,
               struct plan_batch *batch_out) {
  const uint64_t *objects = coverage != NULL ? coverage->objects : NULL;
  uint64_t chunk = first_covered(plan, coverage);
  if (chunk == BITMAP_NONE || chunk_length(plan, chunk) > room.first_bytes) return false;
  uint64_t limit = room.bytes < PLAN_BATCH_BYTES ? room.bytes : PLAN_BATCH_BYTES;
  batch_out->count = 0;
  batch_out->length_bytes = 0;
  do {
    batch_out->chunks[batch_out->count++] = chunk;
    batch_out->length_bytes += chunk_length(plan, chunk);
    plan_set(plan, chunk, PLAN_QUEUED);
    if (batch_out->count == PLAN_BATCH_CHUNKS) break;
    chunk = next_covered(plan, objects, chunk + 1);
  } while (chunk != BITMAP_NONE && batch_out->length_bytes + chunk_length(plan, chunk) <= limit);
  return true;
}

void plan_restart(struct plan *plan) {
  for (uint64_t chunk = 0; chunk < plan->manifest->chunk_count; chunk++) {
    enum plan_state state = plan->states[chunk];
    if (state == PLAN_LANDED || state == PLAN_VERIFIED) plan_set(plan, chunk, PLAN_REJECTED);
    if (state == PLAN_UNPROVEN || state == PLAN_STORED) plan_set(plan, chunk, PLAN_NEEDED);
  }
}

void plan_distrust(struct plan *plan) {
  for (uint64_t chunk = 0; chunk < plan->manifest->chunk_count; chunk++) {
    enum plan_state state = plan->states[chunk];
    if (state == PLAN_VERIFIED) plan_set(plan, chunk, PLAN_LANDED);
    if (state == PLAN_STORED) plan_set(plan, chunk, PLAN_UNPROVEN);
  }
}

void plan_counts_get(const struct plan *plan, struct plan_counts *counts_out) {
  *counts_out = plan->counts;
}

uint64_t plan_count(const struct plan *plan, enum plan_state state) {
  return plan->counts.chunks[state];
}

uint64_t plan_selected_chunks(const struct plan *plan) {
  return plan->selected_chunks;
}

uint64_t plan_selected_bytes(const struct plan *plan) {
  return plan->selected_bytes;
}

bool plan_complete(const struct plan *plan) {
  return plan->counts.chunks[PLAN_STORED] == plan->selected_chunks;
}

bool plan_has_needed(const struct plan *plan) {
  return plan->needed.set_count > 0;
}

struct manifest_chunk plan_chunk(const struct plan *plan, uint64_t chunk) {
  assert(chunk < plan->manifest->chunk_count);
  uint32_t object = plan->objects[chunk];
  return (struct manifest_chunk){.object = object,
                                 .offset = (chunk - plan->manifest->objects[object].first_chunk) *
                                           SPROUT_CHUNK_BYTES,
                                 .length_bytes = chunk_length(plan, chunk)};
}

void plan_check(const struct plan *plan) {
  struct plan_counts counts;
  count_all(plan, &counts);
  for (unsigned state = 0; state < PLAN_STATE_COUNT; state++) {
    assert(counts.chunks[state] == plan->counts.chunks[state]);
    assert(counts.bytes[state] == plan->counts.bytes[state]);
  }
  assert(plan->needed.set_count == counts.chunks[PLAN_NEEDED]);
  for (uint64_t chunk = 0; chunk < plan->manifest->chunk_count; chunk++)
    assert(bitmap_get(&plan->needed, chunk) == (plan->states[chunk] == PLAN_NEEDED));
  assert(plan->manifest->chunk_count - counts.chunks[PLAN_SKIPPED] == plan->selected_chunks);
}
