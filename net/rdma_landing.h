/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a fork's READs land: one protection domain per device, and the destination's memory
 * registered in each. Shared by all sources of one fork and kept over their lives, so that memory
 * is registered once. Thread: the reactor's.
 *
 * Beside the destination's memory it has a page of words in which fence words land.
 */
#ifndef NET_RDMA_LANDING_H
#define NET_RDMA_LANDING_H

#include "net/rdma_memory.h"

#include <sys/uio.h>

struct rdma_landing;

struct rdma_landing_options {
  struct rdma_host *host;
  uint32_t device_count;
  struct rdma_device *devices[RDMA_RAILS_MAX];
  /* The memory that the destination hands out; asked once, when the first read is posted. Borrowed
   * during the call. */
  uint32_t (*spans)(void *context, const struct iovec **spans_out);
  void *context;
};

/* Somebody who waits. `changed`: opened, a slice became ready, or it failed. */
struct rdma_landing_user {
  void (*changed)(struct rdma_landing_user *user);
  struct list_node node;
};

SPROUT_MUST_CHECK enum sprout_status rdma_landing_create(const struct rdma_landing_options *options,
                                                         struct rdma_landing **landing_out);
/* Opens the domains on first use. */
void rdma_landing_join(struct rdma_landing *landing, struct rdma_landing_user *user);
void rdma_landing_leave(struct rdma_landing *landing, struct rdma_landing_user *user);
/* All domains are open. */
bool rdma_landing_opened(const struct rdma_landing *landing);
/* What went wrong, for good; NULL: nothing. */
const struct sprout_error *rdma_landing_error(const struct rdma_landing *landing);
struct verbs_domain *rdma_landing_domain(const struct rdma_landing *landing, uint32_t device);
/* Begins to register, on first use; NULL when that fails at once. */
const struct rdma_memory *rdma_landing_memory(struct rdma_landing *landing);
/* `count` words for fences, NULL when all are taken; given back by landing_close alone. */
uint64_t *rdma_landing_words(struct rdma_landing *landing, uint32_t count);
/* Nobody is joined. Releases everything, then `closed`; then it may be destroyed. */
void rdma_landing_close(struct rdma_landing *landing, void (*closed)(void *context), void *context);
void rdma_landing_destroy(struct rdma_landing *landing);
#endif
