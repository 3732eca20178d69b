# SPDX-License-Identifier: Apache-2.0
"""Strangers: no token, wrong token, garbage, oversize, slow senders, path tricks. The seed refuses and keeps serving."""
import json
import os
import pathlib
import socket

import pytest

SECRET = "s3cr3t-token-that-must-not-leak"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def locked(sprout, models, token_file):
    return sprout.seed(models("tiny"), "--token-file", token_file)


def test_open_address_needs_a_token_or_consent(sprout, models):
    refused = sprout.run("seed", models("tiny"), "--listen", "0.0.0.0:0")
    assert refused.returncode == 2
    text = refused.stderr.decode()
    assert "--allow-anonymous" in text and "--token-file" in text


def test_matrix_of_tokens(locked, sprout):
    for header, expected in [(None, 401), ("Bearer wrong", 401), ("Basic Zm9v", 401), ("Bearer", 401),
                             (f"Bearer {SECRET}x", 401), (f"Bearer {SECRET[:-1]}", 401),
                             (f"Bearer {SECRET}", 200), (f"bearer {SECRET}", 200)]:
        headers = {} if header is None else {"Authorization": header}
        status, answer, body = locked.request("GET", "/v1/manifest", headers=headers)
        assert status == expected, (header, status)
        if status == 401:
            assert answer["WWW-Authenticate"].startswith("Bearer")
            assert json.loads(body)["error"]["code"] == "denied"
    assert locked.request("GET", "/livez")[0] == 200
    assert SECRET not in locked.text()


def test_fork_with_and_without_token(locked, sprout, token_file, tmp_path):
    assert sprout.fork(locked, "null:").exit == 3
    assert sprout.fork(locked, "null:", "--token-file", token_file).exit == 0
    assert sprout.fork(locked, "null:", env={"SPROUT_TOKEN": SECRET}).exit == 0
    wrong = tmp_path / "wrong"
    wrong.write_text("other\n")
    done = sprout.fork(locked, "null:", "--token-file", wrong)
    assert done.exit == 3 and "other" not in done.errors.split()


def test_rotation(locked, sprout, token_file):
    token_file.write_text("new-token\n" + SECRET + "\n")
    new = {"Authorization": "Bearer new-token"}
    while locked.request("GET", "/v1/status", headers=new)[0] != 200:
        pass  # bounded by the test's own time limit; each round is a request that the seed answers
    assert locked.request("GET", "/v1/status", headers={"Authorization": f"Bearer {SECRET}"})[0] == 200


def test_token_never_in_argv(locked, sprout, token_file):
    fork = sprout.start_fork(locked, "null:", "--token-file", token_file)
    for process in (locked.process, fork.process):
        try:
            assert SECRET.encode() not in pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except FileNotFoundError:
            pass
    assert fork.wait().exit == 0


def raw(seed, data, timeout=20):
    """Sends bytes, returns all that comes back until the seed closes or answers."""
    with socket.create_connection((seed.host, seed.port), timeout=timeout) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        received = b""
        try:
            while block := connection.recv(65536):
                received += block
        except OSError:
            pass
        return received


GARBAGE = [
    b"\x00" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 200,
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"POST /v1/forks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /v1/forks HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    os.urandom(5000),
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_refused_and_the_seed_serves_on(sprout, models, data):
    seed = sprout.seed(models("tiny"))
    answer = raw(seed, data)
    if answer:
        assert int(answer.split()[1]) >= 400, answer[:200]
        assert b'"error"' in answer, answer[:400]
    assert sprout.fork(seed, "null:").exit == 0


def test_bad_bodies(sprout, models):
    seed = sprout.seed(models("tiny"))
    for body in [b"", b"\xc1", b"\x80", b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"{}", os.urandom(300)]:
        status, _, text = seed.request("POST", "/v1/forks", body=body, headers={"Content-Type": "application/msgpack"})
        assert 400 <= status < 500, (body[:10], status)
        assert json.loads(text)["error"]["code"]
    assert sprout.fork(seed, "null:").exit == 0


PATHS = ["/v1/files/../../etc/passwd", "/v1/files/%2e%2e/%2e%2e/etc/passwd", "/v1/files/..%2f..%2fetc%2fpasswd",
         "/v1/files/config.json%00.txt", "/v1/files//etc/passwd", "/v1/files/%2fetc%2fpasswd",
         "/v1/files/./config.json", "/v1/files/sub/../config.json", "/v1/objects/..%2f..%2fetc%2fpasswd",
         "/v1/files/", "/v1/files/%", "/v1/files/%zz", "/v1/nothing", "//etc/passwd"]


@pytest.mark.parametrize("path", PATHS)
def test_path_tricks(sprout, models, path):
    seed = sprout.seed(models("tiny"))
    status, _, body = seed.request("GET", path)
    assert status in (400, 404), (path, status)
    error = json.loads(body)["error"]
    assert error["code"] and error["message"] and error["hint"]
    assert b"root:" not in body


def test_slow_sender_is_cut_and_others_are_served(sprout, models):
    seed = sprout.seed(models("tiny"))
    slow = [socket.create_connection((seed.host, seed.port), timeout=30) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"GET /v1/manifest HTTP/1.1\r\nHo")
    assert sprout.fork(seed, "null:").exit == 0
    answer = slow[0].recv(65536)
    assert answer == b"" or b" 408 " in answer
    for connection in slow:
        connection.close()


def test_wrong_method_says_what_is_allowed(sprout, models):
    seed = sprout.seed(models("tiny"))
    status, headers, body = seed.request("DELETE", "/v1/manifest")
    assert status == 405 and "GET" in headers["Allow"] and json.loads(body)["error"]["code"] == "method"
