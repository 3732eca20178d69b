/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token bucket: holds a byte rate over any window longer than its burst. Pure; the clock is an
 * argument.
 */
#ifndef CORE_PACER_H
#define CORE_PACER_H

#include <stdint.h>

struct pacer {
  uint64_t rate; /* bytes per second; 0: no limit */
  uint64_t burst_bytes;
  int64_t tokens; /* may go negative: a send may overdraw, the debt is waited for */
  uint64_t updated_ns;
  uint64_t remainder; /* of the last refill, in bytes x ns */
};

void pacer_init(struct pacer *pacer, uint64_t rate, uint64_t burst_bytes, uint64_t now_ns);
void pacer_set_rate(struct pacer *pacer, uint64_t rate, uint64_t now_ns);
/* Bytes that may be sent now (UINT64_MAX without limit; 0 while in debt). */
uint64_t pacer_allowance(struct pacer *pacer, uint64_t now_ns);
void pacer_spend(struct pacer *pacer, uint64_t bytes);
/* When at least min(bytes, burst) will be allowed; now_ns when already. */
uint64_t pacer_ready_at(struct pacer *pacer, uint64_t bytes, uint64_t now_ns);
#endif
