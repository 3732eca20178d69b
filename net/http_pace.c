/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounds: take the accounts in front of the line, divide what may be sent now, serve, put those who
 * still wait at the end of the line.
 */
#include "net/http_pace.h"

#include "core/share.h"

#include <assert.h>
#include <stdlib.h>

#define ROUND_ACCOUNTS_MAX 64u
#define ROUND_BYTES_LEAST (4u << 20)         /* one fork alone: fills any socket buffer */
#define ROUND_BYTES_PER_ACCOUNT (256u << 10) /* 64 forks: 16 MiB, a few ms */
#define TURN_BYTES_LEAST (64u << 10)         /* under a rate limit: no smaller sends than this */
#define BURST_BYTES_LEAST (256u << 10)

struct http_pace {
  struct reactor *reactor;
  struct pacer pacer;
  struct list_node waiting; /* accounts with senders */
  uint32_t waiting_count;
  struct deferred round;
  struct timer timer;   /* in debt */
  struct ring_op yield; /* the next round belongs to the next tick */
  struct deferred stopping;
  void (*stopped)(void *context);
  void *stopped_context;
  bool stopped_requested;
  bool in_round;
  uint64_t sent_bytes;
  uint64_t throttled_ns, throttled_since_ns; /* since: 0 when not */
};

static void run_round(struct deferred *deferred);
static void leave_debt(struct timer *timer);
static void go_on(struct ring_op *op);
static void finish_stop(struct deferred *deferred);

void http_account_init(struct http_account *account) {
  *account = (struct http_account){0};
  list_init(&account->node);
  list_init(&account->senders);
}

/* Large enough for big sends, small enough that the rate holds over tens of milliseconds. */
static uint64_t burst_of(uint64_t rate) {
  uint64_t burst = rate / 100;
  return burst < BURST_BYTES_LEAST ? BURST_BYTES_LEAST : burst;
}

enum sprout_status http_pace_create(struct reactor *reactor, uint64_t rate,
                                    struct http_pace **pace_out) {
  struct http_pace *pace = calloc(1, sizeof(*pace));
  if (pace == NULL) return SPROUT_NO_MEMORY;
  pace->reactor = reactor;
  pacer_init(&pace->pacer, rate, burst_of(rate), reactor_now(reactor));
  list_init(&pace->waiting);
  pace->round.run = run_round;
  pace->timer.fired = leave_debt;
  pace->yield.kind = RING_NOP;
  pace->yield.fd = -1;
  pace->yield.done = go_on;
  pace->stopping.run = finish_stop;
  *pace_out = pace;
  return SPROUT_OK;
}

void http_pace_destroy(struct http_pace *pace) {
  if (pace == NULL) return;
  assert(list_empty(&pace->waiting) && !pace->yield.in_flight && !timer_running(&pace->timer));
  free(pace);
}

static void finish_stop(struct deferred *deferred) {
  struct http_pace *pace = container_of(deferred, struct http_pace, stopping);
  if (pace->yield.in_flight) return; /* go_on comes back here */
  void (*stopped)(void *) = pace->stopped;
  pace->stopped = NULL;
  if (stopped != NULL) stopped(pace->stopped_context);
}

void http_pace_stop(struct http_pace *pace, void (*stopped)(void *context), void *context) {
  pace->stopped_requested = true;
  pace->stopped = stopped;
  pace->stopped_context = context;
  reactor_defer_cancel(pace->reactor, &pace->round);
  reactor_timer_stop(pace->reactor, &pace->timer);
  reactor_defer(pace->reactor, &pace->stopping);
}

/* --- waiting --- */

static void wake(struct http_pace *pace) {
  if (pace->stopped_requested || pace->in_round) return;
  if (pace->yield.in_flight || timer_running(&pace->timer)) return;
  reactor_defer(pace->reactor, &pace->round);
}

static void go_on(struct ring_op *op) {
  struct http_pace *pace = container_of(op, struct http_pace, yield);
  if (pace->stopped_requested)
    reactor_defer(pace->reactor, &pace->stopping);
  else
    wake(pace);
}

void http_pace_wait(struct http_pace *pace, struct http_account *account,
                    struct http_sender *sender) {
  assert(sender->account == NULL && sender->waiting_bytes > 0);
  sender->account = account;
  list_append(&account->senders, &sender->node);
  if (account->sender_count++ == 0) {
    list_append(&pace->waiting, &account->node);
    pace->waiting_count++;
  }
  wake(pace);
}

void http_pace_leave(struct http_pace *pace, struct http_sender *sender) {
  struct http_account *account = sender->account;
  if (account == NULL) return;
  sender->account = NULL;
  list_remove(&sender->node);
  if (--account->sender_count > 0) return;
  list_remove(&account->node);
  pace->waiting_count--;
}

void http_pace_spend(struct http_pace *pace, struct http_account *account, uint64_t bytes) {
  pacer_spend(&pace->pacer, bytes);
  account->sent_bytes += bytes;
  pace->sent_bytes += bytes;
}

/* --- rounds --- */

static uint64_t demand_of(const struct http_account *account, uint64_t most) {
  uint64_t demand = 0;
  struct list_node *node, *next;
  list_for_each_safe (node, next, &account->senders) {
    demand += container_of(node, struct http_sender, node)->waiting_bytes;
    if (demand >= most) return most;
  }
  return demand;
}

/* One turn for each sender that waited when the round began. */
static void serve(struct http_pace *pace, struct http_account *account, uint64_t grant) {
  uint32_t left = account->sender_count;
  while (left > 0 && grant > 0 && account->sender_count > 0) {
    struct http_sender *sender = container_of(account->senders.next, struct http_sender, node);
    uint64_t budget = grant / left;
    if (budget == 0) budget = grant;
    http_pace_leave(pace, sender);
    uint64_t sent = sender->turn(sender, budget);
    assert(sent <= budget);
    grant -= sent;
    left--;
    http_pace_spend(pace, account, sent);
  }
}

/* Divides `allowance` among the first accounts of the line. */
static void serve_round(struct http_pace *pace, uint64_t allowance) {
  struct http_account *accounts[ROUND_ACCOUNTS_MAX];
  struct share_member members[ROUND_ACCOUNTS_MAX];
  uint64_t count = allowance / TURN_BYTES_LEAST;
  if (count == 0) count = 1;
  if (count > ROUND_ACCOUNTS_MAX) count = ROUND_ACCOUNTS_MAX;
  if (count > pace->waiting_count) count = pace->waiting_count;
  uint64_t total = count * ROUND_BYTES_PER_ACCOUNT;
  if (total < ROUND_BYTES_LEAST) total = ROUND_BYTES_LEAST;
  if (total > allowance) total = allowance;
  for (uint64_t i = 0; i < count; i++) {
    struct list_node *node = list_take(&pace->waiting);
    list_append(&pace->waiting, node);
    accounts[i] = container_of(node, struct http_account, node);
    members[i].demand = demand_of(accounts[i], total);
  }
  share_divide(total, members, (uint32_t)count);
  /* A turn never frees an account: exchanges end in a later step. */
  for (uint64_t i = 0; i < count; i++) serve(pace, accounts[i], members[i].grant);
}

static void count_throttled(struct http_pace *pace, bool throttled, uint64_t now_ns) {
  if (pace->throttled_since_ns != 0) pace->throttled_ns += now_ns - pace->throttled_since_ns;
  pace->throttled_since_ns = throttled ? now_ns : 0;
}

static void run_round(struct deferred *deferred) {
  struct http_pace *pace = container_of(deferred, struct http_pace, round);
  if (list_empty(&pace->waiting)) return;
  uint64_t now_ns = reactor_now(pace->reactor);
  uint64_t ready_ns = pacer_ready_at(&pace->pacer, pace->pacer.burst_bytes / 4, now_ns);
  count_throttled(pace, ready_ns > now_ns, now_ns);
  if (ready_ns > now_ns) {
    reactor_timer_start(pace->reactor, &pace->timer, ready_ns);
    return;
  }
  pace->in_round = true;
  serve_round(pace, pacer_allowance(&pace->pacer, now_ns));
  pace->in_round = false;
  if (!list_empty(&pace->waiting) && !pace->yield.in_flight)
    reactor_submit(pace->reactor, &pace->yield);
}

static void leave_debt(struct timer *timer) {
  struct http_pace *pace = container_of(timer, struct http_pace, timer);
  count_throttled(pace, false, reactor_now(pace->reactor));
  wake(pace);
}

/* --- figures --- */

void http_pace_set_rate(struct http_pace *pace, uint64_t rate) {
  struct pacer *pacer = &pace->pacer;
  uint64_t now_ns = reactor_now(pace->reactor);
  if (rate == 0 || pacer->rate == 0) {
    pacer_init(pacer, rate, burst_of(rate), now_ns);
  } else {
    /* What was earned or is owed stays: a rate that changes often gives no new bursts. */
    pacer_set_rate(pacer, rate, now_ns);
    pacer->burst_bytes = burst_of(rate);
    if (pacer->tokens > (int64_t)pacer->burst_bytes) pacer->tokens = (int64_t)pacer->burst_bytes;
  }
  if (!timer_running(&pace->timer)) return;
  reactor_timer_stop(pace->reactor, &pace->timer); /* it was set for the rate before */
  leave_debt(&pace->timer);
}

uint64_t http_pace_sent_bytes(const struct http_pace *pace) {
  return pace->sent_bytes;
}

uint64_t http_pace_throttled_ns(const struct http_pace *pace) {
  uint64_t since = pace->throttled_since_ns, now = reactor_now(pace->reactor);
  return pace->throttled_ns + (since != 0 && now > since ? now - since : 0);
}

uint64_t http_pace_rate(const struct http_pace *pace) {
  return pace->pacer.rate;
}
