/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring: every I/O operation is data, submitted as a struct and answered by exactly one
 * completion (multishot kinds: any number with `more`, then one last).
 *
 * Ownership: an operation and all memory it points to belong to the caller and must stay as they
 * are from ring_submit until the completion with more == false was delivered. Cancelling asks for
 * that completion sooner; it never replaces it. Completions are first all reaped, then delivered:
 * `done` may submit, cancel and free its own operation.
 *
 * Back-end: io_uring (ring_uring.c). Thread: one at a time, see ring_detach.
 */
#ifndef CORE_RING_H
#define CORE_RING_H

#include "core/list.h"
#include "sprout/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum ring_kind {
  RING_NOP,
  RING_ACCEPT,  /* multishot; result: descriptor, close-on-exec and non-blocking */
  RING_CONNECT, /* address, address_length; ECANCELED also after ring_detach */
  RING_RECV, /* buffer, length, msg_flags; with pooled: the ring picks a buffer when data is there
              */
  RING_SEND, /* buffer, length, msg_flags (MSG_NOSIGNAL is added) */
  RING_SENDMSG,   /* iov, iov_count: gathers; result may be short */
  RING_POLL,      /* poll_events; one shot or multishot; result: revents */
  RING_READ,      /* buffer, length, offset */
  RING_WRITEV,    /* iov, iov_count, offset; result may be short */
  RING_FALLOCATE, /* offset, length */
  RING_FSYNC,     /* fdatasync */
  RING_CLOSE      /* fd */
};

struct ring;

/*
 * One operation. Zero-initialise, set kind, fd, arguments and done. `result` is >= 0 or -errno.
 * ECANCELED: it was cancelled (its effect may still have taken place in part only for RING_WRITEV).
 */
struct ring_op {
  enum ring_kind kind;
  int fd;
  bool multishot; /* RING_ACCEPT, RING_POLL */
  bool pooled;    /* RING_RECV: see ring_buffer_return */
  uint32_t msg_flags;
  uint32_t poll_events;
  void *buffer;
  uint64_t length;
  uint64_t offset;
  const struct iovec *iov;
  uint32_t iov_count;
  const struct sockaddr *address;
  socklen_t address_length;
  void (*done)(struct ring_op *op);

  /* filled for done */
  int32_t result;
  bool more;           /* multishot: further completions follow */
  void *pooled_buffer; /* RING_RECV with pooled and result > 0; give back with ring_buffer_return */
  uint16_t pooled_index;

  /* the ring's own */
  bool in_flight;
  bool queued;         /* not with the kernel: waits for a submission slot or for a pooled buffer */
  bool completed_last; /* waits for delivery */
  bool cancel_wanted;  /* by the owner */
  bool cancel_sent;    /* the kernel has not answered the cancellation yet */
  bool withdrawn;      /* ring_detach takes it back from the kernel */
  bool starved;        /* found no pooled buffer; `ticket` holds its place */
  uint32_t held_flags; /* of a last completion that waits for the answer to cancel_sent */
  int32_t fault_result; /* injected into a multishot operation that still has to end */
  uint64_t ticket;
  struct list_node node;
  struct msghdr message;
};

struct ring_options {
  uint32_t entries;      /* submission slots, power of two */
  uint32_t pooled_count; /* shared receive buffers, power of two; 0: none */
  uint32_t pooled_bytes; /* size of each */
};

SPROUT_MUST_CHECK enum sprout_status
ring_create(const struct ring_options *options, struct ring **ring_out, struct sprout_error *error);
/* No operation may be in flight. */
void ring_destroy(struct ring *ring);

/* Queues; reaches the kernel with the next ring_wait. Never fails: what finds no slot waits in a
 * list. */
void ring_submit(struct ring *ring, struct ring_op *op);

/* Asks that the operation completes soon. Harmless when it is not in flight. */
void ring_cancel(struct ring *ring, struct ring_op *op);

/* Gives a pooled receive buffer back to the ring; exactly once per delivered pooled_buffer. */
void ring_buffer_return(struct ring *ring, uint16_t pooled_index);

/*
 * Submits everything queued, waits until a completion is there or timeout_ns has passed (0: does
 * not wait, UINT64_MAX: for ever), reaps all, then delivers. Returns the number delivered. A signal
 * ends the wait early.
 */
uint32_t ring_wait(struct ring *ring, uint64_t timeout_ns);
/* The two halves of ring_wait: everything up to the reaping, and the delivery. */
void ring_reap(struct ring *ring, uint64_t timeout_ns);
uint32_t ring_deliver(struct ring *ring);

/*
 * The first wait binds the ring to its thread (the kernel ties requests to the thread that submits
 * them, and drops them with it). Before another thread may wait, the bound one detaches: what is
 * with the kernel is taken back and waits in the ring, completions that come meanwhile are
 * delivered. Only a connect cannot be taken back: it ends with ECANCELED. Waits for running file
 * I/O. Harmless when not bound.
 */
void ring_detach(struct ring *ring);

/* Operations whose last completion was not delivered yet. */
uint32_t ring_in_flight(const struct ring *ring);

#ifdef SPROUT_FAULTS
/*
 * Fault injection: called for each completion before delivery with a running number from 0; returns
 * the result to deliver. SPROUT_FAULT_RING=N:-ERRNO in the environment installs a hook that changes
 * the N-th; SHORT:N makes every receive, send and write at most N bytes long.
 */
typedef int32_t (*ring_fault_hook)(void *context, uint64_t number, const struct ring_op *op,
                                   int32_t result);
void ring_fault_set(struct ring *ring, ring_fault_hook hook, void *context);
#endif
#endif
