/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON documents as text. Pure.
 */
#ifndef NET_JSON_TEXT_H
#define NET_JSON_TEXT_H

#include "net/wire.h"

#include <jansson.h>

/* Appends `value` (its reference is taken, NULL: out of memory) and a line end. */
SPROUT_MUST_CHECK enum sprout_status json_text_encode(json_t *value, struct wire_buffer *buffer);
/* A string that is JSON whatever the bytes: what is not UTF-8 becomes U+FFFD. NULL: out of memory.
 */
json_t *json_text_string(const char *text);
#endif
