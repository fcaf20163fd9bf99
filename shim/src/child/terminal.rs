//! A pseudo-terminal from the container's own devpts, so that its name in the container is right.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};
use tripod_shim_protocol::Failure;
use tripod_sys::{inroot, mount};

use super::place;
use crate::{fault::Blame, start::Reporter};

const MULTIPLEXER: &str = "/dev/pts/ptmx";
const CONSOLE: &str = "/dev/console";

/// Allocates a terminal, hands its master to the shim and returns its other end three times.
/// With `console`, it becomes `/dev/console` too.
pub(super) fn open(root: BorrowedFd<'_>, console: bool, reporter: &Reporter) -> Result<[OwnedFd; 3], Failure> {
    let slave = allocate(root, reporter).plan(|| format!("allocate a terminal from {MULTIPLEXER} in the container"))?;
    if console {
        mount_console(root, &slave).plan(|| format!("mount the terminal on {CONSOLE}"))?;
    }
    let copy = || slave.try_clone().internal(|| "duplicate the terminal".into());
    Ok([copy()?, copy()?, slave])
}

/// Where `/dev/console` is a link, whoever brought that `/dev` has a console of his own; it is not followed, as it could
/// lead to a file that is to be masked or protected later (CVE-2025-52565, CVE-2026-88264).
fn mount_console(root: BorrowedFd<'_>, slave: &OwnedFd) -> io::Result<()> {
    let console = Path::new(CONSOLE);
    match inroot::touch_plain(root, console) {
        Ok(place) => place::attach(mount::clone_fd(slave, false)?, place, console),
        Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The side of a terminal that its container has.
pub(crate) fn other_end(master: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(ioctl_tiocgptpeer(master, flags)?)
}

fn allocate(root: BorrowedFd<'_>, reporter: &Reporter) -> io::Result<OwnedFd> {
    let master = inroot::open(root, Path::new(MULTIPLEXER), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    place::expect_multiplexer(&master)?;
    unlockpt(&master)?;
    let slave = other_end(&master)?;
    reporter.terminal(&master)?;
    Ok(slave)
}
