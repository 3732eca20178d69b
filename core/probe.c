/* SPDX-License-Identifier: Apache-2.0 */
#include "core/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

/* ---- judging ---- */

static enum sprout_status explain_old_kernel(const struct probe_facts *facts,
                                             struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_UNSUPPORTED, facts->setup_errno,
                          "Upgrade to Linux 6.1 or newer (uname -r); sandboxes with a kernel of "
                          "their own, like gVisor, cannot run sprout.",
                          "kernel %s is too old: sprout needs Linux %d.%d or newer", facts->release,
                          PROBE_KERNEL_MAJOR, PROBE_KERNEL_MINOR);
}

static enum sprout_status explain_seccomp(const struct probe_facts *facts,
                                          struct sprout_error *error) {
  return sprout_error_set(
      error, SPROUT_UNSUPPORTED, facts->setup_errno,
      "Allow it: docker or podman run --security-opt seccomp=deploy/seccomp.json; Kubernetes: "
      "securityContext.seccompProfile of type Localhost with that file; systemd: "
      "SystemCallFilter=io_uring_setup io_uring_enter io_uring_register",
      "a seccomp filter of this process forbids io_uring, as default container profiles do");
}

static enum sprout_status explain_sysctl(const struct probe_facts *facts,
                                         struct sprout_error *error) {
  if (facts->sysctl_disabled == 1)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, facts->setup_errno,
                            "On the host: sysctl -w kernel.io_uring_disabled=0, or sysctl -w "
                            "kernel.io_uring_group=GID with a group of this user.",
                            "the sysctl kernel.io_uring_disabled=1 forbids io_uring to processes "
                            "outside kernel.io_uring_group");
  return sprout_error_set(error, SPROUT_UNSUPPORTED, facts->setup_errno,
                          "On the host: sysctl -w kernel.io_uring_disabled=0",
                          "the sysctl kernel.io_uring_disabled=%d forbids io_uring to everybody",
                          facts->sysctl_disabled);
}

static enum sprout_status explain_denied(const struct probe_facts *facts,
                                         struct sprout_error *error) {
  if (facts->sysctl_disabled >= 2 || (facts->sysctl_disabled == 1 && !facts->in_sysctl_group))
    return explain_sysctl(facts, error);
  if (facts->seccomp_mode > 0) return explain_seccomp(facts, error);
  return sprout_error_set(error, SPROUT_UNSUPPORTED, facts->setup_errno,
                          "Look for its denial in the audit log (ausearch -m avc, journalctl -k) "
                          "and allow io_uring to this program.",
                          "a security module of the kernel (SELinux, AppArmor, ...) forbids "
                          "io_uring: neither sysctl nor seccomp does");
}

static enum sprout_status explain_absent(const struct probe_facts *facts,
                                         struct sprout_error *error) {
  /* Some profiles answer as if the system call did not exist. */
  if (facts->seccomp_mode > 0) return explain_seccomp(facts, error);
  return sprout_error_set(error, SPROUT_UNSUPPORTED, facts->setup_errno,
                          "Use a kernel built with CONFIG_IO_URING=y.",
                          "kernel %s was built without io_uring", facts->release);
}

static enum sprout_status explain_setup(const struct probe_facts *facts,
                                        struct sprout_error *error) {
  int code = facts->setup_errno;
  switch (code) {
  case ENOSYS: return explain_absent(facts, error);
  case EPERM:
  case EACCES: return explain_denied(facts, error);
  case ENOMEM:
    return sprout_error_set(error, SPROUT_NO_MEMORY, code,
                            "Raise the memory limit of the container or unit, or the locked-memory "
                            "limit (ulimit -l unlimited; LimitMEMLOCK=infinity).",
                            "the kernel has no memory for a ring");
  case EMFILE:
    return sprout_error_set(error, SPROUT_LIMIT, code,
                            "Raise the limit: ulimit -n 65536, or LimitNOFILE=65536 in the unit.",
                            "this process has no file descriptor left for a ring");
  case ENFILE:
    return sprout_error_set(error, SPROUT_LIMIT, code,
                            "Raise it on the host: sysctl -w fs.file-max=1000000",
                            "this machine has no file descriptor left for a ring");
  case EINVAL:
    return sprout_error_set(error, SPROUT_UNSUPPORTED, code, "Upgrade to Linux 6.1 or newer.",
                            "kernel %s refuses the ring that sprout asks for", facts->release);
  default:
    return sprout_error_set(error, SPROUT_UNSUPPORTED, code, NULL, "the kernel refuses a ring: %s",
                            strerrordesc_np(code));
  }
}

static bool too_old(const struct probe_facts *facts) {
  if (facts->major != PROBE_KERNEL_MAJOR) return facts->major < PROBE_KERNEL_MAJOR;
  return facts->minor < PROBE_KERNEL_MINOR;
}

enum sprout_status probe_classify(const struct probe_facts *facts, struct sprout_error *error) {
  if (too_old(facts)) return explain_old_kernel(facts, error);
  if (facts->setup_errno != 0) return explain_setup(facts, error);
  if (facts->missing != NULL)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, 0, "Upgrade to Linux 6.1 or newer.",
                            "io_uring of kernel %s lacks %s, which sprout needs", facts->release,
                            facts->missing);
  return SPROUT_OK;
}

/* ---- gathering ---- */

/* Reads a small file of /proc as text; false when it is not there. */
static bool read_text(const char *path, char *text, size_t text_bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t length = read(fd, text, text_bytes - 1);
  close(fd);
  if (length < 0) return false;
  text[length] = '\0';
  return true;
}

static int read_number(const char *path) {
  char text[32];
  if (!read_text(path, text, sizeof text)) return -1;
  char *end = NULL;
  long value = strtol(text, &end, 10);
  return end != text && value >= 0 && value <= INT32_MAX ? (int)value : -1;
}

/* The number behind "name:" in a text of such lines; `fallback` when there is none. */
static unsigned long long field(const char *text, const char *name, int base,
                                unsigned long long fallback) {
  const char *at = strstr(text, name);
  if (at == NULL) return fallback;
  char *end = NULL;
  unsigned long long value = strtoull(at + strlen(name), &end, base);
  return end != at + strlen(name) ? value : fallback;
}

static bool in_group(int group) {
  if (group < 0) return false;
  if (getegid() == (gid_t)group) return true;
  int count = getgroups(0, NULL);
  if (count <= 0) return false;
  gid_t *groups = calloc((size_t)count, sizeof *groups);
  if (groups == NULL) return false;
  count = getgroups(count, groups);
  bool found = false;
  for (int i = 0; i < count; i++) found |= groups[i] == (gid_t)group;
  free(groups);
  return found;
}

static void gather(struct probe_facts *facts, int setup_errno) {
  *facts = (struct probe_facts){.setup_errno = setup_errno, .seccomp_mode = -1};
  struct utsname name;
  if (uname(&name) == 0) {
    snprintf(facts->release, sizeof facts->release, "%s", name.release);
    char *end = NULL;
    facts->major = (unsigned)strtoul(name.release, &end, 10);
    if (*end == '.') facts->minor = (unsigned)strtoul(end + 1, NULL, 10);
  }
  facts->sysctl_disabled = read_number("/proc/sys/kernel/io_uring_disabled");
  facts->in_sysctl_group = in_group(read_number("/proc/sys/kernel/io_uring_group"));
  char status[8192];
  if (!read_text("/proc/self/status", status, sizeof status)) {
    facts->seccomp_mode = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
    return;
  }
  facts->seccomp_mode = (int)field(status, "\nSeccomp:", 10, UINT32_MAX);
  unsigned long long capabilities = field(status, "\nCapEff:", 16, 0);
  if ((capabilities >> CAP_SYS_ADMIN & 1) != 0) facts->in_sysctl_group = true;
}

/* What the ring lacks, or NULL. */
static const char *find_missing(struct io_uring *ring) {
  static const struct {
    int code;
    const char *name;
  } needed[] = {{IORING_OP_NOP, "IORING_OP_NOP"},
                {IORING_OP_ACCEPT, "IORING_OP_ACCEPT"},
                {IORING_OP_CONNECT, "IORING_OP_CONNECT"},
                {IORING_OP_RECV, "IORING_OP_RECV"},
                {IORING_OP_SEND, "IORING_OP_SEND"},
                {IORING_OP_SENDMSG, "IORING_OP_SENDMSG"},
                {IORING_OP_POLL_ADD, "IORING_OP_POLL_ADD"},
                {IORING_OP_READ, "IORING_OP_READ"},
                {IORING_OP_WRITEV, "IORING_OP_WRITEV"},
                {IORING_OP_WRITE, "IORING_OP_WRITE"},
                {IORING_OP_FALLOCATE, "IORING_OP_FALLOCATE"},
                {IORING_OP_FSYNC, "IORING_OP_FSYNC"},
                {IORING_OP_CLOSE, "IORING_OP_CLOSE"},
                {IORING_OP_ASYNC_CANCEL, "IORING_OP_ASYNC_CANCEL"}};
  if ((ring->features & IORING_FEAT_NODROP) == 0) return "IORING_FEAT_NODROP";
  if ((ring->features & IORING_FEAT_EXT_ARG) == 0) return "IORING_FEAT_EXT_ARG";
  struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
  if (probe == NULL) return "IORING_REGISTER_PROBE";
  const char *missing = NULL;
  for (size_t i = 0; missing == NULL && i < sizeof needed / sizeof needed[0]; i++)
    if (!io_uring_opcode_supported(probe, needed[i].code)) missing = needed[i].name;
  io_uring_free_probe(probe);
  return missing;
}

enum sprout_status probe_machine(struct sprout_error *error) {
  struct io_uring ring;
  struct probe_facts facts;
  int result = io_uring_queue_init(8, &ring, 0);
  gather(&facts, result < 0 ? -result : 0);
  if (result == 0) {
    facts.missing = find_missing(&ring);
    io_uring_queue_exit(&ring);
  }
  return probe_classify(&facts, error);
}

enum sprout_status probe_explain(int setup_errno, struct sprout_error *error) {
  struct probe_facts facts;
  gather(&facts, setup_errno);
  return probe_classify(&facts, error);
}

unsigned long probe_raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_cur < limit.rlim_max) {
    struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  }
  return (unsigned long)limit.rlim_cur;
}
