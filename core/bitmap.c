/* SPDX-License-Identifier: Apache-2.0 */
#include "core/bitmap.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum sprout_status bitmap_init(struct bitmap *bitmap, uint64_t bit_count) {
  assert(bit_count < UINT64_C(1) << 36);
  *bitmap = (struct bitmap){.bit_count = bit_count};
  uint64_t bits = bit_count > 0 ? bit_count : 1;
  size_t total = 0;
  do {
    assert(bitmap->level_count < BITMAP_LEVELS);
    bitmap->level_bits[bitmap->level_count++] = bits;
    bits = bits_words(bits);
    total += (size_t)bits;
  } while (bits > 1);
  uint64_t *words = calloc(total, sizeof(*words));
  if (words == NULL) return SPROUT_NO_MEMORY;
  for (uint32_t level = 0; level < bitmap->level_count; level++) {
    bitmap->levels[level] = words;
    words += bits_words(bitmap->level_bits[level]);
  }
  return SPROUT_OK;
}

void bitmap_destroy(struct bitmap *bitmap) {
  free(bitmap->levels[0]);
  *bitmap = (struct bitmap){.level_count = 0};
}

void bitmap_set(struct bitmap *bitmap, uint64_t bit) {
  assert(bit < bitmap->bit_count);
  if (bitmap_get(bitmap, bit)) return;
  bitmap->set_count++;
  for (uint32_t level = 0; level < bitmap->level_count; level++) {
    uint64_t *word = &bitmap->levels[level][bit / 64];
    bool was_empty = *word == 0;
    *word |= UINT64_C(1) << (bit % 64);
    if (!was_empty) return;
    bit /= 64;
  }
}

void bitmap_clear(struct bitmap *bitmap, uint64_t bit) {
  assert(bit < bitmap->bit_count);
  if (!bitmap_get(bitmap, bit)) return;
  bitmap->set_count--;
  for (uint32_t level = 0; level < bitmap->level_count; level++) {
    uint64_t *word = &bitmap->levels[level][bit / 64];
    *word &= ~(UINT64_C(1) << (bit % 64));
    if (*word != 0) return;
    bit /= 64;
  }
}

void bitmap_clear_all(struct bitmap *bitmap) {
  for (uint32_t level = 0; level < bitmap->level_count; level++)
    memset(bitmap->levels[level], 0, bits_words(bitmap->level_bits[level]) * sizeof(uint64_t));
  bitmap->set_count = 0;
}

/* Lowest set bit at or above `bit` in its own word of a level, or BITMAP_NONE. */
static uint64_t next_in_word(const uint64_t *words, uint64_t bit) {
  uint64_t word = words[bit / 64] & (~UINT64_C(0) << (bit % 64));
  if (word == 0) return BITMAP_NONE;
  return bit / 64 * 64 + (uint64_t)__builtin_ctzll(word);
}

uint64_t bitmap_next(const struct bitmap *bitmap, uint64_t from) {
  if (from >= bitmap->bit_count) return BITMAP_NONE;
  uint64_t bit = next_in_word(bitmap->levels[0], from);
  if (bit != BITMAP_NONE) return bit;
  /* Up until a summary shows a non-empty word to the right, then down along lowest bits. */
  uint32_t level = 0;
  uint64_t position = from;
  do {
    level++;
    if (level == bitmap->level_count) return BITMAP_NONE;
    position = position / 64 + 1;
    if (position >= bitmap->level_bits[level]) return BITMAP_NONE;
    bit = next_in_word(bitmap->levels[level], position);
  } while (bit == BITMAP_NONE);
  while (level > 0) {
    level--;
    bit = bit * 64 + (uint64_t)__builtin_ctzll(bitmap->levels[level][bit]);
  }
  return bit;
}
