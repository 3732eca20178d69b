/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives one source as the fork engine does, on the test's own thread, and checks the contract of
 * core/source.h on the way: order of callbacks, reads answered once, nothing after the end.
 */
#ifndef TESTS_SUPPORT_SOURCE_DRIVER_H
#define TESTS_SUPPORT_SOURCE_DRIVER_H

#include "core/reactor.h"
#include "core/source.h"

#define SOURCE_DRIVER_READS 32

struct source_driver;

struct driven_read {
  struct source_read read;
  struct source_driver *driver;
  struct source_range ranges[4];
  struct iovec iov[64];
  unsigned char *memory;
  bool posted, done;
  enum sprout_status status;
  uint64_t landed;
};

struct source_driver {
  struct reactor *reactor;
  struct source *source;
  void (*tick)(void *context); /* of the peer; may be NULL */
  void *tick_context;
  unsigned char (*byte)(void *context, uint32_t object, uint64_t offset);
  struct manifest *manifest;
  bool connected, got_manifest, ready, failed, closing, closed;
  unsigned queued, granted;
  uint32_t position;
  struct source_grant grant;
  struct sprout_error error;
  uint64_t digests; /* received, of them known, and right (digest_of is the test's) */
  uint64_t digests_known;
  struct digest values[256];
  struct driven_read reads[SOURCE_DRIVER_READS];
  uint32_t read_count;
};

/* Creates the reactor. */
void source_driver_init(struct source_driver *driver);
void source_driver_set(struct source_driver *driver, struct source *source);
void source_driver_end(struct source_driver *driver);
/* One step of reactor and peer. */
void source_driver_step(struct source_driver *driver);
/* Until *flag; also ends when the source failed (unless that is the flag). False: it failed. */
bool source_driver_until(struct source_driver *driver, const bool *flag);

void source_driver_connect(struct source_driver *driver);
void source_driver_open(struct source_driver *driver);
/* Each waits; false: failed. */
bool source_driver_ready(struct source_driver *driver);
/* A read of one range in pieces of `piece` bytes; `aliased`: every entry is the same memory. */
struct driven_read *source_driver_post(struct source_driver *driver, uint32_t object,
                                       uint64_t offset, uint64_t length, size_t piece,
                                       bool aliased);
/* The same of several ranges, given in read->ranges. */
void source_driver_post_ranges(struct source_driver *driver, struct driven_read *read,
                               uint32_t count, size_t piece, bool aliased);
struct driven_read *source_driver_new_read(struct source_driver *driver);
void source_driver_flush(struct source_driver *driver);
/* Waits until all posted reads are done. */
void source_driver_finish_reads(struct source_driver *driver);
/* Bytes of a read that ended well are right. */
void source_driver_expect(const struct driven_read *read);
/* Closes, waits for closed, checks that nothing lands afterwards, frees reads and manifest; the
 * source may be connected again. */
void source_driver_close(struct source_driver *driver, enum sprout_status result,
                         const char *reason);
/* Close and destroy. */
void source_driver_unset(struct source_driver *driver);
#endif
