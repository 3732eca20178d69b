#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Many small tensors: how long until a seed of 30,000 tensors is ready, its manifest is decoded, and what one tensor costs."""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import harness  # noqa: E402


FULL = os.environ.get("SPROUT_TEST_FULL") == "1"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=str(ROOT / "build" / "release" / "sprout"))
    parser.add_argument("--tensors", type=int, default=30000)
    parser.add_argument("--rounds", type=int, default=FULL and 9 or 3)
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed (threefold without --full: noise)")
    arguments = parser.parse_args()
    model = str(ROOT / "build" / f"perf-tensors-{arguments.tensors}")
    if not os.path.isdir(model):
        subprocess.run([arguments.binary, "synth", f"tensors:{arguments.tensors}x4KiB", model, "-q"], check=True)
    ready, manifest, per_tensor, memory = [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(arguments.rounds):
            world = harness.World(arguments.binary, pathlib.Path(scratch))
            try:
                begun = time.monotonic()
                seed = world.seed(model)
                ready.append(time.monotonic() - begun)
                seed.await_digests()
                done = world.fork(seed, "null:")
                if done.exit != 0:
                    sys.exit(f"fork failed: {done}")
                manifest.append(done.result["manifest_seconds"])
                per_tensor.append((done.result["seconds"] - done.result["manifest_seconds"]) / arguments.tensors)
            finally:
                world.close()
    print(f"{arguments.tensors} tensors of 4 KiB, median of {arguments.rounds}")
    print(f"seed ready after process start:          {statistics.median(ready) * 1e3:.0f} ms")
    print(f"manifest fetched and decoded:            {statistics.median(manifest) * 1e3:.0f} ms")
    print(f"ready + manifest:                        {(statistics.median(ready) + statistics.median(manifest)) * 1e3:.0f} ms   (bar 200 ms)")
    print(f"fork's time per tensor:                  {statistics.median(per_tensor) * 1e6:.2f} us   (bar 10 us)")
    slack = 1 if FULL else 3
    late = statistics.median(ready) + statistics.median(manifest) > 0.2 * slack
    slow = statistics.median(per_tensor) > 10e-6 * slack
    if arguments.check and (late or slow):
        sys.exit("a bar was missed")


if __name__ == "__main__":
    main()
