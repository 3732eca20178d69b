/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bearer tokens: one or two at a time (rotation), from a file that is read again when it changes,
 * or given directly. Constant-time compare. Tokens never reach a log, an error or a metric; memory
 * is wiped on destruction.
 */
#ifndef NET_AUTH_H
#define NET_AUTH_H

#include "sprout/status.h"

#include <stdbool.h>

#define AUTH_TOKEN_MAX 1024

struct auth;

enum auth_verdict { AUTH_OK, AUTH_MISSING, AUTH_WRONG, AUTH_MALFORMED };

/*
 * token_file (1 or 2 non-empty lines of visible ASCII; warns when readable by others) or token;
 * both NULL: everything is allowed. A file that cannot be read or is empty is SPROUT_INVALID here;
 * later, on re-reading, the old tokens stay in force and a warning is logged.
 */
SPROUT_MUST_CHECK enum sprout_status auth_create(const char *token_file, const char *token,
                                                 struct auth **auth_out,
                                                 struct sprout_error *error);
void auth_destroy(struct auth *auth);
/* Re-reads the file when its mtime, size or inode changed (also Kubernetes' symlink swaps). Cheap;
 * call it at most once a second. */
void auth_refresh(struct auth *auth);
bool auth_required(const struct auth *auth);
/* `header`: the Authorization header's value, NULL when absent. */
enum auth_verdict auth_check(const struct auth *auth, const char *header);
/* Refuses what cannot be a token, SPROUT_INVALID: so it cannot end the header it is sent in either.
 */
SPROUT_MUST_CHECK enum sprout_status auth_check_token(const char *token,
                                                      struct sprout_error *error);
/* Reads a client's token: first line of token_file. `token_out` has AUTH_TOKEN_MAX + 1 bytes. */
SPROUT_MUST_CHECK enum sprout_status auth_read_token(const char *token_file, char *token_out,
                                                     struct sprout_error *error);
#endif
