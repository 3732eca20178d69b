# SPDX-License-Identifier: Apache-2.0
"""Machines and users that cannot have RDMA, or not as much of it: one clear sentence, and auto goes on over TCP."""
import os
import pathlib
import re
import subprocess

import pytest

import fabric
import harness

pytestmark = pytest.mark.needs_rdma
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def as_nobody(binary, tmp_path, memlock=None):
    """Path of a program that runs sprout as an ordinary user, perhaps with a limit of locked memory in KiB."""
    path = tmp_path / "sprout-as-nobody"
    limit = f"ulimit -l {memlock}\n" if memlock is not None else ""
    path.write_text(f'#!/bin/bash\n{limit}exec {" ".join(NOBODY)} {binary} "$@"\n')
    path.chmod(0o755)
    for directory in (tmp_path, *tmp_path.parents):
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    return str(path)


def said_once(text, *words):
    """One line of complaint that has all these words, and a remedy."""
    lines = [line for line in text.splitlines() if all(re.search(word, line, re.I) for word in words)]
    assert len(lines) >= 1, text


@pytest.fixture
def wide_open(models):
    """models, readable for everybody."""
    def make(spec):
        path = models(spec)
        for directory in (path, *path.parents):
            if str(directory).startswith("/tmp/"):
                directory.chmod(0o755)
        return path
    return make


@pytest.mark.lab(devices="two")
class TestLockedMemory:
    """RLIMIT_MEMLOCK of an ordinary user, which root passes by."""

    def test_a_fork_with_little_falls_back(self, sprout, wide_open, binary, tmp_path):
        seed = sprout.seed(wide_open("size:50MB"))
        sprout.binary = as_nobody(binary, tmp_path, memlock=64)
        sprout.assert_fell_back(sprout.fork(seed, "null:", transport="auto"))

    def test_a_fork_with_little_that_wants_only_rdma_says_why(self, sprout, wide_open, binary, tmp_path):
        seed = sprout.seed(wide_open("size:50MB"))
        sprout.binary = as_nobody(binary, tmp_path, memlock=64)
        done = sprout.fork(seed, "null:")
        assert done.exit in (4, 6), done
        said_once(done.errors, "MEMLOCK|ulimit -l|locked memory")

    def test_a_seed_with_little_falls_back(self, sprout, wide_open, binary, tmp_path):
        sprout.binary = as_nobody(binary, tmp_path, memlock=1024)
        seed = sprout.seed(wide_open("size:50MB"), transport="auto")
        sprout.binary = binary
        done = sprout.fork(seed, "null:", transport="auto")
        sprout.assert_by(done, "tcp")
        said_once(seed.text(), "MEMLOCK|ulimit -l|locked memory")

    def test_enough_is_enough(self, sprout, wide_open, binary, tmp_path):
        sprout.binary = as_nobody(binary, tmp_path, memlock=256 * 1024)
        seed = sprout.seed(wide_open("size:50MB"))
        sprout.assert_by(sprout.fork(seed, "null:"), "rdma")


@pytest.mark.lab(devices="two", fresh=True)
def test_device_files_that_may_not_be_opened(sprout, wide_open, binary, tmp_path):
    seed = sprout.seed(wide_open("tiny"))
    for path in pathlib.Path("/dev/infiniband").iterdir():
        path.chmod(0o600)
    sprout.binary = as_nobody(binary, tmp_path)
    done = sprout.fork(seed, "null:")
    assert done.exit in (4, 6), done
    said_once(done.errors, "/dev/infiniband|permission|may not")
    sprout.assert_fell_back(sprout.fork(seed, "null:", transport="auto"))


@pytest.mark.lab(devices="two", fresh=True)
class TestObjects:
    """A limit of verbs objects, as containers have it: registering or connecting fails in the middle."""

    GROUP = pathlib.Path("/sys/fs/cgroup/few")

    @pytest.mark.parametrize("objects", [1, 2, 3, 4, 6, 8])
    def test_a_fork_with_few_falls_back(self, sprout, models, binary, tmp_path, objects):
        (self.GROUP.parent / "cgroup.subtree_control").write_text("+rdma")
        self.GROUP.mkdir(exist_ok=True)
        (self.GROUP / "rdma.max").write_text(f"rx1 hca_object={objects}")
        program = tmp_path / "sprout-with-few"
        program.write_text(f'#!/bin/bash\necho $$ >{self.GROUP}/cgroup.procs\nexec {binary} "$@"\n')
        program.chmod(0o755)
        seed = sprout.seed(models("size:50MB"))
        sprout.binary = str(program)
        done = sprout.fork(seed, "null:", transport="auto")
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done
        sprout.binary = binary
        sprout.assert_by(sprout.fork(seed, "null:"), "rdma")


@pytest.mark.lab(devices="two", fresh=True)
def test_a_receiver_that_runs_out_of_memory(sprout, models, binary, tmp_path):
    """It is killed by the kernel; the seed and another fork do not mind, and its queue pair goes."""
    group = pathlib.Path("/sys/fs/cgroup/small")
    (group.parent / "cgroup.subtree_control").write_text("+memory")
    group.mkdir()
    (group / "memory.max").write_text("24M")
    program = tmp_path / "sprout-in-24M"
    program.write_text(f'#!/bin/bash\necho $$ >{group}/cgroup.procs\nexec {binary} "$@"\n')
    program.chmod(0o755)
    path = models("size:100MB")
    seed = sprout.seed(path)
    seed.await_digests()
    steady = sprout.start_fork(seed, tmp_path / "steady", "--max-rate", "30M")
    sprout.binary = str(program)
    starved = sprout.start_fork(seed, tmp_path / "starved")
    done = starved.wait()
    assert done.exit != 0, done
    sprout.assert_by(steady.wait(), "rdma")
    assert harness.tree_hashes(tmp_path / "steady") == harness.tree_hashes(path)
    sprout.binary = binary
    sprout.assert_by(sprout.fork(seed, "null:"), "rdma")


@pytest.mark.lab(devices="one")
class TestNames:
    def test_a_device_that_is_not_there(self, sprout, models):
        seed = sprout.seed(models("tiny"))
        done = sprout.fork(seed, "null:", device="mlx5_7")
        assert done.exit in (2, 6), done
        said_once(done.errors, "mlx5_7", "rx0")

    def test_a_gid_index_that_is_not_there(self, sprout, models):
        seed = sprout.seed(models("tiny"))
        done = sprout.fork(seed, "null:", "--gid-index", "250")
        assert done.exit in (2, 4, 6), done
        said_once(done.errors, "gid index")


class TestNoDevice:
    """Outside the lab: what a laptop has."""

    @pytest.fixture
    def plain(self, binary, tmp_path):
        if pathlib.Path("/sys/class/infiniband").exists() and fabric.devices():
            pytest.skip("this machine has RDMA devices")
        subprocess.run([binary, "synth", "tiny", tmp_path / "model", "-q"], check=True)
        world = harness.World(binary, tmp_path)
        yield world, tmp_path / "model"
        world.close()

    def test_auto_is_tcp(self, plain):
        world, model = plain
        seed = world.seed(model, "--transport", "auto")
        done = world.fork(seed, "null:", "--transport", "auto")
        assert done.exit == 0 and done.result["sources"][0].get("transport", "tcp") == "tcp", done

    @pytest.mark.parametrize("transport", ["rdma", "rdma,tcp"])
    def test_rdma_by_name_says_what_is_missing(self, plain, transport):
        world, model = plain
        seed = world.run("seed", model, "--listen", "127.0.0.1:0", "--transport", transport)
        assert seed.returncode in (2, 6), seed
        said_once(seed.stderr.decode(), "rdma", "device|libibverbs|module")
        assert len(seed.stderr.decode().strip().splitlines()) <= 2, seed
        fork = world.fork(world.seed(model), "null:", "--transport", transport)
        assert fork.exit in (2, 4, 6), fork
        said_once(fork.errors, "rdma|device")


@pytest.mark.lab(devices="one", fresh=True)
def test_without_verbs_libraries(sprout, models):
    """Where no verbs library is installed the program starts, serves and forks over TCP, and says why no RDMA."""
    moved = 0
    for pattern in ("libibverbs.so*", "librdmacm.so*"):
        for directory in ("/usr/lib", "/lib", "/usr/lib64"):
            for path in pathlib.Path(directory).glob(f"*/{pattern}"):
                os.rename(path, f"{path}.away")
                moved += 1
    assert moved
    assert sprout.run("--version").returncode == 0
    seed = sprout.seed(models("tiny"), transport="auto", device=None)
    done = sprout.fork(seed, "null:", transport="auto", device=None)
    sprout.assert_by(done, "tcp")
    done = sprout.fork(seed, "null:", transport="rdma", device=None)
    assert done.exit in (2, 4, 6), done
    said_once(done.errors, "libibverbs|librdmacm|verbs")
