/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client for tests of servers that run on the test's own thread: its socket never blocks, and
 * while it waits it ticks the server. Whatever goes wrong fails the test.
 */
#ifndef TESTS_SUPPORT_HTTP_PEER_H
#define TESTS_SUPPORT_HTTP_PEER_H

#include "net/address.h"

#include <stdbool.h>
#include <stddef.h>

/* Ticks that the peer waits at most. */
#define PEER_TICKS_MAX 5000

/* One received answer; body is NUL-terminated and the caller's to free. */
struct peer_answer {
  int code;
  char head[2048];
  unsigned char *body;
  size_t body_bytes;
};

/* What to call while waiting. */
void peer_set_tick(void (*tick)(void));
int peer_dial(const struct address *address);
/* Stops early when the server has closed: what it said is what counts. */
void peer_say_bytes(int fd, const void *data, size_t length);
void peer_say(int fd, const char *text);
void peer_get(int fd, const char *path);
/* False: the connection ended, or nothing came, before all was there. */
bool peer_receive(int fd, void *data, size_t length);
/* The same for an answer; `has_body` false after HEAD. */
bool peer_hear(int fd, bool has_body, struct peer_answer *answer);
/* An answer with this code and, unless NULL, this body. */
void peer_expect(int fd, int code, const char *body);
/* The server closes without another byte; closes the socket. */
void peer_expect_end(int fd);
#endif
