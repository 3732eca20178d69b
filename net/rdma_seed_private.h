/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a publication: rdma_seed.c makes and withdraws it, rdma_seed_links.c has its guests and
 * their connections.
 */
#ifndef NET_RDMA_SEED_PRIVATE_H
#define NET_RDMA_SEED_PRIVATE_H

#include "net/rdma_seed.h"

#include <stdatomic.h>

struct rdma_seed_rail {
  struct rdma_link_owner owner; /* of the listener */
  struct rdma_seed *rdma;
  struct rdma_device *device;
  uint32_t domain; /* index */
  struct verbs_port port;
  struct verbs_link *listener; /* NULL: it does not listen (any more) */
  uint16_t listens;
  bool port_up;
  uint32_t link_count;
  struct work end_work;
};

/* What there is of one device. */
struct rdma_seed_domain {
  struct rdma_device *device;
  struct verbs_domain *domain;
  struct verbs_queue *queue; /* of all its queue pairs; nothing is ever posted on them */
};

enum link_state {
  LINK_ACCEPTING, /* waits for a worker that makes the queue pair and accepts */
  LINK_OPEN,      /* accepted; waits for its guest or its peer to leave */
  LINK_ENDING     /* waits for a worker that ends it */
};

struct rdma_seed_link {
  struct rdma_link_owner owner;
  struct rdma_seed_rail *rail;
  struct rdma_guest *guest; /* NULL: it has left, or never was */
  struct verbs_link *link;
  enum link_state state;
  bool has_pair;
  atomic_bool unwanted; /* the guest, the peer or the publication went away meanwhile */
  uint8_t depth;
  int native; /* of accepting */
  struct work work;
  struct list_node node;       /* in rdma->links */
  struct list_node guest_node; /* in guest->links */
};

struct rdma_seed {
  struct rdma_seed_options options; /* spans: our copy */
  const struct verbs *verbs;
  struct reactor *reactor;
  struct rdma_host *host;
  struct rdma_watch watch;
  bool watching;
  enum rdma_seed_state state;
  bool started;

  struct rdma_seed_rail rails[RDMA_RAILS_MAX];
  uint32_t rail_count;
  struct rdma_seed_domain domains[RDMA_RAILS_MAX];
  uint32_t domain_count;
  struct rdma_memory *memory;
  uint32_t *order; /* slices in the order in which they became ready */
  uint32_t ready_count;
  uint64_t registered_bytes;

  struct list_node guests;
  struct list_node links;
  uint32_t pair_count, link_count;
  uint64_t complained_ns; /* when a refusal was last logged */

  /* blocking calls and their results */
  struct work open_work, close_work;
  int native;
  const char *failed_device;
  uint32_t busy; /* of them and of ends of listeners: with the workers */

  /* withdrawal */
  bool memory_closing, domains_closing, withdrawn;
  struct deferred closed_later;
  void (*closed)(void *context);
  void *closed_context;
};

/* rdma_seed.c */
/* Goes on with a withdrawal, when there is one. */
void rdma_seed_step(struct rdma_seed *rdma);
/* Where to connect once the port is up, but for the nonce; false: nowhere. */
bool rdma_seed_endpoint(const struct rdma_seed_rail *rail, struct wire_endpoint *endpoint_out);
/* The listener's device goes away: nobody connects over this rail any more. */
void rdma_seed_lose_listener(struct rdma_seed_rail *rail);

/* rdma_seed_links.c */
/* Event of a listener. */
void rdma_seed_listener_event(struct rdma_link_owner *owner, const struct verbs_event *event);
/* Ends the connections of this device; of all with NULL. */
void rdma_seed_drop_links(struct rdma_seed *rdma, const struct rdma_device *device);
#endif
