/* SPDX-License-Identifier: Apache-2.0 */
/* The queue pair of a link and the READs posted to it. */
#include "net/verbs/private.h"

#include <assert.h>
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <stdlib.h>

/* Scatter lists go to the library as they are. */
static_assert(sizeof(struct verbs_segment) == sizeof(struct ibv_sge), "same size");
static_assert(offsetof(struct verbs_segment, address) == offsetof(struct ibv_sge, addr), "address");
static_assert(offsetof(struct verbs_segment, length_bytes) == offsetof(struct ibv_sge, length),
              "length");
static_assert(offsetof(struct verbs_segment, local_key) == offsetof(struct ibv_sge, lkey), "key");

/* The longest chain behind one doorbell; more reads make more chains. */
#define CHAIN_MAX 256u

int verbs_link_make_pair(struct verbs_link *link, struct verbs_domain *domain,
                         struct verbs_queue *queue, const struct verbs_link_limits *limits) {
  if (link->id == NULL) return -ENOTCONN;
  if (link->id->qp != NULL) return -EINVAL;
  uint32_t chain = limits->requests < CHAIN_MAX ? limits->requests : CHAIN_MAX;
  if (chain > 0) {
    link->requests = calloc(chain, sizeof *link->requests);
    if (link->requests == NULL) return -ENOMEM;
  }
  /* Not every device takes queues without an entry: a serving side has one of each, unused. */
  struct ibv_qp_init_attr attributes = {
      .send_cq = queue->cq,
      .recv_cq = queue->cq,
      .qp_type = IBV_QPT_RC,
      .cap = {.max_send_wr = limits->requests > 0 ? limits->requests : 1,
              .max_recv_wr = 1,
              .max_send_sge = limits->segments > 0 ? limits->segments : 1,
              .max_recv_sge = 1},
  };
  int result = verbs_result(rdma_create_qp(link->id, domain->pd, &attributes));
  if (result < 0) {
    free(link->requests);
    link->requests = NULL;
    return result;
  }
  link->request_count = chain;
  return 0;
}

static void fill(struct ibv_send_wr *request, const struct verbs_read *read) {
  request->wr_id = read->id;
  /* The library only reads the list. */
  request->sg_list = (struct ibv_sge *)(uintptr_t)read->segments;
  request->num_sge = (int)read->segment_count;
  request->opcode = IBV_WR_RDMA_READ;
  request->send_flags = read->signalled ? IBV_SEND_SIGNALED : 0;
  if (read->after_all) request->send_flags |= IBV_SEND_FENCE;
  request->wr.rdma.remote_addr = read->remote_address;
  request->wr.rdma.rkey = read->remote_key;
}

/* One chain, of at most request_count reads. */
static int post_chain(struct verbs_link *link, const struct verbs_read *reads, uint32_t count,
                      uint32_t *posted_out) {
  for (uint32_t i = 0; i < count; i++) {
    fill(&link->requests[i], &reads[i]);
    link->requests[i].next = i + 1 < count ? &link->requests[i + 1] : NULL;
  }
  struct ibv_send_wr *refused = NULL;
  int result = verbs_result(ibv_post_send(link->id->qp, link->requests, &refused));
  *posted_out = result == 0 || refused == NULL ? count : (uint32_t)(refused - link->requests);
  return result;
}

int verbs_link_post(struct verbs_link *link, const struct verbs_read *reads, uint32_t count,
                    uint32_t *posted_out) {
  uint32_t posted = 0;
  int result = 0;
  if (link->id == NULL || link->request_count == 0) result = -ENOTCONN;
  while (result == 0 && posted < count) {
    uint32_t wanted = count - posted < link->request_count ? count - posted : link->request_count;
    uint32_t taken = 0;
    result = post_chain(link, reads + posted, wanted, &taken);
    posted += taken;
  }
  *posted_out = posted;
  return result;
}
