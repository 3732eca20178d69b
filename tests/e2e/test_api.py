# SPDX-License-Identifier: Apache-2.0
"""The C interface: a fork into caller memory that fails or is cancelled writes nothing afterwards; kernels that forbid io_uring."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def program(binary, name):
    for place in (pathlib.Path(binary).parent, pathlib.Path(binary).parent / "tests"):
        if (place / name).exists():
            return str(place / name)
    pytest.skip(f"{name} was not built next to {binary}")


def test_no_late_byte_in_caller_memory(sprout, binary, models, repeat):
    seed = sprout.seed(models("size:50MB"), "--max-rate", "400M")
    runs = repeat(100)
    done = subprocess.run([program(binary, "late_bytes"), seed.url, str(seed.process.pid), str(runs), "1"],
                          capture_output=True, timeout=600)
    assert done.returncode == 0, (done.stdout, done.stderr)
    figures = json.loads(done.stdout)
    print(f"late bytes: {figures}")
    assert figures["changed_bytes"] == 0 and figures["cut_short"] == runs


def test_io_uring_forbidden_is_said_with_the_remedy(binary, models):
    done = subprocess.run([program(binary, "seccomp_run"), "deny", binary, "seed", str(models("tiny")), "--listen",
                           "127.0.0.1:0"], capture_output=True, timeout=60)
    text = done.stderr.decode()
    assert done.returncode == 6, text
    assert "seccomp" in text and "deploy/seccomp.json" in text


def test_shipped_profile_is_enough(sprout, binary, models, tmp_path):
    """The container profile lets a seed and a fork run."""
    wrapper = tmp_path / "sprout-in-profile"
    wrapper.write_text(f'#!/bin/sh\nexec "{program(binary, "seccomp_run")}" "{ROOT}/deploy/seccomp.json" "{binary}" "$@"\n')
    wrapper.chmod(0o755)
    sprout.binary = str(wrapper)
    seed = sprout.seed(models("tiny"))
    done = sprout.fork(seed, tmp_path / "copy")
    assert done.exit == 0, done
    assert os.path.exists(tmp_path / "copy" / "config.json")
