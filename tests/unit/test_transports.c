/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/transports.h"

#include <string.h>

static void lists_are_read(void **state) {
  (void)state;
  static const struct {
    const char *list;
    struct transports transports;
  } cases[] = {
      {NULL, {true, true, true}},        {"", {true, true, true}},
      {"auto", {true, true, true}},      {"tcp", {true, false, false}},
      {"rdma", {false, true, false}},    {"rdma,tcp", {true, true, false}},
      {"tcp,rdma", {true, true, false}}, {"tcp,tcp", {true, false, false}},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct transports got;
    struct sprout_error error;
    assert_int_equal(transports_parse(cases[i].list, &got, &error), SPROUT_OK);
    assert_int_equal(got.tcp, cases[i].transports.tcp);
    assert_int_equal(got.rdma, cases[i].transports.rdma);
    assert_int_equal(got.automatic, cases[i].transports.automatic);
  }
}

static void other_words_are_named(void **state) {
  (void)state;
  static const struct {
    const char *list, *message;
  } cases[] = {{",", "'' is not"},      {"tcp,", "'' is not"},   {",tcp", "'' is not"},
               {"tcpx", "'tcpx' is"},   {"auto,tcp", "'auto'"},  {"rdma,ipc", "'ipc' is"},
               {"tc", "'tc' is not a"}, {"rdma tcp", "'rdma t"}, {"RDMA", "'RDMA' is"}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct transports got;
    struct sprout_error error;
    assert_int_equal(transports_parse(cases[i].list, &got, &error), SPROUT_INVALID);
    assert_non_null(strstr(error.message, cases[i].message));
  }
}

static void gid_indexes_are_one_more_in_options(void **state) {
  (void)state;
  static const struct {
    int32_t option, index;
    enum sprout_status status;
  } cases[] = {{0, -1, SPROUT_OK},
               {1, 0, SPROUT_OK},
               {4, 3, SPROUT_OK},
               {65536, 65535, SPROUT_OK},
               {65537, 0, SPROUT_INVALID},
               {-1, 0, SPROUT_INVALID},
               {INT32_MIN, 0, SPROUT_INVALID}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct sprout_error error;
    int32_t index = 0;
    assert_int_equal(transports_gid_index(cases[i].option, &index, &error), cases[i].status);
    assert_int_equal(index, cases[i].index);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(lists_are_read),
      cmocka_unit_test(other_words_are_named),
      cmocka_unit_test(gid_indexes_are_one_more_in_options),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
