//! Limits that are wrong in themselves, found before anything is made. What only this kernel can know (a CPU that does
//! not exist) is found when it refuses the value.

use tripod_shim_protocol::Resources;

use super::{
    CgroupError,
    host::{Controller, Host},
};

/// What the kernel takes, in microseconds.
const MIN_QUOTA: i64 = 1_000;
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;

/// What the kernel takes; v2's weights come from the same range.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// A limit below a page is none that anything could run in.
const MIN_MEMORY: i64 = 4096;

/// Checks `resources` for this host.
pub fn check(host: &Host, resources: &Resources) -> Result<(), CgroupError> {
    cpu(resources)?;
    memory(resources)?;
    if let Some(limit) = resources.pids_limit.filter(|limit| *limit != -1 && *limit <= 0) {
        return invalid(format!("a limit of {limit} processes; give a positive number, or -1 for none"));
    }
    for (name, list) in [("CPUs", &resources.cpuset_cpus), ("memory nodes", &resources.cpuset_mems)] {
        if let Some(list) = list.as_ref().filter(|list| !is_list(list)) {
            return invalid(format!("{list:?} is not a list of {name} such as 0-2,7"));
        }
    }
    for size in resources.hugepages.keys() {
        if !host.hugepages.contains(size) {
            let known: Vec<_> = host.hugepages.iter().map(String::as_str).collect();
            return invalid(format!("this host has no huge pages of {size:?}, only of {}", known.join(" and ")));
        }
    }
    for (file, value) in &resources.unified {
        let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
        if !plain || !file.contains('.') || file.starts_with('.') || file.starts_with("cgroup.") {
            return invalid(format!("{file:?} is not a limit that can be set in the unified cgroup hierarchy"));
        }
        if value.contains('\0') || value.len() > 4095 {
            return invalid(format!("the value of {file} is too long or contains a NUL byte"));
        }
        if !host.unified() {
            return invalid(format!("{file} can only be set with cgroup v2, and this host runs v1"));
        }
        let name = file.split('.').next().unwrap_or_default();
        let known = host.trees.iter().flat_map(|tree| &tree.controllers).filter_map(|controller| controller.v2_name());
        let known: Vec<_> = known.collect();
        if !known.contains(&name) {
            let known = known.join(", ");
            return invalid(format!("{file} needs the cgroup controller {name}; this host has {known}"));
        }
    }
    present(host, resources)
}

fn cpu(resources: &Resources) -> Result<(), CgroupError> {
    if let Some(quota) = resources.cpu_quota.filter(|quota| *quota != -1 && *quota < MIN_QUOTA) {
        return invalid(format!("a CPU quota of {quota} µs; the least is {MIN_QUOTA} µs, and -1 is no limit"));
    }
    if let Some(period) = resources.cpu_period.filter(|period| !PERIOD.contains(period)) {
        return invalid(format!("a CPU period of {period} µs; it must be from {} to {}", PERIOD.start(), PERIOD.end()));
    }
    if let Some(shares) = resources.cpu_shares.filter(|shares| !SHARES.contains(shares)) {
        return invalid(format!("{shares} CPU shares; it must be from {} to {}", SHARES.start(), SHARES.end()));
    }
    Ok(())
}

fn memory(resources: &Resources) -> Result<(), CgroupError> {
    for (name, bytes) in [("memory", resources.memory_limit), ("memory and swap", resources.memory_swap)] {
        if let Some(bytes) = bytes.filter(|bytes| *bytes != -1 && *bytes < MIN_MEMORY) {
            return invalid(format!("a limit of {bytes} bytes of {name}; -1 is no limit"));
        }
    }
    match (resources.memory_limit, resources.memory_swap) {
        (Some(limit), Some(swap)) if swap != -1 && (limit == -1 || swap < limit) => {
            invalid(format!("memory and swap together ({swap}) are less than memory alone ({limit})"))
        }
        (None, Some(swap)) if swap != -1 => {
            invalid(format!("a limit of {swap} for memory and swap needs one for memory"))
        }
        _ => Ok(()),
    }
}

/// Whether the host has the controllers that are asked for.
fn present(host: &Host, resources: &Resources) -> Result<(), CgroupError> {
    let limited = |limit: Option<i64>| limit.is_some_and(|limit| limit != -1);
    let cpu = resources.cpu_shares.is_some() || resources.cpu_period.is_some() || limited(resources.cpu_quota);
    let needs = [
        (cpu, Controller::Cpu, "a CPU limit"),
        (resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some(), Controller::Cpuset, "a set of CPUs"),
        (limited(resources.memory_limit), Controller::Memory, "a memory limit"),
        (limited(resources.pids_limit), Controller::Pids, "a limit on processes"),
        // Kubelet sends a limit of nothing for every size, whatever the host has.
        (resources.hugepages.values().any(|limit| *limit > 0), Controller::Hugetlb, "a limit on huge pages"),
    ];
    match needs.into_iter().find(|(needed, controller, _)| *needed && host.tree(*controller).is_none()) {
        Some((_, controller, what)) => Err(CgroupError::Missing { controller, what }),
        None => Ok(()),
    }
}

/// The kernel's list format. An empty list means nothing is asked for.
fn is_list(list: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.len() < 7 && text.bytes().all(|byte| byte.is_ascii_digit());
    list.len() <= 4095
        && list.split(',').all(|part| match part.split_once('-') {
            Some((from, to)) => number(from) && number(to),
            None => number(part),
        })
}

fn invalid<T>(message: String) -> Result<T, CgroupError> {
    Err(CgroupError::Invalid(message))
}
