/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory registered with RDMA devices: spans are sorted, coalesced, cut into slices, and registered
 * slice by slice on the worker pool, several at once. A slice is ready when all domains have it.
 *
 * Overlapping, repeated and touching spans become one; a gap inside one page is bridged (the page
 * is mapped anyway). Zero lengths are dropped. The caller's memory must stay mapped until `closed`.
 *
 * Thread: the reactor's. Callbacks come from its ready queue.
 */
#ifndef NET_RDMA_MEMORY_H
#define NET_RDMA_MEMORY_H

#include "net/rdma_host.h"

/* One registration per device is at most this long, or the device's maximum when that is less. */
#define RDMA_SLICE_BYTES (256ull << 20)

struct rdma_span {
  unsigned char *address;
  uint64_t length_bytes;
  int dmabuf_fd; /* -1: ordinary memory. Spans with a descriptor are not coalesced. */
  uint64_t dmabuf_offset;
};

struct rdma_slice {
  unsigned char *address;
  uint64_t length_bytes;
  int dmabuf_fd;
  uint64_t dmabuf_offset;
  bool ready;
  struct verbs_memory *memories[RDMA_RAILS_MAX]; /* per domain, once ready */
};

struct rdma_memory_options {
  struct reactor *reactor;
  const struct verbs *verbs;
  uint32_t domain_count;
  struct verbs_domain *domains[RDMA_RAILS_MAX];
  uint64_t slice_bytes; /* 0: RDMA_SLICE_BYTES; callers pass the least maximum of the devices */
  bool remote_read;     /* else: READs land there */
  void (*ready)(void *context, uint32_t slice);
  /* Once; nothing more is registered. Close it. */
  void (*failed)(void *context, const struct sprout_error *error);
  void *context;
};

struct rdma_memory;

/* Lays out the slices; registers nothing yet. Spans are copied. */
SPROUT_MUST_CHECK enum sprout_status rdma_memory_create(const struct rdma_memory_options *options,
                                                        const struct rdma_span *spans, size_t count,
                                                        struct rdma_memory **memory_out);
void rdma_memory_start(struct rdma_memory *memory);
/* Slices ascend by address. */
uint32_t rdma_memory_slices(const struct rdma_memory *memory);
const struct rdma_slice *rdma_memory_slice(const struct rdma_memory *memory, uint32_t index);
/* The slice that holds this address, NULL when none does. O(log slices). */
const struct rdma_slice *rdma_memory_find(const struct rdma_memory *memory, const void *address);
bool rdma_memory_whole(const struct rdma_memory *memory); /* all slices are ready */
uint64_t rdma_memory_bytes(const struct rdma_memory *memory);
/* Waits for registrations under way, releases all, tells `closed`, then it may be destroyed. All
 * links that could use it have ended. Also before start. */
void rdma_memory_close(struct rdma_memory *memory, void (*closed)(void *context), void *context);
void rdma_memory_destroy(struct rdma_memory *memory);

/* Why a registration failed: ENOMEM with RLIMIT_MEMLOCK in the way, too many, not supported. Fills
 * *error and returns its status. Pure but for getrlimit. */
enum sprout_status rdma_memory_explain(int native, uint64_t length_bytes,
                                       struct sprout_error *error);
#endif
