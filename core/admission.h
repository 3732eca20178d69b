/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: which forks run, which wait, and until when each lives. Pure: the clock is an
 * argument, ids come from the caller.
 *
 * A fork is queued or running until it is closed by its owner, by lease expiry, or by an operator.
 * Slots are given in queue order. The structs belong to the admission; a pointer to a closed fork
 * is valid until the next call that may close another.
 */
#ifndef CORE_ADMISSION_H
#define CORE_ADMISSION_H

#include "core/list.h"
#include "sprout/status.h"

#include <stdbool.h>
#include <stdint.h>

#define ADMISSION_ID_BYTES 16
#define ADMISSION_PEER_BYTES 64

enum admission_state {
  ADMISSION_QUEUED,  /* waits for a slot; a heartbeat keeps the place */
  ADMISSION_RUNNING, /* holds a slot; may read */
  ADMISSION_CLOSED   /* ended; kept for status until forgotten */
};

struct admission_fork {
  uint8_t id[ADMISSION_ID_BYTES];
  uint8_t nonce[ADMISSION_ID_BYTES]; /* the client's; repeating an open with it is harmless */
  enum admission_state state;
  char peer[ADMISSION_PEER_BYTES]; /* address of the client, for status */
  uint64_t opened_ns, started_ns, ended_ns, lease_until_ns;
  uint64_t sent_bytes;     /* by the seed */
  uint64_t received_bytes; /* as the fork reports */
  uint64_t total_bytes;    /* likewise */
  uint64_t inflight_bytes; /* reads accepted and not sent whole */
  bool expired;            /* closed because its lease ended */
  enum sprout_status result;
  char reason[96];
  const char *transport; /* by which it reads; static, NULL: it has not begun */
  void *owner;           /* free for the service */

  /* the admission's own */
  struct list_node node;       /* in queue, running or closed */
  struct list_node hash_node;  /* by id */
  struct list_node nonce_node; /* by nonce, while alive */
  struct list_node lease_node; /* by end of lease, while alive */
  uint32_t position;           /* in the queue; see admission_position */
};

struct admission_options {
  uint32_t max_running, max_queued, keep_closed;
  uint64_t lease_ns;
};

struct admission;

SPROUT_MUST_CHECK enum sprout_status admission_create(const struct admission_options *options,
                                                      struct admission **admission_out);
void admission_destroy(struct admission *admission);

/*
 * Opens. OK: running or queued (see fork->state); the same nonce again gives the same fork, when it
 * is still alive. SPROUT_BUSY: queue full; SPROUT_UNAVAILABLE: draining.
 */
SPROUT_MUST_CHECK enum sprout_status admission_open(struct admission *admission,
                                                    const uint8_t id[ADMISSION_ID_BYTES],
                                                    const uint8_t nonce[ADMISSION_ID_BYTES],
                                                    const char *peer, uint64_t now_ns,
                                                    struct admission_fork **fork_out);
/* Also finds closed forks that are not forgotten yet; NULL when there is none. */
struct admission_fork *admission_find(struct admission *admission,
                                      const uint8_t id[ADMISSION_ID_BYTES]);
/* Extends the lease; SPROUT_GONE when closed or over. */
SPROUT_MUST_CHECK enum sprout_status
admission_heartbeat(struct admission *admission, struct admission_fork *fork, uint64_t now_ns);
/* Harmless when it is closed already. May forget an older closed fork. */
void admission_close(struct admission *admission, struct admission_fork *fork,
                     enum sprout_status result, const char *reason, uint64_t now_ns);
/* Closes one fork whose lease is over and returns it, or NULL. Call until NULL. */
struct admission_fork *admission_expire(struct admission *admission, uint64_t now_ns);
/* Moves one queued fork into a free slot and returns it, or NULL. Call until NULL. */
struct admission_fork *admission_promote(struct admission *admission, uint64_t now_ns);
/* 1-based; 0 when not queued. */
uint32_t admission_position(struct admission *admission, const struct admission_fork *fork);
uint32_t admission_running(const struct admission *admission);
uint32_t admission_queued(const struct admission *admission);
uint64_t admission_next_expiry(const struct admission *admission); /* ns or UINT64_MAX */
/* From now on nothing new is opened; what is queued may still be promoted. */
void admission_set_draining(struct admission *admission);
/* Calls visit for running, queued, then closed forks; visit may close the fork it is given. */
void admission_each(struct admission *admission,
                    void (*visit)(struct admission_fork *fork, void *context), void *context);
#endif
