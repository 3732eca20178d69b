/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_grant.h"

#include "core/share.h"
#include "core/units.h"

#include <stdio.h>

#define NS_PER_S 1000000000ull
#define JUDGE_PERIOD_NS (2 * NS_PER_S)
#define BURST_BYTES (RDMA_WINDOW_TOTAL_BYTES + RDMA_REQUEST_BYTES)
/* HTTP keeps at least this part of a cap, so that it never stands still. */
#define REST_LEAST_PART 100u

__extension__ typedef unsigned __int128 wide;

static uint64_t least(uint64_t a, uint64_t b) {
  return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b) {
  return a > b ? a : b;
}

uint64_t rdma_grant_window(uint64_t inflight_bytes, uint32_t forks) {
  const struct share_limits limits = {.total = RDMA_WINDOW_TOTAL_BYTES,
                                      .most = least(inflight_bytes, RDMA_WINDOW_TOTAL_BYTES),
                                      .least = least(inflight_bytes, RDMA_WINDOW_LEAST_BYTES)};
  return share_window(&limits, forks);
}

struct rdma_rates rdma_grant_rates(uint64_t cap, uint32_t forks, uint32_t rdma_forks) {
  if (cap == 0 || rdma_forks == 0) return (struct rdma_rates){.each = cap, .rest = cap};
  if (rdma_forks > forks) forks = rdma_forks;
  uint64_t budget = (uint64_t)((wide)cap * rdma_forks / forks);
  budget = least(budget, cap - most(cap / REST_LEAST_PART, 1));
  struct rdma_rates rates = {.each = most(budget / rdma_forks, 1)};
  uint64_t used = rates.each * rdma_forks;
  rates.rest = used < cap ? cap - used : 1;
  return rates;
}

void rdma_grant_given(struct rdma_grant *grant, uint64_t window_bytes, uint64_t rate) {
  grant->window_bytes_before = grant->window_bytes;
  grant->window_bytes = window_bytes;
  grant->rate = rate;
  grant->rate_most = most(grant->rate_most, rate);
  grant->unlimited = grant->unlimited || rate == 0;
}

static bool fits(uint64_t peak_bytes, uint64_t window) {
  return peak_bytes <= window || peak_bytes - window <= RDMA_REQUEST_BYTES;
}

static bool within_window(struct rdma_grant *grant, uint64_t peak_bytes, uint64_t now_ns,
                          char *reason, size_t reason_bytes) {
  uint64_t window = most(grant->window_bytes, grant->window_bytes_before);
  char peak[32], granted[32];
  if (window >= grant->window_most || fits(peak_bytes, window)) {
    grant->window_most = window;
    grant->window_most_ns = now_ns;
  } else if (now_ns - grant->window_most_ns < JUDGE_PERIOD_NS) {
    window = grant->window_most;
  }
  if (fits(peak_bytes, window)) return true;
  units_format_size(peak_bytes, peak, sizeof(peak));
  units_format_size(window, granted, sizeof(granted));
  (void)snprintf(reason, reason_bytes, "%s were in flight, %s are granted", peak, granted);
  return false;
}

static bool within_rate(const struct rdma_grant *grant, uint64_t grown_bytes, uint64_t past_ns,
                        char *reason, size_t reason_bytes) {
  char got[32], granted[32];
  wide allowed = (wide)grant->rate_most * past_ns / NS_PER_S * 5 / 4 + BURST_BYTES;
  if (grant->unlimited || grown_bytes <= allowed) return true;
  units_format_size((uint64_t)((wide)grown_bytes * NS_PER_S / past_ns), got, sizeof(got));
  units_format_size(grant->rate_most, granted, sizeof(granted));
  (void)snprintf(reason, reason_bytes, "it read %s/s, %s/s are granted", got, granted);
  return false;
}

bool rdma_grant_judge(struct rdma_grant *grant, uint64_t peak_inflight_bytes,
                      uint64_t received_bytes, uint64_t now_ns, char *reason, size_t reason_bytes) {
  if (!within_window(grant, peak_inflight_bytes, now_ns, reason, reason_bytes)) return false;
  uint64_t past_ns = now_ns - grant->judged_ns;
  if (grant->judging && past_ns < JUDGE_PERIOD_NS) return true;
  uint64_t grown = received_bytes > grant->judged_bytes ? received_bytes - grant->judged_bytes : 0;
  if (grant->judging && !within_rate(grant, grown, past_ns, reason, reason_bytes)) return false;
  grant->judging = true;
  grant->judged_ns = now_ns;
  grant->judged_bytes = received_bytes;
  grant->rate_most = grant->rate;
  grant->unlimited = grant->rate == 0;
  return true;
}
