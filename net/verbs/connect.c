/* SPDX-License-Identifier: Apache-2.0 */
/* Making and ending a connection. */
#include "net/verbs/private.h"

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

/* Nobody posts sends or receives, so there is no receiver that could be not ready. */
static int prepare(struct verbs_link *link, const struct verbs_connect *from,
                   struct rdma_conn_param *to_out) {
  if (link->id == NULL || link->id->qp == NULL) return -ENOTCONN;
  *to_out = (struct rdma_conn_param){
      .private_data = from->private_bytes > 0 ? from->private_data : NULL,
      .private_data_len = from->private_bytes,
      .initiator_depth = from->read_depth,
      .responder_resources = from->serve_depth,
      .flow_control = 1,
      .retry_count = from->retries,
      .rnr_retry_count = 0,
  };
  if (from->ack_timeout == 0) return 0;
  uint8_t timeout = from->ack_timeout;
  return verbs_result(rdma_set_option(link->id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT,
                                      &timeout, sizeof timeout));
}

int verbs_link_connect(struct verbs_link *link, const struct verbs_connect *parameters) {
  if (parameters->private_bytes > VERBS_PRIVATE_CONNECT_BYTES) return -EINVAL;
  struct rdma_conn_param from_us;
  int result = prepare(link, parameters, &from_us);
  return result < 0 ? result : verbs_result(rdma_connect(link->id, &from_us));
}

int verbs_link_accept(struct verbs_link *link, const struct verbs_connect *parameters) {
  struct rdma_conn_param from_us;
  int result = prepare(link, parameters, &from_us);
  if (result < 0) return result;
  /* Before the call: the event may be there before it returns. */
  link->accepted = true;
  link->read_depth = parameters->serve_depth;
  link->serve_depth = parameters->read_depth;
  return verbs_result(rdma_accept(link->id, &from_us));
}

int verbs_link_reject(struct verbs_link *link, const void *private_data, uint8_t private_bytes) {
  if (link->id == NULL) return -ENOTCONN;
  return verbs_result(rdma_reject(link->id, private_data, private_bytes));
}

/* rdma_disconnect does this too, but leaves it undone where it finds no connection. */
static int put_into_error(struct ibv_qp *pair) {
  struct ibv_qp_attr to_error = {.qp_state = IBV_QPS_ERR};
  return verbs_result(ibv_modify_qp(pair, &to_error, IBV_QP_STATE));
}

int verbs_link_disconnect(struct verbs_link *link) {
  if (link->id == NULL || link->id->qp == NULL) return 0;
  int result = put_into_error(link->id->qp);
  (void)rdma_disconnect(link->id); /* refuses when there is no connection (any more) */
  return result;
}
