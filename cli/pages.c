/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/pages.h"

#include "cli/tables.h"
#include "core/limits.h"
#include "core/stats_table.h"

#include <string.h>

void pages_print_man(FILE *out) {
  options_print_man(cli_commands, CLI_COMMAND_COUNT, out);
  fputs(".SH ENVIRONMENT\n", out);
  options_print_man_text("Every option has a twin: --max-rate is SPROUT_MAX_RATE. The command "
                         "line wins over the environment. NO_COLOR turns colours off; COLUMNS "
                         "overrides the width of the terminal.",
                         out);
  fputs("\n.SH EXIT STATUS\n", out);
  for (const struct cli_exit *row = cli_exits; row->meaning != NULL; row++) {
    fprintf(out, ".TP\n\\fB%d\\fR\n", row->code);
    options_print_man_text(row->meaning, out);
    fputc('\n', out);
  }
}

void pages_print_commands(FILE *out) {
  fputs("<!-- Made by `sprout help --markdown`; change cli/tables.c instead. -->\n", out);
  options_print_markdown(cli_commands, CLI_COMMAND_COUNT, out);
  fputs("\n## Exit codes\n\n| code | meaning |\n|---|---|\n", out);
  for (const struct cli_exit *row = cli_exits; row->meaning != NULL; row++)
    fprintf(out, "| %d | %s |\n", row->code, row->meaning);
}

void pages_print_metrics(FILE *out) {
  static const char *const types[] = {
      [STAT_COUNTER] = "counter", [STAT_GAUGE] = "gauge", [STAT_HISTOGRAM] = "histogram"};
  fputs(
      "<!-- Made by `sprout help --metrics`; change core/stats_table.h instead. -->\n"
      "# Metrics\n\n"
      "What `/metrics` of a seed can show, in base units. Labels have few values; what goes beyond "
      "64 series\nof one family is counted under `other`.\n\n"
      "| metric | type | labels | what |\n|---|---|---|---|\n",
      out);
  for (size_t i = 0; i < STAT_COUNT; i++) {
    const struct stat_family *family = &stats_table[i];
    fprintf(out, "| `sprout_%s` | %s | ", family->name, types[family->type]);
    for (uint32_t k = 0; k < stats_label_count(family); k++)
      fprintf(out, "%s`%s`", k > 0 ? ", " : "", family->labels[k]);
    fprintf(out, " | %s |\n", family->help);
  }
}

void pages_print_limits(FILE *out) {
  fputs("<!-- Made by `sprout help --limits`; change core/limits.h instead. -->\n"
        "# Limits\n\n"
        "Everything is bounded; `sprout_limit_hits_total` counts how often a bound was reached.\n\n"
        "| limit | value | unit | at the limit |\n|---|---|---|---|\n",
        out);
#define PRINT_LIMIT(name, value, unit, effect)                                                     \
  fprintf(out, "| `%s` | %llu | %s | %s |\n", &#name[strlen("LIMIT_")],                            \
          (unsigned long long)(value), unit, effect);
  LIMITS_TABLE(PRINT_LIMIT)
#undef PRINT_LIMIT
}
