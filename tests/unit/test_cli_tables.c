/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option tables, and what is made from them. SPROUT_UPDATE_GOLDEN=1 rewrites the golden files
 * and the documents instead of comparing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/command_names.h"
#include "cli/pages.h"
#include "cli/tables.h"

#include <stdlib.h>
#include <string.h>

static void tables_are_complete(void **state) {
  (void)state;
  for (size_t i = 0; i < CLI_COMMAND_COUNT; i++) {
    const struct option_command *command = &cli_commands[i];
    assert_non_null(command->name);
    assert_non_null(command->synopsis);
    assert_int_equal(command->summary[strlen(command->summary) - 1], '.');
    assert_non_null(command->description);
    for (const struct option *a = command->options; a->name != NULL; a++) {
      assert_non_null(a->help);
      assert_int_equal(a->help[strlen(a->help) - 1], '.');
      assert_int_equal(a->type == OPTION_CHOICE, a->choices != NULL);
      assert_true(a->type == OPTION_FLAG || a->type == OPTION_CHOICE || a->argument != NULL);
      for (const struct option *b = command->options; b != a; b++) {
        assert_string_not_equal(a->name, b->name);
        assert_true(a->letter == 0 || a->letter != b->letter);
        assert_int_not_equal(a->offset, b->offset);
      }
    }
  }
}

/* Parses nothing but the command's name: defaults must be valid, and globals come first. */
static void defaults_of_every_command_parse(void **state) {
  (void)state;
  for (size_t i = 0; i < CLI_COMMAND_COUNT; i++) {
    union {
      struct cli_globals globals;
      struct seed_values seed;
      struct fork_values fork;
    } values;
    char *argv[] = {(char *)(uintptr_t) "--help"};
    const char *positional[1];
    size_t count;
    assert_int_equal(
        options_parse(&cli_commands[i], 1, argv, NULL, &values, positional, &count, NULL),
        SPROUT_OK);
    assert_true(values.globals.help);
    assert_string_equal(values.globals.log_format, "text");
  }
}

static void parse_fork(char *const *argv, int argc, struct fork_values *values) {
  const char *positional[16];
  size_t count;
  struct sprout_error error;
  assert_int_equal(
      options_parse(&cli_commands[CLI_FORK], argc, argv, NULL, values, positional, &count, &error),
      SPROUT_OK);
}

static void fork_has_the_documented_defaults(void **state) {
  (void)state;
  char url[] = "http://x", directory[] = "d";
  char *argv[] = {url, directory};
  struct fork_values values;
  parse_fork(argv, 2, &values);
  assert_int_equal(values.inflight_bytes, 32 << 20);
  assert_int_equal(values.connections, 1);
  assert_true(values.stall_timeout_ns == UINT64_C(3000000000));
  assert_int_equal(values.timeout_ns, 0);
  assert_true(values.wait_ns == UINT64_C(600000000000));
  assert_string_equal(values.progress, "auto");
  assert_string_equal(values.transport, "auto");
  assert_false(values.no_verify || values.force || values.dry_run);
  assert_null(values.client.token);
}

static void no_command_takes_a_token_from_the_command_line(void **state) {
  (void)state;
  for (size_t i = CLI_SEED; i <= CLI_VERIFY; i++) {
    union {
      struct seed_values seed;
      struct fork_values fork;
    } values;
    char first[] = "http://x", second[] = "d", token[] = "--token=hunter2";
    char *argv[] = {first, second, token};
    const char *positional[3];
    size_t count;
    struct sprout_error error;
    assert_int_equal(
        options_parse(&cli_commands[i], 3, argv, NULL, &values, positional, &count, &error),
        SPROUT_INVALID);
    assert_null(strstr(error.message, "hunter2"));
    assert_non_null(strstr(error.hint, "SPROUT_TOKEN"));
  }
}

static void every_exit_code_is_documented(void **state) {
  (void)state;
  for (int i = 0; i < SPROUT_STATUS_COUNT; i++) {
    int code = sprout_status_info_of((enum sprout_status)i)->exit_code, found = 0;
    for (const struct cli_exit *row = cli_exits; row->meaning != NULL; row++)
      found |= row->code == code;
    assert_true(found);
  }
}

static void commands_are_found_and_near_ones_suggested(void **state) {
  (void)state;
  enum cli_command_id id = CLI_PROGRAM;
  struct sprout_error error;
  assert_int_equal(command_find("fork", &id, &error), SPROUT_OK);
  assert_int_equal(id, CLI_FORK);
  assert_int_equal(command_find("frok", &id, &error), SPROUT_INVALID);
  assert_string_equal(error.message, "unknown command 'frok'");
  assert_string_equal(error.hint, "Did you mean sprout fork?");
  assert_int_equal(command_find("banana", &id, &error), SPROUT_INVALID);
  assert_string_equal(error.hint, "See 'sprout --help'.");
  assert_int_equal(command_find("sprout", &id, &error), SPROUT_INVALID);
}

static void options_may_stand_before_the_command(void **state) {
  (void)state;
  static const struct {
    const char *line, *word, *rest;
  } cases[] = {
      {"fork a b", "fork", "a b "},
      {"-q --log-format json fork a -v", "fork", "-q --log-format json a -v "},
      {"--log-format=json ls", "ls", "--log-format=json "},
      {"--version", NULL, "--version "},
      {"--log-format", NULL, "--log-format "},
      {"", NULL, ""},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    char line[128], joined[128] = "", *argv[16], *out[16], *place = NULL;
    int argc = 0, count = -1;
    const char *word;
    snprintf(line, sizeof(line), "%s", cases[i].line);
    for (char *at = strtok_r(line, " ", &place); at != NULL; at = strtok_r(NULL, " ", &place))
      argv[argc++] = at;
    command_split(argc, argv, out, &count, &word);
    for (int k = 0; k < count; k++) {
      size_t used = strlen(joined);
      snprintf(joined + used, sizeof(joined) - used, "%s ", out[k]);
    }
    assert_string_equal(joined, cases[i].rest);
    if (cases[i].word == NULL)
      assert_null(word);
    else
      assert_string_equal(word, cases[i].word);
  }
}

/* --- golden files --- */

static char *read_whole(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  char *text = NULL;
  size_t room = 0;
  if (getdelim(&text, &room, '\0', file) < 0) {
    free(text);
    text = NULL;
  }
  fclose(file);
  return text;
}

/* The kept pages are those of a build with everything in it. */
static void compare_or_update(const char *path, const char *text) {
#ifndef SPROUT_HAVE_RDMA
  if (strstr(path, "seed") != NULL || strstr(path, "fork") != NULL ||
      strstr(path, "COMMANDS") != NULL)
    return;
#endif
  if (getenv("SPROUT_UPDATE_GOLDEN") != NULL) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    return;
  }
  char *golden = read_whole(path);
  if (golden == NULL || strcmp(golden, text) != 0)
    print_error("%s is not current: run with SPROUT_UPDATE_GOLDEN=1 and look at the difference\n",
                path);
  assert_non_null(golden);
  assert_string_equal(golden, text);
  free(golden);
}

static char *printed(void (*print)(FILE *out)) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  assert_non_null(out);
  print(out);
  assert_int_equal(fclose(out), 0);
  return text;
}

static void compare_page(const char *path, void (*print)(FILE *out)) {
  char *text = printed(print);
  compare_or_update(path, text);
  free(text);
}

static const struct option_command *command_to_print;
static void print_one_help(FILE *out) {
  options_print_help(command_to_print, out);
}

static void help_is_as_it_was_and_fits_the_terminal(void **state) {
  (void)state;
  for (size_t i = 0; i < CLI_COMMAND_COUNT; i++) {
    char path[4096];
    command_to_print = &cli_commands[i];
    snprintf(path, sizeof(path), "%s/tests/unit/golden/help_%s.txt", SPROUT_SOURCE_DIR,
             cli_command_word((enum cli_command_id)i));
    char *text = printed(print_one_help), *place = NULL;
    compare_or_update(path, text);
    for (char *line = strtok_r(text, "\n", &place); line != NULL;
         line = strtok_r(NULL, "\n", &place))
      assert_true(strlen(line) <= 80);
    free(text);
  }
}

static void what_is_not_built_is_not_offered(void **state) {
  (void)state;
  for (size_t i = 0; i < CLI_COMMAND_COUNT; i++) {
    command_to_print = &cli_commands[i];
    char *text = printed(print_one_help);
#ifndef SPROUT_HAVE_RDMA
    assert_null(strstr(text, "rdma"));
#endif
    assert_null(strstr(text, "cuda"));
    assert_null(strstr(text, "pinned"));
    free(text);
  }
}

static void documents_are_current(void **state) {
  (void)state;
  compare_page(SPROUT_SOURCE_DIR "/docs/COMMANDS.md", pages_print_commands);
  compare_page(SPROUT_SOURCE_DIR "/docs/METRICS.md", pages_print_metrics);
  compare_page(SPROUT_SOURCE_DIR "/docs/LIMITS.md", pages_print_limits);
}

static void the_man_page_is_clean(void **state) {
  (void)state;
  if (system("command -v groff >/dev/null 2>&1") != 0) {
    print_message("groff is not installed\n");
    skip();
  }
  char *text = printed(pages_print_man);
  FILE *tool = popen("test -z \"$(groff -man -ww -b -Tutf8 2>&1 >/dev/null)\"", "w");
  assert_non_null(tool);
  assert_true(fputs(text, tool) >= 0);
  assert_int_equal(pclose(tool), 0);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(tables_are_complete),
      cmocka_unit_test(defaults_of_every_command_parse),
      cmocka_unit_test(fork_has_the_documented_defaults),
      cmocka_unit_test(no_command_takes_a_token_from_the_command_line),
      cmocka_unit_test(every_exit_code_is_documented),
      cmocka_unit_test(commands_are_found_and_near_ones_suggested),
      cmocka_unit_test(options_may_stand_before_the_command),
      cmocka_unit_test(help_is_as_it_was_and_fits_the_terminal),
      cmocka_unit_test(what_is_not_built_is_not_offered),
      cmocka_unit_test(documents_are_current),
      cmocka_unit_test(the_man_page_is_clean),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
