/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes, rates and durations as people write them. Pure.
 *
 * Sizes: 123, 4K, 4M, 4G, 4T or 4KB ... (powers of 1000), 4Ki, 4Mi, 4GiB (powers of 1024), decimals
 * allowed ("1.5G"). Rates: a size with optional /s, or bits: 10Gbit, 100Mbit; 25% is a share of a
 * link; 0 is no limit. Durations: 500ms, 3s, 2m, 1h (also us, ns), a bare number is seconds. Case
 * does not matter; fractions of a byte or nanosecond are dropped.
 */
#ifndef CORE_UNITS_H
#define CORE_UNITS_H

#include "sprout/status.h"

#include <stddef.h>
#include <stdint.h>

struct units_rate {
  uint64_t bytes_per_second; /* 0 when percent is set */
  uint32_t percent;          /* 1..100, 0 when not a percentage */
};

/* SPROUT_INVALID for malformed, negative or overflowing text; text is not NULL. */
SPROUT_MUST_CHECK enum sprout_status units_parse_size(const char *text, uint64_t *bytes_out);
SPROUT_MUST_CHECK enum sprout_status units_parse_rate(const char *text,
                                                      struct units_rate *rate_out);
SPROUT_MUST_CHECK enum sprout_status units_parse_duration(const char *text,
                                                          uint64_t *duration_ns_out);
/* "1.23 GB", "417 MB", "12 B" (powers of 1000, three digits, rounded); "417ms", "3.4s", "2m03s",
 * "1h02m" (rounded down). 32 bytes are always enough. Return buffer. */
const char *units_format_size(uint64_t bytes, char *buffer, size_t buffer_bytes);
const char *units_format_duration(uint64_t duration_ns, char *buffer, size_t buffer_bytes);
#endif
