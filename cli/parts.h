/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which parts of sprout are in this program, and the answer to whoever asks for one that is not.
 * Pure.
 */
#ifndef CLI_PARTS_H
#define CLI_PARTS_H

#include "core/units.h"
#include "sprout/seed.h"

/* "auto" or a comma list of transports. */
SPROUT_MUST_CHECK enum sprout_status parts_check_transport(const char *list,
                                                           struct sprout_error *error);

/* "auto" (or NULL: a build without RDMA has no such option) or a number, as the options of seed and
 * fork take it: one more, 0 for auto. */
SPROUT_MUST_CHECK enum sprout_status parts_parse_gid_index(const char *text, int32_t *option_out,
                                                           struct sprout_error *error);

/* "file", "host". */
SPROUT_MUST_CHECK enum sprout_status parts_parse_memory(const char *text,
                                                        enum sprout_seed_memory *memory_out,
                                                        struct sprout_error *error);

/* A fork's last argument: a directory, or "null:" (*directory_out is NULL). */
SPROUT_MUST_CHECK enum sprout_status
parts_parse_destination(const char *text, const char **directory_out, struct sprout_error *error);

/* For an option that takes a rate but not a share of a link: refuses percentages. */
SPROUT_MUST_CHECK enum sprout_status
parts_refuse_percent(const char *option, const struct units_rate *rate, struct sprout_error *error);
#endif
