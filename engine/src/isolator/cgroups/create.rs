//! Making a container's cgroups, with every limit set before anything runs in them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tripod_shim_protocol::{CgroupPlan, Resources};

use super::{
    CgroupError, devices,
    file::{self, Writer},
    host::{Controller, Host, Tree, Version},
    settings::{self, Setting},
};

/// How often a directory is tried whose parents another container's removal takes away meanwhile.
const ATTEMPTS: usize = 20;

/// Makes all directories of `plan` and sets the limits. When it fails, what it made is gone again.
pub fn create(host: &Host, plan: &CgroupPlan, resources: &Resources, oom_group: bool) -> Result<(), CgroupError> {
    let mut made = Vec::new();
    let result = make(host, plan, &mut made).and_then(|()| limit(host, plan, resources, oom_group));
    if result.is_err() {
        for dir in made.iter().rev() {
            // A parent that others use by now stays.
            let _ = fs::remove_dir(dir);
        }
    }
    result
}

fn make(host: &Host, plan: &CgroupPlan, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    for dir in &plan.dirs {
        let tree = host.tree_of(dir).ok_or(CgroupError::NoCgroups)?;
        mkdir(tree, dir, made)?;
        match tree.version {
            Version::V1 if tree.controllers.contains(&Controller::Cpuset) => inherit_cpuset(tree, dir)?,
            Version::V1 => {}
            Version::V2 => dir.parent().map_or(Ok(()), |parent| enable(tree, parent))?,
        }
    }
    Ok(())
}

/// Makes a directory and its parents.
fn mkdir(tree: &Tree, dir: &Path, made: &mut Vec<PathBuf>) -> Result<(), CgroupError> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..ATTEMPTS {
        match fs::create_dir(dir) {
            Ok(()) => {
                made.push(dir.to_owned());
                return Ok(());
            }
            // Left by a start that a crash of the daemon cut off; the name is a container's ID, so it is ours.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => last = e,
            Err(e) => return Err(CgroupError::io("making the cgroup", dir, e)),
        }
        match dir.parent() {
            Some(parent) if parent != tree.mount && parent.starts_with(&tree.mount) => mkdir(tree, parent, made)?,
            _ => break,
        }
    }
    Err(CgroupError::io("making the cgroup", dir, last))
}

/// On v1 a new cpuset is empty and nobody may enter it, so it starts with what its parent has.
fn inherit_cpuset(tree: &Tree, dir: &Path) -> Result<(), CgroupError> {
    if dir == tree.mount {
        return Ok(());
    }
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(name);
        if !file::read(&path)?.is_empty() {
            continue;
        }
        let Some(parent) = dir.parent() else { return Ok(()) };
        let mut value = file::read(&parent.join(name))?;
        if value.is_empty() {
            inherit_cpuset(tree, parent)?;
            value = file::read(&parent.join(name))?;
        }
        file::write(&path, &value)?;
    }
    Ok(())
}

/// On v2 a cgroup has the controllers that every cgroup above it passes on.
fn enable(tree: &Tree, dir: &Path) -> Result<(), CgroupError> {
    let control = dir.join("cgroup.subtree_control");
    let on = file::read(&control)?;
    let names = tree.controllers.iter().filter_map(|controller| controller.v2_name());
    let missing: Vec<_> = names.filter(|name| !on.split(' ').any(|on| on == *name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if dir != tree.mount
        && let Some(parent) = dir.parent()
    {
        enable(tree, parent)?;
    }
    let all: Vec<_> = missing.iter().map(|name| format!("+{name}")).collect();
    if file::write(&control, &all.join(" ")).is_err() {
        // One that the parent cannot pass on must not keep back the others; who needs it will miss its file.
        for one in all {
            let _ = file::write(&control, &one);
        }
    }
    Ok(())
}

fn limit(host: &Host, plan: &CgroupPlan, resources: &Resources, oom_group: bool) -> Result<(), CgroupError> {
    let mut writer = Writer::default();
    let group = settings::oom_group(host).filter(|_| oom_group);
    let limits = settings::limits(host, resources);
    let devices = match host.tree(Controller::Devices) {
        Some(tree) if tree.version == Version::V1 => settings::devices(&resources.devices),
        _ => Vec::new(),
    };
    for setting in group.into_iter().chain(limits).chain(devices) {
        apply(host, plan, &setting, &mut writer)?;
    }
    if plan.unified && !settings::allows_all(&resources.devices) {
        plan.dirs.iter().try_for_each(|dir| devices::enforce(dir, &resources.devices))?;
    }
    Ok(())
}

/// Writes one setting.
pub fn apply(host: &Host, plan: &CgroupPlan, setting: &Setting, writer: &mut Writer) -> Result<(), CgroupError> {
    let path = match path(host, plan, setting) {
        Some(path) => path,
        None if setting.optional => return Ok(()),
        None => return Err(CgroupError::Missing { controller: setting.controller, what: "a limit" }),
    };
    match writer.write(&path, &setting.value) {
        Err(CgroupError::Io { source, .. }) if setting.optional && is_not_there(&source) => Ok(()),
        other => other,
    }
}

/// The file of a setting.
pub fn path(host: &Host, plan: &CgroupPlan, setting: &Setting) -> Option<PathBuf> {
    host.dir(&plan.dirs, setting.controller).map(|(dir, _)| dir.join(&setting.file))
}

/// Without a file of that name cgroupfs sees an attempt to make one, and refuses that.
pub fn is_not_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}
