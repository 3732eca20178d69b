/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Water filling: raise the level until the water is spent; whoever is full drops out.
 */
#include "core/share.h"

#include <assert.h>
#include <stdbool.h>

/* Gives every member with 0 < demand <= level its demand. Returns false when there was none. */
static bool fill_below(uint64_t level, struct share_member *members, uint32_t count,
                       uint64_t *total, uint32_t *open) {
  bool any = false;
  for (uint32_t i = 0; i < count; i++) {
    struct share_member *member = &members[i];
    if (member->grant == member->demand || member->demand > level) continue;
    member->grant = member->demand;
    *total -= member->demand;
    (*open)--;
    any = true;
  }
  return any;
}

void share_divide(uint64_t total, struct share_member *members, uint32_t count) {
  uint32_t open = 0;
  for (uint32_t i = 0; i < count; i++) {
    members[i].grant = 0;
    if (members[i].demand > 0) open++;
  }
  /* The level only rises: members that drop out took no more than an equal part. */
  while (open > 0 && fill_below(total / open, members, count, &total, &open)) continue;
  if (open == 0) return;
  uint64_t level = total / open, odd = total % open;
  for (uint32_t i = 0; i < count; i++) {
    struct share_member *member = &members[i];
    if (member->grant == member->demand) continue;
    member->grant = level + (odd > 0 ? 1 : 0);
    if (odd > 0) odd--;
    assert(member->grant <= member->demand);
  }
}

uint64_t share_window(const struct share_limits *limits, uint32_t forks) {
  uint64_t part = limits->total / (forks > 0 ? forks : 1);
  if (part > limits->most) part = limits->most;
  if (part < limits->least) part = limits->least;
  return part;
}
