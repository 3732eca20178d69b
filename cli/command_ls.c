/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sprout ls URL
 */
#include "cli/cli.h"
#include "cli/json_list.h"
#include "cli/terminal.h"
#include "cli/text_table.h"
#include "core/units.h"
#include "sprout/sprout.h"

#include <inttypes.h>
#include <stdlib.h>

/* "[30522, 384]"; a scalar is "[]". */
static const char *format_shape(const struct sprout_object_info *object, char *buffer,
                                size_t room) {
  size_t used = (size_t)snprintf(buffer, room, "[");
  for (uint32_t i = 0; i < object->rank && used < room; i++)
    used += (size_t)snprintf(buffer + used, room - used, "%s%" PRIu64, i > 0 ? ", " : "",
                             object->shape[i]);
  if (used < room) snprintf(buffer + used, room - used, "]");
  return buffer;
}

static enum sprout_status add_row(struct text_table *table, const char *const *cells) {
  enum sprout_status status = SPROUT_OK;
  for (size_t i = 0; i < table->column_count && status == SPROUT_OK; i++)
    status = text_table_add(table, cells[i]);
  return status;
}

static enum sprout_status print_files(const struct sprout_manifest *manifest, uint32_t count,
                                      const struct terminal *terminal) {
  struct text_table table;
  struct sprout_file_info file;
  enum sprout_status status;
  text_table_init(&table, "lr", terminal->unicode);
  status = add_row(&table, (const char *const[]){"FILE", "SIZE"});
  for (uint32_t i = 0; i < count && status == SPROUT_OK; i++) {
    char size[32];
    status = sprout_manifest_file(manifest, i, &file);
    if (status != SPROUT_OK) break;
    units_format_size(file.length_bytes, size, sizeof(size));
    status = add_row(&table, (const char *const[]){file.path, size});
  }
  if (status == SPROUT_OK) text_table_print(&table, 0, stdout);
  text_table_destroy(&table);
  return status;
}

static enum sprout_status print_tensors(const struct sprout_manifest *manifest, uint32_t count,
                                        const struct terminal *terminal) {
  struct text_table table;
  struct sprout_object_info object;
  enum sprout_status status;
  text_table_init(&table, "lllr", terminal->unicode);
  status = add_row(&table, (const char *const[]){"TENSOR", "DTYPE", "SHAPE", "SIZE"});
  for (uint32_t i = 0; i < count && status == SPROUT_OK; i++) {
    char size[32], shape[SPROUT_MAX_RANK * 24];
    status = sprout_manifest_object(manifest, i, &object);
    if (status != SPROUT_OK) break;
    if (object.kind != SPROUT_OBJECT_TENSOR) continue;
    units_format_size(object.length_bytes, size, sizeof(size));
    status =
        add_row(&table, (const char *const[]){object.name, object.dtype,
                                              format_shape(&object, shape, sizeof(shape)), size});
  }
  if (status == SPROUT_OK && table.cell_count > table.column_count) {
    fputc('\n', stdout);
    text_table_print(&table, 0, stdout);
  }
  text_table_destroy(&table);
  return status;
}

static enum sprout_status print_for_people(const struct sprout_manifest *manifest) {
  struct sprout_manifest_info info;
  struct terminal terminal = terminal_of(1, getenv);
  char size[32], model[600], label[200], rank[200];
  sprout_manifest_info(manifest, &info);
  terminal_clean(info.model, SIZE_MAX, terminal.unicode, model, sizeof(model));
  terminal_clean(info.label, SIZE_MAX, terminal.unicode, label, sizeof(label));
  terminal_clean(info.rank, SIZE_MAX, terminal.unicode, rank, sizeof(rank));
  printf("%s  %s  %u files, %s\n", model, info.id, info.file_count,
         units_format_size(info.total_bytes, size, sizeof(size)));
  printf("generation %" PRIu64 "%s%s%s%s\n\n", info.generation, label[0] != '\0' ? ", label " : "",
         label, rank[0] != '\0' ? ", rank " : "", rank);
  enum sprout_status status = print_files(manifest, info.file_count, &terminal);
  if (status == SPROUT_OK) status = print_tensors(manifest, info.object_count, &terminal);
  return status;
}

int command_ls(const struct cli_call *call) {
  const struct ls_values *values = call->values;
  struct sprout_error error = {.status = SPROUT_OK};
  struct sprout_manifest *manifest;
  char token_text[CLI_TOKEN_BYTES];
  struct sprout_fetch_options options = {.timeout_ns = values->timeout_ns};
  cli_set_log(&values->globals, LOG_WARNING);
  if (sprout_probe(&error) != SPROUT_OK ||
      cli_client_token(&values->client, token_text, &options.token, &error) != SPROUT_OK ||
      sprout_manifest_fetch(call->arguments[0], &options, &manifest, &error) != SPROUT_OK)
    return cli_fail(&error);
  enum sprout_status status =
      values->json ? json_list_print(stdout, manifest) : print_for_people(manifest);
  sprout_manifest_destroy(manifest);
  if (status == SPROUT_OK) return cli_flush(0);
  (void)sprout_error_set(&error, status, 0, NULL, "cannot list the model: %s",
                         sprout_status_info_of(status)->summary);
  return cli_fail(&error);
}
