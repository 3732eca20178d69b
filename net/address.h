/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and URLs. Parsing is pure; resolving blocks (worker pool or start-up only).
 */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include "sprout/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDRESS_DEFAULT_PORT 7117
#define ADDRESS_HOST_BYTES 256
#define ADDRESS_TEXT_BYTES 64
#define ADDRESS_MAX 16

struct address {
  struct sockaddr_storage storage;
  socklen_t length;
};

enum url_kind { URL_HTTP, URL_FILE };

struct url {
  enum url_kind kind;
  char host[ADDRESS_HOST_BYTES]; /* without brackets */
  uint16_t port;
  const char *path; /* URL_FILE: the directory, inside the text that was parsed */
};

/* "http://HOST[:PORT][/]", "file://DIR". Credentials in a URL, other schemes and paths on http are
 * refused with a hint. */
SPROUT_MUST_CHECK enum sprout_status url_parse(const char *text, struct url *url_out,
                                               struct sprout_error *error);
/* "ADDR:PORT", "[V6]:PORT", ":PORT", "PORT" -> host and port; port 0 is allowed. */
SPROUT_MUST_CHECK enum sprout_status address_parse(const char *text,
                                                   char host_out[ADDRESS_HOST_BYTES],
                                                   uint16_t *port_out, struct sprout_error *error);
/* Blocks. Up to ADDRESS_MAX different addresses. SPROUT_DISCONNECTED with the resolver's words. */
SPROUT_MUST_CHECK enum sprout_status address_resolve(const char *host, uint16_t port, bool passive,
                                                     struct address *addresses_out,
                                                     size_t *count_out, struct sprout_error *error);
bool address_is_loopback(const struct address *address);
/* "1.2.3.4:7117", "[::1]:7117"; returns buffer. */
const char *address_format(const struct address *address, char *buffer, size_t buffer_bytes);
/* Link speed of the interface that carries this local address, bytes per second; SPROUT_UNSUPPORTED
 * when the kernel does not tell (loopback). */
SPROUT_MUST_CHECK enum sprout_status
address_link_rate(const struct address *address, uint64_t *rate_out, struct sprout_error *error);
#endif
