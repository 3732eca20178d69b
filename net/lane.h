/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane: how the bytes of an admitted fork come from its seed. The source speaks with the seed
 * over HTTP and owns its lanes; one at a time carries its reads.
 *
 * Life: start -> ready | failed; post/flush -> landed*, done; at any time failed. stop at any time
 * after start, once, also after failed -> stopped. When `failed` or `stopped` comes nothing lands
 * any more, and the reads that did not end are in `returned`, in the order of posting: their owner
 * is the listener. After `stopped` it may be started anew or destroyed.
 *
 * No op calls back before it returned. Thread: the reactor's.
 */
#ifndef NET_LANE_H
#define NET_LANE_H

#include "core/source.h"
#include "net/wire.h"

struct lane;

struct lane_listener {
  void (*ready)(struct lane *lane);
  void (*failed)(struct lane *lane, const struct sprout_error *error);
  void (*stopped)(struct lane *lane);
};

/* What an admitted fork knows. Borrowed during the call. */
struct lane_start {
  uint64_t generation; /* that the fork reads */
  uint32_t object_count;
  const char *fork_id; /* hexadecimal */
  const struct wire_opened *opened;
};

struct lane_ops {
  void (*start)(struct lane *lane, const struct lane_start *start);
  /* Also before ready: the read waits. */
  void (*post)(struct lane *lane, struct source_read *read);
  void (*flush)(struct lane *lane);
  /* What the seed grants from now on, and until when reads may be posted without another word. */
  void (*grant)(struct lane *lane, const struct window_limits *window, uint64_t post_until_ns);
  void (*stop)(struct lane *lane);
  void (*destroy)(struct lane *lane);
};

/* Embedded first in each implementation. */
struct lane {
  const struct lane_ops *ops;
  const struct lane_listener *listener; /* set by the source before start, as is context */
  void *context;
  const char *transport;     /* "tcp", "rdma" */
  bool ordered;              /* lands bytes strictly in order */
  uint64_t landed_bytes;     /* in this life */
  struct list_node returned; /* struct source_read */
};
#endif
