/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/rdma_grant.h"

#include <string.h>

#define MIB (1ull << 20)
#define S 1000000000ull

static void one_window_is_divided(void **state) {
  (void)state;
  static const struct {
    uint64_t inflight;
    uint32_t forks;
    uint64_t window;
  } cases[] = {{64 * MIB, 0, 8 * MIB},   {64 * MIB, 1, 8 * MIB},    {2 * MIB, 1, 2 * MIB},
               {64 * MIB, 2, 4 * MIB},   {64 * MIB, 16, MIB / 2},   {64 * MIB, 32, MIB / 4},
               {64 * MIB, 64, MIB / 4},  {64 * MIB, 4096, MIB / 4}, {64 << 10, 1, 64 << 10},
               {64 << 10, 64, 64 << 10}, {UINT64_MAX, 1, 8 * MIB}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
    assert_int_equal(rdma_grant_window(cases[i].inflight, cases[i].forks), cases[i].window);
}

static void a_cap_holds_for_both_transports_together(void **state) {
  (void)state;
  static const uint64_t caps[] = {1000, 1000000, 1000000000, 50000000000, UINT64_MAX / 2};
  for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
    for (uint32_t forks = 1; forks <= 64; forks++) {
      for (uint32_t rdma = 0; rdma <= forks; rdma++) {
        struct rdma_rates rates = rdma_grant_rates(caps[i], forks, rdma);
        assert_true(rates.each > 0 && rates.rest > 0);
        if (rdma == 0) {
          assert_int_equal(rates.rest, caps[i]);
          continue;
        }
        assert_true(rates.rest <= caps[i] - rates.each * rdma);
        /* Nearly all of it is given out, and nobody is better off than by an equal share. */
        assert_true(rates.each <= caps[i] / forks + 1);
        assert_true(rates.each >= caps[i] / forks - caps[i] / 100 / rdma - 1);
      }
    }
  }
  struct rdma_rates none = rdma_grant_rates(0, 3, 2);
  assert_int_equal(none.each, 0);
  assert_int_equal(none.rest, 0);
  struct rdma_rates tiny = rdma_grant_rates(1, 4, 4);
  assert_int_equal(tiny.each, 1);
  assert_int_equal(tiny.rest, 1);
}

static void the_larger_of_two_windows_counts(void **state) {
  (void)state;
  char reason[96] = "";
  struct rdma_grant grant = {.judging = false};
  rdma_grant_given(&grant, 8 * MIB, 0);
  assert_true(rdma_grant_judge(&grant, 8 * MIB + RDMA_REQUEST_BYTES, 0, S, reason, sizeof(reason)));
  assert_false(
      rdma_grant_judge(&grant, 8 * MIB + RDMA_REQUEST_BYTES + 1, 0, S, reason, sizeof(reason)));
  assert_non_null(strstr(reason, "MB are granted"));
  rdma_grant_given(&grant, MIB, 0);
  assert_true(rdma_grant_judge(&grant, 8 * MIB + RDMA_REQUEST_BYTES, 0, S, reason, sizeof(reason)));
  rdma_grant_given(&grant, MIB, 0);
  assert_false(
      rdma_grant_judge(&grant, 8 * MIB + RDMA_REQUEST_BYTES, 0, 3 * S, reason, sizeof(reason)));
  assert_true(rdma_grant_judge(&grant, MIB + RDMA_REQUEST_BYTES, 0, 3 * S, reason, sizeof(reason)));
  assert_false(rdma_grant_judge(&grant, UINT64_MAX, 0, 3 * S, reason, sizeof(reason)));
}

/* Heartbeats that follow each other faster than reads end: the window goes down step by step while
 * what was posted under the first one is still under way. */
static void a_window_that_shrinks_fast_leaves_time(void **state) {
  (void)state;
  char reason[96] = "";
  struct rdma_grant grant = {.judging = false};
  rdma_grant_given(&grant, 8 * MIB, 0);
  assert_true(rdma_grant_judge(&grant, 8 * MIB, 0, S, reason, sizeof(reason)));
  for (uint64_t i = 1; i <= 8; i++) {
    rdma_grant_given(&grant, 8 * MIB >> i, 0);
    assert_true(rdma_grant_judge(&grant, 8 * MIB, 0, S + i * S / 5, reason, sizeof(reason)));
  }
  assert_false(rdma_grant_judge(&grant, 8 * MIB + RDMA_REQUEST_BYTES + 1, 0, S + 8 * S / 5, reason,
                                sizeof(reason)));
  assert_false(rdma_grant_judge(&grant, 8 * MIB, 0, 4 * S, reason, sizeof(reason)));
  /* Who has come down stays down. */
  rdma_grant_given(&grant, 8 * MIB, 0);
  assert_true(rdma_grant_judge(&grant, 8 * MIB, 0, 5 * S, reason, sizeof(reason)));
  rdma_grant_given(&grant, MIB, 0);
  rdma_grant_given(&grant, MIB, 0);
  assert_true(rdma_grant_judge(&grant, MIB + RDMA_REQUEST_BYTES, 0, 5 * S, reason, sizeof(reason)));
  assert_false(rdma_grant_judge(&grant, 8 * MIB, 0, 5 * S, reason, sizeof(reason)));
}

static void a_rate_is_looked_at_over_two_seconds(void **state) {
  (void)state;
  char reason[96] = "";
  struct rdma_grant grant = {.judging = false};
  const uint64_t rate = 100000000, burst = RDMA_WINDOW_TOTAL_BYTES + RDMA_REQUEST_BYTES;
  rdma_grant_given(&grant, MIB, rate);
  /* The first report may carry what was read before. */
  assert_true(rdma_grant_judge(&grant, 0, UINT64_MAX / 2, S, reason, sizeof(reason)));
  grant.judged_bytes = 0;
  assert_true(rdma_grant_judge(&grant, 0, UINT64_MAX, 3 * S - 1, reason, sizeof(reason)));
  assert_true(rdma_grant_judge(&grant, 0, 250000000 + burst, 3 * S, reason, sizeof(reason)));
  uint64_t before = grant.judged_bytes;
  assert_false(
      rdma_grant_judge(&grant, 0, before + 250000000 + burst + 1, 5 * S, reason, sizeof(reason)));
  assert_non_null(strstr(reason, "/s"));
  /* A rate that was higher, or none, a part of the time. */
  rdma_grant_given(&grant, MIB, 2 * rate);
  rdma_grant_given(&grant, MIB, rate);
  assert_true(
      rdma_grant_judge(&grant, 0, before + 500000000 + burst, 5 * S, reason, sizeof(reason)));
  before = grant.judged_bytes;
  rdma_grant_given(&grant, MIB, 0);
  rdma_grant_given(&grant, MIB, rate);
  assert_true(rdma_grant_judge(&grant, 0, UINT64_MAX, 7 * S, reason, sizeof(reason)));
  /* What goes back counts for nothing. */
  assert_true(rdma_grant_judge(&grant, 0, before, 9 * S, reason, sizeof(reason)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_window_is_divided),
      cmocka_unit_test(a_cap_holds_for_both_transports_together),
      cmocka_unit_test(the_larger_of_two_windows_counts),
      cmocka_unit_test(a_window_that_shrinks_fast_leaves_time),
      cmocka_unit_test(a_rate_is_looked_at_over_two_seconds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
