"""Parts of tests/vm/run: the guest's image, what is handed in and out, the machine."""

import sys
from pathlib import Path

VM = Path(__file__).resolve().parent.parent
REPO = VM.parent.parent
BUILD = VM / ".build"

# Programs and images are those of critest's runner.
sys.path.insert(0, str(REPO / "critest"))

from kit import Failed  # noqa: E402, F401


def say(text):
    """One line of progress, at once."""
    print(f"vm: {text}", flush=True)
