/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/1.1 client connection that pipelines requests and lands bodies straight in the caller's
 * memory.
 *
 * Calls are answered in the order in which they were queued. The connection is made with the first
 * call; once it has failed every call, queued or later, ends with that error until
 * http_client_close. Reactor's thread; `done` and `landed` never run inside a function of this
 * header.
 */
#ifndef NET_HTTP_CLIENT_H
#define NET_HTTP_CLIENT_H

#include "core/list.h"
#include "core/reactor.h"
#include "net/address.h"

#include <sys/uio.h>

struct http_client;

/*
 * One request and its answer. Owned by the caller; it and its memory stay as they are until done.
 * Zero-initialise, then set the first group.
 */
struct http_call {
  const void *request; /* the whole request: head and body */
  size_t request_bytes;
  /*
   * Where the body of a 200 lands; its length must be sink_bytes exactly. Without a sink, and for
   * any other status, the body is buffered up to body_limit_bytes.
   */
  const struct iovec *sink;
  uint32_t sink_count;
  uint64_t sink_bytes;
  uint64_t body_limit_bytes; /* 0: 1 MiB */
  /* The next bytes of the sink have landed, in order; at most 256 KiB, inside one entry. */
  void (*landed)(struct http_call *call, const void *data, uint64_t length_bytes);
  /* Exactly once. error->status OK: an answer came, whatever its status code. No byte lands
   * afterwards. */
  void (*done)(struct http_call *call, const struct sprout_error *error);

  /* filled for done when an answer came; body is valid during done */
  int status_code;
  uint32_t retry_after_s;
  const unsigned char *body;
  size_t body_bytes;

  /* the client's own */
  struct list_node node;
  size_t sent_bytes;
  uint32_t sink_index;
  uint64_t sink_used;
};

struct http_client_options {
  struct address address;
  const char *name;     /* of the peer, for messages; borrowed. NULL: the caller names it */
  uint32_t input_bytes; /* buffer in which heads arrive: small for data, larger for documents */
};

SPROUT_MUST_CHECK enum sprout_status http_client_create(struct reactor *reactor,
                                                        const struct http_client_options *options,
                                                        struct http_client **client_out);
/* Queues; goes out with the next http_client_flush. */
void http_client_call(struct http_client *client, struct http_call *call);
/* Sends what was queued, as many requests in one send as fit. */
void http_client_flush(struct http_client *client);
/*
 * Ends the connection: stops what is in flight, gives every call back with `status`, then `closed`.
 * Once. Afterwards the client is as new: it may be used again or destroyed.
 */
void http_client_close(struct http_client *client, enum sprout_status status,
                       void (*closed)(void *context), void *context);
/* Calls that were not answered. */
uint32_t http_client_pending(const struct http_client *client);
/* Only after `closed`, or when no call was ever made. */
void http_client_destroy(struct http_client *client);
#endif
