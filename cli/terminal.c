/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/terminal.h"

#include <langinfo.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_LEAST 20
#define COLUMNS_MOST 1000

struct terminal terminal_of(int fd, char *(*environment)(const char *name)) {
  const char *kind = environment("TERM"), *no_color = environment("NO_COLOR");
  struct terminal terminal = {.fd = fd};
  terminal.interactive = isatty(fd) && kind != NULL && kind[0] != '\0' && strcmp(kind, "dumb") != 0;
  terminal.color = terminal.interactive && (no_color == NULL || no_color[0] == '\0');
  terminal.unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  return terminal;
}

/* A number from the environment, 0 when it is none. */
static unsigned number_of(const char *text) {
  if (text == NULL || text[0] < '0' || text[0] > '9') return 0;
  unsigned long value = strtoul(text, NULL, 10);
  return value <= COLUMNS_MOST ? (unsigned)value : COLUMNS_MOST;
}

void terminal_size(const struct terminal *terminal, char *(*environment)(const char *name),
                   unsigned *columns_out, unsigned *rows_out) {
  struct winsize size = {.ws_col = 0};
  if (!terminal->interactive || ioctl(terminal->fd, TIOCGWINSZ, &size) != 0)
    size = (struct winsize){.ws_col = 0};
  unsigned columns = number_of(environment("COLUMNS")), rows = number_of(environment("LINES"));
  if (columns == 0) columns = size.ws_col != 0 ? size.ws_col : 80;
  if (rows == 0) rows = size.ws_row != 0 ? size.ws_row : 24;
  *columns_out = columns < COLUMNS_LEAST ? COLUMNS_LEAST : columns;
  *rows_out = rows;
}

/* Bytes of the character at `text`, and whether it may be shown as it is. */
static size_t character_at(const unsigned char *text, bool *plain_out) {
  unsigned char first = text[0];
  size_t length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  uint32_t code = first < 0x80 ? first : first & (0x7Fu >> length);
  *plain_out = false;
  if (first >= 0x80 && (first < 0xC2 || first > 0xF4)) return 1;
  for (size_t i = 1; i < length; i++) {
    if ((text[i] & 0xC0) != 0x80) return 1;
    code = code << 6 | (text[i] & 0x3F);
  }
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  bool canonical = code >= least[length] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
  if (!canonical) return 1;
  /* Control characters of both sets, and the ones that change the direction of what follows. */
  bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
  bool direction = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
  *plain_out = !control && !direction;
  return length;
}

/* Where the character with index `columns` begins; counts them up to there. */
static size_t offset_of(const char *text, size_t columns, size_t *count_out) {
  size_t at = 0, count = 0;
  bool plain;
  while (text[at] != '\0' && count < columns) {
    at += character_at((const unsigned char *)text + at, &plain);
    count++;
  }
  *count_out = count;
  return at;
}

size_t terminal_clean(const char *text, size_t columns, bool unicode, char *buffer, size_t room) {
  const char *ellipsis = unicode ? "\xE2\x80\xA6" : "...";
  size_t ellipsis_columns = unicode ? 1 : 3, count, shown;
  size_t end = offset_of(text, columns, &shown);
  bool cut = text[end] != '\0';
  if (cut && columns >= ellipsis_columns) end = offset_of(text, columns - ellipsis_columns, &shown);
  size_t used = 0;
  count = 0;
  for (size_t at = 0; at < end;) {
    bool plain;
    size_t length = character_at((const unsigned char *)text + at, &plain);
    bool keep = plain && (unicode || length == 1);
    if (used + (keep ? length : 1) >= room) break;
    if (keep) memcpy(buffer + used, text + at, length);
    if (!keep) buffer[used] = '?';
    used += keep ? length : 1;
    at += length;
    count++;
  }
  if (cut && columns >= ellipsis_columns && used + strlen(ellipsis) < room) {
    memcpy(buffer + used, ellipsis, strlen(ellipsis));
    used += strlen(ellipsis);
    count += ellipsis_columns;
  }
  buffer[used] = '\0';
  return count;
}
