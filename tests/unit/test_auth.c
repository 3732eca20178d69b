/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/log.h"
#include "net/auth.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A directory of its own for each test. */
struct folder {
  char path[64];
  char token_file[96];
};

static int make_folder(void **state) {
  struct folder *folder = calloc(1, sizeof(*folder));
  assert_non_null(folder);
  (void)snprintf(folder->path, sizeof(folder->path), "/tmp/sprout-auth-XXXXXX");
  assert_non_null(mkdtemp(folder->path));
  (void)snprintf(folder->token_file, sizeof(folder->token_file), "%s/token", folder->path);
  *state = folder;
  return 0;
}

static int remove_folder(void **state) {
  struct folder *folder = *state;
  char path[128];
  static const char *const names[] = {"token", "other", "new", "log"};
  for (size_t i = 0; i < COUNT(names); i++) {
    (void)snprintf(path, sizeof(path), "%s/%s", folder->path, names[i]);
    (void)unlink(path);
  }
  assert_int_equal(rmdir(folder->path), 0);
  free(folder);
  return 0;
}

static void write_file(const char *path, const char *text, mode_t mode) {
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(file >= 0);
  assert_int_equal(write(file, text, strlen(text)), (ssize_t)strlen(text));
  assert_int_equal(fchmod(file, mode), 0);
  assert_int_equal(close(file), 0);
}

static struct auth *create(const char *token_file, const char *token) {
  struct auth *auth = NULL;
  struct sprout_error error = {0};
  if (auth_create(token_file, token, &auth, &error) != SPROUT_OK) fail_msg("%s", error.message);
  return auth;
}

static void without_token_everything_is_allowed(void **state) {
  (void)state;
  struct auth *auth = create(NULL, NULL);
  assert_false(auth_required(auth));
  assert_int_equal(auth_check(auth, NULL), AUTH_OK);
  assert_int_equal(auth_check(auth, "Bearer x"), AUTH_OK);
  assert_int_equal(auth_check(auth, "garbage"), AUTH_OK);
  auth_refresh(auth);
  auth_destroy(auth);
  auth_destroy(NULL);
}

static void headers_are_judged(void **state) {
  (void)state;
  static const struct {
    const char *header;
    enum auth_verdict verdict;
  } cases[] = {
      {NULL, AUTH_MISSING},
      {"Bearer s3cret", AUTH_OK},
      {"bearer s3cret", AUTH_OK},
      {"BEARER   s3cret", AUTH_OK},
      {"Bearer s3cre", AUTH_WRONG},
      {"Bearer s3crett", AUTH_WRONG},
      {"Bearer S3cret", AUTH_WRONG},
      {"Bearer x", AUTH_WRONG},
      {"", AUTH_MALFORMED},
      {"Bearer", AUTH_MALFORMED},
      {"Bearer ", AUTH_MALFORMED},
      {"Bearers3cret", AUTH_MALFORMED},
      {"Bearer\ts3cret", AUTH_MALFORMED},
      {"Bearer s3cret x", AUTH_MALFORMED},
      {"Bearer s3\x01ret", AUTH_MALFORMED},
      {"Bearer s3\xffret", AUTH_MALFORMED},
      {"Basic czNjcmV0", AUTH_MALFORMED},
      {"s3cret", AUTH_MALFORMED},
  };
  struct auth *auth = create(NULL, "s3cret");
  assert_true(auth_required(auth));
  for (size_t i = 0; i < COUNT(cases); i++)
    assert_int_equal(auth_check(auth, cases[i].header), cases[i].verdict);
  auth_destroy(auth);
}

static void the_longest_token_works(void **state) {
  (void)state;
  char token[AUTH_TOKEN_MAX + 2], header[AUTH_TOKEN_MAX + 32];
  struct auth *auth = NULL;
  memset(token, 't', sizeof(token));
  token[AUTH_TOKEN_MAX] = '\0';
  auth = create(NULL, token);
  (void)snprintf(header, sizeof(header), "Bearer %s", token);
  assert_int_equal(auth_check(auth, header), AUTH_OK);
  (void)snprintf(header, sizeof(header), "Bearer %st", token);
  assert_int_equal(auth_check(auth, header), AUTH_MALFORMED);
  header[strlen("Bearer ") + AUTH_TOKEN_MAX - 1] = '\0';
  assert_int_equal(auth_check(auth, header), AUTH_WRONG);
  auth_destroy(auth);
  token[AUTH_TOKEN_MAX] = 't';
  token[AUTH_TOKEN_MAX + 1] = '\0';
  struct sprout_error error = {0};
  assert_int_equal(auth_create(NULL, token, &auth, &error), SPROUT_INVALID);
}

static void malformed_tokens_are_refused_and_not_shown(void **state) {
  (void)state;
  static const char *const tokens[] = {"", "hush hush", "hush\n", "hush\x7f", "hush\xc3\xa4"};
  for (size_t i = 0; i < COUNT(tokens); i++) {
    struct auth *auth = NULL;
    struct sprout_error error = {0};
    assert_int_equal(auth_create(NULL, tokens[i], &auth, &error), SPROUT_INVALID);
    assert_null(auth);
    assert_null(strstr(error.message, "hush"));
    assert_null(strstr(error.hint, "hush"));
  }
}

static void files_are_read(void **state) {
  struct folder *folder = *state;
  static const struct {
    const char *text;
    const char *first, *second; /* NULL: refused, or no second token */
  } cases[] = {
      {"one", "one", NULL},
      {"one\n", "one", NULL},
      {"one\r\n", "one", NULL},
      {"\n\none\n\n", "one", NULL},
      {"one\ntwo\n", "one", "two"},
      {"one\r\n\r\ntwo", "one", "two"},
      {"", NULL, NULL},
      {"\n\r\n", NULL, NULL},
      {"one\ntwo\nthree\n", NULL, NULL},
      {"one two\n", NULL, NULL},
      {" one\n", NULL, NULL},
      {"one\rtwo\n", NULL, NULL},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    char header[64], token[AUTH_TOKEN_MAX + 1];
    struct auth *auth = NULL;
    struct sprout_error error = {0};
    write_file(folder->token_file, cases[i].text, 0600);
    enum sprout_status expected = cases[i].first ? SPROUT_OK : SPROUT_INVALID;
    assert_int_equal(auth_create(folder->token_file, "ignored", &auth, &error), expected);
    assert_int_equal(auth_read_token(folder->token_file, token, &error), expected);
    if (!cases[i].first) {
      assert_null(strstr(error.message, "one"));
      continue;
    }
    assert_string_equal(token, cases[i].first);
    assert_int_equal(auth_check(auth, "Bearer ignored"), AUTH_WRONG);
    (void)snprintf(header, sizeof(header), "Bearer %s", cases[i].first);
    assert_int_equal(auth_check(auth, header), AUTH_OK);
    (void)snprintf(header, sizeof(header), "Bearer %s", cases[i].second ? cases[i].second : "two");
    assert_int_equal(auth_check(auth, header), cases[i].second ? AUTH_OK : AUTH_WRONG);
    auth_destroy(auth);
  }
}

static void unusable_files_are_named(void **state) {
  struct folder *folder = *state;
  struct auth *auth = NULL;
  struct sprout_error error = {0};
  assert_int_equal(auth_create(folder->token_file, NULL, &auth, &error), SPROUT_INVALID);
  assert_int_equal(error.native, ENOENT);
  assert_non_null(strstr(error.message, folder->token_file));
  assert_int_equal(auth_create(folder->path, NULL, &auth, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.message, "not a file"));
  char *large = malloc(1 << 16);
  assert_non_null(large);
  memset(large, '\n', (1 << 16) - 1);
  large[(1 << 16) - 1] = '\0';
  write_file(folder->token_file, large, 0600);
  free(large);
  assert_int_equal(auth_create(folder->token_file, NULL, &auth, &error), SPROUT_INVALID);
  assert_non_null(strstr(error.message, "too long"));
}

static void rotation_is_noticed(void **state) {
  struct folder *folder = *state;
  char other[128];
  (void)snprintf(other, sizeof(other), "%s/other", folder->path);
  write_file(folder->token_file, "old\n", 0600);
  struct auth *auth = create(folder->token_file, NULL);

  write_file(folder->token_file, "new\nold\n", 0600);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer old"), AUTH_OK);
  assert_int_equal(auth_check(auth, "Bearer new"), AUTH_OK);

  /* Another file under the same name, of the same size and time. */
  struct stat before;
  assert_int_equal(stat(folder->token_file, &before), 0);
  write_file(other, "New\nOld\n", 0600);
  struct timespec times[2] = {before.st_atim, before.st_mtim};
  assert_int_equal(utimensat(AT_FDCWD, other, times, 0), 0);
  assert_int_equal(rename(other, folder->token_file), 0);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer old"), AUTH_WRONG);
  assert_int_equal(auth_check(auth, "Bearer New"), AUTH_OK);

  /* A link that is pointed elsewhere, as Kubernetes does. */
  write_file(other, "third\n", 0600);
  assert_int_equal(unlink(folder->token_file), 0);
  assert_int_equal(symlink("other", folder->token_file), 0);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer third"), AUTH_OK);
  assert_int_equal(auth_check(auth, "Bearer New"), AUTH_WRONG);
  auth_destroy(auth);
}

static void old_tokens_stay_while_the_file_is_unusable(void **state) {
  struct folder *folder = *state;
  write_file(folder->token_file, "old\n", 0600);
  struct auth *auth = create(folder->token_file, NULL);
  static const char *const bad[] = {"", "a b\n", "a\nb\nc\n"};
  for (size_t i = 0; i < COUNT(bad); i++) {
    write_file(folder->token_file, bad[i], 0600);
    auth_refresh(auth);
    assert_int_equal(auth_check(auth, "Bearer old"), AUTH_OK);
  }
  assert_int_equal(unlink(folder->token_file), 0);
  auth_refresh(auth);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer old"), AUTH_OK);
  /* A pipe that nobody writes to must not block. */
  assert_int_equal(mkfifo(folder->token_file, 0600), 0);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer old"), AUTH_OK);
  assert_int_equal(unlink(folder->token_file), 0);
  write_file(folder->token_file, "new\n", 0600);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer old"), AUTH_WRONG);
  assert_int_equal(auth_check(auth, "Bearer new"), AUTH_OK);
  auth_destroy(auth);
}

static void a_pipe_is_read_once(void **state) {
  (void)state;
  int ends[2];
  char path[64];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  assert_int_equal(write(ends[1], "piped\n", 6), 6);
  assert_int_equal(close(ends[1]), 0);
  (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
  struct auth *auth = create(path, NULL);
  assert_int_equal(close(ends[0]), 0);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer piped"), AUTH_OK);
  auth_destroy(auth);
}

static void memory_may_run_out(void **state) {
  struct folder *folder = *state;
  if (!memory_can_fail()) skip();
  write_file(folder->token_file, "one\n", 0600);
  enum sprout_status status = SPROUT_NO_MEMORY;
  for (long count = 0; status != SPROUT_OK; count++) {
    struct auth *auth = NULL;
    struct sprout_error error = {0};
    memory_fail_after(count);
    status = auth_create(folder->token_file, NULL, &auth, &error);
    assert_int_equal(memory_restore(), status == SPROUT_NO_MEMORY);
    auth_destroy(auth);
  }
}

/* What a step of the test wrote to the log. */
static void capture_log(struct folder *folder, void (*step)(struct folder *folder), char *text,
                        size_t capacity) {
  char path[128];
  (void)snprintf(path, sizeof(path), "%s/log", folder->path);
  (void)fflush(stderr);
  int kept = dup(STDERR_FILENO);
  int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(kept >= 0 && file >= 0);
  assert_int_equal(dup2(file, STDERR_FILENO), STDERR_FILENO);
  log_set_level(LOG_DEBUG);
  step(folder);
  log_set_level((enum log_level)(LOG_ERROR - 1));
  assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
  ssize_t length = pread(file, text, capacity - 1, 0);
  assert_true(length >= 0);
  text[length] = '\0';
  assert_int_equal(close(kept), 0);
  assert_int_equal(close(file), 0);
}

static void open_then_break(struct folder *folder) {
  write_file(folder->token_file, "hush-hush\n", 0644);
  struct auth *auth = create(folder->token_file, NULL);
  write_file(folder->token_file, "hush hush hush\n", 0600);
  auth_refresh(auth);
  auth_refresh(auth);
  assert_int_equal(auth_check(auth, "Bearer hush-wrong"), AUTH_WRONG);
  auth_destroy(auth);
}

static void the_log_warns_once_and_never_shows_a_token(void **state) {
  struct folder *folder = *state;
  char text[4096];
  capture_log(folder, open_then_break, text, sizeof(text));
  assert_non_null(strstr(text, "every user"));
  const char *stay = strstr(text, "stay in force");
  assert_non_null(stay);
  assert_null(strstr(stay + 1, "stay in force"));
  assert_null(strstr(text, "hush"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(without_token_everything_is_allowed),
      cmocka_unit_test(headers_are_judged),
      cmocka_unit_test(the_longest_token_works),
      cmocka_unit_test(malformed_tokens_are_refused_and_not_shown),
      cmocka_unit_test_setup_teardown(files_are_read, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(unusable_files_are_named, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(rotation_is_noticed, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(old_tokens_stay_while_the_file_is_unusable, make_folder,
                                      remove_folder),
      cmocka_unit_test(a_pipe_is_read_once),
      cmocka_unit_test_setup_teardown(memory_may_run_out, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(the_log_warns_once_and_never_shows_a_token, make_folder,
                                      remove_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
