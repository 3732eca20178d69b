/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters, gauges and histograms of one process, in one documented table (stats_table.h). Written
 * by the reactor's thread; read by any thread (relaxed atomics). Rendering to Prometheus text is
 * net/prometheus.c's.
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

struct stats;

/* `families` is static. NULL when out of memory. */
struct stats *stats_create(const struct stat_family *families, size_t count);
void stats_destroy(struct stats *stats);
/* Label values in the family's order, as many as it has; copied on first sight of a combination. */
void stats_add(struct stats *stats, uint32_t family, const char *const *labels, double amount);
void stats_set(struct stats *stats, uint32_t family, const char *const *labels, double value);
void stats_observe(struct stats *stats, uint32_t family, const char *const *labels, double value);

/* One series as a renderer sees it. */
struct stat_series {
  const char *labels[STATS_LABELS_MAX];
  double value;                        /* counter, gauge; histogram: sum */
  uint64_t count;                      /* histogram */
  uint64_t buckets[STATS_BUCKETS_MAX]; /* not cumulative */
};
/* Series `index` of a family; false beyond the last. */
bool stats_series(const struct stats *stats, uint32_t family, uint32_t index,
                  struct stat_series *series_out);
const struct stat_family *stats_family(const struct stats *stats, uint32_t family);
size_t stats_family_count(const struct stats *stats);
#endif
