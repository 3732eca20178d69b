/* SPDX-License-Identifier: Apache-2.0 */
/* A link's life, and finding the way. */
#include "net/verbs/private.h"

#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>
#include <string.h>

struct verbs_link *verbs_link_wrap(struct rdma_cm_id *id) {
  struct verbs_link *link = calloc(1, sizeof *link);
  if (link == NULL) return NULL;
  link->id = id;
  id->context = link;
  return link;
}

int verbs_link_open(struct verbs_events *events, void *context, struct verbs_link **link_out) {
  struct rdma_cm_id *id;
  int result = verbs_result(rdma_create_id(events->channel, &id, NULL, RDMA_PS_TCP));
  if (result < 0) return result;
  struct verbs_link *link = verbs_link_wrap(id);
  if (link == NULL) {
    rdma_destroy_id(id);
    return -ENOMEM;
  }
  link->context = context;
  *link_out = link;
  return 0;
}

void verbs_link_set_context(struct verbs_link *link, void *context) {
  link->context = context;
}

/*
 * The id goes before its queue pair, against the library's custom: the reactor may be inside
 * rdma_get_cm_event with an event of this id and change the state of id->qp there. rdma_destroy_id
 * waits until that event is acknowledged; afterwards nobody else knows the queue pair.
 */
void verbs_link_end(struct verbs_link *link) {
  if (link->id == NULL) return;
  struct ibv_qp *pair = link->id->qp;
  (void)verbs_link_disconnect(link);
  /* Fails only when the kernel does not know the id: nothing is left to wait for then. */
  (void)rdma_destroy_id(link->id);
  link->id = NULL;
  if (pair != NULL) ibv_destroy_qp(pair);
}

void verbs_link_free(struct verbs_link *link) {
  verbs_link_end(link);
  free(link->requests);
  free(link);
}

static socklen_t length_of(const struct sockaddr *address) {
  if (address->sa_family == AF_INET) return sizeof(struct sockaddr_in);
  return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : 0;
}

/* The library takes addresses that it may change. */
static struct sockaddr *copy_address(const struct sockaddr *from, struct sockaddr_storage *to) {
  socklen_t length = from != NULL ? length_of(from) : 0;
  if (length == 0) return NULL;
  memset(to, 0, sizeof *to);
  memcpy(to, from, length);
  return (struct sockaddr *)to;
}

int verbs_link_listen(struct verbs_link *link, const struct sockaddr *address, uint32_t backlog) {
  if (link->id == NULL) return -ENOTCONN;
  struct sockaddr_storage storage;
  struct sockaddr *local = copy_address(address, &storage);
  if (local == NULL) return -EAFNOSUPPORT;
  /* As SO_REUSEADDR: what is left of earlier connections does not hold the port, while a second
   * listener on it is still refused. */
  int reuse = 1;
  int result = verbs_result(
      rdma_set_option(link->id, RDMA_OPTION_ID, RDMA_OPTION_ID_REUSEADDR, &reuse, sizeof reuse));
  if (result == 0) result = verbs_result(rdma_bind_addr(link->id, local));
  if (result == 0)
    result = verbs_result(rdma_listen(link->id, backlog < INT32_MAX ? (int)backlog : INT32_MAX));
  return result;
}

uint16_t verbs_link_port(struct verbs_link *link) {
  return link->id != NULL ? ntohs(rdma_get_src_port(link->id)) : 0;
}

static int milliseconds(uint32_t timeout_ms) {
  return timeout_ms < INT32_MAX ? (int)timeout_ms : INT32_MAX;
}

int verbs_link_resolve_address(struct verbs_link *link, const struct sockaddr *local,
                               const struct sockaddr *peer, uint32_t timeout_ms) {
  if (link->id == NULL) return -ENOTCONN;
  struct sockaddr_storage from, to;
  struct sockaddr *source = copy_address(local, &from), *target = copy_address(peer, &to);
  if (target == NULL || (local != NULL && source == NULL)) return -EAFNOSUPPORT;
  return verbs_result(rdma_resolve_addr(link->id, source, target, milliseconds(timeout_ms)));
}

int verbs_link_resolve_route(struct verbs_link *link, uint32_t timeout_ms) {
  if (link->id == NULL) return -ENOTCONN;
  return verbs_result(rdma_resolve_route(link->id, milliseconds(timeout_ms)));
}

struct verbs_device *verbs_link_device(struct verbs_link *link) {
  return link->id != NULL && link->id->verbs != NULL ? verbs_device_of(link->id->verbs) : NULL;
}
