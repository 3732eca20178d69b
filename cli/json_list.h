/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A manifest as one JSON document: identity, files, tensors.
 */
#ifndef CLI_JSON_LIST_H
#define CLI_JSON_LIST_H

#include "sprout/manifest.h"

#include <stdio.h>

SPROUT_MUST_CHECK enum sprout_status json_list_print(FILE *out,
                                                     const struct sprout_manifest *manifest);
#endif
