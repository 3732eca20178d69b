/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rail: one connection of a fork to one endpoint of a seed, with the completion queue of its
 * READs. It knows nothing of chunks: what is posted completes in order, or the rail ends.
 *
 * Life: connect -> connected -> post/completed ... -> ended; `ended` comes exactly once after
 * connect, whatever happens, also after rdma_rail_end. Before it the queue pair was put into error,
 * what was posted was flushed, and the queue pair destroyed: not one byte lands any more. What was
 * not reported by `completed` by then is void. Then it may be destroyed.
 *
 * Thread: the reactor's. Callbacks come from the ring, the worker pool or a timer, or from inside
 * rdma_rail_poll; never from inside another call.
 */
#ifndef NET_RDMA_RAIL_H
#define NET_RDMA_RAIL_H

#include "net/rdma_handshake.h"
#include "net/rdma_host.h"

enum rdma_rail_state {
  RDMA_RAIL_IDLE,       /* waits for connect */
  RDMA_RAIL_ADDRESS,    /* waits for the address being resolved */
  RDMA_RAIL_ROUTE,      /* waits for the route being resolved */
  RDMA_RAIL_PAIRING,    /* waits for the worker: completion queue, queue pair, connect */
  RDMA_RAIL_CONNECTING, /* waits for the seed's answer */
  RDMA_RAIL_READY,      /* reads */
  RDMA_RAIL_DRAINING,   /* in error; waits for the flush of what was posted, for a moment */
  RDMA_RAIL_ENDING,     /* waits for the worker: queue pair and queue destroyed */
  RDMA_RAIL_ENDED       /* over */
};

struct rdma_rail;

struct rdma_rail_listener {
  void (*connected)(struct rdma_rail *rail);
  /* The `count` oldest reads that were not reported yet have landed. */
  void (*completed)(struct rdma_rail *rail, uint32_t count);
  /* Why; SPROUT_CANCELLED after rdma_rail_end. */
  void (*ended)(struct rdma_rail *rail, const struct sprout_error *error);
};

struct rdma_rail_options {
  struct rdma_host *host;
  struct rdma_device *device;
  struct sockaddr_storage local; /* address of the port to leave by */
  struct verbs_domain *domain;   /* of the landing memory on this device */
  struct sockaddr_storage peer;
  uint8_t nonce[RDMA_NONCE_BYTES];
  uint32_t requests; /* wanted: work requests outstanding */
  uint64_t connect_timeout_ns;
  uint8_t retries, ack_timeout; /* as verbs_connect */
};

struct rdma_rail {
  const struct rdma_rail_listener *listener;
  void *context;

  /* read by the owner */
  enum rdma_rail_state state;
  uint32_t depth;             /* READs that may be outstanding; from connected on */
  uint32_t segments;          /* per READ */
  uint64_t posted, completed; /* counts since connected */

  /* the rail's own */
  struct rdma_rail_options options;
  const struct verbs *verbs;
  struct reactor *reactor;
  struct verbs_link *link;
  struct verbs_queue *queue;
  struct rdma_link_owner link_owner;
  struct rdma_queue_owner queue_owner;
  struct rdma_watch watch;
  struct work work;
  struct timer timer;
  struct deferred later;
  struct sprout_error error;
  char peer_name[64];
  uint64_t taken;   /* of `posted`, by the queue pair: no others will be flushed */
  uint64_t flushed; /* id behind the last completion of any kind */
  int native;       /* of the worker's call */
  bool established; /* said while the worker was still at it */
  bool armed;
  bool polling;
};

/* `listener` and `context` are set by the owner; the rest is zero. */
void rdma_rail_connect(struct rdma_rail *rail, const struct rdma_rail_options *options);
/*
 * Posts with one doorbell; ids are filled in, the last one is signalled. READY only, and at most
 * depth outstanding. A failure ends the rail; the reads count as posted.
 */
void rdma_rail_post(struct rdma_rail *rail, struct verbs_read *reads, uint32_t count);
/* Looks for completions now: before sleeping is tried. */
void rdma_rail_poll(struct rdma_rail *rail);
void rdma_rail_end(struct rdma_rail *rail);
/* IDLE or ENDED. */
void rdma_rail_destroy(struct rdma_rail *rail);
static inline uint32_t rdma_rail_outstanding(const struct rdma_rail *rail) {
  return (uint32_t)(rail->posted - rail->completed);
}
#endif
