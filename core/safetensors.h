/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Safetensors headers: 8-byte little-endian length, JSON, tensor data. Untrusted input, validated
 * here once.
 *
 * Refused: truncated, oversized (> 100 MB, the format's own limit) or non-JSON headers, duplicate
 * keys, deep nesting, unknown dtypes, lengths that differ from shape x dtype, partial overlaps,
 * holes, overflow, data beyond or short of the file, more than SPROUT_MAX_RANK dimensions, names
 * that a manifest may not have. Two names with the very same span are tied: the later is an alias.
 * Zero-length tensors are valid between others, not inside them. As in the format's own reader,
 * unknown keys beside dtype, shape and data_offsets are ignored, and so is a null __metadata__.
 */
#ifndef CORE_SAFETENSORS_H
#define CORE_SAFETENSORS_H

#include "sprout/memory.h"
#include "sprout/status.h"

#include <stddef.h>

/* The format's own limit of the JSON part. */
#define SAFETENSORS_HEADER_MAX 100000000u
#define SAFETENSORS_LENGTH_BYTES 8u

struct safetensors_tensor {
  const char *name;
  char dtype[16];
  uint32_t rank;
  uint64_t shape[SPROUT_MAX_RANK];
  uint64_t file_offset; /* absolute in the file */
  uint64_t length_bytes;
  uint32_t alias_of; /* index in this array (after ordering) or UINT32_MAX */
};

/* Tensors ordered by (file_offset, length, name). */
struct safetensors_header {
  uint64_t data_offset; /* 8 + header length: the blob that precedes the tensors */
  struct safetensors_tensor *tensors;
  uint32_t count;
  char *quantization; /* from __metadata__ when named there; "" else */
  char *texts;        /* private: the names */
};

/*
 * How many bytes safetensors_parse wants to see: 8 + header length. `data` holds the first 8 bytes
 * of the file. SPROUT_BAD_MODEL when the file is too short, or the header too long for the format
 * or the file.
 */
SPROUT_MUST_CHECK enum sprout_status
safetensors_header_bytes(const char *file_name, const void *data, uint64_t available_bytes,
                         uint64_t file_bytes, uint64_t *bytes_out, struct sprout_error *error);

/* Bits of one element; 0 when the dtype is unknown. Knows BOOL, U8..U64, I8..I64, F16, BF16, F32,
 * F64, F8_E4M3, F8_E5M2, F8_E8M0, F6_E2M3, F6_E3M2, F4, C64 and the further names of the format's
 * current specification. */
uint32_t safetensors_dtype_bits(const char *dtype);

/*
 * Parses the first bytes of a file: `data` holds at least min(file_bytes, 8 + header length) bytes
 * of it. `file_name` is for messages only. SPROUT_BAD_MODEL with file, tensor and reason.
 */
SPROUT_MUST_CHECK enum sprout_status safetensors_parse(const char *file_name, const void *data,
                                                       uint64_t available_bytes,
                                                       uint64_t file_bytes,
                                                       struct safetensors_header *header_out,
                                                       struct sprout_error *error);
void safetensors_destroy(struct safetensors_header *header);
#endif
