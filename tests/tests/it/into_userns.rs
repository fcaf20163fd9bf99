//! Pods with user namespaces and what reaches into them from outside: clients with streams, CNI plugins, listeners for
//! system calls; and rights that an image gives its programs.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tripod_cri_api::v1::{ContainerConfig, Int64Value, SecurityProfile, security_profile::ProfileType};
use tripod_tests::{
    Client, Forward, Image, Layer, Node, Server, Sizes, Tree, Wanted, eventually, image_spec, processes, security_of,
    shell, tests, transports,
};

use crate::{
    port_forward::exchanged,
    userns::{BASE, pod_at},
};

tests![
    commands_run_over_every_transport,
    a_running_program_is_attached_to_over_every_transport,
    ports_are_forwarded_over_every_transport,
    plugins_make_its_network,
    a_listener_decides_about_its_calls,
    capabilities_of_files_are_effective_in_it,
];

const LIMIT: Duration = Duration::from_secs(30);

async fn commands_run_over_every_transport(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let id = cri.run(&pod, &config, &shell("main", "exec sleep 1000")).await.unwrap();
    for transport in transports() {
        let script = "cat; id -u; head -n 1 /proc/self/uid_map | tr -s ' '; echo err >&2; exit 7";
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::ALL).await.unwrap();
        let outcome = Client::new(transport, Wanted::ALL).run(&url, b"through\n").await;
        assert_eq!(outcome.code, 7, "{transport}: {}", outcome.error);
        assert_eq!(outcome.text(), format!("through\n0\n 0 {BASE} 65536\n"), "{transport}");
        assert_eq!(outcome.stderr, b"err\n", "{transport}");

        // The terminal is the user's, and changes its size.
        let sizes = Sizes::default();
        let script = "stat -c %u:%g $(tty); until [ \"$(stty size)\" = '41 121' ]; do usleep 10000; done; echo large";
        let url = cri.exec_url(&id, &["/bin/sh", "-c", script], Wanted::TERMINAL).await.unwrap();
        let mut session = Client::new(transport, Wanted::TERMINAL).sizes(&sizes).start(&url);
        session.read_until("0:5").await;
        sizes.set(121, 41);
        session.read_until("large").await;
        assert_eq!(session.end().await.code, 0, "{transport}");
    }
}

async fn a_running_program_is_attached_to_over_every_transport(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let parrot = "while read line; do echo \"$(id -u) got $line\"; done";
    for tty in [false, true] {
        let name = if tty { "terminal" } else { "pipe" };
        let talker = ContainerConfig { stdin: true, tty, ..shell(name, parrot) };
        let id = cri.run(&pod, &config, &talker).await.unwrap();
        for transport in transports() {
            let wanted = if tty { Wanted::TERMINAL } else { Wanted::ALL };
            let url = cri.attach_url(&id, wanted).await.unwrap();
            let mut session = Client::new(transport, wanted).start(&url);
            session.write(&format!("by {transport}\n")).await;
            session.read_until(&format!("0 got by {transport}")).await;
            session.kill().await;
        }
    }
}

async fn ports_are_forwarded_over_every_transport(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    cri.run(&pod, &config, &shell("main", "exec sleep 7101")).await.unwrap();
    let pid = eventually("the container", LIMIT, async || processes(&["sleep", "7101"]).first().copied()).await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo mapped; cat")]).await;
    for transport in transports() {
        let url = cri.forward_url(&pod, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        assert_eq!(exchanged(&forward, 0, "hello").await, "mapped\nhello", "{transport}");
        forward.end().await;
    }
}

/// The network namespace belongs to the pod's user namespace; plugins are the host's root, and work in it all the same.
async fn plugins_make_its_network(node: &mut Node) {
    crate::port_forward::use_plugins(node);
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let id = cri.run(&pod, &config, &shell("main", "exec sleep 1000")).await.unwrap();
    let address = cri.pod(&pod).await.unwrap().network.unwrap().ip;
    assert!(address.starts_with("10.231."), "{address}");
    let shown = cri.sh(&id, "ip -o addr show eth0; cat /proc/self/uid_map").await;
    assert!(shown.contains(&address) && shown.contains(&BASE.to_string()), "{shown}");
    // The host's end of their bridge.
    cri.sh(&id, "ping -c 1 -W 5 10.231.0.1 >/dev/null").await;
    // A new daemon knows what the plugins made, and takes it back.
    let cri = node.restart().await;
    assert_eq!(cri.pod(&pod).await.unwrap().network.unwrap().ip, address);
    cri.remove_pod(&pod).await.unwrap();
    assert!(!Path::new("/run/netns").join(format!("tripod-{pod}")).exists());
    // The plugins' bridge and rules are theirs to keep.
    node.counted = false;
}

/// Tells each state that it is sent on a line, and answers every call with ENOSPC.
const AGENT: &str = r#"
import fcntl, json, select, socket, struct, sys, threading
RECEIVE, SEND = 0xC0502100, 0xC0182101
def decide(fd):
    calls = select.poll()
    calls.register(fd, select.POLLIN)
    while calls.poll()[0][1] & select.POLLIN:
        call = bytearray(80)
        try:
            fcntl.ioctl(fd, RECEIVE, call)
            fcntl.ioctl(fd, SEND, struct.pack("=QqiI", struct.unpack_from("=Q", call)[0], 0, -28, 0))
        except FileNotFoundError:
            pass  # Whoever called has ended.
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(json.dumps({"listens": True}), flush=True)
while True:
    with listener.accept()[0] as connection:
        text, fds, _, _ = socket.recv_fds(connection, 65536, 1)
        while more := connection.recv(65536):
            text += more
    threading.Thread(target=decide, args=fds, daemon=True).start()
    print(text.decode(), flush=True)
"#;

/// A program that is killed with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn a_listener_decides_about_its_calls(node: &mut Node) {
    let (socket, profile) = (node.folder().join("agent.sock"), node.folder().join("agent.json"));
    let rules = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket, "listenerMetadata": "mine",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    fs::write(&profile, rules.to_string()).unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", AGENT]).arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut agent = Killed(command.spawn().expect("python3"));
    // All that it says comes by itself; a thread of its own reads, so that no wait is without a limit.
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel::<serde_json::Value>();
    let lines = BufReader::new(agent.0.stdout.take().unwrap()).lines();
    std::thread::spawn(move || {
        lines.map_while(Result::ok).all(|line| say.send(serde_json::from_str(&line).unwrap()).is_ok())
    });
    let mut next = async |what: &str| tripod_tests::within(what, LIMIT, said.recv()).await.expect("the agent lives");
    next("the agent").await;

    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let mut config_of = shell("main", "mkdir /x 2>&1; exec sleep 7201");
    let localhost_ref = profile.display().to_string();
    security_of(&mut config_of).seccomp =
        Some(SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref });
    let id = cri.run(&pod, &config, &config_of).await.unwrap();
    let first = next("the state of the container").await;
    let pid = eventually("the program", LIMIT, async || processes(&["sleep", "7201"]).first().copied()).await;
    let log = cri.status(&id).await.unwrap().log_path;
    eventually("the answer of the agent", LIMIT, async || {
        fs::read_to_string(&log).unwrap().contains("No space left on device").then_some(())
    })
    .await;
    assert_eq!((&first["pid"], &first["state"]["pid"]), (&pid.into(), &pid.into()), "as the host counts");
    assert_eq!((&first["metadata"], &first["state"]["id"]), (&"mine".into(), &id.as_str().into()));

    let answer = cri.exec(&id, &["mkdir", "/y"], 20).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.stderr).contains("No space left on device"), "{answer:?}");
    let second = next("the state of the command").await;
    assert_eq!((&second["state"]["status"], &second["state"]["pid"]), (&"running".into(), &pid.into()));
}

/// The attribute that `setcap cap_net_raw=ep` writes: revision 2 and the effective bit, permitted, inheritable; then the
/// upper halves of both.
fn net_raw() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

async fn capabilities_of_files_are_effective_in_it(node: &mut Node) {
    const IMAGE: &str = "registry.test/capable:1";
    let program = fs::read("/bin/busybox").unwrap();
    let tree = Tree::default().dir("capable/", 0o755);
    let tree = tree.file_with("capable/ping", 0o755, &program, "security.capability", &net_raw());
    let mut image = Image::busybox();
    image.layers.push(Layer::gzip(tree.hardlink("capable/grep", "capable/ping")));
    node.registry().await.push("capable:1", &image);
    let cri = node.ready().await;
    cri.pull(IMAGE).await.unwrap();

    let (mapped, mapped_config) = pod_at(&cri, "mapped", BASE).await;
    let plain_config = tripod_tests::pod("plain");
    let plain = cri.run_pod(&plain_config).await.unwrap();
    for (pod, config) in [(mapped, mapped_config), (plain, plain_config)] {
        let mut user = ContainerConfig { image: Some(image_spec(IMAGE)), ..shell("main", "exec sleep 1000") };
        security_of(&mut user).run_as_user = Some(Int64Value { value: 1000 });
        let id = cri.run(&pod, &config, &user).await.unwrap();
        let effective = async |program: &str| cri.sh(&id, &format!("{program} CapEff /proc/self/status")).await;
        assert_eq!(effective("grep").await, "CapEff:\t0000000000000000");
        assert_eq!(effective("/capable/grep").await, "CapEff:\t0000000000002000");
        let gateway = cri.sh(&id, "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'").await;
        cri.sh(&id, &format!("/capable/ping -c 1 -W 5 {gateway} >/dev/null")).await;
        let without = cri.exec(&id, &["ping", "-c", "1", "-W", "5", &gateway], 20).await.unwrap();
        assert_ne!(without.exit_code, 0, "the pod allows nobody else to");
    }
}
