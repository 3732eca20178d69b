/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes, metrics, and the help text.
 */
#include "net/prometheus.h"
#include "net/routes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_PLAIN "text/plain; charset=utf-8"
#define HELP_BYTES 8192

static void answer_text(struct http_exchange *exchange, int status_code, const char *text) {
  struct wire_buffer buffer = {0};
  enum sprout_status status = SPROUT_NO_MEMORY;
  size_t length = strlen(text);
  buffer.data = malloc(length + 1);
  if (buffer.data != NULL) {
    memcpy(buffer.data, text, length + 1);
    buffer.length_bytes = length;
    buffer.capacity_bytes = length + 1;
    status = SPROUT_OK;
  }
  route_answer_bytes(exchange, status_code, TEXT_PLAIN, status, &buffer);
}

void route_livez(struct route_call *call) {
  answer_text(call->exchange, 200, "ok\n");
}

void route_readyz(struct route_call *call) {
  const struct sprout_seed *seed = call->seed;
  if (seed_is_ready(seed)) {
    answer_text(call->exchange, 200, "ready\n");
    return;
  }
  route_fail(call, SPROUT_UNAVAILABLE, "Ask another seed.",
             seed->draining   ? "the seed is draining"
             : seed->updating ? "the seed's bytes are being changed"
                              : "the seed is not ready yet");
}

void route_metrics(struct route_call *call) {
  struct wire_buffer text = {0};
  seed_metrics_refresh(call->seed);
  enum sprout_status status = prometheus_render(call->seed->stats, &text);
  route_answer_bytes(call->exchange, 200, "text/plain; version=0.0.4; charset=utf-8", status,
                     &text);
}

/* Appends as much as fits: the help is bounded by HELP_BYTES. */
static void SPROUT_PRINTF(3, 4) add(char text[HELP_BYTES], size_t *used, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text + *used, HELP_BYTES - *used, format, arguments);
  va_end(arguments);
  if (length > 0) *used += (size_t)length;
  if (*used >= HELP_BYTES) *used = HELP_BYTES - 1;
}

void route_help(struct route_call *call) {
  static const struct {
    const char *options, *path, *meaning;
  } rows[] = {
      {"", "/livez", "alive"},
      {"", "/readyz", "ready for forks"},
      {"", "/metrics", "Prometheus metrics"},
      {"", "/v1/status", "the seed in figures"},
      {"", "/v1/manifests", "the models that are served here"},
      {"", "/v1/manifest", "objects and files (?model=&rank=)"},
      {"-H 'Accept: application/msgpack' ", "/v1/manifest", "the same in binary"},
      {"", "/v1/manifests/ID/digests?from=0&count=16", "XXH3-128 of 4 MiB chunks"},
      {"", "/v1/forks", "forks that run, wait, or ended lately"},
      {"-O ", "/v1/files/PATH", "a file (Range, ETag)"},
      {"-r 0-1023 -O ", "/v1/objects/NAME", "a part of a tensor (?file=PATH when ambiguous)"},
  };
  const struct sprout_seed *seed = call->seed;
  char text[HELP_BYTES], address[ADDRESS_TEXT_BYTES];
  size_t used = 0;
  (void)address_format(http_server_address(seed->server), address, sizeof(address));
  const char *token = auth_required(seed->auth) ? "-H \"Authorization: Bearer $TOKEN\" " : "";
  add(text, &used, "sprout seed: %s (%llu bytes, %u objects, %u files)\n\n",
      seed->model->manifest->identity.model, (unsigned long long)seed->model->manifest->total_bytes,
      seed->model->manifest->object_count, seed->model->manifest->file_count);
  add(text, &used, "fork it:\n  sprout fork http://%s DIRECTORY\n\nlook at it:\n", address);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    add(text, &used, "  curl %s%s'http://%s%s'\n      %s\n", token, rows[i].options, address,
        rows[i].path, rows[i].meaning);
  add(text, &used,
      "\nforks (msgpack): POST /v1/forks, PATCH and DELETE /v1/forks/ID, "
      "POST /v1/forks/ID/read,\n  GET /v1/forks/ID/placement, POST /v1/manifests/ID/digests\n");
  answer_text(call->exchange, 200, text);
}
