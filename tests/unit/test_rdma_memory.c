/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_memory.h"
#include "tests/support/fake_verbs.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#define KI UINT64_C(1024)
#define MI (UINT64_C(1) << 20)
#define SPANS_MAX 6
#define SLICES_MAX 64u
#define WORKERS 4u
#define TICKS_MAX 5000
#define TICK_NS UINT64_C(2000000)

/* Where the spans lie; the fake registers what is not there, and nobody reads it. */
static unsigned char *const base = (unsigned char *)UINT64_C(0x7ead00000000);

struct bench {
  struct reactor *reactor;
  const struct verbs *verbs;
  struct verbs_domain *domains[2];
  struct rdma_memory *memory;
  uint32_t ready_count, failed_count;
  bool ready[SLICES_MAX];
  bool closed;
  bool close_when_ready, close_when_failed, destroy_when_closed;
  struct sprout_error error;
};

static struct bench bench;

static void on_closed(void *context) {
  struct bench *own = context;
  assert_false(own->closed);
  own->closed = true;
  if (own->destroy_when_closed) {
    rdma_memory_destroy(own->memory);
    own->memory = NULL;
  }
}

static void on_ready(void *context, uint32_t slice) {
  struct bench *own = context;
  assert_int_equal(own->failed_count, 0);
  assert_false(own->closed);
  assert_true(slice < SLICES_MAX);
  assert_false(own->ready[slice]);
  assert_true(rdma_memory_slice(own->memory, slice)->ready);
  own->ready[slice] = true;
  own->ready_count++;
  if (own->close_when_ready) {
    own->close_when_ready = false;
    rdma_memory_close(own->memory, on_closed, own);
  }
}

static void on_failed(void *context, const struct sprout_error *error) {
  struct bench *own = context;
  own->failed_count++;
  own->error = *error;
  if (own->close_when_failed) rdma_memory_close(own->memory, on_closed, own);
}

static int set_up(void **state) {
  (void)state;
  struct verbs_device_info infos[2];
  uint32_t count;
  memset(&bench, 0, sizeof bench);
  fake_verbs_init(2);
  fake_verbs_device(0)->max_memory_bytes = fake_verbs_device(1)->max_memory_bytes = UINT64_MAX;
  bench.verbs = fake_verbs();
  const struct reactor_options options = {.workers = WORKERS};
  struct sprout_error error;
  assert_int_equal(reactor_create(&options, &bench.reactor, &error), SPROUT_OK);
  assert_int_equal(bench.verbs->devices(infos, 2, &count), 0);
  for (int i = 0; i < 2; i++)
    assert_int_equal(bench.verbs->domain_open(infos[i].device, &bench.domains[i]), 0);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  for (int i = 0; i < 2; i++) assert_int_equal(bench.verbs->domain_close(bench.domains[i]), 0);
  reactor_destroy(bench.reactor);
  fake_verbs_end();
  return 0;
}

static enum sprout_status create(uint32_t domains, uint64_t slice_bytes,
                                 const struct rdma_span *spans, size_t count) {
  const struct rdma_memory_options options = {.reactor = bench.reactor,
                                              .verbs = bench.verbs,
                                              .domain_count = domains,
                                              .domains = {bench.domains[0], bench.domains[1]},
                                              .slice_bytes = slice_bytes,
                                              .remote_read = true,
                                              .ready = on_ready,
                                              .failed = on_failed,
                                              .context = &bench};
  return rdma_memory_create(&options, spans, count, &bench.memory);
}

/* So many slices of 1000 bytes, page by page apart. */
static void create_slices(uint32_t domains, uint32_t count) {
  struct rdma_span spans[SLICES_MAX];
  assert_true(count <= SLICES_MAX);
  for (uint32_t i = 0; i < count; i++)
    spans[i] =
        (struct rdma_span){.address = base + i * 8 * KI, .length_bytes = 1000, .dmabuf_fd = -1};
  assert_int_equal(create(domains, 0, spans, count), SPROUT_OK);
  assert_int_equal(rdma_memory_slices(bench.memory), count);
}

static void run_until(const uint32_t *count, uint32_t wanted) {
  for (int i = 0; i < TICKS_MAX && *count < wanted; i++) reactor_tick(bench.reactor, TICK_NS);
  assert_int_equal(*count, wanted);
}

static void run_until_closed(void) {
  for (int i = 0; i < TICKS_MAX && !bench.closed; i++) reactor_tick(bench.reactor, TICK_NS);
  assert_true(bench.closed);
}

/* All that is under way comes back. */
static void close_and_destroy(void) {
  rdma_memory_close(bench.memory, on_closed, &bench);
  assert_false(bench.closed); /* never from within */
  run_until_closed();
  assert_int_equal(fake_verbs_counts().memories, 0);
  rdma_memory_destroy(bench.memory);
  bench.memory = NULL;
}

/* --- layout ------------------------------------------------------------------------------------
 */

struct piece {
  uint64_t offset, length;
};

static const struct {
  const char *name;
  uint64_t slice_bytes;
  struct piece spans[SPANS_MAX];
  uint32_t slice_count;
  struct piece slices[SPANS_MAX];
} layouts[] = {
    {"nothing", 0, {{0, 0}}, 0, {{0, 0}}},
    {"zero lengths are dropped", 0, {{0, 0}, {100, 10}, {500, 0}}, 1, {{100, 10}}},
    {"touching", 0, {{0, 4 * KI}, {4 * KI, 4 * KI}}, 1, {{0, 8 * KI}}},
    {"in any order", 0, {{8 * KI, 4 * KI}, {0, 4 * KI}, {4 * KI, 4 * KI}}, 1, {{0, 12 * KI}}},
    {"overlapping", 0, {{0, 6 * KI}, {4 * KI, 4 * KI}}, 1, {{0, 8 * KI}}},
    {"repeated", 0, {{0, 4 * KI}, {0, 4 * KI}, {0, 4 * KI}}, 1, {{0, 4 * KI}}},
    {"one start, two lengths", 0, {{0, 100}, {0, 9 * KI}, {0, 200}}, 1, {{0, 9 * KI}}},
    {"one inside another",
     0,
     {{0, 40 * KI}, {4 * KI, 8}, {20 * KI, 4 * KI}, {39 * KI, 2 * KI}},
     1,
     {{0, 41 * KI}}},
    {"a gap inside one page", 0, {{100, 100}, {4000, 96}}, 1, {{100, 3996}}},
    {"a gap up to the page's end", 0, {{100, 100}, {4096, 50}}, 1, {{100, 4046}}},
    {"a gap into the next page", 0, {{100, 100}, {4097, 50}}, 2, {{100, 100}, {4097, 50}}},
    {"no gap is bridged from a page's end", 0, {{0, 4096}, {4097, 50}}, 2, {{0, 4096}, {4097, 50}}},
    {"far apart", 0, {{64 * MI, 10}, {0, 10}}, 2, {{0, 10}, {64 * MI, 10}}},
    {"cut small", 1000, {{0, 2500}}, 3, {{0, 1000}, {1000, 1000}, {2000, 500}}},
    {"cut even", 1000, {{0, 2000}}, 2, {{0, 1000}, {1000, 1000}}},
    {"cut on huge pages",
     3 * MI,
     {{4 * KI, 8 * MI}},
     4,
     {{4 * KI, 2 * MI - 4 * KI}, {2 * MI, 2 * MI}, {4 * MI, 2 * MI}, {6 * MI, 2 * MI + 4 * KI}}},
    {"what is left is not cut", 3 * MI, {{4 * KI, 3 * MI}}, 1, {{4 * KI, 3 * MI}}},
    {"the slice's length by default",
     0,
     {{0, 600 * MI}},
     3,
     {{0, 256 * MI}, {256 * MI, 256 * MI}, {512 * MI, 88 * MI}}},
    {"never longer than that",
     UINT64_C(1) << 40,
     {{0, 300 * MI}},
     2,
     {{0, 256 * MI}, {256 * MI, 44 * MI}}},
};

static void test_layout(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
    print_message("%s\n", layouts[i].name);
    struct rdma_span spans[SPANS_MAX];
    for (int k = 0; k < SPANS_MAX; k++)
      spans[k] = (struct rdma_span){.address = base + layouts[i].spans[k].offset,
                                    .length_bytes = layouts[i].spans[k].length,
                                    .dmabuf_fd = -1};
    assert_int_equal(create(1, layouts[i].slice_bytes, spans, SPANS_MAX), SPROUT_OK);
    assert_int_equal(rdma_memory_slices(bench.memory), layouts[i].slice_count);
    uint64_t total = 0;
    for (uint32_t k = 0; k < layouts[i].slice_count; k++) {
      const struct rdma_slice *slice = rdma_memory_slice(bench.memory, k);
      assert_int_equal(slice->address - base, layouts[i].slices[k].offset);
      assert_int_equal(slice->length_bytes, layouts[i].slices[k].length);
      assert_int_equal(slice->dmabuf_fd, -1);
      assert_false(slice->ready);
      total += slice->length_bytes;
    }
    assert_int_equal(rdma_memory_bytes(bench.memory), total);
    assert_int_equal(fake_verbs_calls(FAKE_MEMORY_REGISTER), 0);
    rdma_memory_destroy(bench.memory);
  }
}

static void test_descriptors_stay_apart(void **state) {
  (void)state;
  const struct rdma_span spans[] = {
      {.address = base + 1000, .length_bytes = 1000, .dmabuf_fd = 7, .dmabuf_offset = 50},
      {.address = base + 3000, .length_bytes = 100, .dmabuf_fd = -1},
      {.address = base, .length_bytes = 1000, .dmabuf_fd = 7},
      {.address = base + 3050, .length_bytes = 100, .dmabuf_fd = -1},
  };
  const struct rdma_slice expected[] = {
      {.address = base, .length_bytes = 600, .dmabuf_fd = 7},
      {.address = base + 600, .length_bytes = 400, .dmabuf_fd = 7, .dmabuf_offset = 600},
      {.address = base + 1000, .length_bytes = 600, .dmabuf_fd = 7, .dmabuf_offset = 50},
      {.address = base + 1600, .length_bytes = 400, .dmabuf_fd = 7, .dmabuf_offset = 650},
      {.address = base + 3000, .length_bytes = 150, .dmabuf_fd = -1},
  };
  assert_int_equal(create(1, 600, spans, 4), SPROUT_OK);
  assert_int_equal(rdma_memory_slices(bench.memory), 5);
  for (uint32_t i = 0; i < 5; i++)
    assert_memory_equal(rdma_memory_slice(bench.memory, i), &expected[i], sizeof expected[i]);
  rdma_memory_start(bench.memory);
  run_until(&bench.ready_count, 5);
  close_and_destroy();
}

static void test_find(void **state) {
  (void)state;
  create_slices(1, 5);
  for (uint32_t i = 0; i < 5; i++) {
    const struct rdma_slice *slice = rdma_memory_slice(bench.memory, i);
    assert_ptr_equal(rdma_memory_find(bench.memory, slice->address), slice);
    assert_ptr_equal(rdma_memory_find(bench.memory, slice->address + 999), slice);
    assert_null(rdma_memory_find(bench.memory, slice->address - 1));
    assert_null(rdma_memory_find(bench.memory, slice->address + 1000));
  }
  assert_null(rdma_memory_find(bench.memory, NULL));
  rdma_memory_destroy(bench.memory);
  assert_int_equal(create(1, 0, NULL, 0), SPROUT_OK);
  assert_null(rdma_memory_find(bench.memory, base));
  rdma_memory_destroy(bench.memory);
}

/* --- registration ------------------------------------------------------------------------------
 */

static void test_all_domains_have_all_slices(void **state) {
  (void)state;
  create_slices(2, 20);
  assert_false(rdma_memory_whole(bench.memory));
  rdma_memory_start(bench.memory);
  run_until(&bench.ready_count, 20);
  assert_true(rdma_memory_whole(bench.memory));
  assert_int_equal(fake_verbs_counts().memories, 40);
  for (uint32_t i = 0; i < 20; i++) {
    const struct rdma_slice *slice = rdma_memory_slice(bench.memory, i);
    assert_non_null(slice->memories[0]);
    assert_non_null(slice->memories[1]);
    assert_int_not_equal(slice->memories[0]->remote_key, slice->memories[1]->remote_key);
    assert_null(slice->memories[2]);
  }
  uint64_t here = fake_verbs_blocking_here();
  close_and_destroy();
  assert_int_equal(fake_verbs_blocking_here(), here);
}

static void test_slices_become_ready_one_by_one(void **state) {
  (void)state;
  create_slices(2, 12);
  fake_verbs_hold(FAKE_MEMORY_REGISTER);
  rdma_memory_start(bench.memory);
  fake_verbs_wait_held(FAKE_MEMORY_REGISTER, WORKERS);
  for (uint32_t i = 0; i < 3; i++) reactor_tick(bench.reactor, 0);
  assert_int_equal(bench.ready_count, 0);
  /* Every worker gets its slice into one domain: none is ready. */
  fake_verbs_let(FAKE_MEMORY_REGISTER, WORKERS - 1);
  fake_verbs_wait_held(FAKE_MEMORY_REGISTER, WORKERS);
  for (uint32_t wanted = 1; wanted <= 3; wanted++) {
    uint32_t calls = 0;
    while (bench.ready_count < wanted) {
      fake_verbs_let(FAKE_MEMORY_REGISTER, 1);
      assert_true(calls++ <= 2 * WORKERS);
      fake_verbs_wait_held(FAKE_MEMORY_REGISTER, WORKERS);
      for (int i = 0; i < 3; i++) reactor_tick(bench.reactor, TICK_NS);
    }
    assert_false(rdma_memory_whole(bench.memory));
  }
  for (uint32_t i = 0; i < 12; i++)
    assert_int_equal(rdma_memory_slice(bench.memory, i)->ready, bench.ready[i]);
  fake_verbs_unhold(FAKE_MEMORY_REGISTER);
  run_until(&bench.ready_count, 12);
  assert_int_equal(fake_verbs_parallel_max(FAKE_MEMORY_REGISTER), WORKERS);
  close_and_destroy();
}

static void test_nothing_to_register(void **state) {
  (void)state;
  assert_int_equal(create(2, 0, NULL, 0), SPROUT_OK);
  assert_true(rdma_memory_whole(bench.memory));
  rdma_memory_start(bench.memory);
  assert_true(rdma_memory_whole(bench.memory));
  close_and_destroy();
}

/* --- failure -----------------------------------------------------------------------------------
 */

static void test_the_nth_registration_fails(void **state) {
  (void)state;
  for (uint64_t nth = 1; nth <= 24; nth++) {
    create_slices(2, 12);
    bench.ready_count = bench.failed_count = 0;
    bench.closed = false;
    memset(bench.ready, 0, sizeof bench.ready);
    fake_verbs_fail(FAKE_MEMORY_REGISTER, nth, EFAULT);
    rdma_memory_start(bench.memory);
    run_until(&bench.failed_count, 1);
    assert_int_equal(bench.error.status, SPROUT_UNSUPPORTED);
    assert_int_equal(bench.error.native, EFAULT);
    assert_true(bench.error.hint[0] != '\0');
    assert_true(bench.ready_count < 12);
    assert_false(rdma_memory_whole(bench.memory));
    close_and_destroy(); /* with registrations still under way */
    assert_int_equal(bench.failed_count, 1);
  }
}

static void test_all_registrations_fail(void **state) {
  (void)state;
  create_slices(2, 20);
  bench.close_when_failed = bench.destroy_when_closed = true;
  fake_verbs_fail_all(FAKE_MEMORY_REGISTER, ENOMEM);
  rdma_memory_start(bench.memory);
  run_until_closed();
  assert_int_equal(bench.failed_count, 1);
  assert_int_equal(bench.ready_count, 0);
  assert_int_equal(bench.error.status, SPROUT_LIMIT);
  assert_true(fake_verbs_calls(FAKE_MEMORY_REGISTER) < 20); /* it does not go on to the end */
  assert_int_equal(fake_verbs_calls(FAKE_MEMORY_RELEASE), 0);
}

static void test_the_device_goes_away(void **state) {
  (void)state;
  create_slices(2, 12);
  fake_device_remove(1);
  rdma_memory_start(bench.memory);
  run_until(&bench.failed_count, 1);
  close_and_destroy();
}

static void test_no_memory_to_create(void **state) {
  (void)state;
  if (!memory_can_fail()) skip();
  const struct rdma_span span = {.address = base, .length_bytes = 1000, .dmabuf_fd = -1};
  long count = 0;
  for (;; count++) {
    memory_fail_after(count);
    enum sprout_status status = create(1, 0, &span, 1);
    if (!memory_restore()) {
      assert_int_equal(status, SPROUT_OK);
      break;
    }
    assert_int_equal(status, SPROUT_NO_MEMORY);
  }
  assert_true(count >= 2);
  rdma_memory_destroy(bench.memory);
}

/* --- closing -----------------------------------------------------------------------------------
 */

static void test_close_before_start(void **state) {
  (void)state;
  create_slices(1, 3);
  close_and_destroy();
  assert_int_equal(fake_verbs_calls(FAKE_MEMORY_REGISTER), 0);
}

static void test_close_during_registration(void **state) {
  (void)state;
  create_slices(2, 30);
  bench.destroy_when_closed = true;
  fake_verbs_hold(FAKE_MEMORY_REGISTER);
  rdma_memory_start(bench.memory);
  fake_verbs_wait_held(FAKE_MEMORY_REGISTER, WORKERS);
  fake_verbs_let(FAKE_MEMORY_REGISTER, 3);
  fake_verbs_wait_held(FAKE_MEMORY_REGISTER, WORKERS);
  rdma_memory_close(bench.memory, on_closed, &bench);
  for (int i = 0; i < 5; i++) reactor_tick(bench.reactor, TICK_NS);
  assert_false(bench.closed);
  fake_verbs_unhold(FAKE_MEMORY_REGISTER);
  run_until_closed();
  assert_null(bench.memory);
  assert_int_equal(bench.ready_count + bench.failed_count, 0);
  assert_int_equal(fake_verbs_counts().memories, 0);
  assert_true(fake_verbs_calls(FAKE_MEMORY_REGISTER) < 30); /* what had not begun never does */
}

static void test_a_failure_during_closing_is_not_told(void **state) {
  (void)state;
  create_slices(1, 4);
  fake_verbs_hold(FAKE_MEMORY_REGISTER);
  fake_verbs_fail_all(FAKE_MEMORY_REGISTER, EIO);
  rdma_memory_start(bench.memory);
  fake_verbs_wait_held(FAKE_MEMORY_REGISTER, WORKERS);
  rdma_memory_close(bench.memory, on_closed, &bench);
  fake_verbs_unhold(FAKE_MEMORY_REGISTER);
  run_until_closed();
  assert_int_equal(bench.failed_count, 0);
  rdma_memory_destroy(bench.memory);
}

static void test_close_from_callbacks(void **state) {
  (void)state;
  for (uint32_t slices = 1; slices <= 20; slices++) {
    create_slices(2, slices);
    bench.ready_count = 0;
    bench.closed = false;
    memset(bench.ready, 0, sizeof bench.ready);
    bench.close_when_ready = bench.destroy_when_closed = true;
    rdma_memory_start(bench.memory);
    run_until_closed();
    assert_int_equal(bench.ready_count, 1);
    assert_int_equal(fake_verbs_counts().memories, 0);
  }
}

static void test_a_failing_release_is_no_reason_to_stop(void **state) {
  (void)state;
  create_slices(2, 10);
  rdma_memory_start(bench.memory);
  run_until(&bench.ready_count, 10);
  fake_verbs_fail_all(FAKE_MEMORY_RELEASE, EBUSY);
  close_and_destroy();
}

/* --- why ---------------------------------------------------------------------------------------
 */

static void test_explain(void **state) {
  (void)state;
  static const struct {
    int native;
    rlim_t limit;
    enum sprout_status status;
    const char *message, *hint;
  } cases[] = {
      {ENOMEM, 64 * 1024, SPROUT_LIMIT, "RLIMIT_MEMLOCK", "ulimit -l"},
      {ENOMEM, RLIM_INFINITY, SPROUT_LIMIT, "no room for more", "--transport tcp"},
      {EOPNOTSUPP, 64 * 1024, SPROUT_UNSUPPORTED, "of this kind", "--transport tcp"},
      {ENOSYS, 64 * 1024, SPROUT_UNSUPPORTED, "of this kind", "--transport tcp"},
      {EFAULT, 64 * 1024, SPROUT_UNSUPPORTED, "mapping", "--memory host"},
      {EIO, 64 * 1024, SPROUT_UNSUPPORTED, "Input/output error", "--transport tcp"},
  };
  struct rlimit before;
  assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct rlimit limit = {cases[i].limit, before.rlim_max};
    if (cases[i].limit > before.rlim_max) limit.rlim_max = cases[i].limit;
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) continue; /* raising takes privilege */
    struct sprout_error error = {0};
    assert_int_equal(rdma_memory_explain(cases[i].native, 123456789, &error), cases[i].status);
    assert_int_equal(error.status, cases[i].status);
    assert_int_equal(error.native, cases[i].native);
    if (strstr(error.message, cases[i].message) == NULL) fail_msg("'%s'", error.message);
    if (strstr(error.hint, cases[i].hint) == NULL) fail_msg("'%s'", error.hint);
    assert_int_equal(rdma_memory_explain(cases[i].native, 1, NULL), cases[i].status);
  }
  (void)setrlimit(RLIMIT_MEMLOCK, &before);
}

#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BENCH(test_layout),
      WITH_BENCH(test_descriptors_stay_apart),
      WITH_BENCH(test_find),
      WITH_BENCH(test_all_domains_have_all_slices),
      WITH_BENCH(test_slices_become_ready_one_by_one),
      WITH_BENCH(test_nothing_to_register),
      WITH_BENCH(test_the_nth_registration_fails),
      WITH_BENCH(test_all_registrations_fail),
      WITH_BENCH(test_the_device_goes_away),
      WITH_BENCH(test_no_memory_to_create),
      WITH_BENCH(test_close_before_start),
      WITH_BENCH(test_close_during_registration),
      WITH_BENCH(test_a_failure_during_closing_is_not_told),
      WITH_BENCH(test_close_from_callbacks),
      WITH_BENCH(test_a_failing_release_is_no_reason_to_stop),
      cmocka_unit_test(test_explain),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
