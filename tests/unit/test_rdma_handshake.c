/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/rdma_handshake.h"
#include "net/rdma_verbs.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t nonce[RDMA_NONCE_BYTES] = {1, 2,  3,  4,  5,  6,  7,  8,
                                                9, 10, 11, 12, 13, 14, 15, 0xff};

/* Decodes from memory of exactly this size, so that a step beyond is seen. */
static bool decode_exactly(const uint8_t *data, uint32_t bytes, uint8_t nonce_out[RDMA_NONCE_BYTES],
                           enum rdma_refusal *refusal_out) {
  uint8_t *copy = malloc(bytes ? bytes : 1);
  assert_non_null(copy);
  memcpy(copy, data, bytes);
  bool good = rdma_hello_decode(copy, bytes, nonce_out, refusal_out);
  free(copy);
  return good;
}

static void a_hello_comes_back_at_any_padded_length(void **state) {
  (void)state;
  uint8_t data[VERBS_PRIVATE_BYTES] = {0}, got[RDMA_NONCE_BYTES];
  enum rdma_refusal refusal;
  rdma_hello_encode(nonce, data);
  for (uint32_t bytes = 0; bytes <= sizeof(data); bytes++) {
    memset(got, 0, sizeof(got));
    bool good = decode_exactly(data, bytes, got, &refusal);
    assert_int_equal(good, bytes >= RDMA_HELLO_BYTES);
    if (good)
      assert_memory_equal(got, nonce, sizeof(nonce));
    else
      assert_int_equal(refusal, RDMA_REFUSED_MALFORMED);
  }
}

static void a_hello_is_laid_out_like_this(void **state) {
  (void)state;
  static const uint8_t head[] = {'S', 'P', 'R', 'T', 0, 1, 0, 24};
  uint8_t data[RDMA_HELLO_BYTES];
  rdma_hello_encode(nonce, data);
  assert_memory_equal(data, head, sizeof(head));
  assert_memory_equal(data + sizeof(head), nonce, sizeof(nonce));
}

/* Every byte but the nonce's changed in every way, padding included. */
static void any_other_byte_is_refused(void **state) {
  (void)state;
  uint8_t data[VERBS_PRIVATE_CONNECT_BYTES] = {0}, got[RDMA_NONCE_BYTES];
  rdma_hello_encode(nonce, data);
  for (uint32_t at = 0; at < sizeof(data); at++) {
    uint8_t kept = data[at];
    if (at >= 8 && at < RDMA_HELLO_BYTES) continue;
    for (unsigned value = 0; value < 256; value++) {
      enum rdma_refusal refusal;
      if (value == kept) continue;
      data[at] = (uint8_t)value;
      assert_false(decode_exactly(data, sizeof(data), got, &refusal));
      assert_int_equal(refusal, at == 4 || at == 5 ? RDMA_REFUSED_VERSION : RDMA_REFUSED_MALFORMED);
    }
    data[at] = kept;
  }
}

static void another_version_may_have_another_length(void **state) {
  (void)state;
  static const uint8_t later[] = {'S', 'P', 'R', 'T', 0, 2};
  uint8_t got[RDMA_NONCE_BYTES];
  enum rdma_refusal refusal;
  assert_false(decode_exactly(later, sizeof(later), got, &refusal));
  assert_int_equal(refusal, RDMA_REFUSED_VERSION);
}

static void refusals_are_explained(void **state) {
  (void)state;
  static const struct {
    enum rdma_refusal refusal;
    enum sprout_status status;
  } cases[] = {
      {RDMA_REFUSED_MALFORMED, SPROUT_PROTOCOL}, {RDMA_REFUSED_VERSION, SPROUT_VERSION},
      {RDMA_REFUSED_NONCE, SPROUT_GONE},         {RDMA_REFUSED_LIMIT, SPROUT_BUSY},
      {RDMA_REFUSED_LOCAL, SPROUT_UNAVAILABLE},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    uint8_t data[148] = {0};
    struct sprout_error error = {.status = SPROUT_OK};
    rdma_refusal_encode(cases[i].refusal, data);
    assert_int_equal(rdma_refusal_explain(data, sizeof(data), &error), cases[i].status);
    assert_int_equal(error.status, cases[i].status);
    assert_null(strstr(error.message, "did not tell"));
    assert_true(error.message[0] && error.hint[0]);
  }
}

static void garbage_is_a_reason_that_was_not_told(void **state) {
  (void)state;
  uint8_t data[148];
  struct sprout_error error;
  memset(data, 0xa5, sizeof(data));
  for (uint32_t bytes = 0; bytes <= sizeof(data); bytes++) {
    assert_int_equal(rdma_refusal_explain(data, bytes, &error), SPROUT_PROTOCOL);
    assert_non_null(strstr(error.message, "did not tell"));
  }
  static const enum rdma_refusal strange[] = {0, RDMA_REFUSED_LOCAL + 1, 0xffff};
  for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
    rdma_refusal_encode(strange[i], data);
    assert_int_equal(rdma_refusal_explain(data, RDMA_REFUSAL_BYTES, &error), SPROUT_PROTOCOL);
    assert_non_null(strstr(error.message, "did not tell"));
  }
}

static void nonces_are_compared_whole(void **state) {
  (void)state;
  uint8_t other[RDMA_NONCE_BYTES];
  memcpy(other, nonce, sizeof(other));
  assert_true(rdma_nonce_equal(nonce, other));
  for (unsigned bit = 0; bit < 8 * RDMA_NONCE_BYTES; bit++) {
    other[bit / 8] ^= (uint8_t)(1u << bit % 8);
    assert_false(rdma_nonce_equal(nonce, other));
    other[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_hello_comes_back_at_any_padded_length),
      cmocka_unit_test(a_hello_is_laid_out_like_this),
      cmocka_unit_test(any_other_byte_is_refused),
      cmocka_unit_test(another_version_may_have_another_length),
      cmocka_unit_test(refusals_are_explained),
      cmocka_unit_test(garbage_is_a_reason_that_was_not_told),
      cmocka_unit_test(nonces_are_compared_whole),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
