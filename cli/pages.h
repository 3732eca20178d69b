/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The man page and the documents that are made from the program's tables. scripts/update-docs.sh
 * writes them to docs/; a test says when that was forgotten.
 */
#ifndef CLI_PAGES_H
#define CLI_PAGES_H

#include <stdio.h>

void pages_print_man(FILE *out);      /* sprout(1) */
void pages_print_commands(FILE *out); /* docs/COMMANDS.md */
void pages_print_metrics(FILE *out);  /* docs/METRICS.md */
void pages_print_limits(FILE *out);   /* docs/LIMITS.md */
#endif
