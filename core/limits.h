/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every bound of the program in one table: name, value, unit, what happens at the limit.
 * docs/LIMITS.md is made from it.
 */
#ifndef CORE_LIMITS_H
#define CORE_LIMITS_H

/* X(name, value, unit, what happens when it is reached) */
#define LIMITS_TABLE(X)                                                                            \
  X(LIMIT_RING_ENTRIES, 512, "operations", "further operations wait in a list")                    \
  X(LIMIT_TIMERS, 65536, "timers",                                                                 \
    "the program aborts: connections and forks are bounded below it")                              \
  X(LIMIT_POOLED_BUFFERS, 256, "buffers", "receives wait until one is returned")                   \
  X(LIMIT_POOLED_BUFFER_BYTES, 8192, "bytes", "longer input arrives in pieces")                    \
  X(LIMIT_CONNECTIONS, 4096, "connections", "the newest is answered 503 and closed")               \
  X(LIMIT_HEADER_BYTES, 16384, "bytes", "431")                                                     \
  X(LIMIT_TARGET_BYTES, 8192, "bytes", "414")                                                      \
  X(LIMIT_BODY_BYTES, 1048576, "bytes", "413")                                                     \
  X(LIMIT_REQUEST_BODY_BYTES, 65536, "bytes sent to a seed", "413")                                \
  X(LIMIT_PIPELINED_REQUESTS, 64, "requests per connection",                                       \
    "the connection is not read until one is answered")                                            \
  X(LIMIT_READ_RANGES, 512, "ranges per read", "400")                                              \
  X(LIMIT_READ_BYTES, 67108864, "bytes per read", "429 over_window")                               \
  X(LIMIT_HEADER_TIMEOUT_MS, 10000, "ms", "408: a request that began must be whole by then")       \
  X(LIMIT_IDLE_TIMEOUT_MS, 75000, "ms", "an idle kept-alive connection is closed")                 \
  X(LIMIT_SEND_TIMEOUT_MS, 30000, "ms", "a reader that takes nothing for so long is closed")       \
  X(LIMIT_MANIFEST_BYTES, 268435456, "bytes", "the manifest is refused")                           \
  X(LIMIT_OBJECTS, 1048576, "objects per manifest", "the manifest is refused")                     \
  X(LIMIT_FILES, 65536, "files per manifest", "the manifest is refused")                           \
  X(LIMIT_CHUNKS, 16777216, "chunks per manifest", "the manifest is refused")                      \
  X(LIMIT_NAME_BYTES, 4096, "bytes per name or path", "the manifest is refused")                   \
  X(LIMIT_DIGESTS_PER_REQUEST, 8192, "digests", "400")                                             \
  X(LIMIT_WORKERS, 16, "threads", "more jobs wait in the queue")                                   \
  X(LIMIT_FORKS, 4096, "running forks", "--max-forks cannot be set higher")                        \
  X(LIMIT_QUEUE, 16384, "queued forks", "429 busy")                                                \
  X(LIMIT_SLICES, 65536, "registered slices of a seed", "it serves without RDMA")                  \
  X(LIMIT_PLACEMENT_BYTES, 16777216, "bytes", "the placement is refused")                          \
  X(LIMIT_RDMA_LINKS, 4096, "RDMA connections of a seed", "the newest is refused")                 \
  X(LIMIT_FINISHED_FORKS, 64, "finished forks kept for status", "the oldest is forgotten")

enum limit_values {
#define LIMITS_ENUM(name, value, unit, effect) name = value,
  LIMITS_TABLE(LIMITS_ENUM)
#undef LIMITS_ENUM
};
#endif
