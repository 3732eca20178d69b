/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout synth SPEC DEST
 */
#include "core/synth.h"

#include "cli/cli.h"
#include "cli/progress_layout.h"
#include "core/units.h"

#include <stdlib.h>
#include <time.h>

/* Writing as a fork without sources, so that it looks the same. */
struct writing {
  struct reporter reporter;
  struct progress_snapshot snapshot;
  uint64_t started_ns, shown_ns;
};

static uint64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void on_progress(void *context, uint64_t done_bytes, uint64_t total_bytes) {
  struct writing *writing = context;
  struct progress_snapshot *snapshot = &writing->snapshot;
  uint64_t now = now_ns();
  if (now - writing->shown_ns < progress_interval_ns(writing->reporter.mode)) return;
  writing->shown_ns = now;
  snapshot->elapsed_ns = now - writing->started_ns;
  snapshot->total_bytes = total_bytes;
  snapshot->done_bytes = done_bytes;
  snapshot->rate = (uint64_t)((double)done_bytes * 1e9 / (double)(snapshot->elapsed_ns + 1));
  reporter_update(&writing->reporter, snapshot);
}

int command_synth(const struct cli_call *call) {
  const struct synth_values *values = call->values;
  struct sprout_error error = {.status = SPROUT_OK};
  struct writing writing = {.started_ns = now_ns()};
  struct terminal terminal = terminal_of(2, getenv);
  char duration[32];
  cli_set_log(&values->globals, LOG_WARNING);
  reporter_init(&writing.reporter, progress_mode_of("auto", values->globals.quiet, &terminal),
                &terminal, stderr, "writing");
  writing.shown_ns = writing.started_ns;
  enum sprout_status status = synth_write(call->arguments[0], call->arguments[1], values->seed,
                                          on_progress, &writing, &error);
  reporter_end(&writing.reporter);
  if (status != SPROUT_OK) return cli_fail(&error);
  if (!values->globals.quiet)
    printf("wrote %s into %s in %s\n", call->arguments[0], call->arguments[1],
           units_format_duration(now_ns() - writing.started_ns, duration, sizeof(duration)));
  return cli_flush(0);
}
