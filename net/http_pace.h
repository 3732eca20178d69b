/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may send how much now: one byte rate for all, max-min fair among accounts with bytes waiting.
 *
 * An account is one fork, or all plain downloads together. A sender (a connection) waits in its
 * account until its turn; a round gives each waiting account its share, and the account divides it
 * among its senders. Rounds run once per reactor tick at most, so the reactor stays responsive; a
 * sender that used its turn up comes back through the ring (writable again). Without a rate limit
 * a round is as large as keeps a tick short. Nothing waits busily: in debt a timer wakes it.
 *
 * Thread: the reactor's.
 */
#ifndef NET_HTTP_PACE_H
#define NET_HTTP_PACE_H

#include "core/list.h"
#include "core/pacer.h"
#include "core/reactor.h"

struct http_pace;

/* Zero-initialise, then http_account_init. Freed only when no sender waits in it. */
struct http_account {
  struct list_node node;    /* in the pace while somebody waits */
  struct list_node senders; /* that wait for a turn */
  uint32_t sender_count;
  uint64_t sent_bytes;
};

/* Somebody with bytes to send. */
struct http_sender {
  struct list_node node;
  struct http_account *account; /* while it waits */
  uint64_t waiting_bytes;       /* set before http_pace_wait; a lower bound is enough */
  /* Its turn: sends at most budget_bytes and returns what it sent now. May wait again from inside.
   */
  uint64_t (*turn)(struct http_sender *sender, uint64_t budget_bytes);
};

void http_account_init(struct http_account *account);

/* rate: bytes per second, 0: no limit. */
SPROUT_MUST_CHECK enum sprout_status http_pace_create(struct reactor *reactor, uint64_t rate,
                                                      struct http_pace **pace_out);
/* Nobody may wait, and http_pace_stop has called back. NULL is allowed. */
void http_pace_destroy(struct http_pace *pace);
/* Ends timers and operations; `stopped` is called in a later step. */
void http_pace_stop(struct http_pace *pace, void (*stopped)(void *context), void *context);

void http_pace_wait(struct http_pace *pace, struct http_account *account,
                    struct http_sender *sender);
/* Harmless when it does not wait. */
void http_pace_leave(struct http_pace *pace, struct http_sender *sender);
/* Bytes that left outside of a turn (by the ring). */
void http_pace_spend(struct http_pace *pace, struct http_account *account, uint64_t bytes);

/* 0: no limit. */
void http_pace_set_rate(struct http_pace *pace, uint64_t rate);
uint64_t http_pace_sent_bytes(const struct http_pace *pace);
/* Time during which somebody waited for the rate alone. */
uint64_t http_pace_throttled_ns(const struct http_pace *pace);
uint64_t http_pace_rate(const struct http_pace *pace);
#endif
