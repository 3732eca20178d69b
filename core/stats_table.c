/* SPDX-License-Identifier: Apache-2.0 */
#include "core/stats_table.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const double stats_buckets_minutes[] = {0.1, 0.3, 1,   3,    10,   20,   30, 60,
                                               120, 300, 600, 1200, 1800, 3600, 0};
static const double stats_buckets_request[] = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1,
                                               0.3,    1,      3,     10,    30,   0};

const struct stat_family stats_table[STAT_COUNT] = {
#define STATS_ROW(id, name, type, buckets, help, ...)                                              \
  [id] = {name, type, help, {__VA_ARGS__}, buckets},
    STATS_TABLE(STATS_ROW)
#undef STATS_ROW
};

/* Reads a small file of procfs whole; false when it cannot be read or does not fit. */
static bool read_small_file(const char *path, char *text, size_t room) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t length = read(fd, text, room - 1);
  close(fd);
  if (length <= 0) return false;
  text[length] = '\0';
  return true;
}

/* The `index`-th (from 0) number in a line of numbers separated by spaces. */
static bool number_at(const char *text, unsigned index, unsigned long long *number_out) {
  while (index-- > 0) {
    text = strchr(text, ' ');
    if (text == NULL) return false;
    text++;
  }
  char *end;
  *number_out = strtoull(text, &end, 10);
  return end != text;
}

static void collect_memory(struct stats *stats) {
  char text[256];
  unsigned long long pages;
  if (read_small_file("/proc/self/statm", text, sizeof(text)) && number_at(text, 1, &pages))
    stats_set(stats, STAT_PROCESS_RESIDENT_MEMORY_BYTES, NULL,
              (double)pages * (double)sysconf(_SC_PAGESIZE));
}

static void collect_descriptors(struct stats *stats) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
    stats_set(stats, STAT_PROCESS_MAX_FDS, NULL, (double)limit.rlim_cur);
  DIR *directory = opendir("/proc/self/fd");
  if (directory == NULL) return;
  double count = 0;
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  /* Less ".", ".." and the directory's own descriptor. */
  stats_set(stats, STAT_PROCESS_OPEN_FDS, NULL, count - 3);
}

static void collect_cpu(struct stats *stats) {
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) != 0) return;
  stats_set(stats, STAT_PROCESS_CPU_SECONDS, NULL,
            (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
}

static void collect_start(struct stats *stats) {
  enum { START_FIELD = 19 }; /* of /proc/self/stat, counted behind the command's name */
  static const char boot_key[] = "\nbtime ";
  char text[65536];
  unsigned long long ticks, boot;
  if (!read_small_file("/proc/self/stat", text, sizeof(text))) return;
  const char *behind_name = strrchr(text, ')');
  if (behind_name == NULL || behind_name[1] == '\0') return;
  if (!number_at(behind_name + 2, START_FIELD, &ticks)) return;
  if (!read_small_file("/proc/stat", text, sizeof(text))) return;
  const char *line = strstr(text, boot_key);
  if (line == NULL || !number_at(line + strlen(boot_key), 0, &boot)) return;
  stats_set(stats, STAT_PROCESS_START_TIME_SECONDS, NULL,
            (double)boot + (double)ticks / (double)sysconf(_SC_CLK_TCK));
}

void stats_collect_process(struct stats *stats) {
  if (stats == NULL) return;
  collect_cpu(stats);
  collect_memory(stats);
  collect_descriptors(stats);
  struct stat_series start;
  /* It does not change. */
  if (stats_series(stats, STAT_PROCESS_START_TIME_SECONDS, 0, &start) && start.value > 0) return;
  collect_start(stats);
}
