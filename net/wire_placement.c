/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of one-sided reads: where a fork may connect (endpoints, a part of the answer about
 * a fork), and where everything lies in the seed's memory (placement).
 */
#include "core/limits.h"
#include "net/wire.h"
#include "net/wire_pack.h"
#include "net/wire_value.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Values of a placement besides slices and objects, those of later versions included. */
#define MESSAGE_VALUES 256u
/* [address, length, key of each rail] */
#define SLICE_VALUES (3u + WIRE_ENDPOINTS_MAX)
#define SLICE_HEAD 2u
#define FENCE_ALIGNMENT 8u

static const char rdma_name[] = "rdma";

/* --- endpoints --- */

enum {
  ENDPOINT_TRANSPORT,
  ENDPOINT_ADDRESS,
  ENDPOINT_PORT,
  ENDPOINT_RAIL,
  ENDPOINT_GBITS,
  ENDPOINT_NONCE,
  ENDPOINT_NUMA, /* absent while unknown */
  ENDPOINT_KEYS
};
static const char *const endpoint_keys[ENDPOINT_KEYS] = {"transport", "address", "port", "rail",
                                                         "gbits",     "nonce",   "numa"};

static void write_endpoint(struct wire_writer *writer, const struct wire_endpoint *endpoint) {
  bool numa = endpoint->numa != UINT32_MAX;
  wire_write_map(writer, numa ? ENDPOINT_KEYS : ENDPOINT_KEYS - 1);
  wire_write_text(writer, endpoint_keys[ENDPOINT_TRANSPORT]);
  wire_write_text(writer, rdma_name);
  wire_write_text(writer, endpoint_keys[ENDPOINT_ADDRESS]);
  wire_write_text(writer, endpoint->address);
  wire_write_text(writer, endpoint_keys[ENDPOINT_PORT]);
  wire_write_unsigned(writer, endpoint->port);
  wire_write_text(writer, endpoint_keys[ENDPOINT_RAIL]);
  wire_write_unsigned(writer, endpoint->rail);
  wire_write_text(writer, endpoint_keys[ENDPOINT_GBITS]);
  wire_write_unsigned(writer, endpoint->gbits);
  wire_write_text(writer, endpoint_keys[ENDPOINT_NONCE]);
  wire_write_bytes(writer, endpoint->nonce, sizeof(endpoint->nonce));
  if (!numa) return;
  wire_write_text(writer, endpoint_keys[ENDPOINT_NUMA]);
  wire_write_unsigned(writer, endpoint->numa);
}

void wire_write_endpoints(struct wire_writer *writer, const struct wire_endpoint *endpoints,
                          uint32_t count) {
  assert(count <= WIRE_ENDPOINTS_MAX);
  wire_write_array(writer, count);
  for (uint32_t i = 0; i < count; i++) write_endpoint(writer, &endpoints[i]);
}

static bool is_numeric(const char *address) {
  unsigned char bytes[sizeof(struct in6_addr)];
  return inet_pton(AF_INET, address, bytes) == 1 || inet_pton(AF_INET6, address, bytes) == 1;
}

static void get_endpoint(struct wire_reading *reading, const struct wire_value *const *fields,
                         struct wire_endpoint *endpoint_out) {
  struct wire_endpoint endpoint = {.numa = UINT32_MAX};
  uint32_t port = 0;
  for (unsigned i = ENDPOINT_ADDRESS; i <= ENDPOINT_RAIL; i++)
    (void)wire_require(reading, fields[i], endpoint_keys[i]);
  wire_get_text(reading, fields[ENDPOINT_ADDRESS], "address", endpoint.address,
                sizeof(endpoint.address));
  wire_get_u32(reading, fields[ENDPOINT_PORT], "port", &port);
  wire_get_u32(reading, fields[ENDPOINT_RAIL], "rail", &endpoint.rail);
  wire_get_u32(reading, fields[ENDPOINT_NUMA], "numa", &endpoint.numa);
  wire_get_u32(reading, fields[ENDPOINT_GBITS], "gbits", &endpoint.gbits);
  wire_get_bytes(reading, wire_require(reading, fields[ENDPOINT_NONCE], "nonce"), "nonce",
                 endpoint.nonce, sizeof(endpoint.nonce));
  if (!is_numeric(endpoint.address))
    wire_fail_field(reading, "address", "is not a numeric IP address");
  if (port == 0 || port > UINT16_MAX) wire_fail_field(reading, "port", "is out of range");
  endpoint.port = (uint16_t)port;
  if (reading->status == SPROUT_OK) *endpoint_out = endpoint;
}

void wire_get_endpoints(struct wire_reading *reading, const struct wire_value *list,
                        struct wire_endpoint *endpoints_out, uint32_t *count_out) {
  if (!list || reading->status != SPROUT_OK) return;
  if (list->type != WIRE_ARRAY) {
    wire_fail_field(reading, "endpoints", "is not a list");
    return;
  }
  const struct wire_value *entry = list + 1;
  for (uint32_t i = 0; i < list->size && reading->status == SPROUT_OK; i++) {
    const struct wire_value *fields[ENDPOINT_KEYS];
    struct wire_endpoint endpoint = {.rail = UINT32_MAX};
    wire_map_fields(reading, entry, endpoint_keys, ENDPOINT_KEYS, fields);
    (void)wire_require(reading, fields[ENDPOINT_TRANSPORT], "transport");
    if (wire_text_is(fields[ENDPOINT_TRANSPORT], rdma_name))
      get_endpoint(reading, fields, &endpoint);
    /* Another transport, or more rails than this side can use: left out. */
    if (endpoint.rail < WIRE_ENDPOINTS_MAX && *count_out < WIRE_ENDPOINTS_MAX)
      endpoints_out[(*count_out)++] = endpoint;
    entry = wire_skip(entry);
  }
}

/* --- placement --- */

enum {
  PLACEMENT_GENERATION,
  PLACEMENT_FENCE,
  PLACEMENT_RAILS,
  PLACEMENT_NEXT,
  PLACEMENT_WHOLE,
  PLACEMENT_SLICES,
  PLACEMENT_OBJECTS, /* absent in answers that only add slices */
  PLACEMENT_KEYS
};
static const char *const placement_keys[PLACEMENT_KEYS] = {"generation", "fence",  "rails",  "next",
                                                           "whole",      "slices", "objects"};

static void write_slice(struct wire_writer *writer, const struct wire_slice *slice,
                        uint32_t rail_count) {
  wire_write_array(writer, SLICE_HEAD + rail_count);
  wire_write_unsigned(writer, slice->address);
  wire_write_unsigned(writer, slice->length_bytes);
  for (uint32_t i = 0; i < rail_count; i++) wire_write_unsigned(writer, slice->keys[i]);
}

enum sprout_status wire_placement_encode(const struct wire_placement *message,
                                         struct wire_buffer *buffer) {
  struct wire_writer writer;
  bool objects = message->object_count > 0;
  assert(message->rail_count <= WIRE_ENDPOINTS_MAX);
  wire_writer_begin(&writer, buffer);
  wire_write_map(&writer, objects ? PLACEMENT_KEYS : PLACEMENT_KEYS - 1);
  wire_write_text(&writer, placement_keys[PLACEMENT_GENERATION]);
  wire_write_unsigned(&writer, message->generation);
  wire_write_text(&writer, placement_keys[PLACEMENT_FENCE]);
  wire_write_unsigned(&writer, message->fence_address);
  wire_write_text(&writer, placement_keys[PLACEMENT_RAILS]);
  wire_write_unsigned(&writer, message->rail_count);
  wire_write_text(&writer, placement_keys[PLACEMENT_NEXT]);
  wire_write_unsigned(&writer, message->next);
  wire_write_text(&writer, placement_keys[PLACEMENT_WHOLE]);
  wire_write_bool(&writer, message->whole);
  wire_write_text(&writer, placement_keys[PLACEMENT_SLICES]);
  wire_write_array(&writer, message->slice_count);
  for (uint32_t i = 0; i < message->slice_count; i++)
    write_slice(&writer, &message->slices[i], message->rail_count);
  if (objects) {
    wire_write_text(&writer, placement_keys[PLACEMENT_OBJECTS]);
    wire_write_array(&writer, message->object_count);
    for (uint32_t i = 0; i < message->object_count; i++)
      wire_write_unsigned(&writer, message->objects[i]);
  }
  return wire_writer_end(&writer);
}

static void get_slice(struct wire_reading *reading, const struct wire_value *value,
                      uint32_t rail_count, struct wire_slice *slice_out) {
  struct wire_slice slice = {.address = 0};
  uint64_t end = 0;
  if (value->type != WIRE_ARRAY || value->size < SLICE_HEAD + rail_count) {
    wire_fail(reading, "a slice is not [address, length, key of each rail]");
    return;
  }
  const struct wire_value *element = value + 1;
  wire_get_unsigned(reading, element, "address", &slice.address);
  element = wire_skip(element);
  wire_get_unsigned(reading, element, "length", &slice.length_bytes);
  for (uint32_t i = 0; i < rail_count; i++) {
    element = wire_skip(element);
    wire_get_u32(reading, element, "key", &slice.keys[i]);
  }
  if (reading->status != SPROUT_OK) return;
  if (slice.length_bytes == 0 || __builtin_add_overflow(slice.address, slice.length_bytes, &end))
    wire_fail(reading, "a slice is empty or overflows");
  *slice_out = slice;
}

/* A list of 1 to `most` elements gets memory of `bytes` each; an empty or absent one none. */
static void *make_room(struct wire_reading *reading, const struct wire_value *list,
                       const char *name, uint32_t most, size_t bytes) {
  if (!list || reading->status != SPROUT_OK) return NULL;
  if (list->type != WIRE_ARRAY || list->size > most) {
    wire_fail_field(reading, name, "is not a list, or has too many elements");
    return NULL;
  }
  if (list->size == 0) return NULL;
  void *room = calloc(list->size, bytes);
  if (!room)
    reading->status = sprout_error_set(reading->error, SPROUT_NO_MEMORY, 0, NULL, "no memory");
  return room;
}

static void get_slices(struct wire_reading *reading, const struct wire_value *list,
                       struct wire_placement *message) {
  message->slices = make_room(reading, wire_require(reading, list, "slices"), "slices",
                              LIMIT_SLICES, sizeof(*message->slices));
  if (!message->slices) return;
  message->slice_count = list->size;
  const struct wire_value *slice = list + 1;
  for (uint32_t i = 0; i < list->size && reading->status == SPROUT_OK; i++) {
    get_slice(reading, slice, message->rail_count, &message->slices[i]);
    slice = wire_skip(slice);
  }
}

static void get_objects(struct wire_reading *reading, const struct wire_value *list,
                        struct wire_placement *message) {
  message->objects = make_room(reading, list, "objects", LIMIT_OBJECTS, sizeof(*message->objects));
  if (!message->objects) return;
  message->object_count = list->size;
  const struct wire_value *object = list + 1;
  for (uint32_t i = 0; i < list->size && reading->status == SPROUT_OK; i++) {
    wire_get_unsigned(reading, object, "objects", &message->objects[i]);
    object = wire_skip(object);
  }
}

static void get_placement(struct wire_reading *reading, const struct wire_value *map,
                          struct wire_placement *message) {
  const struct wire_value *fields[PLACEMENT_KEYS];
  wire_map_fields(reading, map, placement_keys, PLACEMENT_KEYS, fields);
  for (unsigned i = PLACEMENT_GENERATION; i <= PLACEMENT_SLICES; i++)
    (void)wire_require(reading, fields[i], placement_keys[i]);
  wire_get_unsigned(reading, fields[PLACEMENT_GENERATION], "generation", &message->generation);
  wire_get_unsigned(reading, fields[PLACEMENT_FENCE], "fence", &message->fence_address);
  wire_get_u32(reading, fields[PLACEMENT_RAILS], "rails", &message->rail_count);
  wire_get_unsigned(reading, fields[PLACEMENT_NEXT], "next", &message->next);
  wire_get_bool(reading, fields[PLACEMENT_WHOLE], "whole", &message->whole);
  if (message->rail_count == 0 || message->rail_count > WIRE_ENDPOINTS_MAX)
    wire_fail_field(reading, "rails", "is out of range");
  if (message->fence_address % FENCE_ALIGNMENT != 0)
    wire_fail_field(reading, "fence", "is not aligned to 8 bytes");
  get_slices(reading, fields[PLACEMENT_SLICES], message);
  get_objects(reading, fields[PLACEMENT_OBJECTS], message);
}

enum sprout_status wire_placement_decode(const void *data, size_t length_bytes,
                                         struct wire_placement *message_out,
                                         struct sprout_error *error) {
  struct wire_reading reading = {SPROUT_PROTOCOL, "placement", error, SPROUT_OK};
  struct wire_placement message = {.slices = NULL};
  /* A value takes a byte at least; what is not needed of it is never touched. */
  struct wire_values values = {NULL, 0,
                               MESSAGE_VALUES + LIMIT_OBJECTS + LIMIT_SLICES * SLICE_VALUES};
  if (length_bytes < values.capacity) values.capacity = (uint32_t)length_bytes + 1;
  values.entries = malloc(values.capacity * sizeof(*values.entries));
  if (!values.entries) return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory");
  if (length_bytes > LIMIT_PLACEMENT_BYTES) wire_fail(&reading, "it is too long");
  if (wire_parse_single(&reading, data, length_bytes, &values))
    get_placement(&reading, values.entries, &message);
  free(values.entries);
  if (reading.status == SPROUT_OK)
    *message_out = message;
  else
    wire_placement_destroy(&message);
  return reading.status;
}

void wire_placement_destroy(struct wire_placement *message) {
  free(message->slices);
  free(message->objects);
  *message = (struct wire_placement){.slices = NULL};
}
