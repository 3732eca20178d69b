/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing devices, and the host that holds them open and gives their events to who owns them. */
#include "core/log.h"
#include "net/rdma_host.h"
#include "net/rdma_module.h"
#include "tests/support/fake_verbs.h"
#include "tests/support/memory.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TICK_NS UINT64_C(1000000)

static const struct verbs *verbs;

static void start(uint32_t devices) {
  fake_verbs_init(devices);
  verbs = fake_verbs();
  rdma_module_replace(verbs);
}

static void stop(void) {
  rdma_module_replace(NULL);
  fake_verbs_end();
}

/* --- selection ---------------------------------------------------------------------------------
 */

static enum sprout_status select_devices(const char *devices, int32_t gid_index,
                                         struct rdma_selection *selection_out,
                                         struct sprout_error *error) {
  const struct rdma_wish wish = {.devices = devices, .gid_index = gid_index};
  memset(error, 0, sizeof *error);
  return rdma_select(&wish, selection_out, error);
}

/* "fake0:1 fake1:1" */
static void expect_rails(const char *devices, int32_t gid_index, const char *expected) {
  struct rdma_selection selection;
  struct sprout_error error;
  char found[256] = "";
  if (select_devices(devices, gid_index, &selection, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  assert_ptr_equal(selection.verbs, verbs);
  size_t used = 0;
  for (uint32_t i = 0; i < selection.count; i++) {
    const struct rdma_choice *rail = &selection.rails[i];
    used += (size_t)snprintf(found + used, sizeof found - used, "%s%s:%u", i > 0 ? " " : "",
                             rail->device.name, rail->port.number);
    assert_true(rail->port.active);
    assert_int_not_equal(rail->port.address.ss_family, AF_UNSPEC);
  }
  assert_string_equal(found, expected);
}

static void expect_refusal(const char *devices, int32_t gid_index, enum sprout_status status,
                           const char *message, const char *hint) {
  struct rdma_selection selection = {.count = 77};
  struct sprout_error error;
  assert_int_equal(select_devices(devices, gid_index, &selection, &error), status);
  assert_int_equal(selection.count, 77);
  assert_int_equal(error.status, status);
  if (strstr(error.message, message) == NULL) fail_msg("'%s'", error.message);
  if (strstr(error.hint, hint) == NULL) fail_msg("'%s'", error.hint);
}

static void test_choose_by_name(void **state) {
  (void)state;
  start(3);
  fake_verbs_device(1)->ports = 2;
  static const struct {
    const char *devices, *rails;
  } cases[] = {
      {NULL, "fake0:1 fake1:1 fake1:2 fake2:1"},
      {"", "fake0:1 fake1:1 fake1:2 fake2:1"},
      {"auto", "fake0:1 fake1:1 fake1:2 fake2:1"},
      {"fake1", "fake1:1"},
      {"fake1:2", "fake1:2"},
      {"fake2,fake0", "fake2:1 fake0:1"},
      {"fake1:2,fake1:1", "fake1:2 fake1:1"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    expect_rails(cases[i].devices, -1, cases[i].rails);
  stop();
}

static void test_names_that_are_none(void **state) {
  (void)state;
  start(2);
  static const struct {
    const char *devices;
    enum sprout_status status;
    const char *message;
  } cases[] = {
      {"mlx5_0", SPROUT_INVALID, "there are: fake0, fake1"},
      {"fake0,fake9", SPROUT_INVALID, "no RDMA device 'fake9'"},
      {"fake0,", SPROUT_INVALID, "'' is no device name"},
      {",fake0", SPROUT_INVALID, "'' is no device name"},
      {"fake0:", SPROUT_INVALID, "'fake0:' is no"},
      {"fake0:0", SPROUT_INVALID, "'fake0:0' is no"},
      {"fake0:x", SPROUT_INVALID, "'fake0:x' is no"},
      {"fake0:1x", SPROUT_INVALID, "'fake0:1x' is no"},
      {"fake0:99999999999999999999", SPROUT_INVALID, "is no device name"},
      {":1", SPROUT_INVALID, "':1' is no"},
      {"fake0:2", SPROUT_UNSUPPORTED, "RDMA device fake0"},
      {"auto,fake0", SPROUT_INVALID, "no RDMA device 'auto'"},
      {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
       SPROUT_INVALID, "is no device name"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    expect_refusal(cases[i].devices, -1, cases[i].status, cases[i].message, "");
  stop();
}

static void test_only_usable_ports(void **state) {
  (void)state;
  start(4);
  fake_verbs_device(0)->port[0].active = false;
  fake_verbs_device(1)->ports = 2;
  fake_verbs_device(1)->port[0].active = false;
  fake_verbs_device(2)->port[0].gids[1] = NULL;
  expect_rails("auto", -1, "fake1:2 fake3:1");
  expect_rails("fake1", -1, "fake1:2");
  expect_refusal("fake1:1", -1, SPROUT_UNSUPPORTED, "fake1: port 1 is not active", "interface up");
  expect_refusal("fake3,fake0", -1, SPROUT_UNSUPPORTED, "fake0: port 1 is not active",
                 "interface up");
  expect_refusal("fake2", -1, SPROUT_UNSUPPORTED, "fake2: port 1 has no IP address", "--gid-index");
  fake_verbs_device(1)->port[1].active = fake_verbs_device(3)->port[0].active = false;
  expect_refusal("auto", -1, SPROUT_UNSUPPORTED, "none of 4 RDMA devices", "--rdma-device");
  stop();
}

static void test_gid_index(void **state) {
  (void)state;
  struct rdma_selection selection;
  struct sprout_error error;
  start(2);
  fake_verbs_device(1)->port[0].gids[2] = "::1";
  assert_int_equal(select_devices("fake1", 2, &selection, &error), SPROUT_OK);
  assert_int_equal(selection.rails[0].port.gid_index, 2);
  assert_int_equal(selection.rails[0].port.address.ss_family, AF_INET6);
  expect_rails("auto", 2, "fake1:1"); /* fake0 has none there */
  expect_refusal("fake0", 2, SPROUT_UNSUPPORTED, "no IP address", "--gid-index");
  expect_refusal("fake0", 99, SPROUT_UNSUPPORTED, "GID index", "--gid-index");
  stop();
}

static void test_machines_that_cannot(void **state) {
  (void)state;
  start(0);
  expect_refusal("auto", -1, SPROUT_UNSUPPORTED, "no RDMA device", "--transport tcp");
  expect_refusal("fake0", -1, SPROUT_UNSUPPORTED, "no RDMA device", "--transport tcp");
  stop();
  start(1);
  static const struct {
    int error;
    const char *message, *hint;
  } cases[] = {
      {EACCES, "may not open them", "--device=/dev/infiniband"},
      {EPERM, "may not open them", "--device=/dev/infiniband"},
      {ENODEV, "no RDMA device", "rdma link"},
      {EIO, "cannot be listed", "--transport tcp"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    fake_verbs_fail(FAKE_DEVICES, 1, cases[i].error);
    expect_refusal("auto", -1, SPROUT_UNSUPPORTED, cases[i].message, cases[i].hint);
  }
  fake_verbs_fail(FAKE_PORT, 1, EIO);
  expect_refusal("auto", -1, SPROUT_UNSUPPORTED, "cannot be asked about port 1", "");
  stop();
}

static void test_more_devices_than_rails(void **state) {
  (void)state;
  struct rdma_selection selection;
  struct sprout_error error;
  start(FAKE_DEVICES_MAX); /* more than the layer lists, too */
  assert_true(FAKE_DEVICES_MAX > VERBS_DEVICES_MAX);
  assert_int_equal(select_devices("auto", -1, &selection, &error), SPROUT_OK);
  assert_int_equal(selection.count, RDMA_RAILS_MAX);
  expect_refusal("fake0,fake1,fake2,fake3,fake4,fake5,fake6,fake7,fake8", -1, SPROUT_INVALID,
                 "more than 8", "");
  expect_refusal("nobody", -1, SPROUT_INVALID, "no RDMA device 'nobody'", "");
  for (uint32_t i = 0; i < FAKE_DEVICES_MAX; i++) fake_verbs_device(i)->port[0].active = false;
  expect_refusal("auto", -1, SPROUT_UNSUPPORTED, "RDMA devices can be used", "");
  stop();
}

/* --- the host ----------------------------------------------------------------------------------
 */

struct queue_owner {
  struct rdma_queue_owner owner;
  struct verbs_queue *queue;
  uint32_t events;
  struct verbs_completion completions[16];
  uint32_t completion_count;
};

struct link_owner {
  struct rdma_link_owner owner;
  struct verbs_event events[16];
  uint32_t count;
};

struct watcher {
  struct rdma_watch watch;
  uint32_t ports, failures;
  bool up;
  struct rdma_device *device;
  bool leave_when_failed;
  struct rdma_host *host;
};

static struct {
  struct sprout_service *service;
  struct rdma_host *host;
  struct rdma_device *devices[RDMA_RAILS_MAX];
  struct rdma_selection selection;
} bench;

static void on_ready(struct rdma_queue_owner *owner) {
  struct queue_owner *own = container_of(owner, struct queue_owner, owner);
  own->events++;
  verbs->queue_acknowledge(own->queue, 1);
  own->completion_count += (uint32_t)verbs->queue_poll(
      own->queue, own->completions + own->completion_count, 16 - own->completion_count);
}

static void on_event(struct rdma_link_owner *owner, const struct verbs_event *event) {
  struct link_owner *own = container_of(owner, struct link_owner, owner);
  assert_true(own->count < 16);
  own->events[own->count++] = *event;
}

static void on_port(struct rdma_watch *watch, struct rdma_device *device, uint32_t port, bool up) {
  struct watcher *own = container_of(watch, struct watcher, watch);
  assert_int_equal(port, 1);
  own->ports++;
  own->up = up;
  own->device = device;
}

static void on_failed(struct rdma_watch *watch, struct rdma_device *device) {
  struct watcher *own = container_of(watch, struct watcher, watch);
  own->failures++;
  own->device = device;
  assert_true(device->failed);
  if (own->leave_when_failed) rdma_host_unwatch(own->host, watch);
}

static void settle(void) {
  for (int i = 0; i < 8; i++) reactor_tick(service_reactor(bench.service), TICK_NS);
}

static void get_host(const char *devices) {
  struct sprout_error error;
  assert_int_equal(select_devices(devices, -1, &bench.selection, &error), SPROUT_OK);
  if (rdma_host_get(bench.service, &bench.selection, &bench.host, bench.devices, &error) !=
      SPROUT_OK)
    fail_msg("%s", error.message);
}

static int set_up(void **state) {
  (void)state;
  struct sprout_error error;
  memset(&bench, 0, sizeof bench);
  start(3);
  log_set_level(LOG_ERROR);
  assert_int_equal(sprout_service_create(NULL, &bench.service, &error), SPROUT_OK);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  sprout_service_destroy(bench.service);
  log_set_level(LOG_WARNING);
  stop();
  return 0;
}

static void test_devices_are_opened_once(void **state) {
  (void)state;
  get_host("fake0,fake1");
  struct rdma_host *host = bench.host;
  struct rdma_device *first = bench.devices[0], *second = bench.devices[1];
  assert_ptr_not_equal(first, second);
  assert_string_equal(first->info.name, "fake0");
  assert_ptr_equal(rdma_host_verbs(host), verbs);
  assert_ptr_equal(rdma_host_reactor(host), service_reactor(bench.service));
  assert_non_null(rdma_host_events(host));
  get_host("fake2,fake1");
  assert_ptr_equal(bench.host, host);
  assert_ptr_equal(bench.devices[1], second);
  assert_string_equal(bench.devices[0]->info.name, "fake2");
  get_host("auto");
  assert_ptr_equal(bench.devices[0], first);
  assert_int_equal(fake_verbs_counts().channels, 3);
  assert_int_equal(fake_verbs_counts().events, 1);
  settle();
}

static void test_two_rails_of_one_device(void **state) {
  (void)state;
  fake_verbs_device(0)->ports = 2;
  get_host("fake0:1,fake0:2");
  assert_int_equal(bench.selection.count, 2);
  assert_ptr_equal(bench.devices[0], bench.devices[1]);
  assert_int_equal(fake_verbs_counts().channels, 1);
}

static void test_what_cannot_be_opened_can_later(void **state) {
  (void)state;
  static const enum fake_call calls[] = {FAKE_EVENTS_OPEN, FAKE_CHANNEL_OPEN};
  struct sprout_error error;
  assert_int_equal(select_devices("fake0", -1, &bench.selection, &error), SPROUT_OK);
  for (int i = 0; i < 2; i++) {
    fake_verbs_fail(calls[i], 1, EMFILE);
    assert_int_equal(
        rdma_host_get(bench.service, &bench.selection, &bench.host, bench.devices, &error),
        SPROUT_UNSUPPORTED);
    assert_int_equal(error.native, EMFILE);
    assert_null(bench.host);
    settle();
  }
  get_host("fake0");
}

static void test_no_memory(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  struct sprout_error error;
  assert_int_equal(select_devices("fake0,fake1", -1, &bench.selection, &error), SPROUT_OK);
  long count = 0;
  for (;; count++) {
    memory_fail_after(count);
    enum sprout_status status =
        rdma_host_get(bench.service, &bench.selection, &bench.host, bench.devices, &error);
    if (!memory_restore()) {
      assert_int_equal(status, SPROUT_OK);
      break;
    }
    assert_int_equal(status, SPROUT_NO_MEMORY);
  }
  assert_true(count >= 1);
}

static void test_watches(void **state) {
  (void)state;
  get_host("auto");
  struct watcher watchers[3] = {{.leave_when_failed = true}};
  for (int i = 0; i < 2; i++) {
    watchers[i].host = bench.host;
    watchers[i].watch = (struct rdma_watch){.port = on_port, .failed = on_failed};
    rdma_host_watch(bench.host, &watchers[i].watch);
  }
  rdma_host_watch(bench.host, &watchers[2].watch); /* wants to know nothing */
  settle();
  fake_device_port(1, 1, false);
  settle();
  fake_device_async(1, VERBS_ASYNC_OTHER, 0);
  settle();
  for (int i = 0; i < 2; i++) {
    assert_int_equal(watchers[i].ports, 1);
    assert_false(watchers[i].up);
    assert_ptr_equal(watchers[i].device, bench.devices[1]);
  }
  fake_device_port(1, 1, true);
  fake_device_port(1, 1, false);
  fake_device_port(1, 1, true);
  settle();
  assert_int_equal(watchers[0].ports, 4);
  assert_true(watchers[0].up);
  fake_device_remove(2);
  fake_device_async(2, VERBS_ASYNC_DEVICE_FATAL, 0); /* said once */
  settle();
  assert_int_equal(watchers[0].failures, 1);
  assert_int_equal(watchers[1].failures, 1);
  assert_ptr_equal(watchers[1].device, bench.devices[2]);
  assert_true(bench.devices[2]->failed);
  assert_false(bench.devices[1]->failed);
  fake_device_remove(0);
  settle();
  assert_int_equal(watchers[0].failures, 1); /* it left */
  assert_int_equal(watchers[1].failures, 2);
  rdma_host_unwatch(bench.host, &watchers[1].watch);
  rdma_host_unwatch(bench.host, &watchers[2].watch);
}

/* --- events of links and queues ----------------------------------------------------------------
 */

struct side {
  struct verbs_domain *domain;
  struct queue_owner queue;
  struct link_owner owner;
  struct verbs_link *link;
  struct verbs_memory *memory;
  unsigned char bytes[64];
};

static void make_side(struct side *side, uint32_t device, bool remote_read) {
  const struct rdma_device *on = bench.devices[device];
  memset(side, 0, sizeof *side);
  side->queue.owner.ready = on_ready;
  side->owner.owner.event = on_event;
  assert_int_equal(verbs->domain_open(on->info.device, &side->domain), 0);
  assert_int_equal(
      verbs->queue_open(on->info.device, on->channel, 16, &side->queue.owner, &side->queue.queue),
      0);
  const struct verbs_registration what = {.address = side->bytes,
                                          .length_bytes = sizeof side->bytes,
                                          .remote_read = remote_read,
                                          .dmabuf_fd = -1};
  assert_int_equal(verbs->memory_register(side->domain, &what, &side->memory), 0);
}

static void unmake_side(struct side *side) {
  if (side->link != NULL) {
    verbs->link_end(side->link);
    verbs->link_free(side->link);
  }
  assert_int_equal(verbs->queue_close(side->queue.queue), 0);
  assert_int_equal(verbs->memory_release(side->memory), 0);
  assert_int_equal(verbs->domain_close(side->domain), 0);
}

static void expect_event(const struct link_owner *owner, uint32_t count,
                         enum verbs_event_kind kind) {
  settle();
  assert_int_equal(owner->count, count);
  assert_int_equal(owner->events[count - 1].kind, kind);
  assert_ptr_equal(owner->events[count - 1].context, &owner->owner);
}

static struct sockaddr_in address_of(uint32_t device, uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  assert_int_equal(
      inet_pton(AF_INET, fake_verbs_device(device)->port[0].gids[1], &address.sin_addr), 1);
  return address;
}

static void connect_sides(struct side *fork, struct side *seed, struct link_owner *listening,
                          struct verbs_link *listener) {
  const struct verbs_link_limits limits = {.requests = 8, .segments = 1};
  const struct verbs_connect offer = {.read_depth = 4, .serve_depth = 4};
  const struct sockaddr_in peer = address_of(1, verbs->link_port(listener));
  const struct sockaddr_in local = address_of(0, 0);
  assert_int_equal(verbs->link_open(rdma_host_events(bench.host), &fork->owner.owner, &fork->link),
                   0);
  assert_int_equal(
      verbs->link_resolve_address(fork->link, (const void *)&local, (const void *)&peer, 9), 0);
  expect_event(&fork->owner, 1, VERBS_EVENT_ADDRESS_RESOLVED);
  assert_int_equal(verbs->link_resolve_route(fork->link, 9), 0);
  expect_event(&fork->owner, 2, VERBS_EVENT_ROUTE_RESOLVED);
  assert_int_equal(verbs->link_make_pair(fork->link, fork->domain, fork->queue.queue, &limits), 0);
  assert_int_equal(verbs->link_connect(fork->link, &offer), 0);
  expect_event(listening, 1, VERBS_EVENT_REQUEST);
  seed->link = listening->events[0].link;
  fake_link_event(seed->link, VERBS_EVENT_OTHER, 0); /* nobody's: dropped */
  settle();
  assert_int_equal(listening->count, 1);
  verbs->link_set_context(seed->link, &seed->owner.owner);
  assert_int_equal(verbs->link_make_pair(seed->link, seed->domain, seed->queue.queue, &limits), 0);
  assert_int_equal(verbs->link_accept(seed->link, &offer), 0);
  expect_event(&fork->owner, 3, VERBS_EVENT_ESTABLISHED);
  expect_event(&seed->owner, 1, VERBS_EVENT_ESTABLISHED);
}

static void test_events_reach_their_owners(void **state) {
  (void)state;
  static struct side fork, seed;
  struct link_owner listening = {.owner = {.event = on_event}};
  struct verbs_link *listener;
  get_host("auto");
  make_side(&fork, 0, false);
  make_side(&seed, 1, true);
  const struct sockaddr_in any = address_of(1, 0);
  assert_int_equal(verbs->link_open(rdma_host_events(bench.host), &listening.owner, &listener), 0);
  assert_int_equal(verbs->link_listen(listener, (const void *)&any, 4), 0);
  connect_sides(&fork, &seed, &listening, listener);

  const struct verbs_segment segment = {(uint64_t)(uintptr_t)fork.bytes, sizeof fork.bytes,
                                        fork.memory->local_key};
  const struct verbs_read read = {.id = 42,
                                  .remote_address = (uint64_t)(uintptr_t)seed.bytes,
                                  .remote_key = seed.memory->remote_key,
                                  .segment_count = 1,
                                  .segments = &segment,
                                  .signalled = true};
  uint32_t posted;
  for (uint32_t i = 0; i < 3; i++) { /* armed anew each time */
    assert_int_equal(verbs->queue_arm(fork.queue.queue), 0);
    assert_int_equal(verbs->link_post(fork.link, &read, 1, &posted), 0);
    settle();
    assert_int_equal(fork.queue.events, i + 1);
    assert_int_equal(fork.queue.completion_count, i + 1);
    assert_int_equal(fork.queue.completions[i].id, 42);
  }
  assert_int_equal(seed.queue.events, 0);

  assert_int_equal(verbs->link_disconnect(fork.link), 0);
  settle();
  assert_int_equal(seed.owner.events[1].kind, VERBS_EVENT_DISCONNECTED);
  assert_int_equal(fork.owner.events[3].kind, VERBS_EVENT_DISCONNECTED);
  fake_device_remove(1);
  settle();
  assert_int_equal(seed.owner.events[2].kind, VERBS_EVENT_REMOVED);
  assert_int_equal(listening.events[1].kind, VERBS_EVENT_REMOVED);
  unmake_side(&fork);
  unmake_side(&seed);
  verbs->link_end(listener);
  verbs->link_free(listener);
}

/* Events that are there before anybody watches, and many at once. */
static void test_a_burst_of_events(void **state) {
  (void)state;
  struct link_owner owner = {.owner = {.event = on_event}};
  struct watcher watcher = {.watch = {.port = on_port}};
  struct verbs_link *link;
  fake_device_port(0, 1, false);
  fake_device_port(0, 1, true);
  get_host("fake0");
  rdma_host_watch(bench.host, &watcher.watch);
  assert_int_equal(verbs->link_open(rdma_host_events(bench.host), &owner.owner, &link), 0);
  for (int i = 0; i < 10; i++) fake_link_event(link, VERBS_EVENT_OTHER, i);
  settle();
  assert_int_equal(owner.count, 10);
  for (int i = 0; i < 10; i++) assert_int_equal(owner.events[i].native, i);
  assert_int_equal(watcher.ports, 2);
  rdma_host_unwatch(bench.host, &watcher.watch);
  verbs->link_end(link);
  verbs->link_free(link);
}

/* Each event makes another one, as somebody does who connects again and again. */
struct flood {
  struct rdma_link_owner owner;
  struct verbs_link *link;
  uint32_t count, most;
};

static void on_flood(struct rdma_link_owner *owner, const struct verbs_event *event) {
  struct flood *flood = container_of(owner, struct flood, owner);
  if (event->kind != VERBS_EVENT_OTHER) return;
  if (++flood->count < flood->most) fake_link_event(flood->link, VERBS_EVENT_OTHER, 0);
}

static void test_a_flood_does_not_keep_the_reactor(void **state) {
  (void)state;
  struct flood flood = {.owner = {.event = on_flood}, .most = 20000};
  get_host("fake0");
  assert_int_equal(verbs->link_open(rdma_host_events(bench.host), &flood.owner, &flood.link), 0);
  fake_link_event(flood.link, VERBS_EVENT_OTHER, 0);
  for (uint32_t before = 0; flood.count < flood.most; before = flood.count) {
    reactor_tick(service_reactor(bench.service), TICK_NS);
    assert_true(flood.count - before <= 1000);
  }
  verbs->link_end(flood.link);
  verbs->link_free(flood.link);
}

#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_choose_by_name),
      cmocka_unit_test(test_names_that_are_none),
      cmocka_unit_test(test_only_usable_ports),
      cmocka_unit_test(test_gid_index),
      cmocka_unit_test(test_machines_that_cannot),
      cmocka_unit_test(test_more_devices_than_rails),
      WITH_BENCH(test_devices_are_opened_once),
      WITH_BENCH(test_two_rails_of_one_device),
      WITH_BENCH(test_what_cannot_be_opened_can_later),
      WITH_BENCH(test_no_memory),
      WITH_BENCH(test_watches),
      WITH_BENCH(test_events_reach_their_owners),
      WITH_BENCH(test_a_burst_of_events),
      WITH_BENCH(test_a_flood_does_not_keep_the_reactor),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
