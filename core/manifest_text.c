/* SPDX-License-Identifier: Apache-2.0 */
/* Which texts may be names and paths, and how to print those that may not. */
#include "core/limits.h"
#include "core/manifest.h"

#include <string.h>

/* Length of the well-formed UTF-8 sequence at `text` (NUL-terminated), 0 when there is none. */
static size_t sequence_length(const unsigned char *text) {
  unsigned char lead = text[0];
  if (lead < 0x80) return 1;
  /* The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF. */
  unsigned char low = 0x80, high = 0xBF;
  size_t length;
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if ((lead & 0xF0) == 0xE0) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  if (text[1] < low || text[1] > high) return 0;
  for (size_t i = 2; i < length; i++)
    if ((text[i] & 0xC0) != 0x80) return 0;
  return length;
}

bool manifest_text_ok(const char *text) {
  const unsigned char *byte = (const unsigned char *)text;
  while (*byte != '\0') {
    size_t length = *byte < 0x20 ? 0 : sequence_length(byte);
    if (length == 0) return false;
    byte += length;
  }
  return true;
}

bool manifest_path_ok(const char *path) {
  size_t length = strnlen(path, LIMIT_NAME_BYTES + 1);
  if (length == 0 || length > LIMIT_NAME_BYTES || !manifest_text_ok(path)) return false;
  for (const char *part = path;;) {
    size_t part_length = strcspn(part, "/");
    if (part_length == 0) return false;
    if (part_length == 1 && part[0] == '.') return false;
    if (part_length == 2 && part[0] == '.' && part[1] == '.') return false;
    if (part[part_length] == '\0') return true;
    part += part_length + 1;
  }
}

const char *manifest_quote(const char *text, char buffer[MANIFEST_QUOTE_BYTES]) {
  static const char dots[] = "...";
  const unsigned char *byte = (const unsigned char *)text;
  size_t used = 0;
  while (*byte != '\0') {
    size_t length = *byte < 0x20 ? 0 : sequence_length(byte);
    size_t taken = length == 0 ? 1 : length;
    if (used + taken + sizeof(dots) > MANIFEST_QUOTE_BYTES) {
      memcpy(buffer + used, dots, sizeof(dots));
      return buffer;
    }
    if (length == 0)
      buffer[used] = '?';
    else
      memcpy(buffer + used, byte, length);
    used += taken;
    byte += taken;
  }
  buffer[used] = '\0';
  return buffer;
}
