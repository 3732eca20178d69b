/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include "cli/json_line.h"
#include "cli/progress_layout.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define SECOND UINT64_C(1000000000)
#define PLAIN_INTERVAL_NS (10 * SECOND)
#define SOURCE_LINES_MOST 8
/* The rate behind "time left" forgets within some of these. */
#define ETA_MEMORY_SECONDS 4.0

static void copy_text(char *to, size_t room, const char *from) {
  snprintf(to, room, "%s", from != NULL ? from : "");
}

/* The reason behind "http://...: ", which stands beside it already. */
static const char *without_url(const char *reason, const char *url) {
  size_t length = strlen(url);
  if (reason == NULL || length == 0 || strncmp(reason, url, length) != 0) return reason;
  return strncmp(reason + length, ": ", 2) == 0 ? reason + length + 2 : reason;
}

void progress_snapshot_take(struct progress_snapshot *snapshot_out,
                            const struct sprout_fork_progress *progress) {
  struct progress_snapshot *to = snapshot_out;
  to->elapsed_ns = progress->elapsed_ns;
  to->total_bytes = progress->total_bytes;
  to->done_bytes = progress->done_bytes;
  to->reused_bytes = progress->reused_bytes;
  to->received_bytes = progress->received_bytes;
  to->rate = progress->rate;
  to->retries = progress->retries;
  to->source_count =
      progress->source_count < SPROUT_MAX_SOURCES ? progress->source_count : SPROUT_MAX_SOURCES;
  for (uint32_t i = 0; i < to->source_count; i++) {
    const struct sprout_source_status *source = &progress->sources[i];
    struct progress_source *copy = &to->sources[i];
    copy_text(copy->url, sizeof(copy->url), source->url);
    copy_text(copy->state, sizeof(copy->state), source->state);
    copy_text(copy->dropped_reason, sizeof(copy->dropped_reason),
              without_url(source->dropped_reason, copy->url));
    copy->received_bytes = source->received_bytes;
    copy->queue_position = source->queue_position;
    copy->dropped_for = source->dropped_for;
    copy->transport = source->transport;
    copy->fallbacks = source->fallbacks;
  }
}

double progress_eta_update(struct progress_eta *eta, const struct progress_snapshot *snapshot) {
  uint64_t bytes = snapshot->done_bytes > snapshot->reused_bytes
                       ? snapshot->done_bytes - snapshot->reused_bytes
                       : 0;
  bool backwards = snapshot->elapsed_ns < eta->last_ns || bytes < eta->last_bytes;
  if (snapshot->total_bytes == 0) return -1;
  if (!eta->started || backwards) {
    /* The plan began anew: so does the rate. */
    *eta = (struct progress_eta){
        .started = true, .last_ns = snapshot->elapsed_ns, .last_bytes = bytes};
    return -1;
  }
  double seconds = (double)(snapshot->elapsed_ns - eta->last_ns) / 1e9;
  if (seconds > 0) {
    double rate = (double)(bytes - eta->last_bytes) / seconds;
    /* At first the plain average, later only the last seconds count. */
    eta->age_seconds += seconds;
    double memory = eta->age_seconds < ETA_MEMORY_SECONDS ? eta->age_seconds : ETA_MEMORY_SECONDS;
    double weight = seconds < memory ? seconds / memory : 1;
    eta->rate += (rate - eta->rate) * weight;
    eta->last_ns = snapshot->elapsed_ns;
    eta->last_bytes = bytes;
  }
  if (snapshot->done_bytes >= snapshot->total_bytes) return 0;
  /* Below a byte a second there is nothing to say. */
  if (eta->rate < 1) return -1;
  return (double)(snapshot->total_bytes - snapshot->done_bytes) / eta->rate;
}

enum progress_mode progress_mode_of(const char *text, bool quiet, const struct terminal *terminal) {
  if (strcmp(text, "json") == 0) return PROGRESS_JSON;
  if (quiet || strcmp(text, "none") == 0) return PROGRESS_NONE;
  if (strcmp(text, "plain") == 0) return PROGRESS_PLAIN;
  if (strcmp(text, "tty") == 0) return PROGRESS_TTY;
  return terminal->interactive ? PROGRESS_TTY : PROGRESS_PLAIN;
}

uint64_t progress_interval_ns(enum progress_mode mode) {
  return mode == PROGRESS_TTY ? SECOND / 10 : SECOND / 2;
}

void reporter_init(struct reporter *reporter, enum progress_mode mode,
                   const struct terminal *terminal, FILE *out, const char *verb) {
  *reporter = (struct reporter){.mode = mode,
                                .terminal = *terminal,
                                .out = out,
                                .verb = verb,
                                .next_line_ns = PLAIN_INTERVAL_NS};
}

/* --- the bar --- */

/* Adds `line` and a line end to the frame; a full frame takes no more. */
static void add_line(char *frame, size_t room, size_t *used, const char *line) {
  size_t length = strlen(line);
  if (*used + length + 8 >= room) return;
  memcpy(frame + *used, line, length);
  *used += length;
  memcpy(frame + *used, "\x1b[K\n", 4);
  *used += 4;
}

/* Draws below the cursor and puts it back: a log line then pushes the bar down, never into itself.
 */
static void draw(struct reporter *reporter, const struct progress_snapshot *snapshot,
                 double eta_seconds) {
  char frame[(SOURCE_LINES_MOST + 3) * LAYOUT_LINE_BYTES], line[LAYOUT_LINE_BYTES];
  struct layout_style style = {.color = reporter->terminal.color,
                               .unicode = reporter->terminal.unicode};
  unsigned rows, lines = 1;
  size_t used = 0;
  terminal_size(&reporter->terminal, getenv, &style.columns, &rows);
  style.columns--; /* a full line would wrap on some terminals */
  frame[used++] = '\r';
  layout_bar_line(snapshot, eta_seconds, reporter->verb, &style, line);
  add_line(frame, sizeof(frame), &used, line);
  uint32_t most = rows > 3 && rows - 3 < SOURCE_LINES_MOST ? rows - 3 : SOURCE_LINES_MOST;
  uint32_t shown = snapshot->source_count < most ? snapshot->source_count : most;
  size_t url_columns = layout_url_columns(snapshot, &style);
  for (uint32_t i = 0; i < shown; i++, lines++) {
    layout_source_line(&snapshot->sources[i], url_columns, &style, line);
    add_line(frame, sizeof(frame), &used, line);
  }
  if (shown < snapshot->source_count) {
    snprintf(line, sizeof(line), "  and %u more", snapshot->source_count - shown);
    add_line(frame, sizeof(frame), &used, line);
    lines++;
  }
  used += (size_t)snprintf(frame + used, sizeof(frame) - used, "\x1b[J\x1b[%uA\r", lines);
  (void)fwrite(frame, 1, used, reporter->out);
  (void)fflush(reporter->out);
  reporter->drawn_lines = lines;
}

static void erase(struct reporter *reporter) {
  if (reporter->drawn_lines == 0) return;
  (void)fputs("\r\x1b[J", reporter->out);
  (void)fflush(reporter->out);
  reporter->drawn_lines = 0;
}

/* --- notes and changes --- */

void reporter_note(struct reporter *reporter, const char *format, ...) {
  char text[1024], cleaned[2048];
  if (reporter->mode != PROGRESS_TTY && reporter->mode != PROGRESS_PLAIN) return;
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (length < 0) return;
  terminal_clean(text, SIZE_MAX, true, cleaned, sizeof(cleaned));
  erase(reporter);
  fprintf(reporter->out, "%s\n", cleaned);
  (void)fflush(reporter->out);
}

static void report_changes(struct reporter *reporter, const struct progress_snapshot *snapshot) {
  for (uint32_t i = 0; i < snapshot->source_count; i++) {
    const struct progress_source *source = &snapshot->sources[i];
    if (strcmp(reporter->known[i].state, source->state) == 0) continue;
    copy_text(reporter->known[i].state, sizeof(reporter->known[i].state), source->state);
    if (reporter->mode == PROGRESS_JSON)
      json_line_source(reporter->out, source);
    else if (strcmp(source->state, "dropped") == 0)
      reporter_note(reporter, "%s: dropped %s: %s", reporter->verb, source->url,
                    source->dropped_reason[0] != '\0'
                        ? source->dropped_reason
                        : sprout_status_info_of(source->dropped_for)->summary);
  }
}

void reporter_update(struct reporter *reporter, const struct progress_snapshot *snapshot) {
  if (reporter->mode == PROGRESS_NONE) return;
  double eta_seconds = progress_eta_update(&reporter->eta, snapshot);
  report_changes(reporter, snapshot);
  if (reporter->mode == PROGRESS_JSON) {
    json_line_progress(reporter->out, snapshot, eta_seconds);
  } else if (reporter->mode == PROGRESS_TTY) {
    draw(reporter, snapshot, eta_seconds);
  } else if (snapshot->elapsed_ns >= reporter->next_line_ns) {
    char line[LAYOUT_LINE_BYTES];
    reporter->next_line_ns = snapshot->elapsed_ns + PLAIN_INTERVAL_NS;
    layout_plain_line(snapshot, eta_seconds, reporter->verb, line);
    reporter_note(reporter, "%s", line);
  }
}

void reporter_end(struct reporter *reporter) {
  erase(reporter);
}
