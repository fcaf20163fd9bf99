"""Pages of images' files in memory, after all of their root filesystems were read through overlay mounts."""

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_CACHESTAT = 451  # the same on all architectures, since Linux 6.5
_PIECE = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def held(store, parts):
    """Bytes of memory that images take whose files were all read, and what of them was there before, when all were
    dropped. `store` has unpacked layers in folders `fs`; each image has one layer with each of `parts`, and each layer of
    which there are as many as images is that of one image."""
    layers = {part: [folder for folder in _layers(store) if (folder / part).is_dir()] for part in parts}
    inodes = {}
    for part, folders in layers.items():
        for folder in folders:
            for path in _files(folder / part):
                status = path.stat()
                inodes[status.st_dev, status.st_ino] = path
    # Dirty pages stay.
    os.sync()
    for path in inodes.values():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = sum(map(_resident, inodes.values()))
    for number in range(max(map(len, layers.values()))):
        _read([folders[number % len(folders)] for folders in layers.values()])
    return sum(map(_resident, inodes.values())), before


def _layers(store):
    for folder, names, _ in os.walk(store):
        if "fs" in names:
            yield Path(folder, "fs")
            names.remove("fs")


def _files(folder):
    for below, _, names in os.walk(folder):
        for path in (Path(below, name) for name in names):
            if path.is_file() and not path.is_symlink():
                yield path


def _read(lower):
    """All files of a root filesystem of these layers."""
    with tempfile.TemporaryDirectory() as point:
        options = "ro,lowerdir=" + ":".join(map(str, lower))
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, point], check=True)
        try:
            buffer = bytearray(_PIECE)
            for path in _files(Path(point)):
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass
        finally:
            subprocess.run(["umount", point], check=True)


def _resident(path):
    """Bytes of a file that are in memory."""
    with open(path, "rb") as file:
        whole, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
        if _libc.syscall(_CACHESTAT, file.fileno(), ctypes.byref(whole), ctypes.byref(counts), 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"cachestat, which is of Linux 6.5: {os.strerror(error)}", str(path))
        return counts[0] * _PAGE
