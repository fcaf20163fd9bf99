"""What kind of host this is, as far as specs fare differently for it; lists of expected results name these kinds."""

import os
import re
from pathlib import Path

# Of each pair a host is one.
KINDS = (("cgroup-v1", "cgroup-v2"), ("no-apparmor", "apparmor"), ("before-linux-5.19", "linux-5.19"))


def kinds():
    """The kinds of this host."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    apparmor = enabled.exists() and enabled.read_text().strip() == "Y"
    version = tuple(int(number) for number in re.match(r"(\d+)\.(\d+)", os.uname().release).groups())
    return {KINDS[0][unified], KINDS[1][apparmor], KINDS[2][version >= (5, 19)]}


def named(text):
    """The kinds in `KIND,KIND`; what it leaves open is as it is here."""
    names = set(text.split(","))
    unknown = names - {name for pair in KINDS for name in pair}
    if unknown or any(names >= set(pair) for pair in KINDS):
        raise ValueError(f"{text} names no host: it is one of each of {', '.join(' or '.join(pair) for pair in KINDS)}")
    here = kinds()
    return {next((name for name in pair if name in names), (here & set(pair)).pop()) for pair in KINDS}
