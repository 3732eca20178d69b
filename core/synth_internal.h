/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the two halves of synth: which tensors a spec means (synth_layout.c) and how they are
 * written (synth.c).
 */
#ifndef CORE_SYNTH_INTERNAL_H
#define CORE_SYNTH_INTERNAL_H

#include "sprout/status.h"

#include <stddef.h>
#include <stdint.h>

#define SYNTH_NAME_BYTES 96

struct synth_tensor {
  char name[SYNTH_NAME_BYTES];
  const char *dtype; /* static */
  uint32_t rank;     /* 1 or 2 */
  uint64_t shape[2];
  uint64_t length_bytes;
};

struct synth_layout {
  struct synth_tensor *tensors;
  size_t count, capacity;
  uint64_t total_bytes;
  char *config; /* text of config.json */
};

/* SPROUT_INVALID for unknown specs. */
SPROUT_MUST_CHECK enum sprout_status
synth_layout_create(const char *spec, struct synth_layout *layout_out, struct sprout_error *error);
void synth_layout_destroy(struct synth_layout *layout);
#endif
