//! Starting containers: exit codes, signals, identity, what they see.

use std::fs;

use tripod_shim_protocol::{ContainerReport, ExitRecord, FailureKind, PidNamespace, Reply, Request, Resource, Rlimit};

use crate::support::*;

#[test]
fn exit_codes_and_output_come_back() {
    let mut pod = Pod::new(|_| {});
    assert_eq!(pod.run("c1", "echo hello; exit 7"), (7, "hello\n".into()));
    assert_eq!(pod.run("c2", "true"), (0, String::new()));
    let (record, _) = pod.run_plan(pod.plan("c3", "echo oops >&2"));
    assert_eq!(pod.log("c3"), [("stderr".into(), 'F', "oops".into())]);
    assert!(record.finished_at >= record.started_at);
    let file = fs::read(pod.path().join("exits/c3")).unwrap();
    assert_eq!(serde_json::from_slice::<ExitRecord>(&file).unwrap(), record);
}

#[test]
fn signals_end_containers_with_128_and_more() {
    let mut pod = Pod::new(|_| {});
    for (id, signal, code) in [("killed", 9, 137), ("asked", 15, 3)] {
        pod.launch(pod.plan(id, "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done")).unwrap();
        wait_until("ready", || pod.text(id) == "ready\n");
        let request = || Request::Signal { container: id.into(), signal };
        assert_eq!(pod.client.ask(request(), vec![]), Ok(Reply::Done));
        assert_eq!(pod.client.exit(id).code, code);
        assert_eq!(pod.client.ask(request(), vec![]).unwrap_err().kind, FailureKind::NotRunning);
    }
    let none = Request::Signal { container: "none".into(), signal: 9 };
    assert_eq!(pod.client.ask(none, vec![]).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn a_report_tells_of_all_until_they_are_forgotten() {
    let mut pod = Pod::new(|_| {});
    let reply = pod.launch(pod.plan("on", "sleep 60")).unwrap();
    pod.run("off", "exit 4");
    let Ok(Reply::Report { containers, .. }) = pod.client.ask(Request::List, vec![]) else { panic!() };
    assert_eq!(containers.len(), 2);
    assert!(matches!(containers["on"], ContainerReport::Running { pid, .. } if pid == Pod::pid_of(&reply)));
    assert!(matches!(&containers["off"], ContainerReport::Exited(record) if record.code == 4));
    let again = pod.launch_in(&pod.path().join("rootfs/on"), pod.plan("on", "true")).unwrap_err();
    assert_eq!(again.kind, FailureKind::Exists);

    let forget = |id: &str| Request::Forget { container: id.into() };
    assert!(pod.client.ask(forget("on"), vec![]).is_err());
    assert_eq!(pod.client.ask(forget("off"), vec![]), Ok(Reply::Done));
    assert_eq!(pod.client.ask(forget("off"), vec![]).unwrap_err().kind, FailureKind::NotFound);
    assert!(!pod.path().join("exits/off").exists());
}

#[test]
fn identity_and_limits_are_the_plans() {
    let mut pod = Pod::new(|_| {});
    let command = "id -u; id -g; id -G; umask; ulimit -n; cat /proc/self/oom_score_adj; pwd; echo $COLOUR; \
                   grep -E 'Cap(Prm|Bnd|Amb)|NoNewPrivs|Sig(Blk|Ign)' /proc/self/status | tr '\\t' ' '; echo fine > /dev/stdout";
    let mut plan = pod.plan("c1", command);
    plan.process.credentials.uid = 1000;
    plan.process.credentials.gid = 1001;
    plan.process.credentials.groups = vec![1001, 2000];
    plan.process.credentials.umask = Some(0o27);
    plan.process.rlimits = vec![Rlimit { resource: Resource::Nofile, soft: 321, hard: 654 }];
    plan.process.oom_score_adj = Some(500);
    plan.process.cwd = "/new/folder".into();
    plan.process.env.push("COLOUR=red".into());
    plan.process.no_new_privs = true;
    let capabilities = &mut plan.process.capabilities;
    capabilities.bounding = vec![0, 10];
    capabilities.permitted = vec![10];
    capabilities.effective = vec![10];
    capabilities.inheritable = vec![10];
    capabilities.ambient = vec![10];
    let (record, text) = pod.run_plan(plan);
    let expected = "1000\n1001\n1001 2000\n0027\n321\n500\n/new/folder\nred\nCapPrm: 0000000000000400\n\
                    CapBnd: 0000000000000401\nCapAmb: 0000000000000400\nNoNewPrivs: 1\nfine\n";
    let expected = expected.replace("CapPrm", "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\nCapPrm");
    assert_eq!((record.code, text), (0, expected));
}

#[test]
fn the_container_has_names_of_its_own() {
    let mut pod = Pod::new(|_| {});
    let (_, text) = pod.run("c1", "hostname; echo $$; cat /proc/1/cmdline | tr '\\0' ' ' | head -c 10");
    assert_eq!(text, "pod-host\n1\n/bin/sh -c");
}

#[test]
fn nothing_of_the_host_is_open_or_mounted_inside() {
    let mut pod = Pod::new(|_| {});
    let (_, text) =
        pod.run("c1", "for fd in /proc/self/fd/*; do echo ${fd##*/} $(readlink $fd); done; cat /proc/1/mountinfo");
    let (fds, mounts): (Vec<_>, Vec<_>) = text.lines().partition(|line| !line.contains(" - "));
    let numbers: Vec<_> = fds.iter().map(|line| line.split(' ').next().unwrap()).collect();
    // The glob is expanded while the directory is open as one more, which is gone when it is read.
    assert_eq!(numbers[..3], ["0", "1", "2"], "{fds:?}");
    assert!(fds[3..].iter().all(|line| !line.contains(' ') || line.ends_with(' ')), "{fds:?}");
    assert!(fds[0].ends_with("/dev/null") && fds[1].contains("pipe:") && fds[2].contains("pipe:"), "{fds:?}");
    let mut targets: Vec<_> = mounts.iter().map(|line| line.split(' ').nth(4).unwrap()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/", "/dev", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys"]);
    assert!(mounts.iter().all(|line| !line.contains("shared:")), "{mounts:?}");
}

#[test]
fn programs_that_cannot_be_executed_are_the_users_error() {
    let mut pod = Pod::new(|_| {});
    let root = pod.rootfs("all");
    fs::write(root.join("bin/plain"), "not executable").unwrap();
    write_program(&root.join("bin/script"), "no interpreter line");
    for (at, (program, message)) in [
        ("absent", "executable file not found in $PATH"),
        ("/bin/absent", "no such file or directory"),
        ("plain", "permission denied"),
        ("/bin", "permission denied"),
        ("/bin/script", "exec format error"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut plan = pod.plan(&format!("c{at}"), "");
        plan.process.argv = vec![program.into()];
        let failure = pod.launch_in(&root, plan).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Program, "{program}: {failure}");
        assert_eq!(failure.to_string(), format!("exec: {program:?}: {message}"));
    }
    let Ok(Reply::Report { containers, .. }) = pod.client.ask(Request::List, vec![]) else { panic!() };
    assert!(containers.is_empty(), "a failed start leaves nothing: {containers:?}");
    // And the same name can be used again.
    assert_eq!(pod.run_plan(pod.plan("c0", "true")).0.code, 0);
}

#[test]
fn pid_namespaces_are_shared_as_planned() {
    let mut pod = Pod::new(|plan| plan.shared_pid = true);
    let with = |pod: &Pod, id: &str, command: &str, pid: PidNamespace| {
        let mut plan = pod.plan(id, command);
        plan.pid = pid;
        plan
    };
    let first = with(&pod, "first", "echo $$; /bin/sleep 64", PidNamespace::Pod);
    pod.launch(first).unwrap();
    wait_until("a line", || !pod.text("first").is_empty());
    assert_ne!(pod.text("first"), "1\n", "PID 1 is the reaper");
    let second = with(
        &pod,
        "second",
        "cat /proc/1/comm; /bin/ps; ls /proc/1/root/ /proc/1/cwd/; readlink /proc/1/fd/2",
        PidNamespace::Pod,
    );
    let (_, text) = pod.run_plan(second);
    assert!(text.starts_with("tripod-reaper\n") && text.contains("/bin/sleep 64"), "{text}");
    assert!(!text.contains("etc") && !text.contains("shim.err"), "the reaper shows nothing: {text}");
    assert_eq!(text.matches("Permission denied").count(), 2, "{text}");

    let host = with(&pod, "host", "readlink /proc/self/ns/pid", PidNamespace::Node);
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(pod.run_plan(host).1.trim(), own.to_str().unwrap());

    let pid = Pod::pid_of(&pod.launch(pod.plan("target", "sleep 60")).unwrap());
    let command = format!("/proc/{pid}/cmdline");
    wait_until("its program", || fs::read_to_string(&command).unwrap() == "sleep\x0060\0");
    let debug = with(&pod, "debug", "cat /proc/1/cmdline | tr '\\0' ' '", PidNamespace::Target("target".into()));
    assert_eq!(pod.run_plan(debug).1.trim(), "sleep 60");
    let lost = with(&pod, "lost", "true", PidNamespace::Target("none".into()));
    assert_eq!(pod.launch(lost).unwrap_err().kind, FailureKind::NotFound);
}

#[test]
fn who_joins_a_traced_pid_namespace_sees_that_one_in_proc() {
    const SYS_PTRACE: u8 = 19;
    let mut pod = Pod::new(|plan| plan.shared_pid = true);
    let with = |pod: &Pod, id: &str, pid: PidNamespace| {
        let mut plan = pod.plan(id, "cat /proc/1/comm; exec /bin/sleep 64");
        plan.pid = pid;
        plan.process.capabilities.bounding.push(SYS_PTRACE);
        plan
    };
    for (id, pid, first) in [
        ("first", PidNamespace::Pod, "tripod-reaper\n"),
        ("second", PidNamespace::Pod, "tripod-reaper\n"),
        ("own", PidNamespace::Container, "sh\n"),
        ("debug", PidNamespace::Target("own".into()), "sleep\n"),
    ] {
        let pid = Pod::pid_of(&pod.launch(with(&pod, id, pid)).unwrap());
        wait_until("a line", || pod.text(id).ends_with('\n'));
        assert_eq!(pod.text(id), first, "{id}");
        let name = format!("/proc/{pid}/comm");
        wait_until("its program", || fs::read_to_string(&name).unwrap() == "sleep\n");
    }
}

#[test]
fn orphans_of_a_shared_pid_namespace_are_buried() {
    let mut pod = Pod::new(|plan| plan.shared_pid = true);
    let script = "(/bin/sleep 0.05 & ); n=0; while [ $n -lt 100 ]; do n=$((n+1)); /bin/ps >/list; \
                  [ $(/bin/wc -l </list) -gt 4 ] || break; /bin/sleep 0.1; done; /bin/cat /list";
    let mut plan = pod.plan("c1", script);
    plan.pid = PidNamespace::Pod;
    let (_, text) = pod.run_plan(plan);
    // A title, the reaper, the shell, and ps.
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn cgroups_are_joined_and_shown() {
    let mut pod = Pod::new(|_| {});
    let cgroups = pod.cgroups();
    let mut plan = pod.plan("c1", "cat /proc/self/cgroup; ls /sys/fs/cgroup; touch /sys/fs/cgroup/x; sleep 60");
    plan.mounts.push(tripod_shim_protocol::Mount {
        target: "/sys/fs/cgroup".into(),
        source: tripod_shim_protocol::MountSource::Cgroups,
        flags: tripod_shim_protocol::MountFlags { read_only: true, ..Default::default() },
        propagation: None,
        map_ids: false,
    });
    plan.cgroup_namespace = true;
    plan.cgroups = cgroups.clone();
    let pid = Pod::pid_of(&pod.launch(plan).unwrap());
    for dir in &cgroups.dirs {
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
        assert!(procs.lines().any(|line| line == pid.to_string()), "{}: {procs}", dir.display());
    }
    wait_until("the listing", || pod.text("c1").contains("Read-only"));
    let text = pod.text("c1");
    assert!(!text.contains("tripod-shim-test"), "its own cgroup is the root that it sees: {text}");
    if cgroups.unified {
        assert!(text.contains("cgroup.procs"), "{text}");
    } else {
        for dir in &cgroups.dirs {
            let name = dir.parent().unwrap().file_name().unwrap().to_str().unwrap();
            assert!(text.lines().any(|line| line == name), "{name}: {text}");
        }
    }
}

#[test]
fn a_terminal_is_the_containers_own() {
    let mut pod = Pod::new(|_| {});
    let mut plan =
        pod.plan("c1", "tty; test -c /dev/console && echo console; ls -l /dev/ptmx; echo > /dev/tty && echo fine");
    plan.process.terminal = true;
    let (record, text) = pod.run_plan(plan);
    assert_eq!(record.code, 0, "{text}");
    assert!(text.starts_with("/dev/pts/0\r\nconsole\r\n"), "{text:?}");
    assert!(text.contains("pts/ptmx") && text.ends_with("fine\r\n"), "{text:?}");
}

/// Every kernel of today has the unified tree, if not with controllers.
#[test]
fn a_unified_cgroup_is_where_the_container_is_born() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let tree = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|f| f[2] == "cgroup2").unwrap()[1];
    let mut pod = Pod::new(|_| {});
    let dir = std::path::Path::new(tree).join(format!("tripod-shim-born-{}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    pod.remove_later(dir.clone());
    let mut plan = pod.plan("c1", "grep ^0: /proc/self/cgroup; ls /sys/fs/cgroup; sleep 60");
    plan.mounts.push(tripod_shim_protocol::Mount {
        target: "/sys/fs/cgroup".into(),
        source: tripod_shim_protocol::MountSource::Cgroups,
        flags: Default::default(),
        propagation: None,
        map_ids: false,
    });
    plan.cgroup_namespace = true;
    plan.cgroups = tripod_shim_protocol::CgroupPlan { dirs: vec![dir.clone()], unified: true };
    let pid = Pod::pid_of(&pod.launch(plan).unwrap());
    let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
    assert!(procs.lines().any(|line| line == pid.to_string()), "{procs}");
    wait_until("the listing", || pod.text("c1").contains("cgroup.procs"));
    assert!(pod.text("c1").starts_with("0::/\n"), "{}", pod.text("c1"));
    let (_, out, _) = pod.exec("c1", "e1", &["grep", "^0:", "/proc/self/cgroup"]).unwrap();
    assert_eq!(out, "0::/\n");
}

#[test]
fn a_working_directory_is_made_even_where_the_root_is_read_only() {
    let mut pod = Pod::new(|_| {});
    let mut plan = pod.plan("c1", "pwd; touch x");
    plan.rootfs.read_only = true;
    plan.process.cwd = "/made/for/this".into();
    let (record, text) = pod.run_plan(plan);
    assert_eq!(record.code, 1);
    assert!(text.contains("/made/for/this\n") && text.contains("Read-only"), "{text}");
}
