//! `tripod image` as a person uses it, with a daemon and without.

use std::time::Duration;

use serde_json::{Value, json};
use tripod_tests::{BUSYBOX, Image, Layer, Node, Tree, eventually, host_pod, shell, tests, tripod, with_input};

tests![images_need_no_daemon, the_disk_is_told_and_pruned, damage_is_found_and_repaired, a_disk_is_not_filled,];

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a command to its end: its exit code, standard output and standard error.
async fn outcome(arguments: &[&str]) -> (i32, String, String) {
    let (code, output, error) = with_input(tripod(arguments), b"").await;
    (code, String::from_utf8_lossy(&output).into_owned(), error)
}

/// What a command says on standard output; it must succeed.
async fn said(arguments: &[&str]) -> String {
    let (code, output, error) = outcome(arguments).await;
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
    let (code, _, error) = outcome(&["image", "inspect", "registry.test/absent:1"]).await;
    assert!(code == 1 && error.contains("no image"), "{code} {error}");
    said(&["image", "rm", BUSYBOX]).await;
    assert_eq!(said(&["images", "-q"]).await, "");
}

/// Sizes are told, what is shared is counted once, and a prune frees what it says.
async fn the_disk_is_told_and_pruned(node: &mut Node) {
    let cri = node.ready().await;
    let registry = node.registry().await;
    let base = Image::busybox().layers;
    let more = |text: &str| Layer::gzip(Tree::default().file("more", 0o644, text.repeat(50_000)));
    for (name, text) in [("one:1", "a"), ("two:1", "b"), ("two:2", "c")] {
        let layers = [base.clone(), vec![more(text)]].concat();
        registry.push(name, &Image::new(layers));
    }
    let one = said(&["pull", "-q", "registry.test/one:1"]).await;
    let old = said(&["image", "pull", "-q", "registry.test/two:1"]).await;
    // The tag moves on: the old image is left without one.
    registry.push("two:1", &Image::new([base.clone(), vec![more("c")]].concat()));
    said(&["image", "pull", "-q", "registry.test/two:1"]).await;
    let (pod, container) = cri.run_in_pod(&host_pod("uses"), &shell("main", "sleep 1000")).await.unwrap();

    let usage: Value = serde_json::from_str(&said(&["image", "df", "-o", "json"]).await).unwrap();
    let images = usage["images"].as_array().unwrap();
    assert_eq!(images.len(), 4);
    let image = |id: &str| images.iter().find(|image| image["id"] == id).unwrap().clone();
    let (one, old) = (image(one.trim()), image(old.trim()));
    assert!(
        one["unique_bytes"].as_u64().unwrap() >= 50_000 && one["shared_bytes"].as_u64().unwrap() > 1 << 20,
        "{one}"
    );
    assert_eq!((&one["dangling"], &old["dangling"]), (&json!(false), &json!(true)));
    let used = image(&Image::busybox().id());
    assert_eq!(used["containers"], json!([container]));
    assert_eq!((usage["layers"]["count"].as_u64(), usage["writable"]["count"].as_u64()), (Some(5), Some(1)));
    assert!(usage["free_bytes"].as_u64().unwrap() > usage["min_free_bytes"].as_u64().unwrap());
    let table = said(&["image", "df"]).await;
    for part in ["registry.test/one:1", "writable layers", "tripod image prune", "are free on this filesystem"] {
        assert!(table.contains(part), "{part}: {table}");
    }

    let dry = said(&["image", "prune", "--all", "--dry-run"]).await;
    assert!(dry.contains("3 images and 3 layers would go"), "{dry}");
    assert_eq!(said(&["images", "-q"]).await.lines().count(), 4);
    let none = said(&["image", "prune", "--filter", "label=absent"]).await;
    assert!(none.contains("0 images and 0 layers are gone"), "{none}");
    let dangling = said(&["image", "prune"]).await;
    assert!(dangling.contains("1 images and 1 layers are gone"), "{dangling}");
    assert!(dangling.contains("registry.test/two@sha256:"), "{dangling}");
    let all = said(&["image", "prune", "--all"]).await;
    assert!(all.contains("2 images and 2 layers are gone"), "{all}");
    // It waits for the disk: nothing of theirs is left, and what is used is as it was.
    let layers = std::fs::read_dir(node.root().join("layers")).unwrap().count();
    assert_eq!((layers, said(&["images", "-q"]).await.trim()), (2, Image::busybox().id().as_str()));
    assert_eq!(cri.sh(&container, "cat /etc/motd").await, "second");
    cri.remove_pod(&pod).await.unwrap();
    let rest = said(&["image", "prune", "--all"]).await;
    assert!(rest.contains("1 images and 2 layers are gone"), "{rest}");
}

/// Damage is found by its path, told with the exit code, and repaired from the registry.
async fn damage_is_found_and_repaired(node: &mut Node) {
    let cri = node.ready().await;
    let sound = said(&["image", "check"]).await;
    assert!(sound.contains("1 images, 2 layers, 2 manifests") && sound.contains("all is as it should be"), "{sound}");
    let top = &Image::busybox().layers[1].diff_id;
    let motd = node.root().join("layers").join(top.strip_prefix("sha256:").unwrap()).join("fs/etc/motd");
    std::fs::write(&motd, "SECOND\n").unwrap();
    let (_, container) = cri.run_in_pod(&host_pod("has"), &shell("main", "sleep 1000")).await.unwrap();
    let (code, output, _) = outcome(&["image", "check"]).await;
    assert!(code == 1 && output.contains("\"etc/motd\": its content was changed"), "{code} {output}");
    let (code, output, error) = outcome(&["image", "check", "--repair", "--quiet"]).await;
    assert!(code == 0 && output.contains("fetched again from registry.test/busybox@sha256:"), "{code} {output}{error}");
    assert!(output.contains(&container[..13]), "{output}");
    assert_eq!(std::fs::read_to_string(&motd).unwrap(), "second\n");
    said(&["image", "check", BUSYBOX]).await;
    // What runs keeps what it has; what comes gets the right one, after a restart as well.
    assert_eq!(cri.sh(&container, "cat /etc/motd").await, "SECOND");
    let cri = node.restart().await;
    assert_eq!(cri.sh(&container, "cat /etc/motd").await, "SECOND");
    let (_, fresh) = cri.run_in_pod(&host_pod("gets"), &shell("main", "sleep 1000")).await.unwrap();
    assert_eq!(cri.sh(&fresh, "cat /etc/motd").await, "second");
    node.clear(&cri).await;
    let retired = node.root().join("retired");
    eventually("the end of what was replaced", LIMIT, async || {
        (std::fs::read_dir(&retired).unwrap().count() == 0).then_some(())
    })
    .await;
}

/// A pull that would fill the disk is refused by the name of the setting, and what is here already needs no room.
async fn a_disk_is_not_filled(node: &mut Node) {
    let cri = node.ready().await;
    node.stop().await;
    // A twentieth of the filesystem is the most that stays free, so what is to be fetched has to be said too large.
    let registry = node.registry().await;
    let huge = Image::new(vec![Layer::gzip(Tree::default().file("x", 0o644, "x"))]);
    let mut manifest: Value = serde_json::from_slice(&huge.manifest()).unwrap();
    manifest["layers"][0]["size"] = json!(1_u64 << 60);
    registry.push("huge:1", &huge);
    registry.push_manifest("huge:1", serde_json::to_vec(&manifest).unwrap().into());
    drop(cri);
    let cri = node.start().await;
    let error = cri.pull("registry.test/huge:1").await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted, "{error}");
    for part in ["No space left", "image.min_free_bytes", "tripod image prune"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    cri.pull(BUSYBOX).await.unwrap();
}
