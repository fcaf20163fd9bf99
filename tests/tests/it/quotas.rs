//! Project quotas: where the filesystem has them in force, the kernel counts what containers write and holds it to a limit.
//!
//! Each test has a filesystem of its own. A kernel that has no project quotas for it skips the test and says so: that of the
//! test VM has them for ext4 and XFS.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::Duration,
};

use rustix::mount::{UnmountFlags, unmount};
use tripod_cri_api::v1::{ContainerState, ContainerStatsRequest, PodSandboxConfig, StatusRequest};
use tripod_sys::quota::{self, Attributes};
use tripod_tests::{Cri, Node, eventually, host_pod, security_of, shell, tests};

use crate::userns;

tests![
    ext4_counts_and_holds_writable_layers,
    xfs_counts_and_holds_writable_layers,
    copies_are_held_as_well,
    without_quotas_the_look_is_back,
];

/// What a container may write here.
const LIMIT: u64 = 4 << 20;
/// A handler whose containers may write what they like.
const FREE: &str = "free";
const SLEEP: &str = "exec sleep 1000";
/// Tries to write 8 MiB.
const FILL: &str = "dd if=/dev/zero of=/file bs=64k count=128 2>/dev/null && echo whole || echo refused";

/// Makes a filesystem in a file and mounts it where the daemon's root folder will be. `false` where this kernel keeps no
/// project quotas on it.
fn disk(node: &Node, kind: &str) -> bool {
    let image = node.folder().join("disk");
    File::create_new(&image).unwrap().set_len(400 << 20).unwrap();
    let mut make = Command::new(format!("mkfs.{kind}"));
    if kind == "ext4" {
        make.args(["-O", "project,quota", "-E", "quotatype=prjquota"]);
    }
    let made = match make.arg("-q").arg(&image).status() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: there is no mkfs.{kind}; the machine of tests/vm has it");
            return false;
        }
        made => made.unwrap(),
    };
    assert!(made.success(), "mkfs.{kind}");
    fs::create_dir_all(node.root()).unwrap();
    let mounted = mount(node, kind, "prjquota");
    let has = mounted && quota::check(File::open(node.root()).unwrap()).is_ok();
    if !has {
        println!("skipped: this kernel has no project quotas for {kind}; that of tests/vm has");
        if mounted {
            unmount(node.root(), UnmountFlags::DETACH).unwrap();
        }
    }
    has
}

fn mount(node: &Node, kind: &str, option: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-t", kind, "-o", &format!("loop,{option}")]).arg(node.folder().join("disk")).arg(node.root());
    command.output().expect("mount (Debian: mount)").status.success()
}

/// A node on such a filesystem, with a limit.
async fn ready(node: &mut Node) -> Cri {
    node.settings.raw("limits.disk_bytes", &LIMIT.to_string());
    node.settings.raw("limits.disk_interval_seconds", "1");
    node.settings.raw("runtimes.free.limits.disk_bytes", "\"unlimited\"");
    node.ready().await
}

/// Takes everything away, and the filesystem at last.
async fn end(node: &mut Node, cri: &Cri) {
    node.clear(cri).await;
    node.stop().await;
    unmount(node.root(), UnmountFlags::DETACH).unwrap();
}

fn about_full(bytes: u64) -> bool {
    (LIMIT - (1 << 20)..=LIMIT).contains(&bytes)
}

async fn accounts(cri: &Cri) -> String {
    let status = cri.runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    status.info["writable_layers"].clone()
}

/// Bytes and inodes of what a container has written.
async fn written(cri: &Cri, id: &str) -> (u64, u64) {
    let request = ContainerStatsRequest { container_id: id.to_owned() };
    let stats = cri.runtime().container_stats(request).await.unwrap().into_inner().stats.unwrap();
    let layer = stats.writable_layer.unwrap();
    (layer.used_bytes.unwrap().value, layer.inodes_used.unwrap().value)
}

async fn running(cri: &Cri, pod: &str, config: &PodSandboxConfig, name: &str) -> String {
    cri.run(pod, config, &shell(name, SLEEP)).await.unwrap()
}

/// Who could leave the account is counted by walking, now and then.
async fn counted(cri: &Cri, id: &str, what: impl Fn(u64, u64) -> bool) {
    eventually("the count of what was written", Duration::from_secs(60), async || {
        let (bytes, inodes) = written(cri, id).await;
        what(bytes, inodes).then_some(())
    })
    .await;
}

/// Takes a file of a container out of its project, as the file's owner may who is in this user namespace.
async fn leave(cri: &Cri, id: &str, file: &str, mapped: bool) -> bool {
    let pid = cri.pid(id).await.to_string();
    let mut command = Command::new(if mapped { "nsenter" } else { "chattr" });
    if mapped {
        command.args(["--user", "--target", &pid, "chattr"]);
    }
    let output = command.args(["-p", "0", &format!("/proc/{pid}/root{file}")]).output().expect("chattr, nsenter");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() || error.contains("while setting project"), "{error}");
    output.status.success()
}

/// A container that fails with a full layer is told why.
async fn failure_is_explained(cri: &Cri, pod: &str, config: &PodSandboxConfig) {
    let fails = shell("fails", "dd if=/dev/zero of=/file bs=64k count=128 || exit 3");
    let (status, text) = cri.outcome(pod, config, &fails).await.unwrap();
    assert_eq!((status.reason.as_str(), status.exit_code), ("Error", 3), "{status:?}");
    assert!(status.message.contains(&format!("the limit is {LIMIT} (limits.disk_bytes)")), "{status:?}");
    // As ext4 and XFS say it.
    assert!(text.contains("quota exceeded") || text.contains("No space left"), "{text}");
}

/// The project of a folder of a container.
fn project(node: &Node, id: &str, name: &str) -> Option<u32> {
    Attributes::of(File::open(node.root().join("containers").join(id).join(name)).unwrap()).unwrap().project()
}

fn limit(root: &Path, project: u32) -> Option<u64> {
    quota::get(File::open(root).unwrap(), project).unwrap().limit
}

async fn ext4_counts_and_holds_writable_layers(node: &mut Node) {
    counts_and_holds(node, "ext4").await;
}

async fn xfs_counts_and_holds_writable_layers(node: &mut Node) {
    counts_and_holds(node, "xfs").await;
}

async fn counts_and_holds(node: &mut Node, kind: &str) {
    if !disk(node, kind) {
        return;
    }
    let cri = ready(node).await;
    assert_eq!(accounts(&cri).await, "project quotas");
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let full = running(&cri, &pod, &config, "full").await;
    let before = written(&cri, &full).await;
    assert!(before.0 < 256 << 10 && before.1 < 20, "{before:?}");
    assert_eq!(cri.sh(&full, FILL).await, "refused");
    // What it may use is what it sees as its disk.
    counted(&cri, &full, |bytes, inodes| about_full(bytes) && inodes == before.1 + 1).await;
    assert!(cri.sh(&full, "df -k / | tail -n 1").await.contains(&format!(" {} ", LIMIT >> 10)));
    // With room again it goes on, and no name of the image's or of its own is bound to where it is.
    let moves = "rm /file; mkdir /a; echo own >/a/b; mv /a /c; ln /c/b /d; mv /d /c/e; mv /etc/motd /moved; ln /moved /more; \
                 mv /more /c/more; cat /c/e /c/more";
    assert_eq!(cri.sh(&full, moves).await, "own\nsecond");
    failure_is_explained(&cri, &pod, &config).await;

    // Whoever it is: a container with all rights, and one whose IDs are others.
    let mut privileged = shell("privileged", SLEEP);
    security_of(&mut privileged).privileged = true;
    let mut trusted = host_pod("trusted");
    trusted.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let (_, privileged) = cri.run_in_pod(&trusted, &privileged).await.unwrap();
    assert_eq!(cri.sh(&privileged, FILL).await, "refused");
    let (mapped_pod, mapped_config) = userns::pod_at(&cri, "mapped", userns::BASE).await;
    let mapped = running(&cri, &mapped_pod, &mapped_config, "mapped").await;
    let before = written(&cri, &mapped).await;
    assert_eq!(cri.sh(&mapped, FILL).await, "refused");
    // What it uses is known at once, for it cannot leave the account.
    let (bytes, inodes) = written(&cri, &mapped).await;
    assert!(about_full(bytes) && inodes == before.1 + 1, "{bytes} bytes, {inodes} inodes");
    assert!(!leave(&cri, &mapped, "/file", true).await, "a pod's root left its project");
    // Whoever has no limit is counted as well.
    let free_config = host_pod("free");
    let free_pod = cri.run_pod_by(FREE, &free_config).await.unwrap();
    let free = running(&cri, &free_pod, &free_config, "free").await;
    assert_eq!(cri.sh(&free, FILL).await, "whole");
    counted(&cri, &free, |bytes, _| (8 << 20..10 << 20).contains(&bytes)).await;

    // The next daemon knows it all, and whoever was created under the one before is held too.
    let created = cri.create(&pod, &config, &shell("created", SLEEP)).await.unwrap();
    let uses = written(&cri, &free).await;
    let cri = node.restart().await;
    assert_eq!(written(&cri, &free).await, uses);
    cri.start(&created).await.unwrap();
    for id in [&full, &created] {
        assert_eq!(cri.sh(id, FILL).await, "refused");
    }
    let numbers: std::collections::BTreeSet<_> =
        [&full, &created, &free, &privileged, &mapped].map(|id| project(node, id, "upper").unwrap()).into();
    assert_eq!(numbers.len(), 5, "each has a project of its own");
    for id in [&full, &created, &mapped, &privileged, &free] {
        assert_eq!(project(node, id, "work"), project(node, id, "upper"));
        assert_eq!(cri.status(id).await.unwrap().state(), ContainerState::ContainerRunning, "nobody is ended for it");
    }
    // Who leaves the account so as to write more is found by the look.
    let leaves = running(&cri, &pod, &config, "leaves").await;
    cri.sh(&leaves, "dd if=/dev/zero of=/first bs=1M count=3 2>/dev/null").await;
    assert!(leave(&cri, &leaves, "/first", false).await);
    // It may be ended before the command is.
    let _ = cri.exec(&leaves, &["/bin/sh", "-c", "dd if=/dev/zero of=/second bs=1M count=3"], 20).await;
    let status = cri.exited(&leaves).await;
    assert_eq!(status.reason, "DiskLimitExceeded", "{status:?}");
    // A limit goes with its container.
    let own = project(node, &full, "upper").unwrap();
    assert_eq!(limit(&node.root(), own), Some(LIMIT));
    cri.stop(&full, 0).await.unwrap();
    cri.remove(&full).await.unwrap();
    assert_eq!(limit(&node.root(), own), None);
    end(node, &cri).await;
}

async fn copies_are_held_as_well(node: &mut Node) {
    if !disk(node, "ext4") {
        return;
    }
    node.settings.text("image.provisioner", "copy");
    let cri = ready(node).await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let full = running(&cri, &pod, &config, "full").await;
    // What was copied is not its own, and does not count.
    let (bytes, _) = written(&cri, &full).await;
    assert!(bytes < 256 << 10, "{bytes}");
    assert_eq!(cri.sh(&full, FILL).await, "refused");
    counted(&cri, &full, |bytes, _| about_full(bytes)).await;
    failure_is_explained(&cri, &pod, &config).await;
    // With another provisioner a container that was not started yet has another layer, with the same limit.
    let created = cri.create(&pod, &config, &shell("created", SLEEP)).await.unwrap();
    let before = project(node, &created, "rootfs").unwrap();
    node.settings.text("image.provisioner", "overlay");
    let cri = node.restart().await;
    cri.start(&created).await.unwrap();
    assert_eq!(cri.sh(&created, FILL).await, "refused");
    assert_ne!(project(node, &created, "upper"), Some(before));
    end(node, &cri).await;
}

async fn without_quotas_the_look_is_back(node: &mut Node) {
    if !disk(node, "ext4") {
        return;
    }
    let cri = ready(node).await;
    let config = host_pod("main");
    let pod = cri.run_pod(&config).await.unwrap();
    let created = cri.create(&pod, &config, &shell("created", SLEEP)).await.unwrap();
    node.kill();
    // Nothing runs there: the administrator mounts it anew.
    eventually("the end of all use of the disk", Duration::from_secs(60), async || {
        unmount(node.root(), UnmountFlags::empty()).ok()
    })
    .await;
    assert!(mount(node, "ext4", "noquota"));
    let cri = node.start().await;
    let told = accounts(&cri).await;
    assert!(told.starts_with("counted (no project quotas: "), "{told}");
    // Its folders keep their project, and what it does in them works.
    cri.start(&created).await.unwrap();
    assert_eq!(cri.sh(&created, "mkdir /a; mv /a /b; echo own >/b/c; mv /b/c /etc/motd; cat /etc/motd").await, "own");
    let new = running(&cri, &pod, &config, "new").await;
    assert_eq!(project(node, &new, "upper"), None);
    for id in [&created, &new] {
        // It may be ended before the command is.
        let _ = cri.exec(id, &["/bin/sh", "-c", FILL], 20).await;
        let status = cri.exited(id).await;
        assert_eq!(status.reason, "DiskLimitExceeded", "{status:?}");
    }
    end(node, &cri).await;
}
