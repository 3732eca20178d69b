# SPDX-License-Identifier: Apache-2.0
"""Forks that read a seed's memory over RDMA: whole, verified, over one device and several."""
import pathlib
import shutil

import pytest

import fabric
import harness

pytestmark = pytest.mark.needs_rdma


@pytest.mark.lab
class TestOneDevice:
    @pytest.mark.parametrize("spec", ["tiny", "size:50MB", "tensors:3000x8KiB", "tensors:40x1000003"])
    def test_copy_is_identical(self, sprout, models, tmp_path, spec):
        path = models(spec)
        seed = sprout.seed(path)
        done = sprout.fork(seed, tmp_path / "copy")
        sprout.assert_by(done, "rdma")
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    @pytest.mark.parametrize("memory", ["file", "host"])
    def test_both_kinds_of_memory(self, sprout, models, tmp_path, memory):
        seed = sprout.seed(models("size:50MB"), "--memory", memory)
        done = sprout.fork(seed, tmp_path / "copy")
        sprout.assert_by(done, "rdma")
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(models("size:50MB"))

    def test_bytes_come_by_reads_and_not_from_the_seed(self, sprout, models):
        path = models("size:50MB")
        seed = sprout.seed(path)
        before = fabric.counter("rx0", "rcvd_pkts")
        done = sprout.fork(seed, "null:")
        sprout.assert_by(done, "rdma")
        assert (fabric.counter("rx0", "rcvd_pkts") - before) * 4096 >= done.result["received_bytes"]
        assert fabric.metric(seed, "sprout_sent_bytes_total", transport="tcp") < 1 << 20

    def test_auto_takes_rdma(self, sprout, models):
        seed = sprout.seed(models("tiny"), transport="auto")
        sprout.assert_by(sprout.fork(seed, "null:", transport="auto"), "rdma")

    def test_tcp_stays_tcp(self, sprout, models):
        seed = sprout.seed(models("tiny"))
        sprout.assert_by(sprout.fork(seed, "null:", transport="tcp"), "tcp")

    def test_a_seed_without_rdma_is_read_over_tcp(self, sprout, models):
        seed = sprout.seed(models("tiny"), transport="tcp")
        sprout.assert_by(sprout.fork(seed, "null:", transport="auto"), "tcp")
        refused = sprout.fork(seed, "null:", transport="rdma")
        assert refused.exit == 4 and "transport" in refused.errors.lower(), refused

    def test_a_token_guards_rdma_as_well(self, sprout, models, tmp_path):
        (tmp_path / "token").write_text("secret-of-the-test\n")
        (tmp_path / "wrong").write_text("another\n")
        seed = sprout.seed(models("tiny"), "--token-file", tmp_path / "token")
        sprout.assert_by(sprout.fork(seed, "null:", "--token-file", tmp_path / "token"), "rdma")
        assert sprout.fork(seed, "null:", "--token-file", tmp_path / "wrong").exit == 3
        assert fabric.resource_rows("qp", seed.process.pid) == []

    def test_chosen_gid(self, sprout, models):
        seed = sprout.seed(models("tiny"), "--gid-index", "1")
        sprout.assert_by(sprout.fork(seed, "null:", "--gid-index", "1"), "rdma")

    def test_a_killed_fork_resumes(self, sprout, models, tmp_path):
        path = models("size:50MB")
        seed = sprout.seed(path)
        first = sprout.start_fork(seed, tmp_path / "copy", "--max-rate", "20M")
        assert first.await_line(lambda line: line.get("done_bytes", 0) > 15_000_000)
        first.kill()
        done = sprout.fork(seed, tmp_path / "copy")
        sprout.assert_by(done, "rdma")
        assert done.result["reused_bytes"] > 0
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_many_at_once(self, sprout, models, tmp_path):
        path = models("size:50MB")
        expected = harness.tree_hashes(path)
        seed = sprout.seed(path)
        forks = [sprout.start_fork(seed, tmp_path / f"copy{i}") for i in range(8)]
        for i, fork in enumerate(forks):
            sprout.assert_by(fork.wait(), "rdma")
            assert harness.tree_hashes(tmp_path / f"copy{i}") == expected
            shutil.rmtree(tmp_path / f"copy{i}")
        assert fabric.resource_rows("qp", seed.process.pid) == []

    def test_rate_limits_bind(self, sprout, models):
        """What a seed grants, and what a fork allows itself, holds for reads that the seed does not see."""
        path = models("size:50MB")
        for seed_options, fork_options in ((["--max-rate", "20M"], []), ([], ["--max-rate", "20M"])):
            seed = sprout.seed(path, *seed_options)
            done = sprout.fork(seed, "null:", *fork_options)
            sprout.assert_by(done, "rdma")
            assert 50 / 20 * 0.8 <= done.result["seconds"] <= 50 / 20 * 1.6, done

    def test_two_forks_share_a_limit(self, sprout, models):
        seed = sprout.seed(models("size:100MB"), "--max-rate", "20M")
        seed.await_digests()
        forks = [sprout.start_fork(seed, "null:") for _ in range(2)]
        results = [fork.wait() for fork in forks]
        for done in results:
            sprout.assert_by(done, "rdma")
        seconds = [done.result["seconds"] for done in results]
        assert max(seconds) >= 200 / 20 * 0.8 and max(seconds) / min(seconds) <= 1.4, seconds


@pytest.mark.lab(devices="two")
class TestTwoDevices:
    def test_copy_is_identical(self, sprout, models, tmp_path):
        path = models("size:100MB")
        seed = sprout.seed(path, device="rx0")
        before = fabric.counter("rx1", "rcvd_pkts")
        done = sprout.fork(seed, tmp_path / "copy", device="rx1")
        sprout.assert_by(done, "rdma")
        assert fabric.counter("rx1", "rcvd_pkts") - before > 20_000
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_devices_are_found(self, sprout, models):
        seed = sprout.seed(models("size:50MB"), device="auto")
        sprout.assert_by(sprout.fork(seed, "null:", device=None), "rdma")


@pytest.mark.lab(devices="four")
class TestFourDevices:
    def test_reads_are_striped(self, sprout, models, tmp_path):
        path = models("size:200MB")
        seed = sprout.seed(path, device="rx0,rx2")
        before = {name: fabric.counter(name, "rcvd_pkts") for name in ("rx1", "rx3")}
        done = sprout.fork(seed, tmp_path / "copy", device="rx1,rx3")
        sprout.assert_by(done, "rdma")
        moved = {name: fabric.counter(name, "rcvd_pkts") - count for name, count in before.items()}
        assert min(moved.values()) >= 0.25 * sum(moved.values()), moved
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_a_slow_device_gets_less(self, sprout, models):
        fabric.Link(2).disturb("rate", "400mbit", "limit", "20000")
        seed = sprout.seed(models("size:200MB"), device="rx0,rx2")
        before = {name: fabric.counter(name, "rcvd_pkts") for name in ("rx1", "rx3")}
        done = sprout.fork(seed, "null:", device="rx1,rx3")
        sprout.assert_by(done, "rdma")
        moved = {name: fabric.counter(name, "rcvd_pkts") - count for name, count in before.items()}
        assert moved["rx3"] < 0.4 * moved["rx1"], moved

    def test_two_seeds_on_two_devices(self, sprout, models, tmp_path):
        path = models("size:200MB")
        seeds = [sprout.seed(path, device="rx0"), sprout.seed(path, device="rx2")]
        done = sprout.fork(seeds, tmp_path / "copy", device="rx1,rx3")
        sprout.assert_by(done, "rdma", "rdma")
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)


@pytest.mark.lab(devices="two", memory="3G", timeout=240)
def test_under_address_sanitizer(tmp_path, models):
    program = fabric.ROOT / "build" / "asan" / "sprout"
    if not program.exists():
        pytest.skip("no build/asan/sprout")
    path = models("size:20MB")
    world = fabric.World(str(program), tmp_path)
    try:
        seed = world.seed(path)
        world.assert_by(world.fork(seed, tmp_path / "copy"), "rdma")
        world.assert_by(world.fork(seed, "null:", transport="auto"), "rdma")
        lost = world.start_fork(seed, "null:", "--max-rate", "5M", "--stall-timeout", "1s")
        assert lost.await_line(lambda line: line.get("done_bytes", 0) > 0)
        fabric.Link(1).cut()
        assert lost.wait().exit == 4
        seed.process.terminate()
        assert seed.process.wait(60) == 0, seed.text()
        assert "Sanitizer" not in seed.text()
    finally:
        world.close()
        fabric.mend()
    assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(pathlib.Path(path))
