/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a text: a URL, and a listen address. What is accepted names a host that fits and has
 * no odd characters; an error never shows what stands before an '@'.
 */
#include "net/address.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_host(const char *host) {
  assert(memchr(host, 0, ADDRESS_HOST_BYTES) != NULL);
  for (; *host; host++) assert((unsigned char)*host > 0x20 && !strchr("/?#@[]\\\x7f", *host));
}

static void try_url(const char *text) {
  struct url url;
  struct sprout_error error = {.status = SPROUT_OK};
  if (url_parse(text, &url, &error) == SPROUT_OK) {
    if (url.kind == URL_HTTP) {
      assert(url.host[0] && url.port != 0);
      check_host(url.host);
    } else {
      assert(url.path > text && url.path < text + strlen(text));
    }
  } else {
    assert(error.message[0] && error.hint[0]);
    assert(strncmp(text, "http://", 7) != 0 || !strchr(text, '@') || !strchr(error.message, '@'));
  }
}

static void try_listen(const char *text) {
  char host[ADDRESS_HOST_BYTES];
  uint16_t port;
  struct sprout_error error = {.status = SPROUT_OK};
  if (address_parse(text, host, &port, &error) == SPROUT_OK) {
    check_host(host);
  } else {
    assert(error.message[0] && error.hint[0]);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *text = malloc(size + 1);
  assert(text);
  if (size) memcpy(text, data, size);
  text[size] = '\0';
  try_url(text);
  try_listen(text);
  free(text);
  return 0;
}
