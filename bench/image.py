"""The image whose pull is measured: 6 layers, about 751 MB of tar, 262 MB of gzip, 16,334 files."""

import fcntl
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "critest"))
from kit import BUILD, debian, oci, registry, say  # noqa: E402
from kit.tree import Tree, compressed  # noqa: E402

NAME = "tripod.invalid/bench/six-layers:1"
_LAYERS = 6
_FILES = 16_334
_BYTES = 751_000_000
_WORDS = 1_150
_SEED = 7


def ensure():
    """Makes the image unless it is there; gives the storage folder of a registry that holds it."""
    storage = BUILD / "bench-images" / "1"
    storage.parent.mkdir(parents=True, exist_ok=True)
    with open(storage.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not storage.exists():
            _make(storage)
    return storage


def _make(storage):
    say("making the image for the pull, about two minutes")
    chance = random.Random(_SEED)
    text = _text(chance)
    new = storage.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    with tempfile.TemporaryDirectory() as work, registry.serve(new, work) as port:
        layers = [_layer(chance, text, number) for number in range(_LAYERS)]
        image = oci.Image(layers, {"Cmd": ["/nothing"]}, debian.architecture(), "oci")
        pusher = oci.Pusher(port)
        pusher.image("bench/six-layers", image)
        pusher.manifest("bench/six-layers", "1", *image.manifest())
    new.rename(storage)


def _text(chance):
    """Bytes that compress about as well as programs do: words of random bytes, drawn again and again."""
    words = [chance.randbytes(chance.randint(3, 10)) for _ in range(_WORDS)]
    return b"".join(chance.choices(words, k=16_000_000 // 7))


def _layer(chance, text, number):
    tree = Tree()
    files = _FILES // _LAYERS + (number < _FILES % _LAYERS)
    room = _BYTES // _LAYERS - files * 1024
    # Most files are small, and few large ones hold most of the bytes, as in a real image.
    weights = [chance.paretovariate(1.1) for _ in range(files)]
    scale = room / sum(weights)
    for index, weight in enumerate(weights):
        tree.file(f"opt/layer{number}/{index // 100}/{index}", _piece(chance, text, int(weight * scale)))
    tar = tree.tar()
    return oci.Layer(compressed(tar), oci.digest(tar), "gzip")


def _piece(chance, text, size):
    pieces = []
    while size > 0:
        at = chance.randrange(len(text))
        piece = text[at : at + min(size, 1_000_000)]
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
