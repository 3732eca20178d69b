# SPDX-License-Identifier: Apache-2.0
"""Sources that lie: wrong bytes, another model, another label."""
import shutil

from harness import tree_hashes


def flip(position_of_flip):
    """Mutates one byte of what the seed sends, well inside the weights."""
    def mutate(position, data):
        if position <= position_of_flip < position + len(data):
            data = bytearray(data)
            data[position_of_flip - position] ^= 0x40
            return bytes(data)
        return data
    return mutate


def test_wrong_bytes_single_source(sprout, models):
    seed = sprout.seed(models("size:50MB"))
    tap = sprout.tap(seed, mutate=flip(30_000_000))
    done = sprout.fork(tap, "null:")
    assert done.exit == 5, done
    assert tap.url.removeprefix("http://") in done.errors


def test_wrong_bytes_are_read_from_the_other(sprout, models, tmp_path, repeat):
    path = models("size:50MB")
    honest, liar = sprout.seed(path), sprout.seed(path)
    caught = 0
    for run in range(repeat(20)):
        position = sprout.random.randrange(1_000_000, 12_000_000)
        tap = sprout.tap(liar, mutate=flip(position))
        copy = tmp_path / f"copy{run}"
        done = sprout.fork([honest, tap], copy)
        assert done.exit == 0, done
        assert tree_hashes(copy) == tree_hashes(path)
        shutil.rmtree(copy)
        states = {source["url"]: source for source in done.result["sources"]}
        named = next(source for url, source in states.items() if str(tap.port) in url)
        if tap.relayed > position:  # it had the time to lie
            caught += 1
            assert named["state"] == "dropped", (position, tap.relayed, done.result)
        tap.close()
    print(f"lying source: caught and named {caught} times, right bytes from the other")
    assert caught > 0


def test_source_of_another_model(sprout, models, tmp_path):
    right, wrong = sprout.seed(models("tiny", 1)), sprout.seed(models("size:50MB"))
    done = sprout.fork([right, wrong], tmp_path / "copy")
    assert done.exit == 0, done
    assert tree_hashes(tmp_path / "copy") == tree_hashes(models("tiny", 1))
    dropped = [s for s in done.result["sources"] if s["state"] == "dropped"]
    assert len(dropped) == 1 and str(wrong.port) in dropped[0]["url"]


def test_same_shapes_other_bytes(sprout, models, tmp_path):
    """Same layout, other weights: the second source deviates from the authority's digests."""
    path = models("size:50MB", 1)
    right, wrong = sprout.seed(path, "--name", "m"), sprout.seed(models("size:50MB", 2), "--name", "m")
    right.await_digests()
    done = sprout.fork([right, wrong], tmp_path / "copy")
    assert done.exit == 0, done
    assert tree_hashes(tmp_path / "copy") == tree_hashes(path)


def test_source_of_another_label(sprout, models):
    step1 = sprout.seed(models("tiny"), "--label", "step-1")
    step2 = sprout.seed(models("tiny"), "--label", "step-2")
    done = sprout.fork([step1, step2], "null:")
    assert done.exit == 0, done
    dropped = [s for s in done.result["sources"] if s["state"] == "dropped"]
    assert len(dropped) == 1 and "step-2" in str(dropped[0]) and str(step2.port) in dropped[0]["url"]


def test_only_another_model(sprout, models):
    seed = sprout.seed(models("tiny"), "--name", "b")
    done = sprout.fork(seed, "null:", "--model", "a")
    assert done.exit == 5, done


def test_names_with_special_characters(sprout, models):
    """A model's name and rank key travel in a query, whatever they hold."""
    seed = sprout.seed(models("tiny"), "--name", "a&b=c+d #?/é%20", "--rank", "tp=0/2&x")
    assert sprout.fork(seed, "null:", "--model", "a&b=c+d #?/é%20", "--rank", "tp=0/2&x").exit == 0
    wrong = sprout.fork(seed, "null:", "--rank", "tp=1/2")
    assert wrong.exit == 5 and "tp=0/2&x" in wrong.errors
