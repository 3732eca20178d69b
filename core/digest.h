/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3-128 digests, canonical big-endian, of chunks and of layouts. Pure; any thread.
 */
#ifndef CORE_DIGEST_H
#define CORE_DIGEST_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES 16
#define DIGEST_HEX_BYTES 33 /* 32 digits and the terminator */

struct digest {
  uint8_t bytes[DIGEST_BYTES];
};

/* Streaming state; 64-byte aligned, embeddable without allocation. */
struct digest_stream {
  _Alignas(64) unsigned char opaque[576];
};

struct digest digest_of(const void *data, size_t length_bytes);
void digest_begin(struct digest_stream *stream);
void digest_update(struct digest_stream *stream, const void *data, size_t length_bytes);
struct digest digest_end(const struct digest_stream *stream);
bool digest_equal(const struct digest *a, const struct digest *b);
void digest_to_hex(const struct digest *digest, char hex_out[DIGEST_HEX_BYTES]);
SPROUT_MUST_CHECK enum sprout_status digest_from_hex(const char *hex, struct digest *digest_out);
#endif
