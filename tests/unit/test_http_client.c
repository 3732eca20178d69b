/* SPDX-License-Identifier: Apache-2.0 */
#include "net/http_client.h"
#include "net/http_request.h"
#include "tests/support/fake_seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALLS 8

/* One call and what became of it. */
struct asked {
  struct http_call call;
  struct scene *scene;
  struct wire_buffer request;
  char sink[64];
  struct iovec iov[4];
  unsigned order; /* in which it was answered, from 1; 0: not yet */
  uint64_t landed;
  int status_code;
  struct sprout_error error;
  char body[256];
};

struct scene {
  struct fake_seed seed;
  struct reactor *reactor;
  struct http_client *client;
  unsigned answered;
  bool closed;
  struct asked asked[CALLS];
};

static struct manifest *empty_manifest(void) {
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct sprout_error error;

  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  assert_int_equal(manifest_builder_file(builder, "a", 0, false), SPROUT_OK);
  if (manifest_build(builder, &manifest, &error) != SPROUT_OK) fail_msg("%s", error.message);
  return manifest;
}

static void step(struct scene *scene) {
  fake_seed_tick(&scene->seed);
  reactor_tick(scene->reactor, 1000000);
}

static int set_up(void **state) {
  struct scene *scene = calloc(1, sizeof(*scene));
  const struct reactor_options options = {.workers = 1};
  struct http_client_options client_options = {.name = "http://peer.test", .input_bytes = 64};
  struct sprout_error error;

  assert_non_null(scene);
  fake_seed_init(&scene->seed, empty_manifest());
  assert_int_equal(reactor_create(&options, &scene->reactor, &error), SPROUT_OK);
  client_options.address = scene->seed.address;
  assert_int_equal(http_client_create(scene->reactor, &client_options, &scene->client), SPROUT_OK);
  *state = scene;
  return 0;
}

static void client_closed(void *context) {
  ((struct scene *)context)->closed = true;
}

static void close_client(struct scene *scene) {
  scene->closed = false;
  http_client_close(scene->client, SPROUT_CANCELLED, client_closed, scene);
  assert_false(scene->closed);
  for (int i = 0; i < 10000 && !scene->closed; i++) step(scene);
  assert_true(scene->closed);
  assert_int_equal(http_client_pending(scene->client), 0);
}

static int tear_down(void **state) {
  struct scene *scene = *state;

  close_client(scene);
  http_client_destroy(scene->client);
  reactor_leave(scene->reactor);
  reactor_destroy(scene->reactor);
  fake_seed_end(&scene->seed);
  manifest_destroy((struct manifest *)(uintptr_t)scene->seed.manifest);
  for (int i = 0; i < CALLS; i++) wire_buffer_destroy(&scene->asked[i].request);
  free(scene);
  return 0;
}

static void landed(struct http_call *call, const void *data, uint64_t length_bytes) {
  struct asked *asked = container_of(call, struct asked, call);

  assert_true((const char *)data >= asked->sink && length_bytes > 0);
  asked->landed += length_bytes;
}

static void done(struct http_call *call, const struct sprout_error *error) {
  struct asked *asked = container_of(call, struct asked, call);

  assert_int_equal(asked->order, 0);
  asked->order = ++asked->scene->answered;
  asked->error = *error;
  if (error->status != SPROUT_OK) return;
  asked->status_code = call->status_code;
  assert_true(call->body_bytes < sizeof(asked->body));
  if (call->body_bytes > 0) memcpy(asked->body, call->body, call->body_bytes);
}

/* GET of a path; `sink_bytes` > 0: the body lands in a sink of entries of 3 bytes each. */
static struct asked *ask(struct scene *scene, int number, const char *path, uint64_t sink_bytes) {
  struct asked *asked = &scene->asked[number];
  struct http_request request = {.method = "GET", .target = path, .host = "peer.test"};

  wire_buffer_destroy(&asked->request);
  *asked = (struct asked){.scene = scene};
  assert_int_equal(http_request_build(&request, &asked->request), SPROUT_OK);
  for (uint32_t i = 0; i < 4 && i * 3 < sink_bytes; i++)
    asked->iov[i] =
        (struct iovec){asked->sink + i * 3, sink_bytes - i * 3 < 3 ? sink_bytes - i * 3 : 3};
  asked->call = (struct http_call){.request = asked->request.data,
                                   .request_bytes = asked->request.length_bytes,
                                   .sink = sink_bytes > 0 ? asked->iov : NULL,
                                   .sink_count = (uint32_t)((sink_bytes + 2) / 3),
                                   .sink_bytes = sink_bytes,
                                   .landed = landed,
                                   .done = done};
  http_client_call(scene->client, &asked->call);
  assert_int_equal(asked->order, 0);
  return asked;
}

static void wait_for(struct scene *scene, unsigned answered) {
  for (int i = 0; i < 20000 && scene->answered < answered; i++) step(scene);
  assert_int_equal(scene->answered, answered);
}

/* Answers "/N" with a body of N digits. */
static bool digits(struct fake_connection *connection, enum fake_route route,
                   const struct http_message *message) {
  char body[] = "0123456789";
  size_t length = (size_t)strtoul(message->path + 1, NULL, 10);

  assert_int_equal(route, FAKE_OTHER);
  fake_reply(connection, 200, "", body, length);
  return true;
}

/* Pipelined, in order, into sinks and buffers, on one connection. */
static void test_pipeline(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = digits;
  ask(scene, 0, "/5", 0);
  ask(scene, 1, "/10", 10);
  ask(scene, 2, "/0", 0);
  ask(scene, 3, "/7", 7);
  assert_int_equal(http_client_pending(scene->client), 4);
  http_client_flush(scene->client);
  wait_for(scene, 4);
  for (unsigned i = 0; i < 4; i++) {
    assert_int_equal(scene->asked[i].error.status, SPROUT_OK);
    assert_int_equal(scene->asked[i].order, i + 1);
    assert_int_equal(scene->asked[i].status_code, 200);
  }
  assert_string_equal(scene->asked[0].body, "01234");
  assert_memory_equal(scene->asked[1].sink, "0123456789", 10);
  assert_int_equal(scene->asked[1].landed, 10);
  assert_memory_equal(scene->asked[3].sink, "0123456", 7);
  assert_int_equal(scene->seed.connections_made, 1);
}

/* The server ends the connection after each answer: what was sent goes out again. */
static bool one_each(struct fake_connection *connection, enum fake_route route,
                     const struct http_message *message) {
  if (connection->cut_after != SIZE_MAX) return true; /* it will hear nothing more */
  digits(connection, route, message);
  connection->cut_after = connection->output.length_bytes;
  return true;
}

static void test_renewal(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = one_each;
  for (int i = 0; i < 4; i++) ask(scene, i, "/9", i % 2 == 0 ? 9 : 0);
  http_client_flush(scene->client);
  wait_for(scene, 4);
  for (unsigned i = 0; i < 4; i++) {
    assert_int_equal(scene->asked[i].error.status, SPROUT_OK);
    assert_int_equal(scene->asked[i].order, i + 1);
  }
  assert_int_equal(scene->seed.connections_made, 4);
}

static bool asks_to_close(struct fake_connection *connection, enum fake_route route,
                          const struct http_message *message) {
  (void)route;
  (void)message;
  fake_reply(connection, 200, "Connection: close\r\n", "x", 1);
  return true;
}

static void test_connection_close(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = asks_to_close;
  ask(scene, 0, "/1", 0);
  ask(scene, 1, "/1", 0);
  http_client_flush(scene->client);
  wait_for(scene, 2);
  assert_int_equal(scene->asked[1].error.status, SPROUT_OK);
  assert_int_equal(scene->seed.connections_made, 2);
}

/* A failure ends all calls, also later ones, until close; then the client is as new. */
static void test_failure(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = digits;
  ask(scene, 0, "/5", 0);
  ask(scene, 1, "/4", 5); /* another length than asked for */
  ask(scene, 2, "/3", 0);
  http_client_flush(scene->client);
  wait_for(scene, 3);
  assert_int_equal(scene->asked[0].error.status, SPROUT_OK);
  assert_int_equal(scene->asked[1].error.status, SPROUT_PROTOCOL);
  assert_int_equal(scene->asked[2].error.status, SPROUT_PROTOCOL);
  assert_non_null(strstr(scene->asked[1].error.message, "http://peer.test"));
  ask(scene, 3, "/3", 0);
  http_client_flush(scene->client);
  wait_for(scene, 4);
  assert_int_equal(scene->asked[3].error.status, SPROUT_PROTOCOL);
  close_client(scene);
  ask(scene, 4, "/3", 3);
  http_client_flush(scene->client);
  wait_for(scene, 5);
  assert_int_equal(scene->asked[4].error.status, SPROUT_OK);
}

static void test_body_limit(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = digits;
  ask(scene, 0, "/5", 0)->call.body_limit_bytes = 5;
  ask(scene, 1, "/6", 0)->call.body_limit_bytes = 5;
  http_client_flush(scene->client);
  wait_for(scene, 2);
  assert_int_equal(scene->asked[0].error.status, SPROUT_OK);
  assert_int_equal(scene->asked[1].error.status, SPROUT_PROTOCOL);
}

static void test_retry_after(void **state) {
  struct scene *scene = *state;

  (void)scene;
  ask(scene, 0, "/other", 3); /* 404 of the fake: the body is buffered in spite of the sink */
  http_client_flush(scene->client);
  wait_for(scene, 1);
  assert_int_equal(scene->asked[0].status_code, 404);
  assert_string_equal(scene->asked[0].body, "{}");
  assert_int_equal(scene->asked[0].landed, 0);
}

static void test_refused(void **state) {
  struct scene *scene = *state;

  fake_seed_stop(&scene->seed);
  ask(scene, 0, "/1", 0);
  http_client_flush(scene->client);
  wait_for(scene, 1);
  assert_int_equal(scene->asked[0].error.status, SPROUT_DISCONNECTED);
  assert_int_equal(scene->asked[0].error.native, ECONNREFUSED);
}

/* Close gives everything back with the status that it was given, in every phase. */
static void test_close(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = digits;
  for (int steps = 0; steps < 8; steps++) {
    unsigned before = scene->answered;
    for (int i = 0; i < CALLS; i++) ask(scene, i, "/9", i % 2 == 0 ? 9 : 0);
    http_client_flush(scene->client);
    for (int i = 0; i < steps; i++) step(scene);
    close_client(scene);
    assert_int_equal(scene->answered, before + CALLS);
    for (int i = 0; i < CALLS; i++)
      assert_true(scene->asked[i].error.status == SPROUT_OK ||
                  scene->asked[i].error.status == SPROUT_CANCELLED);
  }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_pipeline), TEST(test_renewal),    TEST(test_connection_close),
      TEST(test_failure),  TEST(test_body_limit), TEST(test_retry_after),
      TEST(test_refused),  TEST(test_close),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
