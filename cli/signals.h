/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals as something to poll for: the first SIGINT or SIGTERM asks a command to end well, the
 * second ends the process at once.
 */
#ifndef CLI_SIGNALS_H
#define CLI_SIGNALS_H

#include "sprout/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct signals {
  int fd; /* readable when a signal waits */
  sigset_t set;
  uint64_t first_ns;  /* when the first was taken, 0: not yet */
  uint64_t settle_ns; /* how long others count as the same */
};

/* Takes SIGINT and SIGTERM (and SIGHUP with `hangup`) unless they are ignored already, as in a
 * background job. Call it before the first thread is made: threads inherit the mask. */
SPROUT_MUST_CHECK enum sprout_status signals_open(struct signals *signals_out, bool hangup,
                                                  struct sprout_error *error);

/* The number of a signal that waits, 0: none. */
int signals_take(struct signals *signals);

/* From now on a second signal ends the process at once with exit code 128 + its number. */
void signals_restore(struct signals *signals);

/* Restores, and closes the descriptor. */
void signals_close(struct signals *signals);
#endif
