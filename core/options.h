/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option table: one row per option drives parsing, environment twins (SPROUT_*), --help, the
 * man page and the docs.
 *
 * Precedence: command line, then environment, then default. "--name value", "--name=value", "-n
 * value", "-nvalue", "-qv" (flags in one word); "--" ends options; options and positional arguments
 * may mix. Flags take no value ("--name=false" turns one off). Of a repeated option the last one
 * counts; lists repeat on the command line, the environment gives a list of one. An empty variable
 * counts as unset. Pure except for reading the environment it is given.
 */
#ifndef CORE_OPTIONS_H
#define CORE_OPTIONS_H

#include "core/units.h"

#include <stdbool.h>
#include <stdio.h>

enum option_type {
  OPTION_FLAG,     /* bool */
  OPTION_TEXT,     /* const char * */
  OPTION_LIST,     /* struct option_list */
  OPTION_COUNT,    /* uint64_t, min..max */
  OPTION_SIZE,     /* uint64_t bytes, min..max */
  OPTION_RATE,     /* struct units_rate */
  OPTION_DURATION, /* uint64_t ns, min..max */
  OPTION_CHOICE    /* const char *: one of `choices`, separated by '|' */
};

#define OPTION_LIST_MAX 64
struct option_list {
  const char *items[OPTION_LIST_MAX];
  size_t count;
};

struct option {
  const char *name; /* without dashes */
  char letter;      /* 0: none */
  enum option_type type;
  size_t offset;        /* of the value in the target struct */
  const char *argument; /* "ADDR:PORT" for help; NULL for flags */
  const char *fallback; /* default as text, NULL: zero */
  uint64_t min, max;    /* both 0: any; max 0: no upper bound */
  const char *choices;
  bool secret;      /* value only from environment or file: never from argv, never printed */
  const char *help; /* one sentence */

  const char *group; /* heading under which help lists this row and those below it; NULL: same */
  bool no_twin;      /* no environment twin: --help, --version */
  bool ends_parsing; /* a flag after which nothing else is checked: --help, --version */
};

struct option_command {
  const char *name;             /* "seed" */
  const char *synopsis;         /* "sprout seed MODEL_DIR|FILE... [options]" */
  const char *summary;          /* one line */
  const char *description;      /* paragraphs for help and man page, separated by empty lines; one
                                   that begins with spaces is kept as it is */
  const struct option *options; /* ended by a row with name NULL */
  uint32_t positional_min, positional_max;
};

/*
 * Parses argv (after the command's name) into *target. Positional arguments go to `positional_out`
 * (argc entries of room). Strings point into argv, the environment or the table. SPROUT_INVALID
 * names the option, what was given, what is expected, and a near match for unknown options in the
 * hint; *target is then partly written. `environment` is getenv or a test's stand-in.
 */
SPROUT_MUST_CHECK enum sprout_status
options_parse(const struct option_command *command, int argc, char *const *argv,
              char *(*environment)(const char *name), void *target, const char **positional_out,
              size_t *positional_count_out, struct sprout_error *error);
/* Help for one command, at most 80 columns wide. */
void options_print_help(const struct option_command *command, FILE *out);
/*
 * roff (one page for the program: NAME to OPTIONS) and Markdown from the same rows. The first
 * command is the program itself; further sections may be printed behind.
 */
void options_print_man(const struct option_command *commands, size_t count, FILE *out);
void options_print_markdown(const struct option_command *commands, size_t count, FILE *out);
/* A piece of text inside a man page, escaped; a section or an example that the caller adds. */
void options_print_man_text(const char *text, FILE *out);
/* "SPROUT_MAX_RATE" for "max-rate"; returns buffer. */
const char *options_environment_name(const char *name, char *buffer, size_t buffer_bytes);
/* The candidate that `word` was probably meant to be: few typing errors away, or begun alike; NULL:
 * none. `next` yields candidates by index, NULL behind the last. */
const char *options_near_match(const char *word,
                               const char *(*next)(const void *context, size_t index),
                               const void *context);
/* Whether `word` is one of `choices` ("auto|tty|plain"). */
bool options_is_choice(const char *choices, const char *word);
#endif
