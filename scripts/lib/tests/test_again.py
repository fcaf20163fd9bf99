"""Which tests are tried a second time, and what that tells."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import again  # noqa: E402
from counts import Counts  # noqa: E402

LOG = """\
test a::passes ... ok
test exec::a_child            ... FAILED
test tests::panics - should panic ... FAILED

failures:
    exec::a_child
test exec::a_child ... FAILED
"""


class Commands(unittest.TestCase):
    def test_cargo_tries_each_failed_test_alone(self):
        commands = again.cargo("cargo test", LOG)
        self.assertEqual(commands, ["cargo test -- --exact 'exec::a_child'", "cargo test -- --exact 'tests::panics'"])

    def test_others_are_run_again(self):
        self.assertEqual(again.whole("critest/run", LOG), ["critest/run"])


class Telling(unittest.TestCase):
    def test_few_failures_of_which_all_are_known(self):
        self.assertTrue(again.tells(Counts(5, 2), ["a", "b"]))
        self.assertTrue(again.tells(Counts(5, 2), ["all of it"]))

    def test_not_what_failed_without_a_test(self):
        self.assertFalse(again.tells(Counts(5, 0), ["all of it"]))

    def test_not_what_cannot_be_named(self):
        self.assertFalse(again.tells(Counts(5, 3), ["a", "b"]))
        self.assertFalse(again.tells(Counts(5, 2), []))

    def test_not_many(self):
        many = again.MOST + 1
        self.assertFalse(again.tells(Counts(5, many), ["a"] * many))


class Settling(unittest.TestCase):
    def test_all_passed(self):
        first = Counts(5, 2, 1)
        self.assertEqual(again.settle(first, [(True, Counts(1)), (True, Counts(1))]), (Counts(7, 0, 1), 2))

    def test_one_failed_again(self):
        first = Counts(5, 2, 1)
        self.assertEqual(again.settle(first, [(True, Counts(1)), (False, Counts(0, 1))]), (Counts(5, 2, 1), 0))

    def test_no_test_of_that_name(self):
        self.assertEqual(again.settle(Counts(5, 1), [(True, Counts())]), (Counts(5, 1), 0))


if __name__ == "__main__":
    unittest.main()
