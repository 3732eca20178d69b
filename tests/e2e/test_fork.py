# SPDX-License-Identifier: Apache-2.0
"""A fork is a bit-identical copy; objects and files are served to any HTTP client; a running seed is not needed twice."""
import json
import os
import shutil
import subprocess

import pytest

from harness import tree_hashes


def make_tree(base, models):
    """A model directory with everything a directory may hold."""
    shutil.copytree(models("tiny"), base)
    (base / "sub" / "deeper").mkdir(parents=True)
    (base / "sub" / "deeper" / "vocab.bin").write_bytes(os.urandom(100_003))
    (base / "empty.txt").write_bytes(b"")
    (base / "sub" / "ä ü%20#?.txt").write_text("a name that must be escaped")
    (base / "run.sh").write_text("#!/bin/sh\n")
    (base / "run.sh").chmod(0o755)
    (base / "link.json").symlink_to("config.json")
    (base / "linked").symlink_to("sub")
    return base


def test_directory_fork_is_bit_identical(sprout, models, tmp_path):
    source = make_tree(tmp_path / "model", models)
    seed = sprout.seed(source)
    done = sprout.fork(seed, tmp_path / "copy")
    assert done.exit == 0, done
    assert done.result["result"] == "complete" and done.result["verified"]
    assert tree_hashes(tmp_path / "copy") == tree_hashes(source)
    assert os.access(tmp_path / "copy" / "run.sh", os.X_OK)
    assert not (tmp_path / "copy" / ".sprout").exists()


def test_second_fork_reuses_everything(sprout, models, tmp_path):
    seed = sprout.seed(models("tiny"))
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    again = sprout.fork(seed, tmp_path / "copy")
    assert again.exit == 0, again
    assert again.result["reused_bytes"] == again.result["bytes"] > 0
    assert again.result["received_bytes"] == 0


def test_sha256sum_agrees(sprout, models, tmp_path):
    source = make_tree(tmp_path / "model", models)
    sums = subprocess.run("find -L . -type f -print0 | sort -z | xargs -0 sha256sum", shell=True, cwd=source,
                          check=True, capture_output=True).stdout
    seed = sprout.seed(source)
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "-"], input=sums, cwd=tmp_path / "copy", check=True)


def test_hugging_face_cache_snapshot(sprout, models, tmp_path):
    repo = tmp_path / "models--acme--tiny"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for number, path in enumerate(sorted(p for p in models("tiny").rglob("*") if p.is_file())):
        blob = repo / "blobs" / f"{number:064x}"
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(f"../../blobs/{blob.name}")
    seed = sprout.seed(snapshot)
    assert "acme/tiny" in seed.get_json("/v1/manifest").get("identity", {}).get("model", "")
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    assert tree_hashes(tmp_path / "copy") == tree_hashes(snapshot)


def test_link_that_leaves_the_directory_is_skipped(sprout, models, tmp_path):
    source = make_tree(tmp_path / "model", models)
    (source / "passwd").symlink_to("/etc/passwd")
    (tmp_path / "outside.txt").write_text("secret")
    (source / "outside.txt").symlink_to("../outside.txt")
    seed = sprout.seed(source)
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    assert not (tmp_path / "copy" / "passwd").exists()
    assert not (tmp_path / "copy" / "outside.txt").exists()
    assert "passwd" in seed.text() and "outside.txt" in seed.text()


def test_single_file_seed(sprout, models, tmp_path):
    path = next(models("tiny").glob("*.safetensors"))
    seed = sprout.seed(path)
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    assert list(tree_hashes(tmp_path / "copy")) == [path.name]


def test_memory_host_survives_removal_of_the_files(sprout, models, tmp_path):
    source = tmp_path / "model"
    shutil.copytree(models("tiny"), source)
    expected = tree_hashes(source)
    seed = sprout.seed(source, "--memory", "host")
    shutil.rmtree(source)
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    assert tree_hashes(tmp_path / "copy") == expected


@pytest.mark.parametrize("options,wanted", [
    (["--include", "*.json"], lambda name: name.endswith(".json")),
    (["--exclude", "*.safetensors"], lambda name: not name.endswith(".safetensors")),
])
def test_globs_select_files(sprout, models, tmp_path, options, wanted):
    seed = sprout.seed(models("tiny"))
    assert sprout.fork(seed, tmp_path / "copy", *options).exit == 0
    expected = {name: value for name, value in tree_hashes(models("tiny")).items() if wanted(name)}
    assert expected and tree_hashes(tmp_path / "copy") == expected


def test_tensor_glob_reads_only_those(sprout, models):
    seed = sprout.seed(models("tiny"))
    everything = sprout.fork(seed, "null:")
    some = sprout.fork(seed, "null:", "--tensor", "*layers.0.*")
    assert some.exit == 0 and 0 < some.result["bytes"] < everything.result["bytes"]


def test_globs_that_select_nothing_are_an_error(sprout, models):
    seed = sprout.seed(models("tiny"))
    done = sprout.fork(seed, "null:", "--include", "*.nothing")
    assert done.exit == 2 and "*.nothing" in done.errors


def test_file_source_is_a_last_resort(sprout, models, tmp_path):
    seed = sprout.seed(models("tiny"))
    both = sprout.fork([seed, f"file://{models('tiny')}"], tmp_path / "both")
    assert both.exit == 0
    by_url = {source["url"]: source["received_bytes"] for source in both.result["sources"]}
    assert sum(count for url, count in by_url.items() if url.startswith("file:")) == 0
    seed.kill()
    dead = sprout.fork([seed, f"file://{models('tiny')}"], tmp_path / "dead")
    assert dead.exit == 0, dead
    assert tree_hashes(tmp_path / "dead") == tree_hashes(models("tiny"))


def test_another_file_in_the_way_is_kept_without_force(sprout, models, tmp_path):
    seed = sprout.seed(models("tiny"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "config.json").write_text("mine")
    refused = sprout.fork(seed, tmp_path / "copy")
    assert refused.exit == 6 and "config.json" in refused.errors and "--force" in refused.errors
    assert (tmp_path / "copy" / "config.json").read_text() == "mine"
    forced = sprout.fork(seed, tmp_path / "copy", "--force")
    assert forced.exit == 0, forced
    assert tree_hashes(tmp_path / "copy") == tree_hashes(models("tiny"))


def test_dry_run_creates_nothing(sprout, models, tmp_path):
    seed = sprout.seed(models("tiny"))
    done = sprout.fork(seed, tmp_path / "copy", "--dry-run")
    assert done.exit == 0, done
    assert not (tmp_path / "copy").exists()


def test_verify_finds_a_flipped_byte(sprout, models, tmp_path):
    seed = sprout.seed(models("tiny"))
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    assert sprout.run("verify", seed.url, tmp_path / "copy").returncode == 0
    victim = next((tmp_path / "copy").glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    bad = sprout.run("verify", seed.url, tmp_path / "copy")
    assert bad.returncode == 5 and victim.name in bad.stderr.decode() + bad.stdout.decode()


def test_no_verify_says_so(sprout, models):
    seed = sprout.seed(models("tiny"))
    done = sprout.fork(seed, "null:", "--no-verify")
    assert done.exit == 0 and done.result["verified"] in (False, "none", None)


def test_curl_ranges_are_byte_exact(sprout, models, tmp_path):
    source = make_tree(tmp_path / "model", models)
    seed = sprout.seed(source)
    name = next(source.glob("*.safetensors")).name
    data = (source / name).read_bytes()
    size = len(data)
    for first, last in [(0, 0), (0, 7), (8, 1000), (size - 1, size - 1), (size // 2, size // 2 + 70000), (5, None)]:
        text = f"{first}-" if last is None else f"{first}-{last}"
        got = subprocess.run(["curl", "-sS", "-f", "-r", text, f"{seed.url}/v1/files/{name}"], check=True,
                             capture_output=True, timeout=30).stdout
        assert got == data[first:] if last is None else got == data[first:last + 1]
    tail = subprocess.run(["curl", "-sS", "-f", "-r", "-10", f"{seed.url}/v1/files/{name}"], check=True,
                          capture_output=True, timeout=30).stdout
    assert tail == data[-10:]
    status, headers, _ = seed.request("GET", f"/v1/files/{name}", headers={"Range": f"bytes={size}-"})
    assert status == 416 and headers["Content-Range"] == f"bytes */{size}"


def test_curl_objects_equal_safetensors(sprout, models):
    numpy_file = next(models("tiny").glob("*.safetensors"))
    raw = numpy_file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:8 + length])
    seed = sprout.seed(models("tiny"))
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        status, _, body = seed.request("GET", f"/v1/objects/{name}")
        assert status == 200 and body == raw[begin:end], name


def test_escaped_file_names(sprout, models, tmp_path):
    source = make_tree(tmp_path / "model", models)
    seed = sprout.seed(source)
    status, _, body = seed.request("GET", "/v1/files/sub/%C3%A4%20%C3%BC%2520%23%3F.txt")
    assert status == 200 and body == b"a name that must be escaped"


def test_eight_forks_at_once(sprout, models, tmp_path):
    seed = sprout.seed(models("size:100MB"))
    forks = [sprout.start_fork(seed, tmp_path / f"copy{i}") for i in range(8)]
    expected = tree_hashes(models("size:100MB"))
    for number, fork in enumerate(forks):
        done = fork.wait()
        assert done.exit == 0, done
        assert tree_hashes(tmp_path / f"copy{number}") == expected


def test_queue_admits_in_turn(sprout, models):
    seed = sprout.seed(models("size:100MB"), "--max-forks", "1", "--max-rate", "200M")
    forks = [sprout.start_fork(seed, "null:") for _ in range(3)]
    assert [fork.wait().exit for fork in forks] == [0, 0, 0]


def test_wait_zero_gives_up_with_75(sprout, models):
    seed = sprout.seed(models("size:100MB"), "--max-forks", "1", "--max-rate", "20M")
    first = sprout.start_fork(seed, "null:")
    assert first.await_line(lambda line: line.get("received_bytes", 0) > 0)
    second = sprout.fork(seed, "null:", "--wait", "0s")
    assert second.exit == 75, second


def test_ls_and_status(sprout, models):
    seed = sprout.seed(models("tiny"))
    listing = json.loads(sprout.run("ls", seed.url, "--json").stdout)
    assert listing
    assert sprout.run("ls", seed.url).returncode == 0
    assert sprout.run("status", seed.url).returncode == 0
    assert json.loads(sprout.run("status", seed.url, "--json").stdout)
