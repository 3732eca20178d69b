/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/options.h"

#include <stdlib.h>
#include <string.h>

struct values {
  bool quick, help;
  const char *name, *mode, *token;
  struct option_list globs;
  uint64_t number, size, time;
  struct units_rate rate;
};

#define AT(member) offsetof(struct values, member)

static const struct option rows[] = {
    {.name = "quick", .letter = 'q', .type = OPTION_FLAG, .offset = AT(quick), .help = "Be quick."},
    {.name = "name",
     .letter = 'n',
     .type = OPTION_TEXT,
     .offset = AT(name),
     .argument = "NAME",
     .fallback = "nobody",
     .help = "What to call it, at such length that the explanation needs a second line."},
    {.name = "mode",
     .type = OPTION_CHOICE,
     .offset = AT(mode),
     .choices = "auto|slow|fast",
     .fallback = "auto",
     .help = "How."},
    {.name = "glob",
     .letter = 'g',
     .type = OPTION_LIST,
     .offset = AT(globs),
     .argument = "GLOB",
     .help = "Which."},
    {.name = "number",
     .type = OPTION_COUNT,
     .offset = AT(number),
     .argument = "N",
     .fallback = "4",
     .min = 1,
     .max = 16,
     .help = "How many."},
    {.name = "inflight-bytes-of-one",
     .type = OPTION_SIZE,
     .offset = AT(size),
     .argument = "BYTES",
     .min = 1000,
     .fallback = "64MiB",
     .help = "How large."},
    {.name = "max-rate",
     .type = OPTION_RATE,
     .offset = AT(rate),
     .argument = "RATE",
     .help = "How fast.",
     .group = "Limits"},
    {.name = "wait",
     .type = OPTION_DURATION,
     .offset = AT(time),
     .argument = "T",
     .max = 60000000000,
     .help = "How long."},
    {.name = "token",
     .type = OPTION_TEXT,
     .offset = AT(token),
     .secret = true,
     .argument = "TOKEN",
     .help = "The secret."},
    {.name = "help",
     .letter = 'h',
     .type = OPTION_FLAG,
     .offset = AT(help),
     .no_twin = true,
     .ends_parsing = true,
     .help = "Show this."},
    {.name = NULL},
};

static const struct option_command command = {
    .name = "tool go",
    .synopsis = "tool go FROM... TO [options]",
    .summary = "Goes from one place to another.",
    .description = "A paragraph about going that is so long that it cannot stand in one line of a "
                   "terminal.\n\n  tool go here there --mode=fast",
    .options = rows,
    .positional_min = 2,
    .positional_max = 4,
};

/* --- a stand-in for the environment --- */

static const char *environment_pairs[8];

static char *fake_environment(const char *name) {
  for (size_t i = 0; environment_pairs[i] != NULL; i++) {
    size_t length = strlen(name);
    if (strncmp(environment_pairs[i], name, length) == 0 && environment_pairs[i][length] == '=')
      return (char *)(uintptr_t)(environment_pairs[i] + length + 1);
  }
  return NULL;
}

struct outcome {
  enum sprout_status status;
  struct values values;
  const char *positional[32];
  size_t count;
  struct sprout_error error;
};

/* `line` is split at spaces in place; words live as long as the outcome. */
static struct outcome *parse_line(char *line, const char *variable) {
  static struct outcome outcome;
  memset(&outcome, 0xA5, sizeof(outcome));
  environment_pairs[0] = variable;
  environment_pairs[1] = NULL;
  char *argv[32], *state = NULL;
  int argc = 0;
  for (char *word = strtok_r(line, " ", &state); word != NULL; word = strtok_r(NULL, " ", &state))
    argv[argc++] = word;
  outcome.status = options_parse(&command, argc, argv, fake_environment, &outcome.values,
                                 outcome.positional, &outcome.count, &outcome.error);
  return &outcome;
}

#define PARSE(line, variable)                                                                      \
  char text_of_line[] = line;                                                                      \
  struct outcome *got = parse_line(text_of_line, variable)

static void defaults_come_from_the_table(void **state) {
  (void)state;
  PARSE("a b", NULL);
  assert_int_equal(got->status, SPROUT_OK);
  assert_false(got->values.quick);
  assert_string_equal(got->values.name, "nobody");
  assert_string_equal(got->values.mode, "auto");
  assert_int_equal(got->values.globs.count, 0);
  assert_int_equal(got->values.number, 4);
  assert_int_equal(got->values.size, 64 << 20);
  assert_int_equal(got->values.rate.bytes_per_second, 0);
  assert_int_equal(got->values.time, 0);
  assert_null(got->values.token);
  assert_int_equal(got->count, 2);
  assert_string_equal(got->positional[0], "a");
  assert_string_equal(got->positional[1], "b");
}

static void every_spelling_works(void **state) {
  (void)state;
  PARSE("-qn joe a --mode=fast --number 16 -gx --glob y -g z --inflight-bytes-of-one=2K b "
        "--max-rate 25% --wait 1.5s -- --c",
        NULL);
  assert_int_equal(got->status, SPROUT_OK);
  assert_true(got->values.quick);
  assert_string_equal(got->values.name, "joe");
  assert_string_equal(got->values.mode, "fast");
  assert_int_equal(got->values.number, 16);
  assert_int_equal(got->values.globs.count, 3);
  assert_string_equal(got->values.globs.items[0], "x");
  assert_string_equal(got->values.globs.items[2], "z");
  assert_int_equal(got->values.size, 2000);
  assert_int_equal(got->values.rate.percent, 25);
  assert_int_equal(got->values.time, 1500000000);
  assert_int_equal(got->count, 3);
  assert_string_equal(got->positional[2], "--c");
}

static void a_lone_dash_is_positional_and_the_last_value_counts(void **state) {
  (void)state;
  PARSE("- b --name x --name= --quick --quick=no", NULL);
  assert_int_equal(got->status, SPROUT_OK);
  assert_string_equal(got->positional[0], "-");
  assert_string_equal(got->values.name, "");
  assert_false(got->values.quick);
}

static void the_environment_lies_between_default_and_command_line(void **state) {
  (void)state;
  {
    PARSE("a b", "SPROUT_NAME=env");
    assert_string_equal(got->values.name, "env");
  }
  {
    PARSE("a b --name arg", "SPROUT_NAME=env");
    assert_string_equal(got->values.name, "arg");
  }
  {
    PARSE("a b", "SPROUT_NAME=");
    assert_string_equal(got->values.name, "nobody");
  }
  {
    PARSE("a b --quick=false", "SPROUT_QUICK=1");
    assert_false(got->values.quick);
  }
  {
    PARSE("a b --glob x --glob y", "SPROUT_GLOB=env");
    assert_int_equal(got->values.globs.count, 2);
    assert_string_equal(got->values.globs.items[0], "x");
  }
  {
    PARSE("a b", "SPROUT_GLOB=a,b");
    assert_int_equal(got->values.globs.count, 1);
    assert_string_equal(got->values.globs.items[0], "a,b");
  }
  {
    PARSE("a b", "SPROUT_HELP=1");
    assert_false(got->values.help);
  }
  {
    PARSE("a b", "SPROUT_TOKEN=secret");
    assert_string_equal(got->values.token, "secret");
  }
}

static void help_ends_parsing_whatever_else_is_wrong(void **state) {
  (void)state;
  {
    PARSE("--help", "SPROUT_NUMBER=none");
    assert_int_equal(got->status, SPROUT_OK);
    assert_true(got->values.help);
  }
  {
    PARSE("a b c d e -qh --nonsense", NULL);
    assert_int_equal(got->status, SPROUT_OK);
    assert_true(got->values.help);
  }
}

static void errors_name_what_was_given_and_expected(void **state) {
  (void)state;
  static const struct {
    const char *line, *variable, *message, *hint;
  } cases[] = {
      {"a b --max-rate 12X", NULL,
       "--max-rate: '12X' is not a rate; expected e.g. 200M, 10Gbit, 25%", ""},
      {"a b", "SPROUT_MAX_RATE=fast",
       "SPROUT_MAX_RATE: 'fast' is not a rate; expected e.g. 200M, 10Gbit, 25%", ""},
      {"a b --wait soon", NULL,
       "--wait: 'soon' is not a duration between 0ms and 1m00s; expected e.g. 500ms, 3s, 2m", ""},
      {"a b --wait 61s", NULL,
       "--wait: '61s' is not a duration between 0ms and 1m00s; expected e.g. 500ms, 3s, 2m", ""},
      {"a b --number 17", NULL, "--number: '17' is not a whole number between 1 and 16", ""},
      {"a b --number -1", NULL, "--number: '-1' is not a whole number between 1 and 16", ""},
      {"a b --number=", NULL, "--number: '' is not a whole number between 1 and 16", ""},
      {"a b --inflight-bytes-of-one 999", NULL,
       "--inflight-bytes-of-one: '999' is not a size of at least 1.00 kB; expected e.g. 64MiB, "
       "1.5G",
       ""},
      {"a b --mode best", NULL, "--mode: 'best' is not one of auto|slow|fast", ""},
      {"a b --mode auto|slow", NULL, "--mode: 'auto|slow' is not one of auto|slow|fast", ""},
      {"a b --quick=maybe", NULL, "--quick: 'maybe' is not true or false", ""},
      {"a b --name", NULL, "--name needs a value: --name NAME", ""},
      {"a b -n", NULL, "-n needs a value: -n NAME", ""},
      {"a b --max-rat 5", NULL, "unknown option '--max-rat'", "Did you mean --max-rate?"},
      {"a b --inflight=5", NULL, "unknown option '--inflight'",
       "Did you mean --inflight-bytes-of-one?"},
      {"a b --zebra", NULL, "unknown option '--zebra'", "See 'tool go --help'."},
      {"a b -qx", NULL, "unknown option '-qx'", "See 'tool go --help'."},
      {"a b --toke=hunter2", NULL, "unknown option '--toke'", "Did you mean --token?"},
      {"a b --token=hunter2", NULL,
       "--token: a secret is not taken from the command line, where every user of this machine "
       "could read it",
       "Put it into a file (--token-file) or into SPROUT_TOKEN."},
      {"a", NULL, "an argument is missing; usage: tool go FROM... TO [options]", ""},
      {"a b c d e", NULL, "too many arguments; usage: tool go FROM... TO [options]", ""},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    char line[128];
    snprintf(line, sizeof(line), "%s", cases[i].line);
    struct outcome *got = parse_line(line, cases[i].variable);
    assert_int_equal(got->status, SPROUT_INVALID);
    assert_string_equal(got->error.message, cases[i].message);
    assert_string_equal(got->error.hint, cases[i].hint);
    assert_null(strstr(got->error.message, "hunter2"));
  }
}

static void a_list_has_a_bound(void **state) {
  (void)state;
  char words[OPTION_LIST_MAX + 1][16];
  char *argv[OPTION_LIST_MAX + 1];
  const char *positional[OPTION_LIST_MAX + 1];
  for (int i = 0; i <= OPTION_LIST_MAX; i++) {
    snprintf(words[i], sizeof(words[i]), "-g%u", (unsigned)i % 100);
    argv[i] = words[i];
  }
  struct values values;
  struct sprout_error error;
  size_t count;
  assert_int_equal(
      options_parse(&command, OPTION_LIST_MAX + 1, argv, NULL, &values, positional, &count, &error),
      SPROUT_INVALID);
  assert_string_equal(error.message, "-g: given more than 64 times");
}

static const char *word_at(const void *context, size_t index) {
  const char *const *words = context;
  return words[index];
}

static void near_matches_are_near(void **state) {
  (void)state;
  static const char *const words[] = {"seed", "fork", "ls", "status", "verify", "synth", NULL};
  static const struct {
    const char *word, *match;
  } cases[] = {{"sed", "seed"},    {"frok", "fork"},     {"forks", "fork"}, {"sl", "ls"},
               {"stat", "status"}, {"verfiy", "verify"}, {"zzz", NULL},     {"", NULL},
               {"s", NULL},        {"list", NULL}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    const char *match = options_near_match(cases[i].word, word_at, words);
    if (cases[i].match == NULL)
      assert_null(match);
    else
      assert_string_equal(match, cases[i].match);
  }
  char endless[300];
  memset(endless, 'a', sizeof(endless));
  endless[sizeof(endless) - 1] = '\0';
  assert_null(options_near_match(endless, word_at, words));
}

static void environment_names_are_cut_to_the_buffer(void **state) {
  (void)state;
  char buffer[32], small[8];
  assert_string_equal(options_environment_name("max-rate", buffer, sizeof(buffer)),
                      "SPROUT_MAX_RATE");
  assert_string_equal(options_environment_name("max-rate", small, sizeof(small)), "SPROUT_");
}

/* --- what is printed --- */

static char *printed(void (*print)(FILE *out)) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  assert_non_null(out);
  print(out);
  assert_int_equal(fclose(out), 0);
  return text;
}

static void print_help(FILE *out) {
  options_print_help(&command, out);
}
static const struct option no_rows[] = {{.name = NULL}};
static const struct option_command program[] = {
    {.name = "tool",
     .summary = "does .things - well",
     .description = "'Quoted' first.",
     .options = no_rows},
    {.name = "tool go",
     .synopsis = "tool go A|B",
     .summary = "Goes \\ away.",
     .description = "  kept as  it is",
     .options = rows},
};
static void print_man(FILE *out) {
  options_print_man(program, 2, out);
}
static void print_markdown(FILE *out) {
  options_print_markdown(program, 2, out);
}

static void help_is_aligned_wrapped_and_keeps_examples(void **state) {
  (void)state;
  char *text = printed(print_help);
  assert_string_equal(
      text, "Usage: tool go FROM... TO [options]\n"
            "\n"
            "Goes from one place to another.\n"
            "\n"
            "A paragraph about going that is so long that it cannot stand in one line of a\n"
            "terminal.\n"
            "\n"
            "  tool go here there --mode=fast\n"
            "\n"
            "Options:\n"
            "  -q, --quick               Be quick.\n"
            "  -n, --name NAME           What to call it, at such length that the explanation\n"
            "                            needs a second line. (default: nobody)\n"
            "      --mode auto|slow|fast\n"
            "                            How. (default: auto)\n"
            "  -g, --glob GLOB           Which.\n"
            "      --number N            How many. (default: 4)\n"
            "      --inflight-bytes-of-one BYTES\n"
            "                            How large. (default: 64MiB)\n"
            "\n"
            "Limits:\n"
            "      --max-rate RATE       How fast.\n"
            "      --wait T              How long.\n"
            "      $SPROUT_TOKEN         The secret.\n"
            "  -h, --help                Show this.\n");
  free(text);
}

static void man_escapes_what_roff_would_take_for_its_own(void **state) {
  (void)state;
  char *text = printed(print_man);
  assert_non_null(strstr(text, ".TH SPROUT 1\n.SH NAME\ntool \\- does .things \\- well\n"));
  assert_non_null(strstr(text, "\n\\&'Quoted' first.\n"));
  assert_non_null(strstr(text, "\nGoes \\e away.\n"));
  assert_non_null(strstr(text, ".nf\n  kept as  it is\n.fi\n"));
  assert_non_null(strstr(text, ".TP\n\\fB\\-n\\fR, \\fB\\-\\-name\\fR \\fINAME\\fR\n"));
  assert_non_null(strstr(text, "\\fBSPROUT_TOKEN\\fR\nThe secret.\n"));
  free(text);
}

static void markdown_has_a_row_per_option(void **state) {
  (void)state;
  char *text = printed(print_markdown);
  assert_non_null(strstr(text, "# tool\n\ndoes .things - well\n\n'Quoted' first.\n\n## tool go\n"));
  assert_non_null(
      strstr(text, "\n| `--mode auto\\|slow\\|fast` | `SPROUT_MODE` | `auto` | How. |\n"));
  assert_non_null(strstr(text, "\n|  | `SPROUT_TOKEN` |  | The secret. |\n"));
  assert_non_null(strstr(text, "\n| `-h`, `--help` |  |  | Show this. |\n"));
  assert_non_null(strstr(text, "\n```\n  kept as  it is\n```\n"));
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(defaults_come_from_the_table),
      cmocka_unit_test(every_spelling_works),
      cmocka_unit_test(a_lone_dash_is_positional_and_the_last_value_counts),
      cmocka_unit_test(the_environment_lies_between_default_and_command_line),
      cmocka_unit_test(help_ends_parsing_whatever_else_is_wrong),
      cmocka_unit_test(errors_name_what_was_given_and_expected),
      cmocka_unit_test(a_list_has_a_bound),
      cmocka_unit_test(near_matches_are_near),
      cmocka_unit_test(environment_names_are_cut_to_the_buffer),
      cmocka_unit_test(help_is_aligned_wrapped_and_keeps_examples),
      cmocka_unit_test(man_escapes_what_roff_would_take_for_its_own),
      cmocka_unit_test(markdown_has_a_row_per_option),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
