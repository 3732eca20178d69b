/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window: three separate credits of a source for one fork. A read takes one operation, one
 * read-depth slot and its bytes, and gives all back when it is done. Pure.
 */
#ifndef CORE_WINDOW_H
#define CORE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

struct window_limits {
  uint32_t operations; /* reads in flight */
  uint64_t bytes;      /* bytes in flight */
  uint32_t depth;      /* outstanding wire reads (RDMA read depth; pipelined requests on TCP) */
};

struct window {
  struct window_limits limits;
  struct window_limits used;
};

void window_init(struct window *window, const struct window_limits *limits);
/* New limits hold for future takes; lowering never revokes credits in use. */
void window_set_limits(struct window *window, const struct window_limits *limits);
/* True and taken, or false and unchanged. A single read larger than limits.bytes is let through
 * alone. */
bool window_take(struct window *window, uint64_t bytes, uint32_t depth);
void window_give(struct window *window, uint64_t bytes, uint32_t depth);
bool window_idle(const struct window *window);
#endif
