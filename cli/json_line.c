/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/json_line.h"

#include "cli/json_text.h"

#include <stdlib.h>
#include <string.h>

void json_line_print(FILE *out, json_t *object) {
  if (object == NULL) return;
  /* Whole or not at all: dumping to the stream could run out of memory in mid-line. */
  char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12));
  json_decref(object);
  if (text == NULL) return;
  (void)fprintf(out, "%s\n", text);
  (void)fflush(out);
  free(text);
}

static json_t *integer(uint64_t value) {
  return json_integer(value <= INT64_MAX ? (json_int_t)value : INT64_MAX);
}

json_t *json_text(const char *text) {
  json_t *string = json_string(text);
  if (string != NULL) return string;
  /* Not UTF-8 (or out of memory, then this fails too). */
  char cleaned[1024];
  terminal_clean(text, SIZE_MAX, true, cleaned, sizeof(cleaned));
  return json_string(cleaned);
}

static json_t *source_object(const struct progress_source *source) {
  json_t *object = json_pack("{s:o,s:s,s:o}", "url", json_text(source->url), "state", source->state,
                             "received_bytes", integer(source->received_bytes));
  if (object == NULL) return NULL;
  if (source->transport != NULL)
    (void)json_object_set_new(object, "transport", json_string(source->transport));
  if (source->fallbacks > 0)
    (void)json_object_set_new(object, "fallbacks", json_integer(source->fallbacks));
  if (source->queue_position > 0)
    (void)json_object_set_new(object, "queue_position", json_integer(source->queue_position));
  if (strcmp(source->state, "dropped") == 0) {
    (void)json_object_set_new(object, "dropped_for",
                              json_string(sprout_status_info_of(source->dropped_for)->name));
    (void)json_object_set_new(object, "reason", json_text(source->dropped_reason));
  }
  return object;
}

static json_t *source_array(const struct progress_snapshot *snapshot) {
  json_t *sources = json_array();
  for (uint32_t i = 0; i < snapshot->source_count; i++)
    (void)json_array_append_new(sources, source_object(&snapshot->sources[i]));
  return sources;
}

void json_line_progress(FILE *out, const struct progress_snapshot *snapshot, double eta_seconds) {
  json_line_print(out, json_pack("{s:s,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "type", "progress",
                                 "elapsed_seconds", (double)snapshot->elapsed_ns / 1e9,
                                 "total_bytes", integer(snapshot->total_bytes), "done_bytes",
                                 integer(snapshot->done_bytes), "reused_bytes",
                                 integer(snapshot->reused_bytes), "received_bytes",
                                 integer(snapshot->received_bytes), "rate_bytes_per_second",
                                 integer(snapshot->rate), "eta_seconds",
                                 eta_seconds >= 0 ? json_real(eta_seconds) : json_null(), "retries",
                                 integer(snapshot->retries), "sources", source_array(snapshot)));
}

void json_line_source(FILE *out, const struct progress_source *source) {
  json_t *object = source_object(source);
  (void)json_object_set_new(object, "type", json_string("source"));
  json_line_print(out, object);
}

void json_line_differs(FILE *out, const char *file, uint64_t wrong_bytes, uint64_t missing_bytes) {
  json_line_print(out, json_pack("{s:s,s:o,s:o,s:o}", "type", "differs", "file", json_text(file),
                                 "wrong_bytes", integer(wrong_bytes), "missing_bytes",
                                 integer(missing_bytes)));
}

void json_line_result(FILE *out, const struct json_result *line) {
  const struct sprout_fork_result *result = line->result;
  const struct progress_snapshot *last = line->last;
  const char *word = result->status == SPROUT_OK          ? "complete"
                     : result->status == SPROUT_CANCELLED ? "cancelled"
                                                          : "failed";
  bool failed = result->status != SPROUT_OK;
  json_line_print(
      out,
      json_pack("{s:s,s:s,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:f,s:f,s:f,s:s,s:o,s:o,s:s,s:o,s:o,s:b,s:i}",
                "type", "result", "result", word, "reason",
                failed ? sprout_status_info_of(result->status)->name : "", "message",
                json_text(failed ? result->error.message : ""), "hint",
                json_text(failed ? result->error.hint : ""), "bytes", integer(last->done_bytes),
                "total_bytes", integer(last->total_bytes), "reused_bytes",
                integer(last->reused_bytes), "received_bytes", integer(last->received_bytes),
                "seconds", result->seconds, "manifest_seconds", result->manifest_seconds,
                "digest_wait_seconds", result->digest_wait_seconds, "verified",
                result->verified == SPROUT_VERIFIED_XXH3 ? "xxh3-128" : "none", "sources",
                source_array(last), "retries", integer(last->retries), "manifest_id",
                result->manifest_id, "label", json_text(result->label), "generation",
                integer(result->generation), "dry_run", line->dry_run ? 1 : 0, "exit_code",
                line->exit_code));
}

void json_line_ready(FILE *out, const struct json_ready *ready) {
  json_t *object = json_pack(
      "{s:s,s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:b}", "type", "ready", "url", json_text(ready->url),
      "admin_url", ready->admin_url != NULL ? json_text(ready->admin_url) : json_null(), "model",
      json_text(ready->model), "id", ready->id, "files", json_integer(ready->files), "objects",
      json_integer(ready->objects), "bytes", integer(ready->bytes), "token", ready->token ? 1 : 0);
  json_line_print(out, object);
}

void json_line_drain(FILE *out, uint32_t running, uint32_t queued) {
  json_line_print(out, json_pack("{s:s,s:o,s:o}", "type", "drain", "forks_running",
                                 json_integer(running), "forks_queued", json_integer(queued)));
}

void json_line_error(FILE *out, const struct sprout_error *error) {
  json_line_print(out, json_pack("{s:s,s:s,s:o,s:o}", "type", "error", "code",
                                 sprout_status_info_of(error->status)->name, "message",
                                 json_text(error->message), "hint", json_text(error->hint)));
}
