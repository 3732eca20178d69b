/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout seed MODEL_DIR|FILE...
 *
 * The service runs on a thread of its own; this one waits for the seed to become ready, then for
 * signals, then for the drain.
 */
#include "cli/cli.h"
#include "cli/json_line.h"
#include "cli/parts.h"
#include "cli/ready.h"
#include "cli/signals.h"
#include "sprout/seed.h"
#include "sprout/sprout.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* How often it is looked whether the seed is ready, and who still forks while it drains. */
#define READY_LOOK_MS 20
#define DRAIN_LOOK_MS 1000

struct serving {
  const struct seed_values *values;
  struct signals signals;
  struct sprout_service *service;
  struct sprout_seed *seed;
  int drained_fd; /* the seed's thread knocks here */
  bool ready_written;
};

static enum sprout_status fill(struct sprout_seed_options *options, const struct cli_call *call,
                               struct sprout_error *error) {
  const struct seed_values *values = call->values;
  *options = (struct sprout_seed_options){
      .struct_bytes = sizeof(*options),
      .paths = call->arguments,
      .path_count = call->argument_count,
      .name = values->name,
      .rank = values->rank,
      .label = values->label,
      .listen = values->listen,
      .admin_listen = values->admin_listen,
      .token_file = values->token_file,
      .token = values->token,
      .allow_anonymous = values->allow_anonymous,
      .metrics_need_token = values->metrics_need_token,
      .max_rate = values->max_rate.bytes_per_second,
      .max_rate_percent = values->max_rate.percent,
      .max_forks = (uint32_t)values->max_forks,
      .max_queue = (uint32_t)values->max_queue,
      .inflight_bytes = values->inflight_bytes,
      .digest_rate = values->digest_rate.bytes_per_second,
      /* The library takes 0 for "the default"; here 0 is a value. */
      .drain_timeout_ns = values->drain_timeout_ns != 0 ? values->drain_timeout_ns : 1,
      .transports = values->transport,
      .rdma_devices = values->rdma_devices,
      .rdma_port = (uint32_t)values->rdma_port,
  };
  enum sprout_status status = parts_check_transport(values->transport, error);
  if (status == SPROUT_OK) status = parts_parse_memory(values->memory, &options->memory, error);
  if (status == SPROUT_OK)
    status = parts_parse_gid_index(values->gid_index, &options->rdma_gid_index, error);
  if (status == SPROUT_OK)
    status = parts_refuse_percent("--digest-rate", &values->digest_rate, error);
  return status;
}

static enum sprout_status start(struct serving *serving, const struct sprout_seed_options *options,
                                struct sprout_error *error) {
  enum sprout_status status = sprout_probe(error);
  if (status == SPROUT_OK) status = sprout_service_create(NULL, &serving->service, error);
  if (status == SPROUT_OK)
    status = sprout_seed_create(serving->service, options, &serving->seed, error);
  if (status == SPROUT_OK) status = sprout_service_start(serving->service, error);
  return status;
}

/* Waits for a signal or the end of the drain; the signal's number, 0: none. */
static int wait_for(struct serving *serving, int timeout_ms, bool *drained_out) {
  struct pollfd fds[] = {{.fd = serving->signals.fd, .events = POLLIN},
                         {.fd = serving->drained_fd, .events = POLLIN}};
  int count = poll(fds, 2, timeout_ms);
  if (drained_out != NULL) *drained_out = count > 0 && fds[1].revents != 0;
  return count > 0 && fds[0].revents != 0 ? signals_take(&serving->signals) : 0;
}

/* Until the seed is ready, or a signal comes: its number. */
static int wait_until_ready(struct serving *serving) {
  for (;;) {
    struct sprout_seed_status status;
    sprout_seed_status(serving->seed, &status);
    if (status.ready) return 0;
    int number = wait_for(serving, READY_LOOK_MS, NULL);
    if (number != 0) return number;
  }
}

/* SIGHUP on a terminal means that it is gone; elsewhere people send it to have files read again,
 * which happens by itself. */
static bool is_for_the_end(int number) {
  if (number != SIGHUP) return number != 0;
  if (isatty(STDERR_FILENO)) return true;
  log_write(LOG_INFO, "seed", "SIGHUP: nothing to do, token files are read again when they change");
  return false;
}

static void on_drained(void *context) {
  const struct serving *serving = context;
  ssize_t written = write(serving->drained_fd, &(uint64_t){1}, sizeof(uint64_t));
  (void)written; /* cannot fail: the counter is far from full */
}

static void say_draining(const struct serving *serving, const struct sprout_seed_status *status) {
  if (serving->values->globals.quiet) return;
  if (strcmp(serving->values->globals.log_format, "json") == 0)
    json_line_drain(stdout, status->forks_running, status->forks_queued);
  else
    printf("draining: %u running, %u queued; a second signal ends at once\n", status->forks_running,
           status->forks_queued);
  (void)fflush(stdout);
}

static void remove_ready_file(struct serving *serving) {
  if (serving->ready_written) (void)unlink(serving->values->ready_file);
  serving->ready_written = false;
}

static void drain(struct serving *serving) {
  struct sprout_seed_status status, last = {.ready = false};
  bool drained = false, first = true;
  remove_ready_file(serving); /* from here on nobody shall come */
  signals_restore(&serving->signals);
  sprout_seed_drain(serving->seed, on_drained, serving);
  while (!drained) {
    sprout_seed_status(serving->seed, &status);
    if (first || status.forks_running != last.forks_running ||
        status.forks_queued != last.forks_queued)
      say_draining(serving, &status);
    first = false;
    last = status;
    struct pollfd fd = {.fd = serving->drained_fd, .events = POLLIN};
    drained = poll(&fd, 1, DRAIN_LOOK_MS) > 0;
  }
  sprout_seed_status(serving->seed, &status);
  if (status.forks_running > 0)
    log_write(LOG_WARNING, "seed", "the drain timeout is over: %u forks are cut off",
              status.forks_running);
}

static int serve(struct serving *serving, struct sprout_error *error) {
  int number = wait_until_ready(serving);
  if (number == 0) {
    enum sprout_status status =
        ready_announce(serving->values, serving->seed, &serving->ready_written, error);
    if (status != SPROUT_OK) return cli_fail(error);
  }
  while (!is_for_the_end(number)) number = wait_for(serving, -1, NULL);
  drain(serving);
  return 0;
}

static enum sprout_status open_descriptors(struct serving *serving, struct sprout_error *error) {
  serving->drained_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (serving->drained_fd < 0)
    return sprout_error_set(error, SPROUT_LIMIT, errno, NULL, "cannot create an eventfd: %s",
                            strerror(errno));
  enum sprout_status status = signals_open(&serving->signals, true, error);
  if (status != SPROUT_OK) (void)close(serving->drained_fd);
  return status;
}

int command_seed(const struct cli_call *call) {
  struct serving serving = {.values = call->values};
  struct sprout_seed_options options;
  struct sprout_error error = {.status = SPROUT_OK};
  cli_set_log(&serving.values->globals, LOG_INFO);
  if (fill(&options, call, &error) != SPROUT_OK) return cli_fail(&error);
  if (open_descriptors(&serving, &error) != SPROUT_OK) return cli_fail(&error);
  int code =
      start(&serving, &options, &error) == SPROUT_OK ? serve(&serving, &error) : cli_fail(&error);
  remove_ready_file(&serving);
  sprout_seed_destroy(serving.seed);
  sprout_service_destroy(serving.service);
  signals_close(&serving.signals);
  (void)close(serving.drained_fd);
  return cli_flush(code);
}
