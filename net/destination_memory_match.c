/* SPDX-License-Identifier: Apache-2.0 */
#include "net/destination_memory_match.h"

#include "core/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_BYTES 320

/* One tensor and the object it was matched with. */
struct span {
  const struct sprout_tensor *tensor;
  uint32_t object; /* that owns the bytes: an alias's target */
};

/* All differences: the first ones go into the error, every one is logged. */
struct differences {
  size_t count;
  size_t listed;
  size_t used;
  char text[384];
};

static void add_difference(struct differences *differences, const char *text) {
  size_t room = sizeof(differences->text) - differences->used;
  int written;

  differences->count++;
  log_write(LOG_ERROR, "fork", "destination tensor: %s", text);
  if (differences->listed + 1 < differences->count) return; /* the list is full already */
  written = snprintf(differences->text + differences->used, room, "%s%s",
                     differences->used == 0 ? "" : "; ", text);
  if (written < 0 || (size_t)written >= room) {
    differences->text[differences->used] = '\0';
    return;
  }
  differences->used += (size_t)written;
  differences->listed++;
}

static enum sprout_status report(const struct differences *differences,
                                 struct sprout_error *error) {
  const char *hint = "Fork into tensors with the names, dtypes, shapes and strides that `sprout ls "
                     "URL` shows.";

  if (differences->listed == differences->count)
    return sprout_error_set(error, SPROUT_MISMATCH, 0, hint, "%zu tensor%s do%s not match: %s",
                            differences->count, differences->count == 1 ? "" : "s",
                            differences->count == 1 ? "es" : "", differences->text);
  return sprout_error_set(
      error, SPROUT_MISMATCH, 0, hint, "%zu tensors do not match: %s%sand %zu more (see the log)",
      differences->count, differences->text, differences->listed == 0 ? "" : "; ",
      differences->count - differences->listed);
}

static void format_shape(char *text, size_t text_bytes, const char *dtype, uint32_t rank,
                         const uint64_t *shape) {
  size_t used = (size_t)snprintf(text, text_bytes, "%s[", dtype);

  for (uint32_t i = 0; i < rank && used < text_bytes; i++)
    used +=
        (size_t)snprintf(text + used, text_bytes - used, "%s%" PRIu64, i == 0 ? "" : ",", shape[i]);
  if (used < text_bytes) snprintf(text + used, text_bytes - used, "]");
}

static bool shapes_equal(const struct sprout_tensor *tensor, const struct manifest_object *object) {
  return tensor->rank == object->rank &&
         memcmp(tensor->shape, object->shape, tensor->rank * sizeof(tensor->shape[0])) == 0;
}

/* Strides with "all zero" replaced by what it stands for: row-major contiguous. */
static void explicit_strides(uint32_t rank, const uint64_t *shape, const int64_t *strides,
                             int64_t *strides_out) {
  uint64_t step = 1;
  bool given = false;

  for (uint32_t i = 0; i < rank; i++) given = given || strides[i] != 0;
  for (uint32_t i = rank; i > 0; i--) {
    strides_out[i - 1] = given ? strides[i - 1] : (int64_t)step;
    step *= shape[i - 1];
  }
}

/* Dimensions of length one may have any stride; tensors without elements too. */
static bool strides_equal(const struct sprout_tensor *tensor,
                          const struct manifest_object *object) {
  int64_t here[SPROUT_MAX_RANK], there[SPROUT_MAX_RANK];

  explicit_strides(tensor->rank, tensor->shape, tensor->strides, here);
  explicit_strides(tensor->rank, tensor->shape, object->strides, there);
  for (uint32_t i = 0; i < tensor->rank; i++)
    if (tensor->shape[i] == 0) return true;
  for (uint32_t i = 0; i < tensor->rank; i++)
    if (tensor->shape[i] != 1 && here[i] != there[i]) return false;
  return true;
}

/* False: `text` says how the tensor differs from the object. */
static bool tensor_matches(const struct sprout_tensor *tensor, const struct manifest_object *object,
                           char *text, size_t text_bytes) {
  char here[96], there[96];

  if (strcmp(tensor->dtype, object->dtype) != 0 || !shapes_equal(tensor, object)) {
    format_shape(here, sizeof(here), tensor->dtype, tensor->rank, tensor->shape);
    format_shape(there, sizeof(there), object->dtype, object->rank, object->shape);
    snprintf(text, text_bytes, "%.*s is %s here, %s at the seed", 48, tensor->name, here, there);
    return false;
  }
  if (!strides_equal(tensor, object)) {
    snprintf(text, text_bytes, "%.*s has other strides at the seed", 96, tensor->name);
    return false;
  }
  if (tensor->length_bytes != object->length_bytes) {
    snprintf(text, text_bytes, "%.*s has %" PRIu64 " bytes here, %" PRIu64 " at the seed", 96,
             tensor->name, tensor->length_bytes, object->length_bytes);
    return false;
  }
  return true;
}

static int compare_addresses(const void *left, const void *right) {
  const struct span *a = left, *b = right;
  uintptr_t a_address = (uintptr_t)a->tensor->address, b_address = (uintptr_t)b->tensor->address;

  if (a_address != b_address) return a_address < b_address ? -1 : 1;
  if (a->tensor->length_bytes != b->tensor->length_bytes)
    return a->tensor->length_bytes < b->tensor->length_bytes ? -1 : 1;
  return 0;
}

/* Two tensors may share memory only where the seed's bytes are the same ones. */
static void check_overlaps(struct span *spans, size_t count, struct differences *differences) {
  const struct span *reach = NULL; /* the one that reaches furthest so far */
  char text[TEXT_BYTES];

  qsort(spans, count, sizeof(*spans), compare_addresses);
  for (size_t i = 0; i < count; i++) {
    const struct span *span = &spans[i];
    if (span->tensor->length_bytes == 0) continue;
    if (reach != NULL) {
      uintptr_t reach_end = (uintptr_t)reach->tensor->address + reach->tensor->length_bytes;
      bool same = span->object == reach->object && span->tensor->address == reach->tensor->address;
      if ((uintptr_t)span->tensor->address < reach_end && !same) {
        snprintf(text, sizeof(text), "%.*s and %.*s overlap here, not at the seed", 80,
                 reach->tensor->name, 80, span->tensor->name);
        add_difference(differences, text);
      }
      if ((uintptr_t)span->tensor->address + span->tensor->length_bytes <= reach_end) continue;
    }
    reach = span;
  }
}

/* Fills spans; tensors that differ are left out. */
static size_t match_all(const struct manifest *manifest, const struct sprout_tensor *tensors,
                        size_t count, struct span *spans, struct differences *differences) {
  char text[TEXT_BYTES];
  size_t matched = 0;

  for (size_t i = 0; i < count; i++) {
    uint32_t index = manifest_find_object(manifest, tensors[i].name);
    if (index == MANIFEST_NONE || manifest->objects[index].kind != SPROUT_OBJECT_TENSOR) {
      snprintf(text, sizeof(text), "%.*s is not at the seed", 128, tensors[i].name);
      add_difference(differences, text);
      continue;
    }
    const struct manifest_object *object = &manifest->objects[index];
    if (!tensor_matches(&tensors[i], object, text, sizeof(text))) {
      add_difference(differences, text);
      continue;
    }
    spans[matched++] = (struct span){
        .tensor = &tensors[i],
        .object = object->alias_of == MANIFEST_NONE ? index : object->alias_of,
    };
  }
  return matched;
}

/* Gives each object its first place; further places at other addresses become copies. */
static void place_all(const struct span *spans, size_t count, struct memory_match *match) {
  uint32_t copies = 0;

  for (size_t i = 0; i < count; i++) {
    struct memory_object *object = &match->objects[spans[i].object];
    unsigned char *address = spans[i].tensor->address;
    if (object->address == NULL) {
      object->address = address;
      continue;
    }
    /* Spans are ordered by address: equal ones follow each other. */
    bool placed =
        object->address == address || (object->first_copy != MANIFEST_NONE &&
                                       match->copies[object->first_copy].address == address);
    if (placed) continue;
    match->copies[copies] = (struct memory_copy){.address = address, .next = object->first_copy};
    object->first_copy = copies++;
  }
}

enum sprout_status memory_match_create(const struct manifest *manifest,
                                       const struct sprout_tensor *tensors, size_t count,
                                       struct memory_match *match_out, struct sprout_error *error) {
  struct memory_match match = {NULL, NULL};
  struct differences differences = {.count = 0};
  struct span *spans = calloc(count + 1, sizeof(*spans));
  size_t matched;

  match.objects = calloc((size_t)manifest->object_count + 1, sizeof(*match.objects));
  match.copies = calloc(count + 1, sizeof(*match.copies));
  if (spans == NULL || match.objects == NULL || match.copies == NULL) {
    free(spans);
    memory_match_destroy(&match);
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL,
                            "no memory to match %zu tensors with a manifest", count);
  }
  for (uint32_t i = 0; i < manifest->object_count; i++) match.objects[i].first_copy = MANIFEST_NONE;
  matched = match_all(manifest, tensors, count, spans, &differences);
  check_overlaps(spans, matched, &differences);
  if (differences.count == 0) place_all(spans, matched, &match);
  free(spans);
  if (differences.count > 0) {
    memory_match_destroy(&match);
    return report(&differences, error);
  }
  *match_out = match;
  return SPROUT_OK;
}

void memory_match_destroy(struct memory_match *match) {
  free(match->objects);
  free(match->copies);
  *match = (struct memory_match){NULL, NULL};
}

static int compare_names(const void *left, const void *right) {
  const struct sprout_tensor *const *a = left, *const *b = right;

  return strcmp((*a)->name, (*b)->name);
}

static enum sprout_status check_unique(const struct sprout_tensor *tensors, size_t count,
                                       struct sprout_error *error) {
  const struct sprout_tensor **names = calloc(count + 1, sizeof(const struct sprout_tensor *));
  enum sprout_status status = SPROUT_OK;

  if (names == NULL)
    return sprout_error_set(error, SPROUT_NO_MEMORY, 0, NULL, "no memory for %zu names", count);
  for (size_t i = 0; i < count; i++) names[i] = &tensors[i];
  qsort(names, count, sizeof(const struct sprout_tensor *), compare_names);
  for (size_t i = 1; i < count && status == SPROUT_OK; i++)
    if (strcmp(names[i - 1]->name, names[i]->name) == 0)
      status = sprout_error_set(error, SPROUT_INVALID, 0, "Give each tensor once.",
                                "tensor %s is given twice", names[i]->name);
  free(names);
  return status;
}

enum sprout_status memory_match_check_tensors(const struct sprout_tensor *tensors, size_t count,
                                              struct sprout_error *error) {
  for (size_t i = 0; i < count; i++) {
    const struct sprout_tensor *tensor = &tensors[i];
    uintptr_t end;
    if (tensor->name == NULL || tensor->dtype == NULL)
      return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "tensor %zu has no name or no dtype",
                              i);
    if (tensor->rank > SPROUT_MAX_RANK)
      return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                              "tensor %s has %u dimensions; at most %d are possible", tensor->name,
                              tensor->rank, SPROUT_MAX_RANK);
    if (tensor->memory != SPROUT_MEMORY_HOST)
      return sprout_error_set(error, SPROUT_UNSUPPORTED, 0, "Fork into host memory.",
                              "tensor %s does not lie in host memory", tensor->name);
    if (tensor->length_bytes > 0 &&
        (tensor->address == NULL ||
         __builtin_add_overflow((uintptr_t)tensor->address, tensor->length_bytes, &end)))
      return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "tensor %s has no valid address",
                              tensor->name);
  }
  return check_unique(tensors, count, error);
}
