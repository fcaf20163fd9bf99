"""A process that its parent left behind is found, told and ended; one that hangs is described."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

LIB = Path(__file__).resolve().parent.parent

# In a process of its own: the program that runs the tests has children that are not its orphans.
SCRIPT = """
import subprocess, processes
processes.adopt_orphans()
subprocess.run(["sh", "-c", "setsid sleep {seconds} & exit 0"])
print("\\n".join(processes.orphans(patience={patience})))
"""


# A stage whose end never comes.
HANGING = """
import processes, sys, test
processes.adopt_orphans()
test.LIMIT = 1
status, hanging = test.script("sleep 300 & echo $!; wait", {}, sys.stdout)
assert status is None
print("\\n".join(hanging))
"""


def found(seconds, patience):
    return printed(SCRIPT.format(seconds=seconds, patience=patience))


def printed(script):
    done = subprocess.run(
        [sys.executable, "-B", "-c", script], env={**os.environ, "PYTHONPATH": str(LIB)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Orphans(unittest.TestCase):
    def test_one_that_stays_is_ended(self):
        pid, _, command = found(seconds=300, patience=0.2).partition(" ")
        self.assertEqual(command, "sleep 300")
        self.assertFalse(Path("/proc", pid).exists())

    def test_one_that_ends_in_time_is_fine(self):
        self.assertEqual(found(seconds=0.1, patience=10), "")


class Hanging(unittest.TestCase):
    def test_a_stage_that_hangs_is_described_and_ended(self):
        pid, shell, sleep = printed(HANGING).splitlines()
        self.assertRegex(shell, r"^\d+ S do_wait bash -euo pipefail -c sleep 300")
        self.assertRegex(sleep, rf"^  {pid} S \w*nanosleep\w* sleep 300")
        self.assertFalse(Path("/proc", pid).exists())
