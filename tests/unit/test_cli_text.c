/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people: cleaning, tables, and the words for parts that are not built.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/parts.h"
#include "cli/terminal.h"
#include "cli/text_table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void control_and_bad_bytes_are_replaced(void **state) {
  (void)state;
  static const struct {
    const char *text, *clean;
  } cases[] = {
      {"plain", "plain"},
      {"", ""},
      {"a\x1b[2Jb\r\n\tc\x7f", "a?[2Jb???c?"},
      {"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x8C\xB1", "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x8C\xB1"},
      {"\xC2\x9B!", "?!"},          /* a control character of the second set */
      {"\xE2\x80\xAE!", "?!"},      /* turns the direction of writing */
      {"\xFF\xC3", "??"},           /* no UTF-8, cut UTF-8 */
      {"\xC0\x80", "??"},           /* overlong */
      {"\xED\xA0\x80", "???"},      /* half of a surrogate pair */
      {"\xF4\x90\x80\x80", "????"}, /* beyond the last code point */
      {"\xE2\x82", "??"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    char buffer[64];
    size_t columns = terminal_clean(cases[i].text, SIZE_MAX, true, buffer, sizeof(buffer));
    assert_string_equal(buffer, cases[i].clean);
    size_t count = 0;
    for (const char *at = buffer; *at != '\0'; at++) count += ((unsigned char)*at & 0xC0) != 0x80;
    assert_int_equal(columns, count);
  }
}

static void long_text_ends_in_an_ellipsis(void **state) {
  (void)state;
  char buffer[64];
  assert_int_equal(terminal_clean("abcdefgh", 5, false, buffer, sizeof(buffer)), 5);
  assert_string_equal(buffer, "ab...");
  assert_int_equal(terminal_clean("abcdefgh", 5, true, buffer, sizeof(buffer)), 5);
  assert_string_equal(buffer, "abcd\xE2\x80\xA6");
  assert_int_equal(terminal_clean("abcde", 5, true, buffer, sizeof(buffer)), 5);
  assert_string_equal(buffer, "abcde");
  assert_int_equal(terminal_clean("abcde", 2, false, buffer, sizeof(buffer)), 2);
  assert_string_equal(buffer, "ab");
  assert_int_equal(terminal_clean("abcde", 0, true, buffer, sizeof(buffer)), 0);
  assert_string_equal(buffer, "");
  assert_int_equal(terminal_clean("\xC3\xA4\xC3\xA4", 5, false, buffer, sizeof(buffer)), 2);
  assert_string_equal(buffer, "??");
  char tiny[4];
  assert_int_equal(terminal_clean("\xC3\xA4\xC3\xA4", 5, true, tiny, sizeof(tiny)), 1);
  assert_string_equal(tiny, "\xC3\xA4");
}

/* --- what a terminal is --- */

static const char *fake_columns, *fake_no_color, *fake_term;

static char *environment(const char *name) {
  const char *value = strcmp(name, "COLUMNS") == 0    ? fake_columns
                      : strcmp(name, "NO_COLOR") == 0 ? fake_no_color
                      : strcmp(name, "TERM") == 0     ? fake_term
                                                      : NULL;
  return (char *)(uintptr_t)value;
}

static void terminals_are_recognised(void **state) {
  (void)state;
  int leader = posix_openpt(0);
  if (leader < 0 || grantpt(leader) != 0 || unlockpt(leader) != 0) skip();
  fake_term = "xterm";
  fake_no_color = NULL;
  assert_true(terminal_of(leader, environment).interactive);
  assert_true(terminal_of(leader, environment).color);
  fake_no_color = "1";
  assert_true(terminal_of(leader, environment).interactive);
  assert_false(terminal_of(leader, environment).color);
  fake_term = "dumb";
  assert_false(terminal_of(leader, environment).interactive);
  fake_term = NULL;
  assert_false(terminal_of(leader, environment).interactive);
  (void)close(leader);
  fake_term = "xterm";
  assert_false(terminal_of(-1, environment).interactive);
}

static void sizes_have_bounds(void **state) {
  (void)state;
  static const struct {
    const char *text;
    unsigned columns;
  } cases[] = {{NULL, 80}, {"", 80},   {"132", 132},      {"5", 20},
               {"x", 80},  {"-1", 80}, {"99999999", 1000}};
  struct terminal terminal = {.fd = -1};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    unsigned columns, rows;
    fake_columns = cases[i].text;
    terminal_size(&terminal, environment, &columns, &rows);
    assert_int_equal(columns, cases[i].columns);
    assert_int_equal(rows, 24);
  }
}

/* --- tables --- */

static char *table_text(const char *aligns, const char *const *cells, size_t count) {
  struct text_table table;
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  assert_non_null(out);
  text_table_init(&table, aligns, 1);
  for (size_t i = 0; i < count; i++) assert_int_equal(text_table_add(&table, cells[i]), SPROUT_OK);
  text_table_print(&table, 1, out);
  text_table_destroy(&table);
  assert_int_equal(fclose(out), 0);
  return text;
}

static void columns_are_aligned_and_lines_end_with_text(void **state) {
  (void)state;
  const char *const cells[] = {"NAME",     "SIZE", "NOTE", "a\xC3\xA4", "1 B",  "",
                               "longer\n", "",     "x",    "b",         "12 B", ""};
  char *text = table_text("lrl", cells, 12);
  assert_string_equal(text, " NAME     SIZE  NOTE\n"
                            " a\xC3\xA4        1 B\n"
                            " longer?        x\n"
                            " b        12 B\n");
  free(text);
}

static void a_row_that_is_not_full_is_not_printed(void **state) {
  (void)state;
  const char *const cells[] = {"a", "b", "c"};
  char *text = table_text("ll", cells, 3);
  assert_string_equal(text, " a  b\n");
  free(text);
  text = table_text("ll", cells, 0);
  assert_string_equal(text, "");
  free(text);
}

static void tables_grow(void **state) {
  (void)state;
  struct text_table table;
  text_table_init(&table, "r", 0);
  for (unsigned i = 0; i < 5000; i++) assert_int_equal(text_table_add(&table, "x"), SPROUT_OK);
  assert_int_equal(table.cell_count, 5000);
  text_table_destroy(&table);
}

/* --- parts --- */

static void transports_that_are_not_built_are_refused(void **state) {
  (void)state;
  struct sprout_error error;
  assert_int_equal(parts_check_transport("auto", &error), SPROUT_OK);
  assert_int_equal(parts_check_transport("tcp", &error), SPROUT_OK);
  assert_int_equal(parts_check_transport("tcp,tcp", &error), SPROUT_OK);
#ifdef SPROUT_HAVE_RDMA
  assert_int_equal(parts_check_transport("tcp,rdma", &error), SPROUT_OK);
  assert_int_equal(parts_check_transport("rdma", &error), SPROUT_OK);
#else
  assert_int_equal(parts_check_transport("tcp,rdma", &error), SPROUT_INVALID);
  assert_string_equal(error.message, "--transport rdma: this build has no RDMA");
#endif
  assert_int_equal(parts_check_transport("ipc", &error), SPROUT_INVALID);
  static const char *const bad[] = {"", ",", "tcp,", ",tcp", "tcpx", "auto,tcp", "carrier pigeon"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    assert_int_equal(parts_check_transport(bad[i], &error), SPROUT_INVALID);
    assert_non_null(strstr(error.message, "is not a transport; expected auto"));
  }
}

static void gid_indexes_are_one_more_in_options(void **state) {
  (void)state;
  static const char *const bad[] = {"", "-1", "65536", "99999999999999999999", "3 ", "any"};
  struct sprout_error error;
  int32_t option = -1;
  assert_int_equal(parts_parse_gid_index(NULL, &option, &error), SPROUT_OK);
  assert_int_equal(option, 0);
  assert_int_equal(parts_parse_gid_index("auto", &option, &error), SPROUT_OK);
  assert_int_equal(option, 0);
  assert_int_equal(parts_parse_gid_index("0", &option, &error), SPROUT_OK);
  assert_int_equal(option, 1);
  assert_int_equal(parts_parse_gid_index("65535", &option, &error), SPROUT_OK);
  assert_int_equal(option, 65536);
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    assert_int_equal(parts_parse_gid_index(bad[i], &option, &error), SPROUT_INVALID);
}

static void memories_that_are_not_built_are_refused(void **state) {
  (void)state;
  struct sprout_error error;
  enum sprout_seed_memory memory = SPROUT_SEED_MEMORY_FILE;
  assert_int_equal(parts_parse_memory("host", &memory, &error), SPROUT_OK);
  assert_int_equal(memory, SPROUT_SEED_MEMORY_HOST);
  assert_int_equal(parts_parse_memory("file", &memory, &error), SPROUT_OK);
  assert_int_equal(memory, SPROUT_SEED_MEMORY_FILE);
  assert_int_equal(parts_parse_memory("cuda:0", &memory, &error), SPROUT_INVALID);
  assert_string_equal(error.message, "--memory cuda:0: this build has no CUDA");
  assert_int_equal(parts_parse_memory("pinned", &memory, &error), SPROUT_INVALID);
  assert_int_equal(parts_parse_memory("disk", &memory, &error), SPROUT_INVALID);
  assert_string_equal(error.message, "--memory: 'disk' is not one of file|host");
}

static void destinations_are_directories_or_nothing(void **state) {
  (void)state;
  struct sprout_error error;
  const char *directory = "x";
  assert_int_equal(parts_parse_destination("null:", &directory, &error), SPROUT_OK);
  assert_null(directory);
  assert_int_equal(parts_parse_destination("./a:b", &directory, &error), SPROUT_OK);
  assert_string_equal(directory, "./a:b");
  assert_int_equal(parts_parse_destination("cuda:1", &directory, &error), SPROUT_INVALID);
  assert_string_equal(error.message, "destination cuda:1: this build has no CUDA");
  assert_int_equal(parts_parse_destination("http://x", &directory, &error), SPROUT_INVALID);
  assert_string_equal(error.message, "the destination is missing: 'http://x' is a URL");
  assert_int_equal(parts_parse_destination("", &directory, &error), SPROUT_INVALID);
  assert_string_equal(directory, "./a:b");
}

static void percentages_belong_to_seeds(void **state) {
  (void)state;
  struct sprout_error error;
  struct units_rate rate = {.bytes_per_second = 5};
  assert_int_equal(parts_refuse_percent("--max-rate", &rate, &error), SPROUT_OK);
  rate = (struct units_rate){.percent = 25};
  assert_int_equal(parts_refuse_percent("--max-rate", &rate, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.message, "--max-rate: 25% is a share"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(control_and_bad_bytes_are_replaced),
      cmocka_unit_test(long_text_ends_in_an_ellipsis),
      cmocka_unit_test(terminals_are_recognised),
      cmocka_unit_test(sizes_have_bounds),
      cmocka_unit_test(columns_are_aligned_and_lines_end_with_text),
      cmocka_unit_test(a_row_that_is_not_full_is_not_printed),
      cmocka_unit_test(tables_grow),
      cmocka_unit_test(transports_that_are_not_built_are_refused),
      cmocka_unit_test(gid_indexes_are_one_more_in_options),
      cmocka_unit_test(memories_that_are_not_built_are_refused),
      cmocka_unit_test(destinations_are_directories_or_nothing),
      cmocka_unit_test(percentages_belong_to_seeds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
