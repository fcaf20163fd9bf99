//! A filter in the terms of system calls: what profiles are read into, and what programs are compiled from.

use std::path::PathBuf;

use super::arch::Arch;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Action {
    KillProcess,
    KillThread,
    Trap,
    Errno(u16),
    Notify,
    Trace(u16),
    Log,
    Allow,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// The bits that are set in the mask are those of the value.
    MaskedEq(u64),
}

/// A comparison of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) index: u8,
    pub(super) op: Op,
    pub(super) value: u64,
}

/// What happens to some calls when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    pub(super) conditions: Vec<Condition>,
}

/// How the kernel is to treat the filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) log: bool,
    pub(super) spec_allow: bool,
    pub(super) wait_killable: bool,
}

/// Who decides about calls with [`Action::Notify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) path: PathBuf,
    pub(super) metadata: String,
}

/// A whole filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// For calls to which no rule applies.
    pub(super) default: Action,
    /// Beside the native one.
    pub(super) arches: Vec<Arch>,
    pub(super) rules: Vec<Rule>,
    pub(super) flags: Flags,
    pub(super) listener: Option<Listener>,
}

// === impl Action ===

impl Action {
    /// The value that a filter returns (linux/seccomp.h).
    pub(super) fn code(self) -> u32 {
        match self {
            Self::KillProcess => 0x8000_0000,
            Self::KillThread => 0,
            Self::Trap => 0x0003_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Notify => 0x7fc0_0000,
            Self::Trace(message) => 0x7ff0_0000 | u32::from(message),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }

    /// The name in `/proc/sys/kernel/seccomp/actions_avail`.
    pub(super) fn kernel_name(self) -> &'static str {
        match self {
            Self::KillProcess => "kill_process",
            Self::KillThread => "kill_thread",
            Self::Trap => "trap",
            Self::Errno(_) => "errno",
            Self::Notify => "user_notif",
            Self::Trace(_) => "trace",
            Self::Log => "log",
            Self::Allow => "allow",
        }
    }

    /// A call goes on: by itself, or because whoever asked for a tracer knows how to deal with calls that are new.
    pub(super) fn permissive(self) -> bool {
        matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }
}
