/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout verify URL DEST
 *
 * The library compares what has chunks. An empty file has none, so these are looked at here.
 */
#include "cli/cli.h"
#include "cli/fork_run.h"
#include "cli/json_line.h"
#include "cli/parts.h"
#include "cli/progress_layout.h"
#include "core/units.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file that is not as the seed has it. */
struct difference {
  char *file;
  uint64_t wrong_bytes, missing_bytes;
};

struct verify_call {
  const struct verify_values *values;
  const char *directory;
  struct sprout_manifest *manifest;
  enum progress_mode mode;
  int exit_code;

  pthread_mutex_t lock; /* the list grows on the service's thread */
  struct difference *differences;
  size_t count, capacity;
  bool out_of_memory;
};

/* --- the list --- */

static void add_difference(struct verify_call *verify, const char *file, uint64_t wrong_bytes,
                           uint64_t missing_bytes) {
  pthread_mutex_lock(&verify->lock);
  char *copy = strdup(file);
  if (verify->count == verify->capacity && copy != NULL) {
    size_t capacity = verify->capacity > 0 ? 2 * verify->capacity : 32;
    struct difference *larger =
        reallocarray(verify->differences, capacity, sizeof(verify->differences[0]));
    if (larger != NULL) {
      verify->differences = larger;
      verify->capacity = capacity;
    }
  }
  if (copy != NULL && verify->count < verify->capacity)
    verify->differences[verify->count++] = (struct difference){copy, wrong_bytes, missing_bytes};
  else {
    free(copy);
    verify->out_of_memory = true;
  }
  pthread_mutex_unlock(&verify->lock);
}

static void on_differs(void *context, const char *file, uint64_t wrong_bytes,
                       uint64_t missing_bytes) {
  add_difference(fork_run_context(context), file, wrong_bytes, missing_bytes);
}

/* Empty files of the manifest that are absent, or not empty, in the directory. */
static void check_empty_files(struct verify_call *verify) {
  struct sprout_manifest_info info;
  sprout_manifest_info(verify->manifest, &info);
  int directory = open(verify->directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
  for (uint32_t i = 0; i < info.file_count; i++) {
    struct sprout_file_info file;
    struct stat found;
    if (sprout_manifest_file(verify->manifest, i, &file) != SPROUT_OK || file.length_bytes > 0)
      continue;
    bool there = directory >= 0 && fstatat(directory, file.path, &found, 0) == 0;
    if (!there || !S_ISREG(found.st_mode) || found.st_size != 0)
      add_difference(verify, file.path, there ? (uint64_t)found.st_size : 0, 0);
  }
  if (directory >= 0) (void)close(directory);
}

/* --- what is said --- */

static void print_difference(const struct verify_call *verify,
                             const struct difference *difference) {
  char name[4200], wrong[32], missing[32];
  if (verify->mode == PROGRESS_JSON) {
    json_line_differs(stdout, difference->file, difference->wrong_bytes, difference->missing_bytes);
    return;
  }
  terminal_clean(difference->file, SIZE_MAX, true, name, sizeof(name));
  units_format_size(difference->wrong_bytes, wrong, sizeof(wrong));
  units_format_size(difference->missing_bytes, missing, sizeof(missing));
  if (difference->wrong_bytes == 0 && difference->missing_bytes == 0)
    printf("missing  %s\n", name);
  else if (difference->wrong_bytes == 0)
    printf("missing  %s: %s\n", name, missing);
  else if (difference->missing_bytes == 0)
    printf("differs  %s: %s\n", name, wrong);
  else
    printf("differs  %s: %s, and %s missing\n", name, wrong, missing);
}

static void print_right(const struct verify_call *verify, const struct fork_ending *ending) {
  struct sprout_manifest_info info;
  char size[32], duration[32];
  sprout_manifest_info(verify->manifest, &info);
  printf(
      "verified %u files, %s, in %s: all as the seed has them\n", info.file_count,
      units_format_size(ending->last->total_bytes, size, sizeof(size)),
      units_format_duration((uint64_t)(ending->result->seconds * 1e9), duration, sizeof(duration)));
}

static void say(struct verify_call *verify, const struct fork_ending *ending,
                const struct sprout_fork_result *result) {
  for (size_t i = 0; i < verify->count; i++) print_difference(verify, &verify->differences[i]);
  (void)fflush(stdout); /* the list stands before the error */
  if (verify->mode == PROGRESS_JSON)
    json_line_result(stdout, &(struct json_result){.result = result,
                                                   .last = ending->last,
                                                   .exit_code = verify->exit_code});
  if (result->status != SPROUT_OK && ending->signal == 0) (void)cli_fail(&result->error);
  if (result->status == SPROUT_OK && verify->mode != PROGRESS_JSON &&
      !verify->values->globals.quiet)
    print_right(verify, ending);
}

static void on_ended(void *context, const struct fork_ending *ending) {
  struct verify_call *verify = context;
  struct sprout_fork_result result = *ending->result;
  size_t before = verify->count;
  verify->exit_code = ending->exit_code;
  if (result.status == SPROUT_OK || result.status == SPROUT_MISMATCH) check_empty_files(verify);
  if (result.status == SPROUT_OK && verify->count > before) {
    result.status = sprout_error_set(&result.error, SPROUT_MISMATCH, 0, NULL,
                                     "%zu file%s not as the seed has them", verify->count,
                                     verify->count == 1 ? " is" : "s are");
    verify->exit_code = sprout_status_info_of(result.status)->exit_code;
  }
  if (verify->out_of_memory) fputs("sprout: out of memory: not every file is listed\n", stderr);
  say(verify, ending, &result);
}

static int run(struct verify_call *verify, const struct cli_call *call, const char *token) {
  const struct verify_values *values = verify->values;
  struct terminal terminal = terminal_of(2, getenv);
  struct reporter reporter;
  struct sprout_fork_options options = {
      .struct_bytes = sizeof(options),
      .urls = call->arguments,
      .url_count = 1,
      .directory = verify->directory,
      .verify_only = true,
      .model = values->model,
      .rank = values->rank,
      .token = token,
      .timeout_ns = values->timeout_ns,
      .differs = on_differs,
  };
  verify->mode = progress_mode_of(values->progress, values->globals.quiet, &terminal);
  reporter_init(&reporter, verify->mode, &terminal, verify->mode == PROGRESS_JSON ? stdout : stderr,
                "verifying");
  (void)fork_run(&options, &reporter, on_ended, verify);
  for (size_t i = 0; i < verify->count; i++) free(verify->differences[i].file);
  free(verify->differences);
  return verify->exit_code;
}

int command_verify(const struct cli_call *call) {
  struct verify_call verify = {.values = call->values, .lock = PTHREAD_MUTEX_INITIALIZER};
  struct sprout_error error = {.status = SPROUT_OK};
  char token_text[CLI_TOKEN_BYTES];
  struct sprout_fetch_options fetch = {.timeout_ns = 0};
  cli_set_log(&verify.values->globals, LOG_ERROR);
  if (parts_parse_destination(call->arguments[1], &verify.directory, &error) != SPROUT_OK)
    return cli_fail(&error);
  if (verify.directory == NULL) {
    (void)sprout_error_set(&error, SPROUT_INVALID, 0, NULL,
                           "null: keeps nothing that could be verified; expected a directory");
    return cli_fail(&error);
  }
  if (sprout_probe(&error) != SPROUT_OK ||
      cli_client_token(&verify.values->client, token_text, &fetch.token, &error) != SPROUT_OK ||
      sprout_manifest_fetch(call->arguments[0], &fetch, &verify.manifest, &error) != SPROUT_OK)
    return cli_fail(&error);
  int code = run(&verify, call, fetch.token);
  sprout_manifest_destroy(verify.manifest);
  return cli_flush(code);
}
