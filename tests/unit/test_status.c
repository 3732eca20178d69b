/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sprout/status.h"

#include <string.h>

static void every_status_has_a_whole_row(void **state) {
  (void)state;
  for (int i = 0; i < SPROUT_STATUS_COUNT; i++) {
    const struct sprout_status_info *row = sprout_status_info_of((enum sprout_status)i);
    assert_non_null(row->name);
    assert_true(row->name[strspn(row->name, "abcdefghijklmnopqrstuvwxyz_")] == '\0');
    assert_true(strlen(row->name) >= 2);
    assert_non_null(row->summary);
    assert_true(strlen(row->summary) >= 4);
    assert_int_not_equal(row->summary[strlen(row->summary) - 1], '.');
    assert_true(row->http_status >= 200 && row->http_status < 600);
  }
}

static void names_are_distinct_and_found_again(void **state) {
  (void)state;
  for (int i = 0; i < SPROUT_STATUS_COUNT; i++)
    assert_int_equal(sprout_status_from_name(sprout_status_info_of((enum sprout_status)i)->name),
                     i);
  assert_int_equal(sprout_status_from_name("no such name"), SPROUT_INTERNAL);
  assert_int_equal(sprout_status_from_name(""), SPROUT_INTERNAL);
  assert_int_equal(sprout_status_from_name(NULL), SPROUT_INTERNAL);
}

static void columns_agree_with_each_other(void **state) {
  (void)state;
  static const int exits[] = {0, 2, 3, 4, 5, 6, 75, 130};
  for (int i = 0; i < SPROUT_STATUS_COUNT; i++) {
    const struct sprout_status_info *row = sprout_status_info_of((enum sprout_status)i);
    int known = 0;
    for (size_t k = 0; k < sizeof(exits) / sizeof(exits[0]); k++)
      known |= row->exit_code == exits[k];
    assert_true(known);
    assert_int_equal(row->exit_code == 0, i == SPROUT_OK);
    assert_int_equal(row->http_status < 400, i == SPROUT_OK);
    assert_int_equal(row->retry == SPROUT_RETRY_NONE, i == SPROUT_OK);
    /* What the same source may answer better soon, a script may try again too. */
    if (row->retry == SPROUT_RETRY_SAME_SOURCE || row->retry == SPROUT_RETRY_RESTART)
      assert_int_equal(row->exit_code, 75);
    /* Trouble of this machine cannot be cured by another source. */
    if (row->exit_code == 6) assert_int_equal(row->retry, SPROUT_RETRY_FATAL);
  }
}

static void the_wire_sees_the_statuses_of_the_protocol(void **state) {
  (void)state;
  static const struct {
    enum sprout_status status;
    int http;
  } rows[] = {{SPROUT_INVALID, 400},   {SPROUT_DENIED, 401},      {SPROUT_NOT_FOUND, 404},
              {SPROUT_METHOD, 405},    {SPROUT_STALE, 409},       {SPROUT_GONE, 410},
              {SPROUT_TOO_LARGE, 413}, {SPROUT_RANGE, 416},       {SPROUT_TOO_EARLY, 425},
              {SPROUT_BUSY, 429},      {SPROUT_OVER_WINDOW, 429}, {SPROUT_UNAVAILABLE, 503}};
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    assert_int_equal(sprout_status_info_of(rows[i].status)->http_status, rows[i].http);
}

static void an_unknown_value_is_internal(void **state) {
  (void)state;
  assert_ptr_equal(sprout_status_info_of(SPROUT_STATUS_COUNT),
                   sprout_status_info_of(SPROUT_INTERNAL));
  assert_ptr_equal(sprout_status_info_of((enum sprout_status) - 1),
                   sprout_status_info_of(SPROUT_INTERNAL));
}

static void error_set_fills_everything(void **state) {
  (void)state;
  struct sprout_error error;
  assert_int_equal(sprout_error_set(&error, SPROUT_IO, 5, "Do it.", "cannot write %s", "x"),
                   SPROUT_IO);
  assert_int_equal(error.status, SPROUT_IO);
  assert_int_equal(error.native, 5);
  assert_string_equal(error.message, "cannot write x");
  assert_string_equal(error.hint, "Do it.");
  assert_int_equal(sprout_error_set(NULL, SPROUT_BUSY, 0, NULL, "nobody reads this"), SPROUT_BUSY);
}

static void error_set_may_wrap_the_error_itself(void **state) {
  (void)state;
  struct sprout_error error;
  (void)sprout_error_set(&error, SPROUT_IO, 5, "Do it.", "inner");
  (void)sprout_error_set(&error, SPROUT_NO_SOURCE, error.native, error.hint, "outer: %s",
                         error.message);
  assert_string_equal(error.message, "outer: inner");
  assert_string_equal(error.hint, "Do it.");
}

static void error_set_cuts_between_characters(void **state) {
  (void)state;
  struct sprout_error error;
  char text[700];
  memset(text, 'a', sizeof(text));
  text[sizeof(text) - 1] = '\0';
  memcpy(text + 510, "\xE2\x82\xAC", 3); /* a euro sign over the end of the message */
  memcpy(text + 254, "\xE2\x82\xAC", 3); /* and one over the end of the hint */
  (void)sprout_error_set(&error, SPROUT_IO, 0, text, "%s", text);
  assert_int_equal(strlen(error.message), 510);
  assert_int_equal(strlen(error.hint), 254);
}

static void error_set_keeps_control_characters_out(void **state) {
  (void)state;
  struct sprout_error error;
  (void)sprout_error_set(&error, SPROUT_IO, 0, NULL, "evil %s", "\x1b[2J\x7f\r\n");
  assert_string_equal(error.message, "evil ?[2J??\n");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_status_has_a_whole_row),
      cmocka_unit_test(names_are_distinct_and_found_again),
      cmocka_unit_test(columns_agree_with_each_other),
      cmocka_unit_test(the_wire_sees_the_statuses_of_the_protocol),
      cmocka_unit_test(an_unknown_value_is_internal),
      cmocka_unit_test(error_set_fills_everything),
      cmocka_unit_test(error_set_may_wrap_the_error_itself),
      cmocka_unit_test(error_set_cuts_between_characters),
      cmocka_unit_test(error_set_keeps_control_characters_out),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
