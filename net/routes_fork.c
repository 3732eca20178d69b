/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forks: open, heartbeat, close, and what people see of them.
 */
#include "net/routes_read.h"

#include <string.h>

#define ID_DIGITS (2 * WIRE_ID_BYTES)

static const char no_lease_hint[] = "Open a new fork.";

/* Answers `status` as the error that the decoder or the admission told. */
static void fail_with(struct route_call *call, const struct sprout_error *error) {
  struct http_answer answer = {0};
  if (sprout_status_info_of(error->status)->http_status == 429) answer.retry_after_s = 2;
  http_exchange_fail_with(call->exchange, error, &answer);
}

static int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

static bool parse_id(const char *text, uint8_t id_out[WIRE_ID_BYTES]) {
  if (strlen(text) != ID_DIGITS) return false;
  for (size_t i = 0; i < WIRE_ID_BYTES; i++) {
    int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    id_out[i] = (uint8_t)(high * 16 + low);
  }
  return true;
}

static void format_id(const uint8_t id[WIRE_ID_BYTES], char text_out[ID_DIGITS + 1]) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < WIRE_ID_BYTES; i++) {
    text_out[2 * i] = digits[id[i] >> 4];
    text_out[2 * i + 1] = digits[id[i] & 15];
  }
  text_out[ID_DIGITS] = '\0';
}

struct admission_fork *route_find_fork(struct route_call *call) {
  uint8_t id[WIRE_ID_BYTES];
  if (!parse_id(call->argument, id)) {
    route_fail(call, SPROUT_INVALID, "A fork's id has 32 hexadecimal digits.",
               "'%.64s' is not a fork's id", call->argument);
    return NULL;
  }
  struct admission_fork *admission = admission_find(call->seed->admission, id);
  if (admission == NULL)
    route_fail(call, SPROUT_GONE, no_lease_hint, "the seed knows no such fork (any more)");
  return admission;
}

/* The fork of the path that is queued or runs, or NULL after having answered. */
static struct seed_fork *find_alive(struct route_call *call) {
  struct admission_fork *admission = route_find_fork(call);
  if (admission == NULL) return NULL;
  if (admission->state != ADMISSION_CLOSED) return admission->owner;
  route_fail(call, SPROUT_GONE, no_lease_hint, "the fork has ended: %s%s%s",
             sprout_status_info_of(admission->result)->name,
             admission->reason[0] != '\0' ? ", " : "", admission->reason);
  return NULL;
}

static void answer_opened(struct route_call *call, int status_code, struct seed_fork *fork) {
  struct wire_opened opened;
  struct wire_buffer buffer = {0};
  seed_fork_describe(fork, status_code != 200, &opened);
  enum sprout_status status = wire_opened_encode(&opened, &buffer);
  route_answer_bytes(call->exchange, status_code, WIRE_CONTENT_TYPE, status, &buffer);
}

/* --- open --- */

static enum sprout_status explain_transports(const struct sprout_seed *seed,
                                             const struct wire_open *open,
                                             struct sprout_error *error) {
  if (!seed->settings.transports.tcp)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                            "Fork with --transport rdma or auto, on a machine that has RDMA.",
                            "this seed's weights are read over RDMA only");
  return sprout_error_set(error, SPROUT_UNSUPPORTED, 0, "Fork with --transport auto or tcp.",
                          open->wants_rdma ? "the seed serves no weights over RDMA"
                                           : "the seed has none of the transports that the fork "
                                             "offers");
}

static enum sprout_status check_open(const struct sprout_seed *seed, const struct wire_open *open,
                                     struct sprout_error *error) {
  if (open->protocol_min > WIRE_PROTOCOL_MAX || open->protocol_max < WIRE_PROTOCOL_MIN)
    return sprout_error_set(error, SPROUT_VERSION, 0, "Use versions of sprout that go together.",
                            "the seed speaks protocol %u to %u, the fork %u to %u",
                            WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX, open->protocol_min,
                            open->protocol_max);
  if (strcmp(open->manifest_id, seed->model->manifest->id) != 0)
    return sprout_error_set(error, SPROUT_GONE, 0, "Fetch the manifest again.",
                            "the seed serves manifest %s, not %s", seed->model->manifest->id,
                            open->manifest_id);
  bool rdma = seed_rdma_is_open(seed);
  if (!(open->wants_tcp && seed->settings.transports.tcp) && !(open->wants_rdma && rdma))
    return explain_transports(seed, open, error);
  return SPROUT_OK;
}

void route_fork_open(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  struct wire_open open;
  struct sprout_error error;
  struct seed_fork *fork = NULL;
  if (route_changing(call)) return;
  enum sprout_status status =
      wire_open_decode(call->request->body, call->request->body_bytes, &open, &error);
  if (status == SPROUT_OK) status = check_open(seed, &open, &error);
  if (status != SPROUT_OK) {
    fail_with(call, &error);
    return;
  }
  status = seed_fork_open(seed, &open, http_exchange_peer(call->exchange), &fork);
  if (status == SPROUT_OK) {
    answer_opened(call, fork->admission->state == ADMISSION_QUEUED ? 202 : 201, fork);
    return;
  }
  if (status == SPROUT_BUSY) seed_metrics_limit(seed, "queue");
  (void)sprout_error_set(&error, status, 0,
                         status == SPROUT_BUSY ? "Try again, or ask another seed."
                                               : "Ask another seed.",
                         status == SPROUT_BUSY          ? "%u forks run and %u wait already"
                         : status == SPROUT_UNAVAILABLE ? "the seed is draining (%u run, %u wait)"
                                                        : "no memory for a fork (%u run, %u wait)",
                         admission_running(seed->admission), admission_queued(seed->admission));
  fail_with(call, &error);
}

/* --- heartbeat and close --- */

void route_fork_heartbeat(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  struct wire_heartbeat heartbeat;
  struct sprout_error error;
  struct seed_fork *fork = find_alive(call);
  if (fork == NULL) return;
  if (wire_heartbeat_decode(call->request->body, call->request->body_bytes, &heartbeat, &error) !=
      SPROUT_OK) {
    fail_with(call, &error);
    return;
  }
  uint64_t now_ns = reactor_now(seed->reactor);
  if (admission_heartbeat(seed->admission, fork->admission, now_ns) != SPROUT_OK) {
    route_fail(call, SPROUT_GONE, no_lease_hint, "the fork's lease is over");
    return;
  }
  fork->admission->received_bytes = heartbeat.received_bytes;
  fork->admission->total_bytes = heartbeat.total_bytes;
  char reason[sizeof(fork->admission->reason)];
  if (!seed_rdma_heard(fork, &heartbeat, reason, sizeof(reason))) {
    seed_fork_close(fork, SPROUT_OVER_WINDOW, reason);
    route_fail(call, SPROUT_GONE, "A fork keeps to its window and rate.", "the fork was closed: %s",
               reason);
    return;
  }
  seed_fork_rate(fork, now_ns);
  seed_lease_watch(seed);
  answer_opened(call, 200, fork);
}

void route_fork_close(struct route_call *call) {
  struct wire_close close = {.result = SPROUT_OK};
  struct sprout_error error;
  struct admission_fork *admission = route_find_fork(call);
  if (admission == NULL) return;
  /* curl -X DELETE has no body: an operator ends the fork. */
  if (call->request->body_bytes == 0) {
    close.result = SPROUT_CANCELLED;
    memcpy(close.reason, "closed by an operator", sizeof("closed by an operator"));
  } else if (wire_close_decode(call->request->body, call->request->body_bytes, &close, &error) !=
             SPROUT_OK) {
    fail_with(call, &error);
    return;
  }
  if (admission->state == ADMISSION_RUNNING && close.received_bytes > admission->received_bytes) {
    admission->received_bytes = close.received_bytes;
    seed_rdma_received(admission->owner, close.received_bytes);
  }
  if (admission->state != ADMISSION_CLOSED)
    seed_fork_close(admission->owner, close.result, close.reason);
  struct http_answer answer = {.status_code = 204};
  http_exchange_answer(call->exchange, &answer);
}

/* --- for people --- */

static const char *state_name(const struct admission_fork *admission) {
  switch (admission->state) {
  case ADMISSION_QUEUED: return "queued";
  case ADMISSION_RUNNING: return "running";
  case ADMISSION_CLOSED: break;
  }
  return "closed";
}

static double seconds_between(uint64_t from_ns, uint64_t to_ns) {
  return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

/* The fork tells what it means to read, and what has arrived, with its heartbeats; between them the
 * seed knows what it sent. */
static void set_eta(json_t *object, const struct admission_fork *admission, uint64_t rate) {
  uint64_t done = admission->received_bytes > admission->sent_bytes ? admission->received_bytes
                                                                    : admission->sent_bytes;
  if (admission->state != ADMISSION_RUNNING || rate == 0 || admission->total_bytes == 0) return;
  uint64_t left = admission->total_bytes > done ? admission->total_bytes - done : 0;
  (void)json_object_set_new(object, "eta_seconds", json_real((double)left / (double)rate));
}

static json_t *describe(struct sprout_seed *seed, struct admission_fork *admission) {
  char id[ID_DIGITS + 1];
  uint64_t now_ns = reactor_now(seed->reactor), rate = 0;
  struct seed_fork *fork = admission->owner;
  if (fork != NULL) {
    seed_fork_rate(fork, now_ns);
    rate = fork->rate_bytes_per_second;
  }
  format_id(admission->id, id);
  bool closed = admission->state == ADMISSION_CLOSED;
  json_t *object = json_pack(
      "{s:s,s:s,s:s,s:f,s:I,s:I,s:I,s:I,s:I}", "id", id, "state", state_name(admission), "peer",
      admission->peer, "seconds",
      seconds_between(admission->opened_ns, closed ? admission->ended_ns : now_ns), "sent_bytes",
      (json_int_t)admission->sent_bytes, "received_bytes", (json_int_t)admission->received_bytes,
      "total_bytes", (json_int_t)admission->total_bytes, "inflight_bytes",
      (json_int_t)admission->inflight_bytes, "rate_bytes_per_second", (json_int_t)rate);
  if (object == NULL) return NULL;
  if (admission->transport != NULL)
    (void)json_object_set_new(object, "transport", json_string(admission->transport));
  if (fork != NULL && admission->state == ADMISSION_RUNNING)
    (void)json_object_set_new(object, "rdma_connections", json_integer(fork->guest.link_count));
  if (admission->state == ADMISSION_QUEUED)
    (void)json_object_set_new(object, "position",
                              json_integer(admission_position(seed->admission, admission)));
  set_eta(object, admission, rate);
  if (closed) {
    (void)json_object_set_new(object, "result",
                              json_string(sprout_status_info_of(admission->result)->name));
    (void)json_object_set_new(object, "reason", json_text_string(admission->reason));
  }
  return object;
}

struct listing {
  struct sprout_seed *seed;
  json_t *forks;
};

static void list_one(struct admission_fork *admission, void *context) {
  struct listing *listing = context;
  (void)json_array_append_new(listing->forks, describe(listing->seed, admission));
}

void route_forks(struct route_call *call) {
  struct listing listing = {call->seed, json_array()};
  if (listing.forks != NULL) admission_each(call->seed->admission, list_one, &listing);
  route_answer_json(call->exchange, 200, json_pack("{s:o}", "forks", listing.forks));
}

void route_fork(struct route_call *call) {
  struct admission_fork *admission = route_find_fork(call);
  if (admission != NULL) route_answer_json(call->exchange, 200, describe(call->seed, admission));
}
