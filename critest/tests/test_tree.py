"""Layers are the same bytes whenever they are made, and in an order in which every tar reader can unpack them."""

import io
import sys
import tarfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from kit.tree import Tree, compressed  # noqa: E402


def package(**files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode in files.items():
            header = tarfile.TarInfo(f"./{name.replace('_', '/')}")
            header.mode, header.size = mode, len(name)
            archive.addfile(header, io.BytesIO(name.encode()))
    buffer.seek(0)
    return tarfile.open(fileobj=buffer)


def members(tree):
    return tarfile.open(fileobj=io.BytesIO(tree.tar())).getmembers()


class Layers(unittest.TestCase):
    def test_order_of_calls_does_not_show(self):
        one, two = Tree(), Tree()
        one.file("etc/a", "a")
        one.file("b", "b")
        two.file("b", "b")
        two.file("etc/a", "a")
        self.assertEqual(compressed(one.tar()), compressed(two.tar()))

    def test_parents_come_first_and_hard_links_last(self):
        tree = Tree()
        tree.link("usr/bin/a", "usr/bin/z")
        tree.file("usr/bin/z", "program", 0o755)
        self.assertEqual([member.name for member in members(tree)], ["usr", "usr/bin", "usr/bin/z", "usr/bin/a"])

    def test_packages_are_merged_into_usr_and_keep_their_modes(self):
        tree = Tree()
        tree.usr_merge()
        tree.package(package(bin_tool=0o4755, lib_x_libc=0o644, doc=0o644), "usr/bin/tool", "usr/lib/*/libc")
        self.assertEqual(tree.entries["usr/bin/tool"].mode, 0o4755)
        self.assertIn("usr/lib/x/libc", tree.entries)
        self.assertNotIn("doc", tree.entries)
        self.assertEqual(tree.entries["bin"].target, "usr/bin")

    def test_a_pattern_without_a_file_is_an_error(self):
        with self.assertRaisesRegex(LookupError, "usr/bin/none"):
            Tree().package(package(bin_tool=0o755), "usr/bin/tool", "usr/bin/none")


if __name__ == "__main__":
    unittest.main()
