/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs_check [--load]: does with real devices everything that net/rdma_verbs.h promises, both ends
 * of each connection in this process, from the first device to the last (the same when there is
 * one). Prints "ok NAME" or "FAILED NAME: what" per check; exit 0: all ok, 1: not, 77: no device.
 * It takes the last device's interface down and up again when it is root: for machines set up to
 * test. With --load it only loads the module and prints how that ended.
 */
#include "net/rdma_module.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define WAIT_MS 10000
#define MEMORY_BYTES ((size_t)8 << 20)
#define PATTERN 0xA5
#define EVENTS_MAX 64

/* A connection with both ends here. */
struct pair {
  struct verbs_link *fork, *seed;
  struct verbs_queue *fork_queue, *seed_queue;
};

static const struct verbs *verbs;
static struct verbs_device_info infos[VERBS_DEVICES_MAX], from, to; /* fork's and seed's device */
static struct verbs_port from_port, to_port;
static struct verbs_domain *fork_domain, *seed_domain;
static struct verbs_channel *channel;
static struct verbs_events *events;
static struct verbs_link *listener;
static struct verbs_memory *landing, *served;
static unsigned char *landing_bytes, *served_bytes;
static char listener_context;
static struct sockaddr_storage listener_address;
static struct verbs_event pending[EVENTS_MAX];
static size_t pending_count;
static const char *current = "start";
static int failures;

#define CHECK(condition, ...)                                                                      \
  do {                                                                                             \
    if (!(condition)) fail(__LINE__, #condition, __VA_ARGS__);                                     \
  } while (0)

__attribute__((format(printf, 3, 4))) static void fail(int line, const char *condition,
                                                       const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  printf("FAILED %s: line %d: %s: ", current, line, condition);
  vprintf(format, arguments);
  puts("");
  va_end(arguments);
  failures++;
}

/* What cannot be gone on without. */
static void must(int result, const char *what) {
  if (result >= 0) return;
  printf("FAILED %s: %s: %s\n", current, what, strerror(-result));
  exit(1);
}

/* ---- events and completions ---- */

static void wait_for(int fd, const char *what) {
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  int result;
  do {
    result = poll(&poller, 1, WAIT_MS);
  } while (result < 0 && errno == EINTR);
  if (result > 0) return;
  printf("FAILED %s: nothing came: %s\n", current, what);
  exit(1);
}

/* The next event for `link` (NULL: any), whatever it is; others wait for who asks for them. */
static struct verbs_event next_event(const struct verbs_link *link) {
  for (;;) {
    for (size_t i = 0; i < pending_count; i++) {
      struct verbs_event event = pending[i];
      bool request = event.kind == VERBS_EVENT_REQUEST;
      if (link == NULL ? !request : request || event.link != link) continue;
      memmove(&pending[i], &pending[i + 1], (--pending_count - i) * sizeof pending[0]);
      return event;
    }
    wait_for(verbs->events_fd(events), "connection event");
    int result;
    while (pending_count < EVENTS_MAX &&
           (result = verbs->events_next(events, &pending[pending_count])) != 0) {
      must(result, "events_next");
      pending_count++;
    }
  }
}

static struct verbs_event expect_event(const struct verbs_link *link, enum verbs_event_kind kind) {
  struct verbs_event event = next_event(link);
  CHECK(event.kind == kind, "got %s (%d), wanted kind %d", event.text, event.native, (int)kind);
  return event;
}

static struct verbs_event next_request(void) {
  for (;;) {
    for (size_t i = 0; i < pending_count; i++)
      if (pending[i].kind == VERBS_EVENT_REQUEST) {
        struct verbs_event event = pending[i];
        memmove(&pending[i], &pending[i + 1], (--pending_count - i) * sizeof pending[0]);
        return event;
      }
    wait_for(verbs->events_fd(events), "connection request");
    if (verbs->events_next(events, &pending[pending_count]) == 1) pending_count++;
  }
}

/* Sleeps on the channel until `wanted` completions are there. */
static void collect(struct verbs_queue *queue, struct verbs_completion *completions,
                    uint32_t wanted) {
  uint32_t have = 0;
  for (;;) {
    int got = verbs->queue_poll(queue, completions + have, wanted - have);
    must(got, "queue_poll");
    have += (uint32_t)got;
    if (have == wanted) return;
    must(verbs->queue_arm(queue), "queue_arm");
    got = verbs->queue_poll(queue, completions + have, wanted - have);
    must(got, "queue_poll");
    have += (uint32_t)got;
    if (have == wanted) return;
    wait_for(verbs->channel_fd(channel), "completion event");
    void *context = verbs->channel_next(channel);
    CHECK(context == &pending, "the queue's context");
    if (context != NULL) verbs->queue_acknowledge(queue, 1);
  }
}

/* ---- connections ---- */

static struct verbs_link *resolved_link(void) {
  struct verbs_link *link;
  must(verbs->link_open(events, NULL, &link), "link_open");
  verbs->link_set_context(link, &from);
  must(verbs->link_resolve_address(link, (struct sockaddr *)&from_port.address,
                                   (struct sockaddr *)&listener_address, 2000),
       "link_resolve_address");
  struct verbs_event event = expect_event(link, VERBS_EVENT_ADDRESS_RESOLVED);
  CHECK(event.context == &from, "the link's context");
  CHECK(verbs->link_device(link) == from.device, "device of the local address");
  must(verbs->link_resolve_route(link, 2000), "link_resolve_route");
  expect_event(link, VERBS_EVENT_ROUTE_RESOLVED);
  return link;
}

static const struct verbs_connect fork_side = {
    .private_data = "nonce", .private_bytes = 6, .read_depth = 16, .retries = 6, .ack_timeout = 14};
static const struct verbs_connect seed_side = {.serve_depth = 8, .retries = 6};

/* A fork that has connected, and the request that the seed got. */
static struct pair request_pair(uint32_t requests, uint32_t segments,
                                const struct verbs_connect *parameters,
                                struct verbs_event *request_out) {
  struct pair pair = {.fork = resolved_link()};
  /* Twice: check_chains posts more than it may. */
  must(verbs->queue_open(from.device, channel, 2 * requests, &pending, &pair.fork_queue),
       "queue_open");
  must(verbs->link_make_pair(pair.fork, fork_domain, pair.fork_queue,
                             &(struct verbs_link_limits){requests, segments}),
       "link_make_pair");
  must(verbs->link_connect(pair.fork, parameters), "link_connect");
  *request_out = next_request();
  pair.seed = request_out->link;
  return pair;
}

static void make_seed_pair(struct pair *pair) {
  must(verbs->queue_open(to.device, NULL, 1, NULL, &pair->seed_queue), "queue_open of a seed");
  must(verbs->link_make_pair(pair->seed, seed_domain, pair->seed_queue,
                             &(struct verbs_link_limits){0, 0}),
       "link_make_pair of a seed");
}

static struct pair connected_pair(uint32_t requests, uint32_t segments) {
  struct verbs_event request;
  struct pair pair = request_pair(requests, segments, &fork_side, &request);
  make_seed_pair(&pair);
  must(verbs->link_accept(pair.seed, &seed_side), "link_accept");
  struct verbs_event event = expect_event(pair.fork, VERBS_EVENT_ESTABLISHED);
  CHECK(event.serve_depth == 8 && event.read_depth == 0, "the peer serves %u", event.serve_depth);
  event = expect_event(pair.seed, VERBS_EVENT_ESTABLISHED);
  CHECK(event.read_depth == 8 && event.serve_depth == 0, "the peer reads %u", event.read_depth);
  return pair;
}

static void drop_events_of(const struct verbs_link *link) {
  size_t kept = 0;
  for (size_t i = 0; i < pending_count; i++)
    if (pending[i].link != link) pending[kept++] = pending[i];
  pending_count = kept;
}

static void end_link(struct verbs_link *link, struct verbs_queue *queue) {
  if (link == NULL) return;
  verbs->link_end(link);
  CHECK(verbs->link_device(link) == NULL, "an ended link is on no device");
  CHECK(verbs->link_disconnect(link) == 0, "disconnecting an ended link is harmless");
  verbs->link_free(link);
  drop_events_of(link);
  if (queue != NULL) must(verbs->queue_close(queue), "queue_close");
}

static void end_pair(struct pair *pair) {
  end_link(pair->fork, pair->fork_queue);
  end_link(pair->seed, pair->seed_queue);
}

/* ---- checks ---- */

static bool has_flags(int fd) {
  return fd >= 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 &&
         (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static void check_devices(void) {
  uint32_t count = 0, again = 0;
  int result = verbs->devices(infos, VERBS_DEVICES_MAX, &count);
  if (result == -ENODEV || result == -EACCES) {
    printf("no device: %s\n", strerror(-result));
    exit(77);
  }
  must(result, "devices");
  from = infos[0];
  to = infos[count - 1];
  struct verbs_device_info first;
  CHECK(verbs->devices(&first, 1, &again) == 0 && again == count, "%u devices, then %u", count,
        again);
  CHECK(first.device == from.device, "the same devices");
  CHECK(from.name[0] != '\0' && from.ports >= 1 && from.max_segments >= 1, "%s", from.name);
  CHECK(from.read_depth > 0 && from.serve_depth > 0 && from.max_requests > 0, "limits");
  CHECK(from.max_memory_bytes > 0 && from.max_queue_entries > 0, "limits");
  printf("# %u device(s); %s: %u requests, %u segments, depth %u/%u, memory %#llx, numa %d\n",
         count, from.name, from.max_requests, from.max_segments, from.read_depth, from.serve_depth,
         (unsigned long long)from.max_memory_bytes, from.numa_node);
}

static void check_ports(void) {
  must(verbs->port(from.device, 1, -1, &from_port), "port");
  must(verbs->port(to.device, 1, -1, &to_port), "port");
  CHECK(to_port.active && to_port.mtu_bytes >= 256 && to_port.bits_per_second > 0, "state of it");
  CHECK(to_port.address.ss_family == AF_INET, "family %d", to_port.address.ss_family);
  CHECK(if_nametoindex(to_port.interface) > 0, "interface '%s'", to_port.interface);
  struct verbs_port other = {.number = 77};
  CHECK(verbs->port(to.device, 1, to_port.gid_index, &other) == 0, "the chosen GID by its index");
  CHECK(memcmp(&other.address, &to_port.address, sizeof other.address) == 0, "its address");
  other.number = 77;
  CHECK(verbs->port(to.device, 1, 9999, &other) == -ENOENT, "a GID that is not there");
  CHECK(verbs->port(to.device, 99, -1, &other) < 0, "a port that is not there");
  CHECK(other.number == 77, "outputs are set on success only");
  printf("# %s: mtu %u, %llu bit/s, gid %d\n", to_port.interface, to_port.mtu_bytes,
         (unsigned long long)to_port.bits_per_second, to_port.gid_index);
}

static void check_descriptors(void) {
  struct verbs_async async;
  struct verbs_event event;
  CHECK(has_flags(verbs->async_fd(from.device)), "flags of async_fd");
  while (verbs->async_next(from.device, &async) == 1) printf("# async: %s\n", async.text);
  must(verbs->channel_open(from.device, &channel), "channel_open");
  CHECK(has_flags(verbs->channel_fd(channel)), "flags of channel_fd");
  CHECK(verbs->channel_next(channel) == NULL, "no event yet");
  must(verbs->events_open(&events), "events_open");
  CHECK(has_flags(verbs->events_fd(events)), "flags of events_fd");
  CHECK(verbs->events_next(events, &event) == 0, "no event yet");
}

static int register_range(struct verbs_domain *domain, void *address, size_t length, bool remote,
                          struct verbs_memory **memory_out) {
  struct verbs_registration what = {address, length, remote, -1, 0};
  return verbs->memory_register(domain, &what, memory_out);
}

static void *map_file(int protection) {
  FILE *file = tmpfile();
  if (file == NULL || ftruncate(fileno(file), 1 << 20) != 0) exit(1);
  memset(served_bytes, 7, 1 << 20);
  if (pwrite(fileno(file), served_bytes, 1 << 20, 0) != 1 << 20) exit(1);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(file));
  int fd = open(path, protection == PROT_READ ? O_RDONLY : O_RDWR);
  void *map = mmap(NULL, 1 << 20, protection, MAP_SHARED, fd, 0);
  close(fd);
  fclose(file);
  if (map == MAP_FAILED) exit(1);
  return map;
}

static void check_memory(void) {
  must(verbs->domain_open(from.device, &fork_domain), "domain_open");
  must(verbs->domain_open(to.device, &seed_domain), "domain_open");
  landing_bytes = aligned_alloc(4096, MEMORY_BYTES);
  served_bytes = aligned_alloc(4096, MEMORY_BYTES);
  if (landing_bytes == NULL || served_bytes == NULL) exit(1);
  must(register_range(fork_domain, landing_bytes, MEMORY_BYTES, false, &landing), "local memory");
  must(register_range(seed_domain, served_bytes, MEMORY_BYTES, true, &served), "remote memory");
  struct verbs_memory *memory[3];
  must(register_range(seed_domain, served_bytes + 4095, 8193, true, &memory[0]), "unaligned");
  must(register_range(seed_domain, served_bytes, MEMORY_BYTES, true, &memory[1]), "the same again");
  CHECK(memory[1]->remote_key != served->remote_key, "keys differ");
  void *map = map_file(PROT_READ);
  must(register_range(seed_domain, map, 1 << 20, true, &memory[2]), "map of a read-only file");
  for (int i = 0; i < 3; i++) must(verbs->memory_release(memory[i]), "memory_release");
  int result = register_range(fork_domain, map, 1 << 20, false, &memory[2]);
  CHECK(result == -EFAULT, "landing memory in a read-only map: %d", result);
  munmap(map, 1 << 20);
  result = register_range(fork_domain, map, 1 << 20, true, &memory[2]);
  CHECK(result == -EFAULT || result == -ENOMEM, "memory that is not there: %d", result);
  result = verbs->domain_close(seed_domain);
  CHECK(result == -EBUSY, "a domain with memory stays: %d", result);
}

/* A dma-buf that is none, and one where the machine can make one. */
static void check_dmabuf(void) {
  int file = memfd_create("not a dma-buf", MFD_CLOEXEC);
  struct verbs_memory *memory = NULL;
  struct verbs_registration what = {NULL, 4096, true, file, 0};
  int result = verbs->memory_register(seed_domain, &what, &memory);
  CHECK(result < 0 && memory == NULL, "%d", result);
  printf("# registering a dma-buf that is none: %s\n", strerror(-result));
  close(file);
}

static void check_listen(void) {
  must(verbs->link_open(events, &listener_context, &listener), "link_open");
  CHECK(verbs->link_port(listener) == 0, "no port yet");
  must(verbs->link_listen(listener, (struct sockaddr *)&to_port.address, 16), "link_listen");
  uint16_t port = verbs->link_port(listener);
  CHECK(port != 0, "a port was picked");
  CHECK(verbs->link_device(listener) == to.device, "device of a bound listener");
  listener_address = to_port.address;
  ((struct sockaddr_in *)&listener_address)->sin_port = htons(port);
  struct verbs_link *second;
  must(verbs->link_open(events, NULL, &second), "link_open");
  int result = verbs->link_listen(second, (struct sockaddr *)&listener_address, 16);
  CHECK(result == -EADDRINUSE, "a second listener on the port: %d", result);
  struct sockaddr odd = {.sa_family = AF_UNIX};
  CHECK(verbs->link_listen(second, &odd, 1) == -EAFNOSUPPORT, "family");
  CHECK(verbs->link_resolve_address(second, NULL, &odd, 1) == -EAFNOSUPPORT, "family");
  end_link(second, NULL);
}

static void check_reject(void) {
  unsigned char data[VERBS_PRIVATE_CONNECT_BYTES + 1];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i + 1);
  struct verbs_connect parameters = fork_side;
  parameters.private_data = data;
  parameters.private_bytes = VERBS_PRIVATE_CONNECT_BYTES;
  parameters.serve_depth = 3;
  struct verbs_event request, event;
  struct pair pair = request_pair(4, 1, &parameters, &request);
  CHECK(request.context == &listener_context, "the listener's context");
  CHECK(request.private_bytes == sizeof data - 1, "%u bytes", request.private_bytes);
  CHECK(memcmp(request.private_data, data, sizeof data - 1) == 0, "private data");
  CHECK(request.read_depth == 16 && request.serve_depth == 3, "as offered: read %u, serve %u",
        request.read_depth, request.serve_depth);
  CHECK(((struct sockaddr_in *)&request.peer)->sin_addr.s_addr ==
            ((struct sockaddr_in *)&from_port.address)->sin_addr.s_addr,
        "the peer's address");
  CHECK(verbs->link_device(request.link) == to.device, "device of a requested link");
  must(verbs->link_reject(request.link, "no entry", 8), "link_reject");
  event = expect_event(pair.fork, VERBS_EVENT_REJECTED);
  CHECK(event.native == 28, "reason %d", event.native);
  CHECK(event.private_bytes >= 8 && memcmp(event.private_data, "no entry", 8) == 0, "its data");
  end_pair(&pair);

  parameters.private_bytes++;
  struct verbs_link *link = resolved_link();
  CHECK(verbs->link_connect(link, &parameters) == -EINVAL, "57 bytes");
  parameters.private_bytes = 0;
  CHECK(verbs->link_connect(link, &parameters) == -ENOTCONN, "no queue pair yet");
  CHECK(verbs->link_disconnect(link) == 0, "disconnecting what was never connected");
  end_link(link, NULL);
}

/* A request that the seed drops without a word, and one that nobody listens for. */
static void check_refusals(void) {
  struct verbs_event request, event;
  struct pair pair = request_pair(4, 1, &fork_side, &request);
  end_link(pair.seed, NULL);
  pair.seed = NULL;
  event = expect_event(pair.fork, VERBS_EVENT_REJECTED);
  printf("# a request dropped: reason %d\n", event.native);
  end_pair(&pair);

  struct sockaddr_in *address = (struct sockaddr_in *)&listener_address;
  in_port_t port = address->sin_port;
  address->sin_port = htons(1);
  pair = (struct pair){.fork = resolved_link()};
  must(verbs->queue_open(from.device, channel, 1, &pending, &pair.fork_queue), "queue_open");
  must(verbs->link_make_pair(pair.fork, fork_domain, pair.fork_queue,
                             &(struct verbs_link_limits){1, 1}),
       "link_make_pair");
  CHECK(verbs->link_make_pair(pair.fork, fork_domain, pair.fork_queue,
                              &(struct verbs_link_limits){1, 1}) == -EINVAL,
        "a second queue pair");
  must(verbs->link_connect(pair.fork, &fork_side), "link_connect");
  event = expect_event(pair.fork, VERBS_EVENT_REJECTED);
  printf("# nobody listens: reason %d\n", event.native);
  address->sin_port = port;
  end_pair(&pair);
}

static void fill_memory(void) {
  for (size_t i = 0; i < MEMORY_BYTES; i++) served_bytes[i] = (unsigned char)(i * 31 + i / 4096);
  memset(landing_bytes, PATTERN, MEMORY_BYTES);
}

static struct verbs_read read_of(uint64_t id, size_t offset, const struct verbs_segment *segments,
                                 uint32_t count) {
  return (struct verbs_read){.id = id,
                             .remote_address = (uintptr_t)served_bytes + offset,
                             .remote_key = served->remote_key,
                             .segment_count = count,
                             .segments = segments,
                             .signalled = true};
}

static struct verbs_segment segment_at(size_t offset, uint32_t length) {
  return (struct verbs_segment){(uintptr_t)landing_bytes + offset, length, landing->local_key};
}

static void check_scatter(void) {
  fill_memory();
  struct pair pair = connected_pair(4, 4);
  struct verbs_segment segments[4] = {segment_at(1, 1000), segment_at(9000, 1),
                                      segment_at(20000, 5000), segment_at(3 << 20, 1 << 20)};
  struct verbs_read reads[2] = {read_of(11, 0, segments, 4), read_of(12, 100, segments + 3, 1)};
  reads[0].signalled = false; /* only the second one makes an entry */
  reads[1].segments =
      &(struct verbs_segment){(uintptr_t)landing_bytes + (5 << 20), 77, landing->local_key};
  uint32_t posted = 0;
  must(verbs->link_post(pair.fork, reads, 2, &posted), "link_post");
  CHECK(posted == 2, "%u posted", posted);
  struct verbs_completion completion;
  collect(pair.fork_queue, &completion, 1);
  CHECK(completion.id == 12 && completion.outcome == VERBS_OK && completion.native == 0, "id %llu",
        (unsigned long long)completion.id);
  CHECK(verbs->queue_poll(pair.fork_queue, &completion, 1) == 0, "one entry");
  size_t offset = 0;
  for (int i = 0; i < 4; i++) {
    void *bytes = (void *)(uintptr_t)segments[i].address;
    CHECK(memcmp(bytes, served_bytes + offset, segments[i].length_bytes) == 0, "segment %d", i);
    offset += segments[i].length_bytes;
  }
  CHECK(memcmp(landing_bytes + (5 << 20), served_bytes + 100, 77) == 0, "the second read");
  CHECK(landing_bytes[0] == PATTERN && landing_bytes[1001] == PATTERN, "bytes beside it");
  end_pair(&pair);
}

/* More reads than one chain, more than the queue pair takes. */
static void check_chains(void) {
  enum { REQUESTS = 600, SIZE = 4096 };
  static struct verbs_segment segments[2 * REQUESTS];
  static struct verbs_read reads[2 * REQUESTS];
  static struct verbs_completion completions[2 * REQUESTS];
  fill_memory();
  struct pair pair = connected_pair(REQUESTS, 1);
  for (uint32_t i = 0; i < 2 * REQUESTS; i++) {
    segments[i] = segment_at((size_t)i * SIZE, SIZE);
    reads[i] = read_of(i, (size_t)i * SIZE, &segments[i], 1);
  }
  uint32_t posted = 0;
  must(verbs->link_post(pair.fork, reads, REQUESTS, &posted), "link_post");
  CHECK(posted == REQUESTS, "%u posted", posted);
  collect(pair.fork_queue, completions, REQUESTS);
  for (uint32_t i = 0; i < REQUESTS; i++)
    CHECK(completions[i].id == i && completions[i].outcome == VERBS_OK, "completion %u", i);
  CHECK(memcmp(landing_bytes, served_bytes, (size_t)REQUESTS * SIZE) == 0, "bytes");
  /* Long ones, so that none ends before the last is refused. */
  struct verbs_segment whole = segment_at(0, MEMORY_BYTES);
  for (uint32_t i = 0; i < 2 * REQUESTS; i++) reads[i] = read_of(i, 0, &whole, 1);
  int result = verbs->link_post(pair.fork, reads, 2 * REQUESTS, &posted);
  CHECK(result == -ENOMEM && posted >= REQUESTS && posted < 2 * REQUESTS, "%d, %u posted", result,
        posted);
  printf("# of %d reads %u were taken: %s\n", 2 * REQUESTS, posted, strerror(-result));
  must(verbs->link_disconnect(pair.fork), "link_disconnect");
  collect(pair.fork_queue, completions, posted);
  end_pair(&pair);
}

static void check_arming(void) {
  struct pair pair = connected_pair(4, 1);
  struct verbs_segment segment = segment_at(0, 4096);
  struct verbs_read read = read_of(5, 0, &segment, 1);
  struct verbs_completion completion;
  uint32_t posted;
  for (int i = 0; i < 3; i++) {
    must(verbs->queue_arm(pair.fork_queue), "queue_arm");
    CHECK(verbs->queue_poll(pair.fork_queue, &completion, 1) == 0, "nothing yet");
    CHECK(verbs->channel_next(channel) == NULL, "nothing yet");
    must(verbs->link_post(pair.fork, &read, 1, &posted), "link_post");
    wait_for(verbs->channel_fd(channel), "completion event");
    CHECK(verbs->channel_next(channel) == &pending, "context");
    CHECK(verbs->channel_next(channel) == NULL, "one event");
    CHECK(verbs->queue_poll(pair.fork_queue, &completion, 1) == 1, "one completion");
    CHECK(completion.id == 5 && completion.outcome == VERBS_OK, "it");
  }
  verbs->queue_acknowledge(pair.fork_queue, 3);
  verbs->queue_acknowledge(pair.fork_queue, 0);
  end_pair(&pair);
}

static void check_bad_key(void) {
  struct verbs_completion completions[3];
  uint32_t posted;
  struct verbs_segment segment = segment_at(0, 4096);
  for (int round = 0; round < 3; round++) {
    memset(landing_bytes, PATTERN, 4096);
    struct pair pair = connected_pair(4, 1);
    struct verbs_read reads[3];
    for (uint32_t i = 0; i < 3; i++) reads[i] = read_of(i, 0, &segment, 1);
    if (round == 0) reads[0].remote_key ^= 0x5500;
    if (round == 1) reads[0].remote_address += MEMORY_BYTES - 4095;
    if (round == 2) segment.local_key ^= 0x5500; /* ours */
    must(verbs->link_post(pair.fork, reads, 3, &posted), "link_post");
    collect(pair.fork_queue, completions, 3);
    enum verbs_outcome wanted = round < 2 ? VERBS_REMOTE_ACCESS : VERBS_LOCAL;
    CHECK(completions[0].outcome == wanted && completions[0].id == 0, "round %d: outcome %d (%u)",
          round, (int)completions[0].outcome, completions[0].native);
    for (int i = 1; i < 3; i++)
      CHECK(completions[i].outcome == VERBS_FLUSHED && completions[i].id == (uint64_t)i,
            "round %d: outcome %d", round, (int)completions[i].outcome);
    CHECK(landing_bytes[0] == PATTERN && landing_bytes[4095] == PATTERN, "no byte landed");
    end_pair(&pair);
  }
}

enum end { BY_FORK, BY_SEED, BY_RELEASE, ENDS };

/* Ends a connection in the middle of reads; counts what lands after the drain. */
static void end_while_reading(enum end end) {
  static struct verbs_completion completions[64];
  static struct verbs_read reads[64];
  struct pair pair = connected_pair(64, 1);
  struct verbs_segment segment = segment_at(0, 4 << 20);
  for (uint32_t i = 0; i < 64; i++) reads[i] = read_of(i, 0, &segment, 1);
  uint32_t posted;
  must(verbs->link_post(pair.fork, reads, 64, &posted), "link_post");
  collect(pair.fork_queue, completions, 2);
  if (end == BY_FORK) must(verbs->link_disconnect(pair.fork), "link_disconnect");
  if (end == BY_SEED) must(verbs->link_disconnect(pair.seed), "link_disconnect");
  if (end == BY_RELEASE) must(verbs->memory_release(served), "memory_release");
  collect(pair.fork_queue, completions + 2, 62);
  memset(landing_bytes, PATTERN, MEMORY_BYTES);
  uint32_t count[VERBS_LOCAL + 1] = {0};
  for (int i = 0; i < 64; i++) count[completions[i].outcome]++;
  printf("# end %d: ok %u, flushed %u, unreachable %u, access %u, other %u, local %u\n", end,
         count[0], count[1], count[2], count[3], count[4], count[5]);
  CHECK(count[VERBS_OK] < 64 && count[VERBS_FLUSHED] > 0 && count[VERBS_LOCAL] == 0, "flushed");
  CHECK(end != BY_RELEASE || count[VERBS_REMOTE_ACCESS] == 1, "refused");
  if (end == BY_FORK) expect_event(pair.seed, VERBS_EVENT_DISCONNECTED);
  if (end == BY_SEED) expect_event(pair.fork, VERBS_EVENT_DISCONNECTED);
  must(verbs->link_disconnect(pair.fork), "disconnecting twice");
  end_pair(&pair);
  size_t late = 0;
  for (size_t i = 0; i < MEMORY_BYTES; i++) late += landing_bytes[i] != PATTERN;
  CHECK(late == 0, "%zu bytes landed late", late);
  if (end == BY_RELEASE)
    must(register_range(seed_domain, served_bytes, MEMORY_BYTES, true, &served), "again");
}

static void check_disconnect(void) {
  for (enum end end = BY_FORK; end < ENDS; end++) end_while_reading(end);
  /* Before it is established, on both sides. */
  struct verbs_event request;
  struct pair pair = request_pair(4, 1, &fork_side, &request);
  make_seed_pair(&pair);
  CHECK(verbs->link_disconnect(pair.seed) == 0, "a request not yet accepted");
  CHECK(verbs->link_disconnect(pair.fork) == 0, "a connect not yet answered");
  int result = verbs->link_accept(pair.seed, &seed_side);
  CHECK(result < 0, "the pair is in error: accepted with %d", result);
  end_pair(&pair);
}

/* The end of one side alone tells the other. */
static void check_end_tells_the_peer(void) {
  struct pair pair = connected_pair(4, 1);
  end_link(pair.seed, pair.seed_queue);
  pair.seed = NULL;
  expect_event(pair.fork, VERBS_EVENT_DISCONNECTED);
  struct verbs_segment segment = segment_at(0, 4096);
  struct verbs_read read = read_of(1, 0, &segment, 1);
  memset(landing_bytes, PATTERN, 4096);
  uint32_t posted;
  if (verbs->link_post(pair.fork, &read, 1, &posted) == 0) {
    struct verbs_completion completion;
    collect(pair.fork_queue, &completion, 1);
    CHECK(completion.outcome == VERBS_UNREACHABLE || completion.outcome == VERBS_FLUSHED,
          "outcome %d", (int)completion.outcome);
  }
  CHECK(landing_bytes[0] == PATTERN, "nothing was read");
  end_pair(&pair);
}

/* ---- ends on a worker while the reactor takes events ---- */

struct work {
  struct verbs_link *link;
  int done[2]; /* pipe */
};

static void *end_on_worker(void *argument) {
  struct work *work = argument;
  verbs->link_end(work->link);
  if (write(work->done[1], "", 1) != 1) abort();
  return NULL;
}

static void note_signal(int number) {
  (void)number;
}

/* Ends the fork's link at a moment of its connection that depends on `round`, while this thread
 * takes events. */
static void end_in_a_race(int round) {
  struct verbs_event request, event;
  struct pair pair = request_pair(4, 1, &fork_side, &request);
  make_seed_pair(&pair);
  struct work work = {.link = pair.fork};
  pthread_t thread;
  if (pipe(work.done) != 0) exit(1);
  bool early = round % 2 == 0;
  if (early && pthread_create(&thread, NULL, end_on_worker, &work) != 0) exit(1);
  (void)verbs->link_accept(pair.seed, &seed_side); /* fails when the fork has gone already */
  if (!early && pthread_create(&thread, NULL, end_on_worker, &work) != 0) exit(1);
  struct pollfd pollers[2] = {{.fd = verbs->events_fd(events), .events = POLLIN},
                              {.fd = work.done[0], .events = POLLIN}};
  do {
    if (poll(pollers, 2, WAIT_MS) == 0) must(-ETIMEDOUT, "link_end on a worker");
    while (verbs->events_next(events, &event) == 1)
      CHECK(event.link == pair.fork || event.link == pair.seed, "an event of a stranger");
  } while ((pollers[1].revents & POLLIN) == 0);
  pthread_join(thread, NULL);
  close(work.done[0]);
  close(work.done[1]);
  end_pair(&pair);
}

static void check_races(void) {
  struct sigaction action = {.sa_handler = note_signal}; /* no SA_RESTART */
  sigaction(SIGALRM, &action, NULL);
  struct itimerval timer = {{0, 2000}, {0, 2000}};
  setitimer(ITIMER_REAL, &timer, NULL);
  for (int round = 0; round < 200; round++) end_in_a_race(round);
  timer = (struct itimerval){0};
  setitimer(ITIMER_REAL, &timer, NULL);
}

/* ---- the device itself ---- */

static void set_up(const char *interface, bool up) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {0};
  snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
  if (ioctl(fd, SIOCGIFFLAGS, &request) != 0) exit(1);
  request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  if (ioctl(fd, SIOCSIFFLAGS, &request) != 0) exit(1);
  close(fd);
}

static void check_port_events(void) {
  if (geteuid() != 0) return;
  static const enum verbs_async_kind kinds[] = {VERBS_ASYNC_PORT_DOWN, VERBS_ASYNC_PORT_UP};
  struct verbs_async async;
  while (verbs->async_next(to.device, &async) == 1) continue;
  for (int i = 0; i < 2; i++) {
    set_up(to_port.interface, i == 1);
    do {
      wait_for(verbs->async_fd(to.device), "port event");
      CHECK(verbs->async_next(to.device, &async) == 1, "an event");
      printf("# async: %s, port %u\n", async.text, async.port);
    } while (async.kind == VERBS_ASYNC_OTHER);
    CHECK(async.kind == kinds[i] && async.port == 1, "%s", async.text);
    struct verbs_port port;
    must(verbs->port(to.device, 1, -1, &port), "port");
    CHECK(port.active == (i == 1), "active %d", port.active);
  }
}

static int count_descriptors(void) {
  int count = 0;
  for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

static void check_destruction(void) {
  end_link(listener, NULL);
  must(verbs->memory_release(landing), "memory_release");
  must(verbs->memory_release(served), "memory_release");
  must(verbs->channel_close(channel), "channel_close");
  must(verbs->events_close(events), "events_close");
  must(verbs->domain_close(fork_domain), "domain_close");
  must(verbs->domain_close(seed_domain), "domain_close");
  free(landing_bytes);
  free(served_bytes);
}

static void run(const char *name, void (*check)(void)) {
  int before = failures;
  current = name;
  check();
  if (failures == before) printf("ok %s\n", name);
  fflush(stdout);
}

int main(int argc, char **argv) {
  struct sprout_error error;
  if (rdma_module_load(&verbs, &error) != SPROUT_OK) {
    printf("%s\n%s\n", error.message, error.hint);
    return 1;
  }
  if (argc > 1 && strcmp(argv[1], "--load") == 0) {
    puts("loaded");
    return 0;
  }
  run("devices", check_devices);
  int descriptors = count_descriptors();
  run("ports", check_ports);
  run("descriptors", check_descriptors);
  run("memory", check_memory);
  run("dma-buf", check_dmabuf);
  run("listen", check_listen);
  run("reject", check_reject);
  run("refusals", check_refusals);
  run("scatter", check_scatter);
  run("chains", check_chains);
  run("arming", check_arming);
  run("bad key", check_bad_key);
  run("disconnect", check_disconnect);
  run("end tells the peer", check_end_tells_the_peer);
  run("races", check_races);
  run("port events", check_port_events);
  run("destruction", check_destruction);
  current = "leaks";
  CHECK(count_descriptors() == descriptors, "%d descriptors, %d before", count_descriptors(),
        descriptors);
  printf("%d failure(s)\n", failures);
  return failures > 0;
}
