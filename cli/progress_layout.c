/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress_layout.h"

#include "core/units.h"

#include <stdarg.h>
#include <string.h>

#define BAR_COLUMNS_LEAST 8
#define BAR_COLUMNS_MOST 40
#define GREEN "\x1b[32m"
#define RED "\x1b[31m"
#define DIM "\x1b[2m"
#define PLAIN "\x1b[0m"

/* A line that grows; columns count what is seen, not escapes. */
struct line {
  char *text;
  size_t bytes, columns;
};

static void append_bytes(struct line *line, const char *text, size_t length, size_t columns) {
  if (line->bytes + length >= LAYOUT_LINE_BYTES) return;
  memcpy(line->text + line->bytes, text, length);
  line->bytes += length;
  line->columns += columns;
  line->text[line->bytes] = '\0';
}

/* ASCII only. */
static void append(struct line *line, const char *text) {
  append_bytes(line, text, strlen(text), strlen(text));
}

static void append_escape(struct line *line, const struct layout_style *style, const char *escape) {
  if (style->color) append_bytes(line, escape, strlen(escape), 0);
}

unsigned layout_permille(uint64_t done_bytes, uint64_t total_bytes) {
  if (total_bytes == 0) return 0;
  if (done_bytes >= total_bytes) return 1000;
  return (unsigned)((unsigned __int128)done_bytes * 1000 / total_bytes);
}

static void append_bar(struct line *line, unsigned permille, size_t columns,
                       const struct layout_style *style) {
  /* Eighths of a block, from none to seven. */
  static const char *const eighths[] = {"",
                                        "\xE2\x96\x8F",
                                        "\xE2\x96\x8E",
                                        "\xE2\x96\x8D",
                                        "\xE2\x96\x8C",
                                        "\xE2\x96\x8B",
                                        "\xE2\x96\x8A",
                                        "\xE2\x96\x89"};
  size_t filled_eighths = columns * 8 * permille / 1000, filled = filled_eighths / 8;
  append(line, "[");
  append_escape(line, style, GREEN);
  for (size_t i = 0; i < filled; i++)
    append_bytes(line, style->unicode ? "\xE2\x96\x88" : "#", style->unicode ? 3 : 1, 1);
  if (style->unicode && filled_eighths % 8 != 0) {
    append_bytes(line, eighths[filled_eighths % 8], 3, 1);
    filled++;
  }
  append_escape(line, style, PLAIN);
  for (size_t i = filled; i < columns; i++) append(line, style->unicode ? " " : ".");
  append(line, "]");
}

/* "1.93 GB of 4.10 GB" */
static void format_amount(const struct progress_snapshot *snapshot, char *buffer, size_t room) {
  char done[32], total[32];
  snprintf(buffer, room, "%s of %s", units_format_size(snapshot->done_bytes, done, sizeof(done)),
           units_format_size(snapshot->total_bytes, total, sizeof(total)));
}

static void format_eta(double eta_seconds, char *buffer, size_t room) {
  char duration[32];
  /* Whole seconds: tenths of a guess are noise. */
  uint64_t seconds = eta_seconds > 0 ? (uint64_t)(eta_seconds + 0.5) : 0;
  if (seconds < 10)
    snprintf(duration, sizeof(duration), "%us", (unsigned)seconds);
  else
    units_format_duration(seconds * 1000000000, duration, sizeof(duration));
  snprintf(buffer, room, "%s left", duration);
}

/* What is being waited for before the size is known: "connecting", "queued, position 3". */
static void format_waiting(const struct progress_snapshot *snapshot, char *buffer, size_t room) {
  uint32_t position = 0;
  for (uint32_t i = 0; i < snapshot->source_count; i++) {
    uint32_t other = snapshot->sources[i].queue_position;
    if (other > 0 && (position == 0 || other < position)) position = other;
  }
  if (position > 0)
    snprintf(buffer, room, "queued, position %u", position);
  else
    snprintf(buffer, room, "connecting");
}

static bool is_waiting(const struct progress_snapshot *snapshot) {
  if (snapshot->total_bytes == 0) return true;
  if (snapshot->received_bytes > 0 || snapshot->source_count == 0) return false;
  for (uint32_t i = 0; i < snapshot->source_count; i++)
    if (strcmp(snapshot->sources[i].state, "queued") != 0 &&
        strcmp(snapshot->sources[i].state, "dropped") != 0)
      return false;
  return snapshot->done_bytes < snapshot->total_bytes;
}

size_t layout_bar_line(const struct progress_snapshot *snapshot, double eta_seconds,
                       const char *verb, const struct layout_style *style,
                       char line_out[LAYOUT_LINE_BYTES]) {
  struct line line = {.text = line_out};
  char parts[4][64];
  size_t part_count = 0, used, columns;
  unsigned permille = layout_permille(snapshot->done_bytes, snapshot->total_bytes);
  line_out[0] = '\0';
  if (is_waiting(snapshot)) {
    char waiting[64], duration[32], text[128];
    format_waiting(snapshot, waiting, sizeof(waiting));
    snprintf(text, sizeof(text), "%s: %s (%s)", verb, waiting,
             units_format_duration(snapshot->elapsed_ns, duration, sizeof(duration)));
    line.columns =
        terminal_clean(text, style->columns, style->unicode, line_out, LAYOUT_LINE_BYTES);
    return line.columns;
  }
  snprintf(parts[part_count++], sizeof(parts[0]), "%3u%%", permille / 10);
  format_amount(snapshot, parts[part_count++], sizeof(parts[0]));
  char rate[32];
  snprintf(parts[part_count++], sizeof(parts[0]), "%s/s",
           units_format_size(snapshot->rate, rate, sizeof(rate)));
  if (eta_seconds >= 0 && permille < 1000)
    format_eta(eta_seconds, parts[part_count++], sizeof(parts[0]));
  /* A bar of the least width and as many parts as fit beside it. */
  used = BAR_COLUMNS_LEAST + 2;
  size_t kept = 0;
  while (kept < part_count && used + 2 + strlen(parts[kept]) <= style->columns)
    used += 2 + strlen(parts[kept++]);
  columns = BAR_COLUMNS_LEAST + (style->columns > used ? style->columns - used : 0);
  append_bar(&line, permille, columns < BAR_COLUMNS_MOST ? columns : BAR_COLUMNS_MOST, style);
  for (size_t i = 0; i < kept; i++) {
    append(&line, "  ");
    append(&line, parts[i]);
  }
  return line.columns;
}

size_t layout_url_columns(const struct progress_snapshot *snapshot,
                          const struct layout_style *style) {
  size_t widest = 0, most = style->columns / 2;
  for (uint32_t i = 0; i < snapshot->source_count; i++) {
    char scratch[sizeof(snapshot->sources[i].url) * 2];
    size_t columns = terminal_clean(snapshot->sources[i].url, SIZE_MAX, style->unicode, scratch,
                                    sizeof(scratch));
    if (columns > widest) widest = columns;
  }
  return widest < most ? widest : most;
}

/* "reading", "queued, position 3", "dropped: no progress for 3 s" */
static void format_state(const struct progress_source *source, char *buffer, size_t room) {
  if (strcmp(source->state, "queued") == 0 && source->queue_position > 0)
    snprintf(buffer, room, "queued, position %u", source->queue_position);
  else if (source->dropped_reason[0] != '\0')
    snprintf(buffer, room, "%s: %s", source->state, source->dropped_reason);
  else
    snprintf(buffer, room, "%s", source->state);
}

size_t layout_source_line(const struct progress_source *source, size_t url_columns,
                          const struct layout_style *style, char line_out[LAYOUT_LINE_BYTES]) {
  struct line line = {.text = line_out};
  char url[sizeof(source->url) * 2], state[256], rest[512], size[32], cleaned[1024];
  line_out[0] = '\0';
  append(&line, "  ");
  size_t columns = terminal_clean(source->url, url_columns, style->unicode, url, sizeof(url));
  append_bytes(&line, url, strlen(url), columns);
  while (line.columns < 2 + url_columns) append(&line, " ");
  format_state(source, state, sizeof(state));
  units_format_size(source->received_bytes, size, sizeof(size));
  snprintf(rest, sizeof(rest), "  %8s  %s", size, state);
  bool dropped = strcmp(source->state, "dropped") == 0;
  size_t room = style->columns > line.columns ? style->columns - line.columns : 0;
  columns = terminal_clean(rest, room, style->unicode, cleaned, sizeof(cleaned));
  append_escape(&line, style, dropped ? RED : DIM);
  append_bytes(&line, cleaned, strlen(cleaned), columns);
  append_escape(&line, style, PLAIN);
  return line.columns;
}

/* Sources that were not dropped. */
static uint32_t usable_sources(const struct progress_snapshot *snapshot) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < snapshot->source_count; i++)
    count += strcmp(snapshot->sources[i].state, "dropped") != 0;
  return count;
}

void layout_plain_line(const struct progress_snapshot *snapshot, double eta_seconds,
                       const char *verb, char line_out[LAYOUT_LINE_BYTES]) {
  char amount[80], rate[32], eta[64] = "", waiting[64], count[32] = "";
  if (is_waiting(snapshot)) {
    format_waiting(snapshot, waiting, sizeof(waiting));
    snprintf(line_out, LAYOUT_LINE_BYTES, "%s: %s", verb, waiting);
    return;
  }
  format_amount(snapshot, amount, sizeof(amount));
  if (eta_seconds >= 0 && snapshot->done_bytes < snapshot->total_bytes) {
    char text[60];
    format_eta(eta_seconds, text, sizeof(text));
    snprintf(eta, sizeof(eta), ", %s", text);
  }
  uint32_t sources = usable_sources(snapshot);
  if (snapshot->source_count > 0)
    snprintf(count, sizeof(count), ", %u source%s", sources, sources == 1 ? "" : "s");
  snprintf(line_out, LAYOUT_LINE_BYTES, "%s: %u%%, %s, %s/s%s%s", verb,
           layout_permille(snapshot->done_bytes, snapshot->total_bytes) / 10, amount,
           units_format_size(snapshot->rate, rate, sizeof(rate)), eta, count);
}

static uint32_t sources_that_gave(const struct progress_snapshot *snapshot) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < snapshot->source_count; i++)
    count += snapshot->sources[i].received_bytes > 0;
  return count;
}

SPROUT_PRINTF(2, 3) static void append_format(struct line *line, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (length > 0) append(line, text);
}

void layout_summary_line(const struct layout_summary *summary, char line_out[LAYOUT_LINE_BYTES]) {
  const struct sprout_fork_result *result = summary->result;
  const struct progress_snapshot *last = summary->last;
  struct line line = {.text = line_out};
  char size[32], duration[32], rate[32];
  line_out[0] = '\0';
  if (summary->dry_run) {
    uint64_t left = last->total_bytes -
                    (last->done_bytes < last->total_bytes ? last->done_bytes : last->total_bytes);
    append_format(&line, "dry run: %s to read", units_format_size(left, size, sizeof(size)));
    append_format(&line, " of %s; nothing was changed",
                  units_format_size(last->total_bytes, size, sizeof(size)));
    return;
  }
  double seconds = result->seconds > 0 ? result->seconds : 0;
  append_format(&line, "forked %s in %s", units_format_size(last->total_bytes, size, sizeof(size)),
                units_format_duration((uint64_t)(seconds * 1e9), duration, sizeof(duration)));
  if (seconds > 0 && last->received_bytes > 0)
    append_format(
        &line, " (%s/s)",
        units_format_size((uint64_t)((double)last->received_bytes / seconds), rate, sizeof(rate)));
  append(&line,
         result->verified == SPROUT_VERIFIED_XXH3 ? ", verified with XXH3-128" : ", not verified");
  uint32_t sources = sources_that_gave(last);
  if (sources > 0) append_format(&line, ", from %u source%s", sources, sources == 1 ? "" : "s");
  if (last->reused_bytes > 0)
    append_format(&line, ", %s reused", units_format_size(last->reused_bytes, size, sizeof(size)));
  if (last->retries > 0)
    append_format(&line, ", %llu retr%s", (unsigned long long)last->retries,
                  last->retries == 1 ? "y" : "ies");
}
