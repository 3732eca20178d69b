/* SPDX-License-Identifier: Apache-2.0 */
#include "net/remote_source_internal.h"

#include "net/http_parser.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define MS_NS 1000000ull
#define SECOND_NS 1000000000ull
/* A seed that computes digests for us may take long; its heartbeats say whether it lives. */
#define DIGEST_TIMEOUT_NS (600 * SECOND_NS)

static void beat_now(struct remote_source *source);

static void fail_with(struct remote_source *source, enum sprout_status status, const char *what) {
  struct sprout_error error;
  sprout_error_set(&error, status, 0, NULL, "%s", what);
  remote_source_fail(source, &error);
}

/* An answer with an error status becomes the source's error. */
static void fail_with_answer(struct remote_source *source, const struct http_call *call) {
  struct sprout_error answer, error;
  wire_error_decode_json(call->body, call->body_bytes, call->status_code, &answer);
  /* A seed that does not have the model we asked for is a source of another model; a stranger's 404
   * says nothing about models. */
  bool by_seed = wire_error_is_seeds(call->body, call->body_bytes);
  if (by_seed && answer.status == SPROUT_NOT_FOUND && source->state == REMOTE_MANIFEST)
    answer.status = SPROUT_MISMATCH;
  sprout_error_set(&error, answer.status, answer.native, answer.hint, "%s", answer.message);
  remote_source_fail(source, &error);
}

static void deadline_passed(struct timer *timer) {
  struct remote_control *control = container_of(timer, struct remote_control, deadline);
  char text[160];
  snprintf(text, sizeof text, "did not answer %s in time", control->what);
  fail_with(control->source, SPROUT_TIMEOUT, text);
}

static void send_control(struct remote_source *source, struct http_client *client,
                         struct remote_control *control, const struct http_request *request,
                         uint64_t timeout_ns) {
  enum sprout_status status = http_request_build(request, &control->request);
  if (status != SPROUT_OK) {
    fail_with(source, status, "no memory for a request");
    return;
  }
  control->call.request = control->request.data;
  control->call.request_bytes = control->request.length_bytes;
  control->busy = true;
  control->sent_ns = reactor_now(source->reactor);
  reactor_timer_start(source->reactor, &control->deadline, control->sent_ns + timeout_ns);
  http_client_call(client, &control->call);
  http_client_flush(client);
}

/* What every answer begins with: true when it is a good one to go on with. */
static bool take_answer(struct remote_control *control, const struct sprout_error *error) {
  struct remote_source *source = control->source;
  control->busy = false;
  reactor_timer_stop(source->reactor, &control->deadline);
  if (source->state >= REMOTE_FAILING) return false;
  if (error->status == SPROUT_OK) return true;
  remote_source_fail(source, error);
  return false;
}

/* The same for answers of which only 200 is a good one. */
static bool take_good_answer(struct remote_control *control, const struct sprout_error *error) {
  if (!take_answer(control, error)) return false;
  if (control->call.status_code == 200) return true;
  fail_with_answer(control->source, &control->call);
  return false;
}

static struct http_request request_to(struct remote_source *source, const char *method,
                                      const char *target) {
  return (struct http_request){.method = method,
                               .target = target,
                               .host = source->host,
                               .token = source->token[0] ? source->token : NULL,
                               .accept = WIRE_CONTENT_TYPE,
                               .content_type = WIRE_CONTENT_TYPE};
}

/* --- manifest --- */

static void manifest_answered(struct http_call *call, const struct sprout_error *call_error) {
  struct remote_control *control = container_of(call, struct remote_control, call);
  struct remote_source *source = control->source;
  if (!take_good_answer(control, call_error)) return;
  struct manifest *manifest;
  struct sprout_error error, named;
  if (wire_manifest_decode(call->body, call->body_bytes, &manifest, &error) != SPROUT_OK) {
    sprout_error_set(&named, error.status, error.native, error.hint, "its manifest is refused: %s",
                     error.message);
    remote_source_fail(source, &named);
    return;
  }
  memcpy(source->manifest_id, manifest->id, sizeof source->manifest_id);
  source->generation = manifest->version.generation;
  source->object_count = manifest->object_count;
  source->state = REMOTE_KNOWN;
  source->base.listener->manifest(&source->base, manifest);
}

void remote_control_connect(struct source *base) {
  struct remote_source *source = remote_of(base);
  char model[800] = "", rank[800] = "", target[1700];
  http_query_encode(source->model, model, sizeof model);
  http_query_encode(source->rank, rank, sizeof rank);
  snprintf(target, sizeof target, "/v1/manifest%s%s%s%s", model[0] || rank[0] ? "?model=" : "",
           model, rank[0] ? "&rank=" : "", rank);
  if (!model[0] && rank[0]) snprintf(target, sizeof target, "/v1/manifest?rank=%s", rank);
  source->state = REMOTE_MANIFEST;
  source->grant = (struct source_grant){0};
  struct http_request request = request_to(source, "GET", target);
  send_control(source, source->control, &source->manifest_call, &request,
               source->control_timeout_ns);
}

/* --- open and heartbeat --- */

static bool same_grant(const struct source_grant *a, const struct source_grant *b) {
  return a->window.operations == b->window.operations && a->window.bytes == b->window.bytes &&
         a->window.depth == b->window.depth && a->rate == b->rate &&
         a->generation == b->generation && a->draining == b->draining;
}

static void schedule_beat(struct remote_source *source) {
  /* A queued fork asks more often: its slot may be free at any time. */
  uint64_t pause_ns =
      source->state == REMOTE_QUEUED ? source->heartbeat_ns / 4 : source->heartbeat_ns;
  reactor_timer_start(source->reactor, &source->beat_timer,
                      reactor_now(source->reactor) + pause_ns);
}

/* An answer to open or heartbeat: queued, running, or changed grants. */
static void take_opened(struct remote_source *source, const struct wire_opened *opened,
                        uint64_t sent_ns) {
  bool admitted = source->state == REMOTE_CONNECTING || source->state == REMOTE_READY;
  source->lease_ns = opened->lease_ns;
  source->heartbeat_ns = opened->heartbeat_ns ? opened->heartbeat_ns : SECOND_NS;
  source->post_until_ns = sent_ns + opened->lease_ns / 10 * 8;
  bool changed = !same_grant(&source->grant, &opened->grant);
  source->grant = opened->grant;
  if (!admitted && opened->queued) source->state = REMOTE_QUEUED;
  schedule_beat(source);
  if (admitted)
    remote_lanes_grant(source, changed);
  else if (opened->queued)
    source->base.listener->queued(&source->base, opened->position);
  else
    remote_lanes_start(source, opened);
}

static bool decode_opened(struct remote_source *source, const struct http_call *call,
                          struct wire_opened *opened_out) {
  struct sprout_error error, named;
  if (wire_opened_decode(call->body, call->body_bytes, opened_out, &error) == SPROUT_OK)
    return true;
  named = error;
  named.native = 0;
  remote_source_fail(source, &named);
  return false;
}

static void note_admitted(struct remote_source *source, const struct wire_opened *opened) {
  for (size_t i = 0; i < WIRE_ID_BYTES; i++) {
    snprintf(source->fork_hex + 2 * i, 3, "%02x", opened->fork_id[i]);
  }
  source->admitted = true;
}

/* We are leaving already: what was opened is closed, not left to its lease. */
static void open_answered_late(struct remote_source *source, const struct http_call *call,
                               const struct sprout_error *call_error) {
  struct wire_opened opened;
  struct sprout_error error;
  source->open_call.busy = false;
  bool there =
      call_error->status == SPROUT_OK && (call->status_code == 201 || call->status_code == 202);
  if (there && wire_opened_decode(call->body, call->body_bytes, &opened, &error) == SPROUT_OK) {
    note_admitted(source, &opened);
    if (remote_control_part(source)) return;
  }
  remote_source_parted(source);
}

static void open_answered(struct http_call *call, const struct sprout_error *call_error) {
  struct remote_control *control = container_of(call, struct remote_control, call);
  struct remote_source *source = control->source;
  if (source->state == REMOTE_PARTING) {
    open_answered_late(source, call, call_error);
    return;
  }
  if (!take_answer(control, call_error)) return;
  if (call->status_code == 429) { /* the queue itself is full: ask again */
    uint64_t pause_ns = (call->retry_after_s ? call->retry_after_s : 1) * SECOND_NS;
    reactor_timer_start(source->reactor, &source->retry_timer,
                        reactor_now(source->reactor) + pause_ns);
    source->base.listener->queued(&source->base, 0);
    return;
  }
  struct wire_opened opened;
  if (call->status_code != 201 && call->status_code != 202) {
    fail_with_answer(source, call);
    return;
  }
  if (!decode_opened(source, call, &opened)) return;
  note_admitted(source, &opened);
  take_opened(source, &opened, control->sent_ns);
}

static void ask_to_open(struct remote_source *source) {
  struct wire_open open = {.protocol_min = WIRE_PROTOCOL_MIN,
                           .protocol_max = WIRE_PROTOCOL_MAX,
                           .wants_tcp = source->tcp != NULL,
                           .wants_rdma = remote_lanes_want_rdma(source),
                           .total_bytes = source->total_bytes};
  memcpy(open.manifest_id, source->manifest_id, sizeof open.manifest_id);
  memcpy(open.nonce, source->nonce, sizeof open.nonce);
  source->body.length_bytes = 0;
  enum sprout_status status = wire_open_encode(&open, &source->body);
  if (status != SPROUT_OK) {
    fail_with(source, status, "no memory for a request");
    return;
  }
  source->state = REMOTE_OPENING;
  struct http_request request = request_to(source, "POST", "/v1/forks");
  request.body = source->body.data;
  request.body_bytes = source->body.length_bytes;
  send_control(source, source->control, &source->open_call, &request, source->control_timeout_ns);
}

void remote_control_open(struct source *base) {
  struct remote_source *source = remote_of(base);
  if (getrandom(source->nonce, sizeof source->nonce, 0) != (ssize_t)sizeof source->nonce) {
    fail_with(source, SPROUT_IO, "no random bytes for a nonce");
    return;
  }
  ask_to_open(source);
}

static void retry_open(struct timer *timer) {
  ask_to_open(container_of(timer, struct remote_source, retry_timer));
}

static void beat_answered(struct http_call *call, const struct sprout_error *call_error) {
  struct remote_control *control = container_of(call, struct remote_control, call);
  struct remote_source *source = control->source;
  if (!take_good_answer(control, call_error)) return;
  struct wire_opened opened;
  if (!decode_opened(source, call, &opened)) return;
  take_opened(source, &opened, control->sent_ns);
}

static void beat_now(struct remote_source *source) {
  struct wire_heartbeat heartbeat = {.received_bytes = source->received_bytes,
                                     .total_bytes = source->total_bytes};
  if (source->lane != NULL && source->lane == source->rdma)
    heartbeat.peak_inflight_bytes = rdma_lane_take_peak(source->lane);
  source->body.length_bytes = 0;
  enum sprout_status status = wire_heartbeat_encode(&heartbeat, &source->body);
  if (status != SPROUT_OK) {
    fail_with(source, status, "no memory for a request");
    return;
  }
  char target[64];
  snprintf(target, sizeof target, "/v1/forks/%s", source->fork_hex);
  struct http_request request = request_to(source, "PATCH", target);
  request.body = source->body.data;
  request.body_bytes = source->body.length_bytes;
  send_control(source, source->beat, &source->beat_call, &request, source->control_timeout_ns);
}

static void beat_due(struct timer *timer) {
  struct remote_source *source = container_of(timer, struct remote_source, beat_timer);
  if (!source->beat_call.busy) beat_now(source);
}

/* --- placement --- */

static void fail_placement(struct remote_source *source, const struct http_call *call) {
  struct sprout_error answer;
  wire_error_decode_json(call->body, call->body_bytes, call->status_code, &answer);
  if (answer.status == SPROUT_TOO_EARLY)
    rdma_lane_placement_later(source->rdma);
  else
    rdma_lane_no_placement(source->rdma, &answer);
}

static void placement_answered(struct http_call *call, const struct sprout_error *call_error) {
  struct remote_control *control = container_of(call, struct remote_control, call);
  struct remote_source *source = control->source;
  struct wire_placement placement;
  struct sprout_error error;
  if (!take_answer(control, call_error) || source->lane != source->rdma) return;
  if (call->status_code != 200) {
    fail_placement(source, call);
  } else if (wire_placement_decode(call->body, call->body_bytes, &placement, &error) != SPROUT_OK) {
    rdma_lane_no_placement(source->rdma, &error);
  } else {
    rdma_lane_placement(source->rdma, &placement);
    wire_placement_destroy(&placement);
  }
}

void remote_control_placement(struct remote_source *source, uint64_t since) {
  char target[120];
  if (source->placement_call.busy) return;
  snprintf(target, sizeof target, "/v1/forks/%s/placement?since=%" PRIu64, source->fork_hex, since);
  struct http_request request = request_to(source, "GET", target);
  send_control(source, source->control, &source->placement_call, &request,
               source->control_timeout_ns);
}

/* --- digests --- */

static void digests_answered(struct http_call *call, const struct sprout_error *call_error) {
  struct remote_control *control = container_of(call, struct remote_control, call);
  struct remote_source *source = control->source;
  if (!take_good_answer(control, call_error)) return;
  struct wire_digests answer = {.values = source->digests, .known = source->known};
  struct sprout_error error;
  enum sprout_status status =
      wire_digests_decode(call->body, call->body_bytes, SOURCE_DIGESTS_MAX, &answer, &error);
  if (status != SPROUT_OK) {
    fail_with(source, status, error.message);
  } else if (answer.first != control->first || answer.count != control->count) {
    fail_with(source, SPROUT_PROTOCOL, "answered with digests of other chunks than were asked for");
  } else if (answer.generation != 0 && answer.generation != source->generation) {
    fail_with(source, SPROUT_STALE, "the seed changed its bytes: its digests are of other ones");
  } else {
    source->base.listener->digests(&source->base, answer.first, answer.count, source->digests,
                                   source->known);
  }
}

static struct remote_control *free_digest_call(struct remote_source *source) {
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    if (!source->digest_calls[i].busy) return &source->digest_calls[i];
  }
  return NULL;
}

void remote_control_digests(struct source *base, uint64_t first, uint64_t count, bool compute) {
  struct remote_source *source = remote_of(base);
  struct remote_control *control = free_digest_call(source);
  if (!control) {
    fail_with(source, SPROUT_INTERNAL, "too many digest requests at once");
    return;
  }
  char target[160];
  control->first = first;
  control->count = count;
  if (!compute) {
    snprintf(target, sizeof target, "/v1/manifests/%s/digests?from=%" PRIu64 "&count=%" PRIu64,
             source->manifest_id, first, count);
    struct http_request request = request_to(source, "GET", target);
    send_control(source, source->control, control, &request, source->control_timeout_ns);
    return;
  }
  source->body.length_bytes = 0;
  enum sprout_status status = wire_digests_wanted_encode(first, count, &source->body);
  if (status != SPROUT_OK) {
    fail_with(source, status, "no memory for a request");
    return;
  }
  snprintf(target, sizeof target, "/v1/manifests/%s/digests", source->manifest_id);
  struct http_request request = request_to(source, "POST", target);
  request.body = source->body.data;
  request.body_bytes = source->body.length_bytes;
  send_control(source, source->control, control, &request, DIGEST_TIMEOUT_NS);
}

/* --- close --- */

static void close_answered(struct http_call *call, const struct sprout_error *error) {
  struct remote_control *control = container_of(call, struct remote_control, call);
  (void)error; /* gone either way: without an answer the lease will end it */
  control->busy = false;
  reactor_timer_stop(control->source->reactor, &control->deadline);
  remote_source_parted(control->source);
}

bool remote_control_part(struct remote_source *source) {
  struct wire_close message = {.result = source->result, .received_bytes = source->received_bytes};
  snprintf(message.reason, sizeof message.reason, "%s", source->reason);
  source->body.length_bytes = 0;
  if (wire_close_encode(&message, &source->body) != SPROUT_OK) return false;
  char target[64];
  snprintf(target, sizeof target, "/v1/forks/%s", source->fork_hex);
  struct http_request request = request_to(source, "DELETE", target);
  request.body = source->body.data;
  request.body_bytes = source->body.length_bytes;
  send_control(source, source->beat, &source->close_call, &request, source->control_timeout_ns);
  return source->close_call.busy;
}

/* --- making --- */

static void init_control(struct remote_source *source, struct remote_control *control,
                         const char *what,
                         void (*done)(struct http_call *call, const struct sprout_error *error)) {
  control->source = source;
  control->what = what;
  control->call.done = done;
  control->deadline.fired = deadline_passed;
}

void remote_control_init(struct remote_source *source) {
  init_control(source, &source->manifest_call, "the request for its manifest", manifest_answered);
  source->manifest_call.call.body_limit_bytes = LIMIT_MANIFEST_BYTES;
  init_control(source, &source->open_call, "the request to open a fork", open_answered);
  init_control(source, &source->beat_call, "a heartbeat", beat_answered);
  init_control(source, &source->close_call, "the request to close the fork", close_answered);
  init_control(source, &source->placement_call, "the request for its placement",
               placement_answered);
  source->placement_call.call.body_limit_bytes = LIMIT_MANIFEST_BYTES;
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    init_control(source, &source->digest_calls[i], "a request for digests", digests_answered);
  }
  source->beat_timer.fired = beat_due;
  source->retry_timer.fired = retry_open;
}

void remote_control_stop_timers(struct remote_source *source) {
  struct timer *timers[] = {&source->manifest_call.deadline,
                            &source->open_call.deadline,
                            &source->beat_call.deadline,
                            &source->close_call.deadline,
                            &source->placement_call.deadline,
                            &source->beat_timer,
                            &source->retry_timer,
                            &source->part_timer};
  for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++)
    reactor_timer_stop(source->reactor, timers[i]);
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    reactor_timer_stop(source->reactor, &source->digest_calls[i].deadline);
  }
}
