/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_landing.h"

#include "core/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WORDS_BYTES 65536u

enum landing_state {
  LANDING_IDLE,    /* waits for somebody to join */
  LANDING_OPENING, /* waits for the worker: domains */
  LANDING_OPEN,
  LANDING_FAILED, /* for good */
  LANDING_CLOSING /* waits for memory being released, then for the worker: domains */
};

struct rdma_landing {
  struct rdma_landing_options options;
  const struct verbs *verbs;
  struct reactor *reactor;
  enum landing_state state;
  struct verbs_domain *domains[RDMA_RAILS_MAX];
  struct rdma_memory *memory;
  uint64_t *words;
  uint32_t words_used;
  struct list_node users;
  struct work work;
  bool working, closing;
  int native;
  struct sprout_error error;
  struct deferred later;
  void (*closed)(void *context);
  void *closed_context;
};

static void tell_users(struct rdma_landing *landing) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &landing->users) {
    struct rdma_landing_user *user = container_of(node, struct rdma_landing_user, node);
    user->changed(user);
  }
}

static void tell_later(struct deferred *deferred) {
  tell_users(container_of(deferred, struct rdma_landing, later));
}

static void fail(struct rdma_landing *landing, const struct sprout_error *error) {
  if (landing->state == LANDING_FAILED || landing->closing) return;
  landing->state = LANDING_FAILED;
  landing->error = *error;
  reactor_defer(landing->reactor, &landing->later);
}

/* --- domains --- */

static void close_domains(struct work *work) {
  struct rdma_landing *landing = container_of(work, struct rdma_landing, work);
  for (uint32_t i = 0; i < landing->options.device_count; i++) {
    if (landing->domains[i] == NULL) continue;
    int native = landing->verbs->domain_close(landing->domains[i]);
    if (native != 0) landing->native = native;
    landing->domains[i] = NULL;
  }
}

static void domains_closed(struct work *work) {
  struct rdma_landing *landing = container_of(work, struct rdma_landing, work);
  landing->working = false;
  if (landing->native != 0)
    log_write(LOG_ERROR, "rdma", "a protection domain could not be closed: error %d",
              -landing->native);
  landing->closed(landing->closed_context);
}

static void memory_closed(void *context) {
  struct rdma_landing *landing = context;
  rdma_memory_destroy(landing->memory);
  landing->memory = NULL;
  landing->native = 0;
  landing->working = true;
  landing->work = (struct work){.run = close_domains, .done = domains_closed};
  reactor_work(landing->reactor, &landing->work);
}

static void go_on_closing(struct rdma_landing *landing) {
  landing->state = LANDING_CLOSING;
  if (landing->memory != NULL)
    rdma_memory_close(landing->memory, memory_closed, landing);
  else
    memory_closed(landing);
}

static void open_domains(struct work *work) {
  struct rdma_landing *landing = container_of(work, struct rdma_landing, work);
  landing->native = 0;
  for (uint32_t i = 0; i < landing->options.device_count && landing->native == 0; i++)
    landing->native =
        landing->verbs->domain_open(landing->options.devices[i]->info.device, &landing->domains[i]);
}

static void domains_opened(struct work *work) {
  struct rdma_landing *landing = container_of(work, struct rdma_landing, work);
  struct sprout_error error;
  landing->working = false;
  if (landing->closing) {
    go_on_closing(landing);
    return;
  }
  if (landing->native == 0) {
    landing->state = LANDING_OPEN;
    tell_users(landing);
    return;
  }
  (void)sprout_error_set(&error, SPROUT_UNSUPPORTED, -landing->native, "Use --transport tcp.",
                         "no protection domain on an RDMA device: %s", strerror(-landing->native));
  fail(landing, &error);
}

/* --- memory --- */

static void slice_ready(void *context, uint32_t slice) {
  (void)slice;
  tell_users(context);
}

static void memory_failed(void *context, const struct sprout_error *error) {
  fail(context, error);
}

static uint64_t slice_bytes(const struct rdma_landing *landing) {
  uint64_t bytes = RDMA_SLICE_BYTES;
  for (uint32_t i = 0; i < landing->options.device_count; i++) {
    uint64_t most = landing->options.devices[i]->info.max_memory_bytes;
    if (most < bytes) bytes = most;
  }
  return bytes;
}

static SPROUT_MUST_CHECK enum sprout_status register_all(struct rdma_landing *landing) {
  const struct iovec *iov = NULL;
  uint32_t count = landing->options.spans(landing->options.context, &iov);
  struct rdma_span *spans = calloc((size_t)count + 1, sizeof(*spans));
  if (spans == NULL) return SPROUT_NO_MEMORY;
  for (uint32_t i = 0; i < count; i++)
    spans[i] = (struct rdma_span){
        .address = iov[i].iov_base, .length_bytes = iov[i].iov_len, .dmabuf_fd = -1};
  spans[count] = (struct rdma_span){
      .address = (unsigned char *)landing->words, .length_bytes = WORDS_BYTES, .dmabuf_fd = -1};
  struct rdma_memory_options options = {.reactor = landing->reactor,
                                        .verbs = landing->verbs,
                                        .domain_count = landing->options.device_count,
                                        .slice_bytes = slice_bytes(landing),
                                        .ready = slice_ready,
                                        .failed = memory_failed,
                                        .context = landing};
  memcpy(options.domains, landing->domains, sizeof(options.domains));
  enum sprout_status status =
      rdma_memory_create(&options, spans, (size_t)count + 1, &landing->memory);
  free(spans);
  if (status == SPROUT_OK) rdma_memory_start(landing->memory);
  return status;
}

const struct rdma_memory *rdma_landing_memory(struct rdma_landing *landing) {
  struct sprout_error error;
  assert(landing->state == LANDING_OPEN || landing->state == LANDING_FAILED);
  if (landing->memory == NULL && landing->state == LANDING_OPEN) {
    enum sprout_status status = register_all(landing);
    if (status != SPROUT_OK) {
      (void)sprout_error_set(&error, status, 0, NULL, "no memory for a table of registered memory");
      fail(landing, &error);
    }
  }
  return landing->memory;
}

uint64_t *rdma_landing_words(struct rdma_landing *landing, uint32_t count) {
  if (count > WORDS_BYTES / sizeof(uint64_t) - landing->words_used) return NULL;
  uint64_t *words = landing->words + landing->words_used;
  landing->words_used += count;
  return words;
}

/* --- the interface --- */

enum sprout_status rdma_landing_create(const struct rdma_landing_options *options,
                                       struct rdma_landing **landing_out) {
  struct rdma_landing *landing = calloc(1, sizeof(*landing));
  if (landing == NULL) return SPROUT_NO_MEMORY;
  landing->words =
      mmap(NULL, WORDS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (landing->words == MAP_FAILED) {
    free(landing);
    return SPROUT_NO_MEMORY;
  }
  landing->options = *options;
  landing->verbs = rdma_host_verbs(options->host);
  landing->reactor = rdma_host_reactor(options->host);
  landing->later.run = tell_later;
  list_init(&landing->users);
  *landing_out = landing;
  return SPROUT_OK;
}

void rdma_landing_join(struct rdma_landing *landing, struct rdma_landing_user *user) {
  list_append(&landing->users, &user->node);
  if (landing->state == LANDING_IDLE) {
    landing->state = LANDING_OPENING;
    landing->working = true;
    landing->work = (struct work){.run = open_domains, .done = domains_opened};
    reactor_work(landing->reactor, &landing->work);
  } else if (landing->state != LANDING_OPENING) {
    reactor_defer(landing->reactor, &landing->later);
  }
}

void rdma_landing_leave(struct rdma_landing *landing, struct rdma_landing_user *user) {
  (void)landing;
  list_remove(&user->node);
}

bool rdma_landing_opened(const struct rdma_landing *landing) {
  return landing->state == LANDING_OPEN;
}

const struct sprout_error *rdma_landing_error(const struct rdma_landing *landing) {
  return landing->state == LANDING_FAILED ? &landing->error : NULL;
}

struct verbs_domain *rdma_landing_domain(const struct rdma_landing *landing, uint32_t device) {
  assert(landing->state == LANDING_OPEN);
  return landing->domains[device];
}

void rdma_landing_close(struct rdma_landing *landing, void (*closed)(void *context),
                        void *context) {
  assert(list_empty(&landing->users) && !landing->closing);
  landing->closing = true;
  landing->closed = closed;
  landing->closed_context = context;
  if (!landing->working) go_on_closing(landing);
}

void rdma_landing_destroy(struct rdma_landing *landing) {
  if (landing == NULL) return;
  assert(!landing->working && landing->memory == NULL);
  reactor_defer_cancel(landing->reactor, &landing->later);
  munmap(landing->words, WORDS_BYTES);
  free(landing);
}
