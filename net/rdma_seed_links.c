/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests and their connections. A connection is accepted and ended on the worker pool; what happens
 * to its guest, its peer or its device meanwhile only marks it as unwanted, and it is ended when
 * the worker comes back.
 */
#include "net/rdma_seed_private.h"

#include "core/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define COMPLAINT_PERIOD_NS 1000000000ull
#define RETRIES 3u

static const char *const refusal_texts[] = {
    [RDMA_REFUSED_MALFORMED] = "it sent no hello of a fork",
    [RDMA_REFUSED_VERSION] = "it speaks another version of the handshake",
    [RDMA_REFUSED_NONCE] = "its nonce is unknown, was used before, or is of a fork that has ended",
    [RDMA_REFUSED_LIMIT] = "there are as many connections as may be",
    [RDMA_REFUSED_LOCAL] = "no queue pair could be made for it",
};

/* --- guests --- */

void rdma_guest_init(struct rdma_guest *guest) {
  *guest = (struct rdma_guest){.proven = false};
  list_init(&guest->node);
  list_init(&guest->links);
}

static void void_nonces(struct rdma_guest *guest) {
  explicit_bzero(guest->nonces, sizeof(guest->nonces));
}

/* With all ports down all are offered: they may be back before the guest connects. */
static bool has_port_up(const struct rdma_seed *rdma) {
  for (uint32_t i = 0; i < rdma->rail_count; i++)
    if (rdma->rails[i].port_up && rdma->rails[i].listens != 0) return true;
  return false;
}

uint32_t rdma_seed_invite(struct rdma_seed *rdma, struct rdma_guest *guest,
                          struct wire_endpoint endpoints_out[WIRE_ENDPOINTS_MAX]) {
  uint8_t nonces[RDMA_RAILS_MAX][RDMA_NONCE_BYTES];
  uint32_t count = 0;
  void_nonces(guest);
  if (rdma->state != RDMA_SEED_OPEN) return 0;
  if (getrandom(nonces, sizeof(nonces), 0) != (ssize_t)sizeof(nonces)) return 0;
  bool any_up = has_port_up(rdma);
  for (uint32_t i = 0; i < rdma->rail_count; i++) {
    struct wire_endpoint *endpoint = &endpoints_out[count];
    if (any_up && !rdma->rails[i].port_up) continue;
    if (!rdma_seed_endpoint(&rdma->rails[i], endpoint)) continue;
    memcpy(guest->nonces[i].bytes, nonces[i], RDMA_NONCE_BYTES);
    memcpy(endpoint->nonce, nonces[i], RDMA_NONCE_BYTES);
    guest->nonces[i].unused = true;
    count++;
  }
  if (count > 0 && !list_linked(&guest->node)) list_append(&rdma->guests, &guest->node);
  return count;
}

/* Whose unused nonce of this rail it is. Looks at all, so that time tells nothing. */
static struct rdma_guest *find_guest(struct rdma_seed *rdma, uint32_t rail,
                                     const uint8_t nonce[RDMA_NONCE_BYTES]) {
  struct rdma_guest *found = NULL;
  struct list_node *node, *next;
  list_for_each_safe (node, next, &rdma->guests) {
    struct rdma_guest *guest = container_of(node, struct rdma_guest, node);
    bool equal = rdma_nonce_equal(guest->nonces[rail].bytes, nonce);
    if (equal && guest->nonces[rail].unused) found = guest;
  }
  return found;
}

/* --- the end of a connection --- */

static void run_end(struct work *work) {
  struct rdma_seed_link *link = container_of(work, struct rdma_seed_link, work);
  link->rail->rdma->verbs->link_end(link->link);
}

static void link_ended(struct work *work) {
  struct rdma_seed_link *link = container_of(work, struct rdma_seed_link, work);
  struct rdma_seed *rdma = link->rail->rdma;
  rdma->verbs->link_free(link->link);
  if (link->has_pair) rdma->pair_count--;
  list_remove(&link->node);
  free(link);
  rdma_seed_step(rdma);
}

static void leave_guest(struct rdma_seed_link *link, bool tell) {
  struct rdma_guest *guest = link->guest;
  struct rdma_seed *rdma = link->rail->rdma;
  bool counted = link->state == LINK_OPEN;
  if (counted) {
    link->rail->link_count--;
    rdma->link_count--;
  }
  if (guest == NULL) return;
  list_remove(&link->guest_node);
  link->guest = NULL;
  if (!counted) return;
  guest->link_count--;
  if (tell) rdma->options.listener.links_changed(rdma->options.listener.context, guest);
}

/* It is not with a worker. */
static void begin_end(struct rdma_seed_link *link, bool tell) {
  leave_guest(link, tell);
  link->state = LINK_ENDING;
  link->work = (struct work){.run = run_end, .done = link_ended};
  reactor_work(link->rail->rdma->reactor, &link->work);
}

/* From the return on it serves no READ, unless it is just being accepted. */
static void drop(struct rdma_seed_link *link, bool tell) {
  switch (link->state) {
  case LINK_ACCEPTING: atomic_store(&link->unwanted, true); break;
  case LINK_OPEN:
    (void)link->rail->rdma->verbs->link_disconnect(link->link);
    begin_end(link, tell);
    break;
  case LINK_ENDING: break;
  }
}

void rdma_seed_drop_links(struct rdma_seed *rdma, const struct rdma_device *device) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &rdma->links) {
    struct rdma_seed_link *link = container_of(node, struct rdma_seed_link, node);
    if (device == NULL || link->rail->device == device) drop(link, true);
  }
}

void rdma_guest_leave(struct rdma_seed *rdma, struct rdma_guest *guest) {
  struct list_node *node, *next;
  if (rdma == NULL) return;
  list_remove(&guest->node);
  void_nonces(guest);
  list_for_each_safe (node, next, &guest->links) {
    struct rdma_seed_link *link = container_of(node, struct rdma_seed_link, guest_node);
    drop(link, false);
    if (link->guest == NULL) continue;
    list_remove(&link->guest_node); /* with a worker, which looks at `unwanted` */
    link->guest = NULL;
  }
  guest->link_count = 0;
}

/* --- requests --- */

static void complain(struct rdma_seed *rdma, const struct sockaddr_storage *peer,
                     enum rdma_refusal refusal) {
  char text[INET6_ADDRSTRLEN] = "?";
  uint64_t now_ns = reactor_now(rdma->reactor);
  rdma->options.listener.refused(rdma->options.listener.context, refusal);
  /* Strangers must not fill the log. */
  if (rdma->complained_ns != 0 && now_ns - rdma->complained_ns < COMPLAINT_PERIOD_NS) return;
  rdma->complained_ns = now_ns;
  if (peer->ss_family == AF_INET)
    (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, text,
                    sizeof(text));
  if (peer->ss_family == AF_INET6)
    (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, text,
                    sizeof(text));
  log_write(LOG_WARNING, "rdma", "refused an RDMA connection from %s: %s", text,
            refusal_texts[refusal]);
}

static void reject(struct rdma_seed *rdma, struct verbs_link *link, enum rdma_refusal refusal) {
  uint8_t data[RDMA_REFUSAL_BYTES];
  rdma_refusal_encode(refusal, data);
  (void)rdma->verbs->link_reject(link, data, sizeof(data));
}

static struct rdma_seed_link *make_link(struct rdma_seed_rail *rail,
                                        struct verbs_link *verbs_link) {
  struct rdma_seed_link *link = calloc(1, sizeof(*link));
  if (link == NULL) return NULL;
  link->rail = rail;
  link->link = verbs_link;
  atomic_init(&link->unwanted, false);
  list_init(&link->guest_node);
  list_append(&rail->rdma->links, &link->node);
  return link;
}

/* Rejects and ends what a listener was given. */
static void turn_away(struct rdma_seed_rail *rail, const struct verbs_event *event,
                      enum rdma_refusal refusal) {
  struct rdma_seed *rdma = rail->rdma;
  complain(rdma, &event->peer, refusal);
  reject(rdma, event->link, refusal);
  struct rdma_seed_link *link = make_link(rail, event->link);
  if (link != NULL) {
    begin_end(link, false);
    return;
  }
  /* Better to block for once than to keep it. */
  rdma->verbs->link_end(event->link);
  rdma->verbs->link_free(event->link);
}

static void run_accept(struct work *work) {
  struct rdma_seed_link *link = container_of(work, struct rdma_seed_link, work);
  const struct rdma_seed *rdma = link->rail->rdma;
  const struct rdma_seed_domain *domain = &rdma->domains[link->rail->domain];
  const struct verbs_link_limits limits = {.requests = 0, .segments = 0};
  const struct verbs_connect parameters = {.serve_depth = link->depth, .retries = RETRIES};
  link->native = -ECANCELED;
  if (atomic_load(&link->unwanted)) return;
  link->native = rdma->verbs->link_make_pair(link->link, domain->domain, domain->queue, &limits);
  if (link->native != 0) return;
  link->native =
      atomic_load(&link->unwanted) ? -ECANCELED : rdma->verbs->link_accept(link->link, &parameters);
}

static void accept_failed(struct rdma_seed_link *link) {
  bool cancelled = link->native == -ECANCELED;
  struct rdma_seed *rdma = link->rail->rdma;
  if (!cancelled) {
    log_write(LOG_ERROR, "rdma", "an RDMA connection over %s cannot be accepted: %s",
              link->rail->device->info.name, strerror(-link->native));
    rdma->options.listener.refused(rdma->options.listener.context, RDMA_REFUSED_LOCAL);
  }
  reject(rdma, link->link, cancelled ? RDMA_REFUSED_NONCE : RDMA_REFUSED_LOCAL);
  begin_end(link, false);
}

static void accepted(struct work *work) {
  struct rdma_seed_link *link = container_of(work, struct rdma_seed_link, work);
  struct rdma_seed *rdma = link->rail->rdma;
  if (link->native != 0) {
    accept_failed(link);
    return;
  }
  link->state = LINK_OPEN;
  link->rail->link_count++;
  rdma->link_count++;
  if (link->guest != NULL) link->guest->link_count++;
  if (atomic_load(&link->unwanted)) {
    drop(link, false);
    return;
  }
  rdma->options.listener.links_changed(rdma->options.listener.context, link->guest);
}

static void link_event(struct rdma_link_owner *owner, const struct verbs_event *event) {
  struct rdma_seed_link *link = container_of(owner, struct rdma_seed_link, owner);
  switch (event->kind) {
  case VERBS_EVENT_DISCONNECTED:
  case VERBS_EVENT_UNREACHABLE:
  case VERBS_EVENT_REJECTED:
  case VERBS_EVENT_REMOVED: drop(link, true); break;
  case VERBS_EVENT_ADDRESS_RESOLVED:
  case VERBS_EVENT_ROUTE_RESOLVED:
  case VERBS_EVENT_REQUEST:
  case VERBS_EVENT_ESTABLISHED:
  case VERBS_EVENT_OTHER: break;
  }
}

/* As deep as the device, the peer and the grant allow. */
static uint8_t depth_of(const struct rdma_seed_rail *rail, const struct rdma_guest *guest,
                        const struct verbs_event *event) {
  const struct rdma_seed_listener *listener = &rail->rdma->options.listener;
  uint32_t depth = listener->read_depth(listener->context, guest);
  if (depth > rail->device->info.serve_depth) depth = rail->device->info.serve_depth;
  if (depth > event->read_depth) depth = event->read_depth;
  return (uint8_t)(depth > 0 ? depth : 1);
}

/* Who it is; NULL: *refusal_out says why not. The nonce is used up. */
static struct rdma_guest *recognise(struct rdma_seed_rail *rail, const struct verbs_event *event,
                                    enum rdma_refusal *refusal_out) {
  struct rdma_seed *rdma = rail->rdma;
  const struct rdma_seed_listener *listener = &rdma->options.listener;
  uint32_t index = (uint32_t)(rail - rdma->rails);
  uint8_t nonce[RDMA_NONCE_BYTES];
  if (!rdma_hello_decode(event->private_data, event->private_bytes, nonce, refusal_out))
    return NULL;
  *refusal_out = RDMA_REFUSED_NONCE;
  struct rdma_guest *guest = find_guest(rdma, index, nonce);
  if (guest == NULL) return NULL;
  explicit_bzero(&guest->nonces[index], sizeof(guest->nonces[index]));
  if (!listener->admits(listener->context, guest)) return NULL;
  *refusal_out = RDMA_REFUSED_LIMIT;
  return rdma->pair_count < rdma->options.max_links ? guest : NULL;
}

static void request(struct rdma_seed_rail *rail, const struct verbs_event *event) {
  struct rdma_seed *rdma = rail->rdma;
  enum rdma_refusal refusal = RDMA_REFUSED_NONCE;
  struct rdma_guest *guest = NULL;
  if (rdma->state == RDMA_SEED_OPEN && rail->listens != 0) guest = recognise(rail, event, &refusal);
  if (guest == NULL) {
    turn_away(rail, event, refusal);
    return;
  }
  struct rdma_seed_link *link = NULL;
  if (rdma->verbs->link_device(event->link) == rail->device->info.device)
    link = make_link(rail, event->link);
  if (link == NULL) {
    turn_away(rail, event, RDMA_REFUSED_LOCAL);
    return;
  }
  link->owner.event = link_event;
  link->guest = guest;
  link->has_pair = true;
  link->depth = depth_of(rail, guest, event);
  link->work = (struct work){.run = run_accept, .done = accepted};
  list_append(&guest->links, &link->guest_node);
  guest->proven = true;
  rdma->pair_count++;
  rdma->verbs->link_set_context(event->link, &link->owner);
  reactor_work(rdma->reactor, &link->work);
}

void rdma_seed_listener_event(struct rdma_link_owner *owner, const struct verbs_event *event) {
  struct rdma_seed_rail *rail = container_of(owner, struct rdma_seed_rail, owner);
  if (event->kind == VERBS_EVENT_REQUEST) request(rail, event);
  if (event->kind != VERBS_EVENT_REMOVED) return;
  log_write(LOG_WARNING, "rdma", "%s takes no RDMA connections any more", rail->device->info.name);
  rdma_seed_lose_listener(rail);
}
