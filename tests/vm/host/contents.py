"""What a run takes along: the programs that this machine has built, and the parts of the checkout that tests read."""

import json
import os
import shlex
import subprocess
from pathlib import Path

from . import REPO, Failed, disks

from kit import daemon, images, programs, python

# Under emulation nothing is as fast as the tests are used to.
_PATIENCE = "6"


def fill(arguments, folder, disk):
    """Builds what is missing, and makes the disk that is handed in."""
    tripod = daemon.tripod_program(arguments.tripod)
    shim = Path(arguments.shim) if arguments.shim else tripod.with_name("tripod-shim")
    programs.ensure("cri")
    programs.ensure("cni")
    programs.ensure("clients")
    programs.ensure("oci")
    python.ensure()
    storage = images.ensure()
    hand_in = disks.HandIn(folder)
    hand_in.program(tripod, "tripod")
    hand_in.program(shim, "tripod-shim")
    tests, engine = _test_programs(arguments.cargo)
    hand_in.program(engine, "engine-tests")
    hand_in.program(tests, tests.name)
    (hand_in.folder / "bin" / "it").symlink_to(tests.name)
    # The tests look for it where cargo would have put it, seen from themselves.
    hand_in.program(tests.parent.parent / "intruder", "../intruder")
    for name in ("crictl", "critest"):
        (hand_in.folder / "bin" / name).symlink_to(programs.BIN / name)
    build = programs.BUILD.relative_to(REPO)
    # critest's runner finds everything built and fetches nothing.
    hand_in.repo(
        "scripts", "tests/vm/guest", "tests/clients", *_besides_build("critest"), *arguments.file,
        *(build / "bin" / name for name in ("crictl", "critest", "streamclient", "cni", "runc")),
        *(path.relative_to(REPO) for path in programs.BUILD.glob("*.stamp")),
        storage.relative_to(REPO), *(path.relative_to(REPO) for path in python.VENV.glob("lib/*/site-packages")),
    )
    # TARGET/PROFILE/deps/it-HASH
    kept = tests.parent.parent.parent / "tmp" / "logs"
    hand_in.job(arguments.command, arguments.limit, kept, {
        "TRIPOD_BIN": "/hand-in/bin/tripod", "TRIPOD_SHIM": "/hand-in/bin/tripod-shim",
        "TRIPOD_CNI_BIN": programs.CNI_BIN, "TRIPOD_TESTS_PATIENCE": _PATIENCE,
    })
    hand_in.disk(disk)


def _besides_build(folder):
    return [path.relative_to(REPO) for path in (REPO / folder).iterdir() if not path.name.startswith((".", "__"))]


def _test_programs(arguments):
    """Builds the programs of the integration tests and of the engine's own, and gives their paths."""
    command = [os.environ.get("CARGO", "cargo"), "test", *shlex.split(arguments), "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    if done.returncode != 0:
        raise Failed(f"{shlex.join(command)} failed: its errors are above")
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    # Several crates have a program of this name.
    built = {
        f"{Path(message['manifest_path']).parent.name} {message['target']['name']}": Path(message["executable"])
        for message in messages if message.get("executable") and message["profile"]["test"]
    }
    try:
        return built["tests it"], built["engine tripod_engine"]
    except KeyError as error:
        raise Failed(f"{shlex.join(command)} built no program of tests named {error}") from None
