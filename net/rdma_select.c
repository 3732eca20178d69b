/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which devices and ports to use. The order of a list is the order of the rails.
 */
#include "net/rdma_host.h"
#include "net/rdma_module.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PORTS_MAX 64u

static const char hint_devices[] =
    "Look at `rdma link`; install rdma-core; over Ethernet without an adapter: "
    "rdma link add rxe0 type rxe netdev ETH. Or use --transport tcp.";
static const char hint_access[] =
    "Give this process /dev/infiniband/uverbs* and rdma_cm (containers: --device=/dev/infiniband), "
    "or use --transport tcp.";
static const char hint_port[] =
    "Bring the interface up and give it an address (ip address, ibstat), or choose another "
    "--rdma-device or --gid-index.";

static SPROUT_MUST_CHECK enum sprout_status explain_devices(int native,
                                                            struct sprout_error *error) {
  switch (-native) {
  case 0:
  case ENODEV:
    return sprout_error_set(error, SPROUT_UNSUPPORTED, ENODEV, hint_devices,
                            "this machine has no RDMA device");
  case EACCES:
  case EPERM:
    return sprout_error_set(error, SPROUT_UNSUPPORTED, -native, hint_access,
                            "there are RDMA devices, but this process may not open them");
  default:
    return sprout_error_set(error, SPROUT_UNSUPPORTED, -native, hint_devices,
                            "RDMA devices cannot be listed: %s", strerror(-native));
  }
}

/* One entry of the list: a name, perhaps with ":PORT". */
struct named_port {
  char name[VERBS_NAME_BYTES];
  uint32_t port; /* 0: the first that is active */
};

static bool wants_all(const char *devices) {
  return devices == NULL || devices[0] == '\0' || strcmp(devices, "auto") == 0;
}

static SPROUT_MUST_CHECK enum sprout_status parse_entry(const char *text, size_t length,
                                                        struct named_port *entry_out,
                                                        struct sprout_error *error) {
  const char *colon = memchr(text, ':', length);
  size_t name_length = colon != NULL ? (size_t)(colon - text) : length;
  struct named_port entry = {.port = 0};
  bool good = name_length > 0 && name_length < sizeof(entry.name);
  if (good) memcpy(entry.name, text, name_length);
  for (size_t i = name_length + 1; good && i < length; i++) {
    good = text[i] >= '0' && text[i] <= '9' && entry.port < PORTS_MAX;
    entry.port = entry.port * 10 + (uint32_t)(text[i] - '0');
  }
  if (colon != NULL && (entry.port == 0 || entry.port > PORTS_MAX)) good = false;
  if (!good)
    return sprout_error_set(error, SPROUT_INVALID, 0, "Example: --rdma-device mlx5_0,mlx5_1:1",
                            "'%.*s' is no device name with an optional port", (int)length, text);
  *entry_out = entry;
  return SPROUT_OK;
}

/* What a search went by, for the message when it found nothing. */
struct search {
  const struct verbs *verbs;
  int32_t gid_index;
  char reason[64]; /* why the last port that was looked at is not usable */
};

/* False, for the caller to return. */
SPROUT_PRINTF(2, 3) static bool miss(struct search *search, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)vsnprintf(search->reason, sizeof(search->reason), format, arguments);
  va_end(arguments);
  return false;
}

static bool usable(struct search *search, const struct verbs_device_info *device, uint32_t number,
                   struct rdma_choice *choice_out) {
  struct verbs_port port;
  if (search->verbs->port(device->device, number, search->gid_index, &port) != 0) {
    if (search->gid_index >= 0)
      return miss(search, "port %u has no GID index %d", number, search->gid_index);
    return miss(search, "cannot be asked about port %u", number);
  }
  if (!port.active) return miss(search, "port %u is not active", number);
  if (port.address.ss_family == AF_UNSPEC)
    return miss(search, "port %u has no IP address to connect by", number);
  *choice_out = (struct rdma_choice){.device = *device, .port = port};
  return true;
}

/* The wanted port, or the first usable one when `wanted` is 0. */
static bool usable_port(struct search *search, const struct verbs_device_info *device,
                        uint32_t wanted, struct rdma_choice *choice_out) {
  if (wanted != 0) return usable(search, device, wanted, choice_out);
  for (uint32_t number = 1; number <= device->ports && number <= PORTS_MAX; number++)
    if (usable(search, device, number, choice_out)) return true;
  return false;
}

static void add_all(struct search *search, const struct verbs_device_info *devices, uint32_t count,
                    struct rdma_selection *selection) {
  for (uint32_t i = 0; i < count; i++) {
    for (uint32_t number = 1; number <= devices[i].ports && number <= PORTS_MAX; number++) {
      if (selection->count == RDMA_RAILS_MAX) return;
      if (usable(search, &devices[i], number, &selection->rails[selection->count]))
        selection->count++;
    }
  }
}

static const struct verbs_device_info *find_device(const struct verbs_device_info *devices,
                                                   uint32_t count, const char *name) {
  for (uint32_t i = 0; i < count; i++)
    if (strcmp(devices[i].name, name) == 0) return &devices[i];
  return NULL;
}

static SPROUT_MUST_CHECK enum sprout_status no_such_device(const struct verbs_device_info *devices,
                                                           uint32_t count, const char *name,
                                                           struct sprout_error *error) {
  char names[200] = "";
  size_t used = 0;
  for (uint32_t i = 0; i < count && used < sizeof(names); i++) {
    int wrote =
        snprintf(names + used, sizeof(names) - used, "%s%s", i > 0 ? ", " : "", devices[i].name);
    used += wrote > 0 ? (size_t)wrote : 0;
  }
  return sprout_error_set(error, SPROUT_INVALID, 0, "See `rdma link` for the names.",
                          "there is no RDMA device '%s'; there are: %s", name, names);
}

static SPROUT_MUST_CHECK enum sprout_status
add_named(struct search *search, const char *list, const struct verbs_device_info *devices,
          uint32_t count, struct rdma_selection *selection, struct sprout_error *error) {
  for (const char *at = list; at != NULL;) {
    const char *comma = strchr(at, ',');
    size_t length = comma != NULL ? (size_t)(comma - at) : strlen(at);
    struct named_port entry;
    enum sprout_status status = parse_entry(at, length, &entry, error);
    if (status != SPROUT_OK) return status;
    const struct verbs_device_info *device = find_device(devices, count, entry.name);
    if (device == NULL) return no_such_device(devices, count, entry.name, error);
    if (selection->count == RDMA_RAILS_MAX)
      return sprout_error_set(error, SPROUT_INVALID, 0, NULL, "more than %u RDMA devices are named",
                              RDMA_RAILS_MAX);
    if (!usable_port(search, device, entry.port, &selection->rails[selection->count]))
      return sprout_error_set(error, SPROUT_UNSUPPORTED, 0, hint_port, "RDMA device %s: %s",
                              entry.name, search->reason);
    selection->count++;
    at = comma != NULL ? comma + 1 : NULL;
  }
  return SPROUT_OK;
}

enum sprout_status rdma_select(const struct rdma_wish *wish, struct rdma_selection *selection_out,
                               struct sprout_error *error) {
  struct verbs_device_info devices[VERBS_DEVICES_MAX];
  struct rdma_selection selection = {.count = 0};
  uint32_t count = 0;
  enum sprout_status status = rdma_module_load(&selection.verbs, error);
  if (status != SPROUT_OK) {
    /* What the module would look at: without it the missing module is no loss. */
    if (access("/sys/class/infiniband", F_OK) != 0) error->native = ENODEV;
    return status;
  }
  int native = selection.verbs->devices(devices, VERBS_DEVICES_MAX, &count);
  if (native != 0 || count == 0) return explain_devices(native, error);
  if (count > VERBS_DEVICES_MAX) count = VERBS_DEVICES_MAX; /* it says how many there are */
  struct search search = {
      .verbs = selection.verbs, .gid_index = wish->gid_index, .reason = "has no port"};
  if (wants_all(wish->devices)) {
    add_all(&search, devices, count, &selection);
    if (selection.count == 0)
      return sprout_error_set(error, SPROUT_UNSUPPORTED, 0, hint_port,
                              "none of %u RDMA devices can be used; the last one, %s: %s", count,
                              devices[count - 1].name, search.reason);
  } else {
    status = add_named(&search, wish->devices, devices, count, &selection, error);
    if (status != SPROUT_OK) return status;
  }
  *selection_out = selection;
  return SPROUT_OK;
}
