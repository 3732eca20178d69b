/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the lines of a progress report say, at a given width. Pure.
 */
#ifndef CLI_PROGRESS_LAYOUT_H
#define CLI_PROGRESS_LAYOUT_H

#include "cli/progress.h"

#define LAYOUT_LINE_BYTES 2048

struct layout_style {
  unsigned columns;
  bool color, unicode;
};

/* "forking  [=====>    ]  47%  1.93 GB of 4.10 GB  1.21 GB/s  2s left"; what does not fit goes, the
 * least important first. Returns how many columns it takes. */
size_t layout_bar_line(const struct progress_snapshot *snapshot, double eta_seconds,
                       const char *verb, const struct layout_style *style,
                       char line_out[LAYOUT_LINE_BYTES]);

/* "  http://10.0.0.5:7117  reading  1.20 GB", the URL in `url_columns` columns. */
size_t layout_source_line(const struct progress_source *source, size_t url_columns,
                          const struct layout_style *style, char line_out[LAYOUT_LINE_BYTES]);

/* The widest URL, bounded so that the rest of a line fits too. */
size_t layout_url_columns(const struct progress_snapshot *snapshot,
                          const struct layout_style *style);

/* "47% 1.93 GB of 4.10 GB, 1.21 GB/s, 2s left, 2 sources" */
void layout_plain_line(const struct progress_snapshot *snapshot, double eta_seconds,
                       const char *verb, char line_out[LAYOUT_LINE_BYTES]);

/* "forked 4.10 GB in 3.4s (1.21 GB/s), verified with XXH3-128, from 2 sources, 1.20 GB reused". */
struct layout_summary {
  const struct sprout_fork_result *result;
  const struct progress_snapshot *last;
  bool dry_run;
};
void layout_summary_line(const struct layout_summary *summary, char line_out[LAYOUT_LINE_BYTES]);

/* The part of done in total, in thousandths; 1000 only when it is all. */
unsigned layout_permille(uint64_t done_bytes, uint64_t total_bytes);
#endif
