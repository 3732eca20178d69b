/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digest table of a seed's chunks, filled in the background on the worker pool at a bounded rate,
 * and at once for chunks that somebody waits for. Reactor's thread.
 *
 * Bytes that change: suspend voids the table before they do, resume begins anew afterwards. A job
 * that was under way in between tells nothing, neither of the old bytes nor of the new ones.
 */
#ifndef CORE_DIGESTER_H
#define CORE_DIGESTER_H

#include "core/reactor.h"
#include "core/region.h"

struct digester;

/* Somebody who waits for chunks [first, first + count). Caller-owned until done or cancelled. */
struct digest_wait {
  uint64_t first, count;
  void (*done)(struct digest_wait *wait);
  struct list_node node;
  uint64_t next; /* first chunk of the range not yet known */
  bool failed; /* a chunk of the range cannot be read (the file was truncated or the disk failed) */
  bool stale;  /* the bytes changed while it waited: nothing is told about the range */
};

/* `rate`: bytes per second for background work; the model must outlive it. */
SPROUT_MUST_CHECK enum sprout_status digester_create(struct reactor *reactor,
                                                     const struct model *model, uint64_t rate,
                                                     struct digester **digester_out);
void digester_start(struct digester *digester);
/* Starts no job any more; `stopped` (may be NULL) is called when none is running, then destroy.
 * Waits that are not answered by then are cancelled by their owners before destroy. */
void digester_stop(struct digester *digester, void (*stopped)(void *context), void *context);
void digester_destroy(struct digester *digester);

bool digester_known(const struct digester *digester, uint64_t chunk, struct digest *digest_out);
uint64_t digester_undigested_bytes(const struct digester *digester);
/* Computes the range before all background work. `done` comes later, also when all is known
 * already. */
void digester_wait(struct digester *digester, struct digest_wait *wait);
void digester_cancel(struct digester *digester, struct digest_wait *wait);
/* Voids all digests and starts no job until resume. Waits are answered as stale, from a later step;
 * new ones wait for resume. Not while suspended. */
void digester_suspend(struct digester *digester);
/* Any thread, after suspend: returns when no worker reads the model's bytes any more, and none will
 * before resume. Waits for the digest of one chunk at most. */
void digester_quiesce(struct digester *digester);
void digester_resume(struct digester *digester);
#endif
