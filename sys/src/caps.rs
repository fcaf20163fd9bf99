//! Capability sets of the calling thread, by the kernel's numbers (`CAP_CHOWN` is 0).

use std::io;

/// Capability sets as bit masks; bit n is capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What counts in permission checks.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives an execve together with the file's own set.
    pub inheritable: u64,
}

const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn prctl(option: libc::c_int, argument: u64, second: u64) -> io::Result<libc::c_int> {
    // SAFETY: only options that take plain numbers are passed here; no memory is involved.
    let result = unsafe { libc::prctl(option, argument, second, 0, 0) };
    check(result.into()).map(|()| result)
}

/// The calling thread's sets.
pub fn get() -> io::Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 writes two elements, which is what `data` has.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    Ok(Sets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// Replaces the calling thread's sets.
pub fn set(sets: Sets) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two elements, which is what `data` has.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) })
}

/// The calling thread's bounding set. Its highest bit is at most the kernel's last capability.
pub fn bounding() -> u64 {
    (0..64)
        .take_while(|n| prctl(libc::PR_CAPBSET_READ, *n, 0).is_ok())
        .filter(|n| prctl(libc::PR_CAPBSET_READ, *n, 0).is_ok_and(|held| held == 1))
        .fold(0, |mask, n| mask | 1 << n)
}

/// Drops every capability that is not in `keep` from the bounding set.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for n in 0..64 {
        match prctl(libc::PR_CAPBSET_READ, n, 0) {
            Ok(1) if keep & (1 << n) == 0 => prctl(libc::PR_CAPBSET_DROP, n, 0).map(drop)?,
            Ok(_) => {}
            // Past the kernel's last capability.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Replaces the ambient set. What is not both permitted and inheritable is refused by the kernel with `EPERM`.
pub fn set_ambient(ambient: u64) -> io::Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for n in (0..64).filter(|n| ambient & (1 << n) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, n)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
