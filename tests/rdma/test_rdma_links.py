# SPDX-License-Identifier: Apache-2.0
"""Links that lose packets, go away for a moment, or for good."""
import time

import pytest

import fabric
import harness

pytestmark = pytest.mark.needs_rdma
STALL_S = 2


def begun(fork, bytes_done):
    """Waits until the fork has so many bytes; fails if it ends before."""
    line = fork.await_line(lambda line: line.get("type") == "progress" and line["done_bytes"] >= bytes_done)
    assert line, fork.wait()
    return line


@pytest.mark.lab(devices="two", timeout=180)
class TestDisturbed:
    @pytest.mark.parametrize("end", [0, 1])
    def test_one_percent_loss(self, sprout, models, tmp_path, end):
        """Requests or answers are lost: the fork is complete, over RDMA."""
        path = models("size:50MB")
        seed = sprout.seed(path)
        fabric.Link(end).disturb("loss", "1%")
        done = sprout.fork(seed, tmp_path / "copy", timeout=150)
        sprout.assert_by(done, "rdma")
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_short_flap(self, sprout, models, tmp_path):
        """Nothing passes for 150 ms, again and again."""
        path = models("size:100MB")
        seed = sprout.seed(path)
        fork = sprout.start_fork(seed, tmp_path / "copy", "--max-rate", "40M")
        for bytes_done in (10_000_000, 40_000_000, 70_000_000):
            begun(fork, bytes_done)
            fabric.Link(1).flap(0.15)
        done = fork.wait()
        sprout.assert_by(done, "rdma")
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_loss_while_connecting(self, sprout, models):
        """Half of the packets are lost: connections take longer or are made again."""
        seed = sprout.seed(models("tiny"))
        fabric.Link(0).disturb("loss", "50%")
        fork = sprout.start_fork(seed, "null:", transport="auto", )
        fabric.elapse(0.5)
        fabric.Link(0).calm()
        done = fork.wait()
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done

    def test_reordered_and_doubled_packets(self, sprout, models, tmp_path):
        path = models("size:20MB")
        seed = sprout.seed(path)
        fabric.Link(0).disturb("delay", "1ms", "reorder", "2%", "duplicate", "1%", "limit", "20000")
        done = sprout.fork(seed, tmp_path / "copy", timeout=150)
        sprout.assert_by(done, "rdma")
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)


@pytest.mark.lab(devices="two", timeout=120)
class TestDownForGood:
    def test_the_seed_is_read_over_tcp_instead(self, sprout, models, tmp_path):
        """auto: its other way is taken, with a warning and a count."""
        path = models("size:100MB")
        seed = sprout.seed(path, "--max-rate", "40M")
        fork = sprout.start_fork(seed, tmp_path / "copy", "--stall-timeout", f"{STALL_S}s", transport="auto")
        begun(fork, 20_000_000)
        fabric.Link(1).cut()
        done = fork.wait()
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done
        assert fabric.fallbacks(done) >= 1 and "rdma" in done.errors.lower(), done
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_another_seed_on_tcp_takes_over(self, sprout, models, tmp_path):
        path = models("size:100MB")
        seed = sprout.seed(path, "--max-rate", "40M", transport="rdma")
        standby = sprout.seed(path, transport="tcp", device=None)
        took, done = self.lose_first(sprout, seed, standby, tmp_path, transport="auto")
        print(f"link down, TCP standing by: cost {took:.2f} s (stall-timeout {STALL_S} s)")
        assert took <= STALL_S + 1
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)
        assert done.result["sources"][1]["received_bytes"] > 0

    def test_alone_it_ends_clearly(self, sprout, models, tmp_path):
        path = models("size:100MB")
        seed = sprout.seed(path, "--max-rate", "40M")
        fork = sprout.start_fork(seed, tmp_path / "copy", "--stall-timeout", f"{STALL_S}s")
        begun(fork, 20_000_000)
        fabric.Link(1).cut()
        down_at = time.monotonic()
        done = fork.wait()
        assert done.exit == 4 and time.monotonic() - down_at <= STALL_S + 3, done
        fabric.Link(1).join()
        again = sprout.fork(sprout.seed(path), tmp_path / "copy")
        sprout.assert_by(again, "rdma")
        assert again.result["reused_bytes"] > 0
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_other_forks_do_not_mind(self, sprout, models):
        """One that waits for a dead link costs the seed nothing, and others go on."""
        path = models("size:100MB")
        seed = sprout.seed(path, "--max-rate", "40M", device="rx0")
        lost = sprout.start_fork(seed, "null:", "--stall-timeout", "1s", device="rx1")
        begun(lost, 10_000_000)
        fabric.Link(1).cut()
        assert lost.wait().exit == 4
        fabric.Link(1).join()
        sprout.assert_by(sprout.fork(seed, "null:", device="rx1"), "rdma")
        assert fabric.resource_rows("qp", seed.process.pid) == []

    @staticmethod
    def lose_first(sprout, seed, standby, tmp_path, **options):
        """Takes the link of the first source away. (seconds that this cost: until the end, less what the rest takes at the
        fork's rate; the fork's result)"""
        rate = 40_000_000
        fork = sprout.start_fork([seed, standby], tmp_path / "copy", "--stall-timeout", f"{STALL_S}s", "--max-rate", str(rate),
                                 **options)
        line = begun(fork, 20_000_000)
        fabric.Link(1).cut()
        down_at = time.monotonic()
        done = fork.wait()
        cost = time.monotonic() - down_at - (line["total_bytes"] - line["done_bytes"]) / rate
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done
        return cost, done


@pytest.mark.lab(devices="four", timeout=120)
class TestDownWithAnotherDevice:
    def test_another_seed_on_the_other_device_takes_over(self, sprout, models, tmp_path):
        path = models("size:100MB")
        seed = sprout.seed(path, device="rx0", transport="rdma")
        standby = sprout.seed(path, device="rx2", transport="rdma")
        took, _ = TestDownForGood.lose_first(sprout, seed, standby, tmp_path, device="rx1,rx3")
        print(f"link down, other device standing by: cost {took:.2f} s (stall-timeout {STALL_S} s)")
        assert took <= STALL_S + 1
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_one_seed_on_both_devices_goes_on_over_the_other(self, sprout, models, tmp_path):
        path = models("size:100MB")
        seed = sprout.seed(path, "--max-rate", "40M", device="rx0,rx2")
        fork = sprout.start_fork(seed, tmp_path / "copy", "--stall-timeout", f"{STALL_S}s", device="rx1,rx3")
        begun(fork, 20_000_000)
        fabric.Link(1).cut()
        done = fork.wait()
        sprout.assert_by(done, "rdma")
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_a_device_that_is_down_is_not_chosen(self, sprout, models):
        fabric.Link(0).cut()
        seed = sprout.seed(models("tiny"), device="auto")
        sprout.assert_by(sprout.fork(seed, "null:", device="auto"), "rdma")
        assert fabric.metric(seed, "sprout_rdma_port_up", device="rx2") == 1


@pytest.mark.lab(devices="two", timeout=121)  # a guest of its own: its devices are of no more use afterwards
class TestSwitchedOff:
    def test_an_interface_that_is_switched_off(self, sprout, models, tmp_path):
        """Soft-RoCE then fails at once and for ever: the rest comes over TCP."""
        path = models("size:100MB")
        seed = sprout.seed(path, "--max-rate", "40M")
        fork = sprout.start_fork(seed, tmp_path / "copy", transport="auto")
        begun(fork, 20_000_000)
        fabric.Link(1).down()
        done = fork.wait()
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done
        assert fabric.fallbacks(done) >= 1, done
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)
