/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON for programs, and a seed's JSON for people.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/json_line.h"
#include "cli/json_status.h"
#include "cli/json_text.h"

#include <stdlib.h>
#include <string.h>

static char *text;
static size_t text_length;

static FILE *open_text(void) {
  free(text);
  text = NULL;
  FILE *out = open_memstream(&text, &text_length);
  assert_non_null(out);
  return out;
}

/* Everything written must be one line of JSON. */
static json_t *close_line(FILE *out) {
  assert_int_equal(fclose(out), 0);
  assert_int_equal(strcspn(text, "\n") + 1, strlen(text));
  json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
  assert_true(json_is_object(object));
  return object;
}

static const char *string_at(const json_t *object, const char *key) {
  const char *value = json_string_value(json_object_get(object, key));
  assert_non_null(value);
  return value;
}

static json_int_t integer_at(const json_t *object, const char *key) {
  assert_true(json_is_integer(json_object_get(object, key)));
  return json_integer_value(json_object_get(object, key));
}

static void a_result_has_every_documented_key(void **state) {
  (void)state;
  static struct progress_snapshot last = {.total_bytes = 100,
                                          .done_bytes = 100,
                                          .received_bytes = 60,
                                          .reused_bytes = 40,
                                          .retries = 2,
                                          .source_count = 1};
  struct sprout_fork_result result = {.status = SPROUT_OK,
                                      .verified = SPROUT_VERIFIED_XXH3,
                                      .seconds = 1.25,
                                      .generation = 3,
                                      .manifest_id = "abc",
                                      .label = "step-1"};
  snprintf(last.sources[0].url, sizeof(last.sources[0].url), "http://x");
  snprintf(last.sources[0].state, sizeof(last.sources[0].state), "closed");
  FILE *out = open_text();
  json_line_result(out, &(struct json_result){.result = &result, .last = &last, .exit_code = 0});
  json_t *object = close_line(out);
  assert_string_equal(string_at(object, "type"), "result");
  assert_string_equal(string_at(object, "result"), "complete");
  assert_string_equal(string_at(object, "reason"), "");
  assert_string_equal(string_at(object, "verified"), "xxh3-128");
  assert_string_equal(string_at(object, "manifest_id"), "abc");
  assert_string_equal(string_at(object, "label"), "step-1");
  assert_int_equal(integer_at(object, "bytes"), 100);
  assert_int_equal(integer_at(object, "reused_bytes"), 40);
  assert_int_equal(integer_at(object, "received_bytes"), 60);
  assert_int_equal(integer_at(object, "retries"), 2);
  assert_int_equal(integer_at(object, "generation"), 3);
  assert_int_equal(integer_at(object, "exit_code"), 0);
  assert_true(json_real_value(json_object_get(object, "seconds")) == 1.25);
  assert_int_equal(json_array_size(json_object_get(object, "sources")), 1);
  json_decref(object);
}

static void failures_and_cancellations_are_told_apart(void **state) {
  (void)state;
  static const struct progress_snapshot last = {.total_bytes = 0};
  static const struct {
    enum sprout_status status;
    const char *result, *reason;
  } cases[] = {{SPROUT_CANCELLED, "cancelled", "cancelled"},
               {SPROUT_STALLED, "failed", "stalled"},
               {SPROUT_MISMATCH, "failed", "mismatch"}};
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct sprout_fork_result result = {.status = cases[i].status};
    (void)sprout_error_set(&result.error, cases[i].status, 0, "Do.", "It broke.");
    FILE *out = open_text();
    json_line_result(out, &(struct json_result){.result = &result, .last = &last, .exit_code = 4});
    json_t *object = close_line(out);
    assert_string_equal(string_at(object, "result"), cases[i].result);
    assert_string_equal(string_at(object, "reason"), cases[i].reason);
    assert_string_equal(string_at(object, "message"), "It broke.");
    assert_string_equal(string_at(object, "hint"), "Do.");
    assert_string_equal(string_at(object, "verified"), "none");
    json_decref(object);
  }
}

static void text_that_is_not_utf8_still_makes_a_line(void **state) {
  (void)state;
  struct progress_source source = {.url = "file:///\xff", .state = "reading"};
  FILE *out = open_text();
  json_line_source(out, &source);
  json_t *object = close_line(out);
  assert_string_equal(string_at(object, "url"), "file:///?");
  json_decref(object);
}

static void large_numbers_do_not_turn_negative(void **state) {
  (void)state;
  FILE *out = open_text();
  json_line_differs(out, "f", UINT64_MAX, 1);
  json_t *object = close_line(out);
  assert_true(integer_at(object, "wrong_bytes") == INT64_MAX);
  json_decref(object);
}

static void ready_drain_and_error_are_typed(void **state) {
  (void)state;
  FILE *out = open_text();
  json_line_ready(out,
                  &(struct json_ready){.url = "http://x", .model = "m", .id = "i", .bytes = 5});
  json_t *object = close_line(out);
  assert_string_equal(string_at(object, "type"), "ready");
  assert_true(json_is_null(json_object_get(object, "admin_url")));
  json_decref(object);
  out = open_text();
  json_line_drain(out, 2, 1);
  object = close_line(out);
  assert_int_equal(integer_at(object, "forks_running"), 2);
  json_decref(object);
  struct sprout_error error;
  (void)sprout_error_set(&error, SPROUT_DENIED, 0, "Ask.", "no \"token\"");
  out = open_text();
  json_line_error(out, &error);
  object = close_line(out);
  assert_string_equal(string_at(object, "code"), "denied");
  assert_string_equal(string_at(object, "message"), "no \"token\"");
  json_decref(object);
}

/* --- a seed's status --- */

static const struct terminal plain = {.fd = -1};

static const char status_text[] =
    "{\"ready\":true,\"draining\":false,\"listen\":\"127.0.0.1:7117\",\"version\":\"0.1.0\","
    "\"uptime_seconds\":125.5,\"manifest\":{\"id\":\"00ff\",\"identity\":{\"model\":"
    "\"mini\\u001b\"},"
    "\"version\":{\"generation\":2,\"label\":\"step-9\"},\"total_bytes\":4100000000,"
    "\"object_count\":103,\"file_count\":7},\"forks\":{\"running\":1,\"queued\":1,\"finished\":4,"
    "\"limit\":64},\"undigested_bytes\":1000000,\"sent_bytes\":8200000000,"
    "\"rate_limit_bytes_per_second\":200000000,\"rdma\":{\"open\":true,\"registered_bytes\":"
    "1000000000,"
    "\"total_bytes\":4100000000,\"connections\":2,\"forks\":1,\"rails\":[{\"device\":\"mlx5_0\","
    "\"port\":1,"
    "\"address\":\"192.0.2.1\",\"listens\":40000,\"up\":true,\"connections\":2,"
    "\"bits_per_second\":400000000000},{\"device\":\"rxe\\u001b\",\"port\":2,\"address\":\"2001:"
    "db8::1\","
    "\"listens\":0,\"up\":false,\"connections\":0,\"bits_per_second\":0}]}}";

static const char forks_text[] =
    "{\"forks\":[{\"id\":\"0123456789abcdef\",\"state\":\"running\",\"peer\":\"10.0.0.9:4000\","
    "\"seconds\":2.5,\"received_bytes\":2050000000,\"total_bytes\":4100000000,"
    "\"rate_bytes_per_second\":820000000,\"eta_seconds\":2.5,\"transport\":\"rdma\"},"
    "{\"id\":\"1123456789abcdef\",\"state\":\"queued\",\"peer\":\"10.0.0.10:4000\",\"seconds\":1,"
    "\"received_bytes\":0,\"total_bytes\":0,\"rate_bytes_per_second\":0,\"position\":1},"
    "{\"id\":\"2123456789abcdef\",\"state\":\"closed\",\"peer\":\"10.0.0.11:4000\",\"seconds\":70,"
    "\"received_bytes\":5,\"total_bytes\":10,\"result\":\"stalled\",\"reason\":\"slow\"}]}";

static void a_status_is_laid_out_for_people(void **state) {
  (void)state;
  struct sprout_error error;
  FILE *out = open_text();
  assert_int_equal(json_status_print(out, status_text, forks_text, &plain, &error), SPROUT_OK);
  assert_int_equal(fclose(out), 0);
  assert_string_equal(
      text,
      "seed      127.0.0.1:7117, ready, up 2m05s, sprout 0.1.0\n"
      "model     mini?  00ff\n"
      "          7 files, 103 objects, 4.10 GB, generation 2, label step-9\n"
      "sent      8.20 GB, at most 200 MB/s; digests missing for 1.00 MB\n"
      "forks     1 of 64 running, 1 queued, 4 finished\n"
      "rdma      1.00 GB of 4.10 GB registered, 2 connections of 1 forks\n"
      "          mlx5_0 port 1, 192.0.2.1, listens on 40000, 400 Gbit/s, up, 2 connections\n"
      "          rxe? port 2, 2001:db8::1, down, 0 connections\n"
      "\n"
      "FORK      STATE    BY    PEER            DONE    BYTES      RATE   TIME\n"
      "01234567  running  rdma  10.0.0.9:4000    50%  2.05 GB  820 MB/s   2.5s  2.5s left\n"
      "11234567  queued         10.0.0.10:4000     -      0 B             1.0s  position 1\n"
      "21234567  closed         10.0.0.11:4000   50%      5 B            1m10s  stalled: slow\n");
}

static void strange_answers_are_survived(void **state) {
  (void)state;
  static const char *const rows[] = {
      "{}",
      "{\"manifest\":5,\"forks\":[],\"ready\":\"yes\",\"uptime_seconds\":-1e300}",
      "{\"sent_bytes\":-5,\"uptime_seconds\":1e300,\"undigested_bytes\":1e300}",
      ("{\"forks\":[1,null,{},{\"id\":7,\"rate_bytes_per_second\":9223372036854775807,"
       "\"state\":\"running\",\"received_bytes\":9223372036854775807,\"total_bytes\":1}]}"),
      "{\"forks\":{\"running\":\"many\"},\"version\":[\"x\"]}",
      "{\"rdma\":{\"open\":true,\"rails\":[5,{\"up\":1,\"device\":7}]}}",
      "{\"rdma\":{\"open\":false,\"reason\":\"none here\"}}",
      "{\"rdma\":[]}",
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct sprout_error error;
    FILE *out = open_text();
    assert_int_equal(json_status_print(out, rows[i], rows[i], &plain, &error), SPROUT_OK);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, "seed "));
  }
}

static void answers_that_are_not_json_are_refused(void **state) {
  (void)state;
  static const char *const rows[] = {"", "[]", "5", "{", "<html>", "{\"a\":1,\"a\":2}"};
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    struct sprout_error error;
    FILE *out = open_text();
    assert_int_equal(json_status_print(out, rows[i], forks_text, &plain, &error), SPROUT_PROTOCOL);
    assert_int_equal(json_status_print(out, "{}", rows[i], &plain, &error), SPROUT_PROTOCOL);
    assert_int_equal(json_status_merge(out, "{}", rows[i], &error), SPROUT_PROTOCOL);
    assert_int_equal(fclose(out), 0);
    assert_string_equal(text, "");
  }
}

static void both_documents_become_one(void **state) {
  (void)state;
  struct sprout_error error;
  FILE *out = open_text();
  assert_int_equal(json_status_merge(out, status_text, forks_text, &error), SPROUT_OK);
  json_t *object = close_line(out);
  assert_true(json_is_true(json_object_get(json_object_get(object, "status"), "ready")));
  assert_int_equal(json_array_size(json_object_get(object, "forks")), 3);
  json_decref(object);
  out = open_text();
  assert_int_equal(json_status_merge(out, "{}", "{}", &error), SPROUT_OK);
  object = close_line(out);
  assert_int_equal(json_array_size(json_object_get(object, "forks")), 0);
  json_decref(object);
}

static int free_text(void **state) {
  (void)state;
  free(text);
  text = NULL;
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_result_has_every_documented_key),
      cmocka_unit_test(failures_and_cancellations_are_told_apart),
      cmocka_unit_test(text_that_is_not_utf8_still_makes_a_line),
      cmocka_unit_test(large_numbers_do_not_turn_negative),
      cmocka_unit_test(ready_drain_and_error_are_typed),
      cmocka_unit_test(a_status_is_laid_out_for_people),
      cmocka_unit_test(strange_answers_are_survived),
      cmocka_unit_test(answers_that_are_not_json_are_refused),
      cmocka_unit_test(both_documents_become_one),
  };
  return cmocka_run_group_tests(tests, NULL, free_text);
}
