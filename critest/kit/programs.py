"""Builds the pinned Go programs into .build/bin; a set is built again only when its pins or its recipe change."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from . import BUILD, CRITEST, REPO, Failed, say

BIN = BUILD / "bin"
CNI_BIN = BIN / "cni"

# The OCI runtimes that serve as handlers of these names.
RUNTIMES = ("runc", "crun")

_CRI_TOOLS = "sigs.k8s.io/cri-tools"
_CRI_VERSION = f"-X {_CRI_TOOLS}/pkg/version.Version=v1.36.0"
_PLUGINS = "github.com/containernetworking/plugins/plugins"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_CONTAINERD_TAGS = "no_btrfs no_devmapper no_zfs"


def _static(package, output, *flags):
    return {"args": ["build", *flags, "-o", output, package], "env": {"CGO_ENABLED": "0"}}


_RUNC = {
    "args": ["build", "-tags", "seccomp", "-o", "bin/runc", "github.com/opencontainers/runc"],
    "env": {"CGO_ENABLED": "1"},
}
_RUNC_NEEDS = {"pkg-config": "pkg-config", "libseccomp-dev": "/usr/include/seccomp.h"}

# Each set: the folder of its go.mod, the Debian packages that its build needs, and one `go` command a program.
SETS = {
    "cri": {
        "module": CRITEST / "tools" / "cri",
        "debian": {},
        "commands": {
            "crictl": _static(f"{_CRI_TOOLS}/cmd/crictl", "bin/crictl", "-ldflags", _CRI_VERSION),
            "critest": {
                "args": ["test", "-c", "-ldflags", _CRI_VERSION, "-o", "bin/critest", f"{_CRI_TOOLS}/cmd/critest"],
                "env": {"CGO_ENABLED": "0"},
            },
        },
    },
    "cni": {
        "module": CRITEST / "tools" / "cni",
        "debian": {},
        "commands": {
            path.rpartition("/")[2]: _static(f"{_PLUGINS}/{path}", f"bin/cni/{path.rpartition('/')[2]}")
            for path in (
                "main/bridge", "main/loopback", "main/ptp", "ipam/host-local",
                "meta/bandwidth", "meta/firewall", "meta/portmap", "meta/tuning",
            )
        },
    },
    "clients": {
        "module": REPO / "tests" / "clients" / "go",
        "debian": {},
        "commands": {"streamclient": _static(".", "bin/streamclient")},
    },
    "peer": {
        "module": CRITEST / "peer",
        "debian": _RUNC_NEEDS,
        "commands": {
            "containerd": _static(f"{_CONTAINERD}/containerd", "bin/containerd", "-tags", _CONTAINERD_TAGS),
            "containerd-shim-runc-v2": _static(
                f"{_CONTAINERD}/containerd-shim-runc-v2", "bin/containerd-shim-runc-v2", "-tags", _CONTAINERD_TAGS
            ),
            "runc": _RUNC,
        },
    },
    # The runtime of the handler `runc`, from the same module.
    "oci": {"module": CRITEST / "peer", "debian": _RUNC_NEEDS, "commands": {"runc": _RUNC}},
}


def ensure(name):
    """Builds the set `name` unless the same one is there already."""
    recipe = SETS[name]
    stamp = BUILD / f"{name}.stamp"
    key = _key(recipe)
    outputs = [BUILD / _output(command) for command in recipe["commands"].values()]
    CNI_BIN.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == key and all(output.exists() for output in outputs):
            return
        if not shutil.which("go"):
            raise Failed("the program `go` is missing: install Go 1.26 or newer")
        install(recipe["debian"])
        for program, command in recipe["commands"].items():
            _build(recipe["module"], program, command)
        stamp.write_text(key)


def runtime(name, given=None):
    """The program of a runtime: the one given, or runc from its pin, or what the machine has."""
    if not given and name == "runc":
        ensure("oci")
        return BIN / "runc"
    program = shutil.which(given or name, path=_path())
    if not program:
        raise Failed(f"there is no program {given or name}: install Debian's {name}, or name one with --runtime PATH")
    return Path(program).resolve()


def install(packages):
    """Installs the Debian packages whose program or file is missing: {package: program or absolute path}."""
    missing = [package for package, proof in packages.items() if not _there(proof)]
    if not missing:
        return
    say(f"installing {' '.join(missing)}")
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=environment, capture_output=True).returncode == 0:
        return
    # The usual reason is a package list that was never fetched or is out of date.
    subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
    second = subprocess.run(command, env=environment, capture_output=True, text=True)
    if second.returncode != 0:
        raise Failed(f"apt-get could not install {' '.join(missing)}:\n{second.stderr.strip()}")


def _there(proof):
    if proof.startswith("/"):
        return os.path.exists(proof)
    return shutil.which(proof, path=_path()) is not None


def _path():
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _output(command):
    return command["args"][command["args"].index("-o") + 1]


def _key(recipe):
    digest = hashlib.sha256()
    module = recipe["module"]
    for file in (module / "go.mod", module / "go.sum", *sorted(module.glob("*.go"))):
        digest.update(file.read_bytes())
    digest.update(repr(recipe["commands"]).encode())
    return digest.hexdigest()


def _build(module, program, command):
    say(f"building {program}")
    started = time.monotonic()
    # A rename puts the program in place: one that runs at this moment keeps its old file.
    output = BUILD / _output(command)
    fresh = output.with_name(f".{output.name}.new")
    args = [str(fresh) if part == _output(command) else part for part in command["args"]]
    args.insert(1, "-trimpath")
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off", **command["env"]}
    done = subprocess.run(["nice", "go", *args], cwd=module, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"building {program} in {module} failed:\n{done.stderr.strip()}")
    fresh.replace(output)
    say(f"built {program} in {time.monotonic() - started:.0f} s")
