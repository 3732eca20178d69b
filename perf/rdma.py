#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Forks over RDMA against ib_read_bw, measured in turn in the lab (tests/rdma/lab): ratios, and what they cost the seed.

Each measurement boots a guest of its own with one Soft-RoCE device. Two that are compared run one after the other, in
changing order; the figure is the median of the pairs' ratios, with the smallest and largest. ib_read_bw -e reads with
the fork's message size and depth. It prints no rate in the guest, so two of its runs of different length are subtracted,
which takes connecting and registration out of its time; a fork of a tiny model is subtracted from the fork likewise.
A fork reads 512 MB of memory, ib_read_bw the same two messages' worth again and again, out of the cache when they fit.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "rdma"), str(ROOT / "tests" / "e2e")]
import fabric  # noqa: E402

FULL = os.environ.get("SPROUT_TEST_FULL") == "1"
MIB = 1 << 20
MODEL = "size:512MB"
SEED_MODEL = "size:2GB"  # a seed is measured while it is read, less while forks come and go
SMALL = "tensors:20000x8KiB"
EVERY_OTHER = ["--tensor", "*[02468].weight"]
TINY_READS = "tensors:20000x4KiB"


# --- inside: one measurement each, as a dict -------------------------------------------------------------


def start_listening(command, port):
    """Starts a server and returns when it listens."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while f":{port:04X} " not in "".join(pathlib.Path(f"/proc/net/{name}").read_text() for name in ("tcp", "tcp6")):
        if server.poll() is not None:
            sys.exit(f"{command[0]} ended with {server.returncode}")
        os.sched_yield()
    return server


def timed_reads(size, depth, count):
    """(seconds, CPU seconds of the reader, of the server) of `count` reads of perftest, connecting included."""
    command = ["ib_read_bw", "-e", "-F", "-d", "rx0", "-x", "1", "-s", str(size), "-t", str(depth), "-o", str(depth),
               "-n", str(count)]
    server = start_listening(command, 18515)
    begun = time.monotonic()
    reader = subprocess.Popen([*command, "10.7.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(reader.pid, 0)
    seconds = time.monotonic() - begun
    reader.returncode = os.waitstatus_to_exitcode(status)
    _, server_status, server_usage = os.wait4(server.pid, 0)
    server.returncode = os.waitstatus_to_exitcode(server_status)
    if reader.returncode or server.returncode:
        sys.exit(f"ib_read_bw failed: {reader.returncode} {server.returncode}")
    return (seconds, usage.ru_utime + usage.ru_stime, server_usage.ru_utime + server_usage.ru_stime)


def measure_peer(size, depth, total):
    """ib_read_bw: bytes and reads per second."""
    few = max(8, 16 * MIB // size) if size >= 65536 else 200
    many = few + max(8, total // size)
    short, long = timed_reads(size, depth, few), timed_reads(size, depth, many)
    seconds = long[0] - short[0]
    return {"rate": (many - few) * size / seconds, "reads": (many - few) / seconds, "seconds": seconds,
            "seed_cpu": long[2] - short[2], "fork_cpu": long[1] - short[1]}


def measure_latency(count):
    """ib_read_lat: seconds of one 4 KiB read, one at a time."""
    def run(reads):
        command = ["ib_read_lat", "-e", "-F", "-d", "rx0", "-x", "1", "-s", "4096", "-n", str(reads)]
        server = start_listening(command, 18515)
        begun = time.monotonic()
        subprocess.run([*command, "10.7.0.1"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server.wait()
        return time.monotonic() - begun
    return {"latency": (run(count + 100) - run(100)) / count}


class Inside:
    """A seed that knows its digests, and forks of it."""

    def __init__(self, arguments, spec, *options):
        self.arguments = arguments
        self.scratch = pathlib.Path(tempfile.mkdtemp())
        model = self.scratch / "model"
        subprocess.run([arguments.binary, "synth", spec, model, "-q"], check=True)
        self.world = fabric.World(arguments.binary, self.scratch)
        self.seed = self.world.seed(model, *options)
        self.seed.await_digests()

    def fork(self, *options):
        fork = self.world.start_fork(self.seed, "null:", *self.arguments.fork_option, *options)
        done, cpu = fork.wait_with_usage()
        self.world.assert_by(done, "rdma")
        return done.result, cpu

    def counters(self):
        return {"cpu": fabric.cpu_seconds(self.seed.process.pid),
                "wakeups": fabric.metric(self.seed, "sprout_reactor_wakeups_total"),
                "heartbeats": fabric.metric(self.seed, "sprout_http_requests_total", route="/v1/forks/{id}")}


def measure_fork(arguments, spec, *options):
    """A fork, and a tiny one before it: their difference has neither loading of libraries, nor connecting, nor
    registration in it, as the difference of two runs of ib_read_bw has not."""
    tiny, _ = Inside(arguments, "tiny").fork()
    inside = Inside(arguments, spec)
    result, cpu = inside.fork(*options)
    seconds, more = result["seconds"] - tiny["seconds"], result["bytes"] - tiny["bytes"]
    return {"rate": more / seconds, "whole": result["bytes"] / result["seconds"], "seconds": seconds, "fork_cpu": cpu,
            "bytes": result["bytes"], "setup": tiny["seconds"]}


def measure_seed(arguments, total):
    """What a seed spends while `total` bytes are read from it: by as few forks as that takes."""
    inside = Inside(arguments, SEED_MODEL)
    inside.fork()
    before, read, forks, begun = inside.counters(), 0, 0, time.monotonic()
    while read < total:
        read += inside.fork()[0]["bytes"]
        forks += 1
    after = inside.counters()
    return {"bytes": read, "forks": forks, "seconds": time.monotonic() - begun,
            **{name: after[name] - before[name] for name in before}}


def measure_many(arguments, count, spec):
    """`count` forks in one process: their sum, and how even they are."""
    inside = Inside(arguments, spec, "--max-forks", "64")
    done = subprocess.run([arguments.many_forks, inside.seed.url, str(count), "tcp" if inside.world.plain else "rdma"],
                          check=True, stdout=subprocess.PIPE, timeout=900)
    figures = json.loads(done.stdout)
    return {"rate": figures["bytes"] * count / figures["wall"],
            "evenness": max(figures["seconds"]) / min(figures["seconds"])}


# --- outside: pairs of them, and their ratios ------------------------------------------------------------


class Lab:
    def __init__(self, arguments):
        self.arguments = arguments

    def __call__(self, name, *values):
        """One measurement in a guest of its own."""
        command = [fabric.LAB / "run", sys.executable, __file__, "--inside", json.dumps([name, *values]),
                   "--binary", self.arguments.binary, "--many-forks", self.arguments.many_forks,
                   *[f"--fork-option={option}" for option in self.arguments.fork_option]]
        memory = "5G" if name == "seed" else "3G"
        environment = {**os.environ, "LAB_SETUP": "one", "LAB_MEMORY": memory, "LAB_TIMEOUT": "1200",
                       "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"{name} {values}: exit status {done.returncode}\n{done.stdout}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def spread(values):
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


class Report:
    def __init__(self, check):
        self.check = check
        self.missed = []

    def row(self, what, figure, bar=None, met=None):
        mark = "" if bar is None else f"   (bar {bar}{'' if met else ', missed'})"
        print(f"{what:<58} {figure}{mark}", flush=True)
        if bar is not None and not met:
            self.missed.append(what)

    def ratio(self, what, values, bar=None):
        """Median of pairs; without --full half of the bar will do: few pairs, noise."""
        bar_now = bar and bar * (1 if FULL else 0.5)
        self.row(what, spread(values), bar and f">= {bar}", bar is None or statistics.median(values) >= bar_now)


def pairs(lab, count, mine, peer, key="rate"):
    """Both measured in turn, the first of them changing: [(mine, peer)]."""
    measured = []
    for number in range(count):
        if number % 2 == 0:
            a = lab(*mine)
            b = lab(*peer)
        else:
            b = lab(*peer)
            a = lab(*mine)
        measured.append((a, b))
        print(f"  pair {number + 1}: {a[key] / MIB:.0f} / {b[key] / MIB:.0f} MiB/s = {a[key] / b[key]:.3f}", flush=True)
    return measured


def large_reads(lab, report, arguments):
    print(f"verified fork of {MODEL} and ib_read_bw -e, {arguments.message // 1024} KiB x {arguments.depth}:")
    peer = ("peer", arguments.message, arguments.depth, 512 * MIB)
    measured = pairs(lab, arguments.pairs, ("fork", MODEL), peer)
    ratios = [mine["rate"] / peer["rate"] for mine, peer in measured]
    report.ratio("verified fork / ib_read_bw", ratios, 0.95)
    report.ratio("ib_read_bw / verified fork", [1 / ratio for ratio in ratios])
    report.ratio("verified fork with its set-up / ib_read_bw without",
                 [mine["whole"] / peer["rate"] for mine, peer in measured])
    report.row("set-up of a fork: libraries, connection, registration", "{:.0f} ms".format(
        1e3 * statistics.median(mine["setup"] for mine, _ in measured)))
    report.row("fork's CPU seconds per GB, ib_read_bw's", "{:.3f}, {:.3f}".format(
        statistics.median(mine["fork_cpu"] / mine["bytes"] * 1e9 for mine, _ in measured),
        statistics.median(peer["fork_cpu"] / (peer["rate"] * peer["seconds"]) * 1e9 for _, peer in measured)))
    return statistics.median(mine["rate"] for mine, _ in measured)


def small_reads(lab, report, arguments):
    print("10,000 tensors of 8 KiB that lie together, or are every other one of 20,000, against a fork of bar 1:")
    for what, spec, options, bar in (("contiguous", "tensors:10000x8KiB", [], 0.6), ("scattered", SMALL, EVERY_OTHER, 0.45)):
        measured = pairs(lab, arguments.pairs, ("fork", spec, *options), ("fork", MODEL))
        report.ratio(f"{what} tensors of 8 KiB / fork of {MODEL}", [a["rate"] / b["rate"] for a, b in measured], bar)
    mine = [lab("fork", TINY_READS, *EVERY_OTHER) for _ in range(arguments.pairs)]
    peer = [lab("peer", 4096, arguments.depth, 40 * MIB) for _ in range(arguments.pairs)]
    report.row("reads of 4 KiB per second, fork and ib_read_bw", "{:.0f}, {:.0f}".format(
        statistics.median(row["bytes"] / 4096 / row["seconds"] for row in mine),
        statistics.median(row["reads"] for row in peer)))
    alone = [lab("fork", TINY_READS, *EVERY_OTHER, "--inflight", "64KiB") for _ in range(arguments.pairs)]
    report.row("one read of 4 KiB, fork (up to 16 at once), ib_read_lat", "{:.0f} us, {:.0f} us".format(
        statistics.median(row["seconds"] / (row["bytes"] / 4096) for row in alone) * 1e6,
        statistics.median(lab("latency", 2000)["latency"] for _ in range(arguments.pairs)) * 1e6))


def seed_cost(lab, report):
    total = 20_500_000_000 if FULL else 2_000_000_000
    row = lab("seed", total)
    print(f"seed while {row['bytes'] / 1e9:.1f} GB are read from it by {row['forks']} forks, in {row['seconds']:.0f} s:")
    limit = 0.1 if FULL else 0.05
    report.row("user and system time of the seed", f"{row['cpu'] * 1e3:.0f} ms", f"<= {limit * 1e3:.0f} ms", row["cpu"] <= limit)
    report.row("wake-ups of its reactor", f"{row['wakeups']:.0f}, {row['wakeups'] / row['forks']:.1f} a fork, "
               f"{row['heartbeats']:.0f} heartbeats and closes")


def many_forks(lab, report, arguments):
    print("forks at once in one process, against one alone:")
    counts = (1, 2, 4, 8, 16, 32, 64) if FULL else (1, 4, 16)
    for count in counts[1:]:
        spec = MODEL if count <= 16 and FULL else "size:128MB"
        measured = pairs(lab, arguments.pairs if count == 16 else 1, ("many", count, spec), ("many", 1, spec))
        bar = 0.9 if count == 16 else None
        report.ratio(f"sum of {count} forks / one", [a["rate"] / b["rate"] for a, b in measured], bar)
        uneven = statistics.median(a["evenness"] for a, _ in measured)
        limit = 1.15 if FULL else 1.5
        report.row(f"slowest of {count} forks / fastest", f"{uneven:.3f}", "<= 1.15" if bar else None, uneven <= limit)


# --- command line ----------------------------------------------------------------------------------------


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "sprout"))
    parser.add_argument("--many-forks", help="that program; default: beside the binary")
    parser.add_argument("--full", action="store_true", default=FULL, help="stated counts: 9 pairs, 20 GB, 64 forks")
    parser.add_argument("--pairs", type=int, help="default 9 with --full, else 3")
    parser.add_argument("--message", type=int, default=4 * MIB, help="bytes of one read of ib_read_bw (default: the fork's)")
    parser.add_argument("--depth", type=int, default=2, help="reads that ib_read_bw has outstanding (default: the fork's)")
    parser.add_argument("--only", choices=["large", "small", "seed", "many", "sweep"],
                        help="one part; sweep: ib_read_bw alone (default: all but it, in short checks not small)")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed (half of it without --full: noise)")
    parser.add_argument("--fork-option", action="append", default=[], help="passed to each fork")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.binary = os.path.abspath(arguments.binary)
    arguments.many_forks = os.path.abspath(
        arguments.many_forks or pathlib.Path(arguments.binary).parent / "tests" / "many_forks")
    arguments.pairs = arguments.pairs or (9 if arguments.full else 3)
    return arguments


def sweep(lab, arguments):
    """Where Soft-RoCE is fastest: ib_read_bw over message sizes and depths."""
    depths = (4, 8, 16, 32, 64, 128)
    print("MiB/s of ib_read_bw -e; CPU of its reader and server, in shares of a core")
    for size in (65536, 262144, MIB, 4 * MIB):
        for depth in depths:
            rows = [lab("peer", size, depth, 384 * MIB) for _ in range(arguments.pairs)]
            rates = [row["rate"] / MIB for row in rows]
            cpu = [statistics.median(row[name] / row["seconds"] for row in rows) for name in ("fork_cpu", "seed_cpu")]
            print(f"{size // 1024:>5} KiB x {depth:<3} {statistics.median(rates):5.0f} ({min(rates):.0f}-{max(rates):.0f})  "
                  f"CPU {cpu[0]:.2f} {cpu[1]:.2f}", flush=True)


def run_inside(arguments):
    name, *values = json.loads(arguments.inside)
    measures = {"peer": lambda: measure_peer(*values), "latency": lambda: measure_latency(*values),
                "fork": lambda: measure_fork(arguments, *values), "seed": lambda: measure_seed(arguments, *values),
                "many": lambda: measure_many(arguments, *values)}
    print(json.dumps(measures[name]()))


def main():
    global FULL
    arguments = parse()
    FULL = arguments.full
    if arguments.inside:
        run_inside(arguments)
        return
    missing = fabric.why_missing() or fabric.why_no_rdma(arguments.binary)
    if missing:
        print(missing)
        sys.exit(77)
    lab, report = Lab(arguments), Report(arguments.check)
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}; in the lab: one core, Soft-RoCE; "
          f"{arguments.pairs} pairs, median (smallest-largest)")
    if arguments.only == "sweep":
        sweep(lab, arguments)
    parts = {"large": lambda: large_reads(lab, report, arguments), "small": lambda: small_reads(lab, report, arguments),
             "seed": lambda: seed_cost(lab, report), "many": lambda: many_forks(lab, report, arguments)}
    if arguments.check and not FULL:
        del parts["small"]  # three pairs of such short forks spread too widely to judge by
    for name, part in parts.items():
        if arguments.only in (None, name):
            part()
    if arguments.check and report.missed:
        sys.exit(f"missed: {', '.join(report.missed)}")


if __name__ == "__main__":
    main()
