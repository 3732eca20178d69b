/* SPDX-License-Identifier: Apache-2.0 */
#include "core/model_digest.h"

#include <errno.h>
#include <unistd.h>

static int digest_file_chunk(const struct region *region, uint64_t offset, uint64_t length,
                             unsigned char *piece, struct digest *digest_out) {
  struct digest_stream stream;
  digest_begin(&stream);
  while (length > 0) {
    size_t part = length < MODEL_PIECE_BYTES ? (size_t)length : MODEL_PIECE_BYTES;
    ssize_t got = pread(region->fd, piece, part, (off_t)(region->fd_offset + offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return ENODATA;
    digest_update(&stream, piece, (size_t)got);
    offset += (uint64_t)got;
    length -= (uint64_t)got;
  }
  *digest_out = digest_end(&stream);
  return 0;
}

int model_digest_chunk(const struct model *model, uint64_t chunk, unsigned char *piece,
                       struct digest *digest_out) {
  struct manifest_chunk at = manifest_chunk_at(model->manifest, chunk);
  const struct placement *placement = &model->placements[at.object];
  const struct region *region = &model->regions[placement->region];
  uint64_t offset = placement->offset + at.offset;
  if (region->memory == SPROUT_MEMORY_FILE)
    return digest_file_chunk(region, offset, at.length_bytes, piece, digest_out);
  *digest_out = digest_of(region->base + offset, at.length_bytes);
  return 0;
}
