/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests for tests, from a few words. */
#ifndef TESTS_SUPPORT_SMALL_MODEL_H
#define TESTS_SUPPORT_SMALL_MODEL_H

#include "core/manifest.h"

/* One object, a U8 tensor unless `blob`. Objects of one file follow each other; those of no file
 * come last. */
struct small_object {
  const char *file; /* NULL: of none */
  const char *name; /* NULL: an empty file */
  uint64_t length_bytes;
  bool blob;
  bool alias; /* of the object before it */
};

struct small_model {
  const struct small_object *objects;
  uint32_t count;
  const char *model, *rank, *label; /* NULL: "small", "", "" */
  uint64_t epoch, generation;
};

/* Asserts that it can be built; manifest_destroy it. */
struct manifest *small_manifest(const struct small_model *model);
#endif
