/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the terminal can do, and text that cannot harm it.
 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

struct terminal {
  int fd;
  bool interactive; /* a terminal on which lines can be redrawn */
  bool color;
  bool unicode;
};

/* Looks at descriptor, TERM, NO_COLOR and the locale. */
struct terminal terminal_of(int fd, char *(*environment)(const char *name));

/* Columns and rows at this moment: COLUMNS and LINES when set, else what the terminal says, else 80
 * by 24. */
void terminal_size(const struct terminal *terminal, char *(*environment)(const char *name),
                   unsigned *columns_out, unsigned *rows_out);

/*
 * Copies `text` with every control character, and every byte that is not UTF-8, replaced by '?';
 * cuts it after `columns` characters, the last one then an ellipsis ("..." without unicode).
 * Returns how many columns the copy takes (every character counts as one). Pure.
 */
size_t terminal_clean(const char *text, size_t columns, bool unicode, char *buffer, size_t room);
#endif
