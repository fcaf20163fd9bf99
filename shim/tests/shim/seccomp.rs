//! Filters for system calls.

use std::{
    io::Read,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tripod_shim_protocol::{ExecPlan, FailureKind, ProcessPlan, SeccompFilter, SeccompListener};
use tripod_sys::scm;

use crate::support::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const EPERM: u32 = 0x0005_0001;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const MKDIR: u32 = 83;
    pub const EXECVE: u32 = 59;
    pub const CAPSET: u32 = 126;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const MKDIR: u32 = 34; // mkdirat
    pub const EXECVE: u32 = 221;
    pub const CAPSET: u32 = 91;
}

/// `action` for one call, and all others are allowed.
fn filter(number: u32, action: u32) -> SeccompFilter {
    // Load the number; compare; return one or the other.
    let program = [(0x20u16, 0u8, 0u8, 0u32), (0x15, 0, 1, number), (0x06, 0, 0, action), (0x06, 0, 0, ALLOW)];
    let bytes = program
        .into_iter()
        .flat_map(|(code, jt, jf, k)| [code.to_ne_bytes().as_slice(), &[jt, jf], &k.to_ne_bytes()].concat());
    SeccompFilter { program: Arc::from_iter(bytes), ..SeccompFilter::default() }
}

/// A script with a container's own rights.
fn exec(pod: &mut Pod, process: ProcessPlan, script: &str) -> (i32, String, String) {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).into();
    let (exec, container) = ("e1".to_owned(), "c1".to_owned());
    pod.exec_plan(ExecPlan { exec, container, process: ProcessPlan { argv, ..process } }).unwrap()
}

#[test]
fn a_filter_decides_about_the_program_and_all_commands() {
    let mut pod = Pod::new(|_| {});
    let mut plan = pod.plan("c1", "mkdir /x 2>&1; grep Seccomp: /proc/self/status; sleep 60");
    plan.process.seccomp = Some(filter(number::MKDIR, EPERM));
    let process = plan.process.clone();
    pod.launch(plan).unwrap();
    wait_until("its output", || pod.text("c1").contains("Seccomp:"));
    let text = pod.text("c1");
    assert!(text.contains("not permitted") && text.contains("Seccomp:\t2"), "{text}");
    assert_eq!(pod.run("free", "mkdir /x; grep Seccomp: /proc/self/status"), (0, "Seccomp:\t0\n".into()));
    let (code, out, _) = exec(&mut pod, process, "mkdir /y || grep Seccomp: /proc/self/status");
    assert_eq!((code, out.as_str()), (0, "Seccomp:\t2\n"));
}

/// The right to load a filter does not outlive it, for root and for others, whether the filter lets it be given up or not.
#[test]
fn capabilities_are_the_plans_also_where_loading_takes_more() {
    let mut pod = Pod::new(|_| {});
    let status = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status | tr -d '\\t'";
    for (at, (uid, no_new_privs, expected)) in [
        (
            0,
            false,
            "CapInh:0000000000000000\nCapPrm:0000000000000400\nCapEff:0000000000000400\nCapBnd:0000000000000400\n",
        ),
        (
            0,
            true,
            "CapInh:0000000000000000\nCapPrm:0000000000000400\nCapEff:0000000000000400\nCapBnd:0000000000000400\n",
        ),
        (
            7,
            false,
            "CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:0000000000000400\n",
        ),
        (
            7,
            true,
            "CapInh:0000000000000000\nCapPrm:0000000000000000\nCapEff:0000000000000000\nCapBnd:0000000000000400\n",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for call in [number::CAPSET, number::MKDIR] {
            let mut plan = pod.plan(&format!("c{at}-{call}"), status);
            plan.process.credentials.uid = uid;
            plan.process.no_new_privs = no_new_privs;
            plan.process.seccomp = Some(filter(call, KILL_PROCESS));
            let capabilities = &mut plan.process.capabilities;
            capabilities.bounding = vec![10];
            capabilities.permitted = vec![10];
            capabilities.effective = vec![10];
            capabilities.inheritable = vec![];
            capabilities.ambient = vec![];
            let (record, text) = pod.run_plan(plan);
            let expected = format!("{expected}CapAmb:0000000000000000\nNoNewPrivs:{}\n", u8::from(no_new_privs));
            assert_eq!((record.code, text), (0, expected), "user {uid}, no_new_privs {no_new_privs}, call {call}");
        }
    }
}

#[test]
fn a_killed_process_ends_by_its_signal() {
    let mut pod = Pod::new(|_| {});
    let mut plan = pod.plan("c1", "exec mkdir /x");
    plan.process.seccomp = Some(filter(number::MKDIR, KILL_PROCESS));
    assert_eq!(pod.run_plan(plan).0.code, 128 + 31);
}

#[test]
fn what_cannot_be_loaded_or_executed_is_told() {
    let mut pod = Pod::new(|_| {});
    let mut broken = pod.plan("broken", "true");
    broken.process.seccomp = Some(SeccompFilter { program: Arc::from([0; 16]), ..SeccompFilter::default() });
    let failure = pod.launch(broken).unwrap_err();
    assert!(failure.step.contains("load the seccomp filter"), "{failure:?}");
    let mut forbidden = pod.plan("forbidden", "true");
    forbidden.process.seccomp = Some(filter(number::EXECVE, EPERM));
    let failure = pod.launch(forbidden).unwrap_err();
    assert!(failure.step.contains("exec") && failure.message.contains("not permitted"), "{failure:?}");
}

/// What arrives at a listener: the text, and what the descriptor is.
fn hear(mut stream: UnixStream) -> (serde_json::Value, PathBuf) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut text, mut fds) = (vec![0; 4096], Vec::new());
    let count = scm::receive(stream.as_fd(), &mut text, &mut fds).unwrap();
    text.truncate(count);
    stream.read_to_end(&mut text).unwrap();
    let kind = std::fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).unwrap();
    (serde_json::from_slice(&text).unwrap(), kind)
}

#[test]
fn a_listener_on_the_host_gets_the_descriptor_and_the_state() {
    let mut pod = Pod::new(|_| {});
    let path = pod.path().join("agent.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let agent = std::thread::spawn(move || [hear(socket.accept().unwrap().0), hear(socket.accept().unwrap().0)]);
    let listener = SeccompListener { path, metadata: "m".into(), container: "c1".into(), ..SeccompListener::default() };
    let mut plan = pod.plan("c1", "sleep 60");
    plan.process.seccomp = Some(SeccompFilter { listener: Some(Box::new(listener)), ..filter(number::MKDIR, NOTIFY) });
    let process = plan.process.clone();
    let pid = Pod::pid_of(&pod.launch(plan).unwrap());
    let (code, out, _) = exec(&mut pod, process, "ls /proc/self/fd; mkdir /x 2>&1 | grep -c 'not implemented'");
    assert_eq!((code, out.as_str()), (0, "0\n1\n2\n3\n1\n"), "nobody listens any more, and nothing of it is left open");

    let [(first, kind), (second, _)] = agent.join().unwrap();
    assert_eq!(kind.to_str(), Some("anon_inode:seccomp notify"));
    assert_eq!(first["fds"], serde_json::json!(["seccompFd"]));
    assert_eq!((&first["pid"], &first["state"]["pid"]), (&pid.into(), &pid.into()));
    assert_eq!((first["metadata"].as_str(), first["state"]["id"].as_str()), (Some("m"), Some("c1")));
    assert_eq!(first["state"]["status"], "creating");
    assert_eq!((&second["state"]["status"], &second["state"]["pid"]), (&"running".into(), &pid.into()));
    assert_ne!(second["pid"], pid);
}

#[test]
fn a_listener_that_is_not_there_is_told() {
    let mut pod = Pod::new(|_| {});
    let listener = SeccompListener { path: "/no/such/agent.sock".into(), ..SeccompListener::default() };
    let mut plan = pod.plan("c1", "true");
    plan.process.seccomp = Some(SeccompFilter { listener: Some(Box::new(listener)), ..filter(number::MKDIR, NOTIFY) });
    let failure = pod.launch(plan).unwrap_err();
    assert!(failure.step.contains("/no/such/agent.sock"), "{failure:?}");
    assert_eq!(failure.kind, FailureKind::Plan);
}
