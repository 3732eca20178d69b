/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking helpers of the public interface: one request to a seed over a reactor of their own, and
 * manifests for callers.
 */
#include "core/limits.h"
#include "core/region.h"
#include "net/auth.h"
#include "net/http_client.h"
#include "net/http_request.h"
#include "sprout/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_TIMEOUT_NS 10000000000ull
#define INPUT_BYTES 16384u

struct sprout_manifest {
  struct manifest *manifest;
};

/* One request and where its answer goes. */
struct fetch {
  struct reactor *reactor;
  struct http_client *client;
  struct http_call call;
  struct wire_buffer request;
  struct timer timer;
  struct sprout_error *error;
  enum sprout_status status;
  bool answered, timed_out, closed;
  unsigned char *body; /* NUL-terminated copy */
  size_t body_bytes;
};

static void take_body(struct fetch *fetch, const struct http_call *call) {
  if (call->status_code != 200) {
    wire_error_decode_json(call->body, call->body_bytes, call->status_code, fetch->error);
    fetch->status = fetch->error->status;
    return;
  }
  fetch->body = malloc(call->body_bytes + 1);
  fetch->status = fetch->body ? SPROUT_OK : SPROUT_NO_MEMORY;
  if (!fetch->body) {
    sprout_error_set(fetch->error, SPROUT_NO_MEMORY, 0, NULL, "no memory for the answer");
    return;
  }
  if (call->body_bytes > 0) memcpy(fetch->body, call->body, call->body_bytes);
  fetch->body[call->body_bytes] = 0;
  fetch->body_bytes = call->body_bytes;
}

static void answered(struct http_call *call, const struct sprout_error *error) {
  struct fetch *fetch = container_of(call, struct fetch, call);
  fetch->answered = true;
  if (error->status == SPROUT_OK) {
    take_body(fetch, call);
  } else {
    *fetch->error = *error;
    fetch->status = error->status;
  }
}

static void timer_fired(struct timer *timer) {
  container_of(timer, struct fetch, timer)->timed_out = true;
}

static void client_closed(void *context) {
  ((struct fetch *)context)->closed = true;
}

/* Asks one address; leaves nothing in flight. */
static void ask(struct fetch *fetch, const struct address *address, const char *url,
                uint64_t deadline_ns) {
  struct http_client_options options = {
      .address = *address, .name = url, .input_bytes = INPUT_BYTES};
  fetch->answered = fetch->timed_out = fetch->closed = false;
  fetch->status = http_client_create(fetch->reactor, &options, &fetch->client);
  if (fetch->status != SPROUT_OK) {
    sprout_error_set(fetch->error, fetch->status, 0, NULL, "no memory for a connection");
    return;
  }
  http_client_call(fetch->client, &fetch->call);
  http_client_flush(fetch->client);
  reactor_timer_start(fetch->reactor, &fetch->timer, deadline_ns);
  while (!fetch->answered && !fetch->timed_out) reactor_tick(fetch->reactor, UINT64_MAX);
  reactor_timer_stop(fetch->reactor, &fetch->timer);
  http_client_close(fetch->client, SPROUT_CANCELLED, client_closed, fetch);
  while (!fetch->closed) reactor_tick(fetch->reactor, UINT64_MAX);
  http_client_destroy(fetch->client);
  if (!fetch->timed_out) return;
  fetch->status = sprout_error_set(fetch->error, SPROUT_TIMEOUT, 0,
                                   "Is it stopped, or is something else listening there?",
                                   "%s did not answer in time", url);
}

static void ask_all(struct fetch *fetch, const struct url *url, const char *text,
                    uint64_t timeout_ns) {
  struct address addresses[ADDRESS_MAX];
  size_t count;
  fetch->status = address_resolve(url->host, url->port, false, addresses, &count, fetch->error);
  if (fetch->status != SPROUT_OK) return;
  uint64_t deadline_ns = reactor_now(fetch->reactor) + timeout_ns;
  for (size_t i = 0; i < count; i++) {
    ask(fetch, &addresses[i], text, deadline_ns);
    if (fetch->status != SPROUT_DISCONNECTED) return;
  }
}

static SPROUT_MUST_CHECK enum sprout_status fetch_path(const char *text, const struct url *url,
                                                       const char *path, const char *accept,
                                                       const struct sprout_fetch_options *options,
                                                       struct fetch *fetch) {
  char host[ADDRESS_HOST_BYTES + 8];
  const char *token = options && options->token && options->token[0] ? options->token : NULL;
  if (token && auth_check_token(token, fetch->error) != SPROUT_OK) return SPROUT_INVALID;
  snprintf(host, sizeof host, strchr(url->host, ':') ? "[%s]:%u" : "%s:%u", url->host, url->port);
  struct http_request request = {
      .method = "GET", .target = path, .host = host, .token = token, .accept = accept};
  enum sprout_status status = http_request_build(&request, &fetch->request);
  if (status != SPROUT_OK)
    return sprout_error_set(fetch->error, status, 0, NULL, "no memory for a request");
  fetch->call = (struct http_call){.request = fetch->request.data,
                                   .request_bytes = fetch->request.length_bytes,
                                   .body_limit_bytes = LIMIT_MANIFEST_BYTES,
                                   .done = answered};
  fetch->timer.fired = timer_fired;
  struct reactor_options reactor_options = {.workers = 1};
  status = reactor_create(&reactor_options, &fetch->reactor, fetch->error);
  if (status == SPROUT_OK) {
    ask_all(fetch, url, text,
            options && options->timeout_ns ? options->timeout_ns : DEFAULT_TIMEOUT_NS);
    status = fetch->status;
    reactor_destroy(fetch->reactor);
  }
  wire_buffer_destroy(&fetch->request);
  return status;
}

/* The manifest of a local directory, laid out as a seed would. */
static SPROUT_MUST_CHECK enum sprout_status
open_directory(const char *path, struct manifest **manifest_out, struct sprout_error *error) {
  struct model_options options = {
      .paths = &path, .path_count = 1, .rank = "", .label = "", .memory = MODEL_MEMORY_FILE};
  struct model *model;
  enum sprout_status status = model_open(&options, &model, error);
  if (status != SPROUT_OK) return status;
  *manifest_out = model->manifest;
  model->manifest = NULL;
  model_destroy(model);
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status
fetch_manifest(const char *text, const struct url *url, const struct sprout_fetch_options *options,
               struct manifest **manifest_out, struct sprout_error *error) {
  struct fetch fetch = {.error = error};
  enum sprout_status status =
      fetch_path(text, url, "/v1/manifest", WIRE_CONTENT_TYPE, options, &fetch);
  if (status != SPROUT_OK) return status;
  status = wire_manifest_decode(fetch.body, fetch.body_bytes, manifest_out, error);
  free(fetch.body);
  return status;
}

enum sprout_status sprout_manifest_fetch(const char *url,
                                         const struct sprout_fetch_options *options,
                                         struct sprout_manifest **manifest_out,
                                         struct sprout_error *error) {
  struct sprout_error unasked;
  if (!error) error = &unasked;
  struct url parsed;
  enum sprout_status status = url_parse(url, &parsed, error);
  if (status != SPROUT_OK) return status;
  struct sprout_manifest *public_manifest = calloc(1, sizeof *public_manifest);
  if (!public_manifest)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a manifest");
  status = parsed.kind == URL_FILE
               ? open_directory(parsed.path, &public_manifest->manifest, error)
               : fetch_manifest(url, &parsed, options, &public_manifest->manifest, error);
  if (status != SPROUT_OK) {
    free(public_manifest);
    return status;
  }
  *manifest_out = public_manifest;
  return SPROUT_OK;
}

enum sprout_status sprout_json_fetch(const char *url, const char *path,
                                     const struct sprout_fetch_options *options, char **json_out,
                                     struct sprout_error *error) {
  struct sprout_error unasked;
  if (!error) error = &unasked;
  struct url parsed;
  enum sprout_status status = url_parse(url, &parsed, error);
  if (status != SPROUT_OK) return status;
  if (parsed.kind != URL_HTTP) {
    return sprout_error_set(error, SPROUT_INVALID, 0,
                            "Name a running seed, e.g. http://127.0.0.1:7117.",
                            "%s is not the URL of a seed", url);
  }
  struct fetch fetch = {.error = error};
  status = fetch_path(url, &parsed, path, "application/json", options, &fetch);
  if (status == SPROUT_OK) *json_out = (char *)fetch.body;
  return status;
}

void sprout_json_free(char *json) {
  free(json);
}

void sprout_manifest_destroy(struct sprout_manifest *manifest) {
  if (!manifest) return;
  manifest_destroy(manifest->manifest);
  free(manifest);
}

void sprout_manifest_info(const struct sprout_manifest *manifest,
                          struct sprout_manifest_info *info_out) {
  const struct manifest *inner = manifest->manifest;
  *info_out = (struct sprout_manifest_info){.id = inner->id,
                                            .model = inner->identity.model,
                                            .rank = inner->identity.rank,
                                            .label = inner->version.label,
                                            .generation = inner->version.generation,
                                            .object_count = inner->object_count,
                                            .file_count = inner->file_count,
                                            .total_bytes = inner->total_bytes};
}

enum sprout_status sprout_manifest_object(const struct sprout_manifest *manifest, uint32_t index,
                                          struct sprout_object_info *info_out) {
  const struct manifest *inner = manifest->manifest;
  if (index >= inner->object_count) return SPROUT_RANGE;
  const struct manifest_object *object = &inner->objects[index];
  *info_out = (struct sprout_object_info){
      .name = object->name,
      .file = object->file == MANIFEST_NONE ? "" : inner->files[object->file].path,
      .kind = object->kind,
      .dtype = object->dtype,
      .rank = object->rank,
      .length_bytes = object->length_bytes};
  memcpy(info_out->shape, object->shape, sizeof info_out->shape);
  return SPROUT_OK;
}

enum sprout_status sprout_manifest_file(const struct sprout_manifest *manifest, uint32_t index,
                                        struct sprout_file_info *info_out) {
  const struct manifest *inner = manifest->manifest;
  if (index >= inner->file_count) return SPROUT_RANGE;
  const struct manifest_file *file = &inner->files[index];
  *info_out = (struct sprout_file_info){.path = file->path,
                                        .length_bytes = file->length_bytes,
                                        .first_object = file->first_object,
                                        .object_count = file->object_count,
                                        .executable = file->executable};
  return SPROUT_OK;
}
