"""The daemons that the suite can run against: tripod, a peer, or one that runs already."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from . import CRITEST, REPO, Failed, debian, programs, say

_READY_WITHIN = 30


class Daemon:
    """A CRI daemon with folders of its own below `work`; subclasses say how to start it and what stays by design."""

    name = ""
    allowed = ()  # patterns for scripts/leaks

    def __init__(self, work, certs):
        self.work, self.certs = Path(work), certs
        self.root, self.state = self.work / "root", self.work / "state"
        self.socket = self.work / "cri.sock"
        self.log = self.work / "daemon.log"
        self._process = None

    @property
    def endpoint(self):
        return f"unix://{self.socket}"

    def empty_folders(self):
        """Folders in which nothing may be left when all pods are gone."""
        return []

    def start(self):
        self.work.mkdir(parents=True, exist_ok=True)
        command = self.command()
        say(f"starting {self.name}: {' '.join(map(str, command))}")
        environment = {**os.environ, "PATH": f"{programs.BIN}:{os.environ['PATH']}:/usr/sbin:/sbin"}
        with open(self.log, "w") as log:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        started = time.monotonic()
        while not self._answers():
            if self._process.poll() is not None:
                raise Failed(f"{self.name} ended with status {self._process.returncode}:\n{self._last_words()}")
            if time.monotonic() - started > _READY_WITHIN:
                raise Failed(f"{self.name} did not answer within {_READY_WITHIN} s:\n{self._last_words()}")
            time.sleep(0.1)
        say(f"{self.name} answers after {time.monotonic() - started:.1f} s")

    def stop(self):
        """Ends the daemon; gives what was wrong about that, or nothing."""
        if self._process is None:
            return None
        died = self._process.poll()
        if died is not None:
            return f"{self.name} ended by itself with status {died}:\n{self._last_words()}"
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return f"{self.name} did not end within 30 s of SIGTERM"
        return None

    def log_kept(self):
        return self._process is not None

    def crictl(self, *arguments, timeout=60):
        # The settings of the machine's owner are of no concern here.
        options = ["--config", "/dev/null", "--runtime-endpoint", self.endpoint, "--timeout", f"{timeout}s"]
        return subprocess.run(
            [programs.BIN / "crictl", *options, *arguments], capture_output=True, text=True, timeout=timeout + 10
        )

    def _answers(self):
        return self.socket.exists() and self.crictl("version", timeout=5).returncode == 0

    def _last_words(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])


class Tripod(Daemon):
    name = "tripod"
    # What is the node's and no pod's: the bridge, the frame of the table (not what is in its maps), the base cgroup.
    allowed = ("link tripod0", r"nft table \S+ tripod(?!.*: element ).*", r"cgroup \S*/tripod")

    def __init__(self, work, certs, program, handler=None, runtime=None):
        super().__init__(work, certs)
        self.program, self.handler, self.runtime = program, handler, runtime

    def command(self):
        config = self.work / "config.toml"
        network = self.work / "cni"
        network.mkdir()
        # No CNI configuration: the built-in bridge.
        config.write_text(
            f'[image]\ncerts_dir = "{self.certs}"\n\n[network]\ncni_conf_dir = "{network}"\n'
            + (f'\n[runtimes.{self.handler}]\ntype = "oci"\npath = "{self.runtime}"\n' if self.handler else "")
        )
        folders = ["--root", self.root, "--state", self.state, "--socket", self.socket]
        return [self.program, "serve", "--config", config, *folders]

    def empty_folders(self):
        bundles = [self.state / "oci" / self.handler / "bundles"] if self.handler else []
        return [self.state / "pods", *bundles, self.root / "containers"]


class Containerd(Daemon):
    name = "containerd"
    # The bridge and the rules of the CNI plugins and the parent of all pods' cgroups stay for the next pod.
    allowed = ("link peer0", "(nft|iptables|ip6tables) .*", r"cgroup .*/k8s\.io")

    def command(self):
        (self.work / "cni").mkdir()
        shutil.copy(CRITEST / "peer" / "cni.conflist", self.work / "cni" / "10-peer.conflist")
        config = self.work / "config.toml"
        values = {
            "root": self.root, "state": self.state, "socket": self.socket, "certs": self.certs, "bin": programs.BIN,
            "cni_bin": programs.CNI_BIN, "cni_conf": self.work / "cni", "platform": f"linux/{debian.architecture()}",
        }
        text = (CRITEST / "peer" / "containerd.toml").read_text()
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
        config.write_text(text)
        return [programs.BIN / "containerd", "--config", config]

    def stop(self):
        trouble = super().stop()
        # The place of the CNI library's cache cannot be set.
        for folder in ("/var/lib/cni/results", "/var/lib/cni"):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return trouble


class Running(Daemon):
    """A daemon that someone else started and stops."""

    name = "the running daemon"

    def __init__(self, endpoint):
        self._endpoint = endpoint
        self._process = None

    @property
    def endpoint(self):
        return self._endpoint

    def start(self):
        done = self.crictl("version", timeout=10)
        if done.returncode != 0:
            raise Failed(f"nothing answers at {self._endpoint}: {done.stderr.strip()}")

    def stop(self):
        return None


def tripod_program(given):
    """The binary to test: the one given, or the newer of what cargo built in this tree."""
    if given:
        program = Path(given).resolve()
        if not os.access(program, os.X_OK):
            raise Failed(f"{program} is no program")
        return program
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    built = [target / profile / "tripod" for profile in ("debug", "release")]
    built = [program for program in built if program.exists()]
    if not built:
        raise Failed(f"no tripod in {target}: `cargo build` it first, or name one with --tripod PATH")
    return max(built, key=lambda program: program.stat().st_mtime).resolve()
