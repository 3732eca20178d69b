/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Max-min fair division: nobody gets more than it asks for, and what one leaves over is divided
 * among those who want more. Pure.
 */
#ifndef CORE_SHARE_H
#define CORE_SHARE_H

#include <stdint.h>

struct share_member {
  uint64_t demand; /* wanted */
  uint64_t grant;  /* given: never more than demand */
};

/*
 * Divides `total` among `count` members. Afterwards either every demand is met, or the grants add
 * up to `total` and two members whose demand is not met differ by at most one unit. O(count) per
 * distinct level, O(count^2) at worst: meant for the members of one round.
 */
void share_divide(uint64_t total, struct share_member *members, uint32_t count);

/* What limits the window of one of `forks` running forks; see share_window. */
struct share_limits {
  uint64_t total; /* of all forks together */
  uint64_t most;  /* of one fork */
  uint64_t least; /* of one fork: enough to keep its pipe busy; wins over total */
};

/* The window of each of `forks` (0 counts as 1) running forks: an equal part of the total, within
 * [least, most]. */
uint64_t share_window(const struct share_limits *limits, uint32_t forks);
#endif
