/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is words separated by NUL bytes: the first is the value of one environment variable,
 * the others are the command line. Whatever they say, the parser ends with a status, values stay
 * within their bounds, and a secret given on the command line never shows in an error.
 */
#include "core/options.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 80

struct values {
  bool flag, other;
  const char *text, *choice, *token;
  struct option_list list;
  uint64_t count, size, duration;
  struct units_rate rate;
};

#define AT(member) offsetof(struct values, member)

static const struct option rows[] = {
    {.name = "flag", .letter = 'f', .type = OPTION_FLAG, .offset = AT(flag), .help = "x"},
    {.name = "other", .letter = 'o', .type = OPTION_FLAG, .offset = AT(other), .help = "x"},
    {.name = "text",
     .letter = 't',
     .type = OPTION_TEXT,
     .offset = AT(text),
     .argument = "T",
     .help = "x"},
    {.name = "choice",
     .type = OPTION_CHOICE,
     .offset = AT(choice),
     .choices = "a|bb|ccc",
     .fallback = "a",
     .help = "x"},
    {.name = "list",
     .letter = 'l',
     .type = OPTION_LIST,
     .offset = AT(list),
     .argument = "L",
     .help = "x"},
    {.name = "count",
     .type = OPTION_COUNT,
     .offset = AT(count),
     .argument = "N",
     .fallback = "1",
     .min = 1,
     .max = 16,
     .help = "x"},
    {.name = "size", .type = OPTION_SIZE, .offset = AT(size), .argument = "S", .help = "x"},
    {.name = "duration",
     .type = OPTION_DURATION,
     .offset = AT(duration),
     .argument = "D",
     .help = "x"},
    {.name = "rate",
     .letter = 'r',
     .type = OPTION_RATE,
     .offset = AT(rate),
     .argument = "R",
     .help = "x"},
    {.name = "token",
     .type = OPTION_TEXT,
     .offset = AT(token),
     .secret = true,
     .argument = "T",
     .help = "x"},
    {.name = NULL},
};

static const struct option_command command = {.name = "fuzz",
                                              .synopsis = "fuzz",
                                              .summary = "x",
                                              .options = rows,
                                              .positional_max = UINT32_MAX};

static char *variable;

/* Every option's twin has the same value. */
static char *environment(const char *name) {
  assert(strncmp(name, "SPROUT_", 7) == 0);
  return variable;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *text = malloc(size + 1), *argv[WORDS_MAX];
  const char *positional[WORDS_MAX];
  if (text == NULL) return 0;
  if (size > 0) memcpy(text, data, size);
  text[size] = '\0';
  variable = text;
  int argc = 0;
  for (size_t at = strlen(text) + 1; at <= size && argc < WORDS_MAX; at += strlen(text + at) + 1)
    argv[argc++] = text + at;
  struct values values;
  struct sprout_error error = {.status = SPROUT_OK};
  size_t count = 0;
  enum sprout_status status =
      options_parse(&command, argc, argv, environment, &values, positional, &count, &error);
  if (status == SPROUT_OK) {
    assert(count <= (size_t)argc && values.list.count <= OPTION_LIST_MAX);
    assert(values.count >= 1 && values.count <= 16 && values.rate.percent <= 100);
    assert(options_is_choice("a|bb|ccc", values.choice));
  } else {
    assert(status == SPROUT_INVALID && error.status == SPROUT_INVALID && error.message[0] != '\0');
  }
  free(text);
  return 0;
}
