#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One fork over loopback against iperf3, measured in turn within one run.

Prints, for each round and as the median of all: a verified fork into null: against plain iperf3, and an unverified one against
iperf3 -Z. The model lies in page cache and the seed's digests are computed before the first round.
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

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402


def free_port():
    import socket
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def iperf3(total_bytes, *options):
    """Bytes per second that one iperf3 stream received."""
    port = str(free_port())
    server = subprocess.Popen(["iperf3", "-s", "-1", "-B", "127.0.0.1", "-p", port, "--forceflush"],
                              stdout=subprocess.PIPE, text=True)
    try:
        while "listening" not in server.stdout.readline():
            pass
        client = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", port, "-n", str(total_bytes), "-J", *options],
                                check=True, capture_output=True, timeout=120)
        return json.loads(client.stdout)["end"]["sum_received"]["bits_per_second"] / 8
    finally:
        server.stdout.read()
        server.wait(20)


def fork_rate(world, seed, *options):
    done = world.fork(seed, "null:", *options, timeout=120)
    if done.exit != 0:
        sys.exit(f"fork failed: {done}")
    return done.result["bytes"] / done.result["seconds"]


FULL = os.environ.get("SPROUT_TEST_FULL") == "1"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "sprout"))
    parser.add_argument("--model", help="directory of a model; default: a synthetic one of --size")
    parser.add_argument("--size", default=FULL and "4.2GB" or "1GB")
    parser.add_argument("--rounds", type=int, default=FULL and 5 or 2)
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed (half of it without --full: noise)")
    parser.add_argument("--fork-option", action="append", default=[], help="passed to each fork")
    arguments = parser.parse_args()
    model = arguments.model or str(ROOT / "build" / f"perf-model-{arguments.size}")
    if not os.path.isdir(model):
        subprocess.run([arguments.binary, "synth", f"size:{arguments.size}", model, "-q"], check=True)
    total = sum(p.stat().st_size for p in pathlib.Path(model).rglob("*") if p.is_file())
    subprocess.run(f"cat '{model}'/* > /dev/null", shell=True, check=True)  # into page cache

    with tempfile.TemporaryDirectory() as scratch:
        world = harness.World(arguments.binary, pathlib.Path(scratch))
        try:
            seed = world.seed(model)
            seed.await_digests()
            rows = []
            for number in range(arguments.rounds):
                row = {"iperf3": iperf3(total), "verified": fork_rate(world, seed, *arguments.fork_option),
                       "iperf3 -Z": iperf3(total, "-Z"),
                       "unverified": fork_rate(world, seed, "--no-verify", *arguments.fork_option)}
                rows.append(row)
                print(f"round {number + 1}: " + ", ".join(f"{name} {value / 1e9:.2f} GB/s" for name, value in row.items())
                      + f"; ratios {row['verified'] / row['iperf3']:.2f} {row['unverified'] / row['iperf3 -Z']:.2f}",
                      flush=True)
        finally:
            world.close()

    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}; "
          f"{total / 1e9:.2f} GB, median of {len(rows)}")
    missed = False
    for mine, peer, bar in (("verified", "iperf3", 1.0), ("unverified", "iperf3 -Z", 0.9)):
        ratio = median[mine] / median[peer]
        pairs = statistics.median(row[mine] / row[peer] for row in rows)
        missed |= max(ratio, pairs) < bar * (1 if FULL else 0.5)
        print(f"{mine} fork / {peer}: {median[mine] / 1e9:.2f} / {median[peer] / 1e9:.2f} GB/s = {ratio:.3f}, "
              f"pair by pair {pairs:.3f} (bar {bar})")
    if arguments.check and missed:
        sys.exit("a bar was missed")


if __name__ == "__main__":
    main()
