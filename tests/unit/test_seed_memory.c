/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seed whose memory runs out, at each allocation in turn: it refuses, breaks a connection at
 * worst, and serves again afterwards.
 */
#include "net/service.h"
#include "net/wire.h"
#include "sprout/sprout.h"
#include "tests/support/http_peer.h"
#include "tests/support/memory.h"
#include "tests/support/seed_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define CREATE_MOST 2000
#define SERVE_MOST 150

static void creation_is_refused(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  const char *paths[] = {seed_fixture_directory()};
  struct sprout_seed_options options = {.struct_bytes = sizeof(options),
                                        .paths = paths,
                                        .path_count = 1,
                                        .listen = "127.0.0.1:0",
                                        .admin_listen = "127.0.0.1:0",
                                        .token = "secret"};
  struct sprout_service *service = NULL;
  struct sprout_error error;
  assert_int_equal(sprout_service_create(NULL, &service, &error), SPROUT_OK);
  bool failed = true;
  for (long i = 0; i < CREATE_MOST && failed; i++) {
    struct sprout_seed *seed = NULL;
    memory_fail_after(i);
    enum sprout_status status = sprout_seed_create(service, &options, &seed, &error);
    failed = memory_restore();
    if (status == SPROUT_OK)
      sprout_seed_destroy(seed);
    else
      assert_true(failed);
  }
  assert_false(failed);
  sprout_service_destroy(service);
}

/* Allocations that the seed still gets; the client beside it has as many as it likes. */
static long seed_memory = -1;

static void tick_poor(void) {
  memory_fail_after(seed_memory);
  seed_fixture_tick();
  if (seed_memory >= 0) seed_memory = memory_left;
  (void)memory_restore();
}

static bool hear(int fd) {
  struct peer_answer answer;
  if (!peer_hear(fd, true, &answer)) return false;
  free(answer.body);
  return true;
}

static void say_wire(int fd, const char *target, struct wire_buffer *body) {
  char head[256];
  (void)snprintf(head, sizeof(head), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                 target, body->length_bytes);
  peer_say(fd, head);
  peer_say_bytes(fd, body->data, body->length_bytes);
  wire_buffer_destroy(body);
}

static void use_seed(const char *manifest_id) {
  static const char *const targets[] = {
      "/v1/manifest", "/v1/files/sub/blob.bin", "/metrics", "/v1/status", "/v1/forks", "/nowhere"};
  char target[128];
  for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
    int fd = peer_dial(seed_fixture.address);
    peer_get(fd, targets[i]);
    (void)hear(fd);
    close(fd);
  }
  struct wire_open open = {.protocol_min = 1, .protocol_max = 1, .wants_tcp = true};
  struct wire_buffer body = {0};
  memcpy(open.manifest_id, manifest_id, sizeof(open.manifest_id));
  assert_int_equal(wire_open_encode(&open, &body), SPROUT_OK);
  int fd = peer_dial(seed_fixture.address);
  say_wire(fd, "/v1/forks", &body);
  if (hear(fd)) {
    (void)snprintf(target, sizeof(target), "/v1/manifests/%s/digests", manifest_id);
    assert_int_equal(wire_digests_wanted_encode(0, 8, &body), SPROUT_OK);
    say_wire(fd, target, &body);
    (void)hear(fd);
  }
  close(fd);
}

static void serving_goes_on(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct sprout_seed_status status;
  for (long i = 0; i < SERVE_MOST; i++) {
    seed_fixture_start(NULL);
    sprout_seed_status(seed_fixture.seed, &status);
    peer_set_tick(tick_poor);
    seed_memory = i;
    use_seed(status.manifest_id);
    seed_memory = -1;
    peer_set_tick(seed_fixture_tick);
    int fd = peer_dial(seed_fixture.address);
    peer_get(fd, "/readyz");
    peer_expect(fd, 200, "ready\n");
    close(fd);
    seed_fixture_stop();
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(creation_is_refused),
      cmocka_unit_test(serving_goes_on),
  };
  return cmocka_run_group_tests(tests, seed_fixture_create_files, seed_fixture_remove_files);
}
