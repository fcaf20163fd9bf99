"""Images as bytes: configs, manifests and indexes in Docker's and OCI's formats, and how they are pushed."""

import hashlib
import http.client
import json
from dataclasses import dataclass, field

_CREATED = "2024-01-01T00:00:00Z"

_OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "tar": "application/vnd.oci.image.layer.v1.tar",
}
_DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "tar": "application/vnd.docker.image.rootfs.diff.tar",
}
FORMATS = {"oci": _OCI, "docker": _DOCKER}


@dataclass
class Layer:
    """A layer as it is stored (`blob`), with the digest of its tar."""

    blob: bytes
    diff_id: str
    compression: str  # "gzip", "zstd" (OCI only) or "tar"


@dataclass
class Image:
    """One image for one platform; `config` holds the Docker-style keys Env, Cmd, User and so on."""

    layers: list
    config: dict
    architecture: str
    format: str = "docker"
    extra: dict = field(default_factory=dict)

    def blobs(self):
        """Everything but the manifest, by digest."""
        config = self._config()
        return {digest(blob): blob for blob in [config, *(layer.blob for layer in self.layers)]}

    def manifest(self):
        names = FORMATS[self.format]
        body = {
            "schemaVersion": 2,
            "mediaType": names["manifest"],
            "config": _descriptor(names["config"], self._config()),
            "layers": [_descriptor(names[layer.compression], layer.blob) for layer in self.layers],
        }
        return names["manifest"], _json(body)

    def _config(self):
        return _json({
            "created": _CREATED,
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": [{"created": _CREATED, "comment": "tripod test fixture"} for _ in self.layers],
            **self.extra,
        })


def index(images, format):
    """An index (Docker calls it a manifest list) over images for several platforms, in the given order."""
    entries = []
    for image in images:
        media_type, body = image.manifest()
        platform = {"architecture": image.architecture, "os": "linux"}
        entries.append({**_descriptor(media_type, body), "platform": platform})
    names = FORMATS[format]
    return names["index"], _json({"schemaVersion": 2, "mediaType": names["index"], "manifests": entries})


def digest(blob):
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


class Pusher:
    """Pushes to a registry on loopback."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def image(self, repository, image):
        """Pushes blobs and manifest, the latter under its digest."""
        for name, blob in image.blobs().items():
            self._blob(repository, name, blob)
        media_type, body = image.manifest()
        self.manifest(repository, digest(body), media_type, body)

    def manifest(self, repository, reference, media_type, body):
        self._call("PUT", f"/v2/{repository}/manifests/{reference}", 201, body, {"Content-Type": media_type})

    def _blob(self, repository, name, blob):
        if self._call("HEAD", f"/v2/{repository}/blobs/{name}", None).status == 200:
            return
        location = self._call("POST", f"/v2/{repository}/blobs/uploads/", 202).getheader("Location")
        path = location[location.index("/v2/"):]
        separator = "&" if "?" in path else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._call("PUT", f"{path}{separator}digest={name}", 201, blob, headers)

    def _call(self, method, path, expected, body=None, headers=None):
        self._connection.request(method, path, body=body, headers=headers or {})
        response = self._connection.getresponse()
        text = response.read()
        if expected is not None and response.status != expected:
            raise OSError(f"{method} {path}: the registry answered {response.status}: {text[:300]!r}")
        return response


def _descriptor(media_type, blob):
    return {"mediaType": media_type, "size": len(blob), "digest": digest(blob)}


def _json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
