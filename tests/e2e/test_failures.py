# SPDX-License-Identifier: Apache-2.0
"""Sources that stop, die or restart; forks that are killed; disks that fill up."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

from harness import tree_hashes

BIG = "size:200MB"


def test_stopped_seed_single_source(sprout, models):
    """The fork ends with exit 4 within stall-timeout + 1 s, and has waited asleep."""
    seed = sprout.seed(models(BIG), "--max-rate", "100M")
    stopped_at = []

    def stop():
        seed.stop()
        stopped_at.append(time.monotonic())

    tap = sprout.tap(seed, limit=50_000_000, action=stop)
    fork = sprout.start_fork(tap, "null:", "--stall-timeout", "2s")
    assert tap.acted.wait(30)
    before = cpu_seconds(fork.process.pid)
    done, spent = fork.wait_with_usage()
    took = time.monotonic() - stopped_at[0]
    spent -= before
    print(f"stopped seed: fork ended after {took:.2f} s (stall-timeout 2 s), {spent:.3f} CPU-s")
    assert done.exit == 4, done
    assert took <= 3.0
    assert spent <= 0.1


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_two_seeds_one_lost_at_a_random_byte(sprout, models, repeat, tmp_path):
    """Killed or stopped anywhere, the other source completes the fork, verified."""
    path = models("size:50MB")
    total = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    expected = tree_hashes(path)
    steady = sprout.seed(path)
    switched = 0
    for run in range(repeat(100)):
        victim = sprout.seed(path)
        action = victim.kill if run % 2 == 0 else victim.stop
        tap = sprout.tap(victim, limit=sprout.random.randrange(1, total // 2), action=action)
        destination = tmp_path / f"copy{run}" if run % 5 == 0 else "null:"
        done = sprout.fork([tap, steady], destination, "--stall-timeout", "500ms")
        assert done.exit == 0, (run, done)
        assert done.result["verified"], (run, done)
        if run % 5 == 0:
            assert tree_hashes(destination) == expected
            shutil.rmtree(destination)
        switched += tap.acted.is_set()
        tap.close()
        victim.end()
    print(f"two seeds: {repeat(100)} of {repeat(100)} complete and verified, {switched} lost mid-way")
    assert switched >= repeat(100) // 2


def test_killed_fork_resumes(sprout, models, repeat, tmp_path):
    """Killed at random and started again: identical files, and only missing chunks are read again."""
    path = models("size:50MB")
    total = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    expected = tree_hashes(path)
    seed = sprout.seed(path)
    seed.await_digests()
    chunk = 4 << 20
    resumed = 0
    for run in range(repeat(50)):
        copy = tmp_path / "copy"
        limit = sprout.random.randrange(1, total)
        fork = None
        tap = sprout.tap(seed, limit=limit, action=lambda: fork_holder[0].process.kill())
        fork_holder = []
        gate = sprout.start_fork(tap, copy)
        fork_holder.append(gate)
        gate.process.wait(60)
        gate.end()
        assert not any(p.suffix == ".safetensors" for p in copy.glob("*")) or gate.process.returncode == 0 \
            or tree_is_part(copy, expected)
        again = sprout.fork(seed, copy)
        assert again.exit == 0, (run, again)
        assert tree_hashes(copy) == expected
        assert again.result["reused_bytes"] + again.result["received_bytes"] <= total + 2 * chunk
        resumed += again.result["reused_bytes"] > 0
        tap.close()
        shutil.rmtree(copy)
    print(f"killed fork: {repeat(50)} of {repeat(50)} identical after restart, {resumed} reused chunks")
    assert resumed >= repeat(50) // 3


def tree_is_part(directory, expected):
    """Whatever has its final name is whole."""
    found = {name: value for name, value in tree_hashes(directory).items() if not name.startswith(".sprout")}
    return all(expected[name] == value for name, value in found.items())


def test_killed_seed_restarts(sprout, models, tmp_path):
    path = models("size:50MB")
    seed = sprout.seed(path)
    tap = sprout.tap(seed, limit=20_000_000, action=seed.kill)
    broken = sprout.fork(tap, tmp_path / "copy")
    assert broken.exit == 4, broken
    second = sprout.seed(path)
    done = sprout.fork(second, tmp_path / "copy")
    assert done.exit == 0 and done.result["reused_bytes"] > 0, done
    assert tree_hashes(tmp_path / "copy") == tree_hashes(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_full_disk_then_freed(sprout, models):
    """A full destination is exit 6 with the sizes; after room was made the same command completes."""
    path = models("size:50MB")
    seed = sprout.seed(path)
    mount = pathlib.Path(tempfile.mkdtemp(prefix="sprout-full-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", mount], check=True)
    try:
        (mount / "ballast").write_bytes(os.urandom(40 << 20))
        full = sprout.fork(seed, mount / "copy")
        assert full.exit == 6, full
        assert "space" in full.errors.lower() or "full" in full.errors.lower()
        (mount / "ballast").unlink()
        done = sprout.fork(seed, mount / "copy")
        assert done.exit == 0, done
        assert tree_hashes(mount / "copy") == tree_hashes(path)
    finally:
        subprocess.run(["umount", mount], check=True)
        mount.rmdir()


def test_interrupt_keeps_what_is_there(sprout, models, tmp_path):
    path = models(BIG)
    seed = sprout.seed(path, "--max-rate", "100M")
    fork = sprout.start_fork(seed, tmp_path / "copy")
    assert fork.await_line(lambda line: line.get("done_bytes", 0) > 30_000_000)
    fork.process.send_signal(signal.SIGINT)
    done = fork.wait()
    assert done.exit == 130 and done.result["result"] == "cancelled", done
    unlimited = sprout.seed(path)
    again = sprout.fork(unlimited, tmp_path / "copy")
    assert again.exit == 0 and again.result["reused_bytes"] >= 20_000_000, again


def test_two_forks_into_one_directory(sprout, models, tmp_path):
    seed = sprout.seed(models(BIG), "--max-rate", "50M")
    first = sprout.start_fork(seed, tmp_path / "copy")
    assert first.await_line(lambda line: line.get("done_bytes", 0) > 0)
    second = sprout.fork(seed, tmp_path / "copy")
    assert second.exit == 75, second


def test_drain_lets_running_forks_finish(sprout, models):
    seed = sprout.seed(models("size:100MB"), "--max-rate", "100M")
    fork = sprout.start_fork(seed, "null:")
    assert fork.await_line(lambda line: line.get("received_bytes", 0) > 0)
    seed.signal(signal.SIGTERM)
    late = sprout.fork(seed, "null:", "--wait", "0s")
    assert late.exit in (4, 75), late
    assert fork.wait().exit == 0
    assert seed.process.wait(30) == 0


def test_second_signal_ends_the_seed_at_once(sprout, models):
    seed = sprout.seed(models("size:100MB"), "--max-rate", "1M")
    fork = sprout.start_fork(seed, "null:")
    assert fork.await_line(lambda line: line.get("received_bytes", 0) > 0)
    seed.signal(signal.SIGTERM)
    begun = time.monotonic()
    while seed.process.poll() is None and time.monotonic() - begun < 5:
        seed.signal(signal.SIGTERM)
        os.sched_yield()
    assert time.monotonic() - begun < 1.5
    assert fork.wait().exit == 4


def test_nobody_there(sprout):
    done = sprout.fork("http://127.0.0.1:1", "null:")
    assert done.exit == 4 and "127.0.0.1:1" in done.errors


def test_stopped_fork_goes_on(sprout, models):
    """A fork that was itself stopped for longer than the stall-timeout does not blame its source."""
    seed = sprout.seed(models(BIG), "--max-rate", "100M")
    fork = sprout.start_fork(seed, "null:", "--stall-timeout", "500ms")
    assert fork.await_line(lambda line: line.get("received_bytes", 0) > 0)
    fork.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, fork.process.pid, os.WSTOPPED | os.WNOWAIT)
    # The pause is measured by a clock that the test owns: a request that the seed answers after one second.
    seed.request("GET", "/v1/manifest?after=&wait=1s")
    fork.process.send_signal(signal.SIGCONT)
    assert fork.wait().exit == 0
