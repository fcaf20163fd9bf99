"""Gives a run namespaces and cgroups of its own, so that runs side by side do not meet and nothing can outlive one.

The run sees a node: a shared mount tree, its own /run, /sys and cgroup hierarchies, loopback, and itself as PID 1.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from . import Failed, say

_CGROUPS = Path("/sys/fs/cgroup")
_LSM = Path("/sys/kernel/security")
_FRESH = 60  # seconds
_INSIDE = "CRITEST_INSIDE"
_GROUPS = "CRITEST_GROUPS"
_CLONE_NEWCGROUP = 0x02000000  # linux/sched.h
_MS_REC, _MS_SHARED = 0x4000, 1 << 20  # linux/mount.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def inside():
    return _INSIDE in os.environ


def enter(arguments):
    """Runs this program again with the same arguments in fresh namespaces; gives its exit status."""
    for name in _abandoned_groups():
        for point, _, _ in _hierarchies():
            _remove(Path(point) / name)
    groups = _make_groups(f"critest-{os.getpid()}")
    flags = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    environment = {**os.environ, _INSIDE: "1", _GROUPS: os.pathsep.join(map(str, groups))}
    try:
        child = subprocess.Popen(
            ["unshare", *flags, sys.executable, *arguments], env=environment, preexec_fn=_die_with_parent
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            return child.wait()
        except KeyboardInterrupt:
            # The terminal told the run as well; it stops what it started and ends.
            return child.wait()
        finally:
            # Its death takes PID 1 of the run along, and that one every process.
            child.kill()
            child.wait()
    finally:
        for group in groups:
            _remove(group)


def _abandoned(folder):
    """Folders `critest-PID…` of runs that were killed before they could clean up.

    A fresh one may belong to a run in another PID namespace, where the number means another process.
    """
    for path in folder.glob("critest-[0-9]*"):
        if not Path("/proc", path.name.split("-")[1]).exists() and time.time() - path.stat().st_mtime > _FRESH:
            yield path


def _abandoned_groups():
    """Names of groups of killed runs: in no hierarchy do they hold a process."""
    groups = [group for point, _, _ in _hierarchies() for group in _abandoned(Path(point))]
    return {group.name for group in groups} - {group.name for group in groups if _has_processes(group)}


def _has_processes(group):
    """Version 1 does not list processes of other PID namespaces; its pids controller counts them."""
    count = group / "pids.current"
    try:
        listed = any(path.read_text() for path in group.rglob("cgroup.procs"))
        return listed or (count.exists() and count.read_text().strip() != "0")
    except OSError:
        # It changes as we look: somebody is at work there.
        return True


def work_folder():
    """A folder for one run's files, named after the process; those of killed runs go first."""
    place = Path(tempfile.gettempdir())
    alive = {group.name for point, _, _ in _hierarchies() for group in Path(point).glob("critest-[0-9]*")}
    for stale in _abandoned(place):
        if stale.name.rsplit("-", 1)[0] not in alive:
            clear(stale)
    folder = Path(tempfile.mkdtemp(prefix=f"critest-{os.getpid()}-"))
    # The root of a user namespace is nobody in particular out here, and must reach its root filesystem.
    folder.chmod(0o755)
    return folder


def clear(work):
    """Removes a run's folder, never through a mount: a spec binds /etc into it."""
    for point in reversed(_mounts_below(work)):
        subprocess.run(["umount", "--lazy", point], check=False)
    if _mounts_below(work):
        say(f"{work} is kept, for there are still mounts below it")
    else:
        shutil.rmtree(work)


def _mounts_below(folder):
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


def settle(work):
    """Makes the fresh namespaces look like a node's, runs `work` as a child and reaps orphans; gives its status."""
    _join_groups()
    _mount_all()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = work()
        finally:
            sys.stdout.flush()
            os._exit(status)
    while True:
        try:
            ended, status = os.wait()
        except KeyboardInterrupt:
            continue
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _mount_all():
    # unshare made all mounts private; on a node they are shared.
    _mount(None, "/", None, "shared")
    hierarchies = _hierarchies()
    _mount("tmpfs", "/run", "tmpfs", data="mode=755")
    _mount("sysfs", "/sys", "sysfs")
    if _LSM.exists() and "securityfs" in Path("/proc/filesystems").read_text():
        # AppArmor's files.
        _mount("securityfs", _LSM, "securityfs")
    _mount("tmpfs", _CGROUPS, "tmpfs", data="mode=755")
    for point, kind, options in hierarchies:
        Path(point).mkdir(parents=True, exist_ok=True)
        _mount(kind, point, kind, data=options)
        if kind == "cgroup2":
            # Controllers can be given to children only by a group that holds no process.
            first = Path(point) / "init"
            first.mkdir()
            for pid in (Path(point) / "cgroup.procs").read_text().split():
                (first / "cgroup.procs").write_text(pid)


def _hierarchies():
    """(mount point, type, options that name the controllers) of each hierarchy, from the mounts that there are."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup":
            names = [name for name in options.split(",") if name not in ("rw", "relatime", "nosuid", "nodev", "noexec")]
            found.append((point, kind, ",".join(name for name in names if not name.startswith("release_agent="))))
        elif kind == "cgroup2":
            found.append((point, kind, None))
    return found


def _mount(source, target, kind, propagation=None, data=None):
    flags = _MS_REC | _MS_SHARED if propagation == "shared" else 0
    encoded = [None if value is None else str(value).encode() for value in (source, target, kind, data)]
    if _libc().mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]) != 0:
        raise Failed(f"mounting {kind} on {target}: {os.strerror(ctypes.get_errno())}")


def _libc():
    return ctypes.CDLL(None, use_errno=True)


def _make_groups(name):
    groups = []
    for point, kind, _ in _hierarchies():
        group = Path(point) / name
        group.mkdir()
        groups.append(group)
        # A new cpuset is empty, and an empty one takes no process.
        for file in ("cpuset.cpus", "cpuset.mems"):
            if kind == "cgroup" and (group / file).exists():
                (group / file).write_text((group.parent / file).read_text())
    return groups


def _die_with_parent():
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _join_groups():
    """Moves PID 1 into the run's groups and makes them the roots of what it sees.

    Its parent stays outside: in version 2 a root that holds a process gives no controllers to the groups below, and
    that one could not be moved from inside.
    """
    for group in os.environ[_GROUPS].split(os.pathsep):
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    if _libc().unshare(_CLONE_NEWCGROUP) != 0:
        raise Failed(f"making a cgroup namespace: {os.strerror(ctypes.get_errno())}")


def _remove(group):
    """Removes a group and all below it; the last processes of the run may still be ending."""
    deadline = time.monotonic() + 10
    while group.exists():
        for folder, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                if time.monotonic() > deadline:
                    print(f"critest: the cgroup {folder} could not be removed", file=sys.stderr)
                    return
        time.sleep(0.02)

