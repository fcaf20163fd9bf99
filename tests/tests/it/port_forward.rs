//! Ports of pods on the client's loopback (contract: line 26).

use std::{fs, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use tripod_cri_api::v1::PodSandboxConfig;
use tripod_tests::{
    Cri, Forward, Node, Server, crictl, eventually, host_pod, peer, pod, processes, python, shell, tests, transports,
    within,
};

tests![
    servers_of_both_families_are_reached,
    a_pod_on_the_host_network_is_reached,
    a_pod_on_a_plugin_network_is_reached,
    a_closed_port_is_told,
    ports_and_connections_do_not_mix,
    two_hundred_connections_at_once,
    each_side_ends_for_itself,
    much_comes_and_goes_whole,
    a_connection_ends_with_its_peer,
    a_pod_that_is_not_there_is_told,
    python_forwards,
    crictl_forwards,
];

const LIMIT: Duration = Duration::from_secs(90);

/// A pod, and the PID of a process in it. The number makes its command line unlike all others.
async fn running(cri: &Cri, config: &PodSandboxConfig, number: &str) -> (String, u32) {
    let (pod, _) = cri.run_in_pod(config, &shell("main", &format!("exec sleep {number}"))).await.unwrap();
    (pod, eventually("the container", LIMIT, async || processes(&["sleep", number]).first().copied()).await)
}

/// Sends this, half-closes, and reads to the end.
async fn exchange(mut stream: TcpStream, data: &[u8]) -> Vec<u8> {
    let work = async {
        let (mut reader, mut writer) = stream.split();
        let mut answer = Vec::new();
        let sending = async {
            let _ = writer.write_all(data).await;
            let _ = writer.shutdown().await;
        };
        let (read, ()) = tokio::join!(reader.read_to_end(&mut answer), sending);
        match read {
            // Who has closed before all was read leaves like that.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(answer),
            read => read.map(|_| answer),
        }
    };
    within("an exchange", LIMIT, work).await.expect("an answer")
}

pub(crate) async fn exchanged(forward: &Forward, place: usize, data: &str) -> String {
    String::from_utf8(exchange(forward.connect(place).await, data.as_bytes()).await).unwrap()
}

async fn servers_of_both_families_are_reached(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7001").await;
    let mut servers = vec![("127.0.0.1:81", "echo four; cat"), ("0.0.0.0:83", "echo any; cat")];
    if !peer::chosen() {
        servers.extend([("[::1]:82", "echo six; cat"), ("[::]:84", "echo both; cat")]);
    }
    let _server = Server::start(pid, &servers).await;
    for transport in transports() {
        let ports: Vec<u16> =
            servers.iter().map(|(address, _)| address.rsplit(':').next().unwrap().parse().unwrap()).collect();
        let url = cri.forward_url(&pod, &ports).await.unwrap();
        let forward = Forward::start(transport, &url, &ports).await;
        assert_eq!(forward.refused, u64::from(*transport == "fallback"), "{transport}");
        for (place, (_, script)) in servers.iter().enumerate() {
            let name = script.strip_prefix("echo ").unwrap().strip_suffix("; cat").unwrap();
            for _ in 0..3 {
                assert_eq!(exchanged(&forward, place, "hello").await, format!("{name}\nhello"), "{transport}");
            }
        }
        forward.end().await;
    }
}

async fn a_pod_on_the_host_network_is_reached(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &host_pod("web"), "7002").await;
    let _server = Server::start(pid, &[("127.0.0.1:4081", "echo host; cat")]).await;
    for transport in transports() {
        let url = cri.forward_url(&pod, &[4081]).await.unwrap();
        let forward = Forward::start(transport, &url, &[4081]).await;
        assert_eq!(exchanged(&forward, 0, "hello").await, "host\nhello", "{transport}");
        forward.end().await;
    }
}

/// Has plugins of others make the networks of pods from now on.
pub(crate) fn use_plugins(node: &mut Node) {
    let critest = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../critest"));
    let plugins = critest.join(".build/bin/cni");
    assert!(plugins.join("bridge").exists(), "no {}: run critest/build cni", plugins.join("bridge").display());
    fs::copy(critest.join("peer/cni.conflist"), node.folder().join("cni/net.d/10-peer.conflist")).unwrap();
    node.settings.raw("network.cni_bin_dirs", &format!("[{:?}]", plugins.display().to_string()));
}

async fn a_pod_on_a_plugin_network_is_reached(node: &mut Node) {
    use_plugins(node);
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7003").await;
    let address = cri.pod(&pod).await.unwrap().network.unwrap().ip;
    assert!(address.starts_with("10.231."), "{address}");
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo plugin; cat")]).await;
    let url = cri.forward_url(&pod, &[81]).await.unwrap();
    let forward = Forward::start("spdy", &url, &[81]).await;
    assert_eq!(exchanged(&forward, 0, "hello").await, "plugin\nhello");
    forward.end().await;
    // The plugins' bridge and rules are theirs to keep.
    node.counted = false;
}

async fn a_closed_port_is_told(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, _) = running(&cri, &pod("web"), "7004").await;
    for transport in transports() {
        let url = cri.forward_url(&pod, &[4999]).await.unwrap();
        let mut forward = Forward::start(transport, &url, &[4999]).await;
        assert_eq!(exchanged(&forward, 0, "hello").await, "", "{transport}");
        let error = forward.error().await;
        assert!(error.contains("4999") && error.contains("refused"), "{transport}: {error}");
        forward.kill().await;
    }
}

/// Each connection of a session gets an answer of its own, in whatever order they speak.
async fn ports_and_connections_do_not_mix(node: &mut Node) {
    if peer::chosen() {
        return; // It forwards no half-close.
    }
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7005").await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "cat"), ("127.0.0.1:82", "tr a-z A-Z")]).await;
    for transport in transports() {
        let url = cri.forward_url(&pod, &[81, 82]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81, 82]).await;
        let mut streams = Vec::new();
        for number in 0..10 {
            streams.push((number, forward.connect(number % 2).await));
        }
        for (number, stream) in &mut streams {
            stream.write_all(format!("hello {number} ").as_bytes()).await.unwrap();
        }
        for (number, stream) in streams.into_iter().rev() {
            let expected = format!("hello {number} bye");
            let expected = if number % 2 == 0 { expected } else { expected.to_uppercase() };
            assert_eq!(exchange(stream, b"bye").await, expected.as_bytes(), "{transport}");
        }
        forward.end().await;
    }
}

async fn two_hundred_connections_at_once(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7006").await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "exec cat")]).await;
    for transport in transports().iter().take(2) {
        let url = cri.forward_url(&pod, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        let mut streams = Vec::new();
        for _ in 0..200 {
            streams.push(forward.connect(0).await);
        }
        // All are open at the same time.
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(format!("{number:03}").as_bytes()).await.unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; 3];
            within("an answer", LIMIT, stream.read_exact(&mut answer)).await.unwrap();
            assert_eq!(answer, format!("{number:03}").as_bytes(), "{transport}");
        }
        let rest = futures::future::join_all(streams.into_iter().map(|stream| exchange(stream, b""))).await;
        assert!(rest.iter().all(Vec::is_empty), "{transport}");
        forward.end().await;
    }
}

async fn each_side_ends_for_itself(node: &mut Node) {
    if peer::chosen() {
        return; // It forwards no half-close.
    }
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7007").await;
    let scripts = [
        // Answers when the client has said all.
        ("127.0.0.1:81", "wc -c"),
        // Speaks first and ends without having been asked.
        ("127.0.0.1:82", "echo greeting"),
        // Ends what it says, and goes on listening.
        ("127.0.0.1:83", "echo done; exec >&-; cat >/dev/null"),
    ];
    let _server = Server::start(pid, &scripts).await;
    for transport in transports() {
        let url = cri.forward_url(&pod, &[81, 82, 83]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81, 82, 83]).await;
        assert_eq!(exchanged(&forward, 0, &"x".repeat(100_000)).await, "100000\n", "{transport}");
        let mut stream = forward.connect(1).await;
        let mut text = String::new();
        within("the greeting", LIMIT, stream.read_to_string(&mut text)).await.unwrap();
        assert_eq!(text, "greeting\n", "{transport}");
        assert_eq!(exchanged(&forward, 2, "words").await, "done\n", "{transport}");
        forward.end().await;
    }
}

async fn much_comes_and_goes_whole(node: &mut Node) {
    if peer::chosen() {
        return; // It forwards no half-close.
    }
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7008").await;
    let file = node.folder().join("random");
    let make = format!("head -c 50000000 /dev/urandom >'{0}' && sha256sum <'{0}'", file.display());
    let made = std::process::Command::new("sh").arg("-c").arg(make).output().unwrap();
    let digest = String::from_utf8_lossy(&made.stdout).into_owned();
    let script = format!("cat '{}'", file.display());
    let _server =
        Server::start(pid, &[("127.0.0.1:81", "sha256sum"), ("127.0.0.1:82", &script), ("127.0.0.1:83", "cat")]).await;
    let data = fs::read(&file).unwrap();
    for transport in transports() {
        let url = cri.forward_url(&pod, &[81, 82, 83]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81, 82, 83]).await;
        assert_eq!(String::from_utf8_lossy(&exchange(forward.connect(0).await, &data).await), digest, "{transport}");
        assert!(exchange(forward.connect(1).await, b"").await == data, "{transport}");
        assert!(exchange(forward.connect(2).await, &data).await == data, "{transport}");
        forward.end().await;
    }
}

/// The server dies, and the client sees it; the client leaves, and the server sees it.
async fn a_connection_ends_with_its_peer(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7009").await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo $$; exec cat")]).await;
    for transport in transports() {
        let url = cri.forward_url(&pod, &[81]).await.unwrap();
        let forward = Forward::start(transport, &url, &[81]).await;
        for side in ["server", "client"] {
            let mut stream = forward.connect(0).await;
            let mut buffer = [0; 32];
            let length = within("a greeting", LIMIT, stream.read(&mut buffer)).await.unwrap();
            let server: u32 = std::str::from_utf8(&buffer[..length]).unwrap().trim().parse().unwrap();
            if side == "server" {
                let pid = rustix::process::Pid::from_raw(server.cast_signed()).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                let mut rest = Vec::new();
                within("the end", LIMIT, stream.read_to_end(&mut rest)).await.unwrap();
                assert_eq!(rest, b"", "{transport}");
            } else {
                drop(stream);
                let gone = async || (!Path::new(&format!("/proc/{server}")).exists()).then_some(());
                eventually("the end of the server", LIMIT, gone).await;
            }
        }
        forward.end().await;
    }
}

async fn a_pod_that_is_not_there_is_told(node: &mut Node) {
    let cri = node.ready().await;
    let error = cri.forward_url("no-such-pod", &[80]).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    let (pod, _) = running(&cri, &pod("web"), "7010").await;
    cri.stop_pod(&pod).await.unwrap();
    let error = cri.forward_url(&pod, &[80]).await.unwrap_err();
    assert!(error.code() == Code::FailedPrecondition || peer::chosen(), "{error}");
}

async fn python_forwards(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7011").await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "cat"), ("127.0.0.1:82", "sed -u y/abc/ABC/")]).await;
    let url = cri.forward_url(&pod, &[81, 82]).await.unwrap();
    // This client cannot half-close.
    let data = "abcdefghi\n".repeat(20_000);
    let want = data.len().to_string();
    let arguments = ["forward", "--port", "81", "--port", "82", "--want", &want, &url];
    let answer = within("the client", LIMIT, python(&arguments, data.as_bytes())).await.unwrap();
    for (port, expected) in [("81", data.clone()), ("82", data.replace("abc", "ABC"))] {
        let digest = tripod_tests::digest(expected.as_bytes());
        assert_eq!(format!("sha256:{}", answer[port]["sha256"].as_str().unwrap()), digest, "{answer}");
    }
    if !peer::chosen() {
        let url = cri.forward_url(&pod, &[4999]).await.unwrap();
        let answer = within("the client", LIMIT, python(&["forward", "--port", "4999", &url], b"")).await.unwrap();
        assert!(answer["4999"]["error"].as_str().is_some_and(|error| error.contains("refused")), "{answer}");
    }
}

async fn crictl_forwards(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, pid) = running(&cri, &pod("web"), "7012").await;
    let _server = Server::start(pid, &[("127.0.0.1:81", "echo hello; cat")]).await;
    for (local, transport) in [("5081", "spdy"), ("5082", "websocket")] {
        if peer::chosen() && transport == "websocket" {
            continue;
        }
        let mut client = crictl(&node.socket());
        let ports = format!("{local}:81");
        let mut client = client.args(["port-forward", "--transport", transport, &pod, &ports]).spawn().unwrap();
        let stream =
            eventually("crictl's port", LIMIT, async || TcpStream::connect(format!("127.0.0.1:{local}")).await.ok())
                .await;
        assert_eq!(exchange(stream, b"there").await, b"hello\nthere", "{transport}");
        client.kill().await.unwrap();
    }
}
