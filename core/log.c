/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A longer message is cut; escaping may make it six times as long. */
#define MESSAGE_BYTES 1024
#define LINE_BYTES (6 * MESSAGE_BYTES + 256)

static atomic_int threshold = LOG_ERROR - 1;
static atomic_bool as_json;

struct line {
  char text[LINE_BYTES];
  size_t length;
};

void log_set_level(enum log_level level) {
  atomic_store_explicit(&threshold, (int)level, memory_order_relaxed);
}

void log_set_json(bool json) {
  atomic_store_explicit(&as_json, json, memory_order_relaxed);
}

bool log_enabled(enum log_level level) {
  return (int)level <= atomic_load_explicit(&threshold, memory_order_relaxed);
}

static const char *level_name(enum log_level level) {
  switch (level) {
  case LOG_ERROR: return "error";
  case LOG_WARNING: return "warning";
  case LOG_INFO: return "info";
  case LOG_DEBUG: return "debug";
  }
  return "error";
}

static void append(struct line *line, const char *text, size_t length) {
  size_t room = sizeof line->text - line->length;
  if (length > room) length = room;
  memcpy(line->text + line->length, text, length);
  line->length += length;
}

static void append_text(struct line *line, const char *text) {
  append(line, text, strlen(text));
}

SPROUT_PRINTF(2, 3) static void append_format(struct line *line, const char *format, ...) {
  char text[64];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length > 0) append(line, text, (size_t)length < sizeof text ? (size_t)length : sizeof text);
}

/* Length of the valid UTF-8 sequence at `text`, 0 when it is none. */
static size_t utf8_length(const unsigned char *text) {
  if (text[0] < 0x80) return 1;
  size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
  if (text[0] < 0xc2 || text[0] > 0xf4) return 0;
  for (size_t i = 1; i < length; i++)
    if ((text[i] & 0xc0) != 0x80) return 0;
  bool overlong = (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xf0 && text[1] < 0x90);
  bool surrogate = text[0] == 0xed && text[1] >= 0xa0;
  bool beyond = text[0] == 0xf4 && text[1] >= 0x90;
  return overlong || surrogate || beyond ? 0 : length;
}

/* A message is one line of text, whatever a peer or a file name put into it. */
static void append_escaped(struct line *line, const char *message, bool json) {
  const unsigned char *at = (const unsigned char *)message;
  while (*at != 0) {
    size_t length = utf8_length(at);
    if (length == 0) {
      append_text(line, json ? "\\ufffd" : "\xef\xbf\xbd");
      length = 1;
    } else if (*at == '\n') {
      append_text(line, "\\n");
    } else if (*at < 0x20 || *at == 0x7f) {
      append_format(line, json ? "\\u%04x" : "\\x%02x", *at);
    } else {
      if (json && (*at == '"' || *at == '\\')) append_text(line, "\\");
      append(line, (const char *)at, length);
    }
    at += length;
  }
}

static void append_time(struct line *line, bool json) {
  struct timespec now;
  struct tm utc;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  if (json) append_format(line, "%04d-%02d-%02dT", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday);
  append_format(line, "%02d:%02d:%02d.%03d", utc.tm_hour, utc.tm_min, utc.tm_sec,
                (int)(now.tv_nsec / 1000000));
  if (json) append_text(line, "Z");
}

static void build(struct line *line, enum log_level level, const char *component,
                  const char *message) {
  bool json = atomic_load_explicit(&as_json, memory_order_relaxed);
  if (json) append_text(line, "{\"time\":\"");
  append_time(line, json);
  append_text(line, json ? "\",\"level\":\"" : " ");
  append_text(line, level_name(level));
  append_text(line, json ? "\",\"component\":\"" : " ");
  append_escaped(line, component, json);
  append_text(line, json ? "\",\"message\":\"" : ": ");
  append_escaped(line, message, json);
  append_text(line, json ? "\"}\n" : "\n");
}

void log_write(enum log_level level, const char *component, const char *format, ...) {
  if (!log_enabled(level)) return;
  int saved_errno = errno;
  char message[MESSAGE_BYTES];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (length < 0) message[0] = '\0';
  if (length >= (int)sizeof message) memcpy(message + sizeof message - 4, "...", 4);
  struct line line = {.length = 0};
  build(&line, level, component, message);
  /* A line that standard error does not take is lost: a log never blocks or fails its caller. */
  while (write(STDERR_FILENO, line.text, line.length) < 0 && errno == EINTR) {
  }
  errno = saved_errno;
}
