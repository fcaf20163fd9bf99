//! The root of a mount namespace: making a mount the root, and namespaces that hold next to nothing.
//!
//! A container's mount namespace could start as a copy of the host's. On a node with a hundred pods that is a thousand
//! mounts, to be copied and taken away again at every start, and while it lasts none of them can be unmounted for good.
//! Here it starts as a copy of an *empty* namespace, which is made once; mounts of the host are brought along detached.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, open},
    mount::{UnmountFlags, unmount},
    process::{chdir, fchdir, pivot_root},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::{
    fork,
    mount::{self, Attributes, Propagation, Value},
    namespace::unshare,
};

/// A mount namespace with nothing in it but an empty, read-only root directory.
///
/// The caller stays where it is. In a process with several threads the work is done by one of its own, as a thread that
/// leaves the others' mount namespace no longer shares its working directory with them.
pub fn empty_namespace() -> io::Result<OwnedFd> {
    let make = || {
        let read_only = Attributes { read_only: true, nosuid: true, nodev: true, noexec: true };
        let options = [("size", Value::String("4k")), ("mode", Value::String("755"))];
        let empty = mount::new_filesystem("tmpfs", &options, read_only)?;
        namespace_of(&empty)
    };
    if fork::is_single_threaded()? {
        return make();
    }
    let thread = std::thread::Builder::new().name("empty-namespace".into()).spawn(make)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes the namespace has panicked")))
}

/// A mount namespace that has the detached mount `root` as its root and nothing else. The calling thread stays where it
/// is, but from now on has its own working directory.
pub fn namespace_of(root: impl AsFd) -> io::Result<OwnedFd> {
    let home = own()?;
    unshare(UnshareFlags::NEWNS)?;
    let made = empty_but_for(root.as_fd());
    // Whatever happened: the host's mounts are where volumes are found.
    enter(&home)?;
    made
}

/// Does something on a thread of its own, in a mount namespace that begins as a copy of the empty one `empty` and has the
/// detached mount `root` as its root, and nothing else. The namespace goes with the thread.
pub fn apart<T: Send>(
    empty: impl AsFd + Sync,
    root: impl AsFd + Sync,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let there = || {
        // Who shares a working directory with others cannot change its namespace.
        unshare(UnshareFlags::FS)?;
        leave_for(&empty, &root)?;
        replace(&root)?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("apart".into()).spawn_scoped(scope, there)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in a mount namespace of its own has panicked")))
    })
}

/// Moves the calling thread, which shares its working directory with no other, into a mount namespace.
pub fn enter(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?)
}

/// The calling thread's mount namespace.
pub fn own() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/mnt")?.into())
}

/// Puts the calling thread into a copy of an empty namespace and attaches `root` there. [`replace`] comes next.
pub fn leave_for(empty: impl AsFd, root: impl AsFd) -> io::Result<()> {
    enter(empty)?;
    begin_with(root)
}

/// Puts the calling thread, which is in an empty namespace, into a copy of it and attaches `root` there. The copy belongs
/// to the user namespace that the thread is in. [`replace`] comes next.
pub fn begin_with(root: impl AsFd) -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount::attach(root, directory("/")?)
}

/// Puts the calling thread into a copy of its mount namespace, of which the original sees nothing, and attaches `mounts` on
/// the directory `place` there, one upon the other. [`replace`] with the last of them comes next, and takes all else away.
pub fn begin_in_copy<'a>(mounts: impl IntoIterator<Item = &'a OwnedFd>, place: &Path) -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount::set(directory("/")?, Attributes::default(), Some(Propagation::Slave), true)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    mounts.into_iter().try_for_each(|mount| mount::attach(mount, open(place, flags, Mode::empty())?))
}

/// A mount namespace that starts as a copy of `empty` and has nothing but a procfs of the caller's, in `/proc`.
///
/// Without one in sight the kernel lets nobody make a new procfs who is root in a user namespace only: what the host
/// has masked in its own might show up again. The process, of one thread, stays where it is.
pub fn namespace_with_proc(empty: impl AsFd) -> io::Result<OwnedFd> {
    let hidden = Attributes { read_only: false, nosuid: true, nodev: true, noexec: true };
    let proc = mount::new_filesystem("proc", &[], hidden)?;
    let options = [("size", Value::String("4k")), ("mode", Value::String("755"))];
    let root = mount::new_filesystem("tmpfs", &options, hidden)?;
    rustix::fs::mkdirat(&root, "proc", Mode::from_raw_mode(0o555))?;
    let home = own()?;
    enter(empty)?;
    let fill = || {
        begin_with(&root)?;
        mount::attach(proc, rustix::fs::openat(&root, "proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)?;
        replace(&root)?;
        own()
    };
    let made = fill();
    enter(&home)?;
    made
}

/// Makes the attached mount `root` the root directory and takes the old one away with all that is mounted below.
pub fn replace(root: impl AsFd) -> io::Result<()> {
    fchdir(root)?;
    // The old root comes to lie on top of the new one and is taken away there: no directory is needed for it.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}

/// In a new mount namespace: drops all but `root`.
fn empty_but_for(root: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let namespace = own()?;
    // What is taken away here must not be taken away on the host.
    mount::set(directory("/")?, Attributes::default(), Some(Propagation::Slave), true)?;
    mount::attach(root, directory("/")?)?;
    replace(root)?;
    Ok(namespace)
}

fn directory(path: &str) -> io::Result<OwnedFd> {
    Ok(open(Path::new(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_apart_sees_its_root_only_and_leaves_nothing() {
        assert!(rustix::process::geteuid().is_root(), "this test makes namespaces and needs root");
        let empty = empty_namespace().unwrap();
        for round in 0..3 {
            let root = mount::new_filesystem("tmpfs", &[], Attributes::default()).unwrap();
            let before = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let names = apart(&empty, &root, || {
                std::fs::create_dir("/only")?;
                std::fs::read_dir(".")?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
            });
            assert_eq!(names.unwrap(), ["only"], "round {round}");
            assert_eq!(std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), before);
            assert!(rustix::fs::statat(&root, "only", rustix::fs::AtFlags::empty()).is_ok());
        }
        assert!(apart(&empty, &empty, || Ok(())).is_err(), "a namespace is no mount");
    }

    #[test]
    fn an_empty_namespace_shows_nothing_and_the_caller_stays_where_it_is() {
        assert!(rustix::process::geteuid().is_root(), "this test makes namespaces and needs root");
        let before = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let empty = empty_namespace().unwrap();
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/mnt").unwrap(), before);
        let inside = std::thread::spawn(move || {
            unshare(UnshareFlags::NEWNS)?;
            enter(&empty)?;
            let names = std::fs::read_dir("/")?.count();
            let root = mount::new_filesystem("tmpfs", &[], Attributes::default())?;
            leave_for(&empty, &root)?;
            replace(&root)?;
            std::fs::write("/file", "a root of its own")?;
            io::Result::Ok(names)
        });
        assert_eq!(inside.join().unwrap().unwrap(), 0);
        assert!(!Path::new("/file").exists());
    }
}
