/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seccomp_run deny|PROFILE.json COMMAND...: runs a command under a seccomp filter. "deny" forbids
 * the three io_uring calls with EPERM, as container runtimes' default profiles do; a file is a
 * container profile, applied as a container runtime would.
 */
#include <errno.h>
#include <jansson.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 6 };

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

/* The conditions on arguments of a rule; -1 for one that is not understood. */
static int read_conditions(const json_t *conditions, struct scmp_arg_cmp out[ARGUMENTS_MAX]) {
  size_t index;
  json_t *condition;
  json_array_foreach(conditions, index, condition) {
    const char *relation = json_string_value(json_object_get(condition, "op"));
    if (index == ARGUMENTS_MAX || !relation) return -1;
    enum scmp_compare compare = SCMP_CMP_EQ;
    if (strcmp(relation, "SCMP_CMP_MASKED_EQ") == 0)
      compare = SCMP_CMP_MASKED_EQ;
    else if (strcmp(relation, "SCMP_CMP_EQ") != 0)
      return -1;
    out[index] = (struct scmp_arg_cmp){
        .arg = (unsigned)json_integer_value(json_object_get(condition, "index")),
        .op = compare,
        .datum_a = (scmp_datum_t)json_integer_value(json_object_get(condition, "value")),
        .datum_b = (scmp_datum_t)json_integer_value(json_object_get(condition, "valueTwo")),
    };
  }
  return (int)json_array_size(conditions);
}

static int read_action(const json_t *rule, uint32_t *action_out) {
  const char *action = json_string_value(json_object_get(rule, "action"));
  if (!action) return -1;
  if (strcmp(action, "SCMP_ACT_ALLOW") == 0) {
    *action_out = SCMP_ACT_ALLOW;
    return 0;
  }
  json_int_t number = json_integer_value(json_object_get(rule, "errnoRet"));
  *action_out = SCMP_ACT_ERRNO((uint32_t)number);
  return strcmp(action, "SCMP_ACT_ERRNO") == 0 ? 0 : -1;
}

/* Names that this machine's libseccomp does not know are skipped: the profile serves newer kernels
 * as well. */
static int add_rule(scmp_filter_ctx filter, const json_t *rule) {
  struct scmp_arg_cmp conditions[ARGUMENTS_MAX];
  int condition_count = read_conditions(json_object_get(rule, "args"), conditions);
  uint32_t action;
  if (condition_count < 0 || read_action(rule, &action) != 0) return -1;
  size_t index;
  json_t *name;
  json_array_foreach(json_object_get(rule, "names"), index, name) {
    int number = seccomp_syscall_resolve_name(json_string_value(name));
    if (number == __NR_SCMP_ERROR) continue;
    int error =
        seccomp_rule_add_array(filter, action, number, (unsigned)condition_count, conditions);
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
    if (filter && add_rule(filter, rule) != 0) {
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
