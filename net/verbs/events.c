/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection manager's events, each copied and acknowledged at once.
 *
 * An event's id is safe until the acknowledgement: rdma_destroy_id, on a worker, waits for it. Its
 * link is safe after that too, because link_free runs on this thread.
 */
#include "net/verbs/private.h"

#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>

int verbs_events_open(struct verbs_events **events_out) {
  struct verbs_events *events = malloc(sizeof *events);
  if (events == NULL) return -ENOMEM;
  events->channel = rdma_create_event_channel();
  int result =
      events->channel == NULL ? verbs_failure() : verbs_set_descriptor_flags(events->channel->fd);
  if (result < 0) {
    if (events->channel != NULL) rdma_destroy_event_channel(events->channel);
    free(events);
    return result;
  }
  *events_out = events;
  return 0;
}

int verbs_events_close(struct verbs_events *events) {
  rdma_destroy_event_channel(events->channel);
  free(events);
  return 0;
}

int verbs_events_fd(struct verbs_events *events) {
  return events->channel->fd;
}

static enum verbs_event_kind kind_of(enum rdma_cm_event_type type) {
  switch (type) {
  case RDMA_CM_EVENT_ADDR_RESOLVED: return VERBS_EVENT_ADDRESS_RESOLVED;
  case RDMA_CM_EVENT_ROUTE_RESOLVED: return VERBS_EVENT_ROUTE_RESOLVED;
  case RDMA_CM_EVENT_CONNECT_REQUEST: return VERBS_EVENT_REQUEST;
  case RDMA_CM_EVENT_ESTABLISHED: return VERBS_EVENT_ESTABLISHED;
  case RDMA_CM_EVENT_REJECTED: return VERBS_EVENT_REJECTED;
  case RDMA_CM_EVENT_ADDR_ERROR:
  case RDMA_CM_EVENT_ROUTE_ERROR:
  case RDMA_CM_EVENT_CONNECT_ERROR:
  case RDMA_CM_EVENT_UNREACHABLE: return VERBS_EVENT_UNREACHABLE;
  case RDMA_CM_EVENT_DISCONNECTED: return VERBS_EVENT_DISCONNECTED;
  case RDMA_CM_EVENT_DEVICE_REMOVAL: return VERBS_EVENT_REMOVED;
  default: return VERBS_EVENT_OTHER;
  }
}

static void copy_peer(struct rdma_cm_id *id, struct verbs_event *event) {
  const struct sockaddr *peer = rdma_get_peer_addr(id);
  if (peer->sa_family == AF_INET) memcpy(&event->peer, peer, sizeof(struct sockaddr_in));
  if (peer->sa_family == AF_INET6) memcpy(&event->peer, peer, sizeof(struct sockaddr_in6));
}

/* What came with a request, its answer or its rejection. */
static void copy_parameters(const struct rdma_conn_param *from, struct verbs_event *event) {
  /* The library speaks of this side: what we may initiate is what the peer serves. */
  event->read_depth = from->responder_resources;
  event->serve_depth = from->initiator_depth;
  if (from->private_data == NULL) return;
  event->private_bytes = from->private_data_len < VERBS_PRIVATE_BYTES
                             ? from->private_data_len
                             : (uint8_t)VERBS_PRIVATE_BYTES;
  memcpy(event->private_data, from->private_data, event->private_bytes);
}

/* False: no memory to hand the request on, it was turned away. */
static bool take_request(const struct rdma_cm_event *from, struct verbs_event *event) {
  event->link = verbs_link_wrap(from->id);
  if (event->link == NULL) {
    rdma_destroy_id(from->id); /* the kernel rejects */
    return false;
  }
  const struct verbs_link *listener = from->listen_id->context;
  event->context = listener->context;
  copy_peer(from->id, event);
  return true;
}

static bool take(const struct rdma_cm_event *from, struct verbs_event *event) {
  *event = (struct verbs_event){
      .kind = kind_of(from->event),
      .native = from->status,
      .text = rdma_event_str(from->event),
  };
  if (event->kind == VERBS_EVENT_REQUEST) {
    copy_parameters(&from->param.conn, event);
    return take_request(from, event);
  }
  event->link = from->id->context;
  event->context = event->link->context;
  if (event->kind == VERBS_EVENT_ESTABLISHED || event->kind == VERBS_EVENT_REJECTED)
    copy_parameters(&from->param.conn, event);
  if (event->kind == VERBS_EVENT_ESTABLISHED && event->link->accepted) {
    event->read_depth = event->link->read_depth;
    event->serve_depth = event->link->serve_depth;
  }
  return true;
}

int verbs_events_next(struct verbs_events *events, struct verbs_event *event_out) {
  for (;;) {
    struct rdma_cm_event *from;
    if (rdma_get_cm_event(events->channel, &from) != 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN ? 0 : verbs_failure();
    }
    struct verbs_event event;
    bool taken = take(from, &event);
    rdma_ack_cm_event(from);
    if (!taken) continue;
    *event_out = event;
    return 1;
  }
}
