/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a publication: one blocking call opens a domain and a queue per device, then listeners
 * are bound and memory is registered. Withdrawing it goes the same way back, each step waiting for
 * all of the one before: listeners and links, memory, queues and domains.
 */
#include "net/rdma_seed_private.h"

#include "core/limits.h"
#include "core/log.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BACKLOG 128u
/* Nothing is posted on a serving side, so nothing completes. */
#define QUEUE_ENTRIES 16u
#define BITS_PER_GBIT 1000000000ull

static void withdraw(struct rdma_seed *rdma);

static void fail(struct rdma_seed *rdma, const struct sprout_error *error) {
  if (rdma->state == RDMA_SEED_CLOSED) return;
  struct sprout_error kept = *error;
  withdraw(rdma);
  rdma->options.listener.failed(rdma->options.listener.context, &kept);
}

/* --- rails --- */

static void run_end_listener(struct work *work) {
  struct rdma_seed_rail *rail = container_of(work, struct rdma_seed_rail, end_work);
  rail->rdma->verbs->link_end(rail->listener);
}

static void listener_ended(struct work *work) {
  struct rdma_seed_rail *rail = container_of(work, struct rdma_seed_rail, end_work);
  rail->rdma->verbs->link_free(rail->listener);
  rail->listener = NULL;
  rail->rdma->busy--;
  rdma_seed_step(rail->rdma);
}

static void end_listener(struct rdma_seed_rail *rail) {
  if (rail->listener == NULL || rail->listens == 0) return;
  rail->listens = 0;
  rail->end_work = (struct work){.run = run_end_listener, .done = listener_ended};
  rail->rdma->busy++;
  reactor_work(rail->rdma->reactor, &rail->end_work);
}

static void set_port(struct sockaddr_storage *address, uint16_t port) {
  if (address->ss_family == AF_INET6)
    ((struct sockaddr_in6 *)(void *)address)->sin6_port = htons(port);
  else
    ((struct sockaddr_in *)(void *)address)->sin_port = htons(port);
}

static void format_address(const struct sockaddr_storage *address, char *text, size_t text_bytes) {
  const void *bytes =
      address->ss_family == AF_INET6
          ? (const void *)&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr
          : (const void *)&((const struct sockaddr_in *)(const void *)address)->sin_addr;
  if (inet_ntop(address->ss_family, bytes, text, (socklen_t)text_bytes) == NULL) text[0] = '\0';
}

/* 0, or -errno. */
static int listen_on(struct rdma_seed_rail *rail) {
  struct rdma_seed *rdma = rail->rdma;
  struct sockaddr_storage address = rail->port.address;
  struct verbs_link *link = NULL;
  set_port(&address, rdma->options.port);
  rail->owner.event = rdma_seed_listener_event;
  int native = rdma->verbs->link_open(rdma_host_events(rdma->host), &rail->owner, &link);
  if (native != 0) return native;
  native = rdma->verbs->link_listen(link, (struct sockaddr *)&address, BACKLOG);
  rail->listener = link;
  rail->listens = native == 0 ? rdma->verbs->link_port(link) : 0;
  if (native == 0 && rail->listens != 0) return 0;
  /* It is ended as one that listens is; the rail is of no use meanwhile. */
  rail->listens = UINT16_MAX;
  end_listener(rail);
  return native != 0 ? native : -EADDRNOTAVAIL;
}

/* At least one rail must listen; one that does not is left out. */
static SPROUT_MUST_CHECK enum sprout_status listen_on_all(struct rdma_seed *rdma,
                                                          struct sprout_error *error) {
  uint32_t listening = 0;
  int native = 0;
  char address[64] = "";
  for (uint32_t i = 0; i < rdma->rail_count; i++) {
    struct rdma_seed_rail *rail = &rdma->rails[i];
    int result = listen_on(rail);
    if (result == 0) {
      listening++;
      continue;
    }
    native = -result;
    format_address(&rail->port.address, address, sizeof(address));
    log_write(LOG_WARNING, "rdma", "no RDMA connections over %s: cannot listen on %s port %u: %s",
              rail->device->info.name, address, rdma->options.port, strerror(native));
  }
  if (listening > 0) return SPROUT_OK;
  return sprout_error_set(error, SPROUT_UNSUPPORTED, native,
                          "Choose another --rdma-port, or --transport tcp.",
                          "RDMA connections cannot be listened for on %s port %u: %s", address,
                          rdma->options.port, strerror(native));
}

bool rdma_seed_endpoint(const struct rdma_seed_rail *rail, struct wire_endpoint *endpoint_out) {
  int numa = rail->device->info.numa_node;
  uint64_t gbits = rail->port.bits_per_second / BITS_PER_GBIT;
  if (rail->listens == 0 || rail->device->failed) return false;
  *endpoint_out =
      (struct wire_endpoint){.port = rail->listens,
                             .rail = (uint32_t)(rail - rail->rdma->rails),
                             .numa = numa >= 0 ? (uint32_t)numa : UINT32_MAX,
                             .gbits = gbits < UINT32_MAX ? (uint32_t)gbits : UINT32_MAX};
  format_address(&rail->port.address, endpoint_out->address, sizeof(endpoint_out->address));
  return true;
}

/* --- devices come and go --- */

static void port_changed(struct rdma_watch *watch, struct rdma_device *device, uint32_t port,
                         bool up) {
  struct rdma_seed *rdma = container_of(watch, struct rdma_seed, watch);
  for (uint32_t i = 0; i < rdma->rail_count; i++)
    if (rdma->rails[i].device == device && rdma->rails[i].port.number == port)
      rdma->rails[i].port_up = up;
}

/* The last rail over which guests could connect takes the publication with it. */
static void look_at_rails(struct rdma_seed *rdma, const char *lost_device) {
  struct sprout_error error;
  if (rdma->state != RDMA_SEED_OPEN) return;
  for (uint32_t i = 0; i < rdma->rail_count; i++)
    if (rdma->rails[i].listens != 0 && !rdma->rails[i].device->failed) return;
  (void)sprout_error_set(&error, SPROUT_UNSUPPORTED, 0, "Look at the kernel's log.",
                         "the last RDMA device of the seed, %s, failed", lost_device);
  fail(rdma, &error);
}

static void device_failed(struct rdma_watch *watch, struct rdma_device *device) {
  struct rdma_seed *rdma = container_of(watch, struct rdma_seed, watch);
  for (uint32_t i = 0; i < rdma->rail_count; i++)
    if (rdma->rails[i].device == device) end_listener(&rdma->rails[i]);
  rdma_seed_drop_links(rdma, device);
  look_at_rails(rdma, device->info.name);
}

void rdma_seed_lose_listener(struct rdma_seed_rail *rail) {
  end_listener(rail);
  look_at_rails(rail->rdma, rail->device->info.name);
}

/* --- memory --- */

static void slice_ready(void *context, uint32_t slice) {
  struct rdma_seed *rdma = context;
  rdma->order[rdma->ready_count++] = slice;
  rdma->registered_bytes += rdma_memory_slice(rdma->memory, slice)->length_bytes;
  if (rdma->state != RDMA_SEED_OPEN) return;
  if (rdma_memory_whole(rdma->memory))
    log_write(LOG_INFO, "rdma", "%llu bytes are registered with %u devices",
              (unsigned long long)rdma->registered_bytes, rdma->domain_count);
  if (rdma->ready_count == 1) rdma->options.listener.ready(rdma->options.listener.context);
}

static void memory_failed(void *context, const struct sprout_error *error) {
  fail(context, error);
}

static uint64_t slice_maximum(const struct rdma_seed *rdma) {
  uint64_t most = RDMA_SLICE_BYTES;
  for (uint32_t i = 0; i < rdma->domain_count; i++) {
    uint64_t device = rdma->domains[i].device->info.max_memory_bytes;
    if (device != 0 && device < most) most = device;
  }
  return most;
}

static SPROUT_MUST_CHECK enum sprout_status lay_out_memory(struct rdma_seed *rdma,
                                                           struct sprout_error *error) {
  struct rdma_memory_options options = {.reactor = rdma->reactor,
                                        .verbs = rdma->verbs,
                                        .domain_count = rdma->domain_count,
                                        .slice_bytes = slice_maximum(rdma),
                                        .remote_read = true,
                                        .ready = slice_ready,
                                        .failed = memory_failed,
                                        .context = rdma};
  for (uint32_t i = 0; i < rdma->domain_count; i++) options.domains[i] = rdma->domains[i].domain;
  enum sprout_status status =
      rdma_memory_create(&options, rdma->options.spans, rdma->options.span_count, &rdma->memory);
  uint32_t slices = status == SPROUT_OK ? rdma_memory_slices(rdma->memory) : 0;
  if (status == SPROUT_LIMIT || slices > LIMIT_SLICES)
    return sprout_error_set(error, SPROUT_LIMIT, 0, "Use --memory host, or --transport tcp.",
                            "the model's memory makes more than %u registrations", LIMIT_SLICES);
  if (status == SPROUT_OK) rdma->order = calloc(slices + 1u, sizeof(*rdma->order));
  if (rdma->order == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory to publish over RDMA");
  return SPROUT_OK;
}

/* --- opening --- */

static void run_open(struct work *work) {
  struct rdma_seed *rdma = container_of(work, struct rdma_seed, open_work);
  for (uint32_t i = 0; i < rdma->domain_count && rdma->native == 0; i++) {
    struct rdma_seed_domain *domain = &rdma->domains[i];
    struct verbs_device *device = domain->device->info.device;
    rdma->failed_device = domain->device->info.name;
    rdma->native = rdma->verbs->domain_open(device, &domain->domain);
    if (rdma->native == 0)
      rdma->native = rdma->verbs->queue_open(device, NULL, QUEUE_ENTRIES, NULL, &domain->queue);
  }
}

static void go_public(struct rdma_seed *rdma) {
  struct sprout_error error;
  enum sprout_status status = SPROUT_OK;
  if (rdma->native != 0)
    status = sprout_error_set(&error, SPROUT_UNSUPPORTED, -rdma->native, "Use --transport tcp.",
                              "RDMA device %s cannot be used: %s", rdma->failed_device,
                              strerror(-rdma->native));
  if (status == SPROUT_OK) status = listen_on_all(rdma, &error);
  if (status == SPROUT_OK) status = lay_out_memory(rdma, &error);
  if (status != SPROUT_OK) {
    fail(rdma, &error);
    return;
  }
  rdma->state = RDMA_SEED_OPEN;
  rdma->options.listener.opened(rdma->options.listener.context);
  rdma_memory_start(rdma->memory);
  if (rdma_memory_whole(rdma->memory)) /* nothing is to be registered */
    rdma->options.listener.ready(rdma->options.listener.context);
}

static void opened(struct work *work) {
  struct rdma_seed *rdma = container_of(work, struct rdma_seed, open_work);
  rdma->busy--;
  if (rdma->state == RDMA_SEED_OPENING) go_public(rdma);
  rdma_seed_step(rdma);
}

/* The domain of this device, a new one when there is none. */
static uint32_t domain_of(struct rdma_seed *rdma, struct rdma_device *device) {
  for (uint32_t i = 0; i < rdma->domain_count; i++)
    if (rdma->domains[i].device == device) return i;
  rdma->domains[rdma->domain_count] = (struct rdma_seed_domain){.device = device};
  return rdma->domain_count++;
}

void rdma_seed_start(struct rdma_seed *rdma) {
  struct rdma_device *devices[RDMA_RAILS_MAX];
  struct sprout_error error;
  const struct rdma_selection *selection = &rdma->options.selection;
  rdma->started = true;
  if (rdma_host_get(rdma->options.service, selection, &rdma->host, devices, &error) != SPROUT_OK) {
    fail(rdma, &error);
    return;
  }
  for (uint32_t i = 0; i < selection->count; i++)
    rdma->rails[i] = (struct rdma_seed_rail){.rdma = rdma,
                                             .device = devices[i],
                                             .domain = domain_of(rdma, devices[i]),
                                             .port = selection->rails[i].port,
                                             .port_up = true};
  rdma->rail_count = selection->count;
  rdma->watch = (struct rdma_watch){.port = port_changed, .failed = device_failed};
  rdma_host_watch(rdma->host, &rdma->watch);
  rdma->watching = true;
  rdma->open_work = (struct work){.run = run_open, .done = opened};
  rdma->busy++;
  reactor_work(rdma->reactor, &rdma->open_work);
}

/* --- withdrawing --- */

static void run_close(struct work *work) {
  struct rdma_seed *rdma = container_of(work, struct rdma_seed, close_work);
  for (uint32_t i = 0; i < rdma->domain_count; i++) {
    struct rdma_seed_domain *domain = &rdma->domains[i];
    if (domain->queue != NULL) (void)rdma->verbs->queue_close(domain->queue);
    if (domain->domain != NULL) (void)rdma->verbs->domain_close(domain->domain);
    domain->queue = NULL;
    domain->domain = NULL;
  }
}

static void domains_closed(struct work *work) {
  struct rdma_seed *rdma = container_of(work, struct rdma_seed, close_work);
  rdma->busy--;
  rdma->withdrawn = true;
  rdma_seed_step(rdma);
}

static void memory_closed(void *context) {
  struct rdma_seed *rdma = context;
  rdma_memory_destroy(rdma->memory);
  rdma->memory = NULL;
  rdma_seed_step(rdma);
}

void rdma_seed_step(struct rdma_seed *rdma) {
  if (rdma->state != RDMA_SEED_CLOSED || rdma->busy > 0 || !list_empty(&rdma->links)) return;
  if (rdma->memory != NULL) {
    if (!rdma->memory_closing) rdma_memory_close(rdma->memory, memory_closed, rdma);
    rdma->memory_closing = true;
    return;
  }
  if (!rdma->domains_closing) {
    rdma->domains_closing = true;
    rdma->close_work = (struct work){.run = run_close, .done = domains_closed};
    rdma->busy++;
    reactor_work(rdma->reactor, &rdma->close_work);
    return;
  }
  if (rdma->closed != NULL) reactor_defer(rdma->reactor, &rdma->closed_later);
}

static void withdraw(struct rdma_seed *rdma) {
  if (rdma->state == RDMA_SEED_CLOSED) return;
  rdma->state = RDMA_SEED_CLOSED;
  if (rdma->watching) rdma_host_unwatch(rdma->host, &rdma->watch);
  rdma->watching = false;
  rdma_seed_drop_links(rdma, NULL);
  for (uint32_t i = 0; i < rdma->rail_count; i++) end_listener(&rdma->rails[i]);
  rdma_seed_step(rdma);
}

static void tell_closed(struct deferred *deferred) {
  struct rdma_seed *rdma = container_of(deferred, struct rdma_seed, closed_later);
  void (*closed)(void *) = rdma->closed;
  rdma->closed = NULL;
  if (closed != NULL) closed(rdma->closed_context);
}

void rdma_seed_close(struct rdma_seed *rdma, void (*closed)(void *context), void *context) {
  rdma->closed = closed;
  rdma->closed_context = context;
  withdraw(rdma);
  rdma_seed_step(rdma);
}

/* --- creation --- */

enum sprout_status rdma_seed_create(const struct rdma_seed_options *options,
                                    struct rdma_seed **rdma_out) {
  struct rdma_seed *rdma = calloc(1, sizeof(*rdma));
  if (rdma == NULL) return SPROUT_NO_MEMORY;
  struct rdma_span *spans = calloc(options->span_count + 1, sizeof(*spans));
  if (spans == NULL) {
    free(rdma);
    return SPROUT_NO_MEMORY;
  }
  if (options->span_count > 0) memcpy(spans, options->spans, options->span_count * sizeof(*spans));
  rdma->options = *options;
  rdma->options.spans = spans;
  rdma->verbs = options->selection.verbs;
  rdma->reactor = service_reactor(options->service);
  rdma->closed_later.run = tell_closed;
  list_init(&rdma->guests);
  list_init(&rdma->links);
  *rdma_out = rdma;
  return SPROUT_OK;
}

void rdma_seed_destroy(struct rdma_seed *rdma) {
  if (rdma == NULL) return;
  assert(!rdma->started || (rdma->withdrawn && rdma->busy == 0));
  assert(list_empty(&rdma->guests) && list_empty(&rdma->links));
  free((void *)(uintptr_t)rdma->options.spans);
  free(rdma->order);
  free(rdma);
}

/* --- looking at it --- */

void rdma_seed_look(const struct rdma_seed *rdma, struct rdma_seed_view *view_out) {
  *view_out = (struct rdma_seed_view){.state = rdma->state,
                                      .registered_bytes = rdma->registered_bytes,
                                      .ready_count = rdma->ready_count,
                                      .link_count = rdma->link_count,
                                      .pair_count = rdma->pair_count,
                                      .rail_count = rdma->rail_count};
  if (rdma->state != RDMA_SEED_OPEN) {
    view_out->registered_bytes = 0;
    view_out->ready_count = 0;
    return;
  }
  view_out->slice_count = rdma_memory_slices(rdma->memory);
  view_out->total_bytes = rdma_memory_bytes(rdma->memory);
}

void rdma_seed_rail(const struct rdma_seed *rdma, uint32_t index, struct rdma_rail_view *view_out) {
  assert(index < rdma->rail_count);
  const struct rdma_seed_rail *rail = &rdma->rails[index];
  *view_out = (struct rdma_rail_view){.device = rail->device->info.name,
                                      .port = rail->port.number,
                                      .listens = rail->listens,
                                      .up = rail->port_up && !rail->device->failed,
                                      .link_count = rail->link_count,
                                      .bits_per_second = rail->port.bits_per_second};
  format_address(&rail->port.address, view_out->address, sizeof(view_out->address));
}

enum sprout_status rdma_seed_placement(const struct rdma_seed *rdma, uint64_t since,
                                       struct wire_placement *placement_out) {
  assert(rdma->state == RDMA_SEED_OPEN && since <= rdma->ready_count);
  struct wire_placement placement = {.fence_address = rdma->options.fence_address,
                                     .rail_count = rdma->rail_count,
                                     .next = rdma->ready_count,
                                     .whole = rdma_memory_whole(rdma->memory),
                                     .slice_count = rdma->ready_count - (uint32_t)since};
  placement.slices = calloc(placement.slice_count + 1u, sizeof(*placement.slices));
  if (placement.slices == NULL) return SPROUT_NO_MEMORY;
  for (uint32_t i = 0; i < placement.slice_count; i++) {
    const struct rdma_slice *slice =
        rdma_memory_slice(rdma->memory, rdma->order[(uint32_t)since + i]);
    struct wire_slice *to = &placement.slices[i];
    to->address = (uint64_t)(uintptr_t)slice->address;
    to->length_bytes = slice->length_bytes;
    for (uint32_t rail = 0; rail < rdma->rail_count; rail++)
      to->keys[rail] = slice->memories[rdma->rails[rail].domain]->remote_key;
  }
  *placement_out = placement;
  return SPROUT_OK;
}
