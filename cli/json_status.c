/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/json_status.h"

#include "cli/json_text.h"
#include "cli/text_table.h"
#include "core/units.h"

#include <inttypes.h>
#include <string.h>

#define TEXT_BYTES 300

static enum sprout_status parse(const char *text, json_t **object_out, struct sprout_error *error) {
  json_error_t reason;
  json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &reason);
  if (!json_is_object(object)) {
    json_decref(object);
    return sprout_error_set(error, SPROUT_PROTOCOL, 0, "Is this the address of a seed?",
                            "the seed's answer is not a JSON object: %.100s",
                            object == NULL ? reason.text : "another type");
  }
  *object_out = object;
  return SPROUT_OK;
}

/* A non-negative integer (or whole part) at `key`, else 0. */
static uint64_t number_at(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  if (json_is_integer(value) && json_integer_value(value) > 0)
    return (uint64_t)json_integer_value(value);
  if (json_is_real(value) && json_real_value(value) > 0 && json_real_value(value) < 1e18)
    return (uint64_t)json_real_value(value);
  return 0;
}

static const char *text_at(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "";
}

static uint64_t nanoseconds_at(const json_t *object, const char *key) {
  double seconds = json_number_value(json_object_get(object, key));
  return seconds > 0 && seconds < 1e9 ? (uint64_t)(seconds * 1e9) : 0;
}

struct page {
  FILE *out;
  const struct terminal *terminal;
  char buffers[6][TEXT_BYTES];
};

static const char *clean(struct page *page, size_t index, const char *text) {
  terminal_clean(text, 80, page->terminal->unicode, page->buffers[index], TEXT_BYTES);
  return page->buffers[index];
}

static const char *size_of(struct page *page, size_t index, uint64_t bytes) {
  return units_format_size(bytes, page->buffers[index], TEXT_BYTES);
}

static void print_model(struct page *page, const json_t *manifest) {
  const json_t *identity = json_object_get(manifest, "identity");
  const json_t *version = json_object_get(manifest, "version");
  const char *label = text_at(version, "label");
  fprintf(page->out, "model     %s  %s\n", clean(page, 0, text_at(identity, "model")),
          clean(page, 1, text_at(manifest, "id")));
  fprintf(page->out, "          %" PRIu64 " files, %" PRIu64 " objects, %s, generation %" PRIu64,
          number_at(manifest, "file_count"), number_at(manifest, "object_count"),
          size_of(page, 2, number_at(manifest, "total_bytes")), number_at(version, "generation"));
  if (label[0] != '\0') fprintf(page->out, ", label %s", clean(page, 3, label));
  fputc('\n', page->out);
}

/* "mlx5_0 port 1, 192.0.2.1, listens on 40000, 400 Gbit/s, up, 2 connections" */
static void print_rail(struct page *page, const json_t *rail) {
  uint64_t gbits = number_at(rail, "bits_per_second") / 1000000000u;
  fprintf(page->out, "          %s port %" PRIu64 ", %s", clean(page, 0, text_at(rail, "device")),
          number_at(rail, "port"), clean(page, 1, text_at(rail, "address")));
  if (number_at(rail, "listens") > 0)
    fprintf(page->out, ", listens on %" PRIu64, number_at(rail, "listens"));
  if (gbits > 0) fprintf(page->out, ", %" PRIu64 " Gbit/s", gbits);
  fprintf(page->out, ", %s, %" PRIu64 " connections\n",
          json_is_true(json_object_get(rail, "up")) ? "up" : "down",
          number_at(rail, "connections"));
}

static void print_rdma(struct page *page, const json_t *rdma) {
  const json_t *rails = json_object_get(rdma, "rails");
  const char *reason = text_at(rdma, "reason");
  if (!json_is_true(json_object_get(rdma, "open"))) {
    if (reason[0] != '\0') fprintf(page->out, "rdma      none: %.200s\n", clean(page, 0, reason));
    return;
  }
  fprintf(page->out,
          "rdma      %s of %s registered, %" PRIu64 " connections of %" PRIu64 " forks\n",
          size_of(page, 0, number_at(rdma, "registered_bytes")),
          size_of(page, 1, number_at(rdma, "total_bytes")), number_at(rdma, "connections"),
          number_at(rdma, "forks"));
  for (size_t i = 0; i < json_array_size(rails); i++) print_rail(page, json_array_get(rails, i));
}

static void print_seed(struct page *page, const json_t *status) {
  const json_t *forks = json_object_get(status, "forks");
  uint64_t undigested = number_at(status, "undigested_bytes");
  uint64_t rate_limit = number_at(status, "rate_limit_bytes_per_second");
  const char *state = json_is_true(json_object_get(status, "draining")) ? "draining"
                      : json_is_true(json_object_get(status, "ready"))  ? "ready"
                                                                        : "not ready";
  fprintf(
      page->out, "seed      %s, %s, up %s, sprout %s\n", clean(page, 0, text_at(status, "listen")),
      state,
      units_format_duration(nanoseconds_at(status, "uptime_seconds"), page->buffers[1], TEXT_BYTES),
      clean(page, 2, text_at(status, "version")));
  print_model(page, json_object_get(status, "manifest"));
  fprintf(page->out, "sent      %s", size_of(page, 0, number_at(status, "sent_bytes")));
  if (rate_limit > 0) fprintf(page->out, ", at most %s/s", size_of(page, 1, rate_limit));
  if (undigested > 0) fprintf(page->out, "; digests missing for %s", size_of(page, 2, undigested));
  fprintf(page->out,
          "\nforks     %" PRIu64 " of %" PRIu64 " running, %" PRIu64 " queued, %" PRIu64
          " finished\n",
          number_at(forks, "running"), number_at(forks, "limit"), number_at(forks, "queued"),
          number_at(forks, "finished"));
  print_rdma(page, json_object_get(status, "rdma"));
}

/* "47%", or "-" while the fork has not said how much it wants. */
static const char *part_of(struct page *page, size_t index, const json_t *fork) {
  uint64_t total = number_at(fork, "total_bytes"), received = number_at(fork, "received_bytes");
  if (total == 0) return "-";
  snprintf(page->buffers[index], TEXT_BYTES, "%u%%",
           received >= total ? 100 : (unsigned)((unsigned __int128)received * 100 / total));
  return page->buffers[index];
}

static const char *note_of(struct page *page, size_t index, const json_t *fork) {
  const char *result = text_at(fork, "result"), *reason = text_at(fork, "reason");
  uint64_t position = number_at(fork, "position");
  if (position > 0)
    snprintf(page->buffers[index], TEXT_BYTES, "position %" PRIu64, position);
  else if (json_is_number(json_object_get(fork, "eta_seconds")) &&
           number_at(fork, "total_bytes") > 0) {
    char left[32];
    units_format_duration(nanoseconds_at(fork, "eta_seconds"), left, sizeof(left));
    snprintf(page->buffers[index], TEXT_BYTES, "%s left", left);
  } else
    snprintf(page->buffers[index], TEXT_BYTES, "%.60s%s%.120s", result,
             result[0] != '\0' && reason[0] != '\0' ? ": " : "", reason);
  return page->buffers[index];
}

/* What the seed counted itself; where it does not see the bytes, what the fork reported. */
static uint64_t bytes_of(const json_t *fork) {
  uint64_t sent = number_at(fork, "sent_bytes"), received = number_at(fork, "received_bytes");
  return sent > received ? sent : received;
}

static enum sprout_status add_fork(struct page *page, struct text_table *table,
                                   const json_t *fork) {
  char id[12], rate[48], time[32];
  snprintf(id, sizeof(id), "%.8s", text_at(fork, "id"));
  units_format_size(number_at(fork, "rate_bytes_per_second"), rate, sizeof(rate) - 2);
  memcpy(rate + strlen(rate), "/s", 3);
  const char *const cells[] = {
      id,
      text_at(fork, "state"),
      clean(page, 3, text_at(fork, "transport")),
      text_at(fork, "peer"),
      part_of(page, 0, fork),
      size_of(page, 1, bytes_of(fork)),
      strcmp(text_at(fork, "state"), "running") == 0 ? rate : "",
      units_format_duration(nanoseconds_at(fork, "seconds"), time, sizeof(time)),
      note_of(page, 2, fork),
  };
  enum sprout_status status = SPROUT_OK;
  for (size_t i = 0; i < table->column_count && status == SPROUT_OK; i++)
    status = text_table_add(table, cells[i]);
  return status;
}

static enum sprout_status print_forks(struct page *page, const json_t *forks) {
  static const char *const head[] = {"FORK",  "STATE", "BY",   "PEER", "DONE",
                                     "BYTES", "RATE",  "TIME", ""};
  struct text_table table;
  enum sprout_status status = SPROUT_OK;
  if (json_array_size(forks) == 0) return SPROUT_OK;
  text_table_init(&table, "llllrrrrl", page->terminal->unicode);
  for (size_t i = 0; i < table.column_count && status == SPROUT_OK; i++)
    status = text_table_add(&table, head[i]);
  for (size_t i = 0; i < json_array_size(forks) && status == SPROUT_OK; i++)
    status = add_fork(page, &table, json_array_get(forks, i));
  if (status == SPROUT_OK) fputc('\n', page->out);
  if (status == SPROUT_OK) text_table_print(&table, 0, page->out);
  text_table_destroy(&table);
  return status;
}

enum sprout_status json_status_print(FILE *out, const char *status_text, const char *forks_text,
                                     const struct terminal *terminal, struct sprout_error *error) {
  struct page page = {.out = out, .terminal = terminal};
  json_t *seed = NULL, *forks = NULL;
  enum sprout_status status = parse(status_text, &seed, error);
  if (status == SPROUT_OK) status = parse(forks_text, &forks, error);
  if (status == SPROUT_OK) {
    print_seed(&page, seed);
    status = print_forks(&page, json_object_get(forks, "forks"));
    if (status != SPROUT_OK)
      (void)sprout_error_set(error, status, 0, NULL, "cannot lay out the forks");
  }
  json_decref(seed);
  json_decref(forks);
  return status;
}

enum sprout_status json_status_merge(FILE *out, const char *status_text, const char *forks_text,
                                     struct sprout_error *error) {
  json_t *seed = NULL, *forks = NULL;
  enum sprout_status status = parse(status_text, &seed, error);
  if (status == SPROUT_OK) status = parse(forks_text, &forks, error);
  if (status == SPROUT_OK) {
    json_t *list = json_object_get(forks, "forks");
    json_line_print(out, json_pack("{s:O,s:o}", "status", seed, "forks",
                                   list != NULL ? json_incref(list) : json_array()));
  }
  json_decref(seed);
  json_decref(forks);
  return status;
}
