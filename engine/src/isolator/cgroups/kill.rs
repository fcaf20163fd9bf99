//! Killing all that runs in a container's cgroups, and removing them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tripod_shim_protocol::CgroupPlan;

use super::{
    CgroupError,
    file::{self, is_absent},
    host::{Controller, Host, Version},
};

/// How long the end of killed processes is waited for. A process that hangs in the kernel cannot be killed at all.
const LIMIT: Duration = Duration::from_secs(10);

/// How long between two looks.
const PAUSES: [u64; 7] = [1, 1, 2, 4, 8, 16, 32];

/// How deep cgroups are searched that a container made below its own.
const MAX_DEPTH: usize = 32;

/// Kills every process of a container and waits for their end.
pub async fn kill(host: &Host, plan: &CgroupPlan) -> Result<(), CgroupError> {
    // Where the kernel kills a whole tree at once, or else where it can be stopped while it is killed.
    let Some(dir) = plan.dirs.iter().find(|_| plan.unified).map(PathBuf::as_path).or_else(|| {
        let freezer = host.dir(&plan.dirs, Controller::Freezer).map(|(dir, _)| dir);
        freezer.or(plan.dirs.first().map(PathBuf::as_path))
    }) else {
        return Ok(());
    };
    kill_below(host, dir, LIMIT).await
}

/// Kills every process in a cgroup and those below it.
pub async fn kill_below(host: &Host, dir: &Path, limit: Duration) -> Result<(), CgroupError> {
    let start = Instant::now();
    let version = host.tree_of(dir).map_or(Version::V1, |tree| tree.version);
    let mut pauses = PAUSES.into_iter();
    for round in 0.. {
        let pids = processes(dir)?;
        if pids.is_empty() {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(CgroupError::StillAlive { path: dir.to_owned() });
        }
        match version {
            Version::V2 if file::write(&dir.join("cgroup.kill"), "1").is_ok() => {}
            _ => kill_frozen(dir, pids, round > 0)?,
        }
        tokio::time::sleep(Duration::from_millis(pauses.next().unwrap_or(50))).await;
    }
    Ok(())
}

/// Kills processes one by one. If that was not enough they are stopped for the time, so that no fork escapes.
fn kill_frozen(dir: &Path, mut pids: Vec<Pid>, freeze: bool) -> Result<(), CgroupError> {
    let state = dir.join("freezer.state");
    let frozen = freeze && file::write(&state, "FROZEN").is_ok();
    if frozen {
        pids = processes(dir)?;
    }
    for pid in pids {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
    if frozen {
        file::write(&state, "THAWED")?;
    }
    Ok(())
}

/// The processes in a cgroup and those below it; none if it does not exist.
pub fn processes(dir: &Path) -> Result<Vec<Pid>, CgroupError> {
    let mut found = Vec::new();
    collect(dir, MAX_DEPTH, &mut found)?;
    Ok(found)
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<Pid>) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // Processes outside of tripod's own PID namespace are shown as 0.
        Ok(text) => found.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?))),
        Err(e) if is_absent(&e) => return Ok(()),
        Err(e) => return Err(CgroupError::io("reading", path, e)),
    }
    if depth > 0 {
        for child in file::children(dir).unwrap_or_default() {
            collect(&child, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Removes directories with all below them, killing what still runs there. All are tried; the first error is told.
pub async fn remove(host: &Host, dirs: &[PathBuf]) -> Result<(), CgroupError> {
    let mut result = Ok(());
    for dir in dirs {
        result = result.and(remove_one(host, dir).await);
    }
    result
}

async fn remove_one(host: &Host, dir: &Path) -> Result<(), CgroupError> {
    let start = Instant::now();
    let mut pauses = PAUSES.into_iter();
    loop {
        let error = match rmdir_below(dir, MAX_DEPTH) {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        if error.kind() != io::ErrorKind::ResourceBusy && error.kind() != io::ErrorKind::DirectoryNotEmpty {
            return Err(CgroupError::io("removing the cgroup", dir, error));
        }
        if start.elapsed() > LIMIT {
            return Err(CgroupError::StillAlive { path: dir.to_owned() });
        }
        kill_below(host, dir, LIMIT).await?;
        // The last process has left the list a moment before it leaves the cgroup.
        tokio::time::sleep(Duration::from_millis(pauses.next().unwrap_or(50))).await;
    }
}

/// Removes a cgroup; those below it first, if there are any.
fn rmdir_below(dir: &Path, depth: usize) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if is_absent(&e) => return Ok(()),
        Err(e) if depth == 0 => return Err(e),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy || e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        Err(e) => return Err(e),
    }
    let children = match file::children(dir) {
        Err(e) if is_absent(&e) => return Ok(()),
        other => other?,
    };
    for child in children {
        rmdir_below(&child, depth - 1)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if is_absent(&e) => Ok(()),
        other => other,
    }
}
