/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/command_names.h"

#include <string.h>

static const char *word_at(const void *context, size_t index) {
  (void)context;
  size_t id = CLI_PROGRAM + 1 + index;
  return id < CLI_COMMAND_COUNT ? cli_command_word((enum cli_command_id)id) : NULL;
}

enum sprout_status command_find(const char *word, enum cli_command_id *id_out,
                                struct sprout_error *error) {
  char hint[160];
  for (size_t i = CLI_PROGRAM + 1; i < CLI_COMMAND_COUNT; i++)
    if (strcmp(cli_command_word((enum cli_command_id)i), word) == 0) {
      *id_out = (enum cli_command_id)i;
      return SPROUT_OK;
    }
  const char *near = options_near_match(word, word_at, NULL);
  if (near != NULL)
    snprintf(hint, sizeof(hint), "Did you mean sprout %s?", near);
  else
    snprintf(hint, sizeof(hint), "See 'sprout --help'.");
  return sprout_error_set(error, SPROUT_INVALID, 0, hint, "unknown command '%.80s'", word);
}

/* Whether the option takes the next word as its value. */
static bool takes_value(const char *argument) {
  for (const struct option *option = cli_commands[CLI_PROGRAM].options; option->name != NULL;
       option++)
    if (option->type != OPTION_FLAG && strncmp(argument, "--", 2) == 0 &&
        strcmp(argument + 2, option->name) == 0)
      return true;
  return false;
}

void command_split(int argc, char **argv, char **arguments_out, int *count_out,
                   const char **word_out) {
  int count = 0, at = 0;
  *word_out = NULL;
  while (at < argc && argv[at][0] == '-') {
    bool with_value = takes_value(argv[at]);
    arguments_out[count++] = argv[at++];
    if (with_value && at < argc) arguments_out[count++] = argv[at++];
  }
  if (at < argc) *word_out = argv[at++];
  while (at < argc) arguments_out[count++] = argv[at++];
  *count_out = count;
}
