/* SPDX-License-Identifier: Apache-2.0 */
#include "net/tcp_source_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Heads of read answers are about 150 bytes: what comes with them beyond that is copied: 16 KiB of
 * 4 MiB. */
#define DATA_INPUT_BYTES 16384u
#define CONTROL_INPUT_BYTES 16384u
/* A seed that is gone must not hold up a fork that is done. */
#define PART_TIMEOUT_NS 200000000ull

static void client_closed(void *context) {
  struct tcp_source *source = context;
  assert(source->open_clients > 0);
  if (--source->open_clients == 0) reactor_defer(source->reactor, &source->tell);
}

/* The connections for reads end; the reads on them come back with `status`. */
static void close_data(struct tcp_source *source, enum sprout_status status) {
  source->open_clients += source->connections;
  for (uint32_t i = 0; i < source->connections; i++)
    http_client_close(source->data[i], status, client_closed, source);
}

static void close_control(struct tcp_source *source, enum sprout_status status) {
  source->open_clients += 2;
  http_client_close(source->beat, status, client_closed, source);
  http_client_close(source->control, status, client_closed, source);
}

static void tell(struct deferred *deferred) {
  struct tcp_source *source = container_of(deferred, struct tcp_source, tell);
  if (source->open_clients > 0) return;
  if (source->state == TCP_FAILING) {
    tcp_read_drop_posted(source, source->error.status);
    source->state = TCP_FAILED;
    struct sprout_error error = source->error;
    source->base.listener->failed(&source->base, &error);
  } else if (source->state == TCP_CLOSING) {
    tcp_read_drop_posted(source, SPROUT_CANCELLED);
    source->state = TCP_IDLE;
    source->base.listener->closed(&source->base);
  }
}

void tcp_source_fail(struct tcp_source *source, const struct sprout_error *error) {
  if (source->state >= TCP_FAILING) return;
  source->error = *error;
  source->state = TCP_FAILING;
  tcp_control_stop_timers(source);
  close_data(source, error->status);
  close_control(source, error->status);
}

void tcp_source_parted(struct tcp_source *source) {
  if (source->state != TCP_PARTING) return;
  source->state = TCP_CLOSING;
  source->admitted = false;
  tcp_control_stop_timers(source);
  close_control(source, SPROUT_CANCELLED);
}

static void part_timed_out(struct timer *timer) {
  tcp_source_parted(container_of(timer, struct tcp_source, part_timer));
}

static void source_close(struct source *base, enum sprout_status result, const char *reason) {
  struct tcp_source *source = tcp_of(base);
  enum tcp_state before = source->state;
  source->result = result;
  snprintf(source->reason, sizeof source->reason, "%s", reason ? reason : "");
  tcp_control_stop_timers(source);
  if (before == TCP_FAILING || before == TCP_FAILED) {
    source->state = TCP_CLOSING;
    source->admitted = false;
    reactor_defer(source->reactor, &source->tell); /* nothing, or soon nothing, is open any more */
    return;
  }
  source->state = TCP_PARTING;
  close_data(source, SPROUT_CANCELLED); /* no byte more, while the seed is told */
  /* The answer to an open on its way tells which fork is to be closed. */
  if (source->admitted ? tcp_control_part(source) : source->open_call.busy) {
    reactor_timer_start(source->reactor, &source->part_timer,
                        reactor_now(source->reactor) + PART_TIMEOUT_NS);
  } else {
    tcp_source_parted(source);
  }
}

static void source_report(struct source *base, uint64_t received_bytes, uint64_t total_bytes) {
  struct tcp_source *source = tcp_of(base);
  source->received_bytes = received_bytes;
  source->total_bytes = total_bytes;
}

static void source_destroy(struct source *base) {
  struct tcp_source *source = tcp_of(base);
  assert(source->state == TCP_IDLE && source->open_clients == 0);
  reactor_defer_cancel(source->reactor, &source->tell);
  tcp_control_stop_timers(source);
  http_client_destroy(source->control);
  http_client_destroy(source->beat);
  for (uint32_t i = 0; i < source->connections; i++) http_client_destroy(source->data[i]);
  wire_buffer_destroy(&source->manifest_call.request);
  wire_buffer_destroy(&source->open_call.request);
  wire_buffer_destroy(&source->beat_call.request);
  wire_buffer_destroy(&source->close_call.request);
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++)
    wire_buffer_destroy(&source->digest_calls[i].request);
  for (uint32_t i = 0; i < TCP_READS; i++) wire_buffer_destroy(&source->reads[i].request);
  wire_buffer_destroy(&source->body);
  free(source->digests);
  free(source->known);
  explicit_bzero(source->token, sizeof source->token);
  free(source);
}

static const struct source_ops ops = {
    .connect = tcp_control_connect,
    .open = tcp_control_open,
    .post = tcp_read_post,
    .flush = tcp_read_flush,
    .request_digests = tcp_control_digests,
    .report = source_report,
    .close = source_close,
    .destroy = source_destroy,
};

static SPROUT_MUST_CHECK enum sprout_status make_clients(struct tcp_source *source,
                                                         const struct address *address) {
  struct http_client_options options = {
      .address = *address, .name = NULL, .input_bytes = CONTROL_INPUT_BYTES};
  enum sprout_status status = http_client_create(source->reactor, &options, &source->control);
  if (status == SPROUT_OK) status = http_client_create(source->reactor, &options, &source->beat);
  options.input_bytes = DATA_INPUT_BYTES;
  for (uint32_t i = 0; i < source->connections && status == SPROUT_OK; i++) {
    status = http_client_create(source->reactor, &options, &source->data[i]);
  }
  return status;
}

enum sprout_status tcp_source_create(struct reactor *reactor,
                                     const struct tcp_source_options *options,
                                     struct source **source_out) {
  struct tcp_source *source = calloc(1, sizeof *source);
  if (!source) return SPROUT_NO_MEMORY;
  source->base =
      (struct source){.ops = &ops, .transport = "tcp", .ordered = true, .has_digests = true};
  source->reactor = reactor;
  snprintf(source->base.url, sizeof source->base.url, "%s", options->url);
  snprintf(source->host, sizeof source->host, "%s", options->host);
  snprintf(source->token, sizeof source->token, "%s", options->token ? options->token : "");
  snprintf(source->model, sizeof source->model, "%s", options->model ? options->model : "");
  snprintf(source->rank, sizeof source->rank, "%s", options->rank ? options->rank : "");
  source->control_timeout_ns =
      options->control_timeout_ns ? options->control_timeout_ns : 10000000000ull;
  source->connections = options->connections ? options->connections : 1;
  if (source->connections > TCP_CONNECTIONS_MAX) source->connections = TCP_CONNECTIONS_MAX;
  source->total_bytes = options->total_bytes;
  source->tell.run = tell;
  source->part_timer.fired = part_timed_out;
  tcp_control_init(source);
  tcp_read_init(source);
  source->digests = malloc(SOURCE_DIGESTS_MAX * sizeof *source->digests);
  source->known = malloc(SOURCE_DIGESTS_MAX * sizeof *source->known);
  if (!source->digests || !source->known || make_clients(source, &options->address) != SPROUT_OK) {
    source_destroy(&source->base);
    return SPROUT_NO_MEMORY;
  }
  *source_out = &source->base;
  return SPROUT_OK;
}
