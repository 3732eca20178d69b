/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulator of forks: the real engine, plan, law, window and pacer between simulated sources
 * and a simulated destination, under a virtual clock. Everything that happens follows from the
 * seed, so a failing seed replays exactly.
 *
 *   sim_clock.c        random numbers, virtual time, the queue of events
 *   sim_model.c        a small model, its bytes in several variants (generations), its manifests
 *   sim_source.c       a source: answers late, in pieces, dies, stalls, lies, changes
 *   sim_destination.c  a destination: has no room, stores late, fails, holds bytes already
 *   sim_scenario.c     draws what happens in one run
 *   sim_oracle.c       what must hold at the end of a run
 *   sim_fork.c         the loop and the command line
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "core/fork_engine.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define SIM_VARIANTS 6u
#define SIM_SOURCES_MAX 6u
#define SIM_CHUNKS_MAX 96u
#define SIM_NEVER UINT64_MAX
#define SIM_MS UINT64_C(1000000)
#define SIM_S UINT64_C(1000000000)

struct sim;

/* --- sim_clock.c --- */
struct sim_random {
  uint64_t state;
};
uint64_t sim_mix(uint64_t value);
uint64_t sim_next(struct sim_random *random);
/* [0, limit) */
uint64_t sim_below(struct sim_random *random, uint64_t limit);
/* [low, high] */
uint64_t sim_between(struct sim_random *random, uint64_t low, uint64_t high);
bool sim_chance(struct sim_random *random, uint32_t percent);

typedef void sim_action(struct sim *sim, void *target, uint64_t argument);
struct sim_event {
  uint64_t at_ns, sequence, argument;
  sim_action *action;
  void *target;
};
struct sim_clock {
  struct sim_event *events;
  uint32_t count, capacity;
  uint64_t now_ns, sequence, delivered;
};
void sim_after(struct sim *sim, uint64_t wait_ns, sim_action *action, void *target,
               uint64_t argument);
uint64_t sim_clock_next(const struct sim_clock *clock);
/* All that is to come comes later. */
void sim_clock_delay(struct sim_clock *clock, uint64_t delay_ns);
/* Runs the events that are due; new ones among them too. */
void sim_clock_run(struct sim *sim);

/* --- sim_model.c --- */
/* Whose manifest: differs in identity, in layout, or not at all. */
enum sim_kinship { SIM_SAME_MODEL, SIM_OTHER_MODEL, SIM_OTHER_LAYOUT };

struct sim_object {
  uint64_t length_bytes;
};
struct sim_model {
  uint64_t seed;
  uint32_t object_count, file_count;
  struct sim_object objects[48];
  uint32_t file_of[48];
  bool labelled;             /* variants have labels of their own */
  struct manifest *manifest; /* of variant 0: the simulator's own copy */
  uint8_t content[SIM_VARIANTS][SIM_CHUNKS_MAX];
  struct digest digests[SIM_VARIANTS][SIM_CHUNKS_MAX];
  bool digested[SIM_VARIANTS][SIM_CHUNKS_MAX];
};
void sim_model_draw(struct sim *sim);
void sim_model_destroy(struct sim_model *model);
struct manifest *sim_model_manifest(const struct sim_model *model, enum sim_kinship kinship,
                                    uint64_t epoch, uint64_t generation, const char *label);
void sim_model_label(const struct sim_model *model, uint32_t variant, char label_out[65]);
/* Bytes [offset, offset + length) of a chunk in a variant. */
void sim_model_bytes(const struct sim_model *model, uint32_t variant, uint64_t chunk,
                     uint64_t offset, unsigned char *out, uint64_t length_bytes);
struct digest sim_model_digest(struct sim_model *model, uint32_t variant, uint64_t chunk);

/* --- sim_source.c --- */
enum sim_fate { SIM_LIVES, SIM_DIES, SIM_STALLS, SIM_PAUSES, SIM_SLOWS, SIM_LOSES_LEASE };
enum sim_admission { SIM_ADMITS, SIM_QUEUES, SIM_QUEUES_FOREVER, SIM_FULL, SIM_ADMISSION_HANGS };
enum sim_digests {
  SIM_DIGESTS_KNOWN,
  SIM_DIGESTS_LATER, /* some unknown until a moment, computed when asked */
  SIM_DIGESTS_ON_DEMAND,
  SIM_DIGESTS_EVEN, /* known of every other chunk, */
  SIM_DIGESTS_ODD,  /* the others slowly on demand */
  SIM_DIGESTS_SHY,  /* the first few questions for computed ones bring none */
  SIM_DIGESTS_NEVER,
  SIM_DIGESTS_HANG, /* the control request times out */
};

struct sim_source_plan {
  enum sim_kinship kinship;
  bool other_label, file, ordered, last_resort;
  enum sprout_status refuses; /* OK: connects */
  bool connect_hangs;
  uint64_t latency_ns, bytes_per_ms;
  enum sim_admission admission;
  uint64_t queue_ns;
  uint32_t full_times;
  enum sim_fate fate;
  uint64_t fate_bytes; /* after so many landed bytes */
  uint64_t fate_ns;    /* length of a pause; time until it can be reached again */
  bool reachable_again;
  uint32_t deaths;                   /* fates left */
  uint32_t lies_bytes, lies_digests; /* one chunk in so many; 0: none */
  bool lies_once;                    /* the bytes are right the second time */
  uint32_t variant;
  uint32_t changes;      /* of the bytes, left */
  uint64_t change_ns;    /* between them; 0: by bytes */
  uint64_t change_bytes; /* landed from one to the next */
  enum sim_digests digests;
  uint64_t digests_ns; /* when they are known; how long computing takes */
  enum sprout_status read_refusal;
  uint32_t read_refusals;    /* so many reads are refused */
  uint32_t coverage_percent; /* 100: all */
  uint32_t half;             /* 1, 2: every other object; 0: see above */
  struct window_limits window;
  uint64_t rate;
  uint64_t added_ns;
  uint64_t close_ns; /* how long closing takes at most */
};

struct sim_question {
  uint64_t first, count;
  bool used, compute;
};
struct sim_source {
  struct source source;
  struct sim *sim;
  uint32_t index;
  struct sim_source_plan plan;
  bool added, destroyed;
  /* this life */
  uint64_t life; /* counts connects and closes: what belongs to an older one is void */
  bool connected, closing, failed, admitted;
  uint64_t generation_told;
  struct window_limits granted; /* as told last */
  struct list_node unflushed, posted;
  bool moving; /* a landing event is under way */
  struct sim_question questions[SOURCE_DIGEST_REQUESTS];
  /* all lives */
  bool stuck;
  uint64_t epoch, generation;
  uint64_t landed_bytes, down_until_ns;
  uint32_t shy;
  uint64_t lied[2];     /* bits: chunks that were lied about once */
  uint64_t computed[2]; /* bits: digests that are known by now */
  uint64_t coverage[1];
};
struct sim_source *sim_source_create(struct sim *sim, uint32_t index,
                                     const struct sim_source_plan *plan);

/* --- sim_destination.c --- */
enum sim_keeping { SIM_STAGED, SIM_DIRECT, SIM_ALIASED };
struct sim_destination_plan {
  enum sim_keeping keeping;
  uint64_t prepare_ns, store_ns, finish_ns, abort_ns;
  uint32_t no_room_percent;
  uint64_t room_ns;
  uint32_t max_mapped; /* transfers */
  uint32_t found_right_percent, found_wrong_percent;
  uint32_t found_variant;
  enum sprout_status prepare_fails, finish_fails;
  uint32_t store_fails_at; /* 0: never */
};
struct sim_destination {
  struct destination destination;
  struct sim *sim;
  struct sim_destination_plan plan;
  unsigned char *bytes; /* of all chunks one after the other */
  uint64_t offsets[SIM_CHUNKS_MAX + 1];
  const struct manifest *manifest;
  bool selected[SIM_CHUNKS_MAX];
  bool storing[SIM_CHUNKS_MAX];
  bool present[SIM_CHUNKS_MAX]; /* found, or stored */
  uint32_t mapped, stores_begun, stores_running;
  bool prepared, reuse, owes_room, store_failed, finishing, aborting, over;
};
struct sim_destination *sim_destination_create(struct sim *sim,
                                               const struct sim_destination_plan *plan);

/* --- sim_scenario.c --- */
struct sim_scenario {
  struct fork_engine_options options;
  const char *globs[1];
  uint32_t source_count;
  struct sim_source_plan sources[SIM_SOURCES_MAX];
  struct sim_destination_plan destination;
  uint64_t cancel_ns, jump_ns, jump_length_ns; /* SIM_NEVER: not */
  bool jump_stops_all;                         /* the sources stand still as well */
  bool add_in_dropped;                         /* the last source joins when another is dropped */
  bool must_complete; /* a source that lives and tells the truth is among them */
};
void sim_scenario_draw(struct sim *sim);

/* --- sim_oracle.c --- */
void sim_oracle_judge(struct sim *sim);

/* --- sim_fork.c --- */
struct sim {
  uint64_t seed;
  bool verbose;
  struct sim_random random;
  struct sim_clock clock;
  struct sim_model model;
  struct sim_scenario scenario;
  struct sim_source *sources[SIM_SOURCES_MAX];
  struct sim_destination *destination;
  struct fork_engine *engine;
  bool woken, finished;
  struct sprout_error result;
  uint64_t ops; /* calls of the engine to sources and destination */
  uint64_t ticks, idle_ticks;
  uint64_t wrong_bytes, missing_bytes; /* told by `differs` */
};
/* Prints the seed and ends the program. */
_Noreturn void sim_fail(const struct sim *sim, const char *format, ...) SPROUT_PRINTF(2, 3);
void sim_say(const struct sim *sim, const char *format, ...) SPROUT_PRINTF(2, 3);
#define sim_require(sim, condition)                                                                \
  do {                                                                                             \
    if (!(condition)) sim_fail((sim), "%s:%d: %s", __FILE__, __LINE__, #condition);                \
  } while (0)
#endif
