/* SPDX-License-Identifier: Apache-2.0 */
#include "sprout/sprout.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct scene {
  char root[SCRATCH_PATH_BYTES];
  char model[SCRATCH_PATH_BYTES + 8];
  char url[96];
  struct sprout_service *service;
  struct sprout_seed *seed;
};

static int set_up(void **state) {
  struct scene *scene = calloc(1, sizeof(*scene));
  const char *path = scene->model;
  struct sprout_seed_options options = {.struct_bytes = sizeof(options),
                                        .paths = &path,
                                        .path_count = 1,
                                        .name = "model",
                                        .token = "right-token",
                                        .listen = "127.0.0.1:0"};
  struct sprout_seed_status status;
  struct sprout_error error;

  assert_non_null(scene);
  scratch_make(scene->root);
  snprintf(scene->model, sizeof(scene->model), "%s/model", scene->root);
  scratch_write(scene->root, "model/a.bin", 1000, 1);
  scratch_write(scene->root, "model/empty.txt", 0, 0);
  assert_int_equal(sprout_service_create(NULL, &scene->service, &error), SPROUT_OK);
  if (sprout_seed_create(scene->service, &options, &scene->seed, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  assert_int_equal(sprout_service_start(scene->service, &error), SPROUT_OK);
  sprout_seed_status(scene->seed, &status);
  snprintf(scene->url, sizeof(scene->url), "http://%s", status.listen);
  *state = scene;
  return 0;
}

static int tear_down(void **state) {
  struct scene *scene = *state;

  sprout_seed_destroy(scene->seed);
  sprout_service_destroy(scene->service);
  scratch_remove(scene->root);
  free(scene);
  return 0;
}

static const struct sprout_fetch_options right = {.token = "right-token"};

static void expect_manifest(const struct sprout_manifest *manifest) {
  struct sprout_manifest_info info;
  struct sprout_object_info object;
  struct sprout_file_info file;

  sprout_manifest_info(manifest, &info);
  assert_string_equal(info.model, "model");
  assert_int_equal(strlen(info.id), 32);
  assert_int_equal(info.file_count, 2);
  assert_int_equal(info.total_bytes, 1000);
  assert_int_equal(sprout_manifest_file(manifest, 0, &file), SPROUT_OK);
  assert_string_equal(file.path, "a.bin");
  assert_int_equal(file.length_bytes, 1000);
  assert_int_equal(sprout_manifest_object(manifest, file.first_object, &object), SPROUT_OK);
  assert_string_equal(object.file, "a.bin");
  assert_int_equal(object.kind, SPROUT_OBJECT_BLOB);
  assert_int_equal(object.length_bytes, 1000);
  assert_int_equal(sprout_manifest_file(manifest, 2, &file), SPROUT_RANGE);
  assert_int_equal(sprout_manifest_object(manifest, info.object_count, &object), SPROUT_RANGE);
}

static void test_manifest(void **state) {
  const struct scene *scene = *state;
  struct sprout_manifest *manifest = NULL;
  struct sprout_error error;
  char url[SCRATCH_PATH_BYTES + 16];

  if (sprout_manifest_fetch(scene->url, &right, &manifest, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  expect_manifest(manifest);
  sprout_manifest_destroy(manifest);
  snprintf(url, sizeof(url), "file://%s", scene->model);
  if (sprout_manifest_fetch(url, NULL, &manifest, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  expect_manifest(manifest);
  sprout_manifest_destroy(manifest);
  sprout_manifest_destroy(NULL);
}

static void test_json(void **state) {
  const struct scene *scene = *state;
  struct sprout_error error;
  char *json = NULL;

  if (sprout_json_fetch(scene->url, "/v1/status", &right, &json, &error) != SPROUT_OK)
    fail_msg("%s", error.message);
  assert_int_equal(json[0], '{');
  sprout_json_free(json);
  sprout_json_free(NULL);
}

static void test_failures(void **state) {
  const struct scene *scene = *state;
  const struct sprout_fetch_options wrong = {.token = "wrong-token"};
  const struct {
    const char *url, *path;
    const struct sprout_fetch_options *options;
    enum sprout_status status;
  } rows[] = {
      {scene->url, "/v1/status", NULL, SPROUT_DENIED},
      {scene->url, "/v1/status", &wrong, SPROUT_DENIED},
      {scene->url, "/v1/nothing", &right, SPROUT_NOT_FOUND},
      {"file:///nowhere", "/v1/status", &right, SPROUT_INVALID},
      {"nonsense", "/v1/status", &right, SPROUT_INVALID},
      {"http://127.0.0.1:1", "/v1/status", &right, SPROUT_DISCONNECTED},
      {"http://does-not-exist.invalid", "/v1/status", &right, SPROUT_DISCONNECTED},
  };
  struct sprout_manifest *manifest = NULL;
  struct sprout_error error;
  char *json = NULL;

  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    error.message[0] = '\0';
    if (sprout_json_fetch(rows[i].url, rows[i].path, rows[i].options, &json, &error) !=
        rows[i].status)
      fail_msg("row %zu: %s", i, error.message);
    assert_int_equal(error.status, rows[i].status);
    assert_true(error.message[0] != '\0');
    assert_null(strstr(error.message, "-token"));
  }
  assert_int_equal(sprout_manifest_fetch(scene->url, &wrong, &manifest, &error), SPROUT_DENIED);
  assert_int_not_equal(sprout_manifest_fetch("file:///nowhere", NULL, &manifest, &error),
                       SPROUT_OK);
}

/* Something listens and says nothing. */
static void test_timeout(void **state) {
  const struct sprout_fetch_options hurried = {.timeout_ns = 50000000};
  struct sockaddr_in local = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(local);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sprout_manifest *manifest = NULL;
  struct sprout_error error;
  char url[64];

  (void)state;
  assert_int_equal(bind(fd, (struct sockaddr *)&local, length), 0);
  assert_int_equal(listen(fd, 4), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&local, &length), 0);
  snprintf(url, sizeof(url), "http://127.0.0.1:%u", ntohs(local.sin_port));
  assert_int_equal(sprout_manifest_fetch(url, &hurried, &manifest, &error), SPROUT_TIMEOUT);
  assert_non_null(strstr(error.message, url));
  close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {TEST(test_manifest), TEST(test_json), TEST(test_failures),
                                     cmocka_unit_test(test_timeout)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
