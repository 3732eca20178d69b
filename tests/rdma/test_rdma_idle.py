# SPDX-License-Identifier: Apache-2.0
"""What a seed spends: while it is read, while forks are connected and read nothing, and over thousands of them."""
import os
import time

import pytest

import fabric

pytestmark = pytest.mark.needs_rdma


def wakeups(seed):
    return fabric.metric(seed, "sprout_reactor_wakeups_total")


@pytest.mark.lab(devices="one", memory="3G", timeout=900)
def test_a_seed_sleeps_while_it_is_read(sprout, models, repeat):
    """Digests known: at most two wake-ups per heartbeat, none per read, and next to no processor time."""
    path = models("size:512MB")
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    seed = sprout.seed(path)
    seed.await_digests()
    forks = max(4, repeat(40))
    sprout.assert_by(sprout.fork(seed, "null:"), "rdma")
    woken, spent = wakeups(seed), fabric.cpu_seconds(seed.process.pid)
    for _ in range(forks):
        sprout.assert_by(sprout.fork(seed, "null:"), "rdma")
    spent = fabric.cpu_seconds(seed.process.pid) - spent
    woken = wakeups(seed) - woken
    total = size * forks
    print(f"seed while {total / 1e9:.1f} GB were read in {forks} forks: {spent * 1e3:.0f} ms of CPU, {woken:.0f} wake-ups")
    assert spent <= 0.1 * max(1.0, total / 20e9) + 0.02 * forks, "CPU"  # opening and closing a fork is not reading


@pytest.mark.lab(devices="one", memory="3G", timeout=300)
def test_a_long_read_wakes_the_seed_for_heartbeats_only(sprout, models):
    path = models("size:200MB")
    seed = sprout.seed(path)
    seed.await_digests()
    fork = sprout.start_fork(seed, "null:", "--max-rate", "20M")
    assert fork.await_line(lambda line: line.get("done_bytes", 0) > 20_000_000)
    woken, spent, beats = wakeups(seed), fabric.cpu_seconds(seed.process.pid), heartbeats(seed)
    assert fork.await_line(lambda line: line.get("done_bytes", 0) > 160_000_000)
    spent = fabric.cpu_seconds(seed.process.pid) - spent
    woken, beats = wakeups(seed) - woken, heartbeats(seed) - beats
    print(f"140 MB read: {woken:.0f} wake-ups, {beats:.0f} heartbeats, {spent * 1e3:.0f} ms of CPU")
    scrapes = 2  # of the counters themselves, each a connection, a request and its end
    assert woken <= 2 * beats + 4 * scrapes
    assert spent <= 0.1


def heartbeats(seed):
    return fabric.metric(seed, "sprout_http_requests_total", route="/v1/forks/{id}")


@pytest.mark.lab(devices="two", memory="3G", timeout=300)
def test_sixty_four_forks_that_read_nothing(sprout, models, full):
    path = models("size:50MB")
    seed = sprout.seed(path, "--max-forks", "64")
    seed.await_digests()
    forks = [sprout.start_fork(seed, "null:", "--max-rate", "1000") for _ in range(64)]
    for fork in forks:
        assert fork.await_line(lambda line: line.get("type") == "progress")
    while fabric.metric(seed, "sprout_seed_forks", state="running") < 64:
        assert all(fork.process.poll() is None for fork in forks)
        fabric.elapse(0.2)
    seconds = 60 if full else 15
    begun, spent = time.monotonic(), fabric.cpu_seconds(seed.process.pid)
    fabric.elapse(seconds)
    share = (fabric.cpu_seconds(seed.process.pid) - spent) / (time.monotonic() - begun)
    print(f"64 connected forks that read nothing: seed uses {share * 100:.2f}% of a core")
    assert len(fabric.resource_rows("qp", seed.process.pid)) >= 64
    for fork in forks:
        fork.kill()
    assert share < 0.01


@pytest.mark.lab(devices="two", timeout=1800)
def test_churn_leaves_nothing(sprout, models, repeat):
    """Forks that open, read and close, some of them killed: not one object, descriptor or page more at the end."""
    seed = sprout.seed(models("size:5MB"))

    def churn(count):
        for number in range(count):
            if number % 10 == 9:
                fork = sprout.start_fork(seed, "null:", "--max-rate", "1M")
                assert fork.await_line(lambda line: line.get("type") == "progress")
                fork.kill()
            else:
                sprout.assert_by(sprout.fork(seed, "null:"), "rdma")
            sprout.forks.clear()

    def state():
        await_no_fork(seed)
        pid = seed.process.pid
        return {"objects": {kind: len(fabric.resource_rows(kind, pid)) for kind in ("qp", "mr", "cq", "cm_id", "pd")},
                "all": fabric.resources(), "descriptors": fabric.descriptors(pid)}

    churn(repeat(2000) // 2)  # buffers and tables have the size that so much needs
    before, memory = state(), fabric.resident_bytes(seed.process.pid)
    churn(repeat(2000) // 2)
    after, grown = state(), fabric.resident_bytes(seed.process.pid) - memory
    print(f"{repeat(2000)} forks: {after['objects']}, {after['descriptors']} descriptors, {grown} bytes more")
    assert after == before
    assert grown <= 128 * 1024


def await_no_fork(seed):
    """Returns when the seed knows of no fork: leases of killed ones have ended."""
    deadline = time.monotonic() + 30
    while fabric.metric(seed, "sprout_seed_forks", state="running") > 0:
        assert time.monotonic() < deadline
        fabric.elapse(0.5)
    assert os.path.exists(f"/proc/{seed.process.pid}")
