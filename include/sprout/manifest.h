/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a seed's manifest: what it holds, object by object and file by file.
 *
 * A manifest handed out by sprout_manifest_fetch is immutable and belongs to the caller until
 * sprout_manifest_destroy. All strings and rows borrowed from it live as long as it does.
 */
#ifndef SPROUT_MANIFEST_H
#define SPROUT_MANIFEST_H

#include "sprout/memory.h"
#include "sprout/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sprout_manifest;

/* Size of the grid inside each object on which digests, retries and resume work: 4 MiB. */
#define SPROUT_CHUNK_BYTES (4u * 1024u * 1024u)

/* A tensor is a typed array; a blob is any other run of bytes. */
enum sprout_object_kind { SPROUT_OBJECT_BLOB, SPROUT_OBJECT_TENSOR };

/* One object as it appears in a manifest. Identity of an object is (file, name). */
struct sprout_object_info {
  const char *name;
  const char *file; /* path of the file it belongs to; "" when it belongs to none */
  enum sprout_object_kind kind;
  const char *dtype; /* "" for blobs */
  uint32_t rank;
  uint64_t shape[SPROUT_MAX_RANK];
  uint64_t length_bytes;
};

/* One file as it appears in a manifest. Its objects are [first_object, first_object +
 * object_count), ordered by their place in the file. */
struct sprout_file_info {
  const char *path; /* relative, '/'-separated */
  uint64_t length_bytes;
  uint32_t first_object;
  uint32_t object_count; /* 0 for an empty file */
  bool executable;
};

/* Identity, size and version of what a seed serves. */
struct sprout_manifest_info {
  const char
      *id; /* 32 hex digits: digest of layout and identity; equal on all seeds of one model */
  const char *model;   /* the model's name */
  const char *rank;    /* rank key, "" when there is one rank */
  const char *label;   /* the caller's version label, "" when unset */
  uint64_t generation; /* counts changes of the bytes */
  uint32_t object_count;
  uint32_t file_count;
  uint64_t total_bytes; /* sum of all objects */
};

/* Options of a fetch; zero-initialise, then set what you need. */
struct sprout_fetch_options {
  const char *token;   /* bearer token or NULL */
  uint64_t timeout_ns; /* 0: 10 s */
};

/* Fetches and decodes the manifest of the seed at `url` (http://HOST[:PORT] or file://DIR). Blocks;
 * any thread. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_manifest_fetch(const char *url, const struct sprout_fetch_options *options,
                      struct sprout_manifest **manifest_out, struct sprout_error *error);

/*
 * Fetches a JSON document from a seed: `path` is "/v1/status", "/v1/forks", ... *json_out is
 * NUL-terminated, free it with sprout_json_free. Blocks; any thread.
 */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_json_fetch(const char *url, const char *path, const struct sprout_fetch_options *options,
                  char **json_out, struct sprout_error *error);

/* Frees what sprout_json_fetch gave; NULL is allowed. */
SPROUT_API void sprout_json_free(char *json);

/* Frees the manifest; NULL is allowed. */
SPROUT_API void sprout_manifest_destroy(struct sprout_manifest *manifest);

/* Fills *info_out; strings live as long as the manifest. */
SPROUT_API void sprout_manifest_info(const struct sprout_manifest *manifest,
                                     struct sprout_manifest_info *info_out);

/* Fills *info_out for object `index` < object_count; SPROUT_RANGE otherwise. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_manifest_object(const struct sprout_manifest *manifest, uint32_t index,
                       struct sprout_object_info *info_out);

/* Fills *info_out for file `index` < file_count; SPROUT_RANGE otherwise. */
SPROUT_API SPROUT_MUST_CHECK enum sprout_status
sprout_manifest_file(const struct sprout_manifest *manifest, uint32_t index,
                     struct sprout_file_info *info_out);

#ifdef __cplusplus
}
#endif
#endif
