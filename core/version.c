/* SPDX-License-Identifier: Apache-2.0 */
#include "sprout/sprout.h"

#define TEXT_OF(x) #x
#define VERSION_TEXT(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)

const char *sprout_version(void) {
  return VERSION_TEXT(SPROUT_VERSION_MAJOR, SPROUT_VERSION_MINOR, SPROUT_VERSION_PATCH);
}
