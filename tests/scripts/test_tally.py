#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What test.sh's count makes of the results that ctest and pytest leave."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

TALLY = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "tally.py"

CMOCKA = """[==========] Running 3 test(s).
[ RUN      ] good
[       OK ] good
[ RUN      ] bad
[  ERROR   ] --- 0x1 != 0x2
[  FAILED  ] bad
[ RUN      ] off
no io_uring
[  SKIPPED ] off
[  PASSED  ] 1 test(s).
[  FAILED  ] 1 test(s), listed below:
[  FAILED  ] bad
"""


def case(status, output="", inside=""):
    return (
        f'<testcase name="t" classname="t" status="{status}">{inside}'
        f"<system-out>{output}</system-out></testcase>"
    )


class Tally(unittest.TestCase):
    def tally(self, status, cases=None):
        """The lines that a run with one stage ends with, and the exit status."""
        with tempfile.TemporaryDirectory() as results:
            pathlib.Path(results, "unit.status").write_text(status)
            if cases is not None:
                pathlib.Path(results, "unit.xml").write_text(f"<testsuite>{cases}</testsuite>")
            run = subprocess.run(
                [sys.executable, TALLY, results], capture_output=True, text=True, check=False
            )
            return run.stdout.splitlines(), run.returncode

    def test_a_plain_program_is_one_test(self):
        self.assertEqual(self.tally("0", case("run", "fine")), (["1 passed, 0 failed, 0 skipped"], 0))

    def test_each_test_of_a_cmocka_program_counts(self):
        lines, status = self.tally("8", case("fail", CMOCKA, '<failure message=""/>'))
        self.assertEqual(lines[-1], "1 passed, 1 failed, 1 skipped")
        self.assertIn("failed: unit: t: bad: [  ERROR   ] --- 0x1 != 0x2", lines)
        self.assertIn("skipped: unit: t: off: no io_uring", lines)
        self.assertEqual(status, 1)

    def test_a_crash_inside_a_cmocka_program_fails_the_test_that_ran(self):
        output = "[ RUN      ] good\n[       OK ] good\n[ RUN      ] bad\nSegmentation fault\n"
        lines, _ = self.tally("8", case("fail", output, '<failure message=""/>'))
        self.assertEqual(lines[-1], "1 passed, 1 failed, 0 skipped")
        self.assertIn("failed: unit: t: bad: crashed: Segmentation fault", lines)

    def test_a_leak_after_the_last_test_fails_the_program(self):
        output = "[ RUN      ] good\n[       OK ] good\nSUMMARY: 3 byte(s) leaked\nstat: 1\n"
        lines, _ = self.tally("8", case("fail", output, '<failure message=""/>'))
        self.assertEqual(lines[-1], "1 passed, 1 failed, 0 skipped")
        self.assertIn("failed: unit: t: SUMMARY: 3 byte(s) leaked", lines)

    def test_status_77_is_a_skip_with_the_last_line_as_reason(self):
        skipped = '<skipped message="SKIP_RETURN_CODE=77"/>'
        lines, status = self.tally("0", case("notrun", "no seccomp\n", skipped))
        self.assertEqual(lines, ["skipped: unit: t: no seccomp", "0 passed, 0 failed, 1 skipped"])
        self.assertEqual(status, 1)  # nothing passed

    def test_a_skip_of_pytest_says_its_reason(self):
        lines, _ = self.tally("0", case("", "", '<skipped message="needs root"/>') + case("run"))
        self.assertEqual(lines, ["skipped: unit: t: needs root", "1 passed, 0 failed, 1 skipped"])

    def test_a_stage_that_fails_without_a_failed_test_counts(self):
        for status, cases in (("2", None), ("124", case("run")), ("running", case("run")), ("0", "<")):
            with self.subTest(status=status):
                lines, code = self.tally(status, cases)
                self.assertRegex(lines[-1], r"^\d passed, 1 failed, 0 skipped$")
                self.assertEqual(code, 1)

    def test_a_run_without_any_test_fails(self):
        self.assertEqual(self.tally("0", ""), (["0 passed, 0 failed, 0 skipped"], 1))


if __name__ == "__main__":
    unittest.main()
