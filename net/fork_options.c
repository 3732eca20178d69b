/* SPDX-License-Identifier: Apache-2.0 */
#include "net/fork_options.h"

#include <stdlib.h>
#include <string.h>

#define SECOND_NS 1000000000ull
#define DEFAULT_INFLIGHT_BYTES (32ull << 20)
#define MAX_CONNECTIONS 16u
/* A seed that listens answers in milliseconds; the connection manager itself would try for a
 * minute. */
#define RDMA_CONNECT_TIMEOUT_NS SECOND_NS
/* A dead path shows after half a second, and a link may be gone for less. Seven retries would mean
 * for ever on some devices. */
#define RDMA_RETRIES 6u
#define RDMA_ACK_TIMEOUT_NS 67000000ull

static SPROUT_MUST_CHECK enum sprout_status remember(struct fork_options *copy, void *memory) {
  if (!memory) return SPROUT_NO_MEMORY;
  if (copy->string_count == copy->string_capacity) {
    size_t capacity = copy->string_capacity ? copy->string_capacity * 2 : 16;
    char **grown = realloc(copy->strings, capacity * sizeof *grown);
    if (!grown) {
      free(memory);
      return SPROUT_NO_MEMORY;
    }
    copy->strings = grown;
    copy->string_capacity = capacity;
  }
  copy->strings[copy->string_count++] = memory;
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status copy_text(struct fork_options *copy,
                                                      const char **text) {
  if (!*text) return SPROUT_OK;
  char *mine = strdup(*text);
  enum sprout_status status = remember(copy, mine);
  if (status == SPROUT_OK) *text = mine;
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status copy_list(struct fork_options *copy,
                                                      const char *const **list, size_t count) {
  if (count == 0) return SPROUT_OK;
  const char **mine = calloc(count, sizeof *mine);
  enum sprout_status status = remember(copy, mine);
  for (size_t i = 0; i < count && status == SPROUT_OK; i++) {
    mine[i] = (*list)[i];
    status = copy_text(copy, &mine[i]);
  }
  if (status == SPROUT_OK) *list = mine;
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status copy_all(struct fork_options *copy) {
  struct sprout_fork_options *mine = &copy->public_part;
  const char **texts[] = {&mine->directory, &mine->model,      &mine->rank,
                          &mine->label,     &mine->transports, &mine->rdma_devices};
  enum sprout_status status = copy_list(copy, &mine->urls, mine->url_count);
  for (size_t i = 0; i < sizeof texts / sizeof texts[0] && status == SPROUT_OK; i++)
    status = copy_text(copy, texts[i]);
  if (status == SPROUT_OK) status = copy_list(copy, &mine->include, mine->include_count);
  if (status == SPROUT_OK) status = copy_list(copy, &mine->exclude, mine->exclude_count);
  if (status == SPROUT_OK) status = copy_list(copy, &mine->tensor_globs, mine->tensor_glob_count);
  if (status != SPROUT_OK || mine->tensor_count == 0) return status;
  copy->tensor_names = calloc(mine->tensor_count, sizeof *copy->tensor_names);
  status = remember(copy, copy->tensor_names);
  for (size_t i = 0; i < mine->tensor_count && status == SPROUT_OK; i++)
    copy->tensor_names[i] = mine->tensors[i].name;
  return status;
}

static void fill_defaults(struct sprout_fork_options *mine) {
  if (!mine->inflight_bytes) mine->inflight_bytes = DEFAULT_INFLIGHT_BYTES;
  if (mine->inflight_bytes < SPROUT_CHUNK_BYTES) mine->inflight_bytes = SPROUT_CHUNK_BYTES;
  if (!mine->connections) mine->connections = 1;
  if (!mine->stall_timeout_ns) mine->stall_timeout_ns = 3 * SECOND_NS;
  if (!mine->wait_ns) mine->wait_ns = 600 * SECOND_NS;
  if (!mine->rdma_connect_timeout_ns) mine->rdma_connect_timeout_ns = RDMA_CONNECT_TIMEOUT_NS;
  if (!mine->rdma_retries) mine->rdma_retries = RDMA_RETRIES;
  if (!mine->rdma_ack_timeout_ns) mine->rdma_ack_timeout_ns = RDMA_ACK_TIMEOUT_NS;
  if (!mine->progress_interval_ns) mine->progress_interval_ns = SECOND_NS / 5;
}

static bool has_null(const char *const *list, size_t count) {
  if (count > 0 && !list) return true;
  for (size_t i = 0; i < count; i++) {
    if (!list[i]) return true;
  }
  return false;
}

struct rule {
  bool broken;
  const char *message;
};

static SPROUT_MUST_CHECK enum sprout_status check(const struct sprout_fork_options *o,
                                                  struct sprout_error *error) {
  /* First and alone: the rest of another header's struct may not be there. */
  if (o->struct_bytes != sizeof *o)
    return sprout_error_set(
        error, SPROUT_INVALID, 0, NULL,
        "struct_bytes is not sizeof(struct sprout_fork_options) of this library's header");
  const struct rule rules[] = {
      {o->url_count == 0 || !o->urls, "a fork needs at least one source"},
      {o->url_count > SPROUT_MAX_SOURCES, "a fork takes at most 64 sources"},
      {o->directory && o->tensors, "a fork goes to a directory or to tensors, not to both"},
      {o->tensor_count > 0 && !o->tensors, "tensor_count is set and tensors is not"},
      {o->tensors && o->tensor_count == 0, "tensors is set and tensor_count is not"},
      {o->tensor_count > 0 && (o->include_count || o->exclude_count || o->tensor_glob_count),
       "a fork into tensors takes exactly these tensors: globs do not go with it"},
      {o->connections > MAX_CONNECTIONS, "connections is more than 16"},
      {o->rdma_retries > RDMA_RETRIES, "rdma_retries is more than 6"},
      {o->verify_only && !o->directory, "verify_only needs a directory"},
      {o->verify_only && (o->no_verify || o->dry_run || o->force),
       "verify_only does not go with no_verify, dry_run or force"},
  };
  for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
    if (rules[i].broken)
      return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "%s", rules[i].message);
  }
  if (!has_null(o->urls, o->url_count) && !has_null(o->include, o->include_count) &&
      !has_null(o->exclude, o->exclude_count) && !has_null(o->tensor_globs, o->tensor_glob_count))
    return SPROUT_OK;
  return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                          "a list of urls or globs is NULL, or has a NULL in it");
}

static SPROUT_MUST_CHECK enum sprout_status read_token(struct fork_options *copy,
                                                       struct sprout_error *error) {
  const struct sprout_fork_options *mine = &copy->public_part;
  if (mine->token_file) return auth_read_token(mine->token_file, copy->token, error);
  if (!mine->token || !mine->token[0]) return SPROUT_OK;
  enum sprout_status status = auth_check_token(mine->token, error);
  if (status != SPROUT_OK) return status;
  memcpy(copy->token, mine->token, strlen(mine->token) + 1);
  return SPROUT_OK;
}

enum sprout_status fork_options_copy(const struct sprout_fork_options *options,
                                     struct fork_options *copy_out, struct sprout_error *error) {
  memset(copy_out, 0, sizeof *copy_out);
  enum sprout_status status = check(options, error);
  if (status != SPROUT_OK) return status;
  copy_out->public_part = *options;
  status = copy_all(copy_out);
  if (status != SPROUT_OK)
    sprout_error_set(error, status, 0, NULL, "no memory for a fork's options");
  if (status == SPROUT_OK) status = read_token(copy_out, error);
  copy_out->public_part.token = copy_out->public_part.token_file = NULL;
  for (size_t i = 0; i < options->url_count && status == SPROUT_OK; i++) {
    status = url_parse(copy_out->public_part.urls[i], &copy_out->urls[i], error);
  }
  fill_defaults(&copy_out->public_part);
  if (status != SPROUT_OK) fork_options_destroy(copy_out);
  return status;
}

void fork_options_destroy(struct fork_options *options) {
  for (size_t i = 0; i < options->string_count; i++) free(options->strings[i]);
  free(options->strings);
  explicit_bzero(options->token, sizeof options->token);
  memset(options, 0, sizeof *options);
}
