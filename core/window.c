/* SPDX-License-Identifier: Apache-2.0 */
#include "core/window.h"

#include <assert.h>

void window_init(struct window *window, const struct window_limits *limits) {
  *window = (struct window){.limits = *limits};
}

void window_set_limits(struct window *window, const struct window_limits *limits) {
  window->limits = *limits;
}

/* Written so that nothing overflows and limits may lie below what is in use. */
static bool fits(uint64_t used, uint64_t more, uint64_t limit) {
  return used <= limit && more <= limit - used;
}

bool window_take(struct window *window, uint64_t bytes, uint32_t depth) {
  const struct window_limits *limits = &window->limits;
  struct window_limits *used = &window->used;
  if (!fits(used->operations, 1, limits->operations)) return false;
  if (!fits(used->depth, depth, limits->depth)) return false;
  bool alone = window_idle(window) && limits->bytes > 0;
  if (!alone && !fits(used->bytes, bytes, limits->bytes)) return false;
  used->operations++;
  used->bytes += bytes;
  used->depth += depth;
  return true;
}

void window_give(struct window *window, uint64_t bytes, uint32_t depth) {
  struct window_limits *used = &window->used;
  assert(used->operations >= 1 && used->bytes >= bytes && used->depth >= depth);
  used->operations--;
  used->bytes -= bytes;
  used->depth -= depth;
}

bool window_idle(const struct window *window) {
  return window->used.operations == 0;
}
