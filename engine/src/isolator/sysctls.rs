//! Sysctls of a pod: only those that the kernel keeps per namespace, and only where that namespace is the pod's own.
//! A sysctl of the host must never be reached from here.

use async_trait::async_trait;

use super::invalid;
use crate::{
    ByHandler, Limits, PodNamespaces, Result,
    plugin::{Isolator, PodContext, PodSetup},
};

/// The pod's `/dev/shm`, in bytes; what kubelet and its users expect.
const SHM_SIZE: u64 = 64 << 20;

/// The longest value that makes sense; the kernel takes a page.
const MAX_VALUE: usize = 4095;

/// Checks sysctls and sizes the pod's shared memory.
#[derive(Debug, Clone, Default)]
pub struct Sysctls {
    /// Name and value of what the operator sets in every pod that can have it.
    defaults: ByHandler<Vec<(Owner, String, String)>>,
}

impl Sysctls {
    /// With what the operator sets for pods; what is not kept per namespace is left out there.
    pub fn new(limits: &ByHandler<Limits>) -> Self {
        let known = |(name, value): (&String, &String)| Some((owner(name)?, name.clone(), value.clone()));
        Self { defaults: limits.map(|limits| limits.sysctls.iter().filter_map(known).collect()) }
    }

    /// Checks a sysctl that is to be set for every pod. Gives its dotted name.
    pub fn check(name: &str, value: &str) -> Result<String> {
        check(name, value, PodNamespaces::default())
    }
}

#[async_trait]
impl Isolator for Sysctls {
    fn name(&self) -> &'static str {
        "sysctls"
    }

    async fn prepare_pod(&self, pod: PodContext<'_>, setup: &mut PodSetup) -> Result<()> {
        let namespaces = pod.config.namespaces;
        for (owner, name, value) in self.defaults.of(&pod.config.runtime_handler) {
            if !owner.is_hosts(namespaces) {
                setup.plan.sysctls.insert(name.clone(), value.clone());
            }
        }
        // The pod's own win.
        for (name, value) in &pod.config.sysctls {
            let name = check(name, value, namespaces)?;
            setup.plan.sysctls.insert(name, value.clone());
        }
        // POSIX shared memory goes with the IPC namespace.
        setup.plan.shm_size = (!namespaces.host_ipc).then_some(SHM_SIZE);
        Ok(())
    }
}

/// The namespace that a sysctl belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Network,
    Ipc,
}

impl Owner {
    /// Whether a pod shares this namespace with the host.
    fn is_hosts(self, namespaces: PodNamespaces) -> bool {
        match self {
            Self::Network => namespaces.host_network,
            Self::Ipc => namespaces.host_ipc,
        }
    }
}

/// The dotted name, if the sysctl may be set in such a pod.
fn check(name: &str, value: &str, namespaces: PodNamespaces) -> Result<String> {
    let dotted = dotted(name).ok_or_else(|| invalid(format!("{name:?} is not the name of a sysctl")))?;
    let owner = owner(&dotted).ok_or_else(|| {
        invalid(format!(
            "the sysctl {name} is not kept per namespace, so it can only be set on the node itself; pods can have net.*, \
             kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.*"
        ))
    })?;
    if owner.is_hosts(namespaces) {
        let place = match owner {
            Owner::Network => "on the host's network",
            Owner::Ipc => "in the host's IPC namespace",
        };
        return Err(invalid(format!("the sysctl {name} cannot be set for a pod {place}")));
    }
    if value.is_empty() || value.len() > MAX_VALUE || value.contains(['\0', '\n']) {
        return Err(invalid(format!("the value {value:?} of the sysctl {name} is empty, too long or not one line")));
    }
    Ok(dotted)
}

/// A name in dotted form, where a slash stands for a dot inside a component (`net.ipv4.conf.eth0/7.rp_filter`). In
/// names that come with slashes it is the other way round; the first of the two signs tells which one it is.
fn dotted(name: &str) -> Option<String> {
    let swap = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    let name: String = name
        .chars()
        .map(|c| match c {
            '.' if swap => '/',
            '/' if swap => '.',
            c => c,
        })
        .collect();
    let good = |part: &str| {
        let file = part.replace('/', ".");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@' | '+');
        !file.is_empty() && file != "." && file != ".." && file.chars().all(plain)
    };
    (name.contains('.') && name.split('.').all(good)).then_some(name)
}

fn owner(dotted: &str) -> Option<Owner> {
    let ipc = dotted == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix));
    if ipc {
        // `kernel.shm.x` is no sysctl, and no folder of the kernel's has such a name.
        return (dotted.starts_with("fs.") || dotted.matches('.').count() == 1).then_some(Owner::Ipc);
    }
    dotted.starts_with("net.").then_some(Owner::Network)
}

#[cfg(test)]
mod tests;
