/* SPDX-License-Identifier: Apache-2.0 */
/* The dtypes of the safetensors format and their sizes. */
#include "core/safetensors.h"

#include <string.h>

uint32_t safetensors_dtype_bits(const char *dtype) {
  static const struct {
    const char *name;
    uint32_t bits;
  } table[] = {
      /* the common ones first */
      {"BF16", 16},       {"F32", 32}, {"F16", 16},    {"F8_E4M3", 8}, {"U8", 8},
      {"I64", 64},        {"I32", 32}, {"I8", 8},      {"BOOL", 8},    {"F8_E5M2", 8},
      {"F8_E8M0", 8},     {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16},    {"U32", 32},    {"U64", 64},
      {"F64", 64},        {"C64", 64},
  };
  for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
    if (strcmp(table[i].name, dtype) == 0) return table[i].bits;
  return 0;
}
