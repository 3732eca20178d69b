# SPDX-License-Identifier: Apache-2.0
"""The lab: whether there is one, and inside it devices, links and resources, and seeds and forks on them.

Device N of the lab is rxN at 10.7.N.1; 0 and 1 are the ends of one link, 2 and 3 those of another. Seeds sit on even
devices, forks on odd ones; with one device both are on rx0. HTTP goes over the loopback whatever happens to a link.
"""
import json
import os
import pathlib
import re
import subprocess
import threading

import harness

LAB = pathlib.Path(__file__).resolve().parent / "lab"
ROOT = LAB.parents[2]


def why_missing():
    """Why there is no lab, in a sentence; None when there is one."""
    check = subprocess.run([ROOT / "scripts" / "bootstrap.sh", "rdma"], capture_output=True, text=True,
                           env={**os.environ, "SPROUT_NO_INSTALL": "1"})
    if check.returncode != 0:
        return check.stderr.strip().splitlines()[-1].removeprefix("bootstrap: ")
    if os.access(os.environ.get("LAB_KERNEL", ""), os.X_OK):
        return None
    kernel = subprocess.run([LAB / "build", "--path"], capture_output=True, text=True)
    return None if kernel.returncode == 0 else kernel.stderr.strip().removeprefix("build: ")



def why_no_rdma(binary):
    """Why a program cannot do RDMA: its help names the transports that it has. None when it can."""
    said = subprocess.run([binary, "fork", "--help"], capture_output=True, text=True, timeout=60).stdout
    known = re.search(r"comma list of:\s*([a-z, ]+)", said)
    return None if known and "rdma" in known[1] else f"{binary} was built without RDMA"


def call(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, timeout=30).stdout


def elapse(seconds):
    """Lets time pass where that is what happens, not where something is waited for."""
    threading.Event().wait(seconds)


def devices():
    return sorted(path.name for path in pathlib.Path("/sys/class/infiniband").glob("*"))


def counter(device, name):
    """A hardware counter of a device, e.g. rcvd_pkts."""
    return int(pathlib.Path(f"/sys/class/infiniband/{device}/ports/1/hw_counters/{name}").read_text())


def resources():
    """{device: {"pd": 1, "cq": 1, "qp": 1, "cm_id": 0, "mr": 0, "ctx": 0, "srq": 0}} of the whole machine."""
    return {row["ifname"]: {name: count for name, count in row.items() if name not in ("ifindex", "ifname")}
            for row in json.loads(call("rdma", "-j", "resource", "show"))}


def resource_rows(kind, pid=None):
    """What `rdma resource show KIND` lists of one process or of all; the kernel's own left out."""
    rows = [row for row in json.loads(call("rdma", "-j", "resource", "show", kind) or "[]") if "pid" in row]
    return [row for row in rows if pid is None or process_of(row["pid"]) in (pid, None)]


def process_of(thread):
    """The process of a thread, which is what `rdma` names; None when the thread has ended."""
    try:
        return int(re.search(r"^Tgid:\s*(\d+)", pathlib.Path(f"/proc/{thread}/status").read_text(), re.M)[1])
    except FileNotFoundError:
        return None


class Link:
    """One end of a veth pair; what is done to it stays until mend().

    A wire that loses everything is cut(): the interfaces take packets as before. An interface that is down() refuses
    them, whereupon Soft-RoCE puts queue pairs into error at once, that of its connection manager included: until the device is
    made anew nothing connects over it.
    """

    def __init__(self, number):
        self.name = f"veth{number}"

    def down(self):
        call("ip", "link", "set", self.name, "down")

    def up(self):
        call("ip", "link", "set", self.name, "up")
        restore_ways()

    def cut(self):
        for end in (self, self.other()):
            end.disturb("loss", "100%")

    def join(self):
        for end in (self, self.other()):
            end.calm()

    def other(self):
        return Link(int(self.name.removeprefix("veth")) ^ 1)

    def flap(self, seconds):
        self.cut()
        elapse(seconds)
        self.join()

    def disturb(self, *netem):
        """disturb("loss", "1%"): packets that leave this end."""
        call("tc", "qdisc", "replace", "dev", self.name, "root", "netem", *netem)

    def calm(self):
        subprocess.run(["tc", "qdisc", "del", "dev", self.name, "root"], capture_output=True)


def ends():
    return sorted(int(path.name.removeprefix("veth")) for path in pathlib.Path("/sys/class/net").glob("veth*"))


def restore_ways():
    """Routes and neighbours go away with the interface that they are on: see add_way in lab/guest-net."""
    up = [end for end in ends() if int(pathlib.Path(f"/sys/class/net/veth{end}/flags").read_text(), 16) & 1]
    for end in up:
        other = end ^ 1
        address = pathlib.Path(f"/sys/class/net/veth{other}/address").read_text().strip()
        call("ip", "route", "replace", f"10.7.{other}.1/32", "dev", f"veth{end}", "src", f"10.7.{end}.1")
        call("ip", "neigh", "replace", f"10.7.{other}.1", "lladdr", address, "dev", f"veth{end}")


def mend():
    """Links as they were at the start."""
    for end in ends():
        Link(end).calm()
        call("ip", "link", "set", f"veth{end}", "up")
    restore_ways()


def metric(seed, name, **labels):
    """Sum of one metric's samples that carry these labels; 0 when there are none."""
    status, _, body = seed.request("GET", "/metrics")
    assert status == 200, (status, body)
    total = 0.0
    for line in body.decode().splitlines():
        match = re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line)
        if match and match[1] == name:
            has = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or ""))
            if all(has.get(key) == value for key, value in labels.items()):
                total += float(match[3])
    return total


def cpu_seconds(pid):
    """User and system time of a process; the kernel derives the sum from its precise run time."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def address_of(device):
    return f"10.7.{0 if device == 'auto' else device.removeprefix('rx')}.1"


class World(harness.World):
    """seed() and fork() over RDMA; `transport` and `device` as the options of the program take them.

    With SPROUT_TEST_TRANSPORT=tcp neither option is passed, to try tests with a program that has no RDMA."""

    def __init__(self, binary, scratch):
        super().__init__(binary, scratch)
        self.plain = os.environ.get("SPROUT_TEST_TRANSPORT") == "tcp"
        self.fork_device = "rx1" if "rx1" in devices() else "rx0"

    def _options(self, transport, device):
        if self.plain:
            return []
        return ["--transport", transport] + (["--rdma-device", device] if device and "tcp" != transport else [])

    def seed(self, *paths_and_options, transport="rdma,tcp", device="rx0", port=0, **rest):
        """seed(path, "--option", ...): on the first of its devices, or on loopback when it has none."""
        listen = ["--listen", f"{address_of(device.split(',')[0])}:{port}" if device else f"127.0.0.1:{port}"]
        return super().seed(*paths_and_options, *listen, "--allow-anonymous", *self._options(transport, device), **rest)

    def start_fork(self, sources, destination, *arguments, transport="rdma", device="default", env=None):
        device = self.fork_device if device == "default" else device
        return super().start_fork(sources, destination, *arguments, *self._options(transport, device), env=env)

    def fork(self, sources, destination, *arguments, timeout=harness.TIMEOUT, **rest):
        return self.start_fork(sources, destination, *arguments, **rest).wait(timeout)

    def assert_by(self, done, *transports):
        """The fork is complete and verified, and its sources were read over these transports (None: not read)."""
        assert done.exit == 0 and done.result["verified"] == "xxh3-128", done
        if not self.plain:
            read = [source.get("transport") if source["received_bytes"] else None for source in done.result["sources"]]
            assert read == list(transports), done

    def assert_fell_back(self, done):
        """Complete over TCP in place of RDMA, and it said so: a warning and a count."""
        self.assert_by(done, "tcp")
        if not self.plain:
            assert fallbacks(done) >= 1, done
            assert "rdma" in done.errors.lower(), done


def fallbacks(done):
    """How often the fork took another transport than it wanted, over all sources."""
    return sum(source.get("fallbacks", 0) for source in done.result["sources"]) + done.result.get("fallbacks", 0)
