/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All leases last equally long, so the list in order of heartbeats is in order of expiry, and every
 * step but numbering the queue takes constant time.
 */
#include "core/admission.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct admission {
  struct admission_options options;
  struct list_node queued, running, closed;
  struct list_node leases; /* of queued and running forks, the one that ends first in front */
  struct list_node *by_id, *by_nonce;
  uint32_t bucket_mask;
  uint32_t queued_count, running_count, closed_count;
  bool draining;
  bool positions_stale; /* somebody left the queue since it was numbered */
};

/* Ids and nonces are random already; the first bytes will do. */
static struct list_node *bucket_of(struct list_node *table, uint32_t mask, const uint8_t *key) {
  uint32_t hash;
  memcpy(&hash, key, sizeof(hash));
  return &table[hash & mask];
}

enum sprout_status admission_create(const struct admission_options *options,
                                    struct admission **admission_out) {
  assert(options->max_running > 0 && options->lease_ns > 0);
  struct admission *admission = calloc(1, sizeof(*admission));
  if (admission == NULL) return SPROUT_NO_MEMORY;
  uint32_t buckets = 64;
  while (buckets < 65536 && buckets < options->max_running + options->max_queued) buckets *= 2;
  admission->options = *options;
  admission->bucket_mask = buckets - 1;
  admission->by_id = calloc(buckets, sizeof(*admission->by_id));
  admission->by_nonce = calloc(buckets, sizeof(*admission->by_nonce));
  list_init(&admission->queued);
  list_init(&admission->running);
  list_init(&admission->closed);
  list_init(&admission->leases);
  if (admission->by_id == NULL || admission->by_nonce == NULL) {
    admission_destroy(admission);
    return SPROUT_NO_MEMORY;
  }
  for (uint32_t i = 0; i < buckets; i++) {
    list_init(&admission->by_id[i]);
    list_init(&admission->by_nonce[i]);
  }
  *admission_out = admission;
  return SPROUT_OK;
}

static void free_list(struct list_node *list) {
  struct list_node *node;
  while ((node = list_take(list)) != NULL) free(container_of(node, struct admission_fork, node));
}

void admission_destroy(struct admission *admission) {
  if (admission == NULL) return;
  free_list(&admission->queued);
  free_list(&admission->running);
  free_list(&admission->closed);
  free(admission->by_id);
  free(admission->by_nonce);
  free(admission);
}

static struct admission_fork *find_nonce(struct admission *admission, const uint8_t *nonce) {
  struct list_node *node, *next;
  struct list_node *bucket = bucket_of(admission->by_nonce, admission->bucket_mask, nonce);
  list_for_each_safe (node, next, bucket) {
    struct admission_fork *fork = container_of(node, struct admission_fork, nonce_node);
    if (memcmp(fork->nonce, nonce, ADMISSION_ID_BYTES) == 0) return fork;
  }
  return NULL;
}

struct admission_fork *admission_find(struct admission *admission,
                                      const uint8_t id[ADMISSION_ID_BYTES]) {
  struct list_node *node, *next;
  struct list_node *bucket = bucket_of(admission->by_id, admission->bucket_mask, id);
  list_for_each_safe (node, next, bucket) {
    struct admission_fork *fork = container_of(node, struct admission_fork, hash_node);
    if (memcmp(fork->id, id, ADMISSION_ID_BYTES) == 0) return fork;
  }
  return NULL;
}

static void start_running(struct admission *admission, struct admission_fork *fork,
                          uint64_t now_ns) {
  fork->state = ADMISSION_RUNNING;
  fork->started_ns = now_ns;
  list_append(&admission->running, &fork->node);
  admission->running_count++;
}

static void renew_lease(struct admission *admission, struct admission_fork *fork, uint64_t now_ns) {
  list_remove(&fork->lease_node);
  fork->lease_until_ns = now_ns + admission->options.lease_ns;
  list_append(&admission->leases, &fork->lease_node);
}

enum sprout_status admission_open(struct admission *admission, const uint8_t id[ADMISSION_ID_BYTES],
                                  const uint8_t nonce[ADMISSION_ID_BYTES], const char *peer,
                                  uint64_t now_ns, struct admission_fork **fork_out) {
  struct admission_fork *fork = find_nonce(admission, nonce);
  if (fork != NULL && now_ns < fork->lease_until_ns) {
    *fork_out = fork;
    return SPROUT_OK;
  }
  if (admission->draining) return SPROUT_UNAVAILABLE;
  bool runs =
      admission->running_count < admission->options.max_running && list_empty(&admission->queued);
  if (!runs && admission->queued_count >= admission->options.max_queued) return SPROUT_BUSY;
  fork = calloc(1, sizeof(*fork));
  if (fork == NULL) return SPROUT_NO_MEMORY;
  memcpy(fork->id, id, ADMISSION_ID_BYTES);
  memcpy(fork->nonce, nonce, ADMISSION_ID_BYTES);
  (void)snprintf(fork->peer, sizeof(fork->peer), "%s", peer);
  fork->opened_ns = now_ns;
  list_init(&fork->node);
  list_init(&fork->lease_node);
  list_append(bucket_of(admission->by_id, admission->bucket_mask, id), &fork->hash_node);
  list_append(bucket_of(admission->by_nonce, admission->bucket_mask, nonce), &fork->nonce_node);
  renew_lease(admission, fork, now_ns);
  if (runs) {
    start_running(admission, fork, now_ns);
  } else {
    fork->state = ADMISSION_QUEUED;
    list_append(&admission->queued, &fork->node);
    fork->position = ++admission->queued_count;
  }
  *fork_out = fork;
  return SPROUT_OK;
}

enum sprout_status admission_heartbeat(struct admission *admission, struct admission_fork *fork,
                                       uint64_t now_ns) {
  if (fork->state == ADMISSION_CLOSED || now_ns >= fork->lease_until_ns) return SPROUT_GONE;
  renew_lease(admission, fork, now_ns);
  return SPROUT_OK;
}

static void forget_oldest(struct admission *admission) {
  struct list_node *node = list_take(&admission->closed);
  struct admission_fork *fork = container_of(node, struct admission_fork, node);
  list_remove(&fork->hash_node);
  admission->closed_count--;
  free(fork);
}

/* Takes the fork out of the queue or its slot. */
static void leave(struct admission *admission, struct admission_fork *fork) {
  list_remove(&fork->node);
  if (fork->state == ADMISSION_RUNNING) {
    admission->running_count--;
  } else {
    assert(fork->state == ADMISSION_QUEUED);
    admission->queued_count--;
    admission->positions_stale = true;
  }
}

void admission_close(struct admission *admission, struct admission_fork *fork,
                     enum sprout_status result, const char *reason, uint64_t now_ns) {
  if (fork->state == ADMISSION_CLOSED) return;
  leave(admission, fork);
  list_remove(&fork->nonce_node);
  list_remove(&fork->lease_node);
  fork->state = ADMISSION_CLOSED;
  fork->ended_ns = now_ns;
  fork->result = result;
  (void)snprintf(fork->reason, sizeof(fork->reason), "%s", reason != NULL ? reason : "");
  list_append(&admission->closed, &fork->node);
  admission->closed_count++;
  /* The newest is kept even with keep_closed 0: the caller still looks at it. */
  while (admission->closed_count > 1 && admission->closed_count > admission->options.keep_closed)
    forget_oldest(admission);
}

struct admission_fork *admission_expire(struct admission *admission, uint64_t now_ns) {
  if (admission_next_expiry(admission) > now_ns) return NULL;
  struct admission_fork *fork =
      container_of(admission->leases.next, struct admission_fork, lease_node);
  fork->expired = true;
  admission_close(admission, fork, SPROUT_TIMEOUT, "lease expired", now_ns);
  return fork;
}

struct admission_fork *admission_promote(struct admission *admission, uint64_t now_ns) {
  if (list_empty(&admission->queued)) return NULL;
  if (admission->running_count >= admission->options.max_running) return NULL;
  struct admission_fork *fork = container_of(admission->queued.next, struct admission_fork, node);
  leave(admission, fork);
  start_running(admission, fork, now_ns);
  return fork;
}

uint32_t admission_position(struct admission *admission, const struct admission_fork *fork) {
  if (fork->state != ADMISSION_QUEUED) return 0;
  if (admission->positions_stale) {
    struct list_node *node, *next;
    uint32_t position = 0;
    list_for_each_safe (node, next, &admission->queued)
      container_of(node, struct admission_fork, node)->position = ++position;
    admission->positions_stale = false;
  }
  return fork->position;
}

uint32_t admission_running(const struct admission *admission) {
  return admission->running_count;
}

uint32_t admission_queued(const struct admission *admission) {
  return admission->queued_count;
}

uint64_t admission_next_expiry(const struct admission *admission) {
  if (list_empty(&admission->leases)) return UINT64_MAX;
  return container_of(admission->leases.next, struct admission_fork, lease_node)->lease_until_ns;
}

void admission_set_draining(struct admission *admission) {
  admission->draining = true;
}

/* Walks a list whose current node, and after a close older closed ones, may leave it. */
static void visit_list(struct list_node *list,
                       void (*visit)(struct admission_fork *fork, void *context), void *context) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, list)
    visit(container_of(node, struct admission_fork, node), context);
}

void admission_each(struct admission *admission,
                    void (*visit)(struct admission_fork *fork, void *context), void *context) {
  visit_list(&admission->running, visit, context);
  visit_list(&admission->queued, visit, context);
  visit_list(&admission->closed, visit, context);
}
