# SPDX-License-Identifier: Apache-2.0
"""Tests that run inside the lab: which do, how they are sent there, and how what they report comes back.

A test marked `lab` runs in a guest of tests/rdma/lab/run. The pytest that a person starts (here: outside) boots a guest
for each run of tests that follow one another in one file with the same needs, and starts another pytest in it
(inside) with their names. Inside, `Reporter` writes each report as a line to a file that both see and says so on
standard output; outside, `LabTests` hands the reports on as if the tests had run there. If the guest dies or hangs, the
test that ran then has failed, and the next one gets a new guest.
"""
import collections
import dataclasses
import json
import os
import pathlib
import selectors
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

from fabric import LAB, ROOT

INSIDE = "SPROUT_TEST_INSIDE"  # the shared directory, in the environment of what runs inside
NEWS = "\x1freport"  # the line that says that the file of reports has grown
BOOT_S = 60  # a guest boots in half a second; this is for a machine that is very busy
PARTS = ("setup", "call", "teardown")


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a test says in its mark: @pytest.mark.lab(devices="two", memory="2G", timeout=60, fresh=True)."""
    devices: str = "one"  # LAB_SETUP of the lab's run
    memory: str = "2G"
    timeout: int = 120  # seconds for one test
    fresh: bool = False  # a guest that no other test uses

    @staticmethod
    def of(item):
        """None for a test that runs outside."""
        marks = list(item.iter_markers("lab"))
        if not marks:
            return None
        said = {}
        for mark in reversed(marks):  # the closest one counts
            said.update(mark.kwargs)
        return Needs(**said)


class Reporter:
    """Inside: a pytest plug-in that passes every report on."""

    def __init__(self, config, share):
        self.config = config
        self.file = open(pathlib.Path(share) / "reports", "a", encoding="utf-8")

    def pytest_runtest_logreport(self, report):
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.file.write(json.dumps(data) + "\n")
        self.file.flush()
        print(f"\n{NEWS}", flush=True)


class Guest:
    """Outside: one guest and the tests that it was given."""

    def __init__(self, config, items, needs):
        self.config, self.needs = config, needs
        self.names = {item.nodeid for item in items}
        self.share = pathlib.Path(tempfile.mkdtemp(prefix="sprout-lab-"))
        self.reports = collections.defaultdict(list)
        self.last_words = collections.deque(maxlen=40)
        self.taken = 0  # characters of the file of reports
        seconds = BOOT_S + sum(Needs.of(item).timeout + 30 for item in items)
        environment = {**os.environ, INSIDE: str(self.share), "LAB_SHARE": str(self.share), "LAB_SETUP": needs.devices,
                       "LAB_MEMORY": needs.memory, "LAB_TIMEOUT": str(seconds), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [LAB / "run", sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider",
                   "-p", "no:terminalreporter", "--rootdir", ROOT, *[item.nodeid for item in items]]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text = b""
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)

    def take(self, item):
        """The reports of one test, when it has ended; fewer when it could not end."""
        deadline = time.monotonic() + BOOT_S + Needs.of(item).timeout
        reports = self.reports[item.nodeid]
        while not any(report.when == "teardown" for report in reports):
            if not self._read(deadline - time.monotonic()):
                self._read_reports()
                break
        return reports

    def _read(self, patience_s):
        """Waits for output and deals with it; false when there is none any more, or not in time."""
        if patience_s <= 0 or not self.selector.select(patience_s):
            self.last_words.append("(it hung, and was ended)")
            return False
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self.text = (self.text + data).split(b"\n")
        for line in [*lines, self.text] if not data else lines:
            text = line.decode(errors="replace").rstrip()
            if text == NEWS:
                self._read_reports()
            elif text:
                print(f"  {text}", flush=True)
                self.last_words.append(text)
        return bool(data)

    def _read_reports(self):
        try:
            text = (self.share / "reports").read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        whole = text.rfind("\n") + 1
        for line in text[self.taken:whole].splitlines():
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=json.loads(line))
            if isinstance(report.longrepr, list):
                report.longrepr = tuple(report.longrepr)  # of a skip; JSON has no tuples
            self.reports[report.nodeid].append(report)
        self.taken = max(self.taken, whole)

    def end(self):
        """Ends the guest if it still runs; returns what it said last."""
        if self.process.poll() is None:
            try:
                self.process.wait(0 if self.last_words and "hung" in self.last_words[-1] else 10)
            except subprocess.TimeoutExpired:
                self.process.terminate()
                self.process.wait()
        self.selector.close()
        self.process.stdout.close()
        shutil.rmtree(self.share, ignore_errors=True)
        return f"exit status {self.process.returncode}\n" + "\n".join(self.last_words)


class LabTests:
    """Outside: a pytest plug-in that has marked tests run inside."""

    def __init__(self, config):
        self.config = config
        self.guest = None
        self.unfinished = set()  # names of the tests that the guest has still to report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        if Needs.of(item) is None or item.get_closest_marker("skip"):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._run(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        item.session._setupstate.teardown_exact(nextitem)
        return True

    def pytest_sessionfinish(self):
        self._end_guest()

    def _run(self, item):
        if item.nodeid not in self.unfinished:
            self._end_guest()
            items = self._company(item)
            self.guest = Guest(self.config, items, Needs.of(item))
            self.unfinished = {other.nodeid for other in items}
        self.unfinished.discard(item.nodeid)
        reports = list(self.guest.take(item))
        if {report.when for report in reports} < set(PARTS) and not any(r.when == "teardown" for r in reports):
            said = self._end_guest()
            reports.append(pytest.TestReport(item.nodeid, item.location, {}, "failed",
                                             f"the guest ended during this test: {said}", "call"))
        return reports

    def _company(self, first):
        """The tests that share a guest with this one: those that follow it and need the same."""
        items = first.session.items[first.session.items.index(first):]
        needs, company = Needs.of(first), [first]
        for item in [] if needs.fresh else items[1:]:
            other = Needs.of(item)
            if item.path != first.path or other is None or \
                    (other.devices, other.memory, other.fresh) != (needs.devices, needs.memory, False):
                break
            company.append(item)
        return company

    def _end_guest(self):
        self.unfinished = set()
        guest, self.guest = self.guest, None
        return guest.end() if guest else ""
