/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/stats_table.h"
#include "net/prometheus.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double bounds[] = {0.001, 1, 0};
static const struct stat_family families[] = {
    {.name = "plain_total", .type = STAT_COUNTER, .help = "Counts \\ things\nand \"more\"."},
    {.name = "by_two", .type = STAT_GAUGE, .help = "Two.", .labels = {"a", "b"}},
    {.name = "wait_seconds",
     .type = STAT_HISTOGRAM,
     .help = "Wait.",
     .labels = {"route"},
     .buckets = bounds},
    {.name = "bare_seconds", .type = STAT_HISTOGRAM, .help = "Bare.", .buckets = bounds},
    {.name = "unseen", .type = STAT_GAUGE, .help = "Never.", .labels = {"x"}},
};
enum { PLAIN, BY_TWO, WAIT, BARE, UNSEEN, FAMILY_COUNT };

/* The rendered text; free it. */
static char *render(const struct stats *stats) {
  struct wire_buffer buffer = {.data = NULL};
  assert_int_equal(prometheus_render(stats, &buffer), SPROUT_OK);
  char *text = malloc(buffer.length_bytes + 1);
  assert_non_null(text);
  memcpy(text, buffer.data, buffer.length_bytes);
  text[buffer.length_bytes] = '\0';
  free(buffer.data);
  return text;
}

static void text_is_as_the_format_asks(void **state) {
  (void)state;
  struct stats *stats = stats_create(families, FAMILY_COUNT);
  stats_add(stats, PLAIN, NULL, 123456789012345);
  stats_set(stats, BY_TWO, STAT_LABELS("q\"\\\n", "\xC3\xA4"), 0.1);
  stats_set(stats, BY_TWO, STAT_LABELS(NULL, "-"), -INFINITY);
  stats_set(stats, BY_TWO, STAT_LABELS("n", "n"), NAN);
  stats_observe(stats, WAIT, STAT_LABELS("/v1"), 0.001);
  stats_observe(stats, WAIT, STAT_LABELS("/v1"), 0.5);
  stats_observe(stats, WAIT, STAT_LABELS("/v1"), 2);
  char *text = render(stats);
  assert_string_equal(text, "# HELP sprout_plain_total Counts \\\\ things\\nand \"more\".\n"
                            "# TYPE sprout_plain_total counter\n"
                            "sprout_plain_total 123456789012345\n"
                            "# HELP sprout_by_two Two.\n"
                            "# TYPE sprout_by_two gauge\n"
                            "sprout_by_two{a=\"q\\\"\\\\\\n\",b=\"\xC3\xA4\"} 0.1\n"
                            "sprout_by_two{a=\"\",b=\"-\"} -Inf\n"
                            "sprout_by_two{a=\"n\",b=\"n\"} NaN\n"
                            "# HELP sprout_wait_seconds Wait.\n"
                            "# TYPE sprout_wait_seconds histogram\n"
                            "sprout_wait_seconds_bucket{route=\"/v1\",le=\"0.001\"} 1\n"
                            "sprout_wait_seconds_bucket{route=\"/v1\",le=\"1\"} 2\n"
                            "sprout_wait_seconds_bucket{route=\"/v1\",le=\"+Inf\"} 3\n"
                            "sprout_wait_seconds_sum{route=\"/v1\"} 2.501\n"
                            "sprout_wait_seconds_count{route=\"/v1\"} 3\n"
                            "# HELP sprout_bare_seconds Bare.\n"
                            "# TYPE sprout_bare_seconds histogram\n"
                            "sprout_bare_seconds_bucket{le=\"0.001\"} 0\n"
                            "sprout_bare_seconds_bucket{le=\"1\"} 0\n"
                            "sprout_bare_seconds_bucket{le=\"+Inf\"} 0\n"
                            "sprout_bare_seconds_sum 0\n"
                            "sprout_bare_seconds_count 0\n");
  free(text);
  stats_destroy(stats);
}

static void numbers_read_back_as_themselves(void **state) {
  (void)state;
  static const double numbers[] = {0.1 + 0.2, 1.0 / 3, 1e300, 5e-324, 18446744073709551615.0, -0.5};
  struct stats *stats = stats_create(families, FAMILY_COUNT);
  for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
    stats_set(stats, BY_TWO, STAT_LABELS("x", "y"), numbers[i]);
    char *text = render(stats), *at = strstr(text, "b=\"y\"} ");
    assert_non_null(at);
    assert_true(strtod(at + strlen("b=\"y\"} "), NULL) == numbers[i]);
    free(text);
  }
  stats_destroy(stats);
}

static void the_buffer_is_appended_to_and_grows(void **state) {
  (void)state;
  struct stats *stats = stats_create(families, FAMILY_COUNT);
  char label[2000];
  memset(label, 'x', sizeof(label));
  label[sizeof(label) - 1] = '\0';
  for (char c = 'a'; c < 'z'; c++) {
    label[0] = c;
    stats_set(stats, BY_TWO, STAT_LABELS(label, label), 1);
  }
  struct wire_buffer buffer = {.data = NULL};
  assert_int_equal(prometheus_render(stats, &buffer), SPROUT_OK);
  size_t once = buffer.length_bytes;
  assert_true(once > 2 * 25 * sizeof(label));
  assert_int_equal(prometheus_render(stats, &buffer), SPROUT_OK);
  assert_int_equal(buffer.length_bytes, 2 * once);
  assert_memory_equal(buffer.data, buffer.data + once, once);
  free(buffer.data);
  stats_destroy(stats);
}

/* Every family with every kind of label at once: what promtool would refuse shows here. */
static struct stats *full_table(void) {
  struct stats *stats = stats_create(stats_table, STAT_COUNT);
  assert_non_null(stats);
  for (uint32_t i = 0; i < STAT_COUNT; i++) {
    if (stats_table[i].type == STAT_HISTOGRAM)
      stats_observe(stats, i, STAT_LABELS("x", "y", "z"), 0.02);
    else
      stats_add(stats, i, STAT_LABELS("x", "y", "z"), 1.5);
  }
  stats_collect_process(stats);
  return stats;
}

static void promtool_has_nothing_to_say(void **state) {
  (void)state;
  if (system("command -v promtool >/dev/null 2>&1") != 0) {
    print_message("promtool is not installed\n");
    skip();
  }
  struct stats *stats = full_table();
  char *text = render(stats);
  FILE *tool = popen("promtool check metrics 2>&1", "w");
  assert_non_null(tool);
  assert_int_equal(fputs(text, tool) >= 0, 1);
  assert_int_equal(pclose(tool), 0);
  free(text);
  stats_destroy(stats);
}

static void the_locale_of_the_host_program_does_not_matter(void **state) {
  (void)state;
  struct stats *stats = stats_create(families, FAMILY_COUNT);
  stats_add(stats, PLAIN, NULL, 0.5);
  char *before = render(stats);
  /* Where no such locale is installed the comparison still holds. */
  (void)setlocale(LC_NUMERIC, "de_DE.UTF-8");
  char *after = render(stats);
  (void)setlocale(LC_NUMERIC, "C");
  assert_string_equal(before, after);
  assert_non_null(strstr(after, "sprout_plain_total 0.5\n"));
  free(before);
  free(after);
  stats_destroy(stats);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(text_is_as_the_format_asks),
      cmocka_unit_test(numbers_read_back_as_themselves),
      cmocka_unit_test(the_buffer_is_appended_to_and_grows),
      cmocka_unit_test(promtool_has_nothing_to_say),
      cmocka_unit_test(the_locale_of_the_host_program_does_not_matter),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
