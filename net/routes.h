/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the handlers of routes share: one table of routes, and the usual answers.
 */
#ifndef NET_ROUTES_H
#define NET_ROUTES_H

#include "net/json_text.h"
#include "net/seed_private.h"

/* One request on its way to its handler. */
struct route_call {
  struct sprout_seed *seed;
  struct http_exchange *exchange;
  const struct http_message *request;
  const char *argument; /* what stood for the pattern's "{...}"; "" without one */
};

typedef void (*route_handler)(struct route_call *call);

enum route_access {
  ROUTE_TOKEN,   /* needs the token, when there is one */
  ROUTE_METRICS, /* needs it when the options say so; also on the admin address */
  ROUTE_PROBE    /* open to all; also on the admin address */
};

/* One row: "{id}" stands for one part of the path, "{name}" and "{path}" for all that is left. A
 * GET row serves HEAD too. The pattern is the route's label in metrics. */
struct route {
  enum http_method method;
  const char *pattern;
  enum route_access access;
  route_handler handle;
};

/* {"error":...} */
void route_fail(struct route_call *call, enum sprout_status status, const char *hint,
                const char *format, ...) SPROUT_PRINTF(4, 5);
/* 503 with Retry-After: an update is under way, ask again. */
void route_fail_changing(struct http_exchange *exchange);
/* True when an update is under way; then it has answered that. */
bool route_changing(struct route_call *call);
/* The error of who asks for bytes, or digests, of the generation that an update ends. */
enum sprout_status route_stale_error(const struct sprout_seed *seed, struct sprout_error *error);
/* Takes over the encoded bytes; `status` of the encoding decides whether they are sent. */
void route_answer_bytes(struct http_exchange *exchange, int status_code, const char *content_type,
                        enum sprout_status status, struct wire_buffer *buffer);
/* Takes the reference of `value`. */
void route_answer_json(struct http_exchange *exchange, int status_code, json_t *value);

/* Something with a fixed length that can be asked for in parts. */
struct route_content {
  const char *content_type;
  const char *etag;
  uint64_t total_bytes;
  struct http_document *document; /* or pieces: */
  void (*next_piece)(struct http_exchange *exchange, struct http_piece *piece_out);
  struct http_account *account;
};

/*
 * Answers 200, 206, 304 or 416 as the request's Range, If-Range and If-None-Match ask. Returns
 * whether a body follows; then *offset_out and *length_out say which part, for next_piece.
 */
bool route_answer_content(struct route_call *call, const struct route_content *content,
                          uint64_t *offset_out, uint64_t *length_out);

/* Accept asks for msgpack. */
bool route_wants_msgpack(const struct http_message *request);
/* ETag list (or "*") names this one. */
bool route_etag_matches(const char *header, const char *etag);
/* An unsigned decimal number of the query; `fallback` when absent; false when malformed. */
bool route_query_number(const struct http_message *request, const char *name, uint64_t fallback,
                        uint64_t *value_out);

/* The handlers. */
void route_help(struct route_call *call);
void route_livez(struct route_call *call);
void route_readyz(struct route_call *call);
void route_metrics(struct route_call *call);
void route_manifests(struct route_call *call);
void route_manifest(struct route_call *call);
void route_manifest_by_id(struct route_call *call);
void route_digests(struct route_call *call);
void route_digests_wanted(struct route_call *call);
void route_fork_open(struct route_call *call);
void route_fork_heartbeat(struct route_call *call);
void route_fork_close(struct route_call *call);
void route_forks(struct route_call *call);
void route_fork(struct route_call *call);
void route_read(struct route_call *call);
void route_placement(struct route_call *call);
void route_status(struct route_call *call);
void route_object(struct route_call *call);
void route_file(struct route_call *call);

/* True when `id` names this manifest; else answers 404 or 410. */
bool route_manifest_known(struct route_call *call, const char *id);
#endif
