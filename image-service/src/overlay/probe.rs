//! Whether overlayfs can stand on the filesystem of the store. Tried, once at the start of the daemon: what it needs of a
//! filesystem (attributes, whiteouts, kinds of files in listings) differs from kernel to kernel.

use std::{io, path::Path};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{UPPER, mount};
use crate::trash::{Trash, unique};

/// Mounts an overlay in a folder below `staging`, which then goes to the trash, and takes things away in it.
pub(super) fn run(staging: &Path, trash: &Trash) -> io::Result<()> {
    let folder = staging.join(unique());
    std::fs::create_dir(&folder)?;
    let tried = attempt(&folder);
    trash.take(&folder)?;
    tried
}

fn attempt(folder: &Path) -> io::Result<()> {
    let step = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let (lower, upper, work) = (folder.join("lower"), folder.join(UPPER), folder.join("work"));
    for folder in [&lower, &upper, &work] {
        std::fs::create_dir(folder)?;
    }
    std::fs::write(lower.join("file"), "")?;
    std::fs::create_dir_all(lower.join("folder/inner"))?;
    mknodat(CWD, lower.join("hidden"), FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(|error| step("make a whiteout")(error.into()))?;
    let mounted =
        mount::overlay(&[lower], folder, Some((&upper, &work)), folder, None).map_err(step("mount an overlay"))?;
    let root = crate::unpack::tree::magic(&mounted, b"");
    let root = Path::new(std::str::from_utf8(&root).map_err(io::Error::other)?);
    std::fs::write(root.join("new"), "").map_err(step("write to an overlay"))?;
    std::fs::remove_file(root.join("file")).map_err(step("remove a file of an overlay"))?;
    std::fs::remove_dir_all(root.join("folder")).map_err(step("remove a folder of an overlay"))?;
    std::fs::create_dir(root.join("folder")).map_err(step("make a folder anew in an overlay"))?;
    let names = |folder: &Path| {
        let names = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<io::Result<std::collections::BTreeSet<String>>>()
    };
    let (top, inner) = (names(root)?, names(&root.join("folder"))?);
    if top != ["folder".to_owned(), "new".to_owned()].into() || !inner.is_empty() {
        return Err(io::Error::other(format!("an overlay shows what was removed from it: {top:?} {inner:?}")));
    }
    Ok(())
}
