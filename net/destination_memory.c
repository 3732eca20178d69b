/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caller memory as a destination: tensors by name. Bytes are received straight into the caller's
 * memory; there is no staging.
 *
 * prepare matches every tensor with the manifest's object of that name: dtype, shape, strides and
 * length must be equal, and caller spans may overlap only where the seed's bytes are one (aliases).
 * All differences are reported in one error (what does not fit into it is logged). Bytes of an
 * object whose aliases are asked for too, at other addresses, are copied there when they are
 * stored.
 *
 * After a failure the content of the memory is undefined, but nothing is written any more.
 */
#include "net/destination_answers.h"
#include "net/sources.h"

#include "net/destination_memory_match.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct memory_destination {
  struct destination base;
  struct destination_answers answers;
  const struct sprout_tensor *tensors;
  size_t count;
  struct memory_match match;
  struct iovec *spans; /* one per tensor, for landing */
};

static struct memory_destination *memory_of(struct destination *destination) {
  return container_of(destination, struct memory_destination, base);
}

static void prepare(struct destination *destination, const struct manifest *manifest,
                    const uint64_t *selected, bool reuse) {
  struct memory_destination *memory = memory_of(destination);

  (void)selected; /* the tensors say what is wanted */
  (void)reuse;
  memory_match_destroy(&memory->match);
  memory->answers.prepare_error = (struct sprout_error){.status = SPROUT_OK};
  /* The match has filled the error; it is told by the answer. */
  enum sprout_status status = memory_match_create(manifest, memory->tensors, memory->count,
                                                  &memory->match, &memory->answers.prepare_error);
  assert(status == memory->answers.prepare_error.status);
  destination_answers_give(&memory->answers, ANSWER_PREPARED);
}

/* Adds one range to the scatter list, in pieces; neighbours in memory share a piece. */
static void add_range(struct destination_transfer *transfer, unsigned char *to,
                      uint64_t length_bytes) {
  while (length_bytes > 0) {
    struct iovec *last = transfer->iov_count > 0 ? &transfer->iov[transfer->iov_count - 1] : NULL;
    uint64_t piece =
        length_bytes < DESTINATION_PIECE_BYTES ? length_bytes : DESTINATION_PIECE_BYTES;
    bool extends = last != NULL && (unsigned char *)last->iov_base + last->iov_len == to &&
                   last->iov_len + piece <= DESTINATION_PIECE_BYTES;
    if (extends) {
      last->iov_len += (size_t)piece;
    } else {
      assert(transfer->iov_count < DESTINATION_IOV_MAX);
      transfer->iov[transfer->iov_count++] =
          (struct iovec){.iov_base = to, .iov_len = (size_t)piece};
    }
    to += piece;
    length_bytes -= piece;
  }
}

static bool map(struct destination *destination, struct destination_transfer *transfer) {
  struct memory_destination *memory = memory_of(destination);

  transfer->iov_count = 0;
  for (uint32_t i = 0; i < transfer->range_count; i++) {
    const struct source_range *range = &transfer->ranges[i];
    const struct memory_object *object = &memory->match.objects[range->object];
    /* Only objects that the tensors named are selected. */
    assert(object->address != NULL);
    add_range(transfer, object->address + range->offset, range->length_bytes);
  }
  return true;
}

static uint32_t landing(struct destination *destination, const struct iovec **spans_out) {
  struct memory_destination *memory = memory_of(destination);
  for (size_t i = 0; i < memory->count; i++)
    memory->spans[i] = (struct iovec){.iov_base = memory->tensors[i].address,
                                      .iov_len = (size_t)memory->tensors[i].length_bytes};
  *spans_out = memory->spans;
  return (uint32_t)memory->count;
}

static void store(struct destination *destination, struct destination_transfer *transfer) {
  struct memory_destination *memory = memory_of(destination);

  for (uint32_t i = 0; i < transfer->range_count; i++) {
    const struct source_range *range = &transfer->ranges[i];
    const struct memory_object *object = &memory->match.objects[range->object];
    for (uint32_t copy = object->first_copy; copy != MANIFEST_NONE;
         copy = memory->match.copies[copy].next)
      memcpy(memory->match.copies[copy].address + range->offset, object->address + range->offset,
             range->length_bytes);
  }
  destination_answers_stored(&memory->answers, transfer);
}

static void release(struct destination *destination, struct destination_transfer *transfer) {
  (void)destination;
  (void)transfer;
}

static void finish(struct destination *destination) {
  destination_answers_give(&memory_of(destination)->answers, ANSWER_FINISHED);
}

static void abort_fork(struct destination *destination) {
  struct memory_destination *memory = memory_of(destination);

  destination_answers_abort(&memory->answers);
}

static void destroy(struct destination *destination) {
  struct memory_destination *memory = memory_of(destination);

  destination_answers_end(&memory->answers);
  memory_match_destroy(&memory->match);
  free(memory->spans);
  free(memory);
}

enum sprout_status destination_memory_create(struct reactor *reactor,
                                             const struct sprout_tensor *tensors, size_t count,
                                             struct destination **destination_out,
                                             struct sprout_error *error) {
  static const struct destination_ops ops = {.prepare = prepare,
                                             .map = map,
                                             .landing = landing,
                                             .store = store,
                                             .release = release,
                                             .finish = finish,
                                             .abort = abort_fork,
                                             .destroy = destroy};
  enum sprout_status status = memory_match_check_tensors(tensors, count, error);
  struct memory_destination *memory;

  if (status != SPROUT_OK) return status;
  memory = calloc(1, sizeof(*memory));
  if (memory != NULL) memory->spans = calloc(count, sizeof(*memory->spans));
  if (memory == NULL || memory->spans == NULL) {
    free(memory);
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for a destination");
  }
  destination_answers_init(&memory->answers, &memory->base, reactor);
  memory->tensors = tensors;
  memory->count = count;
  memory->base.ops = &ops;
  *destination_out = &memory->base;
  return SPROUT_OK;
}
