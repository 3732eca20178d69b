/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every metric family of the program in one table. Names carry the prefix "sprout_" when rendered;
 * units are base units (seconds, bytes); label values are bounded and never a fork id, URL, peer or
 * version. docs/METRICS.md is made from it.
 *
 * Reasons and results are names from the status table ("stalled", "corrupt"), limits are names from
 * the limits table in lower case without "LIMIT_", routes are patterns ("/v1/forks/{id}/read").
 */
#ifndef CORE_STATS_TABLE_H
#define CORE_STATS_TABLE_H

#include "core/stats.h"

/* X(id, name, type, buckets or NULL, help, label names...) */
#define STATS_TABLE(X)                                                                             \
  X(STAT_BUILD_INFO, "build_info", STAT_GAUGE, NULL, "Always 1; labels say what is running.",      \
    "version", "io", "role")                                                                       \
  X(STAT_PROCESS_CPU_SECONDS, "process_cpu_seconds_total", STAT_COUNTER, NULL,                     \
    "User and system CPU time spent.", NULL)                                                       \
  X(STAT_PROCESS_RESIDENT_MEMORY_BYTES, "process_resident_memory_bytes", STAT_GAUGE, NULL,         \
    "Resident memory, mapped model files included.", NULL)                                         \
  X(STAT_PROCESS_OPEN_FDS, "process_open_fds", STAT_GAUGE, NULL, "Open file descriptors.", NULL)   \
  X(STAT_PROCESS_MAX_FDS, "process_max_fds", STAT_GAUGE, NULL,                                     \
    "File descriptors that may be open.", NULL)                                                    \
  X(STAT_PROCESS_START_TIME_SECONDS, "process_start_time_seconds", STAT_GAUGE, NULL,               \
    "Start of the process, seconds since 1970.", NULL)                                             \
  X(STAT_LIMIT_HITS, "limit_hits_total", STAT_COUNTER, NULL,                                       \
    "How often a bound of the limits table was reached.", "limit")                                 \
  X(STAT_SEED_READY, "seed_ready", STAT_GAUGE, NULL, "1 while the seed accepts forks.", "model",   \
    "rank")                                                                                        \
  X(STAT_SEED_GENERATION, "seed_generation", STAT_GAUGE, NULL,                                     \
    "Generation of the bytes that are served.", NULL)                                              \
  X(STAT_SEED_PUBLISHED_TIMESTAMP_SECONDS, "seed_published_timestamp_seconds", STAT_GAUGE, NULL,   \
    "When this generation was published, seconds since 1970.", NULL)                               \
  X(STAT_SEED_REGISTERED_BYTES, "seed_registered_bytes", STAT_GAUGE, NULL,                         \
    "Bytes of the model by kind of memory (file, host).", "memory")                                \
  X(STAT_SEED_UNDIGESTED_BYTES, "seed_undigested_bytes", STAT_GAUGE, NULL,                         \
    "Bytes whose digests are not computed yet.", NULL)                                             \
  X(STAT_SEED_FORKS, "seed_forks", STAT_GAUGE, NULL,                                               \
    "Forks the seed knows by state (running, queued).", "state")                                   \
  X(STAT_SEED_FORKS_LIMIT, "seed_forks_limit", STAT_GAUGE, NULL, "Forks that may run at once.",    \
    NULL)                                                                                          \
  X(STAT_SEED_FORKS_STARTED, "seed_forks_started_total", STAT_COUNTER, NULL,                       \
    "Forks that were admitted.", NULL)                                                             \
  X(STAT_SEED_FORKS_FINISHED, "seed_forks_finished_total", STAT_COUNTER, NULL,                     \
    "Forks that ended, by result (complete, failed, cancelled, expired) and reason.", "model",     \
    "result", "reason")                                                                            \
  X(STAT_SEED_FORK_DURATION_SECONDS, "seed_fork_duration_seconds", STAT_HISTOGRAM,                 \
    stats_buckets_minutes, "From admission to the end of a fork.", "result")                       \
  X(STAT_SEED_QUEUE_WAIT_SECONDS, "seed_queue_wait_seconds", STAT_HISTOGRAM,                       \
    stats_buckets_minutes, "From the open call to admission.", NULL)                               \
  X(STAT_SENT_BYTES, "sent_bytes_total", STAT_COUNTER, NULL, "Model bytes sent, by transport.",    \
    "transport")                                                                                   \
  X(STAT_WINDOW_INFLIGHT_BYTES, "window_inflight_bytes", STAT_GAUGE, NULL,                         \
    "Bytes granted and not yet answered.", NULL)                                                   \
  X(STAT_WINDOW_LIMIT_BYTES, "window_limit_bytes", STAT_GAUGE, NULL,                               \
    "Bytes that may be in flight.", NULL)                                                          \
  X(STAT_THROTTLED_SECONDS, "throttled_seconds_total", STAT_COUNTER, NULL,                         \
    "Time in which the rate limit alone held bytes back.", NULL)                                   \
  X(STAT_RATE_LIMIT_BYTES_PER_SECOND, "rate_limit_bytes_per_second", STAT_GAUGE, NULL,             \
    "Rate limit in force; 0 means none.", NULL)                                                    \
  X(STAT_FALLBACKS, "fallbacks_total", STAT_COUNTER, NULL,                                         \
    "How often weights went over another transport than was wanted: a whole seed, or one fork.",   \
    "from", "to", "reason")                                                                        \
  X(STAT_RDMA_PORT_UP, "rdma_port_up", STAT_GAUGE, NULL,                                           \
    "1 while the port is active and its device has not failed.", "device", "port")                 \
  X(STAT_RDMA_QUEUE_PAIRS, "rdma_queue_pairs", STAT_GAUGE, NULL,                                   \
    "Queue pairs that forks have, or that are being made or ended.", NULL)                         \
  X(STAT_RDMA_REGISTERED_BYTES, "rdma_registered_bytes", STAT_GAUGE, NULL,                         \
    "Bytes of the model that can be read over RDMA by now.", NULL)                                 \
  X(STAT_RDMA_CONNECTIONS_REFUSED, "rdma_connections_refused_total", STAT_COUNTER, NULL,           \
    "RDMA connections refused, by reason (malformed, version, nonce, limit, local).", "reason")    \
  X(STAT_HTTP_REQUESTS, "http_requests_total", STAT_COUNTER, NULL,                                 \
    "Requests answered, by route and status code.", "route", "code")                               \
  X(STAT_HTTP_REQUEST_DURATION_SECONDS, "http_request_duration_seconds", STAT_HISTOGRAM,           \
    stats_buckets_request, "From the first byte of a request to the last of its answer.", "route") \
  X(STAT_HTTP_CONNECTIONS, "http_connections", STAT_GAUGE, NULL,                                   \
    "Open connections by state (idle, active).", "state")                                          \
  X(STAT_AUTH_FAILURES, "auth_failures_total", STAT_COUNTER, NULL,                                 \
    "Requests refused by authentication, by reason (missing, wrong, malformed).", "reason")        \
  X(STAT_UPDATE_DURATION_SECONDS, "update_duration_seconds", STAT_HISTOGRAM,                       \
    stats_buckets_request,                                                                         \
    "Updates of a running seed by phase: begin (the call), change (the owner's), commit.",         \
    "phase")                                                                                       \
  X(STAT_REACTOR_BUSY_SECONDS, "reactor_busy_seconds_total", STAT_COUNTER, NULL,                   \
    "Time the reactor did not sleep.", NULL)                                                       \
  X(STAT_REACTOR_WAKEUPS, "reactor_wakeups_total", STAT_COUNTER, NULL,                             \
    "How often the reactor woke up.", NULL)

/* Family ids, for stats_add and its sisters. */
enum stat_id {
#define STATS_ENUM(id, ...) id,
  STATS_TABLE(STATS_ENUM)
#undef STATS_ENUM
      STAT_COUNT
};

/* The rows, STAT_COUNT of them: stats_create(stats_table, STAT_COUNT). */
extern const struct stat_family stats_table[STAT_COUNT];

/*
 * Samples the process_* families from the kernel; call it just before rendering, on the writing
 * thread. Reads a few lines of procfs (never a disk); what cannot be read keeps its last value.
 */
void stats_collect_process(struct stats *stats);
#endif
