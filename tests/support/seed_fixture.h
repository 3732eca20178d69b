/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A seed of a small model on loopback, ticked by the test itself.
 *
 * The directory holds one.safetensors (tensors "shared" and "only.here"), two.safetensors (tensor
 * "shared"), sub/blob.bin, config.json and empty.txt.
 */
#ifndef TESTS_SUPPORT_SEED_FIXTURE_H
#define TESTS_SUPPORT_SEED_FIXTURE_H

#include "net/address.h"
#include "sprout/sprout.h"

#define SEED_FIXTURE_BLOB_BYTES 5242883u /* two chunks */
#define SEED_FIXTURE_LAST_BYTES 400u     /* of only.here */

struct seed_fixture {
  struct sprout_service *service;
  struct sprout_seed *seed;
  const struct address *address; /* that requests go to: the main one */
  struct address main_address, admin_address;
  unsigned char *blob, *one;
  size_t one_bytes, one_header_bytes;
};

extern struct seed_fixture seed_fixture;

/* Group set-up and tear-down: the directory. */
int seed_fixture_create_files(void **state);
int seed_fixture_remove_files(void **state);
const char *seed_fixture_directory(void);

/* options may be NULL; paths, listen and struct_bytes are filled in. */
void seed_fixture_start(struct sprout_seed_options *options);
void seed_fixture_stop(void);
void seed_fixture_tick(void);
#endif
