/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series are found by comparing label values one after the other: a family has few, and they are
 * looked up per request or per batch, not per byte.
 */
#include "core/stats.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct series {
  char *labels[STATS_LABELS_MAX];
  _Atomic double value;
  _Atomic uint64_t count;
  _Atomic uint64_t buckets[]; /* as many as the family has */
};

struct family {
  const struct stat_family *row;
  uint32_t label_count, bucket_count;
  atomic_uint series_count; /* released after a series was filled */
  struct series *series[STATS_SERIES_MAX + 1];
};

struct stats {
  size_t family_count;
  struct family families[];
};

uint32_t stats_label_count(const struct stat_family *family) {
  uint32_t count = 0;
  while (count < STATS_LABELS_MAX && family->labels[count] != NULL) count++;
  return count;
}

uint32_t stats_bucket_count(const struct stat_family *family) {
  uint32_t count = 0;
  while (family->buckets != NULL && family->buckets[count] > 0) count++;
  return count;
}

static void destroy_series(struct series *series) {
  if (series == NULL) return;
  for (size_t i = 0; i < STATS_LABELS_MAX; i++) free(series->labels[i]);
  free(series);
}

static const char *label_at(const char *const *labels, uint32_t index) {
  return labels != NULL && labels[index] != NULL ? labels[index] : "";
}

static struct series *create_series(const struct family *family, const char *const *labels) {
  struct series *series =
      calloc(1, sizeof(*series) + family->bucket_count * sizeof(series->buckets[0]));
  if (series == NULL) return NULL;
  for (uint32_t i = 0; i < family->label_count; i++) {
    series->labels[i] = strdup(label_at(labels, i));
    if (series->labels[i] == NULL) {
      destroy_series(series);
      return NULL;
    }
  }
  return series;
}

static struct series *append_series(struct family *family, const char *const *labels) {
  unsigned count = atomic_load_explicit(&family->series_count, memory_order_relaxed);
  struct series *series = create_series(family, labels);
  if (series == NULL) return NULL;
  family->series[count] = series;
  atomic_store_explicit(&family->series_count, count + 1, memory_order_release);
  return series;
}

static bool has_labels(const struct family *family, const struct series *series,
                       const char *const *labels) {
  for (uint32_t i = 0; i < family->label_count; i++)
    if (strcmp(series->labels[i], label_at(labels, i)) != 0) return false;
  return true;
}

/* The series of these labels, made when it is new; NULL when out of memory. */
static struct series *find_series(struct stats *stats, uint32_t index, const char *const *labels) {
  assert(index < stats->family_count);
  struct family *family = &stats->families[index];
  unsigned count = atomic_load_explicit(&family->series_count, memory_order_relaxed);
  for (unsigned i = 0; i < count; i++)
    if (has_labels(family, family->series[i], labels)) return family->series[i];
  if (count < STATS_SERIES_MAX) return append_series(family, labels);
  if (count > STATS_SERIES_MAX) return family->series[STATS_SERIES_MAX];
  return append_series(family, STAT_LABELS("other", "other", "other"));
}

struct stats *stats_create(const struct stat_family *families, size_t count) {
  struct stats *stats = calloc(1, sizeof(*stats) + count * sizeof(stats->families[0]));
  if (stats == NULL) return NULL;
  stats->family_count = count;
  for (size_t i = 0; i < count; i++) {
    struct family *family = &stats->families[i];
    family->row = &families[i];
    family->label_count = stats_label_count(family->row);
    family->bucket_count = stats_bucket_count(family->row);
    assert(family->bucket_count <= STATS_BUCKETS_MAX);
    assert((family->bucket_count > 0) == (family->row->type == STAT_HISTOGRAM));
    if (family->label_count == 0 && append_series(family, NULL) == NULL) {
      stats_destroy(stats);
      return NULL;
    }
  }
  return stats;
}

void stats_destroy(struct stats *stats) {
  if (stats == NULL) return;
  for (size_t i = 0; i < stats->family_count; i++)
    for (size_t k = 0; k <= STATS_SERIES_MAX; k++) destroy_series(stats->families[i].series[k]);
  free(stats);
}

/* One writer: a load and a store make an addition. */
static void add_to(_Atomic double *value, double amount) {
  double now = atomic_load_explicit(value, memory_order_relaxed);
  atomic_store_explicit(value, now + amount, memory_order_relaxed);
}

static void count_one(_Atomic uint64_t *value) {
  uint64_t now = atomic_load_explicit(value, memory_order_relaxed);
  atomic_store_explicit(value, now + 1, memory_order_relaxed);
}

void stats_add(struct stats *stats, uint32_t family, const char *const *labels, double amount) {
  if (stats == NULL) return;
  assert(stats->families[family].row->type != STAT_HISTOGRAM);
  assert(amount >= 0 || stats->families[family].row->type == STAT_GAUGE);
  struct series *series = find_series(stats, family, labels);
  if (series != NULL) add_to(&series->value, amount);
}

void stats_set(struct stats *stats, uint32_t family, const char *const *labels, double value) {
  if (stats == NULL) return;
  assert(stats->families[family].row->type != STAT_HISTOGRAM);
  struct series *series = find_series(stats, family, labels);
  if (series != NULL) atomic_store_explicit(&series->value, value, memory_order_relaxed);
}

void stats_observe(struct stats *stats, uint32_t index, const char *const *labels, double value) {
  if (stats == NULL) return;
  const struct family *family = &stats->families[index];
  assert(family->row->type == STAT_HISTOGRAM);
  struct series *series = find_series(stats, index, labels);
  if (series == NULL) return;
  uint32_t bucket = 0;
  while (bucket < family->bucket_count && value > family->row->buckets[bucket]) bucket++;
  if (bucket < family->bucket_count) count_one(&series->buckets[bucket]);
  add_to(&series->value, value);
  count_one(&series->count);
}

bool stats_series(const struct stats *stats, uint32_t index, uint32_t series_index,
                  struct stat_series *series_out) {
  assert(index < stats->family_count);
  const struct family *family = &stats->families[index];
  if (series_index >= atomic_load_explicit(&family->series_count, memory_order_acquire))
    return false;
  const struct series *series = family->series[series_index];
  *series_out =
      (struct stat_series){.value = atomic_load_explicit(&series->value, memory_order_relaxed),
                           .count = atomic_load_explicit(&series->count, memory_order_relaxed)};
  for (uint32_t i = 0; i < family->label_count; i++) series_out->labels[i] = series->labels[i];
  for (uint32_t i = 0; i < family->bucket_count; i++)
    series_out->buckets[i] = atomic_load_explicit(&series->buckets[i], memory_order_relaxed);
  return true;
}

const struct stat_family *stats_family(const struct stats *stats, uint32_t family) {
  assert(family < stats->family_count);
  return stats->families[family].row;
}

size_t stats_family_count(const struct stats *stats) {
  return stats->family_count;
}
