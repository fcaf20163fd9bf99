//! The profile `RuntimeDefault`: what containerd and Docker allow today.
//!
//! Everything that is not named fails with EPERM. Left out is what changes the host or the kernel (modules, clocks,
//! swap, reboot, mounts, namespaces), what has no namespaces (keyrings, `quotactl`), and what has been a way out of
//! containers (`userfaultfd`, `io_uring_*`, `bpf`, `perf_event_open`). A capability brings the calls back that it is
//! for, as they check it themselves.

use super::{
    arch::Arch,
    rules::{Action, Condition, Flags, Op, Rule, Rules},
};

/// Reading, writing and mapping of what is open.
const IO: &str = "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek close \
    close_range dup dup2 dup3 fcntl fcntl64 ioctl sendfile sendfile64 splice tee vmsplice copy_file_range readahead \
    fadvise64 fadvise64_64 fallocate ftruncate ftruncate64 fsync fdatasync sync syncfs sync_file_range pipe pipe2 flock \
    cachestat";

/// Paths, and what they name. Rights and devices cgroup decide about the rest, as outside.
const PATHS: &str = "open openat openat2 creat access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 \
    fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64 statmount listmount readlink readlinkat getdents \
    getdents64 getcwd chdir fchdir mkdir mkdirat mknod mknodat rmdir link linkat symlink symlinkat unlink unlinkat \
    rename renameat renameat2 truncate truncate64 chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat \
    lchown lchown32 umask utime utimes utimensat utimensat_time64 futimesat name_to_handle_at inotify_init inotify_init1 \
    inotify_add_watch inotify_rm_watch fanotify_mark";

/// Extended attributes.
const ATTRIBUTES: &str = "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr \
    llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat";

/// Waiting for descriptors, and descriptors to wait for. The kernel's old asynchronous I/O is here, its ring is not.
const EVENTS: &str = "poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 \
    epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 \
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64";

/// Memory of one's own.
const MEMORY: &str = "brk mmap mmap2 munmap mremap remap_file_pages mprotect pkey_alloc pkey_free pkey_mprotect madvise \
    mincore msync mlock mlock2 mlockall munlock munlockall membarrier memfd_create memfd_secret mseal map_shadow_stack";

/// Processes and threads, but for `clone`, which can make namespaces. `ptrace` and its relatives have been safe beside
/// a filter since Linux 4.8.
const PROCESSES: &str = "fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid \
    getpgrp setpgid getsid setsid set_tid_address prctl pidfd_open pidfd_send_signal process_mrelease ptrace \
    process_vm_readv process_vm_writev rseq restart_syscall uretprobe";

/// Futexes and what threads keep with the kernel.
const THREADS: &str = "futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue get_robust_list \
    set_robust_list get_thread_area set_thread_area";

/// Who one is. The kernel asks for capabilities where it matters.
const IDENTITY: &str = "getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 \
    getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 \
    setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget \
    capset";

/// Scheduling and limits.
const SCHEDULING: &str = "sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam \
    sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min \
    sched_rr_get_interval sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set getrlimit ugetrlimit \
    setrlimit prlimit64 getrusage getcpu";

/// Signals.
const SIGNALS: &str = "kill tkill tgkill pause sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending \
    rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo";

/// Reading clocks, and timers. Adjusting a clock takes a capability, which those two calls check.
const TIME: &str = "time times gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 \
    clock_nanosleep clock_nanosleep_time64 nanosleep alarm getitimer setitimer timer_create timer_delete timer_gettime \
    timer_gettime64 timer_settime timer_settime64 timer_getoverrun timerfd_create timerfd_gettime timerfd_gettime64 \
    timerfd_settime timerfd_settime64 adjtimex clock_adjtime clock_adjtime64";

/// Sockets, but for making one. `socketcall` cannot be looked into.
const SOCKETS: &str = "socketpair socketcall bind connect listen accept accept4 shutdown getsockname getpeername \
    getsockopt setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64";

/// System V and POSIX communication, in the pod's namespace.
const IPC: &str = "ipc semget semop semctl semtimedop semtimedop_time64 shmget shmat shmdt shmctl msgget msgsnd msgrcv \
    msgctl mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive \
    mq_timedreceive_time64";

/// Confining oneself further.
const CONFINEMENT: &str = "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr \
    lsm_set_self_attr lsm_list_modules";

/// About the system.
const SYSTEM: &str = "uname sysinfo getrandom";

/// Segments of x86.
const X86: &str = "arch_prctl modify_ldt";

/// The private calls of 32-bit ARM, and its order of arguments.
const ARM: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";

/// What a capability brings.
const BY_CAPABILITY: [(u8, &str); 14] = [
    (2, "open_by_handle_at"),                       // DAC_READ_SEARCH
    (16, "init_module finit_module delete_module"), // SYS_MODULE
    (17, "iopl ioperm"),                            // SYS_RAWIO
    (18, "chroot"),                                 // SYS_CHROOT
    (19, "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"), // SYS_PTRACE
    (20, "acct"),                                   // SYS_PACCT
    (
        SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (22, "reboot"),                                                    // SYS_BOOT
    (23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"), // SYS_NICE
    (25, "settimeofday stime clock_settime clock_settime64"),          // SYS_TIME
    (26, "vhangup"),                                                   // SYS_TTY_CONFIG
    (34, "syslog"),                                                    // SYSLOG
    (38, "perf_event_open"),                                           // PERFMON
    (39, "bpf"),                                                       // BPF
];

const SYS_ADMIN: u8 = 21;

/// The flags of `clone` that make namespaces: user, mount, UTS, IPC, PID, network, cgroup.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Addresses of the hypervisor's other side: nothing in a pod's network namespace confines them.
const AF_VSOCK: u64 = 40;

/// Execution domains that only change what `uname` says or turn address randomization off in one's own process, and the
/// question which one is in force.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// The capabilities on which the profile depends.
pub(super) fn relevant() -> u64 {
    BY_CAPABILITY.iter().fold(0, |mask, (capability, _)| mask | 1 << capability)
}

/// The profile for a container with this bounding set.
pub(super) fn rules(capabilities: u64, native: Arch) -> Rules {
    let x86 = Arch::X86.runs_on(native);
    let groups = [
        IO,
        PATHS,
        ATTRIBUTES,
        EVENTS,
        MEMORY,
        PROCESSES,
        THREADS,
        IDENTITY,
        SCHEDULING,
        SIGNALS,
        TIME,
        SOCKETS,
        IPC,
        CONFINEMENT,
        SYSTEM,
    ];
    let held = BY_CAPABILITY.iter().filter(|(capability, _)| capabilities >> capability & 1 == 1);
    let names = groups.into_iter().chain([if x86 { X86 } else { ARM }]).chain(held.map(|(_, names)| *names));
    let mut rules: Vec<Rule> = names.map(|names| rule(names, Action::Allow, None)).collect();

    let when = |op: Op, value: u64| Some(Condition { index: 0, op, value });
    rules.push(rule("socket", Action::Allow, when(Op::Ne, AF_VSOCK)));
    rules.extend(PERSONALITIES.map(|value| rule("personality", Action::Allow, when(Op::Eq, value))));
    if capabilities >> SYS_ADMIN & 1 == 0 {
        rules.push(rule("clone", Action::Allow, when(Op::MaskedEq(NEW_NAMESPACES), 0)));
        // Its flags are in memory where a filter does not see them. "No such call" sends programs back to `clone`.
        rules.push(rule("clone3", Action::Errno(ENOSYS), None));
    }
    Rules {
        default: Action::Errno(EPERM),
        arches: if x86 { vec![Arch::X86_64, Arch::X32, Arch::X86] } else { vec![Arch::Aarch64, Arch::Arm] },
        rules,
        flags: Flags::default(),
        listener: None,
    }
}

fn rule(names: &str, action: Action, condition: Option<Condition>) -> Rule {
    let names = names.split_ascii_whitespace().map(str::to_owned).collect();
    Rule { names, action, conditions: condition.into_iter().collect() }
}
