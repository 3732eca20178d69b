/* SPDX-License-Identifier: Apache-2.0 */
/* Protection domains and registered memory. */
#include "net/verbs/private.h"

#include <infiniband/verbs.h>
#include <stdlib.h>

struct registered {
  struct verbs_memory head;
  struct ibv_mr *region;
};

int verbs_domain_open(struct verbs_device *device, struct verbs_domain **domain_out) {
  struct verbs_domain *domain = malloc(sizeof *domain);
  if (domain == NULL) return -ENOMEM;
  domain->pd = ibv_alloc_pd(device->context);
  if (domain->pd == NULL) {
    int result = verbs_failure();
    free(domain);
    return result;
  }
  *domain_out = domain;
  return 0;
}

int verbs_domain_close(struct verbs_domain *domain) {
  int result = verbs_result(ibv_dealloc_pd(domain->pd));
  if (result == 0) free(domain);
  return result;
}

/*
 * What peers read needs no right to write on this side, so that maps of read-only files serve too.
 * Where READs land their packets may be written in any order (the library drops the flag where the
 * device knows it not): the completion is still written last. What is served keeps the strict
 * order.
 */
static int access_of(const struct verbs_registration *what) {
  if (what->remote_read) return IBV_ACCESS_REMOTE_READ;
  return IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING;
}

int verbs_memory_register(struct verbs_domain *domain, const struct verbs_registration *what,
                          struct verbs_memory **memory_out) {
  struct registered *memory = malloc(sizeof *memory);
  if (memory == NULL) return -ENOMEM;
  errno = 0;
  memory->region =
      what->dmabuf_fd < 0
          ? ibv_reg_mr(domain->pd, what->address, what->length_bytes, access_of(what))
          : ibv_reg_dmabuf_mr(domain->pd, what->dmabuf_offset, what->length_bytes,
                              (uintptr_t)what->address, what->dmabuf_fd, access_of(what));
  if (memory->region == NULL) {
    int result = verbs_failure();
    free(memory);
    return result;
  }
  memory->head = (struct verbs_memory){memory->region->lkey, memory->region->rkey};
  *memory_out = &memory->head;
  return 0;
}

int verbs_memory_release(struct verbs_memory *memory) {
  struct registered *registered = (struct registered *)memory;
  int result = verbs_result(ibv_dereg_mr(registered->region));
  if (result == 0) free(registered);
  return result;
}
