#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts what a test run did. usage: tally.py RESULTS_DIR [STAGE]

A stage leaves STAGE.status ("running", then its exit status) and STAGE.xml (JUnit, of ctest or pytest).
A stage that failed without a failed test, or never ended, counts as one failed test itself. With STAGE:
one short line about it. Without: every failure and every skip with its reason, then the line
"N passed, N failed, N skipped". Exit status 1 if something failed or nothing passed.
"""

import collections
import dataclasses
import pathlib
import re
import sys
import xml.etree.ElementTree

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

# One cmocka program runs many tests and names each of them.
_CMOCKA = re.compile(r"\[\s*(RUN|OK|FAILED|SKIPPED)\s*\] (\w+)")
_CMOCKA_OUTCOMES = {"OK": PASSED, "FAILED": FAILED, "SKIPPED": SKIPPED}


@dataclasses.dataclass(frozen=True)
class Test:
    name: str
    outcome: str
    reason: str = ""


def last_line(text):
    """The last line, or a sanitizer's summary, which fuzz programs follow with statistics."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    summaries = [line for line in lines if line.startswith("SUMMARY: ")]
    return (summaries or lines or [""])[-1]


def cmocka_tests(program, output):
    """The tests inside a cmocka program; one that was started and not finished has failed."""
    running = None
    before = 0
    for match in _CMOCKA.finditer(output):
        word, name = match.groups()
        if word == "RUN":
            running, before = name, match.end()
        elif name == running:
            said = output[before : match.start()].strip()
            reason = said.splitlines()[0] if said else ""
            yield Test(f"{program}: {name}", _CMOCKA_OUTCOMES[word], reason)
            running = None
    if running:
        yield Test(f"{program}: {running}", FAILED, f"crashed: {last_line(output)}")


def tests_of_case(case):
    """A JUnit test case as one test, or as those of the cmocka program that it ran."""
    name = ".".join(filter(None, [case.get("classname"), case.get("name")]))
    if case.get("classname") == case.get("name"):
        name = case.get("name")
    output = case.findtext("system-out") or ""
    bad = [element for element in case if element.tag in ("failure", "error")]
    skipped = case.find("skipped")
    if skipped is not None:
        message = skipped.get("message") or ""
        by_status = message.startswith("SKIP_RETURN_CODE")
        return [Test(name, SKIPPED, last_line(output) if by_status else message)]
    tests = list(cmocka_tests(name, output))
    if bad and not any(test.outcome == FAILED for test in tests):
        tests.append(Test(name, FAILED, last_line(output) or bad[0].get("message", "")))
    return tests or [Test(name, PASSED)]


def tests_of_stage(results, stage):
    """Every test of a stage, and the stage itself where it failed on its own."""
    status = (results / f"{stage}.status").read_text().strip()
    tests = []
    try:
        document = xml.etree.ElementTree.parse(results / f"{stage}.xml")
        tests = [test for case in document.iter("testcase") for test in tests_of_case(case)]
    except FileNotFoundError:
        pass
    except xml.etree.ElementTree.ParseError as error:
        status = f"with unreadable results ({error})"
    if status != "0" and not any(test.outcome == FAILED for test in tests):
        ended = "did not end" if status == "running" else f"ended with status {status}"
        tests.append(Test("stage", FAILED, f"{ended}, see {results / stage}.log"))
    return tests


def main():
    results = pathlib.Path(sys.argv[1])
    if len(sys.argv) > 2:
        stage = sys.argv[2]
        tests = tests_of_stage(results, stage)
        counts = collections.Counter(test.outcome for test in tests)
        parts = [f"{counts[PASSED]} ok"]
        parts += [f"{counts[SKIPPED]} skipped"] if counts[SKIPPED] else []
        parts += [f"{counts[FAILED]} FAILED: {results / stage}.log"] if counts[FAILED] else []
        print(", ".join(parts))
        return 0
    total = collections.Counter()
    for path in sorted(results.glob("*.status"), key=lambda path: path.stat().st_ctime_ns):
        for test in tests_of_stage(results, path.stem):
            total[test.outcome] += 1
            if test.outcome != PASSED:
                print(f"{test.outcome}: {path.stem}: {test.name}: {test.reason or 'no reason given'}")
    print(f"{total[PASSED]} passed, {total[FAILED]} failed, {total[SKIPPED]} skipped")
    return 1 if total[FAILED] or not total[PASSED] else 0


if __name__ == "__main__":
    sys.exit(main())
