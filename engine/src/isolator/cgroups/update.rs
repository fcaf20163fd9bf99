//! Changing the limits of a container: all or nothing.

use std::path::PathBuf;

use tripod_shim_protocol::{CgroupPlan, Resources};

use super::{
    CgroupError, create,
    file::{self, Writer, keyed},
    host::{Controller, Host, Version},
    settings::{self, Setting},
};

/// The limits that hold after `new` was applied onto `old`: what `new` does not name stays.
pub fn merge(old: &Resources, new: &Resources) -> Resources {
    let mut hugepages = old.hugepages.clone();
    hugepages.extend(new.hugepages.clone());
    let mut unified = old.unified.clone();
    unified.extend(new.unified.clone());
    let mut merged = Resources {
        cpu_quota: new.cpu_quota.or(old.cpu_quota),
        cpu_period: new.cpu_period.or(old.cpu_period),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpuset_cpus: new.cpuset_cpus.clone().or_else(|| old.cpuset_cpus.clone()),
        cpuset_mems: new.cpuset_mems.clone().or_else(|| old.cpuset_mems.clone()),
        memory_limit: new.memory_limit.or(old.memory_limit),
        memory_swap: new.memory_swap.or(old.memory_swap),
        pids_limit: new.pids_limit.or(old.pids_limit),
        disk_limit: new.disk_limit.or(old.disk_limit),
        hugepages,
        unified,
        devices: old.devices.clone(),
    };
    // "No swap" was said by a swap limit equal to that of memory, and still is.
    if new.memory_limit.is_some() && new.memory_swap.is_none() && old.memory_swap == old.memory_limit {
        merged.memory_swap = merged.memory_limit;
    }
    merged
}

/// The part of `merged` that has to be written because of `new`. What shares a file, or a rule of the kernel about
/// their order, goes together.
fn changed(merged: &Resources, new: &Resources) -> Resources {
    let cpu = new.cpu_quota.is_some() || new.cpu_period.is_some();
    let memory = new.memory_limit.is_some() || new.memory_swap.is_some();
    // A cgroup that is idle no longer needs its weight again, and one that is still idle takes none.
    let idle = |resources: &Resources| resources.unified.get(settings::IDLE).cloned();
    let shares = match (idle(new), idle(merged)) {
        (Some(_), _) => merged.cpu_shares,
        (None, Some(idle)) if idle.trim() == "1" => None,
        _ => new.cpu_shares,
    };
    Resources {
        cpu_shares: shares,
        cpu_quota: merged.cpu_quota.filter(|_| cpu),
        cpu_period: merged.cpu_period.filter(|_| cpu),
        memory_limit: merged.memory_limit.filter(|_| memory),
        memory_swap: merged.memory_swap.filter(|_| memory),
        devices: Vec::new(),
        ..new.clone()
    }
}

/// Writes what `new` changes. When the kernel refuses one value, those before it are put back.
pub fn update(host: &Host, plan: &CgroupPlan, old: &Resources, new: &Resources) -> Result<(), CgroupError> {
    let changed = changed(&merge(old, new), new);
    give_back(host, plan, &changed)?;
    let mut settings = settings::limits(host, &changed);
    order(host, plan, &mut settings);
    let mut undo: Vec<(PathBuf, String)> = Vec::new();
    let mut writer = Writer::default();
    for setting in &settings {
        let result =
            remember(host, plan, setting, &mut undo).and_then(|()| create::apply(host, plan, setting, &mut writer));
        if let Err(error) = result {
            for (path, value) in undo.iter().rev() {
                if let Err(e) = file::write(path, value) {
                    tracing::error!(path = %path.display(), value, error = %e, "putting back a limit failed");
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Reads what a setting replaces.
fn remember(
    host: &Host,
    plan: &CgroupPlan,
    setting: &Setting,
    undo: &mut Vec<(PathBuf, String)>,
) -> Result<(), CgroupError> {
    let Some(path) = create::path(host, plan, setting) else { return Ok(()) };
    match file::read(&path) {
        Ok(value) if setting.file.starts_with("io.") => {
            undo.extend(of_device(&setting.file, &value, &setting.value).map(|value| (path, value)));
        }
        // The weight of a cgroup that is idle; it comes back with that.
        Ok(value) if setting.file == "cpu.weight" && value == "0" => {}
        // A write of nothing never comes to the kernel; a line end does, and says that the parent's value holds.
        Ok(value) if value.is_empty() => undo.push((path, "\n".to_owned())),
        Ok(value) => undo.push((path, value)),
        Err(CgroupError::Io { source, .. }) if setting.optional && create::is_not_there(&source) => {}
        // Not all files of the unified tree can be read; they are written all the same.
        Err(CgroupError::Io { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

/// What puts back the value of one device (or of the default) in a file that has a line for each; `None` if there is
/// no word for that.
fn of_device(file: &str, now: &str, new: &str) -> Option<String> {
    let key = match new.split_whitespace().next() {
        Some(device) if device.contains(':') => device,
        _ => "default",
    };
    if let Some(line) = now.lines().find(|line| line.split(' ').next() == Some(key)) {
        return Some(line.to_owned());
    }
    match file {
        "io.max" => Some(format!("{key} rbps=max wbps=max riops=max wiops=max")),
        "io.weight" | "io.bfq.weight" => Some(format!("{key} default")),
        "io.latency" => Some(format!("{key} target=0")),
        _ => None,
    }
}

/// Puts the pairs of v1 into the order that the kernel takes: memory never above memory and swap together, and the
/// share of the CPU never above both the old and the new one.
fn order(host: &Host, plan: &CgroupPlan, settings: &mut [Setting]) {
    let current =
        |file: &str, controller| host.dir(&plan.dirs, controller).and_then(|(dir, _)| file::number(&dir.join(file)));
    let place = |settings: &[Setting], file: &str| settings.iter().position(|setting| setting.file == file);
    let both = |first, second| Some((place(settings, first)?, place(settings, second)?));
    let pairs = [
        both("memory.limit_in_bytes", "memory.memsw.limit_in_bytes").filter(|(limit, _)| {
            let wanted = settings[*limit].value.parse::<i64>().unwrap_or(-1);
            let both = current("memory.memsw.limit_in_bytes", Controller::Memory).unwrap_or(u64::MAX);
            wanted == -1 || wanted as u64 > both
        }),
        both("cpu.cfs_period_us", "cpu.cfs_quota_us").filter(|(period, _)| {
            let wanted = settings[*period].value.parse::<u64>().unwrap_or(0);
            current("cpu.cfs_period_us", Controller::Cpu).is_some_and(|period| wanted < period)
        }),
    ];
    for (first, second) in pairs.into_iter().flatten() {
        settings.swap(first, second);
    }
}

/// Refuses a memory limit below what cannot be reclaimed. v1 refuses it by itself after a while; v2 would kill.
fn give_back(host: &Host, plan: &CgroupPlan, changed: &Resources) -> Result<(), CgroupError> {
    let Some(limit) = changed.memory_limit.and_then(|limit| u64::try_from(limit).ok()) else { return Ok(()) };
    let Some((dir, version)) = host.dir(&plan.dirs, Controller::Memory) else { return Ok(()) };
    let (usage, keys) = match version {
        Version::V1 => ("memory.usage_in_bytes", ["total_inactive_file", "total_active_file", ""]),
        Version::V2 => ("memory.current", ["inactive_file", "active_file", "slab_reclaimable"]),
    };
    let Some(usage) = file::number(&dir.join(usage)) else { return Ok(()) };
    let stat = file::read(&dir.join("memory.stat"))?;
    let reclaimable: u64 = keys.iter().filter_map(|key| keyed(&stat, key)).sum();
    let usage = usage.saturating_sub(reclaimable);
    if usage > limit { Err(CgroupError::InUse { limit, usage }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
