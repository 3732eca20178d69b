/* SPDX-License-Identifier: Apache-2.0 */
#include "core/json_config.h"

#include <jansson.h>
#include <limits.h>
#include <stdio.h>

void json_config_quantization(const char *directory, char *method_out, size_t room_bytes) {
  char path[PATH_MAX];
  method_out[0] = 0;
  if ((size_t)snprintf(path, sizeof path, "%s/config.json", directory) >= sizeof path) return;
  json_t *config = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
  const json_t *quantization = json_object_get(config, "quantization_config");
  const char *method = json_string_value(json_object_get(quantization, "quant_method"));
  if (method) snprintf(method_out, room_bytes, "%s", method);
  json_decref(config);
}
