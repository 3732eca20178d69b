/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a TCP source: one seed over HTTP.
 *
 * Connections: `control` for manifest, open and digests (which may be long polls), `beat` for
 * heartbeats and the close, and one or more for reads. Files: tcp_source.c holds its life and
 * ending, tcp_source_control.c the requests about the fork, tcp_source_read.c the reads.
 */
#ifndef NET_TCP_SOURCE_INTERNAL_H
#define NET_TCP_SOURCE_INTERNAL_H

#include "core/limits.h"
#include "net/auth.h"
#include "net/http_client.h"
#include "net/http_request.h"
#include "net/sources.h"
#include "net/wire.h"

#define TCP_READS 64u
#define TCP_CONNECTIONS_MAX 16u

enum tcp_state {
  TCP_IDLE,     /* waits for connect */
  TCP_MANIFEST, /* waits for the manifest */
  TCP_KNOWN,    /* waits for open */
  TCP_OPENING,  /* waits for the answer to open, or for the time to ask again */
  TCP_QUEUED,   /* waits for a slot at the seed */
  TCP_READY,    /* reads */
  TCP_FAILING,  /* waits for its connections to end, then tells failed */
  TCP_FAILED,   /* waits for close */
  TCP_PARTING,  /* waits for the answer to DELETE, for a moment */
  TCP_CLOSING   /* waits for its connections to end, then tells closed */
};

/* One request that is not a read. */
struct tcp_control {
  struct http_call call;
  struct tcp_source *source;
  struct wire_buffer request;
  struct timer deadline;
  const char *what; /* for the message when no answer comes */
  bool busy;
  uint64_t sent_ns;
  uint64_t first, count; /* digests */
};

struct tcp_read {
  struct http_call call;
  struct tcp_source *source;
  struct source_read *read; /* NULL: the slot is free */
  struct wire_buffer request;
  uint32_t connection;
};

struct tcp_source {
  struct source base;
  struct reactor *reactor;
  enum tcp_state state;
  char host[ADDRESS_HOST_BYTES + 8];
  char token[AUTH_TOKEN_MAX + 1];
  char model[256], rank[256];
  uint64_t control_timeout_ns;
  struct http_client *control, *beat, *data[TCP_CONNECTIONS_MAX];
  uint32_t connections;
  uint32_t open_clients; /* that were not closed yet, while ending */

  struct tcp_control manifest_call, open_call, beat_call, close_call,
      digest_calls[SOURCE_DIGEST_REQUESTS];
  struct timer beat_timer, retry_timer, part_timer;
  struct digest *digests; /* SOURCE_DIGESTS_MAX, and the flags: answers are decoded here */
  bool *known;

  char manifest_id[DIGEST_HEX_BYTES];
  uint64_t generation; /* of the manifest: what this life reads */
  uint8_t nonce[WIRE_ID_BYTES];
  char fork_hex[2 * WIRE_ID_BYTES + 1];
  bool admitted; /* the seed keeps a fork of ours: tell it when we go */
  uint64_t lease_ns, heartbeat_ns;
  uint64_t
      post_until_ns; /* no read is sent later: 0.8 lease after the last good heartbeat was sent */
  struct source_grant grant;
  uint64_t received_bytes, total_bytes;

  struct tcp_read reads[TCP_READS];
  struct list_node posted; /* struct source_read, not sent yet */
  struct wire_range ranges[LIMIT_READ_RANGES];
  struct wire_buffer body;

  struct sprout_error error; /* why it failed */
  struct deferred tell;      /* answers that must not come from inside an op */
  enum sprout_status result;
  char reason[96];
};

static inline struct tcp_source *tcp_of(struct source *source) {
  return container_of(source, struct tcp_source, base);
}

/* Ends the source with *error (once; later ones are ignored); `failed` follows. */
void tcp_source_fail(struct tcp_source *source, const struct sprout_error *error);
/* Runs the request in tcp_control: encodes, calls, starts the deadline. Failures end the source. */
void tcp_control_connect(struct source *source);
void tcp_control_open(struct source *source);
void tcp_control_digests(struct source *source, uint64_t first, uint64_t count, bool compute);
/* DELETE; false when it could not be sent. Its answer, or the lack of one, calls tcp_source_parted.
 */
bool tcp_control_part(struct tcp_source *source);
void tcp_source_parted(struct tcp_source *source);
void tcp_control_init(struct tcp_source *source);
void tcp_control_stop_timers(struct tcp_source *source);

void tcp_read_init(struct tcp_source *source);
void tcp_read_post(struct source *base, struct source_read *read);
/* Sends what was posted, as far as lease and slots allow. */
void tcp_read_flush(struct source *base);
/* Gives back reads that were never sent. */
void tcp_read_drop_posted(struct tcp_source *source, enum sprout_status status);
#endif
