//! Limits.

use tripod_cri_api::v1::{HugepageLimit, LinuxContainerResources};
use tripod_shim_protocol::Resources;

use super::{
    Refusal, Refused,
    refusal::{plain, required},
};

/// What the kernel takes for the weight of a v1 cgroup.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// What the kernel takes for the period and the quota of CPU time, in microseconds. Longer quotas do not fit into its
/// arithmetic (44 bits).
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
const QUOTA: std::ops::RangeInclusive<i64> = 1_000..=(1 << 44) - 1;

/// The least limit on memory: a page, for the kernel counts in pages, and nothing runs in none.
const MIN_MEMORY: i64 = 4096;

/// Limits of a request. 0 and empty mean that nothing is asked for.
pub(super) fn resources(field: &str, asked: &LinuxContainerResources) -> Refused<Resources> {
    let at = |name: &str| format!("{field}.{name}");
    let memory_limit = bytes(&at("memory_limit_in_bytes"), asked.memory_limit_in_bytes)?;
    let memory_swap = bytes(&at("memory_swap_limit_in_bytes"), asked.memory_swap_limit_in_bytes)?;
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (memory_limit, memory_swap)
        && swap < limit
    {
        let problem = format!("{swap} is less than the memory limit of {limit}, which it includes");
        return Err(Refusal::new(at("memory_swap_limit_in_bytes"), problem));
    }
    Ok(Resources {
        cpu_quota: quota(&at("cpu_quota"), asked.cpu_quota)?,
        cpu_period: period(&at("cpu_period"), asked.cpu_period)?,
        cpu_shares: count(&at("cpu_shares"), asked.cpu_shares)?.map(|n| n.clamp(*SHARES.start(), *SHARES.end())),
        cpuset_cpus: list(&at("cpuset_cpus"), &asked.cpuset_cpus)?,
        cpuset_mems: list(&at("cpuset_mems"), &asked.cpuset_mems)?,
        memory_limit,
        memory_swap,
        pids_limit: None,
        disk_limit: None,
        hugepages: asked
            .hugepage_limits
            .iter()
            .map(|limit| hugepages(&at("hugepage_limits"), limit))
            .collect::<Refused<_>>()?,
        unified: asked
            .unified
            .iter()
            .map(|(key, value)| unified(&at("unified"), key, value))
            .collect::<Refused<_>>()?,
        devices: Vec::new(),
    })
}

/// Changes to the limits of an existing container. The kubelet sends an OOM score along, which only counts at the start
/// of a process: it is left as it was, and the status goes on to show what is in force.
pub(crate) fn update(now: &Resources, asked: &LinuxContainerResources) -> Refused<Resources> {
    let mut new = resources("linux", asked)?;
    // A larger limit on memory alone must not fail on the old limit on both together.
    if let (Some(limit @ 1..), None, Some(swap @ 1..)) = (new.memory_limit, new.memory_swap, now.memory_swap)
        && swap < limit
    {
        new.memory_swap = Some(limit);
    }
    Ok(new)
}

/// Limits in force, for a status.
pub(super) fn to_wire(resources: &Resources, oom_score_adj: i64) -> LinuxContainerResources {
    let signed = |value: Option<u64>| value.map_or(0, |value| i64::try_from(value).unwrap_or(i64::MAX));
    LinuxContainerResources {
        cpu_period: signed(resources.cpu_period),
        cpu_quota: resources.cpu_quota.unwrap_or(0),
        cpu_shares: signed(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit.unwrap_or(0),
        oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: resources.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: resources
            .hugepages
            .iter()
            .map(|(page_size, limit)| HugepageLimit { page_size: page_size.clone(), limit: *limit })
            .collect(),
        unified: resources.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: resources.memory_swap.unwrap_or(0),
    }
}

/// Badness for the OOM killer. A container that asks for none gets 0, not what the shim has.
pub(super) fn oom_score_adj(field: &str, value: i64) -> Refused<i32> {
    i32::try_from(value)
        .ok()
        .filter(|value| (-1000..=1000).contains(value))
        .ok_or_else(|| Refusal::new(field, format!("{value} is outside of -1000 to 1000")))
}

fn count(field: &str, value: i64) -> Refused<Option<u64>> {
    match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Refusal::new(field, format!("{value} must not be negative"))),
    }
}

/// CPU time in each period.
fn quota(field: &str, value: i64) -> Refused<Option<i64>> {
    let (least, most) = (QUOTA.start(), QUOTA.end());
    match value {
        0 => Ok(None),
        -1 => Ok(Some(value)),
        _ if QUOTA.contains(&value) => Ok(Some(value)),
        _ => Err(Refusal::new(field, format!("{value} µs must be from {least} to {most}, or -1 (no limit)"))),
    }
}

fn period(field: &str, value: i64) -> Refused<Option<u64>> {
    let (least, most) = (PERIOD.start(), PERIOD.end());
    match count(field, value)? {
        Some(value) if !PERIOD.contains(&value) => {
            Err(Refusal::new(field, format!("{value} µs must be from {least} to {most}")))
        }
        period => Ok(period),
    }
}

fn bytes(field: &str, value: i64) -> Refused<Option<i64>> {
    match value {
        0 => Ok(None),
        -1 | MIN_MEMORY.. => Ok(Some(value)),
        _ => {
            let problem = format!("{value} bytes must be {MIN_MEMORY} (a page) or more, or -1 (no limit)");
            Err(Refusal::new(field, problem))
        }
    }
}

/// A list of CPUs or memory nodes in the kernel's format; whether the host has them is the kernel's to say.
fn list(field: &str, text: &str) -> Refused<Option<String>> {
    let number = |text: &str| !text.is_empty() && text.len() < 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => number(first) && number(last),
        None => number(text),
    };
    if text.is_empty() {
        return Ok(None);
    }
    if !text.split(',').all(|part| range(part.trim())) {
        return Err(Refusal::new(field, format!("{text:?} is not a list like \"0-2,7\"")));
    }
    Ok(Some(text.to_owned()))
}

fn hugepages(field: &str, limit: &HugepageLimit) -> Refused<(String, u64)> {
    let size = limit.page_size.as_str();
    let digits = size.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = &size[digits.len()..];
    if digits.is_empty() || digits.bytes().any(|byte| !byte.is_ascii_digit()) || !["KB", "MB", "GB"].contains(&unit) {
        return Err(Refusal::new(field, format!("page size {size:?} is not one like \"2MB\"")));
    }
    Ok((size.to_owned(), limit.limit))
}

/// A file of the unified hierarchy. The name becomes part of a path, so it must be a plain one.
fn unified(field: &str, key: &str, value: &str) -> Refused<(String, String)> {
    let key = required(field, key)?;
    let plain_name = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !plain_name || key.starts_with('.') || key.starts_with("cgroup.") || !key.contains('.') {
        return Err(Refusal::new(field, format!("{key:?} is not a limit of a cgroup, like \"memory.high\"")));
    }
    Ok((key, plain(field, value)?))
}
