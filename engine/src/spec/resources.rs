//! Limits of a plan in the words of `config.json`.

use serde_json::{Value, json};
use tripod_shim_protocol::{DeviceRule, Resources};

pub(super) fn resources(resources: &Resources, unified: bool) -> Value {
    let hugepage = |(size, limit): (&String, &u64)| json!({ "pageSize": size, "limit": limit });
    super::present(json!({
        "devices": devices(&resources.devices),
        "memory": group(json!({ "limit": resources.memory_limit, "swap": resources.memory_swap })),
        "cpu": group(json!({
            "shares": resources.cpu_shares,
            "quota": resources.cpu_quota,
            "period": resources.cpu_period,
            "cpus": resources.cpuset_cpus,
            "mems": resources.cpuset_mems,
        })),
        "pids": resources.pids_limit.map(|limit| json!({ "limit": limit })),
        "hugepageLimits": some(resources.hugepages.iter().map(hugepage).collect()),
        // Means nothing on v1, and runtimes refuse it there.
        "unified": (unified && !resources.unified.is_empty()).then_some(&resources.unified),
    }))
}

/// An object without the members that are null, or null if none is left.
fn group(members: Value) -> Value {
    let members = super::present(members);
    if members.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { members }
}

fn some(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { list.into() }
}

/// The plan's rules go onto a base of nothing, which `config.json` has to spell out.
fn devices(rules: &[DeviceRule]) -> Vec<Value> {
    let rule = |rule: &DeviceRule| {
        super::present(json!({
            "allow": rule.allow,
            "type": rule.kind.map_or("a", super::kind),
            "major": rule.major,
            "minor": rule.minor,
            "access": rule.access,
        }))
    };
    std::iter::once(json!({ "allow": false, "access": "rwm" })).chain(rules.iter().map(rule)).collect()
}
