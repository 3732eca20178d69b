/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of text cells in aligned columns, for people. The table owns copies of its cells.
 */
#ifndef CLI_TEXT_TABLE_H
#define CLI_TEXT_TABLE_H

#include "sprout/status.h"

#include <stddef.h>
#include <stdio.h>

#define TEXT_TABLE_COLUMNS_MAX 10

struct text_table {
  size_t column_count;
  char aligns[TEXT_TABLE_COLUMNS_MAX + 1]; /* 'l' or 'r' each */
  size_t widths[TEXT_TABLE_COLUMNS_MAX];   /* of the widest cell so far */
  char **cells;                            /* row by row */
  size_t cell_count, cell_capacity;
  int unicode;
};

/* `aligns` has a letter per column: "lrr". Without `unicode` other characters become '?'. */
void text_table_init(struct text_table *table, const char *aligns, int unicode);
/* Adds a cell to the row that is being filled; a row is full when every column has one. Control
 * characters are replaced. SPROUT_NO_MEMORY leaves the table as it was. */
SPROUT_MUST_CHECK enum sprout_status text_table_add(struct text_table *table, const char *text);
/* Two blanks between columns, `indent` in front, nothing at the end of a line. Full rows only. */
void text_table_print(const struct text_table *table, size_t indent, FILE *out);
void text_table_destroy(struct text_table *table);
#endif
