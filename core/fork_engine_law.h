/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The law of a verifying fork: what each chunk's digest has to be, who said so, what was read, and
 * which digests are still to be asked for. Pure; moves chunks of the plan when it judges them.
 *
 * The law is made by one authority, the source asked for digests. When an authority goes, the next
 * one inherits the law: it may add digests that were not known, but must agree with every one that
 * was (else it deviates and is dropped), and the fork is complete only when it has confirmed them
 * all. So a finished fork always agrees with all digests of one source, even when two seeds that
 * look alike hold different bytes. When the law itself is void (its author contradicted itself, or
 * the bytes changed), it is forgotten: what was read stays unproven until new digests judge it.
 *
 * Asking: first every window of SOURCE_DIGESTS_MAX chunks once, without making the seed compute.
 * Digests that are unknown to the seed are "wanted" as soon as they matter: their chunk landed or
 * was found, or they must be confirmed. Wanted ones are asked for with `compute`, in runs of at
 * most LAW_COMPUTE_BYTES so that an answer comes in time.
 */
#ifndef CORE_FORK_ENGINE_LAW_H
#define CORE_FORK_ENGINE_LAW_H

#include "core/bitmap.h"
#include "core/plan.h"
#include "core/source.h"

#define LAW_COMPUTE_CHUNKS 1024u
#define LAW_COMPUTE_BYTES (256ull * 1024 * 1024)

/* Origins of a chunk's bytes beside the source indexes. */
#define LAW_ORIGIN_NONE 255u  /* nothing read yet */
#define LAW_ORIGIN_FOUND 254u /* in the destination */
#define LAW_ORIGIN_OLD 253u   /* read before the bytes changed: nobody's fault */

enum law_verdict {
  LAW_UNKNOWN,  /* no digest to judge by */
  LAW_RIGHT,    /* the bytes, or the digest told, agree with the law */
  LAW_WRONG,    /* the bytes differ from the law */
  LAW_DEVIATES, /* the digest told differs from the law */
};

struct law_request {
  uint64_t first, count;
  bool compute;
};

struct law {
  struct plan *plan;
  uint64_t chunk_count;
  struct digest *expected; /* where known */
  struct digest *actual;   /* where origin is not NONE */
  uint8_t *origin;
  uint64_t *known;     /* bits: the law has a digest */
  uint64_t *confirmed; /* bits: the present (or last) authority told it */
  uint64_t *added;     /* bits: that one was the first to tell it */
  uint64_t *asked;     /* bits: in a question with `compute` that is not answered yet */
  struct bitmap wanted;
  uint8_t *windows; /* enum law_window */
  uint32_t window_count;
  uint32_t windows_unasked; /* lowest window that may be unasked */
  uint64_t known_count, confirmed_count;
  uint64_t found_right_bytes; /* found, judged right */
};

SPROUT_MUST_CHECK enum sprout_status law_init(struct law *law, struct plan *plan,
                                              uint64_t chunk_count);
/* A zeroed law is harmless. */
void law_destroy(struct law *law);

/* --- bytes --- */
/* A chunk in flight is whole: it becomes landed or verified. WRONG: it stays in flight, the caller
 * gives the read's chunks back. */
enum law_verdict law_landed(struct law *law, uint64_t chunk, const struct digest *actual,
                            uint8_t origin);
/* Judges without any step. */
enum law_verdict law_judge(const struct law *law, uint64_t chunk, const struct digest *actual);
/* A needed chunk was found in the destination: stored, unproven, or (WRONG) still needed. */
void law_found(struct law *law, uint64_t chunk, const struct digest *actual);
/* All chunks from `origin` without a verdict are read again. */
void law_reject_unproven(struct law *law, uint8_t origin);

/* --- digests --- */
/* The authority tells a digest. WRONG: bytes read before are wrong, the chunk went back (its origin
 * is still to be seen). Chunks that are not selected are ignored. */
enum law_verdict law_told(struct law *law, uint64_t chunk, const struct digest *digest);
/* A new authority inherits the law. */
void law_adopt(struct law *law);
/* The authority is gone: the law must again be of one source, so what it added is void unless it
 * has confirmed all the rest. */
void law_retire(struct law *law);
/* The law is void. */
void law_forget(struct law *law);
/* What was read from `origin` (LAW_ORIGIN_NONE: from all) was right in its time: should it be wrong
 * now, no source is to blame. */
void law_disown(struct law *law, uint8_t origin);
/* Every selected chunk has a digest; no digest waits for being confirmed. */
bool law_complete(const struct law *law);
bool law_settled(const struct law *law);

/* --- asking --- */
/* The next question, or false. It counts as asked; questions do not overlap. */
bool law_ask(struct law *law, struct law_request *request_out);
/* Its last part was answered (with law_told for each digest). True when some stay unknown: of those
 * the ones that matter, or were asked to be computed, are wanted (again). */
bool law_answered(struct law *law, const struct law_request *request);
/* No answer will come: ask again. */
void law_unask(struct law *law, const struct law_request *request);

/* O(chunks) */
void law_check(const struct law *law);
#endif
