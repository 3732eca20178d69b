/* SPDX-License-Identifier: Apache-2.0 */
/* The module's one symbol: the table of everything the layer does. */
#include "net/verbs/private.h"

#include <fcntl.h>

static const struct verbs layer = {
    .layer_version = VERBS_LAYER_VERSION,
    .struct_bytes = sizeof(struct verbs),
    .devices = verbs_devices,
    .port = verbs_port,
    .async_fd = verbs_async_fd,
    .async_next = verbs_async_next,
    .domain_open = verbs_domain_open,
    .domain_close = verbs_domain_close,
    .memory_register = verbs_memory_register,
    .memory_release = verbs_memory_release,
    .channel_open = verbs_channel_open,
    .channel_close = verbs_channel_close,
    .channel_fd = verbs_channel_fd,
    .channel_next = verbs_channel_next,
    .queue_open = verbs_queue_open,
    .queue_close = verbs_queue_close,
    .queue_acknowledge = verbs_queue_acknowledge,
    .queue_arm = verbs_queue_arm,
    .queue_poll = verbs_queue_poll,
    .events_open = verbs_events_open,
    .events_close = verbs_events_close,
    .events_fd = verbs_events_fd,
    .events_next = verbs_events_next,
    .link_open = verbs_link_open,
    .link_set_context = verbs_link_set_context,
    .link_end = verbs_link_end,
    .link_free = verbs_link_free,
    .link_listen = verbs_link_listen,
    .link_port = verbs_link_port,
    .link_resolve_address = verbs_link_resolve_address,
    .link_resolve_route = verbs_link_resolve_route,
    .link_device = verbs_link_device,
    .link_make_pair = verbs_link_make_pair,
    .link_connect = verbs_link_connect,
    .link_accept = verbs_link_accept,
    .link_reject = verbs_link_reject,
    .link_disconnect = verbs_link_disconnect,
    .link_post = verbs_link_post,
};

/* Looked up by name, so no header declares it. */
__attribute__((visibility("default"))) const struct verbs *sprout_rdma_verbs(void);

const struct verbs *sprout_rdma_verbs(void) {
  return &layer;
}

int verbs_set_descriptor_flags(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) return -errno;
  return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}
