# SPDX-License-Identifier: Apache-2.0
"""A running seed whose bytes change while forks read its memory one-sidedly: nothing is deregistered, no update waits
for a fork, and every fork that completes holds one whole generation."""
import json
import subprocess

import pytest

pytestmark = pytest.mark.needs_rdma


def run_updates(binary, updates, *arguments):
    """The figures of tests/programs/updating_seed.c."""
    program = binary.rsplit("/", 1)[0] + "/tests/updating_seed"
    done = subprocess.run([program, "--updates", str(updates), *arguments], capture_output=True, timeout=1200)
    assert done.stdout, done.stderr.decode()
    figures = json.loads(done.stdout)
    print(f"updates: {figures}")
    assert done.returncode == 0, (figures, done.stderr.decode())
    return figures


@pytest.mark.lab(devices="one", timeout=1300)
@pytest.mark.parametrize("transport, arguments", [
    ("rdma", ["--forks", "2", "--megabytes", "16"]),
    ("rdma", ["--forks", "5", "--megabytes", "8", "--random", "2"]),
    ("rdma,tcp", ["--forks", "2", "--megabytes", "16", "--random", "3"]),
])
def test_completed_forks_hold_one_generation(binary, full, transport, arguments):
    updates = 200 if full else 20
    figures = run_updates(binary, updates, "--transport", transport, *arguments)
    assert figures["torn"] == figures["corrupt"] == figures["mislabelled"] == 0
    assert figures["updates"] == updates and figures["last_generation"] == updates + 1
    assert figures["completed"] > updates // 4
    assert figures["failed"] <= max(1, figures["completed"] // 10), figures["first_failure"]
    # This kernel has one processor and dear system calls; a fork that is never done within the test reads all the time.
    assert figures["begin_p50_us"] < 100_000 and figures["begin_max_us"] < 2_000_000
