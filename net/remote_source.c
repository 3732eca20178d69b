/* SPDX-License-Identifier: Apache-2.0 */
#include "net/remote_source_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL_INPUT_BYTES 16384u
/* A seed that is gone must not hold up a fork that is done. */
#define PART_TIMEOUT_NS 200000000ull

void remote_source_part_ended(struct remote_source *source) {
  assert(source->open_parts > 0);
  if (--source->open_parts == 0) reactor_defer(source->reactor, &source->tell);
}

static void client_closed(void *context) {
  remote_source_part_ended(context);
}

static void close_control(struct remote_source *source, enum sprout_status status) {
  source->open_parts += 2;
  http_client_close(source->beat, status, client_closed, source);
  http_client_close(source->control, status, client_closed, source);
}

static void tell(struct deferred *deferred) {
  struct remote_source *source = container_of(deferred, struct remote_source, tell);
  if (source->state < REMOTE_FAILING || source->open_parts > 0) return;
  if (source->state == REMOTE_FAILING) {
    remote_lanes_give_back(source);
    source->state = REMOTE_FAILED;
    struct sprout_error error = source->error;
    source->base.listener->failed(&source->base, &error);
  } else if (source->state == REMOTE_CLOSING) {
    remote_lanes_give_back(source);
    source->state = REMOTE_IDLE;
    source->base.listener->closed(&source->base);
  }
}

void remote_source_fail(struct remote_source *source, const struct sprout_error *error) {
  if (source->state >= REMOTE_FAILING) return;
  source->error = *error;
  source->state = REMOTE_FAILING;
  remote_control_stop_timers(source);
  remote_lanes_stop(source, error->status);
  close_control(source, error->status);
}

/* The seed is still there to be told: its fork would else stay until the lease is over. */
void remote_source_fail_lane(struct remote_source *source, const struct sprout_error *error) {
  if (source->state >= REMOTE_FAILING) return;
  source->error = *error;
  source->state = REMOTE_FAILING;
  source->result = error->status;
  snprintf(source->reason, sizeof source->reason, "%s", error->message);
  remote_control_stop_timers(source);
  remote_lanes_stop(source, error->status);
  source->parting = source->admitted && remote_control_part(source);
  if (!source->parting) {
    close_control(source, error->status);
    return;
  }
  source->open_parts++;
  reactor_timer_start(source->reactor, &source->part_timer,
                      reactor_now(source->reactor) + PART_TIMEOUT_NS);
}

static void parted_in_failure(struct remote_source *source) {
  if (!source->parting) return;
  source->parting = source->admitted = false;
  reactor_timer_stop(source->reactor, &source->part_timer);
  close_control(source, source->error.status);
  remote_source_part_ended(source);
}

void remote_source_parted(struct remote_source *source) {
  parted_in_failure(source);
  if (source->state != REMOTE_PARTING) return;
  source->state = REMOTE_CLOSING;
  source->admitted = false;
  remote_control_stop_timers(source);
  close_control(source, SPROUT_CANCELLED);
}

static void part_timed_out(struct timer *timer) {
  remote_source_parted(container_of(timer, struct remote_source, part_timer));
}

static void source_close(struct source *base, enum sprout_status result, const char *reason) {
  struct remote_source *source = remote_of(base);
  enum remote_state before = source->state;
  source->result = result;
  snprintf(source->reason, sizeof source->reason, "%s", reason ? reason : "");
  remote_control_stop_timers(source);
  if (before == REMOTE_FAILING || before == REMOTE_FAILED) {
    source->state = REMOTE_CLOSING;
    parted_in_failure(source); /* it is waited for no longer */
    source->admitted = false;
    source->give_back = SPROUT_CANCELLED;
    reactor_defer(source->reactor, &source->tell); /* nothing, or soon nothing, is open any more */
    return;
  }
  source->state = REMOTE_PARTING;
  remote_lanes_stop(source, SPROUT_CANCELLED); /* no byte more, while the seed is told */
  /* The answer to an open on its way tells which fork is to be closed. */
  if (source->admitted ? remote_control_part(source) : source->open_call.busy) {
    reactor_timer_start(source->reactor, &source->part_timer,
                        reactor_now(source->reactor) + PART_TIMEOUT_NS);
  } else {
    remote_source_parted(source);
  }
}

static void source_report(struct source *base, uint64_t received_bytes, uint64_t total_bytes) {
  struct remote_source *source = remote_of(base);
  source->received_bytes = received_bytes;
  source->total_bytes = total_bytes;
}

static void destroy_requests(struct remote_source *source) {
  struct remote_control *calls[] = {&source->manifest_call, &source->open_call, &source->beat_call,
                                    &source->close_call, &source->placement_call};
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
    wire_buffer_destroy(&calls[i]->request);
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++)
    wire_buffer_destroy(&source->digest_calls[i].request);
  wire_buffer_destroy(&source->body);
}

static void source_destroy(struct source *base) {
  struct remote_source *source = remote_of(base);
  assert(source->state == REMOTE_IDLE && source->open_parts == 0);
  reactor_defer_cancel(source->reactor, &source->tell);
  remote_control_stop_timers(source);
  http_client_destroy(source->control);
  http_client_destroy(source->beat);
  remote_lanes_destroy(source);
  destroy_requests(source);
  free(source->digests);
  free(source->known);
  explicit_bzero(source->token, sizeof source->token);
  free(source);
}

static const struct source_ops ops = {
    .connect = remote_control_connect,
    .open = remote_control_open,
    .post = remote_lanes_post,
    .flush = remote_lanes_flush,
    .request_digests = remote_control_digests,
    .report = source_report,
    .close = source_close,
    .destroy = source_destroy,
};

static SPROUT_MUST_CHECK enum sprout_status make_clients(struct remote_source *source,
                                                         const struct address *address) {
  struct http_client_options options = {
      .address = *address, .name = NULL, .input_bytes = CONTROL_INPUT_BYTES};
  enum sprout_status status = http_client_create(source->reactor, &options, &source->control);
  if (status == SPROUT_OK) status = http_client_create(source->reactor, &options, &source->beat);
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status allocate(struct remote_source *source,
                                                     const struct remote_source_options *options) {
  source->digests = malloc(SOURCE_DIGESTS_MAX * sizeof *source->digests);
  source->known = malloc(SOURCE_DIGESTS_MAX * sizeof *source->known);
  if (!source->digests || !source->known) return SPROUT_NO_MEMORY;
  enum sprout_status status = make_clients(source, &options->address);
  return status == SPROUT_OK ? remote_lanes_create(source, options) : status;
}

enum sprout_status remote_source_create(struct reactor *reactor,
                                        const struct remote_source_options *options,
                                        struct source **source_out) {
  struct remote_source *source = calloc(1, sizeof *source);
  if (!source) return SPROUT_NO_MEMORY;
  source->base = (struct source){.ops = &ops,
                                 .transport = "tcp",
                                 .ordered = true,
                                 .has_digests = true,
                                 .fallbacks = options->fallbacks};
  source->reactor = reactor;
  snprintf(source->base.url, sizeof source->base.url, "%s", options->url);
  snprintf(source->host, sizeof source->host, "%s", options->host);
  snprintf(source->token, sizeof source->token, "%s", options->token ? options->token : "");
  snprintf(source->model, sizeof source->model, "%s", options->model ? options->model : "");
  snprintf(source->rank, sizeof source->rank, "%s", options->rank ? options->rank : "");
  source->control_timeout_ns =
      options->control_timeout_ns ? options->control_timeout_ns : 10000000000ull;
  source->total_bytes = options->total_bytes;
  source->tell.run = tell;
  source->part_timer.fired = part_timed_out;
  remote_control_init(source);
  if (allocate(source, options) != SPROUT_OK) {
    source_destroy(&source->base);
    return SPROUT_NO_MEMORY;
  }
  *source_out = &source->base;
  return SPROUT_OK;
}
