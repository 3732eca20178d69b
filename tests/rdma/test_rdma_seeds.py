# SPDX-License-Identifier: Apache-2.0
"""Seeds that are killed, stopped or started again while their memory is read."""
import shutil
import signal

import pytest

import fabric
import harness

pytestmark = pytest.mark.needs_rdma


def begun(fork, bytes_done):
    """Waits until the fork has so many bytes; fails if it ends before."""
    assert fork.await_line(lambda line: line.get("type") == "progress" and line["done_bytes"] >= bytes_done), fork.wait()


@pytest.mark.lab(devices="two", timeout=900)
def test_killed_at_a_random_point_with_another_on_tcp(sprout, models, repeat, tmp_path):
    """Whenever the seed dies, the one that stands by completes the fork, verified."""
    path = models("size:20MB")
    expected = harness.tree_hashes(path)
    standby = sprout.seed(path, transport="tcp", device=None)
    standby.await_digests()
    lost = 0
    for run in range(repeat(100)):
        victim = sprout.seed(path, transport="rdma")
        destination = tmp_path / "copy" if run % 5 == 0 else "null:"
        fork = sprout.start_fork([victim, standby], destination, "--max-rate", "40M", "--stall-timeout", "1s",
                                 transport="auto")
        fabric.elapse(sprout.random.uniform(0.0, 0.7))
        lost += fork.process.poll() is None
        victim.kill()
        done = fork.wait()
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", (run, done)
        if destination != "null:":
            assert harness.tree_hashes(destination) == expected, run
            shutil.rmtree(destination)
        victim.end()
    print(f"seed killed: {repeat(100)} of {repeat(100)} complete and verified, {lost} while the fork ran")
    assert lost >= repeat(100) // 2
    assert fabric.resource_rows("qp") == []


@pytest.mark.lab(devices="two")
class TestStopped:
    def test_another_seed_takes_over(self, sprout, models, tmp_path):
        """A stopped seed answers no heartbeat: no read is posted after its lease, and the other one completes."""
        path = models("size:200MB")
        seed = sprout.seed(path, transport="rdma")
        standby = sprout.seed(path, transport="tcp", device=None)
        fork = sprout.start_fork([seed, standby], tmp_path / "copy", "--max-rate", "15M", transport="auto")
        begun(fork, 10_000_000)
        seed.stop()
        done = fork.wait(90)
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done
        first, second = done.result["sources"]
        assert first["state"] == "dropped" and second["received_bytes"] > 0, done
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_a_short_stop_is_not_noticed(self, sprout, models):
        """Reads need nothing from the seed's processor."""
        seed = sprout.seed(models("size:50MB"))
        seed.await_digests()
        fork = sprout.start_fork(seed, "null:", "--max-rate", "20M")
        begun(fork, 5_000_000)
        seed.stop()
        assert fork.await_line(lambda line: line.get("done_bytes", 0) > 25_000_000), fork.wait()
        seed.resume()
        sprout.assert_by(fork.wait(), "rdma")

    def test_alone_it_ends_clearly(self, sprout, models):
        seed = sprout.seed(models("size:200MB"))
        fork = sprout.start_fork(seed, "null:", "--max-rate", "10M")
        begun(fork, 5_000_000)
        seed.stop()
        done = fork.wait()
        assert done.exit == 4 and done.seconds < 20, done

    def test_the_seed_lets_go_of_a_stopped_fork(self, sprout, models):
        """Its lease ends: its queue pair is gone, others are served."""
        seed = sprout.seed(models("size:50MB"))
        seed.await_digests()
        fork = sprout.start_fork(seed, "null:", "--max-rate", "5M")
        begun(fork, 1)
        assert len(fabric.resource_rows("qp", seed.process.pid)) >= 1
        fork.process.send_signal(signal.SIGSTOP)
        status = seed.get_json("/v1/status")
        assert status
        sprout.assert_by(sprout.fork(seed, "null:"), "rdma")
        fabric.elapse(13)  # lease of 10 s, looked at once a second
        assert fabric.resource_rows("qp", seed.process.pid) == []
        fork.process.send_signal(signal.SIGCONT)
        done = fork.wait()
        assert done.exit in (0, 4), done  # reads refused: it opens again, or gives up


@pytest.mark.lab(devices="two")
class TestRestarted:
    def test_the_same_fork_goes_on_with_the_next_process(self, sprout, models, tmp_path):
        path = models("size:50MB")
        seed = sprout.seed(path)
        fork = sprout.start_fork(seed, tmp_path / "copy", "--max-rate", "20M")
        begun(fork, 10_000_000)
        seed.kill()
        second = sprout.seed(path, port=seed.port)
        first = fork.wait()
        assert first.exit in (0, 4), first
        if first.exit != 0:
            done = sprout.fork(second, tmp_path / "copy")
            sprout.assert_by(done, "rdma")
            assert done.result["reused_bytes"] > 0
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_a_drain_lets_forks_finish(self, sprout, models):
        seed = sprout.seed(models("size:50MB"), "--drain-timeout", "20s")
        fork = sprout.start_fork(seed, "null:", "--max-rate", "20M")
        begun(fork, 5_000_000)
        seed.signal(signal.SIGTERM)
        sprout.assert_by(fork.wait(), "rdma")
        assert seed.process.wait(30) == 0

    def test_a_second_signal_ends_it_with_forks_connected(self, sprout, models):
        seed = sprout.seed(models("size:50MB"))
        fork = sprout.start_fork(seed, "null:", "--max-rate", "5M", "--stall-timeout", "1s")
        begun(fork, 1)
        seed.signal(signal.SIGTERM)
        assert seed.process.stdout.readline()  # it drains
        fabric.elapse(0.5)  # two signals at once count as one
        seed.signal(signal.SIGTERM)
        seed.process.wait(20)
        assert fork.wait().exit == 4
        assert fabric.resource_rows("qp") == []
