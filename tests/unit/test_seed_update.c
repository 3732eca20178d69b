/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seed whose bytes change, at every moment of its life. Its reactor is ticked by the test.
 */
#include "net/seed_private.h"
#include "net/service.h"
#include "net/wire.h"
#include "sprout/sprout.h"
#include "tests/support/http_peer.h"
#include "tests/support/memory.h"
#include "tests/support/seed_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define LARGE_BYTES (24u << 20) /* more than the sockets of loopback hold */
#define LARGE_CHUNKS 6u
#define SMALL_BYTES 100u
#define CHUNKS (LARGE_CHUNKS + 1)

static unsigned char *large, small[SMALL_BYTES];

static unsigned char byte_of(uint64_t generation, uint64_t i) {
  return (unsigned char)(generation * 101 + i * 7);
}

static void fill(uint64_t generation) {
  for (uint32_t i = 0; i < LARGE_BYTES; i++) large[i] = byte_of(generation, i);
  memset(small, (int)generation, sizeof(small));
}

static void start_with(struct sprout_seed_options *more) {
  static struct sprout_tensor tensors[2];
  struct sprout_seed_options none = {0}, *options = more != NULL ? more : &none;
  fill(1);
  tensors[0] = (struct sprout_tensor){.name = "large",
                                      .dtype = "U8",
                                      .rank = 1,
                                      .shape = {LARGE_BYTES},
                                      .address = large,
                                      .length_bytes = LARGE_BYTES};
  tensors[1] = (struct sprout_tensor){.name = "small",
                                      .dtype = "U8",
                                      .rank = 1,
                                      .shape = {SMALL_BYTES},
                                      .address = small,
                                      .length_bytes = SMALL_BYTES};
  options->tensors = tensors;
  options->tensor_count = 2;
  options->tensors_mutable = true;
  options->name = "changing";
  options->lease_ns = 600000000000u; /* also on a slow machine */
  seed_fixture_start(options);
}

static void begin(void) {
  struct sprout_error error = {0};
  enum sprout_status status = sprout_seed_update_begin(seed_fixture.seed, &error);
  if (status != SPROUT_OK) print_error("%s\n", error.message);
  assert_int_equal(status, SPROUT_OK);
}

static void commit(const char *label) {
  struct sprout_error error = {0};
  enum sprout_status status = sprout_seed_update_commit(seed_fixture.seed, label, &error);
  if (status != SPROUT_OK) print_error("%s\n", error.message);
  assert_int_equal(status, SPROUT_OK);
}

static struct sprout_seed_status status_now(void) {
  struct sprout_seed_status status;
  sprout_seed_status(seed_fixture.seed, &status);
  return status;
}

/* --- requests --- */

static struct peer_answer request(int fd, const char *method, const char *target,
                                  const char *headers, struct wire_buffer *body) {
  char head[512];
  struct peer_answer answer;
  (void)snprintf(head, sizeof(head), "%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %zu\r\n\r\n",
                 method, target, headers, body->length_bytes);
  peer_say(fd, head);
  peer_say_bytes(fd, body->data, body->length_bytes);
  wire_buffer_destroy(body);
  *body = (struct wire_buffer){0};
  assert_true(peer_hear(fd, true, &answer));
  return answer;
}

static void expect(const char *method, const char *target, int code, const char *text) {
  struct wire_buffer none = {0};
  int fd = peer_dial(seed_fixture.address);
  struct peer_answer answer = request(fd, method, target, "", &none);
  if (answer.code != code || (text != NULL && strstr((char *)answer.body, text) == NULL))
    print_error("%s %s: %d %s\n", method, target, answer.code, (char *)answer.body);
  assert_int_equal(answer.code, code);
  if (text != NULL) assert_non_null(strstr((char *)answer.body, text));
  if (code == 503) assert_non_null(strstr(answer.head, "Retry-After: 1\r\n"));
  free(answer.body);
  close(fd);
}

static int open_fork(int fd, uint8_t number, struct wire_opened *opened_out) {
  struct wire_open open = {.protocol_min = 1, .protocol_max = 1, .wants_tcp = true};
  struct wire_buffer body = {0};
  struct sprout_error error;
  memcpy(open.manifest_id, status_now().manifest_id, sizeof(open.manifest_id));
  memset(open.nonce, number, sizeof(open.nonce));
  assert_int_equal(wire_open_encode(&open, &body), SPROUT_OK);
  struct peer_answer answer = request(fd, "POST", "/v1/forks", "", &body);
  if (answer.code == 201)
    assert_int_equal(wire_opened_decode(answer.body, answer.body_bytes, opened_out, &error),
                     SPROUT_OK);
  free(answer.body);
  return answer.code;
}

static const char *fork_target(const struct wire_opened *opened, const char *tail) {
  static char target[128];
  size_t used = (size_t)snprintf(target, sizeof(target), "/v1/forks/");
  for (size_t i = 0; i < WIRE_ID_BYTES; i++)
    used += (size_t)snprintf(target + used, sizeof(target) - used, "%02x", opened->fork_id[i]);
  (void)snprintf(target + used, sizeof(target) - used, "%s", tail);
  return target;
}

static int beat(int fd, struct wire_opened *opened) {
  const struct wire_heartbeat heartbeat = {.received_bytes = 5};
  struct wire_buffer body = {0};
  struct sprout_error error;
  assert_int_equal(wire_heartbeat_encode(&heartbeat, &body), SPROUT_OK);
  struct peer_answer answer = request(fd, "PATCH", fork_target(opened, ""), "", &body);
  if (answer.code == 200)
    assert_int_equal(wire_opened_decode(answer.body, answer.body_bytes, opened, &error), SPROUT_OK);
  free(answer.body);
  return answer.code;
}

static void say_read(int fd, const struct wire_opened *opened, uint64_t generation, uint32_t object,
                     uint64_t length_bytes) {
  const struct wire_range range = {.object = object, .length_bytes = length_bytes, .count = 1};
  const struct wire_read read = {.generation = generation, .ranges = &range, .range_count = 1};
  struct wire_buffer body = {0};
  char head[256];
  assert_int_equal(wire_read_encode(&read, &body), SPROUT_OK);
  (void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 fork_target(opened, "/read"), body.length_bytes);
  peer_say(fd, head);
  peer_say_bytes(fd, body.data, body.length_bytes);
  wire_buffer_destroy(&body);
}

static int read_small(int fd, const struct wire_opened *opened, uint64_t generation,
                      unsigned char byte_expected) {
  struct peer_answer answer;
  say_read(fd, opened, generation, 1, SMALL_BYTES);
  assert_true(peer_hear(fd, true, &answer));
  for (size_t i = 0; answer.code == 200 && i < SMALL_BYTES; i++)
    assert_int_equal(answer.body[i], byte_expected);
  free(answer.body);
  return answer.code;
}

static const char *digests_target(void) {
  static char target[128];
  (void)snprintf(target, sizeof(target), "/v1/manifests/%s/digests", status_now().manifest_id);
  return target;
}

/* What the seed computes is of the bytes that lie there now. */
static void expect_digests(uint64_t generation) {
  struct wire_buffer body = {0};
  struct digest values[CHUNKS];
  bool known[CHUNKS];
  struct wire_digests digests = {.values = values, .known = known};
  struct sprout_error error;
  int fd = peer_dial(seed_fixture.address);
  assert_int_equal(wire_digests_wanted_encode(0, CHUNKS, &body), SPROUT_OK);
  struct peer_answer answer =
      request(fd, "POST", digests_target(), "Accept: application/msgpack\r\n", &body);
  assert_int_equal(answer.code, 200);
  assert_int_equal(wire_digests_decode(answer.body, answer.body_bytes, CHUNKS, &digests, &error),
                   SPROUT_OK);
  assert_int_equal(digests.generation, generation);
  assert_int_equal(digests.count, CHUNKS);
  for (uint32_t i = 0; i < CHUNKS; i++) {
    struct digest expected = i < LARGE_CHUNKS
                                 ? digest_of(large + i * SPROUT_CHUNK_BYTES, SPROUT_CHUNK_BYTES)
                                 : digest_of(small, SMALL_BYTES);
    assert_true(known[i]);
    assert_true(digest_equal(&values[i], &expected));
  }
  free(answer.body);
  close(fd);
}

static struct manifest *fetch_manifest(const char *target) {
  struct wire_buffer none = {0};
  struct manifest *manifest = NULL;
  struct sprout_error error;
  int fd = peer_dial(seed_fixture.address);
  struct peer_answer answer = request(fd, "GET", target, "Accept: application/msgpack\r\n", &none);
  assert_int_equal(answer.code, 200);
  assert_int_equal(wire_manifest_decode(answer.body, answer.body_bytes, &manifest, &error),
                   SPROUT_OK);
  free(answer.body);
  close(fd);
  return manifest;
}

/* --- what may be changed --- */

static void only_mutable_tensors_change(void **state) {
  (void)state;
  struct sprout_error error;
  seed_fixture_start(NULL);
  assert_int_equal(sprout_seed_update_begin(seed_fixture.seed, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.hint, "tensors_mutable"));
  assert_int_equal(sprout_seed_update_commit(seed_fixture.seed, NULL, &error), SPROUT_INVALID);
  assert_int_equal(status_now().generation, 1);
  seed_fixture_stop();
}

static void one_update_at_a_time(void **state) {
  (void)state;
  struct sprout_error error;
  char label[80];
  memset(label, 'x', sizeof(label));
  label[65] = '\0';
  start_with(&(struct sprout_seed_options){.label = "step-1"});
  assert_int_equal(sprout_seed_update_commit(seed_fixture.seed, NULL, &error), SPROUT_INVALID);
  begin();
  assert_int_equal(sprout_seed_update_begin(seed_fixture.seed, &error), SPROUT_INVALID);
  assert_int_equal(sprout_seed_update_commit(seed_fixture.seed, label, &error), SPROUT_INVALID);
  assert_int_equal(sprout_seed_update_commit(seed_fixture.seed, "a\nb", &error), SPROUT_INVALID);
  assert_true(status_now().updating);
  commit(NULL);
  assert_string_equal(status_now().label, "step-1");
  label[64] = '\0';
  begin();
  commit(label);
  assert_string_equal(status_now().label, label);
  begin();
  commit("");
  assert_string_equal(status_now().label, "");
  assert_int_equal(status_now().generation, 4);
  seed_fixture_stop();
}

/* --- what is told --- */

static void says_so_while_bytes_change(void **state) {
  (void)state;
  struct wire_opened opened = {0}, other;
  start_with(NULL);
  int fd = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(fd, 1, &opened), 201);
  assert_int_equal(read_small(fd, &opened, 1, 1), 200);
  assert_int_equal(fence_value(&seed_fixture.seed->fence), 2);
  begin();
  assert_int_equal(fence_value(&seed_fixture.seed->fence), 3);
  expect("GET", "/livez", 200, "ok");
  expect("GET", "/readyz", 503, "being changed");
  expect("GET", "/v1/status", 200, "\"updating\":true");
  expect("GET", "/v1/manifests", 200, NULL);
  expect("GET", "/v1/objects/small", 503, "too_early");
  expect("GET", digests_target(), 409, "stale");
  assert_int_equal(read_small(fd, &opened, 1, 1), 409);
  assert_int_equal(read_small(fd, &opened, 2, 1), 409);
  assert_int_equal(beat(fd, &opened), 200);
  assert_int_equal(opened.grant.generation, 1);
  assert_int_equal(open_fork(fd, 2, &other), 503);
  fill(2);
  commit("step-2");
  assert_int_equal(fence_value(&seed_fixture.seed->fence), 4);
  expect("GET", "/readyz", 200, "ready");
  expect("GET", "/v1/status", 200, "\"updating\":false");
  expect("GET", "/metrics", 200, "sprout_seed_generation 2\n");
  expect("GET", "/metrics", 200, "sprout_update_duration_seconds_count{phase=\"begin\"} 1\n");
  assert_int_equal(read_small(fd, &opened, 1, 1), 409);
  assert_int_equal(beat(fd, &opened), 200);
  assert_int_equal(opened.grant.generation, 2);
  assert_int_equal(read_small(fd, &opened, 2, 2), 200);
  expect_digests(2);
  close(fd);
  seed_fixture_stop();
}

static void publishes_the_new_version(void **state) {
  (void)state;
  start_with(NULL);
  struct manifest *before = fetch_manifest("/v1/manifest");
  expect("GET", "/v1/manifest", 200, "\"generation\":1");
  begin();
  commit("step-2");
  struct manifest *after = fetch_manifest("/v1/manifest");
  assert_string_equal(before->id, after->id);
  assert_memory_equal(before->version.epoch, after->version.epoch, MANIFEST_EPOCH_BYTES);
  assert_int_equal(after->version.generation, 2);
  assert_string_equal(after->version.label, "step-2");
  assert_int_equal(after->objects[0].generation, 2);
  expect("GET", "/v1/manifest", 200, "\"generation\":2");
  expect("GET", "/v1/manifests", 200, "step-2");
  manifest_destroy(before);
  manifest_destroy(after);
  seed_fixture_stop();
}

static void version_text(uint64_t generation, char *target_out, size_t bytes, const char *tail) {
  const struct manifest_version *version = &seed_fixture.seed->model->manifest->version;
  size_t used = (size_t)snprintf(target_out, bytes, "/v1/manifest?after=");
  for (size_t i = 0; i < MANIFEST_EPOCH_BYTES; i++)
    used += (size_t)snprintf(target_out + used, bytes - used, "%02x", version->epoch[i]);
  (void)snprintf(target_out + used, bytes - used, ".%u%s", (unsigned)generation, tail);
}

/* Who waits for a version gets it with the commit; who just asks meanwhile waits for it too. */
static void wakes_who_waits_for_a_version(void **state) {
  (void)state;
  char target[256];
  int fds[4];
  start_with(NULL);
  version_text(1, target, sizeof(target), "&wait=60s");
  for (int i = 0; i < 4; i++) fds[i] = peer_dial(seed_fixture.address);
  peer_get(fds[0], target);
  begin();
  peer_get(fds[1], target);
  peer_get(fds[2], "/v1/manifest");
  version_text(0, target, sizeof(target), "");
  peer_get(fds[3], target);
  version_text(1, target, sizeof(target), "&wait=20ms");
  struct wire_buffer none = {0};
  int fd = peer_dial(seed_fixture.address);
  struct peer_answer answer = request(fd, "GET", target, "", &none);
  assert_int_equal(answer.code, 304);
  close(fd);
  commit(NULL);
  for (int i = 0; i < 4; i++) {
    assert_true(peer_hear(fds[i], true, &answer));
    assert_int_equal(answer.code, 200);
    assert_non_null(strstr((char *)answer.body, "\"generation\":2"));
    free(answer.body);
    close(fds[i]);
  }
  seed_fixture_stop();
}

/* JSON that is being written when the version changes is not given to anybody. */
static void json_is_never_of_the_old_version(void **state) {
  (void)state;
  struct peer_answer answer;
  for (int ticks = 0; ticks < 6; ticks++) {
    start_with(NULL);
    int fd = peer_dial(seed_fixture.address);
    peer_get(fd, "/v1/manifest");
    for (int i = 0; i < ticks; i++) seed_fixture_tick();
    begin();
    commit(NULL);
    assert_true(peer_hear(fd, true, &answer)); /* either: it was asked before */
    free(answer.body);
    close(fd);
    expect("GET", "/v1/manifest", 200, "\"generation\":2");
    seed_fixture_stop();
  }
}

static void an_endless_update_is_told(void **state) {
  (void)state;
  start_with(NULL);
  begin();
  expect("GET", "/v1/manifest", 503, "too_early");
  seed_fixture_stop();
}

/* --- bodies under way --- */

/* Receives all that comes; returns the number of bytes behind the head, all of generation 1. */
static uint64_t drain_body(int fd, uint64_t received) {
  static unsigned char buffer[1 << 16];
  for (int i = 0; i < PEER_TICKS_MAX && received < LARGE_BYTES; i++) {
    ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
    if (got == 0 || (got < 0 && errno != EAGAIN)) return received;
    if (got < 0) {
      seed_fixture_tick();
      continue;
    }
    for (ssize_t k = 0; k < got; k++)
      assert_int_equal(buffer[k], byte_of(1, received + (uint64_t)k));
    received += (uint64_t)got;
  }
  if (received < LARGE_BYTES) fail_msg("the connection did not end");
  return received;
}

/* `head` may hold its first bytes already. False: the answer was made after the change. */
static bool hear_head(int fd, size_t used) {
  static char head[1024] = "H";
  while (used < 4 || memcmp(head + used - 4, "\r\n\r\n", 4) != 0) {
    assert_true(used + 1 < sizeof(head) && peer_receive(fd, head + used, 1));
    used++;
  }
  head[used] = '\0';
  return strstr(head, " 409 ") == NULL && strstr(head, ".2-o") == NULL;
}

/* `take`: bytes that the client has taken when the bytes change; then a send waits in the kernel.
 */
static void break_body(bool download, uint32_t take, int ticks) {
  struct wire_opened opened;
  unsigned char *taken = malloc(take + 1);
  assert_non_null(taken);
  start_with(NULL);
  int fd = peer_dial(seed_fixture.address);
  if (download) {
    peer_get(fd, "/v1/objects/large");
  } else {
    assert_int_equal(open_fork(fd, 1, &opened), 201);
    say_read(fd, &opened, 1, 0, LARGE_BYTES);
  }
  for (int i = 0; i < ticks; i++) seed_fixture_tick();
  if (take > 0) {
    assert_true(hear_head(fd, 0));
    assert_true(peer_receive(fd, taken, take));
    for (uint32_t i = 0; i < take; i++) assert_int_equal(taken[i], byte_of(1, i));
  }
  begin();
  fill(2);
  commit(NULL);
  if (take == 0) {
    /* Nothing may have come at all; what came begins with the head. */
    unsigned char byte;
    if (peer_receive(fd, &byte, 1) && hear_head(fd, 1))
      assert_true(drain_body(fd, 0) < LARGE_BYTES);
  } else {
    uint64_t received = drain_body(fd, take);
    assert_true(take == LARGE_BYTES ? received == LARGE_BYTES : received < LARGE_BYTES);
  }
  close(fd);
  free(taken);
  seed_fixture_stop();
}

static void no_body_mixes_generations(void **state) {
  (void)state;
  static const uint32_t takes[] = {0, 1, 100, 1u << 16, 1u << 20, 9u << 20, LARGE_BYTES};
  for (int download = 0; download < 2; download++) {
    for (size_t i = 0; i < sizeof(takes) / sizeof(takes[0]); i++) break_body(download, takes[i], 5);
    for (int ticks = 0; ticks < 5; ticks++) break_body(download, 0, ticks);
  }
}

/* Pipelined reads: those that were answered whole are whole, the others break off. */
static void pipelined_reads_break_off(void **state) {
  (void)state;
  struct wire_opened opened;
  struct peer_answer answer;
  start_with(NULL);
  int fd = peer_dial(seed_fixture.address), control = peer_dial(seed_fixture.address);
  assert_int_equal(open_fork(control, 1, &opened), 201);
  say_read(fd, &opened, 1, 1, SMALL_BYTES);
  say_read(fd, &opened, 1, 0, LARGE_BYTES);
  say_read(fd, &opened, 1, 1, SMALL_BYTES);
  for (int i = 0; i < 5; i++) seed_fixture_tick();
  begin();
  fill(2);
  assert_true(peer_hear(fd, true, &answer));
  for (size_t i = 0; i < SMALL_BYTES; i++) assert_int_equal(answer.body[i], 1);
  free(answer.body);
  assert_true(hear_head(fd, 0));
  assert_true(drain_body(fd, 0) < LARGE_BYTES);
  assert_int_equal(beat(control, &opened), 200);
  commit(NULL);
  close(fd);
  fd = peer_dial(seed_fixture.address);
  assert_int_equal(read_small(fd, &opened, 2, 2), 200);
  close(fd);
  close(control);
  seed_fixture_stop();
}

/* --- digests --- */

static void say_digests_wanted(int fd) {
  struct wire_buffer body = {0};
  char head[256];
  assert_int_equal(wire_digests_wanted_encode(0, CHUNKS, &body), SPROUT_OK);
  (void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 digests_target(), body.length_bytes);
  peer_say(fd, head);
  peer_say_bytes(fd, body.data, body.length_bytes);
  wire_buffer_destroy(&body);
}

/* Who waits gets 409, or the digests when they were there before; never of changing bytes. */
static void no_digest_of_changing_bytes(void **state) {
  (void)state;
  struct peer_answer answer;
  for (uint64_t round = 0; round < 12; round++) {
    start_with(&(struct sprout_seed_options){.digest_rate = 1ull << 40});
    int fd = peer_dial(seed_fixture.address);
    say_digests_wanted(fd);
    for (uint64_t i = 0; i < round; i++)
      reactor_tick(service_reactor(seed_fixture.service), 200000);
    begin();
    fill(round + 2);
    if (round % 2 == 0) seed_fixture_tick();
    if (round % 3 == 0) expect("GET", digests_target(), 409, "stale");
    commit(NULL);
    assert_true(peer_hear(fd, true, &answer));
    assert_true(answer.code == 409 || answer.code == 200);
    if (answer.code == 200) assert_non_null(strstr((char *)answer.body, "\"generation\":1,"));
    free(answer.body);
    close(fd);
    expect_digests(2);
    assert_int_equal(status_now().undigested_bytes, 0);
    seed_fixture_stop();
  }
}

static void background_digests_begin_anew(void **state) {
  (void)state;
  start_with(&(struct sprout_seed_options){.digest_rate = 1ull << 40});
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < PEER_TICKS_MAX && status_now().undigested_bytes > 0; i++)
      seed_fixture_tick();
    assert_int_equal(status_now().undigested_bytes, 0);
    begin();
    assert_int_equal(status_now().undigested_bytes, LARGE_BYTES + SMALL_BYTES);
    for (int i = 0; i < 5; i++) seed_fixture_tick();
    assert_int_equal(status_now().undigested_bytes, LARGE_BYTES + SMALL_BYTES);
    commit(NULL);
  }
  seed_fixture_stop();
}

/* --- other moments --- */

/* The service has not run yet: no tick happened. */
static void updates_before_it_is_ready(void **state) {
  (void)state;
  start_with(NULL);
  begin();
  fill(2);
  commit("early");
  begin();
  fill(3);
  commit(NULL);
  assert_int_equal(status_now().generation, 3);
  expect("GET", "/v1/manifest", 200, "early");
  expect_digests(3);
  seed_fixture_stop();
}

static void ends_amid_an_update(void **state) {
  (void)state;
  struct wire_opened opened;
  for (int ticks = 0; ticks < 4; ticks++) {
    start_with(NULL);
    int fds[4];
    for (int i = 0; i < 4; i++) fds[i] = peer_dial(seed_fixture.address);
    assert_int_equal(open_fork(fds[0], 1, &opened), 201);
    say_read(fds[0], &opened, 1, 0, LARGE_BYTES);
    say_digests_wanted(fds[1]);
    peer_get(fds[2], "/v1/objects/large");
    begin();
    peer_get(fds[3], "/v1/manifest");
    for (int i = 0; i < ticks; i++) seed_fixture_tick();
    seed_fixture_stop();
    for (int i = 0; i < 4; i++) close(fds[i]);
  }
}

static void note_drained(void *context) {
  *(bool *)context = true;
}

/* A drain goes on beside an update, in either order; running forks read the new bytes. */
static void drains_during_an_update(void **state) {
  (void)state;
  for (int late = 0; late < 2; late++) {
    struct wire_opened opened;
    bool drained = false;
    start_with(NULL);
    int fd = peer_dial(seed_fixture.address);
    assert_int_equal(open_fork(fd, 1, &opened), 201);
    if (!late) sprout_seed_drain(seed_fixture.seed, note_drained, &drained);
    begin();
    if (late) sprout_seed_drain(seed_fixture.seed, note_drained, &drained);
    fill(2);
    expect("GET", "/readyz", 503, "draining");
    commit(NULL);
    expect("GET", "/readyz", 503, "draining");
    assert_int_equal(beat(fd, &opened), 200);
    assert_true(opened.grant.draining);
    assert_int_equal(read_small(fd, &opened, opened.grant.generation, 2), 200);
    assert_false(drained);
    struct wire_buffer none = {0};
    struct peer_answer answer = request(fd, "DELETE", fork_target(&opened, ""), "", &none);
    assert_int_equal(answer.code, 204);
    for (int i = 0; i < PEER_TICKS_MAX && !drained; i++) seed_fixture_tick();
    assert_true(drained);
    close(fd);
    seed_fixture_stop();
  }
}

/* A commit that finds no memory changes nothing, and can be tried again. */
static void commits_again_after_no_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct sprout_error error;
  start_with(NULL);
  uint64_t generation = 1;
  bool failed = true;
  for (long i = 0; failed; i++) {
    begin();
    memory_fail_after(i);
    enum sprout_status status = sprout_seed_update_commit(seed_fixture.seed, "poor", &error);
    failed = memory_restore();
    if (status != SPROUT_OK) {
      assert_int_equal(status, SPROUT_NO_MEMORY);
      assert_int_equal(status_now().generation, generation);
      assert_true(status_now().updating);
      assert_int_equal(fence_value(&seed_fixture.seed->fence), 2 * generation + 1);
      commit("rich");
    }
    generation++;
    assert_int_equal(status_now().generation, generation);
    assert_int_equal(fence_value(&seed_fixture.seed->fence), 2 * generation);
    assert_string_equal(status_now().label, status == SPROUT_OK ? "poor" : "rich");
  }
  assert_true(generation > 3);
  seed_fixture_stop();
}

/* begin needs no memory. */
static void begins_without_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct sprout_error error;
  start_with(NULL);
  int fd = peer_dial(seed_fixture.address);
  peer_get(fd, "/v1/objects/large");
  for (int i = 0; i < 5; i++) seed_fixture_tick();
  memory_fail_after(0);
  assert_int_equal(sprout_seed_update_begin(seed_fixture.seed, &error), SPROUT_OK);
  (void)memory_restore();
  commit(NULL);
  close(fd);
  seed_fixture_stop();
}

/* --- forks --- */

struct looks {
  pthread_mutex_t lock;
  pthread_cond_t more;
  unsigned count;
};

static void look(void *context, const struct sprout_fork_progress *progress) {
  struct looks *looks = context;
  (void)progress;
  pthread_mutex_lock(&looks->lock);
  looks->count++;
  pthread_cond_signal(&looks->more);
  pthread_mutex_unlock(&looks->lock);
}

/* One that comes while bytes are being changed is not refused: it waits for the commit. */
static void a_fork_waits_for_the_commit(void **state) {
  (void)state;
  struct looks looks = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct sprout_error error;
  struct sprout_service *service = NULL;
  struct sprout_fork *fork = NULL;
  char url[128];
  start_with(NULL);
  reactor_leave(service_reactor(seed_fixture.service));
  assert_int_equal(sprout_service_start(seed_fixture.service, &error), SPROUT_OK);
  assert_int_equal(sprout_service_create(NULL, &service, &error), SPROUT_OK);
  assert_int_equal(sprout_service_start(service, &error), SPROUT_OK);
  (void)snprintf(url, sizeof(url), "http://%s", status_now().listen);
  const char *urls[] = {url};
  struct sprout_fork_options options = {.struct_bytes = sizeof(options),
                                        .urls = urls,
                                        .url_count = 1,
                                        .progress_interval_ns = 1000000,
                                        .progress = look,
                                        .context = &looks};
  begin();
  assert_int_equal(sprout_fork_create(service, &options, &fork, &error), SPROUT_OK);
  pthread_mutex_lock(&looks.lock);
  while (looks.count < 100) pthread_cond_wait(&looks.more, &looks.lock);
  pthread_mutex_unlock(&looks.lock);
  fill(2);
  commit("step-2");
  const struct sprout_fork_result *result = sprout_fork_wait(fork);
  if (result->status != SPROUT_OK) print_error("%s\n", result->error.message);
  assert_int_equal(result->status, SPROUT_OK);
  assert_int_equal(result->generation, 2);
  assert_string_equal(result->label, "step-2");
  assert_int_equal(result->progress.received_bytes, LARGE_BYTES + SMALL_BYTES);
  sprout_fork_destroy(fork);
  sprout_service_destroy(service);
  seed_fixture_stop();
}

static int make_memory(void **state) {
  large = malloc(LARGE_BYTES);
  return large != NULL ? seed_fixture_create_files(state) : -1;
}

static int free_memory(void **state) {
  free(large);
  return seed_fixture_remove_files(state);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(only_mutable_tensors_change),
      cmocka_unit_test(one_update_at_a_time),
      cmocka_unit_test(says_so_while_bytes_change),
      cmocka_unit_test(publishes_the_new_version),
      cmocka_unit_test(wakes_who_waits_for_a_version),
      cmocka_unit_test(json_is_never_of_the_old_version),
      cmocka_unit_test(an_endless_update_is_told),
      cmocka_unit_test(no_body_mixes_generations),
      cmocka_unit_test(pipelined_reads_break_off),
      cmocka_unit_test(no_digest_of_changing_bytes),
      cmocka_unit_test(background_digests_begin_anew),
      cmocka_unit_test(updates_before_it_is_ready),
      cmocka_unit_test(ends_amid_an_update),
      cmocka_unit_test(drains_during_an_update),
      cmocka_unit_test(commits_again_after_no_memory),
      cmocka_unit_test(begins_without_memory),
      cmocka_unit_test(a_fork_waits_for_the_commit),
  };
  return cmocka_run_group_tests(tests, make_memory, free_memory);
}
