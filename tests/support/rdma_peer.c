/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/rdma_peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define TICKS_MAX 5000u
#define TIMEOUT_MS 1000u
#define READ_DEPTH 16u

static struct {
  const struct verbs *verbs;
  void (*tick)(void);
  struct verbs_device *device;
  struct sockaddr_storage address;
  struct verbs_events *events;
  struct verbs_domain *domain;
  struct verbs_queue *queue;
} side;

void rdma_peers_open(void (*tick)(void)) {
  struct verbs_device_info devices[FAKE_DEVICES_MAX];
  struct verbs_port port;
  uint32_t count = 0;
  side.verbs = fake_verbs();
  side.tick = tick;
  assert_int_equal(side.verbs->devices(devices, FAKE_DEVICES_MAX, &count), 0);
  assert_true(count > 0);
  side.device = devices[0].device;
  assert_int_equal(side.verbs->port(side.device, 1, -1, &port), 0);
  side.address = port.address;
  assert_int_equal(side.verbs->events_open(&side.events), 0);
  assert_int_equal(side.verbs->domain_open(side.device, &side.domain), 0);
  assert_int_equal(side.verbs->queue_open(side.device, NULL, 64, NULL, &side.queue), 0);
}

void rdma_peers_close(void) {
  assert_int_equal(side.verbs->queue_close(side.queue), 0);
  assert_int_equal(side.verbs->domain_close(side.domain), 0);
  assert_int_equal(side.verbs->events_close(side.events), 0);
}

static void take(const struct verbs_event *event) {
  struct rdma_peer *peer = event->context;
  struct sprout_error error;
  switch (event->kind) {
  case VERBS_EVENT_ESTABLISHED:
    peer->state = RDMA_PEER_CONNECTED;
    peer->read_depth = event->serve_depth;
    break;
  case VERBS_EVENT_REJECTED:
    peer->state = RDMA_PEER_REJECTED;
    peer->refusal = rdma_refusal_explain(event->private_data, event->private_bytes, &error);
    break;
  case VERBS_EVENT_DISCONNECTED: peer->gone = true; break;
  default: break;
  }
}

/* Others may have something to say before. */
static void expect(const struct rdma_peer *peer, enum verbs_event_kind kind) {
  struct verbs_event event = {.link = NULL};
  while (event.link != peer->link) {
    assert_int_equal(side.verbs->events_next(side.events, &event), 1);
    if (event.link != peer->link) take(&event);
  }
  assert_int_equal(event.kind, kind);
}

static struct sockaddr_storage address_of(const struct wire_endpoint *endpoint) {
  struct sockaddr_storage address = {.ss_family = AF_INET};
  struct sockaddr_in *v4 = (void *)&address;
  struct sockaddr_in6 *v6 = (void *)&address;
  if (inet_pton(AF_INET, endpoint->address, &v4->sin_addr) == 1) {
    v4->sin_port = htons(endpoint->port);
    return address;
  }
  address.ss_family = AF_INET6;
  assert_int_equal(inet_pton(AF_INET6, endpoint->address, &v6->sin6_addr), 1);
  v6->sin6_port = htons(endpoint->port);
  return address;
}

void rdma_peer_ask(struct rdma_peer *peer, const struct wire_endpoint *endpoint, const void *data,
                   uint8_t bytes) {
  const struct sockaddr_storage to = address_of(endpoint);
  const struct verbs_link_limits limits = {.requests = 64, .segments = 1};
  const struct verbs_connect parameters = {
      .private_data = data, .private_bytes = bytes, .read_depth = READ_DEPTH, .retries = 3};
  *peer = (struct rdma_peer){.state = RDMA_PEER_ASKING};
  assert_int_equal(side.verbs->link_open(side.events, peer, &peer->link), 0);
  assert_int_equal(side.verbs->link_resolve_address(peer->link, (const void *)&side.address,
                                                    (const void *)&to, TIMEOUT_MS),
                   0);
  expect(peer, VERBS_EVENT_ADDRESS_RESOLVED);
  assert_int_equal(side.verbs->link_resolve_route(peer->link, TIMEOUT_MS), 0);
  expect(peer, VERBS_EVENT_ROUTE_RESOLVED);
  assert_int_equal(side.verbs->link_make_pair(peer->link, side.domain, side.queue, &limits), 0);
  assert_int_equal(side.verbs->link_connect(peer->link, &parameters), 0);
}

void rdma_peer_hello(struct rdma_peer *peer, const struct wire_endpoint *endpoint) {
  uint8_t hello[RDMA_HELLO_BYTES];
  rdma_hello_encode(endpoint->nonce, hello);
  rdma_peer_ask(peer, endpoint, hello, sizeof(hello));
}

void rdma_peer_look(struct rdma_peer *peer) {
  struct verbs_event event;
  (void)peer; /* all of them share one channel */
  while (side.verbs->events_next(side.events, &event) == 1) take(&event);
}

enum rdma_peer_state rdma_peer_wait(struct rdma_peer *peer) {
  for (uint32_t i = 0; i < TICKS_MAX && peer->state == RDMA_PEER_ASKING; i++) {
    side.tick();
    rdma_peer_look(peer);
  }
  assert_int_not_equal(peer->state, RDMA_PEER_ASKING);
  return peer->state;
}

void rdma_peer_wait_gone(struct rdma_peer *peer) {
  for (uint32_t i = 0; i < TICKS_MAX && !peer->gone; i++) {
    side.tick();
    rdma_peer_look(peer);
  }
  assert_true(peer->gone);
}

bool rdma_peer_read(struct rdma_peer *peer, uint64_t address, uint32_t key, void *to,
                    uint32_t bytes) {
  const struct verbs_registration what = {.address = to, .length_bytes = bytes, .dmabuf_fd = -1};
  struct verbs_memory *memory = NULL;
  assert_int_equal(side.verbs->memory_register(side.domain, &what, &memory), 0);
  const struct verbs_segment segment = {(uint64_t)(uintptr_t)to, bytes, memory->local_key};
  const struct verbs_read read = {.id = 1,
                                  .remote_address = address,
                                  .remote_key = key,
                                  .segment_count = 1,
                                  .segments = &segment,
                                  .signalled = true};
  struct verbs_completion completion = {.outcome = VERBS_LOCAL};
  uint32_t posted = 0;
  if (side.verbs->link_post(peer->link, &read, 1, &posted) == 0)
    assert_int_equal(side.verbs->queue_poll(side.queue, &completion, 1), 1);
  assert_int_equal(side.verbs->memory_release(memory), 0);
  return completion.outcome == VERBS_OK;
}

void rdma_peer_end(struct rdma_peer *peer) {
  if (peer->link == NULL) return;
  rdma_peer_look(peer);
  side.verbs->link_end(peer->link);
  side.verbs->link_free(peer->link);
  peer->link = NULL;
}
