"""Parts of the conformance runner: programs, images, registry, daemons, results, clean-up checks."""

from pathlib import Path

CRITEST = Path(__file__).resolve().parent.parent
REPO = CRITEST.parent
BUILD = CRITEST / ".build"


class Failed(Exception):
    """A step that cannot go on; its text says what to do about it."""


def say(text):
    """One line of progress, at once."""
    print(f"critest: {text}", flush=True)
