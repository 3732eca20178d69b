/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim.h"

#include "core/bitmap.h"

#include <stdlib.h>
#include <string.h>

#define SCRATCH_BYTES DESTINATION_PIECE_BYTES
#define BYTES_MAX (24u * 1024 * 1024)
#define HOLE 0xEE /* what lies where nothing was stored */

static struct sim_destination *of(struct destination *destination) {
  return (struct sim_destination *)destination;
}

/* One for all runs: large ones are not worth being allocated again and again. */
static unsigned char *all_bytes(void) {
  static unsigned char *bytes;
  if (bytes == NULL) bytes = malloc(BYTES_MAX);
  return bytes;
}

static uint64_t some(struct sim_destination *destination, uint64_t limit_ns) {
  return 1 + sim_below(&destination->sim->random, limit_ns);
}

/* --- chunks of a transfer --- */

typedef void chunk_action(struct sim_destination *destination, uint64_t chunk,
                          const unsigned char *bytes, uint32_t length_bytes);

static void for_each_chunk(struct sim_destination *destination,
                           const struct destination_transfer *transfer, chunk_action *action) {
  const unsigned char *bytes = transfer->slot;
  for (uint32_t i = 0; i < transfer->range_count; i++) {
    const struct source_range *range = &transfer->ranges[i];
    uint64_t end = range->offset + range->length_bytes;
    const struct manifest_object *object = &destination->manifest->objects[range->object];
    sim_require(destination->sim, range->offset % SPROUT_CHUNK_BYTES == 0);
    for (uint64_t at = range->offset; at < end; at += SPROUT_CHUNK_BYTES) {
      uint64_t chunk = object->first_chunk + at / SPROUT_CHUNK_BYTES;
      uint32_t length = (uint32_t)(end - at < SPROUT_CHUNK_BYTES ? end - at : SPROUT_CHUNK_BYTES);
      action(destination, chunk, bytes, length);
      if (bytes != NULL) bytes += length;
    }
  }
}

static void check_mapping(struct sim_destination *destination, uint64_t chunk,
                          const unsigned char *bytes, uint32_t length_bytes) {
  (void)bytes;
  sim_require(destination->sim, destination->selected[chunk]);
  sim_require(destination->sim, !destination->storing[chunk]);
  sim_require(destination->sim,
              destination->offsets[chunk + 1] - destination->offsets[chunk] == length_bytes);
  if (destination->plan.keeping == SIM_DIRECT) destination->present[chunk] = false;
}

static void begin_chunk(struct sim_destination *destination, uint64_t chunk,
                        const unsigned char *bytes, uint32_t length_bytes) {
  (void)bytes;
  (void)length_bytes;
  sim_require(destination->sim, !destination->storing[chunk]);
  destination->storing[chunk] = true;
}

static void end_chunk(struct sim_destination *destination, uint64_t chunk,
                      const unsigned char *bytes, uint32_t length_bytes) {
  destination->storing[chunk] = false;
  destination->present[chunk] = true;
  if (destination->plan.keeping == SIM_STAGED)
    memcpy(destination->bytes + destination->offsets[chunk], bytes, length_bytes);
}

static void drop_chunk(struct sim_destination *destination, uint64_t chunk,
                       const unsigned char *bytes, uint32_t length_bytes) {
  (void)bytes;
  (void)length_bytes;
  destination->storing[chunk] = false;
}

/* --- prepare --- */

static void lay_out(struct sim_destination *destination, const uint64_t *selected) {
  const struct manifest *manifest = destination->manifest;
  destination->bytes = all_bytes();
  uint64_t offset = 0;
  for (uint64_t chunk = 0; chunk < manifest->chunk_count; chunk++) {
    struct manifest_chunk place = manifest_chunk_at(manifest, chunk);
    destination->offsets[chunk] = offset;
    destination->selected[chunk] = selected == NULL || bits_get(selected, place.object);
    sim_require(destination->sim, offset + place.length_bytes <= BYTES_MAX);
    memset(destination->bytes + offset, HOLE, place.length_bytes < 64 ? place.length_bytes : 64);
    offset += place.length_bytes;
  }
  destination->offsets[manifest->chunk_count] = offset;
}

/* Leaves bytes there as a fork before this one might have. */
static void put_found(struct sim_destination *destination, uint64_t chunk) {
  struct sim *sim = destination->sim;
  const struct sim_destination_plan *plan = &destination->plan;
  uint64_t length = destination->offsets[chunk + 1] - destination->offsets[chunk];
  unsigned char *bytes = destination->bytes + destination->offsets[chunk];
  uint64_t dice = sim_below(&sim->random, 100);
  if (dice >= plan->found_right_percent + plan->found_wrong_percent) return;
  sim_model_bytes(&sim->model, plan->found_variant, chunk, 0, bytes, length);
  if (dice >= plan->found_right_percent) bytes[0] ^= 0x11;
  destination->present[chunk] = true;
}

static void tell_prepared(struct sim *sim, void *target, uint64_t argument) {
  struct sim_destination *destination = target;
  struct sprout_error error;
  (void)argument;
  if (destination->aborting) return;
  sprout_error_set(&error, destination->plan.prepare_fails, 0, NULL, "simulated");
  destination->prepared = error.status == SPROUT_OK;
  sim_say(sim, "destination prepared: %s", sprout_status_info_of(error.status)->name);
  destination->destination.listener->prepared(&destination->destination, &error);
}

static void tell_existing(struct sim *sim, void *target, uint64_t first) {
  struct sim_destination *destination = target;
  uint64_t count = destination->manifest->chunk_count;
  if (destination->aborting) return;
  uint64_t end = first + sim_between(&sim->random, 1, 20);
  for (uint64_t chunk = first; chunk < end && chunk < count; chunk++) {
    if (!destination->present[chunk]) continue;
    struct digest digest = digest_of(destination->bytes + destination->offsets[chunk],
                                     destination->offsets[chunk + 1] - destination->offsets[chunk]);
    destination->destination.listener->existing(&destination->destination, chunk, &digest);
  }
  if (end < count)
    sim_after(sim, some(destination, destination->plan.prepare_ns), tell_existing, destination,
              end);
  else
    tell_prepared(sim, destination, 0);
}

static void destination_prepare(struct destination *base, const struct manifest *manifest,
                                const uint64_t *selected, bool reuse) {
  struct sim_destination *destination = of(base);
  struct sim *sim = destination->sim;
  sim->ops++;
  sim_require(sim, destination->manifest == NULL);
  /* The engine keeps the manifest; the simulator's own is the same and simpler to hold on to. */
  sim_require(sim, manifest->chunk_count == sim->model.manifest->chunk_count);
  destination->manifest = manifest;
  destination->reuse = reuse;
  lay_out(destination, selected);
  bool keeps = destination->plan.keeping != SIM_ALIASED;
  for (uint64_t chunk = 0; chunk < manifest->chunk_count && keeps; chunk++)
    if (destination->selected[chunk]) put_found(destination, chunk);
  uint64_t wait_ns = some(destination, destination->plan.prepare_ns);
  if (reuse && keeps && destination->plan.prepare_fails == SPROUT_OK)
    sim_after(sim, wait_ns, tell_existing, destination, 0);
  else
    sim_after(sim, wait_ns, tell_prepared, destination, 0);
}

/* --- map --- */

static void tell_room(struct sim *sim, void *target, uint64_t argument) {
  struct sim_destination *destination = target;
  (void)sim;
  (void)argument;
  if (destination->aborting || destination->finishing) return;
  destination->owes_room = false;
  destination->destination.listener->room(&destination->destination);
}

static bool has_no_room(struct sim_destination *destination) {
  const struct sim_destination_plan *plan = &destination->plan;
  return destination->mapped >= plan->max_mapped ||
         sim_chance(&destination->sim->random, plan->no_room_percent);
}

static void add_pieces(struct destination_transfer *transfer, unsigned char *base,
                       uint64_t length_bytes, uint64_t piece_bytes, bool aliased) {
  for (uint64_t at = 0; at < length_bytes;) {
    uint64_t length = length_bytes - at < piece_bytes ? length_bytes - at : piece_bytes;
    transfer->iov[transfer->iov_count++] =
        (struct iovec){.iov_base = aliased ? base : base + at, .iov_len = length};
    at += length;
  }
}

/* Pieces so large that all of them fit into the list. */
static uint64_t draw_piece(struct sim_destination *destination, uint64_t length_bytes) {
  uint64_t least = length_bytes / (DESTINATION_IOV_MAX / 4) + 1;
  if (least >= DESTINATION_PIECE_BYTES) return DESTINATION_PIECE_BYTES;
  return sim_between(&destination->sim->random, least, DESTINATION_PIECE_BYTES);
}

static void map_direct(struct sim_destination *destination, struct destination_transfer *transfer) {
  for (uint32_t i = 0; i < transfer->range_count; i++) {
    const struct source_range *range = &transfer->ranges[i];
    uint64_t chunk = destination->manifest->objects[range->object].first_chunk +
                     range->offset / SPROUT_CHUNK_BYTES;
    add_pieces(transfer, destination->bytes + destination->offsets[chunk], range->length_bytes,
               DESTINATION_PIECE_BYTES, false);
  }
}

static bool destination_map(struct destination *base, struct destination_transfer *transfer) {
  static unsigned char scratch[SCRATCH_BYTES];
  struct sim_destination *destination = of(base);
  struct sim *sim = destination->sim;
  sim->ops++;
  sim_require(sim, destination->prepared && !destination->finishing && !destination->aborting);
  sim_require(sim, !destination->owes_room);
  if (has_no_room(destination)) {
    destination->owes_room = true;
    sim_after(sim, some(destination, destination->plan.room_ns), tell_room, destination, 0);
    return false;
  }
  transfer->slot = NULL;
  transfer->iov_count = 0;
  for_each_chunk(destination, transfer, check_mapping);
  uint64_t piece_bytes = draw_piece(destination, transfer->length_bytes);
  if (destination->plan.keeping == SIM_ALIASED && transfer->ordered) {
    add_pieces(transfer, scratch, transfer->length_bytes, piece_bytes, true);
  } else if (destination->plan.keeping == SIM_DIRECT) {
    map_direct(destination, transfer);
  } else {
    transfer->slot = malloc(transfer->length_bytes);
    add_pieces(transfer, transfer->slot, transfer->length_bytes, piece_bytes, false);
  }
  destination->mapped++;
  return true;
}

/* --- store, release --- */

static void tell_stored(struct sim *sim, void *target, uint64_t fails) {
  struct destination_transfer *transfer = target;
  struct sim_destination *destination = sim->destination;
  struct sprout_error error;
  sprout_error_set(&error, fails ? SPROUT_NO_SPACE : SPROUT_OK, 0, NULL, "simulated");
  for_each_chunk(destination, transfer, fails ? drop_chunk : end_chunk);
  if (fails) destination->store_failed = true;
  free(transfer->slot);
  transfer->slot = NULL;
  destination->stores_running--;
  transfer->stored(transfer, &error);
}

static void destination_store(struct destination *base, struct destination_transfer *transfer) {
  struct sim_destination *destination = of(base);
  destination->sim->ops++;
  sim_require(destination->sim, destination->mapped > 0 && !destination->aborting);
  for_each_chunk(destination, transfer, begin_chunk);
  destination->mapped--;
  destination->stores_running++;
  bool fails = ++destination->stores_begun == destination->plan.store_fails_at;
  sim_after(destination->sim, some(destination, destination->plan.store_ns), tell_stored, transfer,
            fails);
}

static void destination_release(struct destination *base, struct destination_transfer *transfer) {
  struct sim_destination *destination = of(base);
  destination->sim->ops++;
  sim_require(destination->sim, destination->mapped > 0 && !destination->aborting);
  free(transfer->slot);
  transfer->slot = NULL;
  destination->mapped--;
}

/* --- ends --- */

static void tell_finished(struct sim *sim, void *target, uint64_t argument) {
  struct sim_destination *destination = target;
  struct sprout_error error;
  (void)argument;
  if (destination->aborting) return;
  sprout_error_set(&error, destination->plan.finish_fails, 0, NULL, "simulated");
  destination->over = error.status == SPROUT_OK;
  sim_say(sim, "destination finished: %s", sprout_status_info_of(error.status)->name);
  destination->destination.listener->finished(&destination->destination, &error);
}

static void destination_finish(struct destination *base) {
  struct sim_destination *destination = of(base);
  struct sim *sim = destination->sim;
  sim->ops++;
  sim_require(sim, destination->prepared && !destination->finishing && !destination->aborting);
  sim_require(sim, destination->mapped == 0 && destination->stores_running == 0);
  for (uint64_t chunk = 0; chunk < destination->manifest->chunk_count; chunk++)
    if (destination->selected[chunk]) sim_require(sim, destination->present[chunk]);
  destination->finishing = true;
  sim_after(sim, some(destination, destination->plan.finish_ns), tell_finished, destination, 0);
}

static void tell_aborted(struct sim *sim, void *target, uint64_t argument) {
  struct sim_destination *destination = target;
  (void)argument;
  sim_say(sim, "destination aborted");
  destination->over = true;
  destination->destination.listener->aborted(&destination->destination);
}

static void destination_abort(struct destination *base) {
  struct sim_destination *destination = of(base);
  struct sim *sim = destination->sim;
  sim->ops++;
  sim_require(sim, !destination->aborting && !destination->over);
  sim_require(sim, destination->mapped == 0 && destination->stores_running == 0);
  destination->aborting = true;
  sim_after(sim, some(destination, destination->plan.abort_ns), tell_aborted, destination, 0);
}

static void destination_destroy(struct destination *base) {
  sim_require(of(base)->sim, of(base)->over);
}

static const struct destination_ops ops = {
    .prepare = destination_prepare,
    .map = destination_map,
    .store = destination_store,
    .release = destination_release,
    .finish = destination_finish,
    .abort = destination_abort,
    .destroy = destination_destroy,
};

struct sim_destination *sim_destination_create(struct sim *sim,
                                               const struct sim_destination_plan *plan) {
  struct sim_destination *destination = calloc(1, sizeof(*destination));
  sim_require(sim, destination != NULL);
  *destination = (struct sim_destination){.sim = sim, .plan = *plan};
  destination->destination =
      (struct destination){.ops = &ops, .resumes = plan->keeping == SIM_STAGED};
  return destination;
}
