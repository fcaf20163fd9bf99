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
    left, immortal = [], set()
    # An orphan's children come to us when it has ended.
    while found := set(_living()) - immortal:
        for pid in found:
            left.append(f"{pid} {_command(pid)}")
            os.kill(pid, signal.SIGKILL)
            if not _ended(pid):
                left[-1] += " (SIGKILL does not end it)"
                immortal.add(pid)
    return left


def descendants(pid):
    """A line for each process below, indented by its depth, and one for each of its threads that has a name of its own:
    state, and where in the kernel it waits. Tests run in threads that are named after them."""
    lines = []
    _describe(pid, "", lines)
    return lines


def _describe(pid, indent, lines):
    for child in _children(pid):
        lines.append(f"{indent}{child} {_doing(child)} {_command(child)[:100]}")
        name = _read(f"/proc/{child}/comm")
        for thread in _listed(f"/proc/{child}/task"):
            if (own := _read(f"/proc/{child}/task/{thread}/comm")) != name:
                lines.append(f"{indent}  thread {own}: {_doing(f'{child}/task/{thread}')}")
        _describe(child, indent + "  ", lines)


def _doing(path):
    """State and place: `S futex_wait_queue`."""
    state = _read(f"/proc/{path}/stat").rpartition(") ")[2][:1]
    return f"{state or '?'} {_read(f'/proc/{path}/wchan')}"


def _children(pid):
    tasks = _listed(f"/proc/{pid}/task")
    return [int(child) for task in tasks for child in _read(f"/proc/{pid}/task/{task}/children").split()]


def _living():
    """Children that run; those that have ended are reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    return _children(os.getpid())


def _ended(pid):
    """Reaps a process that was killed; one that hangs in the kernel, or is frozen, is given up."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.01)
    return False


def _command(pid):
    return _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip() or "(ended)"


def _read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _listed(path):
    try:
        return os.listdir(path)
    except OSError:
        return []
