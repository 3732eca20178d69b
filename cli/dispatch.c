/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"
#include "cli/command_names.h"
#include "core/probe.h"
#include "sprout/sprout.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>

/* Room for the values of any command. */
union values {
  struct cli_globals globals;
  struct seed_values seed;
  struct fork_values fork;
  struct ls_values ls;
  struct status_values status;
  struct verify_values verify;
  struct synth_values synth;
  struct help_values help;
};

static int (*const commands[CLI_COMMAND_COUNT])(const struct cli_call *call) = {
    [CLI_SEED] = command_seed,     [CLI_FORK] = command_fork,     [CLI_LS] = command_ls,
    [CLI_STATUS] = command_status, [CLI_VERIFY] = command_verify, [CLI_SYNTH] = command_synth,
    [CLI_HELP] = command_help,
};

static int print_version(void) {
  printf("sprout %s\n", sprout_version());
  return cli_flush(0);
}

/* Without a command there is nothing to do: the help is the error message. */
static int run_program(const struct cli_globals *globals) {
  if (globals->version) return print_version();
  options_print_help(&cli_commands[CLI_PROGRAM], globals->help ? stdout : stderr);
  return globals->help ? cli_flush(0) : 2;
}

static int run_command(enum cli_command_id id, int argc, char **argv, const char **positional) {
  static union values values; /* large */
  struct cli_call call = {.values = &values, .arguments = positional};
  struct sprout_error error = {.status = SPROUT_OK};
  const struct cli_globals *globals = &values.globals;
  enum sprout_status status = options_parse(&cli_commands[id], argc, argv, getenv, &values,
                                            positional, &call.argument_count, &error);
  if (globals->log_format != NULL) cli_set_log(globals, LOG_WARNING);
  if (status != SPROUT_OK) return cli_fail(&error);
  if (id == CLI_PROGRAM) return run_program(globals);
  if (globals->version) return print_version();
  if (globals->help) {
    options_print_help(&cli_commands[id], stdout);
    return cli_flush(0);
  }
  (void)probe_raise_descriptor_limit();
  return commands[id](&call);
}

int cli_main(int argc, char **argv) {
  struct sprout_error error = {.status = SPROUT_OK};
  enum cli_command_id id = CLI_PROGRAM;
  size_t room = argc > 0 ? (size_t)argc : 1;
  char **arguments = calloc(room, sizeof(arguments[0]));
  const char **positional = calloc(room, sizeof(positional[0]));
  const char *word = NULL;
  int count = 0, code;
  (void)setlocale(LC_CTYPE, "");
  (void)sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
  if (arguments == NULL || positional == NULL) {
    (void)sprout_error_set(&error, SPROUT_NO_MEMORY, 0, NULL, "out of memory");
    code = cli_fail(&error);
  } else {
    command_split(argc > 0 ? argc - 1 : 0, argv + 1, arguments, &count, &word);
    if (word != NULL && command_find(word, &id, &error) != SPROUT_OK)
      code = cli_fail(&error);
    else
      code = run_command(id, count, arguments, positional);
  }
  free(arguments);
  free(positional);
  return code;
}
