//! Further processes in a container.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
};

use tripod_shim_protocol::{ExecPlan, FailureKind, PidNamespace, Reply, Request};

use crate::support::*;

#[test]
fn output_and_errors_come_separately_with_the_code() {
    let mut pod = Pod::new(|_| {});
    let pid = Pod::pid_of(&pod.launch(pod.plan("c1", "sleep 60")).unwrap());
    let command = format!("/proc/{pid}/cmdline");
    wait_until("its program", || fs::read_to_string(&command).unwrap() == "sleep\x0060\0");
    let (code, out, err) = pod.exec("c1", "e1", &["sh", "-c", "echo out; echo err >&2; exit 5"]).unwrap();
    assert_eq!((code, out.as_str(), err.as_str()), (5, "out\n", "err\n"));
    let (_, out, _) =
        pod.exec("c1", "e2", &["sh", "-c", "hostname; ls /proc/1/fd | wc -l; cat /proc/1/cmdline"]).unwrap();
    assert!(out.starts_with("pod-host\n"), "{out}");
    assert!(out.ends_with("sleep\x0060\0"), "it sees the container's processes: {out}");
    let (_, out, _) = pod.exec("c1", "e3", &["ls", "/proc/self/fd"]).unwrap();
    assert_eq!(out, "0\n1\n2\n3\n", "3 is the folder that ls reads");
    let (_, out, _) = pod.exec("c1", "e4", &["cat", "/proc/self/mountinfo"]).unwrap();
    assert_eq!(out.lines().count(), 7, "{out}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let mut pod = Pod::new(|_| {});
    pod.launch(pod.plan("c1", "sleep 60")).unwrap();
    assert_eq!(pod.exec("none", "e1", &["true"]).unwrap_err().kind, FailureKind::NotFound);
    let absent = pod.exec("c1", "e1", &["absent"]).unwrap_err();
    assert_eq!(absent.kind, FailureKind::Program);
    assert_eq!(absent.to_string(), "exec: \"absent\": executable file not found in $PATH");
    assert_eq!(pod.exec("c1", "e1", &["true"]).unwrap().0, 0, "the name is free again");
    pod.run("c2", "true");
    assert_eq!(pod.exec("c2", "e1", &["true"]).unwrap_err().kind, FailureKind::NotRunning);
    let kill = Request::KillExec { exec: "e1".into() };
    assert_eq!(pod.client.ask(kill, vec![]).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn cgroups_and_namespaces_are_the_containers() {
    let mut pod = Pod::new(|_| {});
    let cgroups = pod.cgroups();
    let mut plan = pod.plan("c1", "sleep 60");
    plan.cgroups = cgroups;
    plan.cgroup_namespace = true;
    let pid = Pod::pid_of(&pod.launch(plan).unwrap());
    let (_, out, _) = pod.exec("c1", "e1", &["cat", "/proc/self/cgroup"]).unwrap();
    assert!(out.lines().all(|line| !line.contains("tripod-shim-test")), "{out}");
    let list = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";
    let (_, out, _) = pod.exec("c1", "e2", &["sh", "-c", list]).unwrap();
    for (name, seen) in ["cgroup", "ipc", "mnt", "net", "pid", "uts"].iter().zip(out.lines()) {
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(theirs.to_str().unwrap(), seen);
    }
}

#[test]
fn a_shared_pid_namespace_is_entered() {
    let mut pod = Pod::new(|plan| plan.shared_pid = true);
    let mut plan = pod.plan("c1", "sleep 60");
    plan.pid = PidNamespace::Pod;
    pod.launch(plan).unwrap();
    let (code, out, _) = pod.exec("c1", "e1", &["cat", "/proc/1/comm"]).unwrap();
    assert_eq!((code, out.as_str()), (0, "tripod-reaper\n"));
    // The execs of a container end with it, whoever's PID namespace it is.
    start(&mut pod, "c1", "e2", &["sleep", "61"]);
    pod.client.ask(Request::Signal { container: "c1".into(), signal: 9 }, vec![]).unwrap();
    assert_eq!(pod.client.exit("c1").code, 137);
    assert_eq!(pod.client.exec_exit("e2"), 137);
}

#[test]
fn the_hosts_pid_namespace_is_entered() {
    let mut pod = Pod::new(|_| {});
    let mut plan = pod.plan("c1", "sleep 60");
    plan.pid = PidNamespace::Node;
    let pid = Pod::pid_of(&pod.launch(plan).unwrap());
    let (_, out, _) = pod.exec("c1", "e1", &["cat", &format!("/proc/{pid}/cmdline")]).unwrap();
    assert!(out.starts_with("sleep") || out.starts_with("/bin/sh"), "{out}");
    start(&mut pod, "c1", "e2", &["sh", "-c", "/bin/sleep 66 & /bin/sleep 67"]);
    pod.client.ask(Request::Signal { container: "c1".into(), signal: 9 }, vec![]).unwrap();
    assert_eq!(pod.client.exit("c1").code, 137);
    assert_eq!(pod.client.exec_exit("e2"), 137);
}

fn start(pod: &mut Pod, container: &str, name: &str, argv: &[&str]) {
    let plan = ExecPlan { exec: name.into(), container: container.into(), process: process(argv) };
    let null = || -> OwnedFd { File::options().read(true).write(true).open("/dev/null").unwrap().into() };
    pod.client.ask(Request::Exec(Box::new(plan)), vec![null(), null(), null()]).unwrap();
}

const TREE: [u32; 4] = [71, 72, 73, 74];

#[test]
fn killing_an_exec_kills_its_tree_and_nothing_else() {
    let mut pod = Pod::new(|_| {});
    pod.launch(pod.plan("c1", "sleep 60")).unwrap();
    let script = "(/bin/sleep 71 & /bin/sleep 72) & /bin/sh -c '/bin/sleep 73; true' & \
                  (/bin/sh -c '/bin/sleep 74; true'; true) & touch /ready; wait";
    start(&mut pod, "c1", "e1", &["sh", "-c", script]);
    start(&mut pod, "c1", "e2", &["/bin/sleep", "75"]);
    let root = pod.path().join("rootfs/c1");
    wait_until("ready", || root.join("ready").exists());
    wait_until("all run", || {
        let ps = pod.exec("c1", "ps", &["ps"]).unwrap().1;
        TREE.iter().all(|n| ps.lines().any(|line| line.ends_with(&format!(" /bin/sleep {n}"))))
    });
    assert_eq!(pod.client.ask(Request::KillExec { exec: "e1".into() }, vec![]), Ok(Reply::Done));
    assert_eq!(pod.client.exec_exit("e1"), 137);
    wait_until("the tree is gone", || {
        let ps = pod.exec("c1", "ps", &["ps"]).unwrap().1;
        assert!(ps.contains("sleep 60") && ps.contains("sleep 75"), "{ps}");
        // Orphans that were killed wait for the container's first process, which does not bury them.
        ps.lines()
            .filter(|line| !line.contains("[sleep]"))
            .all(|line| [71, 72, 73, 74].iter().all(|n| !line.contains(&format!("sleep {n}"))))
    });
}

#[test]
fn a_terminal_comes_with_the_answer() {
    let mut pod = Pod::new(|_| {});
    pod.launch(pod.plan("c1", "sleep 60")).unwrap();
    let mut process = process(&["sh", "-c", "tty; read line; echo got $line; exit 3"]);
    process.terminal = true;
    let plan = ExecPlan { exec: "e1".into(), container: "c1".into(), process };
    let id = pod.client.send(Request::Exec(Box::new(plan)), vec![]);
    let (reply, fds) = pod.client.answer(id);
    reply.unwrap();
    let [master] = <[OwnedFd; 1]>::try_from(fds).unwrap();
    let mut master = File::from(master);
    master.write_all(b"word\n").unwrap();
    assert_eq!(pod.client.exec_exit("e1"), 3);
    let mut text = Vec::new();
    // The end of a terminal is an error (EIO).
    let _ = master.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("/dev/pts/0") && text.contains("got word"), "{text:?}");
}
