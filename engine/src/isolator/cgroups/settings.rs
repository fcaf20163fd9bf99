//! Limits as the kernel takes them: which value goes into which file, in which order.

use std::fmt::Display;

use tripod_shim_protocol::{DeviceKind, DeviceRule, Resources};

use super::host::{Controller, Host, Version};

/// v2: the cgroup runs when no other one wants to.
pub const IDLE: &str = "cpu.idle";

/// How many processes and threads there may be.
pub const PIDS: &str = "pids.max";

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In the tree with this controller.
    pub controller: Controller,
    /// Name of the file.
    pub file: String,
    /// What is written.
    pub value: String,
    /// The host may lack the file.
    pub optional: bool,
}

impl Setting {
    fn new(controller: Controller, file: impl Into<String>, value: impl Display) -> Self {
        Self { controller, file: file.into(), value: format!("{value}"), optional: false }
    }

    fn optional(mut self, optional: bool) -> Self {
        self.optional = optional;
        self
    }
}

/// The limits in `resources`, for new cgroups without any. Device rules are [`devices`].
pub fn limits(host: &Host, resources: &Resources) -> Vec<Setting> {
    let version = |controller| host.tree(controller).map(|tree| tree.version);
    let mut settings = Vec::new();
    match version(Controller::Cpu) {
        Some(Version::V1) => cpu_v1(resources, &mut settings),
        Some(Version::V2) => cpu_v2(resources, &mut settings),
        None => {}
    }
    for (file, value) in [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)] {
        settings.extend(value.as_ref().map(|value| Setting::new(Controller::Cpuset, file, value)));
    }
    match version(Controller::Memory) {
        Some(Version::V1) => memory_v1(resources, &mut settings),
        Some(Version::V2) => memory_v2(resources, &mut settings),
        None => {}
    }
    if version(Controller::Pids).is_some() {
        settings.extend(resources.pids_limit.map(|limit| Setting::new(Controller::Pids, PIDS, or_max(limit))));
    }
    for (size, bytes) in &resources.hugepages {
        let file = match version(Controller::Hugetlb) {
            Some(Version::V1) => format!("hugetlb.{size}.limit_in_bytes"),
            Some(Version::V2) => format!("hugetlb.{size}.max"),
            None => continue,
        };
        // Kubelet forbids every size that is not asked for; without a controller nobody can enforce it, nor does any
        // other runtime refuse.
        settings.push(Setting::new(Controller::Hugetlb, file, bytes).optional(*bytes == 0));
        // Reservations count from Linux 5.7 on; a limit without them lets mmap(2) succeed and the first touch kill.
        let file = match version(Controller::Hugetlb) {
            Some(Version::V1) => format!("hugetlb.{size}.rsvd.limit_in_bytes"),
            _ => format!("hugetlb.{size}.rsvd.max"),
        };
        settings.push(Setting::new(Controller::Hugetlb, file, bytes).optional(true));
    }
    // Last, for these are what somebody wrote down literally.
    settings.extend(resources.unified.iter().filter(|(file, _)| *file != IDLE).flat_map(unified));
    settings
}

/// A file of the unified tree. Any controller will do, as there is one tree.
fn unified((file, value): (&String, &String)) -> Vec<Setting> {
    // What is said for each device (`io.max`) is taken one device at a time.
    let lines = value.split('\n').filter(|line| file.starts_with("io.") && !line.trim().is_empty());
    let mut settings: Vec<_> = lines.map(|line| Setting::new(Controller::Cpuacct, file, line.trim())).collect();
    if settings.is_empty() {
        settings.push(Setting::new(Controller::Cpuacct, file, value));
    }
    settings
}

fn cpu_v1(resources: &Resources, settings: &mut Vec<Setting>) {
    let mut set = |file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new(Controller::Cpu, file, value)));
    };
    set("cpu.shares", resources.cpu_shares.map(|shares| shares.to_string()));
    set("cpu.cfs_period_us", resources.cpu_period.map(|period| period.to_string()));
    set("cpu.cfs_quota_us", resources.cpu_quota.map(|quota| quota.to_string()));
}

fn cpu_v2(resources: &Resources, settings: &mut Vec<Setting>) {
    let mut set = |file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new(Controller::Cpu, file, value)));
    };
    // A cgroup that gets only idle time has no weight, and takes none.
    let idle = resources.unified.get(IDLE).map(|value| value.trim().to_owned());
    let is_idle = idle.as_deref() == Some("1");
    set(IDLE, idle);
    set("cpu.weight", resources.cpu_shares.filter(|_| !is_idle).map(|shares| weight(shares).to_string()));
    let max = match (resources.cpu_quota, resources.cpu_period) {
        (None, None) => None,
        (quota, Some(period)) => Some(format!("{} {period}", or_max(quota.unwrap_or(-1)))),
        (Some(quota), None) => Some(or_max(quota)),
    };
    set("cpu.max", max);
}

fn memory_v1(resources: &Resources, settings: &mut Vec<Setting>) {
    let (limit, swap) = (resources.memory_limit, resources.memory_swap);
    let memory = |file: &str, value: i64| Setting::new(Controller::Memory, file, value);
    settings.extend(limit.map(|limit| memory("memory.limit_in_bytes", limit)));
    // "No swap" holds by itself on a host that does not count swap and has none.
    let optional = swap == limit || swap == Some(-1);
    settings.extend(swap.map(|swap| memory("memory.memsw.limit_in_bytes", swap).optional(optional)));
}

fn memory_v2(resources: &Resources, settings: &mut Vec<Setting>) {
    let (limit, swap) = (resources.memory_limit, resources.memory_swap);
    settings.extend(limit.map(|limit| Setting::new(Controller::Memory, "memory.max", or_max(limit))));
    let alone = match (swap, limit) {
        (None, _) => return,
        (Some(-1), _) | (_, None | Some(-1)) => "max".to_owned(),
        (Some(swap), Some(limit)) => swap.saturating_sub(limit).max(0).to_string(),
    };
    let optional = alone == "0" || alone == "max";
    settings.push(Setting::new(Controller::Memory, "memory.swap.max", alone).optional(optional));
}

/// On v2 the kernel kills a container as a whole, as Kubernetes wants it. v1 cannot.
pub fn oom_group(host: &Host) -> Option<Setting> {
    let v2 = host.tree(Controller::Memory)?.version == Version::V2;
    v2.then(|| Setting::new(Controller::Memory, "memory.oom.group", 1).optional(true))
}

/// Device rules for v1, on a base of nothing. None if everything is allowed anyway.
pub fn devices(rules: &[DeviceRule]) -> Vec<Setting> {
    if allows_all(rules) {
        return Vec::new();
    }
    let mut settings = vec![Setting::new(Controller::Devices, "devices.deny", "a")];
    let set = |rule: &DeviceRule| {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        Setting::new(Controller::Devices, file, device(rule))
    };
    settings.extend(rules.iter().flat_map(both_kinds).map(|rule| set(&rule)));
    settings
}

/// Whether rules leave nothing out.
pub fn allows_all(rules: &[DeviceRule]) -> bool {
    let all = |rule: &DeviceRule| {
        rule.allow && (rule.kind, rule.major, rule.minor) == (None, None, None) && rule.access.len() == 3
    };
    // Later rules count more than earlier ones.
    let from = rules.iter().rposition(all);
    from.is_some_and(|from| rules[from..].iter().all(|rule| rule.allow))
}

/// The kernel knows both kinds at once (`a`) only for everything, so other rules are written for each.
fn both_kinds(rule: &DeviceRule) -> Vec<DeviceRule> {
    let whole = rule.major.is_none() && rule.minor.is_none() && rule.access.len() == 3;
    if rule.kind.is_some() || whole {
        return vec![rule.clone()];
    }
    let of = |kind| DeviceRule { kind: Some(kind), ..rule.clone() };
    vec![of(DeviceKind::Char), of(DeviceKind::Block)]
}

fn device(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        Some(DeviceKind::Char) => "c",
        Some(DeviceKind::Block) => "b",
        None => return "a".to_owned(),
    };
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
    format!("{kind} {}:{} {}", number(rule.major), number(rule.minor), rule.access)
}

/// v2's weight (1 to 10000) for v1's shares (2 to 262144), so that both defaults (100 and 1024) and both ends meet:
/// a parabola through the three points in logarithms, which the whole field changed to in 2025.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests;
