/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of a fork's life: opening, keeping and closing it. Each is one map; its keys stand
 * in one table for both directions.
 */
#include "core/limits.h"
#include "net/wire.h"
#include "net/wire_pack.h"
#include "net/wire_value.h"

#include <string.h>

#define NS_PER_MS 1000000u
/* A week: longer than any lease makes sense, and a sum with the clock cannot overflow. */
#define DURATION_MAX_MS 604800000u
/* Values of a small message, those of later versions included. */
#define MESSAGE_VALUES 512u

/* --- "protocol": {"min", "max"} --- */

enum { PROTOCOL_MIN, PROTOCOL_MAX, PROTOCOL_KEYS };
static const char *const protocol_keys[PROTOCOL_KEYS] = {"min", "max"};

void wire_write_protocol(struct wire_writer *writer, uint32_t min, uint32_t max) {
  wire_write_map(writer, PROTOCOL_KEYS);
  wire_write_text(writer, protocol_keys[PROTOCOL_MIN]);
  wire_write_unsigned(writer, min);
  wire_write_text(writer, protocol_keys[PROTOCOL_MAX]);
  wire_write_unsigned(writer, max);
}

void wire_get_protocol(struct wire_reading *reading, const struct wire_value *value,
                       uint32_t *min_out, uint32_t *max_out) {
  const struct wire_value *fields[PROTOCOL_KEYS];
  if (!value) return;
  wire_map_fields(reading, value, protocol_keys, PROTOCOL_KEYS, fields);
  wire_get_u32(reading, wire_require(reading, fields[PROTOCOL_MIN], "min"), "min", min_out);
  wire_get_u32(reading, wire_require(reading, fields[PROTOCOL_MAX], "max"), "max", max_out);
  if (*min_out > *max_out) wire_fail_field(reading, "protocol", "has min above max");
}

/* --- open --- */

enum { OPEN_MANIFEST, OPEN_NONCE, OPEN_PROTOCOL, OPEN_TRANSPORTS, OPEN_TOTAL, OPEN_KEYS };
static const char *const open_keys[OPEN_KEYS] = {"manifest", "nonce", "protocol", "transports",
                                                 "total"};
static const char tcp_name[] = "tcp", rdma_name[] = "rdma";

enum sprout_status wire_open_encode(const struct wire_open *message, struct wire_buffer *buffer) {
  struct wire_writer writer;
  wire_writer_begin(&writer, buffer);
  wire_write_map(&writer, OPEN_KEYS);
  wire_write_text(&writer, open_keys[OPEN_MANIFEST]);
  wire_write_text(&writer, message->manifest_id);
  wire_write_text(&writer, open_keys[OPEN_NONCE]);
  wire_write_bytes(&writer, message->nonce, sizeof(message->nonce));
  wire_write_text(&writer, open_keys[OPEN_PROTOCOL]);
  wire_write_protocol(&writer, message->protocol_min, message->protocol_max);
  wire_write_text(&writer, open_keys[OPEN_TRANSPORTS]);
  wire_write_array(&writer, (size_t)message->wants_tcp + message->wants_rdma);
  if (message->wants_tcp) wire_write_text(&writer, tcp_name);
  if (message->wants_rdma) wire_write_text(&writer, rdma_name);
  wire_write_text(&writer, open_keys[OPEN_TOTAL]);
  wire_write_unsigned(&writer, message->total_bytes);
  return wire_writer_end(&writer);
}

/* A list of names, of which later versions may know more. */
static void get_transports(struct wire_reading *reading, const struct wire_value *value,
                           struct wire_open *message) {
  if (!value || reading->status != SPROUT_OK) return;
  if (value->type != WIRE_ARRAY) {
    wire_fail_field(reading, open_keys[OPEN_TRANSPORTS], "is not a list");
    return;
  }
  const struct wire_value *name = value + 1;
  for (uint32_t i = 0; i < value->size; i++, name = wire_skip(name)) {
    if (wire_text_is(name, tcp_name)) message->wants_tcp = true;
    if (wire_text_is(name, rdma_name)) message->wants_rdma = true;
  }
}

enum sprout_status wire_open_decode(const void *data, size_t length_bytes,
                                    struct wire_open *message_out, struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_INVALID, "open request", error, SPROUT_OK};
  struct wire_value entries[MESSAGE_VALUES];
  struct wire_values values = {entries, 0, MESSAGE_VALUES};
  const struct wire_value *fields[OPEN_KEYS];
  struct wire_open message = {.wants_tcp = false};
  if (!wire_parse_single(&reading, data, length_bytes, &values)) return reading.status;
  wire_map_fields(&reading, entries, open_keys, OPEN_KEYS, fields);
  for (unsigned i = OPEN_MANIFEST; i <= OPEN_TRANSPORTS; i++)
    (void)wire_require(&reading, fields[i], open_keys[i]);
  wire_get_text(&reading, fields[OPEN_MANIFEST], open_keys[OPEN_MANIFEST], message.manifest_id,
                sizeof(message.manifest_id));
  wire_get_bytes(&reading, fields[OPEN_NONCE], open_keys[OPEN_NONCE], message.nonce,
                 sizeof(message.nonce));
  wire_get_protocol(&reading, fields[OPEN_PROTOCOL], &message.protocol_min, &message.protocol_max);
  get_transports(&reading, fields[OPEN_TRANSPORTS], &message);
  wire_get_unsigned(&reading, fields[OPEN_TOTAL], open_keys[OPEN_TOTAL], &message.total_bytes);
  if (strspn(message.manifest_id, "0123456789abcdef") != DIGEST_HEX_BYTES - 1)
    wire_fail_field(&reading, open_keys[OPEN_MANIFEST], "is not 32 digits of 0-9, a-f");
  if (reading.status == SPROUT_OK) *message_out = message;
  return reading.status;
}

/* --- opened --- */

enum {
  OPENED_FORK,
  OPENED_QUEUED,
  OPENED_POSITION,
  OPENED_PROTOCOL,
  OPENED_LEASE,
  OPENED_HEARTBEAT,
  OPENED_WINDOW,
  OPENED_RATE,
  OPENED_GENERATION,
  OPENED_DRAINING,
  OPENED_ENDPOINTS, /* absent without any */
  OPENED_KEYS
};
static const char *const opened_keys[OPENED_KEYS] = {
    "fork",   "queued", "position",   "protocol", "lease_ms", "heartbeat_ms",
    "window", "rate",   "generation", "draining", "endpoints"};

enum { WINDOW_OPERATIONS, WINDOW_BYTES, WINDOW_DEPTH, WINDOW_KEYS };
static const char *const window_keys[WINDOW_KEYS] = {"operations", "bytes", "depth"};

static void write_window(struct wire_writer *writer, const struct window_limits *window) {
  wire_write_map(writer, WINDOW_KEYS);
  wire_write_text(writer, window_keys[WINDOW_OPERATIONS]);
  wire_write_unsigned(writer, window->operations);
  wire_write_text(writer, window_keys[WINDOW_BYTES]);
  wire_write_unsigned(writer, window->bytes);
  wire_write_text(writer, window_keys[WINDOW_DEPTH]);
  wire_write_unsigned(writer, window->depth);
}

enum sprout_status wire_opened_encode(const struct wire_opened *message,
                                      struct wire_buffer *buffer) {
  struct wire_writer writer;
  wire_writer_begin(&writer, buffer);
  bool endpoints = message->endpoint_count > 0;
  wire_write_map(&writer, endpoints ? OPENED_KEYS : OPENED_KEYS - 1);
  wire_write_text(&writer, opened_keys[OPENED_FORK]);
  wire_write_bytes(&writer, message->fork_id, sizeof(message->fork_id));
  wire_write_text(&writer, opened_keys[OPENED_QUEUED]);
  wire_write_bool(&writer, message->queued);
  wire_write_text(&writer, opened_keys[OPENED_POSITION]);
  wire_write_unsigned(&writer, message->position);
  wire_write_text(&writer, opened_keys[OPENED_PROTOCOL]);
  wire_write_unsigned(&writer, message->protocol);
  wire_write_text(&writer, opened_keys[OPENED_LEASE]);
  wire_write_unsigned(&writer, message->lease_ns / NS_PER_MS);
  wire_write_text(&writer, opened_keys[OPENED_HEARTBEAT]);
  wire_write_unsigned(&writer, message->heartbeat_ns / NS_PER_MS);
  wire_write_text(&writer, opened_keys[OPENED_WINDOW]);
  write_window(&writer, &message->grant.window);
  wire_write_text(&writer, opened_keys[OPENED_RATE]);
  wire_write_unsigned(&writer, message->grant.rate);
  wire_write_text(&writer, opened_keys[OPENED_GENERATION]);
  wire_write_unsigned(&writer, message->grant.generation);
  wire_write_text(&writer, opened_keys[OPENED_DRAINING]);
  wire_write_bool(&writer, message->grant.draining);
  if (endpoints) {
    wire_write_text(&writer, opened_keys[OPENED_ENDPOINTS]);
    wire_write_endpoints(&writer, message->endpoints, message->endpoint_count);
  }
  return wire_writer_end(&writer);
}

static void get_window(struct wire_reading *reading, const struct wire_value *value,
                       struct window_limits *window_out) {
  const struct wire_value *fields[WINDOW_KEYS];
  if (!value) return;
  wire_map_fields(reading, value, window_keys, WINDOW_KEYS, fields);
  for (unsigned i = 0; i < WINDOW_KEYS; i++) (void)wire_require(reading, fields[i], window_keys[i]);
  wire_get_u32(reading, fields[WINDOW_OPERATIONS], "operations", &window_out->operations);
  wire_get_unsigned(reading, fields[WINDOW_BYTES], "bytes", &window_out->bytes);
  wire_get_u32(reading, fields[WINDOW_DEPTH], "depth", &window_out->depth);
}

/* A duration in ms; zero would make the reader spin, so it is refused. */
static void get_duration(struct wire_reading *reading, const struct wire_value *value,
                         const char *name, uint64_t *duration_ns_out) {
  uint64_t duration_ms = 0;
  wire_get_unsigned(reading, wire_require(reading, value, name), name, &duration_ms);
  if (duration_ms == 0 || duration_ms > DURATION_MAX_MS)
    wire_fail_field(reading, name, "is out of range");
  *duration_ns_out = duration_ms * NS_PER_MS;
}

enum sprout_status wire_opened_decode(const void *data, size_t length_bytes,
                                      struct wire_opened *message_out, struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_PROTOCOL, "answer about a fork", error, SPROUT_OK};
  struct wire_value entries[MESSAGE_VALUES];
  struct wire_values values = {entries, 0, MESSAGE_VALUES};
  const struct wire_value *fields[OPENED_KEYS];
  struct wire_opened message = {.protocol = WIRE_PROTOCOL_MIN};
  if (!wire_parse_single(&reading, data, length_bytes, &values)) return reading.status;
  wire_map_fields(&reading, entries, opened_keys, OPENED_KEYS, fields);
  wire_get_bytes(&reading, wire_require(&reading, fields[OPENED_FORK], opened_keys[OPENED_FORK]),
                 opened_keys[OPENED_FORK], message.fork_id, sizeof(message.fork_id));
  wire_get_bool(&reading, fields[OPENED_QUEUED], opened_keys[OPENED_QUEUED], &message.queued);
  wire_get_u32(&reading, fields[OPENED_POSITION], opened_keys[OPENED_POSITION], &message.position);
  wire_get_u32(&reading, fields[OPENED_PROTOCOL], opened_keys[OPENED_PROTOCOL], &message.protocol);
  get_duration(&reading, fields[OPENED_LEASE], opened_keys[OPENED_LEASE], &message.lease_ns);
  get_duration(&reading, fields[OPENED_HEARTBEAT], opened_keys[OPENED_HEARTBEAT],
               &message.heartbeat_ns);
  get_window(&reading, wire_require(&reading, fields[OPENED_WINDOW], opened_keys[OPENED_WINDOW]),
             &message.grant.window);
  wire_get_unsigned(&reading, fields[OPENED_RATE], opened_keys[OPENED_RATE], &message.grant.rate);
  wire_get_unsigned(
      &reading, wire_require(&reading, fields[OPENED_GENERATION], opened_keys[OPENED_GENERATION]),
      opened_keys[OPENED_GENERATION], &message.grant.generation);
  wire_get_bool(&reading, fields[OPENED_DRAINING], opened_keys[OPENED_DRAINING],
                &message.grant.draining);
  wire_get_endpoints(&reading, fields[OPENED_ENDPOINTS], message.endpoints,
                     &message.endpoint_count);
  if (reading.status == SPROUT_OK) *message_out = message;
  return reading.status;
}

/* --- heartbeat --- */

enum { HEARTBEAT_RECEIVED, HEARTBEAT_TOTAL, HEARTBEAT_PEAK, HEARTBEAT_KEYS };
static const char *const heartbeat_keys[HEARTBEAT_KEYS] = {"received", "total", "peak"};

enum sprout_status wire_heartbeat_encode(const struct wire_heartbeat *message,
                                         struct wire_buffer *buffer) {
  struct wire_writer writer;
  wire_writer_begin(&writer, buffer);
  wire_write_map(&writer, HEARTBEAT_KEYS);
  wire_write_text(&writer, heartbeat_keys[HEARTBEAT_RECEIVED]);
  wire_write_unsigned(&writer, message->received_bytes);
  wire_write_text(&writer, heartbeat_keys[HEARTBEAT_TOTAL]);
  wire_write_unsigned(&writer, message->total_bytes);
  wire_write_text(&writer, heartbeat_keys[HEARTBEAT_PEAK]);
  wire_write_unsigned(&writer, message->peak_inflight_bytes);
  return wire_writer_end(&writer);
}

enum sprout_status wire_heartbeat_decode(const void *data, size_t length_bytes,
                                         struct wire_heartbeat *message_out,
                                         struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_INVALID, "heartbeat", error, SPROUT_OK};
  struct wire_value entries[MESSAGE_VALUES];
  struct wire_values values = {entries, 0, MESSAGE_VALUES};
  const struct wire_value *fields[HEARTBEAT_KEYS];
  struct wire_heartbeat message = {.received_bytes = 0};
  if (!wire_parse_single(&reading, data, length_bytes, &values)) return reading.status;
  wire_map_fields(&reading, entries, heartbeat_keys, HEARTBEAT_KEYS, fields);
  wire_get_unsigned(&reading, fields[HEARTBEAT_RECEIVED], "received", &message.received_bytes);
  wire_get_unsigned(&reading, fields[HEARTBEAT_TOTAL], "total", &message.total_bytes);
  wire_get_unsigned(&reading, fields[HEARTBEAT_PEAK], "peak", &message.peak_inflight_bytes);
  if (reading.status == SPROUT_OK) *message_out = message;
  return reading.status;
}

/* --- close --- */

enum { CLOSE_RESULT, CLOSE_REASON, CLOSE_RECEIVED, CLOSE_KEYS };
static const char *const close_keys[CLOSE_KEYS] = {"result", "reason", "received"};

enum sprout_status wire_close_encode(const struct wire_close *message, struct wire_buffer *buffer) {
  struct wire_writer writer;
  wire_writer_begin(&writer, buffer);
  wire_write_map(&writer, CLOSE_KEYS);
  wire_write_text(&writer, close_keys[CLOSE_RESULT]);
  wire_write_text(&writer, sprout_status_info_of(message->result)->name);
  wire_write_text(&writer, close_keys[CLOSE_REASON]);
  wire_write_text(&writer, message->reason);
  wire_write_text(&writer, close_keys[CLOSE_RECEIVED]);
  wire_write_unsigned(&writer, message->received_bytes);
  return wire_writer_end(&writer);
}

/* The reason goes into logs: what no log should see becomes '?'. */
static void clean_reason(char *reason) {
  for (; *reason; reason++) {
    unsigned char c = (unsigned char)*reason;
    if (c < 0x20 || c == 0x7f) *reason = '?';
  }
}

enum sprout_status wire_close_decode(const void *data, size_t length_bytes,
                                     struct wire_close *message_out, struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_INVALID, "close request", error, SPROUT_OK};
  struct wire_value entries[MESSAGE_VALUES];
  struct wire_values values = {entries, 0, MESSAGE_VALUES};
  const struct wire_value *fields[CLOSE_KEYS];
  struct wire_close message = {.reason = ""};
  char name[64] = "";
  if (!wire_parse_single(&reading, data, length_bytes, &values)) return reading.status;
  wire_map_fields(&reading, entries, close_keys, CLOSE_KEYS, fields);
  wire_get_text(&reading, wire_require(&reading, fields[CLOSE_RESULT], "result"), "result", name,
                sizeof(name));
  wire_get_text(&reading, fields[CLOSE_REASON], "reason", message.reason, sizeof(message.reason));
  wire_get_unsigned(&reading, fields[CLOSE_RECEIVED], "received", &message.received_bytes);
  if (reading.status != SPROUT_OK) return reading.status;
  /* A result that only later versions know is an internal one here. */
  message.result = sprout_status_from_name(name);
  clean_reason(message.reason);
  *message_out = message;
  return SPROUT_OK;
}
