# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests: real seeds and forks as processes on free loopback ports.

Every process started here is ended here, by pid. Nothing waits by sleeping: waiting is a blocking read, a poll
of a descriptor, or a long request.
"""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import harness  # noqa: E402
from shared_fixtures import full, models, repeat  # noqa: E402, F401

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: many repetitions")


@pytest.fixture(scope="session")
def binary():
    path = os.environ.get("SPROUT_BIN")
    if not path:
        for preset in ("release", "debug", "asan"):
            candidate = ROOT / "build" / preset / "sprout"
            if candidate.exists():
                path = str(candidate)
                break
    if not path or not os.access(path, os.X_OK):
        pytest.exit("no sprout program: build one or set SPROUT_BIN", returncode=2)
    return path


@pytest.fixture
def sprout(binary, tmp_path):
    """The running world of one test; everything it started is ended afterwards."""
    world = harness.World(binary, tmp_path)
    yield world
    world.close()
