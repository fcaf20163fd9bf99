"""Debian packages as open tars: downloaded by apt (which checks their signatures), never installed."""

import io
import os
import subprocess
import tarfile

from . import BUILD, Failed

_DEBS = BUILD / "debs"


def architecture():
    """Debian's name of this machine's architecture, which for amd64 and arm64 is Go's and OCI's too."""
    return subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()


def fetch(packages):
    """Downloads the packages at the newest version that apt knows and returns {package: open tar}."""
    _DEBS.mkdir(parents=True, exist_ok=True)
    for old in _DEBS.glob("*.deb"):
        old.unlink()
    # The sandbox user may not write into our folder, and apt says so on every call.
    command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages]
    if _run(command).returncode != 0:
        subprocess.run(["apt-get", "-qq", "update"], env=os.environ, capture_output=True)
        done = _run(command)
        if done.returncode != 0:
            raise Failed(f"apt-get could not download {' '.join(packages)}:\n{done.stderr.strip()}")
    return {package: _open(package) for package in packages}


def _run(command):
    return subprocess.run(command, cwd=_DEBS, capture_output=True, text=True)


def _open(package):
    (archive,) = _DEBS.glob(f"{package}_*.deb")
    contents = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], check=True, capture_output=True).stdout
    return tarfile.open(fileobj=io.BytesIO(contents))
