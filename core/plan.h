/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: which chunks a fork still needs, who reads which, and in what state each is. Pure.
 *
 * A chunk is always in exactly one state. "queued" is the moment between being picked into a batch
 * and being posted. Several small chunks (of up to PLAN_BATCH_BYTES together) travel in one batch;
 * a full-size chunk travels alone.
 */
#ifndef CORE_PLAN_H
#define CORE_PLAN_H

#include "core/manifest.h"

#define PLAN_BATCH_CHUNKS 256u
#define PLAN_BATCH_BYTES (1024u * 1024u)

enum plan_state {
  PLAN_SKIPPED,   /* not selected */
  PLAN_NEEDED,    /* waits to be picked */
  PLAN_QUEUED,    /* picked, waits for being posted */
  PLAN_IN_FLIGHT, /* waits for its bytes */
  PLAN_LANDED,    /* waits for its digest's verdict (or, unverified, for nothing) */
  PLAN_VERIFIED,  /* waits for being stored */
  PLAN_STORED,    /* done */
  PLAN_STATE_COUNT
};

struct plan;

struct plan_counts {
  uint64_t chunks[PLAN_STATE_COUNT];
  uint64_t bytes[PLAN_STATE_COUNT];
};

/* Chunks of one read, ascending; those of neighbouring objects follow each other so that reads
 * merge. */
struct plan_batch {
  uint32_t count;
  uint64_t length_bytes;
  uint64_t chunks[PLAN_BATCH_CHUNKS];
};

/* Which objects a source can serve; NULL everywhere means all. One bit per object. */
struct plan_coverage {
  const uint64_t *objects;
};

/* `selected`: one bit per object, NULL: all. The manifest must outlive the plan. */
SPROUT_MUST_CHECK enum sprout_status plan_create(const struct manifest *manifest,
                                                 const uint64_t *selected, struct plan **plan_out);
void plan_destroy(struct plan *plan);

/*
 * Picks the next batch of needed chunks that `coverage` has and that fits into room_bytes (a first
 * chunk larger than the room is not picked). Returned-to-needed chunks come first. Chunks become
 * queued. False when there is none.
 */
bool plan_pick(struct plan *plan, const struct plan_coverage *coverage, uint64_t room_bytes,
               struct plan_batch *batch_out);

/* One step of one chunk. Asserts that the step is legal (see plan.c's table). */
void plan_set(struct plan *plan, uint64_t chunk, enum plan_state state);
enum plan_state plan_state(const struct plan *plan, uint64_t chunk);
/* Everything selected back to needed (a new generation). Nothing may be in flight. */
void plan_restart(struct plan *plan);

void plan_counts_get(const struct plan *plan, struct plan_counts *counts_out);
/* Every selected chunk is stored. */
bool plan_complete(const struct plan *plan);
/* True while plan_pick with full coverage and unlimited room would find something. */
bool plan_has_needed(const struct plan *plan);
struct manifest_chunk plan_chunk(const struct plan *plan, uint64_t chunk);
/* O(chunks): asserts that counts and states agree. For tests and simulation. */
void plan_check(const struct plan *plan);
#endif
