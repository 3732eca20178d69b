/* SPDX-License-Identifier: Apache-2.0 */
#include "core/model_digest.h"
#include "net/file_source_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool file_source_working(const struct file_source *source) {
  bool any = source->opening;
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) any |= source->digests[i].busy;
  return any;
}

/* --- laying out, on a worker --- */

static const char *const *identity_keys(const struct manifest_identity *identity) {
  _Static_assert(sizeof *identity == IDENTITY_KEYS * sizeof(char *),
                 "an identity is its keys and nothing else");
  return (const char *const *)identity;
}

static SPROUT_MUST_CHECK enum sprout_status add_objects(struct manifest_builder *builder,
                                                        const struct manifest *own,
                                                        const struct manifest_file *file) {
  enum sprout_status status =
      manifest_builder_file(builder, file->path, file->length_bytes, file->executable);
  for (uint32_t i = 0; i < file->object_count && status == SPROUT_OK; i++) {
    status = manifest_builder_object(builder, &own->objects[file->first_object + i], true);
  }
  return status;
}

/* The directory's own manifest under the reference's identity and label. */
static SPROUT_MUST_CHECK enum sprout_status rename_manifest(struct file_source *source,
                                                            const struct manifest *own) {
  struct manifest_builder *builder;
  struct manifest_identity identity = own->identity;
  struct manifest_version version = own->version;
  enum sprout_status status = manifest_builder_create(&builder);
  if (status != SPROUT_OK) return status;
  if (source->has_reference) {
    memcpy(&identity, source->identity, sizeof identity);
    memcpy(version.label, source->label, sizeof version.label);
  }
  status = manifest_builder_identity(builder, &identity);
  manifest_builder_version(builder, &version);
  for (uint32_t i = 0; i < own->file_count && status == SPROUT_OK; i++)
    status = add_objects(builder, own, &own->files[i]);
  if (status == SPROUT_OK) status = manifest_build(builder, &source->manifest, &source->error);
  if (status != SPROUT_OK) manifest_builder_destroy(builder);
  return status;
}

static void open_directory(struct work *work) {
  struct file_source *source = container_of(work, struct file_source, open);
  const char *path = source->directory;
  struct model_options options = {
      .paths = &path, .path_count = 1, .rank = "", .label = "", .memory = MODEL_MEMORY_FILE};
  source->error.status = model_open(&options, &source->model, &source->error);
  if (source->error.status != SPROUT_OK) return;
  enum sprout_status status = rename_manifest(source, source->model->manifest);
  if (status != SPROUT_OK)
    sprout_error_set(&source->error, status, 0, NULL, "its layout cannot be taken over");
}

static void opened(struct work *work) {
  struct file_source *source = container_of(work, struct file_source, open);
  source->opening = false;
  if (source->state != FILE_OPENING) {
    reactor_defer(source->reactor, &source->tell);
    return;
  }
  if (source->error.status != SPROUT_OK) {
    source->state = FILE_FAILING;
    reactor_defer(source->reactor, &source->tell);
    return;
  }
  source->state = FILE_KNOWN;
  struct manifest *manifest = source->manifest;
  source->manifest = NULL;
  source->base.listener->manifest(&source->base, manifest);
}

void file_source_forget_model(struct file_source *source) {
  manifest_destroy(source->manifest);
  source->manifest = NULL;
  model_destroy(source->model);
  source->model = NULL;
  for (size_t i = 0; i < IDENTITY_KEYS; i++) {
    free(source->identity[i]);
    source->identity[i] = NULL;
  }
}

void file_source_connect(struct source *base) {
  struct file_source *source = file_of(base);
  const struct manifest *reference =
      source->reference ? source->reference(source->reference_context) : NULL;
  source->state = FILE_OPENING;
  source->error.status = SPROUT_OK;
  source->has_reference = reference != NULL;
  atomic_store(&source->stop, false);
  for (size_t i = 0; reference && i < IDENTITY_KEYS; i++) {
    source->identity[i] = strdup(identity_keys(&reference->identity)[i]);
    if (!source->identity[i]) {
      file_source_fail(source, SPROUT_NO_MEMORY, 0, "no memory for its identity");
      return;
    }
  }
  if (reference) memcpy(source->label, reference->version.label, sizeof source->label);
  source->opening = true;
  reactor_work(source->reactor, &source->open);
}

/* --- digests, on a worker --- */

static void run_digests(struct work *work) {
  struct file_digests *digests = container_of(work, struct file_digests, work);
  unsigned char *piece = malloc(MODEL_PIECE_BYTES);
  digests->status = piece ? SPROUT_OK : SPROUT_NO_MEMORY;
  for (uint64_t i = 0; i < digests->count && digests->status == SPROUT_OK; i++) {
    if (atomic_load(&digests->source->stop)) break;
    int error =
        model_digest_chunk(digests->source->model, digests->first + i, piece, &digests->values[i]);
    digests->status = error == 0 ? SPROUT_OK : SPROUT_IO;
    digests->known[i] = digests->status == SPROUT_OK;
  }
  free(piece);
}

static void digests_done(struct work *work) {
  struct file_digests *digests = container_of(work, struct file_digests, work);
  struct file_source *source = digests->source;
  digests->busy = false;
  if (source->state >= FILE_FAILING) {
    reactor_defer(source->reactor, &source->tell);
  } else if (digests->status != SPROUT_OK) {
    file_source_fail(source, digests->status, 0, "its bytes cannot be read");
  } else {
    source->base.listener->digests(&source->base, digests->first, digests->count, digests->values,
                                   digests->known);
  }
  free(digests->values);
  free(digests->known);
  digests->values = NULL;
  digests->known = NULL;
}

void file_source_request_digests(struct source *base, uint64_t first, uint64_t count,
                                 bool compute) {
  struct file_source *source = file_of(base);
  (void)compute; /* there is nobody else who would compute them */
  struct file_digests *digests = source->digests;
  while (digests->busy) digests++;
  assert(digests < source->digests + SOURCE_DIGEST_REQUESTS);
  digests->values = calloc(count, sizeof *digests->values);
  digests->known = calloc(count, sizeof *digests->known);
  if (!digests->values || !digests->known) {
    free(digests->values);
    free(digests->known);
    digests->values = NULL;
    digests->known = NULL;
    file_source_fail(source, SPROUT_NO_MEMORY, 0, "no memory for digests");
    return;
  }
  digests->first = first;
  digests->count = count;
  digests->busy = true;
  reactor_work(source->reactor, &digests->work);
}

void file_source_workers_init(struct file_source *source) {
  source->open = (struct work){.run = open_directory, .done = opened};
  for (uint32_t i = 0; i < SOURCE_DIGEST_REQUESTS; i++) {
    source->digests[i].source = source;
    source->digests[i].work = (struct work){.run = run_digests, .done = digests_done};
  }
}
