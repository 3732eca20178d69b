/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/http_parser.h"
#include "net/http_target.h"

#include <stdio.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void targets_are_taken_apart(void **state) {
  (void)state;
  static const struct {
    const char *target, *path, *query; /* path NULL: refused */
  } cases[] = {
      {"/", "/", ""},
      {"/?", "/", ""},
      {"/a?b", "/a", "b"},
      {"/a%3fb?c%3fd?e", "/a?b", "c%3fd?e"},
      {"/%e4%bd%a0", "/\xe4\xbd\xa0", ""},
      {"/a/b/", "/a/b/", ""},
      {"http://h", "/", ""},
      {"http://h/", "/", ""},
      {"http://h?q", "/", "q"},
      {"HTTP://[::1]:7/a?q", "/a", "q"},
      {"http://h/..", NULL, NULL},
      {"http://", NULL, NULL},
      {"http:///a", NULL, NULL},
      {"https://h/a", NULL, NULL},
      {"a", NULL, NULL},
      {"?q", NULL, NULL},
      {"*", NULL, NULL},
      {"", NULL, NULL},
      {"/a#b", NULL, NULL},
      {"/a?b#c", NULL, NULL},
      {"//", NULL, NULL},
      {"/%2F", NULL, NULL},
      {"/%2e", NULL, NULL},
      {"/a/%2E%2e", NULL, NULL},
      {"/%", NULL, NULL},
      {"/%4", NULL, NULL},
      {"/%4g", NULL, NULL},
      {"/%g4", NULL, NULL},
      {"/%1f", NULL, NULL},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char target[64];
    const char *path = NULL, *query = NULL;
    (void)snprintf(target, sizeof(target), "%s", cases[i].target);
    const char *wrong = http_target_split(target, &path, &query);
    if ((wrong == NULL) != (cases[i].path != NULL)) fail_msg("%s", cases[i].target);
    if (wrong) continue;
    assert_string_equal(path, cases[i].path);
    assert_string_equal(query, cases[i].query);
  }
}

static void query_values_are_found(void **state) {
  (void)state;
  static const struct {
    const char *query, *name, *value;
  } cases[] = {
      {"a=1&b=2", "b", "2"},
      {"a=1&b=2", "a", "1"},
      {"ab=1&b=2", "b", "2"},
      {"a=x+y%20z", "a", "x y z"},
      {"a=%", "a", NULL},
      {"a=%4", "a", NULL},
      {"a=%41", "a", "A"},
      {"a=%00", "a", NULL},
      {"a=%0a", "a", NULL},
      {"a", "a", ""},
      {"a=", "a", ""},
      {"&&a=1", "a", "1"},
      {"", "a", NULL},
      {"b=a=1", "a", NULL},
      {"a=1&a=2", "a", "1"},
      {"a=%4&b=1", "b", "1"},
      {"a=1234567", "a", "1234567"},
      {"a=12345678", "a", NULL},
      {"a=%4&1", "a", NULL},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char value[8] = "";
    bool found = http_query_value(cases[i].query, cases[i].name, value, sizeof(value));
    assert_int_equal(found, cases[i].value != NULL);
    if (found) assert_string_equal(value, cases[i].value);
  }
}

static void ranges_are_read(void **state) {
  (void)state;
  static const struct {
    const char *header;
    uint64_t total;
    enum http_range_result result;
    uint64_t offset, length;
  } cases[] = {
      {NULL, 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes=0-0", 10, HTTP_RANGE_OK, 0, 1},
      {"bytes=0-9", 10, HTTP_RANGE_OK, 0, 10},
      {"bytes=0-99", 10, HTTP_RANGE_OK, 0, 10},
      {"BYTES=3-", 10, HTTP_RANGE_OK, 3, 7},
      {"bytes=-3", 10, HTTP_RANGE_OK, 7, 3},
      {"bytes=-99", 10, HTTP_RANGE_OK, 0, 10},
      {"bytes=-0", 10, HTTP_RANGE_UNSATISFIABLE, 0, 0},
      {"bytes=10-", 10, HTTP_RANGE_UNSATISFIABLE, 0, 0},
      {"bytes=0-", 0, HTTP_RANGE_UNSATISFIABLE, 0, 0},
      {"bytes=-1", 0, HTTP_RANGE_UNSATISFIABLE, 0, 0},
      {"bytes=3-2", 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes=0-1,3-4", 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes=", 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes=-", 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes=a-b", 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes= 0-1", 10, HTTP_RANGE_NONE, 0, 0},
      {"items=0-1", 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes=99999999999999999999-", 10, HTTP_RANGE_NONE, 0, 0},
      {"bytes=0-18446744073709551615", UINT64_MAX, HTTP_RANGE_OK, 0, UINT64_MAX},
      {"bytes=18446744073709551614-", UINT64_MAX, HTTP_RANGE_OK, UINT64_MAX - 1, 1},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    uint64_t offset = 0, length = 0;
    assert_int_equal(http_range_parse(cases[i].header, cases[i].total, &offset, &length),
                     cases[i].result);
    assert_int_equal(offset, cases[i].offset);
    assert_int_equal(length, cases[i].length);
  }
}

static void an_encoded_value_must_fit(void **state) {
  (void)state;
  char encoded[10], value[10];
  assert_true(http_query_encode("a%&", encoded, 8));
  assert_string_equal(encoded, "a%25%26");
  assert_true(http_query_value("x=1&n=a%25%26", "n", value, sizeof(value)));
  assert_string_equal(value, "a%&");
  assert_false(http_query_encode("a%&", encoded, 7));
  assert_false(http_query_encode("", encoded, 0));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(targets_are_taken_apart),
      cmocka_unit_test(query_values_are_found),
      cmocka_unit_test(ranges_are_read),
      cmocka_unit_test(an_encoded_value_must_fit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
