//! The first process of a plan in the words of `config.json`.

use serde_json::{Value, json};
use tripod_shim_protocol::{Capabilities, Capability, Credentials, ProcessPlan, Resource, Rlimit};

use crate::isolator::capability;

pub(super) fn process(process: &ProcessPlan) -> Value {
    super::present(json!({
        "terminal": process.terminal,
        "user": user(&process.credentials),
        "args": process.argv,
        "env": process.env,
        "cwd": process.cwd,
        "capabilities": capabilities(&process.capabilities),
        "rlimits": process.rlimits.iter().map(rlimit).collect::<Vec<_>>(),
        "noNewPrivileges": process.no_new_privs,
        // Without it the container would have that of whoever starts it.
        "oomScoreAdj": process.oom_score_adj.unwrap_or(0),
        "apparmorProfile": process.apparmor,
        "selinuxLabel": process.selinux,
    }))
}

fn user(credentials: &Credentials) -> Value {
    super::present(json!({
        "uid": credentials.uid,
        "gid": credentials.gid,
        "additionalGids": credentials.groups,
        "umask": credentials.umask,
    }))
}

fn capabilities(sets: &Capabilities) -> Value {
    let names = |set: &[Capability]| set.iter().map(|number| capability::name(*number)).collect::<Vec<_>>();
    json!({
        "bounding": names(&sets.bounding),
        "permitted": names(&sets.permitted),
        "effective": names(&sets.effective),
        "inheritable": names(&sets.inheritable),
        "ambient": names(&sets.ambient),
    })
}

fn rlimit(limit: &Rlimit) -> Value {
    json!({ "type": resource(limit.resource), "soft": limit.soft, "hard": limit.hard })
}

fn resource(resource: Resource) -> &'static str {
    match resource {
        Resource::As => "RLIMIT_AS",
        Resource::Core => "RLIMIT_CORE",
        Resource::Cpu => "RLIMIT_CPU",
        Resource::Data => "RLIMIT_DATA",
        Resource::Fsize => "RLIMIT_FSIZE",
        Resource::Locks => "RLIMIT_LOCKS",
        Resource::Memlock => "RLIMIT_MEMLOCK",
        Resource::Msgqueue => "RLIMIT_MSGQUEUE",
        Resource::Nice => "RLIMIT_NICE",
        Resource::Nofile => "RLIMIT_NOFILE",
        Resource::Nproc => "RLIMIT_NPROC",
        Resource::Rss => "RLIMIT_RSS",
        Resource::Rtprio => "RLIMIT_RTPRIO",
        Resource::Rttime => "RLIMIT_RTTIME",
        Resource::Sigpending => "RLIMIT_SIGPENDING",
        Resource::Stack => "RLIMIT_STACK",
    }
}
