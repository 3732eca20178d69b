/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The worker pool of a reactor: threads that run blocking calls, one queue in, one list out.
 *
 * Threads start when there is more to do than idle ones can take, up to the given number, and stay
 * until workers_destroy. They block all signals.
 */
#ifndef CORE_WORKERS_H
#define CORE_WORKERS_H

#include "core/reactor.h"

struct workers;

/* `finished(context)` is called on a worker's thread after each call, to wake the reactor. */
SPROUT_MUST_CHECK enum sprout_status workers_create(uint32_t threads,
                                                    void (*finished)(void *context), void *context,
                                                    struct workers **workers_out);
/* Joins all threads; nothing may be pending. */
void workers_destroy(struct workers *workers);

/* Queues. Runs it here when no thread can be started. One thread only. */
void workers_submit(struct workers *workers, struct work *work);
/* Takes one finished call out, not queued any more, or NULL. The same thread. */
struct work *workers_take(struct workers *workers);
/* Calls submitted and not taken yet. The same thread. */
uint32_t workers_pending(const struct workers *workers);
#endif
