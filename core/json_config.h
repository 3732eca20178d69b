/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model's config.json says that belongs to its identity.
 */
#ifndef CORE_JSON_CONFIG_H
#define CORE_JSON_CONFIG_H

#include <stddef.h>

/* quantization_config.quant_method of DIRECTORY/config.json, or "" when there is none. Blocks. */
void json_config_quantization(const char *directory, char *method_out, size_t room_bytes);
#endif
