/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program as a user of the installed library writes it. Its own plan_init must not clash with a
 * symbol that happens to have the same name inside libsprout.a.
 */
#include <sprout/sprout.h>

#include <stdio.h>

int plan_init(void);

int plan_init(void) {
  return 42;
}

int main(void) {
  struct sprout_error error;
  if (sprout_probe(&error) != SPROUT_OK)
    fprintf(stderr, "this machine cannot run a service: %s\n", error.message);
  puts(sprout_version());
  return plan_init() == 42 ? 0 : 1;
}
