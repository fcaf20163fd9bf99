"""Processes that outlive whoever started them: they become children of this one, so that none gets away unseen."""

import ctypes
import os
import signal
import time

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans():
    """From here on every descendant whose parent ends becomes a child of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def orphans(patience):
    """Ends the processes that are still there after `patience` seconds, and gives `PID command line` of each."""
    until = time.monotonic() + patience
    while _living() and time.monotonic() < until:
        time.sleep(0.05)
    left = []
    # An orphan's children come to us when it has ended.
    while found := _living():
        for pid in found:
            left.append(f"{pid} {_command(pid)}")
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return left


def _living():
    """Children that run; those that have ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "(ended)"
