/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two ends of an RDMA connection tell each other in private data. Pure; untrusted input.
 *
 * A fork connects with a hello: magic "SPRT", protocol version, the hello's own length (the
 * transport pads with zeros), and the one-time nonce that the seed gave it for this endpoint: 24
 * bytes, big-endian. A seed that refuses answers with a refusal: magic, version, reason.
 */
#ifndef NET_RDMA_HANDSHAKE_H
#define NET_RDMA_HANDSHAKE_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stdint.h>

#define RDMA_NONCE_BYTES 16
#define RDMA_HELLO_BYTES 24
#define RDMA_REFUSAL_BYTES 8
#define RDMA_PROTOCOL_VERSION 1u

enum rdma_refusal {
  RDMA_REFUSED_MALFORMED = 1, /* no hello of ours */
  RDMA_REFUSED_VERSION,
  RDMA_REFUSED_NONCE, /* unknown, used before, or of a fork that has ended */
  RDMA_REFUSED_LIMIT, /* too many connections */
  RDMA_REFUSED_LOCAL  /* the seed could not make a queue pair */
};

void rdma_hello_encode(const uint8_t nonce[RDMA_NONCE_BYTES], uint8_t hello_out[RDMA_HELLO_BYTES]);
/* `bytes` as it arrived, padding included. False: *refusal_out says why. */
bool rdma_hello_decode(const uint8_t *data, uint32_t bytes, uint8_t nonce_out[RDMA_NONCE_BYTES],
                       enum rdma_refusal *refusal_out);
void rdma_refusal_encode(enum rdma_refusal refusal, uint8_t data_out[RDMA_REFUSAL_BYTES]);
/* What a rejected connection means to a fork; garbage is "refused for a reason it did not tell".
 * Fills *error. */
enum sprout_status rdma_refusal_explain(const uint8_t *data, uint32_t bytes,
                                        struct sprout_error *error);
/* Constant time. */
bool rdma_nonce_equal(const uint8_t a[RDMA_NONCE_BYTES], const uint8_t b[RDMA_NONCE_BYTES]);
#endif
