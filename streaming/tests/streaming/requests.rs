//! What happens before a session.

use tripod_streaming::{Config, PortForwardRequest, Streams, UrlError};

use crate::{
    http::{SPDY, connect, rejected, request, split},
    spdy_client::{Client, exit_code},
    world::{OUT, World},
};

#[tokio::test]
async fn a_url_works_once() {
    let world = World::start().await;
    let url = world.sh("exit 1", OUT);
    let (_, _, status) = Client::start(&url, "v4.channel.k8s.io", OUT).await.finish().await;
    assert_eq!(exit_code(&status), 1);
    let (answer, text) = rejected("POST", &url, &SPDY).await;
    assert_eq!(answer.status, 404);
    assert!(text.contains("no session waits at this URL"), "{text}");
    world.stop().await;
}

#[tokio::test]
async fn a_url_is_used_up_by_a_request_that_makes_no_sense() {
    let world = World::start().await;
    let url = world.sh("exit 1", OUT);
    let (answer, text) = rejected("GET", &url, &[]).await;
    assert_eq!(answer.status, 400);
    assert!(text.contains("SPDY/3.1") && text.contains("websocket"), "{text}");
    assert_eq!(answer.header("upgrade"), ["SPDY/3.1, websocket"]);
    assert_eq!(rejected("POST", &url, &SPDY).await.0.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn a_url_is_of_one_kind() {
    let world = World::start().await;
    let url = world.sh("exit 1", OUT).replace("/exec/", "/attach/");
    assert_eq!(rejected("POST", &url, &SPDY).await.0.status, 404);
    for path in ["/", "/exec", "/exec/", "/exec/x", "/metrics/x", "//", "/exec/%00"] {
        let url = format!("http://{}{path}", split(&url).0);
        assert_eq!(rejected("POST", &url, &SPDY).await.0.status, 404, "{path}");
    }
    let (answer, _) = rejected("DELETE", &world.sh("exit 1", OUT), &SPDY).await;
    assert_eq!((answer.status, answer.header("allow")), (405, vec!["GET, POST"]));
    world.stop().await;
}

#[tokio::test]
async fn a_url_expires() {
    let world = World::with(Config { token_seconds: 1, ..Config::default() }).await;
    let url = world.sh("exit 1", OUT);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(rejected("POST", &url, &SPDY).await.0.status, 404);
    assert_eq!(world.server.waiting(), 0);
    world.stop().await;
}

#[tokio::test]
async fn so_many_urls_wait() {
    let world = World::with(Config { max_tokens: 2, ..Config::default() }).await;
    let ask = || world.server.port_forward_url(PortForwardRequest { pod: "p".into(), ports: vec![] });
    let first = ask().unwrap();
    ask().unwrap();
    assert_eq!(ask(), Err(UrlError::TooMany { limit: 2, seconds: 60 }));
    rejected("POST", &first, &[]).await;
    ask().unwrap();
    world.stop().await;
}

#[tokio::test]
async fn requests_must_make_sense() {
    let world = World::start().await;
    let exec = |container: &str, command: &[&str], streams| {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        let request = tripod_streaming::ExecRequest { container: container.into(), command, streams };
        world.server.exec_url(request).map_err(|error| error.to_string())
    };
    assert!(exec("", &["true"], OUT).unwrap_err().contains("container"));
    assert!(exec("c", &[], OUT).unwrap_err().contains("command"));
    assert!(exec("c", &["true"], Streams::default()).unwrap_err().contains("stdin"));
    assert!(exec("c", &["true"], Streams { terminal: true, ..OUT }).unwrap_err().contains("tty"));
    world.stop().await;
}

#[tokio::test]
async fn protocols_are_agreed_on() {
    let world = World::start().await;
    let mut headers = SPDY.to_vec();
    headers.push(("X-Stream-Protocol-Version", "v9.channel.k8s.io"));
    headers.push(("X-Stream-Protocol-Version", "v8.channel.k8s.io, v7.channel.k8s.io"));
    let (answer, text) = rejected("POST", &world.sh("true", OUT), &headers).await;
    assert_eq!(answer.status, 403);
    assert!(text.contains("v7.channel.k8s.io"), "{text}");
    assert_eq!(answer.header("x-accepted-stream-protocol-versions").len(), 5);
    let (answer, _) = rejected("POST", &world.forward(&[]), &headers).await;
    assert_eq!(
        (answer.status, answer.header("x-accepted-stream-protocol-versions")),
        (403, vec!["portforward.k8s.io"])
    );

    let url = world.sh("true", OUT);
    headers.push(("X-Stream-Protocol-Version", "v6.channel.k8s.io,v3.channel.k8s.io,v4.channel.k8s.io"));
    let answer = request(&mut connect(&url).await, "POST", &url, &headers).await;
    assert_eq!((answer.status, answer.header("x-stream-protocol-version")), (101, vec!["v3.channel.k8s.io"]));
    world.stop().await;
}

#[tokio::test]
async fn websocket_requests_are_whole() {
    let world = World::start().await;
    let upgrade = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")];
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("Sec-WebSocket-Version", "13");
    let with = |more: &[(&'static str, &'static str)]| [&upgrade[..], more].concat();
    let url = || world.sh("true", OUT);
    assert_eq!(rejected("POST", &url(), &with(&[key, version])).await.0.status, 405);
    assert_eq!(rejected("GET", &url(), &with(&[version])).await.0.status, 400);
    let (answer, _) = rejected("GET", &url(), &with(&[key, ("Sec-WebSocket-Version", "8")])).await;
    assert_eq!((answer.status, answer.header("sec-websocket-version")), (426, vec!["13"]));
    let wrong = ("Sec-WebSocket-Protocol", "portforward.k8s.io, v9.channel.k8s.io");
    assert_eq!(rejected("GET", &url(), &with(&[key, version, wrong])).await.0.status, 403);
    assert_eq!(rejected("GET", &world.forward(&[]), &with(&[key, version])).await.0.status, 400);

    let url = url();
    let right = ("Sec-WebSocket-Protocol", "v9.channel.k8s.io, v4.channel.k8s.io");
    let answer = request(&mut connect(&url).await, "GET", &url, &with(&[key, version, right])).await;
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, vec!["v4.channel.k8s.io"]));
    assert_eq!(answer.header("sec-websocket-accept"), ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]);
    world.stop().await;
}
