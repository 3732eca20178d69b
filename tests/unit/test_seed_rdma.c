/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole seed with a publication over RDMA, its reactor ticked by the test: what forks are told,
 * what they may do, and what is left when there is no RDMA.
 */
#include "core/log.h"
#include "net/rdma_grant.h"
#include "net/rdma_module.h"
#include "net/wire.h"
#include "sprout/sprout.h"
#include "tests/support/http_peer.h"
#include "tests/support/rdma_peer.h"
#include "tests/support/seed_fixture.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TICKS_MAX 5000u

/* --- requests --- */

/* The answer's body is the caller's. */
static struct peer_answer say(const char *method, const char *target, struct wire_buffer *body) {
  char head[512];
  struct peer_answer answer;
  int fd = peer_dial(seed_fixture.address);
  (void)snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 method, target, body != NULL ? body->length_bytes : 0);
  peer_say(fd, head);
  if (body != NULL) peer_say_bytes(fd, body->data, body->length_bytes);
  if (body != NULL) wire_buffer_destroy(body);
  assert_true(peer_hear(fd, true, &answer));
  close(fd);
  return answer;
}

static const char *target_of(const struct wire_opened *opened, const char *tail) {
  static char target[128];
  size_t used = (size_t)snprintf(target, sizeof(target), "/v1/forks/");
  for (size_t i = 0; i < WIRE_ID_BYTES; i++)
    used += (size_t)snprintf(target + used, sizeof(target) - used, "%02x", opened->fork_id[i]);
  (void)snprintf(target + used, sizeof(target) - used, "%s", tail);
  return target;
}

/* The code; a good answer is decoded. */
static int take_opened(struct peer_answer *answer, struct wire_opened *opened_out) {
  if (answer->code < 300)
    assert_int_equal(wire_opened_decode(answer->body, answer->body_bytes, opened_out, NULL),
                     SPROUT_OK);
  free(answer->body);
  return answer->code;
}

static int open_with(uint8_t number, bool tcp, bool rdma, struct wire_opened *opened_out) {
  struct wire_open open = {
      .protocol_min = 1, .protocol_max = 1, .wants_tcp = tcp, .wants_rdma = rdma};
  struct wire_buffer body = {0};
  struct sprout_seed_status status;
  sprout_seed_status(seed_fixture.seed, &status);
  memcpy(open.manifest_id, status.manifest_id, sizeof(open.manifest_id));
  memset(open.nonce, number, sizeof(open.nonce));
  assert_int_equal(wire_open_encode(&open, &body), SPROUT_OK);
  struct peer_answer answer = say("POST", "/v1/forks", &body);
  return take_opened(&answer, opened_out);
}

static int beat_with(struct wire_opened *opened, const struct wire_heartbeat *heartbeat) {
  struct wire_buffer body = {0};
  assert_int_equal(wire_heartbeat_encode(heartbeat, &body), SPROUT_OK);
  struct peer_answer answer = say("PATCH", target_of(opened, ""), &body);
  return take_opened(&answer, opened);
}

static int beat(struct wire_opened *opened) {
  return beat_with(opened, &(struct wire_heartbeat){.total_bytes = 10});
}

static void close_fork(const struct wire_opened *opened, uint64_t received_bytes) {
  const struct wire_close close = {
      .result = SPROUT_OK, .reason = "done", .received_bytes = received_bytes};
  struct wire_buffer body = {0};
  assert_int_equal(wire_close_encode(&close, &body), SPROUT_OK);
  struct peer_answer answer = say("DELETE", target_of(opened, ""), &body);
  free(answer.body);
  assert_int_equal(answer.code, 204);
}

static int code_of(const char *method, const char *target) {
  struct peer_answer answer = say(method, target, NULL);
  free(answer.body);
  return answer.code;
}

static int read_code(const struct wire_opened *opened) {
  const struct wire_range range = {.object = 0, .length_bytes = 1, .count = 1};
  const struct wire_read read = {
      .generation = opened->grant.generation, .ranges = &range, .range_count = 1};
  struct wire_buffer body = {0};
  assert_int_equal(wire_read_encode(&read, &body), SPROUT_OK);
  struct peer_answer answer = say("POST", target_of(opened, "/read"), &body);
  free(answer.body);
  return answer.code;
}

static struct wire_placement placement_of(const struct wire_opened *opened, const char *tail) {
  struct wire_placement placement;
  struct sprout_error error;
  struct peer_answer answer = say("GET", target_of(opened, tail), NULL);
  assert_int_equal(answer.code, 200);
  if (wire_placement_decode(answer.body, answer.body_bytes, &placement, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  free(answer.body);
  return placement;
}

static json_t *ask_json(const char *target) {
  struct peer_answer answer = say("GET", target, NULL);
  assert_int_equal(answer.code, 200);
  json_t *value = json_loadb((char *)answer.body, answer.body_bytes, 0, NULL);
  assert_non_null(value);
  free(answer.body);
  return value;
}

static uint64_t status_number(const char *key) {
  json_t *status = ask_json("/v1/status");
  uint64_t number =
      (uint64_t)json_integer_value(json_object_get(json_object_get(status, "rdma"), key));
  json_decref(status);
  return number;
}

/* A line of the metrics. */
static void expect_metric(const char *line) {
  struct peer_answer answer = say("GET", "/metrics", NULL);
  char wanted[256];
  (void)snprintf(wanted, sizeof(wanted), "\nsprout_%s\n", line);
  if (strstr((char *)answer.body, wanted) == NULL) fail_msg("%s", (char *)answer.body);
  free(answer.body);
}

/* --- set-up --- */

static void start_with(uint32_t devices, struct sprout_seed_options *options) {
  log_set_level(LOG_ERROR);
  fake_verbs_init(devices);
  rdma_module_replace(fake_verbs());
  seed_fixture_start(options);
  rdma_peers_open(seed_fixture_tick);
  for (uint32_t i = 0; i < TICKS_MAX; i++) {
    if (status_number("registered_bytes") == status_number("total_bytes")) return;
  }
  fail_msg("registration does not end");
}

static void stop(void) {
  seed_fixture_stop();
  rdma_peers_close();
  rdma_module_replace(NULL);
  fake_verbs_end();
}

/* Opens a fork and connects to its first endpoint. */
static void open_connected(uint8_t number, struct wire_opened *opened, struct rdma_peer *peer) {
  assert_int_equal(open_with(number, true, true, opened), 201);
  assert_true(opened->endpoint_count > 0);
  uint64_t before = status_number("forks");
  rdma_peer_hello(peer, &opened->endpoints[0]);
  assert_int_equal(rdma_peer_wait(peer), RDMA_PEER_CONNECTED);
  for (uint32_t i = 0; i < TICKS_MAX && status_number("forks") == before; i++) {
  }
  assert_int_equal(status_number("forks"), before + 1);
}

/* --- invitations --- */

static void endpoints_come_with_the_first_running(void **state) {
  (void)state;
  struct sprout_seed_options options = {.max_forks = 2};
  struct wire_opened first, again, other, queued;
  struct rdma_peer peer;
  start_with(2, &options);
  assert_int_equal(open_with(1, true, true, &first), 201);
  assert_int_equal(first.endpoint_count, 2);
  assert_int_equal(first.endpoints[1].rail, 1);
  assert_true(first.endpoints[0].port != 0);
  /* The answer was lost: fresh ones, the others are void. */
  assert_int_equal(open_with(1, true, true, &again), 201);
  assert_memory_equal(first.fork_id, again.fork_id, WIRE_ID_BYTES);
  assert_int_equal(again.endpoint_count, 2);
  assert_memory_not_equal(first.endpoints[0].nonce, again.endpoints[0].nonce, WIRE_ID_BYTES);
  rdma_peer_hello(&peer, &first.endpoints[0]);
  assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_REJECTED);
  assert_int_equal(peer.refusal, SPROUT_GONE);
  rdma_peer_end(&peer);
  /* Heartbeats do not repeat them; nor does an open of who has connected. */
  struct wire_opened kept = again;
  assert_int_equal(beat(&again), 200);
  assert_int_equal(again.endpoint_count, 0);
  rdma_peer_hello(&peer, &kept.endpoints[0]);
  assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_CONNECTED);
  assert_int_equal(open_with(1, true, true, &again), 201);
  assert_int_equal(again.endpoint_count, 0);
  /* Who does not want RDMA gets none; who waits gets them when it runs. */
  assert_int_equal(open_with(2, true, false, &other), 201);
  assert_int_equal(other.endpoint_count, 0);
  assert_int_equal(open_with(3, true, true, &queued), 202);
  assert_int_equal(queued.endpoint_count, 0);
  assert_int_equal(beat(&queued), 200);
  assert_int_equal(queued.endpoint_count, 0);
  close_fork(&other, 0);
  assert_int_equal(beat(&queued), 200);
  assert_false(queued.queued);
  assert_int_equal(queued.endpoint_count, 2);
  assert_int_equal(beat(&queued), 200);
  assert_int_equal(queued.endpoint_count, 0);
  rdma_peer_end(&peer);
  stop();
}

/* --- placement --- */

/* Which key reads this address; 0: none. */
static uint32_t key_of(const struct wire_placement *placement, uint64_t address) {
  for (uint32_t i = 0; i < placement->slice_count; i++)
    if (address >= placement->slices[i].address &&
        address - placement->slices[i].address < placement->slices[i].length_bytes)
      return placement->slices[i].keys[0];
  return 0;
}

static void a_fork_finds_and_reads_every_object(void **state) {
  (void)state;
  struct wire_opened opened;
  struct rdma_peer peer;
  start_with(1, NULL);
  open_connected(1, &opened, &peer);
  struct wire_placement placement = placement_of(&opened, "/placement");
  assert_int_equal(placement.generation, opened.grant.generation);
  assert_int_equal(placement.fence_address, 0);
  assert_int_equal(placement.rail_count, 1);
  assert_int_equal(placement.next, placement.slice_count);
  assert_true(placement.whole);
  json_t *manifest = ask_json("/v1/manifest"), *objects = json_object_get(manifest, "objects");
  assert_int_equal(placement.object_count, json_array_size(objects));
  for (uint32_t i = 0; i < placement.object_count; i++) {
    uint32_t length =
        (uint32_t)json_integer_value(json_object_get(json_array_get(objects, i), "length_bytes"));
    unsigned char *bytes = malloc(length + 1);
    assert_non_null(bytes);
    if (length > 0)
      assert_true(rdma_peer_read(&peer, placement.objects[i],
                                 key_of(&placement, placement.objects[i]), bytes, length));
    else
      assert_int_equal(placement.objects[i], 0);
    if (length == SEED_FIXTURE_BLOB_BYTES) assert_memory_equal(bytes, seed_fixture.blob, length);
    free(bytes);
  }
  json_decref(manifest);
  /* The same again, kept from before; and what is added since, which is nothing. */
  struct wire_placement again = placement_of(&opened, "/placement?since=0");
  assert_int_equal(again.object_count, placement.object_count);
  wire_placement_destroy(&again);
  char tail[64];
  (void)snprintf(tail, sizeof(tail), "/placement?since=%u", placement.slice_count);
  again = placement_of(&opened, tail);
  assert_int_equal(again.object_count, 0);
  assert_int_equal(again.slice_count, 0);
  assert_int_equal(again.next, placement.next);
  wire_placement_destroy(&again);
  wire_placement_destroy(&placement);
  rdma_peer_end(&peer);
  stop();
}

static void placements_are_for_the_connected(void **state) {
  (void)state;
  struct wire_opened opened, plain, other;
  struct rdma_peer peer;
  start_with(1, NULL);
  assert_int_equal(open_with(1, true, true, &opened), 201);
  assert_int_equal(open_with(2, true, false, &plain), 201);
  assert_int_equal(code_of("GET", target_of(&opened, "/placement")), 425);
  assert_int_equal(code_of("GET", target_of(&plain, "/placement")), 425);
  open_connected(3, &other, &peer);
  assert_int_equal(code_of("GET", target_of(&opened, "/placement")), 425);
  assert_int_equal(code_of("GET", target_of(&other, "/placement")), 200);
  assert_int_equal(code_of("GET", target_of(&other, "/placement?since=x")), 400);
  assert_int_equal(code_of("GET", target_of(&other, "/placement?since=1000")), 416);
  assert_int_equal(code_of("POST", target_of(&other, "/placement")), 405);
  assert_int_equal(code_of("GET", "/v1/forks/xyz/placement"), 400);
  assert_int_equal(code_of("GET", "/v1/forks/00000000000000000000000000000000/placement"), 410);
  close_fork(&other, 0);
  assert_int_equal(code_of("GET", target_of(&other, "/placement")), 410);
  rdma_peer_end(&peer);
  stop();
}

static void mutable_tensors_have_a_fence(void **state) {
  (void)state;
  static unsigned char weights[8192];
  const struct sprout_tensor tensor = {.name = "w",
                                       .dtype = "U8",
                                       .shape = {sizeof(weights)},
                                       .rank = 1,
                                       .address = weights,
                                       .length_bytes = sizeof(weights)};
  struct sprout_seed_options options = {
      .tensors = &tensor, .tensor_count = 1, .tensors_mutable = true, .name = "m"};
  struct wire_opened opened;
  struct rdma_peer peer;
  struct sprout_error error;
  uint64_t word = 0, key;
  start_with(1, &options);
  open_connected(1, &opened, &peer);
  struct wire_placement placement = placement_of(&opened, "/placement");
  assert_int_not_equal(placement.fence_address, 0);
  key = key_of(&placement, placement.fence_address);
  assert_true(rdma_peer_read(&peer, placement.fence_address, (uint32_t)key, &word, sizeof(word)));
  assert_int_equal(word, 2 * placement.generation);
  /* The connection, the keys and the addresses stay through an update. */
  assert_int_equal(sprout_seed_update_begin(seed_fixture.seed, &error), SPROUT_OK);
  assert_true(rdma_peer_read(&peer, placement.fence_address, (uint32_t)key, &word, sizeof(word)));
  assert_int_equal(word, 2 * placement.generation + 1);
  assert_int_equal(sprout_seed_update_commit(seed_fixture.seed, NULL, &error), SPROUT_OK);
  assert_true(rdma_peer_read(&peer, placement.fence_address, (uint32_t)key, &word, sizeof(word)));
  assert_int_equal(word, 2 * placement.generation + 2);
  struct wire_placement next = placement_of(&opened, "/placement");
  assert_int_equal(next.generation, placement.generation + 1);
  assert_int_equal(next.objects[0], placement.objects[0]);
  wire_placement_destroy(&next);
  wire_placement_destroy(&placement);
  rdma_peer_end(&peer);
  stop();
}

/* --- ends --- */

static void a_closed_fork_reads_nothing(void **state) {
  (void)state;
  struct wire_opened forks[2];
  struct rdma_peer peers[2];
  unsigned char byte;
  start_with(1, NULL);
  for (uint8_t i = 0; i < 2; i++) open_connected((uint8_t)(i + 1), &forks[i], &peers[i]);
  struct wire_placement placement = placement_of(&forks[0], "/placement");
  uint64_t address = placement.slices[0].address;
  uint32_t key = placement.slices[0].keys[0];
  wire_placement_destroy(&placement);
  for (size_t i = 0; i < 2; i++) assert_true(rdma_peer_read(&peers[i], address, key, &byte, 1));
  close_fork(&forks[0], 1234);
  assert_false(rdma_peer_read(&peers[0], address, key, &byte, 1));
  assert_true(rdma_peer_read(&peers[1], address, key, &byte, 1));
  rdma_peer_wait_gone(&peers[0]);
  expect_metric("sent_bytes_total{transport=\"rdma\"} 1234");
  /* By an operator. */
  assert_int_equal(code_of("DELETE", target_of(&forks[1], "")), 204);
  assert_false(rdma_peer_read(&peers[1], address, key, &byte, 1));
  for (size_t i = 0; i < 2; i++) rdma_peer_end(&peers[i]);
  for (uint32_t i = 0; i < TICKS_MAX && fake_verbs_counts().pairs > 0; i++) seed_fixture_tick();
  assert_int_equal(fake_verbs_counts().pairs, 0);
  stop();
}

static void an_expired_fork_is_cut_off(void **state) {
  (void)state;
  struct sprout_seed_options options = {.lease_ns = 100000000};
  struct wire_opened opened;
  struct rdma_peer peer;
  start_with(1, &options);
  assert_int_equal(open_with(1, true, true, &opened), 201);
  rdma_peer_hello(&peer, &opened.endpoints[0]);
  assert_int_equal(rdma_peer_wait(&peer), RDMA_PEER_CONNECTED);
  rdma_peer_wait_gone(&peer); /* when the lease is over */
  assert_int_equal(beat(&opened), 410);
  assert_int_equal(code_of("GET", target_of(&opened, "/placement")), 410);
  assert_int_equal(status_number("forks"), 0);
  rdma_peer_end(&peer);
  stop();
}

static void a_seed_ends_with_its_connections(void **state) {
  (void)state;
  struct wire_opened opened;
  struct rdma_peer peer;
  start_with(2, NULL);
  open_connected(1, &opened, &peer);
  seed_fixture_stop();
  rdma_peer_look(&peer);
  assert_true(peer.gone);
  rdma_peer_end(&peer);
  rdma_peers_close();
  rdma_module_replace(NULL);
  fake_verbs_end();
}

/* --- grants --- */

static void windows_and_rates_are_divided(void **state) {
  (void)state;
  struct sprout_seed_options options = {.max_rate = 1000000000};
  struct wire_opened first, second, plain;
  struct rdma_peer peers[2];
  start_with(1, &options);
  open_connected(1, &first, &peers[0]);
  assert_int_equal(first.grant.window.bytes, 8u << 20);
  assert_int_equal(first.grant.window.depth, RDMA_READ_DEPTH);
  assert_int_equal(first.grant.rate, 990000000);
  /* Soon, then less and less often; soon again when something has changed. */
  assert_int_equal(first.heartbeat_ns, 200000000);
  assert_int_equal(beat(&first), 200);
  assert_int_equal(first.heartbeat_ns, 400000000);
  for (int i = 0; i < 4; i++) assert_int_equal(beat(&first), 200);
  assert_int_equal(first.heartbeat_ns, 3000000000); /* it reads nothing */
  open_connected(2, &second, &peers[1]);
  assert_int_equal(second.grant.window.bytes, 4u << 20);
  assert_int_equal(beat(&first), 200);
  assert_int_equal(first.grant.window.bytes, 4u << 20);
  assert_int_equal(first.grant.rate, 495000000);
  assert_int_equal(first.heartbeat_ns, 200000000);
  assert_int_equal(open_with(3, true, false, &plain), 201);
  assert_true(plain.grant.window.bytes > (8u << 20));
  assert_int_equal(plain.grant.rate, 333333333);
  assert_int_equal(plain.heartbeat_ns, 2000000000);
  assert_int_equal(beat(&second), 200);
  assert_int_equal(second.grant.rate, 333333333);
  expect_metric("rate_limit_bytes_per_second 1000000000");
  /* Who has lost its connections goes on over HTTP. */
  rdma_peer_end(&peers[1]);
  while (status_number("forks") != 1) seed_fixture_tick();
  assert_int_equal(beat(&second), 200);
  assert_true(second.grant.window.bytes > (8u << 20));
  assert_int_equal(read_code(&second), 200);
  expect_metric("fallbacks_total{from=\"rdma\",to=\"tcp\",reason=\"disconnected\"} 1");
  assert_int_equal(read_code(&second), 200);
  expect_metric("fallbacks_total{from=\"rdma\",to=\"tcp\",reason=\"disconnected\"} 1");
  rdma_peer_end(&peers[0]);
  stop();
}

static void who_is_over_its_window_is_closed(void **state) {
  (void)state;
  struct wire_opened opened;
  struct rdma_peer peer;
  start_with(1, NULL);
  open_connected(1, &opened, &peer);
  const struct wire_heartbeat fine = {.received_bytes = 5,
                                      .peak_inflight_bytes = (8u << 20) + RDMA_REQUEST_BYTES};
  const struct wire_heartbeat over = {.received_bytes = 7,
                                      .peak_inflight_bytes = (8u << 20) + RDMA_REQUEST_BYTES + 1};
  assert_int_equal(beat_with(&opened, &fine), 200);
  assert_int_equal(beat_with(&opened, &over), 410);
  rdma_peer_wait_gone(&peer);
  json_t *forks = ask_json("/v1/forks");
  json_t *fork = json_array_get(json_object_get(forks, "forks"), 0);
  assert_string_equal(json_string_value(json_object_get(fork, "result")), "over_window");
  assert_non_null(strstr(json_string_value(json_object_get(fork, "reason")), "were in flight"));
  json_decref(forks);
  expect_metric("sent_bytes_total{transport=\"rdma\"} 7");
  rdma_peer_end(&peer);
  stop();
}

static void people_see_it(void **state) {
  (void)state;
  struct wire_opened opened;
  struct rdma_peer peer;
  start_with(2, NULL);
  open_connected(1, &opened, &peer);
  json_t *status = ask_json("/v1/status"), *rdma = json_object_get(status, "rdma");
  assert_true(json_is_true(json_object_get(rdma, "open")));
  assert_int_equal(json_integer_value(json_object_get(rdma, "connections")), 1);
  json_t *rails = json_object_get(rdma, "rails");
  assert_int_equal(json_array_size(rails), 2);
  assert_string_equal(json_string_value(json_object_get(json_array_get(rails, 1), "device")),
                      "fake1");
  assert_true(json_is_true(json_object_get(json_array_get(rails, 1), "up")));
  json_decref(status);
  json_t *forks = ask_json("/v1/forks");
  json_t *fork = json_array_get(json_object_get(forks, "forks"), 0);
  assert_string_equal(json_string_value(json_object_get(fork, "transport")), "rdma");
  json_decref(forks);
  expect_metric("rdma_port_up{device=\"fake1\",port=\"1\"} 1");
  expect_metric("rdma_queue_pairs 1");
  fake_device_remove(1);
  for (uint32_t i = 0; i < 100; i++) seed_fixture_tick();
  expect_metric("rdma_port_up{device=\"fake1\",port=\"1\"} 0");
  rdma_peer_end(&peer);
  stop();
}

/* --- without --- */

/* Creates a seed with these transports; it must not come to be. */
static void expect_none(const char *transports, const char *devices, enum sprout_status status,
                        const char *message) {
  const char *paths[] = {seed_fixture_directory()};
  const struct sprout_seed_options options = {.struct_bytes = sizeof(options),
                                              .paths = paths,
                                              .path_count = 1,
                                              .listen = "127.0.0.1:0",
                                              .transports = transports,
                                              .rdma_devices = devices};
  struct sprout_service *service;
  struct sprout_seed *seed;
  struct sprout_error error;
  assert_int_equal(sprout_service_create(NULL, &service, &error), SPROUT_OK);
  assert_int_equal(sprout_seed_create(service, &options, &seed, &error), status);
  if (strstr(error.message, message) == NULL) fail_msg("%s", error.message);
  sprout_service_destroy(service);
}

static void a_machine_without_devices_serves_over_tcp(void **state) {
  (void)state;
  struct wire_opened opened;
  start_with(1, &(struct sprout_seed_options){.transports = "tcp"});
  assert_int_equal(fake_verbs_calls(FAKE_CHANNEL_OPEN), 0);
  assert_int_equal(open_with(1, true, true, &opened), 201);
  assert_int_equal(opened.endpoint_count, 0);
  assert_int_equal(open_with(2, false, true, &opened), 501);
  stop();
  fake_verbs_init(1);
  rdma_module_replace(fake_verbs());
  fake_verbs_fail_all(FAKE_DEVICES, ENODEV);
  seed_fixture_start(NULL);
  assert_int_equal(open_with(1, true, true, &opened), 201);
  assert_int_equal(opened.endpoint_count, 0);
  assert_int_equal(read_code(&opened), 200);
  assert_int_equal(code_of("GET", target_of(&opened, "/placement")), 501);
  expect_metric("fallbacks_total{from=\"rdma\",to=\"tcp\",reason=\"unsupported\"} 1");
  json_t *status = ask_json("/v1/status"), *rdma = json_object_get(status, "rdma");
  assert_false(json_is_true(json_object_get(rdma, "open")));
  assert_non_null(strstr(json_string_value(json_object_get(rdma, "reason")), "no RDMA device"));
  json_decref(status);
  seed_fixture_stop();
  expect_none("rdma", NULL, SPROUT_UNSUPPORTED, "this machine has no RDMA device");
  expect_none("rdma,tcp", NULL, SPROUT_UNSUPPORTED, "this machine has no RDMA device");
  fake_verbs_fail_all(FAKE_DEVICES, 0);
  expect_none("rdma", "fake7", SPROUT_INVALID, "fake7");
  expect_none("auto", "fake7", SPROUT_INVALID, "fake7");
  expect_none("radio", NULL, SPROUT_INVALID, "'radio' is not a transport");
  rdma_module_replace(NULL);
  fake_verbs_end();
}

static void memory_that_cannot_be_registered(void **state) {
  (void)state;
  struct wire_opened opened;
  log_set_level(LOG_ERROR);
  fake_verbs_init(1);
  rdma_module_replace(fake_verbs());
  fake_verbs_fail_all(FAKE_MEMORY_REGISTER, ENOMEM);
  expect_none("rdma", NULL, SPROUT_LIMIT, "cannot be registered");
  seed_fixture_start(NULL);
  for (uint32_t i = 0; i < TICKS_MAX && fake_verbs_counts().domains > 0; i++) seed_fixture_tick();
  assert_int_equal(fake_verbs_counts().links, 0);
  assert_int_equal(open_with(1, true, true, &opened), 201);
  assert_int_equal(opened.endpoint_count, 0);
  assert_int_equal(read_code(&opened), 200);
  expect_metric("fallbacks_total{from=\"rdma\",to=\"tcp\",reason=\"limit\"} 1");
  seed_fixture_stop();
  rdma_module_replace(NULL);
  fake_verbs_end();
}

static void rdma_alone_serves_no_reads_over_http(void **state) {
  (void)state;
  struct sprout_seed_options options = {.transports = "rdma"};
  struct wire_opened opened;
  struct rdma_peer peer;
  start_with(1, &options);
  assert_int_equal(open_with(1, true, false, &opened), 501);
  open_connected(2, &opened, &peer);
  assert_int_equal(read_code(&opened), 501);
  assert_int_equal(code_of("GET", "/readyz"), 200);
  /* Without its last device it serves nothing any more. */
  rdma_peer_end(&peer);
  fake_device_remove(0);
  for (uint32_t i = 0; i < TICKS_MAX && code_of("GET", "/readyz") == 200; i++) {
  }
  assert_int_equal(code_of("GET", "/readyz"), 503);
  stop();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(endpoints_come_with_the_first_running),
      cmocka_unit_test(a_fork_finds_and_reads_every_object),
      cmocka_unit_test(placements_are_for_the_connected),
      cmocka_unit_test(mutable_tensors_have_a_fence),
      cmocka_unit_test(a_closed_fork_reads_nothing),
      cmocka_unit_test(an_expired_fork_is_cut_off),
      cmocka_unit_test(a_seed_ends_with_its_connections),
      cmocka_unit_test(windows_and_rates_are_divided),
      cmocka_unit_test(who_is_over_its_window_is_closed),
      cmocka_unit_test(people_see_it),
      cmocka_unit_test(a_machine_without_devices_serves_over_tcp),
      cmocka_unit_test(memory_that_cannot_be_registered),
      cmocka_unit_test(rdma_alone_serves_no_reads_over_http),
  };
  return cmocka_run_group_tests(tests, seed_fixture_create_files, seed_fixture_remove_files);
}
