//! The three files that make a pod's network usable: resolv.conf, hostname and hosts.
//!
//! They are written into the pod's folder when the pod is made, shared by its containers, and mounted wherever the
//! request does not mount something of its own (kubelet brings its own /etc/hosts).

use std::{
    fmt::Write,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use tripod_shim_protocol::{LaunchPlan, Mount, MountFlags, MountSource, UserMapping};

use super::{invalid, mounts, namespaces};
use crate::{
    DnsConfig, Error, Result,
    plugin::{ContainerContext, Isolator, PodContext, PodSetup},
};

/// The host's resolver configuration.
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// The name servers behind systemd-resolved's stub, which listens on the host's loopback only.
const RESOLVED_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Names of the files in the pod's folder, each with its place in containers.
const FILES: [(&str, &str); 3] =
    [("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")];

/// Writes and mounts the files.
#[derive(Debug, Clone, Copy)]
pub struct Files;

#[async_trait]
impl Isolator for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    async fn prepare_pod(&self, pod: PodContext<'_>, setup: &mut PodSetup) -> Result<()> {
        let host_network = pod.config.namespaces.host_network;
        let hostname = if host_network { namespaces::host_hostname() } else { namespaces::hostname(pod.config)? };
        let resolv_conf = match pod.config.dns.as_ref().map(resolv_conf).transpose()? {
            Some(text) if !text.is_empty() => text,
            _ => host_resolv_conf(host_network)?,
        };
        let hosts = if host_network { read("/etc/hosts")? } else { hosts(&hostname, &setup.ips) };
        // A few hundred bytes on a tmpfs; the engine removes the folder with the pod.
        write(pod.dir, "hostname", &format!("{hostname}\n"))?;
        write(pod.dir, "hosts", &hosts)?;
        write(pod.dir, "resolv.conf", &resolv_conf)?;
        pod.config.namespaces.user.map_or(Ok(()), |ids| give(pod.dir, ids))
    }

    async fn prepare(&self, container: ContainerContext<'_>, plan: &mut LaunchPlan) -> Result<()> {
        let config = container.config;
        for (file, target) in FILES {
            let target = PathBuf::from(target);
            if config.mounts.iter().any(|mount| mounts::same_path(&mount.container_path, &target)) {
                continue;
            }
            plan.mounts.push(Mount {
                target,
                source: MountSource::Bind { path: container.pod.dir.join(file), recursive: false },
                flags: MountFlags { read_only: config.security.read_only_rootfs, ..MountFlags::default() },
                propagation: None,
                map_ids: false,
            });
        }
        Ok(())
    }
}

/// A resolver configuration as text; empty if nothing is configured.
fn resolv_conf(dns: &DnsConfig) -> Result<String> {
    for word in dns.servers.iter().chain(&dns.searches).chain(&dns.options) {
        if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(invalid(format!("{word:?} in the DNS configuration of the pod is not one word")));
        }
    }
    let mut text = String::new();
    let mut line = |words: &str| text.push_str(&format!("{words}\n"));
    if !dns.searches.is_empty() {
        line(&format!("search {}", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        line(&format!("nameserver {server}"));
    }
    if !dns.options.is_empty() {
        line(&format!("options {}", dns.options.join(" ")));
    }
    Ok(text)
}

/// The host's configuration, with servers that can be reached from the pod.
fn host_resolv_conf(host_network: bool) -> Result<String> {
    let text = read(HOST_RESOLV_CONF)?;
    if !host_network && only_stub(&text) {
        let behind = read(RESOLVED_RESOLV_CONF)?;
        if !behind.is_empty() {
            return Ok(behind);
        }
    }
    Ok(text)
}

/// Whether the only name server is systemd-resolved's stub.
fn only_stub(resolv_conf: &str) -> bool {
    let mut servers = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim);
    servers.next() == Some("127.0.0.53") && servers.next().is_none()
}

/// /etc/hosts with the pod's own name.
fn hosts(hostname: &str, ips: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for ip in ips {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{ip}\t{hostname}");
    }
    text
}

/// A file of the host; empty if there is none.
fn read(path: &str) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::io(format!("reading {path}"), e)),
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(|e| Error::io(format!("writing {}", path.display()), e))?;
    // Users in the container must read it whatever umask the daemon was started with.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&path, readable).map_err(|e| Error::io(format!("opening {} to users", path.display()), e))
}

/// Makes the files the pod's own root's, who may write to them like any root.
fn give(dir: &Path, ids: UserMapping) -> Result<()> {
    for (file, _) in FILES {
        let path = dir.join(file);
        std::os::unix::fs::chown(&path, Some(ids.uids.host), Some(ids.gids.host))
            .map_err(|e| Error::io(format!("giving {} to the pod's root", path.display()), e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
