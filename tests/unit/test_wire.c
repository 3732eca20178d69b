/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/limits.h"
#include "net/wire.h"
#include "net/wire_pack.h"
#include "net/wire_value.h"
#include "tests/support/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define FIXTURES SPROUT_SOURCE_DIR "/tests/fixtures/wire/v1/"
#define MEBIBYTE (1ull << 20)

static void must(enum sprout_status status) {
  assert_int_equal(status, SPROUT_OK);
}

/* --- what the fixtures say, and every message in one shape --- */

static const struct wire_open open_message = {
    .manifest_id = "000102030405060708090a0b0c0d0e0f",
    .nonce = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .protocol_min = 1,
    .protocol_max = 1,
    .wants_tcp = true,
    .total_bytes = 1ull << 40,
};

static const struct wire_opened opened_message = {
    .fork_id = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .protocol = 1,
    .lease_ns = 10000000000u,
    .heartbeat_ns = 2000000000u,
    .grant = {.window = {.operations = 64, .bytes = 64 * MEBIBYTE, .depth = 16},
              .rate = 1000000000u,
              .generation = 7,
              .draining = true},
};

static const struct wire_opened queued_message = {
    .fork_id = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .queued = true,
    .position = 3,
    .protocol = 1,
    .lease_ns = 10000000000u,
    .heartbeat_ns = 2000000000u,
    .grant = {.generation = 1},
};

static const struct wire_open open_rdma_message = {
    .manifest_id = "000102030405060708090a0b0c0d0e0f",
    .nonce = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .protocol_min = 1,
    .protocol_max = 1,
    .wants_tcp = true,
    .wants_rdma = true,
    .total_bytes = 1ull << 40,
};

static const struct wire_opened opened_rdma_message = {
    .fork_id = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .protocol = 1,
    .lease_ns = 10000000000u,
    .heartbeat_ns = 2000000000u,
    .grant = {.window = {.operations = 64, .bytes = 8 * MEBIBYTE, .depth = 16}, .generation = 7},
    .endpoint_count = 2,
    .endpoints = {{.address = "192.0.2.7",
                   .port = 40000,
                   .rail = 0,
                   .numa = UINT32_MAX,
                   .nonce = {15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0}},
                  {.address = "2001:db8::7",
                   .port = 65535,
                   .rail = 1,
                   .numa = 1,
                   .gbits = 400,
                   .nonce = {1, 1, 1, 1}}},
};

static struct wire_slice slices[] = {
    {.address = 0x7f0000000000, .length_bytes = 256 * MEBIBYTE, .keys = {1, UINT32_MAX}},
    {.address = 4096, .length_bytes = 1, .keys = {0, 7}},
};
static uint64_t objects[] = {0x7f0000000000, 4096, 0};
static const struct wire_placement placement_message = {.generation = 7,
                                                        .fence_address = 0x7f0000000008,
                                                        .rail_count = 2,
                                                        .next = 2,
                                                        .whole = true,
                                                        .slices = slices,
                                                        .slice_count = COUNT(slices),
                                                        .objects = objects,
                                                        .object_count = COUNT(objects)};

static const struct wire_heartbeat heartbeat_message = {.received_bytes = 5ull << 30,
                                                        .total_bytes = 9ull << 30};
static const struct wire_heartbeat heartbeat_rdma_message = {5ull << 30, 9ull << 30, 512u << 10};
static const struct wire_close close_message = {SPROUT_CANCELLED, "the user asked", 0};
static const struct wire_range ranges[] = {{0, 0, SPROUT_CHUNK_BYTES, 0, 1},
                                           {9, 1ull << 33, 512, 4096, 3}};
static const struct wire_read read_message = {7, ranges, COUNT(ranges)};
static struct digest digest_values[3];
static bool digest_known[] = {true, false, true};
static const struct wire_digests digests_message = {12, 3, digest_values, digest_known, 7};

static enum sprout_status decode_open_as(const struct wire_open *expected, const void *data,
                                         size_t length, struct sprout_error *error) {
  struct wire_open got;
  enum sprout_status status = wire_open_decode(data, length, &got, error);
  if (status != SPROUT_OK) return status;
  assert_string_equal(got.manifest_id, expected->manifest_id);
  assert_memory_equal(got.nonce, expected->nonce, sizeof(got.nonce));
  assert_int_equal(got.protocol_min, expected->protocol_min);
  assert_int_equal(got.protocol_max, expected->protocol_max);
  assert_int_equal(got.wants_tcp, expected->wants_tcp);
  assert_int_equal(got.wants_rdma, expected->wants_rdma);
  assert_int_equal(got.total_bytes, expected->total_bytes);
  return status;
}

static enum sprout_status decode_open(const void *data, size_t length, struct sprout_error *error) {
  return decode_open_as(&open_message, data, length, error);
}

static enum sprout_status decode_open_rdma(const void *data, size_t length,
                                           struct sprout_error *error) {
  return decode_open_as(&open_rdma_message, data, length, error);
}

static void check_opened(const struct wire_opened *got, const struct wire_opened *expected) {
  assert_memory_equal(got->fork_id, expected->fork_id, sizeof(got->fork_id));
  assert_int_equal(got->queued, expected->queued);
  assert_int_equal(got->position, expected->position);
  assert_int_equal(got->protocol, expected->protocol);
  assert_int_equal(got->lease_ns, expected->lease_ns);
  assert_int_equal(got->heartbeat_ns, expected->heartbeat_ns);
  assert_int_equal(got->grant.window.operations, expected->grant.window.operations);
  assert_int_equal(got->grant.window.bytes, expected->grant.window.bytes);
  assert_int_equal(got->grant.window.depth, expected->grant.window.depth);
  assert_int_equal(got->grant.rate, expected->grant.rate);
  assert_int_equal(got->grant.generation, expected->grant.generation);
  assert_int_equal(got->grant.draining, expected->grant.draining);
  assert_int_equal(got->endpoint_count, expected->endpoint_count);
  for (uint32_t i = 0; i < got->endpoint_count; i++) {
    const struct wire_endpoint *a = &got->endpoints[i], *b = &expected->endpoints[i];
    assert_string_equal(a->address, b->address);
    assert_int_equal(a->port, b->port);
    assert_int_equal(a->rail, b->rail);
    assert_int_equal(a->numa, b->numa);
    assert_int_equal(a->gbits, b->gbits);
    assert_memory_equal(a->nonce, b->nonce, sizeof(a->nonce));
  }
}

static enum sprout_status decode_opened_rdma(const void *data, size_t length,
                                             struct sprout_error *error) {
  struct wire_opened got;
  enum sprout_status status = wire_opened_decode(data, length, &got, error);
  if (status == SPROUT_OK) check_opened(&got, &opened_rdma_message);
  return status;
}

static enum sprout_status decode_placement(const void *data, size_t length,
                                           struct sprout_error *error) {
  struct wire_placement got;
  const struct wire_placement *expected = &placement_message;
  enum sprout_status status = wire_placement_decode(data, length, &got, error);
  if (status != SPROUT_OK) return status;
  assert_int_equal(got.generation, expected->generation);
  assert_int_equal(got.fence_address, expected->fence_address);
  assert_int_equal(got.rail_count, expected->rail_count);
  assert_int_equal(got.next, expected->next);
  assert_int_equal(got.whole, expected->whole);
  assert_int_equal(got.slice_count, expected->slice_count);
  for (uint32_t i = 0; i < got.slice_count; i++) {
    assert_int_equal(got.slices[i].address, slices[i].address);
    assert_int_equal(got.slices[i].length_bytes, slices[i].length_bytes);
    assert_memory_equal(got.slices[i].keys, slices[i].keys, sizeof(slices[i].keys));
  }
  assert_int_equal(got.object_count, expected->object_count);
  assert_memory_equal(got.objects, objects, sizeof(objects));
  wire_placement_destroy(&got);
  return status;
}

static enum sprout_status decode_opened(const void *data, size_t length,
                                        struct sprout_error *error) {
  struct wire_opened got;
  enum sprout_status status = wire_opened_decode(data, length, &got, error);
  if (status == SPROUT_OK) check_opened(&got, &opened_message);
  return status;
}

static enum sprout_status decode_queued(const void *data, size_t length,
                                        struct sprout_error *error) {
  struct wire_opened got;
  enum sprout_status status = wire_opened_decode(data, length, &got, error);
  if (status == SPROUT_OK) check_opened(&got, &queued_message);
  return status;
}

static enum sprout_status decode_heartbeat_as(const struct wire_heartbeat *expected,
                                              const void *data, size_t length,
                                              struct sprout_error *error) {
  struct wire_heartbeat got;
  enum sprout_status status = wire_heartbeat_decode(data, length, &got, error);
  if (status != SPROUT_OK) return status;
  assert_int_equal(got.received_bytes, expected->received_bytes);
  assert_int_equal(got.total_bytes, expected->total_bytes);
  assert_int_equal(got.peak_inflight_bytes, expected->peak_inflight_bytes);
  return status;
}

static enum sprout_status decode_heartbeat(const void *data, size_t length,
                                           struct sprout_error *error) {
  return decode_heartbeat_as(&heartbeat_message, data, length, error);
}

static enum sprout_status decode_heartbeat_rdma(const void *data, size_t length,
                                                struct sprout_error *error) {
  return decode_heartbeat_as(&heartbeat_rdma_message, data, length, error);
}

static enum sprout_status decode_close(const void *data, size_t length,
                                       struct sprout_error *error) {
  struct wire_close got;
  enum sprout_status status = wire_close_decode(data, length, &got, error);
  if (status != SPROUT_OK) return status;
  assert_int_equal(got.result, close_message.result);
  assert_string_equal(got.reason, close_message.reason);
  return status;
}

static enum sprout_status decode_read(const void *data, size_t length, struct sprout_error *error) {
  struct wire_range got_ranges[COUNT(ranges)];
  struct wire_read got;
  enum sprout_status status =
      wire_read_decode(data, length, got_ranges, COUNT(got_ranges), &got, error);
  if (status != SPROUT_OK) return status;
  assert_int_equal(got.generation, read_message.generation);
  assert_int_equal(got.range_count, read_message.range_count);
  for (size_t i = 0; i < COUNT(ranges); i++) {
    assert_int_equal(got.ranges[i].object, ranges[i].object);
    assert_int_equal(got.ranges[i].offset, ranges[i].offset);
    assert_int_equal(got.ranges[i].length_bytes, ranges[i].length_bytes);
    assert_int_equal(got.ranges[i].stride_bytes, ranges[i].stride_bytes);
    assert_int_equal(got.ranges[i].count, ranges[i].count);
  }
  return status;
}

static enum sprout_status decode_digests(const void *data, size_t length,
                                         struct sprout_error *error) {
  struct digest values[3];
  bool known[3];
  struct wire_digests got = {.values = values, .known = known};
  enum sprout_status status = wire_digests_decode(data, length, 3, &got, error);
  if (status != SPROUT_OK) return status;
  assert_int_equal(got.first, digests_message.first);
  assert_int_equal(got.count, digests_message.count);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(known[i], digest_known[i]);
    if (known[i]) assert_memory_equal(&values[i], &digest_values[i], sizeof(values[i]));
  }
  return status;
}

static enum sprout_status decode_digests_wanted(const void *data, size_t length,
                                                struct sprout_error *error) {
  uint64_t first, count;
  enum sprout_status status = wire_digests_wanted_decode(data, length, &first, &count, error);
  if (status != SPROUT_OK) return status;
  assert_int_equal(first, 12);
  assert_int_equal(count, 3);
  return status;
}

static enum sprout_status encode_open(struct wire_buffer *buffer) {
  return wire_open_encode(&open_message, buffer);
}
static enum sprout_status encode_open_rdma(struct wire_buffer *buffer) {
  return wire_open_encode(&open_rdma_message, buffer);
}
static enum sprout_status encode_opened_rdma(struct wire_buffer *buffer) {
  return wire_opened_encode(&opened_rdma_message, buffer);
}
static enum sprout_status encode_heartbeat_rdma(struct wire_buffer *buffer) {
  return wire_heartbeat_encode(&heartbeat_rdma_message, buffer);
}
static enum sprout_status encode_placement(struct wire_buffer *buffer) {
  return wire_placement_encode(&placement_message, buffer);
}
static enum sprout_status encode_opened(struct wire_buffer *buffer) {
  return wire_opened_encode(&opened_message, buffer);
}
static enum sprout_status encode_queued(struct wire_buffer *buffer) {
  return wire_opened_encode(&queued_message, buffer);
}
static enum sprout_status encode_heartbeat(struct wire_buffer *buffer) {
  return wire_heartbeat_encode(&heartbeat_message, buffer);
}
static enum sprout_status encode_close(struct wire_buffer *buffer) {
  return wire_close_encode(&close_message, buffer);
}
static enum sprout_status encode_read(struct wire_buffer *buffer) {
  return wire_read_encode(&read_message, buffer);
}
static enum sprout_status encode_digests(struct wire_buffer *buffer) {
  return wire_digests_encode(&digests_message, buffer);
}
static enum sprout_status encode_digests_wanted(struct wire_buffer *buffer) {
  return wire_digests_wanted_encode(12, 3, buffer);
}

/* Every message: how it is written, how it is read and compared, what malformed bytes are. */
static const struct kind {
  const char *name;
  enum sprout_status (*encode)(struct wire_buffer *buffer);
  enum sprout_status (*decode)(const void *data, size_t length, struct sprout_error *error);
  enum sprout_status malformed;
} kinds[] = {
    {"open", encode_open, decode_open, SPROUT_INVALID},
    {"opened", encode_opened, decode_opened, SPROUT_PROTOCOL},
    {"queued", encode_queued, decode_queued, SPROUT_PROTOCOL},
    {"heartbeat", encode_heartbeat, decode_heartbeat, SPROUT_INVALID},
    {"close", encode_close, decode_close, SPROUT_INVALID},
    {"read", encode_read, decode_read, SPROUT_INVALID},
    {"digests", encode_digests, decode_digests, SPROUT_PROTOCOL},
    {"digests_wanted", encode_digests_wanted, decode_digests_wanted, SPROUT_INVALID},
    {"open_rdma", encode_open_rdma, decode_open_rdma, SPROUT_INVALID},
    {"opened_rdma", encode_opened_rdma, decode_opened_rdma, SPROUT_PROTOCOL},
    {"heartbeat_rdma", encode_heartbeat_rdma, decode_heartbeat_rdma, SPROUT_INVALID},
    {"placement", encode_placement, decode_placement, SPROUT_PROTOCOL},
};

static int fill_digests(void **state) {
  (void)state;
  for (size_t i = 0; i < DIGEST_BYTES; i++) {
    digest_values[0].bytes[i] = (uint8_t)i;
    digest_values[2].bytes[i] = (uint8_t)(DIGEST_BYTES - 1 - i);
  }
  return 0;
}

/* Decodes from memory of exactly this size, so that a step beyond is seen. */
static enum sprout_status decode_exactly(const struct kind *kind, const void *data, size_t length,
                                         struct sprout_error *error) {
  void *copy = malloc(length ? length : 1);
  assert_non_null(copy);
  memcpy(copy, data, length);
  enum sprout_status status = kind->decode(copy, length, error);
  free(copy);
  return status;
}

/* --- tests over all messages --- */

static void messages_come_back(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(kinds); i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct sprout_error error = {0};
    assert_int_equal(kinds[i].encode(&buffer), SPROUT_OK);
    size_t length = buffer.length_bytes;
    if (decode_exactly(&kinds[i], buffer.data, length, &error) != SPROUT_OK)
      fail_msg("%s: %s", kinds[i].name, error.message);
    /* Encoders append. */
    assert_int_equal(kinds[i].encode(&buffer), SPROUT_OK);
    assert_int_equal(buffer.length_bytes, 2 * length);
    assert_memory_equal(buffer.data, buffer.data + length, length);
    assert_int_equal(decode_exactly(&kinds[i], buffer.data, 2 * length, &error),
                     kinds[i].malformed);
    wire_buffer_destroy(&buffer);
    assert_null(buffer.data);
  }
}

static size_t read_fixture(const char *name, char *data, size_t capacity) {
  char path[512];
  (void)snprintf(path, sizeof(path), FIXTURES "%s.msgpack", name);
  FILE *file = fopen(path, "rb");
  if (!file) fail_msg("%s", path);
  size_t length = fread(data, 1, capacity, file);
  assert_int_equal(fclose(file), 0);
  assert_true(length > 0 && length < capacity);
  return length;
}

static void messages_of_protocol_1_stay_readable(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(kinds); i++) {
    char data[1024];
    struct sprout_error error = {0};
    size_t length = read_fixture(kinds[i].name, data, sizeof(data));
    if (decode_exactly(&kinds[i], data, length, &error) != SPROUT_OK)
      fail_msg("%s: %s", kinds[i].name, error.message);
  }
}

static void every_cut_is_malformed(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(kinds); i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    assert_int_equal(kinds[i].encode(&buffer), SPROUT_OK);
    for (size_t length = 0; length < buffer.length_bytes; length++) {
      struct sprout_error error = {0};
      assert_int_equal(decode_exactly(&kinds[i], buffer.data, length, &error), kinds[i].malformed);
      assert_int_equal(error.status, kinds[i].malformed);
      assert_true(error.message[0]);
    }
    wire_buffer_destroy(&buffer);
  }
}

/* A message with one more pair in front. */
static struct wire_buffer with_pair(const struct kind *kind, const char *key,
                                    void (*write_value)(struct wire_writer *writer)) {
  struct wire_buffer buffer = {NULL, 0, 0}, message = {NULL, 0, 0};
  struct wire_writer writer;
  assert_int_equal(kind->encode(&message), SPROUT_OK);
  assert_int_equal(message.data[0] & 0xf0, 0x80); /* a map of at most 15 */
  wire_writer_begin(&writer, &buffer);
  wire_write_map(&writer, (message.data[0] & 15u) + 1);
  wire_write_text(&writer, key);
  write_value(&writer);
  assert_int_equal(wire_writer_end(&writer), SPROUT_OK);
  assert_int_equal(wire_buffer_reserve(&buffer, message.length_bytes), SPROUT_OK);
  memcpy(buffer.data + buffer.length_bytes, message.data + 1, message.length_bytes - 1);
  buffer.length_bytes += message.length_bytes - 1;
  wire_buffer_destroy(&message);
  return buffer;
}

static void write_anything(struct wire_writer *writer) {
  wire_write_array(writer, 5);
  wire_write_map(writer, 1);
  wire_write_array(writer, 0);
  wire_write_bytes(writer, "x", 1);
  wire_write_signed(writer, INT64_MIN);
  wire_write_nil(writer);
  wire_write_text(writer, "");
  wire_write_bool(writer, true);
}

static void write_critical_known(struct wire_writer *writer) {
  wire_write_array(writer, 0);
}

static void write_critical_unknown(struct wire_writer *writer) {
  wire_write_array(writer, 1);
  wire_write_text(writer, "teleport");
}

static void write_critical_number(struct wire_writer *writer) {
  wire_write_array(writer, 1);
  wire_write_unsigned(writer, 3);
}

static void unknown_keys_are_ignored_unless_critical(void **state) {
  (void)state;
  const struct {
    const char *key;
    void (*write)(struct wire_writer *writer);
    enum sprout_status status; /* SPROUT_INTERNAL: malformed */
  } cases[] = {
      {"teleport", write_anything, SPROUT_OK},
      {"critical", write_critical_known, SPROUT_OK},
      {"critical", write_critical_unknown, SPROUT_VERSION},
      {"critical", write_critical_number, SPROUT_INTERNAL},
      {"critical", wire_write_nil, SPROUT_INTERNAL},
  };
  for (size_t i = 0; i < COUNT(kinds); i++) {
    for (size_t k = 0; k < COUNT(cases); k++) {
      struct sprout_error error = {0};
      struct wire_buffer buffer = with_pair(&kinds[i], cases[k].key, cases[k].write);
      enum sprout_status expected =
          cases[k].status == SPROUT_INTERNAL ? kinds[i].malformed : cases[k].status;
      assert_int_equal(decode_exactly(&kinds[i], buffer.data, buffer.length_bytes, &error),
                       expected);
      if (expected == SPROUT_VERSION) assert_non_null(strstr(error.message, "teleport"));
      wire_buffer_destroy(&buffer);
    }
  }
}

static void a_repeated_key_is_malformed(void **state) {
  (void)state;
  static const char *const first_keys[] = {"manifest", "fork",       "fork",     "received",
                                           "result",   "generation", "first",    "first",
                                           "manifest", "fork",       "received", "generation"};
  for (size_t i = 0; i < COUNT(kinds); i++) {
    struct sprout_error error = {0};
    struct wire_buffer buffer = with_pair(&kinds[i], first_keys[i], wire_write_nil);
    assert_int_equal(decode_exactly(&kinds[i], buffer.data, buffer.length_bytes, &error),
                     kinds[i].malformed);
    assert_non_null(strstr(error.message, "twice"));
    wire_buffer_destroy(&buffer);
  }
}

/* Each byte of each message set to each value: never more than an error. */
static void any_changed_byte_is_survived(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT(kinds); i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    assert_int_equal(kinds[i].encode(&buffer), SPROUT_OK);
    for (size_t at = 0; at < buffer.length_bytes; at++) {
      unsigned char kept = buffer.data[at];
      for (unsigned value = 0; value < 256; value += 1) {
        struct wire_range got_ranges[COUNT(ranges)];
        struct digest values[3];
        bool known[3];
        struct wire_digests digests = {.values = values, .known = known};
        struct wire_read read;
        struct wire_open open;
        struct wire_opened opened;
        struct wire_close closed;
        struct wire_heartbeat heartbeat;
        struct wire_placement placement;
        buffer.data[at] = (unsigned char)value;
        size_t n = buffer.length_bytes;
        (void)!wire_open_decode(buffer.data, n, &open, NULL);
        (void)!wire_opened_decode(buffer.data, n, &opened, NULL);
        (void)!wire_heartbeat_decode(buffer.data, n, &heartbeat, NULL);
        (void)!wire_close_decode(buffer.data, n, &closed, NULL);
        (void)!wire_read_decode(buffer.data, n, got_ranges, COUNT(got_ranges), &read, NULL);
        (void)!wire_digests_decode(buffer.data, n, 3, &digests, NULL);
        if (wire_placement_decode(buffer.data, n, &placement, NULL) == SPROUT_OK)
          wire_placement_destroy(&placement);
      }
      buffer.data[at] = kept;
    }
    wire_buffer_destroy(&buffer);
  }
}

static void hostile_msgpack_is_refused_cheaply(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t length;
  } cases[] = {
#define BYTES(text) {text, sizeof(text) - 1}
      BYTES("\xdd\xff\xff\xff\xff"),                  /* an array of 4 billion */
      BYTES("\xdf\xff\xff\xff\xff"),                  /* a map of them */
      BYTES("\xdb\xff\xff\xff\xff"),                  /* a text */
      BYTES("\xc6\xff\xff\xff\xff"),                  /* bytes */
      BYTES("\xc9\xff\xff\xff\xff\x01"),              /* an extension */
      BYTES("\x81\xa1x\xdd\x7f\xff\xff\xff\xc0\xc0"), /* nested in a map */
      BYTES("\xc1"),                                  /* never used */
      BYTES("\x80"),                                  /* an empty map */
      BYTES("\x90"),                                  /* an empty array */
      BYTES("\xc0"),                                  /* nil */
      BYTES("\xca\x00\x00\x00\x00"),                  /* a float */
      BYTES("\x81\x00\x00"),                          /* a number as key */
  };
  for (size_t i = 0; i < COUNT(kinds); i++) {
    for (size_t k = 0; k < COUNT(cases); k++) {
      struct sprout_error error = {0};
      /* All keys of a heartbeat are optional: any map is one. */
      if (kinds[i].malformed == SPROUT_INVALID && strstr(kinds[i].name, "heartbeat") != NULL &&
          (cases[k].bytes[0] & 0xf0) == 0x80 && cases[k].length < 4)
        continue;
      assert_int_equal(decode_exactly(&kinds[i], cases[k].bytes, cases[k].length, &error),
                       kinds[i].malformed);
    }
  }
}

static void deep_nesting_is_refused(void **state) {
  (void)state;
  char deep[4096];
  struct sprout_error error = {0};
  struct wire_heartbeat heartbeat;
  memset(deep, 0x91, sizeof(deep));
  assert_int_equal(wire_heartbeat_decode(deep, sizeof(deep), &heartbeat, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.message, "nested"));
  memset(deep, 0x90, sizeof(deep));
  deep[0] = (char)0xdc, deep[1] = 0x0f, deep[2] = (char)0xfd;
  assert_int_equal(wire_heartbeat_decode(deep, sizeof(deep), &heartbeat, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.message, "too many"));
}

/* --- tests of single messages --- */

static enum sprout_status try_range(struct wire_range range) {
  struct wire_buffer buffer = {NULL, 0, 0};
  struct wire_range got;
  struct wire_read message = {1, &range, 1}, read = {0, NULL, 0};
  assert_int_equal(wire_read_encode(&message, &buffer), SPROUT_OK);
  enum sprout_status status =
      wire_read_decode(buffer.data, buffer.length_bytes, &got, 1, &read, NULL);
  wire_buffer_destroy(&buffer);
  return status;
}

static void ranges_that_overflow_are_refused(void **state) {
  (void)state;
  static const struct {
    struct wire_range range;
    enum sprout_status status;
  } cases[] = {
      {{0, 0, 1, 0, 1}, SPROUT_OK},
      {{UINT32_MAX, 0, UINT64_MAX, 0, 1}, SPROUT_OK},
      {{0, UINT64_MAX, 0, 0, 1}, SPROUT_OK},
      {{0, UINT64_MAX, 1, 0, 1}, SPROUT_INVALID},
      {{0, 1, UINT64_MAX, 0, 1}, SPROUT_INVALID},
      {{0, 0, 1, 0, 0}, SPROUT_INVALID},
      {{0, 0, 2, 1, 2}, SPROUT_INVALID},
      {{0, 0, 2, 2, 2}, SPROUT_OK},
      {{0, 0, 0, 1, 2}, SPROUT_INVALID},
      {{0, 0, 1, UINT64_MAX / 2, 3}, SPROUT_OK},
      {{0, 1, 1, UINT64_MAX / 2, 3}, SPROUT_INVALID},
      {{0, 0, 1, UINT64_MAX / 2, 2}, SPROUT_OK},
      {{0, 1ull << 63, 1, 1ull << 63, 2}, SPROUT_INVALID},
      {{0, 0, 1ull << 32, 1ull << 32, 1ull << 32}, SPROUT_INVALID},
  };
  for (size_t i = 0; i < COUNT(cases); i++)
    assert_int_equal(try_range(cases[i].range), cases[i].status);
}

static void a_read_has_one_to_capacity_ranges(void **state) {
  (void)state;
  static struct wire_range many[LIMIT_READ_RANGES + 1], got[LIMIT_READ_RANGES];
  struct wire_read read;
  struct sprout_error error = {0};
  for (uint32_t i = 0; i < COUNT(many); i++)
    many[i] = (struct wire_range){i, 1ull << 40, 1ull << 33, 1ull << 34, 2 + i};
  for (uint32_t count = 0; count <= COUNT(many); count += LIMIT_READ_RANGES / 4) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct wire_read message = {1, many, count};
    assert_int_equal(wire_read_encode(&message, &buffer), SPROUT_OK);
    assert_int_equal(
        wire_read_decode(buffer.data, buffer.length_bytes, got, LIMIT_READ_RANGES, &read, &error),
        count ? SPROUT_OK : SPROUT_INVALID);
    if (count) assert_memory_equal(got, many, count * sizeof(got[0]));
    wire_buffer_destroy(&buffer);
  }
  struct wire_buffer buffer = {NULL, 0, 0};
  struct wire_read message = {1, many, LIMIT_READ_RANGES + 1};
  assert_int_equal(wire_read_encode(&message, &buffer), SPROUT_OK);
  assert_int_equal(
      wire_read_decode(buffer.data, buffer.length_bytes, got, LIMIT_READ_RANGES, &read, &error),
      SPROUT_INVALID);
  assert_non_null(strstr(error.message, "too many"));
  wire_buffer_destroy(&buffer);
}

static void the_largest_digests_answer_fits(void **state) {
  (void)state;
  static struct digest values[LIMIT_DIGESTS_PER_REQUEST], got_values[LIMIT_DIGESTS_PER_REQUEST];
  static bool known[LIMIT_DIGESTS_PER_REQUEST], got_known[LIMIT_DIGESTS_PER_REQUEST];
  struct wire_buffer buffer = {NULL, 0, 0};
  for (uint32_t i = 0; i < COUNT(values); i++) {
    known[i] = i % 3 != 0;
    if (known[i]) memcpy(values[i].bytes, &i, sizeof(i));
  }
  struct wire_digests message = {UINT64_MAX - COUNT(values), COUNT(values), values, known, 1};
  struct wire_digests got = {.values = got_values, .known = got_known};
  assert_int_equal(wire_digests_encode(&message, &buffer), SPROUT_OK);
  assert_int_equal(wire_digests_decode(buffer.data, buffer.length_bytes, COUNT(values), &got, NULL),
                   SPROUT_OK);
  assert_int_equal(got.first, message.first);
  assert_int_equal(got.count, message.count);
  assert_memory_equal(got_values, values, sizeof(values));
  assert_memory_equal(got_known, known, sizeof(known));
  assert_int_equal(
      wire_digests_decode(buffer.data, buffer.length_bytes, COUNT(values) - 1, &got, NULL),
      SPROUT_PROTOCOL);
  wire_buffer_destroy(&buffer);
}

static void strange_values_are_refused_by_name(void **state) {
  (void)state;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct sprout_error error = {0};
  struct wire_opened opened = opened_message;
  struct wire_open open = open_message;
  opened.lease_ns = UINT64_MAX; /* the clock plus this would overflow */
  assert_int_equal(wire_opened_encode(&opened, &buffer), SPROUT_OK);
  assert_int_equal(wire_opened_decode(buffer.data, buffer.length_bytes, &opened, &error),
                   SPROUT_PROTOCOL);
  assert_non_null(strstr(error.message, "lease"));
  buffer.length_bytes = 0;
  opened = opened_message;
  opened.heartbeat_ns = 0;
  assert_int_equal(wire_opened_encode(&opened, &buffer), SPROUT_OK);
  assert_int_equal(wire_opened_decode(buffer.data, buffer.length_bytes, &opened, &error),
                   SPROUT_PROTOCOL);
  assert_non_null(strstr(error.message, "heartbeat_ms"));
  buffer.length_bytes = 0;
  open.protocol_min = 3;
  assert_int_equal(wire_open_encode(&open, &buffer), SPROUT_OK);
  assert_int_equal(wire_open_decode(buffer.data, buffer.length_bytes, &open, &error),
                   SPROUT_INVALID);
  assert_non_null(strstr(error.message, "protocol"));
  buffer.length_bytes = 0;
  open = open_message;
  open.manifest_id[5] = 'x';
  assert_int_equal(wire_open_encode(&open, &buffer), SPROUT_OK);
  assert_int_equal(wire_open_decode(buffer.data, buffer.length_bytes, &open, &error),
                   SPROUT_INVALID);
  assert_non_null(strstr(error.message, "manifest"));
  buffer.length_bytes = 0;
  assert_int_equal(wire_digests_wanted_encode(0, LIMIT_DIGESTS_PER_REQUEST + 1, &buffer),
                   SPROUT_OK);
  uint64_t first, count;
  assert_int_equal(
      wire_digests_wanted_decode(buffer.data, buffer.length_bytes, &first, &count, &error),
      SPROUT_INVALID);
  wire_buffer_destroy(&buffer);
}

static void a_close_reason_is_fit_for_a_log(void **state) {
  (void)state;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct wire_close message = {SPROUT_CORRUPT, "a\nb\x1b[1mc\x7f", 9}, got;
  assert_int_equal(wire_close_encode(&message, &buffer), SPROUT_OK);
  assert_int_equal(wire_close_decode(buffer.data, buffer.length_bytes, &got, NULL), SPROUT_OK);
  assert_int_equal(got.result, SPROUT_CORRUPT);
  assert_string_equal(got.reason, "a?b?[1mc?");
  assert_int_equal(got.received_bytes, 9);
  buffer.length_bytes = 0;
  static const char later[] = "\x81\xa6result\xa7unheard";
  assert_int_equal(wire_close_decode(later, sizeof(later) - 1, &got, NULL), SPROUT_OK);
  assert_int_equal(got.result, SPROUT_INTERNAL);
  wire_buffer_destroy(&buffer);
}

/* --- errors as JSON --- */

static void errors_come_back(void **state) {
  (void)state;
  for (int i = 1; i < SPROUT_STATUS_COUNT; i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct sprout_error error = {.status = (enum sprout_status)i,
                                 .message = "say \"what\"\\ \xc3\xa4\xe4\xbd\xa0",
                                 .hint = "do"};
    struct sprout_error got;
    assert_int_equal(wire_error_encode_json(&error, &buffer), SPROUT_OK);
    wire_error_decode_json(buffer.data, buffer.length_bytes, 418, &got);
    assert_int_equal(got.native, 418);
    assert_string_equal(got.message, error.message);
    assert_string_equal(got.hint, error.hint);
    /* A stranger's word never ends a fork: another source may be right. */
    assert_int_not_equal(sprout_status_info_of(got.status)->retry, SPROUT_RETRY_FATAL);
    if (sprout_status_info_of(error.status)->retry == SPROUT_RETRY_SAME_SOURCE ||
        sprout_status_info_of(error.status)->retry == SPROUT_RETRY_RESTART)
      assert_int_equal(got.status, i);
    wire_buffer_destroy(&buffer);
  }
}

static void codes_are_read_from_this_side(void **state) {
  (void)state;
  static const struct {
    enum sprout_status said, meant;
  } cases[] = {
      {SPROUT_DENIED, SPROUT_DENIED},
      {SPROUT_NOT_FOUND, SPROUT_NOT_FOUND},
      {SPROUT_VERSION, SPROUT_VERSION},
      {SPROUT_MISMATCH, SPROUT_MISMATCH},
      {SPROUT_INVALID, SPROUT_PROTOCOL},
      {SPROUT_UNSUPPORTED, SPROUT_VERSION},
      {SPROUT_NO_MEMORY, SPROUT_UNAVAILABLE},
      {SPROUT_CANCELLED, SPROUT_UNAVAILABLE},
      {SPROUT_INTERNAL, SPROUT_UNAVAILABLE},
      {SPROUT_NO_SPACE, SPROUT_UNAVAILABLE},
      {SPROUT_DISCONNECTED, SPROUT_UNAVAILABLE},
      {SPROUT_CORRUPT, SPROUT_UNAVAILABLE},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct sprout_error error = {.status = cases[i].said, .message = "m"}, got;
    assert_int_equal(wire_error_encode_json(&error, &buffer), SPROUT_OK);
    wire_error_decode_json(buffer.data, buffer.length_bytes, 500, &got);
    assert_int_equal(got.status, cases[i].meant);
    wire_buffer_destroy(&buffer);
  }
}

static void an_error_looks_like_this(void **state) {
  (void)state;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct sprout_error error = {.status = SPROUT_GONE, .message = "the lease\n\xff", .hint = ""};
  static const char expected[] =
      "{\"error\":{\"code\":\"gone\",\"message\":\"the lease\\n?\",\"hint\":\"\"}}\n";
  assert_int_equal(wire_error_encode_json(&error, &buffer), SPROUT_OK);
  assert_int_equal(buffer.length_bytes, sizeof(expected) - 1);
  assert_memory_equal(buffer.data, expected, sizeof(expected) - 1);
  wire_buffer_destroy(&buffer);
}

static void foreign_errors_fall_back_to_the_http_status(void **state) {
  (void)state;
  static const struct {
    const char *body;
    int http_status;
    enum sprout_status status;
    const char *message;
  } cases[] = {
      {"", 404, SPROUT_NOT_FOUND, "HTTP 404"},
      {"<html>", 502, SPROUT_UNAVAILABLE, "HTTP 502"},
      {"{}", 401, SPROUT_DENIED, "HTTP 401"},
      {"[]", 429, SPROUT_BUSY, "HTTP 429"},
      {"{\"error\":\"x\"}", 503, SPROUT_UNAVAILABLE, "HTTP 503"},
      {"{\"error\":{\"code\":7}}", 410, SPROUT_GONE, "HTTP 410"},
      {"{\"error\":{\"code\":\"ok\",\"message\":\"m\"}}", 409, SPROUT_STALE, "m"},
      {"{\"error\":{\"code\":\"later\",\"message\":\"m\"}}", 425, SPROUT_TOO_EARLY, "m"},
      {"{\"error\":{\"code\":\"gone\"}}", 500, SPROUT_GONE, "HTTP 500"},
      {"{\"error\":{\"code\":\"gone\",\"message\":7}}", 500, SPROUT_GONE, "HTTP 500"},
      {"{\"error\":{\"code\":\"gone\",\"message\":\"\\u001b[2J\"}}", 500, SPROUT_GONE, "?[2J"},
      {"{\"error\":{\"code\":\"gone\",\"code\":\"busy\"}}", 500, SPROUT_UNAVAILABLE, "HTTP 500"},
      {"x", 418, SPROUT_PROTOCOL, "HTTP 418"},
      {"x", 400, SPROUT_PROTOCOL, "HTTP 400"},
      {"x", 301, SPROUT_PROTOCOL, "HTTP 301"},
      {"x", 599, SPROUT_UNAVAILABLE, "HTTP 599"},
      {"x", -1, SPROUT_PROTOCOL, "HTTP -1"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct sprout_error got;
    wire_error_decode_json(cases[i].body, strlen(cases[i].body), cases[i].http_status, &got);
    assert_int_equal(got.status, cases[i].status);
    assert_int_equal(got.native, cases[i].http_status);
    assert_non_null(strstr(got.message, cases[i].message));
  }
}

static void long_error_texts_are_cut(void **state) {
  (void)state;
  char body[4096];
  struct sprout_error got;
  int length =
      snprintf(body, sizeof(body),
               "{\"error\":{\"code\":\"gone\",\"message\":\"%0800d\",\"hint\":\"%0800d\"}}", 1, 1);
  wire_error_decode_json(body, (size_t)length, 410, &got);
  assert_int_equal(strlen(got.message), sizeof(got.message) - 1);
  assert_int_equal(strlen(got.hint), sizeof(got.hint) - 1);
  char *large = calloc(1, 1 << 20);
  assert_non_null(large);
  memset(large, '[', 1 << 20);
  wire_error_decode_json(large, 1 << 20, 410, &got);
  assert_int_equal(got.status, SPROUT_GONE);
  wire_error_decode_json(large, 8192, 410, &got);
  assert_int_equal(got.status, SPROUT_GONE);
  free(large);
}

/* --- without memory --- */

static enum sprout_status encode_long_error(struct wire_buffer *buffer) {
  struct sprout_error error = {.status = SPROUT_GONE, .message = "a\xff", .hint = "b"};
  memset(error.message + 2, 'm', 400);
  return wire_error_encode_json(&error, buffer);
}

static void encoders_fail_whole_or_not_at_all(void **state) {
  (void)state;
  enum sprout_status (*encoders[COUNT(kinds) + 1])(struct wire_buffer *) = {encode_long_error};
  if (!memory_can_fail()) skip();
  for (size_t i = 0; i < COUNT(kinds); i++) encoders[i + 1] = kinds[i].encode;
  for (size_t i = 0; i < COUNT(encoders); i++) {
    enum sprout_status status = SPROUT_NO_MEMORY;
    for (long count = 0; status != SPROUT_OK; count++) {
      struct wire_buffer buffer = {NULL, 0, 0};
      must(wire_buffer_reserve(&buffer, 1));
      buffer.length_bytes = buffer.capacity_bytes;
      size_t before = buffer.length_bytes;
      memory_fail_after(count);
      status = encoders[i](&buffer);
      assert_int_equal(memory_restore(), status != SPROUT_OK);
      assert_true(status == SPROUT_OK || status == SPROUT_NO_MEMORY);
      assert_int_equal(buffer.length_bytes > before, status == SPROUT_OK);
      wire_buffer_destroy(&buffer);
      assert_true(count < 100);
    }
  }
}

static void a_digests_answer_needs_memory(void **state) {
  (void)state;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct digest values[3];
  bool known[3];
  struct wire_digests got = {.values = values, .known = known};
  struct sprout_error error = {.status = SPROUT_OK};
  if (!memory_can_fail()) skip();
  must(encode_digests(&buffer));
  memory_fail_after(0);
  enum sprout_status status =
      wire_digests_decode(buffer.data, buffer.length_bytes, 3, &got, &error);
  assert_true(memory_restore());
  assert_int_equal(status, SPROUT_NO_MEMORY);
  wire_buffer_destroy(&buffer);
}

static void an_error_is_understood_without_memory(void **state) {
  (void)state;
  static const char body[] = "{\"error\":{\"code\":\"gone\",\"message\":\"m\"}}";
  if (!memory_can_fail()) skip();
  bool failing = true;
  for (long count = 0; failing; count++) {
    struct sprout_error got;
    memory_fail_after(count);
    wire_error_decode_json(body, sizeof(body) - 1, 410, &got);
    failing = memory_restore();
    assert_int_equal(got.status, SPROUT_GONE);
    assert_true(got.message[0]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(messages_come_back),
      cmocka_unit_test(messages_of_protocol_1_stay_readable),
      cmocka_unit_test(every_cut_is_malformed),
      cmocka_unit_test(unknown_keys_are_ignored_unless_critical),
      cmocka_unit_test(a_repeated_key_is_malformed),
      cmocka_unit_test(any_changed_byte_is_survived),
      cmocka_unit_test(hostile_msgpack_is_refused_cheaply),
      cmocka_unit_test(deep_nesting_is_refused),
      cmocka_unit_test(ranges_that_overflow_are_refused),
      cmocka_unit_test(a_read_has_one_to_capacity_ranges),
      cmocka_unit_test(the_largest_digests_answer_fits),
      cmocka_unit_test(strange_values_are_refused_by_name),
      cmocka_unit_test(a_close_reason_is_fit_for_a_log),
      cmocka_unit_test(errors_come_back),
      cmocka_unit_test(codes_are_read_from_this_side),
      cmocka_unit_test(an_error_looks_like_this),
      cmocka_unit_test(foreign_errors_fall_back_to_the_http_status),
      cmocka_unit_test(long_error_texts_are_cut),
      cmocka_unit_test(encoders_fail_whole_or_not_at_all),
      cmocka_unit_test(a_digests_answer_needs_memory),
      cmocka_unit_test(an_error_is_understood_without_memory),
  };
  return cmocka_run_group_tests(tests, fill_digests, NULL);
}
