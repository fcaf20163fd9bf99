//! Layers whose files belong to other IDs than those on disk: what a pod with a user namespace sees. Whether this host
//! can do that is tried once, at the start of the daemon, and what it lacks is told by name.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use super::mount;

/// The first kernel whose overlayfs takes mounts as layers that stand nowhere: only such a mount can have mapped IDs and
/// be seen by nobody. Before 6.13 it takes none by descriptor at all (EBADF), then none that is detached (EINVAL).
const NEEDED: (u32, u32) = (6, 15);

/// Folders as mounts of their own, attached nowhere, that show owners as the user namespace `ids` maps them.
pub(super) fn mapped(folders: &[PathBuf], ids: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let map = |folder: &PathBuf| {
        let step = |error: io::Error| told(&format!("map the owners of {}", folder.display()), &error);
        let mount = open_tree(CWD, folder, clone).map_err(|error| step(error.into()))?;
        tripod_sys::mount::map_ids(&mount, ids, false).map_err(|error| step(in_words(error)))?;
        Ok(mount)
    };
    folders.iter().map(map).collect()
}

/// Mounts such layers, the highest first, as [`mount::overlay`] does.
pub(super) fn overlay(lower: &[OwnedFd], writable: Option<(&Path, &Path)>, label: Option<&str>) -> io::Result<OwnedFd> {
    mount::overlay_of(lower, writable, label).map_err(|error| told("mount layers with mapped owners", &error))
}

/// Whether layers beside these two folders can be given to a pod with a user namespace: all that it takes is tried.
pub(super) fn check(folders: &[PathBuf; 2]) -> io::Result<()> {
    let ids = tripod_sys::userns::new("0 65536 65536", "0 65536 65536")
        .map_err(|error| told("make a user namespace (sysctl user.max_user_namespaces limits them)", &error))?;
    overlay(&mapped(folders, &ids)?, None, None).map(drop)
}

/// What the kernel means when it has no better number for it.
fn in_words(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(Errno::INVAL.raw_os_error()) {
        return error;
    }
    io::Error::new(error.kind(), format!("its filesystem takes no ID mappings ({error}); ext4, xfs and btrfs do"))
}

/// A failed step, and the kernel's age where that is the reason.
fn told(step: &str, error: &io::Error) -> io::Error {
    explained(step, error, &rustix::system::uname().release().to_string_lossy())
}

fn explained(step: &str, error: &io::Error, release: &str) -> io::Error {
    let (major, minor) = NEEDED;
    match version(release) {
        Some(found) if found < NEEDED => {
            let text = format!(
                "user namespaces of pods need Linux {major}.{minor} or newer, this is {release} ({step}: {error})"
            );
            io::Error::new(io::ErrorKind::Unsupported, text)
        }
        _ => io::Error::new(error.kind(), format!("{step}: {error}")),
    }
}

/// Major and minor version of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse().ok());
    numbers.next()?.zip(numbers.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad_descriptor() -> io::Error {
        Errno::BADF.into()
    }

    #[test]
    fn an_old_kernel_is_named_with_the_one_that_is_needed() {
        for release in ["6.12.57+deb13-cloud-amd64", "5.15.0", "6.14-rc3"] {
            let error = explained("mount layers", &bad_descriptor(), release);
            let text = error.to_string();
            assert!(text.contains(&format!("need Linux 6.15 or newer, this is {release}")), "{text}");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn another_reason_is_told_as_it_is() {
        for release in ["6.15.0", "6.18.44-fc-v669", "10.0", "custom"] {
            let text = explained("mount layers", &bad_descriptor(), release).to_string();
            assert!(text.starts_with("mount layers: Bad file descriptor"), "{text}");
        }
        assert!(in_words(Errno::INVAL.into()).to_string().contains("takes no ID mappings"));
        assert!(!in_words(Errno::PERM.into()).to_string().contains("ID mappings"));
    }

    /// A procfs cannot map IDs, on any kernel.
    #[test]
    fn a_filesystem_that_cannot_is_named() {
        assert!(rustix::process::geteuid().is_root(), "this test makes a namespace and needs root");
        let ids = tripod_sys::userns::new("0 65536 65536", "0 65536 65536").unwrap();
        let text = mapped(&[PathBuf::from("/proc")], &ids).unwrap_err().to_string();
        assert!(text.contains("map the owners of /proc") && text.contains("takes no ID mappings"), "{text}");
    }
}
