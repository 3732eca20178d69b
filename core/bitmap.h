/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bitmaps. Flat ones are plain arrays of 64-bit words; a `struct bitmap` carries summary levels
 * (one bit per non-zero word below), so that the next set bit of a large, mostly empty one is found
 * in a few steps. Pure; sizes are fixed when made.
 */
#ifndef CORE_BITMAP_H
#define CORE_BITMAP_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITMAP_NONE UINT64_MAX
#define BITMAP_LEVELS 6

/* --- flat --- */
static inline size_t bits_words(uint64_t bit_count) {
  return (size_t)((bit_count + 63) / 64);
}
static inline bool bits_get(const uint64_t *words, uint64_t bit) {
  return (words[bit / 64] >> (bit % 64)) & 1;
}
static inline void bits_set(uint64_t *words, uint64_t bit) {
  words[bit / 64] |= UINT64_C(1) << (bit % 64);
}
static inline void bits_clear(uint64_t *words, uint64_t bit) {
  words[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

/* --- with summaries --- */
struct bitmap {
  uint64_t *levels[BITMAP_LEVELS];    /* [0]: the bits; one allocation */
  uint64_t level_bits[BITMAP_LEVELS]; /* bits in use of each level */
  uint32_t level_count;
  uint64_t bit_count;
  uint64_t set_count;
};

/* All clear. bit_count < 2^36. */
SPROUT_MUST_CHECK enum sprout_status bitmap_init(struct bitmap *bitmap, uint64_t bit_count);
void bitmap_destroy(struct bitmap *bitmap);
/* Setting a set bit and clearing a clear one are harmless. */
void bitmap_set(struct bitmap *bitmap, uint64_t bit);
void bitmap_clear(struct bitmap *bitmap, uint64_t bit);
void bitmap_clear_all(struct bitmap *bitmap);
/* The lowest set bit >= from, or BITMAP_NONE. */
uint64_t bitmap_next(const struct bitmap *bitmap, uint64_t from);
static inline bool bitmap_get(const struct bitmap *bitmap, uint64_t bit) {
  return bits_get(bitmap->levels[0], bit);
}
#endif
