/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"
#include "cli/json_line.h"
#include "net/auth.h"

#include <errno.h>
#include <string.h>

_Static_assert(CLI_TOKEN_BYTES == AUTH_TOKEN_MAX + 1, "a token fits its buffer");

static bool errors_as_json;

void cli_set_log(const struct cli_globals *globals, enum log_level normal) {
  errors_as_json = strcmp(globals->log_format, "json") == 0;
  log_set_json(errors_as_json);
  log_set_level(globals->quiet ? LOG_ERROR : globals->verbose ? LOG_DEBUG : normal);
}

int cli_fail(const struct sprout_error *error) {
  char message[2 * sizeof(error->message)], hint[2 * sizeof(error->hint)];
  int code = sprout_status_info_of(error->status)->exit_code;
  if (errors_as_json) {
    json_line_error(stderr, error);
    return code;
  }
  const char *summary = sprout_status_info_of(error->status)->summary;
  terminal_clean(error->message[0] != '\0' ? error->message : summary, SIZE_MAX, true, message,
                 sizeof(message));
  terminal_clean(error->hint, SIZE_MAX, true, hint, sizeof(hint));
  fprintf(stderr, "sprout: %s\n", message);
  if (hint[0] != '\0') fprintf(stderr, "  hint: %s\n", hint);
  return code;
}

int cli_flush(int code) {
  struct sprout_error error;
  errno = 0;
  if (fflush(stdout) == 0 && !ferror(stdout)) return code;
  if (errno == EPIPE || errno == 0) return code;
  (void)sprout_error_set(&error, SPROUT_IO, errno, NULL, "cannot write to standard output: %s",
                         strerror(errno));
  int failed = cli_fail(&error);
  return code != 0 ? code : failed;
}

enum sprout_status cli_client_token(const struct cli_client *client, char *buffer,
                                    const char **token_out, struct sprout_error *error) {
  *token_out = client->token;
  if (client->token_file == NULL) return SPROUT_OK;
  enum sprout_status status = auth_read_token(client->token_file, buffer, error);
  if (status == SPROUT_OK) *token_out = buffer;
  return status;
}
