/* SPDX-License-Identifier: Apache-2.0 */
#include "core/model_internal.h"

#include "core/json_config.h"
#include "core/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES (4u << 20)

enum sprout_status model_io_error(struct sprout_error *error, int code, const char *verb,
                                  const char *path) {
  enum sprout_status status = SPROUT_IO;
  const char *hint = "Check that the file is whole and readable.";
  if (code == EMFILE || code == ENFILE) {
    status = SPROUT_LIMIT;
    hint = "Raise the limit of open files (ulimit -n): each file of the model needs one.";
  } else if (code == ENOMEM) {
    status = SPROUT_NO_MEMORY;
    hint = NULL;
  } else if (code == EACCES || code == EPERM) {
    hint = "Make it readable for the user who runs this, or move it out of the model.";
  } else if (code == ENOENT || code == ENOTDIR || code == ELOOP) {
    hint = "Name a directory with *.safetensors files, or such files.";
  } else if (code == ENODATA) {
    return sprout_error_set(error, SPROUT_BAD_MODEL, code,
                            "Start again when nobody writes to the model.",
                            "%s became shorter while it was read", path);
  }
  return sprout_error_set(error, status, code, hint, "cannot %s %s: %s", verb, path,
                          strerror(code));
}

static enum sprout_status cannot_read(const char *path, struct sprout_error *error) {
  return model_io_error(error, errno, "read", path);
}

static enum sprout_status no_memory(const char *path, struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_NO_MEMORY, errno, NULL, "no memory for %s", path);
}

/* What the kernel thinks can be had without swapping; UINT64_MAX when it does not say. */
static uint64_t available_bytes(void) {
  static const char key[] = "MemAvailable:";
  uint64_t available = UINT64_MAX;
  char line[128];
  FILE *info = fopen("/proc/meminfo", "re");
  if (!info) return available;
  while (fgets(line, sizeof line, info)) {
    if (strncmp(line, key, sizeof key - 1) != 0) continue;
    available = strtoull(line + sizeof key - 1, NULL, 10) * 1024;
    break;
  }
  fclose(info);
  return available;
}

/* Copies the file into a sealed memory file: it can be sent by sendfile, and the original may go.
 */
static SPROUT_MUST_CHECK enum sprout_status
copy_to_memory(int *fd, uint64_t length, const char *path, struct sprout_error *error) {
  uint64_t available = available_bytes();
  if (length > available)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0,
                            "Serve the mapped files instead (--memory file), or free some memory.",
                            "%s needs %llu MB of memory, %llu MB are available", path,
                            (unsigned long long)(length / 1000000),
                            (unsigned long long)(available / 1000000));
  int memory = memfd_create("sprout-model", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0) return model_io_error(error, errno, "make memory for", path);
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
  if (fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    status = model_io_error(error, errno, "seal the memory of", path);
    close(memory);
    return status;
  }
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
  struct stat info;
  if (fstat(fd, &info) != 0 || (uint64_t)info.st_size != length) {
    munmap(base, length);
    return sprout_error_set(error, SPROUT_BAD_MODEL, 0,
                            "Start again when nobody writes to the model.",
                            "the length of %s changed while it was opened", path);
  }
  /* Doubles the read-ahead of sendfile, pread and the mapping alike. Unlike MADV_SEQUENTIAL it does
   * not make what was read the first to leave the page cache: the next fork wants it. */
  (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
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

static SPROUT_MUST_CHECK enum sprout_status
read_exactly(int fd, void *data, uint64_t length, const char *path, struct sprout_error *error) {
  uint64_t have = 0;
  while (have < length) {
    ssize_t got = pread(fd, (char *)data + have, length - have, (off_t)have);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ENODATA;
    if (got <= 0) return cannot_read(path, error);
    have += (uint64_t)got;
  }
  return SPROUT_OK;
}

/* The header is read, not touched through the mapping: a file that shrinks meanwhile is an error,
 * not SIGBUS. */
static SPROUT_MUST_CHECK enum sprout_status read_header(int fd, const char *path, uint64_t length,
                                                        struct safetensors_header *header_out,
                                                        struct sprout_error *error) {
  unsigned char prefix[SAFETENSORS_LENGTH_BYTES];
  uint64_t wanted, first = length < sizeof prefix ? length : sizeof prefix;
  enum sprout_status status = read_exactly(fd, prefix, first, path, error);
  if (status == SPROUT_OK)
    status = safetensors_header_bytes(path, prefix, first, length, &wanted, error);
  if (status != SPROUT_OK) return status;
  unsigned char *data = malloc(wanted);
  if (!data) return no_memory(path, error);
  status = read_exactly(fd, data, wanted, path, error);
  if (status == SPROUT_OK)
    status = safetensors_parse(path, data, wanted, length, header_out, error);
  free(data);
  return status;
}

/* The quantisation that config.json names, when it names one. */
static SPROUT_MUST_CHECK enum sprout_status read_config(struct model_draft *draft, int fd,
                                                        const char *path, uint64_t length,
                                                        struct sprout_error *error) {
  if (length == 0 || length > JSON_CONFIG_BYTES_MAX) return SPROUT_OK;
  char *text = malloc(length);
  if (!text) return no_memory(path, error);
  enum sprout_status status = read_exactly(fd, text, length, path, error);
  if (status == SPROUT_OK)
    json_config_quantization(text, length, draft->quantization, sizeof draft->quantization);
  free(text);
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status add_objects(struct model_draft *draft, int fd,
                                                        const char *name, const char *path,
                                                        uint32_t region, uint64_t length,
                                                        struct sprout_error *error) {
  if (!is_safetensors(name)) {
    enum sprout_status status = SPROUT_OK;
    if (strcmp(name, "config.json") == 0) status = read_config(draft, fd, path, length, error);
    if (status == SPROUT_OK && length > 0) status = add_blob(draft, name, region, length);
    return status;
  }
  struct safetensors_header header;
  enum sprout_status status = read_header(fd, path, length, &header, error);
  if (status != SPROUT_OK) return status;
  status = add_tensors(draft, &header, region);
  if (draft->quantization[0] == 0 && strlen(header.quantization) < sizeof draft->quantization)
    memcpy(draft->quantization, header.quantization, strlen(header.quantization) + 1);
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
