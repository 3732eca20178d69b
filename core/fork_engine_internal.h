/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the fork engine: its state machines, and what its files offer each other.
 *
 * Rule of all files: callbacks of sources and the destination only note what happened (and count
 * landed bytes); fork_engine_tick then acts on the notes in a fixed order. So nothing recurses, and
 * whatever arrives between two ticks is seen together: a failure beside the reads it gives back,
 * all manifests that came.
 *
 *   fork_engine.c            life, tick and its order, phases
 *   fork_engine_sources.c    life of each source: connect, admission, stall, drop, reconnect
 *   fork_engine_judge.c      the reference all sources must agree with, restarts
 *   fork_engine_authority.c  who tells digests, convictions
 *   fork_engine_reads.c      picking, posting, landing, storing
 *   fork_engine_end.c        completeness, outcome, closing, the report of verify_only
 *   fork_engine_report.c     numbers for people, invariants
 *   fork_engine_law.c        which digests hold (pure)
 */
#ifndef CORE_FORK_ENGINE_INTERNAL_H
#define CORE_FORK_ENGINE_INTERNAL_H

#include "core/fork_engine.h"
#include "core/fork_engine_law.h"
#include "core/pacer.h"

#define ENGINE_NEVER UINT64_MAX
#define ENGINE_NO_SOURCE UINT32_MAX

#define ENGINE_MS UINT64_C(1000000)
#define ENGINE_ELDER_GRACE_NS (500 * ENGINE_MS) /* see waits_for_elders */
#define ENGINE_READS_MAX 128u
/* A broken transport is connected again so often without a whole read in between. */
#define ENGINE_RECONNECTS_MAX 3u
#define ENGINE_BACKOFF_NS (100 * ENGINE_MS)
#define ENGINE_BACKOFF_MAX_NS (1000 * ENGINE_MS)
/* "Not now" answers to reads in a row: 50 ms, 100 ms, ... 6.4 s. */
#define ENGINE_PAUSES_MAX 8u
#define ENGINE_PAUSE_NS (50 * ENGINE_MS)
/* Questions for computed digests that brought none, in a row. */
#define ENGINE_DIGEST_ATTEMPTS_MAX 6u

enum engine_phase {
  ENGINE_CREATED,   /* waits for start */
  ENGINE_CHOOSING,  /* waits for the first acceptable manifest */
  ENGINE_PREPARING, /* waits for the destination's prepared */
  ENGINE_READING,   /* waits for all chunks being stored and judged */
  ENGINE_FINISHING, /* waits for the destination's finished */
  ENGINE_CLOSING,   /* outcome known; waits for every source's closed and the last stores */
  ENGINE_ABORTING,  /* waits for the destination's aborted */
  ENGINE_FINISHED,  /* over */
  ENGINE_PHASE_COUNT
};

enum source_state {
  ENGINE_SOURCE_IDLE,       /* waits for retry_at_ns, or (held) for all others being dropped */
  ENGINE_SOURCE_CONNECTING, /* waits for manifest | failed, connect_timeout */
  ENGINE_SOURCE_ACCEPTED,   /* manifest fits; nothing will be read: gives digests only */
  ENGINE_SOURCE_OPENING,    /* waits for ready | queued | failed, connect_timeout */
  ENGINE_SOURCE_QUEUED,     /* waits for ready | failed, wait */
  ENGINE_SOURCE_READY,      /* may be read; with reads in flight: stall_timeout */
  ENGINE_SOURCE_CLOSING,    /* waits for closed; then `next` */
  ENGINE_SOURCE_DROPPED,    /* over, unless it is revived */
  ENGINE_SOURCE_CLOSED,     /* over, the fork ended */
  ENGINE_SOURCE_STATE_COUNT
};

/* Why a source was dropped, as far as that can change. */
enum source_drop {
  ENGINE_DROP_FINAL,
  ENGINE_DROP_STALE,     /* its bytes are newer than the others': revived when these are gone */
  ENGINE_DROP_CONVICTED, /* by the law: revived when that turns out void */
};

/* What callbacks left for the next tick. */
struct source_notes {
  struct manifest *manifest;
  struct source_grant grant;
  struct sprout_error error; /* with failed */
  uint32_t position;
  bool queued, ready, granted, failed, closed;
  bool convicted; /* bytes of `wrong_chunk` differ from the law, */
  bool liar;      /* from its own digest, */
  bool deviates;  /* or its digest from the law */
  uint64_t wrong_chunk;
};

struct engine_source {
  struct fork_engine *engine;
  struct source *source;
  uint32_t index;
  enum source_state state;
  enum source_state next; /* after closing: IDLE, DROPPED or CLOSED */
  struct source_notes notes;
  bool held; /* last resort, not asked for yet */

  /* this life */
  uint64_t deadline_ns; /* of what the state waits for */
  uint64_t progress_ns;
  bool progressed;
  struct window window;
  struct pacer pacer;
  bool paced; /* the pacer holds the grant's rate */
  uint64_t generation;
  uint32_t reads_in_flight;
  uint64_t bytes_in_flight;
  bool posted; /* since the last flush */
  uint32_t queue_position;

  /* all lives */
  struct manifest_version version; /* when versioned: as accepted */
  bool versioned;
  bool changed;   /* its version is newer than the reference */
  bool condemned; /* its bytes are not taken any more */
  struct plan_coverage coverage;
  uint64_t received_bytes, reported_bytes;
  uint32_t reconnects, renewals; /* without a whole read in between */
  uint32_t refusals;             /* "busy" at admission, in a row */
  uint64_t retry_at_ns;
  uint64_t waiting_since_ns; /* for admission; 0: not */
  uint32_t pauses;
  uint64_t pause_until_ns;
  enum source_drop drop;
  uint32_t convicted_by; /* the authority that added the digest; ENGINE_NO_SOURCE: one before */
  struct sprout_error dropped; /* valid when dropped */
};

/* One read, from being picked until its bytes are stored. All are allocated at creation. */
struct engine_read {
  struct source_read read;
  struct destination_transfer transfer;
  struct list_node node; /* free, completed or stored; none while in flight or being stored */
  struct engine_source *source;
  struct fork_engine *engine;
  uint32_t era;
  enum sprout_status status;       /* of the read */
  struct sprout_error store_error; /* of the store */
  uint32_t at;                     /* chunk of the batch that is being filled */
  uint32_t filled_bytes;
  uint32_t lengths[PLAN_BATCH_CHUNKS];
  struct plan_batch batch;
  struct source_range ranges[PLAN_BATCH_CHUNKS];
  struct iovec iov[DESTINATION_IOV_MAX];
  struct digest digests[PLAN_BATCH_CHUNKS];
  struct digest_stream stream;
};

struct engine_question {
  struct law_request request;
  uint64_t remaining; /* 0: not in use */
  bool told;          /* any digest came */
};

struct fork_engine {
  struct fork_engine_options options;
  struct fork_engine_events events;
  struct destination *destination;
  enum engine_phase phase;
  bool judging; /* verify or verify_only: digests are asked for */

  struct engine_source *sources[SPROUT_MAX_SOURCES];
  uint32_t source_count;
  uint32_t rotation;

  /* the reference: what all sources must agree with */
  struct manifest *layout;   /* what plan and destination were made from */
  struct manifest *manifest; /* in force: as layout, of a newer version; often the same */
  bool reference_open; /* no label yet (or, after a restart, again): the next manifest says it */
  uint64_t *selected;
  struct plan *plan;
  uint32_t era; /* counts restarts: reads posted before do not count */

  struct law law;
  uint32_t authority;  /* index; stays while it only connects again */
  uint32_t law_author; /* the first of those who made the law, for messages */
  struct engine_question questions[SOURCE_DIGEST_REQUESTS];
  uint32_t digest_attempts;
  uint64_t digest_retry_at_ns;

  struct engine_read *reads;
  uint32_t read_count;
  struct list_node free_reads, completed, stored;
  uint32_t mapped, storing; /* transfers */
  uint64_t inflight_bytes;  /* mapped or being stored */
  bool blocked;             /* map had no room */
  struct pacer pacer;

  /* notes of the destination and the owner */
  bool prepared, destination_finished, aborted;
  struct sprout_error prepare_error, finish_error;
  enum sprout_status cancelled; /* OK: not */

  struct sprout_error outcome; /* from CLOSING on */
  bool destination_done;       /* finished well: nothing to abort */
  bool completed_verified;

  uint64_t start_ns, now_ns, deadline_ns;
  uint64_t manifest_ns, last_landed_ns;
  uint64_t received_bytes, retries, restarts;
  uint64_t rate, rate_bytes, rate_ns; /* smoothed; bytes and time it accounts for */
};

/* --- fork_engine.c --- */
void engine_set_phase(struct fork_engine *engine, enum engine_phase phase);
void engine_wake(struct fork_engine *engine);
/* Asks for a tick at `at_ns` at the latest. */
void engine_wake_at(struct fork_engine *engine, uint64_t at_ns);
uint64_t engine_after(uint64_t now_ns, uint64_t wait_ns); /* saturates */
uint64_t engine_backoff(uint64_t first_ns, uint32_t times, uint64_t limit_ns);

/* --- fork_engine_sources.c --- */
extern const struct source_listener engine_source_listener;
void source_set_state(struct engine_source *source, enum source_state state);
/* Acts on notes: failures first, the rest after the reads were settled. */
void sources_handle_failures(struct fork_engine *engine);
void sources_handle_notes(struct fork_engine *engine);
/* Connects what is due, ends what waited too long. */
void sources_watch(struct fork_engine *engine);
/* Lets the last resorts join; false when there is none. */
bool sources_release_held(struct fork_engine *engine);
/* Its first read goes out: it has to make progress from now on. */
void source_begin_watch(struct engine_source *source);
/* The process was stopped for a while: no source is to blame. */
void sources_forgive(struct fork_engine *engine, uint64_t gap_ns);
void source_drop(struct engine_source *source, enum source_drop drop,
                 const struct sprout_error *error);
/* A read or the source failed with this. */
void source_fail(struct engine_source *source, const struct sprout_error *error);
void source_revive(struct engine_source *source);
/* Ends its life because the fork ends. */
void source_end(struct engine_source *source);
/* It is dropped, or about to be. */
bool source_is_lost(const struct engine_source *source);
/* Its manifest was accepted in this life. */
bool source_is_usable(const struct engine_source *source);

/* --- fork_engine_judge.c --- */
/* Takes the manifest; the source is opened or dropped. */
void judge_manifest(struct engine_source *source, struct manifest *manifest);
/* Its bytes are newer than those of the others. */
void judge_drop_stale(struct engine_source *source, enum source_drop drop);
/* Starts over with what dropped sources have now; false when there is none or no restart is left.
 */
bool judge_restart(struct fork_engine *engine);
/* Rather than ask last resorts: they give bytes only, which need digests to be judged by. */
bool judge_prefers_restart(const struct fork_engine *engine);

/* --- fork_engine_authority.c --- */
/* Appoints an authority when one is needed, and asks it. */
void authority_ask(struct fork_engine *engine);
void authority_answer(struct engine_source *source, uint64_t first, uint64_t count,
                      const struct digest *values, const bool *known);
/* The source's life ends; `gone`: for good as far as the law is concerned. */
void authority_left(struct engine_source *source, bool gone);
/* Bytes of `chunk` from `origin` differ from the law. */
void authority_convict(struct fork_engine *engine, uint8_t origin, uint64_t chunk);
void authority_handle_convictions(struct fork_engine *engine);

/* --- fork_engine_reads.c --- */
SPROUT_MUST_CHECK enum sprout_status reads_create(struct fork_engine *engine);
void reads_settle(struct fork_engine *engine);
void reads_settle_stores(struct fork_engine *engine);
/* Posts what may be posted. True when nothing is under way and nothing hinders, and yet no source
 * has what is needed. */
bool reads_post(struct fork_engine *engine);

/* --- fork_engine_end.c --- */
/* The outcome is known; the first one holds. */
void engine_end(struct fork_engine *engine, const struct sprout_error *outcome);
/* Ends the fork when it is complete, or when what it lacks cannot come. */
void end_if_decided(struct fork_engine *engine);
/* No source that is left serves what is needed. */
void end_uncovered(struct fork_engine *engine);
/* Steps CLOSING, ABORTING. */
void end_step(struct fork_engine *engine);
#endif
