/* SPDX-License-Identifier: Apache-2.0 */
#include "net/json_text.h"

#include <stdlib.h>
#include <string.h>

static int append(const char *text, size_t length_bytes, void *context) {
  struct wire_buffer *buffer = context;
  if (buffer->capacity_bytes - buffer->length_bytes < length_bytes) {
    size_t capacity = buffer->capacity_bytes * 2 + length_bytes + 256;
    unsigned char *data = realloc(buffer->data, capacity);
    if (data == NULL) return -1;
    buffer->data = data;
    buffer->capacity_bytes = capacity;
  }
  memcpy(buffer->data + buffer->length_bytes, text, length_bytes);
  buffer->length_bytes += length_bytes;
  return 0;
}

enum sprout_status json_text_encode(json_t *value, struct wire_buffer *buffer) {
  if (value == NULL) return SPROUT_NO_MEMORY;
  int result = json_dump_callback(value, append, buffer,
                                  JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
  json_decref(value);
  if (result != 0 || append("\n", 1, buffer) != 0) return SPROUT_NO_MEMORY;
  return SPROUT_OK;
}

json_t *json_text_string(const char *text) {
  json_t *value = json_string(text);
  if (value != NULL) return value;
  size_t length = strlen(text);
  char *clean = malloc(3 * length + 1);
  if (clean == NULL) return NULL;
  size_t used = 0;
  for (size_t i = 0; i < length; i++) {
    if ((unsigned char)text[i] < 0x80) {
      clean[used++] = text[i];
    } else {
      memcpy(clean + used, "\xEF\xBF\xBD", 3);
      used += 3;
    }
  }
  clean[used] = '\0';
  value = json_string(clean);
  free(clean);
  return value;
}
