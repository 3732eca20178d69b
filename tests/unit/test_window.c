/* SPDX-License-Identifier: Apache-2.0 */
#include "core/window.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* One step: take (or give), and what the window then says. */
struct step {
  char what; /* 't' taken, 'r' refused, 'g' give, 'l' new limits: bytes, depth, operations */
  uint64_t bytes;
  uint32_t depth;
  uint32_t operations;
  uint64_t room; /* afterwards */
};

/* Bytes that a read may have now; 0 when nothing can be taken. */
static uint64_t room_of(const struct window *window) {
  const struct window_limits *limits = &window->limits, *used = &window->used;
  if (used->operations >= limits->operations || used->depth >= limits->depth) return 0;
  return used->bytes < limits->bytes ? limits->bytes - used->bytes : 0;
}

static void play(const char *name, struct window_limits limits, const struct step *steps,
                 size_t count) {
  print_message("%s\n", name);
  struct window window;
  window_init(&window, &limits);
  assert_true(window_idle(&window));
  for (size_t i = 0; i < count; i++) {
    const struct step *step = &steps[i];
    struct window_limits lowered = {step->operations, step->bytes, step->depth};
    switch (step->what) {
    case 't': assert_true(window_take(&window, step->bytes, step->depth)); break;
    case 'r': {
      struct window before = window;
      assert_false(window_take(&window, step->bytes, step->depth));
      assert_memory_equal(&before, &window, sizeof window);
      break;
    }
    case 'g': window_give(&window, step->bytes, step->depth); break;
    default: window_set_limits(&window, &lowered);
    }
    assert_int_equal(room_of(&window), step->room);
  }
}

#define PLAY(name, limits, ...)                                                                    \
  do {                                                                                             \
    const struct step steps[] = {__VA_ARGS__};                                                     \
    play(name, (struct window_limits)limits, steps, sizeof steps / sizeof steps[0]);               \
  } while (0)
#define LIMITS(operations, bytes, depth)                                                           \
  { operations, bytes, depth }

static void test_steps(void **state) {
  (void)state;
  PLAY("bytes", LIMITS(8, 100, 8), {'t', 60, 1, 0, 40}, {'r', 41, 1, 0, 40}, {'t', 40, 1, 0, 0},
       {'r', 1, 1, 0, 0}, {'t', 0, 1, 0, 0}, {'g', 60, 1, 0, 60}, {'g', 0, 1, 0, 60},
       {'g', 40, 1, 0, 100});
  PLAY("operations", LIMITS(2, 100, 8), {'t', 1, 1, 0, 99}, {'t', 1, 1, 0, 0}, {'r', 1, 1, 0, 0},
       {'g', 1, 1, 0, 99});
  PLAY("depth", LIMITS(8, 100, 4), {'t', 1, 3, 0, 99}, {'r', 1, 2, 0, 99}, {'t', 1, 1, 0, 0},
       {'g', 1, 3, 0, 99});
  PLAY("a larger one goes alone", LIMITS(8, 100, 8), {'t', 500, 1, 0, 0}, {'r', 0, 1, 0, 0},
       {'g', 500, 1, 0, 100}, {'t', 1, 1, 0, 99}, {'r', 500, 1, 0, 99});
  PLAY("but never deeper than allowed", LIMITS(8, 100, 4), {'r', 1, 5, 0, 100}, {'t', 1, 4, 0, 0});
  PLAY("closed", LIMITS(8, 0, 8), {'r', 1, 1, 0, 0}, {'t', 0, 1, 0, 0});
  PLAY("no operations", LIMITS(0, 100, 8), {'r', 1, 1, 0, 0});
  PLAY("no depth", LIMITS(8, 100, 0), {'r', 1, 1, 0, 0});
  PLAY("lowered, never revoked", LIMITS(8, 100, 8), {'t', 60, 2, 0, 40}, {'l', 50, 1, 1, 0},
       {'r', 1, 1, 0, 0}, {'g', 60, 2, 0, 50}, {'t', 50, 1, 0, 0}, {'l', 200, 8, 8, 150},
       {'g', 50, 1, 0, 200});
  PLAY("huge", LIMITS(UINT32_MAX, UINT64_MAX, UINT32_MAX), {'t', UINT64_MAX, UINT32_MAX, 0, 0},
       {'r', 1, 1, 0, 0}, {'g', UINT64_MAX, UINT32_MAX, 0, UINT64_MAX});
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_steps)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
