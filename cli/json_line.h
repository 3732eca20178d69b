/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One typed JSON object a line, for programs: {"type":"progress",...}. Made with jansson, flushed
 * line by line, so that a reader sees each at once.
 */
#ifndef CLI_JSON_LINE_H
#define CLI_JSON_LINE_H

#include "cli/progress.h"

#include <stdio.h>

/* What a "result" line says besides the fork's own result. */
struct json_result {
  const struct sprout_fork_result *result;
  const struct progress_snapshot *last; /* the final numbers and sources */
  bool dry_run;
  int exit_code;
};

void json_line_progress(FILE *out, const struct progress_snapshot *snapshot, double eta_seconds);
void json_line_source(FILE *out, const struct progress_source *source);
void json_line_differs(FILE *out, const char *file, uint64_t wrong_bytes, uint64_t missing_bytes);
void json_line_result(FILE *out, const struct json_result *result);
/* {"type":"ready",...}; `admin_url` may be NULL. */
struct json_ready {
  const char *url, *admin_url, *model, *id;
  uint32_t files, objects;
  uint64_t bytes;
  bool token;
};
void json_line_ready(FILE *out, const struct json_ready *ready);
/* {"type":"drain","forks_running":..,"forks_queued":..} */
void json_line_drain(FILE *out, uint32_t running, uint32_t queued);
void json_line_error(FILE *out, const struct sprout_error *error);
#endif
