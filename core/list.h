/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive doubly linked list. A node is in at most one list; an unlinked node points at itself.
 */
#ifndef CORE_LIST_H
#define CORE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
  struct list_node *next, *prev;
};

/* The struct of `type` whose member `member` is at `pointer`. */
#define container_of(pointer, type, member)                                                        \
  ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* Safe against removal of the current node only. */
#define list_for_each_safe(node, temporary, head)                                                  \
  for ((node) = (head)->next, (temporary) = (node)->next; (node) != (head);                        \
       (node) = (temporary), (temporary) = (node)->next)

static inline void list_init(struct list_node *head) {
  head->next = head->prev = head;
}
static inline bool list_empty(const struct list_node *head) {
  return head->next == head;
}
static inline bool list_linked(const struct list_node *node) {
  return node->next != node;
}

static inline void list_append(struct list_node *head, struct list_node *node) {
  node->prev = head->prev;
  node->next = head;
  head->prev->next = node;
  head->prev = node;
}

static inline void list_prepend(struct list_node *head, struct list_node *node) {
  list_append(head->next, node);
}

/* Unlinks; harmless on an unlinked node that was initialised. */
static inline void list_remove(struct list_node *node) {
  node->prev->next = node->next;
  node->next->prev = node->prev;
  list_init(node);
}

/* Takes the first node out, or NULL. */
static inline struct list_node *list_take(struct list_node *head) {
  struct list_node *node = head->next;
  if (node == head) return NULL;
  list_remove(node);
  return node;
}

/* Moves all nodes of `from` to the empty list `to`. */
static inline void list_move(struct list_node *to, struct list_node *from) {
  list_init(to);
  if (list_empty(from)) return;
  *to = *from;
  to->next->prev = to;
  to->prev->next = to;
  list_init(from);
}
#endif
