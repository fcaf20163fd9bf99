//! The sandbox of a request becomes the engine's pod.

use std::{collections::BTreeMap, net::IpAddr};

use tripod_cri_api::v1::{
    self, DnsConfig as WireDns, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig,
};
use tripod_engine::{DnsConfig, PidMode, PodConfig, PodNamespaces, PortMapping, Protocol, plugin::Features};

use super::{
    Refusal, Refused,
    refusal::{absolute, plain, required},
    security, userns,
};

/// The longest host name that the kernel takes, in bytes.
const MAX_HOSTNAME: usize = 64;

/// Checks a request for a sandbox and puts it into the engine's words. `no_user_namespaces` says why no pod of this node
/// can have one, if so.
pub(crate) fn pod_config(
    asked: &PodSandboxConfig,
    handler: &str,
    handlers: &BTreeMap<String, Features>,
    no_user_namespaces: Option<&str>,
) -> Refused<PodConfig> {
    let metadata = asked.metadata.as_ref().ok_or_else(|| Refusal::new("config.metadata", "is missing").of("pod"))?;
    known(handler, handlers)
        .and_then(|()| {
            let features = handlers.get(handler).copied().unwrap_or_default();
            let of_handler = (!features.user_namespaces).then_some("those of this runtime handler never have one");
            convert(asked, metadata, handler, no_user_namespaces.or(of_handler))
        })
        .map_err(|refusal| refusal.of(format_args!("pod {}/{}", metadata.namespace, metadata.name)))
}

/// A handler that is not configured must not be served by another.
fn known(handler: &str, handlers: &BTreeMap<String, Features>) -> Refused<()> {
    if handler.is_empty() || handlers.contains_key(handler) {
        return Ok(());
    }
    let named: Vec<&str> = handlers.keys().map(String::as_str).filter(|name| !name.is_empty()).collect();
    let there = if named.is_empty() { "only the default one".to_owned() } else { named.join(", ") };
    Err(Refusal::new("runtime_handler", format!("{handler:?} is not configured; there is {there}")))
}

/// `no_user_namespaces` says why pods of the handler cannot have one, if so.
fn convert(
    asked: &PodSandboxConfig,
    metadata: &v1::PodSandboxMetadata,
    handler: &str,
    no_user_namespaces: Option<&str>,
) -> Refused<PodConfig> {
    if asked.windows.is_some() {
        return Err(Refusal::new("config.windows", "this is a Linux runtime"));
    }
    let nothing = LinuxPodSandboxConfig::default();
    let linux = asked.linux.as_ref().unwrap_or(&nothing);
    let nothing = LinuxSandboxSecurityContext::default();
    let context = linux.security_context.as_ref().unwrap_or(&nothing);
    check_security(context)?;
    let namespaces = namespaces(context.namespace_options.as_ref(), no_user_namespaces)?;
    Ok(PodConfig {
        name: required("config.metadata.name", &metadata.name)?,
        uid: required("config.metadata.uid", &metadata.uid)?,
        namespace: required("config.metadata.namespace", &metadata.namespace)?,
        attempt: metadata.attempt,
        hostname: hostname(&asked.hostname)?,
        log_directory: match asked.log_directory.as_str() {
            "" => None,
            path => Some(absolute("config.log_directory", path)?),
        },
        dns: asked.dns_config.as_ref().map(dns).transpose()?,
        // The kubelet lists the ports of pods on the host's network too: they are open without anybody's help.
        ports: if namespaces.host_network { Vec::new() } else { ports(&asked.port_mappings)? },
        labels: asked.labels.clone().into_iter().collect(),
        annotations: asked.annotations.clone().into_iter().collect(),
        cgroup_parent: cgroup_parent(&linux.cgroup_parent)?,
        namespaces,
        sysctls: linux.sysctls.iter().map(|(name, value)| sysctl(name, value)).collect::<Refused<_>>()?,
        selinux: security::selinux("config.linux.security_context.selinux_options", context.selinux_options.as_ref())?,
        privileged: context.privileged,
        runtime_handler: handler.to_owned(),
    })
}

/// The sandbox has no process of its own, so user, groups and root filesystem say nothing here; what is left is
/// checked.
fn check_security(context: &LinuxSandboxSecurityContext) -> Refused<()> {
    let at = |name: &str| format!("config.linux.security_context.{name}");
    #[allow(deprecated)]
    let former = context.seccomp_profile_path.as_str();
    security::sandbox_seccomp(&at("seccomp"), context.seccomp.as_ref(), former)?;
    if context.run_as_group.is_some() && context.run_as_user.is_none() {
        return Err(Refusal::new(at("run_as_group"), "needs run_as_user beside it"));
    }
    Ok(())
}

/// A client that says nothing gets what a pod of Kubernetes gets: a PID namespace for each container.
fn namespaces(options: Option<&NamespaceOption>, no_user_namespaces: Option<&str>) -> Refused<PodNamespaces> {
    let Some(options) = options else { return Ok(PodNamespaces::default()) };
    let at = |name: &str| format!("config.linux.security_context.namespace_options{name}");
    let user = userns::of_pod(&at(""), options, no_user_namespaces)?;
    let host = |name: &str, mode: i32| {
        let field = at(name);
        match security::mode(&field, mode)? {
            NamespaceMode::Pod => Ok(false),
            NamespaceMode::Node => Ok(true),
            _ => Err(Refusal::new(field, "must be POD or NODE")),
        }
    };
    Ok(PodNamespaces {
        user,
        host_network: host(".network", options.network)?,
        host_ipc: host(".ipc", options.ipc)?,
        pid: match security::mode(&at(".pid"), options.pid)? {
            NamespaceMode::Pod => PidMode::Pod,
            NamespaceMode::Container => PidMode::Container,
            NamespaceMode::Node => PidMode::Node,
            NamespaceMode::Target => return Err(Refusal::new(at(".pid"), "TARGET is for containers only")),
        },
    })
}

fn hostname(name: &str) -> Refused<String> {
    let name = plain("config.hostname", name)?;
    if name.len() > MAX_HOSTNAME {
        let problem = format!("{name:?} is longer than the {MAX_HOSTNAME} bytes that the kernel takes");
        return Err(Refusal::new("config.hostname", problem));
    }
    // The name goes into /etc/hosts: a space or a newline in it would be an entry of its own.
    if name.chars().any(|letter| letter.is_whitespace() || letter.is_control() || letter == '/') {
        return Err(Refusal::new("config.hostname", format!("{name:?} is no host name")));
    }
    Ok(name)
}

fn dns(asked: &WireDns) -> Refused<DnsConfig> {
    let words = |field: &str, words: &[String]| -> Refused<Vec<String>> {
        for word in words {
            if word.is_empty() || word.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
                return Err(Refusal::new(format!("config.dns_config.{field}"), format!("{word:?} is not one word")));
            }
        }
        Ok(words.to_vec())
    };
    Ok(DnsConfig {
        servers: words("servers", &asked.servers)?,
        searches: words("searches", &asked.searches)?,
        options: words("options", &asked.options)?,
    })
}

/// Ports of the host that lead to the pod; entries without one only inform.
fn ports(asked: &[v1::PortMapping]) -> Refused<Vec<PortMapping>> {
    let mut ports = Vec::new();
    for (index, mapping) in asked.iter().enumerate() {
        let field = |name: &str| format!("config.port_mappings[{index}].{name}");
        let number = |name: &str, value: i32| {
            u16::try_from(value).map_err(|_| Refusal::new(field(name), format!("{value} is outside of 0 to 65535")))
        };
        let container_port = number("container_port", mapping.container_port)?;
        let host_port = number("host_port", mapping.host_port)?;
        let protocol = match v1::Protocol::try_from(mapping.protocol) {
            Ok(v1::Protocol::Tcp) => Protocol::Tcp,
            Ok(v1::Protocol::Udp) => Protocol::Udp,
            Ok(v1::Protocol::Sctp) => Protocol::Sctp,
            Err(_) => return Err(Refusal::new(field("protocol"), format!("{} is no protocol", mapping.protocol))),
        };
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(
                text.parse::<IpAddr>()
                    .map_err(|error| Refusal::new(field("host_ip"), format!("{text:?} is no IP address: {error}")))?,
            ),
        };
        if host_port == 0 {
            continue;
        }
        if container_port == 0 {
            return Err(Refusal::new(field("container_port"), format!("is missing for host port {host_port}")));
        }
        ports.push(PortMapping { protocol, container_port, host_port, host_ip });
    }
    Ok(ports)
}

/// A path below the root of the hierarchies, or the name of a slice; which of them it has to be is the driver's to say.
fn cgroup_parent(text: &str) -> Refused<Option<String>> {
    let field = "config.linux.cgroup_parent";
    if text.is_empty() {
        return Ok(None);
    }
    let text = plain(field, text)?;
    if !text.starts_with('/') && !text.ends_with(".slice") {
        let problem = "is neither a path below the cgroup root nor the name of a slice";
        return Err(Refusal::new(field, format!("{text:?} {problem}")));
    }
    if text.split('/').any(|part| part == ".." || part == ".") {
        return Err(Refusal::new(field, format!("{text:?} must not contain \".\" or \"..\"")));
    }
    Ok(Some(text))
}

/// Name and value of a sysctl. Which of them belong to a pod's namespaces is the engine's to say.
fn sysctl(name: &str, value: &str) -> Refused<(String, String)> {
    let field = "config.linux.sysctls";
    let name = required(field, name)?;
    let safe = name
        .split(['.', '/'])
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
    if !safe {
        return Err(Refusal::new(field, format!("{name:?} is no name of a sysctl")));
    }
    Ok((name, plain(field, value)?))
}
