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
      (json_int_t)http_pace_sent_bytes(seed->pace), "rate_limit_bytes_per_second",
      (json_int_t)http_pace_rate(seed->pace), "inflight_bytes_per_fork",
      (json_int_t)seed->settings.inflight_bytes, "throttled_seconds",
      (double)http_pace_throttled_ns(seed->pace) / 1e9);
  route_answer_json(call->exchange, 200, value);
}
