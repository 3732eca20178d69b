/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads: what others need of them.
 */
#ifndef NET_ROUTES_READ_H
#define NET_ROUTES_READ_H

#include "net/routes.h"

/* Reads in flight that a fork may have. */
#define SEED_WINDOW_OPERATIONS 64u

/* Checks every range against the manifest; *total_out: bytes asked for, <= LIMIT_READ_BYTES. Pure.
 */
SPROUT_MUST_CHECK enum sprout_status read_check_ranges(const struct manifest *manifest,
                                                       const struct wire_read *read,
                                                       uint64_t *total_out,
                                                       struct sprout_error *error);
/* Breaks the connections on which reads of this fork are being answered. */
void read_abort_all(struct seed_fork *fork);

/* The fork of the path in any state, or NULL after having answered. */
struct admission_fork *route_find_fork(struct route_call *call);
#endif
