/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/source_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define STEPS_MAX 200000
#define GUARD 0xa5

static struct source_driver *driver_of(struct source *source) {
  return source->listener_context;
}

/* --- listener --- */

static struct source_driver *heard(struct source *source) {
  struct source_driver *driver = driver_of(source);

  assert_true(driver->connected && !driver->closed && !driver->failed);
  return driver;
}

static void on_manifest(struct source *source, struct manifest *manifest) {
  struct source_driver *driver = heard(source);

  assert_false(driver->got_manifest);
  driver->got_manifest = true;
  driver->manifest = manifest;
}

static void on_queued(struct source *source, uint32_t position) {
  struct source_driver *driver = heard(source);

  assert_true(driver->got_manifest && !driver->ready);
  driver->queued++;
  driver->position = position;
}

static void on_ready(struct source *source, const struct source_grant *grant) {
  struct source_driver *driver = heard(source);

  assert_true(driver->got_manifest && !driver->ready);
  driver->ready = true;
  driver->grant = *grant;
}

static void on_granted(struct source *source, const struct source_grant *grant) {
  struct source_driver *driver = heard(source);

  assert_true(driver->ready);
  driver->granted++;
  driver->grant = *grant;
}

static void on_digests(struct source *source, uint64_t first, uint64_t count,
                       const struct digest *values, const bool *known) {
  struct source_driver *driver = heard(source);

  assert_true(driver->got_manifest);
  for (uint64_t i = 0; i < count; i++) {
    driver->digests++;
    driver->digests_known += known[i];
    if (known[i] && first + i < 256) driver->values[first + i] = values[i];
  }
}

static void expect_no_read_left(const struct source_driver *driver) {
  for (uint32_t i = 0; i < driver->read_count; i++)
    assert_true(!driver->reads[i].posted || driver->reads[i].done);
}

static void on_failed(struct source *source, const struct sprout_error *error) {
  struct source_driver *driver = heard(source);

  assert_int_not_equal(error->status, SPROUT_OK);
  assert_true(error->message[0] != '\0');
  expect_no_read_left(driver);
  driver->failed = true;
  driver->error = *error;
}

static void on_closed(struct source *source) {
  struct source_driver *driver = driver_of(source);

  assert_true(driver->closing && !driver->closed);
  expect_no_read_left(driver);
  driver->closed = true;
}

static const struct source_listener listener = {.manifest = on_manifest,
                                                .queued = on_queued,
                                                .ready = on_ready,
                                                .granted = on_granted,
                                                .digests = on_digests,
                                                .failed = on_failed,
                                                .closed = on_closed};

/* --- life --- */

void source_driver_init(struct source_driver *driver) {
  const struct reactor_options options = {.workers = 2};
  struct sprout_error error;

  *driver = (struct source_driver){.read_count = 0};
  assert_int_equal(reactor_create(&options, &driver->reactor, &error), SPROUT_OK);
}

void source_driver_set(struct source_driver *driver, struct source *source) {
  driver->source = source;
  source->listener = &listener;
  source->listener_context = driver;
}

void source_driver_end(struct source_driver *driver) {
  reactor_leave(driver->reactor);
  reactor_destroy(driver->reactor);
}

void source_driver_step(struct source_driver *driver) {
  if (driver->tick != NULL) driver->tick(driver->tick_context);
  reactor_tick(driver->reactor, 1000000);
}

bool source_driver_until(struct source_driver *driver, const bool *flag) {
  for (int i = 0; i < STEPS_MAX && !*flag && !driver->failed; i++) source_driver_step(driver);
  assert_true(*flag || driver->failed);
  return *flag;
}

void source_driver_connect(struct source_driver *driver) {
  driver->connected = true;
  driver->got_manifest = driver->ready = driver->failed = driver->closing = driver->closed = false;
  driver->queued = driver->granted = 0;
  driver->digests = driver->digests_known = 0;
  driver->source->ops->connect(driver->source);
  assert_false(driver->got_manifest || driver->failed);
}

void source_driver_open(struct source_driver *driver) {
  driver->source->ops->open(driver->source);
  assert_false(driver->ready);
}

bool source_driver_ready(struct source_driver *driver) {
  source_driver_connect(driver);
  if (!source_driver_until(driver, &driver->got_manifest)) return false;
  source_driver_open(driver);
  return source_driver_until(driver, &driver->ready);
}

/* --- reads --- */

/* In order, inside the next entry, and right at the moment when it is reported. */
static void on_landed(struct source_read *read, const void *data, uint64_t length_bytes) {
  struct driven_read *mine = container_of(read, struct driven_read, read);
  uint64_t before = 0, at = mine->landed;
  uint32_t entry = 0, range = 0;

  assert_true(mine->posted && !mine->done && length_bytes > 0);
  while (before + mine->iov[entry].iov_len <= at) before += mine->iov[entry++].iov_len;
  assert_ptr_equal(data, (unsigned char *)mine->iov[entry].iov_base + (at - before));
  assert_true(at - before + length_bytes <= mine->iov[entry].iov_len);
  before = 0;
  for (uint64_t i = 0; i < length_bytes; i++) {
    while (at + i - before >= mine->ranges[range].length_bytes)
      before += mine->ranges[range++].length_bytes;
    unsigned char right = mine->driver->byte(mine->driver->tick_context, mine->ranges[range].object,
                                             mine->ranges[range].offset + (at + i - before));
    if (((const unsigned char *)data)[i] != right) fail_msg("byte %zu differs", (size_t)(at + i));
  }
  mine->landed += length_bytes;
}

static void on_done(struct source_read *read, enum sprout_status status) {
  struct driven_read *mine = container_of(read, struct driven_read, read);

  assert_true(mine->posted && !mine->done && !mine->driver->closed);
  mine->done = true;
  mine->status = status;
  if (status == SPROUT_OK) assert_int_equal(mine->landed, read->length_bytes);
  /* Whatever lands from now on is found by source_driver_close. */
  if (status != SPROUT_OK) memset(mine->memory, GUARD, read->length_bytes);
}

struct driven_read *source_driver_new_read(struct source_driver *driver) {
  assert_true(driver->read_count < SOURCE_DRIVER_READS);
  return &driver->reads[driver->read_count++];
}

void source_driver_post_ranges(struct source_driver *driver, struct driven_read *read,
                               uint32_t count, size_t piece, bool aliased) {
  uint64_t total = 0;

  read->driver = driver;
  read->read = (struct source_read){.ranges = read->ranges,
                                    .range_count = count,
                                    .iov = read->iov,
                                    .landed = on_landed,
                                    .done = on_done};
  list_init(&read->read.node);
  for (uint32_t i = 0; i < count; i++) total += read->ranges[i].length_bytes;
  read->read.length_bytes = total;
  read->memory = malloc(total + 1);
  assert_non_null(read->memory);
  memset(read->memory, GUARD, total);
  for (uint64_t used = 0; used < total; used += piece) {
    assert_true(read->read.iov_count < 64);
    read->iov[read->read.iov_count++] =
        (struct iovec){.iov_base = read->memory + (aliased ? 0 : used),
                       .iov_len = total - used < piece ? (size_t)(total - used) : piece};
  }
  read->landed = 0;
  read->done = false;
  read->posted = true;
  driver->source->ops->post(driver->source, &read->read);
  assert_false(read->done);
}

struct driven_read *source_driver_post(struct source_driver *driver, uint32_t object,
                                       uint64_t offset, uint64_t length, size_t piece,
                                       bool aliased) {
  struct driven_read *read = source_driver_new_read(driver);

  read->ranges[0] =
      (struct source_range){.object = object, .offset = offset, .length_bytes = length};
  source_driver_post_ranges(driver, read, 1, piece, aliased);
  return read;
}

void source_driver_flush(struct source_driver *driver) {
  driver->source->ops->flush(driver->source);
}

void source_driver_finish_reads(struct source_driver *driver) {
  for (uint32_t i = 0; i < driver->read_count; i++)
    for (int j = 0; j < STEPS_MAX && !driver->reads[i].done; j++) source_driver_step(driver);
  expect_no_read_left(driver);
}

void source_driver_expect(const struct driven_read *read) {
  assert_true(read->done);
  assert_int_equal(read->status, SPROUT_OK);
}

void source_driver_close(struct source_driver *driver, enum sprout_status result,
                         const char *reason) {
  if (driver->connected) {
    driver->closing = true;
    driver->source->ops->close(driver->source, result, reason);
    assert_false(driver->closed);
    for (int i = 0; i < STEPS_MAX && !driver->closed; i++) source_driver_step(driver);
    assert_true(driver->closed);
    for (int i = 0; i < 2; i++) source_driver_step(driver);
  }
  for (uint32_t i = 0; i < driver->read_count; i++) {
    struct driven_read *read = &driver->reads[i];
    for (uint64_t j = 0; read->posted && read->status != SPROUT_OK && j < read->read.length_bytes;
         j++)
      assert_int_equal(read->memory[j], GUARD); /* nothing landed late */
    free(read->memory);
    *read = (struct driven_read){.posted = false};
  }
  driver->read_count = 0;
  manifest_destroy(driver->manifest);
  driver->manifest = NULL;
  driver->connected = false;
}

void source_driver_unset(struct source_driver *driver) {
  source_driver_close(driver, SPROUT_CANCELLED, "the test is over");
  driver->source->ops->destroy(driver->source);
  driver->source = NULL;
}
