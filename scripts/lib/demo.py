"""From source to a running pod: builds tripod, serves an image on loopback, runs a pod from it, shows it, cleans up.

Nothing of it leaves this machine or stays on it: the daemon has folders, a socket, a bridge and cgroups of its own, so
that demos run side by side and beside a tripod that is in use.
"""

import argparse
import contextlib
import ipaddress
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO / "critest"))

import kit  # noqa: E402
from kit import debian, oci, programs, registry  # noqa: E402
from kit.tree import Tree, compressed  # noqa: E402
import processes
from terminal import NAME_WIDTH, Failed, coloured, say, step  # noqa: E402

PAGE = "Hello from a pod that tripod runs.\n"
READY_WITHIN = 20
# The kernel takes a moment to remove a pod's interface.
GONE_WITHIN = 5
IN_THE_WILD = "docker.io/library/alpine:3"


def main():
    layout = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(prog="scripts/demo", description=__doc__, formatter_class=layout).parse_args()
    if os.geteuid() != 0:
        raise Failed("the demo starts real containers: run it as root")
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    say("From source to a running pod, on this machine and its loopback only.\n")
    program = prepare()
    with tempfile.TemporaryDirectory(prefix="tripod-demo-") as work:
        # What the shim and its containers reach must be reachable.
        os.chmod(work, 0o755)
        demo = Demo(Path(work), program)
        try:
            demo.play()
        except Exception:
            demo.last_words()
            raise
        finally:
            demo.close()
    say("\nIt works. With access to the internet, the next thing to type is:\n")
    say(f"    {shown(program)} run --rm {IN_THE_WILD} echo hello")


def prepare():
    """Installs and builds; gives the daemon's program."""
    with step("set up", "Debian packages; Rust and Go are there") as current:
        said = call([REPO / "scripts" / "setup"])
        current.text = said.strip().splitlines()[-1] if said.strip() else "nothing was missing"
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    with step("build", "tripod and its shim, with cargo", noisy=True) as current:
        current.text = call([REPO / "scripts" / "build"], quiet=False).strip().splitlines()[-1]
    with step("build", "crictl, the command line for what kubelet talks to", noisy=True):
        with contextlib.redirect_stdout(sys.stderr):
            programs.ensure("cri")
    return (REPO / target / "release" / "tripod").resolve()


class Demo:
    def __init__(self, work, program):
        self.work, self.program = work, program
        self.name = f"demo-{os.getpid()}"
        self.socket = work / "tripod.sock"
        self.log = work / "daemon.log"
        self.undo = contextlib.ExitStack()
        self.command, self.daemon = [], None

    def play(self):
        image = self.serve_image()
        self.start_daemon()
        pod = self.run_pod(image)
        self.look_at(pod, image)
        self.clean_up(pod, image)

    @property
    def endpoint(self):
        return f"unix://{self.socket}"

    def serve_image(self):
        with step("image", "") as current:
            image = busybox_image()
            size = sum(len(layer.blob) for layer in image.layers)
            current.text = f"busybox and a web page from Debian's package busybox-static, {size / 1e6:.1f} MB"
        with step("registry", "") as current:
            storage = self.work / "registry"
            storage.mkdir()
            server, port = registry.start(storage, self.work)
            self.undo.callback(registry.stop, server)
            pusher = oci.Pusher(port)
            pusher.image("hello", image)
            pusher.manifest("hello", "1", *image.manifest())
            host = f"127.0.0.1:{port}"
            registry.hosts(self.work / "certs.d", [host], port)
            current.text = f"Debian's docker-registry serves it as {host}/hello:1"
        return f"{host}/hello:1"

    def start_daemon(self):
        config = self.work / "config.toml"
        config.write_text(self.config())
        self.command = [self.program, "serve", "--config", config]
        with step("daemon", f"{shown(self.program)} serve --config {config}"):
            self.undo.callback(self.stop_daemon)
            self.launch()
        for command in (f"cd {self.work}", f"export CONTAINER_RUNTIME_ENDPOINT={self.endpoint}"):
            say(coloured(f"{'':<{NAME_WIDTH}}$ {command}", "dim"))

    def launch(self):
        self.socket.unlink(missing_ok=True)
        with open(self.log, "a") as log:
            # A session of its own: Ctrl-C is for the demo, which then removes the pod before it ends the daemon.
            self.daemon = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + READY_WITHIN
        while not self.socket.exists():
            if self.daemon.poll() is not None:
                raise Failed(f"tripod ended with status {self.daemon.returncode}")
            if time.monotonic() > until:
                raise Failed(f"tripod did not open its socket within {READY_WITHIN} s")
            time.sleep(0.005)

    def config(self):
        (self.work / "cni").mkdir()
        return "\n".join([
            f'root = "{self.work}/root"',
            f'state = "{self.work}/state"',
            f'socket = "{self.socket}"',
            "[image]",
            f'certs_dir = "{self.work}/certs.d"',
            "[network]",
            f'instance = "{self.name}"',
            f'bridge = "{self.name}"',
            f"subnets = {json.dumps([str(free_subnet())])}",
            f'cni_conf_dir = "{self.work}/cni"  # empty: the built-in bridge',
            "[cgroup]",
            f'base = "{self.name}"',
            "",
        ])

    def run_pod(self, image):
        with step("pull", f"$ crictl pull {image}"):
            self.crictl("pull", image)
        pod_file, container_file = self.write_requests(image)
        with step("pod", f"$ crictl runp {pod_file.name}"):
            pod = self.crictl("runp", pod_file).strip()
        with step("container", f"$ crictl create {pod[:12]} {container_file.name} {pod_file.name}"):
            container = self.crictl("create", pod, container_file, pod_file).strip()
        with step("start", f"$ crictl start {container[:12]}"):
            self.crictl("start", container)
        return Pod(pod, container)

    def write_requests(self, image):
        pod = {
            "metadata": {"name": "hello", "namespace": "demo", "uid": self.name},
            "hostname": "hello",
            "log_directory": f"{self.work}/logs",
            "linux": {},
        }
        container = {
            "metadata": {"name": "web"},
            "image": {"image": image},
            "log_path": "web.log",
            # From these crictl knows the names of the pod.
            "labels": {"io.kubernetes.pod.name": "hello", "io.kubernetes.pod.namespace": "demo"},
            "linux": {},
        }
        files = self.work / "pod.json", self.work / "container.json"
        for file, content in zip(files, (pod, container)):
            file.write_text(json.dumps(content, indent=2))
        return files

    def look_at(self, pod, image):
        with step("state", "$ crictl pods") as current:
            current.show(narrow(self.crictl("pods", "--id", pod.id)))
        with step("", "$ crictl ps") as current:
            current.show(narrow(self.crictl("ps", "--id", pod.container)))
        with step("log", f"$ crictl logs {pod.container[:12]}") as current:
            current.show(self.wait_for_log(pod))
        with step("exec", f"$ crictl exec --sync {pod.container[:12]} ps") as current:
            current.show(self.crictl("exec", "--sync", pod.container, "ps").rstrip())
        status = json.loads(self.crictl("inspectp", pod.id))["status"]
        address = status["network"]["ip"]
        with step("network", f"$ curl http://{address}/") as current:
            answer = fetch(address)
            if answer != PAGE:
                raise Failed(f"the pod answered {answer!r}")
            current.show(answer)
        with step("one line", f"$ tripod run --socket tripod.sock --rm {image} echo hello") as current:
            command = [self.program, "run", "--quiet", "--socket", self.socket, "--rm", image, "echo", "hello"]
            current.show(call(command))

    def wait_for_log(self, pod):
        until = time.monotonic() + READY_WITHIN
        while True:
            text = self.crictl("logs", pod.container)
            if text or time.monotonic() > until:
                return text
            time.sleep(0.02)

    def clean_up(self, pod, image):
        with step("stop", f"$ crictl stopp {pod.id[:12]}"):
            self.crictl("stopp", pod.id)
        with step("remove", f"$ crictl rmp {pod.id[:12]}"):
            self.crictl("rmp", pod.id)
        with step("", f"$ crictl rmi {image}"):
            self.crictl("rmi", image)
        with step("clean up", "ends daemon and registry; looks for anything that is left of them"):
            self.undo.close()
            until = time.monotonic() + GONE_WITHIN
            while (left := self.leftovers(pod)) and time.monotonic() < until:
                time.sleep(0.1)
            if left:
                raise Failed("this is left:\n" + "\n".join(left))

    def leftovers(self, pod):
        """What of the demo is still on the machine. All that it makes is named after it, its folder or its pod."""
        # The name of an interface holds no more than the beginning of the pod's.
        own = re.compile(rf"{self.name}(?![0-9])|{re.escape(str(self.work))}/|{pod.id[:11]}")
        state = self.work / "after.json"
        call([REPO / "scripts" / "leaks", "snapshot", state])
        there = json.loads(state.read_text())
        found = [f"{kind} {item}" for kind, items in there.items() for item in items if own.search(item)]
        found += [f"process {line}" for line in processes.orphans(patience=GONE_WITHIN)]
        folders = [self.work / folder for folder in ("state/pods", "root/containers")]
        return found + [f"file {path}" for folder in folders if folder.exists() for path in folder.iterdir()]

    def crictl(self, *arguments):
        command = [programs.BIN / "crictl", "--config", "/dev/null", "--timeout", "60s", *arguments]
        return call(command, {"CONTAINER_RUNTIME_ENDPOINT": self.endpoint, "IMAGE_SERVICE_ENDPOINT": self.endpoint})

    def stop_daemon(self):
        """Ends the daemon and whatever pods there still are after a failure: they outlive it by design."""
        if self.daemon is None:
            return
        with contextlib.suppress(Failed):
            if self.daemon.poll() is not None and any((self.work / "state").glob("pods/*")):
                self.launch()
            self.crictl("rmp", "--all", "--force")
        if self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                self.daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        self.remove_network()

    def remove_network(self):
        """Bridge and firewall table stay for the next pod, and here there is none."""
        for command in (["ip", "link", "delete", self.name], ["nft", "delete", "table", "inet", self.name]):
            # Without a pod they were never made.
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)

    def last_words(self):
        if self.log.exists():
            lines = self.log.read_text(errors="replace").splitlines()
            say("\nThe last lines of the daemon's log:")
            for line in lines[-15:]:
                say(f"    {line}")

    def close(self):
        self.undo.close()
        for left in processes.orphans(patience=1):
            say(f"ended {left}")


class Pod:
    def __init__(self, pod, container):
        self.id, self.container = pod, container


def busybox_image():
    """An image of one layer: busybox under all its names, and a page that it serves."""
    tree = Tree()
    busybox = Path("/bin/busybox").read_bytes()
    tree.file("bin/busybox", busybox, 0o755)
    for applet in call(["/bin/busybox", "--list"]).split():
        if applet != "busybox":
            tree.symlink(f"bin/{applet}", "busybox")
    tree.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    tree.file("etc/group", "root:x:0:\n")
    tree.file("www/index.html", PAGE)
    tree.directory("root", 0o700)
    tree.directory("tmp", 0o1777)
    layer = tree.tar()
    script = 'echo "$(hostname) is up: $(cat /www/index.html)"; exec httpd -f -p 80 -h /www'
    config = {"Cmd": ["sh", "-c", script], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}}
    return oci.Image([oci.Layer(compressed(layer), oci.digest(layer), "gzip")], config, debian.architecture(), "oci")


def free_subnet():
    """An address range that no route of this machine touches; demos side by side begin to look at different places."""
    routes = json.loads(call(["ip", "-json", "-4", "route", "show", "table", "all"]))
    taken = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in routes
        if route["dst"] != "default" and route.get("type") not in ("broadcast", "multicast")
    ]
    for number in range(256):
        subnet = ipaddress.ip_network(f"10.87.{(os.getpid() + number) % 256}.0/24")
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise Failed("this machine has routes to all of 10.87.0.0/16: no range is free for the demo's pod")


def fetch(address):
    """The page; the server may need a moment before it listens."""
    until = time.monotonic() + READY_WITHIN
    # Settings for proxies are not meant for pods.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with opener.open(f"http://{address}/", timeout=5) as answer:
                return answer.read().decode()
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
        except OSError as error:
            if time.monotonic() > until or not isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                raise Failed(f"http://{address}/ does not answer: {error}") from error
        time.sleep(0.02)


def call(command, environment=None, quiet=True):
    """Runs a command and gives its output; with `quiet=False` its messages appear as they come."""
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
    )
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise Failed(f"{words}\nended with status {done.returncode}\n{(done.stderr or '').strip()}".strip())
    return done.stdout


def narrow(table):
    """A table without the space that crictl leaves for the longest names."""
    rows = [re.split(r" {2,}", line.rstrip()) for line in table.splitlines()]
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def shown(path):
    """A path as it is typed here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


if __name__ == "__main__":
    try:
        main()
    except (Failed, kit.Failed, OSError) as error:
        say(f"\n{coloured('The demo failed:', 'red')} {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("\nStopped; nothing of it is left.")
        sys.exit(130)
