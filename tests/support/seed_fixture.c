/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/seed_fixture.h"

#include "net/service.h"
#include "tests/support/http_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define TICK_NS 2000000u

struct seed_fixture seed_fixture;

static char directory[] = "/tmp/sprout-seed-XXXXXX";
static const char *const names[] = {"one.safetensors", "two.safetensors", "sub/blob.bin",
                                    "config.json", "empty.txt"};
#define NAMES (sizeof(names) / sizeof(names[0]))

const char *seed_fixture_directory(void) {
  return directory;
}

static void path_of(const char *name, char path_out[128]) {
  (void)snprintf(path_out, 128, "%s/%s", directory, name);
}

static void write_file(const char *name, const void *data, size_t length) {
  char path[128];
  path_of(name, path);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, length, file), length);
  assert_int_equal(fclose(file), 0);
}

/* A safetensors file: length, header, `data_bytes` of pattern. */
static unsigned char *write_safetensors(const char *name, const char *header, size_t data_bytes,
                                        size_t *length_out) {
  size_t header_bytes = strlen(header), length = 8 + header_bytes + data_bytes;
  unsigned char *bytes = malloc(length);
  assert_non_null(bytes);
  for (size_t i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
  memcpy(bytes + 8, header, header_bytes);
  for (size_t i = 0; i < data_bytes; i++) bytes[8 + header_bytes + i] = (unsigned char)(i * 7 + 1);
  write_file(name, bytes, length);
  *length_out = length;
  return bytes;
}

int seed_fixture_create_files(void **state) {
  (void)state;
  static const char one[] =
      "{\"shared\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]},"
      "\"only.here\":{\"dtype\":\"U8\",\"shape\":[4,100],\"data_offsets\":[16,416]}}    ";
  static const char two[] = "{\"shared\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";
  char path[128];
  size_t two_bytes = 0;
  if (mkdtemp(directory) == NULL) return -1;
  path_of("sub", path);
  assert_int_equal(mkdir(path, 0700), 0);
  seed_fixture.one = write_safetensors("one.safetensors", one, 16 + SEED_FIXTURE_LAST_BYTES,
                                       &seed_fixture.one_bytes);
  seed_fixture.one_header_bytes = seed_fixture.one_bytes - 16 - SEED_FIXTURE_LAST_BYTES;
  free(write_safetensors("two.safetensors", two, 8, &two_bytes));
  seed_fixture.blob = malloc(SEED_FIXTURE_BLOB_BYTES);
  assert_non_null(seed_fixture.blob);
  for (uint32_t i = 0; i < SEED_FIXTURE_BLOB_BYTES; i++)
    seed_fixture.blob[i] = (unsigned char)(i * 2654435761u >> 24);
  write_file("sub/blob.bin", seed_fixture.blob, SEED_FIXTURE_BLOB_BYTES);
  write_file("config.json", "{}\n", 3);
  write_file("empty.txt", "", 0);
  return 0;
}

int seed_fixture_remove_files(void **state) {
  (void)state;
  char path[128];
  for (size_t i = 0; i < NAMES; i++) {
    path_of(names[i], path);
    unlink(path);
  }
  path_of("sub", path);
  rmdir(path);
  rmdir(directory);
  free(seed_fixture.blob);
  free(seed_fixture.one);
  return 0;
}

void seed_fixture_tick(void) {
  reactor_tick(service_reactor(seed_fixture.service), TICK_NS);
}

static void resolve(const char *text, struct address *address_out) {
  char host[ADDRESS_HOST_BYTES];
  uint16_t port = 0;
  struct address addresses[ADDRESS_MAX];
  size_t count = 0;
  assert_int_equal(address_parse(text, host, &port, NULL), SPROUT_OK);
  assert_int_equal(address_resolve(host, port, false, addresses, &count, NULL), SPROUT_OK);
  *address_out = addresses[0];
}

void seed_fixture_start(struct sprout_seed_options *options) {
  struct sprout_seed_options defaults = {0};
  struct sprout_error error = {0};
  struct sprout_seed_status status;
  const char *paths[] = {directory};
  if (options == NULL) options = &defaults;
  options->struct_bytes = sizeof(*options);
  if (options->tensor_count == 0) {
    options->paths = paths;
    options->path_count = 1;
  }
  options->listen = "127.0.0.1:0";
  peer_set_tick(seed_fixture_tick);
  assert_int_equal(sprout_service_create(NULL, &seed_fixture.service, &error), SPROUT_OK);
  enum sprout_status created =
      sprout_seed_create(seed_fixture.service, options, &seed_fixture.seed, &error);
  if (created != SPROUT_OK) print_error("%s\n", error.message);
  assert_int_equal(created, SPROUT_OK);
  sprout_seed_status(seed_fixture.seed, &status);
  resolve(status.listen, &seed_fixture.main_address);
  if (status.admin_listen[0] != '\0') resolve(status.admin_listen, &seed_fixture.admin_address);
  seed_fixture.address = &seed_fixture.main_address;
}

void seed_fixture_stop(void) {
  sprout_seed_destroy(seed_fixture.seed);
  sprout_service_destroy(seed_fixture.service);
}
