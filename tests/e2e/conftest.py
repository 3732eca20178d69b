# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests: real seeds and forks as processes on free loopback ports.

Every process started here is ended here, by pid. Nothing waits by sleeping: waiting is a blocking read, a poll
of a descriptor, or a long request.
"""
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import harness  # noqa: E402

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


@pytest.fixture(scope="session")
def full():
    """True when repeated rows run at their stated counts."""
    return os.environ.get("SPROUT_TEST_FULL") == "1"


@pytest.fixture(scope="session")
def repeat(full):
    """repeat(100): how often a row runs, a tenth unless SPROUT_TEST_FULL=1."""
    return lambda count: count if full else max(1, count // 10)


@pytest.fixture(scope="session")
def models(binary, tmp_path_factory):
    """models("tiny"): directory of a synthetic model, made once per session."""
    made = {}
    base = tmp_path_factory.mktemp("models")

    def make(spec, seed=1):
        key = (spec, seed)
        if key not in made:
            path = base / f"{spec.replace(':', '_')}-{seed}"
            subprocess.run([binary, "synth", spec, str(path), "--seed", str(seed), "-q"], check=True,
                           timeout=300)
            made[key] = path
        return made[key]

    return make


@pytest.fixture
def sprout(binary, tmp_path):
    """The running world of one test; everything it started is ended afterwards."""
    world = harness.World(binary, tmp_path)
    yield world
    world.close()
