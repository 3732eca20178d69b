/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the words of a command line to a command. Pure.
 */
#ifndef CLI_COMMAND_NAMES_H
#define CLI_COMMAND_NAMES_H

#include "cli/tables.h"

/* The command of this word; SPROUT_INVALID, with a near match, when there is none. */
SPROUT_MUST_CHECK enum sprout_status command_find(const char *word, enum cli_command_id *id_out,
                                                  struct sprout_error *error);

/*
 * Splits the arguments behind the program's name: options may stand before the command's word too
 * ("sprout -q fork ..."). Writes them, without that word, to `arguments_out` (argc entries of
 * room). *word_out is NULL when there is no command.
 */
void command_split(int argc, char **argv, char **arguments_out, int *count_out,
                   const char **word_out);
#endif
