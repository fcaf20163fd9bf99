//! Detached overlay mounts.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
        open_tree, unmount,
    },
};

/// Overlayfs takes no more lower layers.
const MAX_LOWER: usize = 500;
/// Bytes of a value that the kernel takes at once, less the NUL.
const MAX_VALUE: usize = 255;

/// A handle of a folder.
pub(super) fn folder(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Mounts layers that are mounts of their own, the highest first, as [`overlay`] does. Takes Linux 6.15.
pub(super) fn overlay_of(
    lower: &[OwnedFd],
    writable: Option<(&Path, &Path)>,
    label: Option<&str>,
) -> io::Result<OwnedFd> {
    detached(&lower.iter().map(Layer::Open).collect::<Vec<_>>(), writable, label).map_err(|refusal| match refusal {
        Refusal::Unknown => io::Error::new(io::ErrorKind::Unsupported, "overlayfs takes no open folders as layers"),
        Refusal::Failed(error) => error,
    })
}

/// A lower layer.
#[derive(Debug, Clone, Copy)]
enum Layer<'a> {
    Path(&'a Path),
    Open(&'a OwnedFd),
}

/// Mounts layers, the highest first, with a writable layer or read-only. `spare` is a folder of the caller's alone, for
/// kernels before 6.8, which can only mount somewhere. `label` is the SELinux label of all files, where there are any.
pub(super) fn overlay(
    lower: &[PathBuf],
    empty: &Path,
    writable: Option<(&Path, &Path)>,
    spare: &Path,
    label: Option<&str>,
) -> io::Result<OwnedFd> {
    let mut folders: Vec<&Path> = lower.iter().map(PathBuf::as_path).collect();
    // An overlay needs a lower layer, and two of them if nothing is writable.
    if folders.is_empty() || folders.len() == 1 && writable.is_none() {
        folders.push(empty);
    }
    if folders.len() > MAX_LOWER {
        let message = format!("the image has {} layers, and overlayfs takes {MAX_LOWER}", folders.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    match detached(&folders.iter().map(|folder| Layer::Path(folder)).collect::<Vec<_>>(), writable, label) {
        Err(Refusal::Unknown) => attached(&folders, writable, spare, label),
        Err(Refusal::Failed(error)) => Err(error),
        Ok(mounted) => Ok(mounted),
    }
}

/// Whether overlayfs looks at options as they come (Linux 6.5). Before, anything is taken, and what is unknown makes the
/// mount fail, with a line in the kernel's log each time.
fn looks_at_options() -> bool {
    static LOOKS: OnceLock<bool> = OnceLock::new();
    let nonsense = || fsconfig_set_flag(&fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?, "tripod");
    // Where there is no overlayfs at all, that is told by whoever mounts one.
    *LOOKS.get_or_init(|| nonsense().is_err())
}

enum Refusal {
    /// This kernel does not take layers one by one.
    Unknown,
    Failed(io::Error),
}

/// Layer by layer, since Linux 6.8: no limit but the number of layers.
fn detached(lower: &[Layer<'_>], writable: Option<(&Path, &Path)>, label: Option<&str>) -> Result<OwnedFd, Refusal> {
    if !looks_at_options() {
        return Err(Refusal::Unknown);
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| Refusal::Failed(error.into()))?;
    let told = |error: Errno| {
        let mut words = [0; 512];
        let count = rustix::io::read(&fs, &mut words[..]).unwrap_or(0);
        let words = String::from_utf8_lossy(&words[..count]).trim().to_owned();
        let cause = io::Error::from(error);
        Refusal::Failed(if words.is_empty() {
            cause
        } else {
            io::Error::new(cause.kind(), format!("{cause} ({words})"))
        })
    };
    // Paths that are too long for a value go by descriptor.
    let mut held = Vec::new();
    let mut set = |key: &str, path: &Path| -> Result<(), Errno> {
        if path.as_os_str().len() <= MAX_VALUE {
            return fsconfig_set_string(&fs, key, path);
        }
        let folder = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let result = fsconfig_set_string(&fs, key, format!("/proc/self/fd/{}", folder.as_raw_fd()));
        held.push(folder);
        result
    };
    for (index, folder) in lower.iter().enumerate() {
        let given = match folder {
            Layer::Path(folder) => set("lowerdir+", folder),
            Layer::Open(folder) => fsconfig_set_fd(&fs, "lowerdir+", folder),
        };
        match given {
            Err(Errno::INVAL) if index == 0 => return Err(Refusal::Unknown),
            result => result.map_err(told)?,
        }
    }
    if let Some((upper, work)) = writable {
        set("upperdir", upper).map_err(told)?;
        set("workdir", work).map_err(told)?;
        // What a container writes does not outlive a crash of the host, so nothing needs to be synced for it.
        fsconfig_set_flag(&fs, "volatile").map_err(told)?;
    }
    if let Some(label) = label {
        fsconfig_set_string(&fs, "context", label).map_err(told)?;
    }
    for key in ["index", "metacopy"] {
        fsconfig_set_string(&fs, key, "off").map_err(told)?;
    }
    fsconfig_create(&fs).map_err(told)?;
    let attributes = match writable {
        Some(_) => MountAttrFlags::empty(),
        None => {
            MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID
        }
    };
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(told)
}

/// All layers in one string of at most a page: by descriptor, so that more than 200 fit. The mount stands in `spare`
/// for a moment.
fn attached(
    lower: &[&Path],
    writable: Option<(&Path, &Path)>,
    spare: &Path,
    label: Option<&str>,
) -> io::Result<OwnedFd> {
    let open = |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let by_descriptor = |folder: &OwnedFd| format!("/proc/self/fd/{}", folder.as_raw_fd());
    let folders: Vec<OwnedFd> = lower.iter().map(|path| open(path)).collect::<Result<_, _>>()?;
    let mut options = format!("lowerdir={}", folders.iter().map(by_descriptor).collect::<Vec<_>>().join(":"));
    let mut flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    let mut held = Vec::new();
    if let Some((upper, work)) = writable {
        held = vec![open(upper)?, open(work)?];
        options += &format!(",upperdir={},workdir={},volatile", by_descriptor(&held[0]), by_descriptor(&held[1]));
        flags = MountFlags::empty();
    }
    options += ",index=off,metacopy=off";
    // In quotes, as a level has commas.
    options.extend(label.map(|label| format!(",context=\"{label}\"")));
    let options = CString::new(options).map_err(io::Error::other)?;
    let target = spare.join("mount");
    super::make_folder(&target)?;
    mount("overlay", &target, "overlay", flags, Some(options.as_c_str()))?;
    drop(held);
    detach(&target, CWD, &target)
}

/// A detached copy of the mount at `path`, in place of the attached one at `target`.
fn detach(target: &Path, dir: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let copy = open_tree(dir, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    unmount(target, UnmountFlags::DETACH)?;
    std::fs::remove_dir(target)?;
    Ok(copy?)
}

/// A folder of a detached mount as a mount of its own. Links are resolved as if the mount were the root.
pub(crate) fn below(whole: &OwnedFd, sub_path: &Path, spare: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let inside = |root: &OwnedFd| openat2(root, sub_path.as_os_str().as_bytes(), flags, Mode::empty(), resolve);
    let folder = inside(whole)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    match open_tree(&folder, "", clone) {
        // Before Linux 6.15 a mount has to stand somewhere to be copied from.
        Err(Errno::INVAL) => {}
        copy => return Ok(copy?),
    }
    let target = spare.join("mount");
    super::make_folder(&target)?;
    move_mount(whole, "", CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let folder = inside(whole);
    let copy = folder.and_then(|folder| open_tree(&folder, "", clone));
    unmount(&target, UnmountFlags::DETACH)?;
    std::fs::remove_dir(target)?;
    Ok(copy?)
}

#[cfg(test)]
mod tests;
