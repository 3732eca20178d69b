/* SPDX-License-Identifier: Apache-2.0 */
#include "net/prometheus.h"

#include <assert.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_AT_FIRST 16384
#define NUMBER_BYTES 40

/* Appends; after a failed allocation it does nothing more. */
struct writer {
  struct wire_buffer *buffer;
  bool failed;
};

static void append_bytes(struct writer *writer, const char *text, size_t length) {
  struct wire_buffer *buffer = writer->buffer;
  if (writer->failed) return;
  if (buffer->capacity_bytes - buffer->length_bytes < length) {
    size_t capacity =
        buffer->capacity_bytes < CAPACITY_AT_FIRST ? CAPACITY_AT_FIRST : buffer->capacity_bytes * 2;
    while (capacity - buffer->length_bytes < length) capacity *= 2;
    unsigned char *data = realloc(buffer->data, capacity);
    if (data == NULL) {
      writer->failed = true;
      return;
    }
    buffer->data = data;
    buffer->capacity_bytes = capacity;
  }
  memcpy(buffer->data + buffer->length_bytes, text, length);
  buffer->length_bytes += length;
}

static void append(struct writer *writer, const char *text) {
  append_bytes(writer, text, strlen(text));
}

/* Backslash and line feed are escaped everywhere, quotes in label values only. */
static void append_escaped(struct writer *writer, const char *text, bool quotes) {
  for (; *text != '\0'; text++) {
    if (*text == '\\')
      append(writer, "\\\\");
    else if (*text == '\n')
      append(writer, "\\n");
    else if (*text == '"' && quotes)
      append(writer, "\\\"");
    else
      append_bytes(writer, text, 1);
  }
}

/* The shortest text that reads back as the same number. */
static void append_number(struct writer *writer, double number) {
  char text[NUMBER_BYTES];
  if (isnan(number))
    snprintf(text, sizeof(text), "NaN");
  else if (isinf(number))
    snprintf(text, sizeof(text), number > 0 ? "+Inf" : "-Inf");
  else {
    snprintf(text, sizeof(text), "%.15g", number);
    if (strtod(text, NULL) != number) snprintf(text, sizeof(text), "%.17g", number);
  }
  append(writer, text);
}

static void append_count(struct writer *writer, uint64_t count) {
  char text[NUMBER_BYTES];
  snprintf(text, sizeof(text), "%" PRIu64, count);
  append(writer, text);
}

/* {a="x",b="y",le="0.1"}, or nothing; `le` NULL: no bound. */
static void append_labels(struct writer *writer, const struct stat_family *family,
                          const struct stat_series *series, const double *le) {
  uint32_t count = stats_label_count(family);
  if (count == 0 && le == NULL) return;
  append(writer, "{");
  for (uint32_t i = 0; i < count; i++) {
    append(writer, i > 0 ? "," : "");
    append(writer, family->labels[i]);
    append(writer, "=\"");
    append_escaped(writer, series->labels[i], true);
    append(writer, "\"");
  }
  if (le != NULL) {
    append(writer, count > 0 ? ",le=\"" : "le=\"");
    append_number(writer, *le);
    append(writer, "\"");
  }
  append(writer, "}");
}

/* "sprout_name_suffix{labels} ": the value follows. */
static void append_head(struct writer *writer, const struct stat_family *family, const char *suffix,
                        const struct stat_series *series, const double *le) {
  append(writer, "sprout_");
  append(writer, family->name);
  append(writer, suffix);
  append_labels(writer, family, series, le);
  append(writer, " ");
}

static void append_histogram(struct writer *writer, const struct stat_family *family,
                             const struct stat_series *series) {
  const double infinity = INFINITY;
  uint64_t cumulative = 0;
  uint32_t count = stats_bucket_count(family);
  for (uint32_t i = 0; i < count; i++) {
    cumulative += series->buckets[i];
    append_head(writer, family, "_bucket", series, &family->buckets[i]);
    append_count(writer, cumulative);
    append(writer, "\n");
  }
  /* Another thread may have been writing: the last bucket is never below the one before it. */
  uint64_t total = series->count > cumulative ? series->count : cumulative;
  append_head(writer, family, "_bucket", series, &infinity);
  append_count(writer, total);
  append(writer, "\n");
  append_head(writer, family, "_sum", series, NULL);
  append_number(writer, series->value);
  append(writer, "\n");
  append_head(writer, family, "_count", series, NULL);
  append_count(writer, total);
  append(writer, "\n");
}

static void append_family_head(struct writer *writer, const struct stat_family *family) {
  static const char *const types[] = {
      [STAT_COUNTER] = "counter", [STAT_GAUGE] = "gauge", [STAT_HISTOGRAM] = "histogram"};
  append(writer, "# HELP sprout_");
  append(writer, family->name);
  append(writer, " ");
  append_escaped(writer, family->help, false);
  append(writer, "\n# TYPE sprout_");
  append(writer, family->name);
  append(writer, " ");
  append(writer, types[family->type]);
  append(writer, "\n");
}

static void append_family(struct writer *writer, const struct stats *stats, uint32_t index) {
  const struct stat_family *family = stats_family(stats, index);
  struct stat_series series;
  for (uint32_t i = 0; stats_series(stats, index, i, &series); i++) {
    if (i == 0) append_family_head(writer, family);
    if (family->type == STAT_HISTOGRAM) {
      append_histogram(writer, family, &series);
      continue;
    }
    append_head(writer, family, "", &series, NULL);
    append_number(writer, series.value);
    append(writer, "\n");
  }
}

enum sprout_status prometheus_render(const struct stats *stats, struct wire_buffer *buffer) {
  assert(stats != NULL && buffer != NULL);
  struct writer writer = {.buffer = buffer};
  size_t length_before = buffer->length_bytes;
  /* Numbers have a point, whatever the locale of the program that this library is part of. */
  locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
  if (plain == (locale_t)0) return SPROUT_NO_MEMORY;
  locale_t before = uselocale(plain);
  for (size_t i = 0; i < stats_family_count(stats); i++) append_family(&writer, stats, (uint32_t)i);
  uselocale(before);
  freelocale(plain);
  if (!writer.failed) return SPROUT_OK;
  buffer->length_bytes = length_before;
  return SPROUT_NO_MEMORY;
}
