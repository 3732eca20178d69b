/* SPDX-License-Identifier: Apache-2.0 */
/* What a device says without being asked. */
#include "net/verbs/private.h"

#include <infiniband/verbs.h>

int verbs_async_fd(struct verbs_device *device) {
  return device->context->async_fd;
}

static enum verbs_async_kind kind_of(enum ibv_event_type type) {
  switch (type) {
  case IBV_EVENT_PORT_ACTIVE: return VERBS_ASYNC_PORT_UP;
  case IBV_EVENT_PORT_ERR: return VERBS_ASYNC_PORT_DOWN;
  case IBV_EVENT_DEVICE_FATAL: return VERBS_ASYNC_DEVICE_FATAL;
  default: return VERBS_ASYNC_OTHER;
  }
}

int verbs_async_next(struct verbs_device *device, struct verbs_async *event_out) {
  struct ibv_async_event event;
  int result;
  do {
    result = ibv_get_async_event(device->context, &event);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return errno == EAGAIN ? 0 : verbs_failure();
  enum verbs_async_kind kind = kind_of(event.event_type);
  bool of_port = kind == VERBS_ASYNC_PORT_UP || kind == VERBS_ASYNC_PORT_DOWN;
  *event_out = (struct verbs_async){
      .kind = kind,
      .port = of_port ? (uint32_t)event.element.port_num : 0,
      .text = ibv_event_type_str(event.event_type),
  };
  /* At once: destroying an object waits for its events' acknowledgement. */
  ibv_ack_async_event(&event);
  return 1;
}
