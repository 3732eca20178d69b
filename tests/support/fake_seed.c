/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fake_seed.h"

#include "core/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

unsigned char fake_byte(const struct fake_seed *seed, uint32_t object, uint64_t offset) {
  return (unsigned char)(offset * 13 + (offset >> 11) * 5 + object * 57 + seed->salt + 3);
}

struct digest fake_digest(const struct fake_seed *seed, uint64_t chunk) {
  struct manifest_chunk place = manifest_chunk_at(seed->manifest, chunk);
  unsigned char *bytes = malloc(place.length_bytes);
  struct digest digest;

  assert_non_null(bytes);
  for (uint32_t i = 0; i < place.length_bytes; i++)
    bytes[i] = fake_byte(seed, place.object, place.offset + i);
  digest = digest_of(bytes, place.length_bytes);
  free(bytes);
  return digest;
}

/* --- answers --- */

void fake_say(struct fake_connection *connection, const void *data, size_t length) {
  struct wire_buffer *output = &connection->output;

  if (length == 0) return;
  output->data = realloc(output->data, output->length_bytes + length);
  assert_non_null(output->data);
  memcpy(output->data + output->length_bytes, data, length);
  output->length_bytes += length;
}

void fake_reply(struct fake_connection *connection, int code, const char *headers, const void *body,
                size_t length) {
  char head[512];
  int written = snprintf(head, sizeof(head), "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n", code,
                         headers, length);

  assert_true(written > 0 && (size_t)written < sizeof(head));
  fake_say(connection, head, (size_t)written);
  fake_say(connection, body, length);
}

static void reply_wire(struct fake_connection *connection, int code, struct wire_buffer *body) {
  fake_reply(connection, code, "Content-Type: application/msgpack\r\n", body->data,
             body->length_bytes);
  wire_buffer_destroy(body);
}

static void answer_opened(struct fake_connection *connection, bool is_open) {
  const struct fake_seed *seed = connection->seed;
  struct wire_buffer body = {0};
  struct wire_opened opened = {
      .fork_id = {1, 2, 3},
      .queued = seed->queue_position > 0,
      .position = seed->queue_position,
      .protocol = 1,
      .lease_ns = seed->lease_ns,
      .heartbeat_ns = seed->heartbeat_ns,
      .grant = {.window = {.operations = 16, .bytes = 64u << 20, .depth = 16},
                .generation = seed->generation}};

  assert_int_equal(wire_opened_encode(&opened, &body), SPROUT_OK);
  reply_wire(connection, !is_open ? 200 : opened.queued ? 202 : 201, &body);
}

static void answer_read(struct fake_connection *connection, const struct http_message *message) {
  struct fake_seed *seed = connection->seed;
  struct wire_range ranges[LIMIT_READ_RANGES];
  struct wire_read read;
  struct sprout_error error;
  struct wire_buffer body = {0};

  if (wire_read_decode(message->body, message->body_bytes, ranges, LIMIT_READ_RANGES, &read,
                       &error) != SPROUT_OK)
    fail_msg("bad read: %s", error.message);
  if (read.generation != seed->generation) {
    sprout_error_set(&error, SPROUT_STALE, 0, NULL, "another generation");
    assert_int_equal(wire_error_encode_json(&error, &body), SPROUT_OK);
    reply_wire(connection, 409, &body);
    return;
  }
  for (uint32_t i = 0; i < read.range_count; i++) body.length_bytes += ranges[i].length_bytes;
  body.data = malloc(body.length_bytes + 1);
  assert_non_null(body.data);
  size_t used = 0;
  for (uint32_t i = 0; i < read.range_count; i++)
    for (uint64_t j = 0; j < ranges[i].length_bytes; j++)
      body.data[used++] = fake_byte(seed, ranges[i].object, ranges[i].offset + j);
  reply_wire(connection, 200, &body);
}

static void answer_digests(struct fake_connection *connection, const struct http_message *message) {
  struct fake_seed *seed = connection->seed;
  struct wire_digests answer = {.first = 0};
  struct wire_buffer body = {0};
  struct sprout_error error;
  char text[32];

  if (message->method == HTTP_METHOD_POST) {
    assert_int_equal(wire_digests_wanted_decode(message->body, message->body_bytes, &answer.first,
                                                &answer.count, &error),
                     SPROUT_OK);
  } else {
    assert_true(http_query_value(message->query, "from", text, sizeof(text)));
    answer.first = strtoull(text, NULL, 10);
    assert_true(http_query_value(message->query, "count", text, sizeof(text)));
    answer.count = strtoull(text, NULL, 10);
  }
  answer.values = calloc(answer.count + 1, sizeof(*answer.values));
  answer.known = calloc(answer.count + 1, sizeof(*answer.known));
  assert_true(answer.values != NULL && answer.known != NULL);
  for (uint64_t i = 0; i < answer.count; i++) {
    answer.known[i] = !seed->digests_unknown || message->method == HTTP_METHOD_POST;
    answer.values[i] = fake_digest(seed, answer.first + i);
  }
  assert_int_equal(wire_digests_encode(&answer, &body), SPROUT_OK);
  free(answer.values);
  free(answer.known);
  reply_wire(connection, 200, &body);
}

void fake_answer(struct fake_connection *connection, enum fake_route route,
                 const struct http_message *message) {
  struct fake_seed *seed = connection->seed;
  struct wire_buffer body = {0};
  struct sprout_error error;

  switch (route) {
  case FAKE_MANIFEST:
    assert_int_equal(wire_manifest_encode(seed->manifest, false, &body), SPROUT_OK);
    reply_wire(connection, 200, &body);
    break;
  case FAKE_OPEN: answer_opened(connection, true); break;
  case FAKE_BEAT:
    assert_int_equal(wire_heartbeat_decode(message->body, message->body_bytes, &seed->beat, &error),
                     SPROUT_OK);
    answer_opened(connection, false);
    break;
  case FAKE_READ: answer_read(connection, message); break;
  case FAKE_DIGESTS: answer_digests(connection, message); break;
  case FAKE_CLOSE:
    assert_int_equal(wire_close_decode(message->body, message->body_bytes, &seed->closed, &error),
                     SPROUT_OK);
    fake_say(connection, "HTTP/1.1 204 X\r\n\r\n", 18);
    break;
  case FAKE_OTHER: fake_reply(connection, 404, "", "{}", 2); break;
  }
}

/* --- requests --- */

static enum fake_route route_of(const struct http_message *message) {
  size_t length = strlen(message->path);

  if (strcmp(message->path, "/v1/manifest") == 0) return FAKE_MANIFEST;
  if (strncmp(message->path, "/v1/manifests/", 14) == 0) return FAKE_DIGESTS;
  if (strcmp(message->path, "/v1/forks") == 0) return FAKE_OPEN;
  if (strncmp(message->path, "/v1/forks/", 10) != 0) return FAKE_OTHER;
  if (message->method == HTTP_METHOD_PATCH) return FAKE_BEAT;
  if (message->method == HTTP_METHOD_DELETE) return FAKE_CLOSE;
  return length > 5 && strcmp(message->path + length - 5, "/read") == 0 ? FAKE_READ : FAKE_OTHER;
}

static void hang_up(struct fake_connection *connection) {
  if (connection->reset) {
    struct linger now = {.l_onoff = 1};
    setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }
  close(connection->fd);
  http_parser_destroy(connection->parser);
  wire_buffer_destroy(&connection->output);
  connection->fd = -1;
}

static void take(struct fake_connection *connection, const unsigned char *data, size_t length) {
  struct fake_seed *seed = connection->seed;
  struct sprout_error error;
  size_t taken = 0;

  while (length > 0) {
    enum http_parser_state state =
        http_parser_feed(connection->parser, data, length, &taken, &error);
    data += taken;
    length -= taken;
    if (state == HTTP_PARSER_MORE) return;
    if (state == HTTP_PARSER_ERROR) fail_msg("bad request: %s", error.message);
    const struct http_message *message = http_parser_message(connection->parser);
    enum fake_route route = route_of(message);
    seed->requests[route]++;
    if (seed->mischief == NULL || !seed->mischief(connection, route, message))
      fake_answer(connection, route, message);
    http_parser_next(connection->parser);
  }
}

static void receive(struct fake_connection *connection) {
  unsigned char data[16384];

  while (connection->fd >= 0 && !connection->paused) {
    ssize_t got = recv(connection->fd, data, sizeof(data), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
      hang_up(connection);
      return;
    }
    take(connection, data, (size_t)got);
  }
}

static void transmit(struct fake_connection *connection) {
  while (connection->fd >= 0 && !connection->paused) {
    size_t end = connection->output.length_bytes;
    if (end > connection->cut_after) end = connection->cut_after;
    if (connection->sent >= connection->cut_after) {
      hang_up(connection);
      return;
    }
    if (connection->sent == end) return;
    ssize_t sent = send(connection->fd, connection->output.data + connection->sent,
                        end - connection->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) {
      hang_up(connection);
      return;
    }
    connection->sent += (size_t)sent;
  }
}

static void greet(struct fake_seed *seed) {
  for (;;) {
    int fd = accept4(seed->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct fake_connection *connection = seed->connections;
    if (fd < 0) return;
    while (connection->fd >= 0) connection++;
    assert_true(connection < seed->connections + FAKE_CONNECTIONS);
    *connection = (struct fake_connection){.seed = seed, .fd = fd, .cut_after = SIZE_MAX};
    assert_int_equal(http_parser_create(HTTP_PARSE_REQUESTS, 0, &connection->parser), SPROUT_OK);
    seed->connections_made++;
  }
}

void fake_seed_tick(struct fake_seed *seed) {
  if (seed->listen_fd >= 0) greet(seed);
  for (int i = 0; i < FAKE_CONNECTIONS; i++) {
    if (seed->connections[i].fd < 0) continue;
    receive(&seed->connections[i]);
    if (seed->connections[i].fd >= 0) transmit(&seed->connections[i]);
  }
}

void fake_seed_init(struct fake_seed *seed, const struct manifest *manifest) {
  struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

  *seed = (struct fake_seed){.manifest = manifest,
                             .generation = manifest->version.generation,
                             .lease_ns = 10000000000ull,
                             .heartbeat_ns = 2000000000ull};
  for (int i = 0; i < FAKE_CONNECTIONS; i++) seed->connections[i].fd = -1;
  seed->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  assert_true(seed->listen_fd >= 0);
  assert_int_equal(bind(seed->listen_fd, (struct sockaddr *)&local, sizeof(local)), 0);
  assert_int_equal(listen(seed->listen_fd, 64), 0);
  seed->address.length = sizeof(seed->address.storage);
  assert_int_equal(getsockname(seed->listen_fd, (struct sockaddr *)&seed->address.storage,
                               &seed->address.length),
                   0);
}

void fake_seed_stop(struct fake_seed *seed) {
  if (seed->listen_fd >= 0) close(seed->listen_fd);
  seed->listen_fd = -1;
  for (int i = 0; i < FAKE_CONNECTIONS; i++)
    if (seed->connections[i].fd >= 0) hang_up(&seed->connections[i]);
}

void fake_seed_end(struct fake_seed *seed) {
  fake_seed_stop(seed);
}
