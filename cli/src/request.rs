//! From the arguments of `run` to the requests for its pod and container.

use std::{collections::HashMap, path::Path};

use tripod_cri_api::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, SecurityProfile,
    security_profile::ProfileType,
};

use crate::{
    CliError,
    args::{Network, RunArgs},
};

/// Namespace of the pods that people make by hand, in the sense of Kubernetes.
const NAMESPACE: &str = "tripod";

/// Annotation of a pod that `run` has made and left: the folder of its logs.
pub(crate) const LOGS: &str = "tripod.run/logs";

/// Where these folders are.
pub(crate) const LOGS_FOLDER: &str = "/var/log/tripod";

/// Length of a CPU period in microseconds, and the CPU weight of one CPU, as Kubernetes has them.
const PERIOD: f64 = 100_000.0;
const SHARES: f64 = 1024.0;

/// The pod, whose logs go to a folder.
pub(crate) fn pod(args: &RunArgs, name: &str, uid: &str, logs: &Path) -> Result<PodSandboxConfig, CliError> {
    // The name becomes that of a folder, and the host name.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(plain) || !name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) || name.len() > 63 {
        let message = format!("--name {name:?} must have 1 to 63 letters, digits, dots, dashes and underscores");
        return Err(CliError::Usage(message));
    }
    let context = LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(args)),
        privileged: args.privileged,
        ..LinuxSandboxSecurityContext::default()
    };
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        }),
        hostname: if args.network == Network::Host { String::new() } else { name.to_owned() },
        log_directory: logs.to_string_lossy().into_owned(),
        annotations: HashMap::from([(LOGS.to_owned(), logs.to_string_lossy().into_owned())]),
        port_mappings: args.publish.iter().map(|text| port(text)).collect::<Result<_, _>>()?,
        linux: Some(LinuxPodSandboxConfig { security_context: Some(context), ..LinuxPodSandboxConfig::default() }),
        ..PodSandboxConfig::default()
    })
}

/// The container, made from an image that is here.
pub(crate) fn container(args: &RunArgs, name: &str, image_id: &str) -> Result<ContainerConfig, CliError> {
    let (run_as_user, run_as_group, run_as_username) = user(args.user.as_deref().unwrap_or_default())?;
    let context = LinuxContainerSecurityContext {
        privileged: args.privileged,
        namespace_options: Some(namespaces(args)),
        readonly_rootfs: args.read_only,
        run_as_user,
        run_as_group,
        run_as_username,
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            ..SecurityProfile::default()
        }),
        // What containers have no business with.
        masked_paths: if args.privileged { Vec::new() } else { MASKED.map(str::to_owned).to_vec() },
        readonly_paths: if args.privileged { Vec::new() } else { READ_ONLY.map(str::to_owned).to_vec() },
        ..LinuxContainerSecurityContext::default()
    };
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(ImageSpec {
            image: image_id.to_owned(),
            user_specified_image: args.image.clone(),
            ..ImageSpec::default()
        }),
        command: args.entrypoint.clone().into_iter().collect(),
        args: args.command.clone(),
        working_dir: args.workdir.clone().unwrap_or_default(),
        envs: args.env.iter().map(|text| env(text)).collect::<Result<_, _>>()?,
        mounts: args.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
        log_path: LOG.to_owned(),
        linux: Some(LinuxContainerConfig { resources: Some(resources(args)?), security_context: Some(context) }),
        ..ContainerConfig::default()
    })
}

/// Name of the container's log in the pod's folder.
pub(crate) const LOG: &str = "0.log";

/// What Kubernetes masks and write-protects in /proc and /sys unless it is told otherwise.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn namespaces(args: &RunArgs) -> NamespaceOption {
    let network = if args.network == Network::Host { NamespaceMode::Node } else { NamespaceMode::Pod };
    NamespaceOption { network: network.into(), pid: NamespaceMode::Container.into(), ..NamespaceOption::default() }
}

fn env(text: &str) -> Result<KeyValue, CliError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(KeyValue { key: key.to_owned(), value: value.as_bytes().to_vec() }),
        // As other tools have it: a name alone hands on one's own.
        None if !text.is_empty() => Ok(KeyValue {
            key: text.to_owned(),
            value: std::env::var_os(text).unwrap_or_default().into_encoded_bytes(),
        }),
        _ => Err(CliError::Usage(format!("--env {text:?} is not NAME=VALUE"))),
    }
}

fn volume(text: &str) -> Result<Mount, CliError> {
    let wrong = || {
        CliError::Usage(format!("--volume {text:?} is not HOST:CONTAINER or HOST:CONTAINER:ro, both absolute paths"))
    };
    let mut parts = text.split(':');
    let (host, container, mode) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(wrong)?, parts.next());
    if !host.starts_with('/') || !container.starts_with('/') || parts.next().is_some() {
        return Err(wrong());
    }
    let readonly = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return Err(wrong()),
    };
    Ok(Mount { host_path: host.to_owned(), container_path: container.to_owned(), readonly, ..Mount::default() })
}

fn port(text: &str) -> Result<PortMapping, CliError> {
    let wrong = || {
        CliError::Usage(format!(
            "--publish {text:?} is not HOST:CONTAINER with ports from 1 to 65535, or with /udp behind"
        ))
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(wrong()),
    };
    let (host, container) = ports.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    Ok(PortMapping {
        protocol: protocol.into(),
        host_port: number(host)?.into(),
        container_port: number(container)?.into(),
        host_ip: String::new(),
    })
}

type User = (Option<Int64Value>, Option<Int64Value>, String);

fn user(text: &str) -> Result<User, CliError> {
    let wrong = || CliError::Usage(format!("--user {text:?} is neither a name nor UID or UID:GID"));
    if text.is_empty() {
        return Ok((None, None, String::new()));
    }
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let id = |text: &str| text.parse::<u32>().ok().map(|id| Int64Value { value: id.into() });
    let group = group.map(|group| id(group).ok_or_else(wrong)).transpose()?;
    match id(user) {
        Some(uid) => Ok((Some(uid), group, String::new())),
        None if user.is_empty() => Err(wrong()),
        None => Ok((None, group, user.to_owned())),
    }
}

fn resources(args: &RunArgs) -> Result<LinuxContainerResources, CliError> {
    let mut resources = LinuxContainerResources::default();
    if let Some(text) = &args.memory {
        resources.memory_limit_in_bytes = bytes(text)?;
        // No swap beyond it: a limit that is half kept surprises people.
        resources.memory_swap_limit_in_bytes = resources.memory_limit_in_bytes;
    }
    if let Some(cpus) = args.cpus {
        if !(0.01..=4096.0).contains(&cpus) {
            return Err(CliError::Usage(format!("--cpus {cpus} is not between 0.01 and 4096")));
        }
        resources.cpu_period = PERIOD as i64;
        resources.cpu_quota = (cpus * PERIOD) as i64;
        resources.cpu_shares = (cpus * SHARES).max(2.0) as i64;
    }
    Ok(resources)
}

fn bytes(text: &str) -> Result<i64, CliError> {
    let wrong = || CliError::Usage(format!("--memory {text:?} is not a size like 512m or 2g"));
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let number = digits.parse::<i64>().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
