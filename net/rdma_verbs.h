/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs layer: what sprout needs of libibverbs and librdmacm, without their types, so that one
 * program starts where they are missing and tests can put another layer in their place.
 *
 * Implementations: the module libsprout_rdma.so (net/verbs/, the only files that know verbs and
 * rdmacm), loaded by net/rdma_module.c, and the fake one of the unit tests.
 *
 * Results: 0 (or a count) or a negative errno. Outputs are set only on success. Nothing here logs:
 * the caller classifies, once.
 *
 * Threads: functions marked "blocking" may sleep or take long; they run on the worker pool. All
 * others run on the reactor's thread. One object is used by one thread at a time, except that
 * events_next may run on the reactor while a worker is inside a blocking call for one of its links.
 *
 * Order of destruction: links, then queues, channels and memories, then domains. Devices live as
 * long as the layer.
 */
#ifndef NET_RDMA_VERBS_H
#define NET_RDMA_VERBS_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define VERBS_NAME_BYTES 64
#define VERBS_DEVICES_MAX 32u
/* Of rdma_cm over RC: what a connecting side may send, and what fits any event. */
#define VERBS_PRIVATE_CONNECT_BYTES 56u
#define VERBS_PRIVATE_BYTES 196u
/* Raised with every change of this header. */
#define VERBS_LAYER_VERSION 2u

struct verbs_device;  /* the layer's */
struct verbs_domain;  /* protection domain */
struct verbs_channel; /* completion channel: one descriptor for many queues */
struct verbs_queue;   /* completion queue */
struct verbs_events;  /* connection manager's event channel */
struct verbs_link; /* one connection: an rdma_cm id and, later, its RC queue pair; or a listener */

/* A device and its limits. */
struct verbs_device_info {
  struct verbs_device *device;
  char name[VERBS_NAME_BYTES];
  uint64_t max_memory_bytes;  /* of one registration */
  uint32_t max_queue_entries; /* completions of one queue */
  uint32_t max_requests;      /* work requests of one queue pair */
  uint32_t max_segments;      /* scatter list of one READ */
  uint32_t read_depth;        /* READs a queue pair may have outstanding */
  uint32_t serve_depth;       /* READs of its peer that it can serve at once */
  uint32_t ports;             /* numbered from 1 */
  int numa_node;              /* -1: unknown */
};

struct verbs_port {
  uint32_t number;
  bool active;
  bool infiniband; /* link layer; else Ethernet (RoCE) */
  uint32_t mtu_bytes;
  uint64_t bits_per_second;
  int32_t gid_index; /* of `address` */
  /* What rdma_cm binds and resolves by: of the wanted GID, or of the port's interface. ss_family
   * AF_UNSPEC: the port has no IP address, connections cannot be made over it. */
  struct sockaddr_storage address;
  char interface[IF_NAMESIZE]; /* "": unknown */
};

enum verbs_async_kind {
  VERBS_ASYNC_PORT_UP,
  VERBS_ASYNC_PORT_DOWN,
  VERBS_ASYNC_DEVICE_FATAL, /* nothing on this device works any more */
  VERBS_ASYNC_OTHER
};

struct verbs_async {
  enum verbs_async_kind kind;
  uint32_t port;    /* of port events */
  const char *text; /* the library's name of the event; static */
};

/* What to register. */
struct verbs_registration {
  void *address;
  uint64_t length_bytes;
  bool remote_read; /* peers may read it; else it is local memory that READs land in */
  int dmabuf_fd;    /* -1: ordinary memory; else `address` is only the key's start address */
  uint64_t dmabuf_offset;
};

/* Head of the layer's own struct. */
struct verbs_memory {
  uint32_t local_key, remote_key;
};

/* One entry of a scatter list. */
struct verbs_segment {
  uint64_t address;
  uint32_t length_bytes;
  uint32_t local_key;
};

/* One RDMA READ. */
struct verbs_read {
  uint64_t id; /* comes back with its completion */
  uint64_t remote_address;
  uint32_t remote_key;
  uint32_t segment_count;
  const struct verbs_segment *segments;
  bool signalled; /* completes with an entry in the queue even when it succeeds */
  bool after_all; /* begins only when all bytes of the reads before it on the link have arrived:
                     reads that are under way together see memory in no certain order */
};

/* How a work request ended; the groups that matter to us. */
enum verbs_outcome {
  VERBS_OK,
  VERBS_FLUSHED,       /* the queue pair was in error before it ran */
  VERBS_UNREACHABLE,   /* retries exceeded: the peer or the path does not answer */
  VERBS_REMOTE_ACCESS, /* the peer's memory is not (any more) to be read with this key */
  VERBS_REMOTE_OTHER,  /* the peer refused or failed for another reason */
  VERBS_LOCAL          /* our own request, memory or device */
};

struct verbs_completion {
  uint64_t id; /* valid whatever the outcome */
  enum verbs_outcome outcome;
  uint32_t native; /* ibv_wc_status */
  uint32_t vendor;
};

/* Size of a queue pair. Only reads are posted, and on a serving side nothing. */
struct verbs_link_limits {
  uint32_t requests; /* work requests outstanding; 0: a serving side */
  uint32_t segments; /* per request */
};

struct verbs_connect {
  const void *private_data;
  uint8_t private_bytes;
  uint8_t read_depth;  /* READs we will have outstanding */
  uint8_t serve_depth; /* READs of the peer that we serve */
  uint8_t retries;     /* of the transport; 0..6 (7 means for ever on some devices) */
  uint8_t ack_timeout; /* 4.096 us x 2^this before a retry; 0: the layer's default */
};

enum verbs_event_kind {
  VERBS_EVENT_ADDRESS_RESOLVED,
  VERBS_EVENT_ROUTE_RESOLVED,
  VERBS_EVENT_REQUEST, /* somebody connects to a listener: `link` is new */
  VERBS_EVENT_ESTABLISHED,
  VERBS_EVENT_REJECTED,    /* native: the CM's reason; private data of who rejected */
  VERBS_EVENT_UNREACHABLE, /* address, route or connect error; native: -errno or CM status */
  VERBS_EVENT_DISCONNECTED,
  VERBS_EVENT_REMOVED, /* the device goes away: close the link */
  VERBS_EVENT_OTHER
};

struct verbs_event {
  enum verbs_event_kind kind;
  struct verbs_link *link;
  void *context; /* of the link; of the listener for a request */
  int native;
  const char *text; /* the library's name of the event; static */
  /* Request, established: of the peer, as it offers or agreed to: READs that it will have
   * outstanding here, and READs of ours that it serves. */
  uint8_t read_depth, serve_depth;
  uint8_t private_bytes; /* zero-padded by the transport: may exceed what was sent */
  uint8_t private_data[VERBS_PRIVATE_BYTES];
  struct sockaddr_storage peer; /* of a request */
};

struct verbs {
  uint32_t layer_version; /* VERBS_LAYER_VERSION */
  uint32_t struct_bytes;

  /* Blocking. Fills at most `capacity` devices and says how many there are. -ENODEV without any,
   * -EACCES when they may not be opened. Calling it again gives the same devices. */
  int (*devices)(struct verbs_device_info *devices_out, uint32_t capacity, uint32_t *count_out);
  /* Blocking. gid_index -1: the first RoCE v2 GID with an IPv4 address, else IPv6. */
  int (*port)(struct verbs_device *device, uint32_t number, int32_t gid_index,
              struct verbs_port *port_out);
  /* Non-blocking descriptor, readable when async_next has something. */
  int (*async_fd)(struct verbs_device *device);
  /* 1: event_out is set (and acknowledged); 0: none. */
  int (*async_next)(struct verbs_device *device, struct verbs_async *event_out);

  int (*domain_open)(struct verbs_device *device, struct verbs_domain **domain_out); /* blocking */
  int (*domain_close)(struct verbs_domain *domain);                                  /* blocking */
  /* Blocking; several threads may register in one domain at once. */
  int (*memory_register)(struct verbs_domain *domain, const struct verbs_registration *what,
                         struct verbs_memory **memory_out);
  int (*memory_release)(struct verbs_memory *memory); /* blocking */

  int (*channel_open)(struct verbs_device *device, struct verbs_channel **channel_out);
  int (*channel_close)(struct verbs_channel *channel);
  int (*channel_fd)(struct verbs_channel *channel); /* non-blocking */
  /* Takes one event: the queue's context, or NULL when there is none. The queue is disarmed. Each
   * event taken must be acknowledged by queue_acknowledge before the queue is closed. */
  void *(*channel_next)(struct verbs_channel *channel);
  /* channel NULL: nobody waits for it (a serving side). Blocking, as is close. */
  int (*queue_open)(struct verbs_device *device, struct verbs_channel *channel, uint32_t entries,
                    void *context, struct verbs_queue **queue_out);
  int (*queue_close)(struct verbs_queue *queue);
  void (*queue_acknowledge)(struct verbs_queue *queue, uint32_t events);
  /* The next completion makes an event; one that came before may not: poll once more. */
  int (*queue_arm)(struct verbs_queue *queue);
  /* Count of completions taken. */
  int (*queue_poll)(struct verbs_queue *queue, struct verbs_completion *completions_out,
                    uint32_t capacity);

  int (*events_open)(struct verbs_events **events_out);
  int (*events_close)(struct verbs_events *events);
  int (*events_fd)(struct verbs_events *events); /* non-blocking */
  /* 1: *event_out is set (a copy, acknowledged already); 0: none. */
  int (*events_next)(struct verbs_events *events, struct verbs_event *event_out);

  int (*link_open)(struct verbs_events *events, void *context, struct verbs_link **link_out);
  void (*link_set_context)(struct verbs_link *link, void *context);
  /* Ends the connection and frees queue pair and id: afterwards no byte lands through it and no
   * event comes. Blocking; link_free follows on the reactor's thread. */
  void (*link_end)(struct verbs_link *link);
  void (*link_free)(struct verbs_link *link);
  /* Binds and listens; port 0 picks one. */
  int (*link_listen)(struct verbs_link *link, const struct sockaddr *address, uint32_t backlog);
  uint16_t (*link_port)(struct verbs_link *link); /* of a listener, host order */
  /* local: which device to leave by; NULL: the route decides. */
  int (*link_resolve_address)(struct verbs_link *link, const struct sockaddr *local,
                              const struct sockaddr *peer, uint32_t timeout_ms);
  int (*link_resolve_route)(struct verbs_link *link, uint32_t timeout_ms);
  /* The device that a resolved or requested link is on. */
  struct verbs_device *(*link_device)(struct verbs_link *link);
  int (*link_make_pair)(struct verbs_link *link, struct verbs_domain *domain,
                        struct verbs_queue *queue,
                        const struct verbs_link_limits *limits); /* blocking */
  int (*link_connect)(struct verbs_link *link,
                      const struct verbs_connect *parameters); /* blocking */
  int (*link_accept)(struct verbs_link *link,
                     const struct verbs_connect *parameters); /* blocking */
  int (*link_reject)(struct verbs_link *link, const void *private_data, uint8_t private_bytes);
  /* Tells the peer and puts the queue pair into the error state: from the return on it serves no
   * READ, and what was posted is flushed. Harmless when not connected. */
  int (*link_disconnect)(struct verbs_link *link);
  /* Posts the reads as one chain with one doorbell. On error *posted_out of them were taken. */
  int (*link_post)(struct verbs_link *link, const struct verbs_read *reads, uint32_t count,
                   uint32_t *posted_out);
};

/* The one symbol of the module. */
#define VERBS_MODULE_SYMBOL "sprout_rdma_verbs"
typedef const struct verbs *(*verbs_module_entry)(void);
#endif
