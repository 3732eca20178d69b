/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/stats_table.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const double bounds[] = {1, 10, 100, 0};
static const struct stat_family families[] = {
    {.name = "plain_total", .type = STAT_COUNTER, .help = "x"},
    {.name = "by_two", .type = STAT_GAUGE, .help = "x", .labels = {"a", "b"}},
    {.name = "seconds", .type = STAT_HISTOGRAM, .help = "x", .labels = {"a"}, .buckets = bounds},
};
enum { PLAIN, BY_TWO, SECONDS, FAMILY_COUNT };

static int setup(void **state) {
  *state = stats_create(families, FAMILY_COUNT);
  return *state == NULL;
}

static int teardown(void **state) {
  stats_destroy(*state);
  return 0;
}

static double value_of(struct stats *stats, uint32_t family, uint32_t index) {
  struct stat_series series;
  assert_true(stats_series(stats, family, index, &series));
  return series.value;
}

static void counters_add_and_start_at_zero(void **state) {
  struct stat_series series;
  assert_true(value_of(*state, PLAIN, 0) == 0);
  stats_add(*state, PLAIN, NULL, 2);
  stats_add(*state, PLAIN, STAT_LABELS(NULL), 0.5);
  assert_true(value_of(*state, PLAIN, 0) == 2.5);
  assert_false(stats_series(*state, PLAIN, 1, &series));
  assert_false(stats_series(*state, BY_TWO, 0, &series));
}

static void labels_are_copied_and_make_series(void **state) {
  char label[] = "one";
  stats_set(*state, BY_TWO, STAT_LABELS(label, "x"), 5);
  label[0] = 'O';
  stats_set(*state, BY_TWO, STAT_LABELS("one", "y"), 6);
  stats_add(*state, BY_TWO, STAT_LABELS("one", "x"), -1);
  stats_set(*state, BY_TWO, STAT_LABELS(NULL, "x"), 7);
  struct stat_series series;
  assert_true(stats_series(*state, BY_TWO, 0, &series));
  assert_string_equal(series.labels[0], "one");
  assert_string_equal(series.labels[1], "x");
  assert_null(series.labels[2]);
  assert_true(series.value == 4);
  assert_true(value_of(*state, BY_TWO, 1) == 6);
  assert_true(stats_series(*state, BY_TWO, 2, &series));
  assert_string_equal(series.labels[0], "");
  assert_false(stats_series(*state, BY_TWO, 3, &series));
}

static void histograms_count_into_the_right_bucket(void **state) {
  static const double values[] = {0, 1, 1.5, 10, 99, 100, 101, 1e9};
  double sum = 0;
  for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
    stats_observe(*state, SECONDS, STAT_LABELS("x"), values[i]);
    sum += values[i];
  }
  struct stat_series series;
  assert_true(stats_series(*state, SECONDS, 0, &series));
  assert_int_equal(series.count, 8);
  assert_true(series.value == sum);
  assert_int_equal(series.buckets[0], 2);
  assert_int_equal(series.buckets[1], 2);
  assert_int_equal(series.buckets[2], 2);
}

static void too_many_series_fold_into_other(void **state) {
  char label[16];
  for (unsigned i = 0; i < STATS_SERIES_MAX + 10; i++) {
    snprintf(label, sizeof(label), "%u", i);
    stats_add(*state, BY_TWO, STAT_LABELS(label, "x"), 1);
  }
  struct stat_series series;
  assert_true(stats_series(*state, BY_TWO, STATS_SERIES_MAX, &series));
  assert_string_equal(series.labels[0], "other");
  assert_string_equal(series.labels[1], "other");
  assert_true(series.value == 10);
  assert_false(stats_series(*state, BY_TWO, STATS_SERIES_MAX + 1, &series));
  stats_add(*state, BY_TWO, STAT_LABELS("3", "x"), 1);
  assert_true(value_of(*state, BY_TWO, 3) == 2);
}

static void nobody_observes_null(void **state) {
  (void)state;
  stats_add(NULL, PLAIN, NULL, 1);
  stats_set(NULL, PLAIN, NULL, 1);
  stats_observe(NULL, SECONDS, NULL, 1);
  stats_collect_process(NULL);
  stats_destroy(NULL);
}

enum { WRITES = 20000 };

static void *write_many(void *context) {
  char label[16];
  for (unsigned i = 0; i < WRITES; i++) {
    snprintf(label, sizeof(label), "%u", i % 50);
    stats_add(context, PLAIN, NULL, 1);
    stats_add(context, BY_TWO, STAT_LABELS(label, "x"), 1);
    stats_observe(context, SECONDS, STAT_LABELS(label), i);
  }
  return NULL;
}

/* Mostly for ThreadSanitizer: a reader sees whole series while another thread makes them. */
static void another_thread_may_read(void **state) {
  pthread_t writer;
  assert_int_equal(pthread_create(&writer, NULL, write_many, *state), 0);
  double last = 0;
  while (last < WRITES) {
    double now = value_of(*state, PLAIN, 0);
    assert_true(now >= last);
    last = now;
    struct stat_series series;
    for (uint32_t i = 0; stats_series(*state, BY_TWO, i, &series); i++)
      assert_string_equal(series.labels[1], "x");
  }
  assert_int_equal(pthread_join(writer, NULL), 0);
}

static void the_table_is_complete_and_consistent(void **state) {
  (void)state;
  for (size_t i = 0; i < STAT_COUNT; i++) {
    const struct stat_family *family = &stats_table[i];
    assert_non_null(family->name);
    assert_non_null(family->help);
    size_t length = strlen(family->name);
    assert_int_equal(strspn(family->name, "abcdefghijklmnopqrstuvwxyz_"), length);
    bool total = length > 6 && strcmp(family->name + length - 6, "_total") == 0;
    assert_int_equal(total, family->type == STAT_COUNTER);
    assert_int_equal(family->type == STAT_HISTOGRAM, stats_bucket_count(family) > 0);
    assert_true(stats_bucket_count(family) <= STATS_BUCKETS_MAX);
    for (uint32_t k = 1; k < stats_bucket_count(family); k++)
      assert_true(family->buckets[k] > family->buckets[k - 1]);
    for (size_t k = 0; k < i; k++) assert_string_not_equal(stats_table[k].name, family->name);
  }
}

static void the_process_is_sampled(void **state) {
  (void)state;
  struct stats *stats = stats_create(stats_table, STAT_COUNT);
  assert_non_null(stats);
  stats_collect_process(stats);
  stats_collect_process(stats);
  assert_true(value_of(stats, STAT_PROCESS_CPU_SECONDS, 0) > 0);
  assert_true(value_of(stats, STAT_PROCESS_RESIDENT_MEMORY_BYTES, 0) > 100000);
  assert_true(value_of(stats, STAT_PROCESS_OPEN_FDS, 0) >= 1);
  assert_true(value_of(stats, STAT_PROCESS_MAX_FDS, 0) >=
              value_of(stats, STAT_PROCESS_OPEN_FDS, 0));
  double started = value_of(stats, STAT_PROCESS_START_TIME_SECONDS, 0), now = (double)time(NULL);
  assert_true(started <= now + 2 && started > now - 3600);
  stats_destroy(stats);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(counters_add_and_start_at_zero, setup, teardown),
      cmocka_unit_test_setup_teardown(labels_are_copied_and_make_series, setup, teardown),
      cmocka_unit_test_setup_teardown(histograms_count_into_the_right_bucket, setup, teardown),
      cmocka_unit_test_setup_teardown(too_many_series_fold_into_other, setup, teardown),
      cmocka_unit_test(nobody_observes_null),
      cmocka_unit_test_setup_teardown(another_thread_may_read, setup, teardown),
      cmocka_unit_test(the_table_is_complete_and_consistent),
      cmocka_unit_test(the_process_is_sampled),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
