/* SPDX-License-Identifier: Apache-2.0 */
#include "net/transports.h"

#include <string.h>

#define GID_INDEX_MAX 65535

static bool is_word(const char *text, size_t length, const char *word) {
  return length == strlen(word) && memcmp(text, word, length) == 0;
}

enum sprout_status transports_parse(const char *list, struct transports *transports_out,
                                    struct sprout_error *error) {
  struct transports transports = {.tcp = false};
  if (list == NULL || list[0] == '\0' || strcmp(list, "auto") == 0) {
    *transports_out = (struct transports){.tcp = true, .rdma = true, .automatic = true};
    return SPROUT_OK;
  }
  for (const char *at = list;; at++) {
    size_t length = strcspn(at, ",");
    if (is_word(at, length, "tcp")) {
      transports.tcp = true;
    } else if (is_word(at, length, "rdma")) {
      transports.rdma = true;
    } else {
      return sprout_error_set(error, SPROUT_INVALID, 0,
                              "Use auto, or a comma list of rdma and tcp.",
                              "'%.*s' is not a transport", length < 64 ? (int)length : 64, at);
    }
    at += length;
    if (*at == '\0') break;
  }
  *transports_out = transports;
  return SPROUT_OK;
}

enum sprout_status transports_gid_index(int32_t option, int32_t *gid_index_out,
                                        struct sprout_error *error) {
  if (option < 0 || option > GID_INDEX_MAX + 1)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Zero chooses one by address.",
                            "a GID index is 0 to %d", GID_INDEX_MAX);
  *gid_index_out = option - 1;
  return SPROUT_OK;
}
