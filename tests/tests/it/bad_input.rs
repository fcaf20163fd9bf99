//! Bad input: the code that the kubelet acts on, a message that names the object, nothing left, and the same request
//! can succeed afterwards.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, time::Duration};

use tonic::{Code, Status};
use tripod_cri_api::v1::{
    Capability, ContainerStatsRequest, LinuxContainerResources, NamespaceMode, NamespaceOption, PodSandboxStatsRequest,
    PortMapping, ReopenContainerLogRequest, UpdateContainerResourcesRequest, UserNamespace,
};
use tripod_tests::{
    BUSYBOX, Cri, Fault, Image, Layer, Leaks, Node, Tree, busybox, digest, eventually, host_pod, image_spec, mount,
    pod, security_of, shell, tests, within,
};

tests![
    unknown_ids_are_not_found,
    wrong_states_are_told,
    wrong_fields_are_named,
    an_absent_image_is_told_until_it_is_pulled,
    corrupt_blobs_are_refused_and_a_good_pull_follows,
    a_manifest_that_is_not_one_is_refused,
    a_layer_that_climbs_out_leaves_nothing,
    a_full_disk_fails_the_pull_alone,
    a_plugin_that_fails_is_quoted,
    a_plugin_that_hangs_is_ended,
    a_plugin_that_is_missing_is_named,
    a_teardown_that_fails_is_repeated,
    a_file_over_a_file_and_a_folder_over_a_file,
];

const UNKNOWN: &str = "0123456789abcdef0123456789abcdef";

#[track_caller]
fn told<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, object: &str) -> Status {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.message().contains(object), "{object} is not in {:?}", error.message());
    error
}

async fn unknown_ids_are_not_found(node: &mut Node) {
    let cri = node.ready().await;
    let id = || UNKNOWN.to_owned();
    told(cri.pod(UNKNOWN).await, Code::NotFound, UNKNOWN);
    told(cri.status(UNKNOWN).await, Code::NotFound, UNKNOWN);
    told(cri.start(UNKNOWN).await, Code::NotFound, UNKNOWN);
    told(cri.exec(UNKNOWN, &["true"], 1).await, Code::NotFound, UNKNOWN);
    told(cri.create(UNKNOWN, &host_pod("x"), &shell("x", "true")).await, Code::NotFound, UNKNOWN);
    let mut runtime = cri.runtime();
    let request = UpdateContainerResourcesRequest {
        container_id: id(),
        linux: Some(LinuxContainerResources::default()),
        ..Default::default()
    };
    told(runtime.update_container_resources(request).await, Code::NotFound, UNKNOWN);
    told(runtime.reopen_container_log(ReopenContainerLogRequest { container_id: id() }).await, Code::NotFound, UNKNOWN);
    told(runtime.container_stats(ContainerStatsRequest { container_id: id() }).await, Code::NotFound, UNKNOWN);
    told(runtime.pod_sandbox_stats(PodSandboxStatsRequest { pod_sandbox_id: id() }).await, Code::NotFound, UNKNOWN);
    cri.remove_image("registry.test/unknown:1").await.unwrap();
    // Nothing is what an empty ID means, and never everything.
    let pod = cri.run_pod(&host_pod("only")).await.unwrap();
    for result in [cri.stop_pod("").await, cri.remove_pod("").await, cri.stop("", 0).await, cri.remove("").await] {
        assert!(result.is_ok() || result.unwrap_err().code() == Code::InvalidArgument);
    }
    cri.pod(&pod).await.unwrap();
}

async fn wrong_states_are_told(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("states");
    let pod = cri.run_pod(&config).await.unwrap();
    let id = cri.create(&pod, &config, &shell("main", "sleep 1000")).await.unwrap();
    told(cri.exec(&id, &["true"], 1).await, Code::FailedPrecondition, &id);
    cri.start(&id).await.unwrap();
    told(cri.start(&id).await, Code::FailedPrecondition, &id);
    cri.stop(&id, 0).await.unwrap();
    told(cri.start(&id).await, Code::FailedPrecondition, &id);
    told(cri.exec(&id, &["true"], 1).await, Code::FailedPrecondition, &id);
    let request = ReopenContainerLogRequest { container_id: id.clone() };
    told(cri.runtime().reopen_container_log(request).await, Code::FailedPrecondition, &id);
    told(cri.create(&pod, &config, &shell("main", "sleep 1000")).await, Code::AlreadyExists, &id);
    cri.stop_pod(&pod).await.unwrap();
    told(cri.create(&pod, &config, &shell("late", "true")).await, Code::FailedPrecondition, &pod);
    told(cri.run_pod(&config).await, Code::AlreadyExists, &pod);
    cri.remove_pod(&pod).await.unwrap();
    cri.run_pod(&config).await.unwrap();
}

async fn wrong_fields_are_named(node: &mut Node) {
    let cri = node.ready().await;
    let before = Leaks::snapshot(&[node.state()]);
    let wrong_pod = async |field: &str, change: fn(&mut tripod_cri_api::v1::PodSandboxConfig)| {
        let mut config = pod("wrong");
        change(&mut config);
        told(cri.run_pod(&config).await, Code::InvalidArgument, field);
    };
    wrong_pod("metadata", |config| config.metadata = None).await;
    wrong_pod("name", |config| config.metadata.as_mut().unwrap().name.clear()).await;
    wrong_pod("uid", |config| config.metadata.as_mut().unwrap().uid.clear()).await;
    wrong_pod("hostname", |config| config.hostname = "a b".into()).await;
    wrong_pod("cgroup_parent", |config| config.linux.as_mut().unwrap().cgroup_parent = "/a/../b".into()).await;
    wrong_pod("host_port", |config| {
        config.port_mappings = vec![PortMapping { host_port: 70000, container_port: 80, ..Default::default() }];
    })
    .await;
    wrong_pod("userns", |config| {
        let options = NamespaceOption {
            userns_options: Some(UserNamespace { mode: NamespaceMode::Pod.into(), ..Default::default() }),
            ..Default::default()
        };
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(options);
    })
    .await;
    assert!(before.left(&[]).await.is_empty(), "a refused pod leaves nothing");

    let config = host_pod("right");
    let pod = cri.run_pod(&config).await.unwrap();
    let wrong = async |field: &str, change: fn(&mut tripod_cri_api::v1::ContainerConfig)| {
        let mut container = shell("wrong", "true");
        change(&mut container);
        told(cri.create(&pod, &config, &container).await, Code::InvalidArgument, field);
    };
    wrong("metadata", |config| config.metadata = None).await;
    wrong("image", |config| config.image = None).await;
    wrong("log_path", |config| config.log_path = "../out".into()).await;
    wrong("container_path", |config| config.mounts = vec![mount("/tmp", "relative")]).await;
    wrong("host_path", |config| config.mounts = vec![mount("relative", "/tmp")]).await;
    wrong("NO_SUCH_CAP", |config| {
        security_of(config).capabilities =
            Some(Capability { add_capabilities: vec!["NO_SUCH_CAP".into()], ..Default::default() });
    })
    .await;
    wrong("privileged", |config| security_of(config).privileged = true).await;
    wrong("working_dir", |config| config.working_dir = "relative".into()).await;
    assert!(cri.containers().await.is_empty());
    let id = cri.run(&pod, &config, &shell("wrong", "sleep 1000")).await.unwrap();
    assert_eq!(cri.exec(&id, &["true"], -1).await.unwrap_err().code(), Code::InvalidArgument);
}

async fn an_absent_image_is_told_until_it_is_pulled(node: &mut Node) {
    node.registry().await.push("later:1", &Image::busybox().with("User", "ann"));
    let cri = node.start().await;
    let config = host_pod("images");
    let pod = cri.run_pod(&config).await.unwrap();
    let mut container = shell("main", "id -un");
    container.image = Some(image_spec("registry.test/later:1"));
    told(cri.create(&pod, &config, &container).await, Code::NotFound, "registry.test/later:1");
    cri.pull("registry.test/later:1").await.unwrap();
    assert_eq!(cri.outcome(&pod, &config, &container).await.unwrap().1, "ann\n");
}

/// What was unpacked of a pull that failed goes in the background.
async fn nothing_half_made(node: &Node) {
    let half_made = |path: &String| path.contains("/staging/") || path.contains("/trash/");
    eventually("nothing half made", Duration::from_secs(60), async || {
        (!node.left_in_root().iter().any(half_made)).then_some(())
    })
    .await;
}

async fn corrupt_blobs_are_refused_and_a_good_pull_follows(node: &mut Node) {
    node.settings.raw("image.timeouts.attempts", "2");
    node.settings.raw("image.timeouts.backoff_milliseconds", "10");
    let registry = node.registry().await;
    let cri = node.start().await;
    for (number, part) in ["configuration", "lower layer", "upper layer"].into_iter().enumerate() {
        // Layers that no other image has: what is there already is not asked for.
        let lower = Layer::gzip(busybox().file("part", 0o644, part));
        let upper = Layer::gzip(Tree::default().file("upper", 0o644, part));
        let image = Image::new(vec![lower, upper]);
        let (tag, name) = (format!("app{number}:1"), format!("registry.test/app{number}:1"));
        registry.push(&tag, &image);
        let blob = [&image.id(), &image.layers[0].digest, &image.layers[1].digest][number].clone();
        registry.fail(&blob, Fault::Corrupt);
        let error = cri.pull(&name).await.unwrap_err();
        assert!(error.message().contains(&name) && error.message().contains(&blob[7..19]), "{part}: {error}");
        assert!(cri.image(&name).await.is_none());
        registry.fail(&blob, Fault::None);
        assert_eq!(cri.pull(&name).await.unwrap(), image.id());
    }
    // The archive is not what the configuration says of it.
    let mut liar = Image::busybox();
    liar.layers[1].diff_id = digest(b"something else");
    registry.push("liar:1", &liar);
    let error = cri.pull("registry.test/liar:1").await.unwrap_err();
    assert!(error.message().contains("registry.test/liar:1"), "{error}");
    assert!(cri.image("registry.test/liar:1").await.is_none());
    nothing_half_made(node).await;
    // Good layers of a pull that failed are kept for a while, for the next try.
    registry.push("liar:1", &Image::busybox());
    cri.pull("registry.test/liar:1").await.unwrap();
}

async fn a_manifest_that_is_not_one_is_refused(node: &mut Node) {
    let registry = node.registry().await;
    let image = Image::busybox();
    registry.push("app:1", &image);
    let cri = node.start().await;
    let own = digest(&image.manifest());
    for (number, content) in ["", "{}", "[1, 2", "{\"schemaVersion\": 1}", "\u{0}"].into_iter().enumerate() {
        let name = format!("bad{number}:1");
        registry.push_manifest(&name, content.to_owned().into());
        let error = cri.pull(&format!("registry.test/{name}")).await.unwrap_err();
        assert!(error.message().contains(&name), "{error}");
    }
    // The digest that was asked for counts, not the one that the registry tells.
    let other = Image::busybox().with("User", "ann");
    registry.push("other:1", &other);
    registry.push_manifest("app:swap", image.manifest());
    let wanted = digest(&other.manifest());
    registry.push_manifest(&format!("app:{wanted}"), image.manifest());
    assert_ne!(own, wanted);
    assert!(cri.pull(&format!("registry.test/app@{wanted}")).await.is_err());
    assert!(cri.all_images().await.is_empty());
}

async fn a_layer_that_climbs_out_leaves_nothing(node: &mut Node) {
    let registry = node.registry().await;
    let cri = node.start().await;
    let good = Layer::gzip(busybox());
    for (number, tree) in [
        Tree::default().file("../../../../../../../../run/evil", 0o644, "x"),
        Tree::default().symlink("up", "/run").file("up/evil", 0o644, "x"),
        Tree::default().hardlink("own", "../../../../../../../../etc/passwd"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("registry.test/evil{number}:1");
        registry.push(&format!("evil{number}:1"), &Image::new(vec![good.clone(), Layer::gzip(tree)]));
        if let Err(error) = cri.pull(&name).await {
            assert!(error.message().contains(&name), "{error}");
            assert!(cri.image(&name).await.is_none());
        }
        assert!(!fs::exists("/run/evil").unwrap());
    }
    let passwd = std::os::unix::fs::MetadataExt::nlink(&fs::metadata("/etc/passwd").unwrap());
    assert_eq!(passwd, 1, "nothing of the host is linked");
    registry.push("evil0:1", &Image::new(vec![good]));
    cri.pull("registry.test/evil0:1").await.unwrap();
}

async fn a_full_disk_fails_the_pull_alone(node: &mut Node) {
    let root = node.root();
    fs::create_dir(&root).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(&root).status().unwrap();
    assert!(mounted.success());
    let cri = node.ready().await;
    let (pod, container) = cri.run_in_pod(&host_pod("before"), &shell("main", "sleep 1000")).await.unwrap();
    let large = Layer::gzip(Tree::default().file("large", 0o644, vec![7; 30 << 20]));
    node.registry().await.push("large:1", &Image::new(vec![Layer::gzip(busybox()), large]));
    let filler = root.join("filler");
    fs::write(&filler, vec![1; 20 << 20]).unwrap();
    told(cri.pull("registry.test/large:1").await, Code::ResourceExhausted, "registry.test/large:1");
    assert!(cri.image("registry.test/large:1").await.is_none());
    // Everything else goes on, and what was unpacked is gone.
    assert_eq!(cri.sh(&container, "echo fine").await, "fine");
    cri.stop(&container, 0).await.unwrap();
    cri.remove_pod(&pod).await.unwrap();
    nothing_half_made(node).await;
    fs::remove_file(filler).unwrap();
    cri.pull("registry.test/large:1").await.unwrap();
    node.clear(&cri).await;
    node.stop().await;
    assert!(Command::new("umount").arg(&root).status().unwrap().success());
}

/// A CNI plugin made from a shell script, which notes each command that it is given.
struct Plugin {
    script: PathBuf,
    calls: PathBuf,
}

impl Plugin {
    fn install(node: &Node, add: &str, del: &str) -> Self {
        let plugin = Self { script: node.folder().join("cni/bin/scripted"), calls: node.folder().join("calls") };
        plugin.rewrite(add, del);
        let list = r#"{"cniVersion": "1.0.0", "name": "scripted", "plugins": [{"type": "scripted"}]}"#;
        fs::write(node.folder().join("cni/net.d/10-scripted.conflist"), list).unwrap();
        plugin
    }

    fn rewrite(&self, add: &str, del: &str) {
        let version = r#"{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}"#;
        let script = format!(
            "#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND $CNI_CONTAINERID >>{}\ncase $CNI_COMMAND in\nADD) {add} ;;\nDEL) {del} ;;\n\
             VERSION) echo '{version}' ;;\nesac\n",
            self.calls.display()
        );
        // Written aside: a script that runs must not change under the shell's feet.
        let aside = self.script.with_extension("new");
        fs::write(&aside, script).unwrap();
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&aside, &self.script).unwrap();
    }

    fn calls(&self, command: &str) -> usize {
        let text = fs::read_to_string(&self.calls).unwrap_or_default();
        text.lines().filter(|line| line.starts_with(command)).count()
    }
}

const ADDED: &str = r#"echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.9.9.9/24"}]}'"#;
const FAILED: &str =
    r#"echo '{"cniVersion": "1.0.0", "code": 11, "msg": "no address is left", "details": "ask ops"}'; exit 1"#;

async fn a_plugin_that_fails_is_quoted(node: &mut Node) {
    let plugin = Plugin::install(node, FAILED, "true");
    let cri = node.ready().await;
    let before = Leaks::snapshot(&[node.state()]);
    let error = cri.run_pod(&pod("cni")).await.unwrap_err();
    for part in ["tests/cni", "scripted", "no address is left"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    let left = before.left(&[]).await;
    assert!(left.is_empty(), "{left:?}");
    assert!(plugin.calls("DEL") > 0, "what a plugin made before it failed is its own to undo");
    plugin.rewrite(ADDED, "true");
    let id = cri.run_pod(&pod("cni")).await.unwrap();
    assert_eq!(cri.pod(&id).await.unwrap().network.unwrap().ip, "10.9.9.9");
}

async fn a_plugin_that_hangs_is_ended(node: &mut Node) {
    node.settings.raw("network.cni_add_timeout", "1");
    let plugin = Plugin::install(node, "sleep 8888 & sleep 8888", "true");
    let cri = node.ready().await;
    let before = Leaks::snapshot(&[node.state()]);
    let error = within("the pod", Duration::from_secs(50), cri.run_pod(&pod("cni"))).await.unwrap_err();
    assert!(error.message().contains("scripted") && error.message().contains("tests/cni"), "{error}");
    let left = before.left(&[]).await;
    assert!(left.is_empty(), "{left:?}");
    plugin.rewrite(ADDED, "true");
    // A good plugin has no more time than the one that hung.
    eventually("the pod", Duration::from_secs(60), async || cri.run_pod(&pod("cni")).await.ok()).await;
}

async fn a_plugin_that_is_missing_is_named(node: &mut Node) {
    let list = r#"{"cniVersion": "1.0.0", "name": "absent", "plugins": [{"type": "no-such-plugin"}]}"#;
    let file = node.folder().join("cni/net.d/10-absent.conflist");
    fs::write(&file, list).unwrap();
    let cri = node.ready().await;
    let error = cri.run_pod(&pod("cni")).await.unwrap_err();
    assert!(error.message().contains("no-such-plugin"), "{error}");
    cri.run_in_pod(&host_pod("host"), &shell("main", "true")).await.unwrap();
    fs::remove_file(&file).unwrap();
    eventually("the built-in bridge takes over", Duration::from_secs(60), async || cri.run_pod(&pod("cni")).await.ok())
        .await;
}

async fn a_teardown_that_fails_is_repeated(node: &mut Node) {
    let plugin = Plugin::install(node, ADDED, FAILED);
    let cri: Cri = node.ready().await;
    let (id, container) = cri.run_in_pod(&pod("cni"), &shell("main", "sleep 1000")).await.unwrap();
    let error = cri.stop_pod(&id).await.unwrap_err();
    assert!(error.message().contains(&id) && error.message().contains("no address is left"), "{error}");
    assert_eq!(cri.status(&container).await.unwrap().exit_code, 137, "the containers are ended all the same");
    // A daemon that comes anew knows that this is still to be done.
    let cri = node.restart().await;
    plugin.rewrite(ADDED, "true");
    let asked = plugin.calls("DEL");
    cri.stop_pod(&id).await.unwrap();
    assert!(plugin.calls("DEL") > asked);
    cri.remove_pod(&id).await.unwrap();
}

/// A volume that does not fit its target is an error of the container, and the pod works on.
async fn a_file_over_a_file_and_a_folder_over_a_file(node: &mut Node) {
    let cri = node.ready().await;
    let config = host_pod("mounts");
    let pod = cri.run_pod(&config).await.unwrap();
    let (file, folder) = (node.folder().join("a-file"), node.folder().join("a-folder"));
    fs::write(&file, "content").unwrap();
    fs::create_dir(&folder).unwrap();
    let mut good = shell("good", "cat /etc/motd");
    good.mounts = vec![mount(file.to_str().unwrap(), "/etc/motd")];
    assert_eq!(cri.outcome(&pod, &config, &good).await.unwrap().1, "content");
    let mut bad = shell("bad", "true");
    bad.mounts = vec![mount(folder.to_str().unwrap(), "/etc/motd")];
    let error = match cri.create(&pod, &config, &bad).await {
        Ok(id) => {
            let error = cri.start(&id).await.unwrap_err();
            assert_eq!(cri.status(&id).await.unwrap().reason, "StartError");
            error
        }
        Err(error) => error,
    };
    assert!(error.message().contains("/etc/motd"), "{error}");
    cri.outcome(&pod, &config, &shell("next", "true")).await.unwrap();
    assert_eq!(cri.pull(BUSYBOX).await.unwrap(), Image::busybox().id());
}
