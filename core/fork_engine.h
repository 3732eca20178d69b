/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fork engine: drives sources and a destination until every selected chunk is stored and
 * verified, or no source is left. No I/O of its own; time is an argument. The same code runs over
 * real sources and in the simulator.
 *
 * Drive it: create, add sources, start; afterwards call fork_engine_tick whenever
 * fork_engine_deadline has come and after each batch of callbacks (the `wake` callback asks for one
 * soon). Credits go back and new reads are picked only in tick, never inside a callback. It ends
 * with exactly one call of `finished`, after every source is closed and the destination is idle:
 * from then on no byte lands.
 */
#ifndef CORE_FORK_ENGINE_H
#define CORE_FORK_ENGINE_H

#include "core/destination.h"
#include "core/filter.h"
#include "core/plan.h"
#include "core/source.h"
#include "sprout/fork.h"

struct fork_engine;

struct fork_engine_options {
  bool verify;
  bool dry_run; /* ends after prepare with OK and nothing read */
  /*
   * Ends when every existing chunk was compared with the authority's digest (asked for with
   * `compute`), nothing read: OK when all selected chunks exist and are right, else SPROUT_MISMATCH
   * after one `differs` per file. prepare is called with reuse; the destination creates nothing.
   */
  bool verify_only;
  struct fork_filter filter;
  const char *model, *rank, *label; /* expected, NULL: any */
  uint64_t inflight_bytes;          /* over all sources; also bounds staging */
  uint32_t reads_per_source;
  uint64_t max_rate; /* bytes per second, 0: none */
  uint64_t stall_timeout_ns;
  uint64_t timeout_ns;         /* 0: none */
  uint64_t wait_ns;            /* in a seed's queue */
  uint64_t connect_timeout_ns; /* until manifest, and from open until ready|queued: 10 s */
  uint32_t max_restarts;       /* of the plan after a generation change: 16 */
};

struct fork_engine_events {
  /* Something happened: call fork_engine_tick before sleeping. */
  void (*wake)(void *context);
  void (*finished)(void *context, const struct sprout_error *error); /* status OK: complete */
  /* A source was dropped (for logs, metrics, people). */
  void (*dropped)(void *context, const struct source *source, const struct sprout_error *error);
  /* verify_only: a file with bytes that differ (wrong) or chunks that do not exist (missing), in
   * manifest order, before finished. NULL: nobody asks. */
  void (*differs)(void *context, const char *file, uint64_t wrong_bytes, uint64_t missing_bytes);
  void *context;
};

/* The engine borrows options' strings, and owns the destination and sources added to it (destroys
 * them). */
SPROUT_MUST_CHECK enum sprout_status fork_engine_create(const struct fork_engine_options *options,
                                                        const struct fork_engine_events *events,
                                                        struct destination *destination,
                                                        struct fork_engine **engine_out);
/* Before or after start; at most SPROUT_MAX_SOURCES. The first with digests is the authority while
 * it lives. Allowed inside `dropped` too: with a source added there the engine goes on, even when
 * the dropped one was the last (that is how a last resort joins). */
SPROUT_MUST_CHECK enum sprout_status fork_engine_add_source(struct fork_engine *engine,
                                                            struct source *source);
void fork_engine_start(struct fork_engine *engine, uint64_t now_ns);
void fork_engine_tick(struct fork_engine *engine, uint64_t now_ns);
/* When tick must be called at the latest; UINT64_MAX: only after events. */
uint64_t fork_engine_deadline(const struct fork_engine *engine);
/* `status`: SPROUT_CANCELLED, or what the owner ran into. finished follows. */
void fork_engine_cancel(struct fork_engine *engine, enum sprout_status status);
/* Before start or after finished. */
void fork_engine_destroy(struct fork_engine *engine);

/* Final or current numbers. `sources_out` has room for SPROUT_MAX_SOURCES. */
void fork_engine_progress(const struct fork_engine *engine, uint64_t now_ns,
                          struct sprout_fork_progress *progress_out,
                          struct sprout_source_status *sources_out);
/* The manifest in force, NULL before the first. Lives until destroy or the next restart. */
const struct manifest *fork_engine_manifest(const struct fork_engine *engine);
enum sprout_verified fork_engine_verified(const struct fork_engine *engine);
/* Times since start, for the result: first manifest decoded; last byte landed (0: not yet). */
uint64_t fork_engine_manifest_ns(const struct fork_engine *engine);
uint64_t fork_engine_last_landed_ns(const struct fork_engine *engine);
/* Asserts every invariant; O(chunks + reads). Tests and simulation. */
void fork_engine_check(const struct fork_engine *engine);
#endif
