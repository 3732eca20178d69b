/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Digests through libxxhash. Its dispatch entries choose the vector unit at run time and are three
 * times the plain ones; SPROUT_XXH_DISPATCH says that the build found them.
 */
#include "core/digest.h"

#include <assert.h>
#include <string.h>

/* Shows the streaming state's size, so that callers embed it without allocating; the checks below
 * catch a library that grew it. */
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>
#ifdef SPROUT_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#define ONE_SHOT XXH3_128bits_dispatch
#define UPDATE XXH3_128bits_update_dispatch
#else
#define ONE_SHOT XXH3_128bits
#define UPDATE XXH3_128bits_update
#endif

_Static_assert(sizeof(XXH3_state_t) <= sizeof(struct digest_stream), "digest_stream is too small");
_Static_assert(_Alignof(struct digest_stream) >= _Alignof(XXH3_state_t), "too little alignment");
_Static_assert(_Alignof(struct digest_stream) >= 64, "the vector code loads aligned lines");
_Static_assert(sizeof(XXH128_canonical_t) == DIGEST_BYTES, "XXH3-128 has 16 bytes");

static struct digest canonical(XXH128_hash_t hash) {
  XXH128_canonical_t big_endian;
  struct digest digest;
  XXH128_canonicalFromHash(&big_endian, hash);
  memcpy(digest.bytes, &big_endian, sizeof(digest.bytes));
  return digest;
}

static XXH3_state_t *state_of(struct digest_stream *stream) {
  assert(((uintptr_t)stream & 63) == 0);
  return (XXH3_state_t *)(void *)stream->opaque;
}

struct digest digest_of(const void *data, size_t length_bytes) {
  return canonical(ONE_SHOT(data, length_bytes));
}

void digest_begin(struct digest_stream *stream) {
  XXH_errorcode code = XXH3_128bits_reset(state_of(stream));
  assert(code == XXH_OK);
  (void)code;
}

void digest_update(struct digest_stream *stream, const void *data, size_t length_bytes) {
  if (length_bytes == 0) return; /* `data` may be NULL then, which the library takes for an error */
  XXH_errorcode code = UPDATE(state_of(stream), data, length_bytes);
  assert(code == XXH_OK);
  (void)code;
}

struct digest digest_end(const struct digest_stream *stream) {
  return canonical(XXH3_128bits_digest((const XXH3_state_t *)(const void *)stream->opaque));
}

bool digest_equal(const struct digest *a, const struct digest *b) {
  return memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}

void digest_to_hex(const struct digest *digest, char hex_out[DIGEST_HEX_BYTES]) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < DIGEST_BYTES; i++) {
    hex_out[2 * i] = digits[digest->bytes[i] >> 4];
    hex_out[2 * i + 1] = digits[digest->bytes[i] & 15];
  }
  hex_out[DIGEST_HEX_BYTES - 1] = '\0';
}

static int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

enum sprout_status digest_from_hex(const char *hex, struct digest *digest_out) {
  struct digest digest;
  if (strnlen(hex, DIGEST_HEX_BYTES) != DIGEST_HEX_BYTES - 1) return SPROUT_INVALID;
  for (size_t i = 0; i < DIGEST_BYTES; i++) {
    int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);
    if (high < 0 || low < 0) return SPROUT_INVALID;
    digest.bytes[i] = (uint8_t)(high << 4 | low);
  }
  *digest_out = digest;
  return SPROUT_OK;
}
