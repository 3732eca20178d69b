/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/text_table.h"

#include "cli/terminal.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CELL_BYTES 4200
#define CAPACITY_AT_FIRST 64

void text_table_init(struct text_table *table, const char *aligns, int unicode) {
  *table = (struct text_table){.column_count = strlen(aligns), .unicode = unicode};
  assert(table->column_count > 0 && table->column_count <= TEXT_TABLE_COLUMNS_MAX);
  memcpy(table->aligns, aligns, table->column_count);
}

void text_table_destroy(struct text_table *table) {
  for (size_t i = 0; i < table->cell_count; i++) free(table->cells[i]);
  free(table->cells);
  *table = (struct text_table){.column_count = 0};
}

static enum sprout_status make_room(struct text_table *table) {
  if (table->cell_count < table->cell_capacity) return SPROUT_OK;
  size_t capacity = table->cell_capacity > 0 ? 2 * table->cell_capacity : CAPACITY_AT_FIRST;
  char **cells = reallocarray(table->cells, capacity, sizeof(cells[0]));
  if (cells == NULL) return SPROUT_NO_MEMORY;
  table->cells = cells;
  table->cell_capacity = capacity;
  return SPROUT_OK;
}

enum sprout_status text_table_add(struct text_table *table, const char *text) {
  char cleaned[CELL_BYTES];
  size_t column = table->cell_count % table->column_count;
  size_t width = terminal_clean(text, SIZE_MAX, table->unicode, cleaned, sizeof(cleaned));
  if (make_room(table) != SPROUT_OK) return SPROUT_NO_MEMORY;
  char *cell = strdup(cleaned);
  if (cell == NULL) return SPROUT_NO_MEMORY;
  table->cells[table->cell_count++] = cell;
  if (width > table->widths[column]) table->widths[column] = width;
  return SPROUT_OK;
}

/* Characters of a cell; cells are clean. */
static size_t columns_of(const char *text) {
  size_t count = 0;
  for (; *text != '\0'; text++) count += ((unsigned char)*text & 0xC0) != 0x80;
  return count;
}

/* Blanks are owed until something follows them. */
static size_t print_cell(const char *cell, size_t width, char align, size_t owed, FILE *out) {
  size_t padding = width - columns_of(cell);
  if (align == 'r') owed += padding;
  if (cell[0] != '\0') {
    fprintf(out, "%*s%s", (int)owed, "", cell);
    owed = 0;
  }
  return align == 'r' ? owed : owed + padding;
}

void text_table_print(const struct text_table *table, size_t indent, FILE *out) {
  for (size_t row = 0; (row + 1) * table->column_count <= table->cell_count; row++) {
    size_t owed = indent;
    for (size_t i = 0; i < table->column_count; i++) {
      const char *cell = table->cells[row * table->column_count + i];
      owed = print_cell(cell, table->widths[i], table->aligns[i], owed, out) + 2;
    }
    fputc('\n', out);
  }
}
