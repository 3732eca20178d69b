/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Status codes: the one way every function of sprout says how it ended.
 *
 * One table (sprout_status_info_of) maps each code to its name, HTTP status, retry class and
 * process exit code, so the wire, the retry logic and the command line can never disagree.
 */
#ifndef SPROUT_STATUS_H
#define SPROUT_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SPROUT_API __attribute__((visibility("default")))
#define SPROUT_MUST_CHECK __attribute__((warn_unused_result))
#define SPROUT_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#else
#define SPROUT_API
#define SPROUT_MUST_CHECK
#define SPROUT_PRINTF(fmt, first)
#endif

/* What happened. Numbers are stable: new codes are added at the end. */
enum sprout_status {
  SPROUT_OK = 0,
  SPROUT_INVALID,      /* an argument, option or request is malformed */
  SPROUT_DENIED,       /* token missing, wrong or expired */
  SPROUT_NOT_FOUND,    /* no such route, model, object or file */
  SPROUT_METHOD,       /* the route does not take this HTTP method */
  SPROUT_STALE,        /* the seed's bytes are of another generation than the one asked for */
  SPROUT_GONE,         /* the manifest or the lease no longer exists */
  SPROUT_TOO_EARLY,    /* the region is not ready yet */
  SPROUT_BUSY,         /* the queue of forks is full */
  SPROUT_OVER_WINDOW,  /* a read exceeds the credits that were granted */
  SPROUT_UNAVAILABLE,  /* not ready or draining */
  SPROUT_TOO_LARGE,    /* a request, header or message exceeds its stated maximum */
  SPROUT_RANGE,        /* the range lies outside the object or file */
  SPROUT_TIMEOUT,      /* a time limit of this side ran out */
  SPROUT_DISCONNECTED, /* the peer closed or reset the connection, or could not be reached */
  SPROUT_STALLED,      /* granted reads made no progress for stall_timeout */
  SPROUT_NO_SOURCE,    /* every source was dropped before the fork was whole */
  SPROUT_PROTOCOL,     /* the peer sent something the protocol does not allow */
  SPROUT_VERSION,      /* no common protocol version, or an unknown critical key */
  SPROUT_MISMATCH,     /* identity, layout, label or tensor differs from what was expected */
  SPROUT_CORRUPT,      /* bytes differ from their digest */
  SPROUT_BAD_MODEL,    /* a local file is not the model file that it claims to be */
  SPROUT_IO,           /* a local file or device failed */
  SPROUT_NO_SPACE,     /* the destination is full */
  SPROUT_EXISTS,       /* another file is in the way */
  SPROUT_NO_MEMORY,    /* an allocation failed */
  SPROUT_LIMIT,        /* a local limit (descriptors, locked memory, table size) is exhausted */
  SPROUT_UNSUPPORTED,  /* the kernel, the build or the machine lacks what is needed */
  SPROUT_CANCELLED,    /* the caller asked to stop */
  SPROUT_INTERNAL,     /* a bug in sprout */
  SPROUT_STATUS_COUNT
};

/* What a fork may do after a status: try again where, if anywhere. */
enum sprout_retry {
  SPROUT_RETRY_NONE,         /* success, nothing to retry */
  SPROUT_RETRY_SAME_SOURCE,  /* wait a little and ask the same source */
  SPROUT_RETRY_OTHER_SOURCE, /* drop this source, use another */
  SPROUT_RETRY_RESTART,      /* fetch the manifest again */
  SPROUT_RETRY_FATAL         /* retrying cannot help */
};

/* One row of the status table. */
struct sprout_status_info {
  const char *name;    /* stable, lower case, e.g. "over_window"; used on the wire */
  const char *summary; /* one sentence for people, without a full stop */
  int http_status;
  enum sprout_retry retry;
  int exit_code; /* of the sprout program: 0, 2, 3, 4, 5, 6, 75 or 130 */
};

/*
 * An error as a person needs it: what happened and what was expected (message), what to do (hint).
 * Plain data without pointers: copy it freely. `native` is errno or another library's code, 0 when
 * none.
 */
struct sprout_error {
  enum sprout_status status;
  int native;
  char message[512];
  char hint[256];
};

/* The row of `status`; never NULL: an unknown value gets the row of SPROUT_INTERNAL. */
SPROUT_API const struct sprout_status_info *sprout_status_info_of(enum sprout_status status);

/* The status whose `name` is this; SPROUT_INTERNAL when there is none. */
SPROUT_API enum sprout_status sprout_status_from_name(const char *name);

/*
 * Fills *error (may be NULL) and returns `status`, so that a failing function can end with
 * `return sprout_error_set(error, SPROUT_IO, errno, "Free some space.", "cannot write %s", path);`.
 * `hint` may be NULL. Texts longer than the fields are cut.
 */
SPROUT_API enum sprout_status sprout_error_set(struct sprout_error *error,
                                               enum sprout_status status, int native,
                                               const char *hint, const char *format, ...)
    SPROUT_PRINTF(5, 6);

#ifdef __cplusplus
}
#endif
#endif
