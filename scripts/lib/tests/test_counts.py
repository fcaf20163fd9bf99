"""The words of cargo, go, unittest and critest become numbers."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import counts  # noqa: E402
from counts import Counts  # noqa: E402
from terminal import duration  # noqa: E402


class Counting(unittest.TestCase):
    def test_cargo(self):
        text = (
            "test a ... ok\n\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n"
            "running 2 tests\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n"
        )
        self.assertEqual(counts.cargo(text), Counts(4, 1, 1))

    def test_go(self):
        text = "--- PASS: TestA (0.00s)\n    --- PASS: TestA/x (0.00s)\n--- FAIL: TestB (0.00s)\n--- SKIP: TestC (0.00s)\nFAIL\n"
        self.assertEqual(counts.go(text), Counts(1, 1, 1))

    def test_unittest(self):
        text = (
            "....\n----\nRan 4 tests in 0.010s\n\nOK\n"
            "Ran 1 test in 0.010s\n\nOK (skipped=1)\n"
            "Ran 9 tests in 2.1s\n\nFAILED (failures=2, errors=1, skipped=3)\n"
        )
        self.assertEqual(counts.unittest(text), Counts(7, 3, 4))

    def test_critest(self):
        text = "specs that differ:\n\n90 passed, 1 failed, 26 skipped\ncritest: logs and reports are in x\n"
        self.assertEqual(counts.closing_line(text), Counts(90, 1, 26))

    def test_nothing_ran(self):
        for count in (counts.cargo, counts.go, counts.unittest, counts.closing_line):
            self.assertEqual(count("error: could not compile\n"), Counts())


class Durations(unittest.TestCase):
    def test_as_a_person_says_them(self):
        said = [duration(seconds) for seconds in (0, 0.0312, 0.9996, 3.24, 59.96, 61, 3599.6)]
        self.assertEqual(said, ["0 ms", "31 ms", "1.0 s", "3.2 s", "1 m 00 s", "1 m 01 s", "60 m 00 s"])
