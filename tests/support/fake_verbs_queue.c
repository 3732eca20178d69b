/* SPDX-License-Identifier: Apache-2.0 */
/* Channels, queues and READs of the fake verbs layer. */
#include "tests/support/fake_verbs_private.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ACKNOWLEDGE_WAIT_S 2
#define MESSAGE_BYTES_MAX (UINT64_C(1) << 31)

/* --- channels and queues -----------------------------------------------------------------------
 */

int fake_channel_open(struct verbs_device *device, struct verbs_channel **channel_out) {
  int fault = fake_enter(FAKE_CHANNEL_OPEN);
  if (fault == 0 && device->removed) fault = -EIO;
  if (fault < 0) return fake_leave(FAKE_CHANNEL_OPEN, fault);
  struct verbs_channel *channel = fake_take(sizeof *channel);
  *channel = (struct verbs_channel){.alive = true, .device = device, .fd = fake_signal_open()};
  list_init(&channel->events);
  fake.counts.channels++;
  *channel_out = channel;
  return fake_leave(FAKE_CHANNEL_OPEN, 0);
}

int fake_channel_close(struct verbs_channel *channel) {
  fake_lock();
  FAKE_REQUIRE(channel->alive, "closed twice");
  FAKE_REQUIRE(channel->queues == 0, "queues still use it");
  channel->alive = false;
  (void)close(channel->fd);
  fake.counts.channels--;
  fake_unlock();
  return 0;
}

int fake_channel_fd(struct verbs_channel *channel) {
  return channel->fd;
}

void *fake_channel_next(struct verbs_channel *channel) {
  fake_lock();
  FAKE_REQUIRE(channel->alive, "the channel is closed");
  struct list_node *node = list_take(&channel->events);
  if (list_empty(&channel->events)) fake_signal_clear(channel->fd);
  void *context = NULL;
  if (node != NULL) {
    struct fake_queue_event *event = container_of(node, struct fake_queue_event, node);
    event->queue->taken++;
    context = event->queue->context;
    fake_give(event, sizeof *event);
  }
  fake_unlock();
  return context;
}

int fake_queue_open(struct verbs_device *device, struct verbs_channel *channel, uint32_t entries,
                    void *context, struct verbs_queue **queue_out) {
  int fault = fake_enter(FAKE_QUEUE_OPEN);
  FAKE_REQUIRE(channel == NULL || (channel->alive && channel->device == device),
               "the channel is closed or of another device");
  if (fault == 0 && device->removed) fault = -EIO;
  if (fault == 0 && (entries == 0 || entries > device->config.max_queue_entries)) fault = -EINVAL;
  if (fault < 0) return fake_leave(FAKE_QUEUE_OPEN, fault);
  struct verbs_queue *queue = fake_take(sizeof *queue);
  *queue = (struct verbs_queue){.alive = true,
                                .device = device,
                                .channel = channel,
                                .context = context,
                                .capacity = entries,
                                .entries = fake_take(entries * sizeof(struct fake_entry))};
  if (channel != NULL) channel->queues++;
  fake.counts.queues++;
  *queue_out = queue;
  return fake_leave(FAKE_QUEUE_OPEN, 0);
}

static void drop_events(const struct verbs_queue *queue) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &queue->channel->events) {
    struct fake_queue_event *event = container_of(node, struct fake_queue_event, node);
    if (event->queue != queue) continue;
    list_remove(&event->node);
    fake_give(event, sizeof *event);
  }
  if (list_empty(&queue->channel->events)) fake_signal_clear(queue->channel->fd);
}

/* A close waits for events that were taken and not acknowledged: for one that another thread is at
 * just now that is right. */
static void await_acknowledged(const struct verbs_queue *queue) {
  struct timespec until;
  FAKE_REQUIRE(clock_gettime(CLOCK_REALTIME, &until) == 0, "no clock");
  until.tv_sec += ACKNOWLEDGE_WAIT_S;
  bool here = pthread_equal(pthread_self(), fake.reactor_thread) != 0;
  while (queue->acknowledged != queue->taken)
    FAKE_REQUIRE(!here && pthread_cond_timedwait(&fake.changed, &fake.lock, &until) == 0,
                 "events were not acknowledged: it would hang");
}

int fake_queue_close(struct verbs_queue *queue) {
  int fault = fake_enter(FAKE_QUEUE_CLOSE);
  FAKE_REQUIRE(queue->alive, "closed twice");
  FAKE_REQUIRE(queue->pairs == 0, "queue pairs still use it");
  await_acknowledged(queue);
  if (queue->channel != NULL) {
    drop_events(queue);
    queue->channel->queues--;
  }
  queue->alive = false;
  fake.counts.queues--;
  return fake_leave(FAKE_QUEUE_CLOSE, fault);
}

void fake_queue_acknowledge(struct verbs_queue *queue, uint32_t events) {
  fake_lock();
  FAKE_REQUIRE(queue->alive, "the queue is closed");
  queue->acknowledged += events;
  FAKE_REQUIRE(queue->acknowledged <= queue->taken, "more events than were taken");
  pthread_cond_broadcast(&fake.changed);
  fake_unlock();
}

static void push_entry(struct verbs_queue *queue, const struct fake_entry *entry) {
  FAKE_REQUIRE(queue->count < queue->capacity, "the queue overflows");
  queue->entries[(queue->first + queue->count++) % queue->capacity] = *entry;
  if (!queue->armed || queue->channel == NULL) return;
  queue->armed = false;
  struct fake_queue_event *event = fake_take(sizeof *event);
  event->queue = queue;
  list_append(&queue->channel->events, &event->node);
  fake_signal_raise(queue->channel->fd);
}

int fake_queue_poll(struct verbs_queue *queue, struct verbs_completion *completions_out,
                    uint32_t capacity) {
  int fault = fake_enter(FAKE_QUEUE_POLL);
  FAKE_REQUIRE(queue->alive, "the queue is closed");
  if (fault < 0) return fake_leave(FAKE_QUEUE_POLL, fault);
  uint32_t count = 0;
  for (; count < capacity && queue->count > 0; count++, queue->count--) {
    const struct fake_entry *entry = &queue->entries[queue->first];
    completions_out[count] = entry->completion;
    entry->link->view.slots -= entry->slots;
    entry->link->device->view.slots -= entry->slots;
    queue->first = (queue->first + 1) % queue->capacity;
  }
  return fake_leave(FAKE_QUEUE_POLL, (int)count);
}

/* What is there of a link that ends: gone, or without its slots. */
static void drop_entries(struct verbs_queue *queue, const struct verbs_link *link) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < queue->count; i++) {
    struct fake_entry entry = queue->entries[(queue->first + i) % queue->capacity];
    if (entry.link == link) {
      if (!fake.keep_completions) continue;
      entry.slots = 0;
    }
    queue->entries[(queue->first + kept++) % queue->capacity] = entry;
  }
  queue->count = kept;
}

/* --- READs -------------------------------------------------------------------------------------
 */

static bool any_port_down(const struct verbs_device *device) {
  for (uint32_t i = 0; i < device->config.ports; i++)
    if (device->port_down[i]) return true;
  return false;
}

static bool can_run(const struct verbs_link *link) {
  if (list_empty(&link->requests)) return false;
  if (link->pair_error) return !link->flush_muted;
  return !link->muted && !any_port_down(link->device) &&
         (link->peer == NULL || link->peer_gone || !any_port_down(link->peer->device));
}

static void copy_out(const struct fake_memory *memory, uint64_t address, void *data,
                     size_t length) {
  if (memory->what.dmabuf_fd < 0) {
    memcpy(data, (const void *)(uintptr_t)address, length);
    return;
  }
  uint64_t offset =
      memory->what.dmabuf_offset + (address - (uint64_t)(uintptr_t)memory->what.address);
  FAKE_REQUIRE(pread(memory->what.dmabuf_fd, data, length, (off_t)offset) == (ssize_t)length,
               "the dma-buf cannot be read");
}

static void copy_in(const struct fake_memory *memory, uint64_t address, const void *data,
                    size_t length) {
  if (memory->what.dmabuf_fd < 0) {
    memcpy((void *)(uintptr_t)address, data, length);
    return;
  }
  uint64_t offset =
      memory->what.dmabuf_offset + (address - (uint64_t)(uintptr_t)memory->what.address);
  FAKE_REQUIRE(pwrite(memory->what.dmabuf_fd, data, length, (off_t)offset) == (ssize_t)length,
               "the dma-buf cannot be written");
}

/* Copies at most `limit` bytes, as far as all keys hold. */
static void copy_bytes(const struct verbs_link *link, const struct fake_request *request,
                       uint64_t limit) {
  const struct fake_memory *from =
      fake_memory_find(link->peer->domain, true, request->read.remote_key,
                       request->read.remote_address, request->length_bytes);
  if (from == NULL) return;
  uint64_t at = request->read.remote_address;
  for (uint32_t i = 0; i < request->read.segment_count && limit > 0; i++) {
    const struct verbs_segment *segment = &request->segments[i];
    const struct fake_memory *to = fake_memory_find(link->domain, false, segment->local_key,
                                                    segment->address, segment->length_bytes);
    if (to == NULL) return;
    uint64_t left = segment->length_bytes < limit ? segment->length_bytes : limit, done = 0;
    limit -= left;
    while (left > 0) {
      unsigned char piece[16384];
      size_t length = left < sizeof piece ? (size_t)left : sizeof piece;
      copy_out(from, at, piece, length);
      copy_in(to, segment->address + done, piece, length);
      at += length;
      done += length;
      left -= length;
    }
  }
}

static bool may_land(const struct verbs_link *link, const struct fake_request *request) {
  for (uint32_t i = 0; i < request->read.segment_count; i++) {
    const struct verbs_segment *segment = &request->segments[i];
    if (fake_memory_find(link->domain, false, segment->local_key, segment->address,
                         segment->length_bytes) == NULL)
      return false;
  }
  return true;
}

static enum verbs_outcome execute(struct verbs_link *link, const struct fake_request *request) {
  if (fake.before_copy != NULL) fake.before_copy(fake.before_copy_context);
  if (fake.read_fault_at > 0 && --fake.read_fault_at == 0) {
    if (fake.read_fault == VERBS_UNREACHABLE || fake.read_fault == VERBS_REMOTE_OTHER)
      copy_bytes(link, request, request->length_bytes / 2);
    return fake.read_fault;
  }
  if (!may_land(link, request)) return VERBS_LOCAL;
  if (link->peer_gone || link->peer->pair_error) return VERBS_UNREACHABLE;
  if (fake_memory_find(link->peer->domain, true, request->read.remote_key,
                       request->read.remote_address, request->length_bytes) == NULL) {
    link->peer->pair_error = true; /* the responder's pair breaks too */
    fake_async_push(link->peer->device, VERBS_ASYNC_OTHER, 0, "QP access error");
    return VERBS_REMOTE_ACCESS;
  }
  if (!request->answered) copy_bytes(link, request, request->length_bytes);
  return VERBS_OK;
}

/* READs behind the oldest one that need not wait for it see memory now. */
static void answer_ahead(const struct verbs_link *link) {
  if (link->pair_error || link->peer_gone || link->peer->pair_error) return;
  for (struct list_node *node = link->requests.next->next; node != &link->requests;
       node = node->next) {
    struct fake_request *request = container_of(node, struct fake_request, node);
    if (request->read.after_all) return;
    if (!request->answered) copy_bytes(link, request, request->length_bytes);
    request->answered = true;
  }
}

static void complete(struct verbs_link *link, uint64_t id, enum verbs_outcome outcome,
                     uint32_t slots) {
  static const uint32_t natives[] = {[VERBS_OK] = 0,
                                     [VERBS_FLUSHED] = 5,
                                     [VERBS_UNREACHABLE] = 12,
                                     [VERBS_REMOTE_ACCESS] = 10,
                                     [VERBS_REMOTE_OTHER] = 11,
                                     [VERBS_LOCAL] = 4};
  const struct fake_entry entry = {
      .completion = {.id = id, .outcome = outcome, .native = natives[outcome]},
      .link = link,
      .slots = slots};
  if (!link->completions_held) {
    push_entry(link->queue, &entry);
    return;
  }
  struct fake_held *held = fake_take(sizeof *held);
  held->entry = entry;
  list_append(&link->held, &held->node);
}

/* Outstanding READs changed by this much. */
static void account(struct fake_view *view, int requests, uint64_t bytes) {
  if (requests < 0) {
    view->requests--;
    view->bytes -= bytes;
    return;
  }
  view->requests++;
  view->bytes += bytes;
  view->slots++;
  view->posted++;
  if (view->requests > view->max_requests) view->max_requests = view->requests;
  if (view->bytes > view->max_bytes) view->max_bytes = view->bytes;
  if (view->slots > view->max_slots) view->max_slots = view->slots;
}

static void account_end(struct fake_view *view, enum verbs_outcome outcome, uint64_t bytes) {
  if (outcome == VERBS_OK) {
    view->done++;
    view->done_bytes += bytes;
  } else {
    view->failed++;
  }
}

static void count_landing(const struct verbs_link *link, const struct fake_request *request,
                          bool more) {
  for (uint32_t i = 0; i < request->read.segment_count; i++) {
    const struct verbs_segment *segment = &request->segments[i];
    struct fake_memory *memory = fake_memory_find(link->domain, false, segment->local_key,
                                                  segment->address, segment->length_bytes);
    if (memory != NULL) memory->landing += more ? 1u : UINT32_MAX;
  }
}

/* It is not outstanding any more. */
static void retire(struct verbs_link *link, struct fake_request *request) {
  account(&link->view, -1, request->length_bytes);
  account(&link->device->view, -1, request->length_bytes);
  count_landing(link, request, false);
  list_remove(&request->node);
}

static void run_one(struct verbs_link *link) {
  struct fake_request *request = container_of(link->requests.next, struct fake_request, node);
  if (fake.any_order) answer_ahead(link);
  enum verbs_outcome outcome = link->pair_error ? VERBS_FLUSHED : execute(link, request);
  retire(link, request);
  account_end(&link->view, outcome, request->length_bytes);
  account_end(&link->device->view, outcome, request->length_bytes);
  if (outcome != VERBS_OK) link->pair_error = true;
  link->silent_slots++;
  if (request->read.signalled || outcome != VERBS_OK) {
    uint32_t slots = link->silent_slots;
    link->silent_slots = 0;
    complete(link, request->read.id, outcome, slots);
    if (fake.duplicate_at > 0 && --fake.duplicate_at == 0)
      complete(link, request->read.id, outcome, 0);
  }
  fake_give(request, sizeof *request);
}

void fake_pair_pump(struct verbs_link *link) {
  while (!fake.manual && can_run(link)) run_one(link);
}

void fake_pair_release(struct verbs_link *link) {
  if (link->domain == NULL) return;
  struct list_node *node;
  while (!list_empty(&link->requests)) {
    struct fake_request *request = container_of(link->requests.next, struct fake_request, node);
    retire(link, request);
    fake_give(request, sizeof *request);
  }
  while ((node = list_take(&link->held)) != NULL)
    fake_give(container_of(node, struct fake_held, node), sizeof(struct fake_held));
  drop_entries(link->queue, link);
  link->device->view.slots -= link->view.slots;
  link->view.slots = 0;
  link->domain->pairs--;
  link->queue->pairs--;
  fake.counts.pairs--;
}

/* 0 or why this one cannot be posted. */
static int refuse(const struct verbs_link *link, const struct verbs_read *read,
                  uint64_t *length_out) {
  int fault = fake_fault(FAKE_LINK_POST);
  if (fault < 0) return fault;
  if (link->read_depth == 0 || read->segment_count > link->limits.segments) return -EINVAL;
  if (link->view.slots >= link->limits.requests) return -ENOMEM;
  *length_out = 0;
  for (uint32_t i = 0; i < read->segment_count; i++) *length_out += read->segments[i].length_bytes;
  return *length_out > MESSAGE_BYTES_MAX ? -EINVAL : 0;
}

static void post_one(struct verbs_link *link, const struct verbs_read *read, uint64_t length) {
  struct fake_request *request = fake_take(sizeof *request);
  request->read = *read;
  request->length_bytes = length;
  request->answered = false;
  memcpy(request->segments, read->segments, read->segment_count * sizeof read->segments[0]);
  list_append(&link->requests, &request->node);
  count_landing(link, request, true);
  struct fake_view *views[] = {&link->view, &link->device->view};
  for (int i = 0; i < 2; i++) {
    account(views[i], 1, length);
    if (read->signalled) views[i]->signalled++;
    if (read->segment_count > views[i]->segments_max) views[i]->segments_max = read->segment_count;
  }
}

int fake_link_post(struct verbs_link *link, const struct verbs_read *reads, uint32_t count,
                   uint32_t *posted_out) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  FAKE_REQUIRE(link->domain != NULL, "it has no queue pair");
  int result = 0;
  uint32_t posted = 0;
  if (link->device->removed)
    result = -EIO;
  else if (link->state != FAKE_LINK_CONNECTED && link->state != FAKE_LINK_OVER)
    result = -EINVAL;
  for (; result == 0 && posted < count; posted++) {
    uint64_t length;
    result = refuse(link, &reads[posted], &length);
    if (result < 0) break;
    post_one(link, &reads[posted], length);
  }
  link->view.chains++;
  link->device->view.chains++;
  *posted_out = posted;
  fake_pair_pump(link);
  fake_unlock();
  return result;
}

/* --- what the test does ------------------------------------------------------------------------
 */

void fake_verbs_manual(bool manual) {
  fake_lock();
  fake.manual = manual;
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fake.links)
    fake_pair_pump(container_of(node, struct verbs_link, node));
  fake_unlock();
}

void fake_verbs_any_order(bool any) {
  fake_lock();
  fake.any_order = any;
  fake_unlock();
}

/* NULL: of all devices. */
static uint32_t step(const struct verbs_device *device, uint32_t count) {
  uint32_t ran = 0;
  bool any = true;
  while (any && ran < count) {
    any = false;
    struct list_node *node, *next, *last = fake.turns.prev;
    list_for_each_safe (node, next, &fake.turns) {
      struct verbs_link *link = container_of(node, struct verbs_link, turn);
      if (ran < count && (device == NULL || link->device == device) && can_run(link)) {
        run_one(link);
        ran++;
        any = true;
        list_remove(node); /* its next turn comes after all others' */
        list_append(&fake.turns, node);
      }
      if (node == last) break;
    }
  }
  return ran;
}

uint32_t fake_verbs_step(uint32_t count) {
  fake_lock();
  uint32_t ran = step(NULL, count);
  fake_unlock();
  return ran;
}

uint32_t fake_device_step(uint32_t index, uint32_t count) {
  fake_lock();
  FAKE_REQUIRE(index < fake.device_count, "no such device");
  uint32_t ran = step(&fake.devices[index], count);
  fake_unlock();
  return ran;
}

uint32_t fake_link_step(struct verbs_link *link, uint32_t count) {
  fake_lock();
  uint32_t ran = 0;
  for (; ran < count && can_run(link); ran++) run_one(link);
  fake_unlock();
  return ran;
}

void fake_verbs_step_before_arm(uint32_t count) {
  fake_lock();
  fake.step_before_arm = count;
  fake_unlock();
}

int fake_queue_arm(struct verbs_queue *queue) {
  int fault = fake_enter(FAKE_QUEUE_ARM);
  FAKE_REQUIRE(queue->alive, "the queue is closed");
  FAKE_REQUIRE(queue->channel != NULL, "nobody waits for this queue");
  if (fault < 0) return fake_leave(FAKE_QUEUE_ARM, fault);
  if (fake.step_before_arm > 0) {
    (void)step(queue->device, fake.step_before_arm);
    fake.step_before_arm = 0;
  }
  queue->armed = true;
  return fake_leave(FAKE_QUEUE_ARM, 0);
}

void fake_verbs_fail_read(uint64_t nth, enum verbs_outcome outcome) {
  fake_lock();
  fake.read_fault_at = nth;
  fake.read_fault = outcome;
  fake_unlock();
}

void fake_verbs_duplicate(uint64_t nth) {
  fake_lock();
  fake.duplicate_at = nth;
  fake_unlock();
}

void fake_verbs_before_copy(void (*hook)(void *context), void *context) {
  fake_lock();
  fake.before_copy = hook;
  fake.before_copy_context = context;
  fake_unlock();
}

void fake_verbs_keep_completions(bool keep) {
  fake_lock();
  fake.keep_completions = keep;
  fake_unlock();
}

void fake_link_hold_completions(struct verbs_link *link, bool hold) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  link->completions_held = hold;
  struct list_node *node;
  while (!hold && (node = list_take(&link->held)) != NULL) {
    struct fake_held *held = container_of(node, struct fake_held, node);
    push_entry(link->queue, &held->entry);
    fake_give(held, sizeof *held);
  }
  fake_unlock();
}

void fake_link_mute(struct verbs_link *link, bool mute) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  link->muted = mute;
  fake_pair_pump(link);
  fake_unlock();
}

void fake_link_mute_flush(struct verbs_link *link, bool mute) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  link->flush_muted = mute;
  fake_pair_pump(link);
  fake_unlock();
}

void fake_link_land(struct verbs_link *link) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "a byte landed after the end of its link");
  struct list_node *node, *next;
  list_for_each_safe (node, next, &link->requests) {
    const struct fake_request *request = container_of(node, struct fake_request, node);
    copy_bytes(link, request, request->length_bytes);
  }
  fake_unlock();
}

void fake_link_break(struct verbs_link *link, enum verbs_outcome outcome) {
  fake_lock();
  FAKE_REQUIRE(link->state < FAKE_LINK_ENDED, "the link has ended");
  if (!list_empty(&link->requests) && !link->pair_error) {
    const uint64_t armed_at = fake.read_fault_at;
    const enum verbs_outcome armed = fake.read_fault;
    fake.read_fault_at = 1;
    fake.read_fault = outcome;
    run_one(link);
    fake.read_fault_at = armed_at;
    fake.read_fault = armed;
  }
  link->pair_error = true;
  fake_pair_pump(link);
  fake_unlock();
}

struct fake_view fake_link_view(const struct verbs_link *link) {
  fake_lock();
  struct fake_view view = link->view;
  fake_unlock();
  return view;
}

struct fake_view fake_device_view(uint32_t index) {
  fake_lock();
  FAKE_REQUIRE(index < fake.device_count, "no such device");
  struct fake_view view = fake.devices[index].view;
  fake_unlock();
  return view;
}

static void reset_view(struct fake_view *view) {
  *view = (struct fake_view){.requests = view->requests,
                             .bytes = view->bytes,
                             .slots = view->slots,
                             .max_requests = view->requests,
                             .max_bytes = view->bytes,
                             .max_slots = view->slots};
}

void fake_verbs_reset_views(void) {
  fake_lock();
  for (uint32_t i = 0; i < fake.device_count; i++) reset_view(&fake.devices[i].view);
  struct list_node *node, *next;
  list_for_each_safe (node, next, &fake.links)
    reset_view(&container_of(node, struct verbs_link, node)->view);
  fake_unlock();
}
