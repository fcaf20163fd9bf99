"""A layer in memory: files from Debian packages or written here, made a tar whose bytes depend on nothing else."""

import fnmatch
import gzip
import io
import posixpath
import tarfile
from dataclasses import dataclass

# Debian merges these into /usr; packages of Debian 12 still ship some files under the old names.
_MERGED = ("bin", "sbin", "lib", "lib64")
_EPOCH = 1_704_067_200  # 2024-01-01, for every file


@dataclass
class Entry:
    kind: str  # "dir", "file", "symlink" or "link"
    mode: int
    data: bytes = b""
    target: str = ""
    uid: int = 0
    gid: int = 0


class Tree:
    """The files of one layer, by path without a leading slash."""

    def __init__(self):
        self.entries = {}

    def directory(self, path, mode=0o755):
        self.entries[path] = Entry("dir", mode)

    def file(self, path, data, mode=0o644):
        self.entries[path] = Entry("file", mode, data.encode() if isinstance(data, str) else data)

    def symlink(self, path, target):
        self.entries[path] = Entry("symlink", 0o777, target=target)

    def link(self, path, target):
        """A hard link to another file of this layer."""
        self.entries[path] = Entry("link", 0o755, target=target)

    def usr_merge(self):
        for name in _MERGED:
            self.directory(f"usr/{name}")
            self.symlink(name, f"usr/{name}")

    def package(self, archive, *patterns):
        """Takes the files of a package (an open tar) that match; a pattern that matches nothing is an error."""
        unused = set(patterns)
        members = {merged(member.name): member for member in archive}
        for path, member in members.items():
            matching = {pattern for pattern in patterns if fnmatch.fnmatch(path, pattern)}
            if not matching or member.isdir():
                continue
            unused -= matching
            if member.issym():
                self.symlink(path, member.linkname)
            else:
                self.file(path, archive.extractfile(member).read(), member.mode & 0o7777)
        if unused:
            raise LookupError(f"no file matches {', '.join(sorted(unused))}")

    def tar(self):
        """The layer as an uncompressed tar: parents first, hard links after the files they name."""
        self._parents()
        order = {"dir": 0, "file": 1, "symlink": 2, "link": 3}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for path, entry in sorted(self.entries.items(), key=lambda item: (order[item[1].kind], item[0])):
                archive.addfile(_header(path, entry), io.BytesIO(entry.data))
        return buffer.getvalue()

    def _parents(self):
        for path in list(self.entries):
            while path := posixpath.dirname(path):
                self.entries.setdefault(path, Entry("dir", 0o755))


def merged(path):
    """A package's path (./bin/x) as it is in a merged tree (usr/bin/x)."""
    path = path.removeprefix("./").rstrip("/")
    return f"usr/{path}" if path.split("/")[0] in _MERGED else path


def compressed(data):
    return gzip.compress(data, compresslevel=6, mtime=0)


def _header(path, entry):
    kinds = {"dir": tarfile.DIRTYPE, "file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE, "link": tarfile.LNKTYPE}
    header = tarfile.TarInfo(path)
    header.type = kinds[entry.kind]
    header.mode = entry.mode
    header.mtime = _EPOCH
    header.size = len(entry.data)
    header.linkname = entry.target
    header.uid, header.gid = entry.uid, entry.gid
    return header
