"""What the scripts print: a line for each step, with what it did and how long it took."""

import contextlib
import sys
import time

NAME_WIDTH, _TEXT = 13, 76
_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32"}


class Failed(Exception):
    """A step that cannot go on; its text says why, and what to do about it."""


def coloured(text, *styles):
    if not sys.stdout.isatty():
        return text
    codes = ";".join(_COLOURS[style] for style in styles)
    return f"\x1b[{codes}m{text}\x1b[0m"


def say(text=""):
    print(text, flush=True)


def duration(seconds):
    """As a person would say it, in at most seven characters."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02} s"


class Step:
    """A step under way: `text` is what its line says; `lines` come below it."""

    def __init__(self, name, text):
        self.name, self.text, self.lines = name, text, []

    def show(self, text):
        self.lines.extend(text.splitlines())


@contextlib.contextmanager
def step(name, text, noisy=False):
    """Prints the line of a step: its name at once, the rest when it ends. What a noisy one says stands above that."""
    head = coloured(f"{name:<{NAME_WIDTH}}", "bold")
    print(f"{head}{text} …\n" if noisy else head, end="", flush=True)
    current, started = Step(name, text), time.monotonic()
    try:
        yield current
    except BaseException as error:
        stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
        _end(current, started, "red", "stopped" if stopped else "failed", noisy)
        raise
    _end(current, started, "green", "", noisy)


def _end(current, started, colour, outcome, indented):
    if indented:
        print(" " * NAME_WIDTH, end="")
    took = f"{duration(time.monotonic() - started):>9}"
    say(f"{current.text:<{_TEXT}.{_TEXT}} {coloured(took, colour)} {coloured(outcome, colour)}".rstrip())
    for line in current.lines:
        say(f"{'':<{NAME_WIDTH}}{line}")
