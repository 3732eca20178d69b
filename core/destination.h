/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A destination: where a fork's chunks go. A directory, caller memory, or nowhere.
 *
 * The engine maps a transfer before it posts the read (where shall the bytes land), stores it after
 * its chunks were verified (or before their digests are known: then they may come again), or
 * releases it. No op calls back before it returned. Exactly one of store and release follows each
 * successful map. The same bytes are never stored twice at once.
 *
 * Calls: prepare -> prepared; map/store/release; finish -> finished. abort -> aborted may follow
 * anything but a successful `finished`, also a prepare or finish that still runs or that failed, or
 * no prepare at all; it comes when nothing is mapped and every store was answered. After `aborted`
 * or a successful `finished` no callback comes and it may be destroyed.
 */
#ifndef CORE_DESTINATION_H
#define CORE_DESTINATION_H

#include "core/source.h"

struct destination;

#define DESTINATION_IOV_MAX 512u

/* One read's landing place. Embedded in the engine's read. */
struct destination_transfer {
  const struct source_range *ranges; /* set by the engine before map */
  uint32_t range_count;
  uint64_t length_bytes;
  bool ordered;      /* the source lands bytes in order: the entries of iov may alias */
  struct iovec *iov; /* DESTINATION_IOV_MAX entries, the engine's; filled by map */
  uint32_t iov_count;
  /* Once, after store: OK or SPROUT_NO_SPACE, SPROUT_IO, ... */
  void (*stored)(struct destination_transfer *transfer, const struct sprout_error *error);

  /* the destination's own */
  void *slot;
  struct list_node node;
};

struct destination_listener {
  /* Existing bytes: chunk `chunk` is already there with this digest (from re-hashing, after
   * prepare). May come many times before prepared, once per chunk; for chunks of selected objects.
   */
  void (*existing)(struct destination *destination, uint64_t chunk, const struct digest *digest);
  void (*prepared)(struct destination *destination,
                   const struct sprout_error *error); /* error->status OK: go on */
  /* Staging room is there again after map had returned false. */
  void (*room)(struct destination *destination);
  void (*finished)(struct destination *destination, const struct sprout_error *error);
  /* After abort: nothing is in flight, nothing will be written any more. */
  void (*aborted)(struct destination *destination);
};

struct destination_ops {
  /*
   * Checks and creates what is needed for the selected objects (one bit each; NULL: all) of the
   * manifest: matches tensors, makes files, allocates space, and, when `reuse`, re-hashes bytes
   * that are there. All mismatches in one error. Then `prepared`.
   */
  void (*prepare)(struct destination *destination, const struct manifest *manifest,
                  const uint64_t *selected, bool reuse);
  /* False: no room now; `room` will follow. Fills iov with at most 256 KiB per entry, so that an
   * ordered source digests while in cache. */
  bool (*map)(struct destination *destination, struct destination_transfer *transfer);
  /* All memory that map hands out to unordered sources, for those who register it: from prepared
   * until destroy. The list is the destination's, until the next call. */
  uint32_t (*landing)(struct destination *destination, const struct iovec **spans_out);
  void (*store)(struct destination *destination, struct destination_transfer *transfer);
  void (*release)(struct destination *destination, struct destination_transfer *transfer);
  /* All chunks are stored: make it whole (sync, final names). Then `finished`. */
  void (*finish)(struct destination *destination);
  /* Stop; keep what can be resumed. No transfer is mapped or being stored. A prepare or finish
   * under way is broken off (its answer may still come, or not). Then `aborted`. */
  void (*abort)(struct destination *destination);
  void (*destroy)(struct destination *destination);
};

struct destination {
  const struct destination_ops *ops;
  const struct destination_listener *listener;
  void *listener_context;
  bool resumes; /* keeps verified chunks across failures (a directory) */
};

#define DESTINATION_PIECE_BYTES (256u * 1024u)
#endif
