//! tripod's own profile: what the default profiles of other runtimes allow and deny.

use std::path::Path;

use sha2::{Digest, Sha256};

/// How the names of all versions begin. The rest is a digest, so that a newer daemon's profile is one of its own and
/// does not change what running containers may do.
const NAME: &str = "tripod-default-";

/// A profile in the words of `apparmor_parser`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub text: String,
}

impl Policy {
    /// For a daemon under the profile `own`, on a node with the parser's files below `base`.
    pub fn new(base: &Path, own: &str) -> Self {
        // Newer ABIs also mediate what this profile says nothing about, and would deny it.
        let abi = if base.join("abi/3.0").exists() { "abi <abi/3.0>,\n\n" } else { "" };
        let rules = rules(own);
        let digest = Sha256::digest(format!("{abi}{rules}").as_bytes());
        let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{NAME}{digest}");
        let text = format!("{abi}profile {name} flags=(attach_disconnected, mediate_deleted) {{\n{rules}}}\n");
        Self { name, text }
    }
}

fn rules(own: &str) -> String {
    // The shim ends containers, and it runs under the daemon's profile; OCI runtimes have ones of their own.
    let own = if own == "unconfined" { String::new() } else { format!("  signal (receive) peer=\"{own}\",\n") };
    format!(
        "  # What is not denied below is left to users, capabilities and mounts.
  file,
  network,
  capability,
  umount,

  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
{own}  signal (send, receive) peer={NAME}*,
  ptrace (trace, tracedby, read, readby) peer={NAME}*,

  deny mount,

  # Of procfs a process may write what belongs to processes, and the settings of shared memory.
  deny /proc/* w,
  deny /proc/{{[^0-9s/],s[^y],sy[^s],sys[^/]}}** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{{[^s],s[^h],sh[^m]}}** w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  # Of sysfs only cgroups.
  deny /sys/{{[^f],f[^s],fs/[^c],fs/c[^g],fs/cg[^r]}}** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
"
    )
}
