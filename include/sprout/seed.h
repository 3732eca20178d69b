/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seed: serves the weights of one model to any number of forks.
 *
 * Create it with a directory or files (stand-alone) or with tensors in the caller's memory
 * (embedded). Thread: all functions may be called from any thread except from inside a callback;
 * they hand over to the service's thread.
 */
#ifndef SPROUT_SEED_H
#define SPROUT_SEED_H

#include "sprout/memory.h"
#include "sprout/service.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sprout_seed;

/* How a stand-alone seed holds the bytes of its files. */
enum sprout_seed_memory {
  SPROUT_SEED_MEMORY_FILE, /* mapped read-only; served from the page cache; immutable */
  SPROUT_SEED_MEMORY_HOST /* read once into anonymous memory: the files may then change or vanish */
};

/*
 * Options of a seed. Zero-initialise, set struct_bytes = sizeof(struct sprout_seed_options), then
 * what you need; zero means the default given in brackets. Strings are copied.
 */
struct sprout_seed_options {
  size_t struct_bytes;
  const char *const *paths; /* a directory, or files; NULL for an embedded seed */
  size_t path_count;
  const struct sprout_tensor *tensors; /* embedded seed: tensors in caller memory (not copied) */
  size_t tensor_count;
  bool tensors_mutable; /* the caller may change their bytes, between sprout_seed_update_begin and
                           sprout_seed_update_commit */
  const char *name;     /* model name [base name of the first path] */
  const char *rank;     /* rank key [""] */
  const char *label;    /* version label, at most 64 bytes [""] */
  const char *listen;   /* ADDR:PORT, port 0 picks one ["127.0.0.1:7117"] */
  const char *admin_listen; /* ADDR:PORT for probes and metrics [none] */
  const char
      *token_file;      /* file with one or two lines, a token each, read again on change [none] */
  const char *token;    /* a token; ignored when token_file is set [none] */
  bool allow_anonymous; /* serve without token on an address that is not loopback */
  bool metrics_need_token; /* /metrics on the main port asks for the token as well */
  enum sprout_seed_memory memory;
  uint64_t max_rate;         /* bytes per second for all forks together [no limit] */
  uint32_t max_rate_percent; /* the same as a share (1..100) of the speed of the listen address's
                                network interface */
  uint32_t max_forks;        /* running at once [64] */
  uint32_t max_queue;        /* waiting [1024] */
  uint64_t inflight_bytes;   /* window granted to one fork [64 MiB] */
  uint64_t digest_rate;      /* background digest computation, bytes per second [1 GB/s] */
  uint64_t drain_timeout_ns; /* [30 s] */
  uint64_t lease_ns;         /* [10 s] */

  /* What weights are read over: a comma list of "rdma" and "tcp". Control always goes over HTTP.
   * With "rdma" alone forks cannot read over HTTP. What is named must be there; ["auto"] takes what
   * there is. */
  const char *transports;
  const char *rdma_devices; /* comma list of names, each perhaps with ":PORT" ["auto": every device
                               with an active port and an address] */
  int32_t rdma_gid_index;   /* GID index plus one [0: chosen by address] */
  uint32_t rdma_port;       /* where RDMA connections come in, on every device [0: any free one] */
};

/* A seed as numbers. */
struct sprout_seed_status {
  bool ready;
  bool draining;
  uint64_t total_bytes;
  uint64_t undigested_bytes;
  uint32_t forks_running;
  uint32_t forks_queued;
  uint64_t forks_finished;
  uint64_t sent_bytes;
  char listen[64];       /* actual ADDR:PORT */
  char admin_listen[64]; /* "" when there is none */
  char model[128];       /* the model's name, cut to fit */
  char manifest_id[33];  /* 32 hex digits */
  uint32_t file_count;
  uint32_t object_count;
  uint64_t generation; /* of the bytes that are served; counts updates, from 1 */
  bool updating;       /* between the begin and the commit of an update */
  char label[65];
};

/* Opens files, lays out the model, binds and listens. The seed serves once the service runs. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_seed_create(struct sprout_service *service, const struct sprout_seed_options *options,
                   struct sprout_seed **seed_out, struct sprout_error *error);

/* Fills *status_out. */
SPROUT_API void sprout_seed_status(struct sprout_seed *seed, struct sprout_seed_status *status_out);

/*
 * Changes the bytes of a running seed in place: begin, write into the tensors, commit. Only for
 * embedded seeds with tensors_mutable (else SPROUT_INVALID). One update at a time.
 *
 * When begin has returned, nothing in sprout reads the tensors any more, and no fork can get bytes
 * that it would take for whole: bodies under way are broken off, the fence word that one-sided
 * readers look at says so. It never waits for a fork, a peer or a network: only for the service's
 * thread to come by, and for the digest of one chunk. Until commit the seed is not ready, opens no
 * forks, answers reads with 409, and keeps the forks that it has.
 *
 * SPROUT_INVALID: no mutable tensors, or an update is under way. Not inside a callback.
 */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_seed_update_begin(struct sprout_seed *seed, struct sprout_error *error);

/*
 * The bytes are whole again (writes by other threads or devices are synchronised with the caller):
 * raises the generation by one, forgets all digests and computes them anew, publishes the manifest,
 * and lets forks in. The manifest's id stays. `label`: the new version label, at most 64 bytes;
 * NULL: unchanged.
 *
 * SPROUT_INVALID: no update is under way, or the label is not good. SPROUT_NO_MEMORY: the manifest
 * could not be written. After both the update is still under way: commit again. Not inside a
 * callback.
 */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_seed_update_commit(struct sprout_seed *seed, const char *label, struct sprout_error *error);

/*
 * Begins draining: not ready, no new forks; running forks finish within drain_timeout. `done` (may
 * be NULL) is called on the service's thread when the last one is gone or the time is over.
 */
SPROUT_API void sprout_seed_drain(struct sprout_seed *seed, void (*done)(void *context),
                                  void *context);

/* Ends at once: closes every connection, waits until nothing is in flight, frees. NULL is allowed.
 */
SPROUT_API void sprout_seed_destroy(struct sprout_seed *seed);

#ifdef __cplusplus
}
#endif
#endif
