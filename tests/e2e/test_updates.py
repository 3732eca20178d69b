# SPDX-License-Identifier: Apache-2.0
"""A running seed whose bytes change: every fork that completes holds one whole generation, and no update waits for a fork."""
import json
import subprocess

from test_api import program


def run_updates(binary, updates, *arguments, timeout=900):
    """The figures of `updating_seed`; also used over other transports."""
    done = subprocess.run([program(binary, "updating_seed"), "--updates", str(updates), *arguments],
                          capture_output=True, timeout=timeout)
    assert done.stdout, done.stderr.decode()
    figures = json.loads(done.stdout)
    print(f"updates: {figures}")
    assert done.returncode == 0, (figures, done.stderr.decode())
    return figures


def check(figures, updates):
    assert figures["torn"] == figures["corrupt"] == figures["mislabelled"] == 0
    assert figures["updates"] == updates and figures["last_generation"] == updates + 1
    assert figures["completed"] > updates // 4
    # Forks are cut off again and again; hardly any is so unlucky that it gives up.
    assert figures["failed"] <= max(1, figures["completed"] // 10), figures["first_failure"]
    # A fork that reads too slowly to end within the test has bodies under way at each of them.
    assert figures["begin_p50_us"] < 50_000 and figures["begin_max_us"] < 1_000_000


def test_completed_forks_hold_one_generation(binary, full):
    updates = 200 if full else 20
    check(run_updates(binary, updates), updates)


def test_many_forks_and_small_models(binary, full):
    """Short forks: updates hit the opening, the first and the last read, and the wait for digests."""
    updates = 200 if full else 40
    check(run_updates(binary, updates, "--forks", "6", "--megabytes", "8", "--random", "2"), updates)
