/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fake_peer.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <string.h>

static const struct verbs *verbs(void) {
  return fake_verbs();
}

static struct sockaddr_in own_address(const struct fake_peer *peer, uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  int parsed =
      inet_pton(AF_INET, fake_verbs_device(peer->device)->port[0].gids[1], &address.sin_addr);
  assert(parsed == 1);
  return address;
}

void fake_peer_open(struct fake_peer *peer, uint32_t device) {
  struct verbs_device_info infos[FAKE_DEVICES_MAX];
  uint32_t count;
  *peer = (struct fake_peer){.device = device, .serve_depth = 16};
  const struct sockaddr_in address = own_address(peer, 0);
  fake_verbs_excuse(true);
  int result = verbs()->devices(infos, FAKE_DEVICES_MAX, &count);
  assert(result == 0 && device < count);
  result = verbs()->events_open(&peer->events);
  if (result == 0) result = verbs()->domain_open(infos[device].device, &peer->domain);
  if (result == 0) result = verbs()->queue_open(infos[device].device, NULL, 1, NULL, &peer->queue);
  if (result == 0) result = verbs()->link_open(peer->events, NULL, &peer->listener);
  if (result == 0)
    result = verbs()->link_listen(peer->listener, (const struct sockaddr *)&address, 64);
  assert(result == 0);
  fake_verbs_excuse(false);
}

uint16_t fake_peer_port(const struct fake_peer *peer) {
  return verbs()->link_port(peer->listener);
}

struct sockaddr_storage fake_peer_address(const struct fake_peer *peer) {
  const struct sockaddr_in address = own_address(peer, fake_peer_port(peer));
  struct sockaddr_storage storage = {0};
  memcpy(&storage, &address, sizeof address);
  return storage;
}

uint32_t fake_peer_serve(struct fake_peer *peer, void *address, uint64_t length_bytes) {
  const struct verbs_registration what = {
      .address = address, .length_bytes = length_bytes, .remote_read = true, .dmabuf_fd = -1};
  assert(peer->memory_count < FAKE_PEER_MEMORIES);
  struct verbs_memory **memory = &peer->memories[peer->memory_count++];
  fake_verbs_excuse(true);
  int result = verbs()->memory_register(peer->domain, &what, memory);
  assert(result == 0);
  fake_verbs_excuse(false);
  return (*memory)->remote_key;
}

static void answer_request(struct fake_peer *peer, const struct verbs_event *event) {
  const struct verbs_link_limits limits = {.requests = 0, .segments = 1};
  const struct verbs_connect offer = {.serve_depth = peer->serve_depth};
  assert(peer->link_count < FAKE_PEER_LINKS);
  peer->links[peer->link_count++] = event->link;
  peer->requests++;
  memcpy(peer->hello, event->private_data, event->private_bytes);
  peer->hello_bytes = event->private_bytes;
  peer->asked_depth = event->read_depth;
  if (peer->answer == FAKE_PEER_ACCEPTS) {
    int result = verbs()->link_make_pair(event->link, peer->domain, peer->queue, &limits);
    if (result == 0) (void)verbs()->link_accept(event->link, &offer);
  } else if (peer->answer == FAKE_PEER_REFUSES) {
    (void)verbs()->link_reject(event->link, peer->refusal, peer->refusal_bytes);
  }
}

static void end_link(struct fake_peer *peer, const struct verbs_link *link) {
  for (uint32_t i = 0; i < peer->link_count; i++) {
    if (peer->links[i] != link) continue;
    verbs()->link_end(peer->links[i]);
    verbs()->link_free(peer->links[i]);
    peer->links[i] = peer->links[--peer->link_count];
    return;
  }
}

void fake_peer_tick(struct fake_peer *peer) {
  struct verbs_event event;
  fake_verbs_excuse(true);
  while (verbs()->events_next(peer->events, &event) == 1) {
    switch (event.kind) {
    case VERBS_EVENT_REQUEST: answer_request(peer, &event); break;
    case VERBS_EVENT_DISCONNECTED:
      peer->disconnects++;
      end_link(peer, event.link);
      break;
    case VERBS_EVENT_UNREACHABLE:
    case VERBS_EVENT_REMOVED: end_link(peer, event.link); break;
    default: break;
    }
  }
  fake_verbs_excuse(false);
}

static void release_all(struct fake_peer *peer) {
  while (peer->memory_count > 0)
    (void)verbs()->memory_release(peer->memories[--peer->memory_count]);
}

void fake_peer_withdraw(struct fake_peer *peer) {
  fake_verbs_excuse(true);
  release_all(peer);
  fake_verbs_excuse(false);
}

void fake_peer_close(struct fake_peer *peer) {
  fake_verbs_excuse(true);
  while (peer->link_count > 0) end_link(peer, peer->links[0]);
  verbs()->link_end(peer->listener);
  verbs()->link_free(peer->listener);
  int result = verbs()->queue_close(peer->queue);
  assert(result == 0);
  release_all(peer);
  result = verbs()->domain_close(peer->domain);
  assert(result == 0);
  result = verbs()->events_close(peer->events);
  assert(result == 0);
  fake_verbs_excuse(false);
}
