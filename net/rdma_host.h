/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The RDMA devices of a service: found, chosen, opened once and shared by its seeds and forks; and
 * the descriptors that the reactor watches for them.
 *
 * Finding and choosing block (rdma_select, on any thread but the reactor's); the host itself lives
 * on the reactor's thread. It dispatches events to their owners: every verbs_queue and verbs_link
 * that is made for a host has one of the owner structs below as its context.
 */
#ifndef NET_RDMA_HOST_H
#define NET_RDMA_HOST_H

#include "core/reactor.h"
#include "net/rdma_verbs.h"
#include "net/service.h"

#define RDMA_RAILS_MAX 8u

/* What the user asked for. */
struct rdma_wish {
  const char *devices; /* comma list of names, each perhaps with ":PORT"; NULL, "" or "auto": all
                          with an active port and an address */
  int32_t gid_index;   /* -1: chosen by address */
};

/* One device and port to use: a rail. */
struct rdma_choice {
  struct verbs_device_info device;
  struct verbs_port port;
};

struct rdma_selection {
  const struct verbs *verbs;
  uint32_t count; /* 1 .. RDMA_RAILS_MAX */
  struct rdma_choice rails[RDMA_RAILS_MAX];
};

/*
 * Loads the module and picks devices. SPROUT_UNSUPPORTED: no module, no device, none with an active
 * port and an address, or may not be opened; SPROUT_INVALID: a named device is not there. One clear
 * sentence and the remedy; error->native is ENODEV when the machine has no device at all. Blocks;
 * any thread.
 */
SPROUT_MUST_CHECK enum sprout_status rdma_select(const struct rdma_wish *wish,
                                                 struct rdma_selection *selection_out,
                                                 struct sprout_error *error);

struct rdma_host;

/* Context of a queue that is made on a device's channel. `ready`: an event came, acknowledge it
 * (one) and poll. */
struct rdma_queue_owner {
  void (*ready)(struct rdma_queue_owner *owner);
};

/* Context of a link. For VERBS_EVENT_REQUEST the listener's owner is called; the new link has no
 * owner (its events are dropped) until link_set_context. */
struct rdma_link_owner {
  void (*event)(struct rdma_link_owner *owner, const struct verbs_event *event);
};

/* A device that the host holds open. */
struct rdma_device {
  struct rdma_host *host;
  struct verbs_device_info info;
  struct verbs_channel *channel; /* of completion queues that somebody waits for */
  bool failed;                   /* fatal: every link on it is to be closed */
  uint32_t armed; /* queues of the channel that will make an event, as far as owners count */

  /* the host's own */
  struct ring_op channel_poll, async_poll;
  struct list_node node;
};

/* Told of what happens to devices. Registered by seeds (gauges) and lanes (fatal). */
struct rdma_watch {
  void (*port)(struct rdma_watch *watch, struct rdma_device *device, uint32_t port, bool up);
  void (*failed)(struct rdma_watch *watch, struct rdma_device *device);
  struct list_node node;
};

/* All on the reactor's thread. The host of the service, made on first use with the selection's
 * devices opened; devices_out[i] is that of rails[i]. */
SPROUT_MUST_CHECK enum sprout_status rdma_host_get(struct sprout_service *service,
                                                   const struct rdma_selection *selection,
                                                   struct rdma_host **host_out,
                                                   struct rdma_device *devices_out[RDMA_RAILS_MAX],
                                                   struct sprout_error *error);
const struct verbs *rdma_host_verbs(const struct rdma_host *host);
struct reactor *rdma_host_reactor(const struct rdma_host *host);
/* The connection manager's channel for link_open. */
struct verbs_events *rdma_host_events(const struct rdma_host *host);
/* Each watch is unwatched once. */
void rdma_host_watch(struct rdma_host *host, struct rdma_watch *watch);
void rdma_host_unwatch(struct rdma_host *host, struct rdma_watch *watch);
/* Called by the service when it ends: nothing uses the host any more; ticks the reactor itself. */
void rdma_host_destroy(struct rdma_host *host);
#endif
