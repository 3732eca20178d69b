/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests of chunks: what is known now (GET), or computed first (POST). A POST is answered after
 * COMPUTE_MOST_NS at the latest, then with gaps: the client asks again for these. Digests of bytes
 * that are being changed, or were while somebody waited for them, are told to nobody (409).
 */
#include "net/routes.h"

#include <assert.h>

#define COMPUTE_MOST_NS (5 * SEED_NS_PER_S)

/* A POST that waits, in the exchange's store. */
struct digests_wait {
  struct sprout_seed *seed;
  struct http_exchange *exchange;
  struct digest_wait wait;
  struct timer timer;
  bool waiting;
  bool msgpack;
};

static_assert(sizeof(struct digests_wait) <= HTTP_STORE_BYTES, "fits the exchange's store");

static json_t *digests_json(const struct wire_digests *digests) {
  json_t *values = json_array();
  for (uint64_t i = 0; values != NULL && i < digests->count; i++) {
    char hex[DIGEST_HEX_BYTES];
    if (digests->known[i]) digest_to_hex(&digests->values[i], hex);
    if (json_array_append_new(values, digests->known[i] ? json_string(hex) : json_null()) != 0) {
      json_decref(values);
      return NULL;
    }
  }
  return json_pack("{s:I,s:I,s:o}", "first", (json_int_t)digests->first, "generation",
                   (json_int_t)digests->generation, "digests", values);
}

static void answer_stale(const struct sprout_seed *seed, struct http_exchange *exchange) {
  struct sprout_error error;
  (void)route_stale_error(seed, &error);
  http_exchange_fail(exchange, &error);
}

static void answer_known(struct sprout_seed *seed, struct http_exchange *exchange, uint64_t first,
                         uint64_t count, bool msgpack) {
  struct wire_digests digests = {.first = first,
                                 .count = count,
                                 .values = seed->digests,
                                 .known = seed->digests_known,
                                 .generation = seed->model->manifest->version.generation};
  if (seed->updating) {
    answer_stale(seed, exchange);
    return;
  }
  assert(count <= LIMIT_DIGESTS_PER_REQUEST);
  for (uint64_t i = 0; i < count; i++) {
    seed->digests[i] = (struct digest){0};
    seed->digests_known[i] = digester_known(seed->digester, first + i, &seed->digests[i]);
  }
  if (!msgpack) {
    route_answer_json(exchange, 200, digests_json(&digests));
    return;
  }
  struct wire_buffer buffer = {0};
  enum sprout_status status = wire_digests_encode(&digests, &buffer);
  route_answer_bytes(exchange, 200, WIRE_CONTENT_TYPE, status, &buffer);
}

/* Answers 400 or 416 unless [first, first + count) are chunks of the model. */
static bool check_range(struct route_call *call, uint64_t first, uint64_t count) {
  uint64_t chunks = call->seed->model->manifest->chunk_count;
  if (count > LIMIT_DIGESTS_PER_REQUEST) {
    route_fail(call, SPROUT_INVALID, "Ask for a part at a time.",
               "%llu digests are asked for, at most %u are given at once",
               (unsigned long long)count, LIMIT_DIGESTS_PER_REQUEST);
    return false;
  }
  if (first <= chunks && count <= chunks - first) return true;
  route_fail(call, SPROUT_RANGE, "The manifest tells the number of chunks.",
             "the model has %llu chunks", (unsigned long long)chunks);
  return false;
}

void route_digests(struct route_call *call) {
  if (!route_manifest_known(call, call->argument)) return;
  uint64_t chunks = call->seed->model->manifest->chunk_count, first = 0, count = 0;
  if (!route_query_number(call->request, "from", 0, &first) ||
      !route_query_number(call->request, "count", UINT64_MAX, &count)) {
    route_fail(call, SPROUT_INVALID, "Use ?from=0&count=16.", "from and count must be numbers");
    return;
  }
  if (count == UINT64_MAX) {
    count = first <= chunks ? chunks - first : 0;
    if (count > LIMIT_DIGESTS_PER_REQUEST) count = LIMIT_DIGESTS_PER_REQUEST;
  }
  if (check_range(call, first, count))
    answer_known(call->seed, call->exchange, first, count, route_wants_msgpack(call->request));
}

/* --- computed first --- */

static void stop_waiting(struct digests_wait *wait) {
  if (!wait->waiting) return;
  wait->waiting = false;
  reactor_timer_stop(wait->seed->reactor, &wait->timer);
}

static void answer_wait(struct digests_wait *wait) {
  stop_waiting(wait);
  answer_known(wait->seed, wait->exchange, wait->wait.first, wait->wait.count, wait->msgpack);
}

/* A chunk that cannot be read has no digest, and its bytes cannot be sent either. */
static void answer_unreadable(struct digests_wait *wait) {
  struct sprout_error error;
  stop_waiting(wait);
  (void)sprout_error_set(&error, SPROUT_IO, 0, "Use another seed; this one's log names the file.",
                         "the seed cannot read a part of its model (any more)");
  http_exchange_fail(wait->exchange, &error);
}

static void digests_there(struct digest_wait *digest_wait) {
  struct digests_wait *wait = container_of(digest_wait, struct digests_wait, wait);
  if (digest_wait->stale) {
    stop_waiting(wait);
    answer_stale(wait->seed, wait->exchange);
  } else if (digest_wait->failed) {
    answer_unreadable(wait);
  } else {
    answer_wait(wait);
  }
}

static void waited_enough(struct timer *timer) {
  struct digests_wait *wait = container_of(timer, struct digests_wait, timer);
  digester_cancel(wait->seed->digester, &wait->wait);
  answer_wait(wait);
}

static void wait_ended(struct http_exchange *exchange, bool whole) {
  (void)whole;
  struct digests_wait *wait = http_exchange_store(exchange);
  if (wait->waiting) digester_cancel(wait->seed->digester, &wait->wait);
  stop_waiting(wait);
}

void route_digests_wanted(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  struct sprout_error error;
  uint64_t first = 0, count = 0;
  if (!route_manifest_known(call, call->argument)) return;
  if (wire_digests_wanted_decode(call->request->body, call->request->body_bytes, &first, &count,
                                 &error) != SPROUT_OK) {
    http_exchange_fail(call->exchange, &error);
    return;
  }
  if (!check_range(call, first, count)) return;
  if (seed->updating) {
    answer_stale(seed, call->exchange);
    return;
  }
  struct digests_wait *wait = http_exchange_store(call->exchange);
  *wait = (struct digests_wait){.seed = seed,
                                .exchange = call->exchange,
                                .waiting = true,
                                .msgpack = route_wants_msgpack(call->request),
                                .wait = {.first = first, .count = count, .done = digests_there},
                                .timer = {.fired = waited_enough}};
  list_init(&wait->wait.node);
  call->exchange->ended = wait_ended;
  reactor_timer_start(seed->reactor, &wait->timer, reactor_now(seed->reactor) + COMPUTE_MOST_NS);
  digester_wait(seed->digester, &wait->wait);
}
