/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service: one reactor, and what runs on it. Seeds and forks live in a service.
 *
 * All I/O of a service happens on one thread: either the caller's, inside sprout_service_run, or a
 * thread of the service's own, started with sprout_service_start. Callbacks run on that thread and
 * must not block.
 */
#ifndef SPROUT_SERVICE_H
#define SPROUT_SERVICE_H

#include "sprout/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sprout_service;

/* Options of a service; zero-initialise, then set what you need. */
struct sprout_service_options {
  uint32_t workers; /* threads for blocking calls, 1..16; 0: 2 */
};

/*
 * Says whether this machine can run a service: io_uring there and allowed, kernel new enough,
 * limits. On failure the error names which of these is missing and the remedy. Creates nothing
 * lasting. Any thread.
 */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status sprout_probe(struct sprout_error *error);

/* Creates a service that runs nowhere yet. options may be NULL. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_service_create(const struct sprout_service_options *options,
                      struct sprout_service **service_out, struct sprout_error *error);

/* Runs the reactor on the calling thread until sprout_service_stop. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status sprout_service_run(struct sprout_service *service,
                                                                   struct sprout_error *error);

/* Runs the reactor on a thread of its own. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status sprout_service_start(struct sprout_service *service,
                                                                     struct sprout_error *error);

/* Asks the reactor to end; any thread, async-signal-safe. Returns at once. */
SPROUT_API void sprout_service_stop(struct sprout_service *service);

/* Stops, joins and frees. Seeds and forks of this service must have been destroyed before. NULL is
 * allowed. */
SPROUT_API void sprout_service_destroy(struct sprout_service *service);

#ifdef __cplusplus
}
#endif
#endif
