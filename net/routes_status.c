/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seed in figures, as JSON.
 */
#include "net/json_manifest.h"
#include "net/routes.h"

static json_t *forks_json(const struct sprout_seed *seed) {
  return json_pack("{s:I,s:I,s:I,s:I,s:I}", "running",
                   (json_int_t)admission_running(seed->admission), "queued",
                   (json_int_t)admission_queued(seed->admission), "finished",
                   (json_int_t)seed->forks_finished, "limit", (json_int_t)seed->settings.max_forks,
                   "queue_limit", (json_int_t)seed->settings.max_queue);
}

static json_t *connections_json(const struct sprout_seed *seed) {
  struct http_server_stats stats;
  http_server_stats_get(seed->server, &stats);
  return json_pack("{s:I,s:I,s:I,s:I}", "active", (json_int_t)stats.active, "idle",
                   (json_int_t)stats.idle, "accepted", (json_int_t)stats.accepted, "refused",
                   (json_int_t)stats.refused);
}

static json_t *rail_json(const struct rdma_seed *rdma, uint32_t index) {
  struct rdma_rail_view rail;
  rdma_seed_rail(rdma, index, &rail);
  return json_pack("{s:s,s:I,s:s,s:I,s:b,s:I,s:I}", "device", rail.device, "port",
                   (json_int_t)rail.port, "address", rail.address, "listens",
                   (json_int_t)rail.listens, "up", rail.up ? 1 : 0, "connections",
                   (json_int_t)rail.link_count, "bits_per_second",
                   (json_int_t)rail.bits_per_second);
}

/* What there is of RDMA, or why there is none. */
static json_t *rdma_json(const struct sprout_seed *seed) {
  struct rdma_seed_view view = {.state = RDMA_SEED_CLOSED};
  json_t *rails = json_array();
  if (seed->rdma != NULL) rdma_seed_look(seed->rdma, &view);
  for (uint32_t i = 0; i < view.rail_count; i++)
    (void)json_array_append_new(rails, rail_json(seed->rdma, i));
  json_t *value = json_pack(
      "{s:b,s:I,s:I,s:I,s:I,s:o}", "open", view.state == RDMA_SEED_OPEN, "registered_bytes",
      (json_int_t)view.registered_bytes, "total_bytes", (json_int_t)view.total_bytes, "connections",
      (json_int_t)view.link_count, "forks", (json_int_t)seed->rdma_forks, "rails", rails);
  if (value != NULL && seed->rdma_error.status != SPROUT_OK)
    (void)json_object_set_new(value, "reason", json_text_string(seed->rdma_error.message));
  return value;
}

void route_status(struct route_call *call) {
  const struct sprout_seed *seed = call->seed;
  uint64_t now_ns = reactor_now(seed->reactor);
  char listen[ADDRESS_TEXT_BYTES];
  (void)address_format(http_server_address(seed->server), listen, sizeof(listen));
  json_t *value = json_pack(
      "{s:b,s:b,s:s,s:s,s:b,s:f,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:f}", "ready",
      seed_is_ready(seed) ? 1 : 0, "draining", seed->draining ? 1 : 0, "listen", listen, "version",
      sprout_version(), "updating", seed->updating ? 1 : 0, "uptime_seconds",
      (double)(now_ns - seed->created_ns) / 1e9, "manifest",
      json_manifest_summary(seed->model->manifest, seed->draining), "forks", forks_json(seed),
      "connections", connections_json(seed), "regions", (json_int_t)seed->model->region_count,
      "undigested_bytes", (json_int_t)digester_undigested_bytes(seed->digester), "sent_bytes",
      (json_int_t)(http_pace_sent_bytes(seed->pace) + seed->rdma_sent_bytes),
      "rate_limit_bytes_per_second", (json_int_t)seed->settings.max_rate, "inflight_bytes_per_fork",
      (json_int_t)seed->settings.inflight_bytes, "throttled_seconds",
      (double)http_pace_throttled_ns(seed->pace) / 1e9);
  if (value != NULL) (void)json_object_set_new(value, "rdma", rdma_json(seed));
  route_answer_json(call->exchange, 200, value);
}
