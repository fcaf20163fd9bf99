//! `tripod image` as a person uses it, with a daemon and without.

use std::{env, path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;
use tripod_tests::{BUSYBOX, Image, Node, tests, within};

tests![images_need_no_daemon];

const LIMIT: Duration = Duration::from_secs(60);

/// The exit code, standard output and standard error of a command of the program under test.
async fn tripod(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(PathBuf::from(env::var_os("TRIPOD_BIN").expect("the program under test")));
    command.args(arguments).kill_on_drop(true).stdin(Stdio::null());
    let output = within("a command", LIMIT, command.output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

/// What a command says on standard output; it must succeed.
async fn said(arguments: &[&str]) -> String {
    let (code, output, error) = tripod(arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {output}{error}");
    output
}

/// The same commands reach the daemon, or the store where there is none; the next daemon sees what they did.
async fn images_need_no_daemon(node: &mut Node) {
    let registry = node.registry().await;
    registry.push("busybox:1", &Image::busybox());
    node.start().await;
    assert_eq!(said(&["image", "ls", "-q"]).await, "");
    node.stop().await;
    let (config, root) = (node.folder().join("config.toml"), node.root());
    let store = ["--config", config.to_str().unwrap(), "--root", root.to_str().unwrap()];
    let alone =
        |command: &[&str]| -> Vec<String> { command.iter().chain(&store).map(|word| (*word).to_owned()).collect() };
    let run = async |command: &[&str]| {
        let words = alone(command);
        said(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let id = run(&["image", "pull", "-q", BUSYBOX]).await;
    assert_eq!(id.trim(), Image::busybox().id());
    assert_eq!(run(&["images", "-q"]).await, id);
    let inspected: serde_json::Value = serde_json::from_str(&run(&["image", "inspect", BUSYBOX]).await).unwrap();
    assert_eq!(inspected["status"]["repo_tags"][0], BUSYBOX);
    assert!(!node.socket().exists());
    node.start().await;
    assert_eq!(said(&["image", "ls", "-q"]).await, id);
    let (code, _, error) = tripod(&["image", "inspect", "registry.test/absent:1"]).await;
    assert!(code == 1 && error.contains("no image"), "{code} {error}");
    said(&["image", "rm", BUSYBOX]).await;
    assert_eq!(said(&["images", "-q"]).await, "");
}
