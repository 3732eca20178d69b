/* SPDX-License-Identifier: Apache-2.0 */
/* What the fake verbs layer promises to the tests that stand on it. */
#include "tests/support/fake_verbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define BYTES 4096u
#define REQUESTS 8u

/* One end of a connection and all that it stands on. */
struct end {
  struct verbs_device *device;
  struct verbs_events *events;
  struct verbs_domain *domain;
  struct verbs_channel *channel;
  struct verbs_queue *queue;
  struct verbs_memory *memory;
  struct verbs_link *link;
  unsigned char bytes[BYTES];
};

static const struct verbs *verbs;
static struct end fork_end, seed_end;
static struct verbs_link *listener;

static bool readable(int fd) {
  struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
  return poll(&poll_fd, 1, 0) == 1;
}

static void make_end(struct end *end, uint32_t device, bool remote_read) {
  struct verbs_device_info infos[FAKE_DEVICES_MAX];
  uint32_t count;
  assert_int_equal(verbs->devices(infos, FAKE_DEVICES_MAX, &count), 0);
  end->device = infos[device].device;
  assert_int_equal(verbs->events_open(&end->events), 0);
  assert_int_equal(verbs->domain_open(end->device, &end->domain), 0);
  assert_int_equal(verbs->channel_open(end->device, &end->channel), 0);
  assert_int_equal(verbs->queue_open(end->device, end->channel, REQUESTS, end, &end->queue), 0);
  const struct verbs_registration what = {
      .address = end->bytes, .length_bytes = BYTES, .remote_read = remote_read, .dmabuf_fd = -1};
  assert_int_equal(verbs->memory_register(end->domain, &what, &end->memory), 0);
  for (uint32_t i = 0; i < BYTES; i++) end->bytes[i] = remote_read ? (unsigned char)(i * 7) : 0;
}

static void unmake_end(struct end *end) {
  if (end->link != NULL) {
    verbs->link_end(end->link);
    verbs->link_free(end->link);
    end->link = NULL;
  }
  if (end == &seed_end && listener != NULL) {
    verbs->link_end(listener);
    verbs->link_free(listener);
    listener = NULL;
  }
  assert_int_equal(verbs->queue_close(end->queue), 0);
  assert_int_equal(verbs->channel_close(end->channel), 0);
  assert_int_equal(verbs->memory_release(end->memory), 0);
  assert_int_equal(verbs->domain_close(end->domain), 0);
  assert_int_equal(verbs->events_close(end->events), 0);
}

static struct verbs_event expect_event(struct end *end, enum verbs_event_kind kind) {
  struct verbs_event event;
  assert_true(readable(verbs->events_fd(end->events)));
  assert_int_equal(verbs->events_next(end->events, &event), 1);
  assert_int_equal(event.kind, kind);
  return event;
}

static void expect_quiet(struct end *end) {
  struct verbs_event event;
  assert_false(readable(verbs->events_fd(end->events)));
  assert_int_equal(verbs->events_next(end->events, &event), 0);
}

static struct sockaddr_in address_of(uint32_t device, uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  assert_int_equal(
      inet_pton(AF_INET, fake_verbs_device(device)->port[0].gids[1], &address.sin_addr), 1);
  return address;
}

static void make_pair(struct end *end, uint32_t requests) {
  const struct verbs_link_limits limits = {.requests = requests, .segments = 4};
  assert_int_equal(verbs->link_make_pair(end->link, end->domain, end->queue, &limits), 0);
}

static void listen_now(void) {
  const struct sockaddr_in any = address_of(1, 0);
  assert_int_equal(verbs->link_open(seed_end.events, &listener, &listener), 0);
  assert_int_equal(verbs->link_listen(listener, (const void *)&any, 2), 0);
}

/* Up to the point where it may connect. */
static void resolve(void) {
  assert_int_equal(verbs->link_open(fork_end.events, &fork_end, &fork_end.link), 0);
  const struct sockaddr_in local = address_of(0, 0);
  const struct sockaddr_in peer = address_of(1, verbs->link_port(listener));
  assert_int_equal(
      verbs->link_resolve_address(fork_end.link, (const void *)&local, (const void *)&peer, 100),
      0);
  assert_ptr_equal(expect_event(&fork_end, VERBS_EVENT_ADDRESS_RESOLVED).context, &fork_end);
  assert_ptr_equal(verbs->link_device(fork_end.link), fork_end.device);
  assert_int_equal(verbs->link_resolve_route(fork_end.link, 100), 0);
  expect_event(&fork_end, VERBS_EVENT_ROUTE_RESOLVED);
  make_pair(&fork_end, REQUESTS);
}

static const struct verbs_connect ask = {
    .private_data = "hello", .private_bytes = 5, .read_depth = 16, .serve_depth = 3, .retries = 3};
static const struct verbs_connect grant = {
    .private_data = "come in", .private_bytes = 7, .read_depth = 2, .serve_depth = 4};

static void connect_both(void) {
  assert_int_equal(verbs->link_connect(fork_end.link, &ask), 0);
  struct verbs_event event = expect_event(&seed_end, VERBS_EVENT_REQUEST);
  assert_ptr_equal(event.context, &listener);
  assert_int_equal(event.read_depth, 16);
  assert_int_equal(event.serve_depth, 3);
  assert_int_equal(event.private_bytes, VERBS_PRIVATE_CONNECT_BYTES);
  assert_memory_equal(event.private_data, "hello\0\0", 7);
  seed_end.link = event.link;
  verbs->link_set_context(seed_end.link, &seed_end);
  make_pair(&seed_end, 0);
  assert_int_equal(verbs->link_accept(seed_end.link, &grant), 0);
  event = expect_event(&fork_end, VERBS_EVENT_ESTABLISHED);
  assert_int_equal(event.serve_depth, 4);
  assert_int_equal(event.read_depth, 2);
  assert_int_equal(event.private_bytes, FAKE_PRIVATE_ACCEPT_BYTES);
  assert_memory_equal(event.private_data, "come in\0", 8);
  event = expect_event(&seed_end, VERBS_EVENT_ESTABLISHED);
  assert_ptr_equal(event.context, &seed_end);
}

static int set_up(void **state) {
  (void)state;
  fake_verbs_init(2);
  verbs = fake_verbs();
  memset(&fork_end, 0, sizeof fork_end);
  memset(&seed_end, 0, sizeof seed_end);
  make_end(&fork_end, 0, false);
  make_end(&seed_end, 1, true);
  listen_now();
  return 0;
}

static int set_up_connected(void **state) {
  (void)set_up(state);
  resolve();
  connect_both();
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  unmake_end(&fork_end);
  unmake_end(&seed_end);
  fake_verbs_end();
  return 0;
}

/* READ number `id`: `length` bytes at id * 100 to the same place, in two segments. */
static int post_keyed(uint64_t id, uint32_t length, bool signalled, uint32_t key) {
  uint64_t to = (uint64_t)(uintptr_t)(fork_end.bytes + id * 100);
  const struct verbs_segment segments[] = {
      {to, length / 2, fork_end.memory->local_key},
      {to + length / 2, length - length / 2, fork_end.memory->local_key}};
  const struct verbs_read read = {.id = id,
                                  .remote_address =
                                      (uint64_t)(uintptr_t)(seed_end.bytes + id * 100),
                                  .remote_key = key,
                                  .segment_count = 2,
                                  .segments = segments,
                                  .signalled = signalled};
  uint32_t posted = 77;
  int result = verbs->link_post(fork_end.link, &read, 1, &posted);
  assert_int_equal(posted, result == 0 ? 1 : 0);
  return result;
}

static int post(uint64_t id, bool signalled) {
  return post_keyed(id, 50, signalled, seed_end.memory->remote_key);
}

static bool landed(uint64_t id) {
  return memcmp(fork_end.bytes + id * 100, seed_end.bytes + id * 100, 50) == 0;
}

static void expect_completion(uint64_t id, enum verbs_outcome outcome) {
  struct verbs_completion completion;
  assert_int_equal(verbs->queue_poll(fork_end.queue, &completion, 1), 1);
  assert_int_equal(completion.id, id);
  assert_int_equal(completion.outcome, outcome);
}

static void expect_no_completion(void) {
  struct verbs_completion completion;
  assert_int_equal(verbs->queue_poll(fork_end.queue, &completion, 1), 0);
}

/* The child does it and aborts. */
static void expect_abort(void (*misdeed)(void)) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct sigaction plain = {.sa_handler = SIG_DFL};
    (void)sigaction(SIGABRT, &plain, NULL);
    (void)close(STDERR_FILENO);
    misdeed();
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_read(void **state) {
  (void)state;
  assert_int_equal(post(1, true), 0);
  assert_true(landed(1));
  assert_int_equal(post(2, false), 0);
  assert_int_equal(post(3, true), 0);
  expect_completion(1, VERBS_OK);
  expect_completion(3, VERBS_OK); /* number 2 says nothing */
  expect_no_completion();
  assert_true(landed(2));
  const struct fake_view view = fake_link_view(fork_end.link);
  assert_int_equal(view.done, 3);
  assert_int_equal(view.slots, 0);
  assert_int_equal(view.max_requests, 1);
}

static void test_steps_and_slots(void **state) {
  (void)state;
  fake_verbs_manual(true);
  for (uint64_t i = 0; i < REQUESTS; i++) assert_int_equal(post(i, i % 2 == 1), 0);
  assert_int_equal(post(8, true), -ENOMEM);
  assert_false(landed(0));
  assert_int_equal(fake_verbs_step(3), 3);
  assert_true(landed(2));
  assert_int_equal(post(8, true), -ENOMEM); /* none was polled */
  expect_completion(1, VERBS_OK);
  assert_int_equal(fake_link_view(fork_end.link).slots, REQUESTS - 2);
  assert_int_equal(fake_link_view(fork_end.link).max_bytes, REQUESTS * 50);
  assert_int_equal(post(8, true), 0);
  assert_int_equal(post(9, true), 0);
  assert_int_equal(post(10, true), -ENOMEM);
  assert_int_equal(fake_device_step(1, 100), 0);
  assert_int_equal(fake_device_step(0, 100), REQUESTS - 1);
  for (uint64_t i = 3; i < 8; i += 2) expect_completion(i, VERBS_OK);
}

static void test_post_faults(void **state) {
  (void)state;
  const struct verbs_segment segment = {(uint64_t)(uintptr_t)fork_end.bytes, 10,
                                        fork_end.memory->local_key};
  struct verbs_read reads[4];
  for (uint64_t i = 0; i < 4; i++)
    reads[i] = (struct verbs_read){.id = i,
                                   .remote_address = (uint64_t)(uintptr_t)seed_end.bytes,
                                   .remote_key = seed_end.memory->remote_key,
                                   .segment_count = 1,
                                   .segments = &segment,
                                   .signalled = true};
  uint32_t posted;
  fake_verbs_fail(FAKE_LINK_POST, 3, ENOMEM);
  assert_int_equal(verbs->link_post(fork_end.link, reads, 4, &posted), -ENOMEM);
  assert_int_equal(posted, 2);
  assert_int_equal(verbs->link_post(fork_end.link, reads, 4, &posted), 0);
  assert_int_equal(posted, 4);
  assert_int_equal(fake_verbs_calls(FAKE_LINK_POST), 7);
  assert_int_equal(fake_link_view(fork_end.link).chains, 2);
}

static void test_keys(void **state) {
  (void)state;
  const uint64_t own = (uint64_t)(uintptr_t)fork_end.bytes;
  const uint64_t other = (uint64_t)(uintptr_t)seed_end.bytes;
  const uint32_t local = fork_end.memory->local_key, remote = seed_end.memory->remote_key;
  struct verbs_domain *strange_domain;
  struct verbs_memory *strange;
  assert_int_equal(verbs->domain_open(seed_end.device, &strange_domain), 0);
  const struct verbs_registration what = {
      .address = seed_end.bytes, .length_bytes = BYTES, .remote_read = true, .dmabuf_fd = -1};
  assert_int_equal(verbs->memory_register(strange_domain, &what, &strange), 0);
  const struct {
    uint64_t from, to;
    uint32_t length, remote_key, local_key;
    enum verbs_outcome outcome;
  } cases[] = {
      {other, own, BYTES, remote, local, VERBS_OK},
      {other, own, 10, remote + 1, local, VERBS_REMOTE_ACCESS},
      {other, own, 10, strange->remote_key, local, VERBS_REMOTE_ACCESS},
      {other + BYTES - 9, own, 10, remote, local, VERBS_REMOTE_ACCESS},
      {other - 1, own, 10, remote, local, VERBS_REMOTE_ACCESS},
      {other, own, 10, seed_end.memory->local_key, local, VERBS_REMOTE_ACCESS},
      {own, own, 10, fork_end.memory->remote_key, local, VERBS_REMOTE_ACCESS},
      {other, own, 10, remote, local + 1, VERBS_LOCAL},
      {other, own + BYTES - 9, 10, remote, local, VERBS_LOCAL},
      {other, other, 10, remote, seed_end.memory->local_key, VERBS_LOCAL},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const struct verbs_segment segment = {cases[i].to, cases[i].length, cases[i].local_key};
    const struct verbs_read read = {.id = i,
                                    .remote_address = cases[i].from,
                                    .remote_key = cases[i].remote_key,
                                    .segment_count = 1,
                                    .segments = &segment};
    uint32_t posted;
    assert_int_equal(verbs->link_post(fork_end.link, &read, 1, &posted), 0);
    if (cases[i].outcome == VERBS_OK) continue;
    expect_completion(i, cases[i].outcome);
    verbs->link_end(fork_end.link); /* broken now: a new connection */
    verbs->link_free(fork_end.link);
    verbs->link_end(seed_end.link);
    verbs->link_free(seed_end.link);
    struct verbs_event event;
    while (verbs->events_next(seed_end.events, &event) == 1) continue;
    resolve();
    connect_both();
  }
  assert_int_equal(verbs->memory_release(strange), 0);
  assert_int_equal(verbs->domain_close(strange_domain), 0);
}

static void test_error_and_flush(void **state) {
  (void)state;
  fake_verbs_manual(true);
  for (uint64_t i = 0; i < 5; i++) assert_int_equal(post(i, i == 4), 0);
  fake_verbs_fail_read(2, VERBS_UNREACHABLE);
  assert_int_equal(fake_verbs_step(2), 2);
  expect_completion(1, VERBS_UNREACHABLE);
  assert_false(landed(1));
  assert_memory_equal(fork_end.bytes + 100, seed_end.bytes + 100, 25); /* half of it */
  expect_no_completion();
  fake_link_land(fork_end.link); /* a late one, before its flush */
  assert_true(landed(2));
  assert_int_equal(fake_verbs_step(100), 3);
  for (uint64_t i = 2; i < 5; i++) expect_completion(i, VERBS_FLUSHED);
  assert_int_equal(post(5, false), 0); /* flushed as well */
  assert_int_equal(fake_verbs_step(100), 1);
  expect_completion(5, VERBS_FLUSHED);
  assert_false(landed(5));
  assert_int_equal(fake_link_view(fork_end.link).failed, 5);
}

static void test_break(void **state) {
  (void)state;
  fake_verbs_manual(true);
  assert_int_equal(post(1, false), 0);
  assert_int_equal(post(2, false), 0);
  fake_link_break(fork_end.link, VERBS_REMOTE_OTHER);
  expect_completion(1, VERBS_REMOTE_OTHER);
  fake_verbs_manual(false);
  expect_completion(2, VERBS_FLUSHED);
}

static void test_completions_held_and_doubled(void **state) {
  (void)state;
  fake_link_hold_completions(fork_end.link, true);
  fake_verbs_duplicate(2);
  assert_int_equal(post(1, true), 0);
  assert_int_equal(post(2, true), 0);
  assert_true(landed(2));
  expect_no_completion();
  fake_link_hold_completions(fork_end.link, false);
  expect_completion(1, VERBS_OK);
  expect_completion(2, VERBS_OK);
  expect_completion(2, VERBS_OK);
  assert_int_equal(fake_link_view(fork_end.link).slots, 0);
}

static void test_mute(void **state) {
  (void)state;
  fake_link_mute(fork_end.link, true);
  assert_int_equal(post(1, true), 0);
  assert_int_equal(fake_verbs_step(9), 0);
  fake_link_mute_flush(fork_end.link, true);
  assert_int_equal(verbs->link_disconnect(fork_end.link), 0);
  expect_no_completion();
  fake_link_mute_flush(fork_end.link, false);
  expect_completion(1, VERBS_FLUSHED);
}

static void *event_of(struct end *end) {
  assert_true(readable(verbs->channel_fd(end->channel)));
  return verbs->channel_next(end->channel);
}

static void test_channel(void **state) {
  (void)state;
  const int fd = verbs->channel_fd(fork_end.channel);
  assert_int_equal(post(1, true), 0);
  assert_int_equal(verbs->queue_arm(fork_end.queue), 0);
  assert_false(readable(fd)); /* it came before */
  assert_null(verbs->channel_next(fork_end.channel));
  assert_int_equal(post(2, true), 0);
  assert_int_equal(post(3, true), 0); /* one event for both */
  assert_ptr_equal(event_of(&fork_end), &fork_end);
  assert_null(verbs->channel_next(fork_end.channel));
  assert_false(readable(fd));
  for (uint64_t i = 1; i < 4; i++) expect_completion(i, VERBS_OK);
  fake_verbs_manual(true);
  assert_int_equal(post(4, true), 0);
  fake_verbs_step_before_arm(1);
  assert_int_equal(verbs->queue_arm(fork_end.queue), 0);
  assert_false(readable(fd));
  expect_completion(4, VERBS_OK); /* the second look finds it */
  verbs->queue_acknowledge(fork_end.queue, 1);
}

static void test_disconnect(void **state) {
  (void)state;
  assert_int_equal(verbs->link_disconnect(fork_end.link), 0);
  expect_event(&fork_end, VERBS_EVENT_DISCONNECTED);
  expect_event(&fork_end, VERBS_EVENT_OTHER);
  expect_event(&seed_end, VERBS_EVENT_DISCONNECTED);
  assert_int_equal(verbs->link_disconnect(seed_end.link), 0);
  assert_int_equal(verbs->link_disconnect(fork_end.link), 0); /* harmless */
  expect_event(&seed_end, VERBS_EVENT_OTHER);
  expect_quiet(&fork_end);
  expect_quiet(&seed_end);
}

static void test_peer_disconnects(void **state) {
  (void)state;
  fake_verbs_manual(true);
  assert_int_equal(post(1, true), 0);
  assert_int_equal(post(2, true), 0);
  fake_link_peer_disconnects(fork_end.link);
  expect_event(&fork_end, VERBS_EVENT_DISCONNECTED);
  assert_int_equal(fake_verbs_step(9), 2);
  expect_completion(1, VERBS_UNREACHABLE);
  expect_completion(2, VERBS_FLUSHED);
  assert_false(landed(1));
}

static void test_end_drops_everything(void **state) {
  (void)state;
  fake_verbs_manual(true);
  assert_int_equal(post(1, true), 0);
  assert_int_equal(post(2, true), 0);
  assert_int_equal(fake_verbs_step(1), 1);
  fake_link_peer_disconnects(fork_end.link);
  verbs->link_end(fork_end.link);
  expect_no_completion();
  expect_quiet(&fork_end);
  assert_int_equal(fake_verbs_step(9), 0);
  assert_false(landed(2));
  assert_int_equal(fake_verbs_counts().pairs, 1);
  verbs->link_free(fork_end.link);
  fork_end.link = NULL;
}

static void test_end_keeps_completions(void **state) {
  (void)state;
  fake_verbs_keep_completions(true);
  assert_int_equal(post(1, true), 0);
  verbs->link_end(fork_end.link);
  verbs->link_free(fork_end.link);
  fork_end.link = NULL;
  expect_completion(1, VERBS_OK);
  expect_event(&seed_end, VERBS_EVENT_DISCONNECTED);
}

static void test_port_and_device(void **state) {
  (void)state;
  struct verbs_async async;
  fake_device_port(1, 1, false);
  assert_true(readable(verbs->async_fd(seed_end.device)));
  assert_int_equal(verbs->async_next(seed_end.device, &async), 1);
  assert_int_equal(async.kind, VERBS_ASYNC_PORT_DOWN);
  assert_int_equal(async.port, 1);
  assert_int_equal(verbs->async_next(seed_end.device, &async), 0);
  assert_false(readable(verbs->async_fd(seed_end.device)));
  struct verbs_port port;
  assert_int_equal(verbs->port(seed_end.device, 1, -1, &port), 0);
  assert_false(port.active);
  assert_int_equal(post(1, true), 0);
  expect_no_completion();
  fake_device_port(1, 1, true);
  expect_completion(1, VERBS_OK);

  fake_device_remove(0);
  assert_int_equal(verbs->async_next(fork_end.device, &async), 1);
  assert_int_equal(async.kind, VERBS_ASYNC_DEVICE_FATAL);
  expect_event(&fork_end, VERBS_EVENT_REMOVED);
  assert_int_equal(post(2, true), -EIO);
  struct verbs_domain *domain;
  assert_int_equal(verbs->domain_open(fork_end.device, &domain), -EIO);
}

static void test_port_addresses(void **state) {
  (void)state;
  struct verbs_port port;
  struct fake_port *config = &fake_verbs_device(0)->port[0];
  assert_int_equal(verbs->port(fork_end.device, 1, -1, &port), 0);
  assert_int_equal(port.gid_index, 1);
  assert_int_equal(port.address.ss_family, AF_INET);
  assert_int_equal(verbs->port(fork_end.device, 1, 0, &port), 0);
  assert_int_equal(port.address.ss_family, AF_UNSPEC);
  config->gids[2] = "::1";
  assert_int_equal(verbs->port(fork_end.device, 1, 2, &port), 0);
  assert_int_equal(port.address.ss_family, AF_INET6);
  assert_int_equal(verbs->port(fork_end.device, 2, -1, &port), -EINVAL);
  assert_int_equal(verbs->port(fork_end.device, 1, 99, &port), -EINVAL);
  fake_verbs_fail_all(FAKE_DEVICES, EACCES);
  uint32_t count;
  assert_int_equal(verbs->devices(NULL, 0, &count), -EACCES);
  fake_verbs_fail_all(FAKE_DEVICES, 0);
}

static void test_reject(void **state) {
  (void)state;
  resolve();
  assert_int_equal(verbs->link_connect(fork_end.link, &ask), 0);
  seed_end.link = expect_event(&seed_end, VERBS_EVENT_REQUEST).link;
  assert_int_equal(verbs->link_reject(seed_end.link, "no", 2), 0);
  struct verbs_event event = expect_event(&fork_end, VERBS_EVENT_REJECTED);
  assert_int_equal(event.native, FAKE_REJECTED_BY_LISTENER);
  assert_int_equal(event.private_bytes, FAKE_PRIVATE_REJECT_BYTES);
  assert_string_equal((const char *)event.private_data, "no");
  assert_int_equal(post(1, true), -EINVAL); /* never connected */
}

static void test_trouble_to_connect(void **state) {
  (void)state;
  resolve();
  fake_verbs_reject_next("garbage", 7, 5);
  assert_int_equal(verbs->link_connect(fork_end.link, &ask), 0);
  struct verbs_event event = expect_event(&fork_end, VERBS_EVENT_REJECTED);
  assert_int_equal(event.native, 5);
  assert_memory_equal(event.private_data, "garbage\0", 8);
  expect_quiet(&seed_end);
  verbs->link_end(fork_end.link);
  verbs->link_free(fork_end.link);

  resolve();
  fake_verbs_hang(FAKE_STAGE_CONNECT, true);
  assert_int_equal(verbs->link_connect(fork_end.link, &ask), 0);
  expect_quiet(&fork_end);
  fake_link_time_out(fork_end.link);
  assert_int_equal(expect_event(&fork_end, VERBS_EVENT_UNREACHABLE).native, -ETIMEDOUT);
  fake_verbs_hang(FAKE_STAGE_CONNECT, false);
  verbs->link_end(fork_end.link);
  verbs->link_free(fork_end.link);

  assert_int_equal(verbs->link_open(fork_end.events, NULL, &fork_end.link), 0);
  const struct sockaddr_in peer = address_of(1, verbs->link_port(listener));
  fake_verbs_unreachable(FAKE_STAGE_ADDRESS, EHOSTUNREACH);
  assert_int_equal(verbs->link_resolve_address(fork_end.link, NULL, (const void *)&peer, 9), 0);
  assert_int_equal(expect_event(&fork_end, VERBS_EVENT_UNREACHABLE).native, -EHOSTUNREACH);
}

static void test_listener_ends_before_request_is_taken(void **state) {
  (void)state;
  resolve();
  assert_int_equal(verbs->link_connect(fork_end.link, &ask), 0);
  verbs->link_end(listener);
  verbs->link_free(listener);
  listener = NULL;
  assert_int_equal(expect_event(&fork_end, VERBS_EVENT_REJECTED).native, FAKE_REJECTED_NOBODY);
  expect_quiet(&seed_end);
}

static void test_connecting_side_gives_up(void **state) {
  (void)state;
  resolve();
  assert_int_equal(verbs->link_connect(fork_end.link, &ask), 0);
  seed_end.link = expect_event(&seed_end, VERBS_EVENT_REQUEST).link;
  verbs->link_end(fork_end.link);
  verbs->link_free(fork_end.link);
  fork_end.link = NULL;
  make_pair(&seed_end, 0);
  assert_int_equal(verbs->link_accept(seed_end.link, &grant), 0);
  expect_event(&seed_end, VERBS_EVENT_UNREACHABLE);
}

static void test_backlog(void **state) {
  (void)state;
  struct verbs_link *links[3];
  for (int i = 0; i < 3; i++) {
    resolve();
    assert_int_equal(verbs->link_connect(fork_end.link, &ask), 0);
    links[i] = fork_end.link;
  }
  assert_int_equal(expect_event(&fork_end, VERBS_EVENT_REJECTED).native, FAKE_REJECTED_NOBODY);
  struct verbs_link *found[4];
  assert_int_equal(fake_verbs_links(FAKE_CONNECTING, 0, found, 4), 3);
  assert_ptr_equal(found[0], links[0]);
  assert_int_equal(fake_verbs_links(FAKE_SERVING, FAKE_DEVICES_MAX, found, 4), 2);
  assert_ptr_equal(fake_link_peer(found[0]), links[0]);
  for (int i = 0; i < 2; i++) {
    verbs->link_end(links[i]);
    verbs->link_free(links[i]);
  }
}

struct registering {
  pthread_t thread;
  struct verbs_memory *memory;
  int result;
};

static void *register_some(void *argument) {
  struct registering *one = argument;
  const struct verbs_registration what = {
      .address = seed_end.bytes, .length_bytes = BYTES, .remote_read = true, .dmabuf_fd = -1};
  one->result = verbs->memory_register(seed_end.domain, &what, &one->memory);
  return NULL;
}

static void test_held_registrations(void **state) {
  (void)state;
  struct registering some[3];
  uint64_t here = fake_verbs_blocking_here();
  fake_verbs_hold(FAKE_MEMORY_REGISTER);
  fake_verbs_fail(FAKE_MEMORY_REGISTER, 2, EAGAIN);
  for (int i = 0; i < 3; i++)
    assert_int_equal(pthread_create(&some[i].thread, NULL, register_some, &some[i]), 0);
  fake_verbs_wait_held(FAKE_MEMORY_REGISTER, 3);
  assert_int_equal(fake_verbs_counts().memories, 2);
  fake_verbs_let(FAKE_MEMORY_REGISTER, 1);
  fake_verbs_unhold(FAKE_MEMORY_REGISTER);
  int failed = 0;
  for (int i = 0; i < 3; i++) {
    assert_int_equal(pthread_join(some[i].thread, NULL), 0);
    if (some[i].result == -EAGAIN)
      failed++;
    else
      assert_int_equal(some[i].result, 0);
  }
  assert_int_equal(failed, 1);
  assert_int_equal(fake_verbs_parallel_max(FAKE_MEMORY_REGISTER), 3);
  assert_int_equal(fake_verbs_blocking_here(), here);
  for (int i = 0; i < 3; i++)
    if (some[i].result == 0) assert_int_equal(verbs->memory_release(some[i].memory), 0);
  assert_int_equal(fake_verbs_blocking_here(), here + 2);
}

static void test_dmabuf(void **state) {
  (void)state;
  int fd = memfd_create("buffer", MFD_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(pwrite(fd, "0123456789", 10, 8192), 10);
  const struct verbs_registration what = {.address = (void *)0x700000,
                                          .length_bytes = BYTES,
                                          .remote_read = true,
                                          .dmabuf_fd = fd,
                                          .dmabuf_offset = 8190};
  struct verbs_memory *memory;
  assert_int_equal(verbs->memory_register(seed_end.domain, &what, &memory), 0);
  const struct verbs_segment segment = {(uint64_t)(uintptr_t)fork_end.bytes, 5,
                                        fork_end.memory->local_key};
  const struct verbs_read read = {.remote_address = 0x700004,
                                  .remote_key = memory->remote_key,
                                  .segment_count = 1,
                                  .segments = &segment};
  uint32_t posted;
  assert_int_equal(verbs->link_post(fork_end.link, &read, 1, &posted), 0);
  assert_memory_equal(fork_end.bytes, "23456", 5);
  assert_int_equal(verbs->memory_release(memory), 0);
  (void)close(fd);
}

static void overflow_queue(void) {
  for (uint64_t i = 0; i < REQUESTS; i++) {
    fake_verbs_duplicate(1);
    (void)post(i, true);
  }
}

static void release_under_read(void) {
  fake_verbs_manual(true);
  (void)post(1, true);
  (void)verbs->memory_release(fork_end.memory);
}

static void land_after_end(void) {
  fake_verbs_manual(true);
  (void)post(1, true);
  verbs->link_end(fork_end.link);
  fake_link_land(fork_end.link);
}

static void post_after_end(void) {
  verbs->link_end(fork_end.link);
  (void)post(1, true);
}

static void end_twice(void) {
  verbs->link_end(fork_end.link);
  verbs->link_end(fork_end.link);
}

static void free_twice(void) {
  verbs->link_end(fork_end.link);
  verbs->link_free(fork_end.link);
  verbs->link_free(fork_end.link);
}

static void free_without_end(void) {
  verbs->link_free(fork_end.link);
}

static void event_after_end(void) {
  verbs->link_end(fork_end.link);
  fake_link_event(fork_end.link, VERBS_EVENT_OTHER, 0);
}

static void close_queue_first(void) {
  (void)verbs->queue_close(fork_end.queue);
}

static void close_domain_first(void) {
  (void)verbs->domain_close(fork_end.domain);
}

static void close_channel_first(void) {
  (void)verbs->channel_close(fork_end.channel);
}

static void close_events_first(void) {
  (void)verbs->events_close(fork_end.events);
}

static void leave_event_unacknowledged(void) {
  (void)verbs->queue_arm(fork_end.queue);
  (void)post(1, true);
  (void)verbs->channel_next(fork_end.channel);
  verbs->link_end(fork_end.link);
  (void)verbs->queue_close(fork_end.queue);
}

static void acknowledge_too_much(void) {
  verbs->queue_acknowledge(fork_end.queue, 1);
}

static void leak(void) {
  fake_verbs_end();
}

static void test_misdeeds_abort(void **state) {
  (void)state;
  void (*const misdeeds[])(void) = {overflow_queue,
                                    release_under_read,
                                    land_after_end,
                                    post_after_end,
                                    end_twice,
                                    free_twice,
                                    free_without_end,
                                    event_after_end,
                                    close_queue_first,
                                    close_domain_first,
                                    close_channel_first,
                                    close_events_first,
                                    leave_event_unacknowledged,
                                    acknowledge_too_much,
                                    leak};
  for (size_t i = 0; i < sizeof misdeeds / sizeof misdeeds[0]; i++) {
    print_message("misdeed %zu\n", i);
    expect_abort(misdeeds[i]);
  }
}

#define CONNECTED(test) cmocka_unit_test_setup_teardown(test, set_up_connected, tear_down)
#define APART(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CONNECTED(test_read),
      CONNECTED(test_steps_and_slots),
      CONNECTED(test_post_faults),
      CONNECTED(test_keys),
      CONNECTED(test_error_and_flush),
      CONNECTED(test_break),
      CONNECTED(test_completions_held_and_doubled),
      CONNECTED(test_mute),
      CONNECTED(test_channel),
      CONNECTED(test_disconnect),
      CONNECTED(test_peer_disconnects),
      CONNECTED(test_end_drops_everything),
      CONNECTED(test_end_keeps_completions),
      CONNECTED(test_port_and_device),
      APART(test_port_addresses),
      APART(test_reject),
      APART(test_trouble_to_connect),
      APART(test_listener_ends_before_request_is_taken),
      APART(test_connecting_side_gives_up),
      APART(test_backlog),
      APART(test_held_registrations),
      CONNECTED(test_dmabuf),
      CONNECTED(test_misdeeds_abort),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
