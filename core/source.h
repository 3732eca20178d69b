/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source: something chunks can be read from. TCP seed, local files now; RDMA seed, same-host
 * memory, another fork later.
 *
 * The fork engine drives a source through source_ops; the source answers through source_listener.
 * No op calls back before it returned (no recursion): answers come from the reactor's ready queue
 * (or the simulator's clock).
 *
 * Life: connect -> manifest | failed; open -> queued* -> ready | failed; post/flush -> landed*,
 * done; at any time failed. Before `failed` and before `closed` every posted read has been given
 * back through done; after `failed` only `closed` comes. After `closed` no callback comes and no
 * byte lands any more; only then may it be destroyed, or connected again: a new life, of which only
 * options are left over (fresh window, no admission, no request under way). close is allowed at any
 * time between connect and closed, once; `failed` needs a close as well.
 *
 * One life speaks of one generation: the one of its manifest. A source that learns of another gives
 * reads back with SPROUT_STALE, or says so in `granted`, or fails with SPROUT_STALE; it never
 * delivers digests or an OK read of another generation. SPROUT_GONE (lease or manifest unknown to
 * the seed) is told the same way. The engine then closes it and connects it again.
 *
 * What a status means to the engine is its retry class: a read done with "same source" is tried
 * again there after a pause while the source lives on; any other error ends this life of the
 * source. A source fails with DISCONNECTED when its transport broke (it may be connected again),
 * with BUSY when the seed's queue is full (tried again within wait_ns).
 */
#ifndef CORE_SOURCE_H
#define CORE_SOURCE_H

#include "core/digest.h"
#include "core/list.h"
#include "core/manifest.h"
#include "core/window.h"

#include <sys/uio.h>

struct source;

/* A range of an object. */
struct source_range {
  uint32_t object;
  uint64_t offset;
  uint64_t length_bytes;
};

/*
 * One read: the concatenation of `ranges` lands in `iov` (same total). Owned by the poster,
 * unchanged until done. Entries of iov may alias the same scratch memory when the destination keeps
 * nothing and the source is ordered (see source.ordered): such a one never fills an entry before
 * `landed` was called for the bytes before it.
 */
struct source_read {
  const struct source_range *ranges;
  uint32_t range_count;
  const struct iovec *iov;
  uint32_t iov_count;
  uint64_t length_bytes;
  /* The next `length_bytes` bytes of the read are at `data` (inside iov), to be digested while they
   * are in cache. In order. 0 bytes: nothing landed, but what the read waits for makes progress
   * (its memory is being registered, say): a sign of life. */
  void (*landed)(struct source_read *read, const void *data, uint64_t length_bytes);
  /* Exactly once; OK only when every byte was reported by `landed`. No byte lands afterwards. */
  void (*done)(struct source_read *read, enum sprout_status status);

  /* the source's own while posted */
  struct list_node node;
  uint64_t landed_bytes;
  uint32_t iov_index;
  uint64_t iov_used;
  uint64_t posted_ns;
};

/* What a seed granted. */
struct source_grant {
  struct window_limits window;
  uint64_t rate;       /* bytes per second, 0: no limit */
  uint64_t generation; /* of the seed now */
  bool draining;
};

struct source_listener {
  /* The manifest now belongs to the listener. Reads are not allowed yet. */
  void (*manifest)(struct source *source, struct manifest *manifest);
  void (*queued)(struct source *source, uint32_t position);
  void (*ready)(struct source *source, const struct source_grant *grant);
  void (*granted)(struct source *source,
                  const struct source_grant *grant); /* heartbeat: changed values */
  /* Digests of chunks [first, first + count); known[i] false: not computed yet. Borrowed during the
   * call. */
  void (*digests)(struct source *source, uint64_t first, uint64_t count,
                  const struct digest *values, const bool *known);
  /* The source cannot go on. Close it. The text does not name the source: the listener does. */
  void (*failed)(struct source *source, const struct sprout_error *error);
  void (*closed)(struct source *source);
};

struct source_ops {
  void (*connect)(struct source *source);
  /* The engine accepted the manifest: asks for admission. */
  void (*open)(struct source *source);
  void (*post)(struct source *source, struct source_read *read);
  /* Everything posted since the last flush goes out: one doorbell, one submit. */
  void (*flush)(struct source *source);
  /*
   * Asks for digests of [first, first + count) <= SOURCE_DIGESTS_MAX; `compute`: the seed shall
   * compute missing ones now and answer when it has them. Answered by digests (possibly in several
   * parts that together cover the range once), or failed (also when no answer came in time). An
   * answer to `compute` may leave some unknown: the engine asks again after a pause, a few times.
   * At most SOURCE_DIGEST_REQUESTS at once. Allowed once the manifest came, also without open.
   */
  void (*request_digests)(struct source *source, uint64_t first, uint64_t count, bool compute);
  /* Progress for the seed's books; sent with the next heartbeat. */
  void (*report)(struct source *source, uint64_t received_bytes, uint64_t total_bytes);
  /* Gives back reads (SPROUT_CANCELLED), tells the seed result and reason when it can, then closed.
   */
  void (*close)(struct source *source, enum sprout_status result, const char *reason);
  void (*destroy)(struct source *source);
};

#define SOURCE_DIGESTS_MAX 8192u
#define SOURCE_DIGEST_REQUESTS 4u

/* Embedded first in each implementation. */
struct source {
  const struct source_ops *ops;
  const struct source_listener *listener; /* set by the engine before connect */
  void *listener_context;                 /* likewise */
  char url[256];                          /* for people; no credentials */
  const char *transport; /* "tcp", "file", "rdma": as it reads now; may change until ready */
  bool last_resort;      /* used only when no other source is usable */
  bool ordered;       /* lands bytes strictly in order; may change until ready, or with `granted` */
  bool has_digests;   /* can be the authority (a plain directory cannot) */
  uint32_t fallbacks; /* times that it went on over a lesser transport */
  /* Objects of its manifest that it can serve, one bit each; NULL: all. From the manifest on. */
  const uint64_t *coverage;
};
#endif
