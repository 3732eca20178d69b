/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that change while the seed runs.
 *
 * An update has three phases: begin, the owner's writing, commit. Both calls do their work in one
 * callback of the reactor, so that no request sees a half of it. What begin does, in this order:
 *
 *   updating          new reads and digests get 409; opens, downloads and manifests 503 or wait
 *   fence             one-sided readers see that what they read from here on is not of one piece
 *   bodies            are broken off, whatever the kernel still has of them (http_server.h)
 *   digests           are void; the job that runs tells nothing (digester.h)
 *
 * and then, on the caller's thread, it waits until no worker reads the bytes. So a body that
 * arrived whole was copied into its socket whole before begin, under the generation that the read
 * had named: a read answered whole in generation g is of g only.
 *
 * Thread: calls from outside come through service_call; the rest runs on the reactor's.
 */
#include "core/log.h"
#include "net/routes.h"

#include <string.h>
#include <time.h>

bool seed_is_ready(const struct sprout_seed *seed) {
  return seed->ready && !seed->draining && !seed->updating;
}

/* --- answers while an update is under way --- */

static const char changing[] = "the seed's bytes are being changed";

void route_fail_changing(struct http_exchange *exchange) {
  struct sprout_error error;
  struct http_answer answer = {.retry_after_s = 1};
  /* The seed as a whole is not ready, not a region of it: 503. */
  (void)sprout_error_set(&error, SPROUT_TOO_EARLY, 503, "Ask again soon.", "%s", changing);
  http_exchange_fail_with(exchange, &error, &answer);
}

bool route_changing(struct route_call *call) {
  if (!call->seed->updating) return false;
  route_fail_changing(call->exchange);
  return true;
}

enum sprout_status route_stale_error(const struct sprout_seed *seed, struct sprout_error *error) {
  return sprout_error_set(error, SPROUT_STALE, 0, "Fetch the manifest again.",
                          "%s: generation %llu is over", changing,
                          (unsigned long long)seed->model->manifest->version.generation);
}

/* --- begin --- */

struct update_call {
  struct sprout_seed *seed;
  const char *label;
  uint64_t called_ns;
  enum sprout_status status;
  struct sprout_error *error;
};

/* Not the reactor's, which stands still during a step. */
static uint64_t clock_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * SEED_NS_PER_S + (uint64_t)now.tv_nsec;
}

static enum sprout_status check_begin(const struct sprout_seed *seed, struct sprout_error *error) {
  if (seed->fence.word == NULL)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Set tensors_mutable.",
                            "only a seed of mutable tensors can change its bytes");
  if (seed->updating)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Commit it first.",
                            "an update is under way already");
  return SPROUT_OK;
}

static void begin_update(void *context) {
  struct update_call *call = context;
  struct sprout_seed *seed = call->seed;
  call->status = check_begin(seed, call->error);
  if (call->status != SPROUT_OK) return;
  seed->updating = true;
  fence_begin(&seed->fence);
  http_server_break_pieces(seed->server);
  digester_suspend(seed->digester);
  seed->update_called_ns = call->called_ns;
  log_write(LOG_INFO, "seed", "an update begins: generation %llu is over",
            (unsigned long long)seed->model->manifest->version.generation);
}

enum sprout_status sprout_seed_update_begin(struct sprout_seed *seed, struct sprout_error *error) {
  struct update_call call = {.seed = seed, .called_ns = clock_ns(), .error = error};
  service_call(seed->service, begin_update, &call);
  if (call.status != SPROUT_OK) return call.status;
  digester_quiesce(seed->digester);
  seed->update_begun_ns = clock_ns();
  return SPROUT_OK;
}

/* --- commit --- */

static enum sprout_status check_commit(const struct sprout_seed *seed, const char *label,
                                       struct sprout_error *error) {
  if (!seed->updating)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Begin one first.", "no update is under way");
  if (label == NULL) return SPROUT_OK;
  if (strnlen(label, MANIFEST_LABEL_MAX + 1) > MANIFEST_LABEL_MAX || !manifest_text_ok(label))
    return sprout_error_set(error, SPROUT_INVALID, 0, "Choose another one, and commit again.",
                            "the label is longer than %d bytes, or not UTF-8 without control "
                            "characters",
                            MANIFEST_LABEL_MAX);
  return SPROUT_OK;
}

/* Which objects were changed is not told: all of them count as changed. */
static void set_version(struct sprout_seed *seed, const struct manifest_version *version) {
  struct manifest *manifest = seed->model->manifest;
  manifest->version = *version;
  for (uint32_t i = 0; i < manifest->object_count; i++)
    manifest->objects[i].generation = version->generation;
  routes_manifest_name_version(seed);
}

static enum sprout_status publish(struct sprout_seed *seed, const char *label,
                                  struct sprout_error *error) {
  struct manifest_version before = seed->model->manifest->version, next = before;
  next.generation++;
  if (label != NULL) {
    memset(next.label, 0, sizeof(next.label));
    memcpy(next.label, label, strlen(label));
  }
  set_version(seed, &next);
  enum sprout_status status = routes_manifest_publish(seed);
  if (status == SPROUT_OK) return SPROUT_OK;
  set_version(seed, &before);
  return sprout_error_set(error, status, 0, "Commit again.",
                          "no memory for the manifest of the new generation");
}

static double seconds_between(uint64_t from_ns, uint64_t to_ns) {
  return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

static void commit_update(void *context) {
  struct update_call *call = context;
  struct sprout_seed *seed = call->seed;
  call->status = check_commit(seed, call->label, call->error);
  if (call->status == SPROUT_OK) call->status = publish(seed, call->label, call->error);
  if (call->status != SPROUT_OK) return;
  fence_commit(&seed->fence);
  seed->updating = false;
  digester_resume(seed->digester);
  seed->published_s = (uint64_t)time(NULL);
  const struct seed_update_phases phases = {
      .begin = seconds_between(seed->update_called_ns, seed->update_begun_ns),
      .change = seconds_between(seed->update_begun_ns, call->called_ns),
      .commit = seconds_between(call->called_ns, clock_ns())};
  seed_metrics_updated(seed, &phases);
  const struct manifest_version *version = &seed->model->manifest->version;
  log_write(LOG_INFO, "seed", "generation %llu is served%s%s",
            (unsigned long long)version->generation, version->label[0] != '\0' ? ", label " : "",
            version->label);
}

enum sprout_status sprout_seed_update_commit(struct sprout_seed *seed, const char *label,
                                             struct sprout_error *error) {
  struct update_call call = {.seed = seed, .label = label, .called_ns = clock_ns(), .error = error};
  service_call(seed->service, commit_update, &call);
  return call.status;
}
