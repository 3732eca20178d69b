/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a seed: defaults, bounds, and the rule that a seed which strangers can reach asks for
 * a token.
 */
#include "net/seed_private.h"

#include "core/probe.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define LISTEN_DEFAULT "127.0.0.1:7117"
#define MAX_FORKS_DEFAULT 64u
#define MAX_QUEUE_DEFAULT 1024u
#define INFLIGHT_DEFAULT (64ull << 20)
#define DIGEST_RATE_DEFAULT 1000000000ull
#define DRAIN_TIMEOUT_DEFAULT (30 * SEED_NS_PER_S)
#define LEASE_DEFAULT (10 * SEED_NS_PER_S)
#define LEASE_LEAST (SEED_NS_PER_S / 10)
#define ADMIN_CONNECTIONS 64u
/* For files of the model, the ring, the log, the probes, the engine around us. */
#define DESCRIPTORS_KEPT 256u

static uint64_t or_default(uint64_t value, uint64_t fallback) {
  return value != 0 ? value : fallback;
}

static enum sprout_status check_numbers(const struct sprout_seed_options *options,
                                        struct sprout_error *error) {
  if (options->max_forks > LIMIT_FORKS)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Run more seeds.",
                            "at most %u forks can run at once, not %u", LIMIT_FORKS,
                            options->max_forks);
  if (options->max_queue > LIMIT_QUEUE)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Run more seeds.",
                            "at most %u forks can wait, not %u", LIMIT_QUEUE, options->max_queue);
  if (options->max_rate_percent > 100)
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL,
                            "a rate is 1 to 100 percent of the link, not %u",
                            options->max_rate_percent);
  if (options->rdma_port > UINT16_MAX)
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "a port is 0 to 65535, not %u",
                            options->rdma_port);
  if (options->lease_ns != 0 && options->lease_ns < LEASE_LEAST)
    return sprout_error_set(error, SPROUT_INVALID, 0, "The default is 10s.",
                            "a lease lasts at least 100 ms");
  if (options->label != NULL && strlen(options->label) > MANIFEST_LABEL_MAX)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Choose a shorter one.",
                            "a label has at most %u bytes", MANIFEST_LABEL_MAX);
  return SPROUT_OK;
}

enum sprout_status seed_options_check(const struct sprout_seed_options *options,
                                      struct seed_settings *settings_out,
                                      struct sprout_error *error) {
  if (options == NULL || options->struct_bytes != sizeof(*options))
    return sprout_error_set(error, SPROUT_INVALID, 0,
                            "Zero-initialise the options and set struct_bytes.",
                            "the seed's options have not the size that this library expects");
  bool has_paths = options->path_count > 0, has_tensors = options->tensor_count > 0;
  if (has_paths == has_tensors)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Give a directory, files, or tensors.",
                            has_paths ? "a seed serves either paths or tensors, not both"
                                      : "a seed needs paths or tensors to serve");
  if ((has_paths && options->paths == NULL) || (has_tensors && options->tensors == NULL))
    return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "a list that has entries is NULL");
  struct transports transports;
  int32_t gid_index = -1;
  enum sprout_status status = check_numbers(options, error);
  if (status == SPROUT_OK) status = transports_parse(options->transports, &transports, error);
  if (status == SPROUT_OK)
    status = transports_gid_index(options->rdma_gid_index, &gid_index, error);
  if (status != SPROUT_OK) return status;
  *settings_out = (struct seed_settings){
      .max_forks = (uint32_t)or_default(options->max_forks, MAX_FORKS_DEFAULT),
      .max_queue = (uint32_t)or_default(options->max_queue, MAX_QUEUE_DEFAULT),
      .inflight_bytes = or_default(options->inflight_bytes, INFLIGHT_DEFAULT),
      .digest_rate = or_default(options->digest_rate, DIGEST_RATE_DEFAULT),
      .drain_timeout_ns = or_default(options->drain_timeout_ns, DRAIN_TIMEOUT_DEFAULT),
      .lease_ns = or_default(options->lease_ns, LEASE_DEFAULT),
      .max_rate = options->max_rate,
      .metrics_need_token = options->metrics_need_token,
      .tensors_mutable = has_tensors && options->tensors_mutable,
      .transports = transports,
      .rdma_gid_index = gid_index,
      .rdma_port = (uint16_t)options->rdma_port};
  return SPROUT_OK;
}

/* --- listening --- */

static void observe(void *context, const struct http_exchange *exchange, uint64_t now_ns) {
  struct sprout_seed *seed = context;
  seed_metrics_request(seed, exchange, now_ns);
  seed_drain_look(seed);
}

static void limit_hit(void *context, const char *limit) {
  seed_metrics_limit(context, limit);
}

static uint32_t connection_limit(void) {
  unsigned long descriptors = probe_raise_descriptor_limit();
  if (descriptors > LIMIT_CONNECTIONS + DESCRIPTORS_KEPT) return LIMIT_CONNECTIONS;
  return descriptors > 2 * DESCRIPTORS_KEPT ? (uint32_t)(descriptors - DESCRIPTORS_KEPT)
                                            : (uint32_t)(descriptors / 2);
}

static bool is_wildcard(const struct address *address) {
  if (address->storage.ss_family == AF_INET)
    return ((const struct sockaddr_in *)&address->storage)->sin_addr.s_addr == htonl(INADDR_ANY);
  return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)&address->storage)->sin6_addr);
}

/* Strangers can reach any address but loopback. */
static enum sprout_status check_exposure(const struct sprout_seed *seed,
                                         const struct sprout_seed_options *options,
                                         const struct address *address,
                                         struct sprout_error *error) {
  char text[ADDRESS_TEXT_BYTES];
  if (address_is_loopback(address) || auth_required(seed->auth) || options->allow_anonymous)
    return SPROUT_OK;
  return sprout_error_set(
      error, SPROUT_INVALID, 0,
      "Set a token (--token-file), or say that everybody may read the model (--allow-anonymous).",
      "listening on %s without a token would serve the model to everybody who can reach it",
      address_format(address, text, sizeof(text)));
}

/* A name may stand for several addresses; the IPv6 wildcard in front: it serves IPv4 as well. */
static void prefer_dual_stack(struct address *addresses, size_t count) {
  for (size_t i = 1; i < count; i++) {
    if (addresses[i].storage.ss_family != AF_INET6 || !is_wildcard(&addresses[i])) continue;
    struct address first = addresses[0];
    addresses[0] = addresses[i];
    addresses[i] = first;
    return;
  }
}

/* Creates a server on the first of the addresses that can be had. */
static enum sprout_status listen_on(struct sprout_seed *seed,
                                    const struct sprout_seed_options *options, const char *text,
                                    struct http_server_options *server_options,
                                    struct http_server **server_out, struct sprout_error *error) {
  char host[ADDRESS_HOST_BYTES];
  uint16_t port = 0;
  struct address addresses[ADDRESS_MAX];
  size_t count = 0;
  enum sprout_status status = address_parse(text, host, &port, error);
  if (status == SPROUT_OK) status = address_resolve(host, port, true, addresses, &count, error);
  if (status != SPROUT_OK) return status;
  prefer_dual_stack(addresses, count);
  for (size_t i = 0; i < count; i++) {
    server_options->address = addresses[i];
    status = server_options->pace != NULL ? check_exposure(seed, options, &addresses[i], error)
                                          : SPROUT_OK;
    if (status != SPROUT_OK) return status;
    status = http_server_create(server_options, server_out, error);
    if (status == SPROUT_OK) return status;
  }
  return status;
}

static enum sprout_status find_rate(struct sprout_seed *seed,
                                    const struct sprout_seed_options *options,
                                    struct sprout_error *error) {
  if (options->max_rate_percent == 0) return SPROUT_OK;
  uint64_t link_rate = 0;
  enum sprout_status status =
      address_link_rate(http_server_address(seed->server), &link_rate, error);
  if (status != SPROUT_OK) return status;
  seed->settings.max_rate = link_rate / 100 * options->max_rate_percent;
  http_pace_set_rate(seed->pace, seed->settings.max_rate);
  return SPROUT_OK;
}

enum sprout_status seed_listen(struct sprout_seed *seed, const struct sprout_seed_options *options,
                               struct sprout_error *error) {
  struct http_server_options server_options = {.reactor = seed->reactor,
                                               .pace = seed->pace,
                                               .max_connections = connection_limit(),
                                               .context = seed,
                                               .handle = routes_handle,
                                               .observe = observe,
                                               .limit_hit = limit_hit};
  const char *listen = options->listen != NULL ? options->listen : LISTEN_DEFAULT;
  enum sprout_status status =
      listen_on(seed, options, listen, &server_options, &seed->server, error);
  if (status == SPROUT_OK) status = find_rate(seed, options, error);
  if (status != SPROUT_OK || options->admin_listen == NULL) return status;
  server_options.pace = NULL;
  server_options.max_connections = ADMIN_CONNECTIONS;
  server_options.handle = routes_handle_admin;
  return listen_on(seed, options, options->admin_listen, &server_options, &seed->admin, error);
}
