/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers for people, and the invariants that hold between any two ticks. */
#include "core/fork_engine_internal.h"

#include <assert.h>

static const char *state_name(const struct engine_source *source) {
  if (source_is_lost(source)) return "dropped";
  switch (source->state) {
  case ENGINE_SOURCE_CONNECTING:
  case ENGINE_SOURCE_OPENING: return "connecting";
  case ENGINE_SOURCE_QUEUED: return "queued";
  case ENGINE_SOURCE_READY: return source->reads_in_flight > 0 ? "reading" : "idle";
  case ENGINE_SOURCE_IDLE: return source->held ? "idle" : "connecting";
  case ENGINE_SOURCE_CLOSING: return source->next == ENGINE_SOURCE_IDLE ? "connecting" : "closed";
  case ENGINE_SOURCE_CLOSED: return "closed";
  default: return "idle";
  }
}

static struct sprout_source_status source_status(const struct engine_source *source) {
  bool lost = source_is_lost(source);
  return (struct sprout_source_status){
      .url = source->source->url,
      .state = state_name(source),
      .received_bytes = source->received_bytes,
      .queue_position = source->state == ENGINE_SOURCE_QUEUED ? source->queue_position : 0,
      .dropped_for = lost ? source->dropped.status : SPROUT_OK,
      .dropped_reason = lost ? source->dropped.message : "",
      .transport = source->source->transport,
      .fallbacks = source->source->fallbacks,
  };
}

/* As update_rate would have it now, without keeping it. */
static uint64_t rate_at(const struct fork_engine *engine, uint64_t now_ns) {
  if (now_ns <= engine->rate_ns) return engine->rate;
  double seconds = (double)(now_ns - engine->rate_ns) / 1e9;
  double bytes = (double)(engine->received_bytes - engine->rate_bytes);
  return (uint64_t)(((double)engine->rate + bytes) / (1.0 + seconds));
}

void fork_engine_progress(const struct fork_engine *engine, uint64_t now_ns,
                          struct sprout_fork_progress *progress_out,
                          struct sprout_source_status *sources_out) {
  *progress_out = (struct sprout_fork_progress){
      .elapsed_ns = now_ns > engine->start_ns ? now_ns - engine->start_ns : 0,
      .reused_bytes = engine->law.found_right_bytes,
      .received_bytes = engine->received_bytes,
      .rate = rate_at(engine, now_ns),
      .retries = engine->retries,
      .source_count = engine->source_count,
      .sources = sources_out,
  };
  if (engine->plan != NULL) {
    struct plan_counts counts;
    plan_counts_get(engine->plan, &counts);
    progress_out->total_bytes = plan_selected_bytes(engine->plan);
    progress_out->done_bytes = counts.bytes[PLAN_VERIFIED] + counts.bytes[PLAN_STORED];
  }
  for (uint32_t i = 0; i < engine->source_count; i++)
    sources_out[i] = source_status(engine->sources[i]);
}

const struct manifest *fork_engine_manifest(const struct fork_engine *engine) {
  return engine->manifest;
}

enum sprout_verified fork_engine_verified(const struct fork_engine *engine) {
  return engine->completed_verified ? SPROUT_VERIFIED_XXH3 : SPROUT_VERIFIED_NONE;
}

uint64_t fork_engine_manifest_ns(const struct fork_engine *engine) {
  return engine->manifest_ns;
}

uint64_t fork_engine_last_landed_ns(const struct fork_engine *engine) {
  return engine->last_landed_ns;
}

/* --- invariants --- */

static uint32_t list_length(const struct list_node *head) {
  uint32_t length = 0;
  for (const struct list_node *node = head->next; node != head; node = node->next) length++;
  return length;
}

/* Every chunk that is on its way belongs to exactly one read. */
static void check_reads(const struct fork_engine *engine) {
  uint32_t free_count = list_length(&engine->free_reads);
  assert(free_count + engine->mapped + engine->storing == engine->read_count);
  assert(list_length(&engine->completed) <= engine->mapped);
  assert(list_length(&engine->stored) <= engine->storing);
  if (engine->plan == NULL) return;
  struct plan_counts counts;
  plan_counts_get(engine->plan, &counts);
  assert(counts.chunks[PLAN_QUEUED] == 0);
  assert(engine->inflight_bytes == counts.bytes[PLAN_IN_FLIGHT] + counts.bytes[PLAN_LANDED] +
                                       counts.bytes[PLAN_VERIFIED] + counts.bytes[PLAN_REJECTED]);
}

static void check_source(const struct engine_source *source) {
  bool may_have_reads =
      source->state == ENGINE_SOURCE_READY || source->state == ENGINE_SOURCE_CLOSING;
  assert(may_have_reads || source->reads_in_flight == 0);
  assert((source->reads_in_flight == 0) == (source->bytes_in_flight == 0));
  assert(!source->posted);
  assert(source->state != ENGINE_SOURCE_READY ||
         source->window.used.operations == source->reads_in_flight);
}

static void check_authority(const struct fork_engine *engine) {
  uint32_t outstanding = 0;
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++)
    outstanding += engine->questions[i].remaining > 0;
  if (engine->phase >= ENGINE_FINISHING) return;
  assert(outstanding == 0 || engine->authority != ENGINE_NO_SOURCE);
  if (engine->authority == ENGINE_NO_SOURCE) return;
  assert(engine->judging && engine->sources[engine->authority]->source->has_digests);
  assert(!source_is_lost(engine->sources[engine->authority]));
}

void fork_engine_check(const struct fork_engine *engine) {
  uint32_t in_flight = 0;
  for (uint32_t i = 0; i < engine->source_count; i++) {
    check_source(engine->sources[i]);
    in_flight += engine->sources[i]->reads_in_flight;
  }
  assert(in_flight == engine->mapped);
  check_reads(engine);
  check_authority(engine);
  assert(engine->phase < ENGINE_FINISHED || (engine->mapped == 0 && engine->storing == 0));
  if (engine->plan == NULL) return;
  plan_check(engine->plan);
  if (engine->judging && engine->law.plan != NULL) law_check(&engine->law);
}
