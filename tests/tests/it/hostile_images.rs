//! Ways out that begin in an image: links where runtimes make things, users that are not what they seem, labels that
//! somebody might act upon. What was found elsewhere is told by its number.

use std::{fs, path::Path};

use tonic::Code;
use tripod_tests::{Image, Layer, Node, Tree, busybox, image_spec, shell, tests};

use crate::containers::pod_of;

tests![
    links_in_place_of_dev_reach_no_folder_of_the_host,
    files_that_are_provided_follow_no_link_out,
    working_directories_are_made_inside,
    users_of_digits_are_numbers,
    labels_of_images_are_nobodys_orders,
];

/// A folder of the host that links in images lead to, with what a runtime might take away or write over.
const HOST: &str = "/run/hostile";

/// What its files hold.
const MARK: &str = "untouched";

fn host() -> Vec<(String, String)> {
    fs::create_dir_all(HOST).unwrap();
    for name in ["ptmx", "hosts", "resolv.conf", "hostname", "mtab"] {
        fs::write(Path::new(HOST).join(name), MARK).unwrap();
    }
    seen()
}

/// What is in it: names, and types and contents.
fn seen() -> Vec<(String, String)> {
    let entry = |entry: fs::DirEntry| {
        let kind = entry.file_type().unwrap();
        let content = if kind.is_file() { fs::read_to_string(entry.path()).unwrap() } else { format!("{kind:?}") };
        (entry.file_name().into_string().unwrap(), content)
    };
    let mut all: Vec<_> = fs::read_dir(HOST).unwrap().map(|each| entry(each.unwrap())).collect();
    all.sort();
    all
}

/// Names of an image: with and without the folder to which a link out of it leads.
const UP: &str = "../../../../../../../../../../run/hostile";

/// CVE-2026-41579, CVE-2026-47766: device nodes, links and terminals are made in `/dev`.
async fn links_in_place_of_dev_reach_no_folder_of_the_host(node: &mut Node) {
    let registry = node.registry().await;
    let before = host();
    for (number, target) in [HOST, UP].into_iter().enumerate() {
        let plain = busybox().symlink("dev", target);
        registry.push(&format!("plain{number}:1"), &Image::new(vec![Layer::gzip(plain)]));
        let there = busybox().dir("run/", 0o755).dir("run/hostile/", 0o755).symlink("dev", target);
        registry.push(&format!("there{number}:1"), &Image::new(vec![Layer::gzip(there)]));
    }
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    for name in ["plain0", "plain1", "there0", "there1"] {
        let image = format!("registry.test/{name}:1");
        cri.pull(&image).await.unwrap();
        for tty in [false, true] {
            let mut config_of = shell(&format!("{name}-{tty}"), "true");
            (config_of.image, config_of.tty) = (Some(image_spec(&image)), tty);
            let error = cri.run(&pod, &config, &config_of).await.unwrap_err();
            assert!(error.message().contains("/dev") && error.message().contains("symbolic link"), "{error}");
            assert_eq!(seen(), before, "{name}");
        }
    }
    fs::remove_dir_all(HOST).unwrap();
}

/// As CVE-2024-5154 did with `/etc/mtab`.
async fn files_that_are_provided_follow_no_link_out(node: &mut Node) {
    let before = host();
    let mut tree = busybox().dir("run/", 0o755).dir("run/hostile/", 0o755).file("run/hostile/hosts", 0o644, "image");
    for (name, folder) in [("hosts", HOST), ("resolv.conf", UP), ("hostname", HOST), ("mtab", UP)] {
        tree = tree.symlink(&format!("etc/{name}"), &format!("{folder}/{name}"));
    }
    node.registry().await.push("etc:1", &Image::new(vec![Layer::gzip(tree)]));
    let cri = node.ready().await;
    cri.pull("registry.test/etc:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let script =
        "for f in hosts resolv.conf hostname mtab; do echo more >>/etc/$f; cat /etc/$f; done; cat /run/hostile/*";
    let mut config_of = shell("main", script);
    config_of.image = Some(image_spec("registry.test/etc:1"));
    let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert!(text.contains("more") && !text.contains(MARK), "{text}");
    assert_eq!(seen(), before);
    fs::remove_dir_all(HOST).unwrap();
}

/// CVE-2026-55686: they are made where there are none.
async fn working_directories_are_made_inside(node: &mut Node) {
    let before = host();
    let tree = busybox()
        .dir("run/", 0o755)
        .dir("run/hostile/", 0o755)
        .symlink("whole", HOST)
        .symlink("up", UP)
        .symlink("var/deep", "../../../../run");
    let layer = Layer::gzip(tree);
    let registry = node.registry().await;
    let paths = ["/whole/a", "/up/b", "/var/deep/hostile/c", "/../../../run/hostile/d", "/whole/../hostile/e"];
    for (number, path) in paths.into_iter().enumerate() {
        registry.push(&format!("cwd{number}:1"), &Image::new(vec![layer.clone()]).with("WorkingDir", path));
    }
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    for (number, path) in paths.into_iter().enumerate() {
        let image = format!("registry.test/cwd{number}:1");
        cri.pull(&image).await.unwrap();
        let mut config_of = shell(&format!("main{number}"), "pwd -P; ls -a | xargs");
        config_of.image = Some(image_spec(&image));
        let (_, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
        let made = path.rsplit('/').next().unwrap();
        assert_eq!(text, format!("{HOST}/{made}\n. ..\n"), "{path}");
        assert_eq!(seen(), before, "{path}");
    }
    fs::remove_dir_all(HOST).unwrap();
}

/// CVE-2024-40635, CVE-2026-46680: who is told a number must not get somebody whose *name* is that number.
async fn users_of_digits_are_numbers(node: &mut Node) {
    let passwd =
        "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:\n99999999999999999999:x:0:0::/:\n";
    let group = "root:x:0:\n2000:x:0:\n4294967296:x:0:\n";
    let layers = vec![
        Layer::gzip(busybox()),
        Layer::gzip(Tree::default().file("etc/passwd", 0o644, passwd).file("etc/group", 0o644, group)),
    ];
    let registry = node.registry().await;
    let users =
        ["1000:2000", "1000", "4294967296", "99999999999999999999", "1000:4294967296", "2147483648", "-1", "+0"];
    for (number, user) in users.into_iter().enumerate() {
        registry.push(&format!("user{number}:1"), &Image::new(layers.clone()).with("User", user));
    }
    let cri = node.ready().await;
    let (pod, config) = pod_of(&cri).await;
    for (number, user) in users.into_iter().enumerate() {
        let image = format!("registry.test/user{number}:1");
        cri.pull(&image).await.unwrap();
        let told = cri.image(&image).await.unwrap();
        let mut config_of = shell(&format!("main{number}"), "id -u; id -g");
        config_of.image = Some(image_spec(&image));
        let ran = cri.outcome(&pod, &config, &config_of).await;
        match user {
            "1000:2000" | "1000" | "2147483648" => {
                let (uid, gid) = user.split_once(':').unwrap_or((user, "0"));
                assert_eq!(told.uid.unwrap().value.to_string(), uid);
                assert_eq!(ran.unwrap().1, format!("{uid}\n{gid}\n"));
            }
            _ => {
                let error = ran.unwrap_err();
                assert_eq!(error.code(), Code::InvalidArgument, "{user}: {error}");
                // Kubelet believes a number, and lets no name pass where nobody may be root.
                match user.split_once(':') {
                    Some((uid, _)) => assert_eq!(told.uid.unwrap().value.to_string(), uid),
                    None => assert_eq!((told.uid, told.username.as_str()), (None, user)),
                }
            }
        }
    }
}

/// CVE-2026-53488: they are shown with the image, and go nowhere else.
async fn labels_of_images_are_nobodys_orders(node: &mut Node) {
    let labels = serde_json::json!({
        "io.kubernetes.pod.uid": "forged", "name": "forged", "hooks": "yes",
        "containerd.io/restart.loguri": "binary:///bin/touch?/run/hostile-label", "cdi.k8s.io/any": "vendor.com/device=all",
        "io.kubernetes.cri.container-type": "sandbox",
    });
    node.registry().await.push("labels:1", &Image::busybox().with("Labels", labels));
    let cri = node.ready().await;
    cri.pull("registry.test/labels:1").await.unwrap();
    let (pod, config) = pod_of(&cri).await;
    let mut config_of = shell("main", "tr '\\0' '\\n' </proc/self/environ; ls /dev | xargs");
    let (plain, text) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    config_of.metadata.as_mut().unwrap().attempt = 1;
    config_of.log_path = "labels.log".into();
    config_of.image = Some(image_spec("registry.test/labels:1"));
    let (labelled, text_of) = cri.outcome(&pod, &config, &config_of).await.unwrap();
    assert_eq!((&labelled.labels, &labelled.annotations), (&plain.labels, &plain.annotations));
    assert_eq!(text_of, text);
    assert!(!fs::exists("/run/hostile-label").unwrap());
}
