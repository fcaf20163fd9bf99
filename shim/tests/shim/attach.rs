//! Clients that connect to a running container, and sockets in the pod's network.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::SocketAddr,
};

use rustix::io::Errno;
use tripod_shim_protocol::{FailureKind, LaunchPlan, Reply, Request};

use crate::support::*;

/// What a client gets.
#[derive(Default)]
struct Client {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    terminal: Option<File>,
}

fn attach(pod: &mut Pod, container: &str, wanted: [bool; 3]) -> Client {
    let [stdin, stdout, stderr] = wanted;
    let id = pod.client.send(Request::Attach { container: container.into(), stdin, stdout, stderr }, vec![]);
    let (reply, fds) = pod.client.answer(id);
    let mut fds = fds.into_iter().map(File::from);
    let Reply::Attached { stdin, stdout, stderr, terminal } = reply.unwrap() else { panic!("not attached") };
    let mut next = |there: bool| there.then(|| fds.next().unwrap());
    Client { stdin: next(stdin), stdout: next(stdout), stderr: next(stderr), terminal: next(terminal) }
}

const ALL: [bool; 3] = [true; 3];

fn with_stdin(pod: &Pod, id: &str, command: &str) -> LaunchPlan {
    LaunchPlan { stdin: true, ..pod.plan(id, command) }
}

/// Reads until there are so many bytes.
fn read(file: &mut Option<File>, text: &str) {
    let mut buffer = vec![0; text.len()];
    file.as_mut().unwrap().read_exact(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), text);
}

/// The descriptors of the shim.
fn open_files(pod: &Pod) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pod.shim.pid.as_raw_nonzero())).unwrap().count()
}

#[test]
fn each_client_sees_what_comes_from_now_on_and_can_type() {
    let mut pod = Pod::new(|_| {});
    let plan = with_stdin(&pod, "c1", "echo early; while read word; do echo out $word; echo err $word >&2; done");
    pod.launch(plan).unwrap();
    wait_until("it has begun", || pod.text("c1").contains("early"));
    let before = open_files(&pod);
    let mut one = attach(&mut pod, "c1", ALL);
    assert!(one.terminal.is_none());
    one.stdin.as_mut().unwrap().write_all(b"a\n").unwrap();
    read(&mut one.stdout, "out a\n");
    read(&mut one.stderr, "err a\n");
    let mut two = attach(&mut pod, "c1", [true, true, false]);
    assert!(two.stderr.is_none());
    two.stdin.as_mut().unwrap().write_all(b"b\n").unwrap();
    read(&mut one.stdout, "out b\n");
    read(&mut two.stdout, "out b\n");
    // One that goes takes nothing along, not even the end of the input.
    drop((one, two));
    wait_until("the shim has noticed", || open_files(&pod) <= before);
    let mut three = attach(&mut pod, "c1", ALL);
    three.stdin.as_mut().unwrap().write_all(b"c\n").unwrap();
    read(&mut three.stdout, "out c\n");
    pod.client.ask(Request::Signal { container: "c1".into(), signal: 9 }, vec![]).unwrap();
    let mut rest = String::new();
    three.stdout.unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "the end of a container ends its clients' streams");
    assert_eq!(pod.client.exit("c1").code, 137);
    assert_eq!(pod.text("c1").lines().filter(|line| line.starts_with("out")).count(), 3);
}

#[test]
fn with_stdin_once_the_end_of_the_first_client_is_the_end_of_the_input() {
    let mut pod = Pod::new(|_| {});
    let plan = LaunchPlan { stdin_once: true, ..with_stdin(&pod, "c1", "cat; echo over; sleep 60") };
    pod.launch(plan).unwrap();
    let mut quiet = attach(&mut pod, "c1", [false, true, false]);
    let mut one = attach(&mut pod, "c1", ALL);
    let mut two = attach(&mut pod, "c1", ALL);
    assert!(one.stdin.is_some() && two.stdin.is_none(), "only the first has it");
    one.stdin.take().unwrap().write_all(b"text\n").unwrap();
    for client in [&mut quiet, &mut one, &mut two] {
        read(&mut client.stdout, "text\nover\n");
    }
    assert!(attach(&mut pod, "c1", ALL).stdin.is_none());
}

#[test]
fn a_client_that_does_not_read_stops_nobody_and_is_told_what_it_missed() {
    let mut pod = Pod::new(|_| {});
    let command = "read go; head -c 3999999 /dev/zero | tr '\\0' x; echo; read go; echo end; read go";
    let plan = with_stdin(&pod, "c1", command);
    pod.launch(plan).unwrap();
    let mut slow = attach(&mut pod, "c1", ALL);
    slow.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    wait_until("all is in the log", || pod.text("c1").len() == 4_000_000);
    let mut buffer = vec![0; 100_000];
    slow.stdout.as_mut().unwrap().read_exact(&mut buffer).unwrap();
    assert!(buffer.iter().all(|byte| *byte == b'x'));
    slow.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    wait_until("it is read on", || pod.text("c1").ends_with("end\n"));
    pod.client.ask(Request::Signal { container: "c1".into(), signal: 9 }, vec![]).unwrap();
    let mut rest = String::new();
    slow.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    let (text, notice) = rest.split_once("\r\ntripod: ").expect("a notice");
    let (missed, rest) = notice.split_once(" bytes of output are missing here").unwrap();
    assert_eq!(buffer.len() + text.len() + missed.parse::<usize>().unwrap(), 4_000_000);
    assert!(rest.ends_with("\r\nend\n"), "{rest:?}");
    pod.client.exit("c1");
}

#[test]
fn a_terminal_is_shared_and_survives_that_nobody_has_it_open() {
    let mut pod = Pod::new(|_| {});
    // Its first process closes the terminal for a while, and opens it again.
    let script = "exec </dev/null >/dev/null 2>&1; until [ -e /go ]; do sleep 0.02; done; \
                  exec </dev/console >/dev/console 2>&1; echo back; read word; stty size; echo $word; sleep 60";
    let mut plan = LaunchPlan { stdin_once: true, ..with_stdin(&pod, "c1", script) };
    plan.process.terminal = true;
    pod.launch(plan).unwrap();
    let mut client = attach(&mut pod, "c1", ALL);
    assert!(client.stderr.is_none(), "a terminal has one output");
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(client.terminal.as_ref().unwrap(), size).unwrap();
    fs::write(pod.path().join("rootfs/c1/go"), "").unwrap();
    read(&mut client.stdout, "back\r\n");
    client.stdin.as_mut().unwrap().write_all(b"word\n").unwrap();
    read(&mut client.stdout, "word\r\n33 101\r\nword\r\n");
    assert!(attach(&mut pod, "c1", ALL).stdin.is_none(), "the first client had it");
    drop(client);
    assert_eq!(pod.exec("c1", "e1", &["true"]).unwrap().0, 0, "it runs on");
}

#[test]
fn what_does_not_run_cannot_be_attached_to() {
    let mut pod = Pod::new(|_| {});
    let ask = |pod: &mut Pod, container: &str| {
        let request = Request::Attach { container: container.into(), stdin: true, stdout: true, stderr: true };
        pod.client.ask(request, vec![]).unwrap_err().kind
    };
    assert_eq!(ask(&mut pod, "none"), FailureKind::NotFound);
    pod.run("c1", "true");
    assert_eq!(ask(&mut pod, "c1"), FailureKind::NotRunning);
    // A container without standard input has none for clients either, and a closed output is no output.
    pod.launch(pod.plan("c2", "exec >&-; read go; sleep 60")).unwrap();
    wait_until("its output is closed", || {
        let client = attach(&mut pod, "c2", ALL);
        client.stdin.is_none() && client.stdout.is_none() && client.stderr.is_some()
    });
}

#[test]
fn sockets_are_in_the_pods_network() {
    let holder = Namespace::new();
    let connect = |netns: Option<std::path::PathBuf>| {
        let mut pod = Pod::new(|plan| plan.netns = netns);
        [(false, "127.0.0.1:1"), (true, "[::1]:1")].map(|(ipv6, address)| {
            let id = pod.client.send(Request::Socket { ipv6 }, vec![]);
            let (reply, fds) = pod.client.answer(id);
            assert_eq!(reply, Ok(Reply::Socket));
            rustix::net::connect(&fds[0], &address.parse::<SocketAddr>().unwrap()).unwrap_err()
        })
    };
    // Where even the loopback device is down, nothing can be reached; here there is just nobody who listens.
    assert_eq!(connect(Some(holder.path())), [Errno::NETUNREACH, Errno::ADDRNOTAVAIL]);
    assert!(!connect(None).contains(&Errno::NETUNREACH));
}
