/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact decimal arithmetic on text: no floating point, so no locale and no rounding surprises.
 */
#include "core/units.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define FRACTION_DIGITS_MAX 12

/* A non-negative decimal: whole + fraction / scale. */
struct decimal {
  uint64_t whole, fraction, scale;
};

struct suffix {
  const char *text;
  uint64_t factor;
};

static const struct suffix size_suffixes[] = {
    {"", 1},
    {"B", 1},
    {"K", 1000},
    {"KB", 1000},
    {"M", 1000000},
    {"MB", 1000000},
    {"G", 1000000000},
    {"GB", 1000000000},
    {"T", 1000000000000},
    {"TB", 1000000000000},
    {"Ki", UINT64_C(1) << 10},
    {"KiB", UINT64_C(1) << 10},
    {"Mi", UINT64_C(1) << 20},
    {"MiB", UINT64_C(1) << 20},
    {"Gi", UINT64_C(1) << 30},
    {"GiB", UINT64_C(1) << 30},
    {"Ti", UINT64_C(1) << 40},
    {"TiB", UINT64_C(1) << 40},
};

static const struct suffix bit_suffixes[] = {
    {"bit", 1}, {"Kbit", 1000}, {"Mbit", 1000000}, {"Gbit", 1000000000}, {"Tbit", 1000000000000},
};

static const struct suffix duration_suffixes[] = {
    {"", 1000000000},
    {"ns", 1},
    {"us", 1000},
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", UINT64_C(60000000000)},
    {"h", UINT64_C(3600000000000)},
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/* Reads "12" or "12.5" at *text and moves it behind. */
static bool read_decimal(const char **text, struct decimal *decimal_out) {
  struct decimal decimal = {.scale = 1};
  const char *at = *text;
  if (!is_digit(*at)) return false;
  for (; is_digit(*at); at++)
    if (__builtin_mul_overflow(decimal.whole, 10, &decimal.whole) ||
        __builtin_add_overflow(decimal.whole, (uint64_t)(*at - '0'), &decimal.whole))
      return false;
  if (*at == '.') {
    if (!is_digit(*++at)) return false;
    for (int digits = 0; is_digit(*at); at++) {
      if (++digits > FRACTION_DIGITS_MAX) return false;
      decimal.fraction = decimal.fraction * 10 + (uint64_t)(*at - '0');
      decimal.scale *= 10;
    }
  }
  *text = at;
  *decimal_out = decimal;
  return true;
}

/* decimal * factor, rounded down. */
static bool scale_decimal(struct decimal decimal, uint64_t factor, uint64_t *value_out) {
  uint64_t whole;
  if (__builtin_mul_overflow(decimal.whole, factor, &whole)) return false;
  unsigned __int128 part = (unsigned __int128)decimal.fraction * factor / decimal.scale;
  return !__builtin_add_overflow(whole, (uint64_t)part, value_out);
}

/* The suffix that is exactly the first `length` bytes of `text`; NULL: none. */
static const struct suffix *find_suffix(const struct suffix *table, size_t count, const char *text,
                                        size_t length) {
  for (size_t i = 0; i < count; i++)
    if (strlen(table[i].text) == length && strncasecmp(table[i].text, text, length) == 0)
      return &table[i];
  return NULL;
}

/* A number with one of the suffixes; the last `tail` bytes of the text are not part of it. */
static enum sprout_status parse_scaled(const char *text, size_t tail, const struct suffix *table,
                                       size_t count, uint64_t *value_out) {
  struct decimal decimal;
  const char *at = text;
  if (!read_decimal(&at, &decimal)) return SPROUT_INVALID;
  size_t rest = strlen(at);
  if (rest < tail) return SPROUT_INVALID;
  const struct suffix *suffix = find_suffix(table, count, at, rest - tail);
  if (suffix == NULL || !scale_decimal(decimal, suffix->factor, value_out)) return SPROUT_INVALID;
  return SPROUT_OK;
}

enum sprout_status units_parse_size(const char *text, uint64_t *bytes_out) {
  return parse_scaled(text, 0, size_suffixes, COUNT_OF(size_suffixes), bytes_out);
}

static enum sprout_status parse_percent(const char *text, struct units_rate *rate_out) {
  struct decimal decimal;
  if (!read_decimal(&text, &decimal) || strcmp(text, "%") != 0) return SPROUT_INVALID;
  if (decimal.scale != 1 || decimal.whole < 1 || decimal.whole > 100) return SPROUT_INVALID;
  *rate_out = (struct units_rate){.percent = (uint32_t)decimal.whole};
  return SPROUT_OK;
}

enum sprout_status units_parse_rate(const char *text, struct units_rate *rate_out) {
  size_t length = strlen(text);
  if (length > 0 && text[length - 1] == '%') return parse_percent(text, rate_out);
  size_t tail = length >= 2 && strcmp(text + length - 2, "/s") == 0 ? 2 : 0;
  uint64_t value;
  if (parse_scaled(text, tail, size_suffixes, COUNT_OF(size_suffixes), &value) == SPROUT_OK) {
    *rate_out = (struct units_rate){.bytes_per_second = value};
    return SPROUT_OK;
  }
  if (parse_scaled(text, tail, bit_suffixes, COUNT_OF(bit_suffixes), &value) != SPROUT_OK)
    return SPROUT_INVALID;
  /* A limit below one byte a second must not turn into "no limit". */
  if (value > 0 && value < 8) return SPROUT_INVALID;
  *rate_out = (struct units_rate){.bytes_per_second = value / 8};
  return SPROUT_OK;
}

enum sprout_status units_parse_duration(const char *text, uint64_t *duration_ns_out) {
  return parse_scaled(text, 0, duration_suffixes, COUNT_OF(duration_suffixes), duration_ns_out);
}

const char *units_format_size(uint64_t bytes, char *buffer, size_t buffer_bytes) {
  static const char *const names[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  if (bytes < 1000) {
    snprintf(buffer, buffer_bytes, "%" PRIu64 " B", bytes);
    return buffer;
  }
  uint64_t unit = 1;
  size_t name = 0;
  /* The first unit in which the value, rounded to three digits, stays below 1000. */
  while (name + 1 < COUNT_OF(names) &&
         bytes / unit + (bytes % unit * 2 >= unit && unit > 1) >= 1000) {
    unit *= 1000;
    name++;
  }
  unsigned decimals = bytes / unit >= 100 ? 0 : bytes / unit >= 10 ? 1 : 2;
  uint64_t scale = decimals == 0 ? 1 : decimals == 1 ? 10 : 100;
  uint64_t scaled = (uint64_t)(((unsigned __int128)bytes * scale + unit / 2) / unit);
  /* Rounding may have reached the next digit: 9.996 is 10.0. */
  if (decimals > 0 && scaled >= 1000) {
    scaled = (scaled + 5) / 10;
    scale /= 10;
    decimals--;
  }
  if (decimals == 0)
    snprintf(buffer, buffer_bytes, "%" PRIu64 " %s", scaled, names[name]);
  else
    snprintf(buffer, buffer_bytes, "%" PRIu64 ".%0*" PRIu64 " %s", scaled / scale, (int)decimals,
             scaled % scale, names[name]);
  return buffer;
}

const char *units_format_duration(uint64_t duration_ns, char *buffer, size_t buffer_bytes) {
  const uint64_t millisecond = 1000000, second = 1000 * millisecond;
  uint64_t tenths = duration_ns / (second / 10);
  uint64_t seconds = duration_ns / second;
  if (duration_ns < second)
    snprintf(buffer, buffer_bytes, "%" PRIu64 "ms", duration_ns / millisecond);
  else if (seconds < 10)
    snprintf(buffer, buffer_bytes, "%" PRIu64 ".%" PRIu64 "s", tenths / 10, tenths % 10);
  else if (seconds < 60)
    snprintf(buffer, buffer_bytes, "%" PRIu64 "s", seconds);
  else if (seconds < 3600)
    snprintf(buffer, buffer_bytes, "%" PRIu64 "m%02" PRIu64 "s", seconds / 60, seconds % 60);
  else
    snprintf(buffer, buffer_bytes, "%" PRIu64 "h%02" PRIu64 "m", seconds / 3600, seconds / 60 % 60);
  return buffer;
}
