/* SPDX-License-Identifier: Apache-2.0 */
/* The map of a seed's memory, and reads cut into pieces by it. */
#include "net/rdma_cut.h"
#include "tests/support/fake_verbs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OBJECTS 3u
#define SLICES_MAX 8u
#define THERE UINT64_C(0x100000)

struct slice {
  uint64_t address, length_bytes;
};

/* A placement whose arrays are malloc's. */
static struct wire_placement placement_of(const struct slice *slices, uint32_t count, bool first) {
  struct wire_placement placement = {.generation = 7,
                                     .fence_address = 4096,
                                     .rail_count = 2,
                                     .next = count,
                                     .slices = calloc(count + 1, sizeof(struct wire_slice)),
                                     .slice_count = count};
  assert_non_null(placement.slices);
  for (uint32_t i = 0; i < count; i++)
    placement.slices[i] = (struct wire_slice){.address = slices[i].address,
                                              .length_bytes = slices[i].length_bytes,
                                              .keys = {i + 1, i + 101}};
  if (!first) return placement;
  placement.objects = calloc(OBJECTS, sizeof(uint64_t));
  assert_non_null(placement.objects);
  placement.object_count = OBJECTS;
  for (uint32_t i = 0; i < OBJECTS; i++) placement.objects[i] = THERE + i * 1000;
  return placement;
}

static enum sprout_status add(struct rdma_map *map, struct wire_placement *placement) {
  struct sprout_error error;
  enum sprout_status status = rdma_map_add(map, OBJECTS, placement, &error);
  wire_placement_destroy(placement);
  if (status != SPROUT_OK) assert_int_equal(error.status, status);
  return status;
}

static void test_map_grows(void **state) {
  (void)state;
  static const struct slice first[] = {{8000, 100}, {1000, 100}, {4096, 8}};
  static const struct slice second[] = {{1100, 50}, {0, 10}};
  struct rdma_map map = {0};
  struct wire_placement placement = placement_of(first, 3, true);
  assert_int_equal(add(&map, &placement), SPROUT_OK);
  assert_int_equal(map.next, 3);
  assert_null(rdma_map_find(&map, 999));
  assert_int_equal(rdma_map_find(&map, 1000)->keys[0], 2);
  assert_int_equal(rdma_map_find(&map, 1099)->keys[1], 102);
  assert_null(rdma_map_find(&map, 1100));
  assert_null(rdma_map_find(&map, UINT64_MAX));
  placement = placement_of(second, 2, false);
  placement.whole = true;
  assert_int_equal(add(&map, &placement), SPROUT_OK);
  assert_true(map.whole);
  assert_int_equal(map.slice_count, 5);
  assert_int_equal(rdma_map_find(&map, 1100)->keys[0], 1);
  assert_int_equal(rdma_map_find(&map, 0)->keys[0], 2);
  assert_int_equal(map.objects[2], THERE + 2000);
  rdma_map_clear(&map);
  assert_null(rdma_map_find(&map, 1000));
}

static void test_maps_that_are_refused(void **state) {
  (void)state;
  static const struct {
    struct slice slices[2];
    enum sprout_status status;
  } firsts[] = {
      {{{0, 10}, {10, 10}}, SPROUT_OK},
      {{{0, 11}, {10, 10}}, SPROUT_PROTOCOL},
      {{{0, 10}, {0, 10}}, SPROUT_PROTOCOL},
      {{{0, 10}, {5, 0}}, SPROUT_PROTOCOL},
      {{{10, UINT64_MAX - 9}, {0, 1}}, SPROUT_PROTOCOL},
      {{{10, UINT64_MAX - 10}, {0, 10}}, SPROUT_OK},
  };
  for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
    struct rdma_map map = {0};
    struct wire_placement placement = placement_of(firsts[i].slices, 2, true);
    assert_int_equal(add(&map, &placement), firsts[i].status);
    rdma_map_clear(&map);
  }
  for (int how = 0; how < 9; how++) {
    struct rdma_map map = {0};
    struct wire_placement first = placement_of((struct slice[]){{1000, 10}}, 1, true);
    struct wire_placement next = placement_of((struct slice[]){{2000, 10}}, 1, false);
    enum sprout_status expected = SPROUT_PROTOCOL;
    if (how == 0) first.object_count--;
    if (how == 1) first.rail_count = 0;
    if (how == 2) first.rail_count = WIRE_ENDPOINTS_MAX + 1;
    if (how == 3) first.fence_address = 4097;
    if (how == 4) next.rail_count = 3;
    if (how == 5) next.fence_address = 0;
    if (how == 6) next.slices[0].address = 1005;
    if (how == 7) expected = SPROUT_STALE;
    if (how == 7) next.generation++;
    if (how == 8) expected = SPROUT_OK;
    enum sprout_status status = add(&map, &first);
    assert_int_equal(status, how < 4 ? SPROUT_PROTOCOL : SPROUT_OK);
    if (how < 4)
      wire_placement_destroy(&next);
    else
      assert_int_equal(add(&map, &next), expected);
    rdma_map_clear(&map);
  }
}

/* --- cutting -----------------------------------------------------------------------------------
 */

struct bench {
  struct reactor *reactor;
  struct verbs_domain *domain;
  struct rdma_memory *memory;
  bool closed;
};
static struct bench bench;
static unsigned char here[64 * 1024];

static void ignore_ready(void *context, uint32_t slice) {
  (void)context;
  (void)slice;
}

static void ignore_failure(void *context, const struct sprout_error *error) {
  (void)context;
  (void)error;
}

static void note_closed(void *context) {
  *(bool *)context = true;
}

static void tick_until(bool (*condition)(void)) {
  for (int i = 0; i < 5000 && !condition(); i++) reactor_tick(bench.reactor, 1000000);
  assert_true(condition());
}

static bool is_whole(void) {
  return rdma_memory_whole(bench.memory);
}

static bool is_closed(void) {
  return bench.closed;
}

/* All of `here` in registrations of this length. */
static void set_memory(uint64_t slice_bytes, bool registered) {
  struct verbs_device_info info;
  uint32_t count;
  struct sprout_error error;
  memset(&bench, 0, sizeof bench);
  fake_verbs_init(1);
  const struct reactor_options reactor_options = {0};
  assert_int_equal(reactor_create(&reactor_options, &bench.reactor, &error), SPROUT_OK);
  assert_int_equal(fake_verbs()->devices(&info, 1, &count), 0);
  assert_int_equal(fake_verbs()->domain_open(info.device, &bench.domain), 0);
  const struct rdma_memory_options options = {.reactor = bench.reactor,
                                              .verbs = fake_verbs(),
                                              .domain_count = 1,
                                              .domains = {bench.domain},
                                              .slice_bytes = slice_bytes,
                                              .ready = ignore_ready,
                                              .failed = ignore_failure};
  const struct rdma_span span = {.address = here, .length_bytes = sizeof here, .dmabuf_fd = -1};
  assert_int_equal(rdma_memory_create(&options, &span, 1, &bench.memory), SPROUT_OK);
  if (!registered) return;
  rdma_memory_start(bench.memory);
  tick_until(is_whole);
}

static void unset_memory(void) {
  rdma_memory_close(bench.memory, note_closed, &bench.closed);
  tick_until(is_closed);
  rdma_memory_destroy(bench.memory);
  assert_int_equal(fake_verbs()->domain_close(bench.domain), 0);
  reactor_destroy(bench.reactor);
  fake_verbs_end();
}

static void check_piece(const struct rdma_cut *cut, const struct rdma_cut_rules *rules) {
  uint64_t bytes = 0;
  assert_true(cut->segment_count > 0 && cut->segment_count <= rules->segments_max);
  assert_true(cut->length_bytes > 0 && cut->length_bytes <= rules->bytes_max);
  assert_ptr_equal(cut->remote, rdma_map_find(rules->remote, cut->remote_address));
  assert_true(cut->remote_address + cut->length_bytes <=
              cut->remote->address + cut->remote->length_bytes);
  for (uint32_t i = 0; i < cut->segment_count; i++) {
    const struct verbs_segment *segment = &cut->segments[i];
    const struct rdma_slice *slice = cut->local[i];
    uint64_t start = (uint64_t)(uintptr_t)slice->address;
    assert_true(segment->length_bytes > 0 && segment->address >= start);
    assert_true(segment->address + segment->length_bytes <= start + slice->length_bytes);
    bytes += segment->length_bytes;
  }
  assert_int_equal(bytes, cut->length_bytes);
}

/* Where byte `at` of a read comes from and goes to. */
static uint64_t source_of(const struct source_read *read, const struct rdma_map *map, uint64_t at) {
  const struct source_range *range = read->ranges;
  for (; at >= range->length_bytes; range++) at -= range->length_bytes;
  return map->objects[range->object] + range->offset + at;
}

static const unsigned char *target_of(const struct source_read *read, uint64_t at) {
  const struct iovec *entry = read->iov;
  for (; at >= entry->iov_len; entry++) at -= entry->iov_len;
  return (const unsigned char *)entry->iov_base + at;
}

/* Every byte of the piece is the right one. */
static void check_bytes(const struct source_read *read, const struct rdma_map *map, uint64_t at,
                        const struct rdma_cut *cut) {
  uint64_t in_piece = 0;
  assert_ptr_equal((const unsigned char *)read->iov[cut->iov].iov_base + cut->iov_used,
                   target_of(read, at));
  for (uint32_t i = 0; i < cut->segment_count; i++)
    for (uint32_t k = 0; k < cut->segments[i].length_bytes; k++, in_piece++) {
      assert_int_equal(source_of(read, map, at + in_piece), cut->remote_address + in_piece);
      assert_int_equal((uint64_t)(uintptr_t)target_of(read, at + in_piece),
                       cut->segments[i].address + k);
    }
}

static uint64_t random_state;

static uint32_t random_below(uint32_t limit) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint32_t)((random_state >> 33) % limit);
}

/* Slices that touch, from the first object on to behind the last. */
static void make_map(struct rdma_map *map) {
  struct slice slices[SLICES_MAX];
  uint64_t at = THERE;
  for (uint32_t i = 0; i < SLICES_MAX; i++) {
    slices[i] = (struct slice){at, 200 + random_below(2000)};
    if (i == SLICES_MAX - 1) slices[i].length_bytes += 4000;
    at += slices[i].length_bytes;
  }
  struct wire_placement placement = placement_of(slices, SLICES_MAX, true);
  placement.whole = true;
  placement.fence_address = 0;
  if (random_below(2) == 0) placement.objects[1] += 57; /* not neighbours */
  assert_int_equal(add(map, &placement), SPROUT_OK);
}

static void make_read(struct source_read *read, struct source_range *ranges, struct iovec *iov) {
  *read = (struct source_read){.ranges = ranges, .iov = iov};
  read->range_count = 1 + random_below(6);
  for (uint32_t i = 0; i < read->range_count; i++) {
    ranges[i] = (struct source_range){.object = random_below(OBJECTS),
                                      .offset = random_below(500),
                                      .length_bytes = random_below(1500)};
    if (i > 0 && random_below(3) == 0) { /* goes on where the one before ended */
      ranges[i].object = ranges[i - 1].object;
      ranges[i].offset = ranges[i - 1].offset + ranges[i - 1].length_bytes;
    }
    read->length_bytes += ranges[i].length_bytes;
  }
  for (uint64_t used = 0; used < read->length_bytes;) {
    uint64_t length = random_below(4) == 0 ? random_below(3) : random_below(900);
    if (length > read->length_bytes - used || read->iov_count == 63)
      length = read->length_bytes - used;
    iov[read->iov_count++] = (struct iovec){here + random_below(sizeof here - 10000), length};
    used += length;
  }
}

static void test_pieces_cover_a_read(void **state) {
  (void)state;
  static const uint64_t registrations[] = {0, 1000, 4096};
  for (size_t i = 0; i < 3; i++) {
    set_memory(registrations[i], true);
    for (uint32_t seed = 1; seed <= 300; seed++) {
      struct source_read read;
      struct source_range ranges[6];
      struct iovec iov[64];
      struct rdma_map map = {0};
      struct rdma_cursor cursor = {0};
      struct rdma_cut cut;
      random_state = seed * 77 + i;
      make_map(&map);
      make_read(&read, ranges, iov);
      const struct rdma_cut_rules rules = {.remote = &map,
                                           .local = bench.memory,
                                           .segments_max = 1 + random_below(RDMA_SEGMENTS_MAX),
                                           .bytes_max = 1 + random_below(3000)};
      uint64_t at = 0;
      while (at < read.length_bytes) {
        assert_int_equal(rdma_cut_next(&read, &rules, &cursor, &cut), RDMA_CUT_PIECE);
        check_piece(&cut, &rules);
        check_bytes(&read, &map, at, &cut);
        at += cut.length_bytes;
        assert_int_equal(cursor.cut_bytes, at);
      }
      assert_int_equal(rdma_cut_next(&read, &rules, &cursor, &cut), RDMA_CUT_END);
      rdma_map_clear(&map);
    }
    unset_memory();
  }
}

static void test_what_is_not_there(void **state) {
  (void)state;
  const struct source_range range = {.object = 1, .length_bytes = 600};
  const struct iovec iov = {here, 600};
  const struct source_read read = {
      .ranges = &range, .range_count = 1, .iov = &iov, .iov_count = 1, .length_bytes = 600};
  for (int registered = 0; registered < 2; registered++) {
    set_memory(0, registered == 1);
    struct rdma_map map = {0};
    struct rdma_cursor cursor = {0};
    struct rdma_cut cut;
    const struct rdma_cut_rules rules = {
        .remote = &map, .local = bench.memory, .segments_max = 4, .bytes_max = 10000};
    struct wire_placement placement = placement_of((struct slice[]){{THERE + 1000, 400}}, 1, true);
    assert_int_equal(add(&map, &placement), SPROUT_OK);
    if (registered == 0) {
      assert_int_equal(rdma_cut_next(&read, &rules, &cursor, &cut), RDMA_CUT_WAITS);
      assert_int_equal(cursor.cut_bytes, 0);
    } else {
      assert_int_equal(rdma_cut_next(&read, &rules, &cursor, &cut), RDMA_CUT_PIECE);
      assert_int_equal(cut.length_bytes, 400);
      assert_int_equal(rdma_cut_next(&read, &rules, &cursor, &cut), RDMA_CUT_WAITS);
      map.whole = true;
      assert_int_equal(rdma_cut_next(&read, &rules, &cursor, &cut), RDMA_CUT_OUT_OF_PLACE);
      assert_int_equal(cursor.cut_bytes, 400);
    }
    rdma_map_clear(&map);
    unset_memory();
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_map_grows),
      cmocka_unit_test(test_maps_that_are_refused),
      cmocka_unit_test(test_pieces_cover_a_read),
      cmocka_unit_test(test_what_is_not_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
