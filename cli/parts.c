/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/parts.h"

#include <stdbool.h>
#include <string.h>

#define GID_INDEX_MAX 65535

/* Known words that this program cannot serve, and why. */
struct absent {
  const char *word;
  const char *reason;
};

#ifdef SPROUT_HAVE_RDMA
#define TRANSPORTS "auto, or a comma list of rdma and tcp"
static const char *const transports[] = {"tcp", "rdma"};
#else
#define TRANSPORTS "auto or tcp"
static const char *const transports[] = {"tcp"};
#endif

static const struct absent absent_transports[] = {
#ifndef SPROUT_HAVE_RDMA
    {"rdma", "this build has no RDMA"},
#endif
    {"ipc", "this build has no same-host memory transport"},
};

static const struct absent absent_memories[] = {
    {"pinned", "this build has no CUDA, so there is no pinned memory"},
    {"cuda:", "this build has no CUDA"},
};

static bool begins_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

static bool is_word(const char *text, size_t length, const char *word) {
  return strlen(word) == length && strncmp(word, text, length) == 0;
}

static enum sprout_status check_one_transport(const char *text, size_t length,
                                              struct sprout_error *error) {
  for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++)
    if (is_word(text, length, transports[i])) return SPROUT_OK;
  for (size_t i = 0; i < sizeof(absent_transports) / sizeof(absent_transports[0]); i++)
    if (is_word(text, length, absent_transports[i].word))
      return sprout_error_set(error, SPROUT_INVALID, 0, "Use --transport " TRANSPORTS ".",
                              "--transport %s: %s", absent_transports[i].word,
                              absent_transports[i].reason);
  return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                          "--transport: '%.*s' is not a transport; expected " TRANSPORTS,
                          length < 64 ? (int)length : 64, text);
}

enum sprout_status parts_check_transport(const char *list, struct sprout_error *error) {
  if (strcmp(list, "auto") == 0) return SPROUT_OK;
  for (const char *at = list;; at++) {
    size_t length = strcspn(at, ",");
    enum sprout_status status = check_one_transport(at, length, error);
    if (status != SPROUT_OK) return status;
    at += length;
    if (*at == '\0') return SPROUT_OK;
  }
}

enum sprout_status parts_parse_gid_index(const char *text, int32_t *option_out,
                                         struct sprout_error *error) {
  int32_t index = 0;
  if (text == NULL || strcmp(text, "auto") == 0) {
    *option_out = 0;
    return SPROUT_OK;
  }
  bool good = text[0] != '\0' && strlen(text) <= 5;
  for (const char *at = text; good && *at != '\0'; at++) {
    good = *at >= '0' && *at <= '9';
    index = index * 10 + (*at - '0');
  }
  if (!good || index > GID_INDEX_MAX)
    return sprout_error_set(error, SPROUT_INVALID, 0, "`rdma link` and show_gids list them.",
                            "--gid-index: '%.64s' is neither auto nor a number from 0 to %d", text,
                            GID_INDEX_MAX);
  *option_out = index + 1;
  return SPROUT_OK;
}

enum sprout_status parts_parse_memory(const char *text, enum sprout_seed_memory *memory_out,
                                      struct sprout_error *error) {
  if (strcmp(text, "file") == 0) {
    *memory_out = SPROUT_SEED_MEMORY_FILE;
    return SPROUT_OK;
  }
  if (strcmp(text, "host") == 0) {
    *memory_out = SPROUT_SEED_MEMORY_HOST;
    return SPROUT_OK;
  }
  for (size_t i = 0; i < sizeof(absent_memories) / sizeof(absent_memories[0]); i++)
    if (begins_with(text, absent_memories[i].word))
      return sprout_error_set(error, SPROUT_INVALID, 0, "Use --memory file or host.",
                              "--memory %.64s: %s", text, absent_memories[i].reason);
  return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                          "--memory: '%.64s' is not one of file|host", text);
}

enum sprout_status parts_parse_destination(const char *text, const char **directory_out,
                                           struct sprout_error *error) {
  if (strcmp(text, "null:") == 0) {
    *directory_out = NULL;
    return SPROUT_OK;
  }
  if (begins_with(text, "cuda:"))
    return sprout_error_set(error, SPROUT_INVALID, 0, "Fork into a directory or null:.",
                            "destination %.64s: this build has no CUDA", text);
  if (strstr(text, "://") != NULL)
    return sprout_error_set(error, SPROUT_INVALID, 0,
                            "The last argument is where the model goes: a directory or null:.",
                            "the destination is missing: '%.200s' is a URL", text);
  if (text[0] == '\0')
    return sprout_error_set(error, SPROUT_INVALID, 0,
                            "The last argument is where the model goes: a directory or null:.",
                            "the destination is empty");
  *directory_out = text;
  return SPROUT_OK;
}

enum sprout_status parts_refuse_percent(const char *option, const struct units_rate *rate,
                                        struct sprout_error *error) {
  if (rate->percent == 0) return SPROUT_OK;
  return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                          "%s: %u%% is a share of a network interface, which only a seed's "
                          "--max-rate knows; expected e.g. 200M, 10Gbit",
                          option, rate->percent);
}
