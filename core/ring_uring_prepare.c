/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ring_uring.h"

#include <assert.h>
#include <liburing.h>
#include <string.h>

/* A submission entry's length has 32 bits, and the kernel moves no more than 2 GiB - 4 KiB at once.
 */
#define TRANSFER_MAX 0x7ffff000u

static uint32_t transfer_length(uint64_t length, uint64_t short_bytes) {
  uint64_t most = short_bytes != 0 && short_bytes < TRANSFER_MAX ? short_bytes : TRANSFER_MAX;
  return (uint32_t)(length < most ? length : most);
}

/* The first entry that has bytes, for shortened gathers. */
static const struct iovec *first_filled(const struct ring_op *op) {
  uint32_t i = 0;
  while (i + 1 < op->iov_count && op->iov[i].iov_len == 0) i++;
  return &op->iov[i];
}

static void prepare_recv(struct ring_op *op, struct io_uring_sqe *sqe, uint64_t short_bytes) {
  if (!op->pooled) {
    io_uring_prep_recv(sqe, op->fd, op->buffer, transfer_length(op->length, short_bytes),
                       (int)op->msg_flags);
    return;
  }
  /* Length 0: as much as the buffer that is picked takes. */
  io_uring_prep_recv(sqe, op->fd, NULL, transfer_length(short_bytes, short_bytes),
                     (int)op->msg_flags);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = RING_POOL_GROUP;
}

static void prepare_sendmsg(struct ring_op *op, struct io_uring_sqe *sqe, uint64_t short_bytes) {
  if (short_bytes != 0 && op->iov_count > 0) {
    const struct iovec *iov = first_filled(op);
    io_uring_prep_send(sqe, op->fd, iov->iov_base, transfer_length(iov->iov_len, short_bytes),
                       (int)(op->msg_flags | MSG_NOSIGNAL));
    return;
  }
  memset(&op->message, 0, sizeof op->message);
  op->message.msg_iov = (struct iovec *)(uintptr_t)op->iov;
  op->message.msg_iovlen = op->iov_count;
  io_uring_prep_sendmsg(sqe, op->fd, &op->message, op->msg_flags | MSG_NOSIGNAL);
}

static void prepare_writev(struct ring_op *op, struct io_uring_sqe *sqe, uint64_t short_bytes) {
  if (short_bytes != 0 && op->iov_count > 0) {
    const struct iovec *iov = first_filled(op);
    io_uring_prep_write(sqe, op->fd, iov->iov_base, transfer_length(iov->iov_len, short_bytes),
                        op->offset);
    return;
  }
  io_uring_prep_writev(sqe, op->fd, op->iov, op->iov_count, op->offset);
}

static void prepare_poll(struct ring_op *op, struct io_uring_sqe *sqe) {
  if (op->multishot)
    io_uring_prep_poll_multishot(sqe, op->fd, op->poll_events);
  else
    io_uring_prep_poll_add(sqe, op->fd, op->poll_events);
}

static void prepare_accept(struct ring_op *op, struct io_uring_sqe *sqe) {
  if (op->multishot)
    io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  else
    io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

void ring_prepare(struct ring_op *op, struct io_uring_sqe *sqe, uint64_t short_bytes) {
  switch (op->kind) {
  case RING_NOP: io_uring_prep_nop(sqe); return;
  case RING_ACCEPT: prepare_accept(op, sqe); return;
  case RING_CONNECT: io_uring_prep_connect(sqe, op->fd, op->address, op->address_length); return;
  case RING_RECV: prepare_recv(op, sqe, short_bytes); return;
  case RING_SEND:
    io_uring_prep_send(sqe, op->fd, op->buffer, transfer_length(op->length, short_bytes),
                       (int)(op->msg_flags | MSG_NOSIGNAL));
    return;
  case RING_SENDMSG: prepare_sendmsg(op, sqe, short_bytes); return;
  case RING_POLL: prepare_poll(op, sqe); return;
  case RING_READ:
    io_uring_prep_read(sqe, op->fd, op->buffer, transfer_length(op->length, 0), op->offset);
    return;
  case RING_WRITEV: prepare_writev(op, sqe, short_bytes); return;
  case RING_FALLOCATE:
    io_uring_prep_fallocate(sqe, op->fd, 0, (off_t)op->offset, (off_t)op->length);
    return;
  case RING_FSYNC: io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC); return;
  case RING_CLOSE: io_uring_prep_close(sqe, op->fd); return;
  }
  assert(!"unknown kind of operation");
}
