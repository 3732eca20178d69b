/* SPDX-License-Identifier: Apache-2.0 */
#include "core/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MEMBERS_MAX 64u

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void check_division(uint64_t total, const struct share_member *members, uint32_t count) {
  uint64_t given = 0, wanted = 0, least_open = UINT64_MAX, most = 0;
  for (uint32_t i = 0; i < count; i++) {
    assert_true(members[i].grant <= members[i].demand);
    given += members[i].grant;
    wanted += members[i].demand;
    if (members[i].grant < members[i].demand && members[i].grant < least_open)
      least_open = members[i].grant;
    if (members[i].grant > most) most = members[i].grant;
  }
  assert_int_equal(given, wanted < total ? wanted : total);
  /* Max-min: nobody has more than an unsatisfied member, but for the odd unit. */
  if (least_open != UINT64_MAX) assert_true(most <= least_open + 1);
}

static void divides_by_hand(void **state) {
  (void)state;
  struct share_member members[3] = {{.demand = 10}, {.demand = 100}, {.demand = 1000}};
  share_divide(300, members, 3);
  assert_int_equal(members[0].grant, 10);
  assert_int_equal(members[1].grant, 100);
  assert_int_equal(members[2].grant, 190);
  share_divide(30, members, 3);
  for (int i = 0; i < 3; i++) assert_int_equal(members[i].grant, 10);
  share_divide(5, members, 3);
  check_division(5, members, 3);
  share_divide(0, members, 3);
  check_division(0, members, 3);
  share_divide(UINT64_MAX, members, 3);
  assert_int_equal(members[2].grant, 1000);
  share_divide(7, members, 0);
}

static void is_max_min_for_any_demands(void **state) {
  (void)state;
  uint64_t seed = 0x9e3779b97f4a7c15u;
  struct share_member members[MEMBERS_MAX];
  for (int round = 0; round < 20000; round++) {
    uint32_t count = 1 + (uint32_t)(next_random(&seed) % MEMBERS_MAX);
    uint64_t scale = 1ull << (next_random(&seed) % 40);
    for (uint32_t i = 0; i < count; i++)
      members[i].demand = next_random(&seed) % 4 == 0 ? 0 : next_random(&seed) % scale;
    uint64_t total = next_random(&seed) % (scale * count + 1);
    share_divide(total, members, count);
    check_division(total, members, count);
  }
}

static void windows_stay_within_bounds(void **state) {
  (void)state;
  const struct share_limits limits = {.total = 1000, .most = 100, .least = 8};
  assert_int_equal(share_window(&limits, 0), 100);
  assert_int_equal(share_window(&limits, 1), 100);
  assert_int_equal(share_window(&limits, 10), 100);
  assert_int_equal(share_window(&limits, 20), 50);
  assert_int_equal(share_window(&limits, 1000), 8);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(divides_by_hand),
      cmocka_unit_test(is_max_min_for_any_demands),
      cmocka_unit_test(windows_stay_within_bounds),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
