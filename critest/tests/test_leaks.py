"""scripts/leaks finds each kind of leftover. Needs root: it makes real ones, in namespaces that end with the test."""

import os
import subprocess
import tempfile
import unittest
import uuid
from pathlib import Path

LEAKS = Path(__file__).resolve().parent.parent.parent / "scripts" / "leaks"


class Leaks(unittest.TestCase):
    def setUp(self):
        self.assertEqual(os.geteuid(), 0, "this test makes mounts and links: run it as root")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # A copy of these tests may run beside this one, in other namespaces with the same PIDs.
        self.group = f"leaks-test-{uuid.uuid4().hex}"

    def found(self, make, *options, undo="true"):
        """What is told after `make`; after `undo` nothing may be told any more."""
        # Other programs of this machine may make cgroups meanwhile.
        options = " ".join([*options, "--allow", f"'cgroup (?!.*{self.group}).*'"])
        script = f"""
            set -e
            mount -t tmpfs tmpfs /run
            {LEAKS} snapshot before
            {make}
            {LEAKS} compare before --wait 0 {options} > found && echo nothing > found
            {undo}
            {LEAKS} compare before --wait 5 {options}
        """
        command = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "bash", "-c", script]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        return (self.folder / "found").read_text()

    def test_nothing(self):
        self.assertEqual(self.found("true"), "nothing\n")

    def test_a_link(self):
        text = self.found("ip link add left0 type bridge", undo="ip link del left0")
        self.assertEqual(text, "left behind: link left0\n")

    def test_an_allowed_link(self):
        make, undo = "ip link add left0 type bridge", "ip link del left0"
        self.assertEqual(self.found(make, "--allow", "'link left.'", undo=undo), "nothing\n")

    def test_a_mount_and_a_state_folder(self):
        make, undo = "mkdir /run/tripod-x; mount -t tmpfs x /run/tripod-x", "umount /run/tripod-x; rmdir /run/*"
        text = self.found(make, undo=undo)
        self.assertIn("left behind: mount /run/tripod-x (tmpfs x, root /)\n", text)
        self.assertIn("left behind: path /run/tripod-x\n", text)

    def test_a_named_network_namespace(self):
        text = self.found("mkdir /run/netns; touch /run/netns/pod", undo="rm -r /run/netns")
        self.assertEqual(text, "left behind: netns pod\n")

    def test_a_cgroup(self):
        mount = "/sys/fs/cgroup/pids" if os.path.isdir("/sys/fs/cgroup/pids") else "/sys/fs/cgroup"
        group = f"{mount}/{self.group}"
        self.assertIn(f"left behind: cgroup {group}\n", self.found(f"mkdir {group}", undo=f"rmdir {group}"))

    def test_a_process_by_its_name(self):
        make = "cp /bin/sleep tripod-shim; ./tripod-shim 60 & until grep -q tripod /proc/$!/comm; do sleep 0.01; done"
        self.assertRegex(self.found(make, undo="kill $!; wait $! || true"), r"left behind: process \d+ tripod-shim, ")

    def test_a_rule(self):
        text = self.found("nft add table ip left; nft add chain ip left c", undo="nft delete table ip left")
        self.assertEqual(text, "left behind: nft table ip left\nleft behind: nft table ip left: chain c\n")

    def test_elements_of_a_set_one_by_one(self):
        ports = ", ".join(str(port) for port in range(1000, 1040, 2))
        make = f"nft add table ip left; nft 'add set ip left s {{ type inet_service; elements = {{ {ports} }}; }}'"
        text = self.found(make, "--allow", "'nft table ip left: set s: type .*'", undo="nft delete table ip left")
        self.assertEqual(len(text.splitlines()), 2 + 20)
        self.assertIn("left behind: nft table ip left: set s: element 1038\n", text)

    def test_a_folder_that_must_be_empty(self):
        text = self.found("mkdir pods; touch pods/one", "--empty", "pods", undo="rm -r pods")
        self.assertEqual(text, "left behind: file pods/one\n")


if __name__ == "__main__":
    unittest.main()
