/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Builds a client's HTTP/1.1 request, head and body, in one buffer. Pure.
 */
#ifndef NET_HTTP_REQUEST_H
#define NET_HTTP_REQUEST_H

#include "net/wire.h"

struct http_request {
  const char *method;
  const char *target; /* encoded */
  const char *host;
  const char *token;  /* NULL: none */
  const char *accept; /* NULL: anything */
  const char *content_type;
  const void *body; /* NULL: none */
  size_t body_bytes;
};

/* Replaces the buffer's content, keeping its memory for the next request. */
SPROUT_MUST_CHECK enum sprout_status http_request_build(const struct http_request *request,
                                                        struct wire_buffer *buffer);
#endif
