# SPDX-License-Identifier: Apache-2.0
"""The lab itself: what `run` promises, and that the guest has what the other tests build on."""
import base64
import json
import os
import pathlib
import resource
import subprocess

import pytest

import fabric
import harness

RUN = fabric.LAB / "run"


def lab(*command, **environment):
    """Runs a command in a guest of its own."""
    return subprocess.run([str(RUN), *command], capture_output=True, timeout=120, env={**os.environ, **environment})


@pytest.mark.lab
class TestInside:
    def test_a_guest_is_a_small_machine(self):
        assert os.geteuid() == 0 and os.uname().nodename == "lab"
        assert os.cpu_count() == 1
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == 1024 and hard >= 100_000
        for path in ("/dev/shm/file", "/tmp/file", "/var/tmp/file"):
            pathlib.Path(path).write_bytes(b"x" * 4096)
        assert os.stat("/dev/infiniband/uverbs0").st_mode & 0o666 == 0o666

    def test_resources_can_be_listed(self):
        assert fabric.devices() == ["rx0"]
        assert fabric.resources()["rx0"]["mr"] == 0
        for kind in ("qp", "mr", "cq", "cm_id", "pd"):
            assert fabric.resource_rows(kind, os.getpid()) == []
        assert fabric.counter("rx0", "rcvd_pkts") >= 0

    def test_memory_can_be_limited(self):
        group = pathlib.Path("/sys/fs/cgroup/small")
        assert {"memory", "pids", "rdma"} <= set((group.parent / "cgroup.controllers").read_text().split())
        (group.parent / "cgroup.subtree_control").write_text("+memory +pids +rdma")
        group.mkdir()
        (group / "memory.max").write_text("16M")
        (group / "rdma.max").write_text("rx0 hca_object=3")
        eat = "import os; open('/sys/fs/cgroup/small/cgroup.procs', 'w').write(str(os.getpid())); b'x' * (64 << 20)"
        assert subprocess.run(["python3", "-c", eat]).returncode == -9
        group.rmdir()

    def test_seed_and_fork_over_tcp(self, sprout, models, tmp_path):
        path = models("size:20MB")
        seed = sprout.seed(path, transport="tcp")
        done = sprout.fork(seed, tmp_path / "copy", transport="tcp")
        assert done.exit == 0, done
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)

    def test_program_under_address_sanitizer(self, tmp_path):
        program = fabric.ROOT / "build" / "asan" / "sprout"
        if not program.exists():
            pytest.skip("no build/asan/sprout")
        world = fabric.World(str(program), tmp_path)
        try:
            world.run("synth", "size:2MB", tmp_path / "model", "-q")
            done = world.fork(world.seed(tmp_path / "model", transport="tcp"), "null:", transport="tcp")
            assert done.exit == 0, done
        finally:
            world.close()


@pytest.mark.lab(devices="four")
class TestPairs:
    def test_every_link_carries_reads(self):
        """A server on each even device; clients on odd ones read from it, across the wire."""
        assert fabric.devices() == ["rx0", "rx1", "rx2", "rx3"]
        for seed, fork in (("rx0", "rx1"), ("rx2", "rx3")):
            before = fabric.counter(fork, "rcvd_pkts")
            read_some(seed, fork)
            assert fabric.counter(fork, "rcvd_pkts") - before > 50

    def test_links_can_be_disturbed(self):
        link = fabric.Link(0)
        link.disturb("loss", "5%")
        read_some("rx0", "rx1")
        assert int(json.loads(fabric.call("tc", "-s", "-j", "qdisc", "show", "dev", "veth0"))[0]["drops"]) > 0
        fabric.mend()
        link.flap(0.05)
        read_some("rx0", "rx1")


def read_some(seed, fork):
    """ib_read_bw reads 4 MiB across."""
    options = ["-e", "-F", "-x", "1", "-s", "65536", "-n", "64"]
    server = subprocess.Popen(["ib_read_bw", "-d", seed, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_listener(18515)
        subprocess.run(["ib_read_bw", "-d", fork, *options, fabric.address_of(seed)], check=True, timeout=30,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()


def await_listener(port):
    """Returns when somebody listens on a TCP port of this machine."""
    while f":{port:04X} 00000000" not in pathlib.Path("/proc/net/tcp").read_text() and \
            f":{port:04X} 00000000000000" not in pathlib.Path("/proc/net/tcp6").read_text():
        os.sched_yield()


@pytest.mark.boots
class TestRun:
    def test_status_and_streams_come_out_as_they_are(self):
        data = base64.b64encode(os.urandom(600_000)) + b"\n\r\n\x1b\x00\xff"
        program = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read()); sys.exit(7)"
        path = fabric.ROOT / "build" / "lab-data"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        done = lab("python3", "-c", program, str(path))
        path.unlink()
        assert (done.returncode, done.stdout, done.stderr) == (7, data, b"")
        done = lab("sh", "-c", "echo to stderr >&2")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"to stderr\n")

    def test_place_and_words_reach_the_command(self):
        done = lab("sh", "-c", 'pwd; echo "$GREETING"; printf "<%s>" "$@"', "name", "a b", "it's", "", "*", LAB_SETUP="none",
                   GREETING="two\nlines")
        assert done.stdout.decode() == f"{os.getcwd()}\ntwo\nlines\n<a b><it's><><*>"

    def test_only_the_shared_directory_keeps_what_is_written(self, tmp_path):
        shared = tmp_path / "sha red"
        shared.mkdir()
        done = lab("sh", "-c", f"echo kept >'{shared}/file'; echo lost >'{tmp_path}/file'", LAB_SHARE=str(shared))
        assert done.returncode == 0, done
        assert (shared / "file").read_text() == "kept\n"
        assert not (tmp_path / "file").exists()

    def test_a_guest_ends_in_time(self):
        assert lab("sleep", "1000", LAB_TIMEOUT="2").returncode == 124

    def test_a_guest_that_dies_is_not_taken_for_a_success(self):
        done = lab("busybox", "poweroff", "-f")
        assert done.returncode == 125, done
        done = lab("true", LAB_SETUP="five")
        assert done.returncode != 0 and b"five" in done.stderr, done
        assert lab("true", LAB_KERNEL="/does/not/exist").returncode == 125
