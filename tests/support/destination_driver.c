/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/destination_driver.h"

/* cmocka.h needs these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define TICKS_MAX 100000

static struct driver *driver_of(struct destination *destination) {
  return destination->listener_context;
}

unsigned char driver_byte(const struct driver *driver, uint32_t object, uint64_t offset) {
  return (unsigned char)(offset * 31 + (offset >> 12) * 7 + object * 101 + driver->salt + 1);
}

static struct digest digest_of_chunk(const struct driver *driver, uint64_t chunk) {
  struct manifest_chunk place = manifest_chunk_at(driver->manifest, chunk);
  unsigned char *bytes = malloc(place.length_bytes);
  struct digest digest;

  assert_non_null(bytes);
  for (uint32_t i = 0; i < place.length_bytes; i++)
    bytes[i] = driver_byte(driver, place.object, place.offset + i);
  digest = digest_of(bytes, place.length_bytes);
  free(bytes);
  return digest;
}

static void existing(struct destination *destination, uint64_t chunk, const struct digest *digest) {
  struct driver *driver = driver_of(destination);
  struct digest right = digest_of_chunk(driver, chunk);

  assert_false(driver->prepared || driver->aborted);
  driver->existing++;
  driver->existing_right += digest_equal(digest, &right);
}

static void prepared(struct destination *destination, const struct sprout_error *error) {
  struct driver *driver = driver_of(destination);

  assert_false(driver->prepared || driver->aborted);
  driver->prepared = true;
  driver->error = *error;
}

static void room(struct destination *destination) {
  driver_of(destination)->rooms++;
}

static void finished(struct destination *destination, const struct sprout_error *error) {
  struct driver *driver = driver_of(destination);

  assert_false(driver->finished || driver->aborted);
  driver->finished = true;
  driver->error = *error;
}

static void aborted(struct destination *destination) {
  struct driver *driver = driver_of(destination);

  assert_false(driver->aborted);
  driver->aborted = true;
}

static const struct destination_listener listener = {.existing = existing,
                                                     .prepared = prepared,
                                                     .room = room,
                                                     .finished = finished,
                                                     .aborted = aborted};

static void wait_for(struct driver *driver, const bool *flag) {
  for (int i = 0; i < TICKS_MAX && !*flag; i++) reactor_tick(driver->reactor, 10000000000ull);
  assert_true(*flag);
}

void driver_init(struct driver *driver, const struct manifest *manifest) {
  const struct reactor_options options = {.workers = 2};
  struct sprout_error error;

  *driver = (struct driver){.manifest = manifest};
  assert_int_equal(reactor_create(&options, &driver->reactor, &error), SPROUT_OK);
}

void driver_set(struct driver *driver, struct destination *destination) {
  driver->destination = destination;
  destination->listener = &listener;
  destination->listener_context = driver;
  driver->prepared = driver->finished = driver->aborted = false;
  driver->existing = driver->existing_right = 0;
  driver->rooms = 0;
}

void driver_unset(struct driver *driver) {
  driver->destination->ops->destroy(driver->destination);
  driver->destination = NULL;
}

void driver_end(struct driver *driver) {
  reactor_leave(driver->reactor);
  reactor_destroy(driver->reactor);
}

enum sprout_status driver_prepare(struct driver *driver, const uint64_t *selected, bool reuse) {
  driver->destination->ops->prepare(driver->destination, driver->manifest, selected, reuse);
  assert_false(driver->prepared);
  wait_for(driver, &driver->prepared);
  return driver->error.status;
}

enum sprout_status driver_finish(struct driver *driver) {
  driver->destination->ops->finish(driver->destination);
  assert_false(driver->finished);
  wait_for(driver, &driver->finished);
  return driver->error.status;
}

void driver_abort(struct driver *driver) {
  driver->destination->ops->abort(driver->destination);
  assert_false(driver->aborted);
  wait_for(driver, &driver->aborted);
}

static void stored(struct destination_transfer *transfer, const struct sprout_error *error) {
  struct driver_transfer *mine = container_of(transfer, struct driver_transfer, transfer);

  assert_false(mine->stored);
  mine->stored = true;
  mine->error = *error;
}

bool driver_begin(struct driver *driver, struct driver_transfer *transfer) {
  transfer->driver = driver;
  transfer->stored = false;
  transfer->transfer.ranges = transfer->ranges;
  transfer->transfer.iov = transfer->iov;
  transfer->transfer.stored = stored;
  transfer->transfer.length_bytes = 0;
  for (uint32_t i = 0; i < transfer->transfer.range_count; i++)
    transfer->transfer.length_bytes += transfer->ranges[i].length_bytes;
  list_init(&transfer->transfer.node);
  return driver->destination->ops->map(driver->destination, &transfer->transfer);
}

/* Checks the scatter list on the way. Entries that alias each other keep the last bytes. */
void driver_fill(struct driver_transfer *transfer) {
  uint32_t entry = 0;
  uint64_t used = 0;

  for (uint32_t i = 0; i < transfer->transfer.range_count; i++) {
    const struct source_range *range = &transfer->ranges[i];
    for (uint64_t j = 0; j < range->length_bytes; j++) {
      while (used == transfer->iov[entry].iov_len) {
        entry++;
        used = 0;
      }
      assert_true(entry < transfer->transfer.iov_count);
      assert_true(transfer->iov[entry].iov_len <= DESTINATION_PIECE_BYTES);
      ((unsigned char *)transfer->iov[entry].iov_base)[used++] =
          driver_byte(transfer->driver, range->object, range->offset + j);
    }
  }
  if (transfer->transfer.length_bytes > 0) {
    assert_int_equal(entry + 1, transfer->transfer.iov_count);
    assert_int_equal(used, transfer->iov[entry].iov_len);
  }
}

enum sprout_status driver_store(struct driver_transfer *transfer) {
  struct driver *driver = transfer->driver;

  driver->destination->ops->store(driver->destination, &transfer->transfer);
  assert_false(transfer->stored);
  wait_for(driver, &transfer->stored);
  return transfer->error.status;
}

enum sprout_status driver_store_chunk(struct driver *driver, uint64_t chunk) {
  struct manifest_chunk place = manifest_chunk_at(driver->manifest, chunk);
  struct driver_transfer *transfer = calloc(1, sizeof(*transfer));
  enum sprout_status status = SPROUT_OK;

  assert_non_null(transfer);
  transfer->ranges[0] = (struct source_range){
      .object = place.object, .offset = place.offset, .length_bytes = place.length_bytes};
  transfer->transfer.range_count = 1;
  assert_true(driver_begin(driver, transfer));
  driver_fill(transfer);
  status = driver_store(transfer);
  if (status != SPROUT_OK) driver->error = transfer->error;
  free(transfer);
  return status;
}

enum sprout_status driver_store_all(struct driver *driver) {
  for (uint64_t i = 0; i < driver->manifest->chunk_count; i++) {
    enum sprout_status status = driver_store_chunk(driver, i);
    if (status != SPROUT_OK) return status;
  }
  return SPROUT_OK;
}
