/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp_run deny|PROFILE.json COMMAND...: runs a command under a seccomp filter. "deny" forbids
 * the three io_uring calls with EPERM, as container runtimes' default profiles do; a file is a
 * container profile whose allowed names are applied.
 */
#include <errno.h>
#include <jansson.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what) {
  fprintf(stderr, "seccomp_run: %s\n", what);
  return 125;
}

static int forbid_io_uring(scmp_filter_ctx filter) {
  static const char *const names[] = {"io_uring_setup", "io_uring_enter", "io_uring_register"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    int number = seccomp_syscall_resolve_name(names[i]);
    if (number == __NR_SCMP_ERROR) return -1;
    if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), number, 0) != 0) return -1;
  }
  return 0;
}

/* Names this machine's libseccomp does not know are skipped: the profile serves newer kernels as
 * well. */
static int allow_names(scmp_filter_ctx filter, const json_t *names) {
  size_t index;
  json_t *name;
  json_array_foreach(names, index, name) {
    int number = seccomp_syscall_resolve_name(json_string_value(name));
    if (number == __NR_SCMP_ERROR) continue;
    int error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
    if (error != 0 && error != -EDOM) return -1;
  }
  return 0;
}

static scmp_filter_ctx load_profile(const char *path) {
  json_error_t error;
  json_t *profile = json_load_file(path, 0, &error);
  if (!profile) return NULL;
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  size_t index;
  json_t *rule;
  json_array_foreach(json_object_get(profile, "syscalls"), index, rule) {
    const char *action = json_string_value(json_object_get(rule, "action"));
    if (!action || strcmp(action, "SCMP_ACT_ALLOW") != 0) continue;
    if (filter && allow_names(filter, json_object_get(rule, "names")) != 0) {
      seccomp_release(filter);
      filter = NULL;
    }
  }
  json_decref(profile);
  return filter;
}

int main(int argc, char **argv) {
  if (argc < 3) return fail("usage: seccomp_run deny|PROFILE.json COMMAND...");
  scmp_filter_ctx filter;
  if (strcmp(argv[1], "deny") == 0) {
    filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter || forbid_io_uring(filter) != 0) return fail("cannot build the filter");
  } else {
    filter = load_profile(argv[1]);
    if (!filter) return fail("cannot load the profile");
  }
  if (seccomp_load(filter) != 0) return fail("cannot load the filter into the kernel");
  execvp(argv[2], argv + 2);
  return fail(strerror(errno));
}
