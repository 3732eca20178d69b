/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold when a fork is over. */
#include "tests/sim/sim.h"

#include <string.h>

/* All selected bytes are those of this variant. */
static bool holds_variant(const struct sim *sim, uint32_t variant) {
  static unsigned char expected[SPROUT_CHUNK_BYTES];
  const struct sim_destination *destination = sim->destination;
  for (uint64_t chunk = 0; chunk < destination->manifest->chunk_count; chunk++) {
    if (!destination->selected[chunk]) continue;
    uint64_t length = destination->offsets[chunk + 1] - destination->offsets[chunk];
    const unsigned char *bytes = destination->bytes + destination->offsets[chunk];
    sim_model_bytes(&sim->model, variant, chunk, 0, expected, length);
    if (memcmp(bytes, expected, length) != 0) return false;
  }
  return true;
}

/* Never bytes of two generations, never bytes that nobody published. */
static void judge_bytes(const struct sim *sim) {
  const struct sim_destination *destination = sim->destination;
  for (uint64_t chunk = 0; chunk < destination->manifest->chunk_count; chunk++)
    if (destination->selected[chunk]) sim_require(sim, destination->present[chunk]);
  if (destination->plan.keeping == SIM_ALIASED) return;
  for (uint32_t variant = 0; variant < SIM_VARIANTS; variant++)
    if (holds_variant(sim, variant)) return;
  sim_fail(sim, "the fork is complete, but its bytes are of no variant");
}

/* Everything is done, and came from sources or was found. */
static void judge_numbers(const struct sim *sim) {
  struct sprout_source_status sources[SPROUT_MAX_SOURCES];
  struct sprout_fork_progress progress;
  fork_engine_progress(sim->engine, sim->clock.now_ns, &progress, sources);
  sim_require(sim, progress.done_bytes == progress.total_bytes);
  sim_require(sim, progress.received_bytes + progress.reused_bytes >= progress.total_bytes);
}

static bool right(const struct sim *sim, uint64_t chunk) {
  static unsigned char expected[SPROUT_CHUNK_BYTES];
  const struct sim_destination *destination = sim->destination;
  uint64_t length = destination->offsets[chunk + 1] - destination->offsets[chunk];
  sim_model_bytes(&sim->model, 0, chunk, 0, expected, length);
  return memcmp(destination->bytes + destination->offsets[chunk], expected, length) == 0;
}

/* What verify_only told, against what lies there. Only where all sources hold variant 0. */
static void judge_comparison(const struct sim *sim) {
  const struct sim_destination *destination = sim->destination;
  uint64_t wrong = 0, missing = 0;
  for (uint64_t chunk = 0; chunk < destination->manifest->chunk_count; chunk++) {
    uint64_t length = destination->offsets[chunk + 1] - destination->offsets[chunk];
    if (!destination->selected[chunk]) continue;
    if (!destination->present[chunk])
      missing += length;
    else if (!right(sim, chunk))
      wrong += length;
  }
  sim_require(sim, sim->wrong_bytes == wrong && sim->missing_bytes == missing);
  sim_require(sim, sim->result.status == (wrong + missing > 0 ? SPROUT_MISMATCH : SPROUT_OK));
}

/* Something else than sources may end the fork. */
static bool may_end_otherwise(const struct sim *sim) {
  const struct sim_scenario *scenario = &sim->scenario;
  const struct sim_destination_plan *plan = &scenario->destination;
  switch (sim->result.status) {
  case SPROUT_CANCELLED: return scenario->cancel_ns != SIM_NEVER;
  case SPROUT_TIMEOUT: return scenario->options.timeout_ns != 0;
  case SPROUT_EXISTS: return plan->prepare_fails != SPROUT_OK;
  case SPROUT_IO: return plan->finish_fails != SPROUT_OK;
  case SPROUT_NO_SPACE: return plan->store_fails_at != 0;
  case SPROUT_INVALID: return scenario->options.filter.tensor_count > 0;
  default: return false;
  }
}

static bool comparison_is_certain(const struct sim *sim) {
  if (!sim->scenario.must_complete) return false;
  for (uint32_t i = 0; i < sim->scenario.source_count; i++)
    if (sim->scenario.sources[i].lies_digests > 0 || sim->scenario.sources[i].change_bytes > 0)
      return false;
  return true;
}

void sim_oracle_judge(struct sim *sim) {
  const struct sim_scenario *scenario = &sim->scenario;
  const struct fork_engine_options *options = &scenario->options;
  for (uint32_t i = 0; i < SIM_SOURCES_MAX; i++) {
    const struct sim_source *source = sim->sources[i];
    if (source == NULL || !source->added) continue;
    sim_require(sim, !source->connected && !source->closing);
  }
  sim_require(sim, sim->destination->over);
  bool ok = sim->result.status == SPROUT_OK;
  if (!ok && may_end_otherwise(sim)) return;
  if (options->verify_only) {
    if (comparison_is_certain(sim)) judge_comparison(sim);
    return;
  }
  sim_require(sim, !ok || !sim->destination->store_failed);
  if (ok && !options->dry_run) {
    judge_bytes(sim);
    judge_numbers(sim);
    sim_require(sim,
                (fork_engine_verified(sim->engine) == SPROUT_VERIFIED_XXH3) == options->verify);
  }
  if (!ok) sim_require(sim, sim->result.message[0] != '\0');
  if (scenario->must_complete && !ok)
    sim_fail(sim, "a truthful source was there, but the fork ended with %s: %s",
             sprout_status_info_of(sim->result.status)->name, sim->result.message);
}
