/* SPDX-License-Identifier: Apache-2.0 */
#include "core/log.h"
#include "net/rdma_landing.h"
#include "net/rdma_module.h"
#include "tests/support/fake_verbs.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define TICK_NS UINT64_C(1000000)
#define TICKS_MAX 5000

struct user {
  struct rdma_landing_user user;
  uint32_t told;
  bool leaves;
};

static struct {
  struct sprout_service *service;
  struct rdma_selection selection;
  struct rdma_host *host;
  struct rdma_device *devices[RDMA_RAILS_MAX];
  struct rdma_landing *landing;
  struct user users[3];
  uint32_t asked;
  bool closed;
} bench;

static unsigned char memory[8][4096];

static void tick(void) {
  reactor_tick(service_reactor(bench.service), TICK_NS);
}

static void on_changed(struct rdma_landing_user *user) {
  struct user *own = container_of(user, struct user, user);
  own->told++;
  if (own->leaves) rdma_landing_leave(bench.landing, user);
}

/* Memory apart, so that each piece is a slice. */
static uint32_t give_spans(void *context, const struct iovec **spans_out) {
  static struct iovec spans[4];
  assert_ptr_equal(context, &bench);
  for (int i = 0; i < 4; i++) spans[i] = (struct iovec){memory[2 * i], 1000};
  bench.asked++;
  *spans_out = spans;
  return 4;
}

static void on_closed(void *context) {
  assert_ptr_equal(context, &bench);
  assert_false(bench.closed);
  bench.closed = true;
}

static int set_up(void **state) {
  (void)state;
  struct sprout_error error;
  memset(&bench, 0, sizeof bench);
  fake_verbs_init(2);
  rdma_module_replace(fake_verbs());
  log_set_level(LOG_ERROR);
  assert_int_equal(sprout_service_create(NULL, &bench.service, &error), SPROUT_OK);
  const struct rdma_wish wish = {.gid_index = -1};
  fake_verbs_excuse(true);
  assert_int_equal(rdma_select(&wish, &bench.selection, &error), SPROUT_OK);
  fake_verbs_excuse(false);
  assert_int_equal(
      rdma_host_get(bench.service, &bench.selection, &bench.host, bench.devices, &error),
      SPROUT_OK);
  const struct rdma_landing_options options = {.host = bench.host,
                                               .device_count = 2,
                                               .devices = {bench.devices[0], bench.devices[1]},
                                               .spans = give_spans,
                                               .context = &bench};
  assert_int_equal(rdma_landing_create(&options, &bench.landing), SPROUT_OK);
  for (int i = 0; i < 3; i++) bench.users[i].user.changed = on_changed;
  return 0;
}

static void close_landing(void) {
  rdma_landing_close(bench.landing, on_closed, &bench);
}

static int tear_down(void **state) {
  (void)state;
  for (int i = 0; i < TICKS_MAX && !bench.closed; i++) tick();
  assert_true(bench.closed);
  rdma_landing_destroy(bench.landing);
  assert_int_equal(fake_verbs_blocking_here(), 0);
  sprout_service_destroy(bench.service);
  rdma_module_replace(NULL);
  fake_verbs_end();
  log_set_level(LOG_WARNING);
  return 0;
}

static void join(int user) {
  rdma_landing_join(bench.landing, &bench.users[user].user);
  assert_int_equal(bench.users[user].told, 0); /* never from within */
}

static void leave(int user) {
  rdma_landing_leave(bench.landing, &bench.users[user].user);
}

static void run_until_told(int user, uint32_t times) {
  for (int i = 0; i < TICKS_MAX && bench.users[user].told < times; i++) tick();
  assert_true(bench.users[user].told >= times);
}

static void run_until_whole(void) {
  const struct rdma_memory *registered = rdma_landing_memory(bench.landing);
  assert_non_null(registered);
  for (int i = 0; i < TICKS_MAX && !rdma_memory_whole(registered); i++) tick();
  assert_true(rdma_memory_whole(registered));
}

static void test_opened_once_and_registered_once(void **state) {
  (void)state;
  join(0);
  join(1);
  assert_false(rdma_landing_opened(bench.landing));
  run_until_told(0, 1);
  assert_int_equal(bench.users[1].told, 1);
  assert_true(rdma_landing_opened(bench.landing));
  assert_null(rdma_landing_error(bench.landing));
  assert_ptr_not_equal(rdma_landing_domain(bench.landing, 0),
                       rdma_landing_domain(bench.landing, 1));
  assert_int_equal(bench.asked, 0); /* a fork that reads nothing registers nothing */
  run_until_whole();
  leave(0);
  join(2); /* comes late, and hears that all is there */
  run_until_told(2, 1);
  run_until_whole();
  assert_int_equal(bench.asked, 1);
  assert_int_equal(fake_verbs_calls(FAKE_DOMAIN_OPEN), 2);
  assert_int_equal(fake_verbs_counts().memories, 2 * 5); /* four pieces and the words */
  const struct rdma_memory *registered = rdma_landing_memory(bench.landing);
  assert_non_null(rdma_memory_find(registered, memory[6] + 999));
  assert_non_null(rdma_memory_find(registered, rdma_landing_words(bench.landing, 1)));
  leave(1);
  leave(2);
  close_landing();
}

static void test_users_that_leave_when_told(void **state) {
  (void)state;
  bench.users[0].leaves = bench.users[2].leaves = true;
  for (int i = 0; i < 3; i++) join(i);
  run_until_told(1, 1);
  run_until_whole();
  assert_int_equal(bench.users[0].told, 1);
  assert_int_equal(bench.users[2].told, 1);
  assert_int_equal(bench.users[1].told, 1 + 5);
  leave(1);
  close_landing();
}

static void test_close_before_anybody_joined(void **state) {
  (void)state;
  close_landing();
}

static void test_close_while_domains_are_opened(void **state) {
  (void)state;
  fake_verbs_hold(FAKE_DOMAIN_OPEN);
  join(0);
  fake_verbs_wait_held(FAKE_DOMAIN_OPEN, 1);
  leave(0);
  close_landing();
  for (int i = 0; i < 5; i++) tick();
  assert_false(bench.closed);
  fake_verbs_unhold(FAKE_DOMAIN_OPEN);
}

static void test_close_while_registering(void **state) {
  (void)state;
  join(0);
  run_until_told(0, 1);
  fake_verbs_hold(FAKE_MEMORY_REGISTER);
  assert_non_null(rdma_landing_memory(bench.landing));
  fake_verbs_wait_held(FAKE_MEMORY_REGISTER, 1);
  leave(0);
  close_landing();
  for (int i = 0; i < 5; i++) tick();
  assert_false(bench.closed);
  fake_verbs_unhold(FAKE_MEMORY_REGISTER);
}

static void test_the_nth_domain_fails(void **state) {
  (void)state;
  for (uint64_t nth = 1; nth <= 2; nth++) {
    fake_verbs_fail(FAKE_DOMAIN_OPEN, nth, ENOMEM);
    join(0);
    run_until_told(0, 1);
    assert_false(rdma_landing_opened(bench.landing));
    const struct sprout_error *error = rdma_landing_error(bench.landing);
    assert_non_null(error);
    assert_int_equal(error->status, SPROUT_UNSUPPORTED);
    assert_int_equal(error->native, ENOMEM);
    join(1); /* for good */
    run_until_told(1, 1);
    leave(0);
    leave(1);
    close_landing();
    if (nth == 2) return;
    (void)tear_down(state);
    (void)set_up(state);
  }
}

static void test_the_nth_registration_fails(void **state) {
  (void)state;
  for (uint64_t nth = 1; nth <= 10; nth++) {
    join(0);
    run_until_told(0, 1);
    fake_verbs_fail(FAKE_MEMORY_REGISTER, nth, EFAULT);
    assert_non_null(rdma_landing_memory(bench.landing));
    for (int i = 0; i < TICKS_MAX && rdma_landing_error(bench.landing) == NULL; i++) tick();
    assert_non_null(rdma_landing_error(bench.landing));
    assert_int_equal(rdma_landing_error(bench.landing)->native, EFAULT);
    leave(0);
    close_landing();
    if (nth == 10) return;
    (void)tear_down(state);
    (void)set_up(state);
  }
}

static void test_words_run_out(void **state) {
  (void)state;
  const uint64_t *last = NULL;
  uint32_t count = 0;
  for (;; count++) {
    const uint64_t *words = rdma_landing_words(bench.landing, 128);
    if (words == NULL) break;
    assert_true(last == NULL || words == last + 128);
    last = words;
  }
  assert_int_equal(count, 64);
  assert_null(rdma_landing_words(bench.landing, 1));
  close_landing();
}

static void test_no_memory(void **state) {
  (void)state;
  close_landing();
  if (!memory_can_fail()) skip();
  struct rdma_landing *landing = NULL;
  const struct rdma_landing_options options = {
      .host = bench.host, .device_count = 1, .devices = {bench.devices[0]}};
  memory_fail_after(0);
  assert_int_equal(rdma_landing_create(&options, &landing), SPROUT_NO_MEMORY);
  assert_true(memory_restore());
  assert_null(landing);
}

#define WITH_BENCH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_BENCH(test_opened_once_and_registered_once),
      WITH_BENCH(test_users_that_leave_when_told),
      WITH_BENCH(test_close_before_anybody_joined),
      WITH_BENCH(test_close_while_domains_are_opened),
      WITH_BENCH(test_close_while_registering),
      WITH_BENCH(test_the_nth_domain_fails),
      WITH_BENCH(test_the_nth_registration_fails),
      WITH_BENCH(test_words_run_out),
      WITH_BENCH(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
