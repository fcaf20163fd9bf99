//! Layers whose files belong to other IDs than those on disk: what a pod with a user namespace sees. Whether this host
//! can do that is tried once, at the start of the daemon, and what it lacks is told by name.

use std::{
    ffi::CString,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, mkdir},
    io::Errno,
    mount::{MountFlags, OpenTreeFlags, mount as mount_at, open_tree},
};
use tripod_sys::{
    mount::{Attributes, Propagation, Value},
    root,
};

use super::{UPPER, WORK, mount};

/// The first kernel whose overlayfs shows the owners that a layer's mount maps.
const NEEDED: (u32, u32) = (5, 19);

/// How overlayfs gets mounts as layers.
#[derive(Debug)]
pub(super) enum Way {
    /// By descriptor, standing nowhere. Overlayfs takes none by descriptor before Linux 6.13 (EBADF), and none that is
    /// detached before 6.15 (EINVAL).
    Open,
    /// By path, standing for a moment in a mount namespace of their own, which is a copy of this empty one. A path has to
    /// lie in the namespace of whoever names it.
    Standing(OwnedFd),
}

/// Folders as mounts of their own, attached nowhere, that show owners as the user namespace `ids` maps them.
pub(super) fn mapped(folders: &[PathBuf], ids: &OwnedFd) -> io::Result<Vec<OwnedFd>> {
    let map = |folder: &PathBuf| {
        let step = |error: io::Error| told(&format!("map the owners of {}", folder.display()), &error);
        let mount = plain(folder).map_err(step)?;
        tripod_sys::mount::map_ids(&mount, ids, false).map_err(|error| step(in_words(error)))?;
        Ok(mount)
    };
    folders.iter().map(map).collect()
}

/// A folder as a mount of its own, attached nowhere, with the owners that it has.
pub(super) fn plain(folder: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, folder, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

// === impl Way ===

impl Way {
    /// The one that this kernel takes, or why layers beside these two folders cannot be given to a pod with a user
    /// namespace: all that it takes is tried.
    pub(super) fn find(folders: &[PathBuf; 2]) -> io::Result<Way> {
        let ids = tripod_sys::userns::new("0 65536 65536", "0 65536 65536")
            .map_err(|error| told("make a user namespace (sysctl user.max_user_namespaces limits them)", &error))?;
        if Way::Open.overlay(&mapped(folders, &ids)?, None, None).is_ok() {
            return Ok(Way::Open);
        }
        let empty = root::empty_namespace().map_err(|error| told("make a mount namespace", &error))?;
        let way = Way::Standing(empty);
        way.overlay(&mapped(folders, &ids)?, None, None)?;
        Ok(way)
    }

    /// Mounts such layers, the highest first, below the writable folders in `folder`, or read-only. `label` is as for
    /// [`mount::overlay`].
    pub(super) fn overlay(&self, lower: &[OwnedFd], folder: Option<&Path>, label: Option<&str>) -> io::Result<OwnedFd> {
        let mounted = match self {
            Way::Open => {
                let writable = folder.map(|folder| (folder.join(UPPER), folder.join(WORK)));
                let writable = writable.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path()));
                mount::overlay_of(lower, writable, label)
            }
            Way::Standing(empty) => standing(empty, lower, folder, label),
        };
        mounted.map_err(|error| told("mount layers with mapped owners", &error))
    }
}

/// Where the layers stand all have short names, so that as many fit into the one string of options as overlayfs takes.
fn standing(empty: &OwnedFd, lower: &[OwnedFd], folder: Option<&Path>, label: Option<&str>) -> io::Result<OwnedFd> {
    const WRITABLE: &str = "w";
    const MOUNT: &str = "m";
    let size = [("size", Value::String("4k")), ("mode", Value::String("700"))];
    let root = tripod_sys::mount::new_filesystem("tmpfs", &size, Attributes::default())?;
    // Upper and work folder have to lie in one mount.
    let writable = folder.map(plain).transpose()?;
    let mut places: Vec<(String, &OwnedFd)> =
        lower.iter().enumerate().map(|(index, layer)| (index.to_string(), layer)).collect();
    let names: Vec<&str> = places.iter().map(|(name, _)| name.as_str()).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    let mut flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    if let Some(writable) = &writable {
        options += &format!(",upperdir={WRITABLE}/{UPPER},workdir={WRITABLE}/{WORK},volatile");
        flags = MountFlags::empty();
        places.push((WRITABLE.to_owned(), writable));
    }
    options += ",index=off,metacopy=off";
    // In quotes, as a level has commas.
    options.extend(label.map(|label| format!(",context=\"{label}\"")));
    let options = CString::new(options).map_err(io::Error::other)?;
    root::apart(empty, &root, || {
        let make = |name: &str| mkdir(name, Mode::from_raw_mode(0o700));
        for (name, layer) in &places {
            tripod_sys::mount::set(layer, Attributes::default(), Some(Propagation::Private), false)?;
            make(name)?;
            tripod_sys::mount::attach(layer, mount::folder(Path::new(name))?)?;
        }
        make(MOUNT)?;
        mount_at("overlay", MOUNT, "overlay", flags, Some(options.as_c_str()))?;
        plain(Path::new(MOUNT))
    })
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
        for release in ["5.15.0-91-generic", "5.10.0", "5.18-rc3", "4.18.0"] {
            let error = explained("mount layers", &bad_descriptor(), release);
            let text = error.to_string();
            assert!(text.contains(&format!("need Linux 5.19 or newer, this is {release}")), "{text}");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }

    #[test]
    fn another_reason_is_told_as_it_is() {
        for release in ["5.19.0", "6.12.57+deb13-cloud-amd64", "10.0", "custom"] {
            let text = explained("mount layers", &bad_descriptor(), release).to_string();
            assert!(text.starts_with("mount layers: Bad file descriptor"), "{text}");
        }
        assert!(in_words(Errno::INVAL.into()).to_string().contains("takes no ID mappings"));
        assert!(!in_words(Errno::PERM.into()).to_string().contains("ID mappings"));
    }

    /// What this kernel is not asked for otherwise works on it as on those that are.
    #[test]
    fn both_ways_show_the_same() {
        use std::os::unix::fs::MetadataExt;
        assert!(rustix::process::geteuid().is_root(), "this test makes namespaces and needs root");
        let table = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ids = tripod_sys::userns::new("0 70000 65536", "0 80000 65536").unwrap();
        let mut ways = vec![Way::Standing(root::empty_namespace().unwrap())];
        if rustix::system::uname().release().to_str().ok().and_then(version) >= Some((6, 15)) {
            ways.push(Way::Open);
        }
        for way in ways {
            let store = tempfile::tempdir().unwrap();
            let before = table();
            let layers: Vec<PathBuf> = (0..300).map(|number| store.path().join(number.to_string())).collect();
            for (number, layer) in layers.iter().enumerate() {
                std::fs::create_dir(layer).unwrap();
                std::fs::write(layer.join(format!("in-{number}")), "").unwrap();
                std::fs::write(layer.join("in-all"), number.to_string()).unwrap();
            }
            for name in [UPPER, WORK] {
                std::fs::create_dir(store.path().join(name)).unwrap();
            }
            let of = |mount: &OwnedFd, name: &str| {
                let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(mount)));
                let meta = std::fs::metadata(&path).unwrap();
                (path, (meta.uid(), meta.gid()))
            };
            let read_only = way.overlay(&mapped(&layers, &ids).unwrap(), None, None).unwrap();
            let (path, owner) = of(&read_only, "in-299");
            assert_eq!(owner, (70000, 80000), "{way:?}");
            assert!(std::fs::write(path, "x").is_err());
            let writable = way.overlay(&mapped(&layers, &ids).unwrap(), Some(store.path()), None).unwrap();
            let (path, owner) = of(&writable, "in-all");
            assert_eq!((owner, std::fs::read_to_string(&path).unwrap().as_str()), ((70000, 80000), "0"), "{way:?}");
            std::fs::write(&path, "changed").unwrap();
            let copy = std::fs::metadata(store.path().join(UPPER).join("in-all")).unwrap();
            assert_eq!((copy.uid(), copy.gid()), (70000, 80000), "a copy belongs to whom it was shown as");
            assert_eq!(std::fs::read_to_string(layers[0].join("in-all")).unwrap(), "0");
            drop((read_only, writable));
            assert_eq!(table(), before, "{way:?} leaves something on the host");
        }
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
