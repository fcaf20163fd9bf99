"""Drives a streaming URL of the Container Runtime Interface with the stream client of Python's `kubernetes` package.

    streamclient.py session [--protocol NAME] [--stdin] [--size COLUMNSxROWS] URL
    streamclient.py forward --port N [--port N ...] [--want BYTES] URL

A session passes standard input on, as one that cannot be half-closed unless the protocol is v5. Forwarding sends
standard input to each port and reads what comes back, to the end or as much as is wanted. Either ends with one line of
JSON. Nothing of the library is changed.
"""

import argparse
import contextlib
import hashlib
import json
import sys
import time

from kubernetes.client import Configuration
from kubernetes.stream import ws_client

CHUNK = 1 << 15
SHOWN = 1 << 12
LIMIT = 60


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("session")
    command.set_defaults(work=session)
    command.add_argument("--protocol", help="offer only this one")
    command.add_argument("--stdin", action="store_true")
    command.add_argument("--size", help="of the terminal")
    command.add_argument("url")
    command = commands.add_parser("forward")
    command.set_defaults(work=forward)
    command.add_argument("--port", type=int, action="append", required=True)
    command.add_argument("--want", type=int, help="end each connection after so many bytes")
    command.add_argument("url")
    arguments = parser.parse_args()
    print(json.dumps(arguments.work(arguments)))


def configuration():
    made = Configuration()
    made.verify_ssl = False
    return made


class Output:
    """Counts, hashes, and keeps the beginning."""

    def __init__(self):
        self.bytes, self.hash, self.text = 0, hashlib.sha256(), b""

    def add(self, data):
        self.bytes += len(data)
        self.hash.update(data)
        self.text = (self.text + data)[:SHOWN]

    def shown(self):
        text = self.text.decode(errors="replace")
        return {"bytes": self.bytes, "sha256": self.hash.hexdigest(), "text": text}


def session(arguments):
    headers = {"sec-websocket-protocol": arguments.protocol} if arguments.protocol else None
    url = ws_client.get_websocket_url(arguments.url)
    client = ws_client.WSClient(configuration(), url, headers, capture_all=False, binary=True)
    outputs = {ws_client.STDOUT_CHANNEL: Output(), ws_client.STDERR_CHANNEL: Output()}
    if arguments.size:
        width, height = map(int, arguments.size.split("x"))
        client.write_channel(ws_client.RESIZE_CHANNEL, json.dumps({"Width": width, "Height": height}))
    if arguments.stdin:
        while data := sys.stdin.buffer.read(CHUNK):
            client.write_stdin(data)
            drain(client, outputs, 0)
        client.close_channel(ws_client.STDIN_CHANNEL)
    until = time.monotonic() + LIMIT
    while client.is_open():
        if time.monotonic() > until:
            raise SystemExit(f"the session did not end within {LIMIT} s")
        drain(client, outputs, 1)
    drain(client, outputs, 0)
    return {
        "code": client.returncode, "protocol": client.subprotocol,
        "stdout": outputs[ws_client.STDOUT_CHANNEL].shown(), "stderr": outputs[ws_client.STDERR_CHANNEL].shown(),
    }


def drain(client, outputs, patience):
    client.update(timeout=patience)
    for channel, output in outputs.items():
        output.add(client.read_channel(channel))


def forward(arguments):
    wanted = [("ports", str(port)) for port in arguments.port]
    connection = ws_client.portforward_call(configuration(), "GET", arguments.url, query_params=wanted)
    data = sys.stdin.buffer.read()
    answers = {}
    for port in arguments.port:
        socket, output = connection.socket(port), Output()
        socket.settimeout(LIMIT)
        with contextlib.suppress(BrokenPipeError):
            # Where nobody listens there is an error to be read instead.
            socket.sendall(data)
        while arguments.want is None or output.bytes < arguments.want:
            part = socket.recv(CHUNK)
            if not part:
                break
            output.add(part)
        answers[str(port)] = {**output.shown(), "error": connection.error(port)}
    connection.close()
    return answers


if __name__ == "__main__":
    main()
