/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exchanges, heads and documents.
 */
#include "net/http_server_private.h"

#include "core/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Kept for the next requests: enough for a few busy connections. */
#define SPARE_EXCHANGES_MAX 1024u

/* --- documents --- */

struct http_document *http_document_create(struct wire_buffer *buffer) {
  struct http_document *document = calloc(1, sizeof(*document));
  if (document == NULL) {
    wire_buffer_destroy(buffer);
    return NULL;
  }
  document->references = 1;
  document->length_bytes = buffer->length_bytes;
  document->data = buffer->data;
  *buffer = (struct wire_buffer){0};
  return document;
}

struct http_document *http_document_hold(struct http_document *document) {
  document->references++;
  return document;
}

void http_document_release(struct http_document *document) {
  if (document == NULL || --document->references > 0) return;
  free(document->data);
  free(document);
}

/* --- exchanges --- */

struct http_exchange *exchange_create(struct http_connection *connection,
                                      const struct http_message *request) {
  struct http_server *server = connection->server;
  struct list_node *node = list_take(&server->spare_exchanges);
  struct http_exchange *exchange = NULL;
  if (node != NULL) {
    server->spare_count--;
    exchange = container_of(node, struct http_exchange, node);
    /* Head and store, its larger part, are written before they are read. */
    memset(exchange, 0, offsetof(struct http_exchange, head));
  } else {
    exchange = calloc(1, sizeof(*exchange));
    if (exchange == NULL) return NULL;
  }
  server->exchange_count++;
  list_init(&exchange->node);
  exchange->connection = connection;
  exchange->method = request != NULL ? request->method : HTTP_METHOD_OTHER;
  exchange->route = "none";
  exchange->began_ns = reactor_now(server->options.reactor);
  return exchange;
}

void exchange_end(struct http_exchange *exchange, bool whole) {
  struct http_server *server = exchange->connection->server;
  server->exchange_count--;
  if (exchange->status_code != 100 && server->options.observe != NULL)
    server->options.observe(server->options.context, exchange,
                            reactor_now(server->options.reactor));
  if (exchange->ended != NULL) exchange->ended(exchange, whole);
  http_document_release(exchange->document);
  if (server->spare_count >= SPARE_EXCHANGES_MAX) {
    free(exchange);
    return;
  }
  list_append(&server->spare_exchanges, &exchange->node);
  server->spare_count++;
}

void exchange_free_spares(struct http_server *server) {
  struct list_node *node;
  while ((node = list_take(&server->spare_exchanges)) != NULL)
    free(container_of(node, struct http_exchange, node));
  server->spare_count = 0;
}

void http_exchange_abort(struct http_exchange *exchange) {
  connection_close(exchange->connection);
}

const char *http_exchange_peer(const struct http_exchange *exchange) {
  return exchange->connection->peer_text;
}

/* --- heads --- */

static const char *phrase_of(int status_code) {
  static const struct {
    int code;
    const char *phrase;
  } phrases[] = {{200, "OK"},
                 {201, "Created"},
                 {202, "Accepted"},
                 {204, "No Content"},
                 {206, "Partial Content"},
                 {304, "Not Modified"},
                 {400, "Bad Request"},
                 {401, "Unauthorized"},
                 {404, "Not Found"},
                 {405, "Method Not Allowed"},
                 {408, "Request Timeout"},
                 {409, "Conflict"},
                 {410, "Gone"},
                 {413, "Content Too Large"},
                 {414, "URI Too Long"},
                 {416, "Range Not Satisfiable"},
                 {417, "Expectation Failed"},
                 {425, "Too Early"},
                 {429, "Too Many Requests"},
                 {431, "Request Header Fields Too Large"},
                 {500, "Internal Server Error"},
                 {501, "Not Implemented"},
                 {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"}};
  for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++)
    if (phrases[i].code == status_code) return phrases[i].phrase;
  return "Status";
}

/* Appends; a head that does not fit is a bug: all parts are bounded. */
static void SPROUT_PRINTF(2, 3) add_line(struct http_exchange *exchange, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  uint32_t room = HTTP_HEAD_BYTES - exchange->head_bytes;
  int length = vsnprintf(exchange->head + exchange->head_bytes, room, format, arguments);
  va_end(arguments);
  assert(length >= 0 && (uint32_t)length < room);
  exchange->head_bytes += (uint32_t)length;
}

/* RFC 9110 5.6.7; not strftime: the host program may have set another language. */
static void add_date(struct http_exchange *exchange) {
  static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  struct tm date;
  time_t now = time(NULL);
  if (gmtime_r(&now, &date) == NULL) return;
  add_line(exchange, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", days[date.tm_wday],
           date.tm_mday, months[date.tm_mon], date.tm_year + 1900, date.tm_hour, date.tm_min,
           date.tm_sec);
}

static void add_content(struct http_exchange *exchange, const struct http_answer *answer) {
  bool has_body = answer->status_code != 204 && answer->status_code != 304;
  if (has_body && answer->content_type != NULL)
    add_line(exchange, "Content-Type: %s\r\n", answer->content_type);
  if (has_body) add_line(exchange, "Content-Length: %" PRIu64 "\r\n", answer->body_bytes);
  if (answer->partial && answer->status_code == 416)
    add_line(exchange, "Content-Range: bytes */%" PRIu64 "\r\n", answer->range_total);
  else if (answer->partial)
    add_line(exchange, "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n",
             answer->range_offset, answer->range_offset + answer->body_bytes - 1,
             answer->range_total);
}

static void build_head(struct http_exchange *exchange, const struct http_answer *answer) {
  exchange->head_bytes = 0;
  add_line(exchange, "HTTP/1.1 %d %s\r\n", answer->status_code, phrase_of(answer->status_code));
  add_date(exchange);
  add_content(exchange, answer);
  if (answer->etag != NULL) add_line(exchange, "ETag: %s\r\n", answer->etag);
  if (answer->accept_ranges) add_line(exchange, "Accept-Ranges: bytes\r\n");
  if (answer->allow != NULL) add_line(exchange, "Allow: %s\r\n", answer->allow);
  if (answer->challenge) add_line(exchange, "WWW-Authenticate: Bearer realm=\"sprout\"\r\n");
  if (answer->retry_after_s != 0)
    add_line(exchange, "Retry-After: %" PRIu32 "\r\n", answer->retry_after_s);
  if (exchange->is_last) add_line(exchange, "Connection: close\r\n");
  add_line(exchange, "\r\n");
}

/* --- answers --- */

void exchange_answer_interim(struct http_exchange *exchange) {
  exchange->answered = true;
  exchange->status_code = 100;
  add_line(exchange, "HTTP/1.1 100 Continue\r\n\r\n");
  connection_wake(exchange->connection);
}

/* An answer behind which others wait cannot be the last. */
static bool ends_by_drain(const struct http_exchange *exchange) {
  const struct http_connection *connection = exchange->connection;
  return connection->server->draining && !connection->kept && !exchange->keeps_open &&
         exchange->node.next == &connection->exchanges;
}

void http_exchange_answer(struct http_exchange *exchange, const struct http_answer *answer) {
  struct http_connection *connection = exchange->connection;
  assert(!exchange->answered);
  if (answer->close || ends_by_drain(exchange)) {
    exchange->is_last = true;
    connection_finish(connection);
  }
  build_head(exchange, answer);
  exchange->answered = true;
  exchange->status_code = answer->status_code;
  if (answer->body_bytes > 0 && exchange->method != HTTP_METHOD_HEAD) {
    exchange->body_bytes = answer->body_bytes;
    exchange->next_piece = answer->next_piece;
    exchange->account = answer->account;
    exchange->document_offset = answer->document_offset;
    if (answer->document != NULL) exchange->document = http_document_hold(answer->document);
    assert((answer->document != NULL) != (answer->next_piece != NULL));
  }
  connection_wake(connection);
}

/* The table's HTTP status; the parser knows some more exactly. */
static int http_status_of(const struct sprout_error *error) {
  if (error->native >= 400 && error->native < 600) return error->native;
  return sprout_status_info_of(error->status)->http_status;
}

void http_exchange_fail_with(struct http_exchange *exchange, const struct sprout_error *error,
                             const struct http_answer *answer) {
  struct wire_buffer text = {0};
  struct http_document *document = NULL;
  if (wire_error_encode_json(error, &text) == SPROUT_OK) document = http_document_create(&text);
  struct http_answer full = {.status_code = http_status_of(error),
                             .content_type = "application/json",
                             .allow = answer->allow,
                             .retry_after_s = answer->retry_after_s,
                             .challenge = answer->challenge,
                             .partial = answer->partial,
                             .range_total = answer->range_total,
                             .close = answer->close,
                             .document = document,
                             .body_bytes = document != NULL ? document->length_bytes : 0};
  log_write(LOG_DEBUG, "http", "%s: %d %s: %s", exchange->connection->peer_text, full.status_code,
            sprout_status_info_of(error->status)->name, error->message);
  http_exchange_answer(exchange, &full);
  http_document_release(document);
}

void http_exchange_fail(struct http_exchange *exchange, const struct sprout_error *error) {
  struct http_answer none = {0};
  http_exchange_fail_with(exchange, error, &none);
}
