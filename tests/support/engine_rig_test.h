/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the fork engine share on top of the bench: one rig, and what to expect of it.
 * Included after cmocka's needs, by test programs only. */
#ifndef TESTS_SUPPORT_ENGINE_RIG_TEST_H
#define TESTS_SUPPORT_ENGINE_RIG_TEST_H

#include "core/fork_engine_internal.h"
#include "tests/support/engine_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define ALL_KNOWN UINT64_MAX
#define MS RIG_MS

static struct rig rig;

static inline struct rig_source *start_with_one(const struct fork_engine_options *options) {
  rig_make(&rig, options);
  struct rig_source *source = rig_add(&rig);
  rig_start(&rig);
  return source;
}

static inline void expect_end(enum sprout_status status) {
  rig_settle(&rig);
  assert_true(rig.finished);
  assert_int_equal(rig.result.status, status);
  rig_unmake(&rig);
}

static inline void expect_in(const char *text, const char *part) {
  if (strstr(text, part) == NULL) fail_msg("'%s' is not in '%s'", part, text);
}

#endif
