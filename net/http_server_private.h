/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the HTTP server: shared by net/http_server*.c alone.
 *
 * http_server.c      listener, limits, start and stop
 * http_connection.c  one connection's life: receive, parse, time-outs, close
 * http_output.c      its way out
 * http_answer.c      exchanges, heads, documents
 */
#ifndef NET_HTTP_SERVER_PRIVATE_H
#define NET_HTTP_SERVER_PRIVATE_H

#include "core/limits.h"
#include "net/http_server.h"

#define OUTPUT_IOV_MAX 32

enum connection_state {
  CONNECTION_OPEN,      /* waits for requests, answers them */
  CONNECTION_FINISHING, /* takes no further request; waits until what is pending was answered */
  CONNECTION_LINGERING, /* all sent and our side shut; waits for the peer's end, discards input */
  CONNECTION_CLOSING,   /* waits for its operations in flight, then for the descriptor's close */
  CONNECTION_CLOSED     /* nothing in flight; freed in this tick */
};

enum output_state {
  OUTPUT_IDLE,    /* nothing answered is pending; waits for the handler */
  OUTPUT_WAITING, /* has pieces to send; waits for its turn in the pace */
  OUTPUT_POLLING, /* had its turn; waits until the ring reports the socket writable */
  OUTPUT_SENDING  /* a gathering send is in the ring */
};

struct http_connection {
  struct http_server *server;
  struct list_node node; /* in the server's connections */
  int fd;
  enum connection_state state;
  enum output_state output;
  bool kept;    /* outlives a drain */
  bool refused; /* beyond the connection limit: told so and closed */
  struct http_parser *parser;
  struct ring_op receive;
  struct ring_op out; /* poll or gathering send */
  struct ring_op close;
  struct timer timer;
  struct deferred advance;    /* see connection_wake */
  struct list_node exchanges; /* in order of requests; the first is being answered */
  struct list_node done;      /* sent whole; `ended` is called in the next step */
  uint32_t exchange_count;    /* in exchanges */
  bool continued;      /* "100 Continue" was answered to the message that is being received */
  bool peer_ended;     /* it sends no more: nobody waits for late answers */
  unsigned char *held; /* input that came while no request could be taken; usually NULL */
  size_t held_bytes;
  uint64_t began_ns;    /* of the message that is being received; 0: none */
  uint64_t idle_ns;     /* since when there is nothing to do */
  uint64_t progress_ns; /* when the peer last took bytes */
  uint64_t discarded_bytes;
  struct http_sender sender;
  struct iovec iov[OUTPUT_IOV_MAX];
  struct address peer;
  char peer_text[ADDRESS_TEXT_BYTES];
};

struct http_server {
  struct http_server_options options;
  struct address address; /* as bound */
  int fd;
  struct ring_op accept;
  struct timer accept_timer; /* out of descriptors: try again */
  bool started, accepting, draining, stopping;
  struct list_node connections;
  uint32_t connection_count, refused_count;
  struct list_node spare_exchanges;
  uint32_t spare_count;
  uint32_t exchange_count;
  uint64_t accepted, refused_total;
  struct deferred check_stopped;
  void (*stopped)(void *context);
  void *stopped_context;
};

/* http_server.c */
void server_limit_hit(struct http_server *server, const char *limit);
/* The connection was freed: descriptors may be there again, or the server stopped. */
void server_connection_gone(struct http_server *server, bool refused);

/* http_connection.c */
/* Takes over fd; on failure it is closed. `refused`: answers 503 and closes. */
void connection_create(struct http_server *server, int fd, bool refused);
/* Nothing more is sent; exchanges end with whole == false. Harmless when it closes already. */
void connection_close(struct http_connection *connection);
/* Takes no further request; closes when all is answered. */
void connection_finish(struct http_connection *connection);
/* An answer was given or sent: goes on in a later step of this tick. */
void connection_wake(struct http_connection *connection);
/* The first exchange was sent whole. */
void connection_exchange_done(struct http_connection *connection);
static inline struct http_exchange *connection_first(struct http_connection *connection) {
  if (list_empty(&connection->exchanges)) return NULL;
  return container_of(connection->exchanges.next, struct http_exchange, node);
}

/* http_output.c */
void output_init(struct http_connection *connection);
/* Starts sending when something is pending and nothing is on its way. */
void output_push(struct http_connection *connection);
void output_cancel(struct http_connection *connection);

/* http_answer.c */
struct http_exchange *exchange_create(struct http_connection *connection,
                                      const struct http_message *request);
/* "100 Continue": no answer to a request, but in line with the others. */
void exchange_answer_interim(struct http_exchange *exchange);
/* Calls `ended`, gives the exchange back. */
void exchange_end(struct http_exchange *exchange, bool whole);
void exchange_free_spares(struct http_server *server);
#endif
