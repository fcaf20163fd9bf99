//! Mounts of a plan in the words of `config.json`: a type, a source, and options as for mount(8).

use serde_json::{Value, json};
use tripod_shim_protocol::{LaunchPlan, Mount, MountFlags, MountSource, Propagation};

use super::Surroundings;

pub(super) fn mount(mount: &Mount, around: &Surroundings) -> Value {
    let bind = |path: Value, recursive: bool| ("bind".to_owned(), path, vec![bind(recursive).to_owned()]);
    let (fstype, source, mut options) = match &mount.source {
        MountSource::Bind { path, recursive } => bind(json!(path), *recursive),
        MountSource::Filesystem { fstype, options } => {
            let option = |option: &tripod_shim_protocol::FsOption| match &option.value {
                Some(value) => format!("{}={value}", option.key),
                None => option.key.clone(),
            };
            (fstype.clone(), json!(fstype), options.iter().map(option).collect())
        }
        MountSource::PodShm => bind(json!(around.shm), false),
        MountSource::Cgroups => ("cgroup".to_owned(), json!("cgroup"), Vec::new()),
        MountSource::Detached(index) => bind(json!(around.volumes.join(index.to_string())), true),
    };
    options.extend(flags(mount.flags).map(str::to_owned));
    if fstype == "bind" {
        options.push(propagation(mount.propagation).to_owned());
    }
    let ids = around.user.as_ref().filter(|_| mount.map_ids).map(|(_, ids)| *ids);
    if ids.is_some() {
        let below = matches!(mount.source, MountSource::Bind { recursive: true, .. });
        options.push(if below { "ridmap" } else { "idmap" }.to_owned());
    }
    super::present(json!({
        "destination": mount.target,
        "type": fstype,
        "source": source,
        "options": options,
        "uidMappings": ids.map(|ids| super::mapping(ids.uids)),
        "gidMappings": ids.map(|ids| super::mapping(ids.gids)),
    }))
}

fn bind(recursive: bool) -> &'static str {
    if recursive { "rbind" } else { "bind" }
}

fn flags(flags: MountFlags) -> impl Iterator<Item = &'static str> {
    // What to do with a link at the target is the runtime's own business.
    let MountFlags { read_only, recursive_read_only, nosuid, nodev, noexec, over_link: _ } = flags;
    let all = [
        (read_only && !recursive_read_only, "ro"),
        (recursive_read_only, "rro"),
        (nosuid, "nosuid"),
        (nodev, "nodev"),
        (noexec, "noexec"),
    ];
    all.into_iter().filter_map(|(on, name)| on.then_some(name))
}

fn propagation(propagation: Option<Propagation>) -> &'static str {
    match propagation {
        None | Some(Propagation::Private) => "rprivate",
        Some(Propagation::HostToContainer) => "rslave",
        Some(Propagation::Bidirectional) => "rshared",
    }
}

/// The propagation that the root needs for that of the mounts: without it a runtime cuts all off from the host, one way
/// (runc) or both (crun).
pub(super) fn of_root(plan: &LaunchPlan) -> Option<&'static str> {
    let any = |wanted| plan.mounts.iter().any(|mount| mount.propagation == Some(wanted));
    if any(Propagation::Bidirectional) {
        Some("rshared")
    } else {
        any(Propagation::HostToContainer).then_some("rslave")
    }
}
