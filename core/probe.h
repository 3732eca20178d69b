/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start-up probe: can this machine run a ring? Says which obstacle it is (seccomp filter, sysctl
 * io_uring_disabled, kernel too old, locked-memory or descriptor limit) and the exact remedy.
 */
#ifndef CORE_PROBE_H
#define CORE_PROBE_H

#include "sprout/status.h"

SPROUT_MUST_CHECK enum sprout_status probe_machine(struct sprout_error *error);

/* Raises the soft RLIMIT_NOFILE to the hard limit; returns the limit now in force. */
unsigned long probe_raise_descriptor_limit(void);
#endif
