/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of routes: matching, authentication, and the answers that many handlers give.
 */
#include "net/routes.h"

#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGUMENT_BYTES (LIMIT_NAME_BYTES + 1)

#define ROW(method, pattern, access, handler)                                                      \
  { HTTP_METHOD_##method, pattern, ROUTE_##access, route_##handler }

static const struct route table[] = {
    ROW(GET, "/", TOKEN, help),
    ROW(GET, "/livez", PROBE, livez),
    ROW(GET, "/readyz", PROBE, readyz),
    ROW(GET, "/metrics", METRICS, metrics),
    ROW(GET, "/v1/status", TOKEN, status),
    ROW(GET, "/v1/manifests", TOKEN, manifests),
    ROW(GET, "/v1/manifest", TOKEN, manifest),
    ROW(GET, "/v1/manifests/{id}", TOKEN, manifest_by_id),
    ROW(GET, "/v1/manifests/{id}/digests", TOKEN, digests),
    ROW(POST, "/v1/manifests/{id}/digests", TOKEN, digests_wanted),
    ROW(GET, "/v1/forks", TOKEN, forks),
    ROW(POST, "/v1/forks", TOKEN, fork_open),
    ROW(GET, "/v1/forks/{id}", TOKEN, fork),
    ROW(PATCH, "/v1/forks/{id}", TOKEN, fork_heartbeat),
    ROW(DELETE, "/v1/forks/{id}", TOKEN, fork_close),
    ROW(POST, "/v1/forks/{id}/read", TOKEN, read),
    ROW(GET, "/v1/forks/{id}/placement", TOKEN, placement),
    ROW(GET, "/v1/objects/{name}", TOKEN, object),
    ROW(GET, "/v1/files/{path}", TOKEN, file),
};

#define TABLE_ROWS (sizeof(table) / sizeof(table[0]))

static const char *const method_names[] = {"GET",   "HEAD",   "POST", "PUT",
                                           "PATCH", "DELETE", "OTHER"};

/* --- usual answers --- */

void route_fail(struct route_call *call, enum sprout_status status, const char *hint,
                const char *format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  struct sprout_error error;
  (void)sprout_error_set(&error, status, 0, hint, "%s", message);
  struct http_answer answer = {.challenge = status == SPROUT_DENIED};
  if (sprout_status_info_of(status)->http_status == 429 || status == SPROUT_UNAVAILABLE)
    answer.retry_after_s = 1;
  http_exchange_fail_with(call->exchange, &error, &answer);
}

void route_answer_bytes(struct http_exchange *exchange, int status_code, const char *content_type,
                        enum sprout_status status, struct wire_buffer *buffer) {
  struct http_document *document = NULL;
  if (status == SPROUT_OK)
    document = http_document_create(buffer);
  else
    wire_buffer_destroy(buffer);
  if (document == NULL) {
    struct sprout_error error;
    (void)sprout_error_set(&error, status == SPROUT_OK ? SPROUT_NO_MEMORY : status, 0, "Try again.",
                           "the answer could not be made");
    http_exchange_fail(exchange, &error);
    return;
  }
  struct http_answer answer = {.status_code = status_code,
                               .content_type = content_type,
                               .document = document,
                               .body_bytes = document->length_bytes};
  http_exchange_answer(exchange, &answer);
  http_document_release(document);
}

void route_answer_json(struct http_exchange *exchange, int status_code, json_t *value) {
  struct wire_buffer text = {0};
  enum sprout_status status = json_text_encode(value, &text);
  route_answer_bytes(exchange, status_code, "application/json", status, &text);
}

bool route_wants_msgpack(const struct http_message *request) {
  const char *accept = request->headers[HTTP_HEADER_ACCEPT];
  return accept != NULL && strstr(accept, WIRE_CONTENT_TYPE) != NULL;
}

bool route_etag_matches(const char *header, const char *etag) {
  if (header == NULL || etag == NULL) return false;
  return strcmp(header, "*") == 0 || strstr(header, etag) != NULL; /* with its quotes */
}

bool route_query_number(const struct http_message *request, const char *name, uint64_t fallback,
                        uint64_t *value_out) {
  char text[24];
  *value_out = fallback;
  if (!http_query_value(request->query, name, text, sizeof(text))) return true;
  uint64_t value = 0;
  if (text[0] == '\0') return false;
  for (const char *digit = text; *digit != '\0'; digit++) {
    if (*digit < '0' || *digit > '9') return false;
    if (__builtin_mul_overflow(value, 10u, &value) ||
        __builtin_add_overflow(value, (uint64_t)(*digit - '0'), &value))
      return false;
  }
  *value_out = value;
  return true;
}

bool route_answer_content(struct route_call *call, const struct route_content *content,
                          uint64_t *offset_out, uint64_t *length_out) {
  const struct http_message *request = call->request;
  struct http_answer answer = {.status_code = 200,
                               .content_type = content->content_type,
                               .etag = content->etag,
                               .accept_ranges = true,
                               .document = content->document,
                               .next_piece = content->next_piece,
                               .account = content->account,
                               .body_bytes = content->total_bytes};
  *offset_out = 0;
  *length_out = content->total_bytes;
  if (route_etag_matches(request->headers[HTTP_HEADER_IF_NONE_MATCH], content->etag)) {
    answer.status_code = 304;
    answer.body_bytes = 0;
    http_exchange_answer(call->exchange, &answer);
    return false;
  }
  const char *range = request->headers[HTTP_HEADER_RANGE];
  const char *if_range = request->headers[HTTP_HEADER_IF_RANGE];
  if (if_range != NULL && strcmp(if_range, content->etag) != 0) range = NULL;
  if (range != NULL) {
    enum http_range_result result =
        http_range_parse(range, content->total_bytes, offset_out, length_out);
    answer.partial = result != HTTP_RANGE_NONE;
    answer.range_total = content->total_bytes;
    if (result == HTTP_RANGE_UNSATISFIABLE) {
      struct sprout_error error;
      (void)sprout_error_set(&error, SPROUT_RANGE, 0, "Ask for bytes below the total.",
                             "the range lies outside of %llu bytes",
                             (unsigned long long)content->total_bytes);
      http_exchange_fail_with(call->exchange, &error, &answer);
      return false;
    }
    if (result == HTTP_RANGE_OK) {
      answer.status_code = 206;
      answer.range_offset = answer.document_offset = *offset_out;
      answer.body_bytes = *length_out;
    }
  }
  http_exchange_answer(call->exchange, &answer);
  return call->exchange->body_bytes > 0;
}

/* --- matching --- */

/* Copies what stands in the place of "{...}". False when the path is another one, or a part is too
 * long. */
static bool match(const struct route *route, const char *path, char argument_out[ARGUMENT_BYTES]) {
  const char *pattern = route->pattern;
  argument_out[0] = '\0';
  while (*pattern != '\0' && *pattern != '{') {
    if (*pattern++ != *path++) return false;
  }
  if (*pattern == '\0') return *path == '\0';
  /* Names and paths have slashes of their own: they take all that is left. */
  const char *behind = strchr(pattern, '}') + 1;
  bool is_id = strncmp(pattern, "{id}", 4) == 0;
  size_t length = is_id ? strcspn(path, "/") : strlen(path);
  if (length == 0 || length >= ARGUMENT_BYTES) return false;
  memcpy(argument_out, path, length);
  argument_out[length] = '\0';
  return strcmp(behind, path + length) == 0;
}

/* The row for this path and method, or NULL; then *allow_out lists what the path takes, "" when
 * there is no such path. */
static const struct route *find_route(enum http_method method, const char *path,
                                      char argument_out[ARGUMENT_BYTES], char allow_out[64]) {
  size_t used = 0;
  allow_out[0] = '\0';
  if (method == HTTP_METHOD_HEAD) method = HTTP_METHOD_GET;
  for (size_t i = 0; i < TABLE_ROWS; i++) {
    const struct route *route = &table[i];
    if (!match(route, path, argument_out)) continue;
    if (route->method == method) return route;
    used += (size_t)snprintf(allow_out + used, 64 - used, "%s%s%s", used > 0 ? ", " : "",
                             method_names[route->method],
                             route->method == HTTP_METHOD_GET ? ", HEAD" : "");
  }
  return NULL;
}

/* --- authentication --- */

static void refresh_tokens(struct sprout_seed *seed) {
  uint64_t now_ns = reactor_now(seed->reactor);
  if (now_ns - seed->auth_checked_ns < SEED_NS_PER_S) return;
  seed->auth_checked_ns = now_ns;
  auth_refresh(seed->auth);
}

/* True, or answers 401. */
static bool authenticate(struct route_call *call) {
  static const char *const reasons[] = {[AUTH_OK] = "",
                                        [AUTH_MISSING] = "missing",
                                        [AUTH_WRONG] = "wrong",
                                        [AUTH_MALFORMED] = "malformed"};
  static const char *const messages[] = {[AUTH_OK] = "",
                                         [AUTH_MISSING] = "this seed asks for a token",
                                         [AUTH_WRONG] = "the token is not the seed's",
                                         [AUTH_MALFORMED] =
                                             "the Authorization header is malformed"};
  struct sprout_seed *seed = call->seed;
  if (!auth_required(seed->auth)) return true;
  refresh_tokens(seed);
  enum auth_verdict verdict =
      auth_check(seed->auth, call->request->headers[HTTP_HEADER_AUTHORIZATION]);
  if (verdict == AUTH_OK) return true;
  seed_metrics_auth_failure(seed, reasons[verdict]);
  route_fail(call, SPROUT_DENIED,
             "Send the header 'Authorization: Bearer TOKEN' (sprout fork --token-file).", "%s",
             messages[verdict]);
  return false;
}

static bool needs_token(const struct sprout_seed *seed, const struct route *route) {
  if (route == NULL) return true; /* strangers do not learn which routes there are */
  return route->access == ROUTE_TOKEN ||
         (route->access == ROUTE_METRICS && seed->settings.metrics_need_token);
}

/* --- entry --- */

/* Running forks finish while the seed drains: their connections stay. */
static bool belongs_to_fork(const struct route *route) {
  static const char prefix[] = "/v1/forks";
  return route != NULL && strncmp(route->pattern, prefix, sizeof(prefix) - 1) == 0;
}

static void fail_route(struct route_call *call, const char *allow) {
  struct sprout_error error;
  struct http_answer answer = {.allow = allow[0] != '\0' ? allow : NULL};
  if (allow[0] != '\0')
    (void)sprout_error_set(&error, SPROUT_METHOD, 0, allow, "this route does not take %s",
                           method_names[call->request->method]);
  else
    (void)sprout_error_set(&error, SPROUT_NOT_FOUND, 0, "GET / lists the routes.",
                           "there is no such route");
  http_exchange_fail_with(call->exchange, &error, &answer);
}

void routes_handle(void *context, struct http_exchange *exchange) {
  struct route_call call = {.seed = context, .exchange = exchange, .request = exchange->request};
  char argument[ARGUMENT_BYTES], allow[64];
  const struct route *route = find_route(call.request->method, call.request->path, argument, allow);
  exchange->route = route != NULL ? route->pattern : "none";
  if (needs_token(call.seed, route) && !authenticate(&call)) return;
  exchange->keeps_open = belongs_to_fork(route);
  if (route == NULL) {
    fail_route(&call, allow);
    return;
  }
  call.argument = argument;
  route->handle(&call);
}

void routes_handle_admin(void *context, struct http_exchange *exchange) {
  struct route_call call = {.seed = context, .exchange = exchange, .request = exchange->request};
  char argument[ARGUMENT_BYTES], allow[64];
  const struct route *route = find_route(call.request->method, call.request->path, argument, allow);
  if (route == NULL || route->access == ROUTE_TOKEN) {
    fail_route(&call, "");
    return;
  }
  exchange->route = route->pattern;
  call.argument = argument;
  route->handle(&call);
}
