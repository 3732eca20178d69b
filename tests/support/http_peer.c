/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/http_peer.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void (*tick_now)(void);

void peer_set_tick(void (*tick)(void)) {
  tick_now = tick;
}

int peer_dial(const struct address *address) {
  int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_true(fd >= 0);
  assert_int_equal(connect(fd, (const struct sockaddr *)&address->storage, address->length), 0);
  assert_int_equal(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK), 0);
  return fd;
}

void peer_say_bytes(int fd, const void *data, size_t length) {
  const char *bytes = data;
  for (int i = 0; i < PEER_TICKS_MAX && length > 0; i++) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent > 0) {
      bytes += sent;
      length -= (size_t)sent;
    } else if (sent < 0 && errno != EAGAIN) {
      return; /* the server has closed: what it said is what counts */
    }
    tick_now();
  }
}

void peer_say(int fd, const char *text) {
  peer_say_bytes(fd, text, strlen(text));
}

void peer_get(int fd, const char *path) {
  char text[512];
  (void)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
  peer_say(fd, text);
}

bool peer_receive(int fd, void *data, size_t length) {
  unsigned char *bytes = data;
  for (int i = 0; i < PEER_TICKS_MAX && length > 0; i++) {
    ssize_t got = recv(fd, bytes, length, 0);
    if (got == 0) return false;
    if (got < 0 && errno != EAGAIN) return false;
    if (got > 0) {
      bytes += got;
      length -= (size_t)got;
    } else {
      tick_now();
    }
  }
  return length == 0;
}

/* False: the connection ended before the answer was whole. */
bool peer_hear(int fd, bool has_body, struct peer_answer *answer) {
  size_t used = 0;
  memset(answer, 0, sizeof(*answer));
  while (used < 4 || memcmp(answer->head + used - 4, "\r\n\r\n", 4) != 0) {
    assert_true(used + 1 < sizeof(answer->head));
    if (!peer_receive(fd, answer->head + used, 1)) return false;
    used++;
  }
  assert_memory_equal(answer->head, "HTTP/1.1 ", 9);
  answer->code = (int)strtol(answer->head + 9, NULL, 10);
  const char *length = strstr(answer->head, "Content-Length: ");
  if (length == NULL || !has_body) return true;
  answer->body_bytes = strtoul(length + 16, NULL, 10);
  answer->body = malloc(answer->body_bytes + 1);
  assert_non_null(answer->body);
  answer->body[answer->body_bytes] = '\0';
  bool whole = peer_receive(fd, answer->body, answer->body_bytes);
  if (!whole) free(answer->body);
  return whole;
}

void peer_expect(int fd, int code, const char *body) {
  struct peer_answer answer;
  assert_true(peer_hear(fd, true, &answer));
  assert_int_equal(answer.code, code);
  if (body != NULL) assert_string_equal((char *)answer.body, body);
  free(answer.body);
}

void peer_expect_end(int fd) {
  char byte;
  assert_false(peer_receive(fd, &byte, 1));
  close(fd);
}
