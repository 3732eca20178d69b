/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an operation is:
 *
 *   waiting   submitted by its owner; no submission entry yet
 *   starved   a pooled receive that found no buffer; goes back to waiting when there is one
 *   kernel    in the submission queue or with the kernel
 *   cancels   likewise, and a cancellation has to be sent
 *   ended     answered without the kernel (cancelled while waiting or starved); to be delivered
 *   none      its last completion lies in `events`, or is held until the kernel has answered the
 *             cancellation that was sent for it (so that no answer ever names freed memory)
 */
#include "core/ring_uring.h"

#include "core/probe.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The completion queue has room for so many times the submission entries; beyond it the kernel
 * keeps completions in a list of its own until they fit. */
#define COMPLETIONS_PER_ENTRY 8u

/* Low bit of user_data: the answer to a cancellation, not to the operation. */
#define CANCEL_TAG 1u

/* How long to wait for completions when the kernel is short of memory for new requests. */
#define SHORTAGE_WAIT_NS 1000000u

/* One completion between reaping and delivery. */
struct ring_event {
  struct ring_op *op;
  int32_t result;
  uint32_t flags; /* IORING_CQE_F_* */
};

struct ring {
  struct io_uring uring;
  bool bound;
  pthread_t thread; /* while bound */
  struct list_node waiting, starved, kernel, cancels, ended;
  uint32_t in_flight;
  uint32_t cancellations; /* sent and not answered */
  uint64_t tickets;
  struct ring_event *events;
  uint32_t event_count, event_capacity;
  bool delivering;
  struct ring_pool pool;
#ifdef SPROUT_FAULTS
  struct ring_fault fault;
#endif
};

static uint64_t short_bytes(const struct ring *ring) {
#ifdef SPROUT_FAULTS
  return ring->fault.short_bytes;
#else
  (void)ring;
  return 0;
#endif
}

/* ---- creation ---- */

/*
 * Not SINGLE_ISSUER and DEFER_TASKRUN: they nail the ring to one thread for life, while a service
 * may be created, run and ended on three; measured on loopback receives they save 3% of CPU.
 */
static int set_up(struct ring *ring, uint32_t entries) {
  struct io_uring_params params = {.flags = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN |
                                            IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE |
                                            IORING_SETUP_CLAMP,
                                   .cq_entries = entries * COMPLETIONS_PER_ENTRY};
  return io_uring_queue_init_params(entries, &ring->uring, &params);
}

static enum sprout_status open_uring(struct ring *ring, const struct ring_options *options,
                                     struct sprout_error *error) {
  int result = set_up(ring, options->entries);
  if (result < 0) return probe_explain(-result, error);
  enum sprout_status status = SPROUT_OK;
  uint32_t needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE;
  if ((ring->uring.features & needed) != needed)
    status = sprout_error_set(error, SPROUT_UNSUPPORTED, 0, "Upgrade to Linux 6.1 or newer.",
                              "this kernel's io_uring lacks features that sprout needs");
  if (status == SPROUT_OK) status = ring_pool_init(&ring->pool, &ring->uring, options, error);
  if (status != SPROUT_OK) io_uring_queue_exit(&ring->uring);
  return status;
}

enum sprout_status ring_create(const struct ring_options *options, struct ring **ring_out,
                               struct sprout_error *error) {
  assert(options->entries > 0 && (options->entries & (options->entries - 1)) == 0);
  struct ring *ring = calloc(1, sizeof *ring);
  if (ring == NULL) return sprout_error_set(error, SPROUT_NO_MEMORY, ENOMEM, NULL, "no memory");
  list_init(&ring->waiting);
  list_init(&ring->starved);
  list_init(&ring->kernel);
  list_init(&ring->cancels);
  list_init(&ring->ended);
  ring->event_capacity = options->entries * COMPLETIONS_PER_ENTRY;
  ring->events = calloc(ring->event_capacity, sizeof *ring->events);
  enum sprout_status status = SPROUT_OK;
  if (ring->events == NULL)
    status = sprout_error_set(error, SPROUT_NO_MEMORY, ENOMEM, NULL, "no memory");
#ifdef SPROUT_FAULTS
  if (status == SPROUT_OK)
    status = ring_fault_init(&ring->fault, getenv("SPROUT_FAULT_RING"), error);
#endif
  if (status == SPROUT_OK) status = open_uring(ring, options, error);
  if (status != SPROUT_OK) {
    free(ring->events);
    free(ring);
    return status;
  }
  *ring_out = ring;
  return SPROUT_OK;
}

void ring_destroy(struct ring *ring) {
  if (ring == NULL) return;
  assert(ring->in_flight == 0 && !ring->delivering);
  io_uring_queue_exit(&ring->uring);
  ring_pool_destroy(&ring->pool);
  free(ring->events);
  free(ring);
}

/* ---- owners' side ---- */

static void append_waiting(struct ring *ring, struct ring_op *op) {
  op->queued = true;
  list_append(&ring->waiting, &op->node);
}

void ring_submit(struct ring *ring, struct ring_op *op) {
  assert(!op->in_flight && op->done != NULL);
  op->in_flight = true;
  op->completed_last = op->cancel_wanted = op->cancel_sent = false;
  op->withdrawn = op->starved = false;
  op->fault_result = 0;
  op->result = 0;
  op->more = false;
  op->pooled_buffer = NULL;
  ring->in_flight++;
  append_waiting(ring, op);
}

void ring_cancel(struct ring *ring, struct ring_op *op) {
  if (!op->in_flight || op->completed_last || op->cancel_wanted) return;
  op->cancel_wanted = true;
  if (op->queued) {
    op->queued = false;
    op->completed_last = true;
    op->result = -ECANCELED;
    list_remove(&op->node);
    list_append(&ring->ended, &op->node);
  } else if (!op->cancel_sent) {
    list_remove(&op->node);
    list_append(&ring->cancels, &op->node);
  }
}

void ring_buffer_return(struct ring *ring, uint16_t pooled_index) {
  ring_pool_give(&ring->pool, pooled_index);
}

uint32_t ring_in_flight(const struct ring *ring) {
  return ring->in_flight;
}

/* ---- towards the kernel ---- */

static void bind_to_thread(struct ring *ring) {
  if (ring->bound) {
    assert(pthread_equal(ring->thread, pthread_self()));
    return;
  }
  ring->bound = true;
  ring->thread = pthread_self();
}

/* Receives keep the order in which they first found no buffer. */
static void starve(struct ring *ring, struct ring_op *op) {
  struct list_node *place = &ring->starved;
  if (!op->starved) {
    op->starved = true;
    op->ticket = ring->tickets++;
  } else {
    place = ring->starved.next;
    while (place != &ring->starved &&
           container_of(place, struct ring_op, node)->ticket < op->ticket)
      place = place->next;
  }
  op->queued = true;
  list_append(place, &op->node);
}

/*
 * As many starved receives as there are buffers try again. One that finds no data keeps none, so
 * the rest has to get its turn too: true while buffers and starved receives are left.
 */
static bool revive_starved(struct ring *ring) {
  uint32_t room = ring->pool.count - ring->pool.out;
  struct list_node *node = NULL;
  for (; room > 0 && (node = list_take(&ring->starved)) != NULL; room--)
    append_waiting(ring, container_of(node, struct ring_op, node));
  return !list_empty(&ring->starved) && ring->pool.count > ring->pool.out;
}

/* Moves operations into free submission entries, cancellations first. */
static void fill(struct ring *ring, bool cancels_only) {
  while (!list_empty(&ring->cancels) || (!cancels_only && !list_empty(&ring->waiting))) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (sqe == NULL) return;
    bool cancel = !list_empty(&ring->cancels);
    struct list_node *node = list_take(cancel ? &ring->cancels : &ring->waiting);
    struct ring_op *op = container_of(node, struct ring_op, node);
    list_append(&ring->kernel, node);
    if (cancel) {
      op->cancel_sent = true;
      ring->cancellations++;
      io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
      io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)op | CANCEL_TAG);
    } else {
      op->queued = false;
      ring_prepare(op, sqe, short_bytes(ring));
      io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)op);
    }
  }
}

/* What the kernel may say to an enter besides success; anything else is a bug of ours. */
static bool transient(int result) {
  return result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY;
}

/* True: everything is in submission entries. False: more is to come, so nobody should sleep. */
static bool push(struct ring *ring, bool cancels_only) {
  for (;;) {
    fill(ring, cancels_only);
    if (list_empty(&ring->cancels) && (cancels_only || list_empty(&ring->waiting))) return true;
    int result = io_uring_submit(&ring->uring);
    assert(result >= 0 || transient(result));
    if (result <= 0) return false;
  }
}

static int submit_and_wait(struct ring *ring, uint64_t timeout_ns) {
  if (timeout_ns == UINT64_MAX) return io_uring_submit_and_wait(&ring->uring, 1);
  struct __kernel_timespec limit = {.tv_sec = (int64_t)(timeout_ns / 1000000000u),
                                    .tv_nsec = (int64_t)(timeout_ns % 1000000000u)};
  struct io_uring_cqe *cqe = NULL;
  return io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1, &limit, NULL);
}

/* Submits what is in entries and waits for a completion. */
static void enter(struct ring *ring, uint64_t timeout_ns) {
  if (timeout_ns == 0) {
    int result = io_uring_submit_and_get_events(&ring->uring);
    assert(result >= 0 || transient(result));
    if (result != -EAGAIN || io_uring_cq_ready(&ring->uring) > 0) return;
    timeout_ns = SHORTAGE_WAIT_NS;
  }
  int result = submit_and_wait(ring, timeout_ns);
  assert(result >= 0 || transient(result));
  (void)result;
}

/* ---- from the kernel ---- */

static void append_event(struct ring *ring, struct ring_op *op, int32_t result, uint32_t flags) {
  assert(ring->event_count < ring->event_capacity);
  ring->events[ring->event_count++] =
      (struct ring_event){.op = op, .result = result, .flags = flags};
}

/* A buffer that was picked for a receive which then got no bytes. */
static void give_unused(struct ring *ring, uint32_t flags) {
  uint16_t index = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
  ring_pool_take(&ring->pool, index);
  ring_pool_give(&ring->pool, index);
}

static bool found_no_buffer(const struct ring_op *op, int32_t result) {
  return op->kind == RING_RECV && op->pooled && result == -ENOBUFS;
}

/* The last completion of an operation that was taken back, or that found no buffer, stays inside.
 */
static bool goes_round(struct ring *ring, struct ring_op *op, int32_t result, uint32_t flags) {
  if (op->cancel_wanted) return false;
  if (found_no_buffer(op, result)) {
    op->withdrawn = false;
    starve(ring, op);
    return true;
  }
  if (op->withdrawn && result == -ECANCELED && op->kind != RING_CONNECT) {
    op->withdrawn = false;
    if ((flags & IORING_CQE_F_BUFFER) != 0) give_unused(ring, flags);
    append_waiting(ring, op);
    return true;
  }
  return false;
}

/* The operation's last completion: `op` is in no list, and its cancellation has been answered. */
static void finish(struct ring *ring, struct ring_op *op, int32_t result, uint32_t flags) {
  if (goes_round(ring, op, result, flags)) return;
  if (found_no_buffer(op, result)) result = -ECANCELED; /* before there was one */
  op->completed_last = true;
  append_event(ring, op, result, flags);
}

static void reap_operation(struct ring *ring, struct ring_op *op, int32_t result, uint32_t flags) {
  if ((flags & IORING_CQE_F_MORE) != 0) {
    append_event(ring, op, result, flags);
    return;
  }
  list_remove(&op->node);
  if (op->cancel_sent) { /* held */
    op->completed_last = true;
    op->result = result;
    op->held_flags = flags;
    return;
  }
  finish(ring, op, result, flags);
}

static void reap_cancellation(struct ring *ring, struct ring_op *op, int32_t result) {
  assert(op->cancel_sent);
  op->cancel_sent = false;
  ring->cancellations--;
  if (op->completed_last) {
    op->completed_last = false;
    finish(ring, op, op->result, op->held_flags);
  } else if (result == -ENOENT) {
    /* It was between two places of the kernel: ask again. */
    list_remove(&op->node);
    list_append(&ring->cancels, &op->node);
  }
}

static void reap(struct ring *ring) {
  struct io_uring_cqe *cqe = NULL;
  unsigned head = 0, taken = 0;
  io_uring_for_each_cqe(&ring->uring, head, cqe) {
    if (ring->event_count == ring->event_capacity) break;
    taken++;
    uint64_t data = io_uring_cqe_get_data64(cqe);
    struct ring_op *op = (struct ring_op *)(uintptr_t)(data & ~(uint64_t)CANCEL_TAG);
    if ((data & CANCEL_TAG) != 0)
      reap_cancellation(ring, op, cqe->res);
    else
      reap_operation(ring, op, cqe->res, cqe->flags);
  }
  io_uring_cq_advance(&ring->uring, taken);
}

static void reap_after(struct ring *ring, uint64_t timeout_ns, bool cancels_only) {
  assert(!ring->delivering);
  bind_to_thread(ring);
  bool again = !cancels_only && revive_starved(ring);
  if (!push(ring, cancels_only) || !list_empty(&ring->ended) || ring->event_count > 0) again = true;
  enter(ring, again ? 0 : timeout_ns);
  reap(ring);
}

void ring_reap(struct ring *ring, uint64_t timeout_ns) {
  reap_after(ring, timeout_ns, false);
}

/* ---- delivery ---- */

static void take_pooled_buffer(struct ring *ring, struct ring_op *op, uint32_t flags) {
  op->pooled_buffer = NULL;
  if ((flags & IORING_CQE_F_BUFFER) == 0) return;
  if (op->result <= 0) {
    give_unused(ring, flags);
    return;
  }
  op->pooled_index = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
  op->pooled_buffer = ring_pool_take(&ring->pool, op->pooled_index);
}

/*
 * Bends the result as the hooks say. An error of a multishot operation is its last word: it is kept
 * until the kernel has ended it. False: nothing to deliver now.
 */
static bool bend_result(struct ring *ring, struct ring_op *op, uint32_t flags) {
#ifdef SPROUT_FAULTS
  int32_t before = op->result;
  op->result = ring_fault_apply(&ring->fault, op, before);
  bool more = (flags & IORING_CQE_F_MORE) != 0;
  if (more && before >= 0 && op->result < 0) {
    op->fault_result = op->result;
    ring_cancel(ring, op);
    return false;
  }
  if (!more && op->fault_result != 0) op->result = op->fault_result;
#else
  (void)ring, (void)op, (void)flags;
#endif
  return true;
}

static void deliver(struct ring *ring, struct ring_op *op, int32_t result, uint32_t flags) {
  op->result = result;
  if (!bend_result(ring, op, flags)) return;
  take_pooled_buffer(ring, op, flags);
  op->more = (flags & IORING_CQE_F_MORE) != 0;
  if (!op->more) {
    op->in_flight = op->completed_last = false;
    ring->in_flight--;
  }
  op->done(op);
}

uint32_t ring_deliver(struct ring *ring) {
  assert(!ring->delivering);
  ring->delivering = true;
  struct list_node ended;
  list_move(&ended, &ring->ended);
  uint32_t count = 0;
  for (; count < ring->event_count; count++) {
    struct ring_event event = ring->events[count];
    deliver(ring, event.op, event.result, event.flags);
  }
  ring->event_count = 0;
  for (struct list_node *node = NULL; (node = list_take(&ended)) != NULL; count++) {
    struct ring_op *op = container_of(node, struct ring_op, node);
    deliver(ring, op, op->result, 0);
  }
  ring->delivering = false;
  return count;
}

uint32_t ring_wait(struct ring *ring, uint64_t timeout_ns) {
  ring_reap(ring, timeout_ns);
  return ring_deliver(ring);
}

/* ---- from thread to thread ---- */

void ring_detach(struct ring *ring) {
  if (!ring->bound) return;
  struct list_node *node = NULL, *next = NULL;
  list_for_each_safe (node, next, &ring->kernel) {
    struct ring_op *op = container_of(node, struct ring_op, node);
    op->withdrawn = true;
    if (op->cancel_sent) continue;
    list_remove(node);
    list_append(&ring->cancels, node);
  }
  while (!list_empty(&ring->kernel) || !list_empty(&ring->cancels) || ring->cancellations > 0) {
    reap_after(ring, UINT64_MAX, true);
    ring_deliver(ring);
  }
  ring->bound = false;
}

#ifdef SPROUT_FAULTS
void ring_fault_set(struct ring *ring, ring_fault_hook hook, void *context) {
  ring->fault.hook = hook;
  ring->fault.context = context;
}
#endif
