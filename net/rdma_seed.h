/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The publication of a seed's memory over RDMA: devices, protection domains, registered slices,
 * listeners, and the connections of forks that may read.
 *
 * The boundary is the connection. A fork is a guest; an invitation gives it one endpoint per rail,
 * each with a nonce of its own that is good for one connection. Who connects with an unused nonce
 * of a guest that is admitted just then gets a queue pair in the publication's domain; everybody
 * else is rejected before there is one. When the guest leaves, its queue pairs stop serving before
 * rdma_guest_leave returns (one that is being accepted on a worker just then: when the worker
 * comes back), and are destroyed on the worker pool. Keys are worth nothing without a queue pair;
 * only the withdrawal deregisters.
 *
 * Life: create -> start -> opened (it listens) -> ready (some memory is registered); at any time
 * failed, after which it withdraws by itself; close -> closed -> destroy.
 *
 * A device that fails takes its rails with it, the others go on; the last one fails the
 * publication.
 *
 * Thread: the reactor's, except create, which may be on any.
 */
#ifndef NET_RDMA_SEED_H
#define NET_RDMA_SEED_H

#include "net/rdma_handshake.h"
#include "net/rdma_memory.h"
#include "net/wire.h"

/* One fork, seen from here. Part of the fork's struct; zeroed is ready for rdma_guest_init. */
struct rdma_guest {
  uint32_t link_count; /* connections that are accepted and not ended */
  bool proven;         /* a nonce of it was accepted once */

  /* the publication's own */
  struct list_node node;  /* while it is invited */
  struct list_node links; /* struct rdma_seed_link */
  struct {
    uint8_t bytes[RDMA_NONCE_BYTES];
    bool unused;
  } nonces[RDMA_RAILS_MAX];
};

struct rdma_seed_listener {
  /* Whether the guest may connect now: it runs and its lease is not over. */
  bool (*admits)(void *context, const struct rdma_guest *guest);
  /* READs that it may have outstanding on one connection. */
  uint32_t (*read_depth)(void *context, const struct rdma_guest *guest);
  /* guest->link_count changed; not told of the guest's own leaving. */
  void (*links_changed)(void *context, struct rdma_guest *guest);
  void (*refused)(void *context, enum rdma_refusal refusal);
  void (*opened)(void *context);
  void (*ready)(void *context);
  /* Once, perhaps from inside start. */
  void (*failed)(void *context, const struct sprout_error *error);
  void *context;
};

struct rdma_seed_options {
  struct sprout_service *service;
  struct rdma_selection selection;
  uint16_t port; /* 0: any free one */
  uint32_t max_links;
  const struct rdma_span *spans; /* copied; their memory outlives the publication */
  size_t span_count;
  uint64_t fence_address; /* in one of the spans; 0: the bytes never change */
  struct rdma_seed_listener listener;
};

struct rdma_seed;

SPROUT_MUST_CHECK enum sprout_status rdma_seed_create(const struct rdma_seed_options *options,
                                                      struct rdma_seed **rdma_out);
void rdma_seed_start(struct rdma_seed *rdma);
/* Every connection stops serving at once; `closed` is called in a later step, when nothing of the
 * publication is left with any device. */
void rdma_seed_close(struct rdma_seed *rdma, void (*closed)(void *context), void *context);
/* Closed, or never started. NULL is allowed. */
void rdma_seed_destroy(struct rdma_seed *rdma);

/* --- guests --- */

void rdma_guest_init(struct rdma_guest *guest);
/*
 * Fresh nonces for the usable rails; those of an earlier invitation are void. Returns how many
 * endpoints there are: 0 when the publication is not open.
 */
uint32_t rdma_seed_invite(struct rdma_seed *rdma, struct rdma_guest *guest,
                          struct wire_endpoint endpoints_out[WIRE_ENDPOINTS_MAX]);
/* Afterwards the struct may be freed. Harmless for who was never invited; rdma NULL: nobody was. */
void rdma_guest_leave(struct rdma_seed *rdma, struct rdma_guest *guest);

/* --- looking at it --- */

enum rdma_seed_state {
  RDMA_SEED_OPENING, /* domains and listeners are being made */
  RDMA_SEED_OPEN,    /* guests may connect; slices become ready */
  RDMA_SEED_CLOSED   /* failed, withdrawing or withdrawn */
};

struct rdma_seed_view {
  enum rdma_seed_state state;
  uint64_t total_bytes, registered_bytes;
  uint32_t slice_count, ready_count;
  uint32_t link_count, pair_count; /* connections in use; queue pairs that exist */
  uint32_t rail_count;
};
void rdma_seed_look(const struct rdma_seed *rdma, struct rdma_seed_view *view_out);

struct rdma_rail_view {
  const char *device;
  uint32_t port;    /* of the device */
  char address[64]; /* numeric */
  uint16_t listens; /* 0: not (any more) */
  bool up;          /* the port is active and the device has not failed */
  uint32_t link_count;
  uint64_t bits_per_second;
};
void rdma_seed_rail(const struct rdma_seed *rdma, uint32_t index, struct rdma_rail_view *view_out);

/* Everything of a placement but generation and objects: the slices from number `since` on, in the
 * order in which they became ready. `since` is at most ready_count. Free it with
 * wire_placement_destroy. */
SPROUT_MUST_CHECK enum sprout_status rdma_seed_placement(const struct rdma_seed *rdma,
                                                         uint64_t since,
                                                         struct wire_placement *placement_out);
#endif
