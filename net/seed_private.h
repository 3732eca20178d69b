/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a seed: shared by net/seed_*.c and net/routes*.c alone.
 *
 * seed_service.c  public functions: create, drain, destroy
 * seed_options.c  what may be asked for, and where to listen
 * seed_forks.c    open forks: windows, leases, ends
 * seed_rdma.c     its publication over RDMA: who is invited, what is granted
 * seed_update.c   bytes that change while the seed runs
 * seed_metrics.c  the metric families of a seed
 * routes.c        the table of routes, authentication
 * routes_*.c      the handlers
 */
#ifndef NET_SEED_PRIVATE_H
#define NET_SEED_PRIVATE_H

#include "core/admission.h"
#include "core/digester.h"
#include "core/fence.h"
#include "core/limits.h"
#include "core/region.h"
#include "core/stats.h"
#include "net/auth.h"
#include "net/http_server.h"
#include "net/rdma_grant.h"
#include "net/rdma_seed.h"
#include "net/service.h"
#include "net/transports.h"
#include "net/wire.h"
#include "sprout/sprout.h"

#define SEED_NS_PER_S 1000000000ull
#define SEED_HEARTBEATS_PER_LEASE 5u
#define SEED_ETAG_BYTES HTTP_ETAG_BYTES
#define SEED_VERSION_BYTES 56 /* 32 digits, a dot, 20 digits */

/* Options with defaults filled in. */
struct seed_settings {
  uint32_t max_forks, max_queue;
  uint64_t inflight_bytes, digest_rate, drain_timeout_ns, lease_ns, max_rate;
  bool metrics_need_token;
  bool tensors_mutable;
  struct transports transports;
  int32_t rdma_gid_index; /* -1: by address */
  uint16_t rdma_port;
};

/* One open fork: what the service knows beyond its admission. Freed when it is closed and its last
 * read has ended. */
struct seed_fork {
  struct sprout_seed *seed;
  struct admission_fork *admission; /* NULL once closed */
  struct http_account account;
  struct list_node reads; /* struct read_body: accepted, not sent whole */
  uint32_t inflight_reads;
  uint64_t inflight_bytes;
  /* The two last grants: a read may cross the answer that lowers its window. */
  uint64_t window_bytes, window_bytes_before;
  struct rdma_guest guest;
  bool wants_rdma;
  bool invited; /* the answer that first said "running" was given */
  uint64_t invited_ns;
  bool reads_rdma; /* counted in seed->rdma_forks: it has a connection */
  bool fell_back;  /* counted: it was invited and reads over HTTP */
  struct rdma_grant grant;
  uint64_t heartbeat_ns;          /* what it was told last; 0: nothing yet */
  uint64_t heard_bytes;           /* received, as it said then */
  uint64_t rdma_bytes;            /* as it reports */
  uint64_t rate_bytes_per_second; /* smoothed, for people */
  uint64_t rated_ns, rated_bytes;
};

/* A document that is built on the worker pool when it is first asked for. */
struct seed_lazy_json {
  struct work work;
  struct sprout_seed *seed;
  bool building;
  struct manifest manifest; /* as it is written: shares all but the version with the seed's */
  bool draining;            /* likewise */
  bool outdated;            /* there is a newer version, or state: what is built is not used */
  bool stopping;            /* the end waits for the worker */
  struct wire_buffer text;  /* the worker's, then taken over */
  enum sprout_status status;
  struct http_document *document;
  struct list_node waiting; /* struct manifest_wait */
};

/* A block of pieces for reads with many ranges; see routes_read.c. */
struct read_block;

struct sprout_seed {
  struct sprout_service *service;
  struct reactor *reactor;
  struct seed_settings settings;
  struct model *model;
  struct auth *auth;
  uint64_t auth_checked_ns;
  struct stats *stats;
  struct digester *digester;
  struct admission *admission;
  struct http_pace *pace;
  struct http_server *server, *admin; /* admin: NULL when there is none */
  struct http_account downloads;      /* all plain GETs share as one fork */
  uint64_t created_ns, published_s;
  bool ready, draining;

  /* Bytes that change; see seed_update.c. */
  struct fence fence;                         /* its word is NULL unless the tensors are mutable */
  bool updating;                              /* between begin and commit of an update */
  uint64_t update_called_ns, update_begun_ns; /* begin was called, and returned */

  /* documents of this version */
  struct http_document *manifest_msgpack, *index_json;
  struct seed_lazy_json manifest_json;
  char etag_base[SEED_VERSION_BYTES]; /* "EPOCH.GENERATION" */
  struct list_node version_waits;     /* struct manifest_wait: long-polls for a newer version */

  /* publication over RDMA; NULL: none */
  struct rdma_seed *rdma;
  bool rdma_started;
  bool rdma_settled; /* creation does not wait (any more) */
  bool rdma_refused; /* it failed while creation waited, which takes it from here */
  bool rdma_closed;
  struct sprout_error rdma_error;        /* why it failed; SPROUT_OK: it has not */
  uint32_t rdma_forks;                   /* that have a connection */
  uint64_t rdma_sent_bytes;              /* as forks report */
  struct http_document *placement_whole; /* the answer to since=0 ... */
  uint64_t placement_ready;              /* ... with so many slices ... */
  uint64_t placement_generation;         /* ... of this generation */

  /* forks */
  struct timer lease_timer;
  uint64_t forks_finished;

  /* scratch of handlers, which never nest */
  struct wire_range *ranges; /* LIMIT_READ_RANGES */
  struct digest *digests;    /* LIMIT_DIGESTS_PER_REQUEST */
  bool *digests_known;       /* likewise */
  struct list_node blocks;   /* spare read_blocks */
  uint32_t block_count;

  /* ends */
  struct timer drain_timer;
  struct deferred drain_check;
  void (*drained)(void *context);
  void *drained_context;
  bool drain_over;
  bool servers_stopped;
  uint32_t stopping_parts;
  bool stopped;
};

/* seed_service.c */
/* One of the parts that are being stopped has stopped. */
void seed_part_stopped(struct sprout_seed *seed);

/* seed_options.c */
SPROUT_MUST_CHECK enum sprout_status seed_options_check(const struct sprout_seed_options *options,
                                                        struct seed_settings *settings_out,
                                                        struct sprout_error *error);
/* Creates the servers on the first address that works. */
SPROUT_MUST_CHECK enum sprout_status seed_listen(struct sprout_seed *seed,
                                                 const struct sprout_seed_options *options,
                                                 struct sprout_error *error);

/* seed_forks.c */
SPROUT_MUST_CHECK enum sprout_status seed_fork_open(struct sprout_seed *seed,
                                                    const struct wire_open *open, const char *peer,
                                                    struct seed_fork **fork_out);
/* What the fork is told: state, lease, window, endpoints. Remembers the window. `opening`: it asks
 * (again) to be opened, else it is a heartbeat. */
void seed_fork_describe(struct seed_fork *fork, bool opening, struct wire_opened *opened_out);
/* Breaks the connections of its reads, gives its slot on. */
void seed_fork_close(struct seed_fork *fork, enum sprout_status result, const char *reason);
void seed_fork_close_all(struct sprout_seed *seed, bool queued_only, enum sprout_status result,
                         const char *reason);
/* A read of the fork ended; may free the fork. */
void seed_fork_release(struct seed_fork *fork);
void seed_fork_rate(struct seed_fork *fork, uint64_t now_ns);
/* How many forks run, or read over RDMA, changed: divides the rate anew. */
void seed_forks_share_rate(struct sprout_seed *seed);
/* Starts the timer of the next lease that ends. */
void seed_lease_watch(struct sprout_seed *seed);
void seed_lease_fired(struct timer *timer);
/* Looks in a later step whether a drain is over. */
void seed_drain_look(struct sprout_seed *seed);

/* seed_rdma.c */
/*
 * Publishes the model over RDMA as far as the settings want it, and waits until forks can connect;
 * when RDMA must be had also until some memory is registered. SPROUT_OK without RDMA when that is
 * allowed. Blocks; not on the reactor's thread.
 */
SPROUT_MUST_CHECK enum sprout_status seed_rdma_open(struct sprout_seed *seed,
                                                    const struct sprout_seed_options *options,
                                                    struct sprout_error *error);
/* Ends it from outside of the reactor: creation failed. Harmless without one. */
void seed_rdma_abandon(struct sprout_seed *seed);
/* It reads, or is about to read, over RDMA. */
bool seed_rdma_is_reader(const struct seed_fork *fork, uint64_t now_ns);
void seed_rdma_grant(struct seed_fork *fork, struct source_grant *grant_out);
void seed_rdma_invite(struct seed_fork *fork, bool opening, struct wire_opened *opened);
/* The fork has ended: it reads nothing any more. */
void seed_rdma_leave(struct seed_fork *fork);
/* A heartbeat of a running fork; false: it is over its grant, `reason` says how. */
bool seed_rdma_heard(struct seed_fork *fork, const struct wire_heartbeat *heartbeat, char *reason,
                     size_t reason_bytes);
/* What it says to have received in all, over whatever transport. */
void seed_rdma_received(struct seed_fork *fork, uint64_t received_bytes);
/* It reads over HTTP. */
void seed_rdma_note_http(struct seed_fork *fork);
/* The publication is open. */
bool seed_rdma_is_open(const struct sprout_seed *seed);

/* seed_metrics.c */
SPROUT_MUST_CHECK enum sprout_status seed_metrics_create(struct sprout_seed *seed);
/* Brings gauges and counters kept elsewhere up to date, before a scrape. */
void seed_metrics_refresh(struct sprout_seed *seed);
void seed_metrics_request(struct sprout_seed *seed, const struct http_exchange *exchange,
                          uint64_t now_ns);
void seed_metrics_limit(struct sprout_seed *seed, const char *limit);
void seed_metrics_auth_failure(struct sprout_seed *seed, const char *reason);
void seed_metrics_fork_started(struct sprout_seed *seed, const struct admission_fork *fork);
void seed_metrics_fork_finished(struct sprout_seed *seed, const struct admission_fork *fork);
/* Weights go over TCP instead of RDMA. */
void seed_metrics_fallback(struct sprout_seed *seed, enum sprout_status reason);
void seed_metrics_rdma_refused(struct sprout_seed *seed, enum rdma_refusal refusal);
/* An update was committed; `phases` in seconds. */
struct seed_update_phases {
  double begin, change, commit;
};
void seed_metrics_updated(struct sprout_seed *seed, const struct seed_update_phases *phases);

/* routes.c */
/* The handlers of the main and of the admin server; context: the seed. */
void routes_handle(void *context, struct http_exchange *exchange);
void routes_handle_admin(void *context, struct http_exchange *exchange);

/* routes_manifest.c */
/* Encodes the documents of the current version and wakes who waits for a newer one. */
SPROUT_MUST_CHECK enum sprout_status routes_manifest_publish(struct sprout_seed *seed);
/* Names the version for ETags and ?after=. */
void routes_manifest_name_version(struct sprout_seed *seed);
void routes_manifest_init(struct sprout_seed *seed);
void routes_manifest_destroy(struct sprout_seed *seed);

/* seed_update.c */
/* Forks are welcome: served, not draining, and no update under way. */
bool seed_is_ready(const struct sprout_seed *seed);

/* routes_read.c */
void routes_read_destroy(struct sprout_seed *seed);
#endif
