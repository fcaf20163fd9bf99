"""The images that critest asks for, made from Debian packages; what each must hold is said where it is made."""

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from . import BUILD, Failed, debian, oci, registry, say
from .tree import Tree, compressed

# The names under which the images are pulled; all are served by one local registry.
HOSTS = ("registry.k8s.io", "gcr.io", "k8s.gcr.io", "tripod.invalid")

_PACKAGES = (
    "base-passwd", "busybox", "catatonit", "coreutils", "libc6", "libcrypt1", "libpcre2-8-0", "libselinux1",
    "libssl3", "nginx", "toybox", "util-linux", "zlib1g",
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STAGING = "k8s-staging-cri-tools"
_NGINX_CONFIG = """worker_processes 1;
pid /var/run/nginx.pid;
events {}
http {
    access_log off;
    server {
        listen PORT;
        root /usr/share/nginx/html;
    }
}
"""


def ensure():
    """Makes the images unless they are there; gives the storage folder of a registry that holds them."""
    storage = BUILD / "images" / _key()
    storage.parent.mkdir(parents=True, exist_ok=True)
    with open(storage.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not storage.exists():
            for old in storage.parent.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            _make(storage)
    return storage


def _key():
    """The images change when a file that makes them does."""
    digest = hashlib.sha256()
    for name in ("images.py", "tree.py", "oci.py", "debian.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


def _make(storage):
    say("making the fixture images from Debian packages")
    started = time.monotonic()
    fixtures = Fixtures(debian.fetch(_PACKAGES), debian.architecture())
    with tempfile.TemporaryDirectory(dir=storage.parent, prefix="new-") as work:
        root = Path(work) / "storage"
        root.mkdir()
        with registry.serve(root, work) as port:
            count = fixtures.push(oci.Pusher(port))
        root.rename(storage)
    say(f"made {count} images in {time.monotonic() - started:.0f} s")


class Fixtures:
    def __init__(self, packages, architecture):
        self._packages = packages
        self._architecture = architecture
        self._base = self._layer(self._base_tree())

    def push(self, pusher):
        """Pushes all images; gives how many names there are."""
        images = self._images()
        for repository, tags, image in images:
            for listed in image if isinstance(image, list) else [image]:
                pusher.image(repository, listed)
            media_type, body = oci.index(image, image[0].format) if isinstance(image, list) else image.manifest()
            for tag in tags:
                pusher.manifest(repository, tag, media_type, body)
        return sum(len(tags) for _, tags, _ in images)

    def _images(self):
        """(repository, tags, image or the images of an index); every name gets an image of its own."""
        suite = [
            ("e2e-test-images/busybox", ["1.29-2"], self._listed(self._busybox("docker"))),
            ("e2e-test-images/nginx", ["1.14-2"], self._listed(self._nginx(80, "oci"))),
            ("e2e-test-images/httpd", ["2.4.39-4"], self._listed(self._httpd())),
            ("e2e-test-images/nonewprivs", ["1.3"], self._listed(self._nonewprivs())),
            (f"{_STAGING}/hostnet-nginx-{self._architecture}", ["latest"], self._nginx(12003, "docker")),
            (f"{_STAGING}/test-image-predefined-group", ["latest"], self._predefined_group()),
            # One pause image under two hosts: its id may not be that of the peer's own (pinned) sandbox image.
            ("pause", ["3.9"], self._listed(self._pause("pause-3.9"))),
            ("peer/pause", ["1"], self._pause("peer")),
        ]
        users = {
            "uid": "1002", "username": "www-data", "uid-group": "1003:1004", "username-group": "www-data:1004",
        }
        for name, user in users.items():
            suite.append((f"{_STAGING}/test-image-user-{name}", ["latest"], self._busybox("docker", User=user)))
        for name, tag in (("latest", "latest"), ("tag", "test"), ("tag", "all"), ("2", "latest")):
            suite.append((f"{_STAGING}/test-image-{name}", [tag], self._marked(f"{name}:{tag}", "docker")))
        for name, compression in (("1", "gzip"), ("3", "tar")):
            suite.append((f"{_STAGING}/test-image-{name}", ["latest"], self._marked(name, "oci", compression)))
        suite.append((f"{_STAGING}/test-image-tags", ["1", "2", "3"], self._marked("tags", "oci")))
        return suite

    def _busybox(self, format, layers=(), **config):
        return oci.Image(
            [self._base, *layers], {"Env": [_PATH], "Cmd": ["sh"], **config}, self._architecture, format
        )

    def _marked(self, name, format, compression="gzip"):
        """An image that no other one equals."""
        tree = Tree()
        tree.file("etc/fixture", f"{name}\n")
        return self._busybox(format, [self._layer(tree, compression)])

    def _listed(self, image):
        """An index that names another architecture first: a runtime that takes the first entry is wrong."""
        other = "arm64" if self._architecture != "arm64" else "amd64"
        tree = Tree()
        tree.file("wrong-architecture", f"{other}\n")
        decoy = oci.Image([self._layer(tree)], {"Cmd": ["/wrong-architecture"]}, other, image.format)
        return [decoy, image]

    def _base_tree(self):
        """busybox, on whose messages the suite relies, with the two programs that Debian's lacks: pgrep and ipcs."""
        packages = self._packages
        tree = Tree()
        tree.usr_merge()
        tree.package(packages["libc6"], "usr/lib*/ld-linux-*", *_libraries("ld-linux-*", "libc.so.6", "libm.so.6"))
        tree.package(packages["libc6"], *_libraries("libresolv.so.2", "libnss_files.so.2"))
        tree.package(packages["libcrypt1"], *_libraries("libcrypt.so.1*"))
        tree.package(packages["busybox"], "usr/bin/busybox")
        tree.package(packages["toybox"], "usr/bin/toybox")
        tree.package(packages["util-linux"], "usr/bin/ipcs")
        # Hard links: the suite masks /bin/ls, which must not take the other applets along.
        for applet in _applets(tree.entries["usr/bin/busybox"].data):
            tree.link(f"usr/bin/{applet}", "usr/bin/busybox")
        tree.link("usr/bin/pgrep", "usr/bin/toybox")
        tree.package(packages["base-passwd"], "usr/share/base-passwd/*.master")
        for name in ("passwd", "group"):
            tree.entries[f"etc/{name}"] = tree.entries.pop(f"usr/share/base-passwd/{name}.master")
        for path in ("dev", "etc", "home", "proc", "root", "run", "sys", "var"):
            tree.directory(path, 0o700 if path == "root" else 0o755)
        tree.directory("tmp", 0o1777)
        tree.symlink("var/run", "/run")
        return tree

    def _nginx(self, port, format):
        """The real nginx: the suite looks for its process title, its pid file and `pidof nginx`."""
        packages = self._packages
        tree = Tree()
        tree.package(packages["nginx"], "usr/sbin/nginx")
        tree.package(packages["libpcre2-8-0"], *_libraries("libpcre2-8.so.0*"))
        tree.package(packages["libssl3"], *_libraries("libssl.so.3", "libcrypto.so.3"))
        tree.package(packages["zlib1g"], *_libraries("libz.so.1*"))
        for path in ("var/lib/nginx", "var/log/nginx"):
            tree.directory(path)
        tree.file("usr/share/nginx/html/index.html", "nginx\n")
        settings = Tree()
        settings.file("etc/nginx/nginx.conf", "user www-data;\n" + _NGINX_CONFIG.replace("PORT", str(port)))
        command = ["nginx", "-e", "/dev/stderr", "-g", "daemon off;"]
        layers = [self._layer(tree), self._layer(settings)]
        return self._busybox(format, layers, Cmd=command, ExposedPorts={f"{port}/tcp": {}}, StopSignal="SIGQUIT")

    def _httpd(self):
        """busybox's httpd; its log must hold the word "httpd"."""
        tree = Tree()
        tree.file("srv/index.html", "httpd\n")
        command = ["sh", "-c", "echo httpd: serving /srv; exec httpd -f -p 80 -h /srv"]
        return self._busybox("oci", [self._layer(tree)], Cmd=command, ExposedPorts={"80/tcp": {}})

    def _nonewprivs(self):
        """A program with the setuid bit that shows which user it runs as: coreutils' id."""
        packages = self._packages
        tree = Tree()
        tree.package(packages["coreutils"], "usr/bin/id")
        tree.package(packages["libselinux1"], *_libraries("libselinux.so.1"))
        tree.package(packages["libpcre2-8-0"], *_libraries("libpcre2-8.so.0*"))
        setuid = tree.entries.pop("usr/bin/id")
        setuid.mode = 0o4755
        tree.entries["usr/bin/setuid-id"] = setuid
        command = ["sh", "-c", 'echo "Effective uid: $(setuid-id -u)"']
        return self._busybox("oci", [self._layer(tree)], Cmd=command)

    def _predefined_group(self):
        """User 1000, who is a member of group 50000 in the image's own /etc/group."""
        tree = Tree()
        passwd = self._base_file("etc/passwd") + b"default-user:x:1000:1000::/home/default-user:/bin/sh\n"
        groups = b"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n"
        tree.file("etc/passwd", passwd)
        tree.file("etc/group", self._base_file("etc/group") + groups)
        return self._busybox("docker", [self._layer(tree)], User="1000")

    def _pause(self, name):
        """A small static program that waits until it is told to end."""
        tree = Tree()
        tree.package(self._packages["catatonit"], "usr/bin/catatonit")
        tree.entries["pause"] = tree.entries.pop("usr/bin/catatonit")
        config = {"Env": [_PATH], "Entrypoint": ["/pause", "-P"], "Labels": {"fixture": name}}
        return oci.Image([self._layer(tree)], config, self._architecture, "docker")

    def _base_file(self, path):
        return self._base_tree().entries[path].data

    @staticmethod
    def _layer(tree, compression="gzip"):
        tar = tree.tar()
        return oci.Layer(compressed(tar) if compression == "gzip" else tar, oci.digest(tar), compression)


def _libraries(*names):
    return [f"usr/lib/*/{name}" for name in names]


def _applets(busybox):
    """What this busybox can do, by its own word; not the names that other programs of the image have."""
    with tempfile.TemporaryDirectory() as work:
        program = Path(work) / "busybox"
        program.write_bytes(busybox)
        program.chmod(0o755)
        done = subprocess.run([program, "--list"], check=True, capture_output=True, text=True)
    applets = [name for name in done.stdout.split() if name not in ("busybox", "toybox", "ipcs", "pgrep")]
    if "ash" not in applets:
        raise Failed("Debian's busybox has no shell: the fixture images cannot be made with it")
    return applets
