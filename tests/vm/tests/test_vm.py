"""The parts of tests/vm/run that need no guest: disks, counts, the end of a run."""

import importlib.machinery
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

VM = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(VM))

from host import Failed, clock, disks, machine, scratch  # noqa: E402


def program(path):
    """A script without .py as a module."""
    loader = importlib.machinery.SourceFileLoader(path.name.replace("-", "_"), str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


class Ends(unittest.TestCase):
    """How a run is judged by what the guest left."""

    def setUp(self):
        self.work = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.machine = machine.Machine(None, self.work, "1G")

    def test_the_status_is_that_of_the_command(self):
        self.machine.end.write_text(f"{machine.MARKER}7\n")
        self.assertEqual(self.machine._status(0, 10**9), 7)

    def test_without_its_marker_a_run_has_failed(self):
        self.machine.console.write_text("Kernel panic\n")
        for said in (None, "", "tripod-vm: "):
            if said is not None:
                self.machine.end.write_text(said)
            with self.assertRaisesRegex(Failed, "without saying how(.|\n)*Kernel panic"):
                self.machine._status(0, 10**9)


class Disks(unittest.TestCase):
    def setUp(self):
        self.work = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_what_is_handed_out_comes_back(self):
        disk = self.work / "disk"
        disks.hand_out(disk)
        self.assertFalse(disks.take(disk, self.work / "nothing"))
        (self.work / "log").write_text("text")
        with open(disk, "r+b") as file, tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(self.work / "log", "log")
        self.assertTrue(disks.take(disk, self.work / "out"))
        self.assertEqual((self.work / "out" / "log").read_text(), "text")

    def test_a_job_survives_the_shell(self):
        hand_in = disks.HandIn(self.work / "in")
        hand_in.job(["echo", "a b", "$HOME '"], 5, "/x y", {"NAME": "c 'd'"})
        script = '. "$1/job"; printf "%s|" "$limit" "$kept" "$NAME" "${command[@]}"'
        done = subprocess.run(["bash", "-c", script, "-", hand_in.folder], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "5|/x y|c 'd'|echo|a b|$HOME '|")

    def test_what_is_not_there_is_named(self):
        with self.assertRaisesRegex(Failed, "no/such is to be handed in"):
            disks.HandIn(self.work / "in").repo("no/such")


class Parts(unittest.TestCase):
    def test_folders_of_runs_go(self):
        with scratch.folder() as folder:
            self.assertTrue(folder.is_dir() and scratch._held(folder))
        self.assertFalse(folder.exists())

    def test_the_clock_is_the_same_twice(self):
        first, second = clock.kilohertz(), clock.kilohertz()
        self.assertLess(abs(first - second), first / 1000)

    def test_counts_of_both_kinds_of_runners(self):
        counts = program(VM / "guest" / "suite").counts
        self.assertEqual(counts("test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n"), [2, 0, 1])
        self.assertEqual(counts("noise\n\n9 passed, 1 failed, 2 skipped\n"), [9, 1, 2])
        self.assertEqual(counts("nothing ran\n"), [0, 0, 0])


if __name__ == "__main__":
    unittest.main()
