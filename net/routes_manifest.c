/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests: encoded once per version, sent from memory. The JSON form is built on the worker pool
 * when it is first asked for: with many objects it takes a while. `?after=&wait=` waits for another
 * version, or for the seed to drain. While an update is under way the version that it ends is not
 * handed out any more: who asks waits for the next one, CHANGING_MOST_NS at most.
 */
#include "core/units.h"
#include "net/json_manifest.h"
#include "net/routes.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define WAIT_MOST_NS (60 * SEED_NS_PER_S)
#define CHANGING_MOST_NS (5 * SEED_NS_PER_S)
#define JSON_TYPE "application/json"

/* A request that waits, in the exchange's store. */
struct manifest_wait {
  struct sprout_seed *seed;
  struct http_exchange *exchange;
  struct list_node node; /* in version_waits or in manifest_json.waiting */
  struct timer timer;    /* for a version */
  bool msgpack;
  bool has_none; /* it did not name the version that it has: "not modified" is no answer */
};

static_assert(sizeof(struct manifest_wait) <= HTTP_STORE_BYTES, "fits the exchange's store");

static void make_etag(const struct sprout_seed *seed, bool msgpack,
                      char etag_out[SEED_ETAG_BYTES]) {
  (void)snprintf(etag_out, SEED_ETAG_BYTES, "\"%s%s-%s\"", seed->etag_base,
                 seed->draining ? ".draining" : "", msgpack ? "m" : "j");
}

/* --- waiting --- */

static void wait_ended(struct http_exchange *exchange, bool whole) {
  (void)whole;
  struct manifest_wait *wait = http_exchange_store(exchange);
  list_remove(&wait->node);
  reactor_timer_stop(wait->seed->reactor, &wait->timer);
}

static void hold(struct route_call *call, struct list_node *line, bool msgpack) {
  struct manifest_wait *wait = http_exchange_store(call->exchange);
  *wait =
      (struct manifest_wait){.seed = call->seed, .exchange = call->exchange, .msgpack = msgpack};
  list_append(line, &wait->node);
  call->exchange->ended = wait_ended;
}

static void waited_enough(struct timer *timer) {
  struct manifest_wait *wait = container_of(timer, struct manifest_wait, timer);
  char etag[SEED_ETAG_BYTES];
  list_remove(&wait->node);
  if (wait->has_none) {
    route_fail_changing(wait->exchange);
    return;
  }
  make_etag(wait->seed, wait->msgpack, etag);
  struct http_answer answer = {.status_code = 304, .etag = etag};
  http_exchange_answer(wait->exchange, &answer);
}

/* Answers whole, without looking at Range: the request is no longer there. */
static void answer_late(struct manifest_wait *wait, struct http_document *document) {
  char etag[SEED_ETAG_BYTES];
  make_etag(wait->seed, wait->msgpack, etag);
  struct http_answer answer = {.status_code = 200,
                               .content_type = wait->msgpack ? WIRE_CONTENT_TYPE : JSON_TYPE,
                               .etag = etag,
                               .document = document,
                               .body_bytes = document->length_bytes};
  http_exchange_answer(wait->exchange, &answer);
}

/* --- JSON, built aside --- */

static void build_json(struct work *work) {
  struct seed_lazy_json *lazy = container_of(work, struct seed_lazy_json, work);
  lazy->status = json_manifest_encode(&lazy->manifest, lazy->draining, &lazy->text);
}

static void start_json(struct sprout_seed *seed) {
  struct seed_lazy_json *lazy = &seed->manifest_json;
  if (lazy->building) return;
  lazy->building = true;
  lazy->outdated = false;
  lazy->manifest = *seed->model->manifest;
  lazy->draining = seed->draining;
  lazy->text = (struct wire_buffer){0};
  reactor_work(seed->reactor, &lazy->work);
}

static void json_built(struct work *work) {
  struct seed_lazy_json *lazy = container_of(work, struct seed_lazy_json, work);
  struct sprout_error error;
  lazy->building = false;
  if (lazy->outdated && !lazy->stopping) {
    wire_buffer_destroy(&lazy->text);
    if (!list_empty(&lazy->waiting)) start_json(lazy->seed);
    return;
  }
  if (lazy->status == SPROUT_OK)
    lazy->document = http_document_create(&lazy->text);
  else
    wire_buffer_destroy(&lazy->text);
  (void)sprout_error_set(&error, SPROUT_NO_MEMORY, 0, "Ask for application/msgpack.",
                         "the manifest could not be written as JSON");
  struct list_node *node;
  while ((node = list_take(&lazy->waiting)) != NULL) {
    struct manifest_wait *wait = container_of(node, struct manifest_wait, node);
    if (lazy->document != NULL)
      answer_late(wait, lazy->document);
    else
      http_exchange_fail(wait->exchange, &error);
  }
  if (lazy->stopping) seed_part_stopped(lazy->seed);
}

/* --- versions --- */

void routes_manifest_name_version(struct sprout_seed *seed) {
  const struct manifest_version *version = &seed->model->manifest->version;
  size_t used = 0;
  for (size_t i = 0; i < MANIFEST_EPOCH_BYTES; i++)
    used += (size_t)snprintf(seed->etag_base + used, sizeof(seed->etag_base) - used, "%02x",
                             version->epoch[i]);
  (void)snprintf(seed->etag_base + used, sizeof(seed->etag_base) - used, ".%llu",
                 (unsigned long long)version->generation);
}

void routes_manifest_init(struct sprout_seed *seed) {
  seed->manifest_json.seed = seed;
  seed->manifest_json.work.run = build_json;
  seed->manifest_json.work.done = json_built;
  list_init(&seed->manifest_json.waiting);
  list_init(&seed->version_waits);
}

void routes_manifest_destroy(struct sprout_seed *seed) {
  assert(!seed->manifest_json.building);
  http_document_release(seed->manifest_msgpack);
  http_document_release(seed->index_json);
  http_document_release(seed->manifest_json.document);
}

static void wake_waiting(struct sprout_seed *seed) {
  struct list_node waiting, *node;
  list_move(&waiting, &seed->version_waits);
  while ((node = list_take(&waiting)) != NULL) {
    struct manifest_wait *wait = container_of(node, struct manifest_wait, node);
    reactor_timer_stop(seed->reactor, &wait->timer);
    if (wait->msgpack) {
      answer_late(wait, seed->manifest_msgpack);
    } else {
      list_append(&seed->manifest_json.waiting, &wait->node);
      start_json(seed);
    }
  }
}

enum sprout_status routes_manifest_publish(struct sprout_seed *seed) {
  const struct manifest *manifest = seed->model->manifest;
  struct wire_buffer msgpack = {0}, index = {0};
  enum sprout_status status = wire_manifest_encode(manifest, seed->draining, &msgpack);
  json_t *summary = json_manifest_summary(manifest, seed->draining);
  if (status == SPROUT_OK)
    status = json_text_encode(json_pack("{s:[o]}", "manifests", summary), &index);
  else
    json_decref(summary);
  if (status != SPROUT_OK) {
    wire_buffer_destroy(&msgpack);
    wire_buffer_destroy(&index);
    return status;
  }
  struct http_document *msgpack_document = http_document_create(&msgpack);
  struct http_document *index_document = http_document_create(&index);
  if (msgpack_document == NULL || index_document == NULL) {
    http_document_release(msgpack_document);
    http_document_release(index_document);
    return SPROUT_NO_MEMORY;
  }
  http_document_release(seed->manifest_msgpack);
  http_document_release(seed->index_json);
  http_document_release(seed->manifest_json.document);
  seed->manifest_msgpack = msgpack_document;
  seed->index_json = index_document;
  seed->manifest_json.document = NULL;
  seed->manifest_json.outdated = true;
  wake_waiting(seed);
  return SPROUT_OK;
}

/* --- routes --- */

static void answer_document(struct route_call *call, struct http_document *document,
                            const char *content_type, const char *etag) {
  uint64_t offset = 0, length = 0;
  struct route_content content = {.content_type = content_type,
                                  .etag = etag,
                                  .total_bytes = document->length_bytes,
                                  .document = document};
  (void)route_answer_content(call, &content, &offset, &length);
}

static void answer_now(struct route_call *call, bool msgpack) {
  struct sprout_seed *seed = call->seed;
  char etag[SEED_ETAG_BYTES];
  make_etag(seed, msgpack, etag);
  if (msgpack) {
    answer_document(call, seed->manifest_msgpack, WIRE_CONTENT_TYPE, etag);
  } else if (seed->manifest_json.document != NULL) {
    answer_document(call, seed->manifest_json.document, JSON_TYPE, etag);
  } else {
    hold(call, &seed->manifest_json.waiting, false);
    start_json(seed);
  }
}

/* ?wait=, 0 without or when malformed (then *ok_out is false). */
static uint64_t asked_wait(const struct route_call *call, bool *ok_out) {
  char wait[32];
  uint64_t wait_ns = 0;
  *ok_out = true;
  if (!http_query_value(call->request->query, "wait", wait, sizeof(wait))) return 0;
  *ok_out = units_parse_duration(wait, &wait_ns) == SPROUT_OK;
  if (!*ok_out) return 0;
  return wait_ns > WAIT_MOST_NS ? WAIT_MOST_NS : wait_ns;
}

/*
 * True when the answer is not there yet, and the seed does not drain: ?after= names what is served
 * now (then ?wait= counts), or an update is under way.
 */
static bool must_wait(const struct route_call *call, uint64_t *wait_ns_out, bool *has_none_out) {
  const struct sprout_seed *seed = call->seed;
  char after[SEED_ETAG_BYTES];
  bool ok = true;
  if (seed->draining) return false;
  bool has_this = http_query_value(call->request->query, "after", after, sizeof(after)) &&
                  strcmp(after, seed->etag_base) == 0;
  *has_none_out = !has_this;
  *wait_ns_out = has_this ? asked_wait(call, &ok) : CHANGING_MOST_NS;
  return (has_this && ok) || seed->updating;
}

static void answer_manifest(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  bool msgpack = route_wants_msgpack(call->request), has_none = false;
  uint64_t wait_ns = 0;
  if (!must_wait(call, &wait_ns, &has_none)) {
    answer_now(call, msgpack);
    return;
  }
  hold(call, &seed->version_waits, msgpack);
  struct manifest_wait *wait = http_exchange_store(call->exchange);
  wait->has_none = has_none;
  wait->timer.fired = waited_enough;
  reactor_timer_start(seed->reactor, &wait->timer, reactor_now(seed->reactor) + wait_ns);
}

void route_manifests(struct route_call *call) {
  char etag[SEED_ETAG_BYTES];
  (void)snprintf(etag, sizeof(etag), "\"%s%s-i\"", call->seed->etag_base,
                 call->seed->draining ? ".draining" : "");
  answer_document(call, call->seed->index_json, JSON_TYPE, etag);
}

/* False when the query names another `key`; then answers 404. */
static bool is_served(struct route_call *call, const char *key, const char *served) {
  char value[LIMIT_NAME_BYTES + 1];
  if (!http_query_value(call->request->query, key, value, sizeof(value))) return true;
  if (strcmp(value, served) == 0) return true;
  route_fail(call, SPROUT_NOT_FOUND, "GET /v1/manifests lists what is served here.",
             "this seed serves %s '%.200s', not '%.200s'", key, served, value);
  return false;
}

void route_manifest(struct route_call *call) {
  const struct manifest_identity *identity = &call->seed->model->manifest->identity;
  if (is_served(call, "model", identity->model) && is_served(call, "rank", identity->rank))
    answer_manifest(call);
}

bool route_manifest_known(struct route_call *call, const char *id) {
  if (strcmp(id, call->seed->model->manifest->id) == 0) return true;
  struct digest digest;
  bool is_id = digest_from_hex(id, &digest) == SPROUT_OK;
  route_fail(call, is_id ? SPROUT_GONE : SPROUT_NOT_FOUND,
             "GET /v1/manifests lists what is served here.", "there is no manifest '%.64s'%s", id,
             is_id ? " (any more)" : ": an id has 32 hexadecimal digits");
  return false;
}

void route_manifest_by_id(struct route_call *call) {
  if (route_manifest_known(call, call->argument)) answer_manifest(call);
}
