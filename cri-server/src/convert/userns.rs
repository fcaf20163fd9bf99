//! User namespaces: which IDs of the host a pod gets.

use tripod_cri_api::v1::{IdMapping, NamespaceMode, NamespaceOption, UserNamespace};
use tripod_engine::{IdRange, PodConfig, PodNamespaces, UserMapping};

use super::{Refusal, Refused, security};

/// The user namespace of a pod; `None` is the host's, as for a client that says nothing. `impossible` says why pods cannot
/// have one, if so.
pub(super) fn of_pod(field: &str, options: &NamespaceOption, impossible: Option<&str>) -> Refused<Option<UserMapping>> {
    let Some(asked) = &options.userns_options else { return Ok(None) };
    let mapping = convert(field, asked)?;
    if mapping.is_none() {
        return Ok(None);
    }
    let field = |name: &str| format!("{field}.{name}");
    if let Some(why) = impossible {
        let problem = format!("pods here cannot have user namespaces: {why}; set hostUsers to true");
        return Err(Refusal::new(field("userns_options"), problem));
    }
    for (name, mode) in [("pid", options.pid), ("ipc", options.ipc)] {
        if security::mode(&field(name), mode)? == NamespaceMode::Node {
            let problem = "NODE needs the host's user namespace: set hostUsers to true";
            return Err(Refusal::new(field(name), problem));
        }
    }
    Ok(mapping)
}

/// Checks that a container asks for what its pod has; one that says nothing gets that.
pub(super) fn of_container(field: &str, options: &NamespaceOption, pod: &PodConfig) -> Refused<()> {
    let Some(asked) = &options.userns_options else { return Ok(()) };
    if convert(field, asked)? == pod.namespaces.user {
        return Ok(());
    }
    let has = pod.namespaces.user.map_or("the host's user namespace".to_owned(), |ids| {
        format!("a user namespace with users {} and groups {}", ids.uids, ids.gids)
    });
    Err(Refusal::new(format!("{field}.userns_options"), format!("must be that of the pod sandbox, which has {has}")))
}

/// Whether a mount is to show mapped IDs. Those of the pod are the only ones that make sense in it.
pub(super) fn of_mount(field: &str, uids: &[IdMapping], gids: &[IdMapping], pod: PodNamespaces) -> Refused<bool> {
    if uids.is_empty() && gids.is_empty() {
        return Ok(false);
    }
    let asked = UserMapping {
        uids: range(&format!("{field}.uidMappings"), uids)?,
        gids: range(&format!("{field}.gidMappings"), gids)?,
    };
    if pod.user != Some(asked) {
        let problem = "must be the mappings of the pod sandbox's user namespace, or none";
        return Err(Refusal::new(format!("{field}.uidMappings"), problem));
    }
    Ok(true)
}

/// For a status.
pub(super) fn to_wire(mapping: Option<UserMapping>) -> UserNamespace {
    let list = |range: IdRange| vec![IdMapping { host_id: range.host, container_id: 0, length: range.length }];
    match mapping {
        None => UserNamespace { mode: NamespaceMode::Node.into(), ..Default::default() },
        Some(ids) => UserNamespace { mode: NamespaceMode::Pod.into(), uids: list(ids.uids), gids: list(ids.gids) },
    }
}

fn convert(field: &str, asked: &UserNamespace) -> Refused<Option<UserMapping>> {
    let field = format!("{field}.userns_options");
    match security::mode(&format!("{field}.mode"), asked.mode)? {
        NamespaceMode::Node if asked.uids.is_empty() && asked.gids.is_empty() => Ok(None),
        NamespaceMode::Node => Err(Refusal::new(field, "the host's user namespace cannot have mappings")),
        NamespaceMode::Pod => Ok(Some(UserMapping {
            uids: range(&format!("{field}.uids"), &asked.uids)?,
            gids: range(&format!("{field}.gids"), &asked.gids)?,
        })),
        _ => Err(Refusal::new(format!("{field}.mode"), "must be POD or NODE")),
    }
}

/// The one range that Kubernetes gives a pod. The host's root is in nobody's: that would be no namespace at all.
fn range(field: &str, mappings: &[IdMapping]) -> Refused<IdRange> {
    let [IdMapping { host_id, container_id, length }] = *mappings else {
        return Err(Refusal::new(field, format!("must be exactly one mapping, not {}", mappings.len())));
    };
    if container_id != 0 {
        return Err(Refusal::new(field, format!("must begin with container_id 0, not {container_id}")));
    }
    if length == 0 {
        return Err(Refusal::new(field, "the length must not be 0"));
    }
    if host_id == 0 {
        return Err(Refusal::new(field, "host_id 0 would make the pod's root that of the host"));
    }
    // The kernel keeps the highest number for "no change".
    if u64::from(host_id) + u64::from(length) > u64::from(u32::MAX) {
        return Err(Refusal::new(field, format!("{length} IDs from {host_id} on go beyond {}", u32::MAX - 1)));
    }
    Ok(IdRange { host: host_id, length })
}

#[cfg(test)]
mod tests;
