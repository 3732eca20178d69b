/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jansson helpers of the program's json files.
 */
#ifndef CLI_JSON_TEXT_H
#define CLI_JSON_TEXT_H

#include <jansson.h>
#include <stdio.h>

/* A string that is JSON whatever the bytes: what is not UTF-8 becomes '?'. NULL: out of memory. */
json_t *json_text(const char *text);

/* Prints the object as one line and gives it back (NULL, out of memory: prints nothing). */
void json_line_print(FILE *out, json_t *object);
#endif
