//! A pseudo-terminal from the container's own devpts, so that its name in the container is right.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};
use tripod_shim_protocol::Failure;
use tripod_sys::{inroot, mount};

use crate::{fault::Blame, start::Reporter};

const MULTIPLEXER: &str = "/dev/pts/ptmx";
const CONSOLE: &str = "/dev/console";

/// Allocates a terminal, hands its master to the shim and returns its other end three times.
/// With `console`, it becomes `/dev/console` too.
pub(super) fn open(root: BorrowedFd<'_>, console: bool, reporter: &Reporter) -> Result<[OwnedFd; 3], Failure> {
    let slave = allocate(root, reporter).plan(|| format!("allocate a terminal from {MULTIPLEXER} in the container"))?;
    if console {
        let place = inroot::touch(root, Path::new(CONSOLE));
        place
            .and_then(|place| mount::attach(mount::clone_fd(&slave, false)?, place))
            .plan(|| format!("mount the terminal on {CONSOLE}"))?;
    }
    let copy = || slave.try_clone().internal(|| "duplicate the terminal".into());
    Ok([copy()?, copy()?, slave])
}

/// The side of a terminal that its container has.
pub(crate) fn other_end(master: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    Ok(ioctl_tiocgptpeer(master, flags)?)
}

fn allocate(root: BorrowedFd<'_>, reporter: &Reporter) -> io::Result<OwnedFd> {
    let master = inroot::open(root, Path::new(MULTIPLEXER), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())?;
    unlockpt(&master)?;
    let slave = other_end(&master)?;
    reporter.terminal(&master)?;
    Ok(slave)
}
