/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fork's options, checked and copied: the caller's strings need not outlive sprout_fork_create.
 * Tensors stay borrowed.
 */
#ifndef NET_FORK_OPTIONS_H
#define NET_FORK_OPTIONS_H

#include "net/address.h"
#include "net/auth.h"
#include "sprout/fork.h"

struct fork_options {
  struct sprout_fork_options public_part; /* pointers lead into `strings` */
  struct url urls[SPROUT_MAX_SOURCES];
  char token[AUTH_TOKEN_MAX + 1]; /* "": none */
  const char **tensor_names;      /* of a memory destination: what is selected */
  char **strings;                 /* everything that was copied */
  size_t string_count, string_capacity;
};

/* SPROUT_INVALID names the option. Defaults are filled in. */
SPROUT_MUST_CHECK enum sprout_status fork_options_copy(const struct sprout_fork_options *options,
                                                       struct fork_options *copy_out,
                                                       struct sprout_error *error);
void fork_options_destroy(struct fork_options *options);
#endif
