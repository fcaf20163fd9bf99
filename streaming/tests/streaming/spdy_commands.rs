//! Commands over SPDY.

use tokio::time::{Duration, timeout};
use tripod_streaming::{AttachRequest, ExecRequest, Streams};

use crate::{
    spdy_client::{Client, exit_code, until},
    world::{ABSENT, ALL, OUT, TERMINAL, World},
};

const V4: &str = "v4.channel.k8s.io";

#[tokio::test]
async fn every_version_gives_output_and_the_end() {
    let world = World::start().await;
    for protocol in ["v5.channel.k8s.io", V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", ""] {
        let url = world.sh("echo out; echo err >&2; exit 3", OUT);
        let (stdout, stderr, status) = Client::start(&url, protocol, OUT).await.finish().await;
        assert_eq!((&*stdout, &*stderr), (&b"out\n"[..], &b"err\n"[..]), "{protocol}");
        if protocol.starts_with("v5") || protocol.starts_with("v4") {
            assert_eq!(exit_code(&status), 3, "{status}");
        } else {
            assert!(status.contains("exit code: 3"), "{protocol}: {status}");
        }
        let (_, _, status) = Client::start(&world.sh("true", OUT), protocol, OUT).await.finish().await;
        assert!(status.is_empty() || exit_code(&status) == 0, "{protocol}: {status}");
    }
    world.stop().await;
}

#[tokio::test]
async fn input_ends_where_the_client_ends_it() {
    let world = World::start().await;
    let mut client = Client::start(&world.exec(&["cat"], ALL), V4, ALL).await;
    client.write(b"some ").await;
    client.write(b"input").await;
    client.end().await;
    let (stdout, _, status) = client.finish().await;
    assert_eq!((&*stdout, exit_code(&status)), (&b"some input"[..], 0));
    world.stop().await;
}

#[tokio::test]
async fn megabytes_go_both_ways_and_arrive_as_they_were() {
    let world = World::start().await;
    let mut client = Client::start(&world.exec(&["cat"], ALL), V4, ALL).await;
    let data: Vec<u8> = (0..50 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut stdin = client.stdin.take().unwrap();
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        stdin.write(&sent).await.unwrap();
        stdin.finish().await.unwrap();
    });
    let (stdout, _, status) = client.finish().await;
    sending.await.unwrap();
    assert!(stdout == data, "{} bytes of {}", stdout.len(), data.len());
    assert_eq!(exit_code(&status), 0);
    world.stop().await;
}

#[tokio::test]
async fn input_that_nobody_reads_holds_nobody_up() {
    let world = World::start().await;
    let mut client = Client::start(&world.sh("exec <&-; echo closed; sleep 0.3; exit 4", ALL), V4, ALL).await;
    let mut stdin = client.stdin.take().unwrap();
    let sending = tokio::spawn(async move {
        let chunk = vec![7; 1 << 20];
        while stdin.write(&chunk).await.is_ok() {}
    });
    let (stdout, _, status) = client.finish().await;
    assert_eq!((&*stdout, exit_code(&status)), (&b"closed\n"[..], 4));
    timeout(Duration::from_secs(10), sending).await.unwrap().unwrap();
    world.stop().await;
}

#[tokio::test]
async fn what_was_written_before_the_end_arrives_and_children_in_the_background_are_not_waited_for() {
    let world = World::start().await;
    for _ in 0..20 {
        let url = world.sh("sleep 60 & echo $! >&2; head -c 60000 /dev/zero; exit 9", OUT);
        let session = Client::start(&url, V4, OUT).await.finish();
        let (stdout, stderr, status) = timeout(Duration::from_secs(20), session).await.unwrap();
        assert_eq!((stdout.len(), exit_code(&status)), (60000, 9));
        let child = String::from_utf8(stderr).unwrap();
        assert!(std::process::Command::new("kill").arg(child.trim()).status().unwrap().success());
    }
    world.stop().await;
}

#[tokio::test]
async fn signals_become_exit_codes() {
    let world = World::start().await;
    let (_, _, status) = Client::start(&world.sh("kill -9 $$", OUT), V4, OUT).await.finish().await;
    assert_eq!(exit_code(&status), 137);
    world.stop().await;
}

#[tokio::test]
async fn a_terminal_has_the_size_of_the_window() {
    let world = World::start().await;
    let script = "while read line; do stty size; done";
    let mut client = Client::start(&world.sh(script, TERMINAL), V4, TERMINAL).await;
    client.resize("{\"Width\":80,\"Height\":24}\n{\"Width\":120,").await;
    client.resize("\"Height\":40}").await;
    has_size(&mut client, "40 120").await;
    client.resize("{\"Width\":200,\"Height\":50}").await;
    has_size(&mut client, "50 200").await;
    world.stop().await;
}

/// Streams are not in step with each other, so the size is asked for until it is right.
async fn has_size(client: &mut Client, size: &str) {
    let asking = async {
        loop {
            client.write(b"\n").await;
            // The terminal shows the line, then what the program writes.
            let shown = until(client.stdout.as_mut().unwrap(), "\n").await;
            if shown.contains(size) {
                break;
            }
        }
    };
    timeout(Duration::from_secs(20), asking).await.unwrap();
}

#[tokio::test]
async fn a_terminal_has_no_end_of_input_and_all_of_its_output() {
    let world = World::start().await;
    let mut client = Client::start(&world.sh("sleep 0.3; seq 1 5000", TERMINAL), V4, TERMINAL).await;
    client.end().await;
    let (stdout, _, status) = client.finish().await;
    let text = String::from_utf8(stdout).unwrap();
    assert_eq!((text.lines().count(), text.lines().last()), (5000, Some("5000")));
    assert_eq!(exit_code(&status), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_size_that_is_none_ends_the_session_with_a_word() {
    let world = World::start().await;
    for junk in ["{\"Width\":\"wide\"}", "]", "{\"Width\":70000,\"Height\":1}", &"{\"Width\":1,".repeat(1000)] {
        let mut client = Client::start(&world.exec(&["cat"], TERMINAL), V4, TERMINAL).await;
        client.resize(junk).await;
        let (_, _, status) = client.finish().await;
        assert!(status.contains("InternalError") && status.contains("size of the terminal"), "{junk}: {status}");
    }
    world.stop().await;
}

#[tokio::test]
async fn refusals_are_told() {
    let world = World::start().await;
    let request = ExecRequest { container: ABSENT.into(), command: vec!["true".into()], streams: OUT };
    let url = world.server.exec_url(request).unwrap();
    let (_, _, status) = Client::start(&url, V4, OUT).await.finish().await;
    assert!(status.contains("InternalError") && status.contains("container absent does not exist"), "{status}");
    let url = world.server.attach_url(AttachRequest { container: ABSENT.into(), streams: OUT }).unwrap();
    let (_, _, status) = Client::start(&url, "v2.channel.k8s.io", OUT).await.finish().await;
    assert!(status.contains("container absent does not exist"), "{status}");
    let (_, _, status) = Client::start(&world.exec(&["/absent"], OUT), V4, OUT).await.finish().await;
    assert!(status.contains("cannot start the command"), "{status}");
    world.stop().await;
}

#[tokio::test]
async fn an_attachment_ends_with_success() {
    let world = World::start().await;
    let url = world.server.attach_url(AttachRequest { container: "c".into(), streams: ALL }).unwrap();
    let mut client = Client::start(&url, V4, ALL).await;
    client.write(b"echo").await;
    until(client.stdout.as_mut().unwrap(), "echo").await;
    client.end().await;
    let (_, _, status) = client.finish().await;
    assert_eq!(exit_code(&status), 0);
    world.stop().await;
}

#[tokio::test]
async fn only_the_streams_that_were_asked_for() {
    let world = World::start().await;
    let only = Streams { stdout: true, ..Streams::default() };
    let url = world.sh("echo out; echo err >&2", only);
    let (stdout, stderr, status) = Client::start(&url, V4, only).await.finish().await;
    assert_eq!((&*stdout, &*stderr, exit_code(&status)), (&b"out\n"[..], &b""[..], 0));
    world.stop().await;
}
