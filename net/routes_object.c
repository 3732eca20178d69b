/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One object or one file as plain bytes: for curl and any HTTP client. All of these share one
 * account, so together they weigh as much as one fork.
 */
#include "net/routes.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Where a download is: at byte `offset` of object `object`, `left` bytes to go. */
struct download {
  const struct model *model;
  uint32_t object;
  uint64_t offset;
  uint64_t left;
};

static_assert(sizeof(struct download) <= HTTP_STORE_BYTES, "fits the exchange's store");

/* Aliases lie where their target lies; empty objects nowhere. */
static bool takes_place(const struct manifest_object *object) {
  return object->alias_of == MANIFEST_NONE && object->length_bytes > 0;
}

static void next_object(struct download *download) {
  const struct manifest *manifest = download->model->manifest;
  download->offset = 0;
  do {
    download->object++;
  } while (download->object < manifest->object_count &&
           !takes_place(&manifest->objects[download->object]));
}

/* Takes the rest of the current object, or of what is asked for, and moves on. */
static uint64_t take_object(struct download *download) {
  uint64_t length =
      download->model->manifest->objects[download->object].length_bytes - download->offset;
  if (length > download->left) length = download->left;
  download->left -= length;
  download->offset += length;
  if (download->left > 0) next_object(download);
  return length;
}

/* Neighbours in one region become one piece: thousands of small tensors, few system calls. */
static void next_piece(struct http_exchange *exchange, struct http_piece *piece_out) {
  struct download *download = http_exchange_store(exchange);
  const struct model *model = download->model;
  const struct placement *place = &model->placements[download->object];
  const struct region *region = &model->regions[place->region];
  uint32_t region_index = place->region;
  uint64_t begin = place->offset + download->offset, end = begin;
  for (;;) {
    end += take_object(download);
    if (download->left == 0) break;
    place = &model->placements[download->object];
    if (place->region != region_index || place->offset != end) break;
  }
  *piece_out = (struct http_piece){.base = region->base + begin,
                                   .length_bytes = end - begin,
                                   .fd = region->immutable ? region->fd : -1,
                                   .fd_offset = region->fd_offset + begin};
}

static const char *content_type_of(const char *path) {
  const char *dot = strrchr(path, '.');
  if (dot == NULL || strchr(dot, '/') != NULL) return "application/octet-stream";
  if (strcmp(dot, ".json") == 0) return "application/json";
  if (strcmp(dot, ".txt") == 0 || strcmp(dot, ".md") == 0) return "text/plain; charset=utf-8";
  return "application/octet-stream";
}

static void answer_download(struct route_call *call, const struct download *whole,
                            const struct route_content *content) {
  uint64_t offset = 0, length = 0;
  if (!route_answer_content(call, content, &offset, &length)) return;
  struct download *download = http_exchange_store(call->exchange);
  *download = *whole;
  download->left = length;
  /* To the object in which the range begins. */
  const struct manifest_object *objects = whole->model->manifest->objects;
  if (!takes_place(&objects[download->object])) next_object(download);
  while (offset >= objects[download->object].length_bytes) {
    offset -= objects[download->object].length_bytes;
    next_object(download);
  }
  download->offset = offset;
}

static void make_etag(const struct sprout_seed *seed, char kind, uint32_t index,
                      char etag_out[SEED_ETAG_BYTES]) {
  (void)snprintf(etag_out, SEED_ETAG_BYTES, "\"%s-%c%" PRIu32 "\"", seed->etag_base, kind, index);
}

/* --- objects --- */

/* The object of this name, in `file` when that is not NULL; answers when there is not exactly one.
 */
static bool find_object(struct route_call *call, const char *file, uint32_t *object_out) {
  const struct manifest *manifest = call->seed->model->manifest;
  uint32_t found = 0, first = MANIFEST_NONE, second = MANIFEST_NONE;
  for (uint32_t i = 0; i < manifest->object_count; i++) {
    const struct manifest_object *object = &manifest->objects[i];
    const char *path = object->file != MANIFEST_NONE ? manifest->files[object->file].path : "";
    if (strcmp(object->name, call->argument) != 0) continue;
    if (file != NULL && strcmp(file, path) != 0) continue;
    if (found++ == 0)
      first = i;
    else
      second = i;
  }
  *object_out = first;
  if (found == 1) return true;
  if (found == 0) {
    route_fail(call, SPROUT_NOT_FOUND, "GET /v1/manifest lists the objects.",
               "there is no object '%.200s'", call->argument);
    return false;
  }
  uint32_t file_a = manifest->objects[first].file, file_b = manifest->objects[second].file;
  route_fail(call, SPROUT_INVALID, "Add ?file=PATH.",
             "%u files have an object '%.150s', for example '%.100s' and '%.100s'", found,
             call->argument, file_a != MANIFEST_NONE ? manifest->files[file_a].path : "",
             file_b != MANIFEST_NONE ? manifest->files[file_b].path : "");
  return false;
}

void route_object(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  char file[LIMIT_NAME_BYTES + 1], etag[SEED_ETAG_BYTES];
  bool has_file = http_query_value(call->request->query, "file", file, sizeof(file));
  uint32_t index = MANIFEST_NONE;
  if (route_changing(call)) return;
  if (!find_object(call, has_file ? file : NULL, &index)) return;
  const struct manifest_object *object = &seed->model->manifest->objects[index];
  make_etag(seed, 'o', index, etag);
  struct route_content content = {.content_type = "application/octet-stream",
                                  .etag = etag,
                                  .total_bytes = object->length_bytes,
                                  .next_piece = next_piece,
                                  .account = &seed->downloads};
  if (object->alias_of != MANIFEST_NONE) index = object->alias_of;
  struct download whole = {.model = seed->model, .object = index};
  answer_download(call, &whole, &content);
}

/* --- files --- */

void route_file(struct route_call *call) {
  struct sprout_seed *seed = call->seed;
  const struct manifest *manifest = seed->model->manifest;
  if (route_changing(call)) return;
  uint32_t index = manifest_find_file(manifest, call->argument);
  if (index == MANIFEST_NONE) {
    route_fail(call, SPROUT_NOT_FOUND, "GET /v1/manifest lists the files.",
               "there is no file '%.300s'", call->argument);
    return;
  }
  const struct manifest_file *file = &manifest->files[index];
  char etag[SEED_ETAG_BYTES];
  make_etag(seed, 'f', index, etag);
  struct route_content content = {.content_type = content_type_of(file->path),
                                  .etag = etag,
                                  .total_bytes = file->length_bytes,
                                  .next_piece = next_piece,
                                  .account = &seed->downloads};
  struct download whole = {.model = seed->model, .object = file->first_object};
  answer_download(call, &whole, &content);
}
