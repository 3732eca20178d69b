/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of tensors in the caller's memory. Neighbours and overlaps share a region; a tensor with
 * the span of an earlier one is its alias.
 */
#include "core/model_internal.h"

#include <stdlib.h>
#include <string.h>

struct span {
  uintptr_t begin, end;
  uint32_t tensor;
};

static int compare_spans(const void *a, const void *b) {
  const struct span *x = a, *y = b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  if (x->end != y->end) return x->end < y->end ? -1 : 1;
  return x->tensor < y->tensor ? -1 : 1;
}

static SPROUT_MUST_CHECK enum sprout_status check(const struct sprout_tensor *tensor, size_t number,
                                                  struct sprout_error *error) {
  const char *wrong = NULL;
  enum sprout_status status = SPROUT_INVALID;
  if (!tensor->name || !tensor->name[0])
    wrong = "has no name";
  else if (!tensor->dtype || !tensor->dtype[0])
    wrong = "has no dtype";
  else if (tensor->rank > SPROUT_MAX_RANK)
    wrong = "has more than 8 dimensions";
  else if (tensor->length_bytes > 0 && !tensor->address)
    wrong = "has no address";
  else if ((uintptr_t)tensor->address + tensor->length_bytes < (uintptr_t)tensor->address)
    wrong = "ends beyond the address space";
  else if (tensor->memory == SPROUT_MEMORY_CUDA) {
    wrong = "lies in CUDA memory, which this build cannot read";
    status = SPROUT_UNSUPPORTED;
  }
  if (!wrong) return SPROUT_OK;
  return sprout_error_set(error, status, 0, NULL, "tensor %zu (%s) %s", number,
                          tensor->name ? tensor->name : "", wrong);
}

/* Per tensor: where it lies, and the earliest tensor with the same span. */
struct lay {
  struct placement placement;
  uint32_t alias_of;
};

static SPROUT_MUST_CHECK enum sprout_status add_region(struct model_draft *draft, uintptr_t begin,
                                                       uintptr_t end, bool immutable,
                                                       uint32_t *index_out) {
  struct region region = {.base = (const unsigned char *)begin,
                          .length_bytes = end - begin,
                          .memory = SPROUT_MEMORY_HOST,
                          .immutable = immutable,
                          .fd = -1};
  return model_draft_region(draft, &region, index_out);
}

/* `spans` sorted: equal ones are neighbours, the earliest tensor first. */
static SPROUT_MUST_CHECK enum sprout_status lay_out(struct model_draft *draft,
                                                    const struct span *spans, size_t count,
                                                    bool immutable, struct lay *lays) {
  size_t first = 0;
  while (first < count) {
    size_t next = first;
    uintptr_t end = spans[first].end;
    while (next < count && spans[next].begin <= end) {
      if (spans[next].end > end) end = spans[next].end;
      next++;
    }
    uint32_t region;
    enum sprout_status status = add_region(draft, spans[first].begin, end, immutable, &region);
    if (status != SPROUT_OK) return status;
    for (size_t i = first; i < next; i++) {
      struct lay *lay = &lays[spans[i].tensor];
      lay->placement =
          (struct placement){.region = region, .offset = spans[i].begin - spans[first].begin};
      lay->alias_of = MANIFEST_NONE;
      bool same =
          i > first && spans[i].begin == spans[i - 1].begin && spans[i].end == spans[i - 1].end;
      if (!same || spans[i].begin == spans[i].end) continue;
      uint32_t earlier = spans[i - 1].tensor;
      lay->alias_of = lays[earlier].alias_of == MANIFEST_NONE ? earlier : lays[earlier].alias_of;
    }
    first = next;
  }
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status add_objects(struct model_draft *draft,
                                                        const struct sprout_tensor *tensors,
                                                        size_t count, const struct lay *lays) {
  for (size_t i = 0; i < count; i++) {
    struct manifest_object object = {.name = tensors[i].name,
                                     .dtype = tensors[i].dtype,
                                     .kind = SPROUT_OBJECT_TENSOR,
                                     .alias_of = lays[i].alias_of,
                                     .rank = tensors[i].rank,
                                     .length_bytes = tensors[i].length_bytes};
    memcpy(object.shape, tensors[i].shape, sizeof object.shape);
    memcpy(object.strides, tensors[i].strides, sizeof object.strides);
    enum sprout_status status = model_draft_object(draft, &object, false, lays[i].placement.region,
                                                   lays[i].placement.offset);
    /* What the builder refuses is said by manifest_build. */
    if (status != SPROUT_OK) return status == SPROUT_NO_MEMORY ? status : SPROUT_OK;
  }
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status
fill(struct model_draft *draft, const struct sprout_tensor *tensors, size_t count, bool immutable) {
  struct span *spans = calloc(count + 1, sizeof *spans);
  struct lay *lays = calloc(count + 1, sizeof *lays);
  enum sprout_status status = spans && lays ? SPROUT_OK : SPROUT_NO_MEMORY;
  for (size_t i = 0; status == SPROUT_OK && i < count; i++) {
    uintptr_t begin = (uintptr_t)tensors[i].address;
    spans[i] = (struct span){
        .begin = begin, .end = begin + tensors[i].length_bytes, .tensor = (uint32_t)i};
  }
  if (status == SPROUT_OK) {
    qsort(spans, count, sizeof *spans, compare_spans);
    status = lay_out(draft, spans, count, immutable, lays);
  }
  if (status == SPROUT_OK) status = add_objects(draft, tensors, count, lays);
  free(spans);
  free(lays);
  return status;
}

enum sprout_status model_from_tensors(const struct sprout_tensor *tensors, size_t count,
                                      bool immutable, const struct model_options *options,
                                      struct model **model_out, struct sprout_error *error) {
  if (count == 0 || count >= UINT32_MAX) {
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                            "a seed of tensors needs at least one tensor");
  }
  for (size_t i = 0; i < count; i++) {
    enum sprout_status status = check(&tensors[i], i, error);
    if (status != SPROUT_OK) return status;
  }
  struct model_draft draft;
  enum sprout_status status = model_draft_init(&draft);
  if (status == SPROUT_OK) {
    status = fill(&draft, tensors, count, immutable);
    if (status != SPROUT_OK) model_draft_destroy(&draft);
  }
  if (status != SPROUT_OK)
    return sprout_error_set(error, status, 0, NULL, "no memory to lay out %zu tensors", count);
  struct manifest_identity identity = {.model = options->name ? options->name : "model",
                                       .revision = "",
                                       .dtype = model_draft_dtype(&draft),
                                       .quantization = "",
                                       .engine = "",
                                       .layout = "",
                                       .role = "main",
                                       .rank = options->rank ? options->rank : ""};
  return model_draft_finish(&draft, &identity, options, model_out, error);
}
