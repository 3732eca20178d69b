/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/units.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static void sizes_parse(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t bytes;
  } rows[] = {
      {"0", 0},
      {"123", 123},
      {"7B", 7},
      {"4K", 4000},
      {"4k", 4000},
      {"4kB", 4000},
      {"4KiB", 4096},
      {"4Ki", 4096},
      {"4ki", 4096},
      {"200M", 200000000},
      {"64MiB", 64u << 20},
      {"1.5G", 1500000000},
      {"1.5GiB", 1610612736},
      {"0.5K", 500},
      {"0.0001K", 0},
      {"2T", 2000000000000},
      {"1Ti", UINT64_C(1) << 40},
      {"18446744073709551615", UINT64_MAX},
      {"16777215.999999Ti", UINT64_C(18446744073708452104)},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    uint64_t bytes = 1;
    assert_int_equal(units_parse_size(rows[i].text, &bytes), SPROUT_OK);
    assert_int_equal(bytes, rows[i].bytes);
  }
}

static void malformed_sizes_are_refused_and_leave_the_output(void **state) {
  (void)state;
  static const char *const rows[] = {"",
                                     " ",
                                     "-1",
                                     "+1",
                                     ".5",
                                     "5.",
                                     "1..2",
                                     "1.2.3",
                                     "K",
                                     "4X",
                                     "4 K",
                                     " 4",
                                     "4 ",
                                     "4KK",
                                     "4iB",
                                     "4Kbit",
                                     "0x10",
                                     "1e3",
                                     "inf",
                                     "nan",
                                     "4K/s",
                                     "25%",
                                     "18446744073709551616",
                                     "18446744073709552K",
                                     "16777216Ti",
                                     "0.1234567890123",
                                     "99999999999999999999999999",
                                     "1.99999999999999999999999999"};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    uint64_t bytes = 42;
    assert_int_equal(units_parse_size(rows[i], &bytes), SPROUT_INVALID);
    assert_int_equal(bytes, 42);
  }
}

static void rates_parse(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t bytes_per_second;
    uint32_t percent;
  } rows[] = {
      {"0", 0, 0},
      {"200M", 200000000, 0},
      {"200M/s", 200000000, 0},
      {"1GiB/s", 1u << 30, 0},
      {"10Gbit", 1250000000, 0},
      {"10gbit/s", 1250000000, 0},
      {"100Mbit", 12500000, 0},
      {"2.5Gbit", 312500000, 0},
      {"8bit", 1, 0},
      {"25%", 0, 25},
      {"1%", 0, 1},
      {"100%", 0, 100},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct units_rate rate;
    assert_int_equal(units_parse_rate(rows[i].text, &rate), SPROUT_OK);
    assert_int_equal(rate.bytes_per_second, rows[i].bytes_per_second);
    assert_int_equal(rate.percent, rows[i].percent);
  }
}

static void malformed_rates_are_refused(void **state) {
  (void)state;
  static const char *const rows[] = {"",
                                     "12X",
                                     "%",
                                     "0%",
                                     "101%",
                                     "-5%",
                                     "2.5%",
                                     "25%%",
                                     "/s",
                                     "5/s/s",
                                     "5/m",
                                     "7bit",
                                     "bit",
                                     "5 Gbit",
                                     "5Gibit",
                                     "25%/s",
                                     "18446744073709551616%",
                                     "99999999Tbit"};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct units_rate rate;
    assert_int_equal(units_parse_rate(rows[i], &rate), SPROUT_INVALID);
  }
}

static void durations_parse(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t ns;
  } rows[] = {
      {"0", 0},           {"3", 3000000000},    {"0.5", 500000000},   {"500ms", 500000000},
      {"3s", 3000000000}, {"1.5s", 1500000000}, {"2m", 120000000000}, {"1h", 3600000000000},
      {"250us", 250000},  {"7ns", 7},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    uint64_t ns = 1;
    assert_int_equal(units_parse_duration(rows[i].text, &ns), SPROUT_OK);
    assert_int_equal(ns, rows[i].ns);
  }
  static const char *const bad[] = {"", "s", "-3s", "3 s", "3d", "2m3s", "6000000h", "1M s"};
  for (size_t i = 0; i < COUNT_OF(bad); i++) {
    uint64_t ns = 42;
    assert_int_equal(units_parse_duration(bad[i], &ns), SPROUT_INVALID);
    assert_int_equal(ns, 42);
  }
}

static void sizes_format(void **state) {
  (void)state;
  static const struct {
    uint64_t bytes;
    const char *text;
  } rows[] = {
      {0, "0 B"},
      {999, "999 B"},
      {1000, "1.00 kB"},
      {1005, "1.01 kB"},
      {9994, "9.99 kB"},
      {9996, "10.0 kB"},
      {99949, "99.9 kB"},
      {99950, "100 kB"},
      {999499, "999 kB"},
      {999500, "1.00 MB"},
      {1234567890, "1.23 GB"},
      {417000000, "417 MB"},
      {UINT64_MAX, "18.4 EB"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char buffer[32];
    assert_string_equal(units_format_size(rows[i].bytes, buffer, sizeof(buffer)), rows[i].text);
  }
  char small[4];
  assert_string_equal(units_format_size(1234567890, small, sizeof(small)), "1.2");
}

static void durations_format(void **state) {
  (void)state;
  static const struct {
    uint64_t ns;
    const char *text;
  } rows[] = {
      {0, "0ms"},
      {417999999, "417ms"},
      {1000000000, "1.0s"},
      {3460000000, "3.4s"},
      {9999999999, "9.9s"},
      {10000000000, "10s"},
      {59999999999, "59s"},
      {60000000000, "1m00s"},
      {123000000000, "2m03s"},
      {3600000000000, "1h00m"},
      {93840000000000, "26h04m"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char buffer[32];
    assert_string_equal(units_format_duration(rows[i].ns, buffer, sizeof(buffer)), rows[i].text);
  }
  char buffer[32];
  assert_string_equal(units_format_duration(UINT64_MAX, buffer, sizeof(buffer)), "5124095h34m");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes_parse),
      cmocka_unit_test(malformed_sizes_are_refused_and_leave_the_output),
      cmocka_unit_test(rates_parse),
      cmocka_unit_test(malformed_rates_are_refused),
      cmocka_unit_test(durations_parse),
      cmocka_unit_test(sizes_format),
      cmocka_unit_test(durations_format),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
