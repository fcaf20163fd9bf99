"""The Python client of the integration tests: a virtual environment in .build/python, made from pinned packages."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time

from . import BUILD, REPO, Failed, programs, say

VENV = BUILD / "python"
_PINS = REPO / "tests" / "clients" / "python" / "requirements.txt"


def ensure():
    """Makes the environment unless the same one is there already."""
    stamp = VENV / "stamp"
    key = hashlib.sha256(_PINS.read_bytes() + sys.version.encode() + str(VENV).encode()).hexdigest()
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == key:
            return
        say("installing the Python client")
        started = time.monotonic()
        shutil.rmtree(VENV, ignore_errors=True)
        if _run(sys.executable, "-c", "import ensurepip").returncode != 0:
            programs.install({"python3-venv": "/nowhere"})
        _must(sys.executable, "-m", "venv", VENV)
        # Hashes for all, and nothing that would have to be compiled.
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
        _must(VENV / "bin" / "python", "-m", "pip", "install", *options, "-r", _PINS)
        stamp.write_text(key)
        say(f"installed the Python client in {time.monotonic() - started:.0f} s")


def _must(*command):
    done = _run(*command)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip() or done.stdout.strip()}")


def _run(*command):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run(["nice", *command], env=environment, capture_output=True, text=True)
