/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Synthetic models: safetensors files with the true tensor names, shapes and dtypes of a named
 * architecture and seeded random bytes, for tests, demonstrations and load tests. The same spec and
 * seed give the same bytes.
 *
 * A spec is one of synth_names(), "size:4GB" (layers of a real architecture, as many as make about
 * that size) or "tensors:30000x4KiB" (that many U8 tensors). Blocks; any thread.
 */
#ifndef CORE_SYNTH_H
#define CORE_SYNTH_H

#include "sprout/status.h"

#include <stdint.h>

/* Called now and then while weights are written. */
typedef void synth_progress_fn(void *context, uint64_t done_bytes, uint64_t total_bytes);

/*
 * Writes the model into `directory`, which must be absent or empty. Files get their final names
 * when they are whole; after a failure none of them is left. SPROUT_INVALID: unknown spec (the hint
 * lists the known ones); SPROUT_EXISTS, SPROUT_NO_SPACE, SPROUT_IO. `progress` may be NULL.
 */
SPROUT_MUST_CHECK enum sprout_status synth_write(const char *spec, const char *directory,
                                                 uint64_t seed, synth_progress_fn *progress,
                                                 void *context, struct sprout_error *error);

/* "tiny, llama-3.2-1b, ...": static storage, for help texts. */
const char *synth_names(void);
#endif
