/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layouts, big-endian: hello = magic (4), version (2), own length (2), nonce (16);
 * refusal = magic (4), version (2), reason (2).
 */
#include "net/rdma_handshake.h"

#include <string.h>

#define VERSION_AT 4u
#define LENGTH_AT 6u
#define NONCE_AT 8u
#define REASON_AT 6u

static const uint8_t magic[VERSION_AT] = {'S', 'P', 'R', 'T'};

static void put_u16(uint8_t *at, uint16_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

static uint16_t get_u16(const uint8_t *at) {
  return (uint16_t)(at[0] << 8 | at[1]);
}

void rdma_hello_encode(const uint8_t nonce[RDMA_NONCE_BYTES], uint8_t hello_out[RDMA_HELLO_BYTES]) {
  memcpy(hello_out, magic, sizeof(magic));
  put_u16(hello_out + VERSION_AT, RDMA_PROTOCOL_VERSION);
  put_u16(hello_out + LENGTH_AT, RDMA_HELLO_BYTES);
  memcpy(hello_out + NONCE_AT, nonce, RDMA_NONCE_BYTES);
}

static bool all_zero(const uint8_t *data, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i++)
    if (data[i] != 0) return false;
  return true;
}

bool rdma_hello_decode(const uint8_t *data, uint32_t bytes, uint8_t nonce_out[RDMA_NONCE_BYTES],
                       enum rdma_refusal *refusal_out) {
  *refusal_out = RDMA_REFUSED_MALFORMED;
  /* The version is told apart first: what follows it is that version's own. */
  if (bytes < LENGTH_AT || memcmp(data, magic, sizeof(magic)) != 0) return false;
  if (get_u16(data + VERSION_AT) != RDMA_PROTOCOL_VERSION) {
    *refusal_out = RDMA_REFUSED_VERSION;
    return false;
  }
  if (bytes < RDMA_HELLO_BYTES || get_u16(data + LENGTH_AT) != RDMA_HELLO_BYTES) return false;
  if (!all_zero(data + RDMA_HELLO_BYTES, bytes - RDMA_HELLO_BYTES)) return false;
  memcpy(nonce_out, data + NONCE_AT, RDMA_NONCE_BYTES);
  return true;
}

void rdma_refusal_encode(enum rdma_refusal refusal, uint8_t data_out[RDMA_REFUSAL_BYTES]) {
  memcpy(data_out, magic, sizeof(magic));
  put_u16(data_out + VERSION_AT, RDMA_PROTOCOL_VERSION);
  put_u16(data_out + REASON_AT, (uint16_t)refusal);
}

enum sprout_status rdma_refusal_explain(const uint8_t *data, uint32_t bytes,
                                        struct sprout_error *error) {
  static const struct {
    enum sprout_status status;
    const char *message, *hint;
  } reasons[] = {
      {SPROUT_PROTOCOL, "the seed refused the RDMA connection for a reason it did not tell",
       "Check that this address is a sprout seed's."},
      [RDMA_REFUSED_MALFORMED] = {SPROUT_PROTOCOL, "the seed could not read our RDMA hello",
                                  "Use versions of sprout that go together."},
      [RDMA_REFUSED_VERSION] = {SPROUT_VERSION,
                                "the seed speaks another version of the RDMA handshake",
                                "Use versions of sprout that go together."},
      [RDMA_REFUSED_NONCE] = {SPROUT_GONE,
                              "the seed does not know (any more) the nonce of the RDMA connection",
                              "Open a new fork."},
      [RDMA_REFUSED_LIMIT] = {SPROUT_BUSY, "the seed has as many RDMA connections as it may",
                              "Try again later, or read over TCP."},
      [RDMA_REFUSED_LOCAL] = {SPROUT_UNAVAILABLE, "the seed could not make a queue pair",
                              "Its log says why; read over TCP or from another seed."},
  };
  size_t reason = 0;
  if (bytes >= RDMA_REFUSAL_BYTES && memcmp(data, magic, sizeof(magic)) == 0)
    reason = get_u16(data + REASON_AT);
  if (reason >= sizeof(reasons) / sizeof(reasons[0])) reason = 0;
  return sprout_error_set(error, reasons[reason].status, 0, reasons[reason].hint, "%s",
                          reasons[reason].message);
}

bool rdma_nonce_equal(const uint8_t a[RDMA_NONCE_BYTES], const uint8_t b[RDMA_NONCE_BYTES]) {
  /* volatile: no compiler turns the loop into one that leaves early. */
  volatile uint8_t difference = 0;
  for (unsigned i = 0; i < RDMA_NONCE_BYTES; i++) difference |= (uint8_t)(a[i] ^ b[i]);
  return difference == 0;
}
