/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole program, each run in a process of its own: exit codes, what goes to standard output and
 * standard error, signals.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/cli.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS_MAX 16
#define TEXT_BYTES 65536

/* A program that runs. */
struct child {
  pid_t pid;
  int out_fd, err_fd;
};

/* What it left. */
static int code;
static char out_text[TEXT_BYTES], err_text[TEXT_BYTES];

static char directory[] = "/tmp/sprout-cli-XXXXXX";
static char seed_url[64];
static struct child seed;

/* NAME=value for the next children, NULL: none */
static const char *variable;

static void enter_child(const int *out, const int *err, int argc, char **argv) {
  (void)dup2(out[1], STDOUT_FILENO);
  (void)dup2(err[1], STDERR_FILENO);
  (void)close(out[0]);
  (void)close(out[1]);
  (void)close(err[0]);
  (void)close(err[1]);
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody outlives a test that failed */
  if (variable != NULL) (void)putenv((char *)(uintptr_t)variable);
  /* Not _exit: the leak checker shall look too. */
  exit(cli_main(argc, argv));
}

/* Starts "sprout <line>"; '^' in the line is the test's directory, '@' the seed's URL. */
static struct child start(const char *line) {
  char text[2048], *argv[ARGUMENTS_MAX + 1], *place = NULL;
  size_t used = (size_t)snprintf(text, sizeof(text), "sprout ");
  for (const char *at = line; *at != '\0'; at++) {
    const char *part = *at == '^' ? directory : *at == '@' ? seed_url : NULL;
    if (part != NULL)
      used += (size_t)snprintf(text + used, sizeof(text) - used, "%s", part);
    else
      text[used++] = *at;
    text[used] = '\0';
  }
  int argc = 0, out[2], err[2];
  for (char *word = strtok_r(text, " ", &place); word != NULL; word = strtok_r(NULL, " ", &place))
    argv[argc++] = word;
  argv[argc] = NULL;
  assert_true(argc <= ARGUMENTS_MAX);
  assert_int_equal(pipe2(out, O_CLOEXEC), 0);
  assert_int_equal(pipe2(err, O_CLOEXEC), 0);
  (void)fflush(NULL);
  struct child child = {.pid = fork(), .out_fd = out[0], .err_fd = err[0]};
  assert_true(child.pid >= 0);
  if (child.pid == 0) enter_child(out, err, argc, argv);
  (void)close(out[1]);
  (void)close(err[1]);
  return child;
}

static void read_whole(int fd, char *text) {
  size_t used = 0;
  ssize_t length;
  while (used + 1 < TEXT_BYTES && (length = read(fd, text + used, TEXT_BYTES - 1 - used)) > 0)
    used += (size_t)length;
  text[used] = '\0';
  (void)close(fd);
}

/* A line of standard output, without its end; the child goes on. */
static void read_line(struct child *child, char *line, size_t room) {
  size_t used = 0;
  while (used + 1 < room && read(child->out_fd, line + used, 1) == 1 && line[used] != '\n') used++;
  line[used] = '\0';
}

/* Standard output of the programs is small and errors are few: one pipe after the other is enough.
 */
static void finish(struct child *child) {
  int status = 0;
  read_whole(child->out_fd, out_text);
  read_whole(child->err_fd, err_text);
  assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
  code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void run(const char *line) {
  struct child child = start(line);
  finish(&child);
}

#define assert_contains(text, part) assert_non_null(strstr(text, part))

/* --- without a seed --- */

static void help_and_version_go_to_standard_output(void **state) {
  (void)state;
  static const char *const lines[] = {"--help",
                                      "-h",
                                      "help",
                                      "help seed",
                                      "seed --help",
                                      "help --man",
                                      "fork -h nonsense --nonsense"};
  for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
    run(lines[i]);
    assert_int_equal(code, 0);
    assert_contains(out_text, "sprout");
    assert_string_equal(err_text, "");
  }
  run("--version");
  assert_int_equal(code, 0);
  assert_memory_equal(out_text, "sprout 0.", 9);
  run("seed --version");
  assert_memory_equal(out_text, "sprout 0.", 9);
}

static void wrong_usage_ends_with_2_and_a_hint(void **state) {
  (void)state;
  static const struct {
    const char *line, *message;
  } cases[] = {
      {"", "Usage: sprout COMMAND"},
      {"frok", "sprout: unknown command 'frok'\n  hint: Did you mean sprout fork?\n"},
      {"help frok", "sprout: unknown command 'frok'"},
      {"fork http://x ^ --max-rat 5", "  hint: Did you mean --max-rate?\n"},
      {"fork http://x ^ --max-rate 12X", "'12X' is not a rate; expected e.g. 200M, 10Gbit, 25%"},
      {"fork http://x ^ --max-rate 25%", "is a share of a network interface"},
      {"fork http://x", "an argument is missing; usage: sprout fork URL... DEST"},
      {"fork http://x http://y", "the destination is missing"},
      {"fork http://x cuda:0", "destination cuda:0: this build has no CUDA"},
      {"fork http://x ^ --transport ipc", "this build has no same-host memory"},
#ifdef SPROUT_HAVE_RDMA
      {"fork http://x ^ --gid-index 65536", "neither auto nor a number from 0 to 65535"},
      {"seed ^ --rdma-port 65536", "'65536' is not a whole number between 0 and 65535"},
#else
      {"fork http://x ^ --transport rdma", "this build has no RDMA"},
      {"seed ^ --rdma-port 7", "rdma-port"},
#endif
      {"fork http://x ^ --token hunter2", "a secret is not taken from the command line"},
      {"fork ftp://x ^", "ftp"},
      {"seed ^ --memory cuda:0", "this build has no CUDA"},
      {"seed ^ --max-forks 0", "'0' is not a whole number between 1 and 4096"},
      {"verify http://x null:", "null: keeps nothing"},
      {"synth tinny ^/none", "tinny"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    run(cases[i].line);
    if (code != 2 || strstr(err_text, cases[i].message) == NULL)
      print_error("sprout %s: %d %s\n", cases[i].line, code, err_text);
    assert_int_equal(code, 2);
    assert_contains(err_text, cases[i].message);
    assert_null(strstr(err_text, "hunter2"));
    assert_string_equal(out_text, "");
  }
}

static void errors_can_be_json(void **state) {
  (void)state;
  run("--log-format json fork http://x cuda:0");
  assert_int_equal(code, 2);
  json_t *error = json_loads(err_text, 0, NULL);
  assert_non_null(error);
  assert_string_equal(json_string_value(json_object_get(error, "type")), "error");
  assert_string_equal(json_string_value(json_object_get(error, "code")), "invalid");
  json_decref(error);
}

static void a_bad_variable_is_named(void **state) {
  (void)state;
  variable = "SPROUT_MAX_RATE=fast";
  run("fork http://x ^");
  assert_int_equal(code, 2);
  assert_contains(err_text, "SPROUT_MAX_RATE: 'fast' is not a rate");
  variable = NULL;
}

static void nobody_there_ends_with_4(void **state) {
  (void)state;
  static const char *const lines[] = {"fork http://127.0.0.1:1 ^/nobody", "ls http://127.0.0.1:1",
                                      "status http://127.0.0.1:1", "verify http://127.0.0.1:1 ^"};
  for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
    run(lines[i]);
    assert_int_equal(code, 4);
    assert_contains(err_text, "Connection refused");
  }
}

static void an_open_address_needs_a_token(void **state) {
  (void)state;
  run("seed ^/model --listen 0.0.0.0:0");
  assert_int_equal(code, 2);
  assert_contains(err_text, "--allow-anonymous");
}

static void synth_writes_once(void **state) {
  (void)state;
  run("synth tensors:200x64KiB ^/model");
  assert_int_equal(code, 6);
  assert_contains(err_text, "sprout: ");
}

/* --- with a seed --- */

static json_t *last_line_as_json(void) {
  size_t length = strlen(out_text);
  assert_true(length > 0 && out_text[length - 1] == '\n');
  out_text[length - 1] = '\0';
  const char *start_of_last = strrchr(out_text, '\n');
  json_t *object = json_loads(start_of_last != NULL ? start_of_last + 1 : out_text, 0, NULL);
  assert_non_null(object);
  return object;
}

static void forks_verify_and_repair(void **state) {
  (void)state;
  char path[256];
  run("fork @ ^/copy --progress plain");
  assert_int_equal(code, 0);
  assert_contains(out_text, "verified with XXH3-128");
  run("verify @ ^/copy");
  assert_int_equal(code, 0);
  assert_contains(out_text, "all as the seed has them");
  snprintf(path, sizeof(path), "%s/copy/config.json", directory);
  assert_int_equal(unlink(path), 0);
  snprintf(path, sizeof(path), "%s/copy/model.safetensors", directory);
  int fd = open(path, O_WRONLY);
  assert_int_equal(pwrite(fd, "damage", 6, 1000000), 6);
  (void)close(fd);
  run("verify @ ^/copy");
  assert_int_equal(code, 5);
  assert_contains(out_text, "missing  config.json");
  assert_contains(out_text, "differs  model.safetensors");
  run("fork @ ^/copy");
  assert_int_equal(code, 6);
  assert_contains(err_text, "  hint: ");
  run("fork @ ^/copy --force -q");
  assert_int_equal(code, 0);
  assert_string_equal(out_text, "");
  run("verify @ ^/copy -q");
  assert_int_equal(code, 0);
}

static void json_ends_with_a_result(void **state) {
  (void)state;
  run("fork @ null: --progress json");
  assert_int_equal(code, 0);
  json_t *result = last_line_as_json();
  assert_string_equal(json_string_value(json_object_get(result, "type")), "result");
  assert_string_equal(json_string_value(json_object_get(result, "result")), "complete");
  assert_string_equal(json_string_value(json_object_get(result, "verified")), "xxh3-128");
  assert_true(json_integer_value(json_object_get(result, "bytes")) > 200 * 65536);
  json_decref(result);
  run("fork http://127.0.0.1:1 null: --progress json");
  assert_int_equal(code, 4);
  result = last_line_as_json();
  assert_string_equal(json_string_value(json_object_get(result, "result")), "failed");
  assert_int_equal(json_integer_value(json_object_get(result, "exit_code")), 4);
  json_decref(result);
}

static void lists_and_status_are_json_on_request(void **state) {
  (void)state;
  run("ls @ --json");
  assert_int_equal(code, 0);
  json_t *list = last_line_as_json();
  assert_int_equal(json_array_size(json_object_get(list, "tensors")), 200);
  json_decref(list);
  run("ls @");
  assert_int_equal(code, 0);
  assert_contains(out_text, "model.safetensors");
  run("status @ --json");
  assert_int_equal(code, 0);
  json_t *status = last_line_as_json();
  assert_true(json_is_true(json_object_get(json_object_get(status, "status"), "ready")));
  json_decref(status);
  run("status @");
  assert_int_equal(code, 0);
  assert_contains(out_text, ", ready, ");
}

/* The fork is slow enough to be met half-way, and says when it has begun. */
static void signals_stop_a_fork_and_it_goes_on(void **state) {
  (void)state;
  static const int numbers[] = {SIGTERM, SIGINT};
  char line[4096];
  for (size_t i = 0; i < 2; i++) {
    struct child child = start("fork @ ^/part --max-rate 4M --progress json");
    do read_line(&child, line, sizeof(line));
    while (strstr(line, "\"done_bytes\":0,") != NULL || strstr(line, "progress") == NULL);
    assert_int_equal(kill(child.pid, numbers[i]), 0);
    finish(&child);
    assert_int_equal(code, 128 + numbers[i]);
    json_t *result = last_line_as_json();
    assert_string_equal(json_string_value(json_object_get(result, "result")), "cancelled");
    json_decref(result);
  }
  run("fork @ ^/part --progress json");
  assert_int_equal(code, 0);
  json_t *result = last_line_as_json();
  assert_true(json_integer_value(json_object_get(result, "reused_bytes")) > 0);
  json_decref(result);
}

static void a_wrong_token_ends_with_3(void **state) {
  (void)state;
  char line[4096], url[64];
  variable = "SPROUT_TOKEN=the-right-one";
  struct child guarded = start("seed ^/model --listen 127.0.0.1:0 --log-format json");
  read_line(&guarded, line, sizeof(line));
  json_t *ready = json_loads(line, 0, NULL);
  assert_true(json_is_true(json_object_get(ready, "token")));
  snprintf(url, sizeof(url), "%s", seed_url);
  snprintf(seed_url, sizeof(seed_url), "%s", json_string_value(json_object_get(ready, "url")));
  json_decref(ready);
  run("fork @ null:");
  assert_int_equal(code, 0);
  variable = "SPROUT_TOKEN=the-wrong-one";
  static const char *const lines[] = {"fork @ null:", "ls @", "status @", "verify @ ^/model"};
  for (size_t i = 0; i < 4; i++) {
    run(lines[i]);
    assert_int_equal(code, 3);
    assert_null(strstr(err_text, "the-wrong-one"));
  }
  variable = NULL;
  assert_int_equal(kill(guarded.pid, SIGTERM), 0);
  finish(&guarded);
  assert_int_equal(code, 0);
  assert_null(strstr(err_text, "the-right-one"));
  snprintf(seed_url, sizeof(seed_url), "%s", url);
}

/* Last: ends the seed of the others. */
static void a_drained_seed_ends_with_0(void **state) {
  (void)state;
  char path[256];
  struct stat found;
  snprintf(path, sizeof(path), "%s/ready", directory);
  assert_int_equal(stat(path, &found), 0);
  assert_int_equal(kill(seed.pid, SIGTERM), 0);
  finish(&seed);
  assert_int_equal(code, 0);
  assert_contains(out_text, "{\"type\":\"drain\"");
  assert_int_not_equal(stat(path, &found), 0);
}

/* --- set up --- */

static int start_seed(void **state) {
  (void)state;
  char line[4096];
  if (mkdtemp(directory) == NULL) return -1;
  run("synth tensors:200x64KiB ^/model");
  if (code != 0) return -1;
  seed = start("seed ^/model --listen 127.0.0.1:0 --ready-file ^/ready --log-format json");
  read_line(&seed, line, sizeof(line));
  json_t *ready = json_loads(line, 0, NULL);
  const char *url = json_string_value(json_object_get(ready, "url"));
  if (url == NULL) return -1;
  snprintf(seed_url, sizeof(seed_url), "%s", url);
  json_decref(ready);
  return 0;
}

static int clean_up(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof(command), "rm -rf %s", directory);
  return system(command);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(help_and_version_go_to_standard_output),
      cmocka_unit_test(wrong_usage_ends_with_2_and_a_hint),
      cmocka_unit_test(errors_can_be_json),
      cmocka_unit_test(a_bad_variable_is_named),
      cmocka_unit_test(nobody_there_ends_with_4),
      cmocka_unit_test(an_open_address_needs_a_token),
      cmocka_unit_test(synth_writes_once),
      cmocka_unit_test(forks_verify_and_repair),
      cmocka_unit_test(json_ends_with_a_result),
      cmocka_unit_test(lists_and_status_are_json_on_request),
      cmocka_unit_test(signals_stop_a_fork_and_it_goes_on),
      cmocka_unit_test(a_wrong_token_ends_with_3),
      cmocka_unit_test(a_drained_seed_ends_with_0),
  };
  return cmocka_run_group_tests(tests, start_seed, clean_up);
}
