/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/progress.h"
#include "cli/progress_layout.h"

#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define MB UINT64_C(1000000)

static const struct layout_style wide = {.columns = 100};

static struct progress_snapshot reading(void) {
  struct progress_snapshot snapshot = {.elapsed_ns = 2 * SECOND,
                                       .total_bytes = 4100 * MB,
                                       .done_bytes = 1930 * MB,
                                       .received_bytes = 1930 * MB,
                                       .rate = 1210 * MB,
                                       .source_count = 2};
  snprintf(snapshot.sources[0].url, sizeof(snapshot.sources[0].url), "http://10.0.0.5:7117");
  snprintf(snapshot.sources[0].state, sizeof(snapshot.sources[0].state), "reading");
  snapshot.sources[0].received_bytes = 1200 * MB;
  snprintf(snapshot.sources[1].url, sizeof(snapshot.sources[1].url), "file:///m");
  snprintf(snapshot.sources[1].state, sizeof(snapshot.sources[1].state), "dropped");
  snprintf(snapshot.sources[1].dropped_reason, sizeof(snapshot.sources[1].dropped_reason),
           "no progress for 3 s");
  return snapshot;
}

static size_t seen_columns(const char *text) {
  size_t count = 0;
  for (; *text != '\0'; text++) {
    if (*text == '\x1b') {
      text = strchr(text, 'm');
      assert_non_null(text);
    } else
      count += ((unsigned char)*text & 0xC0) != 0x80;
  }
  return count;
}

static void permille_is_whole_only_at_the_end(void **state) {
  (void)state;
  assert_int_equal(layout_permille(0, 0), 0);
  assert_int_equal(layout_permille(999999, 1000000), 999);
  assert_int_equal(layout_permille(5, 5), 1000);
  assert_int_equal(layout_permille(UINT64_MAX - 1, UINT64_MAX), 999);
}

static void the_bar_says_what_matters(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot snapshot = reading();
  layout_bar_line(&snapshot, 1.8, "forking", &wide, line);
  assert_string_equal(line, "[##################......................]   47%  1.93 GB of 4.10 GB"
                            "  1.21 GB/s  2s left");
  layout_bar_line(&snapshot, -1, "forking", &wide, line);
  assert_null(strstr(line, "left"));
}

static void the_bar_fits_every_width_and_drops_the_least_important(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot snapshot = reading();
  for (unsigned columns = 20; columns < 200; columns++)
    for (int variant = 0; variant < 4; variant++) {
      struct layout_style style = {
          .columns = columns, .color = variant & 1, .unicode = (variant & 2) != 0};
      for (unsigned part = 0; part <= 16; part++) {
        snapshot.done_bytes = snapshot.total_bytes * part / 16;
        size_t took = layout_bar_line(&snapshot, 3700, "forking", &style, line);
        assert_true(took <= columns);
        assert_int_equal(seen_columns(line), took);
      }
      size_t widest = layout_url_columns(&snapshot, &style);
      for (uint32_t i = 0; i < snapshot.source_count; i++) {
        size_t took = layout_source_line(&snapshot.sources[i], widest, &style, line);
        assert_true(took <= columns);
        assert_int_equal(seen_columns(line), took);
      }
    }
  snapshot = reading();
  layout_bar_line(&snapshot, 1, "forking", &(struct layout_style){.columns = 20}, line);
  assert_string_equal(line, "[#####.......]   47%");
}

static void unicode_bars_have_eighths(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot snapshot = {
      .total_bytes = 1000, .done_bytes = 550, .received_bytes = 1, .rate = 1};
  layout_bar_line(&snapshot, -1, "x", &(struct layout_style){.columns = 16, .unicode = true}, line);
  /* 8 columns, 55%: four and three eighths. */
  assert_non_null(
      strstr(line, "[\xE2\x96\x88\xE2\x96\x88\xE2\x96\x88\xE2\x96\x88\xE2\x96\x8D   ]"));
}

static void waiting_is_said(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot snapshot = {.elapsed_ns = 12 * SECOND, .source_count = 1};
  snprintf(snapshot.sources[0].state, sizeof(snapshot.sources[0].state), "connecting");
  layout_bar_line(&snapshot, -1, "forking", &wide, line);
  assert_string_equal(line, "forking: connecting (12s)");
  snapshot.total_bytes = 100;
  snapshot.sources[0].queue_position = 3;
  snprintf(snapshot.sources[0].state, sizeof(snapshot.sources[0].state), "queued");
  layout_bar_line(&snapshot, -1, "forking", &wide, line);
  assert_string_equal(line, "forking: queued, position 3 (12s)");
  layout_plain_line(&snapshot, -1, "forking", line);
  assert_string_equal(line, "forking: queued, position 3");
}

static void sources_show_state_and_reason(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot snapshot = reading();
  size_t widest = layout_url_columns(&snapshot, &wide);
  assert_int_equal(widest, 20);
  layout_source_line(&snapshot.sources[0], widest, &wide, line);
  assert_string_equal(line, "  http://10.0.0.5:7117   1.20 GB  reading");
  layout_source_line(&snapshot.sources[1], widest, &wide, line);
  assert_string_equal(line, "  file:///m                  0 B  dropped: no progress for 3 s");
}

static void a_hostile_source_cannot_reach_the_terminal(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot snapshot = reading();
  snprintf(snapshot.sources[1].dropped_reason, sizeof(snapshot.sources[1].dropped_reason),
           "\x1b[2J\xff\r\n");
  layout_source_line(&snapshot.sources[1], 20, &wide, line);
  assert_null(strchr(line, '\x1b'));
  assert_null(strchr(line, '\n'));
}

static void plain_lines_say_the_same(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot snapshot = reading();
  layout_plain_line(&snapshot, 125, "forking", line);
  assert_string_equal(line, "forking: 47%, 1.93 GB of 4.10 GB, 1.21 GB/s, 2m05s left, 1 source");
}

static void the_summary_is_one_line(void **state) {
  (void)state;
  char line[LAYOUT_LINE_BYTES];
  struct progress_snapshot last = {.total_bytes = 4100 * MB,
                                   .done_bytes = 4100 * MB,
                                   .received_bytes = 2900 * MB,
                                   .reused_bytes = 1200 * MB,
                                   .retries = 1,
                                   .source_count = 2};
  last.sources[0].received_bytes = 1;
  last.sources[1].received_bytes = 1;
  struct sprout_fork_result result = {.verified = SPROUT_VERIFIED_XXH3, .seconds = 2.5};
  struct layout_summary summary = {.result = &result, .last = &last};
  layout_summary_line(&summary, line);
  assert_string_equal(line, "forked 4.10 GB in 2.5s (1.16 GB/s), verified with XXH3-128, from 2 "
                            "sources, 1.20 GB reused, 1 retry");
  last = (struct progress_snapshot){.total_bytes = 1000, .done_bytes = 1000};
  result = (struct sprout_fork_result){.seconds = 0};
  layout_summary_line(&summary, line);
  assert_string_equal(line, "forked 1.00 kB in 0ms, not verified");
  summary.dry_run = true;
  last.done_bytes = 400;
  layout_summary_line(&summary, line);
  assert_string_equal(line, "dry run: 600 B to read of 1.00 kB; nothing was changed");
}

static void time_left_is_smooth(void **state) {
  (void)state;
  struct progress_eta eta = {.started = false};
  struct progress_snapshot snapshot = {.total_bytes = 10000 * MB, .reused_bytes = 1000 * MB};
  double left = 0;
  assert_true(progress_eta_update(&eta, &(struct progress_snapshot){.total_bytes = 0}) < 0);
  for (unsigned i = 0; i <= 50; i++) {
    /* 100 MB/s, in spurts of one second */
    snapshot.elapsed_ns = i * SECOND / 10;
    snapshot.done_bytes = (1000 + 100 * (i / 10)) * MB;
    double now = progress_eta_update(&eta, &snapshot);
    if (i > 30) assert_true(now > left / 2 && now < left * 2);
    left = now;
  }
  assert_true(left > 60 && left < 130);
  snapshot.done_bytes = snapshot.total_bytes;
  snapshot.elapsed_ns += SECOND;
  assert_true(progress_eta_update(&eta, &snapshot) == 0);
}

static void time_left_begins_anew_with_the_plan(void **state) {
  (void)state;
  struct progress_eta eta = {.started = false};
  struct progress_snapshot snapshot = {.total_bytes = 100 * MB};
  (void)progress_eta_update(&eta, &snapshot);
  snapshot.elapsed_ns = SECOND;
  snapshot.done_bytes = 50 * MB;
  assert_true(progress_eta_update(&eta, &snapshot) > 0.9);
  snapshot.elapsed_ns = 2 * SECOND;
  snapshot.done_bytes = 0;
  assert_true(progress_eta_update(&eta, &snapshot) < 0);
}

static void modes_follow_option_and_terminal(void **state) {
  (void)state;
  struct terminal screen = {.interactive = true}, pipe = {.interactive = false};
  assert_int_equal(progress_mode_of("auto", false, &screen), PROGRESS_TTY);
  assert_int_equal(progress_mode_of("auto", false, &pipe), PROGRESS_PLAIN);
  assert_int_equal(progress_mode_of("auto", true, &screen), PROGRESS_NONE);
  assert_int_equal(progress_mode_of("json", true, &screen), PROGRESS_JSON);
  assert_int_equal(progress_mode_of("none", false, &screen), PROGRESS_NONE);
  assert_int_equal(progress_mode_of("tty", false, &pipe), PROGRESS_TTY);
  assert_int_equal(progress_mode_of("plain", false, &screen), PROGRESS_PLAIN);
}

static void snapshots_outlive_the_callback(void **state) {
  (void)state;
  static struct progress_snapshot snapshot;
  struct sprout_source_status sources[2] = {
      {.url = "http://x",
       .state = "reading",
       .received_bytes = 7,
       .dropped_reason = "http://x: slow"},
      {.url = NULL, .state = "dropped", .dropped_reason = NULL, .dropped_for = SPROUT_STALLED}};
  struct sprout_fork_progress progress = {
      .elapsed_ns = 1, .total_bytes = 2, .done_bytes = 3, .source_count = 2, .sources = sources};
  progress_snapshot_take(&snapshot, &progress);
  memset(sources, 0, sizeof(sources));
  assert_string_equal(snapshot.sources[0].url, "http://x");
  assert_int_equal(snapshot.sources[0].received_bytes, 7);
  assert_string_equal(snapshot.sources[0].dropped_reason, "slow");
  assert_string_equal(snapshot.sources[1].url, "");
  assert_int_equal(snapshot.sources[1].dropped_for, SPROUT_STALLED);
  assert_int_equal(snapshot.done_bytes, 3);
}

/* What a reporter writes while it goes through `count` snapshots. */
static char *reported(enum progress_mode mode, const struct progress_snapshot *snapshots,
                      size_t count) {
  char *text = NULL;
  size_t length = 0;
  struct terminal terminal = {.fd = -1};
  struct reporter reporter;
  FILE *out = open_memstream(&text, &length);
  assert_non_null(out);
  reporter_init(&reporter, mode, &terminal, out, "forking");
  for (size_t i = 0; i < count; i++) reporter_update(&reporter, &snapshots[i]);
  reporter_end(&reporter);
  assert_int_equal(fclose(out), 0);
  return text;
}

static void plain_reports_every_ten_seconds_and_drops_at_once(void **state) {
  (void)state;
  struct progress_snapshot snapshots[4];
  for (size_t i = 0; i < 4; i++) {
    snapshots[i] = reading();
    snapshots[i].elapsed_ns = (5 + 5 * i) * SECOND;
  }
  char *text = reported(PROGRESS_PLAIN, snapshots, 4);
  assert_string_equal(text, "forking: dropped file:///m: no progress for 3 s\n"
                            "forking: 47%, 1.93 GB of 4.10 GB, 1.21 GB/s, 1 source\n"
                            "forking: 47%, 1.93 GB of 4.10 GB, 1.21 GB/s, 1 source\n");
  free(text);
  text = reported(PROGRESS_NONE, snapshots, 4);
  assert_string_equal(text, "");
  free(text);
}

static void the_terminal_is_redrawn_in_place_and_left_clean(void **state) {
  (void)state;
  struct progress_snapshot snapshots[1] = {reading()};
  snapshots[0].source_count = 1;
  assert_int_equal(setenv("COLUMNS", "61", 1), 0);
  char *text = reported(PROGRESS_TTY, snapshots, 1);
  assert_string_equal(text, "\r[#########............]   47%  1.93 GB of 4.10 GB  1.21 GB/s\x1b[K\n"
                            "  http://10.0.0.5:7117   1.20 GB  reading\x1b[K\n"
                            "\x1b[J\x1b[2A\r"
                            "\r\x1b[J");
  free(text);
  (void)unsetenv("COLUMNS");
}

static void json_reports_sources_when_they_change_and_progress(void **state) {
  (void)state;
  struct progress_snapshot snapshots[2] = {reading(), reading()};
  char *text = reported(PROGRESS_JSON, snapshots, 2);
  static const char *const starts[] = {
      "{\"url\":\"http://10.0.0.5:7117\",\"state\":\"reading\",\"received_bytes\":1200000000,"
      "\"type\":\"source\"}",
      "{\"url\":\"file:///m\",\"state\":\"dropped\",\"received_bytes\":0,\"dropped_for\":\"ok\","
      "\"reason\":\"no progress for 3 s\",\"type\":\"source\"}",
      "{\"type\":\"progress\",\"elapsed_seconds\":2.0,\"total_bytes\":4100000000,\"done_bytes\":"
      "1930000000,",
      "{\"type\":\"progress\","};
  char *place = NULL, *line = strtok_r(text, "\n", &place);
  for (size_t i = 0; i < 4; i++) {
    assert_non_null(line);
    assert_memory_equal(line, starts[i], strlen(starts[i]));
    line = strtok_r(NULL, "\n", &place);
  }
  assert_null(line);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(permille_is_whole_only_at_the_end),
      cmocka_unit_test(the_bar_says_what_matters),
      cmocka_unit_test(the_bar_fits_every_width_and_drops_the_least_important),
      cmocka_unit_test(unicode_bars_have_eighths),
      cmocka_unit_test(waiting_is_said),
      cmocka_unit_test(sources_show_state_and_reason),
      cmocka_unit_test(a_hostile_source_cannot_reach_the_terminal),
      cmocka_unit_test(plain_lines_say_the_same),
      cmocka_unit_test(the_summary_is_one_line),
      cmocka_unit_test(time_left_is_smooth),
      cmocka_unit_test(time_left_begins_anew_with_the_plan),
      cmocka_unit_test(modes_follow_option_and_terminal),
      cmocka_unit_test(snapshots_outlive_the_callback),
      cmocka_unit_test(plain_reports_every_ten_seconds_and_drops_at_once),
      cmocka_unit_test(the_terminal_is_redrawn_in_place_and_left_clean),
      cmocka_unit_test(json_reports_sources_when_they_change_and_progress),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
