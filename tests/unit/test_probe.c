/* SPDX-License-Identifier: Apache-2.0 */
#include "core/probe.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct row {
  const char *name;
  unsigned major, minor;
  int setup_errno, sysctl_disabled;
  bool in_sysctl_group;
  int seccomp_mode;
  const char *missing;
  enum sprout_status status;
  const char *message, *hint; /* parts of them */
};

static const struct row rows[] = {
    {"fine", 6, 1, 0, 0, false, 0, NULL, SPROUT_OK, NULL, NULL},
    {"newer", 7, 0, 0, -1, false, -1, NULL, SPROUT_OK, NULL, NULL},
    {"filtered, but not this", 6, 18, 0, 0, false, 2, NULL, SPROUT_OK, NULL, NULL},
    {"old", 5, 15, 0, -1, false, 0, NULL, SPROUT_UNSUPPORTED, "too old", "Upgrade to Linux 6.1"},
    {"a little old", 6, 0, 0, -1, false, 0, NULL, SPROUT_UNSUPPORTED, "6.1 or newer", "Upgrade"},
    {"gVisor", 4, 4, ENOSYS, -1, false, -1, NULL, SPROUT_UNSUPPORTED, "too old", "gVisor"},
    {"no uname", 0, 0, ENOSYS, -1, false, 0, NULL, SPROUT_UNSUPPORTED, "too old", "Upgrade"},
    {"not built in", 6, 1, ENOSYS, -1, false, 0, NULL, SPROUT_UNSUPPORTED, "built without",
     "CONFIG_IO_URING"},
    {"profile that says ENOSYS", 6, 1, ENOSYS, 0, false, 2, NULL, SPROUT_UNSUPPORTED, "seccomp",
     "--security-opt seccomp=deploy/seccomp.json"},
    {"default profile", 6, 1, EPERM, 0, false, 2, NULL, SPROUT_UNSUPPORTED, "seccomp",
     "--security-opt seccomp=deploy/seccomp.json"},
    {"profile that says EACCES", 6, 1, EACCES, -1, false, 2, NULL, SPROUT_UNSUPPORTED, "seccomp",
     "seccompProfile"},
    {"sysctl 2", 6, 6, EPERM, 2, true, 0, NULL, SPROUT_UNSUPPORTED, "io_uring_disabled=2",
     "sysctl -w kernel.io_uring_disabled=0"},
    {"sysctl 2 and filter", 6, 6, EPERM, 2, false, 2, NULL, SPROUT_UNSUPPORTED,
     "io_uring_disabled=2", "sysctl -w kernel.io_uring_disabled=0"},
    {"sysctl 1", 6, 6, EPERM, 1, false, 0, NULL, SPROUT_UNSUPPORTED, "io_uring_disabled=1",
     "kernel.io_uring_group=GID"},
    {"sysctl 1, in the group, filter", 6, 6, EPERM, 1, true, 2, NULL, SPROUT_UNSUPPORTED, "seccomp",
     "seccomp.json"},
    {"security module", 6, 15, EPERM, 0, false, 0, NULL, SPROUT_UNSUPPORTED, "security module",
     "audit"},
    {"memory", 6, 1, ENOMEM, 0, false, 0, NULL, SPROUT_NO_MEMORY, "no memory", "ulimit -l"},
    {"descriptors", 6, 1, EMFILE, 0, false, 0, NULL, SPROUT_LIMIT, "file descriptor", "ulimit -n"},
    {"descriptors of the machine", 6, 1, ENFILE, 0, false, 0, NULL, SPROUT_LIMIT, "machine",
     "fs.file-max"},
    {"flags", 6, 1, EINVAL, 0, false, 0, NULL, SPROUT_UNSUPPORTED, "refuses", "Upgrade"},
    {"something else", 6, 1, EFAULT, 0, false, 0, NULL, SPROUT_UNSUPPORTED, "Bad address", ""},
    {"operation missing", 6, 1, 0, 0, false, 0, "IORING_OP_SEND", SPROUT_UNSUPPORTED,
     "IORING_OP_SEND", "Upgrade"},
};

static void test_classify(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    const struct row *row = &rows[i];
    print_message("%s\n", row->name);
    struct probe_facts facts = {.release = "some-release",
                                .major = row->major,
                                .minor = row->minor,
                                .setup_errno = row->setup_errno,
                                .sysctl_disabled = row->sysctl_disabled,
                                .in_sysctl_group = row->in_sysctl_group,
                                .seccomp_mode = row->seccomp_mode,
                                .missing = row->missing};
    struct sprout_error error = {.status = SPROUT_OK};
    assert_int_equal(probe_classify(&facts, &error), row->status);
    assert_int_equal(probe_classify(&facts, NULL), row->status);
    if (row->status == SPROUT_OK) continue;
    assert_int_equal(error.status, row->status);
    assert_int_equal(error.native, row->setup_errno);
    assert_non_null(strstr(error.message, row->message));
    assert_non_null(strstr(error.hint, row->hint));
    /* Nothing was cut. */
    assert_true(strlen(error.message) + 1 < sizeof error.message);
    assert_true(strlen(error.hint) + 1 < sizeof error.hint);
  }
}

static void test_this_machine(void **state) {
  (void)state;
  struct sprout_error error;
  assert_int_equal(probe_machine(&error), SPROUT_OK);
  assert_int_equal(probe_machine(NULL), SPROUT_OK);
  assert_int_equal(probe_explain(EMFILE, &error), SPROUT_LIMIT);
  assert_int_equal(error.native, EMFILE);
}

/* ---- in a child that is restricted ---- */

/* Makes io_uring_setup fail with this code. */
static bool forbid(int code) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)code),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool no_descriptors(int code) {
  (void)code;
  struct rlimit limit = {.rlim_cur = 0, .rlim_max = 0};
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* Probes in a child after restrict(code); the error it got. False when the child could not. */
static bool probe_restricted(bool (*restrict_child)(int code), int code,
                             struct sprout_error *error_out) {
  int pipes[2];
  assert_int_equal(pipe(pipes), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct sprout_error error = {.status = SPROUT_OK};
    if (!restrict_child(code)) _exit(1);
    if (probe_machine(&error) == SPROUT_OK) _exit(2);
    _exit(write(pipes[1], &error, sizeof error) == (ssize_t)sizeof error ? 0 : 3);
  }
  close(pipes[1]);
  ssize_t got = read(pipes[0], error_out, sizeof *error_out);
  close(pipes[0]);
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 && got == (ssize_t)sizeof *error_out;
}

static void test_under_a_filter(void **state) {
  (void)state;
  static const int codes[] = {EPERM, ENOSYS, EACCES};
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    struct sprout_error error;
    assert_true(probe_restricted(forbid, codes[i], &error));
    assert_int_equal(error.status, SPROUT_UNSUPPORTED);
    assert_int_equal(error.native, codes[i]);
    assert_non_null(strstr(error.message, "seccomp filter"));
    assert_non_null(strstr(error.hint, "deploy/seccomp.json"));
  }
}

static void test_without_descriptors(void **state) {
  (void)state;
  struct sprout_error error;
  assert_true(probe_restricted(no_descriptors, 0, &error));
  assert_int_equal(error.status, SPROUT_LIMIT);
  assert_non_null(strstr(error.hint, "ulimit -n"));
}

static void test_raise_descriptors(void **state) {
  (void)state;
  struct rlimit before, after;
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  struct rlimit low = {.rlim_cur = 64, .rlim_max = before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
  assert_true(probe_raise_descriptor_limit() == before.rlim_max);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &after), 0);
  assert_true(after.rlim_cur == before.rlim_max);
  assert_true(probe_raise_descriptor_limit() == before.rlim_max);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_classify),          cmocka_unit_test(test_this_machine),
      cmocka_unit_test(test_under_a_filter),    cmocka_unit_test(test_without_descriptors),
      cmocka_unit_test(test_raise_descriptors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
