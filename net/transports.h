/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which transports an end of a fork uses for weights; control always goes over HTTP. Pure.
 */
#ifndef NET_TRANSPORTS_H
#define NET_TRANSPORTS_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stdint.h>

struct transports {
  bool tcp, rdma;
  bool automatic; /* what cannot be had is done without; else it is an error */
};

/* "rdma", "tcp" or both, separated by commas, in any order; NULL, "" and "auto": whatever there is.
 * SPROUT_INVALID names the word that is none. */
SPROUT_MUST_CHECK enum sprout_status
transports_parse(const char *list, struct transports *transports_out, struct sprout_error *error);

/* The options' rdma_gid_index (index + 1, 0: automatic) as the verbs layer takes it (-1:
 * automatic). SPROUT_INVALID: it is negative, or no device has as many. */
SPROUT_MUST_CHECK enum sprout_status transports_gid_index(int32_t option, int32_t *gid_index_out,
                                                          struct sprout_error *error);
#endif
