/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says that a seed is ready: a line on standard output (JSON with --log-format json), and the file
 * of
 * --ready-file, which appears whole.
 */
#ifndef CLI_READY_H
#define CLI_READY_H

#include "cli/tables.h"
#include "sprout/seed.h"

/* *written_out says whether the file was written and is to be removed at the end. */
SPROUT_MUST_CHECK enum sprout_status ready_announce(const struct seed_values *values,
                                                    struct sprout_seed *seed, bool *written_out,
                                                    struct sprout_error *error);
#endif
