/* SPDX-License-Identifier: Apache-2.0 */
#include "core/limits.h"
#include "net/sources.h"
#include "tests/support/fake_seed.h"
#include "tests/support/source_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIG_BYTES (SPROUT_CHUNK_BYTES + 1000u)
#define SMALL_BYTES 300u
#define GENERATION 7u

/* big.bin, small.bin, empty.bin */
static struct manifest *make_manifest(void) {
  const struct {
    const char *name;
    uint64_t length;
  } rows[] = {{"big.bin", BIG_BYTES}, {"small.bin", SMALL_BYTES}, {"empty.bin", 0}};
  struct manifest_version version = {.generation = GENERATION, .label = "step-1"};
  struct manifest_builder *builder = NULL;
  struct manifest *manifest = NULL;
  struct sprout_error error;

  assert_int_equal(manifest_builder_create(&builder), SPROUT_OK);
  manifest_builder_version(builder, &version);
  for (size_t i = 0; i < 3; i++) {
    struct manifest_object object = {.name = rows[i].name,
                                     .dtype = "",
                                     .kind = SPROUT_OBJECT_BLOB,
                                     .alias_of = MANIFEST_NONE,
                                     .length_bytes = rows[i].length};
    assert_int_equal(manifest_builder_file(builder, rows[i].name, rows[i].length, false),
                     SPROUT_OK);
    assert_int_equal(manifest_builder_object(builder, &object, true), SPROUT_OK);
  }
  if (manifest_build(builder, &manifest, &error) != SPROUT_OK) fail_msg("%s", error.message);
  return manifest;
}

struct scene {
  struct manifest *manifest;
  struct fake_seed seed;
  struct source_driver driver;
  struct remote_source_options options;
};

static void tick_seed(void *context) {
  fake_seed_tick(&((struct scene *)context)->seed);
}

static unsigned char byte_of(void *context, uint32_t object, uint64_t offset) {
  return fake_byte(&((struct scene *)context)->seed, object, offset);
}

static int set_up(void **state) {
  struct scene *scene = calloc(1, sizeof(*scene));

  assert_non_null(scene);
  scene->manifest = make_manifest();
  fake_seed_init(&scene->seed, scene->manifest);
  source_driver_init(&scene->driver);
  scene->seed.context = scene;
  scene->driver.tick = tick_seed;
  scene->driver.tick_context = scene;
  scene->driver.byte = byte_of;
  scene->options = (struct remote_source_options){.url = "http://seed.test:1",
                                                  .host = "seed.test:1",
                                                  .address = scene->seed.address,
                                                  .token = "secret-token",
                                                  .connections = 1};
  *state = scene;
  return 0;
}

static int tear_down(void **state) {
  struct scene *scene = *state;

  source_driver_end(&scene->driver);
  fake_seed_end(&scene->seed);
  manifest_destroy(scene->manifest);
  free(scene);
  return 0;
}

static void open_source(struct scene *scene) {
  struct source *source = NULL;

  assert_int_equal(remote_source_create(scene->driver.reactor, &scene->options, &source),
                   SPROUT_OK);
  source_driver_set(&scene->driver, source);
}

/* Everything that a fork does, once; goes as far as the source lives. */
static void run_script(struct scene *scene) {
  struct source_driver *driver = &scene->driver;

  if (!source_driver_ready(driver)) return;
  source_driver_post(driver, 1, 0, SMALL_BYTES, 100, false);
  source_driver_post(driver, 1, 10, 40, 64, false);
  source_driver_flush(driver);
  source_driver_finish_reads(driver);
  if (driver->failed) return;
  driver->source->ops->request_digests(driver->source, 0, 3, true);
  for (int i = 0; i < 100000 && driver->digests < 3 && !driver->failed; i++)
    source_driver_step(driver);
}

/* --- a good seed --- */

static void test_whole_life(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;
  struct driven_read *reads[4];

  open_source(scene);
  assert_true(source_driver_ready(driver));
  assert_string_equal(driver->manifest->id, scene->manifest->id);
  assert_int_equal(driver->grant.generation, GENERATION);
  assert_int_equal(driver->grant.window.operations, 16);
  reads[0] = source_driver_post(driver, 0, 0, SPROUT_CHUNK_BYTES, DESTINATION_PIECE_BYTES, false);
  reads[1] = source_driver_post(driver, 0, SPROUT_CHUNK_BYTES, 1000, 1000, false);
  reads[2] = source_driver_post(driver, 0, 5, 1000000, DESTINATION_PIECE_BYTES, true);
  reads[3] = source_driver_new_read(driver);
  reads[3]->ranges[0] = (struct source_range){.object = 1, .offset = 7, .length_bytes = 20};
  reads[3]->ranges[1] = (struct source_range){.object = 0, .offset = 9, .length_bytes = 1};
  reads[3]->ranges[2] = (struct source_range){.object = 1, .offset = 0, .length_bytes = 100};
  source_driver_post_ranges(driver, reads[3], 3, 50, false);
  source_driver_flush(driver);
  source_driver_finish_reads(driver);
  for (int i = 0; i < 4; i++) source_driver_expect(reads[i]);
  driver->source->ops->report(driver->source, 1234, 5678);
  source_driver_close(driver, SPROUT_OK, "all is there");
  assert_int_equal(scene->seed.closed.result, SPROUT_OK);
  assert_string_equal(scene->seed.closed.reason, "all is there");
  assert_int_equal(scene->seed.requests[FAKE_READ], 4);
  assert_true(scene->seed.connections_made <= 3);
  assert_true(source_driver_ready(driver)); /* a second life of the same source */
  source_driver_unset(driver);
}

static void test_digests(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  open_source(scene);
  scene->seed.digests_unknown = true;
  source_driver_connect(driver);
  assert_true(source_driver_until(driver, &driver->got_manifest));
  driver->source->ops->request_digests(driver->source, 0, 3, false);
  for (int i = 0; i < 1000 && driver->digests < 3; i++) source_driver_step(driver);
  assert_int_equal(driver->digests, 3);
  assert_int_equal(driver->digests_known, 0);
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS - 1; i++)
    driver->source->ops->request_digests(driver->source, i, 1, true);
  for (int i = 0; i < 1000 && driver->digests < 6; i++) source_driver_step(driver);
  assert_int_equal(driver->digests_known, 3);
  for (uint64_t i = 0; i < 3; i++) {
    struct digest right = fake_digest(&scene->seed, i);
    assert_true(digest_equal(&right, &driver->values[i]));
  }
  source_driver_unset(driver);
}

static void test_queue(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->seed.queue_position = 3;
  scene->seed.heartbeat_ns = 1000000;
  open_source(scene);
  source_driver_connect(driver);
  assert_true(source_driver_until(driver, &driver->got_manifest));
  source_driver_open(driver);
  for (int i = 0; i < 100000 && driver->queued < 2; i++) source_driver_step(driver);
  assert_int_equal(driver->position, 3);
  assert_false(driver->ready);
  scene->seed.queue_position = 0;
  assert_true(source_driver_until(driver, &driver->ready));
  source_driver_unset(driver);
  assert_int_equal(scene->seed.requests[FAKE_CLOSE], 1);
}

static void test_several_connections(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->options.connections = 4;
  scene->seed.lease_ns = scene->seed.heartbeat_ns = 600000000000u; /* also on a slow machine */
  open_source(scene);
  assert_true(source_driver_ready(driver));
  for (uint64_t i = 0; i < 16; i++)
    source_driver_post(driver, 0, i * 1000, 200000, DESTINATION_PIECE_BYTES, true);
  source_driver_flush(driver);
  source_driver_finish_reads(driver);
  for (uint32_t i = 0; i < driver->read_count; i++) source_driver_expect(&driver->reads[i]);
  assert_int_equal(scene->seed.connections_made, 5); /* four, and the one for control */
  source_driver_unset(driver);
}

/* More reads than the source has slots for at the seed: all are served. */
static void test_heartbeat_reports(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->seed.heartbeat_ns = 1000000;
  open_source(scene);
  assert_true(source_driver_ready(driver));
  driver->source->ops->report(driver->source, 1234, 5678);
  for (int i = 0; i < 100000 && scene->seed.beat.received_bytes == 0; i++)
    source_driver_step(driver);
  assert_int_equal(scene->seed.beat.received_bytes, 1234);
  assert_int_equal(scene->seed.beat.total_bytes, 5678);
  source_driver_unset(driver);
}

/* --- seeds that break off --- */

static enum fake_route cut_route;
static size_t cut_bytes;
static bool cut_reset, cut_done;

static bool cut(struct fake_connection *connection, enum fake_route route,
                const struct http_message *message) {
  (void)message;
  if (route != cut_route || cut_done) return false;
  cut_done = true;
  connection->cut_after = connection->output.length_bytes + cut_bytes;
  connection->reset = cut_reset;
  return false;
}

/* The answer ends after each number of bytes, by close and by reset. */
static void end_early(struct scene *scene, enum fake_route route, size_t up_to, size_t step) {
  scene->seed.mischief = cut;
  cut_route = route;
  for (size_t bytes = 0; bytes < up_to; bytes += step) {
    cut_bytes = bytes;
    cut_reset = bytes % 3 == 1;
    cut_done = false;
    open_source(scene);
    run_script(scene);
    assert_true(scene->driver.failed);
    assert_int_equal(scene->driver.error.status, SPROUT_DISCONNECTED);
    assert_true(scene->driver.error.message[0] != 0); /* the engine names the source */
    source_driver_unset(&scene->driver);
    scene->seed.mischief = cut;
  }
}

static void test_early_close_of_reads(void **state) {
  /* two answers of 300 and 40 bytes with their heads; between them the connection may be renewed */
  end_early(*state, FAKE_READ, 300, 1);
}

static void test_early_close_of_manifest(void **state) {
  end_early(*state, FAKE_MANIFEST, 200, 1);
}

static void test_early_close_of_open(void **state) {
  struct scene *scene = *state;
  /* On a connection that has answered before, an end before the first byte is an idle time-out:
   * the request goes out again. */
  scene->seed.mischief = cut;
  cut_route = FAKE_OPEN;
  for (cut_bytes = 0; cut_bytes < 150; cut_bytes++) {
    cut_done = false;
    cut_reset = false;
    open_source(scene);
    run_script(scene);
    assert_int_equal(scene->driver.failed, cut_bytes > 0);
    source_driver_unset(&scene->driver);
  }
}

static void test_stopped_seed(void **state) {
  struct scene *scene = *state;

  open_source(scene);
  fake_seed_stop(&scene->seed);
  source_driver_connect(&scene->driver);
  assert_false(source_driver_until(&scene->driver, &scene->driver.got_manifest));
  assert_int_equal(scene->driver.error.status, SPROUT_DISCONNECTED);
  source_driver_unset(&scene->driver);
}

/* --- seeds that answer something else --- */

struct answer_row {
  const char *name;
  enum fake_route route;
  const char *bytes;         /* raw, or the body of an answer with `code` */
  enum sprout_status status; /* of the read, or of the source */
  int code;
};

static const struct answer_row *present_row;

static bool say_row(struct fake_connection *connection, enum fake_route route,
                    const struct http_message *message) {
  (void)message;
  if (route != present_row->route) return false;
  if (present_row->code != 0)
    fake_reply(connection, present_row->code, "", present_row->bytes, strlen(present_row->bytes));
  else
    fake_say(connection, present_row->bytes, strlen(present_row->bytes));
  return true;
}

#define LONG_64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LONG_512 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64 LONG_64
#define LONG_4K LONG_512 LONG_512 LONG_512 LONG_512 LONG_512 LONG_512 LONG_512 LONG_512
#define JSON(code) "{\"error\":{\"code\":\"" code "\",\"message\":\"m\",\"hint\":\"h\"}}"

static void expect_row(struct scene *scene, const struct answer_row *row) {
  struct source_driver *driver = &scene->driver;

  present_row = row;
  scene->seed.mischief = say_row;
  open_source(scene);
  run_script(scene);
  enum sprout_status status = driver->failed ? driver->error.status : SPROUT_OK;
  if (row->route == FAKE_READ && driver->read_count > 0 && !driver->failed)
    status = driver->reads[0].status;
  if (status != row->status)
    fail_msg("%s: %s instead of %s (%s)", row->name, sprout_status_info_of(status)->name,
             sprout_status_info_of(row->status)->name, driver->error.message);
  if (driver->failed) assert_true(driver->error.message[0] != 0);
  source_driver_unset(driver);
}

static void test_other_answers(void **state) {
  static const struct answer_row rows[] = {
      {"short", FAKE_READ, "HTTP/1.1 200 X\r\nContent-Length: 299\r\n\r\n", SPROUT_PROTOCOL, 0},
      {"long", FAKE_READ, "HTTP/1.1 200 X\r\nContent-Length: 301\r\n\r\n", SPROUT_PROTOCOL, 0},
      {"huge", FAKE_READ, "HTTP/1.1 200 X\r\nContent-Length: 18446744073709551615\r\n\r\n",
       SPROUT_PROTOCOL, 0},
      {"no length", FAKE_READ, "HTTP/1.1 200 X\r\n\r\n", SPROUT_PROTOCOL, 0},
      {"chunked", FAKE_READ,
       "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
       SPROUT_PROTOCOL, 0},
      {"redirect", FAKE_READ,
       "HTTP/1.1 302 X\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n", SPROUT_PROTOCOL,
       0},
      {"partial", FAKE_READ, "HTTP/1.1 206 X\r\nContent-Length: 2\r\n\r\nhi", SPROUT_PROTOCOL, 0},
      {"empty", FAKE_READ, "HTTP/1.1 204 X\r\n\r\n", SPROUT_PROTOCOL, 0},
      {"garbage", FAKE_READ, "SSH-2.0-OpenSSH_9.2\r\n\r\n", SPROUT_PROTOCOL, 0},
      {"endless head", FAKE_READ,
       "HTTP/1.1 200 X\r\nX-A: " LONG_4K LONG_4K LONG_4K LONG_4K LONG_4K "\r\n\r\n",
       SPROUT_TOO_LARGE, 0},
      {"huge error", FAKE_READ, "HTTP/1.1 500 X\r\nContent-Length: 99999999999\r\n\r\n",
       SPROUT_PROTOCOL, 0},
      {"stale", FAKE_READ, JSON("stale"), SPROUT_STALE, 409},
      {"gone", FAKE_READ, JSON("gone"), SPROUT_GONE, 410},
      {"early", FAKE_READ, JSON("too_early"), SPROUT_TOO_EARLY, 425},
      {"over", FAKE_READ, JSON("over_window"), SPROUT_OVER_WINDOW, 429},
      {"denied manifest", FAKE_MANIFEST, JSON("denied"), SPROUT_DENIED, 401},
      {"missing model", FAKE_MANIFEST, JSON("not_found"), SPROUT_MISMATCH, 404},
      {"another server", FAKE_MANIFEST, "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n",
       SPROUT_NOT_FOUND, 404},
      {"empty manifest", FAKE_MANIFEST, "HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n",
       SPROUT_PROTOCOL, 0},
      {"wrong manifest", FAKE_MANIFEST, "HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nhello",
       SPROUT_PROTOCOL, 0},
      {"manifest without length", FAKE_MANIFEST, "HTTP/1.1 200 X\r\n\r\nhello", SPROUT_PROTOCOL, 0},
      {"huge manifest", FAKE_MANIFEST, "HTTP/1.1 200 X\r\nContent-Length: 999999999999\r\n\r\n",
       SPROUT_PROTOCOL, 0},
      {"draining", FAKE_OPEN, JSON("unavailable"), SPROUT_UNAVAILABLE, 503},
      {"wrong open", FAKE_OPEN, "HTTP/1.1 201 X\r\nContent-Length: 1\r\n\r\n\xc0", SPROUT_PROTOCOL,
       0},
      {"empty open", FAKE_OPEN, "HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n", SPROUT_PROTOCOL, 0},
      {"wrong digests", FAKE_DIGESTS, "HTTP/1.1 200 X\r\nContent-Length: 1\r\n\r\n\xc0",
       SPROUT_PROTOCOL, 0},
  };

  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) expect_row(*state, &rows[i]);
}

/* Digests of chunks that nobody asked for. */
static bool other_digests(struct fake_connection *connection, enum fake_route route,
                          const struct http_message *message) {
  struct digest values[3] = {{{1}}};
  bool known[3] = {true, true, true};
  struct wire_digests answer = {.first = 1, .count = 3, .values = values, .known = known};
  struct wire_buffer body = {0};

  (void)message;
  if (route != FAKE_DIGESTS) return false;
  assert_int_equal(wire_digests_encode(&answer, &body), SPROUT_OK);
  fake_reply(connection, 200, "", body.data, body.length_bytes);
  wire_buffer_destroy(&body);
  return true;
}

static void test_other_digests(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = other_digests;
  open_source(scene);
  run_script(scene);
  assert_true(scene->driver.failed);
  assert_int_equal(scene->driver.error.status, SPROUT_PROTOCOL);
  assert_int_equal(scene->driver.digests, 0);
  source_driver_unset(&scene->driver);
}

/* Digests of the chunks that were asked for, but of the seed's next bytes. */
static bool later_digests(struct fake_connection *connection, enum fake_route route,
                          const struct http_message *message) {
  struct digest values[3] = {{{1}}};
  bool known[3] = {true, true, true};
  struct wire_digests answer = {
      .count = 3, .values = values, .known = known, .generation = GENERATION + 1};
  struct wire_buffer body = {0};

  (void)message;
  if (route != FAKE_DIGESTS) return false;
  assert_int_equal(wire_digests_encode(&answer, &body), SPROUT_OK);
  fake_reply(connection, 200, "", body.data, body.length_bytes);
  wire_buffer_destroy(&body);
  return true;
}

static void test_digests_of_another_generation(void **state) {
  struct scene *scene = *state;

  scene->seed.mischief = later_digests;
  open_source(scene);
  run_script(scene);
  assert_true(scene->driver.failed);
  assert_int_equal(scene->driver.error.status, SPROUT_STALE);
  assert_int_equal(scene->driver.digests, 0);
  source_driver_unset(&scene->driver);
}

/* --- generations and leases --- */

/* A heartbeat told of a new generation: reads of this life still ask for the old one. */
static void test_generation(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->seed.heartbeat_ns = 1000000;
  open_source(scene);
  assert_true(source_driver_ready(driver));
  scene->seed.generation++;
  for (int i = 0; i < 100000 && driver->granted == 0; i++) source_driver_step(driver);
  assert_int_equal(driver->grant.generation, GENERATION + 1);
  source_driver_post(driver, 1, 0, SMALL_BYTES, SMALL_BYTES, false);
  source_driver_flush(driver);
  source_driver_finish_reads(driver);
  assert_int_equal(driver->reads[0].status, SPROUT_STALE);
  source_driver_unset(driver);
}

static bool beats_swallowed;

static bool swallow_beats(struct fake_connection *connection, enum fake_route route,
                          const struct http_message *message) {
  if (route != FAKE_BEAT || !beats_swallowed) return false;
  (void)connection;
  (void)message;
  return true;
}

/* Nothing is posted later than 0.8 lease after the last good heartbeat was sent. */
static void test_lease(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->seed.mischief = swallow_beats;
  scene->seed.heartbeat_ns = 20000000;
  scene->seed.lease_ns = 100000000;
  beats_swallowed = true;
  open_source(scene);
  assert_true(source_driver_ready(driver));
  uint64_t ready_ns = reactor_now(driver->reactor);
  while (reactor_now(driver->reactor) < ready_ns + 80000000) source_driver_step(driver);
  source_driver_post(driver, 1, 0, SMALL_BYTES, SMALL_BYTES, false);
  source_driver_flush(driver);
  for (int i = 0; i < 20; i++) source_driver_step(driver);
  assert_int_equal(scene->seed.requests[FAKE_READ], 0);
  assert_false(driver->reads[0].done);
  source_driver_unset(driver); /* gives it back */
}

/* The answer to a heartbeat lets reads go that waited for it. */
static void test_lease_renewed(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->seed.heartbeat_ns = 60000000;
  scene->seed.lease_ns = 40000000;
  open_source(scene);
  assert_true(source_driver_ready(driver));
  uint64_t ready_ns = reactor_now(driver->reactor);
  while (reactor_now(driver->reactor) < ready_ns + 35000000) source_driver_step(driver);
  source_driver_post(driver, 1, 0, SMALL_BYTES, SMALL_BYTES, false);
  source_driver_flush(driver);
  source_driver_step(driver);
  source_driver_finish_reads(driver);
  source_driver_expect(&driver->reads[0]);
  source_driver_unset(driver);
}

static bool lease_over(struct fake_connection *connection, enum fake_route route,
                       const struct http_message *message) {
  (void)message;
  if (route != FAKE_BEAT) return false;
  fake_reply(connection, 410, "", JSON("gone"), strlen(JSON("gone")));
  return true;
}

static void test_lease_gone(void **state) {
  struct scene *scene = *state;
  bool never = false;

  scene->seed.mischief = lease_over;
  scene->seed.heartbeat_ns = 1000000;
  open_source(scene);
  assert_true(source_driver_ready(&scene->driver));
  assert_false(source_driver_until(&scene->driver, &never));
  assert_int_equal(scene->driver.error.status, SPROUT_GONE);
  source_driver_unset(&scene->driver);
}

/* --- closing --- */

/* In every moment of a life. */
static void test_close_anywhere(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  for (int steps = 0; steps < 60; steps++) {
    open_source(scene);
    source_driver_connect(driver);
    for (int i = 0; i < steps; i++) {
      bool known = driver->got_manifest, ready = driver->ready;
      source_driver_step(driver);
      if (!known && driver->got_manifest) source_driver_open(driver);
      if (ready || !driver->ready) continue;
      for (uint64_t j = 0; j < 8; j++)
        source_driver_post(driver, 0, j, 100000, DESTINATION_PIECE_BYTES, false);
      source_driver_flush(driver);
      driver->source->ops->request_digests(driver->source, 0, 3, false);
    }
    source_driver_unset(driver);
  }
}

static bool stand_still(struct fake_connection *connection, enum fake_route route,
                        const struct http_message *message) {
  (void)message;
  if (route != FAKE_READ) return false;
  for (int i = 0; i < FAKE_CONNECTIONS; i++) connection->seed->connections[i].paused = true;
  return true;
}

/* A seed that stands still holds nobody up, and what it says later lands nowhere. */
static void test_close_of_stopped_seed(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->seed.mischief = stand_still;
  open_source(scene);
  assert_true(source_driver_ready(driver));
  source_driver_post(driver, 0, 0, 1000000, DESTINATION_PIECE_BYTES, false);
  source_driver_flush(driver);
  while (scene->seed.requests[FAKE_READ] == 0) source_driver_step(driver);
  uint64_t begin_ns = reactor_now(driver->reactor);
  source_driver_close(driver, SPROUT_STALLED, "it stands still");
  assert_true(reactor_now(driver->reactor) - begin_ns < 1000000000ull);
  source_driver_unset(driver);
}

static bool full_queue(struct fake_connection *connection, enum fake_route route,
                       const struct http_message *message) {
  (void)message;
  if (route != FAKE_OPEN) return false;
  fake_reply(connection, 429, "Retry-After: 1\r\n", JSON("busy"), strlen(JSON("busy")));
  return true;
}

static void test_full_queue(void **state) {
  struct scene *scene = *state;
  struct source_driver *driver = &scene->driver;

  scene->seed.mischief = full_queue;
  open_source(scene);
  source_driver_connect(driver);
  assert_true(source_driver_until(driver, &driver->got_manifest));
  source_driver_open(driver);
  for (int i = 0; i < 10000 && driver->queued == 0 && !driver->failed; i++)
    source_driver_step(driver);
  assert_true(driver->failed ? driver->error.status == SPROUT_BUSY : driver->queued == 1);
  source_driver_unset(driver);
}

/* --- faults --- */

#ifdef SPROUT_FAULTS
struct fault {
  uint64_t at; /* the n-th completion from now on */
  int32_t result;
  uint64_t seen;
  bool hit;
};

static int32_t inject(void *context, uint64_t number, const struct ring_op *op, int32_t result) {
  struct fault *fault = context;

  (void)number;
  if (op->kind == RING_READ || fault->seen++ != fault->at) return result; /* the reactor's own */
  fault->hit = true;
  return fault->result;
}

/* Each completion in turn fails: the source fails or goes on, and closes cleanly. */
static void test_completion_faults(void **state) {
  struct scene *scene = *state;
  static const int32_t results[] = {-ECONNRESET, -ENOBUFS, 0};

  for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
    bool hit = true;
    for (uint64_t at = 0; hit && at < 500; at++) {
      struct fault fault = {.at = at, .result = results[i]};
      open_source(scene);
      ring_fault_set(reactor_ring(scene->driver.reactor), inject, &fault);
      run_script(scene);
      hit = fault.hit;
      source_driver_close(&scene->driver, SPROUT_CANCELLED, "over");
      ring_fault_set(reactor_ring(scene->driver.reactor), NULL, NULL);
      source_driver_unset(&scene->driver);
    }
    assert_false(hit); /* the whole script was covered */
  }
}

/* Every receive and send is short; the ring reads the wish when it is made. */
static void test_short_completions(void **state) {
  static const char *const wishes[] = {"SHORT:1", "SHORT:7", "SHORT:1000"};

  for (size_t i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
    void *inner = NULL;
    assert_int_equal(setenv("SPROUT_FAULT_RING", wishes[i], 1), 0);
    set_up(&inner);
    assert_int_equal(unsetenv("SPROUT_FAULT_RING"), 0);
    struct scene *scene = inner;
    open_source(scene);
    run_script(scene);
    assert_false(scene->driver.failed);
    source_driver_expect(&scene->driver.reads[0]);
    source_driver_expect(&scene->driver.reads[1]);
    source_driver_unset(&scene->driver);
    tear_down(&inner);
  }
  (void)state;
}
#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_whole_life),
      TEST(test_digests),
      TEST(test_queue),
      TEST(test_several_connections),
      TEST(test_heartbeat_reports),
      TEST(test_early_close_of_reads),
      TEST(test_early_close_of_manifest),
      TEST(test_early_close_of_open),
      TEST(test_stopped_seed),
      TEST(test_other_answers),
      TEST(test_other_digests),
      TEST(test_digests_of_another_generation),
      TEST(test_generation),
      TEST(test_lease),
      TEST(test_lease_renewed),
      TEST(test_lease_gone),
      TEST(test_close_anywhere),
      TEST(test_close_of_stopped_seed),
      TEST(test_full_queue),
#ifdef SPROUT_FAULTS
      TEST(test_completion_faults),
      TEST(test_short_completions),
#endif
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
