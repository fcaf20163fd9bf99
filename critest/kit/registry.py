"""Debian's docker-registry on loopback over a folder of ours."""

import contextlib
import http.client
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import Failed, programs

_CONFIG = """version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  cache: {{blobdescriptor: inmemory}}
  maintenance: {{uploadpurging: {{enabled: false}}, readonly: {{enabled: {readonly}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


def install():
    programs.install({"docker-registry": "docker-registry"})


@contextlib.contextmanager
def serve(root, work, readonly=False):
    """Runs a registry over `root`, with its config and log in `work`; gives its port."""
    process, port = start(root, work, readonly)
    try:
        yield port
    finally:
        stop(process)


def start(root, work, readonly=False):
    """Starts a registry and waits until it answers; gives (process, port)."""
    install()
    log = Path(work) / "registry.log"
    # Another program may take the free port before the registry does.
    for _ in range(5):
        port = _free_port()
        config = Path(work) / "registry.yml"
        config.write_text(_CONFIG.format(root=root, port=port, readonly=str(readonly).lower()))
        with open(log, "w") as output:
            program = shutil.which("docker-registry")
            process = subprocess.Popen(
                [program, "serve", config], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        if _answers(process, port):
            return process, port
        stop(process)
    raise Failed(f"docker-registry did not start:\n{log.read_text()[-2000:]}")


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def hosts(folder, names, port):
    """Writes a certs.d folder whose hosts.toml files send every name to the registry."""
    for name in names:
        host = Path(folder) / name
        host.mkdir(parents=True, exist_ok=True)
        url = f"http://127.0.0.1:{port}"
        # `server` is what is asked when no mirror has the image; the real hosts must never be.
        (host / "hosts.toml").write_text(
            f'server = "{url}"\n\n[host."{url}"]\ncapabilities = ["pull", "resolve"]\n'
        )


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _answers(process, port):
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status == 200
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    return False
