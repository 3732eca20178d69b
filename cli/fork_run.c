/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads: the service's, on which the callbacks run and which must not block, and this one.
 * The callbacks leave a snapshot under the lock and knock at an eventfd.
 */
#include "cli/fork_run.h"

#include "cli/signals.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct run {
  struct reporter *reporter;
  void *context; /* the command's */
  struct signals signals;
  int event_fd;
  int signal;

  pthread_mutex_t lock; /* the rest is shared */
  struct progress_snapshot snapshot;
  bool news, finished;
};

void *fork_run_context(void *callback_context) {
  const struct run *run = callback_context;
  return run->context;
}

/* --- on the service's thread --- */

static void knock(struct run *run) {
  /* Cannot fail: the counter is far from full, and is emptied on each wake-up. */
  ssize_t written = write(run->event_fd, &(uint64_t){1}, sizeof(uint64_t));
  (void)written;
}

static void on_progress(void *context, const struct sprout_fork_progress *progress) {
  struct run *run = context;
  pthread_mutex_lock(&run->lock);
  progress_snapshot_take(&run->snapshot, progress);
  run->news = true;
  pthread_mutex_unlock(&run->lock);
  knock(run);
}

static void on_finished(void *context, const struct sprout_fork_result *result) {
  struct run *run = context;
  pthread_mutex_lock(&run->lock);
  progress_snapshot_take(&run->snapshot, &result->progress);
  run->finished = true;
  pthread_mutex_unlock(&run->lock);
  knock(run);
}

/* --- on the main thread --- */

static void stop_fork(struct run *run, struct sprout_fork *fork, int number) {
  if (number == 0 || run->signal != 0) return;
  run->signal = number;
  /* Before cancelling: whatever hangs then, the next signal ends it. */
  signals_restore(&run->signals);
  reporter_note(run->reporter, "%s: stopping; again to end at once", run->reporter->verb);
  sprout_fork_cancel(fork);
}

/* Shows what is new; false once the fork has finished. */
static bool show_news(struct run *run, struct progress_snapshot *scratch) {
  pthread_mutex_lock(&run->lock);
  bool finished = run->finished, news = run->news;
  run->news = false;
  *scratch = run->snapshot;
  pthread_mutex_unlock(&run->lock);
  if (news && !finished) reporter_update(run->reporter, scratch);
  return !finished;
}

static void watch_fork(struct run *run, struct sprout_fork *fork,
                       struct progress_snapshot *scratch) {
  struct pollfd fds[] = {{.fd = run->event_fd, .events = POLLIN},
                         {.fd = run->signals.fd, .events = POLLIN}};
  while (show_news(run, scratch)) {
    if (poll(fds, 2, -1) < 0) continue; /* EINTR */
    uint64_t count;
    ssize_t length = fds[0].revents != 0 ? read(run->event_fd, &count, sizeof(count)) : 0;
    (void)length; /* the snapshot says what happened, not the count */
    if (fds[1].revents != 0) stop_fork(run, fork, signals_take(&run->signals));
  }
}

/* A result for a fork that could not begin. */
static void fail_before(struct sprout_fork_result *result, const struct sprout_error *error) {
  *result = (struct sprout_fork_result){.status = error->status, .error = *error};
}

static void end_run(struct run *run, const struct sprout_fork_result *result,
                    void (*ended)(void *context, const struct fork_ending *ending),
                    struct fork_ending *ending) {
  int code = sprout_status_info_of(result->status)->exit_code;
  if (result->status == SPROUT_CANCELLED && run->signal != 0) code = 128 + run->signal;
  *ending = (struct fork_ending){
      .result = result, .last = &run->snapshot, .signal = run->signal, .exit_code = code};
  reporter_end(run->reporter);
  ended(run->context, ending);
}

/* From the service to the end; the descriptors and the signals are there. */
static int run_service(struct run *run, const struct sprout_fork_options *options,
                       void (*ended)(void *context, const struct fork_ending *ending)) {
  static struct progress_snapshot scratch; /* large; there is one main thread */
  struct sprout_service *service = NULL;
  struct sprout_fork *fork = NULL;
  struct sprout_fork_result early;
  struct sprout_error error = {.status = SPROUT_OK};
  struct fork_ending ending;
  enum sprout_status status = sprout_probe(&error);
  if (status == SPROUT_OK) status = sprout_service_create(NULL, &service, &error);
  if (status == SPROUT_OK) status = sprout_service_start(service, &error);
  if (status == SPROUT_OK) status = sprout_fork_create(service, options, &fork, &error);
  if (status == SPROUT_OK) {
    watch_fork(run, fork, &scratch);
    end_run(run, sprout_fork_wait(fork), ended, &ending);
  } else {
    fail_before(&early, &error);
    end_run(run, &early, ended, &ending);
  }
  sprout_fork_destroy(fork);
  sprout_service_destroy(service);
  return ending.exit_code;
}

int fork_run(struct sprout_fork_options *options, struct reporter *reporter,
             void (*ended)(void *context, const struct fork_ending *ending), void *context) {
  static struct run run; /* large; there is one fork in the program */
  struct sprout_error error = {.status = SPROUT_OK};
  struct sprout_fork_result early;
  struct fork_ending ending;
  run = (struct run){.reporter = reporter,
                     .context = context,
                     .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                     .lock = PTHREAD_MUTEX_INITIALIZER};
  options->progress = on_progress;
  options->finished = on_finished;
  options->context = &run;
  options->progress_interval_ns = progress_interval_ns(reporter->mode);
  enum sprout_status status = SPROUT_OK;
  if (run.event_fd < 0)
    status = sprout_error_set(&error, SPROUT_LIMIT, errno, NULL, "cannot create an eventfd: %s",
                              strerror(errno));
  if (status == SPROUT_OK) status = signals_open(&run.signals, false, &error);
  if (status != SPROUT_OK) {
    if (run.event_fd >= 0) (void)close(run.event_fd);
    fail_before(&early, &error);
    end_run(&run, &early, ended, &ending);
    return ending.exit_code;
  }
  int code = run_service(&run, options, ended);
  signals_close(&run.signals);
  (void)close(run.event_fd);
  return code;
}
