/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fork engine on a test bench: sources and a destination that do nothing but note what the engine
 * asked of them, until the test makes them answer. Virtual time.
 *
 * The model: 6 tensors of 1000 bytes in files "one" (t0, t1, t2) and "two" (t3, t4, t5), one chunk
 * each, whose bytes are chunk + 1 + 50 * variant.
 */
#ifndef TESTS_SUPPORT_ENGINE_RIG_H
#define TESTS_SUPPORT_ENGINE_RIG_H

#include "core/fork_engine.h"

#define RIG_SOURCES 4u
#define RIG_CHUNKS 6u
#define RIG_CHUNK_BYTES 1000u
#define RIG_READS 64u
#define RIG_MS UINT64_C(1000000)

struct rig;

struct rig_question {
  uint64_t first, count;
  bool compute;
};

struct rig_source {
  struct source source;
  struct rig *rig;
  uint32_t variant;
  uint64_t generation;
  const char *label, *model, *rank;
  /* what the engine did */
  uint32_t connects, opens, closes, flushes;
  bool closing, destroyed;
  enum sprout_status closed_with;
  struct source_read *posted[RIG_READS];
  uint32_t posted_count;
  struct rig_question questions[SOURCE_DIGEST_REQUESTS];
  uint32_t question_count, questions_ever;
  uint64_t reported_bytes;
};

struct rig_destination {
  struct destination destination;
  bool prepare_asked, finish_asked, abort_asked, reuse, no_room, over;
  enum sprout_status prepare_fails, store_fails, finish_fails;
  unsigned char bytes[RIG_CHUNKS][RIG_CHUNK_BYTES];
  struct destination_transfer *storing[RIG_READS];
  uint32_t storing_count, mapped, maps, stores, releases;
  bool ordered; /* the last transfer was mapped for an ordered source */
};

struct rig {
  struct fork_engine *engine;
  struct rig_source sources[RIG_SOURCES];
  uint32_t source_count;
  struct rig_destination destination;
  uint64_t now_ns;
  bool woken, finished;
  struct sprout_error result;
  uint32_t ticks, dropped;
  struct sprout_error last_dropped;
  struct source *add_when_dropped;
  char differs[256]; /* "one 1000 0;" per file */
};

/* Zeroed options get defaults that tests want: verify, 1 s stall. */
void rig_make(struct rig *rig, const struct fork_engine_options *options);
/* Before or after start. */
struct rig_source *rig_add(struct rig *rig);
void rig_start(struct rig *rig);
/* Asserts that it is finished, or was never started, and destroys. */
void rig_unmake(struct rig *rig);

/* One tick now, then all invariants. */
void rig_tick(struct rig *rig);
/* Time passes; ticks only when the engine asked for it. How many. */
uint32_t rig_wait(struct rig *rig, uint64_t wait_ns);
/* What ends by itself ends: closings, prepare, stores, finish, abort. Ticks until all is quiet. */
void rig_settle(struct rig *rig);

void rig_manifest(struct rig_source *source);
void rig_queued(struct rig_source *source, uint32_t position);
void rig_ready(struct rig_source *source);
/* A heartbeat. */
void rig_grant(struct rig_source *source, uint32_t operations, uint64_t rate);
/* Manifest, prepared, ready: all that comes before the first read. */
void rig_admit(struct rig_source *source);
void rig_fail(struct rig_source *source, enum sprout_status status);
/* Answers all questions; `known`: what it tells, a bit per chunk. */
void rig_tell(struct rig_source *source, uint64_t known);
/* The oldest posted read lands whole, or some of it, or ends with an error. */
void rig_land(struct rig_source *source);
void rig_land_part(struct rig_source *source, uint64_t length_bytes);
void rig_refuse(struct rig_source *source, enum sprout_status status);
/* Lands everything that is and will be posted, and settles. */
void rig_land_all(struct rig_source *source);

struct digest rig_digest(uint64_t chunk, uint32_t variant);
/* All destination bytes are those of the variant. */
bool rig_holds(const struct rig *rig, uint32_t variant);
struct sprout_source_status rig_status(const struct rig *rig, uint32_t index);
struct sprout_fork_progress rig_progress(const struct rig *rig);
#endif
