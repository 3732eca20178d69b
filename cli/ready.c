/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/ready.h"

#include "cli/json_line.h"
#include "core/units.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* What the seed says of itself. */
struct facts {
  struct sprout_seed_status status;
  char url[96], admin_url[96];
  struct json_ready ready;
};

/* http://0.0.0.0 is no URL that anybody can use, but it is what was asked for. */
static void gather(const struct seed_values *values, struct sprout_seed *seed,
                   struct facts *facts) {
  sprout_seed_status(seed, &facts->status);
  snprintf(facts->url, sizeof(facts->url), "http://%s", facts->status.listen);
  snprintf(facts->admin_url, sizeof(facts->admin_url), "http://%s", facts->status.admin_listen);
  facts->ready = (struct json_ready){
      .url = facts->url,
      .admin_url = facts->status.admin_listen[0] != '\0' ? facts->admin_url : NULL,
      .model = facts->status.model,
      .id = facts->status.manifest_id,
      .files = facts->status.file_count,
      .objects = facts->status.object_count,
      .bytes = facts->status.total_bytes,
      .token = values->token_file != NULL || values->token != NULL,
  };
}

static void print_for_people(const struct facts *facts) {
  char size[32];
  printf("ready: %s, %u files, %u objects, %s\n", facts->ready.model, facts->ready.files,
         facts->ready.objects, units_format_size(facts->ready.bytes, size, sizeof(size)));
  printf("  fork with: sprout fork %s DEST%s\n", facts->url,
         facts->ready.token ? " --token-file FILE" : "");
  if (facts->ready.admin_url != NULL) printf("  probes and metrics: %s\n", facts->admin_url);
  (void)fflush(stdout);
}

/* A new file beside the final name, then renamed over it: a reader sees nothing or everything. */
static enum sprout_status write_file(const char *path, const struct json_ready *ready,
                                     struct sprout_error *error) {
  char temporary[4096];
  int length = snprintf(temporary, sizeof(temporary), "%s.%d.tmp", path, (int)getpid());
  if (length < 0 || (size_t)length >= sizeof(temporary))
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "--ready-file: the path is too long");
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
  bool ok = out != NULL;
  if (ok) json_line_ready(out, ready);
  if (ok) ok = !ferror(out);
  if (out != NULL) ok = fclose(out) == 0 && ok;
  if (ok) ok = rename(temporary, path) == 0;
  if (ok) return SPROUT_OK;
  int native = errno;
  (void)unlink(temporary);
  return sprout_error_set(error, SPROUT_IO, native, NULL, "cannot write --ready-file %.200s: %s",
                          path, strerror(native));
}

enum sprout_status ready_announce(const struct seed_values *values, struct sprout_seed *seed,
                                  bool *written_out, struct sprout_error *error) {
  struct facts facts;
  gather(values, seed, &facts);
  if (values->ready_file != NULL) {
    enum sprout_status status = write_file(values->ready_file, &facts.ready, error);
    if (status != SPROUT_OK) return status;
    *written_out = true;
  }
  if (strcmp(values->globals.log_format, "json") == 0)
    json_line_ready(stdout, &facts.ready);
  else if (!values->globals.quiet)
    print_for_people(&facts);
  return SPROUT_OK;
}
