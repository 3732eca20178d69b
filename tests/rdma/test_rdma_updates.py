# SPDX-License-Identifier: Apache-2.0
"""A running seed whose bytes change while forks read its memory one-sidedly: nothing is deregistered, no update waits
for a fork, and every fork that completes holds one whole generation. And a seed that goes away altogether."""
import json
import subprocess

import pytest

import fabric
import harness
from stranger import House, Housemate, program, until

pytestmark = pytest.mark.needs_rdma
FENCE_BYTES = 8
ADDRESS = "127.0.0.1:7117"  # a guest is alone
MEGABYTES = 16


@pytest.fixture
def updating(binary):
    """updating(updates, "--option", ...): a running tests/programs/updating_seed.c."""
    running = []

    def start(updates, *arguments):
        command = [program(binary, "updating_seed"), "--updates", updates, *arguments]
        running.append(subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def assert_whole(process, updates):
    """It ends well, no fork held a mix, and no update waited for one; its figures."""
    output, errors = process.communicate(timeout=1200)
    assert output, errors.decode()
    figures = json.loads(output)
    print(f"updates: {figures}")
    assert process.returncode == 0, (figures, errors.decode())
    assert figures["torn"] == figures["corrupt"] == figures["mislabelled"] == 0
    assert figures["updates"] == updates and figures["last_generation"] == updates + 1
    assert figures["completed"] > updates // 4
    assert figures["failed"] <= max(1, figures["completed"] // 10), figures["first_failure"]
    # This kernel has one processor and dear system calls; a fork that is never done within the test reads all the time.
    assert figures["begin_p50_us"] < 100_000 and figures["begin_max_us"] < 2_000_000
    return figures


@pytest.mark.lab(devices="one", timeout=1300)
@pytest.mark.parametrize("transport, arguments", [
    ("rdma", ["--forks", "2", "--megabytes", "16"]),
    ("rdma", ["--forks", "5", "--megabytes", "8", "--random", "2"]),
    ("rdma,tcp", ["--forks", "2", "--megabytes", "16", "--random", "3"]),
])
def test_completed_forks_hold_one_generation(updating, full, transport, arguments):
    updates = 200 if full else 20
    before = fabric.counter("rx0", "rcvd_pkts")
    figures = assert_whole(updating(updates, "--transport", transport, *arguments), updates)
    if transport == "rdma":
        assert (fabric.counter("rx0", "rcvd_pkts") - before) * 4096 >= figures["received_bytes"]


@pytest.fixture
def changing(updating):
    """A seed whose bytes change and then stay as they are; (process, seed, number of updates)."""
    updates = 12  # a fork that is slower than they come begins again no more than 16 times
    process = updating(updates, "--transport", "rdma", "--megabytes", MEGABYTES, "--listen", ADDRESS, "--hold", 1)
    seed = Housemate(f"http://{ADDRESS}", process)
    until(lambda: is_there(seed))
    return process, seed, updates


def is_there(seed):
    try:
        return generation(seed) > 0
    except OSError:
        return False


def generation(seed):
    return seed.get_json("/v1/status")["manifest"]["version"]["generation"]


def served_memory(pid):
    """[(domain, key, bytes), ...] of what a process lets others read: what shares a domain with the word of a fence."""
    rows = fabric.resource_rows("mr", pid)
    domains = {row["pdn"] for row in rows if int(row["mrlen"]) == FENCE_BYTES}
    return sorted((row["pdn"], row["rkey"], int(row["mrlen"])) for row in rows if row["pdn"] in domains)


@pytest.mark.lab(devices="one", timeout=900)
class TestWhileItChanges:
    def test_nothing_is_deregistered(self, changing):
        """The same memory under the same keys, whenever one looks."""
        process, seed, updates = changing
        until(lambda: sum(row[2] for row in served_memory(process.pid)) == (MEGABYTES << 20) + FENCE_BYTES)
        first, generations = served_memory(process.pid), set()
        while generation(seed) <= updates:
            generations.add(generation(seed))
            assert served_memory(process.pid) == first
        assert_whole(process, updates)
        print(f"{len(generations)} of {updates + 1} generations looked at, always {first}")
        assert len(generations) > updates // 4

    @pytest.mark.parametrize("options", [[], ["--no-verify"]], ids=["verified", "fence alone"])
    def test_a_fork_begins_again_and_ends_when_updates_pause(self, sprout, changing, options):
        process, seed, updates = changing
        fork = sprout.start_fork(seed, "null:", "--max-rate", "4M", *options)
        assert fork.await_line(lambda line: line.get("done_bytes", 0) > 0)
        begun = generation(seed)
        done = fork.wait(300)
        assert begun < updates and done.exit == 0 and done.result["generation"] == updates + 1, (begun, done)
        assert done.result["received_bytes"] > done.result["total_bytes"], done  # not all of it was of one generation
        assert [source["transport"] for source in done.result["sources"]] == ["rdma"], done
        print(f"begun in generation {begun}, ended in {updates + 1} with {done.result['received_bytes']} bytes read")
        assert_whole(process, updates)


class Slow:
    """A fork that still reads when something happens to its seed."""

    def __init__(self, sprout, sources, destination, *options, **rest):
        self.fork = sprout.start_fork(sources, destination, "--max-rate", "8M", "--stall-timeout", "2s", *options, **rest)
        assert self.fork.await_line(lambda line: line.get("done_bytes", 0) > 4_000_000), self.fork.wait()

    def ends(self):
        return self.fork.wait(120)


@pytest.mark.lab(devices="one", timeout=600)
class TestWithdrawn:
    """A seed whose process lives on is destroyed, and its keys are revoked, while forks read."""

    @pytest.fixture
    def house(self, binary, sprout, models):
        building = House(binary, models("size:50MB"), models("size:50MB"))
        yield building
        sprout.close()
        building.close()

    def test_alone_it_ends_clearly(self, sprout, house, tmp_path):
        forks = [Slow(sprout, house.seeds[0], destination) for destination in ("null:", tmp_path / "copy")]
        house.destroy(0)
        assert fabric.resource_rows("qp", house.process.pid) == []
        for fork in forks:
            done = fork.ends()
            assert done.exit == 4 and done.seconds < 60, done
            assert done.errors.strip() and "internal" not in done.errors, done
        assert not list((tmp_path / "copy").glob("*.safetensors"))  # nothing has its final name
        # What had arrived was whole: another seed completes it.
        done = sprout.fork(house.seeds[1], tmp_path / "copy")
        sprout.assert_by(done, "rdma")
        assert done.result["reused_bytes"] > 0, done

    @pytest.mark.parametrize("transport", ["rdma", "tcp"])
    def test_another_seed_completes(self, sprout, house, models, tmp_path, transport):
        path = models("size:50MB")
        other = house.seeds[1] if transport == "rdma" else sprout.seed(path, transport="tcp", device=None)
        fork = Slow(sprout, [house.seeds[0], other], tmp_path / "copy", transport="auto")
        house.destroy(0)
        done = fork.ends()
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done
        assert done.result["sources"][0]["state"] == "dropped", done
        assert done.result["sources"][1]["transport"] == transport, done
        assert harness.tree_hashes(tmp_path / "copy") == harness.tree_hashes(path)
