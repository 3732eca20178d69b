/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a remote source: one seed, spoken with over HTTP, whose bytes come over a lane.
 *
 * Connections: `control` for manifest, open, placement and digests (which may be long polls),
 * `beat` for heartbeats and the close; what reads need is the lane's. Files: remote_source.c holds
 * its life and ending, remote_source_control.c the requests about the fork, remote_source_lanes.c
 * which lane carries the reads.
 */
#ifndef NET_REMOTE_SOURCE_INTERNAL_H
#define NET_REMOTE_SOURCE_INTERNAL_H

#include "core/limits.h"
#include "net/auth.h"
#include "net/http_client.h"
#include "net/http_request.h"
#include "net/rdma_lane.h"
#include "net/sources.h"
#include "net/tcp_lane.h"
#include "net/wire.h"

enum remote_state {
  REMOTE_IDLE,       /* waits for connect */
  REMOTE_MANIFEST,   /* waits for the manifest */
  REMOTE_KNOWN,      /* waits for open */
  REMOTE_OPENING,    /* waits for the answer to open, or for the time to ask again */
  REMOTE_QUEUED,     /* waits for a slot at the seed */
  REMOTE_CONNECTING, /* admitted; waits for a lane */
  REMOTE_READY,      /* reads */
  REMOTE_FAILING,    /* waits for lanes and connections to end, then tells failed */
  REMOTE_FAILED,     /* waits for close */
  REMOTE_PARTING,    /* waits for the answer to DELETE, for a moment */
  REMOTE_CLOSING     /* waits for lanes and connections to end, then tells closed */
};

/* One request that is not a read. */
struct remote_control {
  struct http_call call;
  struct remote_source *source;
  struct wire_buffer request;
  struct timer deadline;
  const char *what; /* for the message when no answer comes */
  bool busy;
  uint64_t sent_ns;
  uint64_t first, count; /* digests */
};

struct remote_source {
  struct source base;
  struct reactor *reactor;
  enum remote_state state;
  char host[ADDRESS_HOST_BYTES + 8];
  char token[AUTH_TOKEN_MAX + 1];
  char model[256], rank[256];
  uint64_t control_timeout_ns;
  struct http_client *control, *beat;
  bool parting;        /* failing, and waits for the answer to DELETE for a moment */
  uint32_t open_parts; /* clients and lanes that are being ended */

  struct remote_control manifest_call, open_call, beat_call, close_call, placement_call,
      digest_calls[SOURCE_DIGEST_REQUESTS];
  struct timer beat_timer, retry_timer, part_timer;
  struct digest *digests; /* SOURCE_DIGESTS_MAX, and the flags: answers are decoded here */
  bool *known;

  char manifest_id[DIGEST_HEX_BYTES];
  uint64_t generation; /* of the manifest: what this life reads */
  uint32_t object_count;
  uint8_t nonce[WIRE_ID_BYTES];
  char fork_hex[2 * WIRE_ID_BYTES + 1];
  bool admitted; /* the seed keeps a fork of ours: tell it when we go */
  uint64_t lease_ns, heartbeat_ns;
  uint64_t
      post_until_ns; /* no read is sent later: 0.8 lease after the last good heartbeat was sent */
  struct source_grant grant;
  uint64_t received_bytes, total_bytes;

  struct lane *tcp, *rdma; /* NULL: not wanted */
  struct lane *lane;       /* the one that carries reads in this life; NULL: none yet */
  bool tcp_started, rdma_started;
  bool tcp_stopping, rdma_stopping;
  bool proven;               /* RDMA was ready in some life */
  uint32_t strikes;          /* RDMA failed while it read, in a row */
  struct list_node unposted; /* struct source_read that come back without having been sent */
  enum sprout_status give_back;

  struct wire_buffer body;
  struct sprout_error error; /* why it failed */
  struct deferred tell;      /* answers that must not come from inside an op */
  enum sprout_status result;
  char reason[96];
};

static inline struct remote_source *remote_of(struct source *source) {
  return container_of(source, struct remote_source, base);
}

/* --- remote_source.c --- */
/* Ends the source with *error (once; later ones are ignored); `failed` follows. */
void remote_source_fail(struct remote_source *source, const struct sprout_error *error);
/* The same for a lane's error, while the seed answers: it is told that its fork ends. */
void remote_source_fail_lane(struct remote_source *source, const struct sprout_error *error);
void remote_source_parted(struct remote_source *source);
/* One of open_parts has ended. */
void remote_source_part_ended(struct remote_source *source);

/* --- remote_source_control.c: runs requests; failures end the source --- */
void remote_control_connect(struct source *source);
void remote_control_open(struct source *source);
void remote_control_digests(struct source *source, uint64_t first, uint64_t count, bool compute);
void remote_control_placement(struct remote_source *source, uint64_t since);
/* DELETE; false when it could not be sent. Its answer, or the lack of one, calls
 * remote_source_parted. */
bool remote_control_part(struct remote_source *source);
void remote_control_init(struct remote_source *source);
void remote_control_stop_timers(struct remote_source *source);

/* --- remote_source_lanes.c --- */
SPROUT_MUST_CHECK enum sprout_status
remote_lanes_create(struct remote_source *source, const struct remote_source_options *options);
void remote_lanes_destroy(struct remote_source *source);
/* RDMA is to be offered in the next open. */
bool remote_lanes_want_rdma(const struct remote_source *source);
/* Admitted: starts a lane; ready or fail follows. */
void remote_lanes_start(struct remote_source *source, const struct wire_opened *opened);
/* Tells lane and engine what the seed grants now. */
void remote_lanes_grant(struct remote_source *source, bool changed);
/* What the engine may post. A lane that cuts reads up keeps the seed's window itself, and wants a
 * few reads in store. */
struct source_grant remote_lanes_engine_grant(const struct remote_source *source);
/* Stops what was started; reads come back with `status`. */
void remote_lanes_stop(struct remote_source *source, enum sprout_status status);
void remote_lanes_post(struct source *source, struct source_read *read);
void remote_lanes_flush(struct source *source);
/* Gives back reads that are in no lane. */
void remote_lanes_give_back(struct remote_source *source);
#endif
