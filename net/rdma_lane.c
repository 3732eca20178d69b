/* SPDX-License-Identifier: Apache-2.0 */
#include "net/rdma_lane_internal.h"

#include "core/log.h"
#include "net/address.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS 1000000ull
/* Regions become ready within milliseconds to seconds: asked again so often. */
#define PLACEMENT_PAUSE_NS (20 * MS_NS)

static void rail_connected(struct rdma_rail *rail);
static void rail_completed(struct rdma_rail *rail, uint32_t count);
static void rail_ended(struct rdma_rail *rail, const struct sprout_error *error);
static bool connect_rail(struct rdma_lane *lane, uint32_t index);

static const struct rdma_rail_listener rail_listener = {
    .connected = rail_connected, .completed = rail_completed, .ended = rail_ended};

static struct lane_rail *entry_of(struct rdma_rail *rail) {
  return container_of(rail, struct lane_rail, rail);
}

/* --- failing and stopping --- */

static void leave_landing(struct rdma_lane *lane) {
  if (lane->joined) rdma_landing_leave(lane->options.landing, &lane->landing_user);
  lane->joined = false;
}

static void end_rails(struct rdma_lane *lane) {
  reactor_timer_stop(lane->reactor, &lane->placement_timer);
  for (uint32_t i = 0; i < lane->rail_count; i++)
    if (lane->rails[i].used) rdma_rail_end(&lane->rails[i].rail);
}

/* Everything that was on its way has ended. */
static void go_on_ending(struct rdma_lane *lane) {
  if (lane->open_rails > 0) return;
  reactor_defer(lane->reactor, &lane->later);
}

void lane_fail(struct rdma_lane *lane, const struct sprout_error *error) {
  if (lane->state == LANE_IDLE || lane->state >= LANE_FAILING) return;
  lane->error = *error;
  lane->state = LANE_FAILING;
  end_rails(lane);
  go_on_ending(lane);
}

static void clear_life(struct rdma_lane *lane) {
  for (uint32_t i = 0; i < lane->rail_count; i++) {
    assert(list_empty(&lane->rails[i].posted) && list_empty(&lane->rails[i].unfenced));
    rdma_rail_destroy(&lane->rails[i].rail);
    lane->rails[i].used = false;
    lane->rails[i].attempts = 0;
  }
  lane_return_reads(lane);
  rdma_map_clear(&lane->map);
  leave_landing(lane);
}

static void tell(struct deferred *deferred) {
  struct rdma_lane *lane = container_of(deferred, struct rdma_lane, later);
  if (lane->open_rails > 0) return;
  if (lane->state == LANE_FAILING) {
    clear_life(lane);
    lane->state = LANE_FAILED;
    lane->base.listener->failed(&lane->base, &lane->error);
  } else if (lane->state == LANE_STOPPING) {
    clear_life(lane);
    lane->state = LANE_IDLE;
    lane->base.listener->stopped(&lane->base);
  }
}

static void stop(struct lane *base) {
  struct rdma_lane *lane = rdma_lane_of(base);
  assert(lane->state != LANE_IDLE && lane->state != LANE_STOPPING);
  lane->state = LANE_STOPPING;
  end_rails(lane);
  go_on_ending(lane);
}

/* --- becoming ready --- */

/* Registering large memory takes seconds, in which a read that waits for it is no stalled one. */
static void show_life(struct rdma_lane *lane) {
  struct list_node *node, *next;
  list_for_each_safe (node, next, &lane->queue) {
    struct source_read *read = container_of(node, struct lane_read, node)->read;
    read->landed(read, read->iov[0].iov_base, 0);
  }
}

static bool any_connected(const struct rdma_lane *lane) {
  for (uint32_t i = 0; i < lane->rail_count; i++)
    if (lane->rails[i].used && lane->rails[i].rail.state == RDMA_RAIL_READY) return true;
  return false;
}

static void ask_placement(struct rdma_lane *lane) {
  if (lane->asking) return;
  lane->asking = true;
  lane->options.want_placement(lane->options.context, lane->map.next);
}

static void placement_due(struct timer *timer) {
  ask_placement(container_of(timer, struct rdma_lane, placement_timer));
}

static void become_ready(struct rdma_lane *lane) {
  if (lane->state != LANE_CONNECTING || lane->map.objects == NULL || !any_connected(lane)) return;
  lane->state = LANE_READY;
  lane->base.listener->ready(&lane->base);
}

static void pause_placement(struct rdma_lane *lane) {
  reactor_timer_start(lane->reactor, &lane->placement_timer,
                      reactor_now(lane->reactor) + PLACEMENT_PAUSE_NS);
}

/* Bytes that never change have no fence that would tell later. */
static SPROUT_MUST_CHECK enum sprout_status
check_generation(const struct rdma_lane *lane, uint64_t generation, struct sprout_error *error) {
  if (generation == lane->generation) return SPROUT_OK;
  return sprout_error_set(error, SPROUT_STALE, 0, NULL,
                          "its placement is of generation %llu, not %llu",
                          (unsigned long long)generation, (unsigned long long)lane->generation);
}

void rdma_lane_placement(struct lane *base, struct wire_placement *placement) {
  struct rdma_lane *lane = rdma_lane_of(base);
  struct sprout_error error;
  lane->asking = false;
  if (lane->state != LANE_CONNECTING && lane->state != LANE_READY) return;
  bool grew = placement->slice_count > 0;
  enum sprout_status status = check_generation(lane, placement->generation, &error);
  if (status == SPROUT_OK) status = rdma_map_add(&lane->map, lane->object_count, placement, &error);
  for (uint32_t i = 0; i < lane->rail_count && status == SPROUT_OK; i++)
    if (lane->rails[i].used && lane->rails[i].remote >= lane->map.rail_count)
      status = sprout_error_set(&error, SPROUT_PROTOCOL, 0, NULL,
                                "its placement has no keys for rail %u", lane->rails[i].remote);
  if (status != SPROUT_OK) {
    lane_fail(lane, &error);
    return;
  }
  if (!lane->map.whole) pause_placement(lane);
  if (grew) show_life(lane);
  become_ready(lane);
  lane_pump(lane);
}

void rdma_lane_no_placement(struct lane *base, const struct sprout_error *error) {
  struct rdma_lane *lane = rdma_lane_of(base);
  lane->asking = false;
  lane_fail(lane, error);
}

void rdma_lane_placement_later(struct lane *base) {
  struct rdma_lane *lane = rdma_lane_of(base);
  lane->asking = false;
  if (lane->state == LANE_CONNECTING || lane->state == LANE_READY) pause_placement(lane);
}

/* --- rails --- */

static void rail_connected(struct rdma_rail *rail) {
  struct rdma_lane *lane = entry_of(rail)->lane;
  entry_of(rail)->connected = true;
  if (lane->map.objects == NULL) ask_placement(lane);
  become_ready(lane);
  lane_pump(lane);
}

static void rail_completed(struct rdma_rail *rail, uint32_t count) {
  struct lane_rail *entry = entry_of(rail);
  lane_completed(entry, count);
  lane_pump(entry->lane);
}

/* The endpoint was not reached, so its nonce is still good; another device may lead there. */
static bool may_try_another(const struct lane_rail *entry, const struct sprout_error *error) {
  return !entry->connected && error->status == SPROUT_DISCONNECTED &&
         entry->attempts < entry->lane->options.selection->count;
}

static void rail_ended(struct rdma_rail *rail, const struct sprout_error *error) {
  struct lane_rail *entry = entry_of(rail);
  struct rdma_lane *lane = entry->lane;
  lane_reclaim(entry);
  lane->open_rails--;
  if (lane->state >= LANE_FAILING) {
    go_on_ending(lane);
    return;
  }
  if (may_try_another(entry, error) && connect_rail(lane, (uint32_t)(entry - lane->rails))) return;
  if (lane->rail_error.status == SPROUT_OK) lane->rail_error = *error;
  if (lane->open_rails == 0) {
    lane_fail(lane, &lane->rail_error);
    return;
  }
  log_write(LOG_WARNING, "rdma", "a rail is lost, %u go on: %s", lane->open_rails, error->message);
  lane_pump(lane);
}

static bool parse_peer(const struct wire_endpoint *endpoint, struct sockaddr_storage *peer_out) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)peer_out;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)peer_out;
  memset(peer_out, 0, sizeof(*peer_out));
  if (inet_pton(AF_INET, endpoint->address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(endpoint->port);
    return true;
  }
  if (inet_pton(AF_INET6, endpoint->address, &v6->sin6_addr) != 1) return false;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(endpoint->port);
  return true;
}

/* Bits in which two addresses of one family agree from the left. */
static uint32_t common_bits(const struct sockaddr_storage *a, const struct sockaddr_storage *b) {
  const unsigned char *x, *y;
  uint32_t bytes = 4, bits = 0;
  if (a->ss_family != b->ss_family) return 0;
  if (a->ss_family == AF_INET6) {
    x = ((const struct sockaddr_in6 *)a)->sin6_addr.s6_addr;
    y = ((const struct sockaddr_in6 *)b)->sin6_addr.s6_addr;
    bytes = 16;
  } else {
    x = (const unsigned char *)&((const struct sockaddr_in *)a)->sin_addr;
    y = (const unsigned char *)&((const struct sockaddr_in *)b)->sin_addr;
  }
  while (bits < 8 * bytes && ((x[bits / 8] ^ y[bits / 8]) & (0x80u >> bits % 8)) == 0) bits++;
  return bits;
}

/* As many devices as endpoints are paired in their order, which the user may choose; else an
 * endpoint is first tried from the device whose address is the most alike. */
static uint32_t first_local(const struct rdma_lane *lane, uint32_t index,
                            const struct sockaddr_storage *peer) {
  const struct rdma_selection *selection = lane->options.selection;
  /* By rail, not by place: rails whose port is down are left out of the list. */
  uint32_t best = lane->endpoints[index].rail % selection->count, best_bits = 0;
  if (selection->count == lane->endpoint_count) return best;
  for (uint32_t i = 0; i < selection->count; i++) {
    uint32_t local = (lane->endpoints[index].rail + i) % selection->count;
    uint32_t bits = common_bits(&selection->rails[local].port.address, peer);
    if (bits > best_bits) {
      best = local;
      best_bits = bits;
    }
  }
  return best;
}

/* Each endpoint is good for one connection. Called again, the next own device is tried. */
static bool connect_rail(struct rdma_lane *lane, uint32_t index) {
  const struct wire_endpoint *endpoint = &lane->endpoints[index];
  const struct rdma_selection *selection = lane->options.selection;
  struct lane_rail *entry = &lane->rails[index];
  struct sockaddr_storage peer;
  if (!parse_peer(endpoint, &peer)) return false;
  uint32_t local = (first_local(lane, index, &peer) + entry->attempts++) % selection->count;
  struct rdma_rail_options options = {.host = lane->options.host,
                                      .device = lane->options.devices[local],
                                      .local = selection->rails[local].port.address,
                                      .domain = rdma_landing_domain(lane->options.landing, local),
                                      .peer = peer,
                                      .requests = LANE_REQUESTS,
                                      .connect_timeout_ns = lane->options.connect_timeout_ns,
                                      .retries = lane->options.retries,
                                      .ack_timeout = lane->options.ack_timeout};
  if (options.device->failed) return false;
  memcpy(options.nonce, endpoint->nonce, sizeof(options.nonce));
  entry->remote = endpoint->rail;
  entry->local = local;
  entry->used = true;
  entry->connected = false;
  entry->outstanding_bytes = 0;
  entry->bytes_per_ns = (double)selection->rails[local].port.bits_per_second / 8e9;
  entry->rail = (struct rdma_rail){.listener = &rail_listener, .context = lane};
  lane->open_rails++;
  rdma_rail_connect(&entry->rail, &options);
  /* From now on: what is cut before this rail is ready may come to it later. */
  if (entry->rail.segments < lane->segments_max) lane->segments_max = entry->rail.segments;
  return true;
}

static void connect_rails(struct rdma_lane *lane) {
  struct sprout_error error;
  lane->state = LANE_CONNECTING;
  for (uint32_t i = 0; i < lane->endpoint_count; i++) (void)connect_rail(lane, i);
  if (lane->open_rails > 0) return;
  (void)sprout_error_set(&error, SPROUT_UNSUPPORTED, 0,
                         "Look at `rdma link` on this side, or use --transport tcp.",
                         "none of the seed's RDMA endpoints can be used from here");
  lane_fail(lane, &error);
}

static void landing_changed(struct rdma_landing_user *user) {
  struct rdma_lane *lane = container_of(user, struct rdma_lane, landing_user);
  const struct sprout_error *error = rdma_landing_error(lane->options.landing);
  if (error != NULL)
    lane_fail(lane, error);
  else if (lane->state == LANE_OPENING && rdma_landing_opened(lane->options.landing))
    connect_rails(lane);
  if (lane->state != LANE_READY) return;
  show_life(lane);
  lane_pump(lane);
}

/* --- ops --- */

static void start(struct lane *base, const struct lane_start *start) {
  struct rdma_lane *lane = rdma_lane_of(base);
  assert(lane->state == LANE_IDLE && list_empty(&base->returned));
  lane->state = LANE_OPENING;
  lane->object_count = start->object_count;
  lane->generation = start->generation;
  lane->window = start->opened->grant.window;
  lane->endpoint_count = start->opened->endpoint_count;
  memcpy(lane->endpoints, start->opened->endpoints, sizeof(lane->endpoints));
  lane->rail_count = lane->endpoint_count;
  lane->segments_max = RDMA_SEGMENTS_MAX;
  lane->rail_error = (struct sprout_error){.status = SPROUT_OK};
  lane->asking = false;
  lane->inflight_bytes = lane->peak_bytes = 0;
  base->landed_bytes = 0;
  lane->joined = true;
  rdma_landing_join(lane->options.landing, &lane->landing_user);
}

static void post(struct lane *base, struct source_read *read) {
  struct rdma_lane *lane = rdma_lane_of(base);
  read->landed_bytes = 0;
  struct list_node *node = lane->state < LANE_FAILING ? list_take(&lane->free_reads) : NULL;
  if (node == NULL) { /* given back with the others */
    list_append(&base->returned, &read->node);
    return;
  }
  struct lane_read *entry = container_of(node, struct lane_read, node);
  entry->read = read;
  entry->cursor = (struct rdma_cursor){.range = 0};
  entry->number = lane->numbered++;
  list_append(&lane->queue, &entry->node);
}

static void flush(struct lane *base) {
  struct rdma_lane *lane = rdma_lane_of(base);
  lane_pump(lane);
}

static void grant(struct lane *base, const struct window_limits *window, uint64_t post_until_ns) {
  struct rdma_lane *lane = rdma_lane_of(base);
  lane->window = *window;
  lane->post_until_ns = post_until_ns;
  lane_pump(lane);
}

uint64_t rdma_lane_take_peak(struct lane *base) {
  struct rdma_lane *lane = rdma_lane_of(base);
  uint64_t peak_bytes = lane->peak_bytes;
  lane->peak_bytes = lane->inflight_bytes;
  return peak_bytes;
}

uint32_t rdma_lane_rails(const struct lane *base) {
  const struct rdma_lane *lane = container_of(base, const struct rdma_lane, base);
  uint32_t count = 0;
  for (uint32_t i = 0; i < lane->rail_count; i++)
    if (lane->rails[i].used && lane->rails[i].rail.state == RDMA_RAIL_READY) count++;
  return count;
}

/* --- making --- */

static void destroy(struct lane *base) {
  struct rdma_lane *lane = rdma_lane_of(base);
  assert(lane->state == LANE_IDLE);
  reactor_timer_stop(lane->reactor, &lane->placement_timer);
  reactor_defer_cancel(lane->reactor, &lane->later);
  rdma_map_clear(&lane->map);
  free(lane->pieces);
  free(lane->requests);
  free(lane);
}

static bool allocate(struct rdma_lane *lane) {
  /* Pieces: as many as all rails can have outstanding, their fences, and those that wait for a
   * rail. */
  uint32_t rails = lane->options.selection->count > 1 ? RDMA_RAILS_MAX : 2;
  lane->piece_count = rails * (LANE_REQUESTS + LANE_FENCES) + LANE_REQUESTS;
  lane->pieces = calloc(lane->piece_count, sizeof(*lane->pieces));
  lane->requests = calloc(LANE_REQUESTS, sizeof(*lane->requests));
  if (lane->pieces == NULL || lane->requests == NULL) return false;
  for (uint32_t i = 0; i < lane->piece_count; i++) {
    list_init(&lane->pieces[i].of_read);
    list_append(i < rails * LANE_FENCES ? &lane->free_fences : &lane->free_pieces,
                &lane->pieces[i].of_rail);
  }
  for (uint32_t i = 0; i < LANE_READS; i++) {
    list_init(&lane->reads[i].pieces);
    list_append(&lane->free_reads, &lane->reads[i].node);
  }
  return true;
}

static bool take_words(struct rdma_lane *lane) {
  uint64_t *words = rdma_landing_words(lane->options.landing, RDMA_RAILS_MAX * LANE_FENCES);
  for (uint32_t i = 0; i < RDMA_RAILS_MAX && words != NULL; i++) {
    struct lane_rail *rail = &lane->rails[i];
    rail->lane = lane;
    rail->words = words + (size_t)i * LANE_FENCES;
    list_init(&rail->posted);
    list_init(&rail->unfenced);
  }
  return words != NULL;
}

enum sprout_status rdma_lane_create(const struct rdma_lane_options *options,
                                    struct lane **lane_out) {
  static const struct lane_ops ops = {.start = start,
                                      .post = post,
                                      .flush = flush,
                                      .grant = grant,
                                      .stop = stop,
                                      .destroy = destroy};
  struct rdma_lane *lane = calloc(1, sizeof(*lane));
  if (lane == NULL) return SPROUT_NO_MEMORY;
  lane->base = (struct lane){.ops = &ops, .transport = "rdma", .ordered = false};
  lane->options = *options;
  lane->reactor = rdma_host_reactor(options->host);
  lane->later.run = tell;
  lane->placement_timer.fired = placement_due;
  lane->landing_user.changed = landing_changed;
  struct list_node *lists[] = {&lane->base.returned, &lane->free_reads,  &lane->queue,
                               &lane->flying,        &lane->free_pieces, &lane->free_fences,
                               &lane->retry};
  for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) list_init(lists[i]);
  if (!allocate(lane) || !take_words(lane)) {
    destroy(&lane->base);
    return SPROUT_NO_MEMORY;
  }
  *lane_out = &lane->base;
  return SPROUT_OK;
}
