//! Names of capabilities.

use tripod_shim_protocol::Capability;

/// Names by number, without `CAP_`; as of Linux 5.9, which added the last one.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The number of a capability written as `NET_ADMIN` or `CAP_NET_ADMIN`, in any case. `ALL` is not one of them.
pub fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    (0..).zip(NAMES).find(|(_, known)| *known == plain).map(|(number, _)| number)
}

/// The name of a capability, as `CAP_NET_ADMIN`; a number that has none here as `CAP_41`.
pub fn name(capability: Capability) -> String {
    match NAMES.get(usize::from(capability)) {
        Some(name) => format!("CAP_{name}"),
        None => format!("CAP_{capability}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(parse("NET_ADMIN"), Some(12));
        assert_eq!(parse("CAP_NET_ADMIN"), Some(12));
        assert_eq!(parse("cap_chown"), Some(0));
        assert_eq!(parse("CHECKPOINT_RESTORE"), Some(40));
        for unknown in ["", "ALL", "CAP_", "NETADMIN", "CAP_CAP_CHOWN"] {
            assert_eq!(parse(unknown), None, "{unknown}");
        }
        assert_eq!(name(21), "CAP_SYS_ADMIN");
        assert_eq!(name(41), "CAP_41");
        for number in 0..41 {
            assert_eq!(parse(&name(number)), Some(number));
        }
    }
}
