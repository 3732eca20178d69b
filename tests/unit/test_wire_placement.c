/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints and placements: what is beyond coming back whole, which test_wire.c shows of every
 * message.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/limits.h"
#include "net/wire.h"
#include "net/wire_pack.h"
#include "tests/support/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void must(enum sprout_status status) {
  assert_int_equal(status, SPROUT_OK);
}

static const struct wire_opened opened_message = {
    .protocol = 1,
    .lease_ns = 10000000000u,
    .heartbeat_ns = 2000000000u,
    .endpoint_count = 1,
    .endpoints = {{.address = "2001:db8::7", .port = 65535, .rail = 1, .numa = 1, .gbits = 400}},
};

static struct wire_slice slices[] = {
    {.address = 0x7f0000000000, .length_bytes = 1u << 28, .keys = {1, UINT32_MAX}},
    {.address = 4096, .length_bytes = 1, .keys = {0, 7}},
};
static uint64_t objects[] = {0x7f0000000000, 4096, 0};
static const struct wire_placement placement_message = {.generation = 7,
                                                        .rail_count = 2,
                                                        .next = 2,
                                                        .slices = slices,
                                                        .slice_count = COUNT(slices),
                                                        .objects = objects,
                                                        .object_count = COUNT(objects)};

static void endpoints_of_no_use_are_left_out(void **state) {
  (void)state;
  /* transport, rail; an entry of another transport may look like anything */
  static const struct {
    const char *transport;
    unsigned rail;
  } entries[] = {{"rdma", 3}, {"carrier-pigeon", 0}, {"rdma", WIRE_ENDPOINTS_MAX}, {"rdma", 0}};
  for (uint32_t extra = 0; extra <= 2 * WIRE_ENDPOINTS_MAX; extra += WIRE_ENDPOINTS_MAX) {
    struct wire_buffer buffer = {NULL, 0, 0}, message = {NULL, 0, 0};
    struct wire_writer writer;
    struct wire_opened got;
    struct sprout_error error = {0};
    wire_writer_begin(&writer, &buffer);
    wire_write_map(&writer, 11);
    wire_write_text(&writer, "endpoints");
    wire_write_array(&writer, COUNT(entries) + extra);
    for (size_t i = 0; i < COUNT(entries) + extra; i++) {
      bool first = i < COUNT(entries);
      bool known = !first || strcmp(entries[i].transport, "rdma") == 0;
      wire_write_map(&writer, known ? 6 : 2);
      wire_write_text(&writer, "transport");
      wire_write_text(&writer, first ? entries[i].transport : "rdma");
      wire_write_text(&writer, "address");
      if (!known) {
        wire_write_signed(&writer, -1);
        continue;
      }
      wire_write_text(&writer, "::1");
      wire_write_text(&writer, "port");
      wire_write_unsigned(&writer, 1);
      wire_write_text(&writer, "rail");
      wire_write_unsigned(&writer, first ? entries[i].rail : 1);
      wire_write_text(&writer, "nonce");
      wire_write_bytes(&writer, "0123456789abcdef", WIRE_ID_BYTES);
      wire_write_text(&writer, "of a later version");
      wire_write_nil(&writer);
    }
    must(wire_writer_end(&writer));
    struct wire_opened plain = opened_message;
    plain.endpoint_count = 0;
    must(wire_opened_encode(&plain, &message));
    must(wire_buffer_reserve(&buffer, message.length_bytes));
    memcpy(buffer.data + buffer.length_bytes, message.data + 1, message.length_bytes - 1);
    buffer.length_bytes += message.length_bytes - 1;
    must(wire_opened_decode(buffer.data, buffer.length_bytes, &got, &error));
    assert_int_equal(got.endpoint_count, extra == 0 ? 2 : WIRE_ENDPOINTS_MAX);
    assert_int_equal(got.endpoints[0].rail, 3);
    assert_int_equal(got.endpoints[0].numa, UINT32_MAX);
    assert_int_equal(got.endpoints[1].rail, 0);
    wire_buffer_destroy(&buffer);
    wire_buffer_destroy(&message);
  }
}

static void bad_endpoints_are_refused_by_name(void **state) {
  (void)state;
  static const struct {
    const char *address;
    uint16_t port;
    const char *named;
  } cases[] = {{"example.com", 1, "address"},
               {"", 1, "address"},
               {"192.0.2.7:7", 1, "address"},
               {"192.0.2.7", 0, "port"}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct wire_opened message = opened_message, got;
    struct sprout_error error = {0};
    (void)snprintf(message.endpoints[0].address, sizeof(message.endpoints[0].address), "%s",
                   cases[i].address);
    message.endpoints[0].port = cases[i].port;
    must(wire_opened_encode(&message, &buffer));
    assert_int_equal(wire_opened_decode(buffer.data, buffer.length_bytes, &got, &error),
                     SPROUT_PROTOCOL);
    assert_non_null(strstr(error.message, cases[i].named));
    wire_buffer_destroy(&buffer);
  }
}

static void strange_placements_are_refused(void **state) {
  (void)state;
  static struct wire_slice empty = {.address = 4096},
                           wraps = {.address = 4096, .length_bytes = UINT64_MAX - 4000};
  const struct {
    struct wire_placement message;
    const char *named;
  } cases[] = {
      {{.rail_count = 0}, "rails"},
      {{.rail_count = 1, .fence_address = 4}, "fence"},
      {{.rail_count = 1, .slices = &empty, .slice_count = 1}, "slice"},
      {{.rail_count = 1, .slices = &wraps, .slice_count = 1}, "slice"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    struct wire_buffer buffer = {NULL, 0, 0};
    struct wire_placement got;
    struct sprout_error error = {0};
    must(wire_placement_encode(&cases[i].message, &buffer));
    assert_int_equal(wire_placement_decode(buffer.data, buffer.length_bytes, &got, &error),
                     SPROUT_PROTOCOL);
    assert_non_null(strstr(error.message, cases[i].named));
    wire_buffer_destroy(&buffer);
  }
}

static void the_largest_placement_fits(void **state) {
  (void)state;
  struct wire_buffer buffer = {NULL, 0, 0};
  struct wire_placement message = {
      .rail_count = WIRE_ENDPOINTS_MAX, .slice_count = LIMIT_SLICES, .object_count = LIMIT_OBJECTS};
  struct wire_placement got;
  message.slices = calloc(LIMIT_SLICES + 1, sizeof(*message.slices));
  message.objects = calloc(LIMIT_OBJECTS, sizeof(*message.objects));
  assert_non_null(message.slices);
  assert_non_null(message.objects);
  for (uint32_t i = 0; i <= LIMIT_SLICES; i++) {
    message.slices[i] = (struct wire_slice){UINT64_MAX / 2, UINT64_MAX / 2, {0}};
    memset(message.slices[i].keys, 0xff, sizeof(message.slices[i].keys));
  }
  for (uint32_t i = 0; i < LIMIT_OBJECTS; i++) message.objects[i] = UINT64_MAX - i;
  must(wire_placement_encode(&message, &buffer));
  assert_true(buffer.length_bytes <= LIMIT_PLACEMENT_BYTES);
  must(wire_placement_decode(buffer.data, buffer.length_bytes, &got, NULL));
  assert_memory_equal(got.objects, message.objects, LIMIT_OBJECTS * sizeof(*got.objects));
  assert_memory_equal(got.slices, message.slices, LIMIT_SLICES * sizeof(*got.slices));
  wire_placement_destroy(&got);
  assert_null(got.slices);
  message.slice_count++;
  buffer.length_bytes = 0;
  must(wire_placement_encode(&message, &buffer));
  assert_int_equal(wire_placement_decode(buffer.data, buffer.length_bytes, &got, NULL),
                   SPROUT_PROTOCOL);
  wire_buffer_destroy(&buffer);
  free(message.slices);
  free(message.objects);
}

static void a_placement_needs_memory(void **state) {
  (void)state;
  struct wire_buffer buffer = {NULL, 0, 0};
  if (!memory_can_fail()) skip();
  must(wire_placement_encode(&placement_message, &buffer));
  enum sprout_status status = SPROUT_NO_MEMORY;
  for (long count = 0; status != SPROUT_OK; count++) {
    struct wire_placement got;
    memory_fail_after(count);
    status = wire_placement_decode(buffer.data, buffer.length_bytes, &got, NULL);
    assert_int_equal(memory_restore(), status != SPROUT_OK);
    assert_true(status == SPROUT_OK || status == SPROUT_NO_MEMORY);
    if (status == SPROUT_OK) wire_placement_destroy(&got);
    assert_true(count < 10);
  }
  wire_buffer_destroy(&buffer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(endpoints_of_no_use_are_left_out),
      cmocka_unit_test(bad_endpoints_are_refused_by_name),
      cmocka_unit_test(strange_placements_are_refused),
      cmocka_unit_test(the_largest_placement_fits),
      cmocka_unit_test(a_placement_needs_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
