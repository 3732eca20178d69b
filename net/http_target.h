/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target of a request, taken apart: absolute path, percent-decoded once, and raw query. Pure.
 */
#ifndef NET_HTTP_TARGET_H
#define NET_HTTP_TARGET_H

#include <stdbool.h>

/*
 * Takes a NUL-terminated origin-form ("/a/b?q") or absolute-form ("http://host/a/b?q") target apart
 * in place: *path_out and *query_out point into `target`. NULL when it is fine, else what is wrong
 * with it (static text).
 */
const char *http_target_split(char *target, const char **path_out, const char **query_out);
#endif
