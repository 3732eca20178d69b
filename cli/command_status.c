/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout status URL
 */
#include "cli/cli.h"
#include "cli/json_status.h"
#include "sprout/sprout.h"

#include <poll.h>
#include <stdlib.h>

static enum sprout_status print(const struct status_values *values, const char *status_text,
                                const char *forks_text, const struct terminal *terminal,
                                struct sprout_error *error) {
  if (values->json) return json_status_merge(stdout, status_text, forks_text, error);
  /* Home, and erase what is below: the page is redrawn without flicker. */
  if (values->watch && terminal->interactive) printf("\x1b[H\x1b[J");
  return json_status_print(stdout, status_text, forks_text, terminal, error);
}

static enum sprout_status ask_once(const struct status_values *values, const char *url,
                                   const struct sprout_fetch_options *options,
                                   const struct terminal *terminal, struct sprout_error *error) {
  char *status_text = NULL, *forks_text = NULL;
  enum sprout_status status = sprout_json_fetch(url, "/v1/status", options, &status_text, error);
  if (status == SPROUT_OK)
    status = sprout_json_fetch(url, "/v1/forks", options, &forks_text, error);
  if (status == SPROUT_OK) status = print(values, status_text, forks_text, terminal, error);
  sprout_json_free(status_text);
  sprout_json_free(forks_text);
  return status;
}

int command_status(const struct cli_call *call) {
  const struct status_values *values = call->values;
  struct sprout_error error = {.status = SPROUT_OK};
  char token_text[CLI_TOKEN_BYTES];
  struct sprout_fetch_options options = {.timeout_ns = values->timeout_ns};
  struct terminal terminal = terminal_of(1, getenv);
  cli_set_log(&values->globals, LOG_WARNING);
  if (sprout_probe(&error) != SPROUT_OK ||
      cli_client_token(&values->client, token_text, &options.token, &error) != SPROUT_OK)
    return cli_fail(&error);
  bool again = false;
  do {
    /* Signals have their default action here: one between two questions ends the program. */
    if (again) (void)poll(NULL, 0, (int)(values->interval_ns / 1000000));
    if (again && !values->json && !terminal.interactive) printf("\n");
    if (ask_once(values, call->arguments[0], &options, &terminal, &error) != SPROUT_OK)
      return cli_fail(&error);
    again = true;
  } while (values->watch && fflush(stdout) == 0);
  return cli_flush(0);
}
