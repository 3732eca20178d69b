/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of tensors in the caller's memory. Objects are ordered by name, so that seeds that list
 * the same tensors in another order have one layout. Neighbours and overlaps share a region; of
 * tensors with one span all but the first by name are its aliases.
 */
#include "core/limits.h"
#include "core/model_internal.h"
#include "core/safetensors.h"

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

static int compare_names(const void *a, const void *b) {
  return strcmp(((const struct sprout_tensor *)a)->name, ((const struct sprout_tensor *)b)->name);
}

static SPROUT_MUST_CHECK enum sprout_status check(const struct sprout_tensor *tensor, size_t number,
                                                  struct sprout_error *error) {
  const char *wrong = NULL;
  char quoted[MANIFEST_QUOTE_BYTES];
  enum sprout_status status = SPROUT_INVALID;
  if (!tensor->name || !tensor->name[0])
    wrong = "has no name";
  else if (!tensor->dtype || !tensor->dtype[0])
    wrong = "has no dtype";
  else if (safetensors_dtype_bits(tensor->dtype) == 0)
    wrong = "has a dtype that is not known";
  else if (tensor->rank > SPROUT_MAX_RANK)
    wrong = "has more than 8 dimensions";
  else if (tensor->length_bytes > 0 && !tensor->address)
    wrong = "has no address";
  else if ((uintptr_t)tensor->address + tensor->length_bytes < (uintptr_t)tensor->address)
    wrong = "ends beyond the address space";
  else if (tensor->memory != SPROUT_MEMORY_HOST) {
    wrong = "does not lie in host memory, which is all that this build can read";
    status = SPROUT_UNSUPPORTED;
  }
  if (!wrong) return SPROUT_OK;
  return sprout_error_set(error, status, 0, NULL, "tensor %zu \"%s\" %s", number,
                          manifest_quote(tensor->name ? tensor->name : "", quoted), wrong);
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
      if (!same) continue;
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
  size_t occupied = 0;
  for (size_t i = 0; status == SPROUT_OK && i < count; i++) {
    uintptr_t begin = (uintptr_t)tensors[i].address;
    lays[i].alias_of = MANIFEST_NONE;
    if (tensors[i].length_bytes == 0) continue; /* may have no address: lies nowhere */
    spans[occupied++] = (struct span){
        .begin = begin, .end = begin + tensors[i].length_bytes, .tensor = (uint32_t)i};
  }
  if (status == SPROUT_OK) {
    qsort(spans, occupied, sizeof *spans, compare_spans);
    status = lay_out(draft, spans, occupied, immutable, lays);
  }
  uint32_t nowhere;
  if (status == SPROUT_OK && occupied == 0)
    status = add_region(draft, 0, 0, immutable, &nowhere); /* that placements are never dangling */
  if (status == SPROUT_OK) status = add_objects(draft, tensors, count, lays);
  free(spans);
  free(lays);
  return status;
}

static SPROUT_MUST_CHECK enum sprout_status
build(const struct sprout_tensor *tensors, size_t count, bool immutable,
      const struct model_options *options, struct model **model_out, struct sprout_error *error) {
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

enum sprout_status model_from_tensors(const struct sprout_tensor *tensors, size_t count,
                                      bool immutable, const struct model_options *options,
                                      struct model **model_out, struct sprout_error *error) {
  if (count == 0 || count > LIMIT_OBJECTS) {
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "a seed has 1 to %d tensors, not %zu",
                            LIMIT_OBJECTS, count);
  }
  for (size_t i = 0; i < count; i++) {
    enum sprout_status status = check(&tensors[i], i, error);
    if (status != SPROUT_OK) return status;
  }
  struct sprout_tensor *sorted = calloc(count, sizeof *sorted);
  if (!sorted)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory to lay out %zu tensors",
                            count);
  memcpy(sorted, tensors, count * sizeof *sorted);
  qsort(sorted, count, sizeof *sorted, compare_names);
  struct sprout_error local = {0};
  enum sprout_status status = build(sorted, count, immutable, options, model_out, &local);
  free(sorted);
  if (status == SPROUT_OK) return status;
  /* There is no file that could be bad: the tensors are arguments. */
  if (status == SPROUT_BAD_MODEL) local.status = status = SPROUT_INVALID;
  if (error) *error = local;
  return status;
}
