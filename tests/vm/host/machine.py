"""QEMU: one start of the guest, what it says while it runs, and its end by process ID whatever happens."""

import ctypes
import os
import signal
import subprocess
import sys
import time

from . import Failed, clock, say

_PROGRAM = "qemu-system-x86_64"
_PROBE = 20  # seconds
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TCG = "tcg,thread=multi,tb-size=1024"
_KERNEL = (
    "root=/dev/nvme0n1 rw console=ttyS0 quiet loglevel=4 panic=-1 systemd.show_status=0 nokaslr "
    # An emulator has none of the flaws that these would cover, and pays dearly for covering them.
    "mitigations=off "
    "tsc=reliable clocksource=tsc tsc_early_khz={kilohertz} nowatchdog no_timer_check random.trust_cpu=on audit=0 "
    "systemd.unified_cgroup_hierarchy=1"
)
MARKER = "tripod-vm: ended with "


class Machine:
    def __init__(self, image, work, memory):
        self._image, self._work, self._memory = image, work, memory
        self.console, self.output, self.end = work / "console.log", work / "output.log", work / "end"
        self.disks = {name: work / f"{name}.img" for name in ("hand-in", "hand-out", "work")}

    def run(self, limit):
        """Shows what the guest says until it is off; gives its command's exit status."""
        started = time.monotonic()
        accelerator = "kvm" if self._kvm_works() else _TCG
        with open(self._work / "qemu.log", "w") as log:
            process = subprocess.Popen(
                self._command(accelerator), env={**os.environ, "TMPDIR": str(self._work)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_parent,
            )
        try:
            self._follow(process, started + limit)
        finally:
            process.kill()
            process.wait()
        return self._status(started, limit)

    def _kvm_works(self):
        """Whether the guest's kernel gets as far as missing its root disk; there are hosts whose KVM starts nothing."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return False
        console = self._work / "kvm.log"
        command = [
            _PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc",
            "-accel", "kvm", "-cpu", "host", "-m", "512M", "-serial", f"file:{console}",
            "-kernel", str(self._image.kernel), "-append", "console=ttyS0 panic=-1",
        ]
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE, check=False,
                           preexec_fn=_die_with_parent)
        except subprocess.TimeoutExpired:
            return False
        return console.exists() and "Unable to mount root" in console.read_text(errors="replace")

    def _follow(self, process, until):
        shown = 0
        while True:
            ended = process.poll() is not None
            if self.output.exists():
                with open(self.output, "rb") as file:
                    file.seek(shown)
                    text = file.read()
                    shown += len(text)
                    sys.stdout.buffer.write(text)
                    sys.stdout.buffer.flush()
            if ended or time.monotonic() > until:
                return
            time.sleep(0.1)

    def _status(self, started, limit):
        said = self.end.read_text(errors="replace") if self.end.exists() else ""
        took = time.monotonic() - started
        if MARKER in said:
            say(f"the guest was there for {took:.0f} s")
            return int(said.rpartition(MARKER)[2].split()[0])
        why = f"did not end within {limit} s" if took > limit else "went away without saying how its command ended"
        words = self._last_words()
        raise Failed(f"the guest {why}; the end of its console and of what QEMU said:\n{words}")

    def _last_words(self):
        files = (self.console, self._work / "qemu.log")
        texts = [file.read_text(errors="replace").splitlines()[-30:] for file in files if file.exists()]
        return "\n".join(f"    | {line}" for lines in texts for line in lines)

    def _command(self, accelerator):
        command = [
            _PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "pc",
            "-accel", accelerator, "-cpu", "host" if accelerator == "kvm" else "max,la57=off",
            "-smp", "2", "-m", self._memory, "-kernel", str(self._image.kernel), 
            "-append", _KERNEL.format(kilohertz=clock.kilohertz()),
            # One NVMe disk: with a second one their names would be a matter of luck.
            "-drive", f"id=root,if=none,format=raw,snapshot=on,cache=unsafe,file={self._image.root}",
            "-device", "nvme,drive=root,serial=root",
            "-serial", f"file:{self.console}",
            "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci",
        ]
        for name, path in self.disks.items():
            command += ["-drive", f"id={name},if=none,format=raw,cache=unsafe,file={path}"]
            command += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
        # Files take all that the guest writes at any time; nothing is ever sent to it.
        for name, path in (("output", self.output), ("end", self.end)):
            command += ["-chardev", f"file,id={name},path={path}"]
            command += ["-device", f"virtserialport,chardev={name},name={name}"]
        return command


def _die_with_parent():
    # Not of its own group: what a terminal sends goes to the runner, which ends the guest.
    os.setpgrp()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
