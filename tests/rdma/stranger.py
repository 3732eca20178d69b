# SPDX-License-Identifier: Apache-2.0
"""The protocol spoken by hand: forks that are opened, kept and closed at will, intruders, seeds that share a process."""
import json
import os
import pathlib
import struct
import subprocess
import time

import msgpack
import pytest

import fabric
import harness

MAGIC = b"SPRT"
VERSION = 1
# Reasons of a refusal, and what the seed's metric calls them.
MALFORMED, WRONG_VERSION, NONCE, LIMIT, LOCAL = 1, 2, 3, 4, 5
NAMES = {MALFORMED: "malformed", WRONG_VERSION: "version", NONCE: "nonce", LIMIT: "limit", LOCAL: "local"}
PATIENCE_S = 60  # other guests share the machine


def program(binary, name):
    """Path of a program of tests/programs that was built beside the one under test."""
    places = [pathlib.Path(binary).parent, pathlib.Path(binary).parent / "tests"]
    return next((str(place / name) for place in places if (place / name).exists()), None) or \
        pytest.skip(f"{name} was not built beside {binary}")


def hello(nonce, version=VERSION, length=24, magic=MAGIC, tail=b""):
    return (magic + struct.pack(">HH", version, length) + nonce + tail).hex()


def refusal(reason):
    return (MAGIC + struct.pack(">HH", VERSION, reason)).hex()


def until(condition, patience_s=PATIENCE_S):
    """Asks again and again until the answer is yes; fails when it stays no."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        fabric.elapse(0.01)  # the seed is to get the guest's only processor


class HandFork:
    """A fork of which nothing happens by itself, no heartbeat either."""

    def __init__(self, seed, nonce=None, transports=("rdma", "tcp")):
        self.seed, self.nonce = seed, nonce or os.urandom(16)
        manifest = seed.get_json("/v1/manifests")["manifests"][0]["id"]
        opened = self._call("POST", "/v1/forks", 201, {"manifest": manifest, "nonce": self.nonce, "protocol": {"min": 1, "max": 1},
                                                       "transports": list(transports)})
        self.answered = time.monotonic()
        self.path = f"/v1/forks/{opened['fork'].hex()}"
        self.lease_s = opened["lease_ms"] / 1000
        self.endpoints = opened.get("endpoints", [])

    def _call(self, method, path, expected, message=None):
        body = None if message is None else msgpack.packb(message)
        status, _, answer = self.seed.request(method, path, body=body, timeout=PATIENCE_S)
        assert status == expected, (method, path, status, answer)
        return msgpack.unpackb(answer) if answer else None

    def hello(self, rail=0, **changes):
        return hello(self.endpoints[rail]["nonce"], **changes)

    def heartbeat(self):
        return self._call("PATCH", self.path, 200, {"received": 0})

    def placement(self):
        return self._call("GET", f"{self.path}/placement?since=0", 200)

    def placement_status(self):
        return self.seed.request("GET", f"{self.path}/placement?since=0")[0]

    def seen(self):
        """What the seed tells people about it."""
        return self.seed.get_json(self.path)

    def close(self):
        self._call("DELETE", self.path, 204, {"result": "cancelled", "reason": "closed by hand"})

    def expire(self):
        """Returns when the lease is over by this side's clock, which began later than the seed's."""
        fabric.elapse(max(0.0, self.answered + self.lease_s - time.monotonic()))


class Loot:
    """Where a seed's weights lie, and their key: from a fork that is closed again."""

    def __init__(self, intruders, seed):
        fork = HandFork(seed)
        assert fork.placement_status() == 425  # no key before a connection
        assert intruders.connect(fork.endpoints[0], fork.hello())["outcome"] == "accepted"
        until(lambda: (self._take(fork.placement())))
        fork.close()
        assert fork.placement_status() == 410

    def _take(self, placement):
        if not placement["whole"]:
            return False
        address, length, *keys = max(placement["slices"], key=lambda row: row[1])
        self.words = [hex(address), hex(keys[0]), str(length)]
        return True


class Intruder:
    """A running rdma_intruder; say() is its next line."""

    def __init__(self, path, words):
        self.process = subprocess.Popen([path, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)

    def say(self, kind):
        line = self.process.stdout.readline()
        assert line, (self.process.wait(PATIENCE_S), self.process.stderr.read())
        said = json.loads(line)
        assert said["line"] == kind, said
        return said

    def rest(self):
        """Its remaining lines, when it has ended well."""
        output, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, (output, errors)
        return [json.loads(line) for line in output.splitlines()]

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Intruders:
    def __init__(self, binary):
        self.program, self.all = program(binary, "rdma_intruder"), []

    def start(self, command, endpoint, *words):
        intruder = Intruder(self.program, [command, endpoint["address"], str(endpoint["port"]), *map(str, words)])
        self.all.append(intruder)
        return intruder

    def run(self, command, endpoint, *words):
        """All lines of one that ends by itself."""
        return self.start(command, endpoint, *words).rest()

    def connect(self, endpoint, data):
        return self.run("connect", endpoint, data)[0]

    def refused(self, endpoint, data, reason):
        """A connection with this private data is refused for this reason."""
        said = self.connect(endpoint, data)
        assert (said["outcome"], said["private"]) == ("rejected", refusal(reason)), (data, said)

    def close(self):
        for intruder in self.all:
            intruder.end()


class Housemate(harness.Seed):
    """A seed of a house: what it answers over HTTP."""

    def __init__(self, url, process):
        self.url, self.process = url, process
        self.host, port = url.removeprefix("http://").rsplit(":", 1)
        self.port = int(port)


class House:
    """A seed_house with its seeds."""

    def __init__(self, binary, *paths, lease_ms=10000, transports="rdma,tcp"):
        command = [program(binary, "seed_house"), str(lease_ms), transports, *map(str, paths)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.seeds = [Housemate(self._read()["url"], self.process) for _ in paths]

    def _read(self):
        line = self.process.stdout.readline()
        assert line, self.process.wait(PATIENCE_S)
        return json.loads(line)

    def destroy(self, number):
        """Returns when the seed is gone."""
        self.process.stdin.write(f"destroy {number}\n".encode())
        self.process.stdin.flush()
        assert self._read() == {"destroyed": number}

    def close(self):
        self.process.stdin.close()
        try:
            assert self.process.wait(PATIENCE_S) == 0
        finally:
            self.process.kill()
            self.process.stdout.close()
