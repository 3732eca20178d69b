/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fork: one client's pull of a model from one or more sources into a directory, into caller
 * memory, or nowhere (read and verify only).
 *
 * A fork ends exactly once, in one of: complete and verified; or a failure that names its cause,
 * with the destination untouched or resumable. After `finished` was called (or sprout_fork_wait
 * returned) not one more byte lands in caller memory.
 */
#ifndef SPROUT_FORK_H
#define SPROUT_FORK_H

#include "sprout/manifest.h"
#include "sprout/memory.h"
#include "sprout/service.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sprout_fork;

/* Sources a fork takes at most. */
#define SPROUT_MAX_SOURCES 64

/* How the bytes were verified. */
enum sprout_verified {
  SPROUT_VERIFIED_NONE, /* not: --no-verify, or the fork did not complete */
  SPROUT_VERIFIED_XXH3  /* every chunk against the authority's XXH3-128 */
};

/* One source as a progress report shows it. */
struct sprout_source_status {
  const char *url;   /* without credentials */
  const char *state; /* "connecting", "queued", "reading", "idle", "dropped", "closed" */
  uint64_t received_bytes;
  uint32_t queue_position; /* 0 when not queued */
  enum sprout_status dropped_for;
  const char *dropped_reason; /* "" unless dropped */
  const char *transport;      /* "rdma", "tcp", "file": how it is read (now, or last) */
  uint32_t fallbacks;         /* times that it went on over TCP because RDMA did not work */
};

/* Progress; valid only during the callback. Bytes count verified (or, unverified forks, landed)
 * bytes. */
struct sprout_fork_progress {
  uint64_t elapsed_ns;
  uint64_t total_bytes;    /* 0 until the manifest is known */
  uint64_t done_bytes;     /* of total_bytes: reused and received */
  uint64_t reused_bytes;   /* found right in the destination */
  uint64_t received_bytes; /* from sources, retries included */
  uint64_t rate;           /* bytes per second, smoothed */
  uint64_t retries;
  uint32_t source_count;
  const struct sprout_source_status *sources;
};

/* How a fork ended. Lives until sprout_fork_destroy. */
struct sprout_fork_result {
  enum sprout_status status;
  struct sprout_error error; /* set when status is not SPROUT_OK */
  enum sprout_verified verified;
  struct sprout_fork_progress progress; /* the final numbers */
  double seconds;
  double manifest_seconds;    /* from start until the first manifest was decoded */
  double digest_wait_seconds; /* after the last byte landed, waiting for digests */
  char manifest_id[33];
  char label[65];
  uint64_t generation;
};

/*
 * Options of a fork. Zero-initialise, set struct_bytes = sizeof(struct sprout_fork_options), then
 * what you need; zero means the default given in brackets. Strings are copied; tensors are borrowed
 * until the fork is finished.
 */
struct sprout_fork_options {
  size_t struct_bytes;
  const char *const *urls; /* http://HOST[:PORT], or file://DIR as last resort; a name with several
                              addresses is several sources */
  size_t url_count;
  const char *directory; /* destination directory; or NULL */
  const struct sprout_tensor
      *tensors; /* destination tensors; or NULL. Neither: bytes are read, verified, dropped */
  size_t tensor_count;
  const char *model; /* expected model name [any] */
  const char *rank;  /* rank key [""] */
  const char *label; /* expected label [any] */
  bool no_verify;
  bool force;   /* replace files that are in the way */
  bool dry_run; /* plan and check only */
  /*
   * Verify only: reads no weights, creates and changes nothing. Re-hashes what lies in `directory`
   * under the final names and compares it with the digests of a seed, which computes the ones that
   * it does not have yet. Ends with SPROUT_OK when every selected byte is there and right, else
   * with SPROUT_MISMATCH: the error counts the files and names the first ones, `differs` gets every
   * one. A file of another length counts as missing altogether. Needs `directory` and a source that
   * has digests; with no_verify, dry_run or force it is SPROUT_INVALID.
   */
  bool verify_only;
  const char *const *include; /* globs on file paths [all] */
  size_t include_count;
  const char *const *exclude;
  size_t exclude_count;
  const char *const *tensor_globs; /* globs on tensor names: only these objects [all] */
  size_t tensor_glob_count;
  const char *token;             /* bearer token [none] */
  const char *token_file;        /* read at start */
  uint64_t max_rate;             /* bytes per second [no limit] */
  uint64_t inflight_bytes;       /* [32 MiB] */
  uint32_t connections;          /* data connections per source, 1..16 [1] */
  uint64_t stall_timeout_ns;     /* [3 s] */
  uint64_t timeout_ns;           /* whole fork [none] */
  uint64_t wait_ns;              /* time in a seed's queue [10 min] */
  uint64_t progress_interval_ns; /* [200 ms] */
  void (*progress)(void *context, const struct sprout_fork_progress *progress);
  void (*finished)(void *context, const struct sprout_fork_result *result);
  /* verify_only: once per file with wrong or missing bytes, in manifest order, before finished. */
  void (*differs)(void *context, const char *file, uint64_t wrong_bytes, uint64_t missing_bytes);
  void *context; /* passed to all callbacks, which run on the service's thread */

  /* What weights are read over: a comma list of "rdma" and "tcp". Control always goes over HTTP.
   * What is named must be there, and at least one of it at each source; ["auto"] takes what there
   * is. */
  const char *transports;
  const char *rdma_devices; /* comma list of names, each perhaps with ":PORT" ["auto": every device
                               with an active port and an address] */
  int32_t rdma_gid_index;   /* GID index plus one [0: chosen by address] */
  uint64_t rdma_connect_timeout_ns; /* until a connection is established [1 s] */
  /* A READ that is not answered is sent again after rdma_ack_timeout_ns, rounded up to the steps
   * that devices know (4.096 us x 2^n, at most 4.3 s) [67 ms], rdma_retries times (1 to 6) [6];
   * then the connection is given up. The product must outlast what a link may be gone for. */
  uint64_t rdma_ack_timeout_ns;
  uint32_t rdma_retries;
};

/* Starts a fork. Argument errors and destination checks that need no seed are reported here. Any
 * thread. While a service runs on another thread callbacks may come before this has returned. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_fork_create(struct sprout_service *service, const struct sprout_fork_options *options,
                   struct sprout_fork **fork_out, struct sprout_error *error);

/* Asks the fork to stop; it finishes with SPROUT_CANCELLED once nothing is in flight. Any thread,
 * also in callbacks. */
SPROUT_API void sprout_fork_cancel(struct sprout_fork *fork);

/*
 * Waits until the fork finished; not on the service's thread. The service must be running on a
 * thread (sprout_service_start). The result lives until sprout_fork_destroy.
 */
SPROUT_API const struct sprout_fork_result *sprout_fork_wait(struct sprout_fork *fork);

/* Frees a finished fork; cancels and waits first when it still runs (then not on the service's
 * thread). NULL is allowed. */
SPROUT_API void sprout_fork_destroy(struct sprout_fork *fork);

#ifdef __cplusplus
}
#endif
#endif
