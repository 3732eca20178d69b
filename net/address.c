/* SPDX-License-Identifier: Apache-2.0 */
#include "net/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* --- texts --- */

/* Decimal digits only, 0..65535. */
static bool parse_port(const char *text, size_t length, uint16_t *port_out) {
  uint32_t value = 0;
  if (length == 0 || length > 5) return false;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9') return false;
    value = value * 10 + (uint32_t)(text[i] - '0');
  }
  if (value > UINT16_MAX) return false;
  *port_out = (uint16_t)value;
  return true;
}

/* A part of a text; nothing is copied before it was checked. */
struct span {
  const char *text;
  size_t length;
};

/* Letters of a host name or an IPv4 address. */
static bool host_ok(struct span host) {
  if (host.length == 0 || host.length >= ADDRESS_HOST_BYTES) return false;
  for (size_t i = 0; i < host.length; i++) {
    char c = host.text[i];
    bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!alphanumeric && c != '-' && c != '.' && c != '_') return false;
  }
  return true;
}

/* An IPv6 address, perhaps with a zone ("fe80::1%eth0"; in URLs the sign is written "%25"). */
static bool host6_ok(struct span host) {
  char address[INET6_ADDRSTRLEN];
  struct in6_addr binary;
  const char *zone = memchr(host.text, '%', host.length);
  size_t length = zone ? (size_t)(zone - host.text) : host.length;
  if (length >= sizeof(address) || host.length >= ADDRESS_HOST_BYTES) return false;
  memcpy(address, host.text, length);
  address[length] = '\0';
  if (inet_pton(AF_INET6, address, &binary) != 1) return false;
  return !zone || host_ok((struct span){zone + 1, host.length - length - 1});
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT"; an absent port is an empty span. False: malformed. */
static bool split_authority(struct span text, struct span *host_out, struct span *port_out) {
  struct span host = text, port = {text.text, 0};
  const char *colon;
  if (text.length && text.text[0] == '[') {
    const char *bracket = memchr(text.text, ']', text.length);
    if (!bracket) return false;
    host = (struct span){text.text + 1, (size_t)(bracket - text.text) - 1};
    size_t rest = text.length - host.length - 2;
    if (!host6_ok(host) || (rest && bracket[1] != ':') || rest == 1) return false;
    if (rest) port = (struct span){bracket + 2, rest - 1};
  } else if ((colon = memchr(text.text, ':', text.length))) {
    host.length = (size_t)(colon - text.text);
    port = (struct span){colon + 1, text.length - host.length - 1};
    if (port.length == 0) return false;
  }
  *host_out = host;
  *port_out = port;
  return true;
}

static void copy_host(struct span host, char host_out[ADDRESS_HOST_BYTES]) {
  memcpy(host_out, host.text, host.length);
  host_out[host.length] = '\0';
}

/* --- URLs --- */

#define URL_HINT "Write http://HOST[:PORT] or file:///DIRECTORY."

static enum sprout_status refuse_scheme(const char *text, struct sprout_error *error) {
  size_t length = strcspn(text, ":/?#@ ");
  if (strncasecmp(text, "https://", 8) == 0)
    return sprout_error_set(error, SPROUT_INVALID, 0,
                            "Use http:// inside a trusted network, or put a TLS proxy in front.",
                            "https is not built into this version");
  if (strncmp(text + length, "://", 3) == 0)
    return sprout_error_set(error, SPROUT_INVALID, 0, URL_HINT, "unknown URL scheme \"%.*s\"",
                            length > 32 ? 32 : (int)length, text);
  return sprout_error_set(error, SPROUT_INVALID, 0, URL_HINT, "a URL without http:// or file://");
}

static enum sprout_status parse_file_url(const char *text, struct url *url_out,
                                         struct sprout_error *error) {
  const char *path = text + strlen("file://");
  if (strncasecmp(path, "localhost/", 10) == 0) path += strlen("localhost");
  if (path[0] == '\0')
    return sprout_error_set(error, SPROUT_INVALID, 0, URL_HINT, "file:// without a directory");
  *url_out = (struct url){.kind = URL_FILE, .path = path};
  return SPROUT_OK;
}

/* The address in brackets may carry its zone as "%25eth0" (RFC 6874) or plainly "%eth0". */
static void unescape_zone(char *host) {
  char *zone = strchr(host, '%');
  if (zone && strncmp(zone, "%25", 3) == 0 && zone[3])
    memmove(zone + 1, zone + 3, strlen(zone + 3) + 1);
}

static enum sprout_status parse_http_url(const char *text, struct url *url_out,
                                         struct sprout_error *error) {
  const char *authority = text + strlen("http://");
  struct span whole = {authority, strcspn(authority, "/?#")}, host, port;
  const char *rest = authority + whole.length;
  struct url url = {.kind = URL_HTTP, .port = ADDRESS_DEFAULT_PORT};
  /* The part before '@' is a secret: it is never shown. */
  if (strchr(authority, '@'))
    return sprout_error_set(error, SPROUT_INVALID, 0,
                            "Give the token with --token-file or SPROUT_TOKEN.",
                            "a URL with credentials is refused");
  if (rest[0] && strcmp(rest, "/") != 0)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Name the seed alone: http://HOST[:PORT].",
                            "a URL of a seed has no path, query or fragment");
  bool bracketed = whole.length && authority[0] == '[';
  if (!split_authority(whole, &host, &port) || (!bracketed && !host_ok(host)))
    return sprout_error_set(error, SPROUT_INVALID, 0, URL_HINT,
                            "no valid host in \"%.256s\" (IPv6 needs brackets)", text);
  if (port.length && (!parse_port(port.text, port.length, &url.port) || url.port == 0))
    return sprout_error_set(error, SPROUT_INVALID, 0, "A port is 1 to 65535.",
                            "no valid port in \"%.256s\"", text);
  copy_host(host, url.host);
  unescape_zone(url.host);
  *url_out = url;
  return SPROUT_OK;
}

enum sprout_status url_parse(const char *text, struct url *url_out, struct sprout_error *error) {
  if (strncasecmp(text, "http://", 7) == 0) return parse_http_url(text, url_out, error);
  if (strncasecmp(text, "file://", 7) == 0) return parse_file_url(text, url_out, error);
  return refuse_scheme(text, error);
}

/* --- listen addresses --- */

enum sprout_status address_parse(const char *text, char host_out[ADDRESS_HOST_BYTES],
                                 uint16_t *port_out, struct sprout_error *error) {
  struct span whole = {text, strlen(text)}, host = {text, 0}, port = whole;
  bool bracketed = text[0] == '[';
  bool only_port = strspn(text, "0123456789") == whole.length;
  bool ok = only_port || split_authority(whole, &host, &port);
  if (ok && host.length && !bracketed) ok = host_ok(host);
  if (!ok || !parse_port(port.text, port.length, port_out))
    return sprout_error_set(error, SPROUT_INVALID, 0,
                            "Write ADDR:PORT, [V6ADDR]:PORT, :PORT or PORT, port 0 to 65535.",
                            "\"%.256s\" is no address with a port", text);
  copy_host(host, host_out);
  return SPROUT_OK;
}

/* --- resolving --- */

static bool known_already(const struct address *addresses, size_t count,
                          const struct address *candidate) {
  for (size_t i = 0; i < count; i++) {
    if (addresses[i].length == candidate->length &&
        memcmp(&addresses[i].storage, &candidate->storage, candidate->length) == 0)
      return true;
  }
  return false;
}

static size_t collect(const struct addrinfo *list, struct address *addresses_out) {
  size_t count = 0;
  for (const struct addrinfo *at = list; at && count < ADDRESS_MAX; at = at->ai_next) {
    struct address candidate = {.length = at->ai_addrlen};
    if (at->ai_family != AF_INET && at->ai_family != AF_INET6) continue;
    assert(at->ai_addrlen <= sizeof(candidate.storage));
    memcpy(&candidate.storage, at->ai_addr, at->ai_addrlen);
    if (!known_already(addresses_out, count, &candidate)) addresses_out[count++] = candidate;
  }
  return count;
}

static enum sprout_status resolver_failed(const char *host, int code, struct sprout_error *error) {
  if (code == EAI_MEMORY) return sprout_error_set(error, SPROUT_NO_MEMORY, code, NULL, "no memory");
  int native = code == EAI_SYSTEM ? errno : code;
  const char *words = code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code);
  return sprout_error_set(error, SPROUT_DISCONNECTED, native,
                          "Check the name, and that this machine's resolver knows it.",
                          "cannot resolve \"%.200s\": %s", host, words);
}

enum sprout_status address_resolve(const char *host, uint16_t port, bool passive,
                                   struct address *addresses_out, size_t *count_out,
                                   struct sprout_error *error) {
  char service[6];
  struct addrinfo *list = NULL;
  /* Not AI_ADDRCONFIG: it hides 127.0.0.1 and ::1 on machines that have only loopback. */
  struct addrinfo hints = {.ai_family = AF_UNSPEC,
                           .ai_socktype = SOCK_STREAM,
                           .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
  (void)snprintf(service, sizeof(service), "%u", (unsigned)port);
  int code = getaddrinfo(host[0] ? host : NULL, service, &hints, &list);
  if (code != 0) return resolver_failed(host, code, error);
  size_t count = collect(list, addresses_out);
  freeaddrinfo(list);
  if (count == 0) return resolver_failed(host, EAI_NONAME, error);
  *count_out = count;
  return SPROUT_OK;
}

/* --- asking an address --- */

static const struct sockaddr_in *as_v4(const struct address *address) {
  return (const struct sockaddr_in *)&address->storage;
}

static const struct sockaddr_in6 *as_v6(const struct address *address) {
  return (const struct sockaddr_in6 *)&address->storage;
}

bool address_is_loopback(const struct address *address) {
  if (address->storage.ss_family == AF_INET)
    return ntohl(as_v4(address)->sin_addr.s_addr) >> 24 == 127;
  if (address->storage.ss_family != AF_INET6) return false;
  const struct in6_addr *v6 = &as_v6(address)->sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

const char *address_format(const struct address *address, char *buffer, size_t buffer_bytes) {
  char host[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE], service[8];
  bool v6 = address->storage.ss_family == AF_INET6;
  if (getnameinfo((const struct sockaddr *)&address->storage, address->length, host, sizeof(host),
                  service, sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    (void)snprintf(buffer, buffer_bytes, "?");
  } else {
    (void)snprintf(buffer, buffer_bytes, v6 ? "[%s]:%s" : "%s:%s", host, service);
  }
  return buffer;
}

static bool same_host(const struct address *address, const struct sockaddr *other) {
  if (!other || other->sa_family != address->storage.ss_family) return false;
  if (other->sa_family == AF_INET)
    return as_v4(address)->sin_addr.s_addr ==
           ((const struct sockaddr_in *)(const void *)other)->sin_addr.s_addr;
  if (other->sa_family != AF_INET6) return false;
  return memcmp(&as_v6(address)->sin6_addr,
                &((const struct sockaddr_in6 *)(const void *)other)->sin6_addr,
                sizeof(struct in6_addr)) == 0;
}

/* Speed of an interface in Mbit/s as the kernel tells it; 0 when it does not. */
static uint64_t interface_speed(const char *name) {
  char path[64 + IF_NAMESIZE], line[32] = "";
  (void)snprintf(path, sizeof(path), "/sys/class/net/%.*s/speed", IF_NAMESIZE, name);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  char *end = line;
  long long speed = fgets(line, sizeof(line), file) ? strtoll(line, &end, 10) : 0;
  (void)fclose(file);
  /* -1 and UINT32_MAX both mean unknown. */
  return speed > 0 && speed < UINT32_MAX ? (uint64_t)speed : 0;
}

enum sprout_status address_link_rate(const struct address *address, uint64_t *rate_out,
                                     struct sprout_error *error) {
  struct ifaddrs *list = NULL;
  char name[IF_NAMESIZE] = "", text[ADDRESS_TEXT_BYTES];
  if (getifaddrs(&list) != 0)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, errno, "Give the rate in bytes.",
                            "cannot list the network interfaces");
  for (const struct ifaddrs *at = list; at && !name[0]; at = at->ifa_next) {
    if (same_host(address, at->ifa_addr)) (void)snprintf(name, sizeof(name), "%s", at->ifa_name);
  }
  freeifaddrs(list);
  uint64_t speed = name[0] ? interface_speed(name) : 0;
  if (speed == 0)
    return sprout_error_set(error, SPROUT_UNSUPPORTED, 0,
                            "Give the rate in bytes or bits, say 1GB or 10Gbit.",
                            "the kernel does not tell the link speed of %s (interface %s)",
                            address_format(address, text, sizeof(text)), name[0] ? name : "none");
  *rate_out = speed * 1000000u / 8u;
  return SPROUT_OK;
}
