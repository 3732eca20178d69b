/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_memory.h"

#include "core/units.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Calls on the worker pool at once: registration is bound by the kernel's pinning of pages, which
 * scales over a few cores. */
#define JOBS 8u
#define PAGE_BYTES 4096ull
/* A slice's cut lies on a huge page's border, so that devices can use large pages on both sides. */
#define CUT_BYTES (2ull << 20)

/* One slice being registered or released, all domains in turn. */
struct job {
  struct work work;
  struct rdma_memory *memory;
  uint32_t slice;
  int native; /* of the registration that failed; 0: none did */
  bool busy;
};

struct rdma_memory {
  struct rdma_memory_options options;
  struct rdma_slice *slices;
  uint32_t slice_count, ready_count;
  uint64_t total_bytes;
  uint32_t next; /* slice to be started (or released) next */
  struct job jobs[JOBS];
  uint32_t running;
  bool started, failed, closing;
  struct deferred closed_later;
  void (*closed)(void *context);
  void *closed_context;
};

/* --- layout --- */

static int compare_spans(const void *a, const void *b) {
  const struct rdma_span *x = a, *y = b;
  if (x->address != y->address) return x->address < y->address ? -1 : 1;
  if (x->length_bytes != y->length_bytes) return x->length_bytes > y->length_bytes ? -1 : 1;
  return 0;
}

static uint64_t end_of(const struct rdma_span *span) {
  return (uint64_t)(uintptr_t)span->address + span->length_bytes;
}

/* The next span begins inside this one, right behind it, or in the page where it ends. */
static bool joins(const struct rdma_span *span, const struct rdma_span *next) {
  uint64_t page_end = (end_of(span) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
  return span->dmabuf_fd < 0 && next->dmabuf_fd < 0 &&
         (uint64_t)(uintptr_t)next->address <= page_end;
}

/* Coalesces sorted spans in place; the new count. */
static size_t coalesce(struct rdma_span *spans, size_t count) {
  size_t kept = 0;
  for (size_t i = 0; i < count; i++) {
    if (spans[i].length_bytes == 0) continue;
    struct rdma_span *last = kept > 0 ? &spans[kept - 1] : NULL;
    if (last == NULL || !joins(last, &spans[i])) {
      spans[kept++] = spans[i];
    } else if (end_of(&spans[i]) > end_of(last)) {
      last->length_bytes = end_of(&spans[i]) - (uint64_t)(uintptr_t)last->address;
    }
  }
  return kept;
}

/* How much of the span the slice at `offset` takes. */
static uint64_t cut(const struct rdma_span *span, uint64_t offset, uint64_t slice_bytes) {
  uint64_t left = span->length_bytes - offset;
  if (left <= slice_bytes) return left;
  uint64_t end = (uint64_t)(uintptr_t)span->address + offset + slice_bytes;
  uint64_t aligned = slice_bytes > CUT_BYTES ? end & ~(CUT_BYTES - 1) : end;
  return aligned - ((uint64_t)(uintptr_t)span->address + offset);
}

/* Counts, or fills when slices are there. */
static uint64_t slice_spans(struct rdma_memory *memory, const struct rdma_span *spans, size_t count,
                            uint64_t slice_bytes) {
  uint64_t made = 0;
  for (size_t i = 0; i < count; i++) {
    for (uint64_t offset = 0; offset < spans[i].length_bytes; made++) {
      uint64_t length = cut(&spans[i], offset, slice_bytes);
      if (memory->slices != NULL)
        memory->slices[made] =
            (struct rdma_slice){.address = spans[i].address + offset,
                                .length_bytes = length,
                                .dmabuf_fd = spans[i].dmabuf_fd,
                                .dmabuf_offset = spans[i].dmabuf_offset + offset};
      memory->total_bytes += memory->slices != NULL ? length : 0;
      offset += length;
    }
  }
  return made;
}

static SPROUT_MUST_CHECK enum sprout_status lay_out(struct rdma_memory *memory,
                                                    const struct rdma_span *spans, size_t count) {
  uint64_t slice_bytes = memory->options.slice_bytes;
  if (slice_bytes == 0 || slice_bytes > RDMA_SLICE_BYTES) slice_bytes = RDMA_SLICE_BYTES;
  struct rdma_span *sorted = calloc(count + 1, sizeof(*sorted));
  if (sorted == NULL) return SPROUT_NO_MEMORY;
  if (count > 0) memcpy(sorted, spans, count * sizeof(*sorted));
  qsort(sorted, count, sizeof(*sorted), compare_spans);
  size_t kept = coalesce(sorted, count);
  uint64_t slices = slice_spans(memory, sorted, kept, slice_bytes);
  enum sprout_status status = slices <= UINT32_MAX ? SPROUT_OK : SPROUT_LIMIT;
  if (status == SPROUT_OK) {
    memory->slices = calloc(slices + 1, sizeof(*memory->slices));
    if (memory->slices == NULL) status = SPROUT_NO_MEMORY;
  }
  if (status == SPROUT_OK)
    memory->slice_count = (uint32_t)slice_spans(memory, sorted, kept, slice_bytes);
  free(sorted);
  return status;
}

/* --- registration, on the workers --- */

static void release_slice(const struct rdma_memory *memory, struct rdma_slice *slice) {
  for (uint32_t i = 0; i < memory->options.domain_count; i++) {
    if (slice->memories[i] != NULL) (void)memory->options.verbs->memory_release(slice->memories[i]);
    slice->memories[i] = NULL;
  }
}

static void run_register(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  const struct rdma_memory_options *options = &job->memory->options;
  struct rdma_slice *slice = &job->memory->slices[job->slice];
  const struct verbs_registration what = {.address = slice->address,
                                          .length_bytes = slice->length_bytes,
                                          .remote_read = options->remote_read,
                                          .dmabuf_fd = slice->dmabuf_fd,
                                          .dmabuf_offset = slice->dmabuf_offset};
  job->native = 0;
  for (uint32_t i = 0; i < options->domain_count && job->native == 0; i++)
    job->native = options->verbs->memory_register(options->domains[i], &what, &slice->memories[i]);
  if (job->native != 0) release_slice(job->memory, slice);
}

static void run_release(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  release_slice(job->memory, &job->memory->slices[job->slice]);
}

/* --- the reactor's side --- */

static void go_on(struct rdma_memory *memory);

static void fail(struct rdma_memory *memory, const struct job *job) {
  struct sprout_error error;
  if (memory->failed || memory->closing) return;
  memory->failed = true;
  (void)rdma_memory_explain(-job->native, memory->slices[job->slice].length_bytes, &error);
  memory->options.failed(memory->options.context, &error);
}

static void registered(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  struct rdma_memory *memory = job->memory;
  job->busy = false;
  memory->running--;
  if (job->native != 0) {
    fail(memory, job);
  } else {
    memory->slices[job->slice].ready = true;
    memory->ready_count++;
    if (!memory->closing && !memory->failed)
      memory->options.ready(memory->options.context, job->slice);
  }
  go_on(memory);
}

static void released(struct work *work) {
  struct job *job = container_of(work, struct job, work);
  job->busy = false;
  job->memory->running--;
  go_on(job->memory);
}

static void start_job(struct rdma_memory *memory, struct job *job) {
  job->memory = memory;
  job->slice = memory->next++;
  job->busy = true;
  job->work = memory->closing ? (struct work){.run = run_release, .done = released}
                              : (struct work){.run = run_register, .done = registered};
  memory->running++;
  reactor_work(memory->options.reactor, &job->work);
}

/* Releasing begins anew at the first slice, when the last registration has come back. */
static bool begin_release(struct rdma_memory *memory) {
  if (memory->running > 0) return false;
  memory->next = 0;
  memory->started = false;
  return true;
}

static void go_on(struct rdma_memory *memory) {
  if (memory->closing && memory->started && !begin_release(memory)) return;
  if (memory->failed && !memory->closing) return;
  for (uint32_t i = 0; i < JOBS && memory->next < memory->slice_count; i++)
    if (!memory->jobs[i].busy) start_job(memory, &memory->jobs[i]);
  if (memory->closing && memory->running == 0)
    reactor_defer(memory->options.reactor, &memory->closed_later);
}

static void tell_closed(struct deferred *deferred) {
  struct rdma_memory *memory = container_of(deferred, struct rdma_memory, closed_later);
  memory->closed(memory->closed_context);
}

/* --- the interface --- */

enum sprout_status rdma_memory_create(const struct rdma_memory_options *options,
                                      const struct rdma_span *spans, size_t count,
                                      struct rdma_memory **memory_out) {
  struct rdma_memory *memory = calloc(1, sizeof(*memory));
  if (memory == NULL) return SPROUT_NO_MEMORY;
  assert(options->domain_count > 0 && options->domain_count <= RDMA_RAILS_MAX);
  memory->options = *options;
  memory->closed_later.run = tell_closed;
  enum sprout_status status = lay_out(memory, spans, count);
  if (status != SPROUT_OK) {
    rdma_memory_destroy(memory);
    return status;
  }
  *memory_out = memory;
  return SPROUT_OK;
}

void rdma_memory_start(struct rdma_memory *memory) {
  assert(!memory->started && !memory->closing);
  memory->started = true;
  go_on(memory);
}

uint32_t rdma_memory_slices(const struct rdma_memory *memory) {
  return memory->slice_count;
}

const struct rdma_slice *rdma_memory_slice(const struct rdma_memory *memory, uint32_t index) {
  assert(index < memory->slice_count);
  return &memory->slices[index];
}

const struct rdma_slice *rdma_memory_find(const struct rdma_memory *memory, const void *address) {
  const unsigned char *at = address;
  uint32_t low = 0, high = memory->slice_count;
  while (low < high) { /* the first slice that begins behind `at` */
    uint32_t middle = low + (high - low) / 2;
    if (memory->slices[middle].address <= at)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == 0) return NULL;
  const struct rdma_slice *slice = &memory->slices[low - 1];
  return at < slice->address + slice->length_bytes ? slice : NULL;
}

bool rdma_memory_whole(const struct rdma_memory *memory) {
  return memory->ready_count == memory->slice_count;
}

uint64_t rdma_memory_bytes(const struct rdma_memory *memory) {
  return memory->total_bytes;
}

void rdma_memory_close(struct rdma_memory *memory, void (*closed)(void *context), void *context) {
  assert(!memory->closing);
  memory->closing = true;
  memory->closed = closed;
  memory->closed_context = context;
  if (!memory->started) memory->next = memory->slice_count; /* there is nothing to release */
  go_on(memory);
}

void rdma_memory_destroy(struct rdma_memory *memory) {
  if (memory == NULL) return;
  assert(memory->running == 0);
  reactor_defer_cancel(memory->options.reactor, &memory->closed_later);
  free(memory->slices);
  free(memory);
}

/* --- why --- */

enum sprout_status rdma_memory_explain(int native, uint64_t length_bytes,
                                       struct sprout_error *error) {
  struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
  char size[32], locked[32];
  units_format_size(length_bytes, size, sizeof(size));
  bool known = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  if (native == ENOMEM && known && limit.rlim_cur < (1ull << 40)) {
    units_format_size(limit.rlim_cur, locked, sizeof(locked));
    return sprout_error_set(error, SPROUT_LIMIT, native,
                            "Raise it: ulimit -l unlimited (systemd: LimitMEMLOCK=infinity, "
                            "containers: --ulimit memlock=-1), or use --transport tcp.",
                            "%s of memory cannot be registered for RDMA: this process may lock "
                            "only %s (RLIMIT_MEMLOCK)",
                            size, locked);
  }
  if (native == ENOMEM)
    return sprout_error_set(error, SPROUT_LIMIT, native, "Use --transport tcp.",
                            "%s of memory cannot be registered for RDMA: the device or the kernel "
                            "has no room for more",
                            size);
  if (native == EOPNOTSUPP || native == ENOSYS)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, native, "Use --transport tcp.",
                            "the RDMA device cannot register memory of this kind");
  if (native == EFAULT)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, native,
                            "Use a newer kernel (6.12 registers read-only mappings), "
                            "--memory host, or --transport tcp.",
                            "the kernel does not let this mapping be registered for RDMA");
  return sprout_error_set(error, SPROUT_UNSUPPORTED, native, "Use --transport tcp.",
                          "%s of memory cannot be registered for RDMA: %s", size, strerror(native));
}
