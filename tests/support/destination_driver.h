/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a destination as the fork engine does, on the test's own thread, with bytes that a
 * function of (object, offset) makes up. Whatever goes wrong fails the test.
 */
#ifndef TESTS_SUPPORT_DESTINATION_DRIVER_H
#define TESTS_SUPPORT_DESTINATION_DRIVER_H

#include "core/destination.h"
#include "core/reactor.h"

struct driver {
  struct reactor *reactor;
  struct destination *destination;
  const struct manifest *manifest;
  unsigned salt; /* other content */
  bool prepared, finished, aborted;
  unsigned rooms;
  struct sprout_error error; /* of the last prepared, finished */
  uint64_t existing;         /* reported */
  uint64_t existing_right;   /* of them, with the digest of this content */
};

/* One transfer and its memory. */
struct driver_transfer {
  struct driver *driver;
  struct destination_transfer transfer;
  struct source_range ranges[8];
  struct iovec iov[DESTINATION_IOV_MAX];
  bool stored;
  struct sprout_error error;
};

/* Creates the reactor. */
void driver_init(struct driver *driver, const struct manifest *manifest);
/* Takes the destination. */
void driver_set(struct driver *driver, struct destination *destination);
/* Destroys the destination (finished or aborted before). */
void driver_unset(struct driver *driver);
void driver_end(struct driver *driver);

/* Each waits for the answer and returns its status. */
enum sprout_status driver_prepare(struct driver *driver, const uint64_t *selected, bool reuse);
enum sprout_status driver_finish(struct driver *driver);
void driver_abort(struct driver *driver);

/* The content of (object, offset). */
unsigned char driver_byte(const struct driver *driver, uint32_t object, uint64_t offset);
/* Maps, fills and stores one range; waits. False: no room. */
bool driver_begin(struct driver *driver, struct driver_transfer *transfer);
void driver_fill(struct driver_transfer *transfer);
enum sprout_status driver_store(struct driver_transfer *transfer);
/* All three for one chunk. */
enum sprout_status driver_store_chunk(struct driver *driver, uint64_t chunk);
enum sprout_status driver_store_all(struct driver *driver);
#endif
