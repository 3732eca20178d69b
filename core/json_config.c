/* SPDX-License-Identifier: Apache-2.0 */
#include "core/json_config.h"

#include "core/manifest.h"

#include <jansson.h>
#include <string.h>

bool json_config_quantization(const char *config, size_t config_bytes, char *text_out,
                              size_t text_bytes) {
  json_t *root = json_loadb(config, config_bytes, 0, NULL);
  const json_t *quantization = json_object_get(root, "quantization_config");
  const char *method = json_string_value(json_object_get(quantization, "quant_method"));
  bool fits = method != NULL && method[0] != '\0' && strlen(method) < text_bytes &&
              manifest_text_ok(method);
  if (fits) memcpy(text_out, method, strlen(method) + 1);
  json_decref(root);
  return fits;
}
