/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a safetensors header, tensor by tensor (core/json_members.h says what is refused there);
 * all that the format adds to JSON is checked here.
 */
#include "core/safetensors.h"

#include "core/json_members.h"
#include "core/limits.h"
#include "core/manifest.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const damaged_hint =
    "The file is damaged or incomplete; download it again or leave it out.";

/* What every step needs for its messages. */
struct reading {
  const char *file_name;
  uint64_t data_bytes; /* of the file behind the header */
  uint64_t data_offset;
  struct sprout_error *error;
};

/* A header while its members come in. */
struct growing {
  struct safetensors_header header;
  size_t tensor_capacity;
  size_t text_used, text_capacity;
  bool has_metadata;
};

static enum sprout_status SPROUT_PRINTF(2, 3)
    refuse_file(const struct reading *reading, const char *format, ...) {
  char file[MANIFEST_QUOTE_BYTES], reason[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof(reason), format, arguments);
  va_end(arguments);
  return sprout_error_set(reading->error, SPROUT_BAD_MODEL, 0, damaged_hint, "file \"%s\": %s",
                          manifest_quote(reading->file_name, file), reason);
}

static enum sprout_status SPROUT_PRINTF(3, 4)
    refuse_tensor(const struct reading *reading, const char *name, const char *format, ...) {
  char file[MANIFEST_QUOTE_BYTES], quoted[MANIFEST_QUOTE_BYTES], reason[192];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reason, sizeof(reason), format, arguments);
  va_end(arguments);
  return sprout_error_set(
      reading->error, SPROUT_BAD_MODEL, 0, damaged_hint, "file \"%s\": tensor \"%s\": %s",
      manifest_quote(reading->file_name, file), manifest_quote(name, quoted), reason);
}

static enum sprout_status no_memory(const struct reading *reading) {
  char file[MANIFEST_QUOTE_BYTES];
  return sprout_error_set(reading->error, SPROUT_NO_MEMORY, 0, NULL,
                          "no memory for the header of file \"%s\"",
                          manifest_quote(reading->file_name, file));
}

enum sprout_status safetensors_header_bytes(const char *file_name, const void *data,
                                            uint64_t available_bytes, uint64_t file_bytes,
                                            uint64_t *bytes_out, struct sprout_error *error) {
  const struct reading reading = {.file_name = file_name, .error = error};
  const unsigned char *bytes = data;
  uint64_t length = 0;
  if (file_bytes < SAFETENSORS_LENGTH_BYTES || available_bytes < SAFETENSORS_LENGTH_BYTES)
    return refuse_file(&reading, "it has %llu bytes, a safetensors file begins with 8 of length",
                       (unsigned long long)file_bytes);
  for (size_t i = SAFETENSORS_LENGTH_BYTES; i-- > 0;) length = length << 8 | bytes[i];
  if (length > SAFETENSORS_HEADER_MAX)
    return refuse_file(&reading, "its header would have %llu bytes, the format allows %u",
                       (unsigned long long)length, SAFETENSORS_HEADER_MAX);
  if (length > file_bytes - SAFETENSORS_LENGTH_BYTES)
    return refuse_file(&reading, "its header would have %llu bytes, the file has %llu in all",
                       (unsigned long long)length, (unsigned long long)file_bytes);
  *bytes_out = SAFETENSORS_LENGTH_BYTES + length;
  return SPROUT_OK;
}

/* A JSON integer >= 0. */
static bool unsigned_of(const json_t *value, uint64_t *value_out) {
  if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
  *value_out = (uint64_t)json_integer_value(value);
  return true;
}

static enum sprout_status read_dtype(const struct reading *reading, const json_t *dtype,
                                     struct safetensors_tensor *tensor) {
  const char *name = json_string_value(dtype);
  if (name == NULL) return refuse_tensor(reading, tensor->name, "its dtype is no string");
  if (safetensors_dtype_bits(name) == 0) {
    char quoted[MANIFEST_QUOTE_BYTES];
    return refuse_tensor(reading, tensor->name, "its dtype \"%.40s\" is not known",
                         manifest_quote(name, quoted));
  }
  snprintf(tensor->dtype, sizeof(tensor->dtype), "%s", name);
  return SPROUT_OK;
}

static enum sprout_status read_shape(const struct reading *reading, const json_t *shape,
                                     struct safetensors_tensor *tensor) {
  if (!json_is_array(shape)) return refuse_tensor(reading, tensor->name, "its shape is no list");
  if (json_array_size(shape) > SPROUT_MAX_RANK)
    return refuse_tensor(reading, tensor->name, "it has %zu dimensions, at most %d are supported",
                         json_array_size(shape), SPROUT_MAX_RANK);
  tensor->rank = (uint32_t)json_array_size(shape);
  for (uint32_t i = 0; i < tensor->rank; i++)
    if (!unsigned_of(json_array_get(shape, i), &tensor->shape[i]))
      return refuse_tensor(reading, tensor->name, "dimension %u of its shape is no integer >= 0",
                           i);
  return SPROUT_OK;
}

/* Reads data_offsets, and compares them with the file, the shape and the dtype. */
static enum sprout_status read_span(const struct reading *reading, const json_t *offsets,
                                    struct safetensors_tensor *tensor) {
  uint64_t begin, end, bits = safetensors_dtype_bits(tensor->dtype);
  if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
      !unsigned_of(json_array_get(offsets, 0), &begin) ||
      !unsigned_of(json_array_get(offsets, 1), &end))
    return refuse_tensor(reading, tensor->name, "its data_offsets are not two integers >= 0");
  if (begin > end)
    return refuse_tensor(reading, tensor->name, "its data ends before it begins (%llu, %llu)",
                         (unsigned long long)begin, (unsigned long long)end);
  if (end > reading->data_bytes)
    return refuse_tensor(reading, tensor->name, "its data ends at %llu, the file's data at %llu",
                         (unsigned long long)end, (unsigned long long)reading->data_bytes);
  for (uint32_t i = 0; i < tensor->rank; i++)
    if (__builtin_mul_overflow(bits, tensor->shape[i], &bits))
      return refuse_tensor(reading, tensor->name, "its shape overflows 64 bits");
  if (bits % 8 != 0)
    return refuse_tensor(reading, tensor->name, "its shape and dtype %s give no whole bytes",
                         tensor->dtype);
  if (bits / 8 != end - begin)
    return refuse_tensor(
        reading, tensor->name, "its data has %llu bytes, its shape and dtype %s need %llu",
        (unsigned long long)(end - begin), tensor->dtype, (unsigned long long)(bits / 8));
  tensor->file_offset = reading->data_offset + begin; /* <= the file's length */
  tensor->length_bytes = end - begin;
  return SPROUT_OK;
}

static enum sprout_status read_tensor(const struct reading *reading, const json_t *value,
                                      struct safetensors_tensor *tensor) {
  if (strnlen(tensor->name, LIMIT_NAME_BYTES + 1) > LIMIT_NAME_BYTES)
    return refuse_tensor(reading, tensor->name, "its name has more than %d bytes",
                         LIMIT_NAME_BYTES);
  if (!manifest_text_ok(tensor->name))
    return refuse_tensor(reading, tensor->name, "its name has control characters");
  if (strcmp(tensor->name, MANIFEST_HEADER_NAME) == 0)
    return refuse_tensor(reading, tensor->name, "this name is reserved for the header itself");
  if (!json_is_object(value)) return refuse_tensor(reading, tensor->name, "it is no JSON object");
  enum sprout_status status = read_dtype(reading, json_object_get(value, "dtype"), tensor);
  if (status == SPROUT_OK) status = read_shape(reading, json_object_get(value, "shape"), tensor);
  if (status == SPROUT_OK)
    status = read_span(reading, json_object_get(value, "data_offsets"), tensor);
  return status;
}

/* A map of texts; only its quantisation is of interest. */
static enum sprout_status read_metadata(const struct reading *reading, json_t *metadata,
                                        struct safetensors_header *header) {
  const char *key;
  json_t *value;
  if (json_is_null(metadata)) return SPROUT_OK;
  if (!json_is_object(metadata))
    return refuse_file(reading, "__metadata__ is no JSON object of strings");
  json_object_foreach(metadata, key, value) {
    char quoted[MANIFEST_QUOTE_BYTES];
    if (!json_is_string(value))
      return refuse_file(reading, "__metadata__ has a value that is no string, \"%.100s\"",
                         manifest_quote(key, quoted));
    bool names_it = strcmp(key, "quantization") == 0 || strcmp(key, "quant_method") == 0;
    const char *text = json_string_value(value);
    if (!names_it || !manifest_text_ok(text) || strlen(text) > LIMIT_NAME_BYTES) continue;
    free(header->quantization);
    header->quantization = strdup(text);
    if (header->quantization == NULL) return no_memory(reading);
  }
  return SPROUT_OK;
}

static int compare_places(const void *a_pointer, const void *b_pointer) {
  const struct safetensors_tensor *a = a_pointer, *b = b_pointer;
  if (a->file_offset != b->file_offset) return a->file_offset < b->file_offset ? -1 : 1;
  if (a->length_bytes != b->length_bytes) return a->length_bytes < b->length_bytes ? -1 : 1;
  return strcmp(a->name, b->name);
}

/* After sorting: no hole, no overlap but exact ties, and the data ends with the file. */
static enum sprout_status check_places(const struct reading *reading,
                                       struct safetensors_header *header) {
  uint64_t end = reading->data_offset;
  uint32_t owner = UINT32_MAX; /* of the bytes before `end` */
  for (uint32_t i = 0; i < header->count; i++) {
    struct safetensors_tensor *tensor = &header->tensors[i];
    const struct safetensors_tensor *before = owner == UINT32_MAX ? NULL : &header->tensors[owner];
    if (before != NULL && tensor->length_bytes > 0 && tensor->file_offset == before->file_offset &&
        tensor->length_bytes == before->length_bytes) {
      tensor->alias_of = owner;
      continue;
    }
    if (tensor->file_offset < end) {
      char other[MANIFEST_QUOTE_BYTES];
      return refuse_tensor(reading, tensor->name, "its data overlaps that of \"%.80s\" in part",
                           manifest_quote(before == NULL ? "" : before->name, other));
    }
    if (tensor->file_offset > end)
      return refuse_tensor(reading, tensor->name,
                           "its data begins at %llu, after a hole that begins at %llu",
                           (unsigned long long)(tensor->file_offset - reading->data_offset),
                           (unsigned long long)(end - reading->data_offset));
    if (tensor->length_bytes > 0) owner = i;
    end += tensor->length_bytes; /* <= the file's length: see read_span */
  }
  if (end - reading->data_offset != reading->data_bytes)
    return refuse_file(reading, "its tensors end at %llu, its data at %llu",
                       (unsigned long long)(end - reading->data_offset),
                       (unsigned long long)reading->data_bytes);
  return SPROUT_OK;
}

/* Takes room for one more tensor and its name. Names follow each other in one block; the pointers
 * are set when it has stopped moving. */
static enum sprout_status add_tensor(const struct reading *reading, struct growing *growing,
                                     const char *name) {
  struct safetensors_header *header = &growing->header;
  size_t name_bytes = strlen(name) + 1;
  if (header->count >= LIMIT_OBJECTS)
    return refuse_file(reading, "it has more than %d tensors", LIMIT_OBJECTS);
  if (header->count == growing->tensor_capacity) {
    size_t capacity = growing->tensor_capacity == 0 ? 64 : growing->tensor_capacity * 2;
    struct safetensors_tensor *tensors =
        reallocarray(header->tensors, capacity, sizeof(*header->tensors));
    if (tensors == NULL) return no_memory(reading);
    header->tensors = tensors;
    growing->tensor_capacity = capacity;
  }
  if (name_bytes > growing->text_capacity - growing->text_used) {
    size_t capacity = growing->text_capacity * 2 + name_bytes + 4096;
    char *texts = realloc(header->texts, capacity);
    if (texts == NULL) return no_memory(reading);
    header->texts = texts;
    growing->text_capacity = capacity;
  }
  memcpy(header->texts + growing->text_used, name, name_bytes);
  growing->text_used += name_bytes;
  header->tensors[header->count++] =
      (struct safetensors_tensor){.name = name, .alias_of = UINT32_MAX};
  return SPROUT_OK;
}

static enum sprout_status read_member(const struct reading *reading, struct growing *growing,
                                      const struct json_members *members) {
  const char *name = json_string_value(members->key);
  if (strcmp(name, "__metadata__") == 0) {
    if (growing->has_metadata) return refuse_file(reading, "it has two members __metadata__");
    growing->has_metadata = true;
    return read_metadata(reading, members->value, &growing->header);
  }
  enum sprout_status status = add_tensor(reading, growing, name);
  if (status != SPROUT_OK) return status;
  return read_tensor(reading, members->value, &growing->header.tensors[growing->header.count - 1]);
}

static enum sprout_status read_members(const struct reading *reading, const char *text,
                                       size_t text_bytes, struct growing *growing) {
  struct json_members members;
  enum sprout_status status = SPROUT_OK;
  enum json_step step;
  json_members_begin(&members, text, text_bytes);
  while ((step = json_members_next(&members)) == JSON_STEP_MEMBER && status == SPROUT_OK)
    status = read_member(reading, growing, &members);
  if (status == SPROUT_OK && step == JSON_STEP_NO_MEMORY) status = no_memory(reading);
  if (status == SPROUT_OK && step == JSON_STEP_BAD) {
    char quoted[MANIFEST_QUOTE_BYTES];
    status =
        refuse_file(reading, "its header is not valid JSON at byte %zu: %.120s",
                    members.at + SAFETENSORS_LENGTH_BYTES, manifest_quote(members.problem, quoted));
  }
  json_members_end(&members);
  return status;
}

/* A name with its digest, so that sorting 30,000 similar names compares numbers. */
struct hashed_name {
  uint64_t hash;
  const char *name;
};

static int compare_hashes(const void *a_pointer, const void *b_pointer) {
  const struct hashed_name *a = a_pointer, *b = b_pointer;
  if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
  return strcmp(a->name, b->name);
}

static enum sprout_status refuse_duplicates(const struct reading *reading,
                                            const struct safetensors_header *header) {
  struct hashed_name *names = calloc((size_t)header->count + 1, sizeof(*names));
  if (names == NULL) return no_memory(reading);
  enum sprout_status status = SPROUT_OK;
  for (uint32_t i = 0; i < header->count; i++) {
    struct digest digest = digest_of(header->tensors[i].name, strlen(header->tensors[i].name));
    memcpy(&names[i].hash, digest.bytes, sizeof(names[i].hash));
    names[i].name = header->tensors[i].name;
  }
  qsort(names, header->count, sizeof(*names), compare_hashes);
  for (uint32_t i = 1; i < header->count && status == SPROUT_OK; i++)
    if (compare_hashes(&names[i - 1], &names[i]) == 0)
      status = refuse_tensor(reading, names[i].name, "two tensors have this name");
  free(names);
  return status;
}

/* Everything is read: names get their pointers, tensors their order. */
static enum sprout_status complete(const struct reading *reading,
                                   struct safetensors_header *header) {
  const char *name = header->texts;
  if (header->quantization == NULL) header->quantization = calloc(1, 1);
  if (header->quantization == NULL) return no_memory(reading);
  for (uint32_t i = 0; i < header->count; i++) {
    header->tensors[i].name = name;
    name += strlen(name) + 1;
  }
  enum sprout_status status = refuse_duplicates(reading, header);
  if (status != SPROUT_OK) return status;
  if (header->count > 0)
    qsort(header->tensors, header->count, sizeof(*header->tensors), compare_places);
  return check_places(reading, header);
}

enum sprout_status safetensors_parse(const char *file_name, const void *data,
                                     uint64_t available_bytes, uint64_t file_bytes,
                                     struct safetensors_header *header_out,
                                     struct sprout_error *error) {
  struct reading reading = {.file_name = file_name, .error = error};
  struct growing growing = {0};
  struct safetensors_header *header = &growing.header;
  enum sprout_status status = safetensors_header_bytes(file_name, data, available_bytes, file_bytes,
                                                       &header->data_offset, error);
  if (status != SPROUT_OK) return status;
  if (header->data_offset > available_bytes)
    return refuse_file(&reading, "its header is cut off after %llu of %llu bytes",
                       (unsigned long long)available_bytes,
                       (unsigned long long)header->data_offset);
  reading.data_offset = header->data_offset;
  reading.data_bytes = file_bytes - header->data_offset;
  const char *text = (const char *)data + SAFETENSORS_LENGTH_BYTES;
  size_t text_bytes = (size_t)(header->data_offset - SAFETENSORS_LENGTH_BYTES);
  if (text_bytes == 0 || text[0] != '{')
    return refuse_file(&reading, "its header does not begin with '{'");
  status = read_members(&reading, text, text_bytes, &growing);
  if (status == SPROUT_OK) status = complete(&reading, header);
  if (status != SPROUT_OK) {
    safetensors_destroy(header);
    return status;
  }
  *header_out = *header;
  return SPROUT_OK;
}

void safetensors_destroy(struct safetensors_header *header) {
  free(header->tensors);
  free(header->texts);
  free(header->quantization);
  *header = (struct safetensors_header){0};
}
