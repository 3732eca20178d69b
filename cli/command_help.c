/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout help [COMMAND], and the pages that are made from the program's tables.
 */
#include "cli/cli.h"
#include "cli/command_names.h"
#include "cli/pages.h"

int command_help(const struct cli_call *call) {
  const struct help_values *values = call->values;
  struct sprout_error error = {.status = SPROUT_OK};
  enum cli_command_id id = CLI_PROGRAM;
  cli_set_log(&values->globals, LOG_WARNING);
  if (values->man)
    pages_print_man(stdout);
  else if (values->markdown)
    pages_print_commands(stdout);
  else if (values->metrics)
    pages_print_metrics(stdout);
  else if (values->limits)
    pages_print_limits(stdout);
  else if (call->argument_count > 0 && command_find(call->arguments[0], &id, &error) != SPROUT_OK)
    return cli_fail(&error);
  else
    options_print_help(&cli_commands[id], stdout);
  return cli_flush(0);
}
