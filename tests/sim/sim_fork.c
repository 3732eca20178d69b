/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: sim_fork [--seeds N] [--start S] [--seed S] [--verbose]
 *
 * Runs N forks with the seeds S, S + 1, ...; ends with 1 at the first that breaks a promise, naming
 * its seed. --seed S runs that one; --verbose tells what happens in it.
 */
#include "tests/sim/sim.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define VIRTUAL_TIME_MAX (3000 * SIM_S)
/* Ticks that nothing called for and that did nothing: fixed, and per second of waiting. */
#define IDLE_TICKS_MAX 200u
#define IDLE_TICKS_PER_SECOND 40u

void sim_say(const struct sim *sim, const char *format, ...) {
  if (!sim->verbose) return;
  va_list arguments;
  va_start(arguments, format);
  printf("%10.3f ms  ", (double)sim->clock.now_ns / 1e6);
  vprintf(format, arguments);
  printf("\n");
  va_end(arguments);
}

void sim_fail(const struct sim *sim, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fflush(stdout);
  fprintf(stderr, "seed %llu failed at %.3f ms: ", (unsigned long long)sim->seed,
          (double)sim->clock.now_ns / 1e6);
  vfprintf(stderr, format, arguments);
  fprintf(stderr, "\nreplay: sim_fork --seed %llu --verbose\n", (unsigned long long)sim->seed);
  va_end(arguments);
  exit(1);
}

/* --- what the engine tells its owner --- */

static void told_wake(void *context) {
  struct sim *sim = context;
  sim_require(sim, !sim->finished);
  sim->woken = true;
}

static void told_finished(void *context, const struct sprout_error *error) {
  struct sim *sim = context;
  sim_require(sim, !sim->finished);
  sim->finished = true;
  sim->result = *error;
  sim_say(sim, "finished: %s: %s", sprout_status_info_of(error->status)->name, error->message);
}

static void add_source(struct sim *sim, void *target, uint64_t argument) {
  struct sim_source *source = target;
  (void)argument;
  if (source->added || sim->finished) return;
  enum sprout_status status = fork_engine_add_source(sim->engine, &source->source);
  sim_require(sim, status == SPROUT_OK || status == SPROUT_CANCELLED);
  source->added = status == SPROUT_OK;
}

static void told_dropped(void *context, const struct source *source,
                         const struct sprout_error *error) {
  struct sim *sim = context;
  sim_say(sim, "%s dropped: %s: %s", source->url, sprout_status_info_of(error->status)->name,
          error->message);
  sim_require(sim, error->status != SPROUT_OK && error->message[0] != '\0');
  if (sim->scenario.add_in_dropped)
    add_source(sim, sim->sources[sim->scenario.source_count - 1], 0);
}

static void told_differs(void *context, const char *file, uint64_t wrong_bytes,
                         uint64_t missing_bytes) {
  struct sim *sim = context;
  sim_require(sim, wrong_bytes + missing_bytes > 0 && file[0] != '\0');
  sim->wrong_bytes += wrong_bytes;
  sim->missing_bytes += missing_bytes;
}

/* --- one run --- */

static void cancel(struct sim *sim, void *target, uint64_t argument) {
  (void)target;
  (void)argument;
  sim_say(sim, "cancel");
  fork_engine_cancel(sim->engine, SPROUT_CANCELLED);
}

static void set_up(struct sim *sim) {
  const struct sim_scenario *scenario = &sim->scenario;
  const struct fork_engine_events events = {.wake = told_wake,
                                            .finished = told_finished,
                                            .dropped = told_dropped,
                                            .differs = told_differs,
                                            .context = sim};
  sim_model_draw(sim);
  sim_scenario_draw(sim);
  sim->destination = sim_destination_create(sim, &scenario->destination);
  enum sprout_status status =
      fork_engine_create(&scenario->options, &events, &sim->destination->destination, &sim->engine);
  sim_require(sim, status == SPROUT_OK);
  for (uint32_t i = 0; i < scenario->source_count; i++) {
    const struct sim_source_plan *plan = &scenario->sources[i];
    sim->sources[i] = sim_source_create(sim, i, plan);
    bool waits = scenario->add_in_dropped && i > 0 && i == scenario->source_count - 1;
    if (i == 0 || (plan->added_ns == 0 && !waits))
      add_source(sim, sim->sources[i], 0);
    else
      sim_after(sim, waits ? 60 * SIM_S : plan->added_ns, add_source, sim->sources[i], 0);
  }
  if (scenario->cancel_ns != SIM_NEVER) sim_after(sim, scenario->cancel_ns, cancel, NULL, 0);
}

static void tear_down(struct sim *sim) {
  fork_engine_destroy(sim->engine);
  for (uint32_t i = 0; i < sim->scenario.source_count; i++) {
    sim_require(sim, sim->sources[i]->destroyed == sim->sources[i]->added);
    free(sim->sources[i]);
  }
  free(sim->destination);
  sim_model_destroy(&sim->model);
}

/* To the next thing that happens, or further when the process is "stopped" for a while. */
static void advance(struct sim *sim) {
  uint64_t next_ns = sim_clock_next(&sim->clock);
  uint64_t deadline_ns = fork_engine_deadline(sim->engine);
  if (deadline_ns < next_ns) next_ns = deadline_ns;
  sim_require(sim, next_ns != SIM_NEVER); /* nothing will ever happen again */
  if (next_ns > sim->clock.now_ns) sim->clock.now_ns = next_ns;
  if (sim->clock.now_ns >= sim->scenario.jump_ns) {
    sim_say(sim, "stopped for %llu ms",
            (unsigned long long)(sim->scenario.jump_length_ns / SIM_MS));
    sim->clock.now_ns += sim->scenario.jump_length_ns;
    if (sim->scenario.jump_stops_all) sim_clock_delay(&sim->clock, sim->scenario.jump_length_ns);
    sim->scenario.jump_ns = SIM_NEVER;
  }
  if (sim->clock.now_ns > VIRTUAL_TIME_MAX) sim_fail(sim, "the fork does not end");
}

/* Numbers for people: never absurd. */
static void check_progress(const struct sim *sim) {
  struct sprout_source_status sources[SPROUT_MAX_SOURCES];
  struct sprout_fork_progress progress;
  uint64_t received_bytes = 0;
  fork_engine_progress(sim->engine, sim->clock.now_ns, &progress, sources);
  for (uint32_t i = 0; i < progress.source_count; i++) {
    received_bytes += sources[i].received_bytes;
    bool dropped = strcmp(sources[i].state, "dropped") == 0;
    sim_require(sim, dropped == (sources[i].dropped_for != SPROUT_OK));
  }
  sim_require(sim, received_bytes == progress.received_bytes);
  sim_require(sim, progress.done_bytes <= progress.total_bytes);
  sim_require(sim, progress.reused_bytes <= progress.done_bytes);
}

static void tick(struct sim *sim) {
  uint64_t ops = sim->ops;
  bool called_for = sim->woken;
  sim->woken = false;
  fork_engine_tick(sim->engine, sim->clock.now_ns);
  fork_engine_check(sim->engine);
  check_progress(sim);
  sim->ticks++;
  if (called_for || sim->ops != ops) return;
  uint64_t limit = IDLE_TICKS_MAX + IDLE_TICKS_PER_SECOND * (sim->clock.now_ns / SIM_S);
  if (++sim->idle_ticks > limit) sim_fail(sim, "%llu idle ticks", (unsigned long long)limit);
}

static void run(struct sim *sim, uint64_t seed, bool verbose) {
  struct sim_event *events = sim->clock.events;
  uint32_t capacity = sim->clock.capacity;
  memset(sim, 0, sizeof(*sim));
  sim->clock.events = events;
  sim->clock.capacity = capacity;
  sim->seed = seed;
  sim->verbose = verbose;
  sim->random.state = sim_mix(seed + 1);
  set_up(sim);
  fork_engine_start(sim->engine, sim->clock.now_ns);
  while (!sim->finished) {
    if (!sim->woken) advance(sim);
    sim_clock_run(sim);
    if (sim->woken || sim->clock.now_ns >= fork_engine_deadline(sim->engine)) tick(sim);
  }
  /* What is still to come must find nobody. */
  sim->clock.now_ns += 100 * SIM_S;
  sim_clock_run(sim);
  sim_oracle_judge(sim);
  tear_down(sim);
}

static uint64_t number_of(const char *text) {
  char *end;
  uint64_t value = strtoull(text, &end, 10);
  if (*text != '\0' && *end == '\0') return value;
  fprintf(stderr, "sim_fork: not a number: %s\n", text);
  exit(2);
}

int main(int argc, char **argv) {
  static struct sim sim;
  uint64_t start = 1, count = 2000, outcomes[SPROUT_STATUS_COUNT] = {0};
  bool verbose = false;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--verbose") == 0) {
      verbose = true;
    } else if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0) {
      count = number_of(argv[++i]);
    } else if (i + 1 < argc && strcmp(argv[i], "--start") == 0) {
      start = number_of(argv[++i]);
    } else if (i + 1 < argc && strcmp(argv[i], "--seed") == 0) {
      start = number_of(argv[++i]);
      count = 1;
    } else {
      fprintf(stderr, "usage: sim_fork [--seeds N] [--start S] [--seed S] [--verbose]\n");
      return 2;
    }
  }
  mallopt(M_MMAP_THRESHOLD, 64 << 20); /* the same few buffers come and go thousands of times */
  for (uint64_t seed = start; seed < start + count; seed++) {
    run(&sim, seed, verbose);
    outcomes[sim.result.status]++;
  }
  free(sim.clock.events);
  for (unsigned status = 0; status < SPROUT_STATUS_COUNT; status++)
    if (outcomes[status] > 0)
      printf("%8llu %s\n", (unsigned long long)outcomes[status],
             sprout_status_info_of((enum sprout_status)status)->name);
  return 0;
}
