/* SPDX-License-Identifier: Apache-2.0 */
#include "core/pacer.h"

#define NS_PER_SECOND 1000000000u

/* Debt beyond this is forgotten; at any rate it is years. */
#define DEBT_MAX (INT64_MAX / 2)

__extension__ typedef unsigned __int128
    wide; /* bytes x ns of the longest gap at the highest rate */

void pacer_init(struct pacer *pacer, uint64_t rate, uint64_t burst_bytes, uint64_t now_ns) {
  uint64_t burst = burst_bytes < 1 ? 1 : burst_bytes;
  if (burst > DEBT_MAX) burst = DEBT_MAX;
  *pacer = (struct pacer){
      .rate = rate, .burst_bytes = burst, .tokens = (int64_t)burst, .updated_ns = now_ns};
}

/* Adds what the time since the last refill earned; a clock that went back earns nothing. */
static void refill(struct pacer *pacer, uint64_t now_ns) {
  if (now_ns <= pacer->updated_ns) return;
  wide earned = (wide)(now_ns - pacer->updated_ns) * pacer->rate + pacer->remainder;
  uint64_t missing = (uint64_t)((int64_t)pacer->burst_bytes - pacer->tokens);
  pacer->updated_ns = now_ns;
  if (pacer->rate == 0) return;
  if (earned / NS_PER_SECOND >= missing) {
    pacer->tokens = (int64_t)pacer->burst_bytes;
    pacer->remainder = 0;
  } else {
    pacer->tokens += (int64_t)(earned / NS_PER_SECOND);
    pacer->remainder = (uint64_t)(earned % NS_PER_SECOND);
  }
}

void pacer_set_rate(struct pacer *pacer, uint64_t rate, uint64_t now_ns) {
  refill(pacer, now_ns);
  pacer->rate = rate;
}

uint64_t pacer_allowance(struct pacer *pacer, uint64_t now_ns) {
  if (pacer->rate == 0) return UINT64_MAX;
  refill(pacer, now_ns);
  return pacer->tokens > 0 ? (uint64_t)pacer->tokens : 0;
}

void pacer_spend(struct pacer *pacer, uint64_t bytes) {
  if (pacer->rate == 0) return;
  uint64_t room = (uint64_t)(pacer->tokens + DEBT_MAX);
  pacer->tokens -= (int64_t)(bytes < room ? bytes : room);
}

uint64_t pacer_ready_at(struct pacer *pacer, uint64_t bytes, uint64_t now_ns) {
  if (pacer->rate == 0) return now_ns;
  refill(pacer, now_ns);
  uint64_t wanted = bytes < pacer->burst_bytes ? bytes : pacer->burst_bytes;
  if (pacer->tokens >= (int64_t)wanted) return now_ns;
  wide missing = (wide)((int64_t)wanted - pacer->tokens) * NS_PER_SECOND - pacer->remainder;
  wide ready_ns = pacer->updated_ns + (missing + pacer->rate - 1) / pacer->rate;
  return ready_ns < UINT64_MAX ? (uint64_t)ready_ns : UINT64_MAX;
}
