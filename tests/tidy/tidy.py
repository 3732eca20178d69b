#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rules about the sources themselves. usage: tidy.py RULE|all [--cc CC] [--cxx CXX]

Prints one line per finding. Exit status: 0 clean, 1 findings, 77 when the tool that a rule needs is not
there. A finding that has to stay is allowed where it stands, with its reason, on the line or up to two
lines above:    tidy: allow RULE: reason
"""

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys

import source

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77

# A file includes its own folder and folders further left.
FOLDERS = ("include", "core", "gpu", "net", "cli")
PRODUCT = FOLDERS + ("python",)
LIBRARY = ("include", "core", "gpu", "net")

# Third-party headers and the only files of the product that know them.
THIRD_PARTY = (
    (r"liburing", ("core/ring_uring*.c", "core/probe.c")),
    (r"xxh", ("core/digest.c",)),
    (r"jansson", ("core/json*.[ch]", "net/json*.[ch]", "cli/json*.[ch]", "net/wire_error.c", "core/safetensors*.c")),
    (r"llhttp", ("net/http_parser.c",)),
    (r"msgpack", ("net/wire*.c",)),
    (r"cuda", ("gpu/*",)),
    (r"infiniband/|rdma/", ("net/verbs/*.c",)),
    (r"cmocka|seccomp", ()),
)

# Folders that hold no sources, for a tree without git.
GENERATED = {".git", ".venv", "build", "__pycache__", ".pytest_cache"}

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 600
TEST_FILE_LINES_MAX = 1000

# Calls that are never right, and calls that are wrong inside the library.
BANNED_CALLS = {
    "unbounded, use snprintf or memcpy": ("strcpy", "strcat", "sprintf", "vsprintf", "gets", "stpcpy"),
    "truncates silently, use snprintf or memcpy": ("strncpy", "strncat"),
    "hides errors, use the bounded parsers of core": ("atoi", "atol", "atoll", "atof", "sscanf"),
    "keeps hidden state": ("strtok", "rand", "srand", "localtime", "gmtime", "ctime", "asctime"),
    "unbounded stack": ("alloca",),
    "waits blindly, wait for an event": ("sleep", "usleep", "nanosleep", "clock_nanosleep"),
    "use sigaction": ("signal",),
    "races with other processes, use mkstemp": ("mktemp", "tmpnam", "tempnam"),
}
BANNED_IN_LIBRARY = {
    "a library does not end its host": ("exit", "_exit", "quick_exit", "abort"),
    "a library prints through its log": ("printf", "vprintf", "puts", "putchar", "perror"),
    "a library does not start programs": ("system", "popen"),
}

WORDING = (
    (r"\b(?:TODO|FIXME|XXX|HACK)\b", "do it or file it"),
    (r"(?<![\w.$}])/(?:work|root|home/\w+)/", "path of one machine"),
    (r"^(?:<<<<<<<|>>>>>>>)", "merge conflict"),
)

COMMENT_SIGNS = {".c": "/*", ".h": "/*", ".py": "#", ".sh": "#", ".cmake": "#", ".yaml": "#", ".yml": "#"}


@dataclasses.dataclass(frozen=True)
class Finding:
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.message}"


class Tree:
    """The files of the project: what git tracks or would track, else (in a release archive) all."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self._texts = {}
        names = self._names_from_git()
        if names is None:
            paths = (path.relative_to(root) for path in self.root.rglob("*"))
            names = [str(path) for path in paths if not GENERATED.intersection(path.parts)]
        self.files = sorted({name for name in names if name and (self.root / name).is_file()})

    def _names_from_git(self):
        if shutil.which("git") is None:
            return None
        command = ["git", "-C", str(self.root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=False)
        return listed.stdout.decode().split("\0") if listed.returncode == 0 else None

    def text(self, name):
        if name not in self._texts:
            self._texts[name] = (self.root / name).read_text(encoding="utf-8", errors="replace")
        return self._texts[name]

    def c_files(self, *folders):
        return [
            name
            for name in self.files
            if name.endswith((".c", ".h")) and (not folders or name.split("/")[0] in folders)
        ]

    def public_headers(self):
        return [name for name in self.files if fnmatch.fnmatch(name, "include/sprout/*.h")]

    def allows(self, name, line, rule):
        lines = self.text(name).splitlines()
        mark = re.compile(rf"tidy: allow {re.escape(rule)}: \S")
        return any(mark.search(text) for text in lines[max(0, line - 3) : line])


# --- rules: each takes the tree and the arguments, and yields findings -----------------------------------


def includes(tree, _):
    """Dependencies between folders run one way."""
    for name in tree.c_files():
        folder = name.split("/")[0]
        own_rank = FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)
        for line, mark, path in source.includes_of(tree.text(name)):
            if mark == "<" and not path.startswith("sprout/"):
                continue
            target = "include" if path.startswith("sprout/") else path.split("/")[0]
            if "/" not in path:
                yield Finding(name, line, f'write the folder too: #include "{folder}/{path}"')
            elif target in FOLDERS and FOLDERS.index(target) > own_rank:
                yield Finding(name, line, f"{folder}/ must not include {target}/ ({path})")
            elif target not in FOLDERS and target != folder:
                yield Finding(name, line, f"no such folder to include from: {path}")


def third_party(tree, _):
    """Each third-party header is known to few files."""
    for name in tree.c_files(*FOLDERS):
        for line, _, path in source.includes_of(tree.text(name)):
            for pattern, allowed in THIRD_PARTY:
                if re.match(pattern, path) and not any(fnmatch.fnmatch(name, glob) for glob in allowed):
                    where = ", ".join(allowed) or "tests"
                    yield Finding(name, line, f"<{path}> is only for {where}")


def docs(tree, _):
    """Every public declaration has a comment, every header says what it is."""
    for name in tree.public_headers():
        text = tree.text(name)
        for declaration in source.declarations_of(text):
            if not declaration.is_forward and not source.has_comment(text, declaration):
                yield Finding(name, declaration.first_line, "public declaration without a comment")
    for name in tree.c_files(*FOLDERS):
        if name.endswith(".h") and not re.match(r"/\*[^\n]*\*/\n/\*", tree.text(name)):
            yield Finding(name, 1, "no comment that states the header's concept below the licence")


def headers_c(tree, arguments):
    """Every header compiles alone and twice; public ones as strict C11."""
    public = set(tree.public_headers())
    internal = [name for name in tree.c_files() if name.endswith(".h") and name not in public]
    yield from _compile(tree, public, [arguments.cc, "-x", "c", "-std=c11", "-pedantic"])
    yield from _compile(tree, internal, [arguments.cc, "-x", "c", "-std=gnu11", "-D_GNU_SOURCE="])


def headers_cxx(tree, arguments):
    """Every public header compiles alone as C++11."""
    yield from _compile(
        tree, tree.public_headers(), [_tool(arguments.cxx), "-x", "c++", "-std=c++11", "-pedantic"]
    )


def lengths(tree, _):
    """Functions fit on a screen or two, files hold one concept."""
    for name in tree.c_files():
        text = tree.text(name)
        count = text.count("\n")
        limit = FILE_LINES_MAX if name.split("/")[0] in PRODUCT else TEST_FILE_LINES_MAX
        if count > limit and "tidy: allow lengths: " not in "\n".join(text.splitlines()[:20]):
            yield Finding(name, 1, f"{count} lines, at most {limit}")
        for function in source.functions_of(text):
            size = function.last_line - function.first_line + 1
            if size > FUNCTION_LINES_MAX:
                yield Finding(
                    name,
                    function.first_line,
                    f"{function.name} has {size} lines, at most {FUNCTION_LINES_MAX}",
                )


def banned_calls(tree, _):
    """Calls that are never right, or not inside a library; sleeping in tests."""
    for name in tree.c_files():
        tables = [BANNED_CALLS]
        if name.split("/")[0] in LIBRARY:
            tables.append(BANNED_IN_LIBRARY)
        reasons = {call: reason for table in tables for reason, calls in table.items() for call in calls}
        pattern = re.compile(rf"(?<![\w.>])({'|'.join(reasons)})\s*\(")
        for line, text in enumerate(source.code_of(tree.text(name)).splitlines(), 1):
            for match in pattern.finditer(text):
                yield Finding(name, line, f"{match.group(1)}: {reasons[match.group(1)]}")
    for name in tree.files:
        if name.endswith(".py") and not name.startswith("tests/tidy/"):
            for line, text in enumerate(tree.text(name).splitlines(), 1):
                if re.search(r"\btime\.sleep\(", text):
                    yield Finding(name, line, "time.sleep: waits blindly, wait for an event")


def licence(tree, _):
    """Every source file names its licence in the first line (the second below a #! line)."""
    for name in tree.files:
        path = pathlib.PurePath(name)
        sign = "#" if path.name == "CMakeLists.txt" else COMMENT_SIGNS.get(path.suffix)
        first, _, rest = tree.text(name).partition("\n") if sign or not path.suffix else ("", "", "")
        if first.startswith("#!"):
            sign, first = "#", rest.partition("\n")[0]
        if sign is None or not tree.text(name).strip():
            continue
        expected = f"{sign} SPDX-License-Identifier: Apache-2.0" + (" */" if sign == "/*" else "")
        if first != expected:
            yield Finding(name, 1, f"first line is not '{expected}'")


def wording(tree, _):
    """No left-overs, no paths of one machine."""
    binary = (".png", ".gif", ".jpg", ".safetensors", ".bin", ".cast")
    for name in tree.files:
        if name.startswith(("tests/tidy/", "tests/fuzz/corpus/")) or name.endswith(binary):
            continue
        for line, text in enumerate(tree.text(name).splitlines(), 1):
            for pattern, reason in WORDING:
                match = re.search(pattern, text)
                if match:
                    yield Finding(name, line, f"'{match.group()}': {reason}")


def shell(tree, _):
    """Shell scripts parse, and shellcheck has nothing to say."""
    scripts = [
        name
        for name in tree.files
        if name.endswith(".sh") or re.match(r"#!.*\b(?:ba)?sh\b", tree.text(name)[:64])
    ]
    for name in scripts:
        yield from _findings_of(tree, name, ["bash", "-n", name])
    shellcheck = _tool("shellcheck")
    for name in scripts:
        yield from _findings_of(tree, name, [shellcheck, "--external-sources", "--format=gcc", name])


def format_c(tree, _):
    """C sources are as clang-format 14 leaves them (other versions differ in details)."""
    tool = shutil.which("clang-format-14") or _tool("clang-format")
    version = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout
    if not re.search(r"version 14\.", version):
        raise ToolMissing(f"clang-format 14, found {version.strip()}")
    names = tree.c_files()
    result = subprocess.run(
        [tool, "--dry-run", "--Werror", "--ferror-limit=1", *names],
        cwd=tree.root,
        capture_output=True,
        text=True,
        check=False,
    )
    for name, line in re.findall(r"^([^:\n]+):(\d+):\d+: error:", result.stderr, re.MULTILINE):
        yield Finding(name, int(line), f"run: clang-format -i {name}")


RULES = {
    "includes": includes,
    "third-party": third_party,
    "docs": docs,
    "headers-c": headers_c,
    "headers-cxx": headers_cxx,
    "lengths": lengths,
    "banned-calls": banned_calls,
    "licence": licence,
    "wording": wording,
    "shell": shell,
    "format": format_c,
}


# --- tools -----------------------------------------------------------------------------------------------


class ToolMissing(Exception):
    """A rule cannot be checked here."""


def _tool(name):
    path = shutil.which(name) if name else None
    if path is None:
        raise ToolMissing(name or "a C++ compiler")
    return path


def _findings_of(tree, name, command):
    """Runs a checker; each line it prints about the file is a finding."""
    result = subprocess.run(command, cwd=tree.root, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return
    for text in (result.stdout + result.stderr).strip().splitlines():
        match = re.match(rf"{re.escape(name)}:(?: line )?(\d+):\s*(.*)", text)
        yield Finding(name, int(match.group(1)) if match else 1, match.group(2) if match else text)


def _compile(tree, headers, command):
    """Includes each header twice in an otherwise empty file: it needs nothing before it, and is guarded."""

    def check(name):
        line = f'#include "{name.removeprefix("include/")}"\n'
        return name, subprocess.run(
            [*command, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Iinclude", "-I.", "-"],
            input=line * 2,
            cwd=tree.root,
            capture_output=True,
            text=True,
            check=False,
        )

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, result in pool.map(check, sorted(headers)):
            if result.returncode != 0:
                error = re.search(r"(?:error|fatal error): .*", result.stderr)
                yield Finding(name, 1, f"does not compile alone: {error.group() if error else result.stderr}")


def findings_of(rule, tree, arguments):
    """What the rule has against the tree, less what the sources allow."""
    return [
        finding
        for finding in RULES[rule](tree, arguments)
        if not tree.allows(finding.path, finding.line, rule)
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rule", choices=[*RULES, "all"])
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--cxx", default="c++")
    arguments = parser.parse_args()
    tree = Tree(ROOT)
    status = 0
    for rule in RULES if arguments.rule == "all" else [arguments.rule]:
        try:
            findings = findings_of(rule, tree, arguments)
        except ToolMissing as missing:
            print(f"skipped {rule}: {missing} is not installed")
            status = status or SKIPPED
            continue
        print(f"{rule}: {len(findings)} findings in {len(tree.files)} files")
        for finding in findings:
            print(finding)
        status = 1 if findings else status
    return status


if __name__ == "__main__":
    sys.exit(main())
