/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs one fork to its end while the main thread shows progress and listens for signals. Used by
 * fork and verify.
 */
#ifndef CLI_FORK_RUN_H
#define CLI_FORK_RUN_H

#include "cli/progress.h"

/* How it ended, as the command sees it. */
struct fork_ending {
  const struct sprout_fork_result *result; /* also when the fork could not even begin */
  const struct progress_snapshot *last;
  int signal;    /* that asked to stop, 0: none */
  int exit_code; /* by the status table, or 128 + signal */
};

/*
 * Fills the callbacks of *options (but `differs` with its `context`), runs, and calls `ended` once,
 * when nothing is in flight any more and the bar is gone; returns ending.exit_code. `context` of
 * the options is used: `differs` gets it through fork_run_context.
 */
int fork_run(struct sprout_fork_options *options, struct reporter *reporter,
             void (*ended)(void *context, const struct fork_ending *ending), void *context);

/* Inside a `differs` callback: the `context` that was given to fork_run. */
void *fork_run_context(void *callback_context);
#endif
