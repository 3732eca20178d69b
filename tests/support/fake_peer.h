/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving end of RDMA connections over the fake verbs layer: it listens on one device, takes
 * (or refuses, or ignores) whoever connects, and lets them read its memory. On the test's thread;
 * fake_peer_tick does what there is to do.
 */
#ifndef TESTS_SUPPORT_FAKE_PEER_H
#define TESTS_SUPPORT_FAKE_PEER_H

#include "tests/support/fake_verbs.h"

#define FAKE_PEER_LINKS 32u
#define FAKE_PEER_MEMORIES 64u

enum fake_peer_answer {
  FAKE_PEER_ACCEPTS,
  FAKE_PEER_REFUSES, /* with `refusal` */
  FAKE_PEER_IGNORES
};

struct fake_peer {
  uint32_t device;
  enum fake_peer_answer answer;
  uint8_t serve_depth; /* 16 */
  uint8_t refusal[FAKE_PRIVATE_REJECT_BYTES];
  uint8_t refusal_bytes;

  /* what came */
  uint32_t requests, disconnects;
  uint8_t hello[VERBS_PRIVATE_BYTES]; /* of the last request */
  uint8_t hello_bytes;
  uint8_t asked_depth; /* READs that it wants to have outstanding */

  /* its own */
  struct verbs_events *events;
  struct verbs_domain *domain;
  struct verbs_queue *queue;
  struct verbs_link *listener;
  struct verbs_link *links[FAKE_PEER_LINKS];
  uint32_t link_count;
  struct verbs_memory *memories[FAKE_PEER_MEMORIES];
  uint32_t memory_count;
};

void fake_peer_open(struct fake_peer *peer, uint32_t device);
/* Where it listens. */
struct sockaddr_storage fake_peer_address(const struct fake_peer *peer);
uint16_t fake_peer_port(const struct fake_peer *peer);
/* Lets everybody read this memory; the key. */
uint32_t fake_peer_serve(struct fake_peer *peer, void *address, uint64_t length_bytes);
void fake_peer_tick(struct fake_peer *peer);
/* Takes the memory back under whoever reads it. */
void fake_peer_withdraw(struct fake_peer *peer);
/* Ends all connections and closes. */
void fake_peer_close(struct fake_peer *peer);
#endif
