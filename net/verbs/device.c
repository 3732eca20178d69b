/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices there are. They are looked for once; contexts stay open as long as the process. */
#include "net/verbs/private.h"

#include <dirent.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSFS_DEVICES "/sys/class/infiniband"

static struct {
  pthread_mutex_t mutex;         /* guards the rest until `count` is set; then it changes no more */
  struct ibv_context **contexts; /* never given back: the list is what keeps them open */
  struct verbs_device devices[VERBS_DEVICES_MAX];
  struct verbs_device_info infos[VERBS_DEVICES_MAX];
  uint32_t count;
} table = {.mutex = PTHREAD_MUTEX_INITIALIZER};

bool verbs_read_line(const char *path, char *line, size_t line_bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t length;
  do {
    length = read(fd, line, line_bytes - 1);
  } while (length < 0 && errno == EINTR);
  close(fd);
  if (length < 0) return false;
  line[length] = '\0';
  line[strcspn(line, "\n")] = '\0';
  return true;
}

static bool kernel_has_devices(void) {
  DIR *folder = opendir(SYSFS_DEVICES);
  if (folder == NULL) return false;
  bool found = false;
  for (const struct dirent *entry; !found && (entry = readdir(folder)) != NULL;)
    found = entry->d_name[0] != '.';
  closedir(folder);
  return found;
}

/* Why rdma_get_devices gave none: the kernel has none, or none of them can be opened (missing or
 * forbidden nodes in /dev/infiniband look alike from here, and so does their remedy). */
static int explain_absence(int code) {
  if (code == ENOMEM || code == EMFILE || code == ENFILE) return -code;
  return kernel_has_devices() ? -EACCES : -ENODEV;
}

static int find_numa_node(const struct ibv_device *device) {
  char path[sizeof device->ibdev_path + 32], line[16];
  snprintf(path, sizeof path, "%s/device/numa_node", device->ibdev_path);
  if (!verbs_read_line(path, line, sizeof line)) return -1;
  char *end = NULL;
  long node = strtol(line, &end, 10);
  return end != line && node >= 0 && node < 4096 ? (int)node : -1;
}

static uint32_t positive(int value) {
  return value > 0 ? (uint32_t)value : 0;
}

static int describe(struct verbs_device *device, struct verbs_device_info *info_out) {
  struct ibv_device_attr attributes;
  int result = verbs_result(ibv_query_device(device->context, &attributes));
  if (result < 0) return result;
  /* Some devices take fewer segments for a READ than for other requests. */
  uint32_t segments = positive(attributes.max_sge), read_segments = positive(attributes.max_sge_rd);
  if (read_segments > 0 && read_segments < segments) segments = read_segments;
  *info_out = (struct verbs_device_info){
      .device = device,
      .max_memory_bytes = attributes.max_mr_size,
      .max_queue_entries = positive(attributes.max_cqe),
      .max_requests = positive(attributes.max_qp_wr),
      .max_segments = segments,
      .read_depth = positive(attributes.max_qp_init_rd_atom),
      .serve_depth = positive(attributes.max_qp_rd_atom),
      .ports = attributes.phys_port_cnt,
      .numa_node = find_numa_node(device->context->device),
  };
  snprintf(info_out->name, sizeof info_out->name, "%s",
           ibv_get_device_name(device->context->device));
  return 0;
}

/* Under the mutex. */
static int discover(void) {
  int found = 0;
  errno = 0;
  struct ibv_context **contexts = rdma_get_devices(&found);
  if (contexts == NULL) return explain_absence(errno);
  uint32_t count = 0;
  for (int i = 0; i < found && count < VERBS_DEVICES_MAX; i++) {
    struct verbs_device *device = &table.devices[count];
    device->context = contexts[i];
    if (verbs_set_descriptor_flags(contexts[i]->async_fd) < 0) continue;
    if (describe(device, &table.infos[count]) == 0) count++;
  }
  if (count == 0) {
    rdma_free_devices(contexts);
    return explain_absence(0);
  }
  table.contexts = contexts;
  table.count = count;
  return 0;
}

int verbs_devices(struct verbs_device_info *devices_out, uint32_t capacity, uint32_t *count_out) {
  pthread_mutex_lock(&table.mutex);
  int result = table.count > 0 ? 0 : discover();
  uint32_t count = table.count;
  pthread_mutex_unlock(&table.mutex);
  if (result < 0) return result;
  uint32_t copied = count < capacity ? count : capacity;
  if (copied > 0) memcpy(devices_out, table.infos, copied * sizeof *devices_out);
  *count_out = count;
  return 0;
}

struct verbs_device *verbs_device_of(const struct ibv_context *context) {
  pthread_mutex_lock(&table.mutex);
  uint32_t count = table.count;
  pthread_mutex_unlock(&table.mutex);
  for (uint32_t i = 0; i < count; i++)
    if (table.devices[i].context == context) return &table.devices[i];
  return NULL;
}
