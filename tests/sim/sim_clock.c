/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim.h"

#include <assert.h>
#include <stdlib.h>

uint64_t sim_mix(uint64_t value) {
  value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
  return value ^ (value >> 31);
}

uint64_t sim_next(struct sim_random *random) {
  random->state += UINT64_C(0x9e3779b97f4a7c15);
  return sim_mix(random->state);
}

uint64_t sim_below(struct sim_random *random, uint64_t limit) {
  return limit == 0 ? 0 : sim_next(random) % limit;
}

uint64_t sim_between(struct sim_random *random, uint64_t low, uint64_t high) {
  return low + sim_below(random, high - low + 1);
}

bool sim_chance(struct sim_random *random, uint32_t percent) {
  return sim_below(random, 100) < percent;
}

static bool earlier(const struct sim_event *a, const struct sim_event *b) {
  return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

static void swap(struct sim_event *a, struct sim_event *b) {
  struct sim_event kept = *a;
  *a = *b;
  *b = kept;
}

void sim_after(struct sim *sim, uint64_t wait_ns, sim_action *action, void *target,
               uint64_t argument) {
  struct sim_clock *clock = &sim->clock;
  if (clock->count == clock->capacity) {
    clock->capacity = clock->capacity > 0 ? clock->capacity * 2 : 256;
    clock->events = realloc(clock->events, clock->capacity * sizeof(*clock->events));
    assert(clock->events != NULL);
  }
  uint32_t at = clock->count++;
  clock->events[at] = (struct sim_event){.at_ns = clock->now_ns + wait_ns,
                                         .sequence = clock->sequence++,
                                         .argument = argument,
                                         .action = action,
                                         .target = target};
  for (; at > 0 && earlier(&clock->events[at], &clock->events[(at - 1) / 2]); at = (at - 1) / 2)
    swap(&clock->events[at], &clock->events[(at - 1) / 2]);
}

uint64_t sim_clock_next(const struct sim_clock *clock) {
  return clock->count > 0 ? clock->events[0].at_ns : SIM_NEVER;
}

static struct sim_event take_first(struct sim_clock *clock) {
  struct sim_event first = clock->events[0];
  clock->events[0] = clock->events[--clock->count];
  for (uint32_t at = 0;;) {
    uint32_t child = at * 2 + 1;
    if (child >= clock->count) return first;
    if (child + 1 < clock->count && earlier(&clock->events[child + 1], &clock->events[child]))
      child++;
    if (!earlier(&clock->events[child], &clock->events[at])) return first;
    swap(&clock->events[child], &clock->events[at]);
    at = child;
  }
}

void sim_clock_delay(struct sim_clock *clock, uint64_t delay_ns) {
  for (uint32_t i = 0; i < clock->count; i++) clock->events[i].at_ns += delay_ns;
}

void sim_clock_run(struct sim *sim) {
  struct sim_clock *clock = &sim->clock;
  while (clock->count > 0 && clock->events[0].at_ns <= clock->now_ns) {
    struct sim_event event = take_first(clock);
    clock->delivered++;
    event.action(sim, event.target, event.argument);
  }
}
