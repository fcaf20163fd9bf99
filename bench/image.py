"""The images whose pulls are measured, made from random numbers that are always the same."""

import fcntl
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "critest"))
from kit import BUILD, debian, oci, registry, say  # noqa: E402
from kit.tree import Tree, compressed  # noqa: E402

_WORDS = 1_150
_SEED = 7
_BLOCK = 4096  # of a filesystem, in bytes
_VERSION = "3"


@dataclass
class Picture:
    """An image: how many files and bytes its layers have together."""

    label: str
    repository: str
    layers: int
    files: int
    bytes: int
    compression: str = "gzip"
    twin_of: str = ""  # the image of which it has four fifths of the files

    @property
    def name(self):
        return f"tripod.invalid/bench/{self.repository}:1"


SIX = Picture("six layers, 262 MB gzip", "six-layers", 6, 16_334, 751_000_000)
TWIN = Picture("the same, four fifths of the files", "twin", 6, 16_334, 751_000_000, twin_of="six-layers")
ONE = Picture("one layer of 1 GB", "one-layer", 1, 2_000, 1_000_000_000)
ALL = (
    SIX,
    Picture("six layers, zstd", "six-layers-zstd", 6, 16_334, 751_000_000, "zstd"),
    ONE,
    Picture("sixty layers, 120 MB", "sixty-layers", 60, 6_000, 120_000_000),
    TWIN,
)

# Ten images as a team builds them: on one release of a base or the next, which has four fifths of its files, with a
# runtime that each build installs anew, and files of their own.
FAMILY = tuple(Picture(f"image {number + 1}", f"family-{number}", 3, 3_100, 105_000_000) for number in range(10))
FAMILY_KEY = "family"
# What each of their three layers has.
FAMILY_PARTS = ("usr", "opt/runtime", "srv/app")


def ensure():
    """Makes the images unless they are there; gives the storage folder of a registry that holds them."""
    storage = BUILD / "bench-images" / _VERSION
    storage.parent.mkdir(parents=True, exist_ok=True)
    with open(storage.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not storage.exists():
            for old in storage.parent.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _make(storage)
    return storage


def largest_layer(picture):
    """The file of an image's largest layer, as the registry keeps it."""
    registry_root = ensure() / "docker" / "registry" / "v2"
    links = registry_root / "repositories" / "bench" / picture.repository / "_layers" / "sha256"
    files = (registry_root / "blobs" / "sha256" / link.name[:2] / link.name / "data" for link in links.iterdir())
    return max(files, key=lambda file: file.stat().st_size)


def on_disk(picture):
    """Bytes of the blocks that the files of an unpacked image take."""
    return _sizes()[picture.repository]


def family_on_disk():
    """The same of all distinct layers of the ten images."""
    return _sizes()[FAMILY_KEY]


def _sizes():
    return json.loads((ensure() / "on-disk.json").read_text())


def _make(storage):
    say("making the images for the pulls, some minutes")
    new = storage.with_suffix(".new")
    new.mkdir()
    sizes = {}
    with tempfile.TemporaryDirectory() as work, registry.serve(new, work) as port:
        for picture in ALL:
            sizes[picture.repository] = _push(picture, oci.Pusher(port))
        sizes[FAMILY_KEY] = _push_family(oci.Pusher(port))
    (new / "on-disk.json").write_text(json.dumps(sizes))
    new.rename(storage)


def _push(picture, pusher):
    chance = random.Random(_SEED)
    text = _text(chance)
    layers, blocks = [], 0
    for number in range(picture.layers):
        tree = _tree(chance, text, picture, number)
        if picture.twin_of:
            _change(tree, text, number)
        blocks += _blocks(tree)
        tar = tree.tar()
        blob = compressed(tar) if picture.compression == "gzip" else _zstd(tar)
        layers.append(oci.Layer(blob, oci.digest(tar), picture.compression))
    _upload(picture, layers, pusher)
    return blocks * _BLOCK


def _push_family(pusher):
    chance = random.Random(_SEED)
    text = _text(chance)
    blocks, made = 0, {}

    def layer(key, make):
        nonlocal blocks
        if key not in made:
            tree = make()
            blocks += _blocks(tree)
            tar = tree.tar()
            made[key] = oci.Layer(compressed(tar), oci.digest(tar), "gzip")
        return made[key]

    def base(release):
        tree = _filled(FAMILY_PARTS[0], 2_000, 60_000_000, text, "base")
        if release:
            _change(tree, text, release)
        return tree

    def runtime(number):
        tree = _filled(FAMILY_PARTS[1], 1_000, 40_000_000, text, "runtime")
        tree.file(f"{FAMILY_PARTS[1]}/installed", f"for image {number}")
        return tree

    for number, picture in enumerate(FAMILY):
        layers = [
            layer(("base", number % 2), lambda: base(number % 2)),
            layer(("runtime", number), lambda: runtime(number)),
            layer(("own", number), lambda: _filled(FAMILY_PARTS[2], 100, 5_000_000, text, f"own {number}")),
        ]
        _upload(picture, layers, pusher)
    return blocks * _BLOCK


def _upload(picture, layers, pusher):
    image = oci.Image(layers, {"Cmd": ["/nothing"]}, debian.architecture(), "oci")
    repository = f"bench/{picture.repository}"
    pusher.image(repository, image)
    pusher.manifest(repository, "1", *image.manifest())


def _blocks(tree):
    return sum(math.ceil(len(entry.data) / _BLOCK) for entry in tree.entries.values())


def _text(chance):
    """Bytes that compress about as well as programs do: words of random bytes, drawn again and again."""
    words = [chance.randbytes(chance.randint(3, 10)) for _ in range(_WORDS)]
    return b"".join(chance.choices(words, k=16_000_000 // 7))


def _tree(chance, text, picture, number):
    files = picture.files // picture.layers + (number < picture.files % picture.layers)
    room = picture.bytes // picture.layers - files * 1024
    return _fill(chance, text, f"opt/layer{number}", files, room)


def _filled(folder, files, size, text, seed):
    """A tree that is the same for the same words."""
    return _fill(random.Random(f"{_SEED} {seed}"), text, folder, files, size)


def _fill(chance, text, folder, files, room):
    tree = Tree()
    # Most files are small, and few large ones hold most of the bytes, as in a real image.
    weights = [chance.paretovariate(1.1) for _ in range(files)]
    scale = room / sum(weights)
    for index, weight in enumerate(weights):
        tree.file(f"{folder}/{index // 100}/{index}", _piece(chance, text, int(weight * scale)))
    return tree


def _change(tree, text, number):
    """Gives every fifth file another content, and so the layer another digest: an image that was built anew."""
    chance = random.Random(f"{_SEED} {number}")
    files = [entry for _, entry in sorted(tree.entries.items()) if entry.kind == "file"]
    for entry in files[::5]:
        entry.data = _piece(chance, text, len(entry.data))


def _piece(chance, text, size):
    pieces = []
    while size > 0:
        at = chance.randrange(len(text))
        piece = text[at : at + min(size, 1_000_000)]
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _zstd(data):
    return subprocess.run(["zstd", "-q", "-3", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
