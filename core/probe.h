/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start-up probe: can this machine run a ring? Says which obstacle it is (seccomp filter, sysctl
 * io_uring_disabled, kernel too old, locked-memory or descriptor limit) and the exact remedy.
 *
 * Gathering facts and judging them are apart: probe_classify is pure.
 */
#ifndef CORE_PROBE_H
#define CORE_PROBE_H

#include "sprout/status.h"

#include <stdbool.h>

/* Oldest kernel that sprout runs on. */
#define PROBE_KERNEL_MAJOR 6
#define PROBE_KERNEL_MINOR 1

/* What can be seen of this machine. */
struct probe_facts {
  char release[65];      /* uname -r */
  unsigned major, minor; /* of it; 0, 0 when it is none of ours to read */
  int setup_errno;       /* of io_uring_setup; 0: a ring could be made */
  int sysctl_disabled;   /* kernel.io_uring_disabled; -1: no such sysctl */
  bool in_sysctl_group;  /* this process is exempt from value 1 (group or CAP_SYS_ADMIN) */
  int seccomp_mode;      /* of this process: 0 none, 1 strict, 2 filter; -1 unknown */
  const char *missing;   /* operation or feature that the ring lacks, NULL: none */
};

/* SPROUT_OK, or what stands in the way. */
SPROUT_MUST_CHECK enum sprout_status probe_classify(const struct probe_facts *facts,
                                                    struct sprout_error *error);

/* Gathers the facts, makes a small ring and gives it back, judges. Any thread. */
SPROUT_MUST_CHECK enum sprout_status probe_machine(struct sprout_error *error);

/* Why io_uring_setup failed with `setup_errno` on this machine. Never SPROUT_OK. */
SPROUT_MUST_CHECK enum sprout_status probe_explain(int setup_errno, struct sprout_error *error);

/* Raises the soft RLIMIT_NOFILE to the hard limit; returns the limit now in force. */
unsigned long probe_raise_descriptor_limit(void);
#endif
