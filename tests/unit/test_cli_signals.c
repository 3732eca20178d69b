/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/signals.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `child` in a process of its own: signals are the whole process's. */
static int status_of(int (*child)(void)) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) _exit(child());
  int status = 0;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return status;
}

static int take_one(void) {
  struct signals signals;
  struct sprout_error error;
  if (signals_open(&signals, false, &error) != SPROUT_OK) return 1;
  if (signals_take(&signals) != 0) return 2;
  (void)raise(SIGTERM);
  struct pollfd fd = {.fd = signals.fd, .events = POLLIN};
  if (poll(&fd, 1, -1) != 1) return 3;
  if (signals_take(&signals) != SIGTERM) return 4;
  if (signals_take(&signals) != 0) return 5;
  signals_close(&signals);
  return 0;
}

static void the_first_signal_is_read(void **state) {
  (void)state;
  assert_int_equal(status_of(take_one), 0);
}

static int take_two(void) {
  struct signals signals;
  struct sprout_error error;
  if (signals_open(&signals, false, &error) != SPROUT_OK) return 1;
  signals.settle_ns = 0;
  (void)raise(SIGINT);
  if (signals_take(&signals) != SIGINT) return 2;
  signals_restore(&signals);
  (void)raise(SIGTERM);
  return 3;
}

static int take_an_echo(void) {
  struct signals signals;
  struct sprout_error error;
  if (signals_open(&signals, false, &error) != SPROUT_OK) return 1;
  signals.settle_ns = UINT64_C(3600000000000);
  (void)raise(SIGTERM);
  if (signals_take(&signals) != SIGTERM) return 2;
  (void)raise(SIGTERM); /* waits behind the mask */
  signals_restore(&signals);
  (void)raise(SIGTERM);
  return 0;
}

static void what_follows_the_first_signal_closely_is_the_same(void **state) {
  (void)state;
  assert_int_equal(status_of(take_an_echo), 0);
}

static void the_second_signal_ends_the_process_with_its_code(void **state) {
  (void)state;
  int status = status_of(take_two);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 128 + SIGTERM);
}

static int ignored_interrupt(void) {
  struct signals signals;
  struct sprout_error error;
  (void)sigaction(SIGINT, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
  if (signals_open(&signals, true, &error) != SPROUT_OK) return 1;
  (void)raise(SIGINT);
  if (signals_take(&signals) != 0) return 2;
  (void)raise(SIGHUP);
  if (signals_take(&signals) != SIGHUP) return 3;
  signals_restore(&signals);
  (void)raise(SIGINT);
  return 0;
}

static void what_was_ignored_stays_ignored(void **state) {
  (void)state;
  assert_int_equal(status_of(ignored_interrupt), 0);
}

static int hang_up(void) {
  struct signals signals;
  struct sprout_error error;
  if (signals_open(&signals, false, &error) != SPROUT_OK) return 1;
  (void)raise(SIGHUP);
  return 2;
}

static void a_hang_up_is_taken_only_on_request(void **state) {
  (void)state;
  int status = status_of(hang_up);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(WTERMSIG(status), SIGHUP);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_first_signal_is_read),
      cmocka_unit_test(the_second_signal_ends_the_process_with_its_code),
      cmocka_unit_test(what_follows_the_first_signal_closely_is_the_same),
      cmocka_unit_test(what_was_ignored_stays_ignored),
      cmocka_unit_test(a_hang_up_is_taken_only_on_request),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
