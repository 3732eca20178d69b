/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress of a fork as people or programs see it: a bar, lines, JSON, or nothing.
 *
 * The fork's callback runs on the reactor's thread and must not block, so it only takes a snapshot;
 * the main thread hands the newest snapshot to a reporter.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include "cli/terminal.h"
#include "sprout/fork.h"

#include <stdio.h>

struct progress_source {
  char url[256];
  char state[16];
  char dropped_reason[160];
  const char *transport; /* static */
  uint32_t fallbacks;
  uint64_t received_bytes;
  uint32_t queue_position;
  enum sprout_status dropped_for;
};

/* A copy of struct sprout_fork_progress that outlives the callback. */
struct progress_snapshot {
  uint64_t elapsed_ns, total_bytes, done_bytes, reused_bytes, received_bytes, rate, retries;
  uint32_t source_count;
  struct progress_source sources[SPROUT_MAX_SOURCES];
};

void progress_snapshot_take(struct progress_snapshot *snapshot_out,
                            const struct sprout_fork_progress *progress);

/*
 * Time left, from a rate that is smoothed over some seconds, so that it does not jump.
 * Zero-initialise. Pure.
 */
struct progress_eta {
  bool started;
  uint64_t last_ns, last_bytes;
  double rate, age_seconds; /* bytes per second, since this long */
};

/* Call it with each snapshot. Seconds left, negative while unknown. */
double progress_eta_update(struct progress_eta *eta, const struct progress_snapshot *snapshot);

enum progress_mode {
  PROGRESS_NONE,
  PROGRESS_PLAIN, /* a line every 10 s */
  PROGRESS_TTY,   /* redrawn in place */
  PROGRESS_JSON   /* on standard output */
};

/* "auto" becomes tty on a terminal and plain elsewhere; `quiet` turns plain and tty off. */
enum progress_mode progress_mode_of(const char *text, bool quiet, const struct terminal *terminal);

/* How often a mode wants to hear. */
uint64_t progress_interval_ns(enum progress_mode mode);

struct reporter {
  enum progress_mode mode;
  struct terminal terminal;
  FILE *out;        /* standard error; JSON: standard output */
  const char *verb; /* "forking", "verifying" */
  struct progress_eta eta;
  uint64_t next_line_ns;  /* plain */
  unsigned drawn_lines;   /* tty: how many lines stand below the cursor's home */
  uint32_t known_sources; /* states that were reported */
  struct {
    char state[16];
  } known[SPROUT_MAX_SOURCES];
};

void reporter_init(struct reporter *reporter, enum progress_mode mode,
                   const struct terminal *terminal, FILE *out, const char *verb);
/* A newer snapshot. */
void reporter_update(struct reporter *reporter, const struct progress_snapshot *snapshot);
/* A line for people above the bar; nothing in JSON mode or when there is no progress. */
void reporter_note(struct reporter *reporter, const char *format, ...) SPROUT_PRINTF(2, 3);
/* Removes the bar: what follows begins in an empty line. */
void reporter_end(struct reporter *reporter);
#endif
