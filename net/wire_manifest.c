/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest as a sequence of top-level records: the head map, then, in the order of building,
 * one array per file and per object. An array's first element is its kind; kinds that are not known
 * here are skipped, elements behind the known ones are ignored.
 */
#include "core/limits.h"
#include "net/wire.h"
#include "net/wire_pack.h"
#include "net/wire_value.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* One record: identity is eight texts, an object has one name. */
#define RECORD_BYTES 65536u
#define RECORD_VALUES 256u
#define MANIFEST_WHAT "manifest"

enum {
  HEAD_SPROUT,
  HEAD_PROTOCOL,
  HEAD_IDENTITY,
  HEAD_EPOCH,
  HEAD_GENERATION,
  HEAD_LABEL,
  HEAD_DRAINING,
  HEAD_OBJECTS,
  HEAD_FILES,
  HEAD_LAYOUT,
  HEAD_CHUNK,
  HEAD_KEYS
};
static const char *const head_keys[HEAD_KEYS] = {"sprout",     "protocol", "identity", "epoch",
                                                 "generation", "label",    "draining", "objects",
                                                 "files",      "layout",   "chunk"};

enum { IDENTITY_KEYS = 8 };
static const char *const identity_keys[IDENTITY_KEYS] = {
    "model", "revision", "dtype", "quantization", "engine", "layout", "role", "rank"};

enum { RECORD_FILE = 0, RECORD_OBJECT = 1 };

/* [kind, path, length, executable] */
enum { FILE_PATH = 1, FILE_LENGTH, FILE_EXECUTABLE, FILE_ELEMENTS };

/* [kind, name, object kind, dtype, length, file offset, in file, alias, generation, shape, strides]
 * alias and strides may be nil. */
enum {
  OBJECT_NAME = 1,
  OBJECT_KIND,
  OBJECT_DTYPE,
  OBJECT_LENGTH,
  OBJECT_OFFSET,
  OBJECT_IN_FILE,
  OBJECT_ALIAS,
  OBJECT_GENERATION,
  OBJECT_SHAPE,
  OBJECT_STRIDES,
  OBJECT_ELEMENTS
};

/* --- encoding --- */

static void write_identity(struct wire_writer *writer, const struct manifest_identity *identity) {
  const char *const texts[IDENTITY_KEYS] = {
      identity->model,  identity->revision, identity->dtype, identity->quantization,
      identity->engine, identity->layout,   identity->role,  identity->rank};
  wire_write_map(writer, IDENTITY_KEYS);
  for (unsigned i = 0; i < IDENTITY_KEYS; i++) {
    wire_write_text(writer, identity_keys[i]);
    wire_write_text(writer, texts[i]);
  }
}

static void write_head(struct wire_writer *writer, const struct manifest *manifest, bool draining) {
  wire_write_map(writer, HEAD_KEYS);
  wire_write_text(writer, head_keys[HEAD_SPROUT]);
  wire_write_text(writer, MANIFEST_WHAT);
  wire_write_text(writer, head_keys[HEAD_PROTOCOL]);
  wire_write_protocol(writer, WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
  wire_write_text(writer, head_keys[HEAD_IDENTITY]);
  write_identity(writer, &manifest->identity);
  wire_write_text(writer, head_keys[HEAD_EPOCH]);
  wire_write_bytes(writer, manifest->version.epoch, MANIFEST_EPOCH_BYTES);
  wire_write_text(writer, head_keys[HEAD_GENERATION]);
  wire_write_unsigned(writer, manifest->version.generation);
  wire_write_text(writer, head_keys[HEAD_LABEL]);
  wire_write_text(writer, manifest->version.label);
  wire_write_text(writer, head_keys[HEAD_DRAINING]);
  wire_write_bool(writer, draining);
  wire_write_text(writer, head_keys[HEAD_OBJECTS]);
  wire_write_unsigned(writer, manifest->object_count);
  wire_write_text(writer, head_keys[HEAD_FILES]);
  wire_write_unsigned(writer, manifest->file_count);
  wire_write_text(writer, head_keys[HEAD_LAYOUT]);
  wire_write_bytes(writer, manifest->layout.bytes, DIGEST_BYTES);
  wire_write_text(writer, head_keys[HEAD_CHUNK]);
  wire_write_unsigned(writer, SPROUT_CHUNK_BYTES);
}

static void write_file(struct wire_writer *writer, const struct manifest_file *file) {
  wire_write_array(writer, FILE_ELEMENTS);
  wire_write_unsigned(writer, RECORD_FILE);
  wire_write_text(writer, file->path);
  wire_write_unsigned(writer, file->length_bytes);
  wire_write_bool(writer, file->executable);
}

static bool has_strides(const struct manifest_object *object) {
  for (uint32_t i = 0; i < object->rank; i++) {
    if (object->strides[i] != 0) return true;
  }
  return false;
}

static void write_shape(struct wire_writer *writer, const struct manifest_object *object) {
  wire_write_array(writer, object->rank);
  for (uint32_t i = 0; i < object->rank; i++) wire_write_unsigned(writer, object->shape[i]);
  if (!has_strides(object)) {
    wire_write_nil(writer);
    return;
  }
  wire_write_array(writer, object->rank);
  for (uint32_t i = 0; i < object->rank; i++) wire_write_signed(writer, object->strides[i]);
}

static void write_object(struct wire_writer *writer, const struct manifest_object *object) {
  wire_write_array(writer, OBJECT_ELEMENTS);
  wire_write_unsigned(writer, RECORD_OBJECT);
  wire_write_text(writer, object->name);
  wire_write_unsigned(writer, object->kind);
  wire_write_text(writer, object->dtype);
  wire_write_unsigned(writer, object->length_bytes);
  wire_write_unsigned(writer, object->file_offset);
  wire_write_bool(writer, object->file != MANIFEST_NONE);
  if (object->alias_of == MANIFEST_NONE) {
    wire_write_nil(writer);
  } else {
    wire_write_unsigned(writer, object->alias_of);
  }
  wire_write_unsigned(writer, object->generation);
  write_shape(writer, object);
}

enum sprout_status wire_manifest_encode(const struct manifest *manifest, bool draining,
                                        struct wire_buffer *buffer_out) {
  struct wire_writer writer;
  struct wire_buffer buffer = {NULL, 0, 0};
  wire_writer_begin(&writer, &buffer);
  write_head(&writer, manifest, draining);
  uint32_t file = 0;
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    while (file < manifest->file_count && manifest->files[file].first_object <= i)
      write_file(&writer, &manifest->files[file++]);
    assert(manifest->objects[i].file == MANIFEST_NONE || manifest->objects[i].file + 1 == file);
    write_object(&writer, &manifest->objects[i]);
  }
  while (file < manifest->file_count) write_file(&writer, &manifest->files[file++]);
  enum sprout_status status = wire_writer_end(&writer);
  if (status == SPROUT_OK) {
    *buffer_out = buffer;
  } else {
    wire_buffer_destroy(&buffer);
  }
  return status;
}

/* --- decoding --- */

/* One manifest on its way in. */
struct decoding {
  struct wire_reading reading;
  struct manifest_builder *builder;
  struct wire_value entries[RECORD_VALUES];
  uint64_t objects_stated, files_stated;
  uint64_t objects, files, skipped;
  struct digest layout;
  char text[RECORD_BYTES + IDENTITY_KEYS]; /* terminated copies of a record's texts */
};

/* The builder refused: that is the sender's fault, and manifest_build has the words. */
static void fail_building(struct decoding *decoding) {
  struct manifest *manifest = NULL;
  struct wire_reading *reading = &decoding->reading;
  struct sprout_error reason = {.message = ""};
  enum sprout_status status = manifest_build(decoding->builder, &manifest, &reason);
  assert(status != SPROUT_OK);
  reading->status = sprout_error_set(
      reading->error, status == SPROUT_NO_MEMORY ? status : reading->malformed, reason.native,
      reason.hint[0] ? reason.hint : NULL, "the seed's manifest cannot be: %s", reason.message);
}

/* Copies a text to *at and moves it behind; "" when absent. */
static const char *take_text(struct decoding *decoding, const struct wire_value *value,
                             const char *name, char **at) {
  char *text = *at;
  size_t room = (size_t)(decoding->text + sizeof(decoding->text) - text);
  text[0] = '\0';
  wire_get_text(&decoding->reading, value, name, text,
                room < LIMIT_NAME_BYTES + 1 ? room : LIMIT_NAME_BYTES + 1);
  *at = text + strlen(text) + 1;
  return text;
}

static void read_identity(struct decoding *decoding, const struct wire_value *value) {
  const struct wire_value *fields[IDENTITY_KEYS];
  const char *texts[IDENTITY_KEYS];
  char *at = decoding->text;
  wire_map_fields(&decoding->reading, value, identity_keys, IDENTITY_KEYS, fields);
  for (unsigned i = 0; i < IDENTITY_KEYS; i++)
    texts[i] = take_text(decoding, fields[i], identity_keys[i], &at);
  const struct manifest_identity identity = {.model = texts[0],
                                             .revision = texts[1],
                                             .dtype = texts[2],
                                             .quantization = texts[3],
                                             .engine = texts[4],
                                             .layout = texts[5],
                                             .role = texts[6],
                                             .rank = texts[7]};
  if (decoding->reading.status != SPROUT_OK) return;
  if (manifest_builder_identity(decoding->builder, &identity) != SPROUT_OK) fail_building(decoding);
}

static void check_protocol(struct decoding *decoding, const struct wire_value *value) {
  uint32_t min = 0, max = 0;
  wire_get_protocol(&decoding->reading, value, &min, &max);
  if (decoding->reading.status != SPROUT_OK) return;
  if (min > WIRE_PROTOCOL_MAX || max < WIRE_PROTOCOL_MIN)
    decoding->reading.status =
        sprout_error_set(decoding->reading.error, SPROUT_VERSION, 0, "Update the older side.",
                         "the seed speaks protocol %u to %u, this side %u to %u", min, max,
                         WIRE_PROTOCOL_MIN, WIRE_PROTOCOL_MAX);
}

static void read_version(struct decoding *decoding, const struct wire_value *const *fields) {
  struct manifest_version version = {.label = ""};
  struct wire_reading *reading = &decoding->reading;
  wire_get_bytes(reading, fields[HEAD_EPOCH], "epoch", version.epoch, sizeof(version.epoch));
  wire_get_unsigned(reading, fields[HEAD_GENERATION], "generation", &version.generation);
  wire_get_text(reading, fields[HEAD_LABEL], "label", version.label, sizeof(version.label));
  if (reading->status == SPROUT_OK) manifest_builder_version(decoding->builder, &version);
}

static void read_head(struct decoding *decoding) {
  const struct wire_value *fields[HEAD_KEYS];
  struct wire_reading *reading = &decoding->reading;
  uint64_t chunk_bytes = 0;
  wire_map_fields(reading, decoding->entries, head_keys, HEAD_KEYS, fields);
  if (reading->status == SPROUT_OK && !wire_text_is(fields[HEAD_SPROUT], MANIFEST_WHAT))
    wire_fail(reading, "this is something else");
  for (unsigned i = 0; i < HEAD_KEYS; i++) {
    if (i != HEAD_LABEL && i != HEAD_DRAINING) (void)wire_require(reading, fields[i], head_keys[i]);
  }
  check_protocol(decoding, fields[HEAD_PROTOCOL]);
  if (reading->status != SPROUT_OK) return;
  read_identity(decoding, fields[HEAD_IDENTITY]);
  read_version(decoding, fields);
  wire_get_unsigned(reading, fields[HEAD_OBJECTS], "objects", &decoding->objects_stated);
  wire_get_unsigned(reading, fields[HEAD_FILES], "files", &decoding->files_stated);
  wire_get_bytes(reading, fields[HEAD_LAYOUT], "layout", decoding->layout.bytes, DIGEST_BYTES);
  wire_get_unsigned(reading, fields[HEAD_CHUNK], "chunk", &chunk_bytes);
  if (chunk_bytes != SPROUT_CHUNK_BYTES) wire_fail_field(reading, "chunk", "is not 4 MiB");
  if (decoding->objects_stated > LIMIT_OBJECTS)
    wire_fail_field(reading, "objects", "is more than a manifest may have");
  if (decoding->files_stated > LIMIT_FILES)
    wire_fail_field(reading, "files", "is more than a manifest may have");
}

/* Values of the first `count` elements of a record. */
static bool split_record(struct decoding *decoding, const struct wire_value **elements,
                         uint32_t count) {
  const struct wire_value *value = decoding->entries;
  if (value->size < count) {
    wire_fail(&decoding->reading, "a record has too few elements");
    return false;
  }
  value++;
  for (uint32_t i = 0; i < count; i++, value = wire_skip(value)) elements[i] = value;
  return true;
}

static void read_file(struct decoding *decoding) {
  const struct wire_value *elements[FILE_ELEMENTS];
  struct wire_reading *reading = &decoding->reading;
  char *at = decoding->text;
  uint64_t length_bytes = 0;
  bool executable = false;
  if (!split_record(decoding, elements, FILE_ELEMENTS)) return;
  if (++decoding->files > decoding->files_stated) wire_fail(reading, "more files than stated");
  const char *path = take_text(decoding, elements[FILE_PATH], "path", &at);
  wire_get_unsigned(reading, elements[FILE_LENGTH], "length", &length_bytes);
  wire_get_bool(reading, elements[FILE_EXECUTABLE], "executable", &executable);
  if (reading->status != SPROUT_OK) return;
  if (manifest_builder_file(decoding->builder, path, length_bytes, executable) != SPROUT_OK)
    fail_building(decoding);
}

static void read_shape(struct decoding *decoding, const struct wire_value *value,
                       struct manifest_object *object) {
  struct wire_reading *reading = &decoding->reading;
  if (value->type != WIRE_ARRAY || value->size > SPROUT_MAX_RANK) {
    wire_fail_field(reading, "shape", "is not a list of at most 8 sizes");
    return;
  }
  object->rank = value->size;
  for (uint32_t i = 0; i < object->rank; i++)
    wire_get_unsigned(reading, &value[1 + i], "shape", &object->shape[i]);
}

static void read_strides(struct decoding *decoding, const struct wire_value *value,
                         struct manifest_object *object) {
  struct wire_reading *reading = &decoding->reading;
  if (value->type == WIRE_NIL) return;
  if (value->type != WIRE_ARRAY || value->size != object->rank) {
    wire_fail_field(reading, "strides", "has not as many elements as the shape");
    return;
  }
  for (uint32_t i = 0; i < object->rank; i++) {
    const struct wire_value *stride = &value[1 + i];
    if (stride->type == WIRE_NEGATIVE) {
      object->strides[i] = stride->negative;
    } else if (stride->type == WIRE_UNSIGNED && stride->number <= INT64_MAX) {
      object->strides[i] = (int64_t)stride->number;
    } else {
      wire_fail_field(reading, "strides", "has an element that is no 64-bit integer");
      return;
    }
  }
}

static void read_object(struct decoding *decoding) {
  const struct wire_value *elements[OBJECT_ELEMENTS];
  struct wire_reading *reading = &decoding->reading;
  struct manifest_object object = {.alias_of = MANIFEST_NONE};
  char *at = decoding->text;
  uint32_t kind = 0;
  bool in_file = false;
  if (!split_record(decoding, elements, OBJECT_ELEMENTS)) return;
  if (++decoding->objects > decoding->objects_stated)
    wire_fail(reading, "more objects than stated");
  object.name = take_text(decoding, elements[OBJECT_NAME], "name", &at);
  wire_get_u32(reading, elements[OBJECT_KIND], "kind", &kind);
  if (kind > SPROUT_OBJECT_TENSOR) wire_fail_field(reading, "kind", "is not known");
  object.kind = (enum sprout_object_kind)kind;
  object.dtype = take_text(decoding, elements[OBJECT_DTYPE], "dtype", &at);
  wire_get_unsigned(reading, elements[OBJECT_LENGTH], "length", &object.length_bytes);
  wire_get_unsigned(reading, elements[OBJECT_OFFSET], "offset", &object.file_offset);
  wire_get_bool(reading, elements[OBJECT_IN_FILE], "in_file", &in_file);
  if (elements[OBJECT_ALIAS]->type != WIRE_NIL)
    wire_get_u32(reading, elements[OBJECT_ALIAS], "alias", &object.alias_of);
  if (elements[OBJECT_ALIAS]->type != WIRE_NIL && object.alias_of >= decoding->objects - 1)
    wire_fail_field(reading, "alias", "is no earlier object");
  wire_get_unsigned(reading, elements[OBJECT_GENERATION], "generation", &object.generation);
  read_shape(decoding, elements[OBJECT_SHAPE], &object);
  read_strides(decoding, elements[OBJECT_STRIDES], &object);
  if (reading->status != SPROUT_OK) return;
  if (manifest_builder_object(decoding->builder, &object, in_file) != SPROUT_OK)
    fail_building(decoding);
}

/* A record behind the head. */
static void read_record(struct decoding *decoding) {
  const struct wire_value *record = decoding->entries;
  if (record->type != WIRE_ARRAY || record->size == 0 || record[1].type != WIRE_UNSIGNED) {
    wire_fail(&decoding->reading, "a record is not a list that begins with its kind");
  } else if (record[1].number == RECORD_FILE) {
    read_file(decoding);
  } else if (record[1].number == RECORD_OBJECT) {
    read_object(decoding);
  } else if (++decoding->skipped > LIMIT_OBJECTS) {
    wire_fail(&decoding->reading, "too many records of unknown kinds");
  }
}

static void read_records(struct decoding *decoding, const void *data, size_t length_bytes) {
  struct wire_values values = {decoding->entries, 0, RECORD_VALUES};
  size_t offset = 0;
  bool head = true;
  do {
    if (!wire_parse(&decoding->reading, data, length_bytes, RECORD_BYTES, &offset, &values)) return;
    if (head) {
      read_head(decoding);
    } else {
      read_record(decoding);
    }
    head = false;
  } while (offset < length_bytes && decoding->reading.status == SPROUT_OK);
  if (decoding->objects != decoding->objects_stated || decoding->files != decoding->files_stated)
    wire_fail(&decoding->reading, "fewer objects or files than stated");
}

/* Compares what the sender says of its layout with what it is. */
static struct manifest *build(struct decoding *decoding) {
  struct manifest *manifest = NULL;
  if (manifest_build(decoding->builder, &manifest, NULL) != SPROUT_OK) {
    fail_building(decoding);
    return NULL;
  }
  decoding->builder = NULL;
  if (!digest_equal(&manifest->layout, &decoding->layout)) {
    wire_fail_field(&decoding->reading, "layout", "is not the digest of what it describes");
    manifest_destroy(manifest);
    return NULL;
  }
  return manifest;
}

static enum sprout_status out_of_memory(struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a manifest");
}

enum sprout_status wire_manifest_decode(const void *data, size_t length_bytes,
                                        struct manifest **manifest_out,
                                        struct sprout_error *error) {
  struct manifest *manifest = NULL;
  struct decoding *decoding = calloc(1, sizeof(*decoding));
  if (!decoding) return out_of_memory(error);
  decoding->reading = (struct wire_reading){SPROUT_PROTOCOL, MANIFEST_WHAT, error, SPROUT_OK};
  if (length_bytes > LIMIT_MANIFEST_BYTES) wire_fail(&decoding->reading, "it is too long");
  if (manifest_builder_create(&decoding->builder) != SPROUT_OK)
    decoding->reading.status = out_of_memory(error);
  read_records(decoding, data, length_bytes);
  if (decoding->reading.status == SPROUT_OK) manifest = build(decoding);
  manifest_builder_destroy(decoding->builder);
  enum sprout_status status = decoding->reading.status;
  free(decoding);
  if (status == SPROUT_OK) *manifest_out = manifest;
  return status;
}
