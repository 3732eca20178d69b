# SPDX-License-Identifier: Apache-2.0
"""Model files: valid ones are served exactly, bad ones are refused with file, tensor and reason."""
import hashlib
import json
import os
import struct

import pytest

from harness import tree_hashes


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


GOOD = {
    "zero-length": safetensors({"a": tensor("F32", [0, 5], 0, 0), "b": tensor("U8", [3], 0, 3)}, b"abc"),
    "only-empty": safetensors({"a": tensor("F32", [0], 0, 0)}),
    "no-tensors": safetensors({}),
    "scalar": safetensors({"a": tensor("F64", [], 0, 8)}, os.urandom(8)),
    "metadata": safetensors({"__metadata__": {"format": "pt"}, "a": tensor("I8", [4], 0, 4)}, b"wxyz"),
    "tied": safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 0, 4)}, b"tied"),
    "fp8": safetensors({"a": tensor("F8_E4M3", [8], 0, 8), "b": tensor("F8_E5M2", [8], 8, 16)}, os.urandom(16)),
    "fp4": safetensors({"a": tensor("F4", [6], 0, 3), "b": tensor("F8_E8M0", [1], 3, 4)}, b"1234"),
    "padded": safetensors(json.dumps({"a": tensor("U8", [2], 0, 2)}).encode() + b"     ", b"hi"),
    "unordered": safetensors({"z": tensor("U8", [2], 3, 5), "a": tensor("U8", [3], 0, 3)}, b"abcde"),
}

BAD = {
    "empty-file": (b"", ""),
    "short": (b"\x01\x02", ""),
    "text": (b"this is not a model but a text that is long enough", ""),
    "length-beyond-file": (safetensors({}, length=1000), ""),
    "absurd-length": (struct.pack("<Q", 2 ** 63) + b"{}", ""),
    "not-json": (safetensors(b"{nonsense"), ""),
    "array": (safetensors(b"[1,2]"), ""),
    "truncated-data": (safetensors({"a": tensor("U8", [9], 0, 9)}, b"abc"), "a"),
    "trailing-data": (safetensors({"a": tensor("U8", [1], 0, 1)}, b"abc"), ""),
    "overlap": (safetensors({"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, b"abcdef"), "b"),
    "hole": (safetensors({"a": tensor("U8", [1], 0, 1), "b": tensor("U8", [1], 2, 3)}, b"abc"), "b"),
    "backwards": (safetensors({"a": tensor("U8", [1], 2, 1)}, b"abc"), "a"),
    "overflow-shape": (safetensors({"a": tensor("F32", [2 ** 62, 16], 0, 4)}, b"abcd"), "a"),
    "overflow-offset": (safetensors({"a": tensor("U8", [1], 2 ** 64 - 1, 2 ** 64)}, b"a"), ""),
    "huge-number": (safetensors(b'{"a":{"dtype":"U8","shape":[99999999999999999999999],"data_offsets":[0,1]}}', b"a"), ""),
    "negative": (safetensors({"a": tensor("U8", [-1], 0, 1)}, b"a"), "a"),
    "float-shape": (safetensors({"a": tensor("U8", [1.5], 0, 1)}, b"a"), "a"),
    "size-mismatch": (safetensors({"a": tensor("F32", [2], 0, 4)}, b"abcd"), "a"),
    "unknown-dtype": (safetensors({"a": tensor("Q9", [1], 0, 1)}, b"a"), "a"),
    "half-byte": (safetensors({"a": tensor("F4", [3], 0, 2)}, b"ab"), "a"),
    "duplicate-tensor": (safetensors(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"a"), ""),
    "duplicate-key": (safetensors(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"a"), ""),
    "deep": (safetensors(b'{"a":' * 5000 + b"1" + b"}" * 5000), ""),
    "missing-key": (safetensors({"a": {"dtype": "U8", "shape": [1]}}, b"a"), "a"),
    "nul-name": (safetensors(b'{"a\\u0000b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"a"), ""),
}


@pytest.mark.parametrize("name", GOOD)
def test_valid_file_is_served_exactly(sprout, tmp_path, name):
    source = tmp_path / "model"
    source.mkdir()
    (source / "model.safetensors").write_bytes(GOOD[name])
    seed = sprout.seed(source)
    done = sprout.fork(seed, tmp_path / "copy")
    assert done.exit == 0, done
    assert tree_hashes(tmp_path / "copy") == tree_hashes(source)


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_by_name(sprout, tmp_path, name):
    data, tensor_name = BAD[name]
    source = tmp_path / "model"
    source.mkdir()
    (source / "broken.safetensors").write_bytes(data)
    refused = sprout.run("seed", source, "--listen", "127.0.0.1:0")
    text = refused.stderr.decode()
    assert refused.returncode not in (0, None) and refused.returncode > 0, text
    assert "broken.safetensors" in text
    if tensor_name:
        assert f"'{tensor_name}'" in text or f'"{tensor_name}"' in text, text


def test_empty_directory_is_refused(sprout, tmp_path):
    (tmp_path / "nothing").mkdir()
    refused = sprout.run("seed", tmp_path / "nothing", "--listen", "127.0.0.1:0")
    assert refused.returncode > 0 and "nothing" in refused.stderr.decode()


def test_missing_path_is_refused(sprout, tmp_path):
    refused = sprout.run("seed", tmp_path / "absent", "--listen", "127.0.0.1:0")
    assert refused.returncode == 6 and "absent" in refused.stderr.decode()


def test_sparse_file_over_4_gib(sprout, tmp_path):
    """Offsets beyond 32 bits; the tail is compared after a selective read, and over HTTP."""
    size = (4 << 30) + 4096
    source = tmp_path / "model"
    source.mkdir()
    head = safetensors({"big": tensor("U8", [size], 0, size), "tail": tensor("U8", [5], size, size + 5)})
    with open(source / "model.safetensors", "wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
        file.seek(len(head) + size)
        file.write(b"tail!")
    seed = sprout.seed(source)
    status, _, body = seed.request("GET", "/v1/objects/tail")
    assert status == 200 and body == b"tail!"
    first = len(head) + (4 << 30) - 3
    status, headers, body = seed.request("GET", "/v1/files/model.safetensors",
                                         headers={"Range": f"bytes={first}-{first + 9}"})
    assert status == 206 and body == b"\0" * 10
    assert headers["Content-Range"] == f"bytes {first}-{first + 9}/{len(head) + size + 5}"
    done = sprout.fork(seed, "null:", "--tensor", "tail")
    assert done.exit == 0 and done.result["bytes"] <= 4 << 20


@pytest.mark.slow
def test_sparse_file_over_4_gib_forks_whole(sprout, tmp_path):
    size = (4 << 30) + 123
    source = tmp_path / "model"
    source.mkdir()
    head = safetensors({"big": tensor("U8", [size], 0, size)})
    with open(source / "model.safetensors", "wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
        file.seek(len(head) + size - 5)
        file.write(b"tail!")
    seed = sprout.seed(source)
    done = sprout.fork(seed, "null:", timeout=120)
    assert done.exit == 0 and done.result["verified"], done


def test_many_tensors_from_the_reference_writer(sprout, tmp_path):
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    source = tmp_path / "model"
    source.mkdir()
    generator = numpy.random.default_rng(1)
    tensors = {f"layers.{i}.weight": generator.integers(0, 255, (i % 7 + 1, 33), dtype=numpy.uint8) for i in range(500)}
    library.save_file(tensors, str(source / "model.safetensors"), metadata={"format": "np"})
    seed = sprout.seed(source)
    assert sprout.fork(seed, tmp_path / "copy").exit == 0
    loaded = library.load_file(str(tmp_path / "copy" / "model.safetensors"))
    assert set(loaded) == set(tensors)
    for name, array in tensors.items():
        assert (loaded[name] == array).all()


def test_two_equal_directories_have_one_layout(sprout, tmp_path, models):
    import shutil
    shutil.copytree(models("tiny"), tmp_path / "one" / "m")
    shutil.copytree(models("tiny"), tmp_path / "two" / "m")
    first, second = sprout.seed(tmp_path / "one" / "m"), sprout.seed(tmp_path / "two" / "m")
    ids = [seed.get_json("/v1/manifests") for seed in (first, second)]
    def identity(index):
        text = json.dumps(index)
        return hashlib.sha256(json.dumps(json.loads(text)[0]["id"] if isinstance(index, list)
                                         else index["manifests"][0]["id"]).encode()).hexdigest()
    assert identity(ids[0]) == identity(ids[1])
