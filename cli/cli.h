/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands share: how a command is entered, how errors and logs look, where output goes.
 *
 * Output that somebody asked for goes to standard output; bars, notes, logs and errors go to
 * standard error. A command returns the process's exit code.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "cli/tables.h"
#include "core/log.h"

/* A command line that was parsed. */
struct cli_call {
  const void *values; /* the command's struct of tables.h */
  const char **arguments;
  size_t argument_count;
};

int command_seed(const struct cli_call *call);
int command_fork(const struct cli_call *call);
int command_ls(const struct cli_call *call);
int command_status(const struct cli_call *call);
int command_verify(const struct cli_call *call);
int command_synth(const struct cli_call *call);
int command_help(const struct cli_call *call);

/* Everything between main and exit; argv[0] is the program. */
int cli_main(int argc, char **argv);

/* Sets level and format of log lines and errors. `normal` is the level without -q and -v. */
void cli_set_log(const struct cli_globals *globals, enum log_level normal);

/* Prints "sprout: <message>" and "  hint: <hint>" (or a JSON line with --log-format json) and
 * returns the exit code of the error's status. */
int cli_fail(const struct sprout_error *error);

/* Flushes standard output; a reader that went away is no error. Returns `code`, or 6 after saying
 * why. */
int cli_flush(int code);

/* The token that a client sends, NULL: none. Reads client->token_file; `buffer` has
 * CLI_TOKEN_BYTES. */
#define CLI_TOKEN_BYTES 1025
SPROUT_MUST_CHECK enum sprout_status cli_client_token(const struct cli_client *client, char *buffer,
                                                      const char **token_out,
                                                      struct sprout_error *error);
#endif
