/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole seed over loopback, its reactor ticked by the test: what routes answer, how forks live.
 */
#include "net/service.h"
#include "net/wire.h"
#include "sprout/sprout.h"
#include "tests/support/http_peer.h"
#include "tests/support/seed_fixture.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* --- requests --- */

/* One request on a connection of its own; the answer's body is the caller's. */
static struct peer_answer ask(const char *method, const char *target, const char *headers) {
  char text[2048];
  struct peer_answer answer;
  int fd = peer_dial(seed_fixture.address);
  (void)snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n", method, target,
                 headers);
  peer_say(fd, text);
  assert_true(peer_hear(fd, strcmp(method, "HEAD") != 0, &answer));
  close(fd);
  return answer;
}

static void expect(const char *method, const char *target, const char *headers, int code) {
  struct peer_answer answer = ask(method, target, headers);
  if (answer.code != code) print_error("%s %s: %s\n", method, target, answer.head);
  assert_int_equal(answer.code, code);
  if (code >= 400 && answer.body != NULL) {
    json_t *error = json_loadb((char *)answer.body, answer.body_bytes, 0, NULL);
    assert_non_null(error);
    assert_true(json_is_string(json_object_get(json_object_get(error, "error"), "code")));
    assert_true(json_is_string(json_object_get(json_object_get(error, "error"), "message")));
    json_decref(error);
  }
  free(answer.body);
}

static void expect_bytes(const char *target, const char *headers, int code, const void *bytes,
                         size_t length) {
  struct peer_answer answer = ask("GET", target, headers);
  assert_int_equal(answer.code, code);
  assert_int_equal(answer.body_bytes, length);
  assert_memory_equal(answer.body, bytes, length);
  free(answer.body);
}

static json_t *ask_json(const char *target) {
  struct peer_answer answer = ask("GET", target, "");
  assert_int_equal(answer.code, 200);
  json_t *value = json_loadb((char *)answer.body, answer.body_bytes, 0, NULL);
  assert_non_null(value);
  free(answer.body);
  return value;
}

static void etag_of(const struct peer_answer *answer, char *etag_out, size_t etag_bytes) {
  const char *begin = strstr(answer->head, "ETag: ");
  assert_non_null(begin);
  begin += 6;
  (void)snprintf(etag_out, etag_bytes, "%.*s", (int)strcspn(begin, "\r"), begin);
}

/* --- plain downloads --- */

static void serves_files_and_objects(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  const unsigned char *blob = seed_fixture.blob;
  expect_bytes("/v1/files/sub/blob.bin", "", 200, blob, SEED_FIXTURE_BLOB_BYTES);
  expect_bytes("/v1/files/sub/blob.bin", "Range: bytes=10-19\r\n", 206, blob + 10, 10);
  expect_bytes("/v1/files/sub/blob.bin", "Range: bytes=-7\r\n", 206,
               blob + SEED_FIXTURE_BLOB_BYTES - 7, 7);
  expect_bytes("/v1/files/sub/blob.bin", "Range: bytes=5000000-\r\n", 206, blob + 5000000,
               SEED_FIXTURE_BLOB_BYTES - 5000000);
  expect_bytes("/v1/files/one.safetensors", "", 200, seed_fixture.one, seed_fixture.one_bytes);
  /* A range that begins in the header and ends in the last tensor. */
  expect_bytes("/v1/files/one.safetensors", "Range: bytes=3-300\r\n", 206, seed_fixture.one + 3,
               298);
  expect_bytes("/v1/files/empty.txt", "", 200, "", 0);
  expect_bytes("/v1/objects/only.here", "", 200,
               seed_fixture.one + seed_fixture.one_bytes - SEED_FIXTURE_LAST_BYTES,
               SEED_FIXTURE_LAST_BYTES);
  expect_bytes("/v1/objects/shared?file=one.safetensors", "Range: bytes=1-2\r\n", 206,
               seed_fixture.one + seed_fixture.one_header_bytes + 1, 2);
  seed_fixture_stop();
}

static void knows_ranges_and_etags(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  char etag[128], headers[256];
  struct peer_answer answer = ask("HEAD", "/v1/files/sub/blob.bin", "");
  assert_int_equal(answer.code, 200);
  assert_non_null(strstr(answer.head, "Accept-Ranges: bytes\r\n"));
  assert_non_null(strstr(answer.head, "Content-Length: 5242883\r\n"));
  etag_of(&answer, etag, sizeof(etag));
  (void)snprintf(headers, sizeof(headers), "If-None-Match: \"x\", %s\r\n", etag);
  expect("GET", "/v1/files/sub/blob.bin", headers, 304);
  (void)snprintf(headers, sizeof(headers), "If-Range: %s\r\nRange: bytes=0-0\r\n", etag);
  expect("GET", "/v1/files/sub/blob.bin", headers, 206);
  expect("GET", "/v1/files/sub/blob.bin", "If-Range: \"old\"\r\nRange: bytes=0-0\r\n", 200);
  expect("GET", "/v1/files/sub/blob.bin", "Range: bytes=5242883-\r\n", 416);
  expect("GET", "/v1/files/empty.txt", "Range: bytes=0-\r\n", 416);
  answer = ask("GET", "/v1/files/sub/blob.bin", "Range: bytes=9999999-\r\n");
  assert_non_null(strstr(answer.head, "Content-Range: bytes */5242883\r\n"));
  free(answer.body);
  seed_fixture_stop();
}

static void refuses_other_paths(void **state) {
  (void)state;
  static const struct {
    const char *method, *target;
    int code;
  } rows[] = {
      {"GET", "/v1/files/none", 404},
      {"GET", "/v1/files/sub", 404},
      {"GET", "/v1/files/../one.safetensors", 400},
      {"GET", "/v1/files/%2e%2e/etc/passwd", 400},
      {"GET", "/v1/files/sub%2f..%2f..%2fetc/passwd", 400},
      {"GET", "/v1/files//etc/passwd", 400},
      {"GET", "/v1/files/%2fetc/passwd", 400},
      {"GET", "/v1/files/a%00b", 400},
      {"GET", "/v1/objects/none", 404},
      {"GET", "/v1/objects/shared", 400}, /* in two files */
      {"GET", "/v1/objects/shared?file=none", 404},
      {"GET", "/nowhere", 404},
      {"POST", "/livez", 405},
      {"DELETE", "/v1/files/empty.txt", 405},
      {"GET", "/v1/forks/xyz", 400},
      {"GET", "/v1/forks/00000000000000000000000000000000", 410},
      {"GET", "/v1/manifests/00000000000000000000000000000000", 410},
      {"GET", "/v1/manifests/none", 404},
      {"GET", "/v1/manifest?model=other", 404},
  };
  seed_fixture_start(NULL);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    expect(rows[i].method, rows[i].target, "", rows[i].code);
  struct peer_answer answer = ask("PUT", "/v1/forks", "");
  assert_int_equal(answer.code, 405);
  assert_non_null(strstr(answer.head, "Allow: GET, HEAD, POST\r\n"));
  free(answer.body);
  seed_fixture_stop();
}

static void asks_for_the_token(void **state) {
  (void)state;
  static const struct {
    const char *target, *headers;
    int code;
  } rows[] = {
      {"/livez", "", 200},
      {"/readyz", "", 200},
      {"/metrics", "", 200},
      {"/", "", 401},
      {"/nowhere", "", 401},
      {"/v1/files/empty.txt", "", 401},
      {"/v1/files/empty.txt", "Authorization: Bearer wrong\r\n", 401},
      {"/v1/files/empty.txt", "Authorization: Basic c2VjcmV0\r\n", 401},
      {"/v1/files/empty.txt", "Authorization: Bearer\r\n", 401},
      {"/v1/files/empty.txt", "Authorization: Bearer secret\r\n", 200},
      {"/", "Authorization: Bearer secret\r\n", 200},
  };
  struct sprout_seed_options options = {.token = "secret"};
  seed_fixture_start(&options);
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    expect("GET", rows[i].target, rows[i].headers, rows[i].code);
  struct peer_answer answer = ask("GET", "/v1/status", "");
  assert_non_null(strstr(answer.head, "WWW-Authenticate: Bearer"));
  assert_null(strstr((char *)answer.body, "secret"));
  free(answer.body);
  seed_fixture_stop();
  options = (struct sprout_seed_options){.token = "secret", .metrics_need_token = true};
  seed_fixture_start(&options);
  expect("GET", "/metrics", "", 401);
  expect("GET", "/metrics", "Authorization: Bearer secret\r\n", 200);
  seed_fixture_stop();
}

static void tells_about_itself(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  json_t *index = ask_json("/v1/manifests"), *manifest = ask_json("/v1/manifest"),
         *status = ask_json("/v1/status"), *forks = ask_json("/v1/forks");
  const char *id = json_string_value(
      json_object_get(json_array_get(json_object_get(index, "manifests"), 0), "id"));
  assert_string_equal(id, json_string_value(json_object_get(manifest, "id")));
  assert_int_equal(json_array_size(json_object_get(manifest, "files")), 5);
  assert_true(json_is_true(json_object_get(status, "ready")));
  assert_int_equal(json_array_size(json_object_get(forks, "forks")), 0);
  struct peer_answer answer = ask("GET", "/", "");
  assert_non_null(strstr((char *)answer.body, "curl"));
  free(answer.body);
  answer = ask("GET", "/metrics", "");
  assert_non_null(strstr((char *)answer.body, "sprout_seed_ready{"));
  assert_non_null(strstr((char *)answer.body,
                         "sprout_http_requests_total{route=\"/v1/status\",code=\"200\"} 1"));
  free(answer.body);
  json_decref(index);
  json_decref(manifest);
  json_decref(status);
  json_decref(forks);
  seed_fixture_stop();
}

static void manifests_in_msgpack(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  char etag[128], target[256], headers[256];
  struct manifest *manifest = NULL;
  struct sprout_error error;
  struct peer_answer answer = ask("GET", "/v1/manifest", "Accept: application/msgpack\r\n");
  assert_int_equal(answer.code, 200);
  assert_int_equal(wire_manifest_decode(answer.body, answer.body_bytes, &manifest, &error),
                   SPROUT_OK);
  etag_of(&answer, etag, sizeof(etag));
  (void)snprintf(headers, sizeof(headers), "If-None-Match: %s\r\nAccept: application/msgpack\r\n",
                 etag);
  (void)snprintf(target, sizeof(target), "/v1/manifests/%s", manifest->id);
  expect("GET", target, headers, 304);
  expect_bytes(target, "Accept: application/msgpack\r\nRange: bytes=2-9\r\n", 206, answer.body + 2,
               8);
  /* "EPOCH.GENERATION-m" without the quotes and the suffix is the version. */
  (void)snprintf(target, sizeof(target), "/v1/manifest?after=%.*s&wait=30ms", (int)strlen(etag) - 4,
                 etag + 1);
  expect("GET", target, "", 304);
  expect("GET", "/v1/manifest?after=other.1&wait=30s", "", 200);
  manifest_destroy(manifest);
  free(answer.body);
  seed_fixture_stop();
}

/* --- forks --- */

/* Sends a msgpack request; the answer's body is the caller's. False: the connection broke. */
static bool try_wire(int fd, const char *method, const char *target, struct wire_buffer *body,
                     struct peer_answer *answer_out) {
  char head[512];
  (void)snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 method, target, body->length_bytes);
  peer_say(fd, head);
  peer_say_bytes(fd, body->data, body->length_bytes);
  wire_buffer_destroy(body);
  return peer_hear(fd, true, answer_out);
}

static struct peer_answer send_wire(int fd, const char *method, const char *target,
                                    struct wire_buffer *body) {
  struct peer_answer answer;
  assert_true(try_wire(fd, method, target, body, &answer));
  return answer;
}

/* The answer's code; 0: the connection broke. */
static int try_open(int fd, uint8_t number, struct wire_opened *opened_out) {
  struct wire_open open = {.protocol_min = 1, .protocol_max = 1, .wants_tcp = true};
  struct wire_buffer body = {0};
  struct sprout_error error;
  struct sprout_seed_status status;
  struct peer_answer answer;
  sprout_seed_status(seed_fixture.seed, &status);
  memcpy(open.manifest_id, status.manifest_id, sizeof(open.manifest_id));
  memset(open.nonce, number, sizeof(open.nonce));
  assert_int_equal(wire_open_encode(&open, &body), SPROUT_OK);
  if (!try_wire(fd, "POST", "/v1/forks", &body, &answer)) return 0;
  if (answer.code == 201 || answer.code == 202)
    assert_int_equal(wire_opened_decode(answer.body, answer.body_bytes, opened_out, &error),
                     SPROUT_OK);
  if (answer.code == 429) assert_non_null(strstr(answer.head, "Retry-After: "));
  free(answer.body);
  return answer.code;
}

static int open_fork(int fd, uint8_t number, struct wire_opened *opened_out) {
  int code = try_open(fd, number, opened_out);
  assert_int_not_equal(code, 0);
  return code;
}

static const char *fork_target(const struct wire_opened *opened, const char *tail) {
  static char target[128];
  size_t used = (size_t)snprintf(target, sizeof(target), "/v1/forks/");
  for (size_t i = 0; i < WIRE_ID_BYTES; i++)
    used += (size_t)snprintf(target + used, sizeof(target) - used, "%02x", opened->fork_id[i]);
  (void)snprintf(target + used, sizeof(target) - used, "%s", tail);
  return target;
}

static int try_beat(int fd, struct wire_opened *opened) {
  const struct wire_heartbeat heartbeat = {.received_bytes = 5, .total_bytes = 10};
  struct wire_buffer body = {0};
  struct sprout_error error;
  assert_int_equal(wire_heartbeat_encode(&heartbeat, &body), SPROUT_OK);
  struct peer_answer answer;
  if (!try_wire(fd, "PATCH", fork_target(opened, ""), &body, &answer)) return 0;
  if (answer.code == 200)
    assert_int_equal(wire_opened_decode(answer.body, answer.body_bytes, opened, &error), SPROUT_OK);
  free(answer.body);
  return answer.code;
}

static int beat(int fd, struct wire_opened *opened) {
  int code = try_beat(fd, opened);
  assert_int_not_equal(code, 0);
  return code;
}

static int close_fork(int fd, const struct wire_opened *opened) {
  const struct wire_close close = {.result = SPROUT_OK, .reason = "done"};
  struct wire_buffer body = {0};
  assert_int_equal(wire_close_encode(&close, &body), SPROUT_OK);
  struct peer_answer answer = send_wire(fd, "DELETE", fork_target(opened, ""), &body);
  free(answer.body);
  return answer.code;
}

static struct peer_answer read_ranges(int fd, const struct wire_opened *opened, uint64_t generation,
                                      const struct wire_range *ranges, uint32_t count) {
  const struct wire_read read = {.generation = generation, .ranges = ranges, .range_count = count};
  struct wire_buffer body = {0};
  assert_int_equal(wire_read_encode(&read, &body), SPROUT_OK);
  return send_wire(fd, "POST", fork_target(opened, "/read"), &body);
}

#ifdef SPROUT_FAULTS
static bool try_read(int fd, const struct wire_opened *opened, const struct wire_range *range) {
  const struct wire_read read = {
      .generation = opened->grant.generation, .ranges = range, .range_count = 1};
  struct wire_buffer body = {0};
  struct peer_answer answer;
  assert_int_equal(wire_read_encode(&read, &body), SPROUT_OK);
  if (!try_wire(fd, "POST", fork_target(opened, "/read"), &body, &answer)) return false;
  free(answer.body);
  return true;
}
#endif

static int read_code(int fd, const struct wire_opened *opened, uint64_t generation,
                     const struct wire_range *range) {
  struct peer_answer answer = read_ranges(fd, opened, generation, range, 1);
  free(answer.body);
  return answer.code;
}

/* The object that is the blob. */
static uint32_t blob_object(void) {
  json_t *manifest = ask_json("/v1/manifest"), *objects = json_object_get(manifest, "objects");
  uint32_t found = UINT32_MAX;
  for (size_t i = 0; i < json_array_size(objects); i++)
    if (json_integer_value(json_object_get(json_array_get(objects, i), "length_bytes")) ==
        SEED_FIXTURE_BLOB_BYTES)
      found = (uint32_t)i;
  json_decref(manifest);
  assert_true(found != UINT32_MAX);
  return found;
}

static void a_fork_reads(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  struct wire_opened opened, again;
  uint32_t object = blob_object();
  int fd = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fd, 1, &opened), 201);
  assert_int_equal(open_fork(fd, 1, &again), 201);
  assert_memory_equal(opened.fork_id, again.fork_id, WIRE_ID_BYTES);
  assert_true(opened.grant.window.bytes > 0 && opened.lease_ns > opened.heartbeat_ns);
  uint64_t generation = opened.grant.generation;
  const struct wire_range ranges[] = {
      {.object = object, .offset = 0, .length_bytes = 1000, .count = 1},
      {.object = object, .offset = 1000, .length_bytes = 24, .count = 1},
      {.object = object, .offset = 5000, .length_bytes = 10, .stride_bytes = 100, .count = 3},
      {.object = object, .offset = 7, .length_bytes = 1, .stride_bytes = 1, .count = 5},
      {.object = object, .offset = 4096, .length_bytes = 4 << 20, .count = 1},
      {.object = object, .offset = 3, .length_bytes = 0, .count = 1},
  };
  struct peer_answer answer = read_ranges(fd, &opened, generation, ranges, 6);
  assert_int_equal(answer.code, 200);
  assert_int_equal(answer.body_bytes, 1024 + 30 + 5 + (4 << 20));
  const unsigned char *blob = seed_fixture.blob;
  assert_memory_equal(answer.body, blob, 1024);
  for (int i = 0; i < 3; i++)
    assert_memory_equal(answer.body + 1024 + 10 * i, blob + 5000 + 100 * i, 10);
  assert_memory_equal(answer.body + 1054, blob + 7, 5);
  assert_memory_equal(answer.body + 1059, blob + 4096, 4 << 20);
  free(answer.body);
  assert_int_equal(beat(fd, &opened), 200);
  json_t *forks = ask_json("/v1/forks");
  json_t *fork = json_array_get(json_object_get(forks, "forks"), 0);
  assert_int_equal(json_integer_value(json_object_get(fork, "sent_bytes")), 1059 + (4 << 20));
  assert_int_equal(json_integer_value(json_object_get(fork, "received_bytes")), 5);
  json_decref(forks);
  assert_int_equal(close_fork(fd, &opened), 204);
  assert_int_equal(read_code(fd, &opened, generation, ranges), 410);
  assert_int_equal(beat(fd, &opened), 410);
  close(fd);
  seed_fixture_stop();
}

static void refuses_bad_reads(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  struct wire_opened opened;
  uint32_t object = blob_object();
  int fd = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fd, 1, &opened), 201);
  uint64_t generation = opened.grant.generation;
  const struct {
    struct wire_range range;
    int code;
  } rows[] = {
      {{.object = 1000, .length_bytes = 1, .count = 1}, 416},
      {{.object = object, .offset = SEED_FIXTURE_BLOB_BYTES, .length_bytes = 1, .count = 1}, 416},
      {{.object = object, .length_bytes = SEED_FIXTURE_BLOB_BYTES + 1, .count = 1}, 416},
      {{.object = object, .offset = UINT64_MAX, .length_bytes = 2, .count = 1}, 400},
      {{.object = object, .length_bytes = 1, .stride_bytes = UINT64_MAX / 2, .count = 4}, 400},
      {{.object = object, .length_bytes = 1, .stride_bytes = 1, .count = 1 << 20}, 400},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    assert_int_equal(read_code(fd, &opened, generation, &rows[i].range), rows[i].code);
  const struct wire_range fine = {.object = object, .length_bytes = 1, .count = 1};
  assert_int_equal(read_code(fd, &opened, generation + 1, &fine), 409);
  struct wire_range many[16];
  for (int i = 0; i < 16; i++)
    many[i] = (struct wire_range){.object = object, .length_bytes = 5u << 20, .count = 1};
  struct peer_answer answer = read_ranges(fd, &opened, generation, many, 16);
  assert_int_equal(answer.code, 429); /* 80 MiB in one read */
  free(answer.body);
  struct wire_buffer garbage = {.data = (unsigned char *)strdup("\xc1zzz"), .length_bytes = 4};
  answer = send_wire(fd, "POST", fork_target(&opened, "/read"), &garbage);
  assert_int_equal(answer.code, 400);
  free(answer.body);
  assert_int_equal(read_code(fd, &opened, generation, &fine), 200);
  close(fd);
  seed_fixture_stop();
}

static uint64_t inflight_bytes(void) {
  json_t *forks = ask_json("/v1/forks");
  json_t *fork = json_array_get(json_object_get(forks, "forks"), 0);
  uint64_t bytes = (uint64_t)json_integer_value(json_object_get(fork, "inflight_bytes"));
  json_decref(forks);
  return bytes;
}

/* Reads that are posted but not received fill the window. */
static void holds_the_window(void **state) {
  (void)state;
  struct sprout_seed_options options = {.inflight_bytes = 8u << 20, .max_rate = 1000000};
  seed_fixture_start(&options);
  struct wire_opened opened;
  uint32_t object = blob_object();
  int fd = peer_dial(seed_fixture.address), other = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fd, 1, &opened), 201);
  assert_int_equal(opened.grant.window.bytes, 8u << 20);
  const struct wire_range big = {.object = object, .length_bytes = 5u << 20, .count = 1};
  const struct wire_read read = {
      .generation = opened.grant.generation, .ranges = &big, .range_count = 1};
  struct wire_buffer body = {0};
  char head[512];
  assert_int_equal(wire_read_encode(&read, &body), SPROUT_OK);
  (void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 fork_target(&opened, "/read"), body.length_bytes);
  peer_say(fd, head);
  peer_say_bytes(fd, body.data, body.length_bytes);
  wire_buffer_destroy(&body);
  for (int i = 0; i < PEER_TICKS_MAX && inflight_bytes() == 0; i++) seed_fixture_tick();
  assert_int_equal(read_code(other, &opened, opened.grant.generation, &big), 429);
  /* Closing the fork breaks the read that is on its way. */
  assert_int_equal(close_fork(other, &opened), 204);
  struct peer_answer answer;
  assert_false(peer_hear(fd, true, &answer));
  close(fd);
  close(other);
  seed_fixture_stop();
}

static void queues_and_promotes(void **state) {
  (void)state;
  struct sprout_seed_options options = {.max_forks = 1, .max_queue = 1};
  seed_fixture_start(&options);
  struct wire_opened a, b, c;
  const struct wire_range range = {.object = 0, .length_bytes = 1, .count = 1};
  int fd = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fd, 1, &a), 201);
  assert_int_equal(open_fork(fd, 2, &b), 202);
  assert_true(b.queued);
  assert_int_equal(b.position, 1);
  assert_int_equal(open_fork(fd, 3, &c), 429);
  assert_int_equal(read_code(fd, &b, b.grant.generation, &range), 429);
  assert_int_equal(beat(fd, &b), 200);
  assert_true(b.queued);
  assert_int_equal(close_fork(fd, &a), 204);
  assert_int_equal(beat(fd, &b), 200);
  assert_false(b.queued);
  close(fd);
  seed_fixture_stop();
}

static void leases_end(void **state) {
  (void)state;
  struct sprout_seed_options options = {.max_forks = 1, .lease_ns = 100000000};
  seed_fixture_start(&options);
  struct wire_opened opened, next;
  int fd = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fd, 1, &opened), 201);
  struct sprout_seed_status status = {.forks_running = 1};
  for (int i = 0; i < PEER_TICKS_MAX && status.forks_running > 0; i++) {
    seed_fixture_tick();
    sprout_seed_status(seed_fixture.seed, &status);
  }
  assert_int_equal(status.forks_running, 0);
  assert_int_equal(beat(fd, &opened), 410);
  assert_int_equal(open_fork(fd, 2, &next), 201);
  close(fd);
  seed_fixture_stop();
}

/* --- digests --- */

static void digests_on_demand(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  struct sprout_seed_status status;
  sprout_seed_status(seed_fixture.seed, &status);
  json_t *manifest = ask_json("/v1/manifest");
  uint64_t chunks = (uint64_t)json_integer_value(json_object_get(manifest, "chunk_count"));
  uint64_t first = (uint64_t)json_integer_value(json_object_get(
      json_array_get(json_object_get(manifest, "objects"), blob_object()), "first_chunk"));
  json_decref(manifest);
  char target[128];
  struct wire_buffer body = {0};
  struct sprout_error error;
  (void)snprintf(target, sizeof(target), "/v1/manifests/%s/digests", status.manifest_id);
  assert_int_equal(wire_digests_wanted_encode(0, chunks, &body), SPROUT_OK);
  int fd = peer_dial(seed_fixture.address);
  char head[512];
  (void)snprintf(head, sizeof(head),
                 "POST %s HTTP/1.1\r\nHost: x\r\nAccept: application/msgpack\r\n"
                 "Content-Length: %zu\r\n\r\n",
                 target, body.length_bytes);
  peer_say(fd, head);
  peer_say_bytes(fd, body.data, body.length_bytes);
  wire_buffer_destroy(&body);
  struct peer_answer answer;
  assert_true(peer_hear(fd, true, &answer));
  assert_int_equal(answer.code, 200);
  struct digest values[64];
  bool known[64];
  struct wire_digests digests = {.values = values, .known = known};
  assert_int_equal(wire_digests_decode(answer.body, answer.body_bytes, 64, &digests, &error),
                   SPROUT_OK);
  free(answer.body);
  assert_int_equal(digests.count, chunks);
  for (uint64_t i = 0; i < chunks; i++) assert_true(known[i]);
  struct digest expected = digest_of(seed_fixture.blob, SPROUT_CHUNK_BYTES);
  assert_true(digest_equal(&values[first], &expected));
  (void)snprintf(target, sizeof(target), "/v1/manifests/%s/digests?from=0&count=2",
                 status.manifest_id);
  json_t *json = ask_json(target);
  assert_int_equal(json_array_size(json_object_get(json, "digests")), 2);
  json_decref(json);
  (void)snprintf(target, sizeof(target), "/v1/manifests/%s/digests?from=9999", status.manifest_id);
  expect("GET", target, "", 416);
  (void)snprintf(target, sizeof(target), "/v1/manifests/%s/digests?from=x", status.manifest_id);
  expect("GET", target, "", 400);
  close(fd);
  seed_fixture_stop();
}

/* The file shrinks under a seed: it says so, and never sends other bytes. */
static void says_what_cannot_be_read(void **state) {
  (void)state;
  char path[128], target[128];
  struct sprout_seed_status status;
  struct wire_buffer body = {0};
  struct peer_answer answer;
  struct sprout_seed_options options = {.digest_rate = 1}; /* in the background: never */
  (void)snprintf(path, sizeof(path), "%s/sub/blob.bin", seed_fixture_directory());
  seed_fixture_start(&options);
  sprout_seed_status(seed_fixture.seed, &status);
  assert_int_equal(truncate(path, 1000), 0);
  int fd = peer_dial(seed_fixture.address);
  (void)snprintf(target, sizeof(target), "/v1/manifests/%s/digests", status.manifest_id);
  assert_int_equal(wire_digests_wanted_encode(0, 8, &body), SPROUT_OK);
  answer = send_wire(fd, "POST", target, &body);
  assert_int_equal(answer.code, 500);
  free(answer.body);
  peer_get(fd, "/v1/files/sub/blob.bin");
  assert_false(peer_hear(fd, true, &answer));
  close(fd);
  seed_fixture_stop();
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(seed_fixture.blob, 1, SEED_FIXTURE_BLOB_BYTES, file),
                   SEED_FIXTURE_BLOB_BYTES);
  assert_int_equal(fclose(file), 0);
}

/* --- ends --- */

static void set_true(void *context) {
  *(bool *)context = true;
}

static void drains_when_the_last_fork_is_gone(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  struct wire_opened opened, other;
  bool drained = false;
  int fd = peer_dial(seed_fixture.address), late = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fd, 1, &opened), 201);
  sprout_seed_drain(seed_fixture.seed, set_true, &drained);
  for (int i = 0; i < 20; i++) seed_fixture_tick();
  assert_false(drained);
  expect("GET", "/readyz", "", 503);
  expect("GET", "/livez", "", 200);
  /* The fork that runs goes on, on its connection. */
  const struct wire_range range = {.object = blob_object(), .length_bytes = 1000, .count = 1};
  assert_int_equal(read_code(fd, &opened, opened.grant.generation, &range), 200);
  assert_int_equal(open_fork(fd, 2, &other), 503);
  assert_int_equal(beat(fd, &opened), 200);
  assert_true(opened.grant.draining);
  assert_int_equal(close_fork(fd, &opened), 204);
  for (int i = 0; i < PEER_TICKS_MAX && !drained; i++) seed_fixture_tick();
  assert_true(drained);
  close(fd);
  close(late);
  seed_fixture_stop();
}

static void has_a_second_address_for_probes(void **state) {
  (void)state;
  struct sprout_seed_options options = {.admin_listen = "127.0.0.1:0", .token = "secret"};
  seed_fixture_start(&options);
  const struct address *main_address = seed_fixture.address;
  seed_fixture.address = &seed_fixture.admin_address;
  expect("GET", "/livez", "", 200);
  expect("GET", "/readyz", "", 200);
  expect("GET", "/metrics", "", 200);
  expect("GET", "/v1/status", "Authorization: Bearer secret\r\n", 404);
  expect("GET", "/v1/files/empty.txt", "Authorization: Bearer secret\r\n", 404);
  seed_fixture.address = main_address;
  seed_fixture_stop();
}

static void serves_the_callers_memory(void **state) {
  (void)state;
  static float a[1000], b[10];
  for (int i = 0; i < 1000; i++) a[i] = (float)i;
  const struct sprout_tensor tensors[] = {
      {.name = "a", .dtype = "F32", .rank = 1, .shape = {1000}, .address = a, .length_bytes = 4000},
      {.name = "b", .dtype = "F32", .rank = 1, .shape = {10}, .address = b, .length_bytes = 40}};
  struct sprout_seed_options options = {
      .tensors = tensors, .tensor_count = 2, .tensors_mutable = true, .name = "embedded"};
  seed_fixture_start(&options);
  expect_bytes("/v1/objects/a", "", 200, a, sizeof(a));
  a[1] = 77;
  expect_bytes("/v1/objects/a", "Range: bytes=4-7\r\n", 206, &a[1], 4);
  seed_fixture_stop();
}

static void refuses_bad_options(void **state) {
  (void)state;
  const char *paths[] = {seed_fixture_directory()};
  struct sprout_service *service = NULL;
  struct sprout_seed *seed = NULL;
  struct sprout_error error;
  assert_int_equal(sprout_service_create(NULL, &service, &error), SPROUT_OK);
  struct sprout_seed_options options = {
      .struct_bytes = sizeof(options), .paths = paths, .path_count = 1, .listen = "0.0.0.0:0"};
  assert_int_equal(sprout_seed_create(service, &options, &seed, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.hint, "--allow-anonymous"));
  options.listen = "127.0.0.1:0";
  options.max_forks = 1u << 30;
  assert_int_equal(sprout_seed_create(service, &options, &seed, &error), SPROUT_INVALID);
  options.max_forks = 0;
  options.struct_bytes = 1;
  assert_int_equal(sprout_seed_create(service, &options, &seed, &error), SPROUT_INVALID);
  options.struct_bytes = sizeof(options);
  options.path_count = 0;
  assert_int_equal(sprout_seed_create(service, &options, &seed, &error), SPROUT_INVALID);
  options.path_count = 1;
  assert_int_equal(sprout_seed_create(service, &options, &seed, &error), SPROUT_OK);
  struct sprout_seed_status status;
  sprout_seed_status(seed, &status);
  options.listen = status.listen; /* in use */
  struct sprout_seed *second = NULL;
  assert_int_equal(sprout_seed_create(service, &options, &second, &error), SPROUT_IO);
  assert_non_null(strstr(error.message, status.listen));
  assert_null(second);
  sprout_seed_destroy(seed);
  sprout_service_destroy(service);
}

static void ends_amid_everything(void **state) {
  (void)state;
  seed_fixture_start(NULL);
  struct wire_opened opened;
  int fds[5];
  for (int i = 0; i < 5; i++) fds[i] = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fds[0], 1, &opened), 201);
  peer_get(fds[1], "/v1/files/sub/blob.bin");
  peer_get(fds[2], "/v1/manifest");
  peer_say(fds[3], "GET /v1/sta");
  peer_get(fds[4], "/metrics");
  seed_fixture_stop();
  for (int i = 0; i < 5; i++) close(fds[i]);
}

#ifdef SPROUT_FAULTS
struct fault {
  uint64_t at;
  int32_t with;
};

static int32_t bend(void *context, uint64_t number, const struct ring_op *op, int32_t result) {
  const struct fault *fault = context;
  if (number != fault->at || op->kind == RING_ACCEPT || op->kind == RING_READ) return result;
  return fault->with;
}

/* A fork's requests until the connection breaks. */
static void try_everything(uint32_t object) {
  static const char manifest[] = "GET /v1/manifest HTTP/1.1\r\nHost: x\r\n\r\n",
                    file[] = "GET /v1/files/sub/blob.bin HTTP/1.1\r\nHost: x\r\n\r\n";
  struct wire_opened opened;
  struct peer_answer answer;
  int fd = peer_dial(seed_fixture.address);
  peer_say(fd, manifest);
  peer_say(fd, file);
  bool alive = peer_hear(fd, true, &answer);
  if (alive) free(answer.body);
  alive = alive && peer_hear(fd, true, &answer);
  if (alive) free(answer.body);
  close(fd);
  fd = peer_dial(seed_fixture.address);
  if (try_open(fd, 1, &opened) == 201) {
    const struct wire_range range = {.object = object, .length_bytes = 4u << 20, .count = 1};
    if (try_read(fd, &opened, &range)) (void)try_beat(fd, &opened);
  }
  close(fd);
}

/* Each completion fails once in its own run: connections may break, nothing else. */
static void survives_each_failing_completion(void **state) {
  (void)state;
  static const int32_t codes[] = {-ECONNRESET, -EIO, -ETIMEDOUT, -ENOMEM};
  seed_fixture_start(NULL);
  uint32_t object = blob_object();
  seed_fixture_stop();
  for (uint64_t at = 0; at < 100; at++) {
    struct fault fault = {at, codes[at % 4]};
    seed_fixture_start(NULL);
    struct ring *ring = reactor_ring(service_reactor(seed_fixture.service));
    ring_fault_set(ring, bend, &fault);
    try_everything(object);
    ring_fault_set(ring, NULL, NULL);
    expect("GET", "/readyz", "", 200);
    seed_fixture_stop();
  }
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(serves_files_and_objects),
      cmocka_unit_test(knows_ranges_and_etags),
      cmocka_unit_test(refuses_other_paths),
      cmocka_unit_test(asks_for_the_token),
      cmocka_unit_test(tells_about_itself),
      cmocka_unit_test(manifests_in_msgpack),
      cmocka_unit_test(a_fork_reads),
      cmocka_unit_test(refuses_bad_reads),
      cmocka_unit_test(holds_the_window),
      cmocka_unit_test(queues_and_promotes),
      cmocka_unit_test(leases_end),
      cmocka_unit_test(digests_on_demand),
      cmocka_unit_test(says_what_cannot_be_read),
      cmocka_unit_test(drains_when_the_last_fork_is_gone),
      cmocka_unit_test(has_a_second_address_for_probes),
      cmocka_unit_test(serves_the_callers_memory),
      cmocka_unit_test(refuses_bad_options),
      cmocka_unit_test(ends_amid_everything),
#ifdef SPROUT_FAULTS
      cmocka_unit_test(survives_each_failing_completion),
#endif
  };
  return cmocka_run_group_tests(tests, seed_fixture_create_files, seed_fixture_remove_files);
}
