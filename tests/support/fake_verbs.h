/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMA devices of the test's own making: a verbs layer (net/rdma_verbs.h) inside the process. Both
 * ends of a connection are the test's: whatever connects finds whoever listens, READs copy memory
 * through keys that are checked as a device would, and all descriptors are real ones, so that the
 * code under test runs on a real reactor.
 *
 *   fake_verbs_init(2);                       two devices, "fake0" and "fake1", all well
 *   rdma_module_replace(fake_verbs());
 *   ... the code under test ...
 *   fake_verbs_end();                         nothing may be left open
 *
 * Time: nothing happens by itself later. By default a READ is done when it is posted and events of
 * the connection manager come at once. After fake_verbs_manual(true) posted READs stay outstanding
 * until fake_verbs_step and its kin run them, oldest first per link; a link in error flushes in
 * those same steps. What hangs, hangs until the test says otherwise.
 *
 * Trouble: every call of the layer can be made to fail (fake_verbs_fail) or to block
 * (fake_verbs_hold), and READs, completions, connections, ports and devices each have their own
 * faults below. A fault is armed for the n-th time from now, 1 being the next.
 *
 * Rules: what a caller must never do (a queue that overflows, memory released under an outstanding
 * READ, anything with a link after its end, the wrong order of destruction) says so and aborts.
 *
 * Memory: the fake takes none from malloc, so a test that lets malloc fail meets only its own code.
 * Threads: any, one lock. fake_verbs_init remembers its thread as the reactor's.
 */
#ifndef TESTS_SUPPORT_FAKE_VERBS_H
#define TESTS_SUPPORT_FAKE_VERBS_H

#include "net/rdma_verbs.h"

#define FAKE_DEVICES_MAX 40u
#define FAKE_PORTS_MAX 2u
#define FAKE_GIDS_MAX 4u
#define FAKE_SEGMENTS_MAX 32u
/* How long private data is on arrival, zeros included. */
#define FAKE_PRIVATE_ACCEPT_BYTES 196u
#define FAKE_PRIVATE_REJECT_BYTES 148u
/* native of VERBS_EVENT_REJECTED: nobody listens; the listener said no. */
#define FAKE_REJECTED_NOBODY 8
#define FAKE_REJECTED_BY_LISTENER 28

/* Calls that can fail or block. */
enum fake_call {
  FAKE_DEVICES,
  FAKE_PORT,
  FAKE_DOMAIN_OPEN,
  FAKE_DOMAIN_CLOSE, /* a failing close or release closes all the same */
  FAKE_MEMORY_REGISTER,
  FAKE_MEMORY_RELEASE,
  FAKE_CHANNEL_OPEN,
  FAKE_QUEUE_OPEN,
  FAKE_QUEUE_CLOSE,
  FAKE_QUEUE_ARM,
  FAKE_QUEUE_POLL,
  FAKE_EVENTS_OPEN,
  FAKE_LINK_OPEN,
  FAKE_LINK_LISTEN,
  FAKE_LINK_RESOLVE_ADDRESS,
  FAKE_LINK_RESOLVE_ROUTE,
  FAKE_LINK_MAKE_PAIR,
  FAKE_LINK_CONNECT,
  FAKE_LINK_ACCEPT,
  FAKE_LINK_REJECT,
  FAKE_LINK_DISCONNECT,
  FAKE_LINK_POST, /* counts reads, not calls */
  FAKE_LINK_END,  /* cannot fail */
  FAKE_CALLS
};

/* --- the layer ---------------------------------------------------------------------------------
 */

/* So many devices with one active port each, address 127.0.7.1 and up, limits as below. */
void fake_verbs_init(uint32_t devices);
/* Everything that was opened is closed again, else it says what is not, and aborts. */
void fake_verbs_end(void);
const struct verbs *fake_verbs(void);

/* Objects that exist. */
struct fake_counts {
  uint32_t domains, memories, channels, queues, events, links, pairs;
};
struct fake_counts fake_verbs_counts(void);
/* Calls so far, failed ones included. */
uint64_t fake_verbs_calls(enum fake_call call);
/* Of them, calls that may block and were made on the reactor's thread, of all kinds. */
uint64_t fake_verbs_blocking_here(void);
/* The test's own calls are not counted there, and not held. */
void fake_verbs_excuse(bool excused);

/* The n-th call of this kind from now fails with this errno (positive). */
void fake_verbs_fail(enum fake_call call, uint64_t nth, int error);
/* All of them from now on; 0: none. */
void fake_verbs_fail_all(enum fake_call call, int error);

/* Calls of this kind block until they are let. Not on the reactor's thread. */
void fake_verbs_hold(enum fake_call call);
/* The same, but they block when they have had their effect and are about to return. */
void fake_verbs_hold_return(enum fake_call call);
/* `count` of them, waiting now or coming later, go on. */
void fake_verbs_let(enum fake_call call, uint32_t count);
void fake_verbs_unhold(enum fake_call call);
/* Waits (10 s at most, then it aborts) until so many calls are blocked. */
void fake_verbs_wait_held(enum fake_call call, uint32_t count);
/* Most calls of this kind that ran at one time. */
uint32_t fake_verbs_parallel_max(enum fake_call call);

/* --- devices -----------------------------------------------------------------------------------
 */

struct fake_port {
  bool active, infiniband;
  uint32_t mtu_bytes;
  uint64_t bits_per_second;
  const char *gids[FAKE_GIDS_MAX]; /* IP address of each; NULL: none */
  const char *interface;
};

/* Change it before the code under test looks. */
struct fake_device {
  char name[VERBS_NAME_BYTES];
  uint64_t max_memory_bytes;  /* 1 GiB */
  uint32_t max_queue_entries; /* 4096 */
  uint32_t max_requests;      /* 1024 */
  uint32_t max_segments;      /* 16 */
  uint32_t read_depth;        /* 16 */
  uint32_t serve_depth;       /* 16 */
  uint32_t ports;             /* 1 */
  int numa_node;              /* -1 */
  struct fake_port port[FAKE_PORTS_MAX];
};

struct fake_device *fake_verbs_device(uint32_t index);
/* Raises an event on the device's descriptor. */
void fake_device_async(uint32_t index, enum verbs_async_kind kind, uint32_t port);
/* The port goes down or up: the event, and no READ is done over this device while it is down. */
void fake_device_port(uint32_t index, uint32_t port, bool up);
/* The device is pulled out under its open context: a fatal event, VERBS_EVENT_REMOVED for each of
 * its links, all queue pairs in error; whatever would make something new fails with EIO. */
void fake_device_remove(uint32_t index);

/* --- READs -------------------------------------------------------------------------------------
 */

/* READs wait for steps, or are done when posted (the rest of them at once). */
void fake_verbs_manual(bool manual);
/* Runs at most this many outstanding READs, one of each link in turn. How many it ran. */
uint32_t fake_verbs_step(uint32_t count);
/* Only of this device's links. */
uint32_t fake_device_step(uint32_t index, uint32_t count);
uint32_t fake_link_step(struct verbs_link *link, uint32_t count);
/* The next queue_arm comes too late for this many READs: they complete right before it. */
void fake_verbs_step_before_arm(uint32_t count);

/* The peer's bus answers the READs that are under way together in any order: the later ones see
 * memory before the oldest, unless they begin after all. They complete in order all the same. */
void fake_verbs_any_order(bool any);

/* The n-th READ that runs ends so, its link in error. Part of its bytes have landed unless the
 * outcome is VERBS_REMOTE_ACCESS or VERBS_LOCAL. */
void fake_verbs_fail_read(uint64_t nth, enum verbs_outcome outcome);
/* The n-th completion with an entry comes twice. */
void fake_verbs_duplicate(uint64_t nth);
/* Called while a link runs its next READ, before its bytes are copied. */
void fake_verbs_before_copy(void (*hook)(void *context), void *context);
/* What a queue holds of a link that ended: kept (as some devices do) or removed (the default). */
void fake_verbs_keep_completions(bool keep);

/* READs run, their entries stay out of the queue; false: all of them come now. */
void fake_link_hold_completions(struct verbs_link *link, bool hold);
/* The peer is dead: READs do not run. They are flushed after an error all the same. */
void fake_link_mute(struct verbs_link *link, bool mute);
/* Nor are they flushed. */
void fake_link_mute_flush(struct verbs_link *link, bool mute);
/* The bytes of all outstanding READs land though no completion says so: allowed, also of a link in
 * error, until link_end. */
void fake_link_land(struct verbs_link *link);
/* The queue pair breaks by itself: what is outstanding ends like this (the first) and flushed. */
void fake_link_break(struct verbs_link *link, enum verbs_outcome outcome);

/* What the fake sees of a link, or of all links of a device that ever were. */
struct fake_view {
  uint32_t requests, max_requests; /* READs posted that have not run */
  uint64_t bytes, max_bytes;
  uint32_t slots, max_slots; /* work requests whose completion, or a later one's, was not polled */
  uint64_t posted, done, done_bytes, failed; /* READs */
  uint64_t chains;                           /* calls of link_post */
  uint64_t signalled;                        /* READs posted so */
  uint32_t segments_max;                     /* of one READ */
};
struct fake_view fake_link_view(const struct verbs_link *link);
struct fake_view fake_device_view(uint32_t index);
void fake_verbs_reset_views(void); /* maxima and counters start again */

/* --- connections -------------------------------------------------------------------------------
 */

enum fake_side {
  FAKE_CONNECTING, /* was opened and connects or connected */
  FAKE_SERVING,    /* came with a request */
  FAKE_LISTENING
};
/* The links of this side on this device (FAKE_DEVICES_MAX: on any), not ended, oldest first. How
 * many there are. */
uint32_t fake_verbs_links(enum fake_side side, uint32_t device, struct verbs_link **links_out,
                          uint32_t capacity);
/* The other end, NULL without one. */
struct verbs_link *fake_link_peer(const struct verbs_link *link);

enum fake_stage { FAKE_STAGE_ADDRESS, FAKE_STAGE_ROUTE, FAKE_STAGE_CONNECT, FAKE_STAGES };
/* From now on this stage gets no answer (a request to connect does not reach the listener). */
void fake_verbs_hang(enum fake_stage stage, bool hang);
/* A link that waits for an answer gets VERBS_EVENT_UNREACHABLE, ETIMEDOUT. */
void fake_link_time_out(struct verbs_link *link);
/* The next link that resolves (or connects) is told that it cannot: VERBS_EVENT_UNREACHABLE with
 * -error. */
void fake_verbs_unreachable(enum fake_stage stage, int error);
/* The next request to connect is turned down with this private data. */
void fake_verbs_reject_next(const void *private_data, uint8_t private_bytes, int native);
/* The other end disconnects by itself: VERBS_EVENT_DISCONNECTED; READs get no answer any more. */
void fake_link_peer_disconnects(struct verbs_link *link);
/* The other end vanishes without a word. */
void fake_link_peer_vanishes(struct verbs_link *link);
/* Any event, as if it had come. */
void fake_link_event(struct verbs_link *link, enum verbs_event_kind kind, int native);
#endif
