/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/tables.h"

#include "core/limits.h"
#include "sprout/fork.h"

#include <stddef.h>
#include <string.h>

#define MILLISECOND UINT64_C(1000000)

/* Rows that every command has, last in its table. */
#define GLOBAL_ROWS(values)                                                                        \
  {.name = "quiet",                                                                                \
   .letter = 'q',                                                                                  \
   .type = OPTION_FLAG,                                                                            \
   .offset = offsetof(struct values, globals.quiet),                                               \
   .group = "Global options",                                                                      \
   .help = "Print errors only."},                                                                  \
      {.name = "verbose",                                                                          \
       .letter = 'v',                                                                              \
       .type = OPTION_FLAG,                                                                        \
       .offset = offsetof(struct values, globals.verbose),                                         \
       .help = "Log in detail."},                                                                  \
      {.name = "log-format",                                                                       \
       .type = OPTION_CHOICE,                                                                      \
       .offset = offsetof(struct values, globals.log_format),                                      \
       .choices = "text|json",                                                                     \
       .fallback = "text",                                                                         \
       .help = "How log lines and errors look on standard error."},                                \
      {.name = "help",                                                                             \
       .letter = 'h',                                                                              \
       .type = OPTION_FLAG,                                                                        \
       .offset = offsetof(struct values, globals.help),                                            \
       .no_twin = true,                                                                            \
       .ends_parsing = true,                                                                       \
       .help = "Show this help and exit."},                                                        \
      {.name = "version",                                                                          \
       .type = OPTION_FLAG,                                                                        \
       .offset = offsetof(struct values, globals.version),                                         \
       .no_twin = true,                                                                            \
       .ends_parsing = true,                                                                       \
       .help = "Show the version and exit."},                                                      \
  {                                                                                                \
    .name = NULL                                                                                   \
  }

/* A client's token. */
#define CLIENT_ROWS(values)                                                                        \
  {.name = "token-file",                                                                           \
   .type = OPTION_TEXT,                                                                            \
   .offset = offsetof(struct values, client.token_file),                                           \
   .argument = "FILE",                                                                             \
   .help = "File whose first line is the bearer token of the seed."},                              \
  {                                                                                                \
    .name = "token", .type = OPTION_TEXT, .offset = offsetof(struct values, client.token),         \
    .argument = "TOKEN", .secret = true,                                                           \
    .help = "Environment only: the token itself, when there is no token file."                     \
  }

#define PROGRESS_ROW(values)                                                                       \
  {                                                                                                \
    .name = "progress", .type = OPTION_CHOICE, .offset = offsetof(struct values, progress),        \
    .choices = "auto|tty|plain|json|none", .fallback = "auto",                                     \
    .help = "A bar on a terminal, a line every 10 s elsewhere, or one JSON object a line on "      \
            "standard output, the last of type \"result\"."                                        \
  }

/* Transports, and how RDMA is to be had: rows of seed and fork. What this build has not is not
 * offered. */
#ifdef SPROUT_HAVE_RDMA
#define TRANSPORT_HELP                                                                             \
  "auto, or a comma list of: rdma, tcp. What is named must be there; auto takes RDMA where it "    \
  "can, "                                                                                          \
  "else TCP."
#define RDMA_ROWS(values)                                                                          \
  {.name = "rdma-device",                                                                          \
   .type = OPTION_TEXT,                                                                            \
   .offset = offsetof(struct values, rdma_devices),                                                \
   .argument = "LIST",                                                                             \
   .fallback = "auto",                                                                             \
   .help = "RDMA devices to use together, by name, each perhaps with its port: mlx5_0,mlx5_1:1; "  \
           "auto is every one with an active port and an address."},                               \
      {.name = "gid-index",                                                                        \
       .type = OPTION_TEXT,                                                                        \
       .offset = offsetof(struct values, gid_index),                                               \
       .argument = "N",                                                                            \
       .fallback = "auto",                                                                         \
       .help = "GID of the devices to use, e.g. 3; auto chooses RoCE v2 and IPv4 where it can."},
#else
#define TRANSPORT_HELP "auto, or a comma list of: tcp."
#define RDMA_ROWS(values)
#endif

/* --- seed --- */

#define SEED(member) offsetof(struct seed_values, member)

static const struct option seed_options[] = {
    {.name = "listen",
     .type = OPTION_TEXT,
     .offset = SEED(listen),
     .argument = "ADDR:PORT",
     .fallback = "127.0.0.1:7117",
     .group = "Serving",
     .help = "Where to serve; port 0 takes a free one. An address that is not loopback needs a "
             "token or --allow-anonymous."},
    {.name = "admin-listen",
     .type = OPTION_TEXT,
     .offset = SEED(admin_listen),
     .argument = "ADDR:PORT",
     .help = "Where to serve probes and metrics alone, outside the connection limits."},
    {.name = "ready-file",
     .type = OPTION_TEXT,
     .offset = SEED(ready_file),
     .argument = "FILE",
     .help = "Write the URLs to this file, as one line of JSON, when the seed is ready; removed at "
             "the end."},
    {.name = "transport",
     .type = OPTION_TEXT,
     .offset = SEED(transport),
     .argument = "LIST",
     .fallback = "auto",
     .help = TRANSPORT_HELP},
    RDMA_ROWS(seed_values)
#ifdef SPROUT_HAVE_RDMA
        {.name = "rdma-port",
         .type = OPTION_COUNT,
         .offset = SEED(rdma_port),
         .argument = "N",
         .fallback = "0",
         .min = 0,
         .max = 65535,
         .help = "Where RDMA connections come in, on the address of every device; 0 takes a free "
                 "one."},
#endif
    {.name = "memory",
     .type = OPTION_TEXT,
     .offset = SEED(memory),
     .argument = "file|host",
     .fallback = "file",
     .help =
         "Serve from the mapped files, or from a copy in host memory: the files may then change "
         "or vanish."},

    {.name = "name",
     .type = OPTION_TEXT,
     .offset = SEED(name),
     .argument = "NAME",
     .group = "Identity",
     .help = "The model's name, the same on all seeds of one model; without it the base name of "
             "the first path."},
    {.name = "rank",
     .type = OPTION_TEXT,
     .offset = SEED(rank),
     .argument = "KEY",
     .help = "Rank key when this is one shard of a model, e.g. tp=0/2."},
    {.name = "label",
     .type = OPTION_TEXT,
     .offset = SEED(label),
     .argument = "TEXT",
     .help = "Your own name for this version of the weights, e.g. a training step; at most 64 "
             "bytes."},

    {.name = "token-file",
     .type = OPTION_TEXT,
     .offset = SEED(token_file),
     .argument = "FILE",
     .group = "Access",
     .help = "File with one or two lines, a bearer token each; read again when it changes, so that "
             "tokens can be rotated."},
    {.name = "token",
     .type = OPTION_TEXT,
     .offset = SEED(token),
     .argument = "TOKEN",
     .secret = true,
     .help = "Environment only: the token itself, when there is no token file."},
    {.name = "allow-anonymous",
     .type = OPTION_FLAG,
     .offset = SEED(allow_anonymous),
     .help = "Serve whoever can connect, without a token, on an address that is not loopback."},
    {.name = "metrics-need-token",
     .type = OPTION_FLAG,
     .offset = SEED(metrics_need_token),
     .help = "Ask for the token on /metrics too (not on --admin-listen)."},

    {.name = "max-rate",
     .type = OPTION_RATE,
     .offset = SEED(max_rate),
     .argument = "RATE",
     .group = "Limits",
     .help = "Limit for all forks together: 200M, 10Gbit, or 25% of the network interface's "
             "speed; without it none."},
    {.name = "max-forks",
     .type = OPTION_COUNT,
     .offset = SEED(max_forks),
     .argument = "N",
     .fallback = "64",
     .min = 1,
     .max = LIMIT_FORKS,
     .help = "Forks that run at once; others wait in the queue."},
    {.name = "max-queue",
     .type = OPTION_COUNT,
     .offset = SEED(max_queue),
     .argument = "N",
     .fallback = "1024",
     .min = 1,
     .max = LIMIT_QUEUE,
     .help = "Forks that wait; others are told to try again later."},
    {.name = "inflight",
     .type = OPTION_SIZE,
     .offset = SEED(inflight_bytes),
     .argument = "BYTES",
     .fallback = "64MiB",
     .min = 64 * 1024,
     .help = "Bytes that one fork may have asked for and not yet received."},
    {.name = "digest-rate",
     .type = OPTION_RATE,
     .offset = SEED(digest_rate),
     .argument = "RATE",
     .fallback = "1G",
     .help = "How fast digests are computed in the background; what a fork waits for is computed "
             "at once."},
    {.name = "drain-timeout",
     .type = OPTION_DURATION,
     .offset = SEED(drain_timeout_ns),
     .argument = "T",
     .fallback = "30s",
     .help = "How long running forks may finish after SIGTERM or SIGINT."},
    GLOBAL_ROWS(seed_values)};

/* --- fork --- */

#define FORK(member) offsetof(struct fork_values, member)

static const struct option fork_options[] = {
    {.name = "include",
     .type = OPTION_LIST,
     .offset = FORK(include),
     .argument = "GLOB",
     .group = "What to fork",
     .help = "Only files whose path matches; may be given several times."},
    {.name = "exclude",
     .type = OPTION_LIST,
     .offset = FORK(exclude),
     .argument = "GLOB",
     .help = "Not the files whose path matches; may be given several times."},
    {.name = "tensor",
     .type = OPTION_LIST,
     .offset = FORK(tensor),
     .argument = "GLOB",
     .help =
         "Only tensors whose name matches; a file with holes is refused, so DEST is null: then. "
         "May be given several times."},
    {.name = "model",
     .type = OPTION_TEXT,
     .offset = FORK(model),
     .argument = "NAME",
     .help = "Refuse sources of another model."},
    {.name = "rank",
     .type = OPTION_TEXT,
     .offset = FORK(rank),
     .argument = "KEY",
     .help = "Rank key to ask for, e.g. tp=0/2."},
    {.name = "label",
     .type = OPTION_TEXT,
     .offset = FORK(label),
     .argument = "TEXT",
     .help = "Refuse sources whose version has another label."},

    {.name = "force",
     .type = OPTION_FLAG,
     .offset = FORK(force),
     .group = "How",
     .help = "Replace other files that are in the way."},
    {.name = "no-verify",
     .type = OPTION_FLAG,
     .offset = FORK(no_verify),
     .help = "Do not compare bytes with the seed's digests; such a fork cannot be resumed."},
    {.name = "dry-run",
     .type = OPTION_FLAG,
     .offset = FORK(dry_run),
     .help = "Check sources and destination, say what would be read, and read nothing."},
    {.name = "transport",
     .type = OPTION_TEXT,
     .offset = FORK(transport),
     .argument = "LIST",
     .fallback = "auto",
     .help = TRANSPORT_HELP},
    RDMA_ROWS(fork_values)
#ifdef SPROUT_HAVE_RDMA
        {.name = "rdma-connect-timeout",
         .type = OPTION_DURATION,
         .offset = FORK(rdma_connect_timeout_ns),
         .argument = "T",
         .fallback = "1s",
         .help = "Time for an RDMA connection to be made."},
    {.name = "rdma-ack-timeout",
     .type = OPTION_DURATION,
     .offset = FORK(rdma_ack_timeout_ns),
     .argument = "T",
     .fallback = "67ms",
     .help = "An RDMA read without an answer is sent again after this (rounded up to 4.096 us x "
             "2^n)."},
    {.name = "rdma-retries",
     .type = OPTION_COUNT,
     .offset = FORK(rdma_retries),
     .argument = "N",
     .fallback = "6",
     .min = 1,
     .max = 6,
     .help = "How often it is sent again before the connection is given up."},
#endif
    {.name = "connections",
     .type = OPTION_COUNT,
     .offset = FORK(connections),
     .argument = "N",
     .fallback = "1",
     .min = 1,
     .max = 16,
     .help = "Data connections to each seed."},
    PROGRESS_ROW(fork_values),
    CLIENT_ROWS(fork_values),

    {.name = "max-rate",
     .type = OPTION_RATE,
     .offset = FORK(max_rate),
     .argument = "RATE",
     .group = "Limits",
     .help = "Receive no faster than this, e.g. 200M or 10Gbit; without it as fast as seeds "
             "grant."},
    {.name = "inflight",
     .type = OPTION_SIZE,
     .offset = FORK(inflight_bytes),
     .argument = "BYTES",
     .fallback = "32MiB",
     .min = 64 * 1024,
     .help = "Bytes asked for and not yet received, over all sources."},
    {.name = "stall-timeout",
     .type = OPTION_DURATION,
     .offset = FORK(stall_timeout_ns),
     .argument = "T",
     .fallback = "3s",
     .min = 10 * MILLISECOND,
     .help = "Drop a source whose granted reads make no progress for so long."},
    {.name = "timeout",
     .type = OPTION_DURATION,
     .offset = FORK(timeout_ns),
     .argument = "T",
     .help = "End with exit code 75 when the whole fork takes longer; without it no limit."},
    {.name = "wait",
     .type = OPTION_DURATION,
     .offset = FORK(wait_ns),
     .argument = "T",
     .fallback = "10m",
     .help = "How long to wait in the queue of a busy seed."},
    GLOBAL_ROWS(fork_values)};

/* --- the others --- */

static const struct option ls_options[] = {{.name = "json",
                                            .type = OPTION_FLAG,
                                            .offset = offsetof(struct ls_values, json),
                                            .help = "Print one JSON document."},
                                           CLIENT_ROWS(ls_values),
                                           {.name = "timeout",
                                            .type = OPTION_DURATION,
                                            .offset = offsetof(struct ls_values, timeout_ns),
                                            .argument = "T",
                                            .fallback = "10s",
                                            .min = MILLISECOND,
                                            .help = "How long the seed may take to answer."},
                                           GLOBAL_ROWS(ls_values)};

#define STATUS(member) offsetof(struct status_values, member)

static const struct option status_options[] = {
    {.name = "json",
     .type = OPTION_FLAG,
     .offset = STATUS(json),
     .help = "Print the seed's answers as one JSON document (a line each time with --watch)."},
    {.name = "watch",
     .letter = 'w',
     .type = OPTION_FLAG,
     .offset = STATUS(watch),
     .help = "Ask again and again until interrupted."},
    {.name = "interval",
     .type = OPTION_DURATION,
     .offset = STATUS(interval_ns),
     .argument = "T",
     .fallback = "1s",
     .min = 100 * MILLISECOND,
     .max = 3600 * 1000 * MILLISECOND,
     .help = "Time between two questions of --watch."},
    CLIENT_ROWS(status_values),
    {.name = "timeout",
     .type = OPTION_DURATION,
     .offset = STATUS(timeout_ns),
     .argument = "T",
     .fallback = "10s",
     .min = MILLISECOND,
     .help = "How long the seed may take to answer."},
    GLOBAL_ROWS(status_values)};

#define VERIFY(member) offsetof(struct verify_values, member)

static const struct option verify_options[] = {
    {.name = "model",
     .type = OPTION_TEXT,
     .offset = VERIFY(model),
     .argument = "NAME",
     .help = "Refuse a seed of another model."},
    {.name = "rank",
     .type = OPTION_TEXT,
     .offset = VERIFY(rank),
     .argument = "KEY",
     .help = "Rank key to ask for, e.g. tp=0/2."},
    PROGRESS_ROW(verify_values),
    CLIENT_ROWS(verify_values),
    {.name = "timeout",
     .type = OPTION_DURATION,
     .offset = VERIFY(timeout_ns),
     .argument = "T",
     .help = "End with exit code 75 when it takes longer; without it no limit."},
    GLOBAL_ROWS(verify_values)};

static const struct option synth_options[] = {
    {.name = "seed",
     .type = OPTION_COUNT,
     .offset = offsetof(struct synth_values, seed),
     .argument = "N",
     .fallback = "1",
     .help = "Number that the random bytes come from; the same number gives the same bytes."},
    GLOBAL_ROWS(synth_values)};

#define HELP(member) offsetof(struct help_values, member)

static const struct option help_options[] = {{.name = "man",
                                              .type = OPTION_FLAG,
                                              .offset = HELP(man),
                                              .no_twin = true,
                                              .help = "Print the man page, for 'man -l -'."},
                                             {.name = "markdown",
                                              .type = OPTION_FLAG,
                                              .offset = HELP(markdown),
                                              .no_twin = true,
                                              .help = "Print docs/COMMANDS.md."},
                                             {.name = "metrics",
                                              .type = OPTION_FLAG,
                                              .offset = HELP(metrics),
                                              .no_twin = true,
                                              .help = "Print docs/METRICS.md."},
                                             {.name = "limits",
                                              .type = OPTION_FLAG,
                                              .offset = HELP(limits),
                                              .no_twin = true,
                                              .help = "Print docs/LIMITS.md."},
                                             GLOBAL_ROWS(help_values)};

struct program_values {
  struct cli_globals globals;
};

static const struct option program_options[] = {GLOBAL_ROWS(program_values)};

/* --- commands --- */

const struct option_command cli_commands[CLI_COMMAND_COUNT] = {
    [CLI_PROGRAM] =
        {.name = "sprout",
         .synopsis = "sprout COMMAND [options]",
         .summary = "Fork the weights of a running model straight from its memory.",
         .description =
             "A seed serves the weights that it holds; any number of forks pull them at once, from "
             "one seed or several, verified chunk by chunk and resumable.\n\n"
             "  sprout seed MODEL_DIR         serve a model\n"
             "  sprout fork URL... DEST       pull it into a directory\n"
             "  sprout ls URL                 list its files and tensors\n"
             "  sprout status URL             see who is forking\n"
             "  sprout verify URL DEST        compare a directory with a seed\n"
             "  sprout synth SPEC DEST        write a model of random bytes\n"
             "  sprout help COMMAND           explain a command\n\n"
             "Sizes: 64MiB, 1.5G. Rates: 200M, 10Gbit, 25%. Durations: 500ms, 3s, 2m. Every option "
             "but --help and --version can also be given in the environment: --max-rate as "
             "SPROUT_MAX_RATE. NO_COLOR turns colours off.\n\n"
             "Exit codes: 0 done, 2 usage, 3 denied, 4 no source left, 5 mismatch or bad bytes, 6 "
             "this machine's trouble, 75 busy or timed out, 130 and 143 signals.",
         .options = program_options},
    [CLI_SEED] =
        {.name = "sprout seed",
         .synopsis = "sprout seed MODEL_DIR|FILE... [options]",
         .summary = "Serve a model's weights to any number of forks.",
         .description =
             "MODEL_DIR is a directory in the style of Hugging Face: all its files are served. A "
             "snapshot of the cache, whose files are links into ../../blobs/, works as it is.\n\n"
             "  sprout seed ./my-model\n"
             "  sprout seed ./my-model --listen 0.0.0.0:7117 --token-file token --max-rate 25%\n\n"
             "On SIGTERM or SIGINT the seed drains: no new forks, running ones may finish, then it "
             "ends with exit code 0. A second signal ends it at once.",
         .options = seed_options,
         .positional_min = 1,
         .positional_max = UINT32_MAX},
    [CLI_FORK] =
        {.name = "sprout fork",
         .synopsis = "sprout fork URL... DEST [options]",
         .summary = "Pull a model from one or more sources into a directory.",
         .description =
             "URL is http://HOST[:PORT] of a seed, or file://DIR, which is read only when no seed "
             "is "
             "left; a name with several addresses is several sources. DEST is a directory, or "
             "null: "
             "to read and verify the bytes and keep nothing.\n\n"
             "  sprout fork http://10.0.0.5:7117 ./my-model\n"
             "  sprout fork http://seed-a:7117 http://seed-b:7117 file:///mnt/m "
             "./my-model\n\n"
             "Files appear under their final names when they are whole. After a failure the same "
             "command goes on where it stopped: bytes that are there and right are kept.",
         .options = fork_options,
         .positional_min = 2,
         .positional_max = SPROUT_MAX_SOURCES + 1},
    [CLI_LS] = {.name = "sprout ls",
                .synopsis = "sprout ls URL [options]",
                .summary = "List the files and tensors that a seed serves.",
                .description = "URL is http://HOST[:PORT] of a seed, or file://DIR.",
                .options = ls_options,
                .positional_min = 1,
                .positional_max = 1},
    [CLI_STATUS] = {.name = "sprout status",
                    .synopsis = "sprout status URL [options]",
                    .summary = "Show how a seed is doing and who is forking from it.",
                    .description = "URL is http://HOST[:PORT] of a seed.",
                    .options = status_options,
                    .positional_min = 1,
                    .positional_max = 1},
    [CLI_VERIFY] =
        {.name = "sprout verify",
         .synopsis = "sprout verify URL DEST [options]",
         .summary = "Compare a directory with what a seed serves.",
         .description =
             "Hashes the files in DEST and compares them with the seed's digests; no weights cross "
             "the network. Lists each file that differs or is missing, and then ends with exit "
             "code "
             "5.",
         .options = verify_options,
         .positional_min = 2,
         .positional_max = 2},
    [CLI_SYNTH] =
        {.name = "sprout synth",
         .synopsis = "sprout synth SPEC DEST [options]",
         .summary = "Write a safetensors model with true shapes and random bytes.",
         .description =
             "SPEC is the name of an architecture, size:4GB for as many of its layers as make "
             "about "
             "that size, or tensors:30000x4KiB for that many equal tensors. An unknown name is "
             "answered with the known ones. DEST must be absent or empty.",
         .options = synth_options,
         .positional_min = 2,
         .positional_max = 2},
    [CLI_HELP] = {.name = "sprout help",
                  .synopsis = "sprout help [COMMAND] [options]",
                  .summary = "Explain the program or one of its commands.",
                  .description = "Also prints the pages that are made from the program's tables.",
                  .options = help_options,
                  .positional_min = 0,
                  .positional_max = 1},
};

const struct cli_exit cli_exits[] = {
    {0, "done"},
    {2, "usage: the command line, an option's value or a request is wrong"},
    {3, "denied: the token is missing, wrong or expired"},
    {4, "no source left: seeds cannot be reached, stalled, or do not have what was asked for"},
    {5, "mismatch or bad bytes: another model, wrong digests, files that differ or are damaged"},
    {6, "this machine: files, space, memory, limits, or a kernel that forbids io_uring"},
    {75, "busy or timed out: try again later"},
    {130, "stopped by SIGINT"},
    {143, "stopped by SIGTERM"},
    {0, NULL},
};

const char *cli_command_word(enum cli_command_id id) {
  const char *space = strchr(cli_commands[id].name, ' ');
  return space != NULL ? space + 1 : cli_commands[id].name;
}
