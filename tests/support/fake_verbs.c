/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fake_verbs_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CHUNK_BYTES (4u << 20)
#define GRAIN_BYTES 64u
#define GRAINS_MAX 64u
#define HELD_WAIT_S 10
#define KEY_SALT 0x5bd1e995u

struct fake_verbs_state fake = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                .changed = PTHREAD_COND_INITIALIZER};

/* Memory that malloc knows nothing of. */
struct chunk {
  struct chunk *next;
  size_t bytes, used;
};
struct spare {
  struct spare *next;
};
static struct chunk *chunks;
static struct spare *spares[GRAINS_MAX + 1];

/* Which calls the contract lets sleep. */
static const bool may_block[FAKE_CALLS] = {
    [FAKE_DEVICES] = true,         [FAKE_PORT] = true,
    [FAKE_DOMAIN_OPEN] = true,     [FAKE_DOMAIN_CLOSE] = true,
    [FAKE_MEMORY_REGISTER] = true, [FAKE_MEMORY_RELEASE] = true,
    [FAKE_QUEUE_OPEN] = true,      [FAKE_QUEUE_CLOSE] = true,
    [FAKE_LINK_MAKE_PAIR] = true,  [FAKE_LINK_CONNECT] = true,
    [FAKE_LINK_ACCEPT] = true,     [FAKE_LINK_END] = true,
};

void fake_stop(const char *where, const char *what) {
  (void)fprintf(stderr, "fake verbs: %s: %s\n", where, what);
  abort();
}

static struct chunk *map_chunk(size_t bytes) {
  size_t whole = bytes > CHUNK_BYTES / 2 ? bytes + CHUNK_BYTES : CHUNK_BYTES;
  void *memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  FAKE_REQUIRE(memory != MAP_FAILED, "no memory");
  struct chunk *chunk = memory;
  chunk->bytes = whole;
  chunk->used = GRAIN_BYTES;
  chunk->next = chunks;
  chunks = chunk;
  return chunk;
}

void *fake_take(size_t bytes) {
  size_t grains = (bytes + GRAIN_BYTES - 1) / GRAIN_BYTES, whole = grains * GRAIN_BYTES;
  if (grains <= GRAINS_MAX && spares[grains] != NULL) {
    struct spare *spare = spares[grains];
    spares[grains] = spare->next;
    memset(spare, 0, whole);
    return spare;
  }
  struct chunk *chunk = chunks;
  if (chunk == NULL || chunk->bytes - chunk->used < whole) chunk = map_chunk(whole);
  void *memory = (char *)chunk + chunk->used;
  chunk->used += whole;
  return memory;
}

void fake_give(void *memory, size_t bytes) {
  size_t grains = (bytes + GRAIN_BYTES - 1) / GRAIN_BYTES;
  FAKE_REQUIRE(grains <= GRAINS_MAX, "too large to give back");
  struct spare *spare = memory;
  spare->next = spares[grains];
  spares[grains] = spare;
}

static void unmap_all(void) {
  while (chunks != NULL) {
    struct chunk *next = chunks->next;
    (void)munmap(chunks, chunks->bytes);
    chunks = next;
  }
  memset(spares, 0, sizeof spares);
}

int fake_signal_open(void) {
  int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  FAKE_REQUIRE(fd >= 0, "no eventfd");
  return fd;
}

void fake_signal_raise(int fd) {
  const uint64_t one = 1;
  FAKE_REQUIRE(write(fd, &one, sizeof one) == (ssize_t)sizeof one, "eventfd");
}

void fake_signal_clear(int fd) {
  uint64_t value;
  ssize_t taken = read(fd, &value, sizeof value);
  FAKE_REQUIRE(taken == (ssize_t)sizeof value || errno == EAGAIN, "eventfd");
}

/* --- calls -------------------------------------------------------------------------------------
 */

void fake_lock(void) {
  pthread_mutex_lock(&fake.lock);
  FAKE_REQUIRE(fake.started, "fake_verbs_init was not called");
}

void fake_unlock(void) {
  pthread_mutex_unlock(&fake.lock);
}

int fake_fault(enum fake_call call) {
  struct fake_gate *gate = &fake.gates[call];
  gate->calls++;
  if (gate->fail_all != 0) return -gate->fail_all;
  if (gate->fail_at == 0 || --gate->fail_at > 0) return 0;
  return -gate->fail_error;
}

/* Until the call is let or nothing is held any more. */
static void wait_at(struct fake_gate *gate, const bool *held, bool here) {
  FAKE_REQUIRE(!here, "a call that is held came from the reactor's thread");
  gate->waiting++;
  pthread_cond_broadcast(&fake.changed);
  while (*held && gate->permits == 0) pthread_cond_wait(&fake.changed, &fake.lock);
  gate->waiting--;
  if (*held) gate->permits--;
}

int fake_enter(enum fake_call call) {
  struct fake_gate *gate = &fake.gates[call];
  uint32_t inside = atomic_fetch_add(&gate->inside, 1) + 1;
  fake_lock();
  if (inside > gate->parallel_max) gate->parallel_max = inside;
  bool here = pthread_equal(pthread_self(), fake.reactor_thread) != 0;
  if (here && may_block[call] && !fake.excused) fake.blocking_here++;
  if (gate->held && !(here && fake.excused)) wait_at(gate, &gate->held, here);
  return fake_fault(call);
}

int fake_leave(enum fake_call call, int result) {
  struct fake_gate *gate = &fake.gates[call];
  bool here = pthread_equal(pthread_self(), fake.reactor_thread) != 0;
  if (gate->return_held && !(here && fake.excused)) wait_at(gate, &gate->return_held, here);
  atomic_fetch_sub(&fake.gates[call].inside, 1);
  fake_unlock();
  return result;
}

uint64_t fake_verbs_calls(enum fake_call call) {
  fake_lock();
  uint64_t calls = fake.gates[call].calls;
  fake_unlock();
  return calls;
}

uint64_t fake_verbs_blocking_here(void) {
  fake_lock();
  uint64_t calls = fake.blocking_here;
  fake_unlock();
  return calls;
}

void fake_verbs_excuse(bool excused) {
  fake_lock();
  fake.excused = excused;
  fake_unlock();
}

void fake_verbs_fail(enum fake_call call, uint64_t nth, int error) {
  fake_lock();
  fake.gates[call].fail_at = nth;
  fake.gates[call].fail_error = error;
  fake_unlock();
}

void fake_verbs_fail_all(enum fake_call call, int error) {
  fake_lock();
  fake.gates[call].fail_all = error;
  fake_unlock();
}

void fake_verbs_hold(enum fake_call call) {
  fake_lock();
  fake.gates[call].held = true;
  fake.gates[call].permits = 0;
  fake_unlock();
}

void fake_verbs_hold_return(enum fake_call call) {
  fake_lock();
  fake.gates[call].return_held = true;
  fake.gates[call].permits = 0;
  fake_unlock();
}

void fake_verbs_let(enum fake_call call, uint32_t count) {
  fake_lock();
  fake.gates[call].permits += count;
  pthread_cond_broadcast(&fake.changed);
  fake_unlock();
}

void fake_verbs_unhold(enum fake_call call) {
  fake_lock();
  fake.gates[call].held = fake.gates[call].return_held = false;
  pthread_cond_broadcast(&fake.changed);
  fake_unlock();
}

void fake_verbs_wait_held(enum fake_call call, uint32_t count) {
  struct timespec until;
  FAKE_REQUIRE(clock_gettime(CLOCK_REALTIME, &until) == 0, "no clock");
  until.tv_sec += HELD_WAIT_S;
  fake_lock();
  while (fake.gates[call].waiting < count)
    FAKE_REQUIRE(pthread_cond_timedwait(&fake.changed, &fake.lock, &until) == 0,
                 "the calls to wait for did not come");
  fake_unlock();
}

uint32_t fake_verbs_parallel_max(enum fake_call call) {
  fake_lock();
  uint32_t most = fake.gates[call].parallel_max;
  fake_unlock();
  return most;
}

struct fake_counts fake_verbs_counts(void) {
  fake_lock();
  struct fake_counts counts = fake.counts;
  fake_unlock();
  return counts;
}

/* --- devices -----------------------------------------------------------------------------------
 */

static void make_device(uint32_t index) {
  static char addresses[FAKE_DEVICES_MAX][FAKE_PORTS_MAX][INET_ADDRSTRLEN];
  struct verbs_device *device = &fake.devices[index];
  *device = (struct verbs_device){.index = index,
                                  .config = {.max_memory_bytes = UINT64_C(1) << 30,
                                             .max_queue_entries = 4096,
                                             .max_requests = 1024,
                                             .max_segments = 16,
                                             .read_depth = 16,
                                             .serve_depth = 16,
                                             .ports = 1,
                                             .numa_node = -1}};
  (void)snprintf(device->config.name, sizeof device->config.name, "fake%u", index);
  for (uint32_t i = 0; i < FAKE_PORTS_MAX; i++) {
    (void)snprintf(addresses[index][i], sizeof addresses[index][i], "127.0.7.%u",
                   index + 1 + i * FAKE_DEVICES_MAX);
    device->config.port[i] = (struct fake_port){.active = true,
                                                .mtu_bytes = 4096,
                                                .bits_per_second = UINT64_C(100000000000),
                                                .gids = {NULL, addresses[index][i]},
                                                .interface = "lo"};
  }
  device->async_fd = fake_signal_open();
  list_init(&device->asyncs);
}

static void forget_all(void) {
  for (uint32_t i = 0; i < fake.device_count; i++) (void)close(fake.devices[i].async_fd);
  unmap_all();
  fake.started = false;
}

void fake_verbs_init(uint32_t devices) {
  FAKE_REQUIRE(devices <= FAKE_DEVICES_MAX, "too many devices");
  pthread_mutex_lock(&fake.lock);
  if (fake.started) forget_all(); /* a test that failed left it */
  memset(fake.gates, 0, sizeof fake.gates);
  fake.counts = (struct fake_counts){0};
  fake.blocking_here = 0;
  fake.excused = false;
  fake.keys = 0;
  list_init(&fake.memories);
  list_init(&fake.links);
  list_init(&fake.turns);
  fake.manual = fake.keep_completions = fake.reject_next = false;
  fake.step_before_arm = 0;
  fake.read_fault_at = fake.duplicate_at = 0;
  fake.before_copy = NULL;
  fake.next_port = 40000;
  memset(fake.hangs, 0, sizeof fake.hangs);
  memset(fake.unreachable, 0, sizeof fake.unreachable);
  fake.reactor_thread = pthread_self();
  fake.device_count = devices;
  for (uint32_t i = 0; i < devices; i++) make_device(i);
  fake.started = true;
  fake_unlock();
}

void fake_verbs_end(void) {
  fake_lock();
  const struct fake_counts *left = &fake.counts;
  if (left->domains + left->memories + left->channels + left->queues + left->events + left->links +
          left->pairs >
      0) {
    (void)fprintf(
        stderr,
        "fake verbs: left open: %u domains, %u memories, %u channels, %u queues, %u event "
        "channels, %u links, %u queue pairs\n",
        left->domains, left->memories, left->channels, left->queues, left->events, left->links,
        left->pairs);
    abort();
  }
  forget_all();
  fake_unlock();
}

struct fake_device *fake_verbs_device(uint32_t index) {
  FAKE_REQUIRE(index < fake.device_count, "no such device");
  return &fake.devices[index].config;
}

static int devices(struct verbs_device_info *devices_out, uint32_t capacity, uint32_t *count_out) {
  int fault = fake_enter(FAKE_DEVICES);
  if (fault == 0 && fake.device_count == 0) fault = -ENODEV;
  if (fault < 0) return fake_leave(FAKE_DEVICES, fault);
  for (uint32_t i = 0; i < fake.device_count && i < capacity; i++) {
    const struct fake_device *config = &fake.devices[i].config;
    struct verbs_device_info *info = &devices_out[i];
    *info = (struct verbs_device_info){.device = &fake.devices[i],
                                       .max_memory_bytes = config->max_memory_bytes,
                                       .max_queue_entries = config->max_queue_entries,
                                       .max_requests = config->max_requests,
                                       .max_segments = config->max_segments,
                                       .read_depth = config->read_depth,
                                       .serve_depth = config->serve_depth,
                                       .ports = config->ports,
                                       .numa_node = config->numa_node};
    memcpy(info->name, config->name, sizeof info->name);
  }
  *count_out = fake.device_count;
  return fake_leave(FAKE_DEVICES, 0);
}

/* AF_UNSPEC when it is none. */
static void parse_address(const char *text, struct sockaddr_storage *address_out) {
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  memset(address_out, 0, sizeof *address_out);
  if (text == NULL) return;
  if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
    memcpy(address_out, &v4, sizeof v4);
  else if (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1)
    memcpy(address_out, &v6, sizeof v6);
}

static int32_t choose_gid(const struct fake_port *port) {
  for (int32_t i = 0; i < (int32_t)FAKE_GIDS_MAX; i++)
    if (port->gids[i] != NULL && strchr(port->gids[i], ':') == NULL) return i;
  for (int32_t i = 0; i < (int32_t)FAKE_GIDS_MAX; i++)
    if (port->gids[i] != NULL) return i;
  return 0;
}

void fake_device_address(const struct verbs_device *device, struct sockaddr_storage *address_out) {
  const struct fake_port *port = &device->config.port[0];
  parse_address(port->gids[choose_gid(port)], address_out);
}

static int port(struct verbs_device *device, uint32_t number, int32_t gid_index,
                struct verbs_port *port_out) {
  int fault = fake_enter(FAKE_PORT);
  if (fault == 0 && (number == 0 || number > device->config.ports)) fault = -EINVAL;
  if (fault == 0 && gid_index >= (int32_t)FAKE_GIDS_MAX) fault = -EINVAL;
  if (fault < 0) return fake_leave(FAKE_PORT, fault);
  const struct fake_port *port = &device->config.port[number - 1];
  int32_t gid = gid_index >= 0 ? gid_index : choose_gid(port);
  *port_out = (struct verbs_port){.number = number,
                                  .active = port->active && !device->port_down[number - 1],
                                  .infiniband = port->infiniband,
                                  .mtu_bytes = port->mtu_bytes,
                                  .bits_per_second = port->bits_per_second,
                                  .gid_index = gid};
  parse_address(port->gids[gid], &port_out->address);
  if (port->interface != NULL)
    (void)snprintf(port_out->interface, sizeof port_out->interface, "%s", port->interface);
  return fake_leave(FAKE_PORT, 0);
}

static int async_fd(struct verbs_device *device) {
  return device->async_fd;
}

static int async_next(struct verbs_device *device, struct verbs_async *event_out) {
  fake_lock();
  struct list_node *node = list_take(&device->asyncs);
  if (list_empty(&device->asyncs)) fake_signal_clear(device->async_fd);
  if (node != NULL) {
    struct fake_async *async = container_of(node, struct fake_async, node);
    *event_out = async->async;
    fake_give(async, sizeof *async);
  }
  fake_unlock();
  return node != NULL ? 1 : 0;
}

void fake_async_push(struct verbs_device *device, enum verbs_async_kind kind, uint32_t port,
                     const char *text) {
  struct fake_async *async = fake_take(sizeof *async);
  async->async = (struct verbs_async){.kind = kind, .port = port, .text = text};
  list_append(&device->asyncs, &async->node);
  fake_signal_raise(device->async_fd);
}

void fake_device_async(uint32_t index, enum verbs_async_kind kind, uint32_t port) {
  fake_lock();
  FAKE_REQUIRE(index < fake.device_count, "no such device");
  fake_async_push(&fake.devices[index], kind, port, "an event of the test's");
  fake_unlock();
}

void fake_device_port(uint32_t index, uint32_t port, bool up) {
  fake_lock();
  FAKE_REQUIRE(index < fake.device_count, "no such device");
  struct verbs_device *device = &fake.devices[index];
  FAKE_REQUIRE(port > 0 && port <= device->config.ports, "no such port");
  device->port_down[port - 1] = !up;
  fake_async_push(device, up ? VERBS_ASYNC_PORT_UP : VERBS_ASYNC_PORT_DOWN, port,
                  up ? "port active" : "port error");
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fake.links)
    fake_pair_pump(container_of(node, struct verbs_link, node));
  fake_unlock();
}

void fake_device_remove(uint32_t index) {
  fake_lock();
  FAKE_REQUIRE(index < fake.device_count, "no such device");
  struct verbs_device *device = &fake.devices[index];
  device->removed = true;
  fake_async_push(device, VERBS_ASYNC_DEVICE_FATAL, 0, "device fatal");
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fake.links) {
    struct verbs_link *link = container_of(node, struct verbs_link, node);
    if (link->device == device) fake_link_removed(link);
  }
  fake_unlock();
}

/* --- domains and memories ----------------------------------------------------------------------
 */

static int domain_open(struct verbs_device *device, struct verbs_domain **domain_out) {
  int fault = fake_enter(FAKE_DOMAIN_OPEN);
  if (fault == 0 && device->removed) fault = -EIO;
  if (fault < 0) return fake_leave(FAKE_DOMAIN_OPEN, fault);
  struct verbs_domain *domain = fake_take(sizeof *domain);
  *domain = (struct verbs_domain){.alive = true, .device = device};
  fake.counts.domains++;
  *domain_out = domain;
  return fake_leave(FAKE_DOMAIN_OPEN, 0);
}

static int domain_close(struct verbs_domain *domain) {
  int fault = fake_enter(FAKE_DOMAIN_CLOSE);
  FAKE_REQUIRE(domain->alive, "closed twice");
  FAKE_REQUIRE(domain->memories == 0, "memory is still registered in it");
  FAKE_REQUIRE(domain->pairs == 0, "queue pairs still live in it");
  domain->alive = false;
  fake.counts.domains--;
  return fake_leave(FAKE_DOMAIN_CLOSE, fault);
}

static uint32_t next_key(void) {
  uint32_t key = ++fake.keys * 2654435769u ^ KEY_SALT;
  return (key ^ key >> 15) | 1u; /* never 0 */
}

static int memory_register(struct verbs_domain *domain, const struct verbs_registration *what,
                           struct verbs_memory **memory_out) {
  int fault = fake_enter(FAKE_MEMORY_REGISTER);
  FAKE_REQUIRE(domain->alive, "the domain is closed");
  if (fault == 0 && domain->device->removed) fault = -EIO;
  if (fault == 0 && (what->length_bytes == 0 || (what->address == NULL && what->dmabuf_fd < 0)))
    fault = -EINVAL;
  if (fault == 0 && what->length_bytes > domain->device->config.max_memory_bytes) fault = -ENOMEM;
  if (fault < 0) return fake_leave(FAKE_MEMORY_REGISTER, fault);
  struct fake_memory *memory = fake_take(sizeof *memory);
  *memory = (struct fake_memory){.alive = true, .domain = domain, .what = *what};
  memory->head = (struct verbs_memory){.local_key = next_key(), .remote_key = next_key()};
  list_append(&fake.memories, &memory->node);
  domain->memories++;
  fake.counts.memories++;
  *memory_out = &memory->head;
  return fake_leave(FAKE_MEMORY_REGISTER, 0);
}

static int memory_release(struct verbs_memory *head) {
  struct fake_memory *memory = container_of(head, struct fake_memory, head);
  int fault = fake_enter(FAKE_MEMORY_RELEASE);
  FAKE_REQUIRE(memory->alive, "released twice");
  FAKE_REQUIRE(memory->landing == 0, "outstanding READs land in it");
  memory->alive = false;
  list_remove(&memory->node);
  memory->domain->memories--;
  fake.counts.memories--;
  return fake_leave(FAKE_MEMORY_RELEASE, fault);
}

struct fake_memory *fake_memory_find(const struct verbs_domain *domain, bool remote, uint32_t key,
                                     uint64_t address, uint64_t length_bytes) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fake.memories) {
    struct fake_memory *memory = container_of(node, struct fake_memory, node);
    if (key != (remote ? memory->head.remote_key : memory->head.local_key)) continue;
    uint64_t start = (uint64_t)(uintptr_t)memory->what.address;
    if (memory->domain != domain || memory->what.remote_read != remote || address < start ||
        length_bytes > memory->what.length_bytes ||
        address - start > memory->what.length_bytes - length_bytes)
      return NULL;
    return memory;
  }
  return NULL;
}

const struct verbs *fake_verbs(void) {
  static const struct verbs layer = {
      .layer_version = VERBS_LAYER_VERSION,
      .struct_bytes = sizeof(struct verbs),
      .devices = devices,
      .port = port,
      .async_fd = async_fd,
      .async_next = async_next,
      .domain_open = domain_open,
      .domain_close = domain_close,
      .memory_register = memory_register,
      .memory_release = memory_release,
      .channel_open = fake_channel_open,
      .channel_close = fake_channel_close,
      .channel_fd = fake_channel_fd,
      .channel_next = fake_channel_next,
      .queue_open = fake_queue_open,
      .queue_close = fake_queue_close,
      .queue_acknowledge = fake_queue_acknowledge,
      .queue_arm = fake_queue_arm,
      .queue_poll = fake_queue_poll,
      .events_open = fake_events_open,
      .events_close = fake_events_close,
      .events_fd = fake_events_fd,
      .events_next = fake_events_next,
      .link_open = fake_link_open,
      .link_set_context = fake_link_set_context,
      .link_end = fake_link_end,
      .link_free = fake_link_free,
      .link_listen = fake_link_listen,
      .link_port = fake_link_port,
      .link_resolve_address = fake_link_resolve_address,
      .link_resolve_route = fake_link_resolve_route,
      .link_device = fake_link_device,
      .link_make_pair = fake_link_make_pair,
      .link_connect = fake_link_connect,
      .link_accept = fake_link_accept,
      .link_reject = fake_link_reject,
      .link_disconnect = fake_link_disconnect,
      .link_post = fake_link_post,
  };
  return &layer;
}
