"""The folder of one run, gone at its end; those of runs that were killed go at the next."""

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path

from . import BUILD

_PREFIX = "run-"


@contextlib.contextmanager
def folder():
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        # Nobody is between making a folder and holding it while the next one looks.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for old in BUILD.glob(f"{_PREFIX}*"):
            if not _held(old):
                shutil.rmtree(old, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=BUILD))
        held = open(path / "held", "w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        held.close()


def _held(path):
    try:
        with open(path / "held") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def replace(path):
    """An empty folder in place of whatever there was."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
