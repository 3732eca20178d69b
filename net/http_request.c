/* SPDX-License-Identifier: Apache-2.0 */
#include "net/http_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_head(const struct http_request *request, char *text, size_t room) {
  char length[64] = "";
  if (request->body)
    snprintf(length, sizeof length, "Content-Length: %zu\r\n", request->body_bytes);
  bool typed = request->body && request->content_type;
  return snprintf(text, room, "%s %s HTTP/1.1\r\nHost: %s\r\n%s%s%s%s%s%s%s%s%s%s\r\n",
                  request->method, request->target, request->host,
                  request->token ? "Authorization: Bearer " : "",
                  request->token ? request->token : "", request->token ? "\r\n" : "",
                  request->accept ? "Accept: " : "", request->accept ? request->accept : "",
                  request->accept ? "\r\n" : "", typed ? "Content-Type: " : "",
                  typed ? request->content_type : "", typed ? "\r\n" : "", length);
}

enum sprout_status http_request_build(const struct http_request *request,
                                      struct wire_buffer *buffer) {
  int head = print_head(request, NULL, 0);
  if (head < 0) return SPROUT_INTERNAL;
  size_t needed = (size_t)head + 1 + request->body_bytes;
  if (needed > buffer->capacity_bytes) {
    unsigned char *grown = realloc(buffer->data, needed);
    if (!grown) return SPROUT_NO_MEMORY;
    buffer->data = grown;
    buffer->capacity_bytes = needed;
  }
  print_head(request, (char *)buffer->data, (size_t)head + 1);
  if (request->body_bytes > 0) memcpy(buffer->data + head, request->body, request->body_bytes);
  buffer->length_bytes = (size_t)head + request->body_bytes;
  return SPROUT_OK;
}
