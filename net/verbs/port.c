/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port and the IP address by which rdma_cm finds it: on Ethernet that of its GIDs (RoCE v2), on
 * InfiniBand that of the interface that IPoIB made for the port.
 */
#include "net/verbs/private.h"

#include <ifaddrs.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- addresses of Ethernet ports ---- */

/* How well a GID suits, 0 best; GID_UNFIT: it is no address. */
enum { GID_IPV4, GID_IPV6, GID_LINK_LOCAL, GID_UNFIT };

static int rank_gid(const struct ibv_gid_entry *entry) {
  static const uint8_t none[16];
  struct in6_addr address;
  memcpy(&address, entry->gid.raw, sizeof address);
  if (memcmp(&address, none, sizeof none) == 0) return GID_UNFIT;
  if (IN6_IS_ADDR_V4MAPPED(&address)) return GID_IPV4;
  return IN6_IS_ADDR_LINKLOCAL(&address) ? GID_LINK_LOCAL : GID_IPV6;
}

static void take_gid(const struct ibv_gid_entry *entry, struct verbs_port *port) {
  port->gid_index = (int32_t)entry->gid_index;
  if (entry->ndev_ifindex == 0 || if_indextoname(entry->ndev_ifindex, port->interface) == NULL)
    port->interface[0] = '\0';
  int rank = rank_gid(entry);
  if (rank == GID_IPV4) {
    struct sockaddr_in *address = (struct sockaddr_in *)&port->address;
    address->sin_family = AF_INET;
    memcpy(&address->sin_addr, entry->gid.raw + 12, sizeof address->sin_addr);
  } else if (rank != GID_UNFIT) {
    struct sockaddr_in6 *address = (struct sockaddr_in6 *)&port->address;
    address->sin6_family = AF_INET6;
    memcpy(&address->sin6_addr, entry->gid.raw, sizeof address->sin6_addr);
    if (rank == GID_LINK_LOCAL) address->sin6_scope_id = entry->ndev_ifindex;
  }
}

/* The GIDs of all ports; free() them. */
static int read_gids(struct ibv_context *context, uint32_t capacity,
                     struct ibv_gid_entry **gids_out, size_t *count_out) {
  struct ibv_gid_entry *gids = calloc(capacity > 0 ? capacity : 1, sizeof *gids);
  if (gids == NULL) return -ENOMEM;
  ssize_t count = ibv_query_gid_table(context, gids, capacity, 0);
  if (count < 0) {
    free(gids);
    return (int)count;
  }
  *gids_out = gids;
  *count_out = (size_t)count;
  return 0;
}

static int find_gid(struct ibv_context *context, uint32_t capacity, int32_t wanted,
                    struct verbs_port *port) {
  struct ibv_gid_entry *gids = NULL;
  size_t count = 0;
  int result = read_gids(context, capacity, &gids, &count);
  if (result < 0) return result;
  const struct ibv_gid_entry *best = NULL;
  for (size_t i = 0; i < count; i++) {
    const struct ibv_gid_entry *gid = &gids[i];
    if (gid->port_num != port->number) continue;
    if (wanted >= 0) {
      if (gid->gid_index == (uint32_t)wanted) best = gid;
    } else if (gid->gid_type == IBV_GID_TYPE_ROCE_V2 && rank_gid(gid) != GID_UNFIT &&
               (best == NULL || rank_gid(gid) < rank_gid(best))) {
      best = gid;
    }
  }
  if (best != NULL) take_gid(best, port);
  result = best == NULL && wanted >= 0 ? -ENOENT : 0;
  free(gids);
  return result;
}

/* ---- addresses of InfiniBand ports ---- */

static bool is_interface_of(const char *interface, const char *device, uint32_t port) {
  char path[IF_NAMESIZE + VERBS_NAME_BYTES + 64], line[16];
  snprintf(path, sizeof path, "/sys/class/net/%s/device/infiniband/%s", interface, device);
  if (access(path, F_OK) != 0) return false;
  snprintf(path, sizeof path, "/sys/class/net/%s/dev_port", interface);
  return verbs_read_line(path, line, sizeof line) && strtoul(line, NULL, 10) + 1 == port;
}

/* IPv4 before IPv6, as on Ethernet. */
static int find_interface(const char *device, struct verbs_port *port) {
  struct ifaddrs *list;
  if (getifaddrs(&list) != 0) return -errno;
  static const int families[] = {AF_INET, AF_INET6};
  for (size_t f = 0; f < 2 && port->address.ss_family == AF_UNSPEC; f++)
    for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next) {
      if (at->ifa_addr == NULL || at->ifa_addr->sa_family != families[f] ||
          !is_interface_of(at->ifa_name, device, port->number))
        continue;
      memcpy(&port->address, at->ifa_addr,
             families[f] == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
      snprintf(port->interface, sizeof port->interface, "%s", at->ifa_name);
      break;
    }
  freeifaddrs(list);
  return 0;
}

/* ---- the port ---- */

/* From "100 Gb/sec (4X EDR)"; the kernel's text knows speeds that an older library does not. */
static uint64_t read_rate(const struct ibv_device *device, uint32_t port) {
  char path[sizeof device->ibdev_path + 32], line[64];
  snprintf(path, sizeof path, "%s/ports/%u/rate", device->ibdev_path, port);
  if (!verbs_read_line(path, line, sizeof line)) return 0;
  char *end = NULL;
  uint64_t tenths = strtoul(line, &end, 10) % 1000000 * 10;
  if (end[0] == '.' && end[1] >= '0' && end[1] <= '9') tenths += (uint64_t)(end[1] - '0');
  return tenths * 100 * 1000 * 1000;
}

int verbs_port(struct verbs_device *device, uint32_t number, int32_t gid_index,
               struct verbs_port *port_out) {
  if (number < 1 || number > UINT8_MAX) return -EINVAL;
  struct ibv_context *context = device->context;
  struct ibv_port_attr attributes;
  int result = verbs_result(ibv_query_port(context, (uint8_t)number, &attributes));
  if (result < 0) return result;
  struct ibv_device_attr of_device;
  result = verbs_result(ibv_query_device(context, &of_device));
  if (result < 0) return result;
  struct verbs_port port = {
      .number = number,
      .active = attributes.state == IBV_PORT_ACTIVE,
      .infiniband = attributes.link_layer == IBV_LINK_LAYER_INFINIBAND,
      .mtu_bytes = 128u << attributes.active_mtu,
      .bits_per_second = read_rate(context->device, number),
      .gid_index = -1,
  };
  /* The table is of all ports. */
  uint32_t gids = attributes.gid_tbl_len > 0 ? (uint32_t)attributes.gid_tbl_len : 0;
  if (port.infiniband) {
    port.gid_index = gid_index < 0 ? 0 : gid_index;
    if (gid_index >= 0 && (uint32_t)gid_index >= gids) return -ENOENT;
    result = find_interface(ibv_get_device_name(context->device), &port);
  } else {
    result = find_gid(context, gids * of_device.phys_port_cnt, gid_index, &port);
  }
  if (result == 0) *port_out = port;
  return result;
}
