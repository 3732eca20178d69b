/* SPDX-License-Identifier: Apache-2.0 */
#include "core/model_internal.h"

#include "core/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES (4u << 20)

static enum sprout_status cannot_read(const char *path, struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_BAD_MODEL, errno,
                          "Check that the file is whole and readable.", "cannot read %s: %s", path,
                          strerror(errno));
}

static enum sprout_status no_memory(const char *path, struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_NO_MEMORY, errno, NULL, "no memory for %s", path);
}

/* Copies the file into a sealed memory file: it can be sent by sendfile, and the original may go.
 */
static SPROUT_MUST_CHECK enum sprout_status
copy_to_memory(int *fd, uint64_t length, const char *path, struct sprout_error *error) {
  int memory = memfd_create("sprout-model", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0)
    return sprout_error_set(error, SPROUT_LIMIT, errno, NULL, "cannot make memory for %s: %s", path,
                            strerror(errno));
  uint64_t done = 0;
  enum sprout_status status = SPROUT_OK;
  if (ftruncate(memory, (off_t)length) != 0) status = no_memory(path, error);
  off_t from = 0;
  while (status == SPROUT_OK && done < length) {
    uint64_t left = length - done;
    ssize_t copied =
        copy_file_range(*fd, &from, memory, NULL, left < COPY_BYTES ? left : COPY_BYTES, 0);
    if (copied < 0 && errno == EINTR) continue;
    if (copied <= 0) break;
    done += (uint64_t)copied;
  }
  unsigned char *block = status == SPROUT_OK && done < length ? malloc(COPY_BYTES) : NULL;
  while (block && done < length) { /* file systems between which the kernel does not copy */
    uint64_t left = length - done;
    ssize_t got = pread(*fd, block, left < COPY_BYTES ? left : COPY_BYTES, (off_t)done);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ENODATA;
    if (got <= 0 || pwrite(memory, block, (size_t)got, (off_t)done) != got) break;
    done += (uint64_t)got;
  }
  free(block);
  if (status == SPROUT_OK && done < length)
    status = errno == ENOMEM || errno == ENOSPC ? no_memory(path, error) : cannot_read(path, error);
  if (status != SPROUT_OK) {
    close(memory);
    return status;
  }
  fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  close(*fd);
  *fd = memory;
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status map_region(int fd, uint64_t length,
                                                       enum model_memory memory, const char *path,
                                                       struct region *region_out,
                                                       struct sprout_error *error) {
  void *base = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return sprout_error_set(error, SPROUT_LIMIT, errno,
                            "Raise vm.max_map_count or the address space limit.",
                            "cannot map %s: %s", path, strerror(errno));
  }
  madvise(base, length, MADV_SEQUENTIAL);
  *region_out = (struct region){.base = base,
                                .length_bytes = length,
                                .memory = memory == MODEL_MEMORY_HOST ? SPROUT_MEMORY_HOST
                                                                      : SPROUT_MEMORY_FILE,
                                .immutable = true,
                                .fd = fd,
                                .mapped = true};
  return SPROUT_OK;
}

static bool is_safetensors(const char *name) {
  static const char ending[] = ".safetensors";
  size_t length = strlen(name);
  return length >= sizeof ending - 1 && strcmp(name + length - (sizeof ending - 1), ending) == 0;
}

static SPROUT_MUST_CHECK enum sprout_status add_blob(struct model_draft *draft, const char *name,
                                                     uint32_t region, uint64_t length) {
  struct manifest_object object = {.name = name,
                                   .dtype = "",
                                   .kind = SPROUT_OBJECT_BLOB,
                                   .alias_of = MANIFEST_NONE,
                                   .length_bytes = length};
  return model_draft_object(draft, &object, true, region, 0);
}

static SPROUT_MUST_CHECK enum sprout_status
add_tensors(struct model_draft *draft, const struct safetensors_header *header, uint32_t region) {
  enum sprout_status status = add_blob(draft, MANIFEST_HEADER_NAME, region, header->data_offset);
  uint32_t first = draft->object_count;
  for (uint32_t i = 0; i < header->count && status == SPROUT_OK; i++) {
    const struct safetensors_tensor *tensor = &header->tensors[i];
    struct manifest_object object = {
        .name = tensor->name,
        .dtype = tensor->dtype,
        .kind = SPROUT_OBJECT_TENSOR,
        .alias_of = tensor->alias_of == UINT32_MAX ? MANIFEST_NONE : first + tensor->alias_of,
        .rank = tensor->rank,
        .length_bytes = tensor->length_bytes,
        .file_offset = tensor->file_offset};
    memcpy(object.shape, tensor->shape, sizeof object.shape);
    status = model_draft_object(draft, &object, true, region, tensor->file_offset);
  }
  return status;
}

/* The header is read, not touched through the mapping: a file that shrinks meanwhile is an error,
 * not SIGBUS. */
static SPROUT_MUST_CHECK enum sprout_status read_header(int fd, const char *path, uint64_t length,
                                                        struct safetensors_header *header_out,
                                                        struct sprout_error *error) {
  unsigned char prefix[SAFETENSORS_LENGTH_BYTES];
  ssize_t got = pread(fd, prefix, sizeof prefix, 0);
  if (got < 0) return cannot_read(path, error);
  uint64_t wanted;
  enum sprout_status status =
      safetensors_header_bytes(path, prefix, (uint64_t)got, length, &wanted, error);
  if (status != SPROUT_OK) return status;
  unsigned char *data = malloc(wanted);
  if (!data) return no_memory(path, error);
  uint64_t have = 0;
  while (have < wanted && (got = pread(fd, data + have, wanted - have, (off_t)have)) > 0)
    have += (uint64_t)got;
  status = got < 0 ? cannot_read(path, error)
                   : safetensors_parse(path, data, have, length, header_out, error);
  free(data);
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status add_objects(struct model_draft *draft, int fd,
                                                        const char *name, const char *path,
                                                        uint32_t region, uint64_t length,
                                                        struct sprout_error *error) {
  if (!is_safetensors(name)) return length > 0 ? add_blob(draft, name, region, length) : SPROUT_OK;
  struct safetensors_header header;
  enum sprout_status status = read_header(fd, path, length, &header, error);
  if (status != SPROUT_OK) return status;
  status = add_tensors(draft, &header, region);
  safetensors_destroy(&header);
  draft->tensor_files++;
  return status;
}

/* What the builder refused: building says it in words. */
static enum sprout_status explain(struct model_draft *draft, enum sprout_status status,
                                  const char *path, struct sprout_error *error) {
  if (status == SPROUT_NO_MEMORY) return no_memory(path, error);
  struct manifest *never = NULL;
  status = manifest_build(draft->builder, &never, error);
  if (status != SPROUT_OK) return status;
  draft->builder = NULL;
  manifest_destroy(never);
  return sprout_error_set(error, SPROUT_INTERNAL, 0, NULL, "%s was refused without a reason", path);
}

enum sprout_status model_add_file(struct model_draft *draft, int fd, const char *name,
                                  const char *path, enum model_memory memory,
                                  struct sprout_error *error) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    enum sprout_status status = cannot_read(path, error);
    close(fd);
    return status;
  }
  uint64_t length = (uint64_t)info.st_size;
  uint32_t index = UINT32_MAX;
  enum sprout_status status = SPROUT_OK;
  if (length > 0 && memory == MODEL_MEMORY_HOST) status = copy_to_memory(&fd, length, path, error);
  struct region region = {.fd = fd, .mapped = true};
  if (status == SPROUT_OK && length > 0) {
    status = map_region(fd, length, memory, path, &region, error);
    if (status == SPROUT_OK) {
      status = model_draft_region(draft, &region, &index);
      if (status != SPROUT_OK) status = no_memory(path, error);
    }
  }
  if (status == SPROUT_OK) {
    bool executable = (info.st_mode & S_IXUSR) != 0;
    enum sprout_status added = manifest_builder_file(draft->builder, name, length, executable);
    if (added != SPROUT_OK) status = explain(draft, added, path, error);
  }
  if (status == SPROUT_OK) {
    error->status = SPROUT_OK;
    status = add_objects(draft, fd, name, path, index, length, error);
    if (status != SPROUT_OK && error->status == SPROUT_OK)
      status = explain(draft, status, path, error);
  }
  if (index == UINT32_MAX) region_close(&region); /* empty, or failed before the draft owned it */
  return status;
}
