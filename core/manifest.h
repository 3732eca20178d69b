/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest: what a fork must know before reading. Layout (identity, objects, files) and
 * version.
 *
 * Built once through manifest_builder, immutable afterwards; shared read-only between threads. All
 * strings live in the manifest's own arena. Validated by manifest_build, for manifests of strangers
 * as for our own: whoever holds a manifest may trust its texts, paths, indexes and sums.
 *
 * Conventions of those who build one from files: a safetensors file is one blob named
 * MANIFEST_HEADER_NAME (all bytes before the data), then its tensors; any other file is one blob
 * whose name is the file's path; an empty file has no object. Directories are not represented.
 *
 * Promises: names are UTF-8 of at most LIMIT_NAME_BYTES without control characters below 0x20;
 * paths hold to manifest_path_ok, are not below another file, and have no part ".git" or ".sprout";
 * (file, name) is unique; objects cover their file without hole or overlap; a tensor of known dtype
 * has exactly the bytes that shape and strides need; an alias is a tensor that has the place and
 * length of a tensor of lower index in the same file (or both in none), which is no alias itself.
 */
#ifndef CORE_MANIFEST_H
#define CORE_MANIFEST_H

#include "core/digest.h"
#include "sprout/manifest.h"

#define MANIFEST_NONE UINT32_MAX
#define MANIFEST_EPOCH_BYTES 16
#define MANIFEST_LABEL_MAX 64
#define MANIFEST_HEADER_NAME "__header__" /* the bytes of a safetensors file before its data */

/* What the bytes are; hashed into the layout digest. All strings non-NULL, "" when unset. */
struct manifest_identity {
  const char *model;
  const char *revision;
  const char *dtype;
  const char *quantization;
  const char *engine;
  const char *layout; /* kernel layout */
  const char *role;   /* "main", "draft" */
  const char *rank;   /* rank key, e.g. "tp=0/2" */
};

/* (epoch, generation, label) */
struct manifest_version {
  uint8_t epoch[MANIFEST_EPOCH_BYTES]; /* random per seed process */
  uint64_t generation;
  char label[MANIFEST_LABEL_MAX + 1];
};

struct manifest_object {
  const char *name;
  const char *dtype; /* "" for blobs */
  enum sprout_object_kind kind;
  uint32_t file;     /* index or MANIFEST_NONE */
  uint32_t alias_of; /* lower index whose bytes these are, or MANIFEST_NONE; same length */
  uint32_t rank;
  uint64_t shape[SPROUT_MAX_RANK];
  int64_t strides[SPROUT_MAX_RANK]; /* elements; all 0: row-major contiguous */
  uint64_t length_bytes;
  uint64_t file_offset; /* where it begins in its file */
  uint64_t generation;  /* that last changed it */
  uint64_t first_chunk; /* derived; an alias has its target's */
  uint32_t chunk_count; /* derived; 0 for empty objects; aliases: as the target */
};

/* Its objects are [first_object, first_object + object_count), ordered by file_offset, without
 * holes; aliases share their target's place. */
struct manifest_file {
  const char *path; /* relative, '/'-separated, no "." or "..", unique */
  uint64_t length_bytes;
  uint32_t first_object;
  uint32_t object_count;
  bool executable;
};

struct manifest {
  struct manifest_identity identity;
  struct manifest_version version;
  struct manifest_object *objects;
  struct manifest_file *files;
  uint32_t object_count;
  uint32_t file_count;
  uint64_t chunk_count;      /* of all objects, aliases not counted */
  uint64_t total_bytes;      /* of all objects, aliases not counted */
  struct digest layout;      /* over identity, objects, files; equal on all seeds of one model */
  char id[DIGEST_HEX_BYTES]; /* layout in hex */
  /* private: arena, name index */
  struct manifest_private *private_part;
};

/* One chunk: [offset, offset + length) of an object. */
struct manifest_chunk {
  uint32_t object;
  uint64_t offset;
  uint32_t length_bytes;
};

/* --- building --- */
struct manifest_builder;

SPROUT_MUST_CHECK enum sprout_status manifest_builder_create(struct manifest_builder **builder_out);
void manifest_builder_destroy(struct manifest_builder *builder);
/* Copies. Unset keys are "". */
SPROUT_MUST_CHECK enum sprout_status
manifest_builder_identity(struct manifest_builder *builder,
                          const struct manifest_identity *identity);
void manifest_builder_version(struct manifest_builder *builder,
                              const struct manifest_version *version);
/*
 * Starts a file: the objects added next belong to it until the next file, without one of no file
 * in between. Strings are copied. All that add fail with SPROUT_NO_MEMORY, SPROUT_LIMIT, or
 * SPROUT_BAD_MODEL; after a failure manifest_build gives the same failure with its text.
 */
SPROUT_MUST_CHECK enum sprout_status manifest_builder_file(struct manifest_builder *builder,
                                                           const char *path, uint64_t length_bytes,
                                                           bool executable);
/* Adds one object; of *object only name, dtype, kind, alias_of, rank, shape, strides, length_bytes,
 * file_offset and generation are read; `in_file` false puts it in no file. */
SPROUT_MUST_CHECK enum sprout_status manifest_builder_object(struct manifest_builder *builder,
                                                             const struct manifest_object *object,
                                                             bool in_file);
/*
 * Validates (names, paths, sums, holes, limits), derives chunks and the layout digest; strides that
 * say row-major become zeros. The builder is consumed on success and must be destroyed by the
 * caller on failure. SPROUT_BAD_MODEL and SPROUT_LIMIT name file, object and reason.
 */
SPROUT_MUST_CHECK enum sprout_status manifest_build(struct manifest_builder *builder,
                                                    struct manifest **manifest_out,
                                                    struct sprout_error *error);
void manifest_destroy(struct manifest *manifest);

/* --- asking --- */
/* First object of this name, those in files before those in none, or MANIFEST_NONE. O(log n). */
uint32_t manifest_find_object(const struct manifest *manifest, const char *name);
uint32_t manifest_find_file(const struct manifest *manifest, const char *path);
/* chunk < chunk_count. O(log n). */
struct manifest_chunk manifest_chunk_at(const struct manifest *manifest, uint64_t chunk);
/* Lists the identity keys that differ ("rank: tp=0/2 here, tp=1/2 there; ...") into text; false
 * when equal. */
bool manifest_identity_differs(const struct manifest_identity *a, const struct manifest_identity *b,
                               char *text_out, size_t text_bytes);
/* True when a relative path may be used below a directory: manifest_text_ok, 1..LIMIT_NAME_BYTES
 * bytes, not absolute, no empty part, no ".", no "..". Backslashes are allowed. */
bool manifest_path_ok(const char *path);
/* True for well-formed UTF-8 (shortest forms, no surrogates) without characters below 0x20. */
bool manifest_text_ok(const char *text);
#define MANIFEST_QUOTE_BYTES 160
/* For messages: the text with "..." for what is too long and '?' for bytes that manifest_text_ok
 * would refuse. Returns buffer. */
const char *manifest_quote(const char *text, char buffer[MANIFEST_QUOTE_BYTES]);
#endif
