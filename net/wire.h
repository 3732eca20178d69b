/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on the wire, as msgpack; the files net/wire*.c are the only ones that know it. Pure.
 * Untrusted input: validated here.
 *
 * Maps with short string keys; unknown keys are ignored, keys listed under "critical" that are
 * unknown are refused by name (SPROUT_VERSION). Integers are unsigned 64-bit. A manifest is a
 * sequence of top-level records: one head map, then per object and per file one array; decoding
 * never needs more than one record at a time.
 */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include "core/manifest.h"
#include "core/source.h"

#define WIRE_PROTOCOL_MIN 1u
#define WIRE_PROTOCOL_MAX 1u
#define WIRE_CONTENT_TYPE "application/msgpack"
#define WIRE_ID_BYTES 16
#define WIRE_ENDPOINTS_MAX 8u

/* A growable byte buffer owned by the caller; free `data` with free(). */
struct wire_buffer {
  unsigned char *data;
  size_t length_bytes, capacity_bytes;
};
void wire_buffer_destroy(struct wire_buffer *buffer);

SPROUT_MUST_CHECK enum sprout_status wire_manifest_encode(const struct manifest *manifest,
                                                          bool draining,
                                                          struct wire_buffer *buffer_out);
SPROUT_MUST_CHECK enum sprout_status wire_manifest_decode(const void *data, size_t length_bytes,
                                                          struct manifest **manifest_out,
                                                          struct sprout_error *error);

/* POST /v1/forks, request */
struct wire_open {
  char manifest_id[DIGEST_HEX_BYTES];
  uint8_t nonce[WIRE_ID_BYTES];
  uint32_t protocol_min, protocol_max;
  bool wants_tcp, wants_rdma; /* transports offered */
  uint64_t total_bytes;       /* that the fork means to read */
};

/* Where a fork may connect for one-sided reads: one rail of the seed. */
struct wire_endpoint {
  char address[64]; /* numeric IP address */
  uint16_t port;
  uint32_t rail;                /* index into the keys of a placement */
  uint32_t numa;                /* UINT32_MAX: unknown */
  uint32_t gbits;               /* 0: unknown */
  uint8_t nonce[WIRE_ID_BYTES]; /* good for one connection */
};

/* POST /v1/forks and PATCH, answer */
struct wire_opened {
  uint8_t fork_id[WIRE_ID_BYTES];
  bool queued;
  uint32_t position; /* 1-based while queued */
  uint32_t protocol;
  uint64_t lease_ns, heartbeat_ns; /* on the wire in ms */
  struct source_grant grant;
  uint32_t endpoint_count; /* only when the fork has just been admitted, and RDMA is offered */
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
};

/* PATCH, request */
struct wire_heartbeat {
  uint64_t received_bytes, total_bytes;
  /* What a fork that reads one-sidedly had in flight at most since the last heartbeat; 0: reads
   * over HTTP. */
  uint64_t peak_inflight_bytes;
};

/* GET placement, answer. Where everything lies in the seed's memory. */
struct wire_slice {
  uint64_t address, length_bytes;
  uint32_t keys[WIRE_ENDPOINTS_MAX]; /* per rail */
};
struct wire_placement {
  uint64_t generation;
  uint64_t fence_address; /* of the 64-bit fence word, inside a slice; 0: the bytes never change */
  uint32_t rail_count;
  uint64_t next;             /* to be asked for as `since` next */
  bool whole;                /* no more slices will come */
  struct wire_slice *slices; /* that became ready as number since, since + 1, ...; any order */
  uint32_t slice_count;
  uint64_t *objects; /* address of each object, in manifest order; only with since 0 */
  uint32_t object_count;
};

/* DELETE, request */
struct wire_close {
  enum sprout_status result; /* by name on the wire */
  char reason[96];
  uint64_t received_bytes; /* in all; 0: not told */
};

/* One element of a read: `count` pieces of `length_bytes`, the first at `offset`, each next
 * `stride_bytes` further; count 1: stride 0. */
struct wire_range {
  uint32_t object;
  uint64_t offset, length_bytes, stride_bytes, count;
};

/* POST read, request; ranges are LIMIT_READ_RANGES at most. */
struct wire_read {
  uint64_t generation;
  const struct wire_range *ranges;
  uint32_t range_count;
};

/* Digests answer: chunks [first, first + count). */
struct wire_digests {
  uint64_t first, count;
  struct digest *values; /* count entries, caller's */
  bool *known;           /* likewise */
  uint64_t generation;   /* of the bytes; 0: not told */
};

/* Encoders append to *buffer (zero-initialise it first). */
SPROUT_MUST_CHECK enum sprout_status wire_open_encode(const struct wire_open *message,
                                                      struct wire_buffer *buffer);
SPROUT_MUST_CHECK enum sprout_status wire_opened_encode(const struct wire_opened *message,
                                                        struct wire_buffer *buffer);
SPROUT_MUST_CHECK enum sprout_status wire_placement_encode(const struct wire_placement *message,
                                                           struct wire_buffer *buffer);
SPROUT_MUST_CHECK enum sprout_status wire_heartbeat_encode(const struct wire_heartbeat *message,
                                                           struct wire_buffer *buffer);
SPROUT_MUST_CHECK enum sprout_status wire_close_encode(const struct wire_close *message,
                                                       struct wire_buffer *buffer);
SPROUT_MUST_CHECK enum sprout_status wire_read_encode(const struct wire_read *message,
                                                      struct wire_buffer *buffer);
SPROUT_MUST_CHECK enum sprout_status wire_digests_encode(const struct wire_digests *message,
                                                         struct wire_buffer *buffer);
/* POST digests, request: wants [first, first + count) computed now. */
SPROUT_MUST_CHECK enum sprout_status wire_digests_wanted_encode(uint64_t first, uint64_t count,
                                                                struct wire_buffer *buffer);

SPROUT_MUST_CHECK enum sprout_status wire_open_decode(const void *data, size_t length_bytes,
                                                      struct wire_open *message_out,
                                                      struct sprout_error *error);
SPROUT_MUST_CHECK enum sprout_status wire_opened_decode(const void *data, size_t length_bytes,
                                                        struct wire_opened *message_out,
                                                        struct sprout_error *error);
/* Allocates slices and objects; free them with wire_placement_destroy. Keys number rail_count. */
SPROUT_MUST_CHECK enum sprout_status wire_placement_decode(const void *data, size_t length_bytes,
                                                           struct wire_placement *message_out,
                                                           struct sprout_error *error);
void wire_placement_destroy(struct wire_placement *message);
SPROUT_MUST_CHECK enum sprout_status wire_heartbeat_decode(const void *data, size_t length_bytes,
                                                           struct wire_heartbeat *message_out,
                                                           struct sprout_error *error);
SPROUT_MUST_CHECK enum sprout_status wire_close_decode(const void *data, size_t length_bytes,
                                                       struct wire_close *message_out,
                                                       struct sprout_error *error);
/* `ranges` has room for `capacity`; more is SPROUT_INVALID. Checks overflow, not objects. */
SPROUT_MUST_CHECK enum sprout_status wire_read_decode(const void *data, size_t length_bytes,
                                                      struct wire_range *ranges, uint32_t capacity,
                                                      struct wire_read *message_out,
                                                      struct sprout_error *error);
/* values/known have room for `capacity`. */
SPROUT_MUST_CHECK enum sprout_status wire_digests_decode(const void *data, size_t length_bytes,
                                                         uint64_t capacity,
                                                         struct wire_digests *message,
                                                         struct sprout_error *error);
SPROUT_MUST_CHECK enum sprout_status
wire_digests_wanted_decode(const void *data, size_t length_bytes, uint64_t *first_out,
                           uint64_t *count_out, struct sprout_error *error);

/* Errors: {"error":{"code","message","hint"}}. Appends. */
SPROUT_MUST_CHECK enum sprout_status wire_error_encode_json(const struct sprout_error *error,
                                                            struct wire_buffer *buffer);
/*
 * Reads the body of an answer with an error status. Never fails: a body that is not ours (a proxy's
 * page) leaves the meaning to the HTTP status, which is also in error_out->native. The status is
 * what the answer means on this side, never SPROUT_OK and never one that ends a fork: "invalid" is
 * SPROUT_PROTOCOL here, "unsupported" SPROUT_VERSION, and what concerns the seed's own files,
 * memory or bugs SPROUT_UNAVAILABLE. Texts have no control characters.
 */
void wire_error_decode_json(const void *data, size_t length_bytes, int http_status,
                            struct sprout_error *error_out);

/* Whether the body of an answer with an error status is a seed's, not another server's page. */
bool wire_error_is_seeds(const void *data, size_t length_bytes);
#endif
