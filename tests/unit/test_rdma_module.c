/* SPDX-License-Identifier: Apache-2.0 */
/* Beside this test program there is no module: what a machine without it is told. */
#include "net/rdma_module.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_a_machine_without_the_module_is_told_what_to_do(void **state) {
  (void)state;
  const struct verbs *verbs = NULL;
  for (int i = 0; i < 2; i++) { /* the second answer is the kept one */
    struct sprout_error error = {0};
    if (rdma_module_load(&verbs, &error) == SPROUT_OK) skip(); /* sprout is installed here */
    assert_int_equal(error.status, SPROUT_UNSUPPORTED);
    assert_non_null(strstr(error.message, "libsprout_rdma.so"));
    assert_non_null(strstr(error.hint, "SPROUT_RDMA=ON"));
    assert_null(verbs);
  }
  assert_int_equal(rdma_module_load(&verbs, NULL), SPROUT_UNSUPPORTED);
}

static void test_another_layer_takes_its_place_until_it_is_taken_back(void **state) {
  (void)state;
  static const struct verbs fake = {.layer_version = VERBS_LAYER_VERSION};
  const struct verbs *verbs = NULL;
  rdma_module_replace(&fake);
  assert_int_equal(rdma_module_load(&verbs, NULL), SPROUT_OK);
  assert_ptr_equal(verbs, &fake);
  rdma_module_replace(NULL);
  verbs = NULL;
  if (rdma_module_load(&verbs, NULL) != SPROUT_OK) assert_null(verbs);
  assert_ptr_not_equal(verbs, &fake);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_a_machine_without_the_module_is_told_what_to_do),
      cmocka_unit_test(test_another_layer_takes_its_place_until_it_is_taken_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
