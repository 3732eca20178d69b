/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the RDMA lane.
 *
 *   rdma_lane.c         life: rails, placement, start, failure, stop
 *   rdma_lane_post.c    cutting, credits, choice of the rail, chains
 *   rdma_lane_land.c    completions: fences, order, landing
 */
#ifndef NET_RDMA_LANE_INTERNAL_H
#define NET_RDMA_LANE_INTERNAL_H

#include "net/rdma_cut.h"
#include "net/rdma_lane.h"
#include "net/rdma_rail.h"

#define LANE_READS 128u                   /* as many as an engine has */
#define LANE_REQUESTS 64u                 /* wanted per rail */
#define LANE_FENCES 16u                   /* per rail, in flight; a power of two */
#define LANE_PIECE_MAX SPROUT_CHUNK_BYTES /* a read never has more in one place */
#define LANE_PIECE_MIN (64u << 10)        /* a shorter one is slower */
/* The window is filled by chains of this part of it: fewer are too few to keep a rail busy while
 * one of them is being looked at, more only cost wake-ups. */
#define LANE_CHAINS 2u
/* With a window below this many forks share the seed, and fill each other's gaps: one chain. */
#define LANE_SHARED_WINDOW (2u << 20)

enum lane_state {
  LANE_IDLE,       /* waits for start */
  LANE_OPENING,    /* waits for the landing's domains */
  LANE_CONNECTING, /* waits for a rail, then for the placement */
  LANE_READY,
  LANE_FAILING, /* waits for every rail's end, then tells failed */
  LANE_FAILED,  /* waits for stop */
  LANE_STOPPING /* waits for every rail's end, then tells stopped */
};

struct lane_rail;

/* A read that was posted to the lane. */
struct lane_read {
  struct source_read *read;
  struct rdma_cursor cursor;
  struct list_node node;   /* `queue` while there is something to cut, else `flying` */
  struct list_node pieces; /* not landed yet, in the order of their bytes */
  uint64_t number;         /* order of posting */
};

/* One READ. Without a read it is a fence. */
struct lane_piece {
  struct lane_read *read;
  struct rdma_cut cut;
  struct list_node of_read; /* in read->pieces */
  struct list_node of_rail; /* rail->posted or ->unfenced; lane->retry; a free list */
  bool landed;              /* waits for earlier bytes of its read */
  uint32_t fence;           /* of a fence: which word */
};

struct lane_rail {
  struct rdma_rail rail;
  struct rdma_lane *lane;
  uint32_t remote;         /* index into a slice's keys */
  uint32_t local;          /* index into the landing's memories */
  uint32_t attempts;       /* own devices that were tried */
  bool connected;          /* in this life */
  bool used;               /* connected, or about to be, in this life */
  struct list_node posted; /* struct lane_piece, oldest first */
  struct list_node unfenced;
  uint64_t outstanding_bytes;
  uint64_t *words; /* LANE_FENCES */
  uint32_t fences; /* in flight */
  uint32_t next_fence;
  /* measured */
  uint64_t busy_since_ns, busy_bytes;
  double bytes_per_ns;
  /* the chain that is being made */
  uint32_t chain_count;
  uint64_t chain_bytes;
  struct lane_piece *chain[LANE_REQUESTS];
};

struct rdma_lane {
  struct lane base;
  struct rdma_lane_options options;
  struct reactor *reactor;
  enum lane_state state;
  uint32_t object_count;
  uint64_t generation;
  struct rdma_landing_user landing_user;
  bool joined;
  struct rdma_map map;
  struct lane_rail rails[RDMA_RAILS_MAX];
  uint32_t rail_count;
  uint32_t open_rails; /* connected or on the way, not ended yet */
  uint32_t segments_max;
  struct window_limits window;
  uint64_t post_until_ns;
  uint64_t inflight_bytes, peak_bytes;

  struct lane_read reads[LANE_READS];
  struct list_node free_reads, queue, flying;
  uint64_t numbered;
  struct lane_piece *pieces;
  uint32_t piece_count;
  struct list_node free_pieces;
  struct list_node free_fences; /* apart, so that reads never use up what makes them end */
  struct list_node retry;       /* pieces whose rail ended */
  struct verbs_read *requests;  /* LANE_REQUESTS: the chain as it is posted */

  struct timer placement_timer;
  bool asking;           /* for a placement */
  struct deferred later; /* failed, stopped, ready */
  struct sprout_error error, rail_error;
  struct wire_endpoint endpoints[WIRE_ENDPOINTS_MAX];
  uint32_t endpoint_count;
};

static inline struct rdma_lane *rdma_lane_of(struct lane *lane) {
  return container_of(lane, struct rdma_lane, base);
}

/* rdma_lane.c */
void lane_fail(struct rdma_lane *lane, const struct sprout_error *error);

/* rdma_lane_post.c */
/* Posts what credits allow. */
void lane_pump(struct rdma_lane *lane);

/* rdma_lane_land.c */
void lane_completed(struct lane_rail *rail, uint32_t count);
/* The rail has ended: its pieces wait for another one. */
void lane_reclaim(struct lane_rail *rail);
/* All rails have ended: what is left of the reads goes to base.returned. */
void lane_return_reads(struct rdma_lane *lane);
#endif
