# SPDX-License-Identifier: Apache-2.0
"""The n-th allocation fails, the n-th completion fails, every transfer is short: no crash, no hang, no wrong byte.

Needs builds with fault hooks: asan for completions, debug for allocations (sanitizers have an allocator of their own)."""
import os
import pathlib
import shutil

import pytest

import harness
from harness import tree_hashes

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXITS = {0, 2, 3, 4, 5, 6, 75}


def build_of(*presets):
    for preset in presets:
        candidate = ROOT / "build" / preset / "sprout"
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return pytest.skip(f"no build with fault hooks: cmake --preset {presets[0]}")


@pytest.fixture
def faulty():
    """A program with fault hooks, or skip."""
    return build_of("asan", "debug")


@pytest.fixture
def world(sprout, faulty):
    """Seeds are ordinary, forks are the ones with hooks, unless a test says otherwise."""
    sprout.faulty = faulty
    return sprout


def faulty_fork(world, sources, destination, *arguments, env):
    urls = [source if isinstance(source, str) else source.url for source in sources]
    fork = harness.Fork(world.faulty, urls, destination, *arguments, env=env)
    world.forks.append(fork)
    return fork.wait(30)


def numbers(full, dense, sparse, end):
    """Every early one, then fewer and fewer."""
    step = 1 if full else 5
    return list(range(0, dense, step)) + list(range(dense, end, sparse * step))


def test_nth_completion_of_the_fork_fails(world, models, tmp_path, full):
    path = models("tiny")
    seed = world.seed(path)
    expected = tree_hashes(path)
    ended = {}
    for number in numbers(full, 60, 7, 120):
        copy = tmp_path / "copy"
        done = faulty_fork(world, [seed], copy, "--stall-timeout", "500ms", env={"SPROUT_FAULT_RING": f"{number}:-5"})
        assert done.exit in EXITS, (number, done)
        ended[done.exit] = ended.get(done.exit, 0) + 1
        if done.exit == 0:
            assert tree_hashes(copy) == expected, number
        shutil.rmtree(copy, ignore_errors=True)
    print(f"n-th completion fails: exits {ended}")
    assert len(ended) > 1


def test_nth_completion_of_a_seed_fails(world, models, tmp_path, full):
    """A second, healthy seed completes the fork whatever happens to the first."""
    path = models("tiny")
    healthy = world.seed(path)
    expected = tree_hashes(path)
    for number in numbers(full, 30, 7, 60):
        ailing = harness.Seed(world.faulty, world.scratch, [path], env={"SPROUT_FAULT_RING": f"{number}:-5"}, wait=True)
        world.seeds.append(ailing)
        copy = tmp_path / "copy"
        done = world.fork([ailing, healthy], copy, "--stall-timeout", "500ms", timeout=30)
        assert done.exit == 0, (number, done)
        assert tree_hashes(copy) == expected
        shutil.rmtree(copy)
        assert ailing.process.poll() in (None, 6), (number, ailing.text())
        ailing.end()


@pytest.mark.parametrize("size,glob", [(4096, "*"), (1000, "*"), (1, "*.json")])
def test_short_transfers(world, models, tmp_path, size, glob):
    path = models("tiny")
    seed = world.seed(path)
    done = faulty_fork(world, [seed], tmp_path / "copy", "--include", glob, env={"SPROUT_FAULT_RING": f"SHORT:{size}"})
    assert done.exit == 0, done
    copy, original = tree_hashes(tmp_path / "copy"), tree_hashes(path)
    assert copy and all(original[name] == value for name, value in copy.items())


@pytest.fixture
def preload(world):
    """The allocator that fails; the world's faulty program is then the one without sanitizers."""
    world.faulty = build_of("debug")
    library = next(pathlib.Path(world.faulty).parent.rglob("libfail_alloc.so"), None)
    if not library:
        pytest.skip("the failing allocator was not built")
    return str(library)


def test_nth_allocation_of_the_fork_fails(world, models, tmp_path, full, preload):
    path = models("tiny")
    seed = world.seed(path)
    expected = tree_hashes(path)
    ended = {}
    for number in numbers(full, 400, 11, 1200):
        copy = tmp_path / "copy"
        done = faulty_fork(world, [seed], copy, env={"LD_PRELOAD": preload, "SPROUT_FAIL_ALLOC": str(number)})
        assert done.exit in EXITS, (number, done)
        ended[done.exit] = ended.get(done.exit, 0) + 1
        if done.exit == 0:
            assert tree_hashes(copy) == expected, number
        shutil.rmtree(copy, ignore_errors=True)
    print(f"n-th allocation fails: exits {ended}")
    assert 6 in ended


def test_nth_allocation_of_the_seed_fails(world, models, tmp_path, full, preload):
    """It says so and ends, or it serves."""
    path = models("tiny")
    served = refused = 0
    for number in numbers(full, 400, 11, 1200):
        seed = None
        try:
            seed = harness.Seed(world.faulty, world.scratch, [path],
                                env={"LD_PRELOAD": preload, "SPROUT_FAIL_ALLOC": str(number)})
        except AssertionError as error:
            assert "exit 6" in str(error), (number, error)
            refused += 1
            continue
        world.seeds.append(seed)
        first = world.fork(seed, "null:", timeout=30)
        if first.exit != 0:
            assert first.exit in EXITS
            assert world.fork(seed, "null:", timeout=30).exit == 0, number
        served += 1
        seed.end()
    print(f"n-th allocation of the seed fails: {refused} refused, {served} served")
    assert refused and served
