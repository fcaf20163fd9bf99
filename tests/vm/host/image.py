"""The guest's root disk and kernel: Debian 13 by mmdebstrap, kept until its recipe changes, one for each kernel.

Packages come from the mirror that this machine's apt uses already. The kernel is Debian's own for clouds: it has NVMe
and ext4 built in, so that it starts without an initial RAM disk. An older one is taken from the Debian that it belongs
to; all else stays the same.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from . import BUILD, VM, Failed, say

SUITE = "trixie"
# By what --kernel calls them: the Debian that they are from. The first is the one that is taken unasked.
KERNELS = {"debian13": SUITE, "debian12": "bookworm"}
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SIZE = "3G"  # sparse: what is empty takes no place
_LIMIT = 900  # seconds, for a slow mirror
_PACKAGES = (
    # A machine that starts.
    "systemd-sysv", "udev", "dbus", "kmod", "util-linux", "e2fsprogs", "procps",
    # What is proven here.
    "apparmor", "apparmor-utils", "crun",
    # What our tests and critest's runner call.
    "btrfs-progs", "busybox-static", "ca-certificates", "containernetworking-plugins", "docker-registry", "gpg",
    "gpg-agent", "gpgv",
    "iproute2", "iptables", "nftables", "openssl", "python3", "skopeo", "sudo", "umoci", "xfsprogs",
)
# They would run at every start, in front of the tests.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "docker-registry.service", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "getty@tty1.service", "man-db.timer",
    "nftables.service", "serial-getty@ttyS0.service", "systemd-binfmt.service", "systemd-logind.service",
    "systemd-pcrlock-make-policy.service", "systemd-resolved.service", "systemd-timesyncd.service",
)
_UNPACKED_WITHOUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass
class Image:
    root: Path
    kernel: Path


def ensure(kernel):
    """Makes the image with this kernel unless the same one is there."""
    folder = BUILD / "image" / f"{kernel}-{_key()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in folder.parent.iterdir():
                if old.is_dir() and old.name.partition("-")[0] not in KERNELS.keys() - {kernel}:
                    shutil.rmtree(old)
            _make(folder, KERNELS[kernel])
    return Image(folder / "root.img", folder / "vmlinuz")


def _key():
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted((VM / "image").iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _make(folder, suite):
    say(f"making a Debian {SUITE} guest with the kernel of {suite} from packages, once")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="new-") as work:
        tree, made = Path(work) / "tree", Path(work) / "made"
        made.mkdir()
        _bootstrap(tree, suite)
        _furnish(tree)
        (kernel,) = (tree / "boot").glob("vmlinuz-*")
        shutil.copy(kernel, made / "vmlinuz")
        # No journal: a guest never outlives its disk.
        _must("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1", "-d", tree,
              made / "root.img", _SIZE)
        shutil.rmtree(tree)
        made.rename(folder)
    size = (folder / "root.img").stat().st_blocks * 512 // 1_000_000
    say(f"made the guest in {time.monotonic() - started:.0f} s: {size} MB")


def _bootstrap(tree, suite):
    mirror = _mirror()
    sources = [f"deb [signed-by={_KEYRING}] {mirror} {name} main" for name in dict.fromkeys((SUITE, suite))]
    packages = (f"linux-image-cloud-amd64/{suite}", *_PACKAGES)
    excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNPACKED_WITHOUT]
    command = [
        "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory", *excluded,
        "--aptopt=Acquire::Retries \"5\"", "--aptopt=Acquire::http::Timeout \"60\"",
        f"--include={','.join(packages)}", SUITE, tree, *sources,
    ]
    # Nobody reads an initial RAM disk.
    environment = {**os.environ, "INITRD": "No", "TMPDIR": str(tree.parent)}
    for attempt in (1, 2, 3):
        try:
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            raise Failed(f"mmdebstrap did not end within {_LIMIT} s: is the mirror slow?") from None
        if done.returncode == 0:
            return
        shutil.rmtree(tree, ignore_errors=True)
        if attempt < 3:
            say("mmdebstrap failed, which may be the mirror's mood: again")
            time.sleep(5 * attempt)
    raise Failed(f"mmdebstrap could not make a Debian {SUITE}:\n{done.stderr.strip()[-3000:]}")


def _mirror():
    """The mirror of Debian's main archive that apt uses on this machine."""
    listing = ["apt-get", "indextargets", "--format", "$(LABEL) $(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    for _ in range(2):
        lines = subprocess.run(listing, capture_output=True, text=True).stdout.splitlines()
        for label, codename, address in (line.split(" ", 2) for line in lines):
            if label == "Debian" and "-" not in codename and not codename.startswith("$"):
                return address
        # Before the first update apt does not know what its sources hold.
        subprocess.run(["apt-get", "-qq", "-o", "Acquire::Retries=5", "update"], capture_output=True)
    raise Failed("no mirror of Debian is among apt's sources; the guest is made from its packages")


def _furnish(tree):
    """What makes the guest start what is handed in, and nothing else."""
    for unit in _MASKED:
        _symlink(tree / "etc/systemd/system" / unit, "/dev/null")
    shutil.copy(VM / "image" / "tripod-vm.service", tree / "etc/systemd/system/tripod-vm.service")
    _symlink(tree / "etc/systemd/system/multi-user.target.wants/tripod-vm.service", "../tripod-vm.service")
    starter = tree / "usr/local/sbin/tripod-vm"
    shutil.copy(VM / "image" / "tripod-vm", starter)
    starter.chmod(0o755)
    (tree / "etc/hostname").write_text("guest\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost guest\n::1 localhost guest\n")
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/resolv.conf").write_text("")
    # One console line a unit is slow under emulation; the journal has them all.
    drop = tree / "etc/systemd/journald.conf.d"
    drop.mkdir(parents=True, exist_ok=True)
    (drop / "tripod-vm.conf").write_text("[Journal]\nStorage=volatile\nRateLimitBurst=0\n")
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(tree / folder, ignore_errors=True)
    # Compiling the profiles of programs that never run here takes longer than the rest of the start.
    for profile in (tree / "etc/apparmor.d").iterdir():
        if profile.is_file():
            profile.unlink()
    # Nothing is newer than what systemd has built from it, like the cache of ld.so.
    for stamp in ("etc/.updated", "var/.updated"):
        (tree / stamp).write_text("")


def _symlink(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _must(*command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
