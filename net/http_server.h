/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An HTTP/1.1 server on the reactor: connections, requests in order, answers from documents or
 * from pieces of memory and files. It knows neither routes nor models.
 *
 * A request arrives as an exchange. The handler answers at once (http_exchange_answer) or later: it
 * keeps the pointer until it answers or `ended` is called, which happens exactly once per exchange:
 * after the last byte was handed to the kernel, or when the connection broke. Answers leave in the
 * order of the requests. Callbacks never nest: `ended` comes from a later step than the call that
 * caused it, except from http_exchange_answer's own sending.
 *
 * Ways out: documents go by the ring's gathering send. Pieces that have a descriptor go by
 * non-blocking sendfile on a socket that the ring reported writable (tried at once the first time),
 * all others by the ring from memory. Pieces are paced, documents are not: see net/http_pace.h.
 *
 * Thread: the reactor's only.
 */
#ifndef NET_HTTP_SERVER_H
#define NET_HTTP_SERVER_H

#include "core/list.h"
#include "core/reactor.h"
#include "net/address.h"
#include "net/http_pace.h"
#include "net/http_parser.h"
#include "net/wire.h"

struct http_server;
struct http_connection;
struct http_exchange;

/* Bytes that several answers may send at once; reference counted, immutable. */
struct http_document {
  uint32_t references;
  size_t length_bytes;
  unsigned char *data;
};

/* Takes over the buffer's memory, also on failure; NULL when out of memory. One reference. */
struct http_document *http_document_create(struct wire_buffer *buffer);
struct http_document *http_document_hold(struct http_document *document);
/* NULL is allowed. */
void http_document_release(struct http_document *document);

/* A contiguous part of a body. With fd >= 0 the same bytes are in that file at fd_offset and never
 * change. */
struct http_piece {
  const unsigned char *base;
  uint64_t length_bytes;
  int fd;
  uint64_t fd_offset;
};

/* An answer; zero-initialise. Strings are copied. Either document or next_piece or no body. */
struct http_answer {
  int status_code;
  const char *content_type; /* NULL: none */
  const char *etag;         /* with quotes; NULL: none */
  const char *allow;        /* 405; NULL: none */
  uint32_t retry_after_s;   /* 0: none */
  bool challenge;           /* WWW-Authenticate: Bearer */
  bool accept_ranges;
  bool partial;          /* Content-Range: bytes first-last/total, or bytes * /total with 416 */
  uint64_t range_offset; /* likewise */
  uint64_t range_total;
  bool close; /* the connection ends after this answer */

  struct http_document *document; /* the answer takes a reference of its own */
  uint64_t document_offset;       /* the body is body_bytes from here */
  uint64_t body_bytes;            /* Content-Length, also for HEAD */
  /* Gives the next non-empty piece; together exactly body_bytes. Called while sending. */
  void (*next_piece)(struct http_exchange *exchange, struct http_piece *piece_out);
  struct http_account *account; /* who pays for the pieces; outlives the exchange */
};

#define HTTP_HEAD_BYTES 768
#define HTTP_STORE_BYTES 256
#define HTTP_ETAG_BYTES 96

/* One request and its answer. Belongs to the server. */
struct http_exchange {
  const struct http_message *request; /* during handle only, else NULL */
  struct http_connection *connection;
  const char *route; /* metric label, static; set by the handler */
  /* Set by the handler when it must know of the end; NULL: not. `whole`: the answer was sent. */
  void (*ended)(struct http_exchange *exchange, bool whole);
  void *owner; /* the handler's */

  /* read only for the handler */
  enum http_method method;
  bool answered;
  bool keeps_open; /* set by the handler: its connection outlives a drain */
  int status_code;
  uint64_t began_ns;
  uint64_t body_bytes; /* to send: 0 for HEAD */
  uint64_t body_sent;

  /* the server's own */
  struct list_node node;
  bool is_last; /* the connection ends after it */
  uint32_t head_bytes, head_sent;
  struct http_document *document;
  uint64_t document_offset;
  void (*next_piece)(struct http_exchange *exchange, struct http_piece *piece_out);
  struct http_piece piece; /* what is left of the current one */
  struct http_account *account;
  char head[HTTP_HEAD_BYTES];
  /* The handler's own state; see http_exchange_store. */
  _Alignas(16) unsigned char store[HTTP_STORE_BYTES];
};

static inline void *http_exchange_store(struct http_exchange *exchange) {
  return exchange->store;
}

/* Once per exchange. Its connection ends after it when the answer, the request or a drain asks for
 * it. */
void http_exchange_answer(struct http_exchange *exchange, const struct http_answer *answer);
/* Answers {"error":{...}} with the status table's HTTP status, or with `native` when that is an
 * HTTP status (408..431). */
void http_exchange_fail(struct http_exchange *exchange, const struct sprout_error *error);
/* The same with more headers: of *answer only allow, retry_after_s, challenge, partial, range_total
 * and close are read. */
void http_exchange_fail_with(struct http_exchange *exchange, const struct sprout_error *error,
                             const struct http_answer *answer);
/* Breaks the connection now: nothing more is sent on it. */
void http_exchange_abort(struct http_exchange *exchange);
/* "1.2.3.4:567" of the client. */
const char *http_exchange_peer(const struct http_exchange *exchange);

struct http_server_options {
  struct reactor *reactor;
  struct http_pace *pace; /* outlives the server; NULL: no pieces are ever sent */
  struct address address;
  uint32_t max_connections;
  /* 0: those of core/limits.h */
  uint32_t header_timeout_ms, idle_timeout_ms, send_timeout_ms;
  void *context;
  void (*handle)(void *context, struct http_exchange *exchange);
  /* Called at the end of each exchange, for metrics; may be NULL. status_code is 0 when the
   * connection broke before the answer. */
  void (*observe)(void *context, const struct http_exchange *exchange, uint64_t now_ns);
  /* A limit was hit: name of its row in core/limits.h; may be NULL. */
  void (*limit_hit)(void *context, const char *limit);
};

struct http_server_stats {
  uint32_t active; /* with a request begun or not answered whole */
  uint32_t idle;
  uint64_t accepted, refused;
};

/* Binds and listens; blocks shortly. SPROUT_INVALID says which address and why. */
SPROUT_MUST_CHECK enum sprout_status http_server_create(const struct http_server_options *options,
                                                        struct http_server **server_out,
                                                        struct sprout_error *error);
/* Begins to accept. Reactor's thread, like all that follows. */
void http_server_start(struct http_server *server);
/* Where it listens (the port that was picked). */
const struct address *http_server_address(const struct http_server *server);
/* Requests whose answer has not left whole. */
uint32_t http_server_exchanges(const struct http_server *server);
void http_server_stats_get(const struct http_server *server, struct http_server_stats *stats_out);
/*
 * Breaks every connection on which an answer made of pieces has not left whole. When this returns
 * no byte of a piece is read for a socket any more, also by operations that the kernel still has;
 * what a socket took before was copied. So the client has either the whole body as it was, or one
 * that ends early. Never waits for a peer. (Pieces with a descriptor never change, and may still be
 * on their way.)
 */
void http_server_break_pieces(struct http_server *server);
/* Every further answer ends its connection, and idle ones end now, but for connections of which an
 * exchange had keeps_open. Accepting goes on: probes must see the state. */
void http_server_drain(struct http_server *server);
/* Stops accepting and closes every connection. `stopped` is called when nothing is in flight; then
 * destroy. */
void http_server_stop(struct http_server *server, void (*stopped)(void *context), void *context);
/* Stopped before, or never started. NULL is allowed. */
void http_server_destroy(struct http_server *server);
#endif
