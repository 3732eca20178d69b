/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which objects of a manifest a fork wants. Pure.
 *
 * Globs are fnmatch's; "*" also matches "/". An object is selected when its file matches one of
 * `include` (or there is none) and none of `exclude`, and, with tensor globs, when it is a tensor
 * whose name matches one of them. Objects of no file have the path "". Selecting an alias selects
 * its target, whose bytes are the ones read.
 */
#ifndef CORE_FILTER_H
#define CORE_FILTER_H

#include "core/manifest.h"

/*
 * With `exact` (not NULL; caller memory) exactly the objects that manifest_find_object gives for
 * these names are selected and globs are not looked at; a name that is missing selects nothing
 * here: the destination's prepare reports all of them at once.
 */
struct fork_filter {
  const char *const *include;
  size_t include_count;
  const char *const *exclude;
  size_t exclude_count;
  const char *const *tensor;
  size_t tensor_count;
  const char *const *exact;
  size_t exact_count;
};

/* Whether the globs on paths let a file through (an empty file has no object to tell it). */
bool filter_selects_path(const struct fork_filter *filter, const char *path);
/* One bit per object, to be freed with free(); NULL when everything is selected. Globs that leave
 * neither an object nor an (empty) file are SPROUT_INVALID, naming them. */
SPROUT_MUST_CHECK enum sprout_status filter_select(const struct manifest *manifest,
                                                   const struct fork_filter *filter,
                                                   uint64_t **selected_out,
                                                   struct sprout_error *error);
#endif
