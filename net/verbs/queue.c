/* SPDX-License-Identifier: Apache-2.0 */
/* Completion channels and queues, and what a completion means. */
#include "net/verbs/private.h"

#include <infiniband/verbs.h>
#include <stdlib.h>

/* Completions taken from the library at once: a small array on the stack. */
#define POLL_BATCH 16u

int verbs_channel_open(struct verbs_device *device, struct verbs_channel **channel_out) {
  struct verbs_channel *channel = malloc(sizeof *channel);
  if (channel == NULL) return -ENOMEM;
  channel->channel = ibv_create_comp_channel(device->context);
  int result =
      channel->channel == NULL ? verbs_failure() : verbs_set_descriptor_flags(channel->channel->fd);
  if (result < 0) {
    if (channel->channel != NULL) ibv_destroy_comp_channel(channel->channel);
    free(channel);
    return result;
  }
  *channel_out = channel;
  return 0;
}

int verbs_channel_close(struct verbs_channel *channel) {
  int result = verbs_result(ibv_destroy_comp_channel(channel->channel));
  if (result == 0) free(channel);
  return result;
}

int verbs_channel_fd(struct verbs_channel *channel) {
  return channel->channel->fd;
}

void *verbs_channel_next(struct verbs_channel *channel) {
  struct ibv_cq *cq;
  void *context = NULL;
  int result;
  do {
    result = ibv_get_cq_event(channel->channel, &cq, &context);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? context : NULL;
}

int verbs_queue_open(struct verbs_device *device, struct verbs_channel *channel, uint32_t entries,
                     void *context, struct verbs_queue **queue_out) {
  if (entries < 1 || entries > INT32_MAX) return -EINVAL;
  struct verbs_queue *queue = malloc(sizeof *queue);
  if (queue == NULL) return -ENOMEM;
  queue->cq = ibv_create_cq(device->context, (int)entries, context,
                            channel != NULL ? channel->channel : NULL, 0);
  if (queue->cq == NULL) {
    int result = verbs_failure();
    free(queue);
    return result;
  }
  *queue_out = queue;
  return 0;
}

int verbs_queue_close(struct verbs_queue *queue) {
  int result = verbs_result(ibv_destroy_cq(queue->cq));
  if (result == 0) free(queue);
  return result;
}

void verbs_queue_acknowledge(struct verbs_queue *queue, uint32_t events) {
  if (events > 0) ibv_ack_cq_events(queue->cq, events);
}

int verbs_queue_arm(struct verbs_queue *queue) {
  return verbs_result(ibv_req_notify_cq(queue->cq, 0));
}

static enum verbs_outcome outcome_of(enum ibv_wc_status status) {
  switch (status) {
  case IBV_WC_SUCCESS: return VERBS_OK;
  case IBV_WC_WR_FLUSH_ERR: return VERBS_FLUSHED;
  case IBV_WC_RETRY_EXC_ERR:
  case IBV_WC_RNR_RETRY_EXC_ERR:
  case IBV_WC_RESP_TIMEOUT_ERR: return VERBS_UNREACHABLE;
  case IBV_WC_REM_ACCESS_ERR: return VERBS_REMOTE_ACCESS;
  case IBV_WC_REM_INV_REQ_ERR:
  case IBV_WC_REM_OP_ERR:
  case IBV_WC_REM_INV_RD_REQ_ERR:
  case IBV_WC_REM_ABORT_ERR: return VERBS_REMOTE_OTHER;
  default: return VERBS_LOCAL;
  }
}

int verbs_queue_poll(struct verbs_queue *queue, struct verbs_completion *completions_out,
                     uint32_t capacity) {
  struct ibv_wc batch[POLL_BATCH];
  uint32_t taken = 0;
  while (taken < capacity) {
    uint32_t wanted = capacity - taken < POLL_BATCH ? capacity - taken : POLL_BATCH;
    int got = ibv_poll_cq(queue->cq, (int)wanted, batch);
    if (got < 0 && taken == 0) return -EIO;
    for (int i = 0; i < got; i++)
      completions_out[taken++] = (struct verbs_completion){
          .id = batch[i].wr_id,
          .outcome = outcome_of(batch[i].status),
          .native = batch[i].status,
          .vendor = batch[i].vendor_err,
      };
    if (got < (int)wanted) break;
  }
  return (int)taken;
}
