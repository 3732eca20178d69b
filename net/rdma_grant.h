/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed lets forks do that read one-sidedly, and whether they keep to it. Pure; the clock is
 * an argument.
 *
 * The seed sees no such read: windows and rates are granted, obeyed by the fork, and reported by it
 * with its heartbeats. All RDMA forks share one window, small enough that many of them run as fast
 * as one.
 */
#ifndef NET_RDMA_GRANT_H
#define NET_RDMA_GRANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RDMA_WINDOW_TOTAL_BYTES (8ull << 20)
#define RDMA_WINDOW_LEAST_BYTES (256ull << 10)
/* The longest work request: a window is overdrawn by at most one. */
#define RDMA_REQUEST_BYTES (4ull << 20)
/* READs outstanding on one connection, and work requests in flight of one fork. */
#define RDMA_READ_DEPTH 64u
#define RDMA_WINDOW_OPERATIONS 256u

/* The window of each of `forks` RDMA forks; `inflight_bytes`: the most that one may have. */
uint64_t rdma_grant_window(uint64_t inflight_bytes, uint32_t forks);

/* A rate cap divided: each RDMA fork gets `each`, everything over HTTP together `rest`; never more
 * than the cap in all, and never nothing. Both are 0 without a cap. */
struct rdma_rates {
  uint64_t each, rest;
};
/* `rdma_forks` of `forks` running ones read over RDMA. */
struct rdma_rates rdma_grant_rates(uint64_t cap, uint32_t forks, uint32_t rdma_forks);

/* What one fork was granted and has reported. Zeroed is ready. */
struct rdma_grant {
  uint64_t window_bytes, window_bytes_before; /* the two last ones */
  uint64_t window_most, window_most_ns; /* what a report was last measured by, and until when */
  uint64_t rate;                        /* granted last; 0: no limit */
  uint64_t rate_most; /* since it was judged; only while no grant was without limit */
  bool unlimited;     /* one was */
  bool judging;
  uint64_t judged_ns, judged_bytes;
};

void rdma_grant_given(struct rdma_grant *grant, uint64_t window_bytes, uint64_t rate);
/*
 * A heartbeat: the most that was in flight since the last one, and all that was received. False:
 * the fork is over what it was granted, and `reason` names both figures. Answers to heartbeats
 * cross: of the two last windows the larger counts. What was posted under a larger one before may
 * take its time, so that one counts for 2 s more, until a report keeps to the smaller one. A rate
 * is looked at over 2 s, with a quarter and a window on top.
 */
bool rdma_grant_judge(struct rdma_grant *grant, uint64_t peak_inflight_bytes,
                      uint64_t received_bytes, uint64_t now_ns, char *reason, size_t reason_bytes);
#endif
