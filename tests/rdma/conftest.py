# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of RDMA, and the way into the lab for those that are marked with it: see guest.py.

Every process started here is ended here, by pid. Nothing waits by sleeping: waiting is a blocking read, a poll
of a descriptor, or a long request; where time is what a test is about, the test says how much.
"""
import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "e2e")]
import fabric  # noqa: E402
import guest  # noqa: E402
from shared_fixtures import full, models, repeat  # noqa: E402, F401

INSIDE = os.environ.get(guest.INSIDE)


def pytest_configure(config):
    config.addinivalue_line("markers", "lab(devices, memory, timeout, fresh): runs inside the lab")
    config.addinivalue_line("markers", "boots: runs outside the lab and boots guests itself")
    config.addinivalue_line("markers", "needs_rdma: the program has to be built with RDMA")
    if INSIDE:
        # Leaks are looked for by tracing, which this kernel does not support well enough.
        os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=1")
        config.pluginmanager.register(guest.Reporter(config, INSIDE))
    else:
        config.pluginmanager.register(guest.LabTests(config))


def pytest_collection_modifyitems(config, items):
    if INSIDE:
        for item in items:
            item.add_marker(pytest.mark.timeout(guest.Needs.of(item).timeout))
        return
    keep_one(config, items, lambda item: guest.Needs.of(item) or item.get_closest_marker("boots"), fabric.why_missing)
    keep_one(config, items, lambda item: item.get_closest_marker("needs_rdma"), why_no_rdma)
    for item in items:
        if guest.Needs.of(item) is not None:
            item.add_marker(pytest.mark.timeout(0))  # the time of what runs inside is kept there


def keep_one(config, items, needs_it, why_not):
    """Where something is missing, keeps of the tests that need it one, which is skipped in the name of all."""
    needy = [item for item in items if needs_it(item) and not item.get_closest_marker("skip")]
    reason = why_not() if needy else None
    if reason is None:
        return
    needy[0].add_marker(pytest.mark.skip(reason=f"{len(needy)} tests: {reason}"))
    items[:] = [item for item in items if item not in needy[1:]]
    config.hook.pytest_deselected(items=needy[1:])


def find_binary():
    """Path of the program under test; None when there is none."""
    path = os.environ.get("SPROUT_BIN")
    built = [str(ROOT / "build" / preset / "sprout") for preset in ("release", "debug", "asan")]
    return next((path for path in ([path] if path else built) if os.access(path, os.X_OK)), None)


def why_no_rdma():
    path = find_binary()
    return fabric.why_no_rdma(path) if path else "no sprout program: build one or set SPROUT_BIN"


@pytest.fixture(scope="session")
def binary():
    return find_binary() or pytest.exit("no sprout program: build one or set SPROUT_BIN", returncode=2)


@pytest.fixture
def sprout(binary, tmp_path):
    """The running world of one test; everything it started is ended afterwards, and links are whole again."""
    world = fabric.World(binary, tmp_path)
    yield world
    world.close()
    fabric.mend()
