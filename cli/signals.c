/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/signals.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define SETTLE_NS UINT64_C(500000000)

static void add_unless_ignored(sigset_t *set, int number) {
  struct sigaction action;
  if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(set, number);
}

enum sprout_status signals_open(struct signals *signals_out, bool hangup,
                                struct sprout_error *error) {
  struct signals signals = {.fd = -1, .settle_ns = SETTLE_NS};
  sigemptyset(&signals.set);
  add_unless_ignored(&signals.set, SIGINT);
  add_unless_ignored(&signals.set, SIGTERM);
  if (hangup) add_unless_ignored(&signals.set, SIGHUP);
  signals.fd = signalfd(-1, &signals.set, SFD_NONBLOCK | SFD_CLOEXEC);
  if (signals.fd < 0)
    return sprout_error_set(error, SPROUT_LIMIT, errno, NULL, "cannot watch for signals: %s",
                            strerror(errno));
  (void)pthread_sigmask(SIG_BLOCK, &signals.set, NULL);
  *signals_out = signals;
  return SPROUT_OK;
}

static uint64_t now_ns(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int signals_take(struct signals *signals) {
  struct signalfd_siginfo info;
  ssize_t length;
  do length = read(signals->fd, &info, sizeof(info));
  while (length < 0 && errno == EINTR);
  if (length != (ssize_t)sizeof(info)) return 0;
  if (signals->first_ns == 0) signals->first_ns = now_ns();
  return (int)info.ssi_signo;
}

/* Before this time a signal is still the first one; 0: there was none. */
static volatile uint64_t settled_ns;

static void end_at_once(int number) {
  if (now_ns() >= settled_ns) _exit(128 + number);
}

void signals_restore(struct signals *signals) {
  /* Not the default action: the first process of a container has none. */
  struct sigaction action = {.sa_handler = end_at_once, .sa_flags = SA_RESTART};
  settled_ns = signals->first_ns != 0 ? signals->first_ns + signals->settle_ns : 0;
  sigemptyset(&action.sa_mask);
  for (int number = 1; number < NSIG; number++)
    if (sigismember(&signals->set, number) == 1) (void)sigaction(number, &action, NULL);
  (void)pthread_sigmask(SIG_UNBLOCK, &signals->set, NULL);
}

void signals_close(struct signals *signals) {
  signals_restore(signals);
  (void)close(signals->fd);
  signals->fd = -1;
}
