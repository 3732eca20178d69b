/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A secret and a guess are compared as two padded buffers of the same fixed size, so that the time
 * tells neither where they differ nor how long the secret is.
 */
#include "net/auth.h"

#include "core/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define AUTH_TOKENS 2
/* Two tokens with their line ends, and room to notice that there is more. */
#define AUTH_FILE_BYTES (AUTH_TOKENS * (AUTH_TOKEN_MAX + 2) + 64)

static_assert(AUTH_TOKEN_MAX % 8 == 0, "tokens are compared in words");

struct token {
  char text[AUTH_TOKEN_MAX + 8]; /* zero-padded to whole words */
};

struct tokens {
  struct token values[AUTH_TOKENS];
  unsigned count;
};

/* What identifies one state of the file. */
struct file_mark {
  dev_t device;
  ino_t inode;
  off_t size_bytes;
  struct timespec modified, changed;
};

struct auth {
  struct tokens tokens;
  char *path; /* NULL: not from a file */
  struct file_mark mark;
  bool warned; /* about the present state of the file */
};

static bool token_ok(const char *text, size_t length) {
  if (length == 0 || length > AUTH_TOKEN_MAX) return false;
  for (size_t i = 0; i < length; i++) {
    if (text[i] <= 0x20 || text[i] >= 0x7f) return false;
  }
  return true;
}

/* Messages never quote what they complain about. */
static enum sprout_status refuse_token(struct sprout_error *error, const char *where) {
  return sprout_error_set(error, SPROUT_INVALID, 0,
                          "A token is 1 to 1024 visible ASCII characters without blanks.",
                          "the token %s is malformed", where);
}

/* Cuts text into lines ("\n" or "\r\n"); empty ones do not count. */
static enum sprout_status split_tokens(const char *text, size_t length, struct tokens *tokens_out,
                                       struct sprout_error *error) {
  tokens_out->count = 0;
  for (const char *at = text, *end = text + length; at < end;) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    size_t line = (size_t)((newline ? newline : end) - at);
    size_t bytes = line && at[line - 1] == '\r' ? line - 1 : line;
    if (bytes) {
      if (tokens_out->count == AUTH_TOKENS)
        return sprout_error_set(error, SPROUT_INVALID, 0, "Keep the current and the next token.",
                                "the token file has more than %d lines", AUTH_TOKENS);
      if (!token_ok(at, bytes)) return refuse_token(error, "in the token file");
      memcpy(tokens_out->values[tokens_out->count++].text, at, bytes);
    }
    at += line + (newline != NULL);
  }
  if (tokens_out->count == 0)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Write the token into its first line.",
                            "the token file is empty");
  return SPROUT_OK;
}

static struct file_mark mark_of(const struct stat *state) {
  return (struct file_mark){state->st_dev, state->st_ino, state->st_size, state->st_mtim,
                            state->st_ctim};
}

static bool same_time(struct timespec a, struct timespec b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_mark(const struct file_mark *a, const struct file_mark *b) {
  return a->device == b->device && a->inode == b->inode && a->size_bytes == b->size_bytes &&
         same_time(a->modified, b->modified) && same_time(a->changed, b->changed);
}

/* Reads up to `capacity` bytes; -1 with errno. */
static ssize_t read_all(int file, char *buffer, size_t capacity) {
  size_t used = 0;
  while (used < capacity) {
    ssize_t got = read(file, buffer + used, capacity - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    used += (size_t)got;
  }
  return (ssize_t)used;
}

static enum sprout_status refuse_file(struct sprout_error *error, int native, const char *path,
                                      const char *what) {
  return sprout_error_set(error, SPROUT_INVALID, native,
                          "Name a readable file with one or two lines, a token each.",
                          "cannot use token file %.256s: %s", path, what);
}

/* Reads an open token file. tokens_out is zeroed; it must be wiped by the caller also on failure.
 */
static enum sprout_status read_open(int file, const char *path, struct tokens *tokens_out,
                                    struct stat *state_out, struct sprout_error *error) {
  char text[AUTH_FILE_BYTES];
  if (fstat(file, state_out) != 0) return refuse_file(error, errno, path, strerror(errno));
  if (!S_ISREG(state_out->st_mode) && !S_ISFIFO(state_out->st_mode))
    return refuse_file(error, 0, path, "not a file");
  ssize_t length = read_all(file, text, sizeof(text));
  enum sprout_status status;
  if (length < 0) {
    status = refuse_file(error, errno, path, strerror(errno));
  } else if ((size_t)length == sizeof(text)) {
    status = refuse_file(error, 0, path, "too long");
  } else {
    status = split_tokens(text, (size_t)length, tokens_out, error);
  }
  explicit_bzero(text, sizeof(text));
  return status;
}

static enum sprout_status read_file(const char *path, int flags, struct tokens *tokens_out,
                                    struct stat *state_out, struct sprout_error *error) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | flags);
  if (file < 0) return refuse_file(error, errno, path, strerror(errno));
  enum sprout_status status = read_open(file, path, tokens_out, state_out, error);
  (void)close(file);
  return status;
}

static void warn_if_open(const char *path, const struct stat *state) {
  if (S_ISREG(state->st_mode) && (state->st_mode & S_IRWXO))
    log_write(LOG_WARNING, "auth", "token file %s can be read by every user: chmod o= it", path);
}

/* A pipe (say a shell's "<(...)") gives its tokens once and is not read again. */
static void watch_file(struct auth *auth, const struct stat *state) {
  auth->mark = mark_of(state);
  warn_if_open(auth->path, state);
  if (!S_ISREG(state->st_mode)) {
    free(auth->path);
    auth->path = NULL;
  }
}

enum sprout_status auth_create(const char *token_file, const char *token, struct auth **auth_out,
                               struct sprout_error *error) {
  struct stat state;
  struct auth *auth = calloc(1, sizeof(*auth));
  if (!auth) return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory");
  enum sprout_status status = SPROUT_OK;
  if (token_file) {
    auth->path = strdup(token_file);
    status = auth->path ? read_file(token_file, 0, &auth->tokens, &state, error)
                        : sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory");
    if (status == SPROUT_OK) watch_file(auth, &state);
  } else if (token) {
    size_t length = strlen(token);
    if (token_ok(token, length)) {
      memcpy(auth->tokens.values[0].text, token, length);
      auth->tokens.count = 1;
    } else {
      status = refuse_token(error, "given");
    }
  }
  if (status != SPROUT_OK) {
    auth_destroy(auth);
    return status;
  }
  *auth_out = auth;
  return SPROUT_OK;
}

void auth_destroy(struct auth *auth) {
  if (!auth) return;
  free(auth->path);
  explicit_bzero(auth, sizeof(*auth));
  free(auth);
}

/* The file cannot be used now: says so once per state of it. */
static void keep_old(struct auth *auth, const struct file_mark *mark,
                     const struct sprout_error *error) {
  if (auth->warned && same_mark(mark, &auth->mark)) return;
  auth->warned = true;
  auth->mark = *mark;
  log_write(LOG_WARNING, "auth", "%s; the old tokens stay in force", error->message);
}

void auth_refresh(struct auth *auth) {
  struct stat state;
  struct tokens fresh = {0};
  struct sprout_error error = {0};
  struct file_mark mark = {0};
  if (!auth->path) return;
  if (stat(auth->path, &state) == 0) {
    mark = mark_of(&state);
    if (same_mark(&mark, &auth->mark)) return;
  }
  /* Another program's pipe under this name must not block the caller. */
  if (read_file(auth->path, O_NONBLOCK, &fresh, &state, &error) == SPROUT_OK) {
    auth->tokens = fresh;
    auth->mark = mark_of(&state);
    auth->warned = false;
    warn_if_open(auth->path, &state);
    log_write(LOG_INFO, "auth", "token file %s was read again: %u in force", auth->path,
              fresh.count);
  } else {
    keep_old(auth, &mark, &error);
  }
  explicit_bzero(&fresh, sizeof(fresh));
}

bool auth_required(const struct auth *auth) {
  return auth->tokens.count > 0;
}

/* All bytes are looked at, whatever they are; the compiler may not know when it could stop. */
static bool differs(const struct token *a, const struct token *b) {
  uint64_t difference = 0;
  for (size_t i = 0; i < sizeof(a->text); i += sizeof(uint64_t)) {
    uint64_t x, y;
    memcpy(&x, a->text + i, sizeof(x));
    memcpy(&y, b->text + i, sizeof(y));
    difference |= x ^ y;
    __asm__ volatile("" : "+r"(difference));
  }
  return difference != 0;
}

enum auth_verdict auth_check(const struct auth *auth, const char *header) {
  static const char scheme[] = "Bearer";
  const size_t scheme_bytes = sizeof(scheme) - 1;
  struct token guess = {{0}};
  if (!auth_required(auth)) return AUTH_OK;
  if (!header) return AUTH_MISSING;
  if (strncasecmp(header, scheme, scheme_bytes) != 0 || header[scheme_bytes] != ' ')
    return AUTH_MALFORMED;
  const char *text = header + scheme_bytes;
  while (*text == ' ') text++;
  size_t length = strlen(text);
  if (!token_ok(text, length)) return AUTH_MALFORMED;
  memcpy(guess.text, text, length);
  unsigned right = 0;
  for (unsigned i = 0; i < auth->tokens.count; i++)
    right |= !differs(&guess, &auth->tokens.values[i]);
  explicit_bzero(&guess, sizeof(guess));
  return right ? AUTH_OK : AUTH_WRONG;
}

enum sprout_status auth_check_token(const char *token, struct sprout_error *error) {
  bool ok = token_ok(token, strnlen(token, AUTH_TOKEN_MAX + 1));
  return ok ? SPROUT_OK : refuse_token(error, "given");
}

enum sprout_status auth_read_token(const char *token_file, char *token_out,
                                   struct sprout_error *error) {
  struct stat state;
  struct tokens tokens = {0};
  enum sprout_status status = read_file(token_file, 0, &tokens, &state, error);
  if (status == SPROUT_OK) {
    warn_if_open(token_file, &state);
    memcpy(token_out, tokens.values[0].text, AUTH_TOKEN_MAX + 1);
  }
  explicit_bzero(&tokens, sizeof(tokens));
  return status;
}
