/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the files of the verbs layer (net/rdma_verbs.h is what they implement).
 *
 * Types of libibverbs and librdmacm appear as pointers only, so that this header needs neither.
 *
 * No ibv_fork_init: since Linux 5.12 the kernel copies pinned pages for a child at fork, older
 * kernels do not run sprout at all (io_uring), and the call would mark every registered range
 * MADV_DONTFORK: a host program's children would lose that memory.
 */
#ifndef NET_VERBS_PRIVATE_H
#define NET_VERBS_PRIVATE_H

#include "net/rdma_verbs.h"

#include <errno.h>
#include <stddef.h>

struct ibv_comp_channel;
struct ibv_context;
struct ibv_cq;
struct ibv_mr;
struct ibv_pd;
struct ibv_qp;
struct ibv_send_wr;
struct rdma_cm_id;
struct rdma_event_channel;

/* One for each context that rdma_get_devices gave: queue pairs made by rdma_create_qp need the
 * protection domain and completion queue of that very context. Never freed. */
struct verbs_device {
  struct ibv_context *context;
};

struct verbs_domain {
  struct ibv_pd *pd;
};

struct verbs_channel {
  struct ibv_comp_channel *channel;
};

struct verbs_queue {
  struct ibv_cq *cq;
};

struct verbs_events {
  struct rdma_event_channel *channel;
};

/* Outlives its id: link_end (on a worker) sets id to NULL, link_free frees. */
struct verbs_link {
  struct rdma_cm_id *id;
  void *context;
  bool accepted; /* by us: the peer's depths are then as follows, the event carries none */
  uint8_t read_depth, serve_depth;
  struct ibv_send_wr *requests; /* the chain that link_post fills */
  uint32_t request_count;
};

/* 0 or a negative errno, from either convention of the libraries: an errno, or -1 and errno. */
static inline int verbs_result(int result) {
  if (result == 0) return 0;
  if (result > 0) return -result;
  return errno > 0 ? -errno : -EIO;
}

/* Of a call that returned NULL. */
static inline int verbs_failure(void) {
  return errno > 0 ? -errno : -EIO;
}

/* The first line of a small file of /sys; false when it cannot be read. */
bool verbs_read_line(const char *path, char *line, size_t line_bytes);
/* Makes a descriptor of the libraries non-blocking and close-on-exec. */
int verbs_set_descriptor_flags(int fd);
/* Of a context that rdma_get_devices gave; NULL for another. */
struct verbs_device *verbs_device_of(const struct ibv_context *context);

/* device.c, port.c, async.c */
int verbs_devices(struct verbs_device_info *devices_out, uint32_t capacity, uint32_t *count_out);
int verbs_port(struct verbs_device *device, uint32_t number, int32_t gid_index,
               struct verbs_port *port_out);
int verbs_async_fd(struct verbs_device *device);
int verbs_async_next(struct verbs_device *device, struct verbs_async *event_out);

/* memory.c */
int verbs_domain_open(struct verbs_device *device, struct verbs_domain **domain_out);
int verbs_domain_close(struct verbs_domain *domain);
int verbs_memory_register(struct verbs_domain *domain, const struct verbs_registration *what,
                          struct verbs_memory **memory_out);
int verbs_memory_release(struct verbs_memory *memory);

/* queue.c */
int verbs_channel_open(struct verbs_device *device, struct verbs_channel **channel_out);
int verbs_channel_close(struct verbs_channel *channel);
int verbs_channel_fd(struct verbs_channel *channel);
void *verbs_channel_next(struct verbs_channel *channel);
int verbs_queue_open(struct verbs_device *device, struct verbs_channel *channel, uint32_t entries,
                     void *context, struct verbs_queue **queue_out);
int verbs_queue_close(struct verbs_queue *queue);
void verbs_queue_acknowledge(struct verbs_queue *queue, uint32_t events);
int verbs_queue_arm(struct verbs_queue *queue);
int verbs_queue_poll(struct verbs_queue *queue, struct verbs_completion *completions_out,
                     uint32_t capacity);

/* events.c */
int verbs_events_open(struct verbs_events **events_out);
int verbs_events_close(struct verbs_events *events);
int verbs_events_fd(struct verbs_events *events);
int verbs_events_next(struct verbs_events *events, struct verbs_event *event_out);

/* link.c: life, addresses */
int verbs_link_open(struct verbs_events *events, void *context, struct verbs_link **link_out);
/* Of an id that a connection request brought. */
struct verbs_link *verbs_link_wrap(struct rdma_cm_id *id);
void verbs_link_set_context(struct verbs_link *link, void *context);
void verbs_link_end(struct verbs_link *link);
void verbs_link_free(struct verbs_link *link);
int verbs_link_listen(struct verbs_link *link, const struct sockaddr *address, uint32_t backlog);
uint16_t verbs_link_port(struct verbs_link *link);
int verbs_link_resolve_address(struct verbs_link *link, const struct sockaddr *local,
                               const struct sockaddr *peer, uint32_t timeout_ms);
int verbs_link_resolve_route(struct verbs_link *link, uint32_t timeout_ms);
struct verbs_device *verbs_link_device(struct verbs_link *link);

/* connect.c: from a resolved or requested link to a connection, and its end */
int verbs_link_connect(struct verbs_link *link, const struct verbs_connect *parameters);
int verbs_link_accept(struct verbs_link *link, const struct verbs_connect *parameters);
int verbs_link_reject(struct verbs_link *link, const void *private_data, uint8_t private_bytes);
int verbs_link_disconnect(struct verbs_link *link);

/* pair.c: the queue pair and what is posted to it */
int verbs_link_make_pair(struct verbs_link *link, struct verbs_domain *domain,
                         struct verbs_queue *queue, const struct verbs_link_limits *limits);
int verbs_link_post(struct verbs_link *link, const struct verbs_read *reads, uint32_t count,
                    uint32_t *posted_out);
#endif
