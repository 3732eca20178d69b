/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Somebody who speaks rdma_cm and verbs to a seed and keeps to none of its rules.
 *
 * rdma_intruder connect ADDR PORT HEX
 *     One connection with this private data.
 *
 * rdma_intruder replay ADDR PORT HEX
 *     The same data three times: the first connection stays open for the second, not for the third.
 *
 * rdma_intruder garbage ADDR PORT SEED
 *     Random private data of every length from 0 to 56.
 *
 * rdma_intruder steal ADDR PORT HEX REMOTE KEY LENGTH
 *     Connects with what is its own and reads once with a key that is not.
 *
 * rdma_intruder read ADDR PORT HEX REMOTE KEY LENGTH [--until FILE] [--after-close SECONDS]
 *     Reads round and round. Without --until up to the first error. With it, until SECONDS (3)
 *     after FILE appeared: it does not listen when it is disconnected, and sets its queue pair up
 *     again by hand, towards the seed's, after every error. late_bytes: what came more than 1 s
 *     after FILE was there, completed or not; late_attempts: READs that were posted then.
 *
 * HEX is the private data ("-": none), REMOTE and KEY are numbers as C writes them. One JSON object
 * per line: "connect" with outcome accepted, rejected, unreachable or timeout, the reason and the
 * private data that came back (without zeros at its end); "read" with what was read. Exit status 0:
 * it could do what it wanted to; 2: not.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <netdb.h>
#include <poll.h>
#include <rdma/rdma_cma.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE_BYTES ((size_t)1 << 20)
#define PRIVATE_MAX 56
#define PATTERN 0xA5
#define WAIT_MS 20000
#define LATE_NS (1000 * 1000000ull)

/* One connection that was tried. */
struct connection {
  struct rdma_event_channel *events;
  struct rdma_cm_id *id;
  struct ibv_pd *domain;
  struct ibv_cq *queue;
  struct ibv_mr *memory;
  unsigned char *bytes;
  bool accepted;
};

/* What is to be read, and what came of it. */
struct theft {
  uint64_t remote_address, length;
  uint32_t remote_key;
  const char *until; /* NULL: up to the first error */
  uint64_t after_close_ns, closed_ns;
  uint64_t reads, bytes, unfinished_bytes, late_bytes, attempts, late_attempts;
  uint64_t first_error_ns, disconnected_ns, last_read_ns; /* 0: not */
  int first_error;
};

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "rdma_intruder: ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, ": %s\n", strerror(errno));
  va_end(arguments);
  exit(2);
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t to_number(const char *text) {
  char *end = NULL;
  errno = 0;
  uint64_t number = strtoull(text, &end, 0);
  if (errno != 0 || end == text || *end != '\0') die("'%s' is no number", text);
  return number;
}

static uint8_t to_bytes(const char *hex, uint8_t bytes[PRIVATE_MAX]) {
  size_t length = strcmp(hex, "-") == 0 ? 0 : strlen(hex);
  if (length % 2 != 0 || length / 2 > PRIVATE_MAX) die("'%s' is not up to 56 bytes in hex", hex);
  for (size_t i = 0; i < length; i += 2) {
    char digits[3] = {hex[i], hex[i + 1], '\0'}, *end;
    bytes[i / 2] = (uint8_t)strtoul(digits, &end, 16);
    if (*end != '\0') die("'%s' is no hex", hex);
  }
  return (uint8_t)(length / 2);
}

/* ---- connecting ---- */

/* False after WAIT_MS without an event. */
static bool next_event(struct connection *connection, struct rdma_cm_event **event_out) {
  struct pollfd poller = {.fd = connection->events->fd, .events = POLLIN};
  if (poll(&poller, 1, WAIT_MS) <= 0) return false;
  if (rdma_get_cm_event(connection->events, event_out) != 0) die("rdma_get_cm_event");
  return true;
}

static void expect(struct connection *connection, enum rdma_cm_event_type wanted) {
  struct rdma_cm_event *event;
  if (!next_event(connection, &event)) die("no answer: %s", rdma_event_str(wanted));
  if (event->event != wanted) die("%s (%d)", rdma_event_str(event->event), event->status);
  rdma_ack_cm_event(event);
}

static void find_way(struct connection *connection, const char *host, const char *port) {
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
                  *address;
  if (getaddrinfo(host, port, &hints, &address) != 0) die("no address: %s %s", host, port);
  connection->events = rdma_create_event_channel();
  if (connection->events == NULL) die("rdma_create_event_channel");
  if (rdma_create_id(connection->events, &connection->id, NULL, RDMA_PS_TCP) != 0)
    die("rdma_create_id");
  if (rdma_resolve_addr(connection->id, NULL, address->ai_addr, 2000) != 0)
    die("rdma_resolve_addr");
  freeaddrinfo(address);
  expect(connection, RDMA_CM_EVENT_ADDR_RESOLVED);
  if (rdma_resolve_route(connection->id, 2000) != 0) die("rdma_resolve_route");
  expect(connection, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

static void make_pair(struct connection *connection) {
  struct ibv_context *context = connection->id->verbs;
  connection->domain = ibv_alloc_pd(context);
  connection->queue = ibv_create_cq(context, 16, NULL, NULL, 0);
  connection->bytes = aligned_alloc(4096, PIECE_BYTES);
  if (connection->domain == NULL || connection->queue == NULL || connection->bytes == NULL)
    die("no resources");
  memset(connection->bytes, PATTERN, PIECE_BYTES);
  connection->memory =
      ibv_reg_mr(connection->domain, connection->bytes, PIECE_BYTES, IBV_ACCESS_LOCAL_WRITE);
  if (connection->memory == NULL) die("ibv_reg_mr");
  struct ibv_qp_init_attr attributes = {.send_cq = connection->queue,
                                        .recv_cq = connection->queue,
                                        .qp_type = IBV_QPT_RC,
                                        .cap = {16, 1, 1, 1, 0}};
  if (rdma_create_qp(connection->id, connection->domain, &attributes) != 0) die("rdma_create_qp");
}

/* Waits for the seed's word, and prints it. */
static void hear_answer(struct connection *connection, unsigned length) {
  const char *outcome = "timeout";
  struct rdma_cm_event *event = NULL;
  if (next_event(connection, &event)) {
    connection->accepted = event->event == RDMA_CM_EVENT_ESTABLISHED;
    outcome = connection->accepted                     ? "accepted"
              : event->event == RDMA_CM_EVENT_REJECTED ? "rejected"
                                                       : "unreachable";
  }
  printf("{\"line\":\"connect\",\"length\":%u,\"outcome\":\"%s\",\"reason\":%d,\"private\":\"",
         length, outcome, event != NULL ? event->status : 0);
  if (event != NULL) {
    const struct rdma_conn_param *answer = &event->param.conn;
    const uint8_t *data = answer->private_data;
    unsigned count = data != NULL ? answer->private_data_len : 0;
    while (count > 0 && data[count - 1] == 0) count--; /* the transport's padding */
    for (unsigned i = 0; i < count; i++) printf("%02x", data[i]);
    rdma_ack_cm_event(event);
  }
  puts("\"}");
  fflush(stdout);
}

static struct connection connect_with(const char *host, const char *port, const void *data,
                                      uint8_t length) {
  struct connection connection = {0};
  find_way(&connection, host, port);
  make_pair(&connection);
  struct rdma_conn_param parameters = {.private_data = length > 0 ? data : NULL,
                                       .private_data_len = length,
                                       .initiator_depth = 16,
                                       .retry_count = 3};
  uint8_t timeout = 14; /* 67 ms: errors are to come soon, but not while the seed only waits */
  rdma_set_option(connection.id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
                  sizeof timeout);
  if (rdma_connect(connection.id, &parameters) != 0) die("rdma_connect");
  hear_answer(&connection, length);
  return connection;
}

static void leave(struct connection *connection) {
  if (connection->accepted) rdma_disconnect(connection->id);
  rdma_destroy_qp(connection->id);
  rdma_destroy_id(connection->id);
  ibv_dereg_mr(connection->memory);
  ibv_destroy_cq(connection->queue);
  ibv_dealloc_pd(connection->domain);
  rdma_destroy_event_channel(connection->events);
  free(connection->bytes);
}

/* ---- reading ---- */

/* From error back to work, by hand and without the connection manager. */
static bool resurrect(struct ibv_qp *pair, const struct ibv_qp_attr *of_life) {
  struct ibv_qp_attr attributes = {.qp_state = IBV_QPS_RESET};
  if (ibv_modify_qp(pair, &attributes, IBV_QP_STATE) != 0) return false;
  attributes = *of_life;
  attributes.qp_state = IBV_QPS_INIT;
  if (ibv_modify_qp(pair, &attributes,
                    IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) != 0)
    return false;
  attributes.qp_state = IBV_QPS_RTR;
  if (ibv_modify_qp(pair, &attributes,
                    IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                        IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) != 0)
    return false;
  attributes.qp_state = IBV_QPS_RTS;
  return ibv_modify_qp(pair, &attributes,
                       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                           IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC) == 0;
}

/* Looks at the file and at the connection manager's word for up to a millisecond (other processes
 * may share the processor), and does nothing about either. */
static void look_around(struct connection *connection, struct theft *theft) {
  uint64_t now = now_ns();
  if (theft->closed_ns == 0 && theft->until != NULL && access(theft->until, F_OK) == 0)
    theft->closed_ns = now;
  struct pollfd poller = {.fd = connection->events->fd, .events = POLLIN};
  struct rdma_cm_event *event;
  if (poll(&poller, 1, 1) <= 0 || rdma_get_cm_event(connection->events, &event) != 0) return;
  if (event->event == RDMA_CM_EVENT_DISCONNECTED) theft->disconnected_ns = now;
  rdma_ack_cm_event(event);
}

static bool is_late(const struct theft *theft) {
  return theft->closed_ns != 0 && now_ns() > theft->closed_ns + LATE_NS;
}

static void note_bytes(struct theft *theft, uint64_t bytes) {
  if (is_late(theft)) theft->late_bytes += bytes;
}

/* Bytes that landed although no completion says so; the memory is pattern again afterwards. */
static void count_unfinished(const struct connection *connection, struct theft *theft) {
  uint64_t landed = 0;
  for (size_t i = 0; i < PIECE_BYTES; i++) landed += connection->bytes[i] != PATTERN;
  memset(connection->bytes, PATTERN, PIECE_BYTES);
  theft->unfinished_bytes += landed;
  note_bytes(theft, landed);
}

/* One READ, waited for; its ibv_wc_status, or -1 when it was not taken or never ended. */
static int read_piece(struct connection *connection, struct theft *theft, uint64_t offset,
                      uint32_t length) {
  struct ibv_sge segment = {(uintptr_t)connection->bytes, length, connection->memory->lkey};
  struct ibv_send_wr request = {.sg_list = &segment,
                                .num_sge = 1,
                                .opcode = IBV_WR_RDMA_READ,
                                .send_flags = IBV_SEND_SIGNALED,
                                .wr.rdma = {theft->remote_address + offset, theft->remote_key}},
                     *refused;
  if (ibv_post_send(connection->id->qp, &request, &refused) != 0) return -1;
  theft->attempts++;
  theft->late_attempts += is_late(theft);
  struct ibv_wc completion;
  uint64_t deadline_ns = now_ns() + WAIT_MS * 1000000ull;
  int got;
  while ((got = ibv_poll_cq(connection->queue, 1, &completion)) == 0 && now_ns() < deadline_ns)
    look_around(connection, theft);
  if (got <= 0) return -1;
  if (completion.status != IBV_WC_SUCCESS) {
    count_unfinished(connection, theft);
    return (int)completion.status;
  }
  theft->reads++;
  theft->last_read_ns = now_ns();
  theft->bytes += length;
  note_bytes(theft, length);
  memset(connection->bytes, PATTERN, length);
  return 0;
}

static bool is_over(const struct theft *theft) {
  if (theft->until == NULL) return theft->first_error != 0;
  return theft->closed_ns != 0 && now_ns() > theft->closed_ns + theft->after_close_ns;
}

static void print_theft(const struct theft *theft, uint64_t begun_ns) {
  const uint64_t moments[] = {theft->first_error_ns, theft->disconnected_ns, theft->closed_ns,
                              theft->last_read_ns};
  static const char *const names[] = {"first_error_ms", "disconnected_ms", "closed_ms",
                                      "last_read_ms"};
  const char *error = theft->first_error == 0  ? "none"
                      : theft->first_error < 0 ? "not taken"
                                               : ibv_wc_status_str(theft->first_error);
  printf("{\"line\":\"read\",\"attempts\":%llu,\"reads\":%llu,\"bytes\":%llu,"
         "\"unfinished_bytes\":%llu,\"late_bytes\":%llu,\"late_attempts\":%llu,"
         "\"first_error\":\"%s\",\"native\":%d",
         (unsigned long long)theft->attempts, (unsigned long long)theft->reads,
         (unsigned long long)theft->bytes, (unsigned long long)theft->unfinished_bytes,
         (unsigned long long)theft->late_bytes, (unsigned long long)theft->late_attempts, error,
         theft->first_error);
  for (int i = 0; i < 4; i++)
    if (moments[i] != 0) printf(",\"%s\":%.1f", names[i], (double)(moments[i] - begun_ns) / 1e6);
  puts("}");
}

static void read_around(struct connection *connection, struct theft *theft, bool once) {
  struct ibv_qp_attr life;
  struct ibv_qp_init_attr unused;
  int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS | IBV_QP_AV |
             IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
             IBV_QP_MIN_RNR_TIMER | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
             IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
  uint64_t begun_ns = now_ns(), offset = 0;
  int status = 0;
  do {
    /* Its sequence number is the one that the seed expects next. */
    if (status == 0 && ibv_query_qp(connection->id->qp, &life, mask, &unused) != 0)
      die("ibv_query_qp");
    uint64_t left = theft->length - offset;
    uint32_t length = (uint32_t)(left < PIECE_BYTES ? left : PIECE_BYTES);
    status = read_piece(connection, theft, offset, length);
    offset = offset + length < theft->length ? offset + length : 0;
    look_around(connection, theft);
    if (status == 0) continue;
    if (theft->first_error == 0) {
      theft->first_error = status;
      theft->first_error_ns = now_ns();
    }
    if (theft->until != NULL) (void)resurrect(connection->id->qp, &life);
  } while (!once && !is_over(theft));
  count_unfinished(connection, theft);
  print_theft(theft, begun_ns);
}

/* ---- commands ---- */

static int garbage(char **argv) {
  srandom((unsigned)to_number(argv[4]));
  for (uint8_t length = 0; length <= PRIVATE_MAX; length++) {
    uint8_t data[PRIVATE_MAX];
    for (int i = 0; i < PRIVATE_MAX; i++) data[i] = (uint8_t)random();
    struct connection connection = connect_with(argv[2], argv[3], data, length);
    leave(&connection);
  }
  return 0;
}

static int replay(char **argv, const uint8_t *data, uint8_t length) {
  struct connection first = connect_with(argv[2], argv[3], data, length);
  struct connection second = connect_with(argv[2], argv[3], data, length);
  leave(&first);
  struct connection third = connect_with(argv[2], argv[3], data, length);
  leave(&second);
  leave(&third);
  return 0;
}

static int steal(int argc, char **argv, const uint8_t *data, uint8_t length) {
  struct theft theft = {.remote_address = to_number(argv[5]),
                        .remote_key = (uint32_t)to_number(argv[6]),
                        .length = to_number(argv[7]),
                        .after_close_ns = 3000000000u};
  if (theft.length == 0) die("nothing to read");
  for (int i = 8; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--until") == 0) theft.until = argv[i + 1];
    if (strcmp(argv[i], "--after-close") == 0)
      theft.after_close_ns = to_number(argv[i + 1]) * 1000000000u;
  }
  struct connection connection = connect_with(argv[2], argv[3], data, length);
  if (connection.accepted) read_around(&connection, &theft, strcmp(argv[1], "steal") == 0);
  leave(&connection);
  return 0;
}

int main(int argc, char **argv) {
  uint8_t data[PRIVATE_MAX];
  if (argc == 5 && strcmp(argv[1], "garbage") == 0) return garbage(argv);
  uint8_t length = argc >= 5 ? to_bytes(argv[4], data) : 0;
  if (argc == 5 && strcmp(argv[1], "replay") == 0) return replay(argv, data, length);
  if (argc >= 8 && (strcmp(argv[1], "read") == 0 || strcmp(argv[1], "steal") == 0))
    return steal(argc, argv, data, length);
  if (argc == 5 && strcmp(argv[1], "connect") == 0) {
    struct connection connection = connect_with(argv[2], argv[3], data, length);
    leave(&connection);
    return 0;
  }
  fprintf(stderr, "usage: rdma_intruder connect|replay ADDR PORT HEX | garbage ADDR PORT SEED |\n"
                  "  steal ADDR PORT HEX REMOTE KEY LENGTH | read ADDR PORT HEX REMOTE KEY LENGTH "
                  "[--until FILE] [--after-close SECONDS]\n");
  return 2;
}
