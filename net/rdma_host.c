/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_host.h"

#include "core/log.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* Events of the connection manager taken in one step: whoever floods the machine with requests to
 * connect must not keep the reactor from everything else. */
#define EVENTS_BATCH 64u

struct rdma_host {
  struct reactor *reactor;
  const struct verbs *verbs;
  struct verbs_events *events;
  struct ring_op events_poll;
  struct deferred later;    /* takes events of the connection manager */
  struct list_node devices; /* struct rdma_device */
  struct list_node watches;
  uint32_t polls; /* in flight */
  bool stopping;
};

/* --- polls --- */

/* A multishot poll reports an edge once: whoever is called takes all there is, or comes again. */

static void start_poll(struct rdma_host *host, struct ring_op *op, int fd,
                       void (*done)(struct ring_op *op)) {
  *op = (struct ring_op){
      .kind = RING_POLL, .fd = fd, .multishot = true, .poll_events = POLLIN, .done = done};
  host->polls++;
  reactor_submit(host->reactor, op);
}

/* The bookkeeping of a poll's completion: true when its events are to be taken. */
static bool poll_fired(struct rdma_host *host, struct ring_op *op, const char *what) {
  if (!op->more) host->polls--;
  if (host->stopping) return false;
  if (op->result < 0 && !op->more) {
    log_write(LOG_ERROR, "rdma", "%s is not watched any more: error %d", what, -op->result);
    return false;
  }
  return true;
}

/* A multishot poll may end by itself (completion queue overflow): it is begun anew, and reports
 * what is readable by then. */
static void renew_poll(struct rdma_host *host, struct ring_op *op) {
  if (op->more || op->result < 0 || host->stopping) return;
  start_poll(host, op, op->fd, op->done);
}

static void channel_readable(struct ring_op *op) {
  struct rdma_device *device = container_of(op, struct rdma_device, channel_poll);
  struct rdma_host *host = device->host;
  if (!poll_fired(host, op, "a completion channel")) return;
  /* What comes from now on is reported anew; what has come is no more than was armed (0: by
   * somebody who does not count), so the last look, which finds nothing, is saved. */
  uint32_t most = device->armed > 0 ? device->armed : UINT32_MAX;
  struct rdma_queue_owner *owner;
  while (most-- > 0 && (owner = host->verbs->channel_next(device->channel)) != NULL)
    owner->ready(owner);
  renew_poll(host, op);
}

static void tell_port(struct rdma_device *device, uint32_t port, bool up) {
  struct list_node *node, *next;
  log_write(up ? LOG_INFO : LOG_WARNING, "rdma", "port %u of %s is %s", port, device->info.name,
            up ? "up" : "down");
  list_for_each_safe (node, next, &device->host->watches) {
    struct rdma_watch *watch = container_of(node, struct rdma_watch, node);
    if (watch->port != NULL) watch->port(watch, device, port, up);
  }
}

static void tell_failed(struct rdma_device *device, const char *text) {
  struct list_node *node, *next;
  if (device->failed) return;
  device->failed = true;
  log_write(LOG_ERROR, "rdma", "device %s failed (%s): its connections end", device->info.name,
            text);
  list_for_each_safe (node, next, &device->host->watches) {
    struct rdma_watch *watch = container_of(node, struct rdma_watch, node);
    if (watch->failed != NULL) watch->failed(watch, device);
  }
}

static void async_readable(struct ring_op *op) {
  struct rdma_device *device = container_of(op, struct rdma_device, async_poll);
  struct rdma_host *host = device->host;
  struct verbs_async event;
  if (!poll_fired(host, op, "a device's events")) return;
  while (host->verbs->async_next(device->info.device, &event) == 1) {
    switch (event.kind) {
    case VERBS_ASYNC_PORT_UP: tell_port(device, event.port, true); break;
    case VERBS_ASYNC_PORT_DOWN: tell_port(device, event.port, false); break;
    case VERBS_ASYNC_DEVICE_FATAL: tell_failed(device, event.text); break;
    case VERBS_ASYNC_OTHER:
      log_write(LOG_DEBUG, "rdma", "%s: %s", device->info.name, event.text);
      break;
    }
  }
  renew_poll(host, op);
}

static void take_events(struct deferred *deferred) {
  struct rdma_host *host = container_of(deferred, struct rdma_host, later);
  struct verbs_event event;
  for (uint32_t i = 0; i < EVENTS_BATCH; i++) {
    if (host->verbs->events_next(host->events, &event) != 1) return;
    struct rdma_link_owner *owner = event.context;
    if (owner != NULL) owner->event(owner, &event);
  }
  reactor_defer(host->reactor, &host->later);
}

static void events_readable(struct ring_op *op) {
  struct rdma_host *host = container_of(op, struct rdma_host, events_poll);
  if (!poll_fired(host, op, "the connection manager")) return;
  reactor_defer(host->reactor, &host->later); /* once, however often the poll fired */
  renew_poll(host, op);
}

/* --- devices --- */

static struct rdma_device *find_device(struct rdma_host *host, const struct verbs_device *wanted) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &host->devices) {
    struct rdma_device *device = container_of(node, struct rdma_device, node);
    if (device->info.device == wanted) return device;
  }
  return NULL;
}

static SPROUT_MUST_CHECK enum sprout_status open_device(struct rdma_host *host,
                                                        const struct verbs_device_info *info,
                                                        struct rdma_device **device_out,
                                                        struct sprout_error *error) {
  struct rdma_device *device = calloc(1, sizeof(*device));
  if (device == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for an RDMA device");
  device->host = host;
  device->info = *info;
  int native = host->verbs->channel_open(info->device, &device->channel);
  if (native != 0) {
    free(device);
    return sprout_error_set(error, SPROUT_UNSUPPORTED, -native, NULL,
                            "no completion channel on RDMA device %s: %s", info->name,
                            strerror(-native));
  }
  list_append(&host->devices, &device->node);
  start_poll(host, &device->channel_poll, host->verbs->channel_fd(device->channel),
             channel_readable);
  start_poll(host, &device->async_poll, host->verbs->async_fd(info->device), async_readable);
  *device_out = device;
  return SPROUT_OK;
}

/* --- the host --- */

static SPROUT_MUST_CHECK enum sprout_status create_host(struct sprout_service *service,
                                                        const struct verbs *verbs,
                                                        struct rdma_host **host_out,
                                                        struct sprout_error *error) {
  struct rdma_host *host = calloc(1, sizeof(*host));
  if (host == NULL) return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for RDMA");
  host->reactor = service_reactor(service);
  host->verbs = verbs;
  list_init(&host->devices);
  list_init(&host->watches);
  host->later.run = take_events;
  int native = verbs->events_open(&host->events);
  if (native != 0) {
    free(host);
    return sprout_error_set(error, SPROUT_UNSUPPORTED, -native,
                            "Load the kernel module rdma_ucm and give this process "
                            "/dev/infiniband/rdma_cm.",
                            "the RDMA connection manager cannot be used: %s", strerror(-native));
  }
  start_poll(host, &host->events_poll, verbs->events_fd(host->events), events_readable);
  *host_out = host;
  return SPROUT_OK;
}

enum sprout_status rdma_host_get(struct sprout_service *service,
                                 const struct rdma_selection *selection,
                                 struct rdma_host **host_out,
                                 struct rdma_device *devices_out[RDMA_RAILS_MAX],
                                 struct sprout_error *error) {
  struct rdma_host **slot = service_rdma(service);
  if (*slot == NULL) {
    enum sprout_status status = create_host(service, selection->verbs, slot, error);
    if (status != SPROUT_OK) return status;
  }
  struct rdma_host *host = *slot;
  assert(host->verbs == selection->verbs);
  for (uint32_t i = 0; i < selection->count; i++) {
    const struct verbs_device_info *info = &selection->rails[i].device;
    devices_out[i] = find_device(host, info->device);
    if (devices_out[i] != NULL) continue;
    enum sprout_status status = open_device(host, info, &devices_out[i], error);
    if (status != SPROUT_OK) return status;
  }
  *host_out = host;
  return SPROUT_OK;
}

const struct verbs *rdma_host_verbs(const struct rdma_host *host) {
  return host->verbs;
}

struct reactor *rdma_host_reactor(const struct rdma_host *host) {
  return host->reactor;
}

struct verbs_events *rdma_host_events(const struct rdma_host *host) {
  return host->events;
}

void rdma_host_watch(struct rdma_host *host, struct rdma_watch *watch) {
  list_append(&host->watches, &watch->node);
}

void rdma_host_unwatch(struct rdma_host *host, struct rdma_watch *watch) {
  (void)host;
  list_remove(&watch->node);
}

void rdma_host_destroy(struct rdma_host *host) {
  struct list_node *node;
  if (host == NULL) return;
  assert(list_empty(&host->watches));
  host->stopping = true;
  reactor_defer_cancel(host->reactor, &host->later);
  reactor_cancel(host->reactor, &host->events_poll);
  struct list_node *each, *next;
  list_for_each_safe (each, next, &host->devices) {
    struct rdma_device *device = container_of(each, struct rdma_device, node);
    reactor_cancel(host->reactor, &device->channel_poll);
    reactor_cancel(host->reactor, &device->async_poll);
  }
  while (host->polls > 0) reactor_tick(host->reactor, UINT64_MAX);
  while ((node = list_take(&host->devices)) != NULL) {
    struct rdma_device *device = container_of(node, struct rdma_device, node);
    (void)host->verbs->channel_close(device->channel);
    free(device);
  }
  (void)host->verbs->events_close(host->events);
  free(host);
}
