/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the HTTP client. http_client.c holds the connection's life and the sending,
 * http_client_receive.c the answers.
 */
#ifndef NET_HTTP_CLIENT_INTERNAL_H
#define NET_HTTP_CLIENT_INTERNAL_H

#include "net/http_client.h"
#include "net/http_parser.h"

#define SEND_IOV 64u

enum client_state {
  CLIENT_IDLE,       /* no socket: the first flush connects */
  CLIENT_CONNECTING, /* waits for the connect */
  CLIENT_OPEN,       /* sends and receives as calls ask */
  CLIENT_RENEWING,   /* the peer ended an idle connection: waits for its operations, then connects
                        anew */
  CLIENT_FAILED,     /* waits for its operations, then gives calls back; refuses new ones */
  CLIENT_CLOSING     /* the same, then calls closed */
};

enum answer_state {
  ANSWER_HEAD, /* waits for the head of the first waiting call's answer */
  ANSWER_SINK, /* its body lands in the sink */
  ANSWER_BODY  /* its body is buffered */
};

struct http_client {
  struct reactor *reactor;
  struct http_client_options options;
  enum client_state state;
  enum answer_state answer;
  int fd;
  struct http_parser *parser;
  struct ring_op connect_op, send_op, receive_op;
  struct iovec send_iov[SEND_IOV];
  struct list_node unsent;  /* not sent whole */
  struct list_node waiting; /* sent, in order; the first is being answered */
  uint32_t pending;
  unsigned char *input;
  uint32_t input_begin, input_end;
  unsigned char *body;
  uint64_t body_bytes, body_used, body_capacity;
  bool keep_alive;
  bool answered; /* this connection has answered a call: it may be renewed once it ends between
                    answers */
  struct sprout_error error; /* why it failed */
  struct deferred settle;    /* gives back calls and ends phases outside of callers */
  void (*closed)(void *context);
  void *closed_context;
};

/* Enters FAILED: the calls are given back when nothing is in flight any more. */
void http_client_fail(struct http_client *client, enum sprout_status status, int native,
                      const char *what);
/* The connection ended. Between two answers that is a server's right (an idle time-out): unanswered
 * calls are sent again on a new one. All calls of this program may be repeated. */
void http_client_lose(struct http_client *client, int native, const char *what);
/* True when the completion belongs to a connection that has ended. */
bool http_client_ended(struct http_client *client);
void http_client_finish_call(struct http_client *client, struct http_call *call,
                             const struct sprout_error *error);

/* Uses up the input, then arms the next receive while an answer is awaited. */
void http_client_advance(struct http_client *client);
/* The receive's completion. */
void http_client_received(struct ring_op *op);
#endif
