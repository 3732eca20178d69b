/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the fake verbs layer: its objects, and what its three files share. Everything below is
 * guarded by fake.lock, except what says otherwise.
 *
 * fake_verbs.c: the whole, devices, domains, memories. fake_verbs_queue.c: channels, queues, READs.
 * fake_verbs_link.c: the connection manager.
 *
 * No object is ever used twice, so that its use after its end is seen (`alive`).
 */
#ifndef TESTS_SUPPORT_FAKE_VERBS_PRIVATE_H
#define TESTS_SUPPORT_FAKE_VERBS_PRIVATE_H

#include "core/list.h"
#include "tests/support/fake_verbs.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

/* What a caller must never do: says so and aborts. */
#define FAKE_REQUIRE(condition, what)                                                              \
  do {                                                                                             \
    if (!(condition)) fake_stop(__func__, what);                                                   \
  } while (0)

struct fake_gate {
  uint64_t calls;
  uint64_t fail_at; /* counts down; 0: none */
  int fail_error, fail_all;
  bool held, return_held;
  uint32_t permits, waiting, parallel_max;
  atomic_uint inside;
};

struct verbs_device {
  struct fake_device config;
  uint32_t index;
  int async_fd;
  struct list_node asyncs; /* fake_async */
  bool removed;
  bool port_down[FAKE_PORTS_MAX];
  struct fake_view view;
};

struct fake_async {
  struct list_node node;
  struct verbs_async async;
};

struct verbs_domain {
  bool alive;
  struct verbs_device *device;
  uint32_t memories, pairs;
};

struct fake_memory {
  struct verbs_memory head;
  bool alive;
  struct verbs_domain *domain;
  struct verbs_registration what;
  uint32_t landing; /* segments of outstanding READs that point here */
  struct list_node node;
};

struct verbs_channel {
  bool alive;
  struct verbs_device *device;
  int fd;
  uint32_t queues;
  struct list_node events; /* fake_queue_event */
};

struct fake_queue_event {
  struct list_node node;
  struct verbs_queue *queue;
};

/* A completion in a queue. */
struct fake_entry {
  struct verbs_completion completion;
  struct verbs_link *link;
  uint32_t slots; /* work requests that are over when it is polled */
};

struct verbs_queue {
  bool alive;
  struct verbs_device *device;
  struct verbs_channel *channel; /* may be NULL */
  void *context;
  bool armed;
  uint64_t taken, acknowledged; /* events */
  uint32_t pairs;
  uint32_t capacity, first, count;
  struct fake_entry *entries;
};

struct verbs_events {
  bool alive;
  int fd;
  uint32_t links;
  struct list_node events; /* fake_event */
};

struct fake_event {
  struct list_node node;
  struct verbs_event event;
  struct verbs_link *listener; /* of a request */
};

enum fake_link_state {
  FAKE_LINK_NEW,
  FAKE_LINK_BOUND, /* listens */
  FAKE_LINK_ADDRESS_ASKED,
  FAKE_LINK_ADDRESS,
  FAKE_LINK_ROUTE_ASKED,
  FAKE_LINK_ROUTE,
  FAKE_LINK_ASKING,    /* its request is on the way */
  FAKE_LINK_REQUESTED, /* it came with a request that has no answer yet */
  FAKE_LINK_CONNECTED,
  FAKE_LINK_OVER, /* failed, rejected or disconnected; not ended */
  FAKE_LINK_ENDED,
  FAKE_LINK_FREED
};

/* An outstanding READ. */
struct fake_request {
  struct list_node node;
  struct verbs_read read;
  uint64_t length_bytes;
  bool answered; /* ahead of those before it */
  struct verbs_segment segments[FAKE_SEGMENTS_MAX];
};

struct verbs_link {
  enum fake_link_state state;
  enum fake_side side;
  struct verbs_events *events;
  void *context;
  struct verbs_device *device;
  struct verbs_link *peer;
  struct list_node node;              /* fake.links */
  struct list_node turn;              /* fake.turns */
  struct sockaddr_storage address;    /* listener: its own; else of the peer */
  uint32_t backlog, requests_waiting; /* of a listener */
  struct verbs_link *listener;        /* of a request not delivered yet */
  struct verbs_connect offer;         /* of connect or accept; without the private data */
  uint8_t read_depth;                 /* agreed */
  bool peer_gone;                     /* it serves nothing any more */
  bool was_connected, told_disconnected;

  struct verbs_domain *domain; /* NULL: no queue pair */
  struct verbs_queue *queue;
  struct verbs_link_limits limits;
  bool pair_error;
  bool muted, flush_muted, completions_held;
  uint32_t silent_slots;     /* unsignalled ones done since the last entry */
  struct list_node requests; /* fake_request, oldest first */
  struct list_node held;     /* fake_held */
  struct fake_view view;
};

struct fake_held {
  struct list_node node;
  struct fake_entry entry;
};

struct fake_verbs_state {
  bool started;
  pthread_t reactor_thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  uint32_t device_count;
  struct verbs_device devices[FAKE_DEVICES_MAX];
  struct fake_gate gates[FAKE_CALLS];
  struct fake_counts counts;
  uint64_t blocking_here;
  bool excused;
  uint32_t keys;
  struct list_node memories; /* fake_memory */
  struct list_node links;    /* all that were not freed, oldest first */
  struct list_node turns;

  bool manual, any_order, keep_completions;
  uint32_t step_before_arm;
  uint64_t read_fault_at;
  enum verbs_outcome read_fault;
  uint64_t duplicate_at;
  void (*before_copy)(void *context);
  void *before_copy_context;

  uint16_t next_port;
  bool hangs[FAKE_STAGES];
  int unreachable[FAKE_STAGES];
  bool reject_next;
  int reject_native;
  uint8_t reject_bytes;
  uint8_t reject_data[FAKE_PRIVATE_REJECT_BYTES];
};

extern struct fake_verbs_state fake;

_Noreturn void fake_stop(const char *where, const char *what);
/* Locks; 0 or the -errno that the call is to fail with. fake_leave unlocks and gives back result.
 */
int fake_enter(enum fake_call call);
int fake_leave(enum fake_call call, int result);
/* The fault of this call, counted without entering. */
int fake_fault(enum fake_call call);
void fake_lock(void);
void fake_unlock(void);

/* Zeroed memory until fake_verbs_end; never fails. Only short-lived nodes are given back. */
void *fake_take(size_t bytes);
void fake_give(void *memory, size_t bytes);

int fake_signal_open(void);
void fake_signal_raise(int fd);
void fake_signal_clear(int fd);

void fake_async_push(struct verbs_device *device, enum verbs_async_kind kind, uint32_t port,
                     const char *text);
/* By which the device is reached; AF_UNSPEC: by none. */
void fake_device_address(const struct verbs_device *device, struct sockaddr_storage *address_out);
/* Keys and ranges of one access; NULL: none such. */
struct fake_memory *fake_memory_find(const struct verbs_domain *domain, bool remote, uint32_t key,
                                     uint64_t address, uint64_t length_bytes);

/* fake_verbs_queue.c */
void fake_pair_release(struct verbs_link *link);
/* Without steps: runs all that can run. */
void fake_pair_pump(struct verbs_link *link);
int fake_channel_open(struct verbs_device *device, struct verbs_channel **channel_out);
int fake_channel_close(struct verbs_channel *channel);
int fake_channel_fd(struct verbs_channel *channel);
void *fake_channel_next(struct verbs_channel *channel);
int fake_queue_open(struct verbs_device *device, struct verbs_channel *channel, uint32_t entries,
                    void *context, struct verbs_queue **queue_out);
int fake_queue_close(struct verbs_queue *queue);
void fake_queue_acknowledge(struct verbs_queue *queue, uint32_t events);
int fake_queue_arm(struct verbs_queue *queue);
int fake_queue_poll(struct verbs_queue *queue, struct verbs_completion *completions_out,
                    uint32_t capacity);
int fake_link_post(struct verbs_link *link, const struct verbs_read *reads, uint32_t count,
                   uint32_t *posted_out);

/* fake_verbs_link.c */
void fake_link_removed(struct verbs_link *link);
int fake_events_open(struct verbs_events **events_out);
int fake_events_close(struct verbs_events *events);
int fake_events_fd(struct verbs_events *events);
int fake_events_next(struct verbs_events *events, struct verbs_event *event_out);
int fake_link_open(struct verbs_events *events, void *context, struct verbs_link **link_out);
void fake_link_set_context(struct verbs_link *link, void *context);
void fake_link_end(struct verbs_link *link);
void fake_link_free(struct verbs_link *link);
int fake_link_listen(struct verbs_link *link, const struct sockaddr *address, uint32_t backlog);
uint16_t fake_link_port(struct verbs_link *link);
int fake_link_resolve_address(struct verbs_link *link, const struct sockaddr *local,
                              const struct sockaddr *peer, uint32_t timeout_ms);
int fake_link_resolve_route(struct verbs_link *link, uint32_t timeout_ms);
struct verbs_device *fake_link_device(struct verbs_link *link);
int fake_link_make_pair(struct verbs_link *link, struct verbs_domain *domain,
                        struct verbs_queue *queue, const struct verbs_link_limits *limits);
int fake_link_connect(struct verbs_link *link, const struct verbs_connect *parameters);
int fake_link_accept(struct verbs_link *link, const struct verbs_connect *parameters);
int fake_link_reject(struct verbs_link *link, const void *private_data, uint8_t private_bytes);
int fake_link_disconnect(struct verbs_link *link);
#endif
