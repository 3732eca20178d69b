/* SPDX-License-Identifier: Apache-2.0 */
/* The connection manager of the fake verbs layer. */
#include "tests/support/fake_verbs_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

/* --- events ------------------------------------------------------------------------------------
 */

int fake_events_open(struct verbs_events **events_out) {
  int fault = fake_enter(FAKE_EVENTS_OPEN);
  if (fault < 0) return fake_leave(FAKE_EVENTS_OPEN, fault);
  struct verbs_events *events = fake_take(sizeof *events);
  *events = (struct verbs_events){.alive = true, .fd = fake_signal_open()};
  list_init(&events->events);
  fake.counts.events++;
  *events_out = events;
  return fake_leave(FAKE_EVENTS_OPEN, 0);
}

int fake_events_close(struct verbs_events *events) {
  fake_lock();
  FAKE_REQUIRE(events->alive, "closed twice");
  FAKE_REQUIRE(events->links == 0, "links still use it");
  events->alive = false;
  (void)close(events->fd);
  fake.counts.events--;
  fake_unlock();
  return 0;
}

int fake_events_fd(struct verbs_events *events) {
  return events->fd;
}

static const char *text_of(enum verbs_event_kind kind) {
  static const char *const texts[] = {[VERBS_EVENT_ADDRESS_RESOLVED] = "address resolved",
                                      [VERBS_EVENT_ROUTE_RESOLVED] = "route resolved",
                                      [VERBS_EVENT_REQUEST] = "connect request",
                                      [VERBS_EVENT_ESTABLISHED] = "established",
                                      [VERBS_EVENT_REJECTED] = "rejected",
                                      [VERBS_EVENT_UNREACHABLE] = "unreachable",
                                      [VERBS_EVENT_DISCONNECTED] = "disconnected",
                                      [VERBS_EVENT_REMOVED] = "device removed",
                                      [VERBS_EVENT_OTHER] = "timewait exit"};
  return texts[kind];
}

static struct verbs_event *push(struct verbs_link *link, enum verbs_event_kind kind, int native) {
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "an event for a link that has ended");
  struct fake_event *event = fake_take(sizeof *event);
  event->event =
      (struct verbs_event){.kind = kind, .link = link, .native = native, .text = text_of(kind)};
  list_append(&link->events->events, &event->node);
  fake_signal_raise(link->events->fd);
  return &event->event;
}

/* Private data as it arrives: padded with zeros. */
static void put_private(struct verbs_event *event, const void *data, uint8_t bytes,
                        uint8_t padded_bytes) {
  if (bytes > 0) memcpy(event->private_data, data, bytes);
  event->private_bytes = padded_bytes;
}

int fake_events_next(struct verbs_events *events, struct verbs_event *event_out) {
  fake_lock();
  FAKE_REQUIRE(events->alive, "the event channel is closed");
  struct list_node *node = list_take(&events->events);
  if (list_empty(&events->events)) fake_signal_clear(events->fd);
  if (node != NULL) {
    struct fake_event *event = container_of(node, struct fake_event, node);
    *event_out = event->event;
    struct verbs_link *link = event->event.link;
    event_out->context = event->listener != NULL ? event->listener->context : link->context;
    if (event->listener != NULL) {
      event->listener->requests_waiting--;
      link->listener = NULL;
    }
    fake_give(event, sizeof *event);
  }
  fake_unlock();
  return node != NULL ? 1 : 0;
}

/* --- links -------------------------------------------------------------------------------------
 */

static struct verbs_link *make_link(struct verbs_events *events, void *context,
                                    enum fake_side side) {
  FAKE_REQUIRE(events->alive, "the event channel is closed");
  struct verbs_link *link = fake_take(sizeof *link);
  link->events = events;
  link->context = context;
  link->side = side;
  list_init(&link->requests);
  list_init(&link->held);
  list_append(&fake.links, &link->node);
  list_append(&fake.turns, &link->turn);
  events->links++;
  fake.counts.links++;
  return link;
}

int fake_link_open(struct verbs_events *events, void *context, struct verbs_link **link_out) {
  int fault = fake_enter(FAKE_LINK_OPEN);
  if (fault == 0) *link_out = make_link(events, context, FAKE_CONNECTING);
  return fake_leave(FAKE_LINK_OPEN, fault);
}

void fake_link_set_context(struct verbs_link *link, void *context) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  link->context = context;
  fake_unlock();
}

static void release_link(struct verbs_link *link) {
  link->state = FAKE_LINK_FREED;
  list_remove(&link->node);
  list_remove(&link->turn);
  link->events->links--;
  fake.counts.links--;
}

/* The connecting side learns that nobody takes it. */
static void refuse_peer(struct verbs_link *link, int native) {
  struct verbs_link *peer = link->peer;
  if (peer == NULL || peer->state != FAKE_LINK_ASKING) return;
  peer->state = FAKE_LINK_OVER;
  peer->peer = NULL;
  struct verbs_event *event = push(peer, VERBS_EVENT_REJECTED, native);
  put_private(event, NULL, 0, FAKE_PRIVATE_REJECT_BYTES);
}

/* The other end of `link` has gone with a word. */
static void tell_disconnected(struct verbs_link *link) {
  if (link == NULL || link->state >= FAKE_LINK_ENDED || link->told_disconnected) return;
  link->told_disconnected = true;
  (void)push(link, VERBS_EVENT_DISCONNECTED, 0);
}

static void leave_peer(struct verbs_link *link) {
  struct verbs_link *peer = link->peer;
  if (peer == NULL || peer->state != FAKE_LINK_CONNECTED) return;
  peer->peer_gone = true;
  tell_disconnected(peer);
}

/* Events of the link; those of a listener are requests that nobody will take. */
static void drop_events(struct verbs_link *link) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &link->events->events) {
    struct fake_event *event = container_of(node, struct fake_event, node);
    if (event->event.link != link && event->listener != link) continue;
    if (event->listener == link) {
      refuse_peer(event->event.link, FAKE_REJECTED_NOBODY);
      release_link(event->event.link);
    }
    list_remove(&event->node);
    fake_give(event, sizeof *event);
  }
  if (list_empty(&link->events->events)) fake_signal_clear(link->events->fd);
}

void fake_link_end(struct verbs_link *link) {
  (void)fake_enter(FAKE_LINK_END);
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "ended twice");
  drop_events(link);
  if (link->state == FAKE_LINK_REQUESTED) refuse_peer(link, FAKE_REJECTED_NOBODY);
  if (link->state == FAKE_LINK_CONNECTED) leave_peer(link);
  fake_pair_release(link);
  link->pair_error = true;
  link->state = FAKE_LINK_ENDED;
  (void)fake_leave(FAKE_LINK_END, 0);
}

void fake_link_free(struct verbs_link *link) {
  fake_lock();
  FAKE_REQUIRE(link->state != FAKE_LINK_FREED, "freed twice");
  FAKE_REQUIRE(link->state == FAKE_LINK_ENDED, "link_end comes first");
  release_link(link);
  fake_unlock();
}

void fake_link_removed(struct verbs_link *link) {
  if (link->state >= FAKE_LINK_ENDED) return;
  link->pair_error = true;
  if (link->peer != NULL) link->peer->peer_gone = true;
  (void)push(link, VERBS_EVENT_REMOVED, 0);
  fake_pair_pump(link);
}

/* --- addresses ---------------------------------------------------------------------------------
 */

static bool same_ip(const struct sockaddr_storage *address, const char *text) {
  unsigned char ip[sizeof(struct in6_addr)];
  if (text == NULL || inet_pton(address->ss_family, text, ip) != 1) return false;
  if (address->ss_family == AF_INET)
    return memcmp(&((const struct sockaddr_in *)(const void *)address)->sin_addr, ip, 4) == 0;
  return memcmp(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, ip, 16) == 0;
}

static struct verbs_device *device_at(const struct sockaddr_storage *address) {
  for (uint32_t i = 0; i < fake.device_count; i++) {
    struct verbs_device *device = &fake.devices[i];
    for (uint32_t p = 0; p < device->config.ports && !device->removed; p++)
      for (uint32_t g = 0; g < FAKE_GIDS_MAX; g++)
        if (same_ip(address, device->config.port[p].gids[g])) return device;
  }
  return NULL;
}

static struct sockaddr_storage stored(const struct sockaddr *address) {
  struct sockaddr_storage storage = {0};
  memcpy(&storage, address,
         address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
  return storage;
}

static uint16_t *port_of(struct sockaddr_storage *address) {
  if (address->ss_family == AF_INET6) return &((struct sockaddr_in6 *)(void *)address)->sin6_port;
  return &((struct sockaddr_in *)(void *)address)->sin_port;
}

static bool is_any(const struct sockaddr_storage *address) {
  return same_ip(address, address->ss_family == AF_INET6 ? "::" : "0.0.0.0");
}

static struct verbs_link *listener_at(struct sockaddr_storage *address) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fake.links) {
    struct verbs_link *link = container_of(node, struct verbs_link, node);
    if (link->state != FAKE_LINK_BOUND || *port_of(&link->address) != *port_of(address)) continue;
    if (is_any(&link->address) || is_any(address) ||
        memcmp(&link->address, address, sizeof *address) == 0)
      return link;
  }
  return NULL;
}

static int bind_listener(struct verbs_link *link, const struct sockaddr *address,
                         uint32_t backlog) {
  FAKE_REQUIRE(link->state == FAKE_LINK_NEW, "the link is in use");
  struct sockaddr_storage own = stored(address);
  struct verbs_device *device = device_at(&own);
  if (device == NULL && !is_any(&own)) return -EADDRNOTAVAIL;
  if (*port_of(&own) == 0) *port_of(&own) = htons(fake.next_port++);
  if (listener_at(&own) != NULL) return -EADDRINUSE;
  link->address = own;
  link->device = device;
  link->backlog = backlog;
  link->side = FAKE_LISTENING;
  link->state = FAKE_LINK_BOUND;
  return 0;
}

int fake_link_listen(struct verbs_link *link, const struct sockaddr *address, uint32_t backlog) {
  int result = fake_enter(FAKE_LINK_LISTEN);
  if (result == 0) result = bind_listener(link, address, backlog);
  return fake_leave(FAKE_LINK_LISTEN, result);
}

uint16_t fake_link_port(struct verbs_link *link) {
  fake_lock();
  FAKE_REQUIRE(link->state == FAKE_LINK_BOUND, "it does not listen");
  uint16_t port = ntohs(*port_of(&link->address));
  fake_unlock();
  return port;
}

/* Whether this stage has trouble ahead, which is then all that happens. */
static bool troubled(struct verbs_link *link, enum fake_stage stage) {
  if (fake.hangs[stage]) return true;
  if (fake.unreachable[stage] == 0) return false;
  link->state = FAKE_LINK_OVER;
  (void)push(link, VERBS_EVENT_UNREACHABLE, -fake.unreachable[stage]);
  fake.unreachable[stage] = 0;
  return true;
}

int fake_link_resolve_address(struct verbs_link *link, const struct sockaddr *local,
                              const struct sockaddr *peer, uint32_t timeout_ms) {
  (void)timeout_ms;
  int fault = fake_enter(FAKE_LINK_RESOLVE_ADDRESS);
  FAKE_REQUIRE(link->state == FAKE_LINK_NEW, "the link is in use");
  link->address = stored(peer);
  struct sockaddr_storage from = local != NULL ? stored(local) : link->address;
  struct verbs_device *device = device_at(&from);
  if (fault == 0 && device == NULL) fault = -ENODEV;
  if (fault < 0) return fake_leave(FAKE_LINK_RESOLVE_ADDRESS, fault);
  link->state = FAKE_LINK_ADDRESS_ASKED;
  if (!troubled(link, FAKE_STAGE_ADDRESS)) {
    link->device = device;
    link->state = FAKE_LINK_ADDRESS;
    (void)push(link, VERBS_EVENT_ADDRESS_RESOLVED, 0);
  }
  return fake_leave(FAKE_LINK_RESOLVE_ADDRESS, 0);
}

int fake_link_resolve_route(struct verbs_link *link, uint32_t timeout_ms) {
  (void)timeout_ms;
  int fault = fake_enter(FAKE_LINK_RESOLVE_ROUTE);
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  if (fault == 0 && link->state != FAKE_LINK_ADDRESS) fault = -EINVAL;
  if (fault < 0) return fake_leave(FAKE_LINK_RESOLVE_ROUTE, fault);
  link->state = FAKE_LINK_ROUTE_ASKED;
  if (!troubled(link, FAKE_STAGE_ROUTE)) {
    link->state = FAKE_LINK_ROUTE;
    (void)push(link, VERBS_EVENT_ROUTE_RESOLVED, 0);
  }
  return fake_leave(FAKE_LINK_RESOLVE_ROUTE, 0);
}

struct verbs_device *fake_link_device(struct verbs_link *link) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  struct verbs_device *device = link->device;
  fake_unlock();
  return device;
}

/* --- connections -------------------------------------------------------------------------------
 */

static int make_pair(struct verbs_link *link, struct verbs_domain *domain,
                     struct verbs_queue *queue, const struct verbs_link_limits *limits) {
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  FAKE_REQUIRE(link->domain == NULL, "it has a queue pair already");
  FAKE_REQUIRE(domain->alive && queue->alive, "domain or queue is closed");
  if (link->device == NULL) return -EINVAL;
  FAKE_REQUIRE(domain->device == link->device && queue->device == link->device,
               "domain or queue is of another device");
  if (link->device->removed) return -EIO;
  if (limits->requests > link->device->config.max_requests ||
      limits->segments > link->device->config.max_segments || limits->segments > FAKE_SEGMENTS_MAX)
    return -EINVAL;
  link->domain = domain;
  link->queue = queue;
  link->limits = *limits;
  domain->pairs++;
  queue->pairs++;
  fake.counts.pairs++;
  return 0;
}

int fake_link_make_pair(struct verbs_link *link, struct verbs_domain *domain,
                        struct verbs_queue *queue, const struct verbs_link_limits *limits) {
  int result = fake_enter(FAKE_LINK_MAKE_PAIR);
  if (result == 0) result = make_pair(link, domain, queue, limits);
  return fake_leave(FAKE_LINK_MAKE_PAIR, result);
}

static int check_offer(const struct verbs_link *link, const struct verbs_connect *offer,
                       uint8_t private_max) {
  if (link->domain == NULL || offer->private_bytes > private_max || offer->retries > 7 ||
      offer->ack_timeout > 31)
    return -EINVAL;
  if (link->device->removed) return -EIO;
  return offer->read_depth > link->device->config.read_depth ||
                 offer->serve_depth > link->device->config.serve_depth
             ? -EINVAL
             : 0;
}

static uint8_t least(uint8_t a, uint8_t b) {
  return a < b ? a : b;
}

static void request(struct verbs_link *link, struct verbs_link *listener,
                    const struct verbs_connect *offer) {
  struct verbs_link *child = make_link(listener->events, NULL, FAKE_SERVING);
  child->state = FAKE_LINK_REQUESTED;
  child->device = device_at(&link->address);
  child->peer = link;
  child->listener = listener;
  link->peer = child;
  listener->requests_waiting++;
  struct verbs_event *event = push(child, VERBS_EVENT_REQUEST, 0);
  container_of(event, struct fake_event, event)->listener = listener;
  event->read_depth = offer->read_depth;
  event->serve_depth = offer->serve_depth;
  put_private(event, offer->private_data, offer->private_bytes, VERBS_PRIVATE_CONNECT_BYTES);
  fake_device_address(link->device, &event->peer);
}

static int begin_connect(struct verbs_link *link, const struct verbs_connect *offer) {
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  int bad = check_offer(link, offer, VERBS_PRIVATE_CONNECT_BYTES);
  if (bad < 0) return bad;
  if (link->state != FAKE_LINK_ROUTE) return -EINVAL;
  link->offer = *offer;
  link->offer.private_data = NULL;
  link->state = FAKE_LINK_ASKING;
  if (troubled(link, FAKE_STAGE_CONNECT)) return 0;
  struct verbs_link *listener = listener_at(&link->address);
  if (fake.reject_next) {
    link->state = FAKE_LINK_OVER;
    struct verbs_event *event = push(link, VERBS_EVENT_REJECTED, fake.reject_native);
    put_private(event, fake.reject_data, fake.reject_bytes, FAKE_PRIVATE_REJECT_BYTES);
    fake.reject_next = false;
  } else if (listener == NULL || listener->requests_waiting >= listener->backlog ||
             device_at(&link->address) == NULL) {
    link->state = FAKE_LINK_OVER;
    put_private(push(link, VERBS_EVENT_REJECTED, FAKE_REJECTED_NOBODY), NULL, 0,
                FAKE_PRIVATE_REJECT_BYTES);
  } else {
    request(link, listener, offer);
  }
  return 0;
}

int fake_link_connect(struct verbs_link *link, const struct verbs_connect *parameters) {
  int result = fake_enter(FAKE_LINK_CONNECT);
  if (result == 0) result = begin_connect(link, parameters);
  return fake_leave(FAKE_LINK_CONNECT, result);
}

static int accept_request(struct verbs_link *link, const struct verbs_connect *offer) {
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  int bad = check_offer(link, offer, VERBS_PRIVATE_BYTES);
  if (bad < 0) return bad;
  if (link->state != FAKE_LINK_REQUESTED) return -EINVAL;
  struct verbs_link *peer = link->peer;
  if (peer->state != FAKE_LINK_ASKING) { /* it has given up meanwhile */
    link->state = FAKE_LINK_OVER;
    (void)push(link, VERBS_EVENT_UNREACHABLE, -ETIMEDOUT);
    return 0;
  }
  link->state = peer->state = FAKE_LINK_CONNECTED;
  link->was_connected = peer->was_connected = true;
  link->read_depth = least(offer->read_depth, peer->offer.serve_depth);
  peer->read_depth = least(peer->offer.read_depth, offer->serve_depth);
  struct verbs_event *event = push(peer, VERBS_EVENT_ESTABLISHED, 0);
  event->read_depth = link->read_depth; /* of the other end, as all depths of events */
  event->serve_depth = peer->read_depth;
  put_private(event, offer->private_data, offer->private_bytes, FAKE_PRIVATE_ACCEPT_BYTES);
  event = push(link, VERBS_EVENT_ESTABLISHED, 0);
  event->read_depth = peer->read_depth;
  event->serve_depth = link->read_depth;
  return 0;
}

int fake_link_accept(struct verbs_link *link, const struct verbs_connect *parameters) {
  int result = fake_enter(FAKE_LINK_ACCEPT);
  if (result == 0) result = accept_request(link, parameters);
  return fake_leave(FAKE_LINK_ACCEPT, result);
}

int fake_link_reject(struct verbs_link *link, const void *private_data, uint8_t private_bytes) {
  int result = fake_enter(FAKE_LINK_REJECT);
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  if (result == 0 &&
      (link->state != FAKE_LINK_REQUESTED || private_bytes > FAKE_PRIVATE_REJECT_BYTES))
    result = -EINVAL;
  if (result < 0) return fake_leave(FAKE_LINK_REJECT, result);
  struct verbs_link *peer = link->peer;
  link->state = FAKE_LINK_OVER;
  if (peer->state == FAKE_LINK_ASKING) {
    peer->state = FAKE_LINK_OVER;
    put_private(push(peer, VERBS_EVENT_REJECTED, FAKE_REJECTED_BY_LISTENER), private_data,
                private_bytes, FAKE_PRIVATE_REJECT_BYTES);
  }
  return fake_leave(FAKE_LINK_REJECT, 0);
}

static void disconnect(struct verbs_link *link) {
  if (link->domain != NULL) link->pair_error = true;
  if (link->state == FAKE_LINK_CONNECTED) {
    leave_peer(link);
    link->state = FAKE_LINK_OVER;
    tell_disconnected(link);
    (void)push(link, VERBS_EVENT_OTHER, 0);
  }
  fake_pair_pump(link);
}

int fake_link_disconnect(struct verbs_link *link) {
  int fault = fake_enter(FAKE_LINK_DISCONNECT);
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  if (fault == 0) disconnect(link);
  return fake_leave(FAKE_LINK_DISCONNECT, fault);
}

/* --- what the test does ------------------------------------------------------------------------
 */

uint32_t fake_verbs_links(enum fake_side side, uint32_t device, struct verbs_link **links_out,
                          uint32_t capacity) {
  fake_lock();
  uint32_t count = 0;
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fake.links) {
    struct verbs_link *link = container_of(node, struct verbs_link, node);
    if (link->side != side || link->state >= FAKE_LINK_ENDED) continue;
    if (device < FAKE_DEVICES_MAX && link->device != &fake.devices[device]) continue;
    if (count < capacity) links_out[count] = link;
    count++;
  }
  fake_unlock();
  return count;
}

struct verbs_link *fake_link_peer(const struct verbs_link *link) {
  fake_lock();
  struct verbs_link *peer = link->peer;
  fake_unlock();
  return peer;
}

void fake_verbs_hang(enum fake_stage stage, bool hang) {
  fake_lock();
  fake.hangs[stage] = hang;
  fake_unlock();
}

void fake_link_time_out(struct verbs_link *link) {
  fake_lock();
  FAKE_REQUIRE(link->state == FAKE_LINK_ADDRESS_ASKED || link->state == FAKE_LINK_ROUTE_ASKED ||
                   link->state == FAKE_LINK_ASKING,
               "it waits for no answer");
  link->state = FAKE_LINK_OVER;
  (void)push(link, VERBS_EVENT_UNREACHABLE, -ETIMEDOUT);
  fake_unlock();
}

void fake_verbs_unreachable(enum fake_stage stage, int error) {
  fake_lock();
  fake.unreachable[stage] = error;
  fake_unlock();
}

void fake_verbs_reject_next(const void *private_data, uint8_t private_bytes, int native) {
  fake_lock();
  FAKE_REQUIRE(private_bytes <= FAKE_PRIVATE_REJECT_BYTES, "too much private data");
  fake.reject_next = true;
  fake.reject_native = native;
  fake.reject_bytes = private_bytes;
  if (private_bytes > 0) memcpy(fake.reject_data, private_data, private_bytes);
  fake_unlock();
}

void fake_link_peer_disconnects(struct verbs_link *link) {
  fake_lock();
  FAKE_REQUIRE(link->state == FAKE_LINK_CONNECTED, "it is not connected");
  disconnect(link->peer);
  fake_unlock();
}

void fake_link_peer_vanishes(struct verbs_link *link) {
  fake_lock();
  FAKE_REQUIRE(link->state == FAKE_LINK_CONNECTED, "it is not connected");
  link->peer_gone = true;
  link->peer->pair_error = true;
  fake_unlock();
}

void fake_link_event(struct verbs_link *link, enum verbs_event_kind kind, int native) {
  fake_lock();
  (void)push(link, kind, native);
  fake_unlock();
}
