/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_rail.h"

#include "core/log.h"
#include "net/address.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS 1000000ull
/* A queue pair in error flushes in microseconds; a device that is gone never does. Destroying the
 * queue pair stops it for certain, flushed or not. */
#define DRAIN_NS (250 * MS_NS)
#define POLL_BATCH 32u
/* Data and a fence. On a device that has only one READ at a time under way the second one waits in
 * its queue. */
#define DEPTH_MIN 2u
/* Looks at the queue without sleeping: worth it when a READ takes little more than a look. */
#define SPINS 8u

static void take_completions(struct rdma_rail *rail);

static void disarm(struct rdma_rail *rail) {
  if (rail->armed) rail->options.device->armed--;
  rail->armed = false;
}

/* --- ending --- */

static void end_on_worker(struct work *work) {
  struct rdma_rail *rail = container_of(work, struct rdma_rail, work);
  if (rail->link != NULL) rail->verbs->link_end(rail->link);
  if (rail->queue != NULL) rail->native = rail->verbs->queue_close(rail->queue);
}

static void ended_on_worker(struct work *work) {
  struct rdma_rail *rail = container_of(work, struct rdma_rail, work);
  if (rail->native != 0)
    log_write(LOG_ERROR, "rdma", "a completion queue could not be closed: error %d", -rail->native);
  if (rail->link != NULL) rail->verbs->link_free(rail->link);
  rail->link = NULL;
  rail->queue = NULL;
  disarm(rail);
  rail->state = RDMA_RAIL_ENDED;
  rdma_host_unwatch(rail->options.host, &rail->watch);
  rail->listener->ended(rail, &rail->error);
}

static void begin_ending(struct rdma_rail *rail) {
  rail->state = RDMA_RAIL_ENDING;
  rail->native = 0;
  rail->work = (struct work){.run = end_on_worker, .done = ended_on_worker};
  reactor_timer_stop(rail->reactor, &rail->timer);
  reactor_defer_cancel(rail->reactor, &rail->later);
  reactor_work(rail->reactor, &rail->work);
}

static bool drained(const struct rdma_rail *rail) {
  return rail->flushed == rail->taken;
}

static void go_on_draining(struct rdma_rail *rail) {
  if (drained(rail))
    begin_ending(rail);
  else if (!timer_running(&rail->timer))
    reactor_timer_start(rail->reactor, &rail->timer, reactor_now(rail->reactor) + DRAIN_NS);
}

/* Once; later reasons are consequences of the first. A worker that is busy is waited for. */
static void fail(struct rdma_rail *rail, const struct sprout_error *error) {
  if (rail->state == RDMA_RAIL_IDLE || rail->state >= RDMA_RAIL_DRAINING) return;
  bool busy = rail->state == RDMA_RAIL_PAIRING, connected = rail->state == RDMA_RAIL_READY;
  if (rail->error.status == SPROUT_OK) rail->error = *error;
  if (busy) return; /* seen when it is back */
  rail->state = RDMA_RAIL_DRAINING;
  if (rail->link != NULL) (void)rail->verbs->link_disconnect(rail->link);
  reactor_timer_stop(rail->reactor, &rail->timer);
  if (!connected)
    begin_ending(rail);
  else if (!rail->polling) /* else take_completions goes on from here */
    reactor_defer(rail->reactor, &rail->later);
}

/* For who cannot be reached at all. */
static const char way_hint[] =
    "Check that both ends see each other over this device (ping -I ADDRESS, rdma link); choose "
    "others with --rdma-device.";

static void fail_with(struct rdma_rail *rail, enum sprout_status status, int native,
                      const char *hint, const char *what) {
  struct sprout_error error;
  (void)sprout_error_set(&error, status, native, hint, "%s %s over RDMA device %s", what,
                         rail->peer_name, rail->options.device->info.name);
  fail(rail, &error);
}

static void timed_out(struct timer *timer) {
  struct rdma_rail *rail = container_of(timer, struct rdma_rail, timer);
  if (rail->state == RDMA_RAIL_DRAINING) {
    log_write(LOG_DEBUG, "rdma", "%s flushed %llu of %llu reads", rail->options.device->info.name,
              (unsigned long long)rail->flushed, (unsigned long long)rail->posted);
    begin_ending(rail);
  } else {
    fail_with(rail, SPROUT_DISCONNECTED, 0, way_hint, "no answer in time from");
  }
}

/* --- completions --- */

/* The meaning of a work completion in error, once and for all. */
static void fail_completion(struct rdma_rail *rail, const struct verbs_completion *completion) {
  static const char path_hint[] = "Look at the link and at the seed; ethtool -S and rdma statistic "
                                  "count what was lost.";
  int native = (int)completion->native;
  log_write(LOG_WARNING, "rdma",
            "a read from %s over %s failed: work completion status %d, vendor "
            "code 0x%x",
            rail->peer_name, rail->options.device->info.name, native, completion->vendor);
  switch (completion->outcome) {
  case VERBS_UNREACHABLE:
    fail_with(rail, SPROUT_DISCONNECTED, native, path_hint, "reads were not answered by");
    break;
  case VERBS_REMOTE_ACCESS:
    fail_with(rail, SPROUT_GONE, native, NULL, "memory is not served any more by");
    break;
  case VERBS_FLUSHED:
    fail_with(rail, SPROUT_DISCONNECTED, native, NULL, "the connection was ended by");
    break;
  case VERBS_REMOTE_OTHER:
    fail_with(rail, SPROUT_DISCONNECTED, native, NULL, "a read was refused by");
    break;
  case VERBS_OK:
  case VERBS_LOCAL:
    fail_with(rail, SPROUT_DISCONNECTED, native, NULL, "this side failed to read from");
    break;
  }
}

/* Completions come in the order of posting, so one that succeeded speaks for all before it. */
static void take_completion(struct rdma_rail *rail, const struct verbs_completion *completion) {
  bool known = completion->id >= rail->flushed && completion->id < rail->taken;
  if (!known) {
    log_write(LOG_ERROR, "rdma", "completion %llu of %s came twice or out of order",
              (unsigned long long)completion->id, rail->options.device->info.name);
    fail_with(rail, SPROUT_DISCONNECTED, 0, NULL, "a completion made no sense while reading from");
    return;
  }
  rail->flushed = completion->id + 1;
  if (rail->state != RDMA_RAIL_READY) return;
  if (completion->outcome != VERBS_OK) {
    fail_completion(rail, completion);
    return;
  }
  uint32_t count = (uint32_t)(rail->flushed - rail->completed);
  rail->completed = rail->flushed;
  rail->listener->completed(rail, count);
}

/* Polls until the queue is empty; how many it were. */
static uint32_t poll_queue(struct rdma_rail *rail) {
  struct verbs_completion completions[POLL_BATCH];
  uint32_t taken = 0;
  for (;;) {
    int count = rail->verbs->queue_poll(rail->queue, completions, POLL_BATCH);
    if (count < 0) {
      fail_with(rail, SPROUT_DISCONNECTED, -count, NULL,
                "completions cannot be polled while reading from");
      return taken;
    }
    for (int i = 0; i < count; i++) take_completion(rail, &completions[i]);
    taken += (uint32_t)count;
    if (count < (int)POLL_BATCH) return taken;
  }
}

static bool waits(const struct rdma_rail *rail) {
  return (rail->state == RDMA_RAIL_READY || rail->state == RDMA_RAIL_DRAINING) && !drained(rail);
}

/* Arm, then poll once more: what came before arming makes no event. */
static void sleep_if_idle(struct rdma_rail *rail) {
  while (waits(rail) && !rail->armed) {
    int native = rail->verbs->queue_arm(rail->queue);
    if (native != 0) {
      fail_with(rail, SPROUT_DISCONNECTED, -native, NULL,
                "completions cannot be awaited while reading from");
      return;
    }
    rail->armed = true;
    rail->options.device->armed++;
    if (poll_queue(rail) == 0) return;
  }
}

static void take_completions(struct rdma_rail *rail) {
  /* In other states the queue is a worker's. */
  if (rail->state != RDMA_RAIL_READY && rail->state != RDMA_RAIL_DRAINING) return;
  if (rail->queue == NULL || rail->polling) return;
  rail->polling = true;
  uint32_t spins = 0;
  do {
    if (poll_queue(rail) > 0) spins = 0;
  } while (waits(rail) && ++spins < SPINS);
  sleep_if_idle(rail);
  rail->polling = false;
  if (rail->state == RDMA_RAIL_DRAINING) go_on_draining(rail);
}

static void channel_event(struct rdma_queue_owner *owner) {
  struct rdma_rail *rail = container_of(owner, struct rdma_rail, queue_owner);
  rail->verbs->queue_acknowledge(rail->queue, 1);
  disarm(rail);
  take_completions(rail);
}

static void look_again(struct deferred *deferred) {
  take_completions(container_of(deferred, struct rdma_rail, later));
}

void rdma_rail_poll(struct rdma_rail *rail) {
  take_completions(rail);
}

void rdma_rail_post(struct rdma_rail *rail, struct verbs_read *reads, uint32_t count) {
  uint32_t taken = 0;
  assert(rail->state == RDMA_RAIL_READY && count > 0);
  assert(rdma_rail_outstanding(rail) + count <= rail->depth);
  for (uint32_t i = 0; i < count; i++) reads[i].id = rail->posted + i;
  reads[count - 1].signalled = true;
  int native = rail->verbs->link_post(rail->link, reads, count, &taken);
  rail->posted += count;
  rail->taken += taken;
  if (native == 0) {
    reactor_defer(rail->reactor, &rail->later);
    return;
  }
  fail_with(rail, SPROUT_DISCONNECTED, -native, NULL, "a read could not be posted to");
}

/* --- connecting --- */

static void become_ready(struct rdma_rail *rail) {
  rail->state = RDMA_RAIL_READY;
  reactor_timer_stop(rail->reactor, &rail->timer);
  log_write(LOG_DEBUG, "rdma", "connected to %s over %s, read depth %u", rail->peer_name,
            rail->options.device->info.name, rail->depth);
  rail->listener->connected(rail);
}

static uint32_t least(uint32_t a, uint32_t b) {
  return a < b ? a : b;
}

static void pair_on_worker(struct work *work) {
  struct rdma_rail *rail = container_of(work, struct rdma_rail, work);
  const struct verbs *verbs = rail->verbs;
  const struct rdma_rail_options *options = &rail->options;
  const struct verbs_link_limits limits = {.requests = rail->depth, .segments = rail->segments};
  uint8_t hello[RDMA_HELLO_BYTES];
  rdma_hello_encode(options->nonce, hello);
  const struct verbs_connect parameters = {
      .private_data = hello,
      .private_bytes = sizeof(hello),
      .read_depth = (uint8_t)least(rail->depth, options->device->info.read_depth),
      .retries = options->retries,
      .ack_timeout = options->ack_timeout};
  rail->native = verbs->queue_open(options->device->info.device, options->device->channel,
                                   rail->depth + 1, &rail->queue_owner, &rail->queue);
  if (rail->native == 0)
    rail->native = verbs->link_make_pair(rail->link, options->domain, rail->queue, &limits);
  if (rail->native == 0) rail->native = verbs->link_connect(rail->link, &parameters);
}

static void paired(struct work *work) {
  struct rdma_rail *rail = container_of(work, struct rdma_rail, work);
  rail->state = RDMA_RAIL_CONNECTING;
  if (rail->error.status != SPROUT_OK)
    fail(rail, &rail->error);
  else if (rail->native != 0)
    fail_with(rail, rail->native == -ENOMEM ? SPROUT_LIMIT : SPROUT_UNSUPPORTED, -rail->native,
              "See ulimit -l and `rdma resource`.", "no queue pair could be made to");
  else if (rail->established)
    become_ready(rail);
}

static void make_pair(struct rdma_rail *rail) {
  const struct verbs_device_info *info = &rail->options.device->info;
  if (rail->verbs->link_device(rail->link) != info->device) {
    fail_with(rail, SPROUT_DISCONNECTED, 0,
              "Name the devices in the order of the seed's rails with --rdma-device.",
              "the route leaves by another device to");
    return;
  }
  rail->depth =
      least(least(info->read_depth, UINT8_MAX), least(rail->options.requests, info->max_requests));
  rail->depth = least(rail->depth, info->max_queue_entries - 1);
  if (rail->depth < DEPTH_MIN) rail->depth = DEPTH_MIN;
  rail->state = RDMA_RAIL_PAIRING;
  rail->work = (struct work){.run = pair_on_worker, .done = paired};
  reactor_work(rail->reactor, &rail->work);
}

static void resolve_route(struct rdma_rail *rail) {
  uint32_t timeout_ms = (uint32_t)(rail->options.connect_timeout_ns / MS_NS) + 1;
  rail->state = RDMA_RAIL_ROUTE;
  int native = rail->verbs->link_resolve_route(rail->link, timeout_ms);
  if (native != 0) fail_with(rail, SPROUT_DISCONNECTED, -native, way_hint, "no route to");
}

static void take_established(struct rdma_rail *rail, const struct verbs_event *event) {
  if (event->serve_depth > 0) rail->depth = least(rail->depth, event->serve_depth);
  if (rail->depth < DEPTH_MIN) rail->depth = DEPTH_MIN;
  if (rail->state == RDMA_RAIL_PAIRING)
    rail->established = true;
  else
    become_ready(rail);
}

static void take_rejected(struct rdma_rail *rail, const struct verbs_event *event) {
  struct sprout_error reason, error;
  enum sprout_status status =
      rdma_refusal_explain(event->private_data, event->private_bytes, &reason);
  (void)sprout_error_set(&error, status, event->native, reason.hint,
                         "%s refused a connection over "
                         "RDMA device %s: %s",
                         rail->peer_name, rail->options.device->info.name, reason.message);
  fail(rail, &error);
}

static bool awaits(const struct rdma_rail *rail, enum verbs_event_kind kind) {
  switch (kind) {
  case VERBS_EVENT_ADDRESS_RESOLVED: return rail->state == RDMA_RAIL_ADDRESS;
  case VERBS_EVENT_ROUTE_RESOLVED: return rail->state == RDMA_RAIL_ROUTE;
  case VERBS_EVENT_ESTABLISHED:
  case VERBS_EVENT_REJECTED:
    return rail->state == RDMA_RAIL_PAIRING || rail->state == RDMA_RAIL_CONNECTING;
  default: return rail->state < RDMA_RAIL_DRAINING;
  }
}

static void link_event(struct rdma_link_owner *owner, const struct verbs_event *event) {
  struct rdma_rail *rail = container_of(owner, struct rdma_rail, link_owner);
  if (!awaits(rail, event->kind)) return;
  switch (event->kind) {
  case VERBS_EVENT_ADDRESS_RESOLVED: resolve_route(rail); break;
  case VERBS_EVENT_ROUTE_RESOLVED: make_pair(rail); break;
  case VERBS_EVENT_ESTABLISHED: take_established(rail, event); break;
  case VERBS_EVENT_REJECTED: take_rejected(rail, event); break;
  case VERBS_EVENT_UNREACHABLE:
    fail_with(rail, SPROUT_DISCONNECTED, abs(event->native), way_hint, "cannot reach");
    break;
  case VERBS_EVENT_DISCONNECTED:
    take_completions(rail); /* what has landed counts */
    fail_with(rail, SPROUT_DISCONNECTED, 0, NULL, "the connection was ended by");
    break;
  case VERBS_EVENT_REMOVED:
    fail_with(rail, SPROUT_DISCONNECTED, 0, NULL, "the device was removed while connected to");
    break;
  case VERBS_EVENT_REQUEST:
  case VERBS_EVENT_OTHER: break;
  }
}

static void device_failed(struct rdma_watch *watch, struct rdma_device *device) {
  struct rdma_rail *rail = container_of(watch, struct rdma_rail, watch);
  if (device == rail->options.device)
    fail_with(rail, SPROUT_DISCONNECTED, 0, NULL, "the device failed while connected to");
}

static socklen_t length_of(const struct sockaddr_storage *address) {
  return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

void rdma_rail_connect(struct rdma_rail *rail, const struct rdma_rail_options *options) {
  assert(rail->state == RDMA_RAIL_IDLE);
  struct address peer = {.length = length_of(&options->peer), .storage = options->peer};
  rail->options = *options;
  rail->verbs = rdma_host_verbs(options->host);
  rail->reactor = rdma_host_reactor(options->host);
  rail->link_owner.event = link_event;
  rail->queue_owner.ready = channel_event;
  rail->watch.failed = device_failed;
  rail->timer.fired = timed_out;
  rail->later.run = look_again;
  rail->segments = least(options->device->info.max_segments, 32);
  (void)address_format(&peer, rail->peer_name, sizeof(rail->peer_name));
  rdma_host_watch(options->host, &rail->watch);
  rail->state = RDMA_RAIL_ADDRESS;
  reactor_timer_start(rail->reactor, &rail->timer,
                      reactor_now(rail->reactor) + options->connect_timeout_ns);
  int native =
      rail->verbs->link_open(rdma_host_events(options->host), &rail->link_owner, &rail->link);
  if (native == 0)
    native = rail->verbs->link_resolve_address(rail->link, (const struct sockaddr *)&options->local,
                                               (const struct sockaddr *)&options->peer,
                                               (uint32_t)(options->connect_timeout_ns / MS_NS) + 1);
  if (native != 0) fail_with(rail, SPROUT_DISCONNECTED, -native, way_hint, "cannot resolve");
}

void rdma_rail_end(struct rdma_rail *rail) {
  const struct sprout_error error = {.status = SPROUT_CANCELLED};
  fail(rail, &error);
}

void rdma_rail_destroy(struct rdma_rail *rail) {
  assert(rail->state == RDMA_RAIL_IDLE || rail->state == RDMA_RAIL_ENDED);
  *rail = (struct rdma_rail){.state = RDMA_RAIL_IDLE};
}
