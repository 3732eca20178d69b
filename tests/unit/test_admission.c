/* SPDX-License-Identifier: Apache-2.0 */
#include "core/admission.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define LEASE 1000u

static struct admission *create(uint32_t running, uint32_t queued) {
  const struct admission_options options = {
      .max_running = running, .max_queued = queued, .keep_closed = 2, .lease_ns = LEASE};
  struct admission *admission = NULL;
  assert_int_equal(admission_create(&options, &admission), SPROUT_OK);
  return admission;
}

static enum sprout_status try_open(struct admission *admission, uint32_t number, uint64_t now,
                                   struct admission_fork **fork_out) {
  uint8_t id[ADMISSION_ID_BYTES] = {0}, nonce[ADMISSION_ID_BYTES] = {0};
  memcpy(id, &number, sizeof(number));
  memcpy(nonce, &number, sizeof(number));
  nonce[15] = 1;
  return admission_open(admission, id, nonce, "peer", now, fork_out);
}

static struct admission_fork *open_fork(struct admission *admission, uint32_t number,
                                        uint64_t now) {
  struct admission_fork *fork = NULL;
  assert_int_equal(try_open(admission, number, now, &fork), SPROUT_OK);
  return fork;
}

static void slots_then_queue_then_busy(void **state) {
  (void)state;
  struct admission *admission = create(2, 2);
  struct admission_fork *forks[4], *none = NULL;
  for (uint32_t i = 0; i < 4; i++) forks[i] = open_fork(admission, i, 0);
  assert_int_equal(forks[1]->state, ADMISSION_RUNNING);
  assert_int_equal(forks[2]->state, ADMISSION_QUEUED);
  assert_int_equal(admission_position(admission, forks[3]), 2);
  assert_int_equal(try_open(admission, 9, 0, &none), SPROUT_BUSY);
  assert_null(none);
  assert_null(admission_promote(admission, 1));
  admission_close(admission, forks[0], SPROUT_OK, "done", 5);
  /* A newcomer does not overtake. */
  struct admission_fork *late = NULL;
  assert_int_equal(try_open(admission, 7, 5, &late), SPROUT_BUSY);
  assert_ptr_equal(admission_promote(admission, 6), forks[2]);
  assert_int_equal(forks[2]->started_ns, 6);
  assert_null(admission_promote(admission, 6));
  assert_int_equal(admission_position(admission, forks[3]), 1);
  assert_int_equal(admission_position(admission, forks[2]), 0);
  assert_int_equal(admission_running(admission), 2);
  assert_int_equal(admission_queued(admission), 1);
  admission_destroy(admission);
}

static void same_nonce_is_the_same_fork(void **state) {
  (void)state;
  struct admission *admission = create(1, 1);
  struct admission_fork *fork = open_fork(admission, 1, 0);
  assert_ptr_equal(open_fork(admission, 1, 10), fork);
  assert_int_equal(admission_running(admission), 1);
  admission_close(admission, fork, SPROUT_OK, "", 20);
  assert_ptr_not_equal(open_fork(admission, 1, 30), fork);
  admission_destroy(admission);
}

static void leases_end_in_order(void **state) {
  (void)state;
  struct admission *admission = create(2, 4);
  struct admission_fork *a = open_fork(admission, 1, 0), *b = open_fork(admission, 2, 10),
                        *c = open_fork(admission, 3, 20);
  assert_int_equal(admission_next_expiry(admission), LEASE);
  assert_int_equal(admission_heartbeat(admission, a, 500), SPROUT_OK);
  assert_int_equal(admission_next_expiry(admission), LEASE + 10);
  assert_null(admission_expire(admission, LEASE + 9));
  assert_int_equal(admission_heartbeat(admission, b, LEASE + 10), SPROUT_GONE);
  assert_ptr_equal(admission_expire(admission, LEASE + 10), b);
  assert_true(b->expired);
  assert_int_equal(b->result, SPROUT_TIMEOUT);
  assert_int_equal(admission_heartbeat(admission, b, LEASE + 11), SPROUT_GONE);
  assert_ptr_equal(admission_expire(admission, LEASE + 30), c); /* queued ones too */
  assert_null(admission_expire(admission, LEASE + 30));
  assert_int_equal(admission_queued(admission), 0);
  admission_close(admission, a, SPROUT_OK, NULL, LEASE + 40);
  assert_int_equal(admission_next_expiry(admission), UINT64_MAX);
  admission_destroy(admission);
}

static void closed_ones_are_kept_and_forgotten(void **state) {
  (void)state;
  struct admission *admission = create(8, 8);
  for (uint32_t i = 0; i < 3; i++)
    admission_close(admission, open_fork(admission, i, i), SPROUT_OK, "x", i);
  uint8_t id[ADMISSION_ID_BYTES] = {0};
  assert_null(admission_find(admission, id));
  id[0] = 2;
  assert_non_null(admission_find(admission, id));
  assert_int_equal(admission_find(admission, id)->state, ADMISSION_CLOSED);
  admission_destroy(admission);
}

static void draining_opens_nothing_new(void **state) {
  (void)state;
  struct admission *admission = create(1, 4);
  struct admission_fork *a = open_fork(admission, 1, 0), *none = NULL;
  admission_set_draining(admission);
  assert_int_equal(try_open(admission, 2, 1, &none), SPROUT_UNAVAILABLE);
  assert_ptr_equal(open_fork(admission, 1, 1), a);
  admission_destroy(admission);
}

static void count_alive(struct admission_fork *fork, void *context) {
  uint32_t *counts = context;
  counts[fork->state]++;
}

/* Random steps; the counters, positions and bounds hold after each. */
static void holds_under_random_steps(void **state) {
  (void)state;
  struct admission *admission = create(5, 7);
  uint64_t random = 88172645463325252u, now = 0;
  for (int step = 0; step < 50000; step++) {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    now += random % 40;
    uint8_t id[ADMISSION_ID_BYTES] = {0};
    uint32_t number = (uint32_t)(random >> 20) % 32;
    memcpy(id, &number, sizeof(number));
    struct admission_fork *fork = admission_find(admission, id);
    switch ((random >> 8) % 4) {
    case 0:
      if (fork == NULL || fork->state != ADMISSION_CLOSED)
        (void)!try_open(admission, number, now, &fork);
      break;
    case 1:
      if (fork != NULL) (void)!admission_heartbeat(admission, fork, now);
      break;
    case 2:
      if (fork != NULL) admission_close(admission, fork, SPROUT_OK, "", now);
      break;
    default:
      while (admission_expire(admission, now) != NULL) continue;
      while (admission_promote(admission, now) != NULL) continue;
      break;
    }
    uint32_t counts[3] = {0};
    admission_each(admission, count_alive, counts);
    assert_int_equal(counts[ADMISSION_RUNNING], admission_running(admission));
    assert_int_equal(counts[ADMISSION_QUEUED], admission_queued(admission));
    assert_true(counts[ADMISSION_RUNNING] <= 5 && counts[ADMISSION_QUEUED] <= 7);
    assert_true(counts[ADMISSION_CLOSED] <= 2);
  }
  admission_destroy(admission);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(slots_then_queue_then_busy),
      cmocka_unit_test(same_nonce_is_the_same_fork),
      cmocka_unit_test(leases_end_in_order),
      cmocka_unit_test(closed_ones_are_kept_and_forgotten),
      cmocka_unit_test(draining_opens_nothing_new),
      cmocka_unit_test(holds_under_random_steps),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
