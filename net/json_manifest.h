/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manifest as JSON, for people and scripts. Pure; any thread.
 */
#ifndef NET_JSON_MANIFEST_H
#define NET_JSON_MANIFEST_H

#include "core/manifest.h"
#include "net/json_text.h"

/* Identity, version, sums: one entry of the index. NULL: out of memory. */
json_t *json_manifest_summary(const struct manifest *manifest, bool draining);
/* The summary with all files and objects. */
SPROUT_MUST_CHECK enum sprout_status
json_manifest_encode(const struct manifest *manifest, bool draining, struct wire_buffer *buffer);
#endif
