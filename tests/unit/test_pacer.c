/* SPDX-License-Identifier: Apache-2.0 */
#include "core/pacer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#define SECOND 1000000000u

static uint64_t roll(uint64_t *random) {
  *random ^= *random << 13;
  *random ^= *random >> 7;
  *random ^= *random << 17;
  return *random;
}

/*
 * Sends pieces as soon as they are allowed, waking at exactly the times it is told: over any window
 * the bytes are the rate times the time, plus at most the burst and one piece.
 */
static void check_rate(uint64_t rate, uint64_t burst, uint64_t piece) {
  uint64_t start_ns = 123456789, now_ns = start_ns, sent = 0, random = rate + 99;
  struct pacer pacer;
  pacer_init(&pacer, rate, burst, now_ns);
  for (int i = 0; i < 20000; i++) {
    uint64_t bytes = 1 + roll(&random) % piece;
    uint64_t ready_ns = pacer_ready_at(&pacer, bytes, now_ns);
    assert_true(ready_ns >= now_ns);
    now_ns = ready_ns;
    assert_true(pacer_allowance(&pacer, now_ns) >= (bytes < burst ? bytes : burst));
    pacer_spend(&pacer, bytes);
    sent += bytes;
    double allowed = (double)(now_ns - start_ns) * (double)rate / SECOND;
    assert_true((double)sent <= allowed * (1 + 1e-12) + (double)(burst + piece));
  }
  double seconds = (double)(now_ns - start_ns) / SECOND;
  double missed = seconds * (double)rate - (double)sent;
  /* Waking on a ns grid costs less than one ns of the rate each time. */
  assert_true(missed <= 1 + 20000.0 * (double)rate / SECOND);
}

static void test_rates(void **state) {
  (void)state;
  static const uint64_t rates[] = {1,           7,      1000,       999983,      1000000,
                                   125000000,   SECOND, SECOND + 1, 12500000000, 100000000000,
                                   99999999977u};
  for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
    check_rate(rates[i], 1, 10);
    check_rate(rates[i], 65536, 65536);
    check_rate(rates[i], 4 << 20, 1 << 20);
    check_rate(rates[i], 1000, 1000000); /* pieces beyond the burst overdraw */
  }
}

/* Looking often loses no fraction of a byte. */
static void test_remainder(void **state) {
  (void)state;
  static const uint64_t rates[] = {1, 3, 999, 1000003, 100000000007u};
  for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
    struct pacer pacer;
    uint64_t random = 5, now_ns = 0, sent = 0;
    pacer_init(&pacer, rates[i], 1u << 30, now_ns);
    pacer_spend(&pacer, pacer_allowance(&pacer, now_ns));
    for (int k = 0; k < 100000; k++) {
      now_ns += roll(&random) % 1000000;
      uint64_t bytes = pacer_allowance(&pacer, now_ns);
      pacer_spend(&pacer, bytes);
      sent += bytes;
    }
    __extension__ unsigned __int128 exact = (unsigned __int128)now_ns * rates[i] / SECOND;
    assert_true(sent == (uint64_t)exact);
  }
}

static void test_no_limit(void **state) {
  (void)state;
  struct pacer pacer;
  pacer_init(&pacer, 0, 1000, 5);
  assert_true(pacer_allowance(&pacer, 5) == UINT64_MAX);
  pacer_spend(&pacer, UINT64_MAX);
  assert_int_equal(pacer_ready_at(&pacer, UINT64_MAX, 7), 7);
  pacer_set_rate(&pacer, 100, 10); /* what was sent before owes nothing */
  assert_int_equal(pacer_allowance(&pacer, 10), 1000);
  pacer_spend(&pacer, 1000);
  assert_int_equal(pacer_ready_at(&pacer, 100, 10), 10 + SECOND);
}

static void test_burst_and_debt(void **state) {
  (void)state;
  struct pacer pacer;
  pacer_init(&pacer, 1000, 500, 0);
  assert_int_equal(pacer_allowance(&pacer, 100 * (uint64_t)SECOND), 500);
  pacer_spend(&pacer, 2500); /* overdraws by two seconds */
  assert_int_equal(pacer_allowance(&pacer, 101 * (uint64_t)SECOND), 0);
  assert_int_equal(pacer_ready_at(&pacer, 1, 101 * (uint64_t)SECOND),
                   102 * (uint64_t)SECOND + 1000000);
  assert_int_equal(pacer_ready_at(&pacer, 9999, 101 * (uint64_t)SECOND), 102500000000u);
  pacer_spend(&pacer, UINT64_MAX);
  pacer_spend(&pacer, UINT64_MAX);
  assert_int_equal(pacer_allowance(&pacer, 103 * (uint64_t)SECOND), 0);
  pacer_init(&pacer, 10, 0, 0); /* a burst of nothing would never send */
  assert_int_equal(pacer_allowance(&pacer, 0), 1);
}

static void test_rate_change(void **state) {
  (void)state;
  struct pacer pacer;
  pacer_init(&pacer, 1000, 1000000, 0);
  pacer_spend(&pacer, 1000000);
  pacer_set_rate(&pacer, 2000, SECOND); /* the first second counts at the old rate */
  assert_int_equal(pacer_allowance(&pacer, SECOND), 1000);
  assert_int_equal(pacer_allowance(&pacer, 2 * (uint64_t)SECOND), 3000);
}

static void test_clock_jumps(void **state) {
  (void)state;
  struct pacer pacer;
  pacer_init(&pacer, 1000, 500, 10 * (uint64_t)SECOND);
  pacer_spend(&pacer, 500);
  /* Back: earns nothing, owes nothing, and earns nothing twice. */
  assert_int_equal(pacer_allowance(&pacer, SECOND), 0);
  assert_int_equal(pacer_ready_at(&pacer, 100, SECOND), 10100000000u);
  assert_int_equal(pacer_allowance(&pacer, 10100000000u), 100);
  assert_int_equal(pacer_allowance(&pacer, 0), 100);
  assert_int_equal(pacer_allowance(&pacer, 10100000000u), 100);
  /* Ahead: a burst, no more. */
  assert_int_equal(pacer_allowance(&pacer, UINT64_MAX), 500);
  pacer_spend(&pacer, 500);
  assert_true(pacer_ready_at(&pacer, 500, UINT64_MAX) == UINT64_MAX);
  pacer_init(&pacer, UINT64_MAX, UINT64_MAX, 0);
  assert_true(pacer_allowance(&pacer, UINT64_MAX) > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rates),       cmocka_unit_test(test_remainder),
      cmocka_unit_test(test_no_limit),    cmocka_unit_test(test_burst_and_debt),
      cmocka_unit_test(test_rate_change), cmocka_unit_test(test_clock_jumps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
