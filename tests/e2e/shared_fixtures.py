# SPDX-License-Identifier: Apache-2.0
"""Fixtures that the end-to-end tests and those of RDMA share; `binary` is each one's own."""
import os
import subprocess

import pytest


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
