/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Composition of a fork: resolves its sources, makes destination and engine, drives the engine from
 * the reactor, and carries results across threads.
 */
#include "core/fork_engine.h"
#include "core/log.h"
#include "net/fork_options.h"
#include "net/rdma_lane.h"
#include "net/service.h"
#include "net/sources.h"
#include "net/transports.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READS_PER_SOURCE 16u
#define CONNECT_TIMEOUT_NS 10000000000ull
#define MAX_RESTARTS 16u
/* 4.096 us x 2^20 = 4.3 s. */
#define ACK_TIMEOUT_MAX 20u
/* Weight of the newest rate in the smoothed one: a second counts for two thirds. */
#define RATE_HALF_LIFE_NS 500000000ull

/* One URL's addresses, found by the worker. */
struct resolved {
  struct address addresses[ADDRESS_MAX];
  size_t count;
  struct sprout_error error;
};

/* RDMA on this side; `landing` NULL: not used. */
struct fork_rdma {
  struct rdma_selection selection;
  struct sprout_error error; /* of the selection */
  bool fell_back;            /* there are devices, but they cannot be used */
  struct rdma_host *host;
  struct rdma_device *devices[RDMA_RAILS_MAX];
  struct rdma_landing *landing;
};

struct sprout_fork {
  struct sprout_service *service;
  struct reactor *reactor;
  struct fork_options options;
  struct transports transports;
  struct fork_rdma rdma;
  struct destination *destination; /* the engine's */
  struct fork_filter filter;
  struct fork_engine *engine;
  struct work resolve;
  bool resolving;
  struct resolved *resolved; /* one per URL */
  struct deferred tick;
  struct timer engine_timer, progress_timer;
  uint64_t started_ns, engine_started_ns, rate_ns, rate_bytes;
  double rate;
  enum sprout_status cancelled; /* asked for before the engine started */
  struct sprout_source_status sources[SPROUT_MAX_SOURCES];
  struct sprout_fork_result result;
  bool done;
};

static void drive(struct sprout_fork *fork) {
  fork_engine_tick(fork->engine, reactor_now(fork->reactor));
  if (fork->done) return;
  uint64_t deadline_ns = fork_engine_deadline(fork->engine);
  if (deadline_ns == UINT64_MAX) {
    reactor_timer_stop(fork->reactor, &fork->engine_timer);
  } else {
    reactor_timer_start(fork->reactor, &fork->engine_timer, deadline_ns);
  }
}

static void tick(struct deferred *deferred) {
  drive(container_of(deferred, struct sprout_fork, tick));
}
static void engine_due(struct timer *timer) {
  drive(container_of(timer, struct sprout_fork, engine_timer));
}

static void wake(void *context) {
  struct sprout_fork *fork = context;
  reactor_defer(fork->reactor, &fork->tick);
}

/* --- progress --- */

static void fill_progress(struct sprout_fork *fork, struct sprout_fork_progress *progress) {
  uint64_t now_ns = reactor_now(fork->reactor);
  fork_engine_progress(fork->engine, now_ns, progress, fork->sources);
  uint64_t passed_ns = now_ns - fork->rate_ns;
  if (passed_ns > 0 && progress->received_bytes >= fork->rate_bytes) {
    double newest = (double)(progress->received_bytes - fork->rate_bytes) * 1e9 / (double)passed_ns;
    double weight = (double)passed_ns / (double)(passed_ns + RATE_HALF_LIFE_NS);
    fork->rate = fork->rate == 0.0 ? newest : fork->rate + (newest - fork->rate) * weight;
  }
  fork->rate_ns = now_ns;
  fork->rate_bytes = progress->received_bytes;
  progress->rate = (uint64_t)fork->rate;
}

static void progress_due(struct timer *timer) {
  struct sprout_fork *fork = container_of(timer, struct sprout_fork, progress_timer);
  const struct sprout_fork_options *options = &fork->options.public_part;
  struct sprout_fork_progress progress;
  fill_progress(fork, &progress);
  reactor_timer_start(fork->reactor, timer,
                      reactor_now(fork->reactor) + options->progress_interval_ns);
  options->progress(options->context, &progress);
}

/* --- ending --- */

static void report(void *context) {
  struct sprout_fork *fork = context;
  fork->done = true;
  reactor_timer_stop(fork->reactor, &fork->engine_timer);
  reactor_timer_stop(fork->reactor, &fork->progress_timer);
  reactor_defer_cancel(fork->reactor, &fork->tick);
  const struct sprout_fork_options *options = &fork->options.public_part;
  if (options->finished) options->finished(options->context, &fork->result);
  service_notify(fork->service);
}

/* Memory of the caller is the caller's again when it is not registered any more. */
static void release_and_report(struct sprout_fork *fork) {
  if (fork->rdma.landing != NULL)
    rdma_landing_close(fork->rdma.landing, report, fork);
  else
    report(fork);
}

static void finished(void *context, const struct sprout_error *error) {
  struct sprout_fork *fork = context;
  struct sprout_fork_result *result = &fork->result;
  uint64_t now_ns = reactor_now(fork->reactor), last_ns = fork_engine_last_landed_ns(fork->engine);
  result->status = error->status;
  result->error = *error;
  fill_progress(fork, &result->progress);
  result->seconds = (double)(now_ns - fork->started_ns) * 1e-9;
  result->progress.rate =
      result->seconds > 0 ? (uint64_t)((double)result->progress.received_bytes / result->seconds)
                          : 0;
  result->verified =
      error->status == SPROUT_OK ? fork_engine_verified(fork->engine) : SPROUT_VERIFIED_NONE;
  result->manifest_seconds = (double)fork_engine_manifest_ns(fork->engine) * 1e-9;
  uint64_t landed_at_ns = fork->engine_started_ns + last_ns;
  if (last_ns && now_ns > landed_at_ns)
    result->digest_wait_seconds = (double)(now_ns - landed_at_ns) * 1e-9;
  const struct manifest *manifest = fork_engine_manifest(fork->engine);
  if (manifest) {
    memcpy(result->manifest_id, manifest->id, sizeof result->manifest_id);
    snprintf(result->label, sizeof result->label, "%s", manifest->version.label);
    result->generation = manifest->version.generation;
  }
  release_and_report(fork);
}

/* The fork ends before its engine started. */
static void end_early(struct sprout_fork *fork, const struct sprout_error *error) {
  fork->result.status = error->status;
  fork->result.error = *error;
  fork->result.seconds = (double)(reactor_now(fork->reactor) - fork->started_ns) * 1e-9;
  release_and_report(fork);
}

static void dropped(void *context, const struct source *source, const struct sprout_error *error) {
  (void)context;
  /* Progress and result tell it too. */
  log_write(LOG_INFO, "fork", "dropped %s: %s", source->url, error->message);
}

static void differs(void *context, const char *file, uint64_t wrong_bytes, uint64_t missing_bytes) {
  struct sprout_fork *fork = context;
  const struct sprout_fork_options *options = &fork->options.public_part;
  if (options->differs) options->differs(options->context, file, wrong_bytes, missing_bytes);
}

/* --- RDMA --- */

/* Blocks: on the worker. */
static void select_rdma(struct sprout_fork *fork) {
  const struct sprout_fork_options *options = &fork->options.public_part;
  struct rdma_wish wish = {.devices = options->rdma_devices};
  struct sprout_error *error = &fork->rdma.error;
  error->status = transports_gid_index(options->rdma_gid_index, &wish.gid_index, error);
  if (error->status == SPROUT_OK) error->status = rdma_select(&wish, &fork->rdma.selection, error);
}

static uint32_t landing_spans(void *context, const struct iovec **spans_out) {
  struct sprout_fork *fork = context;
  return fork->destination->ops->landing(fork->destination, spans_out);
}

static SPROUT_MUST_CHECK enum sprout_status open_rdma(struct sprout_fork *fork,
                                                      struct sprout_error *error) {
  struct fork_rdma *rdma = &fork->rdma;
  *error = rdma->error;
  if (error->status != SPROUT_OK) return error->status;
  enum sprout_status status =
      rdma_host_get(fork->service, &rdma->selection, &rdma->host, rdma->devices, error);
  if (status != SPROUT_OK) return status;
  struct rdma_landing_options options = {.host = rdma->host,
                                         .device_count = rdma->selection.count,
                                         .spans = landing_spans,
                                         .context = fork};
  memcpy(options.devices, rdma->devices, sizeof options.devices);
  status = rdma_landing_create(&options, &rdma->landing);
  return status == SPROUT_OK ? status
                             : sprout_error_set(error, status, 0, NULL, "no memory for RDMA");
}

/* False: RDMA was asked for and cannot be had. A machine without any device is no surprise. */
static bool begin_rdma(struct sprout_fork *fork, struct sprout_error *error) {
  if (!fork->transports.rdma || open_rdma(fork, error) == SPROUT_OK) return true;
  if (!fork->transports.automatic) return false;
  fork->rdma.fell_back = error->native != ENODEV;
  log_write(error->native == ENODEV ? LOG_INFO : LOG_WARNING, "fork",
            "weights are read over TCP: %s - %s", error->message, error->hint);
  error->status = SPROUT_OK;
  return true;
}

/* --- starting --- */

static void resolve_all(struct work *work) {
  struct sprout_fork *fork = container_of(work, struct sprout_fork, resolve);
  if (fork->transports.rdma) select_rdma(fork);
  for (size_t i = 0; i < fork->options.public_part.url_count; i++) {
    const struct url *url = &fork->options.urls[i];
    struct resolved *resolved = &fork->resolved[i];
    if (url->kind != URL_HTTP) continue;
    resolved->error.status = address_resolve(url->host, url->port, false, resolved->addresses,
                                             &resolved->count, &resolved->error);
  }
}

/* The least n with 4.096 us x 2^n >= timeout_ns. */
static uint8_t ack_timeout(uint64_t timeout_ns) {
  uint8_t n = 1;
  while (n < ACK_TIMEOUT_MAX && (4096ull << n) < timeout_ns) n++;
  return n;
}

static struct rdma_lane_options lane_options(const struct sprout_fork *fork) {
  const struct fork_rdma *rdma = &fork->rdma;
  const struct sprout_fork_options *wanted = &fork->options.public_part;
  struct rdma_lane_options options = {.host = rdma->host,
                                      .selection = &rdma->selection,
                                      .landing = rdma->landing,
                                      .connect_timeout_ns = wanted->rdma_connect_timeout_ns,
                                      .retries = (uint8_t)wanted->rdma_retries,
                                      .ack_timeout = ack_timeout(wanted->rdma_ack_timeout_ns)};
  memcpy(options.devices, rdma->devices, sizeof options.devices);
  return options;
}

static SPROUT_MUST_CHECK enum sprout_status add_address(struct sprout_fork *fork, size_t index,
                                                        size_t number) {
  const struct sprout_fork_options *options = &fork->options.public_part;
  const struct url *url = &fork->options.urls[index];
  const struct resolved *resolved = &fork->resolved[index];
  char text[ADDRESS_TEXT_BYTES], host[ADDRESS_HOST_BYTES + 8], name[ADDRESS_HOST_BYTES + 96];
  bool v6 = strchr(url->host, ':') != NULL;
  snprintf(host, sizeof host, v6 ? "[%s]:%u" : "%s:%u", url->host, url->port);
  address_format(&resolved->addresses[number], text, sizeof text);
  if (resolved->count == 1) {
    snprintf(name, sizeof name, "http://%s", host);
  } else {
    snprintf(name, sizeof name, "http://%s (%s)", host, text);
  }
  struct rdma_lane_options lane = lane_options(fork);
  struct remote_source_options source_options = {
      .url = name,
      .host = host,
      .address = resolved->addresses[number],
      .token = fork->options.token[0] ? fork->options.token : NULL,
      .model = options->model,
      .rank = options->rank,
      .connections = options->connections,
      .control_timeout_ns = CONNECT_TIMEOUT_NS,
      .without_tcp = !fork->transports.tcp,
      .fallbacks = fork->rdma.fell_back,
      .rdma = fork->rdma.landing ? &lane : NULL};
  struct source *source;
  enum sprout_status status = remote_source_create(fork->reactor, &source_options, &source);
  if (status != SPROUT_OK) return status;
  status = fork_engine_add_source(fork->engine, source);
  if (status != SPROUT_OK) source->ops->destroy(source);
  return status;
}

static const struct manifest *manifest_in_force(void *context) {
  const struct sprout_fork *fork = context;
  return fork_engine_manifest(fork->engine);
}

static SPROUT_MUST_CHECK enum sprout_status add_file(struct sprout_fork *fork, size_t index) {
  struct source *source;
  enum sprout_status status =
      file_source_create(fork->reactor, fork->options.public_part.urls[index],
                         fork->options.urls[index].path, manifest_in_force, fork, &source);
  if (status != SPROUT_OK) return status;
  status = fork_engine_add_source(fork->engine, source);
  if (status != SPROUT_OK) source->ops->destroy(source);
  return status;
}

/* Adds what could be resolved; the first error is kept for the case that nothing could. */
static size_t add_sources(struct sprout_fork *fork, struct sprout_error *error) {
  size_t added = 0;
  for (size_t i = 0; i < fork->options.public_part.url_count; i++) {
    const struct resolved *resolved = &fork->resolved[i];
    if (fork->options.urls[i].kind == URL_FILE) {
      added += add_file(fork, i) == SPROUT_OK;
      continue;
    }
    if (resolved->error.status != SPROUT_OK) {
      log_write(LOG_WARNING, "fork", "%s: %s", fork->options.public_part.urls[i],
                resolved->error.message);
      if (error->status == SPROUT_OK) {
        sprout_error_set(error, SPROUT_NO_SOURCE, resolved->error.native, resolved->error.hint,
                         "no source: %s: %.300s", fork->options.public_part.urls[i],
                         resolved->error.message);
      }
      continue;
    }
    for (size_t n = 0; n < resolved->count; n++) added += add_address(fork, i, n) == SPROUT_OK;
  }
  return added;
}

static void resolved_all(struct work *work) {
  struct sprout_fork *fork = container_of(work, struct sprout_fork, resolve);
  struct sprout_error error = {.status = SPROUT_OK};
  fork->resolving = false;
  if (!fork->cancelled && !begin_rdma(fork, &error)) {
    end_early(fork, &error);
    return;
  }
  size_t added = fork->cancelled ? 0 : add_sources(fork, &error);
  if (fork->cancelled) sprout_error_set(&error, fork->cancelled, 0, NULL, "the fork was cancelled");
  if (added == 0) {
    if (error.status == SPROUT_OK)
      sprout_error_set(&error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a source");
    end_early(fork, &error);
    return;
  }
  fork->engine_started_ns = reactor_now(fork->reactor);
  fork_engine_start(fork->engine, fork->engine_started_ns);
  if (fork->options.public_part.progress) {
    uint64_t first_ns = reactor_now(fork->reactor) + fork->options.public_part.progress_interval_ns;
    reactor_timer_start(fork->reactor, &fork->progress_timer, first_ns);
  }
  drive(fork);
}

static SPROUT_MUST_CHECK enum sprout_status make_destination(struct sprout_fork *fork,
                                                             struct destination **destination_out,
                                                             struct sprout_error *error) {
  const struct sprout_fork_options *options = &fork->options.public_part;
  if (options->directory) {
    struct directory_options directory = {.path = options->directory,
                                          .force = options->force,
                                          .dry_run = options->dry_run,
                                          .verify_only = options->verify_only,
                                          .filter = &fork->filter,
                                          .staging_bytes = options->inflight_bytes +
                                                           options->inflight_bytes / 2};
    return destination_directory_create(fork->reactor, &directory, destination_out, error);
  }
  if (options->tensors) {
    return destination_memory_create(fork->reactor, options->tensors, options->tensor_count,
                                     destination_out, error);
  }
  enum sprout_status status =
      destination_null_create(fork->reactor, options->inflight_bytes, destination_out);
  return status == SPROUT_OK ? status
                             : sprout_error_set(error, status, 0, NULL, "no memory for a fork");
}

static SPROUT_MUST_CHECK enum sprout_status make_engine(struct sprout_fork *fork,
                                                        struct sprout_error *error) {
  const struct sprout_fork_options *o = &fork->options.public_part;
  struct destination *destination;
  fork->filter = (struct fork_filter){.include = o->include,
                                      .include_count = o->include_count,
                                      .exclude = o->exclude,
                                      .exclude_count = o->exclude_count,
                                      .tensor = o->tensor_globs,
                                      .tensor_count = o->tensor_glob_count,
                                      .exact = fork->options.tensor_names,
                                      .exact_count = o->tensor_count};
  enum sprout_status status = make_destination(fork, &destination, error);
  if (status != SPROUT_OK) return status;
  struct fork_engine_options options = {.verify = !o->no_verify,
                                        .dry_run = o->dry_run,
                                        .verify_only = o->verify_only,
                                        .filter = fork->filter,
                                        .model = o->model,
                                        .rank = o->rank,
                                        .label = o->label,
                                        .inflight_bytes = o->inflight_bytes,
                                        .reads_per_source = READS_PER_SOURCE,
                                        .max_rate = o->max_rate,
                                        .stall_timeout_ns = o->stall_timeout_ns,
                                        .timeout_ns = o->timeout_ns,
                                        .wait_ns = o->wait_ns,
                                        .connect_timeout_ns = CONNECT_TIMEOUT_NS,
                                        .max_restarts = MAX_RESTARTS};
  struct fork_engine_events events = {
      .wake = wake, .finished = finished, .dropped = dropped, .differs = differs, .context = fork};
  status = fork_engine_create(&options, &events, destination, &fork->engine);
  fork->destination = destination;
  if (status == SPROUT_OK) return SPROUT_OK;
  destination->ops->destroy(destination);
  return sprout_error_set(error, status, 0, NULL, "no memory for a fork");
}

/* --- the public interface --- */

struct start {
  struct sprout_fork *fork;
  enum sprout_status status;
  struct sprout_error *error;
};

static void start_on_reactor(void *context) {
  struct start *start = context;
  struct sprout_fork *fork = start->fork;
  fork->started_ns = fork->rate_ns = reactor_now(fork->reactor);
  start->status = make_engine(fork, start->error);
  if (start->status != SPROUT_OK) return;
  fork->resolving = true;
  reactor_work(fork->reactor, &fork->resolve);
}

static void free_fork(struct sprout_fork *fork) {
  if (fork->engine) fork_engine_destroy(fork->engine);
  rdma_landing_destroy(fork->rdma.landing);
  fork_options_destroy(&fork->options);
  free(fork->resolved);
  free(fork);
}

enum sprout_status sprout_fork_create(struct sprout_service *service,
                                      const struct sprout_fork_options *options,
                                      struct sprout_fork **fork_out, struct sprout_error *error) {
  struct sprout_fork *fork = calloc(1, sizeof *fork);
  if (!fork) return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a fork");
  enum sprout_status status = fork_options_copy(options, &fork->options, error);
  if (status != SPROUT_OK) {
    free(fork);
    return status;
  }
  status = transports_parse(options->transports, &fork->transports, error);
  if (status != SPROUT_OK) {
    free_fork(fork);
    return status;
  }
  fork->service = service;
  fork->reactor = service_reactor(service);
  fork->resolve = (struct work){.run = resolve_all, .done = resolved_all};
  fork->tick.run = tick;
  fork->engine_timer.fired = engine_due;
  fork->progress_timer.fired = progress_due;
  fork->result.progress.sources = fork->sources;
  fork->resolved = calloc(options->url_count, sizeof *fork->resolved);
  struct start start = {.fork = fork, .status = SPROUT_NO_MEMORY, .error = error};
  if (fork->resolved) {
    service_call(service, start_on_reactor, &start);
  } else {
    sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a fork");
  }
  if (start.status != SPROUT_OK) {
    free_fork(fork);
    return start.status;
  }
  *fork_out = fork;
  return SPROUT_OK;
}

static void cancel_on_reactor(void *context) {
  struct sprout_fork *fork = context;
  if (fork->done) return;
  if (fork->resolving) {
    fork->cancelled = SPROUT_CANCELLED;
  } else {
    fork_engine_cancel(fork->engine, SPROUT_CANCELLED);
    reactor_defer(fork->reactor, &fork->tick);
  }
}

void sprout_fork_cancel(struct sprout_fork *fork) {
  service_call(fork->service, cancel_on_reactor, fork);
}

const struct sprout_fork_result *sprout_fork_wait(struct sprout_fork *fork) {
  service_wait(fork->service, &fork->done);
  return &fork->result;
}

static void free_on_reactor(void *context) {
  free_fork(context);
}

static void free_later(struct deferred *deferred) {
  free_fork(container_of(deferred, struct sprout_fork, tick));
}

void sprout_fork_destroy(struct sprout_fork *fork) {
  if (!fork) return;
  struct sprout_service *service = fork->service;
  if (service_on_thread(service)) {
    /* Perhaps from inside the fork's own `finished`: its engine is still on the stack then. */
    assert(fork->done);
    fork->tick.run = free_later;
    reactor_defer(fork->reactor, &fork->tick);
    return;
  }
  sprout_fork_cancel(fork);
  service_wait(service, &fork->done);
  service_call(service, free_on_reactor, fork);
}
