/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The far end of RDMA connections, for tests of a seed over the fake verbs layer: it connects with
 * whatever private data the test likes, and reads. While it waits it ticks the seed. Whatever goes
 * wrong fails the test.
 */
#ifndef TESTS_SUPPORT_RDMA_PEER_H
#define TESTS_SUPPORT_RDMA_PEER_H

#include "net/rdma_handshake.h"
#include "net/wire.h"
#include "tests/support/fake_verbs.h"

/* What a connection has come to. */
enum rdma_peer_state { RDMA_PEER_ASKING, RDMA_PEER_CONNECTED, RDMA_PEER_REJECTED, RDMA_PEER_LEFT };

struct rdma_peer {
  struct verbs_link *link;
  enum rdma_peer_state state;
  enum sprout_status refusal; /* RDMA_PEER_REJECTED: what it means */
  uint8_t read_depth;         /* agreed */
  bool gone;                  /* it was disconnected */
};

/* The side of the peers on the first device. */
void rdma_peers_open(void (*tick)(void));
void rdma_peers_close(void);

/* Asks for a connection with this private data; 0 bytes: none. */
void rdma_peer_ask(struct rdma_peer *peer, const struct wire_endpoint *endpoint, const void *data,
                   uint8_t bytes);
/* With the hello of the endpoint's nonce. */
void rdma_peer_hello(struct rdma_peer *peer, const struct wire_endpoint *endpoint);
/* Until it is connected or rejected. */
enum rdma_peer_state rdma_peer_wait(struct rdma_peer *peer);
/* Takes events that are there. */
void rdma_peer_look(struct rdma_peer *peer);
/* Until it is disconnected. */
void rdma_peer_wait_gone(struct rdma_peer *peer);
/* Whether these bytes can be read; they go to `to`. */
bool rdma_peer_read(struct rdma_peer *peer, uint64_t address, uint32_t key, void *to,
                    uint32_t bytes);
/* Frees it, disconnecting first. */
void rdma_peer_end(struct rdma_peer *peer);
#endif
