/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a seed says of itself (/v1/status) and of its forks (/v1/forks), read from JSON and laid out
 * for people. Both documents come from the network: what is missing or of another type counts as
 * zero or empty, text is cleaned before it is shown. No I/O but the printing.
 */
#ifndef CLI_JSON_STATUS_H
#define CLI_JSON_STATUS_H

#include "cli/terminal.h"
#include "sprout/status.h"

#include <stdio.h>

/* Some lines, and a table of forks when there are any. */
SPROUT_MUST_CHECK enum sprout_status json_status_print(FILE *out, const char *status_text,
                                                       const char *forks_text,
                                                       const struct terminal *terminal,
                                                       struct sprout_error *error);

/* {"status":...,"forks":[...]} as one line. */
SPROUT_MUST_CHECK enum sprout_status json_status_merge(FILE *out, const char *status_text,
                                                       const char *forks_text,
                                                       struct sprout_error *error);
#endif
