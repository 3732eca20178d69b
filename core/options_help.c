/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Help text, man page and Markdown, all from the rows of the option table.
 */
#include "core/options.h"

#include <string.h>

#define HELP_WIDTH 80
#define HELP_COLUMN 28 /* where the explanation of an option begins */
#define ROW_TEXT_BYTES 1024

/* Prints `text` wrapped at HELP_WIDTH, each line but the first indented; the cursor stands at
 * `column`. */
static void print_wrapped(const char *text, size_t column, size_t indent, FILE *out) {
  size_t at = column;
  while (*text != '\0') {
    size_t length = strcspn(text, " \n");
    if (at > indent && at + 1 + length > HELP_WIDTH) {
      fprintf(out, "\n%*s", (int)indent, "");
      at = indent;
    } else if (at > indent) {
      fputc(' ', out);
      at++;
    }
    fprintf(out, "%.*s", (int)length, text);
    at += length;
    text += length;
    text += strspn(text, " \n");
  }
  fputc('\n', out);
}

/* A paragraph of a description: where it begins, how long it is, whether it is kept as it is. */
struct paragraph {
  const char *text;
  size_t length;
  bool verbatim;
};

/* Takes the next paragraph off *text; false: none left. */
static bool next_paragraph(const char **text, struct paragraph *paragraph_out) {
  const char *at = *text + strspn(*text, "\n");
  if (*at == '\0') return false;
  const char *end = strstr(at, "\n\n");
  size_t length = end != NULL ? (size_t)(end - at) : strlen(at);
  *paragraph_out = (struct paragraph){.text = at, .length = length, .verbatim = *at == ' '};
  *text = at + length;
  return true;
}

static void print_paragraph(const struct paragraph *paragraph, FILE *out) {
  char text[ROW_TEXT_BYTES];
  if (paragraph->verbatim) {
    fprintf(out, "%.*s\n", (int)paragraph->length, paragraph->text);
    return;
  }
  snprintf(text, sizeof(text), "%.*s", (int)paragraph->length, paragraph->text);
  print_wrapped(text, 0, 0, out);
}

/* What stands behind the name: "ADDR:PORT", "auto|tty|plain", or NULL for a flag. */
static const char *argument_of(const struct option *option) {
  if (option->argument != NULL) return option->argument;
  return option->type == OPTION_CHOICE ? option->choices : NULL;
}

/* The sentence, and the default when it is worth telling. */
static const char *explanation_of(const struct option *option, char *buffer, size_t room) {
  if (option->fallback != NULL && option->type != OPTION_FLAG)
    snprintf(buffer, room, "%s (default: %s)", option->help, option->fallback);
  else
    snprintf(buffer, room, "%s", option->help);
  return buffer;
}

static void print_option_help(const struct option *option, FILE *out) {
  char left[ROW_TEXT_BYTES], letter[8] = "    ", text[ROW_TEXT_BYTES], twin[64];
  const char *argument = argument_of(option);
  int length;
  if (option->letter != 0) snprintf(letter, sizeof(letter), "-%c, ", option->letter);
  if (option->secret)
    length = snprintf(left, sizeof(left), "      $%s",
                      options_environment_name(option->name, twin, sizeof(twin)));
  else
    length = snprintf(left, sizeof(left), "  %s--%s%s%s", letter, option->name,
                      argument != NULL ? " " : "", argument != NULL ? argument : "");
  fputs(left, out);
  if (length + 2 > HELP_COLUMN)
    fprintf(out, "\n%*s", HELP_COLUMN, "");
  else
    fprintf(out, "%*s", HELP_COLUMN - length, "");
  print_wrapped(explanation_of(option, text, sizeof(text)), HELP_COLUMN, HELP_COLUMN, out);
}

void options_print_help(const struct option_command *command, FILE *out) {
  fputs("Usage: ", out);
  print_wrapped(command->synopsis, 7, 7, out);
  fputc('\n', out);
  print_wrapped(command->summary, 0, 0, out);
  struct paragraph paragraph;
  for (const char *text = command->description; next_paragraph(&text, &paragraph);) {
    fputc('\n', out);
    print_paragraph(&paragraph, out);
  }
  for (const struct option *option = command->options; option->name != NULL; option++) {
    if (option == command->options || option->group != NULL)
      fprintf(out, "\n%s:\n", option->group != NULL ? option->group : "Options");
    print_option_help(option, out);
  }
}

/* --- man --- */

void options_print_man_text(const char *text, FILE *out) {
  bool line_start = true;
  for (; *text != '\0'; text++) {
    if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", out);
    if (*text == '\\')
      fputs("\\e", out);
    else if (*text == '-')
      fputs("\\-", out);
    else
      fputc(*text, out);
    line_start = *text == '\n';
  }
}

static void print_man_paragraph(const struct paragraph *paragraph, FILE *out) {
  char text[ROW_TEXT_BYTES];
  snprintf(text, sizeof(text), "%.*s", (int)paragraph->length, paragraph->text);
  fputs(paragraph->verbatim ? ".PP\n.nf\n" : ".PP\n", out);
  options_print_man_text(text, out);
  fputs(paragraph->verbatim ? "\n.fi\n" : "\n", out);
}

static void print_man_option(const struct option *option, FILE *out) {
  char name[64], text[ROW_TEXT_BYTES];
  const char *argument = argument_of(option);
  fputs(".TP\n\\fB", out);
  if (option->letter != 0) fprintf(out, "\\-%c\\fR, \\fB", option->letter);
  if (!option->secret) fputs("\\-\\-", out);
  options_print_man_text(option->secret ? options_environment_name(option->name, name, sizeof(name))
                                        : option->name,
                         out);
  fputs("\\fR", out);
  if (argument != NULL && !option->secret) {
    fputs(" \\fI", out);
    options_print_man_text(argument, out);
    fputs("\\fR", out);
  }
  fputc('\n', out);
  options_print_man_text(explanation_of(option, text, sizeof(text)), out);
  fputc('\n', out);
}

static void print_man_command(const struct option_command *command, FILE *out) {
  fputs(".SS ", out);
  options_print_man_text(command->synopsis, out);
  fputc('\n', out);
  options_print_man_text(command->summary, out);
  fputc('\n', out);
  struct paragraph paragraph;
  for (const char *text = command->description; next_paragraph(&text, &paragraph);)
    print_man_paragraph(&paragraph, out);
  for (const struct option *option = command->options; option->name != NULL; option++)
    print_man_option(option, out);
}

void options_print_man(const struct option_command *commands, size_t count, FILE *out) {
  const struct option_command *program = &commands[0];
  fputs(".TH SPROUT 1\n.SH NAME\n", out);
  fprintf(out, "%s \\- ", program->name);
  options_print_man_text(program->summary, out);
  fputs("\n.SH SYNOPSIS\n", out);
  for (size_t i = count > 1 ? 1 : 0; i < count; i++) {
    options_print_man_text(commands[i].synopsis, out);
    fputs("\n.br\n", out);
  }
  fputs(".SH DESCRIPTION\n", out);
  struct paragraph paragraph;
  for (const char *text = program->description; next_paragraph(&text, &paragraph);)
    print_man_paragraph(&paragraph, out);
  fputs(".SH COMMANDS\n", out);
  for (size_t i = 1; i < count; i++) print_man_command(&commands[i], out);
}

/* --- Markdown --- */

/* Inside a table cell; `code`: within backticks, where only the bar needs care. */
static void print_cell(const char *text, bool code, FILE *out) {
  for (; *text != '\0'; text++) {
    if (*text == '|' || (!code && strchr("*_<>`\\", *text) != NULL)) fputc('\\', out);
    fputc(*text, out);
  }
}

static void print_markdown_option(const struct option *option, FILE *out) {
  char twin[64];
  const char *argument = argument_of(option);
  fputs("| ", out);
  if (option->letter != 0) fprintf(out, "`-%c`, ", option->letter);
  if (!option->secret) {
    fprintf(out, "`--%s", option->name);
    if (argument != NULL) fputc(' ', out);
    if (argument != NULL) print_cell(argument, true, out);
    fputc('`', out);
  }
  fputs(" | ", out);
  if (!option->no_twin)
    fprintf(out, "`%s`", options_environment_name(option->name, twin, sizeof(twin)));
  fputs(" | ", out);
  if (option->fallback != NULL && option->type != OPTION_FLAG)
    fprintf(out, "`%s`", option->fallback);
  fputs(" | ", out);
  print_cell(option->help, false, out);
  fputs(" |\n", out);
}

static void print_markdown_command(const struct option_command *command, FILE *out) {
  fprintf(out, "\n## %s\n\n```\n%s\n```\n\n%s\n", command->name, command->synopsis,
          command->summary);
  struct paragraph paragraph;
  for (const char *text = command->description; next_paragraph(&text, &paragraph);)
    fprintf(out, paragraph.verbatim ? "\n```\n%.*s\n```\n" : "\n%.*s\n", (int)paragraph.length,
            paragraph.text);
  if (command->options[0].name == NULL) return;
  fputs("\n| option | environment | default | what |\n|---|---|---|---|\n", out);
  for (const struct option *option = command->options; option->name != NULL; option++)
    print_markdown_option(option, out);
}

void options_print_markdown(const struct option_command *commands, size_t count, FILE *out) {
  fprintf(out, "# %s\n\n%s\n", commands[0].name, commands[0].summary);
  struct paragraph paragraph;
  for (const char *text = commands[0].description; next_paragraph(&text, &paragraph);)
    fprintf(out, paragraph.verbatim ? "\n```\n%.*s\n```\n" : "\n%.*s\n", (int)paragraph.length,
            paragraph.text);
  for (size_t i = 1; i < count; i++) print_markdown_command(&commands[i], out);
}
