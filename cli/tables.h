/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands of the program, their options, and the structs that options are parsed into. One
 * table drives parsing, help, man page and docs/COMMANDS.md.
 */
#ifndef CLI_TABLES_H
#define CLI_TABLES_H

#include "core/options.h"

/* Options that every command has. First in each struct below. */
struct cli_globals {
  bool quiet, verbose, help, version;
  const char *log_format;
};

/* How a client reaches a seed. */
struct cli_client {
  const char *token_file, *token;
};

struct seed_values {
  struct cli_globals globals;
  const char *listen, *admin_listen, *name, *rank, *label, *token_file, *token, *memory, *transport,
      *ready_file, *rdma_devices, *gid_index;
  bool allow_anonymous, metrics_need_token;
  struct units_rate max_rate, digest_rate;
  uint64_t max_forks, max_queue, inflight_bytes, drain_timeout_ns, rdma_port;
};

struct fork_values {
  struct cli_globals globals;
  struct cli_client client;
  const char *transport, *model, *rank, *label, *progress, *rdma_devices, *gid_index;
  bool no_verify, dry_run, force;
  struct option_list include, exclude, tensor;
  struct units_rate max_rate;
  uint64_t inflight_bytes, connections, stall_timeout_ns, timeout_ns, wait_ns,
      rdma_connect_timeout_ns, rdma_ack_timeout_ns, rdma_retries;
};

struct ls_values {
  struct cli_globals globals;
  struct cli_client client;
  bool json;
  uint64_t timeout_ns;
};

struct status_values {
  struct cli_globals globals;
  struct cli_client client;
  bool json, watch;
  uint64_t timeout_ns, interval_ns;
};

struct verify_values {
  struct cli_globals globals;
  struct cli_client client;
  const char *model, *rank, *progress;
  uint64_t timeout_ns;
};

struct synth_values {
  struct cli_globals globals;
  uint64_t seed;
};

struct help_values {
  struct cli_globals globals;
  bool man, markdown, metrics, limits;
};

enum cli_command_id {
  CLI_PROGRAM, /* options before a command, and --version */
  CLI_SEED,
  CLI_FORK,
  CLI_LS,
  CLI_STATUS,
  CLI_VERIFY,
  CLI_SYNTH,
  CLI_HELP,
  CLI_COMMAND_COUNT
};

extern const struct option_command cli_commands[CLI_COMMAND_COUNT];

/* What an exit code of the program means, for man page and docs; ended by a row with NULL. */
struct cli_exit {
  int code;
  const char *meaning;
};
extern const struct cli_exit cli_exits[];

/* The word that chooses a command: "seed" of "sprout seed". */
const char *cli_command_word(enum cli_command_id id);
#endif
