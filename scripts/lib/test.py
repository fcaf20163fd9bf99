"""All checks and tests of the project, one after the other.

    scripts/test                  all of it: what CI runs
    scripts/test tests clippy     only these stages, in the order of the list below
    scripts/test --list           the stages

It installs what is missing, goes on after a stage that failed, and ends with `N passed, N failed, N skipped`. Each
stage writes a log to .build/logs; of one that failed the telling part is shown. A stage that hangs is ended, and it is
said where each of its processes and threads hung. If only a few tests fail, they are tried once more; one that passes
then is told as unsteady.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import again
import counts
import processes
from terminal import NAME_WIDTH, Failed, coloured, duration, say, step

REPO = Path(__file__).resolve().parent.parent.parent
BUILD = REPO / ".build"
LOGS = BUILD / "logs"
TARGET = (REPO / os.environ.get("CARGO_TARGET_DIR", "target")).resolve()
TRIPOD, SHIM = TARGET / "release" / "tripod", TARGET / "release" / "tripod-shim"
SHOWN_LINES = 120
# Several times what the longest stage takes on a busy machine: what runs longer hangs.
LIMIT = 25 * 60

# Compiled without optimisation: it runs for a second, and is built on every fresh checkout.
DENY = f"""
    deny=.build/tools/bin/cargo-deny
    if ! "$deny" --version 2>/dev/null | grep -qx 'cargo-deny 0.20.2'; then
        CARGO_TARGET_DIR=.build/deny CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \\
            cargo install --locked --debug --version 0.20.2 --root .build/tools cargo-deny
        rm -rf .build/deny
    fi
    # The advisory database is on a host that builds need not reach.
    "$deny" --locked check licenses bans sources
"""
CONTRACT = """
    set=$(mktemp)
    trap 'rm -f "$set"' EXIT
    cargo run --locked --quiet -p tripod-cri-api --example descriptors -- "$set"
    TRIPOD_DESCRIPTORS=$set go test -C critest/contract -mod=readonly -count=1 -v ./...
"""
# The older, independent client, whose build needs protoc.
FEATURES = "--features tripod-tests/older-client"
CRITEST = f"critest/run --tripod '{TRIPOD}'"
VM = f"tests/vm/run --smoke --tripod '{TRIPOD}' --shim '{SHIM}' --cargo='--locked --workspace {FEATURES}'"
TOOLS = """
    status=0
    python3 -B -m unittest discover -s critest/tests || status=1
    python3 -B -m unittest discover -s scripts/lib/tests || status=1
    python3 -B -m unittest discover -s tests/vm/tests || status=1
    exit $status
"""


@dataclass
class Stage:
    name: str
    text: str
    script: str
    count: object = counts.none
    again: object = again.whole
    environment: dict = field(default_factory=dict)


STAGES = [
    Stage("set up", "Debian packages, Rust, Go", "scripts/setup --tests"),
    Stage("fmt", "the code is formatted", "cargo fmt --all --check"),
    Stage("build", "tripod and its shim as they are shipped", "scripts/build"),
    Stage("clippy", "no warning in any target", f"cargo clippy --locked --workspace --all-targets {FEATURES} -- -D warnings"),
    Stage("deny", "licences and sources of the dependencies", DENY),
    Stage("programs", "crictl, critest, CNI plugins, streaming clients and runc, from their pins", "critest/build"),
    Stage(
        "tests",
        "unit tests, and integration tests over a real daemon",
        f"cargo test --locked --workspace {FEATURES} --no-fail-fast",
        counts.cargo,
        again.cargo,
        {"TRIPOD_BIN": TRIPOD, "TRIPOD_SHIM": SHIM, "TRIPOD_CNI_BIN": REPO / "critest" / ".build" / "bin" / "cni"},
    ),
    Stage("contract", "our CRI contract beside that of Kubernetes", CONTRACT, counts.go),
    Stage("tools", "tests of the scripts and of the conformance runner", TOOLS, counts.unittest),
    Stage("vm", "in a virtual machine: cgroup v2, systemd, AppArmor", VM, counts.closing_line),
    Stage("critest", "Kubernetes' conformance suite for runtimes", CRITEST, counts.closing_line),
    Stage("critest-runc", "the same with every container made by runc", f"{CRITEST} --runtime-handler runc", counts.closing_line),
]


def main():
    chosen = parse()
    if os.geteuid() != 0:
        raise Failed("the tests start real containers: run them as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Shells start what runs in the background with these ignored, which programs inherit; tests send them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    processes.adopt_orphans()
    LOGS.mkdir(parents=True, exist_ok=True)
    # A short path: sockets below it have 108 bytes for theirs. Containers' users must get through.
    temporary = Path(tempfile.mkdtemp(prefix="tripod-"))
    temporary.chmod(0o755)
    try:
        total, failed = run_all(chosen, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if failed:
        say(f"\nfailed: {', '.join(failed)}; the logs are in {LOGS}")
    # A stage that failed without a failed test is one failure.
    total.failed += sum(1 for counted in failed.values() if not counted)
    say(f"\n{total}")
    return 1 if failed else 0


def parse():
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__, formatter_class=layout)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="only these")
    parser.add_argument("--list", action="store_true", help="name the stages and end")
    arguments = parser.parse_args()
    if arguments.list:
        for stage in STAGES:
            say(f"{stage.name:<{NAME_WIDTH}}{stage.text}")
        sys.exit(0)
    unknown = set(arguments.stages) - {stage.name for stage in STAGES}
    if unknown:
        parser.error(f"no such stage: {', '.join(sorted(unknown))} (--list names them)")
    return [stage for stage in STAGES if not arguments.stages or stage.name in arguments.stages]


def run_all(chosen, temporary):
    """Runs the stages; gives all counts, and for each that failed how many tests did."""
    total, failed = counts.Counts(), {}
    for stage in chosen:
        counted, well = run(stage, temporary)
        total += counted
        if not well:
            failed[stage.name] = counted.failed
    left = leftovers(temporary)
    if left:
        failed["left behind"] = 0
        for line in left:
            say(f"left behind: {line}")
    return total, failed


def run(stage, temporary):
    environment = {**os.environ, **{name: str(value) for name, value in stage.environment.items()}}
    environment.update(TMPDIR=str(temporary), CARGO_TERM_COLOR="never", NO_COLOR="1")
    counted, trouble = counts.Counts(), None
    try:
        with step(stage.name, stage.text) as current:
            counted, trouble = attempt(stage, stage.script, environment, "")
            if trouble:
                counted, unsteady = second(stage, counted, environment)
                if unsteady:
                    current.show(f"unsteady: {unsteady} failed and passed at the second attempt:")
                    current.show("\n".join(f"| {line}" for line in trouble.shown))
                    trouble = None
            if counted != counts.Counts():
                current.text = f"{stage.text}: {counted.short()}"
            if trouble:
                raise Failed(trouble.text)
    except Failed as error:
        say(f"    {error}")
        for line in trouble.shown:
            say(f"    | {line}")
    return counted, trouble is None


@dataclass
class Trouble:
    """Why an attempt failed, and the telling lines."""

    text: str
    shown: list


def attempt(stage, command, environment, mark):
    """One run of a command of the stage: what it counted, and its trouble."""
    log = log_of(stage, mark)
    with open(log, "w") as output:
        status, hanging = script(command, environment, output)
    text = log.read_text(errors="replace")
    counted = stage.count(text)
    if hanging:
        shown = text.splitlines()[-20:] + hanging
        return counted, Trouble(f"it hung: no end after {duration(LIMIT)}; the end of {log}, and its processes:", shown)
    if status != 0:
        return counted, Trouble(f"status {status}; from {log}:", excerpt(text))
    if counted.failed:
        return counted, Trouble(f"it ended well but counts failures; from {log}:", excerpt(text))
    if stage.count is not counts.none and counted == counts.Counts():
        return counted, Trouble(f"no test ran; from {log}:", excerpt(text))
    return counted, None


def second(stage, counted, environment):
    """Tries again what failed, if that can tell something: what counts then, and how many tests were unsteady."""
    commands = stage.again(stage.script, log_of(stage, "").read_text(errors="replace"))
    if not again.tells(counted, commands):
        return counted, 0
    attempts = []
    for number, command in enumerate(commands, start=2):
        passed, trouble = attempt(stage, command, environment, f"-{number}")
        attempts.append((trouble is None, passed))
    return again.settle(counted, attempts)


def log_of(stage, mark):
    return LOGS / f"{stage.name.replace(' ', '-')}{mark}.log"


def script(text, environment, output):
    """The exit status, and where each process was if it did not end in time."""
    command = ["bash", "-euo", "pipefail", "-c", text]
    process = subprocess.Popen(
        command, cwd=REPO, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )
    try:
        return process.wait(LIMIT), []
    except subprocess.TimeoutExpired:
        hanging = processes.descendants(os.getpid())
        processes.orphans(patience=0)
        return None, hanging


def excerpt(text):
    """Which tests failed, and what cargo and rustc say about it; of other programs the end."""
    names = re.findall(r"^test .* FAILED$", text, re.MULTILINE)
    failures = re.findall(r"^failures:\n(.*?)^test result: FAILED", text, re.MULTILINE | re.DOTALL)
    errors = re.findall(r"^error(?:\[E\d+\])?: .*\n(?: .*\n)*", text, re.MULTILINE)
    lines = [line for part in failures or errors for line in part.splitlines() if line]
    return (names + lines)[:SHOWN_LINES] or text.splitlines()[-SHOWN_LINES:]


def leftovers(temporary):
    """Processes and files that outlive the stages."""
    left = [f"process {line}" for line in processes.orphans(patience=5)]
    return left + [f"file {path}" for path in sorted(temporary.iterdir())]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as error:
        say(f"{coloured('Cannot test:', 'red')} {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("\nstopped")
        sys.exit(130)
