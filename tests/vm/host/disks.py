"""The disks of one run: what is handed in, an empty one for containers, and one on which the guest hands out its logs.

What is handed in is laid out as it is on this machine: the tests have its paths compiled in.
"""

import os
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

from . import REPO, VM, Failed

_WORK = "8G"  # sparse
_HAND_OUT = 1 << 30  # sparse as well


class HandIn:
    """A folder that becomes a disk; what is put there is linked, not copied."""

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "repo").mkdir(parents=True)

    def repo(self, *paths):
        """Files and folders of the checkout, at their places."""
        for path in paths:
            source = REPO / path
            if not source.exists():
                raise Failed(f"{source} is to be handed in, but it is not there")
            self._link(source, self.folder / "repo" / path)

    def program(self, source, name):
        """A program of the run, found in PATH in the guest; without its debug information, which nobody reads there."""
        target = self.folder / "bin" / name
        target.parent.mkdir(exist_ok=True)
        if not os.access(source, os.X_OK):
            raise Failed(f"{source} is no program")
        _must("strip", "--strip-debug", "-o", target, source)
        target.chmod(0o755)

    def job(self, command, limit, kept, environment):
        """What the agent runs."""
        lines = [
            f"repo={shlex.quote(str(REPO))}", f"kept={shlex.quote(str(kept))}", f"limit={limit}",
            f"command=({shlex.join(map(str, command))})",
            *(f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()),
        ]
        (self.folder / "job").write_text("\n".join(lines) + "\n")
        agent = self.folder / "agent"
        shutil.copy(VM / "guest" / "agent", agent)
        agent.chmod(0o755)

    def disk(self, path):
        size = subprocess.run(["du", "-sm", self.folder], check=True, capture_output=True, text=True).stdout.split()[0]
        blank = f"{int(size) * 5 // 4 + 256}M"
        options = "lazy_itable_init=1"
        _must("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", options, "-d", self.folder, path, blank)

    def _link(self, source, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target, symlinks=True, copy_function=_link, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("__pycache__"))
        else:
            _link(source, target)


def work(path):
    """An empty disk for everything that containers write, with project quotas."""
    features, options = "^has_journal,project,quota", "quotatype=prjquota,lazy_itable_init=1"
    _must("mke2fs", "-q", "-t", "ext4", "-O", features, "-E", options, path, _WORK)


def hand_out(path):
    with open(path, "wb") as file:
        file.truncate(_HAND_OUT)


def take(path, folder):
    """Unpacks what the guest has handed out; gives whether it has."""
    try:
        # Plain tar: to find out whether zeros are a compressed archive takes minutes.
        with tarfile.open(path, "r:") as archive:
            archive.extractall(folder, filter="data")
            return bool(archive.getmembers())
    except (tarfile.TarError, OSError):
        return False


def _link(source, target):
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # Another filesystem.
        shutil.copy2(source, target, follow_symlinks=False)


def _must(*command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
