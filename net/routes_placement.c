/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/forks/{id}/placement: where everything lies in the seed's memory, and the keys by which
 * it is read. Only for a fork that has proven a connection: keys are worth nothing without one, and
 * who has none needs none.
 *
 * The answer to ?since=0 carries the address of every object. It is the same for all forks, so it
 * is kept until another slice is ready or the generation changes.
 */
#include "net/routes_read.h"

#include <stdlib.h>

/* The fork of the path when it may know; else answers. */
static struct seed_fork *find_proven(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  struct admission_fork *admission = route_find_fork(call);
  if (admission == NULL) return NULL;
  if (admission->state == ADMISSION_CLOSED ||
      (admission->state == ADMISSION_RUNNING &&
       admission->lease_until_ns <= reactor_now(seed->reactor))) {
    route_fail(call, SPROUT_GONE, "Open a new fork.", "the fork's lease is over");
    return NULL;
  }
  struct seed_fork *fork = admission->owner;
  if (!seed_rdma_is_open(seed)) {
    route_fail(call, SPROUT_UNSUPPORTED, "Read over HTTP.", "the seed serves no memory over RDMA%s",
               seed->rdma_error.status != SPROUT_OK ? " (any more)" : "");
    return NULL;
  }
  if (admission->state == ADMISSION_RUNNING && fork->guest.proven) return fork;
  route_fail(call, SPROUT_TOO_EARLY, "Connect to an endpoint first, with its nonce.",
             "the fork has no RDMA connection yet");
  return NULL;
}

static SPROUT_MUST_CHECK enum sprout_status add_objects(const struct sprout_seed *seed,
                                                        struct wire_placement *placement) {
  const struct manifest *manifest = seed->model->manifest;
  placement->objects = calloc(manifest->object_count + 1u, sizeof(*placement->objects));
  if (placement->objects == NULL) return SPROUT_NO_MEMORY;
  placement->object_count = manifest->object_count;
  for (uint32_t i = 0; i < manifest->object_count; i++)
    if (manifest->objects[i].length_bytes > 0)
      placement->objects[i] = (uint64_t)(uintptr_t)model_bytes(seed->model, i, 0);
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status encode(const struct sprout_seed *seed, uint64_t since,
                                                   struct wire_buffer *buffer) {
  struct wire_placement placement;
  enum sprout_status status = rdma_seed_placement(seed->rdma, since, &placement);
  if (status != SPROUT_OK) return status;
  placement.generation = seed->model->manifest->version.generation;
  if (since == 0) status = add_objects(seed, &placement);
  if (status == SPROUT_OK) status = wire_placement_encode(&placement, buffer);
  wire_placement_destroy(&placement);
  return status;
}

static bool is_current(const struct sprout_seed *seed, uint32_t ready_count) {
  return seed->placement_whole != NULL && seed->placement_ready == ready_count &&
         seed->placement_generation == seed->model->manifest->version.generation;
}

/* The whole answer, from before or made anew; NULL without memory. */
static struct http_document *whole(struct sprout_seed *seed, uint32_t ready_count) {
  struct wire_buffer buffer = {0};
  if (is_current(seed, ready_count)) return seed->placement_whole;
  if (encode(seed, 0, &buffer) != SPROUT_OK) return NULL;
  struct http_document *document = http_document_create(&buffer);
  if (document == NULL) return NULL;
  http_document_release(seed->placement_whole);
  seed->placement_whole = document;
  seed->placement_ready = ready_count;
  seed->placement_generation = seed->model->manifest->version.generation;
  return document;
}

void route_placement(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  struct rdma_seed_view view;
  uint64_t since = 0;
  if (find_proven(call) == NULL) return;
  rdma_seed_look(seed->rdma, &view);
  if (!route_query_number(call->request, "since", 0, &since)) {
    route_fail(call, SPROUT_INVALID, "Use ?since=0.", "since must be a number");
    return;
  }
  if (since > view.ready_count) {
    route_fail(call, SPROUT_RANGE, "Ask with the number that the last answer named.",
               "%u slices are ready", view.ready_count);
    return;
  }
  if (since > 0) {
    struct wire_buffer buffer = {0};
    enum sprout_status status = encode(seed, since, &buffer);
    route_answer_bytes(call->exchange, 200, WIRE_CONTENT_TYPE, status, &buffer);
    return;
  }
  struct http_document *document = whole(seed, view.ready_count);
  if (document == NULL) {
    route_fail(call, SPROUT_NO_MEMORY, "Try again.", "no memory for a placement");
    return;
  }
  struct http_answer answer = {.status_code = 200,
                               .content_type = WIRE_CONTENT_TYPE,
                               .document = document,
                               .body_bytes = document->length_bytes};
  http_exchange_answer(call->exchange, &answer);
}
