/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing: defaults first, then the environment, then the command line, each through the same
 * converter, so a value is checked alike wherever it comes from.
 */
#include "core/options.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

/* Longest word that typing errors are counted in; a longer one has no near match. */
#define NEAR_WORD_MAX 48

struct parse {
  const struct option_command *command;
  int argc;
  char *const *argv;
  int at; /* next argument */
  unsigned char *target;
  struct sprout_error *error;
  bool ended; /* an option that ends parsing was seen */
};

const char *options_environment_name(const char *name, char *buffer, size_t buffer_bytes) {
  size_t at = (size_t)snprintf(buffer, buffer_bytes, "SPROUT_%s", name);
  if (at >= buffer_bytes) at = buffer_bytes > 0 ? buffer_bytes - 1 : 0;
  for (size_t i = 0; i < at; i++) {
    char c = buffer[i];
    buffer[i] = c == '-' ? '_' : c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
  }
  return buffer;
}

/* --- near matches --- */

static unsigned least(unsigned a, unsigned b) {
  return a < b ? a : b;
}

/* Typing errors between two words: insertions, deletions, replacements, swapped neighbours. */
static unsigned typing_errors(const char *a, const char *b) {
  size_t a_length = strlen(a), b_length = strlen(b);
  if (a_length > NEAR_WORD_MAX || b_length > NEAR_WORD_MAX) return UINT32_MAX;
  unsigned rows[3][NEAR_WORD_MAX + 1]; /* the row before the last, the last, this one */
  for (size_t j = 0; j <= b_length; j++) rows[1][j] = (unsigned)j;
  for (size_t i = 1; i <= a_length; i++) {
    rows[2][0] = (unsigned)i;
    for (size_t j = 1; j <= b_length; j++) {
      unsigned replaced = rows[1][j - 1] + (a[i - 1] != b[j - 1]);
      unsigned best = least(replaced, least(rows[1][j], rows[2][j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        best = least(best, rows[0][j - 2] + 1);
      rows[2][j] = best;
    }
    memcpy(rows[0], rows[1], sizeof(rows[0]));
    memcpy(rows[1], rows[2], sizeof(rows[1]));
  }
  return rows[1][b_length];
}

const char *options_near_match(const char *word,
                               const char *(*next)(const void *context, size_t index),
                               const void *context) {
  const char *best = NULL, *begun = NULL;
  unsigned best_errors = UINT32_MAX, begun_count = 0;
  size_t length = strlen(word);
  for (size_t i = 0;; i++) {
    const char *candidate = next(context, i);
    if (candidate == NULL) break;
    unsigned errors = typing_errors(word, candidate);
    if (errors < best_errors) {
      best_errors = errors;
      best = candidate;
    }
    if (length >= 2 && strncmp(word, candidate, length) == 0) {
      begun = candidate;
      begun_count++;
    }
  }
  /* One error in three letters still means the same word. */
  if (best != NULL && best_errors <= (length + 1) / 3 && best_errors < length) return best;
  return begun_count == 1 ? begun : NULL;
}

static const char *option_name_at(const void *context, size_t index) {
  const struct option_command *command = context;
  return command->options[index].name;
}

/* --- converting --- */

bool options_is_choice(const char *choices, const char *word) {
  size_t length = strlen(word);
  if (length == 0 || strchr(word, '|') != NULL) return false;
  for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
    if (*at == '|') at++;
    if (strncmp(at, word, length) == 0 && (at[length] == '|' || at[length] == '\0')) return true;
  }
  return false;
}

static bool parse_flag(const char *text, bool *value_out) {
  static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off",
                                                                              "0"};
  for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
    if (strcasecmp(text, yes[i]) != 0 && strcasecmp(text, no[i]) != 0) continue;
    *value_out = strcasecmp(text, yes[i]) == 0;
    return true;
  }
  return false;
}

static bool parse_count(const char *text, uint64_t *value_out) {
  uint64_t value = 0;
  if (*text == '\0') return false;
  for (; *text != '\0'; text++) {
    if (*text < '0' || *text > '9') return false;
    if (__builtin_mul_overflow(value, 10, &value) ||
        __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
      return false;
  }
  *value_out = value;
  return true;
}

static bool within(const struct option *option, uint64_t value) {
  return value >= option->min && (option->max == 0 || value <= option->max);
}

/* Converts into `slot`; false: the text is not a value of this type, or out of bounds. */
static bool convert(const struct option *option, const char *text, void *slot) {
  uint64_t number = 0;
  switch (option->type) {
  case OPTION_FLAG: return parse_flag(text, slot);
  case OPTION_CHOICE:
    if (!options_is_choice(option->choices, text)) return false;
    *(const char **)slot = text;
    return true;
  case OPTION_TEXT: *(const char **)slot = text; return true;
  case OPTION_RATE: return units_parse_rate(text, slot) == SPROUT_OK;
  case OPTION_COUNT:
    if (!parse_count(text, &number)) return false;
    break;
  case OPTION_SIZE:
    if (units_parse_size(text, &number) != SPROUT_OK) return false;
    break;
  case OPTION_DURATION:
    if (units_parse_duration(text, &number) != SPROUT_OK) return false;
    break;
  case OPTION_LIST: return false;
  }
  if (!within(option, number)) return false;
  *(uint64_t *)slot = number;
  return true;
}

static const char *format_bound(enum option_type type, uint64_t value, char *buffer, size_t room) {
  if (type == OPTION_SIZE) return units_format_size(value, buffer, room);
  if (type == OPTION_DURATION) return units_format_duration(value, buffer, room);
  snprintf(buffer, room, "%" PRIu64, value);
  return buffer;
}

/* " between 1 and 16", " of at least 1", or "". */
static const char *describe_bounds(const struct option *option, char *buffer, size_t room) {
  char low[32], high[32];
  buffer[0] = '\0';
  format_bound(option->type, option->min, low, sizeof(low));
  format_bound(option->type, option->max, high, sizeof(high));
  if (option->max != 0)
    snprintf(buffer, room, " between %s and %s", low, high);
  else if (option->min != 0)
    snprintf(buffer, room, " of at least %s", low);
  return buffer;
}

/* Says what was given and what is expected. `origin` is "--max-rate" or "SPROUT_MAX_RATE". */
static enum sprout_status refuse_value(const struct parse *parse, const struct option *option,
                                       const char *origin, const char *text) {
  char bounds[96], shown[96];
  describe_bounds(option, bounds, sizeof(bounds));
  snprintf(shown, sizeof(shown), option->secret ? "its value" : "'%.80s'", text);
  switch (option->type) {
  case OPTION_FLAG:
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL, "%s: %s is not true or false",
                            origin, shown);
  case OPTION_COUNT:
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL, "%s: %s is not a whole number%s",
                            origin, shown, bounds);
  case OPTION_SIZE:
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL,
                            "%s: %s is not a size%s; expected e.g. 64MiB, 1.5G", origin, shown,
                            bounds);
  case OPTION_RATE:
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL,
                            "%s: %s is not a rate; expected e.g. 200M, 10Gbit, 25%%", origin,
                            shown);
  case OPTION_DURATION:
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL,
                            "%s: %s is not a duration%s; expected e.g. 500ms, 3s, 2m", origin,
                            shown, bounds);
  case OPTION_CHOICE:
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL, "%s: %s is not one of %s",
                            origin, shown, option->choices);
  case OPTION_TEXT:
  case OPTION_LIST: break;
  }
  return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL, "%s: %s cannot be used", origin,
                          shown);
}

static enum sprout_status store(struct parse *parse, const struct option *option,
                                const char *origin, const char *text) {
  void *slot = parse->target + option->offset;
  if (option->type != OPTION_LIST)
    return convert(option, text, slot) ? SPROUT_OK : refuse_value(parse, option, origin, text);
  struct option_list *list = slot;
  if (list->count == OPTION_LIST_MAX)
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL, "%s: given more than %d times",
                            origin, OPTION_LIST_MAX);
  list->items[list->count++] = text;
  return SPROUT_OK;
}

/* --- the three places that values come from --- */

static void clear_value(struct parse *parse, const struct option *option) {
  void *slot = parse->target + option->offset;
  switch (option->type) {
  case OPTION_FLAG: *(bool *)slot = false; break;
  case OPTION_TEXT:
  case OPTION_CHOICE: *(const char **)slot = NULL; break;
  case OPTION_LIST: *(struct option_list *)slot = (struct option_list){.count = 0}; break;
  case OPTION_RATE: *(struct units_rate *)slot = (struct units_rate){.percent = 0}; break;
  case OPTION_COUNT:
  case OPTION_SIZE:
  case OPTION_DURATION: *(uint64_t *)slot = 0; break;
  }
}

static void store_default(struct parse *parse, const struct option *option) {
  clear_value(parse, option);
  if (option->fallback == NULL) return;
  enum sprout_status status = store(parse, option, option->name, option->fallback);
  assert(status == SPROUT_OK); /* a default in the table is wrong */
  (void)status;
}

static enum sprout_status store_environment(struct parse *parse, const struct option *option,
                                            char *(*environment)(const char *name)) {
  char name[64];
  if (environment == NULL || option->no_twin) return SPROUT_OK;
  const char *text = environment(options_environment_name(option->name, name, sizeof(name)));
  if (text == NULL || text[0] == '\0') return SPROUT_OK;
  clear_value(parse, option);
  return store(parse, option, name, text);
}

static enum sprout_status refuse_unknown(struct parse *parse, const char *argument,
                                         const char *name) {
  char hint[160];
  const char *near = options_near_match(name, option_name_at, parse->command);
  if (near != NULL)
    snprintf(hint, sizeof(hint), "Did you mean --%s?", near);
  else
    snprintf(hint, sizeof(hint), "See '%s --help'.", parse->command->name);
  return sprout_error_set(parse->error, SPROUT_INVALID, 0, hint, "unknown option '%.80s'",
                          argument);
}

/* The first list item of the command line replaces what the environment gave. */
static void forget_environment(struct parse *parse, const struct option *option, uint64_t *seen) {
  uint64_t bit = UINT64_C(1) << (option - parse->command->options);
  if (!(*seen & bit)) clear_value(parse, option);
  *seen |= bit;
}

/* Stores `value`, or the next argument when it is NULL. */
static enum sprout_status take(struct parse *parse, const struct option *option, const char *origin,
                               const char *value, uint64_t *seen) {
  if (option->secret) {
    char hint[160], name[64];
    snprintf(hint, sizeof(hint), "Put it into a file (--%s-file) or into %s.", option->name,
             options_environment_name(option->name, name, sizeof(name)));
    return sprout_error_set(parse->error, SPROUT_INVALID, 0, hint,
                            "%s: a secret is not taken from the command line, where every user of "
                            "this machine could read it",
                            origin);
  }
  if (option->type == OPTION_FLAG && value == NULL) value = "true";
  if (value == NULL) {
    if (parse->at == parse->argc)
      return sprout_error_set(parse->error, SPROUT_INVALID, 0, NULL, "%s needs a value: %s %s",
                              origin, origin, option->argument);
    value = parse->argv[parse->at++];
  }
  forget_environment(parse, option, seen);
  enum sprout_status status = store(parse, option, origin, value);
  if (status == SPROUT_OK && option->ends_parsing && *(bool *)(parse->target + option->offset))
    parse->ended = true;
  return status;
}

static enum sprout_status parse_long(struct parse *parse, const char *argument, uint64_t *seen) {
  const char *name = argument + 2, *equals = strchr(name, '=');
  size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
  for (const struct option *option = parse->command->options; option->name != NULL; option++) {
    if (strlen(option->name) != length || strncmp(option->name, name, length) != 0) continue;
    char origin[64];
    snprintf(origin, sizeof(origin), "--%s", option->name);
    return take(parse, option, origin, equals != NULL ? equals + 1 : NULL, seen);
  }
  /* Without what follows '=': it may be a secret under a mistyped name. */
  char word[80];
  snprintf(word, sizeof(word), "%.*s", (int)(length < sizeof(word) ? length : sizeof(word) - 1),
           name);
  char shown[96];
  snprintf(shown, sizeof(shown), "--%s", word);
  return refuse_unknown(parse, shown, word);
}

static enum sprout_status parse_letters(struct parse *parse, const char *argument, uint64_t *seen) {
  for (const char *letter = argument + 1; *letter != '\0'; letter++) {
    const struct option *option = parse->command->options;
    while (option->name != NULL && option->letter != *letter) option++;
    if (option->name == NULL) return refuse_unknown(parse, argument, letter);
    char origin[3] = {'-', *letter, '\0'};
    if (option->type != OPTION_FLAG) {
      const char *rest = letter[1] != '\0' ? letter + 1 : NULL;
      return take(parse, option, origin, rest, seen);
    }
    enum sprout_status status = take(parse, option, origin, NULL, seen);
    if (status != SPROUT_OK || parse->ended) return status;
  }
  return SPROUT_OK;
}

static enum sprout_status parse_arguments(struct parse *parse, const char **positional_out,
                                          size_t *count_out) {
  uint64_t seen = 0;
  bool options_over = false;
  size_t count = 0;
  while (parse->at < parse->argc && !parse->ended) {
    const char *argument = parse->argv[parse->at++];
    enum sprout_status status = SPROUT_OK;
    if (options_over || argument[0] != '-' || argument[1] == '\0')
      positional_out[count++] = argument;
    else if (strcmp(argument, "--") == 0)
      options_over = true;
    else if (argument[1] == '-')
      status = parse_long(parse, argument, &seen);
    else
      status = parse_letters(parse, argument, &seen);
    if (status != SPROUT_OK) return status;
  }
  *count_out = count;
  return SPROUT_OK;
}

enum sprout_status options_parse(const struct option_command *command, int argc, char *const *argv,
                                 char *(*environment)(const char *name), void *target,
                                 const char **positional_out, size_t *positional_count_out,
                                 struct sprout_error *error) {
  /* A bad variable must not keep anyone from reading --help: its error waits. */
  struct sprout_error environment_error;
  struct parse parse = {.command = command,
                        .argc = argc,
                        .argv = argv,
                        .target = target,
                        .error = &environment_error};
  size_t rows = 0, count = 0;
  for (; command->options[rows].name != NULL; rows++)
    store_default(&parse, &command->options[rows]);
  assert(rows <= 64); /* one bit each in `seen` */
  enum sprout_status inherited = SPROUT_OK;
  for (size_t i = 0; i < rows && inherited == SPROUT_OK; i++)
    inherited = store_environment(&parse, &command->options[i], environment);
  parse.error = error;
  enum sprout_status status = parse_arguments(&parse, positional_out, &count);
  if (status != SPROUT_OK) return status;
  *positional_count_out = count;
  if (parse.ended) return SPROUT_OK;
  if (inherited != SPROUT_OK) {
    if (error != NULL) *error = environment_error;
    return inherited;
  }
  if (count >= command->positional_min && count <= command->positional_max) return SPROUT_OK;
  return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "%s; usage: %s",
                          count < command->positional_min ? "an argument is missing"
                                                          : "too many arguments",
                          command->synopsis);
}
