/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout fork URL... DEST
 */
#include "cli/cli.h"
#include "cli/fork_run.h"
#include "cli/json_line.h"
#include "cli/parts.h"
#include "cli/progress_layout.h"
#include "core/units.h"

#include <stdlib.h>
#include <string.h>

struct fork_call {
  const struct fork_values *values;
  const char *directory;
  enum progress_mode mode;
};

static enum sprout_status check(const struct fork_values *values, struct sprout_error *error) {
  enum sprout_status status = parts_check_transport(values->transport, error);
  if (status == SPROUT_OK) status = parts_refuse_percent("--max-rate", &values->max_rate, error);
  if (status == SPROUT_OK && values->no_verify && values->dry_run)
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                            "--dry-run and --no-verify exclude each other: nothing is read");
  return status;
}

/* The library takes 0 for "the default"; here 0 is a value. */
static uint64_t given_ns(uint64_t duration_ns) {
  return duration_ns != 0 ? duration_ns : 1;
}

static enum sprout_status fill(struct sprout_fork_options *options, const struct cli_call *call,
                               const struct fork_call *fork, const char *token,
                               struct sprout_error *error) {
  const struct fork_values *values = fork->values;
  *options = (struct sprout_fork_options){
      .struct_bytes = sizeof(*options),
      .urls = call->arguments,
      .url_count = call->argument_count - 1,
      .directory = fork->directory,
      .model = values->model,
      .rank = values->rank,
      .label = values->label,
      .no_verify = values->no_verify,
      .force = values->force,
      .dry_run = values->dry_run,
      .include = values->include.items,
      .include_count = values->include.count,
      .exclude = values->exclude.items,
      .exclude_count = values->exclude.count,
      .tensor_globs = values->tensor.items,
      .tensor_glob_count = values->tensor.count,
      .token = token,
      .max_rate = values->max_rate.bytes_per_second,
      .inflight_bytes = values->inflight_bytes,
      .connections = (uint32_t)values->connections,
      .stall_timeout_ns = values->stall_timeout_ns,
      .timeout_ns = values->timeout_ns,
      .wait_ns = given_ns(values->wait_ns),
      .transports = values->transport,
      .rdma_devices = values->rdma_devices,
      .rdma_connect_timeout_ns = values->rdma_connect_timeout_ns,
      .rdma_ack_timeout_ns = values->rdma_ack_timeout_ns,
      .rdma_retries = (uint32_t)values->rdma_retries,
  };
  return parts_parse_gid_index(values->gid_index, &options->rdma_gid_index, error);
}

/* Whether it helps to say that the same command goes on: there is something to keep, and what ended
 * the fork may be over the next time. */
static bool resumes(const struct fork_call *fork, const struct fork_ending *ending) {
  const struct fork_values *values = fork->values;
  if (values->globals.quiet || values->no_verify || values->dry_run || fork->directory == NULL)
    return false;
  enum sprout_status status = ending->result->status;
  enum sprout_retry retry = sprout_status_info_of(status)->retry;
  bool may_pass = retry != SPROUT_RETRY_FATAL || status == SPROUT_NO_SOURCE ||
                  status == SPROUT_CANCELLED || status == SPROUT_NO_SPACE;
  return may_pass && ending->last->done_bytes > 0;
}

static void print_ending(const struct fork_call *fork, const struct fork_ending *ending) {
  const struct sprout_fork_result *result = ending->result;
  char line[LAYOUT_LINE_BYTES], size[32];
  if (result->status == SPROUT_OK) {
    const struct layout_summary summary = {
        .result = result, .last = ending->last, .dry_run = fork->values->dry_run};
    layout_summary_line(&summary, line);
    if (!fork->values->globals.quiet && fork->mode != PROGRESS_NONE) printf("%s\n", line);
    return;
  }
  if (ending->signal == 0) (void)cli_fail(&result->error);
  if (resumes(fork, ending))
    fprintf(stderr, "  %s verified so far; the same command goes on from there\n",
            units_format_size(ending->last->done_bytes, size, sizeof(size)));
}

static void on_ended(void *context, const struct fork_ending *ending) {
  const struct fork_call *fork = context;
  if (fork->mode != PROGRESS_JSON) {
    print_ending(fork, ending);
    return;
  }
  if (ending->result->status != SPROUT_OK && ending->signal == 0)
    (void)cli_fail(&ending->result->error);
  json_line_result(stdout, &(struct json_result){.result = ending->result,
                                                 .last = ending->last,
                                                 .dry_run = fork->values->dry_run,
                                                 .exit_code = ending->exit_code});
}

int command_fork(const struct cli_call *call) {
  struct fork_call fork = {.values = call->values};
  const struct fork_values *values = fork.values;
  struct sprout_error error;
  char token_text[CLI_TOKEN_BYTES];
  const char *token;
  cli_set_log(&values->globals, LOG_WARNING);
  if (check(values, &error) != SPROUT_OK ||
      parts_parse_destination(call->arguments[call->argument_count - 1], &fork.directory, &error) !=
          SPROUT_OK ||
      cli_client_token(&values->client, token_text, &token, &error) != SPROUT_OK)
    return cli_fail(&error);
  struct sprout_fork_options options;
  if (fill(&options, call, &fork, token, &error) != SPROUT_OK) return cli_fail(&error);
  struct terminal terminal = terminal_of(2, getenv);
  struct reporter reporter;
  fork.mode = progress_mode_of(values->progress, values->globals.quiet, &terminal);
  reporter_init(&reporter, fork.mode, &terminal, fork.mode == PROGRESS_JSON ? stdout : stderr,
                "forking");
  int code = fork_run(&options, &reporter, on_ended, &fork);
  explicit_bzero(token_text, sizeof(token_text));
  return cli_flush(code);
}
