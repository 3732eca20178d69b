/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the RDMA lane share: one lane of a fork over fake devices, the seed's rails as
 * fake peers, and reads whose bytes are checked when they land. After each tick what the devices
 * have outstanding is compared with the window. Included by test programs only.
 */
#ifndef TESTS_SUPPORT_LANE_BENCH_TEST_H
#define TESTS_SUPPORT_LANE_BENCH_TEST_H

#include "core/log.h"
#include "net/rdma_lane_internal.h"
#include "net/rdma_module.h"
#include "tests/support/fake_peer.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KI UINT64_C(1024)
#define MI (UINT64_C(1) << 20)
#define TICK_NS UINT64_C(1000000)
#define SECOND_NS UINT64_C(1000000000)
#define TICKS_MAX 20000
#define MEMORY_BYTES (8 * MI)
#define OBJECTS_MAX 512u
#define READS_MAX 96u
#define RANGES_MAX 900u
#define IOV_MAX_ENTRIES 900u
#define RAILS_MAX 3u
#define SEED_DEVICE RAILS_MAX /* the first of the seed's */
#define GENERATION 5u
/* What the fences in flight come to, in bytes. */
#define FENCE_BYTES (RAILS_MAX * LANE_FENCES * sizeof(uint64_t))

struct test_read {
  struct source_read read;
  struct source_range ranges[RANGES_MAX];
  struct iovec iov[IOV_MAX_ENTRIES];
  uint64_t told;
  uint32_t iov_at;
  uint64_t iov_used;
  bool done;
};

/* How the bench is to be; zero: one rail, a fence, 64 objects of 128 KiB, a window of 4 MiB. */
struct wishes {
  uint32_t rails;        /* endpoints */
  uint32_t devices;      /* of this side */
  uint32_t object_count; /* at `object_stride`, each `object_bytes` */
  uint64_t object_bytes, object_stride;
  uint64_t window_bytes;
  bool unfenced;
  bool answer_later;    /* the test brings the placement */
  uint64_t whole_bytes; /* of the memory that the first placement has; 0: all */
};

struct bench {
  struct wishes wishes;
  struct sprout_service *service;
  struct reactor *reactor;
  struct rdma_selection selection;
  struct rdma_host *host;
  struct rdma_device *devices[RDMA_RAILS_MAX];
  struct rdma_landing *landing;
  struct lane *lane;
  struct fake_peer peers[RAILS_MAX];
  uint32_t keys[RAILS_MAX], late_keys[RAILS_MAX], fence_keys[RAILS_MAX];
  struct wire_opened opened;
  struct window_limits window;
  uint32_t ready, failed, stopped;
  bool landing_closed;
  struct sprout_error error;
  uint32_t asked;
  uint64_t asked_since;
  uint32_t signs_of_life;
  uint64_t outstanding; /* bytes at the end of the last tick */
  struct test_read reads[READS_MAX];
  uint32_t read_count, done_count;
  uint32_t executed; /* READs, counted by a hook */
  uint32_t change_at;
};

static struct bench bench;
static unsigned char there[MEMORY_BYTES], truth[MEMORY_BYTES];
static unsigned char here[2 * MEMORY_BYTES]; /* the second half for entries that lie apart */
static uint64_t fence_word;

/* --- what the lane calls -----------------------------------------------------------------------
 */

/* What is to be at this place of the read. */
static inline const unsigned char *expected_at(const struct test_read *own, uint64_t at) {
  const struct wishes *wishes = &bench.wishes;
  const struct source_range *range = &own->ranges[at / wishes->object_bytes];
  return truth + range->object * wishes->object_stride + at % wishes->object_bytes;
}

static inline void on_landed(struct source_read *read, const void *data, uint64_t length) {
  struct test_read *own = container_of(read, struct test_read, read);
  assert_false(own->done);
  assert_int_equal(bench.failed + bench.stopped, 0);
  if (length == 0) {
    bench.signs_of_life++;
    return;
  }
  const struct iovec *entry = &read->iov[own->iov_at];
  assert_ptr_equal(data, (const unsigned char *)entry->iov_base + own->iov_used);
  assert_true(length <= entry->iov_len - own->iov_used);
  assert_memory_equal(data, expected_at(own, own->told), length);
  own->told += length;
  own->iov_used += length;
  if (own->iov_used == entry->iov_len) {
    own->iov_at++;
    own->iov_used = 0;
  }
}

static inline void on_done(struct source_read *read, enum sprout_status status) {
  struct test_read *own = container_of(read, struct test_read, read);
  assert_false(own->done);
  assert_int_equal(status, SPROUT_OK);
  assert_int_equal(own->told, read->length_bytes);
  assert_int_equal(read->landed_bytes, read->length_bytes);
  uint64_t at = 0;
  for (uint32_t i = 0; i < read->iov_count; at += read->iov[i++].iov_len)
    assert_memory_equal(read->iov[i].iov_base, expected_at(own, at), read->iov[i].iov_len);
  own->done = true;
  bench.done_count++;
}

static inline void on_ready(struct lane *lane) {
  assert_ptr_equal(lane, bench.lane);
  assert_int_equal(bench.ready++, 0);
  assert_int_equal(bench.failed + bench.stopped, 0);
}

static inline void on_failed(struct lane *lane, const struct sprout_error *error) {
  assert_ptr_equal(lane, bench.lane);
  assert_int_equal(bench.failed++, 0);
  assert_int_equal(bench.stopped, 0);
  assert_int_equal(fake_verbs_links(FAKE_CONNECTING, FAKE_DEVICES_MAX, NULL, 0), 0);
  bench.error = *error;
}

static inline void on_stopped(struct lane *lane) {
  assert_ptr_equal(lane, bench.lane);
  assert_int_equal(bench.stopped++, 0);
  assert_int_equal(fake_verbs_links(FAKE_CONNECTING, FAKE_DEVICES_MAX, NULL, 0), 0);
}

static const struct lane_listener lane_listener = {
    .ready = on_ready, .failed = on_failed, .stopped = on_stopped};

static inline struct wire_slice *add_slice(struct wire_placement *placement, const void *address,
                                           uint64_t length_bytes, const uint32_t *keys) {
  struct wire_slice *slice = &placement->slices[placement->slice_count++];
  *slice =
      (struct wire_slice){.address = (uint64_t)(uintptr_t)address, .length_bytes = length_bytes};
  for (uint32_t i = 0; i < RAILS_MAX; i++) slice->keys[i] = keys[i];
  return slice;
}

/* The first placement, or what comes after it. */
static inline void make_placement(struct wire_placement *placement, bool first) {
  const struct wishes *wishes = &bench.wishes;
  *placement = (struct wire_placement){.generation = GENERATION,
                                       .fence_address =
                                           wishes->unfenced ? 0 : (uint64_t)(uintptr_t)&fence_word,
                                       .rail_count = wishes->rails,
                                       .next = first ? 2 : 3,
                                       .whole = !first || wishes->whole_bytes == MEMORY_BYTES,
                                       .slices = calloc(2, sizeof(struct wire_slice))};
  assert_non_null(placement->slices);
  if (!first) {
    add_slice(placement, there + wishes->whole_bytes, MEMORY_BYTES - wishes->whole_bytes,
              bench.late_keys);
    return;
  }
  add_slice(placement, there, wishes->whole_bytes, bench.keys);
  add_slice(placement, &fence_word, sizeof fence_word, bench.fence_keys);
  placement->object_count = wishes->object_count;
  placement->objects = calloc(wishes->object_count, sizeof(uint64_t));
  assert_non_null(placement->objects);
  for (uint32_t i = 0; i < wishes->object_count; i++)
    placement->objects[i] = (uint64_t)(uintptr_t)there + i * wishes->object_stride;
}

static inline void bring_placement(bool first) {
  struct wire_placement placement;
  make_placement(&placement, first);
  rdma_lane_placement(bench.lane, &placement);
  wire_placement_destroy(&placement);
}

static inline void on_want_placement(void *context, uint64_t since) {
  assert_ptr_equal(context, &bench);
  bench.asked++;
  bench.asked_since = since;
}

static inline uint32_t give_spans(void *context, const struct iovec **spans_out) {
  static const struct iovec span = {here, sizeof here};
  assert_ptr_equal(context, &bench);
  *spans_out = &span;
  return 1;
}

/* --- time --------------------------------------------------------------------------------------
 */

/* Bytes outstanding, as the devices see it: within the window, or less than before, or one piece
 * alone (and its fence) that was cut when the window was larger. */
static inline void check_window(void) {
  uint64_t bytes = 0;
  uint32_t requests = 0;
  for (uint32_t i = 0; i < bench.wishes.devices; i++) {
    bytes += fake_device_view(i).bytes;
    requests += fake_device_view(i).requests;
  }
  uint64_t limit = bench.window.bytes > LANE_PIECE_MIN ? bench.window.bytes : LANE_PIECE_MIN;
  if (bytes > limit + FENCE_BYTES && bytes > bench.outstanding && requests > 2)
    fail_msg("%" PRIu64 " bytes are outstanding, %" PRIu64 " are granted", bytes, limit);
  bench.outstanding = bytes;
  struct verbs_link *links[RAILS_MAX];
  uint32_t count = fake_verbs_links(FAKE_CONNECTING, FAKE_DEVICES_MAX, links, RAILS_MAX);
  for (uint32_t i = 0; i < count && i < RAILS_MAX; i++)
    assert_true(fake_link_view(links[i]).max_requests <= 16);
}

static inline void answer(void) {
  static uint32_t answered;
  if (bench.asked == 0) answered = 0;
  if (bench.wishes.answer_later || answered == bench.asked) return;
  answered = bench.asked;
  bring_placement(bench.asked_since == 0);
}

static inline void tick_for(uint64_t timeout_ns) {
  for (uint32_t i = 0; i < bench.wishes.rails; i++) fake_peer_tick(&bench.peers[i]);
  reactor_tick(bench.reactor, timeout_ns);
  check_window();
  answer();
  check_window();
}

static inline void settle(void) {
  for (int i = 0; i < 20; i++) tick_for(0);
}

static inline void run_until(const uint32_t *count, uint32_t wanted) {
  for (int i = 0; i < TICKS_MAX && *count < wanted && bench.failed == 0; i++) tick_for(TICK_NS / 4);
  if (bench.failed > 0 && count != &bench.failed) fail_msg("%s", bench.error.message);
  assert_int_equal(*count, wanted);
}

/* --- the bench ---------------------------------------------------------------------------------
 */

static inline void fill_memory(void) {
  for (uint64_t i = 0; i < MEMORY_BYTES; i++)
    truth[i] = (unsigned char)(i * 131 + (i >> 9) * 7 + (i >> 17));
  memcpy(there, truth, sizeof there);
  memset(here, 0, sizeof here);
  fence_word = UINT64_C(2) * GENERATION;
}

static inline void make_peers(void) {
  const struct wishes *wishes = &bench.wishes;
  for (uint32_t i = 0; i < wishes->rails; i++) {
    struct fake_peer *peer = &bench.peers[i];
    fake_peer_open(peer, SEED_DEVICE + i);
    bench.keys[i] = fake_peer_serve(peer, there, wishes->whole_bytes);
    if (wishes->whole_bytes < MEMORY_BYTES)
      bench.late_keys[i] =
          fake_peer_serve(peer, there + wishes->whole_bytes, MEMORY_BYTES - wishes->whole_bytes);
    bench.fence_keys[i] = fake_peer_serve(peer, &fence_word, sizeof fence_word);
    struct wire_endpoint *endpoint = &bench.opened.endpoints[bench.opened.endpoint_count++];
    *endpoint = (struct wire_endpoint){.rail = i, .port = fake_peer_port(peer), .nonce = {1}};
    (void)snprintf(endpoint->address, sizeof endpoint->address, "%s",
                   fake_verbs_device(SEED_DEVICE + i)->port[0].gids[1]);
  }
}

static inline void take_wishes(const struct wishes *asked) {
  struct wishes *wishes = &bench.wishes;
  *wishes = *asked;
  if (wishes->rails == 0) wishes->rails = 1;
  if (wishes->devices == 0) wishes->devices = wishes->rails;
  if (wishes->object_count == 0) wishes->object_count = 64;
  if (wishes->object_bytes == 0) wishes->object_bytes = 128 * KI;
  if (wishes->object_stride == 0) wishes->object_stride = wishes->object_bytes;
  if (wishes->window_bytes == 0) wishes->window_bytes = 4 * MI;
  if (wishes->whole_bytes == 0) wishes->whole_bytes = MEMORY_BYTES;
  assert_true(wishes->object_count * wishes->object_stride <= MEMORY_BYTES);
}

static inline void create_lane(void) {
  struct rdma_landing_options landing = {.host = bench.host,
                                         .device_count = bench.selection.count,
                                         .spans = give_spans,
                                         .context = &bench};
  memcpy(landing.devices, bench.devices, sizeof landing.devices);
  assert_int_equal(rdma_landing_create(&landing, &bench.landing), SPROUT_OK);
  struct rdma_lane_options options = {.host = bench.host,
                                      .selection = &bench.selection,
                                      .landing = bench.landing,
                                      .connect_timeout_ns = 60 * SECOND_NS,
                                      .retries = 3,
                                      .want_placement = on_want_placement,
                                      .context = &bench};
  memcpy(options.devices, bench.devices, sizeof options.devices);
  assert_int_equal(rdma_lane_create(&options, &bench.lane), SPROUT_OK);
  bench.lane->listener = &lane_listener;
}

static inline void make(const struct wishes *wishes) {
  struct sprout_error error;
  memset(&bench, 0, sizeof bench);
  take_wishes(wishes);
  fill_memory();
  fake_verbs_init(2 * RAILS_MAX);
  rdma_module_replace(fake_verbs());
  log_set_level(LOG_ERROR);
  assert_int_equal(sprout_service_create(NULL, &bench.service, &error), SPROUT_OK);
  bench.reactor = service_reactor(bench.service);
  make_peers();
  static const char *const names[] = {"fake0", "fake0,fake1", "fake0,fake1,fake2"};
  const struct rdma_wish wish = {.devices = names[bench.wishes.devices - 1], .gid_index = -1};
  fake_verbs_excuse(true);
  assert_int_equal(rdma_select(&wish, &bench.selection, &error), SPROUT_OK);
  fake_verbs_excuse(false);
  assert_int_equal(
      rdma_host_get(bench.service, &bench.selection, &bench.host, bench.devices, &error),
      SPROUT_OK);
  bench.window =
      (struct window_limits){.operations = 64, .bytes = bench.wishes.window_bytes, .depth = 64};
  bench.opened.grant.window = bench.window;
  create_lane();
}

static inline void grant(uint64_t bytes) {
  bench.window.bytes = bytes;
  bench.lane->ops->grant(bench.lane, &bench.window, UINT64_MAX);
}

static inline void start(void) {
  const struct lane_start start = {.generation = GENERATION,
                                   .object_count = bench.wishes.object_count,
                                   .fork_id = "00",
                                   .opened = &bench.opened};
  bench.lane->ops->start(bench.lane, &start);
  grant(bench.window.bytes);
}

static inline void run_until_rails(uint32_t rails) {
  for (int i = 0; i < TICKS_MAX && rdma_lane_rails(bench.lane) < rails; i++) tick_for(TICK_NS / 4);
  assert_int_equal(rdma_lane_rails(bench.lane), rails);
}

/* With all its rails. */
static inline void make_ready(const struct wishes *wishes) {
  make(wishes);
  start();
  run_until(&bench.ready, 1);
  run_until_rails(bench.wishes.rails);
}

static inline void on_landing_closed(void *context) {
  *(bool *)context = true;
}

/* Nothing lands any more, whatever the devices still have in mind. */
static inline void expect_no_late_byte(void) {
  memset(here, 0xee, sizeof here);
  fake_verbs_manual(false);
  fake_verbs_step(1000);
  settle();
  assert_true(here[0] == 0xee && memcmp(here, here + 1, sizeof here - 1) == 0);
}

/* Reads that did not end, in the order of posting. */
static inline void expect_returned(void) {
  struct list_node *node;
  const struct test_read *last = NULL;
  uint32_t count = 0;
  while ((node = list_take(&bench.lane->returned)) != NULL) {
    struct test_read *own =
        container_of(container_of(node, struct source_read, node), struct test_read, read);
    assert_false(own->done);
    assert_int_equal(own->read.landed_bytes, own->told);
    assert_true(last == NULL || own > last);
    last = own;
    count++;
  }
  assert_int_equal(count + bench.done_count, bench.read_count);
}

static inline void stop_lane(void) {
  bench.lane->ops->stop(bench.lane);
  assert_int_equal(bench.stopped, 0); /* never from within */
  bench.failed = 0;
  run_until(&bench.stopped, 1);
}

static inline void unmake(void) {
  if (bench.stopped == 0) {
    stop_lane();
    expect_no_late_byte();
  }
  expect_returned();
  bench.lane->ops->destroy(bench.lane);
  rdma_landing_close(bench.landing, on_landing_closed, &bench.landing_closed);
  for (int i = 0; i < TICKS_MAX && !bench.landing_closed; i++) tick_for(TICK_NS);
  assert_true(bench.landing_closed);
  rdma_landing_destroy(bench.landing);
  assert_int_equal(fake_verbs_blocking_here(), 0);
  for (uint32_t i = 0; i < bench.wishes.rails; i++) fake_peer_close(&bench.peers[i]);
  sprout_service_destroy(bench.service);
  rdma_module_replace(NULL);
  fake_verbs_end();
  log_set_level(LOG_WARNING);
}

/* A read of whole objects in entries of `entry_bytes` (0: an object each), which land where they
 * lie there, or `apart` from each other. */
static inline struct test_read *post_entries(uint32_t first, uint32_t count, uint64_t entry_bytes,
                                             bool apart) {
  const struct wishes *wishes = &bench.wishes;
  assert_true(bench.read_count < READS_MAX && count <= RANGES_MAX);
  assert_true(first + count <= wishes->object_count);
  struct test_read *own = &bench.reads[bench.read_count++];
  *own = (struct test_read){.read = {.landed = on_landed, .done = on_done}};
  if (entry_bytes == 0) entry_bytes = wishes->object_bytes;
  for (uint32_t i = 0; i < count; i++) {
    own->ranges[i] =
        (struct source_range){.object = first + i, .length_bytes = wishes->object_bytes};
    for (uint64_t used = 0; used < wishes->object_bytes;) {
      uint64_t left = wishes->object_bytes - used, at = (first + i) * wishes->object_stride + used;
      uint64_t length = left < entry_bytes ? left : entry_bytes;
      assert_true(own->read.iov_count < IOV_MAX_ENTRIES);
      /* Every other entry in the second half of the memory. */
      bool other = apart && own->read.iov_count % 2 == 1;
      own->iov[own->read.iov_count++] =
          (struct iovec){here + at + (other ? MEMORY_BYTES : 0), length};
      used += length;
    }
  }
  own->read.ranges = own->ranges;
  own->read.range_count = count;
  own->read.iov = own->iov;
  own->read.length_bytes = count * wishes->object_bytes;
  bench.lane->ops->post(bench.lane, &own->read);
  return own;
}

static inline struct test_read *post(uint32_t first, uint32_t count, uint64_t entry_bytes) {
  return post_entries(first, count, entry_bytes, false);
}

static inline void flush(void) {
  bench.lane->ops->flush(bench.lane);
  check_window();
}

static inline void post_all(uint32_t objects_each) {
  for (uint32_t i = 0; i < bench.wishes.object_count; i += objects_each) post(i, objects_each, 0);
  flush();
}

static inline void expect_all(void) {
  run_until(&bench.done_count, bench.read_count);
  assert_memory_equal(here, truth, sizeof truth);
}

/* Steps the devices until all reads are done. */
static inline void step_until_done(uint32_t reads_each) {
  for (int i = 0; i < TICKS_MAX && bench.done_count < bench.read_count && bench.failed == 0; i++) {
    fake_verbs_step(reads_each);
    tick_for(i % 16 == 15 ? TICK_NS / 4 : 0);
  }
  if (bench.failed > 0) fail_msg("%s", bench.error.message);
  assert_int_equal(bench.done_count, bench.read_count);
}

static inline void expect_failure(enum sprout_status status, const char *message) {
  run_until(&bench.failed, 1);
  assert_int_equal(bench.error.status, status);
  if (strstr(bench.error.message, message) == NULL) fail_msg("'%s'", bench.error.message);
  expect_no_late_byte();
  unmake();
}

/* Memory is registered, and reads are on their way on all rails. */
static inline void run_until_posted(void) {
  for (uint32_t i = 0; i < bench.wishes.devices; i++) {
    for (int k = 0; k < TICKS_MAX && fake_device_view(i).posted == 0; k++) tick_for(TICK_NS / 4);
    assert_true(fake_device_view(i).posted > 0);
  }
}

static inline struct verbs_link *link_of(uint32_t device) {
  struct verbs_link *link = NULL;
  assert_int_equal(fake_verbs_links(FAKE_CONNECTING, device, &link, 1), 1);
  return link;
}
#endif
