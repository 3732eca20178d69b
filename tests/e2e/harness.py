# SPDX-License-Identifier: Apache-2.0
"""Processes and wires of the end-to-end tests."""
import hashlib
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import threading
import time

TIMEOUT = float(os.environ.get("SPROUT_TEST_TIMEOUT", "60"))


def tree_hashes(directory):
    """{relative path: sha256} of all regular files below a directory, links followed."""
    directory = pathlib.Path(directory)
    hashes = {}
    for base, folders, files in os.walk(directory, followlinks=True):
        for name in files:
            path = pathlib.Path(base) / name
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            hashes[str(path.relative_to(directory))] = digest.hexdigest()
    return hashes


class Seed:
    """One `sprout seed` process. `url` is known once it is ready."""

    def __init__(self, binary, scratch, paths, *arguments, env=None, index=0, wait=True):
        self.log = scratch / f"seed-{index}-{os.urandom(4).hex()}.log"
        options = [str(a) for a in arguments]
        if "--listen" not in options:
            options += ["--listen", "127.0.0.1:0"]
        command = [binary, "seed", *[str(p) for p in paths], *options, "--log-format", "json"]
        self.log_file = open(self.log, "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log_file, env={**os.environ, **(env or {})})
        if not wait:
            return
        line = self.process.stdout.readline()  # the line that says ready, or the end of a seed that refused
        if not line:
            code = self.process.wait(TIMEOUT)
            self.process.stdout.close()
            raise AssertionError(f"seed did not become ready (exit {code}):\n{self.text()}")
        self.ready = json.loads(line)
        self.url = self.ready["url"]
        self.host, port = self.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
        self.port = int(port)

    def text(self):
        self.log_file.flush()
        return self.log.read_text(errors="replace")

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        self.signal(signal.SIGSTOP)
        # A stop is asynchronous: wait until the kernel says that it has happened.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self):
        self.signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait(TIMEOUT)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(TIMEOUT)
        self.process.stdout.close()
        self.log_file.close()

    def request(self, method, path, body=None, headers=None, timeout=TIMEOUT):
        """(status, headers, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def get_json(self, path, **options):
        status, _, body = self.request("GET", path, headers={"Accept": "application/json"}, **options)
        assert status == 200, (status, body)
        return json.loads(body)

    def await_digests(self):
        """Returns when the seed knows every digest: asks it to compute them and waits for the answer."""
        result = subprocess.run([self.process.args[0], "fork", self.url, "null:", "-q", "--progress", "none"],
                                timeout=TIMEOUT * 5, env=os.environ)
        assert result.returncode == 0


class ForkResult:
    def __init__(self, process, output, errors, seconds):
        self.exit = process.returncode
        self.lines = [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]
        self.result = self.lines[-1] if self.lines and self.lines[-1].get("type") == "result" else None
        self.errors = errors.decode(errors="replace")
        self.seconds = seconds

    def __repr__(self):
        return f"exit {self.exit} result {self.result} stderr {self.errors}"


class Fork:
    """One `sprout fork` process with JSON progress."""

    def __init__(self, binary, urls, destination, *arguments, env=None):
        command = [binary, "fork", *urls, str(destination), "--progress", "json", *[str(a) for a in arguments]]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        self.output, self.unread = b"", b""

    def await_line(self, accept):
        """Reads JSON lines until accept(line) is true; None when the output ended before."""
        while line := self._read_line():
            self.output += line
            if line.startswith(b"{") and accept(json.loads(line)):
                return json.loads(line)
        return None

    def _read_line(self):
        """The next line. Past the pipe's own buffer, which would keep lines from whoever reads the rest."""
        while b"\n" not in self.unread:
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                break
            self.unread += data
        end = self.unread.find(b"\n") + 1 or len(self.unread)
        line, self.unread = self.unread[:end], self.unread[end:]
        return line

    def wait(self, timeout=TIMEOUT):
        output, errors = self.process.communicate(timeout=timeout)
        seconds = time.monotonic() - self.begun
        return ForkResult(self.process, self.output + self.unread + output, errors, seconds)

    def wait_with_usage(self):
        """(result, CPU seconds of the process)."""
        output, errors = self.process.stdout.read(), self.process.stderr.read()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - self.begun
        return ForkResult(self.process, self.output + self.unread + output, errors, seconds), usage.ru_utime + usage.ru_stime

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.communicate()


class Tap:
    """A TCP relay in front of a seed: after `limit` bytes from the seed it runs `action` once, then relays on (or not).

    `mutate(position, data)` may change what the seed sent."""

    def __init__(self, seed, limit=None, action=None, mutate=None):
        self.seed, self.limit, self.action, self.mutate = seed, limit, action, mutate
        self.lock = threading.Lock()
        self.relayed = 0
        self.acted = threading.Event()
        self.closing = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.sockets = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection((self.seed.host, self.seed.port), timeout=TIMEOUT)
            except OSError:
                client.close()
                continue
            upstream.settimeout(None)
            with self.lock:
                self.sockets += [client, upstream]
            threading.Thread(target=self._relay, args=(client, upstream, False), daemon=True).start()
            threading.Thread(target=self._relay, args=(upstream, client, True), daemon=True).start()

    def _relay(self, source, sink, counted):
        try:
            while data := source.recv(1 << 18):
                if counted:
                    data = self._count(data)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _count(self, data):
        with self.lock:
            position = self.relayed
            self.relayed += len(data)
            fire = self.limit is not None and self.relayed >= self.limit and not self.acted.is_set()
            if fire:
                self.acted.set()
        if fire and self.action:
            self.action()
        return self.mutate(position, data) if self.mutate else data

    def close(self):
        self.listener.close()
        with self.lock:
            for end in self.sockets:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()


class World:
    def __init__(self, binary, scratch):
        self.binary, self.scratch = binary, scratch
        self.seeds, self.forks, self.taps = [], [], []
        self.random = random.Random(os.environ.get("SPROUT_TEST_SEED", "1"))

    def seed(self, *paths_and_options, env=None, wait=True):
        """seed(path, ..., "--option", ...)"""
        items = list(paths_and_options)
        split = next((i for i, item in enumerate(items) if str(item).startswith("--")), len(items))
        seed = Seed(self.binary, self.scratch, items[:split], *items[split:], env=env, index=len(self.seeds),
                    wait=wait)
        self.seeds.append(seed)
        return seed

    def tap(self, seed, **options):
        tap = Tap(seed, **options)
        self.taps.append(tap)
        return tap

    def start_fork(self, sources, destination, *arguments, env=None):
        if not isinstance(sources, (list, tuple)):
            sources = [sources]
        urls = [source if isinstance(source, str) else source.url for source in sources]
        fork = Fork(self.binary, urls, destination, *arguments, env=env)
        self.forks.append(fork)
        return fork

    def fork(self, sources, destination, *arguments, env=None, timeout=TIMEOUT):
        return self.start_fork(sources, destination, *arguments, env=env).wait(timeout)

    def run(self, *arguments, env=None, timeout=TIMEOUT):
        return subprocess.run([self.binary, *[str(a) for a in arguments]], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=timeout, env={**os.environ, **(env or {})})

    def close(self):
        for fork in self.forks:
            fork.end()
        for tap in self.taps:
            tap.close()
        for seed in self.seeds:
            seed.end()
