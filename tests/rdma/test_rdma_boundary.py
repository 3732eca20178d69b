# SPDX-License-Identifier: Apache-2.0
"""Who may read a seed's memory: a fork with an open lease over the connection of its own nonce, and nobody else."""
import json
import os
import pathlib
import shutil
import subprocess

import pytest

import fabric
import harness
from stranger import LOCAL, MALFORMED, NAMES, NONCE, WRONG_VERSION, HandFork, House, Intruders, Loot, hello, program, until

pytestmark = pytest.mark.needs_rdma
AT_ONCE = 5  # thieves that read side by side
MODEL = "size:50MB"


@pytest.fixture
def times(full):
    """How often each attempt is made."""
    return 50 if full else AT_ONCE


@pytest.fixture
def intruders(binary):
    crowd = Intruders(binary)
    yield crowd
    crowd.close()


@pytest.fixture
def house(binary, sprout):
    """house(path, ..., lease_ms=3000): seeds in one process, which ends after the test."""
    houses = []

    def build(*paths, **options):
        houses.append(House(binary, *paths, **options))
        return houses[-1]

    yield build
    sprout.close()  # forks first
    for one in houses:
        one.close()


class Bystander:
    """A fork that keeps to the rules, at the side of those that do not; it must not notice them."""

    def __init__(self, sprout, seed, path, destination):
        self.sprout, self.path, self.destination = sprout, path, destination
        self.fork = sprout.start_fork(seed, destination, "--max-rate", "10M")
        assert self.fork.await_line(lambda line: line.get("done_bytes", 0) > 0)

    def reads_on(self):
        assert self.fork.process.poll() is None, self.fork.wait()

    def finishes(self):
        self.sprout.assert_by(self.fork.wait(120), "rdma")
        assert harness.tree_hashes(self.destination) == harness.tree_hashes(self.path)
        shutil.rmtree(self.destination)  # many of them would fill the guest's memory


def in_rounds(times):
    """Numbers of the attempts, in lists of those that are made side by side."""
    return [range(first, min(times, first + AT_ONCE)) for first in range(0, times, AT_ONCE)]


def is_registered(seed):
    """Whether all of its memory is; it is ready before that."""
    rdma = seed.get_json("/v1/status")["rdma"]
    return rdma["registered_bytes"] == rdma["total_bytes"]


def refusals(seed):
    return {name: fabric.metric(seed, "sprout_rdma_connections_refused_total", reason=name) for name in NAMES.values()}


def quiet(seed):
    """The seed's RDMA objects and descriptors once every connection is gone."""
    until(lambda: fabric.resource_rows("qp", seed.process.pid) == [])
    count = fabric.resources()
    until(lambda: fabric.resources() == count)
    return count, fabric.descriptors(seed.process.pid)


def domains_in_use(pid):
    """Protection domains in which a process has registered memory."""
    return {row["pdn"] for row in fabric.resource_rows("mr", pid)}


class Thieves:
    """Readers over connections that were theirs, which go on whatever they are told."""

    def __init__(self, intruders, loot, forks, scratch):
        self.ended = [scratch / f"ended-{os.urandom(4).hex()}" for _ in forks]
        self.readers = [intruders.start("read", fork.endpoints[0], fork.hello(), *loot.words, "--until", ended)
                        for fork, ended in zip(forks, self.ended)]
        for reader in self.readers:
            assert reader.say("connect")["outcome"] == "accepted"

    def end_of(self, number):
        """From now on its fork has ended."""
        self.ended[number].touch()

    def got_nothing(self):
        """All of them have read up to the end, and no byte later than a second after it, for all that they tried."""
        figures = [reader.rest()[0] for reader in self.readers]
        for said in figures:
            assert said["bytes"] > 0 and said["native"] != 0 and said["late_attempts"] > 0, said
            assert said["closed_ms"] - said["last_read_ms"] < 3000, said
            assert said["late_bytes"] == 0, said
        return figures


def report(what, figures):
    last = [round(said["last_read_ms"] - said["closed_ms"]) for said in figures]
    tried = sum(said["late_attempts"] for said in figures)
    print(f"{what}: {len(figures)} of {len(figures)} read nothing later than 1 s after the end, in {tried} attempts; "
          f"their last read came {min(last)} to {max(last)} ms after it")


@pytest.mark.lab(timeout=1200)
class TestEndedForks:
    """Connections that a fork had: each thief reads on, and sets its queue pair up again after every error."""

    def test_closed(self, sprout, intruders, models, times, tmp_path):
        path = models(MODEL)
        seed = sprout.seed(path)
        loot, figures = Loot(intruders, seed), []
        for numbers in in_rounds(times):
            forks = [HandFork(seed) for _ in numbers]
            thieves = Thieves(intruders, loot, forks, tmp_path)
            bystander = Bystander(sprout, seed, path, tmp_path / f"copy-{numbers[0]}")
            for number, fork in enumerate(forks):
                fork.heartbeat()
                fabric.elapse(sprout.random.uniform(0, 0.2))
                fork.close()
                thieves.end_of(number)
            bystander.reads_on()
            figures += thieves.got_nothing()
            bystander.finishes()
        assert len(figures) == times
        report("queue pairs of closed forks", figures)
        quiet(seed)

    def test_expired(self, sprout, intruders, house, models, times, tmp_path):
        path = models(MODEL)
        seed = house(path, lease_ms=3000).seeds[0]
        loot, figures = Loot(intruders, seed), []
        for numbers in in_rounds(times):
            bystander = Bystander(sprout, seed, path, tmp_path / f"copy-{numbers[0]}")
            forks = [HandFork(seed) for _ in numbers]
            thieves = Thieves(intruders, loot, forks, tmp_path)
            for number, fork in enumerate(forks):
                fork.expire()
                thieves.end_of(number)
            bystander.reads_on()
            figures += thieves.got_nothing()
            for fork in forks:
                seen = fork.seen()
                assert seen["state"] == "closed" and seen["reason"] == "lease expired", seen
                assert seen["seconds"] <= fork.lease_s + 1, seen
            bystander.finishes()
        assert len(figures) == times
        report("queue pairs of expired forks", figures)
        quiet(seed)

    def test_withdrawn(self, sprout, intruders, house, models, times, tmp_path):
        """A seed is destroyed while it is read; another one in the same process is read on."""
        path = models(MODEL)
        figures = []
        for numbers in in_rounds(times):
            building = house(path, path)
            seed, other = building.seeds
            loot, _ = Loot(intruders, seed), Loot(intruders, other)  # both are whole then
            before = domains_in_use(building.process.pid)
            thieves = Thieves(intruders, loot, [HandFork(seed) for _ in numbers], tmp_path)
            bystander = Bystander(sprout, other, path, tmp_path / f"copy-{numbers[0]}")
            building.destroy(0)
            for number in range(len(numbers)):
                thieves.end_of(number)
            left = domains_in_use(building.process.pid)
            assert len(before) == 2 and len(left) == 1 and left < before, (before, left)  # its keys are revoked
            bystander.reads_on()
            figures += thieves.got_nothing()
            bystander.finishes()
        report("queue pairs of withdrawn seeds", figures)


@pytest.mark.lab(timeout=900)
class TestStolenKeys:
    def test_without_a_fork(self, sprout, intruders, models, times, tmp_path):
        path = models(MODEL)
        seed = sprout.seed(path)
        loot = Loot(intruders, seed)
        endpoint = HandFork(seed).endpoints[0]
        before = refusals(seed)
        bystander = Bystander(sprout, seed, path, tmp_path / "copy")
        for _ in range(times):
            lines = intruders.run("steal", endpoint, hello(os.urandom(16)), *loot.words)
            assert [line["line"] for line in lines] == ["connect"] and lines[0]["outcome"] == "rejected", lines
        assert refusals(seed) == {**before, "nonce": before["nonce"] + times}
        bystander.finishes()

    @pytest.mark.parametrize("place", ["another process", "the same process"])
    def test_of_another_publication(self, sprout, intruders, house, models, times, tmp_path, place):
        """Over a good connection to one seed, what lies in another one's domain cannot be read."""
        path, other_path = models(MODEL), models(MODEL, seed=2)
        if place == "the same process":
            seed, other = house(path, other_path).seeds
        else:
            seed, other = sprout.seed(path), sprout.seed(other_path)
        loot, own = Loot(intruders, other), Loot(intruders, seed)
        assert loot.words[1] != own.words[1]
        bystanders = [Bystander(sprout, seed, path, tmp_path / "copy"), Bystander(sprout, other, other_path, tmp_path / "copy2")]
        for number in range(times):
            # The other's key, at its own address and at one that is good here.
            address = loot.words[0] if number % 2 == 0 else own.words[0]
            fork = HandFork(seed)
            lines = intruders.run("steal", fork.endpoints[0], fork.hello(), address, *loot.words[1:])
            connected, read = lines
            assert connected["outcome"] == "accepted", lines
            assert read["bytes"] == read["unfinished_bytes"] == 0 and read["native"] == 10, lines  # IBV_WC_REM_ACCESS_ERR
            fork.close()
        # The same connection reads what is its own, so it was the key that was refused.
        fork = HandFork(seed)
        assert intruders.run("steal", fork.endpoints[0], fork.hello(), *own.words)[1]["bytes"] > 0
        fork.close()
        for bystander in bystanders:
            bystander.finishes()


@pytest.mark.lab(timeout=600)
class TestNonces:
    @pytest.fixture
    def seed(self, sprout, models):
        return sprout.seed(models("tiny"))

    def test_wrong(self, sprout, seed, intruders, times):
        """By one bit, of no fork at all, and what a used one is overwritten with; the fork's own is good afterwards."""
        before = refusals(seed)
        for number in range(times):
            fork = HandFork(seed)
            nonce = bytearray(fork.endpoints[0]["nonce"])
            bit = sprout.random.randrange(128)
            nonce[bit // 8] ^= 1 << bit % 8
            wrong = [bytes(nonce), bytes(16), os.urandom(16)][number % 3]
            intruders.refused(fork.endpoints[0], hello(wrong), NONCE)
            assert fork.placement_status() == 425
            if number % 5 == 0:
                assert intruders.connect(fork.endpoints[0], fork.hello())["outcome"] == "accepted"
            fork.close()
        assert refusals(seed) == {**before, "nonce": before["nonce"] + times}

    def test_replayed(self, seed, intruders, times):
        before = refusals(seed)
        for _ in range(times):
            fork = HandFork(seed)
            outcomes = [line["outcome"] for line in intruders.run("replay", fork.endpoints[0], fork.hello())]
            assert outcomes == ["accepted", "rejected", "rejected"]
            fork.close()
        assert refusals(seed) == {**before, "nonce": before["nonce"] + 2 * times}

    def test_missing(self, seed, intruders, times):
        """No data, a hello that ends before the nonce and says so, or not; the transport's zeros are no nonce either."""
        ways = [("-", MALFORMED), (hello(b"", length=8), MALFORMED), (hello(b""), NONCE), (hello(os.urandom(8)), NONCE)]
        before = refusals(seed)
        fork = HandFork(seed)
        for number in range(times):
            intruders.refused(fork.endpoints[0], *ways[number % len(ways)])
        assert fork.placement_status() == 425
        assert sum(refusals(seed).values()) == sum(before.values()) + times

    def test_of_a_fork_that_has_ended(self, seed, intruders, times):
        for _ in range(times):
            fork = HandFork(seed)
            fork.close()
            intruders.refused(fork.endpoints[0], fork.hello(), NONCE)

    def test_of_a_fork_whose_lease_is_over(self, house, intruders, models):
        fork = HandFork(house(models("tiny"), lease_ms=300).seeds[0])
        fork.expire()
        intruders.refused(fork.endpoints[0], fork.hello(), NONCE)

    def test_that_a_repeated_open_replaced(self, seed, intruders, times):
        """Who opens again has lost the answer: only the latest nonces are good, and after a connection there are none."""
        for _ in range(times):
            first = HandFork(seed)
            second = HandFork(seed, nonce=first.nonce)
            assert first.path == second.path and first.endpoints != second.endpoints
            intruders.refused(first.endpoints[0], first.hello(), NONCE)
            assert intruders.connect(second.endpoints[0], second.hello())["outcome"] == "accepted"
            assert HandFork(seed, nonce=first.nonce).endpoints == []
            first.close()

    def test_of_a_fork_that_wants_no_rdma(self, seed):
        fork = HandFork(seed, transports=("tcp",))
        assert fork.endpoints == [] and fork.placement_status() == 425

    def test_of_another_seed(self, sprout, seed, intruders, models, times):
        other = sprout.seed(models("tiny"))
        for _ in range(times):
            fork, guest = HandFork(seed), HandFork(other)
            intruders.refused(guest.endpoints[0], fork.hello(), NONCE)
            fork.close()
            guest.close()


@pytest.mark.lab(devices="four", timeout=300)
def test_a_nonce_is_good_on_its_own_rail(sprout, intruders, models):
    seed = sprout.seed(models("tiny"), device="rx0,rx2")
    fork = HandFork(seed)
    one, other = fork.endpoints
    intruders.refused(one, fork.hello(rail=1), NONCE)
    intruders.refused(other, fork.hello(rail=0), NONCE)
    for rail, endpoint in enumerate(fork.endpoints):
        assert intruders.connect(endpoint, fork.hello(rail))["outcome"] == "accepted"


@pytest.mark.lab(timeout=600)
class TestPrivateData:
    def test_garbage_of_every_length(self, sprout, intruders, models, full):
        seed = sprout.seed(models("tiny"))
        sprout.assert_by(sprout.fork(seed, "null:"), "rdma")
        before, counted = quiet(seed), refusals(seed)
        endpoint = HandFork(seed).endpoints[0]
        rounds = 5 if full else 1
        for number in range(rounds):
            lines = intruders.run("garbage", endpoint, number + 1)
            assert [line["length"] for line in lines] == list(range(57))
            assert {line["outcome"] for line in lines} == {"rejected"}, lines
            assert {line["private"] for line in lines} == {"5350525400010001"}, lines
        assert refusals(seed) == {**counted, "malformed": counted["malformed"] + 57 * rounds}
        assert quiet(seed) == before
        sprout.assert_by(sprout.fork(seed, "null:"), "rdma")

    @pytest.mark.parametrize("changes, reason", [
        ({"version": 0}, WRONG_VERSION), ({"version": 2}, WRONG_VERSION), ({"version": 65535}, WRONG_VERSION),
        ({"version": 2, "length": 40, "tail": b"x" * 16}, WRONG_VERSION), ({"magic": b"SPRU"}, MALFORMED),
        ({"magic": b"TRPS"}, MALFORMED), ({"length": 23}, MALFORMED), ({"length": 25}, MALFORMED), ({"length": 0}, MALFORMED),
        ({"length": 56}, MALFORMED), ({"tail": b"\1"}, MALFORMED), ({"tail": bytes(31) + b"\1"}, MALFORMED)], ids=str)
    def test_hellos_that_are_not_right(self, sprout, intruders, models, changes, reason):
        """They are refused with the reason, get no key, and use no nonce up."""
        seed = sprout.seed(models("tiny"))
        fork, before = HandFork(seed), refusals(seed)
        intruders.refused(fork.endpoints[0], fork.hello(**changes), reason)
        assert fork.placement_status() == 425
        assert refusals(seed) == {**before, NAMES[reason]: before[NAMES[reason]] + 1}
        assert intruders.connect(fork.endpoints[0], fork.hello())["outcome"] == "accepted"
        assert fork.placement_status() == 200

    def test_zeros_may_follow(self, sprout, intruders, models):
        seed = sprout.seed(models("tiny"))
        for tail in (b"", bytes(1), bytes(32)):
            fork = HandFork(seed)
            assert intruders.connect(fork.endpoints[0], fork.hello(tail=tail))["outcome"] == "accepted"


@pytest.mark.lab(fresh=True, timeout=300)
def test_a_seed_that_can_make_no_queue_pair(sprout, intruders, models):
    """The limit is the machine's: the connection is refused with that reason, and the next one is good when it is raised."""
    group = pathlib.Path("/sys/fs/cgroup/few")
    (group.parent / "cgroup.subtree_control").write_text("+rdma")
    group.mkdir()
    seed = sprout.seed(models("tiny"))
    until(lambda: is_registered(seed))
    (group / "cgroup.procs").write_text(str(seed.process.pid))
    (group / "rdma.max").write_text("rx0 hca_object=0")
    fork, before = HandFork(seed), refusals(seed)
    intruders.refused(fork.endpoints[0], fork.hello(), LOCAL)
    assert refusals(seed) == {**before, "local": before["local"] + 1}
    (group / "rdma.max").write_text("rx0 hca_object=max")
    sprout.assert_by(sprout.fork(seed, "null:"), "rdma")


@pytest.mark.lab(timeout=900)
class TestLateBytes:
    """What a fork was given to read into is the caller's again when the fork has ended, whatever is still under way."""

    @pytest.fixture
    def cut_short(self, binary):
        def run(seed, pid, runs, number):
            before = fabric.counter("rx0", "rcvd_pkts")
            done = subprocess.run([program(binary, "late_bytes"), seed.url, str(pid), str(runs), str(number)],
                                  capture_output=True, timeout=600)
            assert done.returncode == 0, (done.stdout, done.stderr)
            assert fabric.counter("rx0", "rcvd_pkts") - before > 100 * runs  # by READs
            return json.loads(done.stdout)

        return run

    def test_cancelled(self, sprout, models, repeat, cut_short):
        runs = repeat(100)
        assert cut_short(sprout.seed(models("size:20MB")), 0, runs, 1) == \
            {"runs": runs, "cut_short": runs, "changed_bytes": 0}

    def test_seed_killed(self, sprout, models, repeat, cut_short):
        """At a random point, with nobody standing by; few forks have all they need before they notice."""
        runs, cut = repeat(100), 0
        for number in range(runs):
            seed = sprout.seed(models("size:20MB"))
            figures = cut_short(seed, -seed.process.pid, 1, number)
            assert figures["changed_bytes"] == 0, figures
            cut += figures["cut_short"]
            seed.end()
        print(f"seed killed: no late byte in {runs} of {runs}, {cut} of them cut short")
        assert cut >= 0.8 * runs
