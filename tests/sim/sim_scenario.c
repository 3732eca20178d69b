/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws one run: a few sources, most of them with one thing wrong, a destination, options, and
 * disturbances. Says whether the fork has to complete: a source that lives, tells the truth and is
 * let in is among them, and no other one can lead the fork astray (as a source can that holds other
 * bytes consistently and answers first).
 */
#include "tests/sim/sim.h"

static uint64_t draw_ms(struct sim *sim, uint64_t low, uint64_t high) {
  return sim_between(&sim->random, low, high) * SIM_MS;
}

static bool dice(struct sim *sim, uint32_t percent) {
  return sim_chance(&sim->random, percent);
}

/* A source with nothing wrong. */
static void draw_good(struct sim *sim, struct sim_source_plan *plan) {
  struct sim_random *random = &sim->random;
  *plan = (struct sim_source_plan){
      .ordered = true,
      .latency_ns = sim_between(random, 1, 20 * SIM_MS),
      .bytes_per_ms = sim_between(random, 2000, 2000000),
      .coverage_percent = 100,
      .window = {.operations = (uint32_t)sim_between(random, 1, 16),
                 .bytes = sim_between(random, 1, 8 << 20),
                 .depth = (uint32_t)sim_between(random, 1, 16)},
  };
  if (dice(sim, 20)) plan->close_ns = draw_ms(sim, 0, 1000);
  if (dice(sim, 30)) {
    plan->admission = SIM_QUEUES;
    plan->queue_ns = draw_ms(sim, 0, 30000);
  }
  if (dice(sim, 10)) {
    plan->admission = SIM_FULL;
    plan->full_times = (uint32_t)sim_between(random, 0, 4);
  }
  if (dice(sim, 15)) plan->rate = sim_between(random, 20000, 10000000);
  if (dice(sim, 40)) {
    plan->digests = (enum sim_digests)sim_between(random, SIM_DIGESTS_LATER, SIM_DIGESTS_SHY);
    plan->digests_ns = draw_ms(sim, 0, 3000);
  }
  if (dice(sim, 15)) {
    static const enum sprout_status refusals[] = {SPROUT_OVER_WINDOW, SPROUT_TOO_EARLY,
                                                  SPROUT_BUSY};
    plan->read_refusal = refusals[sim_below(random, 3)];
    plan->read_refusals = (uint32_t)sim_between(random, 1, 3);
  }
}

static void draw_fate(struct sim *sim, struct sim_source_plan *plan) {
  struct sim_random *random = &sim->random;
  plan->fate = (enum sim_fate)sim_between(random, SIM_DIES, SIM_LOSES_LEASE);
  plan->deaths = (uint32_t)sim_between(random, 1, dice(sim, 20) ? 6 : 1);
  plan->fate_bytes = sim_below(random, dice(sim, 50) ? 3000 : 200000);
  plan->fate_ns = draw_ms(sim, 1, 8000);
  plan->reachable_again = dice(sim, 60);
}

static void draw_refusal(struct sim *sim, struct sim_source_plan *plan) {
  static const enum sprout_status statuses[] = {SPROUT_DISCONNECTED, SPROUT_DENIED,
                                                SPROUT_UNAVAILABLE,  SPROUT_VERSION,
                                                SPROUT_BUSY,         SPROUT_NOT_FOUND};
  uint64_t which = sim_below(&sim->random, 4);
  if (which == 0) plan->connect_hangs = true;
  if (which == 1) plan->admission = dice(sim, 50) ? SIM_QUEUES_FOREVER : SIM_ADMISSION_HANGS;
  if (which >= 2) plan->refuses = statuses[sim_below(&sim->random, 6)];
}

static void draw_change(struct sim *sim, struct sim_source_plan *plan) {
  plan->changes = (uint32_t)sim_between(&sim->random, 1, dice(sim, 20) ? 5 : 1);
  plan->change_ns = dice(sim, 50) ? draw_ms(sim, 1, 200) : draw_ms(sim, 1, 5000);
  if (dice(sim, 50)) plan->change_ns = 0;
  plan->change_bytes = sim_between(&sim->random, 1, dice(sim, 50) ? 3000 : 100000);
}

/* One thing wrong, as kinds that the oracle can tell apart. */
enum flaw {
  FLAW_NONE,
  FLAW_FATE,
  FLAW_REFUSES,
  FLAW_CHANGES,
  FLAW_LIES_BYTES,
  FLAW_LIES_DIGESTS,
  FLAW_STRANGER,
  FLAW_DIGESTS,
  FLAW_READS,
  FLAW_PARTIAL,
  FLAW_UNORDERED,
  FLAW_FILE,
  FLAW_OTHER_BYTES,
  FLAW_COUNT
};

static void draw_stranger(struct sim *sim, struct sim_source_plan *plan) {
  uint64_t which = sim_below(&sim->random, 3);
  plan->kinship = which == 0 ? SIM_OTHER_MODEL : which == 1 ? SIM_OTHER_LAYOUT : SIM_SAME_MODEL;
  plan->other_label = which == 2;
}

static void apply_flaw(struct sim *sim, enum flaw flaw, struct sim_source_plan *plan) {
  struct sim_random *random = &sim->random;
  switch (flaw) {
  case FLAW_NONE:
  case FLAW_COUNT: break;
  case FLAW_FATE: draw_fate(sim, plan); break;
  case FLAW_REFUSES: draw_refusal(sim, plan); break;
  case FLAW_CHANGES: draw_change(sim, plan); break;
  case FLAW_LIES_BYTES:
    plan->lies_bytes = (uint32_t)sim_between(random, 1, 10);
    plan->lies_once = dice(sim, 30);
    break;
  case FLAW_LIES_DIGESTS: plan->lies_digests = (uint32_t)sim_between(random, 1, 10); break;
  case FLAW_STRANGER: draw_stranger(sim, plan); break;
  case FLAW_DIGESTS: plan->digests = dice(sim, 50) ? SIM_DIGESTS_NEVER : SIM_DIGESTS_HANG; break;
  case FLAW_READS:
    plan->read_refusal = dice(sim, 50) ? SPROUT_OVER_WINDOW : SPROUT_RANGE;
    plan->read_refusals = 1000000;
    break;
  case FLAW_PARTIAL: plan->coverage_percent = (uint32_t)sim_between(random, 0, 90); break;
  case FLAW_UNORDERED: plan->ordered = false; break;
  case FLAW_FILE:
    plan->file = true;
    plan->last_resort = dice(sim, 70);
    plan->admission = SIM_ADMITS;
    plan->rate = 0;
    break;
  case FLAW_OTHER_BYTES: plan->variant = (uint32_t)sim_between(random, 1, SIM_VARIANTS - 1); break;
  }
}

/* Unverified forks are told nothing about bytes that differ silently: such runs prove nothing. */
static bool detectable(const struct sim *sim, enum flaw flaw) {
  if (sim->scenario.options.verify) return true;
  if (flaw == FLAW_CHANGES || flaw == FLAW_OTHER_BYTES) return sim->model.labelled;
  return flaw != FLAW_LIES_BYTES && flaw != FLAW_FILE;
}

/* A source with this flaw never talks the fork into dropping a truthful one. */
static bool harmless(enum flaw flaw, const struct sim_source_plan *plan, bool model_expected) {
  switch (flaw) {
  case FLAW_CHANGES:
  case FLAW_OTHER_BYTES: return false;
  case FLAW_STRANGER: return model_expected && plan->kinship == SIM_OTHER_MODEL;
  default: return true;
  }
}

static void draw_sources(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  uint32_t good = 0;
  bool led_astray = false;
  scenario->source_count = (uint32_t)sim_between(&sim->random, 1, SIM_SOURCES_MAX);
  if (dice(sim, 50)) scenario->source_count = (uint32_t)sim_between(&sim->random, 1, 2);
  uint32_t flawless_percent = (uint32_t)sim_between(&sim->random, 10, 60);
  for (uint32_t i = 0; i < scenario->source_count; i++) {
    struct sim_source_plan *plan = &scenario->sources[i];
    enum flaw flaw = FLAW_NONE;
    draw_good(sim, plan);
    if (!dice(sim, flawless_percent))
      flaw = (enum flaw)sim_between(&sim->random, FLAW_FATE, FLAW_COUNT - 1);
    if (!detectable(sim, flaw)) flaw = FLAW_NONE;
    apply_flaw(sim, flaw, plan);
    if (!harmless(flaw, plan, scenario->options.model != NULL)) led_astray = true;
    if (i > 0 && dice(sim, 10)) plan->added_ns = draw_ms(sim, 0, 500);
    /* One that joins later may come too late. */
    bool there = plan->added_ns == 0 &&
                 !(scenario->add_in_dropped && i > 0 && i == scenario->source_count - 1);
    if (flaw == FLAW_NONE && there) good++;
  }
  scenario->must_complete = good > 0 && !led_astray;
}

/* Two sources that have one half of the model each. */
static void draw_halves(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  scenario->source_count = 2;
  for (uint32_t i = 0; i < 2; i++) {
    draw_good(sim, &scenario->sources[i]);
    scenario->sources[i].half = i + 1;
  }
  scenario->must_complete = !scenario->add_in_dropped;
}

/* Seeds that look alike and hold different bytes: the first tells some digests and dies, the next
 * ones tell others. */
static void draw_succession(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  scenario->source_count = (uint32_t)sim_between(&sim->random, 2, 4);
  for (uint32_t i = 0; i < scenario->source_count; i++) {
    struct sim_source_plan *plan = &scenario->sources[i];
    draw_good(sim, plan);
    plan->admission = i > 0 && dice(sim, 50) ? SIM_QUEUES : SIM_ADMITS;
    plan->queue_ns = draw_ms(sim, 0, 500);
    plan->variant = (uint32_t)sim_between(&sim->random, 0, 2);
    plan->digests = dice(sim, 80) ? SIM_DIGESTS_LATER : SIM_DIGESTS_ON_DEMAND;
    plan->digests_ns = draw_ms(sim, 0, 2000);
    if (i == 0 || dice(sim, 40)) draw_fate(sim, plan);
  }
  scenario->must_complete = false;
}

/* Updates come, a few; forks still finish. */
static void draw_renewal(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  scenario->source_count = (uint32_t)sim_between(&sim->random, 1, 3);
  for (uint32_t i = 0; i < scenario->source_count; i++) {
    struct sim_source_plan *plan = &scenario->sources[i];
    draw_good(sim, plan);
    draw_change(sim, plan);
  }
  scenario->options.max_restarts = 16;
  scenario->must_complete = true;
}

/* Each knows the digests of one half, gives that half, and dies: law and bytes come from two that
 * do not agree, and nobody says so for a while. */
static void draw_interregnum(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  scenario->source_count = (uint32_t)sim_between(&sim->random, 2, 3);
  for (uint32_t i = 0; i < scenario->source_count; i++) {
    struct sim_source_plan *plan = &scenario->sources[i];
    draw_good(sim, plan);
    plan->admission = SIM_ADMITS;
    plan->latency_ns = i == 0 ? SIM_MS : plan->latency_ns;
    plan->variant = (uint32_t)sim_between(&sim->random, 0, 2);
    plan->digests = i == 0 ? SIM_DIGESTS_EVEN : SIM_DIGESTS_ODD;
    if (i < 2) plan->half = i + 1;
    if (i == 1 && dice(sim, 50)) continue;
    draw_fate(sim, plan);
    plan->fate = dice(sim, 50) ? SIM_DIES : SIM_STALLS;
    plan->fate_bytes = sim_below(&sim->random, 20000);
  }
  scenario->must_complete = false;
}

/* One is given up and slow to let go, while the other one starts over with new bytes. */
static void draw_afterglow(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  struct sim_source_plan *plans = scenario->sources;
  const struct window_limits wide = {.operations = 16, .bytes = 8 << 20, .depth = 16};
  scenario->source_count = 2;
  scenario->options.verify = false;
  scenario->options.inflight_bytes = sim_between(&sim->random, 1000, 40000);
  scenario->options.reads_per_source = 8;
  for (uint32_t i = 0; i < 2; i++) {
    draw_good(sim, &plans[i]);
    plans[i].admission = SIM_ADMITS;
    plans[i].latency_ns = draw_ms(sim, 1, 3);
    plans[i].window = wide;
    plans[i].rate = 0;
  }
  plans[0].changes = 1;
  plans[0].change_bytes = sim_between(&sim->random, 1, 20000);
  plans[1].read_refusal = SPROUT_RANGE;
  plans[1].read_refusals = 1;
  plans[1].close_ns = draw_ms(sim, 10, 1000);
  scenario->must_complete = true;
}

/* Everything changes and dies at once. */
static void draw_upheaval(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  scenario->source_count = (uint32_t)sim_between(&sim->random, 1, 3);
  if (sim->model.labelled && dice(sim, 70)) scenario->options.verify = false;
  for (uint32_t i = 0; i < scenario->source_count; i++) {
    struct sim_source_plan *plan = &scenario->sources[i];
    draw_good(sim, plan);
    plan->admission = SIM_ADMITS;
    plan->close_ns = draw_ms(sim, 0, 2000);
    if (dice(sim, 70)) draw_change(sim, plan);
    if (dice(sim, 50)) draw_fate(sim, plan);
    if (dice(sim, 20)) apply_flaw(sim, FLAW_READS, plan);
  }
  scenario->must_complete = false;
}

static void draw_destination(struct sim *sim) {
  struct sim_random *random = &sim->random;
  struct sim_destination_plan *plan = &sim->scenario.destination;
  *plan = (struct sim_destination_plan){
      .keeping = (enum sim_keeping)sim_below(random, 3),
      .prepare_ns = draw_ms(sim, 1, 300),
      .store_ns = draw_ms(sim, 1, dice(sim, 20) ? 2000 : 20),
      .finish_ns = draw_ms(sim, 1, 500),
      .abort_ns = draw_ms(sim, 1, 100),
      .no_room_percent = dice(sim, 30) ? (uint32_t)sim_between(random, 5, 80) : 0,
      .room_ns = draw_ms(sim, 1, 200),
      .max_mapped = dice(sim, 30) ? (uint32_t)sim_between(random, 1, 3) : 1000,
      .found_variant = dice(sim, 20) ? 1 : 0,
  };
  if (dice(sim, 40)) {
    plan->found_right_percent = (uint32_t)sim_between(random, 0, 100);
    plan->found_wrong_percent = (uint32_t)sim_below(random, 101 - plan->found_right_percent);
  }
  if (dice(sim, 3)) plan->prepare_fails = SPROUT_EXISTS;
  if (dice(sim, 3)) plan->finish_fails = SPROUT_IO;
  if (dice(sim, 5)) plan->store_fails_at = (uint32_t)sim_between(random, 1, 20);
}

static void draw_options(struct sim *sim) {
  struct sim_random *random = &sim->random;
  struct sim_scenario *scenario = &sim->scenario;
  scenario->options = (struct fork_engine_options){
      .verify = dice(sim, 80),
      .dry_run = dice(sim, 2),
      .model = dice(sim, 70) ? "sim" : NULL,
      .rank = dice(sim, 10) ? "" : NULL,
      .label = !sim->model.labelled && dice(sim, 10) ? "" : NULL,
      .inflight_bytes = sim_between(random, 1, 8 << 20),
      .reads_per_source = (uint32_t)sim_between(random, 1, 8),
      .max_rate = dice(sim, 15) ? sim_between(random, 20000, 10000000) : 0,
      .stall_timeout_ns = dice(sim, 70) ? 3 * SIM_S : draw_ms(sim, 500, 5000),
      .wait_ns = 600 * SIM_S,
      .connect_timeout_ns = 10 * SIM_S,
      .max_restarts = dice(sim, 80) ? 16 : 1,
  };
  if (dice(sim, 4)) {
    scenario->options.verify_only = true;
    scenario->options.dry_run = false;
  }
  if (dice(sim, 15)) {
    scenario->globs[0] = dice(sim, 50) ? "tensor.1*" : "*[02468]";
    scenario->options.filter.tensor = scenario->globs;
    scenario->options.filter.tensor_count = 1;
  }
  if (dice(sim, 3)) scenario->options.timeout_ns = draw_ms(sim, 100, 10000);
}

void sim_scenario_draw(struct sim *sim) {
  struct sim_scenario *scenario = &sim->scenario;
  draw_options(sim);
  scenario->add_in_dropped = dice(sim, 20);
  bool tearable = scenario->options.verify || sim->model.labelled;
  uint64_t flavour = sim_below(&sim->random, 100);
  if (flavour < 5)
    draw_halves(sim);
  else if (flavour < 15 && tearable)
    draw_succession(sim);
  else if (flavour < 25 && tearable)
    draw_upheaval(sim);
  else if (flavour < 35 && tearable)
    draw_renewal(sim);
  else if (flavour < 45 && scenario->options.verify)
    draw_interregnum(sim);
  else if (flavour < 45 && sim->model.labelled)
    draw_afterglow(sim);
  else
    draw_sources(sim);
  draw_destination(sim);
  if (scenario->options.verify_only && scenario->destination.keeping == SIM_ALIASED)
    scenario->destination.keeping = SIM_STAGED;
  scenario->cancel_ns = dice(sim, 6) ? draw_ms(sim, 0, 3000) : SIM_NEVER;
  scenario->jump_ns = dice(sim, 30) ? draw_ms(sim, 0, dice(sim, 50) ? 200 : 3000) : SIM_NEVER;
  scenario->jump_length_ns = draw_ms(sim, 100, 60000);
  scenario->jump_stops_all = dice(sim, 50);
}
