/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters, gauges and histograms of one process, in one documented table (stats_table.h).
 * Rendering to Prometheus text is net/prometheus.c's.
 *
 * One thread writes (the reactor's); any thread may read meanwhile (relaxed atomics): a reader sees
 * whole values, not necessarily of one moment. Everything is bounded: a family takes
 * STATS_SERIES_MAX series, what comes after folds into a last one whose labels all are "other". The
 * first sight of a combination of labels allocates; a combination that cannot be allocated is not
 * counted. All writers allow a NULL stats: whoever is not observed needs no special case.
 */
#ifndef CORE_STATS_H
#define CORE_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stat_type { STAT_COUNTER, STAT_GAUGE, STAT_HISTOGRAM };

#define STATS_LABELS_MAX 3
#define STATS_SERIES_MAX 64 /* per family: label values are bounded; more fold into "other" */
#define STATS_BUCKETS_MAX 20

/* One row: a metric family. Units are in the name (base units: seconds, bytes). Values are doubles.
 */
struct stat_family {
  const char *name; /* without the "sprout_" prefix */
  enum stat_type type;
  const char *help;
  const char *labels[STATS_LABELS_MAX]; /* NULL-ended */
  const double *buckets;                /* ascending, 0-ended; histograms */
};

/* Label values for the calls below: stats_add(stats, STAT_SENT_BYTES, STAT_LABELS("tcp"), 42). */
#define STAT_LABELS(...) ((const char *const[STATS_LABELS_MAX]){__VA_ARGS__})

struct stats;

/* `families` is static. Families without labels begin with one series at 0. NULL when out of
 * memory. */
struct stats *stats_create(const struct stat_family *families, size_t count);
void stats_destroy(struct stats *stats);
/* Label values in the family's order, as many as it has (NULL for none; a NULL value is ""); copied
 * on first sight of a combination. Counters only grow: a negative amount is a bug. */
void stats_add(struct stats *stats, uint32_t family, const char *const *labels, double amount);
/* Gauges; also counters that are sampled from a total kept elsewhere. */
void stats_set(struct stats *stats, uint32_t family, const char *const *labels, double value);
void stats_observe(struct stats *stats, uint32_t family, const char *const *labels, double value);

/* One series as a renderer sees it. */
struct stat_series {
  const char *labels[STATS_LABELS_MAX];
  double value;                        /* counter, gauge; histogram: sum */
  uint64_t count;                      /* histogram */
  uint64_t buckets[STATS_BUCKETS_MAX]; /* not cumulative; values above the last bound are in none */
};
/* Series `index` of a family in the order of first sight; false beyond the last. Labels live as
 * long as the stats. */
bool stats_series(const struct stats *stats, uint32_t family, uint32_t index,
                  struct stat_series *series_out);
const struct stat_family *stats_family(const struct stats *stats, uint32_t family);
/* How many label names (or bounds) the family has. */
uint32_t stats_label_count(const struct stat_family *family);
uint32_t stats_bucket_count(const struct stat_family *family);
size_t stats_family_count(const struct stats *stats);
#endif
