/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model's config.json says that belongs to its identity. Pure; any thread.
 */
#ifndef CORE_JSON_CONFIG_H
#define CORE_JSON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

/* Larger ones are not looked at. */
#define JSON_CONFIG_BYTES_MAX (16u * 1024u * 1024u)

/*
 * Copies quantization_config.quant_method ("awq", "fp8", ...) into text_out. False when there is
 * none, it does not fit, or the text is not JSON: a config is served as it is, whatever it says.
 */
bool json_config_quantization(const char *config, size_t config_bytes, char *text_out,
                              size_t text_bytes);
#endif
