/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan: which chunks a fork still needs and in what state each is. Pure.
 *
 * A chunk is always in exactly one state. "queued" is the moment between being picked into a batch
 * and being posted. Several small chunks (of up to PLAN_BATCH_BYTES together) travel in one batch;
 * a full-size chunk travels alone.
 *
 * Bytes are stored as soon as they are whole, known digest or not, so that no landing buffer waits
 * for a digest: a chunk whose digest is known goes landed -> verified -> stored, one whose digest
 * is not known yet goes landed -> unproven and is judged when the digest comes. A chunk that turns
 * out wrong while it is being stored waits as "rejected" for the end of that store before it is
 * needed again, so the same bytes are never stored twice at once.
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
  PLAN_LANDED,    /* being stored without a verdict; waits for both */
  PLAN_VERIFIED,  /* right (or the fork does not verify); waits for being stored */
  PLAN_REJECTED,  /* not wanted, but being stored; waits for the end of that */
  PLAN_UNPROVEN,  /* stored or found in the destination; waits for its digest's verdict */
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

/* Which objects a source can serve; NULL everywhere means all. One bit per object. Zero-initialise,
 * keep it for one plan: the rest remembers where the last search ended. */
struct plan_coverage {
  const uint64_t *objects;
  uint64_t cursor, returns; /* plan_pick's own */
};

/* `selected`: one bit per object, NULL: all; an alias selects the chunks of its target. The
 * manifest must outlive the plan. */
SPROUT_MUST_CHECK enum sprout_status plan_create(const struct manifest *manifest,
                                                 const uint64_t *selected, struct plan **plan_out);
/* NULL is allowed. */
void plan_destroy(struct plan *plan);

/* How much a batch may hold: a first chunk up to `first_bytes`, more while all together are within
 * `bytes`. So a limit that is smaller than a chunk can let one through alone. */
struct plan_room {
  uint64_t first_bytes, bytes;
};

/*
 * Picks the next batch of needed chunks, lowest first (so chunks that returned come first), that
 * `coverage` (NULL: everything) has and that there is room for; a first chunk that has none is not
 * picked, nor is one behind it. Chunks become queued. False when there is none.
 */
bool plan_pick(struct plan *plan, struct plan_coverage *coverage, struct plan_room room,
               struct plan_batch *batch_out);

/* One step of one chunk. Asserts that the step is legal (see plan.c's table). */
void plan_set(struct plan *plan, uint64_t chunk, enum plan_state state);
enum plan_state plan_state(const struct plan *plan, uint64_t chunk);

/*
 * The bytes changed, nothing that was read counts: whatever was read or found is needed again
 * (rejected, while it is being stored). Chunks in flight stay so until they are given back.
 */
void plan_restart(struct plan *plan);
/* The digests that verdicts came from are void: verified becomes landed, stored becomes unproven.
 */
void plan_distrust(struct plan *plan);

void plan_counts_get(const struct plan *plan, struct plan_counts *counts_out);
uint64_t plan_count(const struct plan *plan, enum plan_state state);
/* Chunks and bytes of all states but skipped. */
uint64_t plan_selected_chunks(const struct plan *plan);
uint64_t plan_selected_bytes(const struct plan *plan);
/* Every selected chunk is stored. */
bool plan_complete(const struct plan *plan);
/* True while plan_pick with full coverage and unlimited room would find something. */
bool plan_has_needed(const struct plan *plan);
/* O(1). */
struct manifest_chunk plan_chunk(const struct plan *plan, uint64_t chunk);
/* O(chunks): asserts that counts and states agree. For tests and simulation. */
void plan_check(const struct plan *plan);
#endif
