//! Mounts, masks and devices.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use tripod_shim_protocol::{FailureKind, Mount, MountFlags, MountSource, Propagation};
use tripod_sys::mount;

use crate::support::*;

fn read_only(mut mount: Mount) -> Mount {
    mount.flags.read_only = true;
    mount
}

/// A folder of the host with a tmpfs mounted in `DIR/sub`, unmounted when dropped.
struct Nested(PathBuf);

impl Nested {
    fn new(pod: &Pod, shared: bool) -> Nested {
        let dir = pod.path().join("volume");
        fs::create_dir_all(&dir).unwrap();
        let nested = Nested(dir);
        let over = mount::clone_path(None, &nested.0, false).unwrap();
        let propagation = if shared { mount::Propagation::Shared } else { mount::Propagation::Private };
        mount::set(&over, mount::Attributes::default(), Some(propagation), false).unwrap();
        mount::attach(over, fs::File::open(&nested.0).unwrap()).unwrap();
        fs::create_dir(nested.0.join("sub")).unwrap();
        nested.mount_on("sub");
        fs::write(nested.0.join("file"), "outer").unwrap();
        fs::write(nested.0.join("sub/file"), "inner").unwrap();
        nested
    }

    fn mount_on(&self, name: &str) {
        fs::create_dir_all(self.0.join(name)).unwrap();
        let tmpfs = mount::new_filesystem("tmpfs", &[], mount::Attributes::default()).unwrap();
        mount::attach(tmpfs, fs::File::open(self.0.join(name)).unwrap()).unwrap();
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn binds_are_writable_read_only_or_recursively_so() {
    let mut pod = Pod::new(|_| {});
    let nested = Nested::new(&pod, false);
    let mut plan = pod.plan(
        "c1",
        "for d in rw ro rro flat; do cat /$d/file /$d/sub/file; touch /$d/new$d && echo wrote; touch /$d/sub/new$d && echo wrote; done 2>&1; \
         cat /one; echo more >> /one",
    );
    let mut rro = bind(&nested.0, "/rro");
    rro.flags.recursive_read_only = true;
    let mut flat = bind(&nested.0, "/flat");
    flat.source = MountSource::Bind { path: nested.0.clone(), recursive: false };
    plan.mounts.extend([bind(&nested.0, "/rw"), read_only(bind(&nested.0, "/ro")), rro, flat]);
    plan.mounts.push(bind(&nested.0.join("file"), "/one"));
    let (record, text) = pod.run_plan(plan);
    assert_eq!(record.code, 0, "{text}");
    let ro = |path: &str| format!("touch: {path}: Read-only file system\n");
    let expected = [
        "outerinnerwrote\nwrote\n",
        &format!("outerinner{}wrote\n", ro("/ro/newro")),
        &format!("outerinner{}{}", ro("/rro/newrro"), ro("/rro/sub/newrro")),
        "outercat: can't open '/flat/sub/file': No such file or directory\nwrote\nwrote\n",
        "outer",
    ];
    assert_eq!(text, expected.concat());
    assert_eq!(fs::read_to_string(nested.0.join("file")).unwrap(), "outermore\n");
}

#[test]
fn later_mounts_are_seen_as_the_propagation_says() {
    let mut pod = Pod::new(|_| {});
    let nested = Nested::new(&pod, true);
    let volume = |target: &str, propagation| Mount { propagation: Some(propagation), ..bind(&nested.0, target) };
    let mut plan = pod.plan("c1", "sleep 60");
    plan.process.capabilities.bounding = (0..41).collect();
    plan.process.capabilities.permitted = (0..41).collect();
    plan.process.capabilities.effective = (0..41).collect();
    plan.mounts.extend([
        volume("/private", Propagation::Private),
        volume("/slave", Propagation::HostToContainer),
        volume("/shared", Propagation::Bidirectional),
    ]);
    pod.launch(plan).unwrap();
    nested.mount_on("later");
    fs::write(nested.0.join("later/file"), "x").unwrap();
    let (_, out, err) = pod.exec("c1", "e1", &["ls", "/private/later", "/slave/later", "/shared/later"]).unwrap();
    assert_eq!(out, "/private/later:\n\n/shared/later:\nfile\n\n/slave/later:\nfile\n", "{err}");

    let script = "for d in private slave shared; do mkdir -p /$d/of$d && mount -t tmpfs none /$d/of$d; done";
    pod.launch(full_rights(pod.plan("c2", script), &nested)).unwrap();
    assert_eq!(pod.client.exit("c2").code, 0, "{}", pod.text("c2"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let on_host = |name: &str| mounts.contains(nested.0.join(name).to_str().unwrap());
    assert!(on_host("ofshared"));
    assert!(!on_host("ofslave") && !on_host("ofprivate"));
}

fn full_rights(mut plan: tripod_shim_protocol::LaunchPlan, nested: &Nested) -> tripod_shim_protocol::LaunchPlan {
    let all: Vec<u8> = (0..41).collect();
    let capabilities = &mut plan.process.capabilities;
    (capabilities.bounding, capabilities.permitted, capabilities.effective) = (all.clone(), all.clone(), all);
    for (name, propagation) in [
        ("private", Propagation::Private),
        ("slave", Propagation::HostToContainer),
        ("shared", Propagation::Bidirectional),
    ] {
        let volume = bind(&nested.0, &format!("/{name}"));
        plan.mounts.push(Mount { propagation: Some(propagation), ..volume });
    }
    plan
}

#[test]
fn absent_sources_are_the_plans_fault() {
    let mut pod = Pod::new(|_| {});
    let mut plan = pod.plan("c1", "true");
    plan.mounts.push(bind(&pod.path().join("absent"), "/data"));
    let failure = pod.launch(plan).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Plan);
    let text = failure.to_string();
    assert!(text.contains("/data") && text.contains("absent") && text.contains("No such file"), "{text}");
}

#[test]
fn links_in_the_image_lead_nowhere_on_the_host() {
    let mut pod = Pod::new(|_| {});
    let victim = pod.path().join("victim");
    fs::create_dir(&victim).unwrap();
    let root = pod.rootfs("c1");
    symlink(&victim, root.join("data")).unwrap();
    symlink("/", root.join("all")).unwrap();
    symlink("../../../../../../../..", root.join("up")).unwrap();
    symlink(victim.join("made-file"), root.join("etc/hosts")).unwrap();
    let source = pod.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("mark"), "mark").unwrap();
    let mut plan = pod.plan("c1", "cat /data/mark /all/mnt/mark /up/sub/mark /etc/hosts");
    let victim_inside = format!("/all{}", victim.display());
    plan.mounts.extend([
        bind(&source, "/data"),
        bind(&source, "/all/mnt"),
        bind(&source, "/up/sub"),
        bind(&source, &format!("{victim_inside}/deep")),
        bind(&source.join("mark"), "/etc/hosts"),
    ]);
    plan.process.cwd = "/all/up/cwd".into();
    pod.launch_in(&root, plan).unwrap();
    assert_eq!(pod.client.exit("c1").code, 0, "{}", pod.text("c1"));
    assert_eq!(pod.text("c1"), "markmarkmarkmark");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "nothing was made on the host");
    assert!(!PathBuf::from("/cwd").exists());
}

#[test]
fn a_link_leads_no_mount_into_procfs() {
    let mut pod = Pod::new(|_| {});
    let volume = pod.path().join("volume");
    fs::create_dir_all(&volume).unwrap();
    let root = pod.rootfs("c1");
    symlink("/proc/self", root.join("innocent")).unwrap();
    let mut plan = pod.plan("c1", "true");
    plan.mounts.push(bind(&volume, "/innocent/attr"));
    let failure = pod.launch_in(&root, plan).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Plan);
    assert!(failure.message.contains("/proc"), "{failure}");
}

#[test]
fn masked_and_protected_paths() {
    let mut pod = Pod::new(|_| {});
    let command = "cat /proc/kcore /etc/secret; ls -a /proc/acpi /sys/firmware /etc/folder; touch /sys/firmware/x; \
                   echo 1 > /proc/sys/kernel/panic; echo x > /etc/kept; cat /etc/kept; true";
    let mut plan = pod.plan("c1", command);
    plan.masked_paths =
        ["/proc/kcore", "/proc/acpi", "/sys/firmware", "/etc/secret", "/etc/folder", "/nonsense", "/etc/secret/below"]
            .map(PathBuf::from)
            .into();
    plan.read_only_paths = ["/proc/sys", "/etc/kept", "/nonsense"].map(PathBuf::from).into();
    let root = pod.rootfs("c1");
    fs::write(root.join("etc/secret"), "secret").unwrap();
    fs::write(root.join("etc/kept"), "kept").unwrap();
    fs::create_dir(root.join("etc/folder")).unwrap();
    fs::write(root.join("etc/folder/secret"), "secret").unwrap();
    pod.launch_in(&root, plan).unwrap();
    assert_eq!(pod.client.exit("c1").code, 0);
    let text = pod.text("c1");
    assert!(!text.contains("secret"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
    assert!(text.ends_with("kept"), "{text}");
}

#[test]
fn a_read_only_root_still_has_its_mounts() {
    let mut pod = Pod::new(|_| {});
    let mut plan =
        pod.plan("c1", "touch /x; touch /data/y && echo wrote; test -c /dev/null && echo null; readlink /dev/fd");
    let data = pod.path().join("data");
    fs::create_dir(&data).unwrap();
    plan.mounts.push(bind(&data, "/new/place/data"));
    plan.mounts.push(bind(&data, "/data"));
    plan.rootfs.read_only = true;
    let (_, text) = pod.run_plan(plan);
    assert_eq!(text, "touch: /x: Read-only file system\nwrote\nnull\n/proc/self/fd\n");
}

#[test]
fn shared_memory_is_the_pods() {
    let mut pod = Pod::new(|_| {});
    pod.run("c1", "echo word > /dev/shm/file");
    assert_eq!(pod.run("c2", "cat /dev/shm/file; stat -c %a /dev/shm; dd if=/dev/zero of=/dev/shm/big bs=1M count=2 2>/dev/null || echo full").1, "word\n1777\nfull\n");
    assert!(!PathBuf::from("/dev/shm/file").exists());
}

#[test]
fn filesystems_say_what_is_wrong_with_their_options() {
    let mut pod = Pod::new(|_| {});
    let mut plan = pod.plan("c1", "true");
    plan.mounts.push(fs_mount("/tmp", "tmpfs", &[("sise", Some("1m"))]));
    let failure = pod.launch(plan).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Plan);
    assert!(failure.message.contains("sise"), "{failure}");
    let mut plan = pod.plan("c2", "true");
    let source = MountSource::Detached(1);
    plan.mounts.push(Mount {
        target: "/image".into(),
        source,
        flags: MountFlags::default(),
        propagation: None,
        map_ids: false,
    });
    assert_eq!(pod.launch(plan).unwrap_err().kind, FailureKind::Plan);
}

#[test]
fn mounts_that_travel_with_the_plan_are_attached() {
    let mut pod = Pod::new(|_| {});
    let dir = pod.path().join("image");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "from an image").unwrap();
    let mut plan = pod.plan("c1", "cat /image/file; touch /image/x || echo refused");
    let source = MountSource::Detached(1);
    let flags = MountFlags { read_only: true, ..MountFlags::default() };
    plan.mounts.push(Mount { target: "/image".into(), source, flags, propagation: None, map_ids: false });
    let root = pod.rootfs("c1");
    let fds = vec![Pod::detached(&root), Pod::detached(&dir)];
    pod.client.ask(tripod_shim_protocol::Request::Launch(Box::new(plan)), fds).unwrap();
    pod.client.exit("c1");
    let text = pod.text("c1");
    assert!(text.contains("from an image") && text.contains("x: Read-only") && text.contains("refused"), "{text}");
}
