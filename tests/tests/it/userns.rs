//! User namespaces: what is inside, whose files are whose, and that nothing that is stored is changed for them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::Code;
use tripod_cri_api::v1::{
    Capability, ContainerConfig, IdMapping, Int64Value, MountPropagation, NamespaceMode, PodSandboxConfig,
    StatusRequest, UserNamespace,
};
use tripod_tests::{
    Cri, Node, eventually, host_pod, image_spec, mount, pod, runtime, security_of, shell, tests, unconfined,
};

tests![
    root_inside_is_nobody_outside,
    two_pods_share_an_image_and_nothing_stored_changes,
    volumes_are_mapped_where_asked,
    the_pod_owns_its_network_and_its_sysctls,
    a_shared_pid_namespace_belongs_to_the_pod,
    the_hosts_network_goes_with_it,
    terminals_devices_and_users,
    ids_that_are_not_mapped_are_refused,
    a_new_daemon_goes_on_with_it,
    a_runtime_enters_it,
    copies_of_images_are_shown_with_its_ids,
    what_cannot_be_is_refused,
];

/// The first of the host's IDs that pods get here.
pub(crate) const BASE: u32 = 500_000;
const LENGTH: u32 = 65536;

pub(crate) fn ids(host_id: u32) -> UserNamespace {
    let mapping = vec![IdMapping { host_id, container_id: 0, length: LENGTH }];
    UserNamespace { mode: NamespaceMode::Pod.into(), uids: mapping.clone(), gids: mapping }
}

pub(crate) fn with(mut config: PodSandboxConfig, userns: UserNamespace) -> PodSandboxConfig {
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().userns_options = Some(userns);
    config
}

/// A pod with a user namespace on the host's IDs from `base` on.
pub(crate) async fn pod_at(cri: &Cri, name: &str, base: u32) -> (String, PodSandboxConfig) {
    let config = with(pod(name), ids(base));
    (cri.run_pod(&config).await.unwrap(), config)
}

const SLEEP: &str = "sleep 1000";

/// The folder in which a container's own files lie, found by one of them.
fn written(node: &Node, name: &str) -> Vec<PathBuf> {
    let containers = fs::read_dir(node.root().join("containers")).unwrap().flatten();
    containers.map(|entry| entry.path().join("upper").join(name)).filter(|path| path.exists()).collect()
}

fn owner(path: &Path) -> (u32, u32) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid())
}

async fn root_inside_is_nobody_outside(node: &mut Node) {
    let cri = node.ready().await;
    let status = cri.runtime().status(StatusRequest::default()).await.unwrap().into_inner();
    assert!(status.runtime_handlers.iter().all(|handler| handler.features.as_ref().unwrap().user_namespaces));
    assert!(status.features.unwrap().user_namespaces_host_network);

    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let wire = cri.pod(&pod).await.unwrap().linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(wire.userns_options, Some(ids(BASE)));
    let id = cri.run(&pod, &config, &shell("main", "touch /by-program; sleep 1000")).await.unwrap();
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for file in ["/proc/self/uid_map", "/proc/1/gid_map"] {
        assert_eq!(words(cri.sh(&id, &format!("cat {file}")).await), format!("0 {BASE} {LENGTH}"));
    }
    assert_eq!(cri.sh(&id, "id -u; id -g; cat /proc/self/setgroups").await, "0\n0\nallow");
    // The program is the first process, in a PID namespace that its procfs shows.
    let script = "cat /proc/1/cmdline | tr '\\0' ' '; stat -c %u /proc/1 /etc /bin/sh | sort -u";
    let seen = async || (cri.sh(&id, script).await == "sleep 1000 0").then_some(());
    eventually("the program as the first process", Duration::from_secs(20), seen).await;
    // Every namespace of the container belongs to this one, or the kernel would not show what it is.
    let kinds = "ipc mnt net pid uts cgroup user";
    let outside = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for line in
        cri.sh(&id, &format!("for kind in {kinds}; do echo $kind $(readlink /proc/self/ns/$kind); done")).await.lines()
    {
        let (kind, name) = line.split_once(' ').unwrap();
        assert_ne!(name, outside(kind), "{kind}");
    }
    cri.sh(&id, "mkdir /made && chown 1000:1000 /made && rm /etc/motd").await;
    for (name, expected) in [("by-program", (BASE, BASE)), ("made", (BASE + 1000, BASE + 1000)), ("etc", (BASE, BASE))]
    {
        let found = written(node, name);
        assert_eq!(found.iter().map(|path| owner(path)).collect::<Vec<_>>(), [expected], "{name}");
    }

    // What belongs to the host's root is out of reach, by mode and by capability.
    let secret = node.folder().join("secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let mut greedy = shell(
        "greedy",
        "stat -c %u /secret; cat /secret; echo y >/secret; chown 0 /secret; echo 1 >/proc/sys/vm/drop_caches; mknod /null c 1 3; echo done",
    );
    greedy.mounts = vec![mount(secret.to_str().unwrap(), "/secret")];
    let (_, text) = cri.outcome(&pod, &config, &greedy).await.unwrap();
    assert!(text.contains("65534\n") && text.contains("done\n"), "{text}");
    assert_eq!((fs::read_to_string(&secret).unwrap().as_str(), owner(&secret)), ("x", (0, 0)));
    assert!(text.matches("denied").count() + text.matches("not permitted").count() >= 4, "{text}");

    // The pod's files are readable, and writable for its root.
    cri.sh(&id, "grep -q localhost /etc/hosts && cat /etc/resolv.conf && test $(cat /etc/hostname) = main").await;
    cri.sh(&id, "echo 127.0.0.2 other >>/etc/hosts; touch /dev/shm/x /dev/mqueue/x; stat -c %u /dev/shm | grep -qx 0")
        .await;
    assert_eq!(cri.sh(&id, "stat -c %u /dev /dev/mqueue /dev/shm | sort -u").await, "0");
    cri.remove_pod(&pod).await.unwrap();
    assert!(written(node, "made").is_empty());
}

/// Owner and time of change of everything below a folder.
fn stored(folder: &Path, found: &mut Vec<(PathBuf, u32, u32, i64, i64)>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        found.push((entry.path(), meta.uid(), meta.gid(), meta.ctime(), meta.ctime_nsec()));
        if meta.is_dir() {
            stored(&entry.path(), found);
        }
    }
}

async fn two_pods_share_an_image_and_nothing_stored_changes(node: &mut Node) {
    let cri = node.ready().await;
    let layers = || {
        let mut found = Vec::new();
        // What lies beside a layer's files changes when they have been synced.
        for layer in fs::read_dir(node.root().join("layers")).unwrap().flatten() {
            stored(&layer.path().join("fs"), &mut found);
        }
        found.sort();
        found
    };
    let before = layers();
    assert!(before.len() > 10, "{before:?}");
    for (name, base) in [("one", BASE), ("two", BASE + LENGTH), ("low", 1000)] {
        let (pod, config) = pod_at(&cri, name, base).await;
        let id = cri.run(&pod, &config, &shell("main", SLEEP)).await.unwrap();
        assert_eq!(
            cri.sh(&id, "stat -c %u:%g / /bin/sh /etc | sort -u; echo x >>/etc/motd; echo x >/new").await,
            "0:0"
        );
        assert!(written(node, "new").iter().any(|path| owner(path) == (base, base)), "{name}");
    }
    let (pod, config) = (cri.run_pod(&pod("host")).await.unwrap(), pod("host"));
    let id = cri.run(&pod, &config, &shell("main", SLEEP)).await.unwrap();
    assert_eq!(cri.sh(&id, "stat -c %u:%g /bin/sh; cat /etc/motd").await, "0:0\nsecond");
    let changed: Vec<_> = layers().into_iter().filter(|entry| !before.contains(entry)).collect();
    assert!(changed.is_empty() && layers().len() == before.len(), "a layer on disk was changed: {changed:?}");
}

async fn volumes_are_mapped_where_asked(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let volume = node.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("root"), "").unwrap();
    fs::write(volume.join("user"), "").unwrap();
    std::os::unix::fs::chown(volume.join("user"), Some(1000), Some(1000)).unwrap();
    let mut config_of = shell("main", SLEEP);
    let plain = mount(volume.to_str().unwrap(), "/plain");
    let mut mapped = mount(volume.to_str().unwrap(), "/mapped");
    (mapped.uid_mappings, mapped.gid_mappings) = (ids(BASE).uids, ids(BASE).gids);
    let mut image = mount("", "/image");
    image.image = Some(image_spec(tripod_tests::BUSYBOX));
    let mut mapped_image = image.clone();
    mapped_image.container_path = "/mapped-image".into();
    (mapped_image.uid_mappings, mapped_image.gid_mappings) = (ids(BASE).uids, ids(BASE).gids);
    config_of.mounts = vec![plain, mapped, image, mapped_image];
    let id = cri.run(&pod, &config, &config_of).await.unwrap();
    assert_eq!(cri.sh(&id, "cd /mapped; stat -c %u:%g . root user").await, "0:0\n0:0\n1000:1000");
    assert_eq!(cri.sh(&id, "cd /plain; stat -c %u:%g . root user | sort -u").await, "65534:65534");
    assert_eq!(cri.sh(&id, "stat -c %u:%g /image /image/bin/sh /mapped-image/bin/sh | sort -u").await, "0:0");
    cri.sh(&id, "cd /mapped; echo x >new; mkdir folder; chown 7:8 folder; ! echo x >/plain/no").await;
    assert_eq!((owner(&volume.join("new")), owner(&volume.join("folder"))), ((0, 0), (7, 8)));
    assert!(!volume.join("no").exists());
}

async fn the_pod_owns_its_network_and_its_sysctls(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = with(pod("main"), ids(BASE));
    config.linux.as_mut().unwrap().sysctls =
        [("net.ipv4.ip_unprivileged_port_start", "7"), ("kernel.shm_rmid_forced", "1"), ("kernel.msgmax", "9999")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    let pod = cri.run_pod(&config).await.unwrap();
    let mut admin = unconfined(shell("main", SLEEP));
    security_of(&mut admin).capabilities =
        Some(Capability { add_capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()], ..Default::default() });
    let id = cri.run(&pod, &config, &admin).await.unwrap();
    let read = "cd /proc/sys; cat net/ipv4/ip_unprivileged_port_start kernel/shm_rmid_forced kernel/msgmax";
    assert_eq!(cri.sh(&id, read).await, "7\n1\n9999");
    cri.sh(&id, "ip link add br7 type bridge && ip link set br7 up && ip link del br7").await;
    cri.sh(&id, "mkdir /t && mount -t tmpfs none /t && umount /t && mount -t proc none /t && umount /t && hostname other && test $(hostname) = other").await;
    // Its address is that of the status, and the host answers on the bridge.
    let ip = cri.pod(&pod).await.unwrap().network.unwrap().ip;
    let addresses = cri.sh(&id, "ip -o addr show eth0").await;
    assert!(addresses.contains(&ip), "{addresses}");
    let gateway = cri.sh(&id, "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'").await;
    cri.sh(&id, &format!("ping -c 1 -W 5 {gateway} >/dev/null")).await;
    // The host's own is not touched.
    assert_ne!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap().trim(), "9999");
    let plain = cri.run(&pod, &config, &shell("plain", SLEEP)).await.unwrap();
    assert_eq!(cri.sh(&plain, "readlink /proc/self/ns/user").await, cri.sh(&id, "readlink /proc/self/ns/user").await);
    assert!(cri.sh(&plain, "ip link add br7 type bridge 2>&1 || true").await.contains("not permitted"));
}

async fn a_shared_pid_namespace_belongs_to_the_pod(node: &mut Node) {
    let cri = node.ready().await;
    let mut config = with(pod("main"), ids(BASE));
    let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
    let pod = cri.run_pod(&config).await.unwrap();
    let one = cri.run(&pod, &config, &shell("one", SLEEP)).await.unwrap();
    let two = cri.run(&pod, &config, &shell("two", SLEEP)).await.unwrap();
    assert_eq!(cri.sh(&one, "cat /proc/1/comm").await, "tripod-reaper");
    assert_eq!(cri.sh(&one, "readlink /proc/self/ns/pid").await, cri.sh(&two, "readlink /proc/self/ns/pid").await);
    assert_eq!(cri.sh(&two, "stat -c %u /proc/1/ /proc/self/ | sort -u").await, "0");

    // A container that looks into another one.
    let own = with(tripod_tests::pod("own"), ids(BASE));
    let (pod, target) = cri.run_in_pod(&own, &shell("main", SLEEP)).await.unwrap();
    let mut debug = shell("debug", "cat /proc/1/cmdline | tr '\\0' ' '; cat /proc/self/uid_map");
    let options = security_of(&mut debug).namespace_options.get_or_insert_default();
    (options.pid, options.target_id) = (NamespaceMode::Target.into(), target);
    options.userns_options = Some(ids(BASE));
    let (_, text) = cri.outcome(&pod, &own, &debug).await.unwrap();
    assert!(text.contains(SLEEP) && text.contains(&BASE.to_string()), "{text}");
}

async fn the_hosts_network_goes_with_it(node: &mut Node) {
    let cri = node.ready().await;
    let config = with(host_pod("main"), ids(BASE));
    let pod = cri.run_pod(&config).await.unwrap();
    let mut admin = shell("main", SLEEP);
    security_of(&mut admin).capabilities =
        Some(Capability { add_capabilities: vec!["NET_ADMIN".into()], ..Default::default() });
    let id = cri.run(&pod, &config, &admin).await.unwrap();
    assert!(cri.sh(&id, "cat /proc/self/uid_map").await.contains(&BASE.to_string()));
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(cri.sh(&id, "readlink /proc/self/ns/net").await, host.to_str().unwrap());
    let mut links: Vec<_> = fs::read_dir("/sys/class/net")
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    links.sort();
    assert_eq!(cri.sh(&id, "ls /sys/class/net").await.split_whitespace().collect::<Vec<_>>(), links);
    assert!(cri.sh(&id, "ip link add br7 type bridge 2>&1 || true").await.contains("not permitted"));
}

async fn terminals_devices_and_users(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    // A node that only its owner may use: the container's root is who it belongs to.
    let path = node.folder().join("null");
    let made = std::process::Command::new("mknod").args([path.to_str().unwrap(), "c", "1", "3"]).status();
    assert!(made.unwrap().success());
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let mut config_of = shell("main", SLEEP);
    config_of.devices = vec![tripod_cri_api::v1::Device {
        host_path: path.display().to_string(),
        container_path: "/dev/mine".into(),
        permissions: "rw".into(),
    }];
    let id = cri.run(&pod, &config, &config_of).await.unwrap();
    cri.sh(&id, "echo x >/dev/null && echo x >/dev/mine && head -c 4 /dev/urandom | wc -c").await;
    assert_eq!(cri.sh(&id, "stat -c %u:%g:%a /dev/null /dev/mine").await, "0:0:666\n0:0:600");
    assert_eq!(owner(&path), (0, 0));

    let mut terminal = shell("terminal", "tty; test -t 0 && stat -c %u:%g $(tty); echo x >/dev/console");
    terminal.tty = true;
    let (_, text) = cri.outcome(&pod, &config, &terminal).await.unwrap();
    let lines: Vec<_> = text.lines().map(str::trim_end).collect();
    assert_eq!(lines, ["/dev/pts/0", "0:5", "x"]);

    let mut user = shell("user", "id -u; id -G; echo again >/dev/stdout; sleep 1000");
    security_of(&mut user).run_as_user = Some(Int64Value { value: 1000 });
    security_of(&mut user).run_as_group = Some(Int64Value { value: 2000 });
    security_of(&mut user).supplemental_groups = vec![3000];
    let id = cri.run(&pod, &config, &user).await.unwrap();
    assert_eq!(
        cri.sh(&id, "id -u; id -g; id -G | tr ' ' '\n' | grep -x 3000; grep CapEff /proc/self/status").await,
        "1000\n2000\n3000\nCapEff:\t0000000000000000"
    );
    let log = cri.status(&id).await.unwrap().log_path;
    eventually("the log", Duration::from_secs(20), async || {
        fs::read_to_string(&log).unwrap().contains("again").then_some(())
    })
    .await;
}

async fn ids_that_are_not_mapped_are_refused(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let refused = async |change: fn(&mut ContainerConfig), word: &str| {
        let mut config_of = shell("main", "true");
        change(&mut config_of);
        let error = cri.create(&pod, &config, &config_of).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(word), "{word}: {error}");
    };
    let value = |value: i64| Some(Int64Value { value });
    refused(|config| security_of(config).run_as_user = Some(Int64Value { value: 65536 }), "user 65536").await;
    refused(|config| security_of(config).supplemental_groups = vec![70000], "group 70000").await;
    let mut last = shell("last", "id -u");
    security_of(&mut last).run_as_user = value(65535);
    assert_eq!(cri.outcome(&pod, &config, &last).await.unwrap().1, "65535\n");
}

async fn a_new_daemon_goes_on_with_it(node: &mut Node) {
    let cri = node.ready().await;
    let (pod, config) = pod_at(&cri, "main", BASE).await;
    let running = cri.run(&pod, &config, &shell("running", SLEEP)).await.unwrap();
    let created = cri.create(&pod, &config, &shell("created", SLEEP)).await.unwrap();
    let cri = node.restart().await;
    cri.start(&created).await.unwrap();
    let third = cri.run(&pod, &config, &shell("third", SLEEP)).await.unwrap();
    for id in [&running, &created, &third] {
        assert_eq!(cri.sh(id, "id -u; touch /x; stat -c %u /x; grep -c . /proc/self/uid_map").await, "0\n0\n1");
        assert!(cri.sh(id, "cat /proc/self/uid_map").await.contains(&BASE.to_string()));
    }
    assert_eq!(written(node, "x").iter().map(|path| owner(path)).collect::<Vec<_>>(), [(BASE, BASE); 3]);
    cri.stop(&running, 1).await.unwrap();
    assert_eq!(cri.exited(&running).await.exit_code, 137);
    let (status, _) = cri.outcome(&pod, &config, &shell("code", "exit 7")).await.unwrap();
    assert_eq!(status.exit_code, 7);
    let error = cri.run(&pod, &config, &tripod_tests::container("absent", &["/no/such/program"])).await.unwrap_err();
    assert!(error.message().contains("no such file"), "{error}");
}

/// What matters most of the above for a container that an OCI runtime makes.
async fn a_runtime_enters_it(node: &mut Node) {
    runtime::configure(&mut node.settings, runtime::HANDLER, &runtime::program());
    let cri = node.ready().await;
    let status = cri.runtime().status(StatusRequest::default()).await.unwrap().into_inner();
    assert!(status.runtime_handlers.iter().all(|handler| handler.features.as_ref().unwrap().user_namespaces));
    let volume = node.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "x").unwrap();
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for (name, config) in [("own", pod("own")), ("host", host_pod("host"))] {
        let config = with(config, ids(BASE));
        let pod = cri.run_pod_by(runtime::HANDLER, &config).await.unwrap();
        let mut config_of = shell("main", "echo again >/dev/stdout; sleep 1000");
        security_of(&mut config_of).run_as_user = Some(Int64Value { value: 1000 });
        let plain = mount(volume.to_str().unwrap(), "/plain");
        let map = |mut mount: tripod_cri_api::v1::Mount| {
            (mount.uid_mappings, mount.gid_mappings) = (ids(BASE).uids, ids(BASE).gids);
            mount
        };
        let mapped = map(mount(volume.to_str().unwrap(), "/mapped"));
        let file = map(mount(volume.join("file").to_str().unwrap(), "/one"));
        let mut image = mount("", "/image");
        image.image = Some(image_spec(tripod_tests::BUSYBOX));
        config_of.mounts = vec![plain, mapped, file, image];
        config_of.devices = vec![tripod_cri_api::v1::Device {
            host_path: "/dev/null".into(),
            container_path: "/dev/mine".into(),
            permissions: "rw".into(),
        }];
        let user = cri.run(&pod, &config, &config_of).await.unwrap();
        assert!(cri.sh(&user, "cat /proc/1/uid_map").await.contains(&BASE.to_string()), "{name}");
        let log = cri.status(&user).await.unwrap().log_path;
        let said = async || fs::read_to_string(&log).unwrap().contains("again").then_some(());
        eventually("what it writes", Duration::from_secs(20), said).await;
        let script = "stat -c %u:%g /mapped /mapped/file /one /image /image/bin/sh /dev/null /dev/mine /dev/shm / \
                      /bin/sh /etc/hosts | sort -u; stat -c %u:%g /plain /plain/file | sort -u; cat /one";
        assert_eq!(cri.sh(&user, script).await, "0:0\n65534:65534\nx", "{name}");
        cri.sh(&user, "echo x >/dev/null && echo x >/dev/mine && ls /sys/class/net/lo && ! touch /mapped/no 2>&1")
            .await;
        config_of.metadata.as_mut().unwrap().name = "root".into();
        security_of(&mut config_of).run_as_user = None;
        let root = cri.run(&pod, &config, &config_of).await.unwrap();
        cri.sh(&root, &format!("touch /mapped/{name} /made-{name} && ! touch /plain/no 2>&1")).await;
        assert_eq!(owner(&volume.join(name)), (0, 0));
        let made: Vec<_> = written(node, &format!("made-{name}")).iter().map(|path| owner(path)).collect();
        assert_eq!(made, [(BASE, BASE)]);
        cri.stop(&root, 0).await.unwrap();
        assert_eq!(cri.exited(&root).await.exit_code, 137);
        cri.remove_pod(&pod).await.unwrap();
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before, "a mount is left on the host");
}

async fn what_cannot_be_is_refused(node: &mut Node) {
    let cri = node.ready().await;
    let mapping = |container_id, host_id, length| IdMapping { host_id, container_id, length };
    let of = |mode: NamespaceMode, mappings: Vec<IdMapping>| UserNamespace {
        mode: mode.into(),
        uids: mappings.clone(),
        gids: mappings,
    };
    use NamespaceMode::{Container, Node as Host, Pod, Target};
    let good = mapping(0, BASE, LENGTH);
    let wrong = [
        (of(Pod, vec![]), "exactly one"),
        (of(Pod, vec![good, mapping(1000, BASE + 1000, LENGTH)]), "exactly one"),
        (of(Pod, vec![mapping(1, BASE, LENGTH)]), "container_id 0"),
        (of(Pod, vec![mapping(0, BASE, 0)]), "length"),
        (of(Pod, vec![mapping(0, BASE, u32::MAX)]), "beyond"),
        (of(Pod, vec![mapping(0, 0, LENGTH)]), "host_id 0"),
        (of(Host, vec![good]), "cannot have mappings"),
        (of(Container, vec![]), "POD or NODE"),
        (of(Target, vec![good]), "POD or NODE"),
        (UserNamespace { mode: 77, ..of(Pod, vec![good]) }, "77"),
    ];
    let refused = async |config: PodSandboxConfig, word: &str| {
        let error = cri.run_pod(&config).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(word), "{word}: {error}");
    };
    for (userns, word) in wrong {
        refused(with(pod("main"), userns), word).await;
    }
    for word in ["pid", "ipc"] {
        let mut config = with(pod("main"), ids(BASE));
        let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        let options = context.namespace_options.as_mut().unwrap();
        *(if word == "pid" { &mut options.pid } else { &mut options.ipc }) = Host.into();
        refused(config, word).await;
    }
    assert!(cri.pods().await.is_empty());

    let mut config = with(pod("main"), ids(BASE));
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = cri.run_pod(&config).await.unwrap();
    let refused = async |change: &dyn Fn(&mut ContainerConfig), word: &str| {
        let mut config_of = shell("main", "true");
        change(&mut config_of);
        let error = cri.create(&pod, &config, &config_of).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains(word), "{word}: {error}");
    };
    for userns in [ids(BASE + 1), of(Host, vec![])] {
        let options = |config_of: &mut ContainerConfig| {
            security_of(config_of).namespace_options.get_or_insert_default().userns_options = Some(userns.clone());
        };
        refused(&options, "must be that of the pod sandbox").await;
    }
    let mapped = |config_of: &mut ContainerConfig| {
        let mut volume = mount("/tmp", "/tmp");
        (volume.uid_mappings, volume.gid_mappings) = (ids(BASE + 1).uids, ids(BASE + 1).gids);
        config_of.mounts = vec![volume];
    };
    refused(&mapped, "uidMappings").await;
    let shared = |config_of: &mut ContainerConfig| {
        let mut volume = mount("/tmp", "/tmp");
        volume.propagation = MountPropagation::PropagationBidirectional.into();
        config_of.mounts = vec![volume];
        security_of(config_of).privileged = true;
    };
    refused(&shared, "bidirectional").await;
    assert!(cri.containers().await.is_empty());
}

async fn copies_of_images_are_shown_with_its_ids(node: &mut Node) {
    node.settings.text("image.provisioner", "copy");
    let cri = node.ready().await;
    let (mapped, config) = pod_at(&cri, "mapped", BASE).await;
    let script = "stat -c %u /etc /bin/sh | sort -u; touch /new && chown 7:8 /new && stat -c %u:%g /new";
    let (_, text) = cri.outcome(&mapped, &config, &shell("main", script)).await.unwrap();
    assert_eq!(text, "0\n7:8\n");
    let folders = fs::read_dir(node.root().join("containers")).unwrap().flatten().map(|entry| entry.path());
    let owners =
        folders.map(|folder| fs::metadata(folder.join("rootfs/new")).unwrap()).map(|meta| (meta.uid(), meta.gid()));
    assert_eq!(owners.collect::<Vec<_>>(), [(7, 8)], "on the disk nothing is changed");
}
