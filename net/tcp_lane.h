/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP lane: a fork's reads as HTTP requests, pipelined over one or more connections of their
 * own.
 */
#ifndef NET_TCP_LANE_H
#define NET_TCP_LANE_H

#include "core/reactor.h"
#include "net/address.h"
#include "net/lane.h"

#define TCP_LANE_CONNECTIONS_MAX 16u

struct tcp_lane_options {
  struct address address;
  const char *host;     /* Host header; outlives the lane */
  const char *token;    /* "": none; likewise */
  uint32_t connections; /* 1 .. TCP_LANE_CONNECTIONS_MAX */
};

SPROUT_MUST_CHECK enum sprout_status tcp_lane_create(struct reactor *reactor,
                                                     const struct tcp_lane_options *options,
                                                     struct lane **lane_out);
#endif
