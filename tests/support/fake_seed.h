/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seed of the test's own making, on the test's thread: it speaks the protocol for one manifest
 * with made-up bytes, until a test's `mischief` answers in its place. Drive it with fake_seed_tick.
 */
#ifndef TESTS_SUPPORT_FAKE_SEED_H
#define TESTS_SUPPORT_FAKE_SEED_H

#include "net/address.h"
#include "net/http_parser.h"
#include "net/wire.h"

#define FAKE_CONNECTIONS 64

enum fake_route {
  FAKE_MANIFEST,
  FAKE_OPEN,
  FAKE_BEAT,
  FAKE_READ,
  FAKE_DIGESTS, /* GET and POST */
  FAKE_CLOSE,
  FAKE_OTHER
};

struct fake_seed;

struct fake_connection {
  struct fake_seed *seed;
  int fd; /* -1: free */
  struct http_parser *parser;
  struct wire_buffer output;
  size_t sent;
  size_t cut_after; /* output bytes after which it is closed; SIZE_MAX: never */
  bool reset;       /* close with a reset */
  bool paused;      /* answers nothing more, takes nothing in */
};

struct fake_seed {
  int listen_fd;
  struct address address;
  const struct manifest *manifest;
  unsigned salt; /* other bytes */
  /* True: it has answered (or chose not to). */
  bool (*mischief)(struct fake_connection *connection, enum fake_route route,
                   const struct http_message *message);
  void *context;
  uint64_t generation;
  uint32_t queue_position; /* > 0: forks are queued */
  uint64_t lease_ns, heartbeat_ns;
  bool digests_unknown;
  uint32_t requests[FAKE_OTHER + 1]; /* counted */
  uint32_t connections_made;
  struct wire_close closed;   /* of the last DELETE */
  struct wire_heartbeat beat; /* the last */
  struct fake_connection connections[FAKE_CONNECTIONS];
};

void fake_seed_init(struct fake_seed *seed, const struct manifest *manifest);
void fake_seed_end(struct fake_seed *seed);
/* Takes and gives what can be taken and given without waiting. */
void fake_seed_tick(struct fake_seed *seed);
/* No new connections from now on, and the present ones end. */
void fake_seed_stop(struct fake_seed *seed);

/* What it answers by itself. */
void fake_answer(struct fake_connection *connection, enum fake_route route,
                 const struct http_message *message);
void fake_say(struct fake_connection *connection, const void *data, size_t length);
void fake_reply(struct fake_connection *connection, int code, const char *headers, const void *body,
                size_t length);
unsigned char fake_byte(const struct fake_seed *seed, uint32_t object, uint64_t offset);
struct digest fake_digest(const struct fake_seed *seed, uint64_t chunk);
#endif
