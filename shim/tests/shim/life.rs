//! The shim's own life: daemons that come and go, set-up, shutdown.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::net::UnixStream,
    time::Duration,
};

use tripod_shim_protocol::{ContainerReport, ExecPlan, FailureKind, PidNamespace, Reply, Request};

use crate::support::*;

#[test]
fn a_daemon_that_comes_back_finds_everything() {
    let mut pod = Pod::new(|_| {});
    let command = "n=0; while [ $n -lt 60 ]; do echo $n; n=$((n+1)); sleep 0.01; done; exit 6";
    pod.launch(pod.plan("c1", command)).unwrap();
    pod.launch(pod.plan("c2", "sleep 60")).unwrap();
    let socket = pod.path().join("shim.sock");
    // The daemon dies in the midst of a request.
    let mut dying = UnixStream::connect(&socket).unwrap();
    dying.write_all(&[9, 0, 0, 0, 0]).unwrap();
    drop(dying);
    drop(std::mem::replace(&mut pod.client, Client::connect(&socket)));
    wait_until("the exit record", || pod.path().join("exits/c1").exists());

    pod.client = Client::connect(&socket);
    let Ok(Reply::Report { containers, .. }) = pod.client.ask(Request::List, vec![]) else { panic!() };
    assert!(matches!(&containers["c1"], ContainerReport::Exited(record) if record.code == 6));
    assert!(matches!(containers["c2"], ContainerReport::Running { .. }));
    assert_eq!(pod.text("c1"), (0..60).map(|n| format!("{n}\n")).collect::<String>());
    assert_eq!(pod.exec("c2", "e1", &["true"]).unwrap().0, 0);
}

#[test]
fn events_go_to_every_connection() {
    let mut pod = Pod::new(|_| {});
    let mut other = Client::connect(&pod.path().join("shim.sock"));
    let Ok(Reply::Report { .. }) = other.ask(Request::List, vec![]) else { panic!() };
    pod.run("c1", "exit 2");
    assert_eq!(other.exit("c1").code, 2);
}

#[test]
fn a_reader_that_does_not_read_loses_the_connection_and_delays_nobody() {
    let mut pod = Pod::new(|_| {});
    for n in 0..30 {
        pod.run(&format!("{n}-{}", "x".repeat(200)), "true");
    }
    let mut deaf = Client::connect(&pod.path().join("shim.sock"));
    // Each answer has some 10 kB.
    for _ in 0..400 {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| deaf.send(Request::List, vec![]))).is_err() {
            break;
        }
    }
    assert_eq!(pod.run("after", "exit 3").0, 3);
}

#[test]
fn nonsense_ends_the_connection_and_unknown_requests_get_an_answer() {
    let mut pod = Pod::new(|_| {});
    let socket = pod.path().join("shim.sock");
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&[0xff; 64]).unwrap();
    assert!(matches!(std::io::Read::read(&mut stream, &mut [0; 8]), Ok(0) | Err(_)));
    let mut stream = UnixStream::connect(&socket).unwrap();
    let body = br#"{"id":5,"request":{"levitate":{}}}"#;
    stream.write_all(&[body.len() as u8, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    stream.write_all(body).unwrap();
    let frame = tripod_shim_protocol::wire::Incoming::default().receive(&stream).unwrap().unwrap();
    assert!(String::from_utf8(frame.body).unwrap().contains("\"id\":5"));
    assert_eq!(pod.run("c1", "true").0, 0);
}

#[test]
fn before_setup_nothing_can_be_launched_and_setup_happens_once() {
    let mut pod = Pod::bare();
    assert_eq!(pod.launch(pod.plan("c1", "true")).unwrap_err().kind, FailureKind::NotRunning);
    let plan = tripod_shim_protocol::PodPlan { dir: pod.path().to_owned(), ..Default::default() };
    let setup = || Request::Setup(Box::new(plan.clone()));
    assert!(matches!(pod.client.ask(setup(), vec![]), Ok(Reply::Ready { .. })));
    assert_eq!(pod.client.ask(setup(), vec![]).unwrap_err().kind, FailureKind::Exists);
    // All of it is the host's here.
    let own = fs::read_link("/proc/self/ns/ipc").unwrap();
    assert_eq!(pod.run_plan(pod.plan("c2", "readlink /proc/self/ns/ipc")).1.trim(), own.to_str().unwrap());
}

#[test]
fn sysctls_are_set_in_the_pods_namespaces_only() {
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    let mut pod = Pod::new(|plan| {
        plan.sysctls.insert("kernel.msgmax".into(), "12345".into());
    });
    assert_eq!(pod.run("c1", "cat /proc/sys/kernel/msgmax").1, "12345\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), before);

    let mut pod = Pod::bare();
    let mut plan = tripod_shim_protocol::PodPlan { dir: pod.path().to_owned(), ..Default::default() };
    plan.sysctls.insert("kernel.nonsense".into(), "1".into());
    let failure = pod.client.ask(Request::Setup(Box::new(plan)), vec![]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Plan);
    assert!(failure.step.contains("kernel.nonsense"), "{failure}");
}

#[test]
fn a_network_namespace_is_joined() {
    let holder = Namespace::new();
    let path = holder.path();
    let mut pod = Pod::new(|plan| plan.netns = Some(path.clone()));
    let (_, text) = pod.run("c1", "readlink /proc/self/ns/net; ls /sys/class/net");
    let expected = fs::read_link(&path).unwrap();
    assert_eq!(text, format!("{}\nlo\n", expected.display()));
}

#[test]
fn shutdown_leaves_no_process_and_every_record() {
    let mut pod = Pod::new(|plan| plan.shared_pid = true);
    let mut shared = pod.plan("shared", "trap '' TERM; sleep 60 & sleep 60");
    shared.pid = PidNamespace::Pod;
    pod.launch(shared).unwrap();
    let pid = Pod::pid_of(&pod.launch(pod.plan("own", "sleep 60")).unwrap());
    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let plan = ExecPlan { exec: "e1".into(), container: "own".into(), process: process(&["sleep", "60"]) };
    pod.client.ask(Request::Exec(Box::new(plan)), vec![null(), null(), null()]).unwrap();
    let shim = pod.shim.pid.as_raw_nonzero().get();
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    assert_eq!(children.split_whitespace().count(), 4, "reaper, two containers, one exec: {children}");
    pod.shutdown();
    for child in children.split_whitespace() {
        assert!(!fs::exists(format!("/proc/{child}")).unwrap());
    }
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    for id in ["shared", "own"] {
        let record: tripod_shim_protocol::ExitRecord =
            serde_json::from_slice(&fs::read(pod.path().join("exits").join(id)).unwrap()).unwrap();
        assert_eq!(record.code, 137);
    }
}

#[test]
fn a_start_that_hangs_delays_nobody_and_can_be_killed() {
    let mut pod = Pod::new(|_| {});
    // A FIFO in place of a cgroup's file: opening it for writing waits for a reader.
    let trap = pod.path().join("trap");
    fs::create_dir(&trap).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        trap.join("tasks"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut plan = pod.plan("hung", "true");
    plan.cgroups.dirs = vec![trap];
    let root = pod.rootfs("hung");
    let hung = pod.client.send(Request::Launch(Box::new(plan)), vec![Pod::detached(&root)]);
    let mut other = Client::connect(&pod.path().join("shim.sock"));
    std::mem::swap(&mut pod.client, &mut other);
    assert_eq!(pod.run("c1", "exit 5").0, 5);
    let Ok(Reply::Report { containers, .. }) = pod.client.ask(Request::List, vec![]) else { panic!() };
    assert!(matches!(containers["hung"], ContainerReport::Starting { .. }));
    let signal = Request::Signal { container: "hung".into(), signal: 9 };
    assert_eq!(pod.client.ask(signal, vec![]), Ok(Reply::Done));
    assert_eq!(other.answer(hung).0.unwrap_err().kind, FailureKind::Internal);
}

#[test]
fn signals_that_end_others_do_not_end_the_shim() {
    let mut pod = Pod::new(|_| {});
    for signal in [1, 2, 3, 13, 15] {
        tripod_sys::signal::send(&pod.shim.pidfd, signal).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(pod.run("c1", "true").0, 0);
}

#[test]
fn many_starts_at_once_do_not_mix() {
    const COUNT: usize = 24;
    let mut pod = Pod::new(|_| {});
    let root = pod.rootfs("all");
    for n in 0..COUNT {
        let plan = pod.plan(&format!("c{n}"), &format!("echo {n}; echo $$; exit {n}"));
        pod.client.send(Request::Launch(Box::new(plan)), vec![Pod::detached(&root)]);
    }
    let answers = pod.client.answers(COUNT);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    for n in 0..COUNT {
        let id = format!("c{n}");
        assert_eq!(pod.client.exit(&id).code, n as i32);
        assert_eq!(pod.text(&id), format!("{n}\n1\n"));
    }
}
