//! The way from this program to a node: into namespaces, become PID 1 there, into cgroups, run one test.
//!
//! Each stage is this program again, told by an environment variable which one it is.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{Signal, WaitOptions, set_parent_process_death_signal, wait},
};

use crate::cgroup;

/// Which stage this process is.
pub(crate) const STAGE: &str = "TRIPOD_TESTS_STAGE";
/// Name of the cgroups of the test.
pub(crate) const GROUP: &str = "TRIPOD_TESTS_GROUP";

/// Addresses of the node on its uplink.
pub(crate) const UPLINK: (&str, &str) = ("192.0.2.10/24", "2001:db8::10/64");

/// First stage: becomes `unshare`, whose child becomes the second.
pub(crate) fn enter() -> ExitCode {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("the test cannot be tied to the life of its parent: {error}");
        return ExitCode::FAILURE;
    }
    unshare(&["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"], "join")
}

/// Second stage, PID 1: joins the cgroups and makes them the roots of what it sees. Its parent stays outside: on version
/// 2 a root that holds a process gives no controllers to those below, and that one could not be moved from inside.
pub(crate) fn join() -> ExitCode {
    if let Err(error) = cgroup::join(&env::var(GROUP).unwrap_or_default()) {
        eprintln!("the test cannot join its cgroups: {error}");
        return ExitCode::FAILURE;
    }
    unshare(&["--cgroup"], "init")
}

/// Becomes `unshare`, which becomes the next stage.
fn unshare(flags: &[&str], stage: &str) -> ExitCode {
    // By its path: a link in /proc would lead unshare to itself.
    let error = match env::current_exe() {
        Ok(program) => Command::new("unshare").args(flags).arg(program).env(STAGE, stage).exec(),
        Err(error) => error,
    };
    eprintln!("unshare (Debian: util-linux) cannot be run: {error}");
    ExitCode::FAILURE
}

/// A helper in a pod's network namespace: answers every UDP packet to the port in `TRIPOD_TESTS_NAME` with itself.
pub(crate) fn udp_echo() -> ExitCode {
    let port = env::var(crate::runner::NAME).ok().and_then(|port| port.parse::<u16>().ok()).unwrap_or(0);
    let echo = || -> std::io::Result<()> {
        let socket = std::net::UdpSocket::bind(("::", port))?;
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..length], from)?;
        }
    };
    if let Err(error) = echo() {
        eprintln!("UDP echo on port {port}: {error}");
    }
    ExitCode::FAILURE
}

/// Third stage, PID 1: makes the fresh namespaces look like a node's, starts the last and reaps orphans.
pub(crate) fn init() -> ExitCode {
    if let Err(error) = furnish() {
        eprintln!("the node cannot be made: {error}");
        return ExitCode::FAILURE;
    }
    let test = match Command::new("/proc/self/exe").env(STAGE, "test").spawn() {
        Ok(test) => test,
        Err(error) => {
            eprintln!("the test cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().unsigned_abs() == test.id() => {
                let code = status.exit_status().unwrap_or(1);
                return ExitCode::from(u8::try_from(code).unwrap_or(1));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                eprintln!("waiting for the test: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

fn furnish() -> Result<(), String> {
    let hierarchies = cgroup::hierarchies();
    // unshare made all mounts private; on a node they are shared.
    mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)
        .map_err(|error| format!("sharing /: {error}"))?;
    put("tmpfs", "/run", "mode=755")?;
    put("sysfs", "/sys", "")?;
    if fs::read_to_string("/proc/filesystems").is_ok_and(|known| known.contains("securityfs")) {
        // AppArmor's files.
        put("securityfs", "/sys/kernel/security", "")?;
    }
    put("tmpfs", "/sys/fs/cgroup", "mode=755")?;
    for hierarchy in hierarchies {
        let point = &hierarchy.point;
        fs::create_dir_all(point).map_err(|error| format!("making {}: {error}", point.display()))?;
        put(&hierarchy.kind, point, &hierarchy.options)?;
        if hierarchy.kind == "cgroup2" {
            leave_root(point).map_err(|error| format!("leaving the root of {}: {error}", point.display()))?;
        }
    }
    for arguments in [
        "link set lo up",
        "link add uplink type veth peer name upstream",
        "link set upstream up",
        "link set uplink up",
        &format!("addr add {} dev uplink", UPLINK.0),
        &format!("addr add {} dev uplink nodad", UPLINK.1),
        "route add default via 192.0.2.1 dev uplink",
        "-6 route add default via 2001:db8::1 dev uplink",
    ] {
        let status = Command::new("ip").args(arguments.split(' ')).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(format!("ip {arguments} (Debian: iproute2): {status:?}"));
        }
    }
    Ok(())
}

/// Version 2 gives controllers to children only of a group that holds no process.
fn leave_root(point: &Path) -> std::io::Result<()> {
    let init = point.join("init");
    fs::create_dir(&init)?;
    for pid in fs::read_to_string(point.join("cgroup.procs"))?.lines() {
        fs::write(init.join("cgroup.procs"), pid)?;
    }
    Ok(())
}

fn put(kind: &str, target: impl AsRef<Path>, data: &str) -> Result<(), String> {
    let target = target.as_ref();
    let data = std::ffi::CString::new(data).map_err(|error| error.to_string())?;
    mount(kind, target, kind, MountFlags::empty(), data.as_c_str())
        .map_err(|error| format!("mounting {kind} on {}: {error}", target.display()))
}
