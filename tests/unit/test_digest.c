/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/digest.h"

#include <stdlib.h>
#include <string.h>

static void hex_of(const void *data, size_t length_bytes, char hex_out[DIGEST_HEX_BYTES]) {
  struct digest digest = digest_of(data, length_bytes);
  digest_to_hex(&digest, hex_out);
}

/* Values of the reference implementation: the digest is on the wire and must never change. */
static void digests_are_canonical_xxh3_128(void **state) {
  (void)state;
  char hex[DIGEST_HEX_BYTES];
  hex_of("", 0, hex);
  assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
  hex_of("a", 1, hex);
  assert_string_equal(hex, "a96faf705af16834e6c632b61e964e1f");
  hex_of("abc", 3, hex);
  assert_string_equal(hex, "06b05ab6733a618578af5f94892f3950");
}

/* Any way of cutting the input gives the same digest, at every alignment. */
static void streams_agree_with_one_shot(void **state) {
  (void)state;
  enum { LENGTH = 70000 };
  static const size_t pieces[] = {1, 3, 63, 64, 65, 255, 256, 257, 1024, 4096, 65536, LENGTH};
  unsigned char *data = malloc(LENGTH + 64);
  assert_non_null(data);
  for (size_t i = 0; i < LENGTH + 64; i++) data[i] = (unsigned char)(i * 2654435761u >> 13);
  for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
    const unsigned char *from = data + p;
    struct digest whole = digest_of(from, LENGTH), streamed;
    struct digest_stream stream;
    digest_begin(&stream);
    for (size_t at = 0; at < LENGTH; at += pieces[p])
      digest_update(&stream, from + at, LENGTH - at < pieces[p] ? LENGTH - at : pieces[p]);
    streamed = digest_end(&stream);
    assert_true(digest_equal(&whole, &streamed));
    streamed = digest_end(&stream); /* ending is a question, it changes nothing */
    assert_true(digest_equal(&whole, &streamed));
  }
  free(data);
}

static void an_empty_stream_takes_null(void **state) {
  (void)state;
  struct digest_stream stream;
  struct digest empty = digest_of("", 0), streamed;
  digest_begin(&stream);
  digest_update(&stream, NULL, 0);
  streamed = digest_end(&stream);
  assert_true(digest_equal(&empty, &streamed));
}

static void one_bit_makes_another_digest(void **state) {
  (void)state;
  unsigned char data[4096] = {0};
  struct digest before = digest_of(data, sizeof(data));
  for (size_t bit = 0; bit < sizeof(data) * 8; bit += 97) {
    data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    struct digest after = digest_of(data, sizeof(data));
    assert_false(digest_equal(&before, &after));
    data[bit / 8] ^= (unsigned char)(1u << bit % 8);
  }
}

static void hex_round_trips_and_is_strict(void **state) {
  (void)state;
  static const char *const bad[] = {"",
                                    "99aa",
                                    "99aa06d3014798d86001c324468d497",
                                    "99aa06d3014798d86001c324468d497f0",
                                    "99aa06d3014798d86001c324468d497g",
                                    " 9aa06d3014798d86001c324468d497f"};
  struct digest digest, before = digest_of("x", 1);
  char hex[DIGEST_HEX_BYTES];
  assert_int_equal(digest_from_hex("99AA06d3014798d86001c324468d497F", &digest), SPROUT_OK);
  digest_to_hex(&digest, hex);
  assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    digest = before;
    assert_int_equal(digest_from_hex(bad[i], &digest), SPROUT_INVALID);
    assert_true(digest_equal(&digest, &before));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(digests_are_canonical_xxh3_128),
      cmocka_unit_test(streams_agree_with_one_shot),
      cmocka_unit_test(an_empty_stream_takes_null),
      cmocka_unit_test(one_bit_makes_another_digest),
      cmocka_unit_test(hex_round_trips_and_is_strict),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
