/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RDMA lane: a fork's reads as one-sided READs over several rails.
 *
 * A read is cut into pieces (rdma_cut.h). A piece goes to the rail on which it is expected to land
 * first by the rail's measured rate, as the credits allow: work requests and read depth of each
 * rail, bytes of the seed's grant over all rails. Pieces of one pass leave as one chain per rail
 * with one doorbell; a chain ends with a signalled request, and chains are a good part of the
 * window, so that wake-ups are few.
 *
 * When the seed's bytes may change, every chain ends with a READ of the fence word: what came
 * before it on that rail is reported only when the word still names the generation that the fork
 * reads.
 *
 * A rail that ends gives its pieces to the others. The lane fails when none is left, when the fence
 * has moved (SPROUT_STALE), or when memory cannot be registered.
 */
#ifndef NET_RDMA_LANE_H
#define NET_RDMA_LANE_H

#include "core/reactor.h"
#include "net/lane.h"
#include "net/rdma_landing.h"

struct rdma_lane_options {
  struct rdma_host *host;
  const struct rdma_selection *selection; /* outlives the lane */
  struct rdma_device *devices[RDMA_RAILS_MAX];
  struct rdma_landing *landing; /* outlives the lane */
  uint64_t connect_timeout_ns;
  uint8_t retries, ack_timeout;
  /* Asks the seed for the placement from `since` on; rdma_lane_placement brings the answer. */
  void (*want_placement)(void *context, uint64_t since);
  void *context;
};

SPROUT_MUST_CHECK enum sprout_status rdma_lane_create(const struct rdma_lane_options *options,
                                                      struct lane **lane_out);
/* The answer to want_placement; its arrays may be taken. */
void rdma_lane_placement(struct lane *lane, struct wire_placement *placement);
/* No placement yet: the seed said "too early". Asked again after a moment. */
void rdma_lane_placement_later(struct lane *lane);
/* The seed refused to tell; the lane fails. */
void rdma_lane_no_placement(struct lane *lane, const struct sprout_error *error);
/* The most that was in flight since the last call. */
uint64_t rdma_lane_take_peak(struct lane *lane);
/* Rails that are connected now. */
uint32_t rdma_lane_rails(const struct lane *lane);
#endif
