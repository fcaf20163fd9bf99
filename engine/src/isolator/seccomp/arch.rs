//! Architectures: how the kernel marks a call of each, and the numbers that each gives to a name.
//!
//! Numbers come from the `syscalls` crate, which is made from the kernel's tables. What those leave out is here.

use std::sync::LazyLock;

use syscalls::{aarch64, arm, x86, x86_64};

/// Set in the number of a call that an x32 program makes.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One way of making system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Arch {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

/// Names in order, each with its number.
type Table = Vec<(&'static str, u32)>;

/// Calls that x32 has numbers of its own for, from 512 on, because they take structures with pointers in them.
const X32: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of x86-64 that x32 does not have at all.
const NOT_X32: [&str; 11] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
];

/// The private calls of 32-bit ARM, and a second name.
const ARM: [(&str, u32); 7] = [
    ("breakpoint", 0xf_0001),
    ("cacheflush", 0xf_0002),
    ("usr26", 0xf_0003),
    ("usr32", 0xf_0004),
    ("set_tls", 0xf_0005),
    ("get_tls", 0xf_0006),
    ("sync_file_range2", 341),
];

/// Second names.
const AARCH64: [(&str, u32); 1] = [("newfstatat", 79)];

// === impl Arch ===

impl Arch {
    /// All that there are.
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] = [Self::X86_64, Self::X32, Self::X86, Self::Aarch64, Self::Arm];

    /// The one that this program is built for.
    pub(super) const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// `AUDIT_ARCH_…`, which the kernel shows to filters.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Arguments have 32 bits. Whatever is in the upper halves of the registers of an x32 program says nothing.
    pub(super) fn narrow(self) -> bool {
        matches!(self, Self::X32 | Self::X86 | Self::Arm)
    }

    /// Whether a kernel for `native` can run programs of this one.
    pub(super) fn runs_on(self, native: Self) -> bool {
        match native {
            Self::Aarch64 | Self::Arm => matches!(self, Self::Aarch64 | Self::Arm),
            Self::X86_64 | Self::X32 | Self::X86 => matches!(self, Self::X86_64 | Self::X32 | Self::X86),
        }
    }

    /// By the name in OCI profiles. `Some(None)` is one that tripod is not built for: no program of it can run here.
    pub(super) fn parse(name: &str) -> Option<Option<Self>> {
        Some(Some(match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X32" => Self::X32,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            "SCMP_ARCH_MIPS"
            | "SCMP_ARCH_MIPS64"
            | "SCMP_ARCH_MIPS64N32"
            | "SCMP_ARCH_MIPSEL"
            | "SCMP_ARCH_MIPSEL64"
            | "SCMP_ARCH_MIPSEL64N32"
            | "SCMP_ARCH_PPC"
            | "SCMP_ARCH_PPC64"
            | "SCMP_ARCH_PPC64LE"
            | "SCMP_ARCH_S390"
            | "SCMP_ARCH_S390X"
            | "SCMP_ARCH_PARISC"
            | "SCMP_ARCH_PARISC64"
            | "SCMP_ARCH_RISCV64"
            | "SCMP_ARCH_LOONGARCH64"
            | "SCMP_ARCH_M68K"
            | "SCMP_ARCH_SH"
            | "SCMP_ARCH_SHEB" => return Some(None),
            _ => return None,
        }))
    }

    /// The name that Go gives it, which docker-style profiles use in their conditions.
    pub(super) fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X32 => "amd64p32",
            Self::X86 => "386",
            Self::Aarch64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The number of a call here; [`X32_BIT`] is not part of it.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let table = self.table();
        table.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|at| table[at].1)
    }

    fn table(self) -> &'static Table {
        static X86_64: LazyLock<Table> =
            LazyLock::new(|| sorted(x86_64::Sysno::iter().map(|call| (call.name(), number(call.id()))), &[]));
        static X32_TABLE: LazyLock<Table> = LazyLock::new(|| {
            let common = X86_64.iter().copied().filter(|(name, _)| !X32.contains(name) && !NOT_X32.contains(name));
            sorted(common.chain((512..).zip(X32).map(|(number, name)| (name, number))), &[])
        });
        static X86: LazyLock<Table> =
            LazyLock::new(|| sorted(x86::Sysno::iter().map(|call| (call.name(), number(call.id()))), &[("break", 17)]));
        static AARCH64_TABLE: LazyLock<Table> =
            LazyLock::new(|| sorted(aarch64::Sysno::iter().map(|call| (call.name(), number(call.id()))), &AARCH64));
        static ARM_TABLE: LazyLock<Table> =
            LazyLock::new(|| sorted(arm::Sysno::iter().map(|call| (call.name(), number(call.id()))), &ARM));
        match self {
            Self::X86_64 => &X86_64,
            Self::X32 => &X32_TABLE,
            Self::X86 => &X86,
            Self::Aarch64 => &AARCH64_TABLE,
            Self::Arm => &ARM_TABLE,
        }
    }
}

/// Whether any architecture has a call of this name.
pub(super) fn known(name: &str) -> bool {
    [Arch::X86_64, Arch::X86, Arch::Aarch64, Arch::Arm].into_iter().any(|arch| arch.number(name).is_some())
}

/// The calls of 32-bit x86 that used to be one call with a code as its first argument, and still are for older
/// programs: the number of that call, and the code.
pub(super) fn multiplexed(name: &str) -> Option<(u32, u64)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    let code = match name {
        "socket" => 1,
        "bind" => 2,
        "connect" => 3,
        "listen" => 4,
        "accept" => 5,
        "getsockname" => 6,
        "getpeername" => 7,
        "socketpair" => 8,
        "send" => 9,
        "recv" => 10,
        "sendto" => 11,
        "recvfrom" => 12,
        "shutdown" => 13,
        "setsockopt" => 14,
        "getsockopt" => 15,
        "sendmsg" => 16,
        "recvmsg" => 17,
        "accept4" => 18,
        "recvmmsg" => 19,
        "sendmmsg" => 20,
        _ => {
            let code = match name {
                "semop" => 1,
                "semget" => 2,
                "semctl" => 3,
                "semtimedop" => 4,
                "msgsnd" => 11,
                "msgrcv" => 12,
                "msgget" => 13,
                "msgctl" => 14,
                "shmat" => 21,
                "shmdt" => 22,
                "shmget" => 23,
                "shmctl" => 24,
                _ => return None,
            };
            return Some((IPC, code));
        }
    };
    Some((SOCKETCALL, code))
}

fn number(id: i32) -> u32 {
    id.cast_unsigned()
}

fn sorted(table: impl Iterator<Item = (&'static str, u32)>, more: &[(&'static str, u32)]) -> Table {
    let mut table: Table = table.chain(more.iter().copied()).collect();
    table.sort_unstable();
    table.dedup_by_key(|(name, _)| *name);
    table
}
