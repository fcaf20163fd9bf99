use std::{os::unix::fs::symlink, path::Path};

use rustix::fs::{lgetxattr, lsetxattr};
use tempfile::TempDir;

use super::{super::fixture::Fixture, relabel::relabel, *};
use crate::VolumeMount;

const CONTEXTS: &str = "# for containers\nprocess = \"system_u:system_r:container_t:s0\"\n\
                        content = \"system_u:object_r:virt_var_lib_t:s0\"\n\
                        file = \"system_u:object_r:container_file_t:s0\"\n";
const FILE: &str = "system_u:object_r:container_file_t";

struct World {
    state: TempDir,
    isolator: Selinux,
}

impl World {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let node = Node::With(Box::new(Policy::parse(CONTEXTS).unwrap()));
        let isolator = Selinux::on(node, state.path());
        Self { state, isolator }
    }

    /// A pod whose folder is where the level goes.
    fn pod(&self) -> Fixture {
        let fixture = Fixture::new();
        std::fs::create_dir_all(self.state.path().join("pods").join(&fixture.pod_id)).unwrap();
        fixture
    }
}

fn options(kind: &str, level: &str) -> SelinuxOptions {
    SelinuxOptions { kind: kind.into(), level: level.into(), ..SelinuxOptions::default() }
}

async fn label_of(fixture: &Fixture, isolator: &Selinux) -> String {
    fixture.prepare_pod(isolator).await.unwrap().plan.mount_label.unwrap()
}

#[test]
fn contexts_are_read_and_changed() {
    let context = Context::parse("system_u:system_r:container_t:s0:c1,c2").unwrap();
    assert_eq!(context.level.as_deref(), Some("s0:c1,c2"));
    assert_eq!(context.clone().at("s0").with(&options("spc_t", "")).to_string(), "system_u:system_r:spc_t:s0");
    let old = Context::parse("u:r:t").unwrap();
    assert_eq!(old.at("s0:c1,c2").to_string(), "u:r:t", "a policy without levels");
    for bad in ["", "u:r", "u::t:s0", "u:r:t:", "u:r:t t:s0", "u:r:t\n:s0"] {
        assert_eq!(Context::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn the_policy_is_found_where_the_packages_put_it() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(Policy::of_node(root.path()), None);
    let folder = root.path().join("etc/selinux/mls/contexts");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(root.path().join("etc/selinux/config"), "SELINUX=enforcing\nSELINUXTYPE=mls\n").unwrap();
    std::fs::write(folder.join("lxc_contexts"), CONTEXTS).unwrap();
    assert_eq!(Policy::of_node(root.path()).unwrap().file.to_string(), format!("{FILE}:s0"));
    std::fs::write(folder.join("lxc_contexts"), "process = \"nonsense\"\n").unwrap();
    assert_eq!(Policy::of_node(root.path()), None);
}

#[tokio::test]
async fn each_pod_has_a_level_of_its_own_over_restarts_until_it_ends() {
    let world = World::new();
    let (one, other) = (world.pod(), world.pod());
    let (first, second) = (label_of(&one, &world.isolator).await, label_of(&other, &world.isolator).await);
    assert!(first.starts_with(&format!("{FILE}:s0:c")) && first != second, "{first} {second}");
    let plan = one.prepare(&world.isolator).await.unwrap();
    let level = first.strip_prefix(FILE).unwrap();
    assert_eq!(plan.process.selinux, Some(format!("system_u:system_r:container_t{level}")));
    assert_eq!(plan.mount_label.as_ref(), Some(&first));

    let next = Selinux::on(world.isolator.node.clone(), world.state.path());
    let known = Known { pods: [one.pod_id.clone(), other.pod_id.clone()].into(), ..Known::default() };
    next.recover(&known).await.unwrap();
    assert_eq!(one.prepare(&next).await.unwrap().mount_label, Some(first));
    for _ in 0..2 {
        next.cleanup_pod(&one.pod_id).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(world.state.path().join("pods").join(&one.pod_id)).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_asked_for_wins_and_what_is_not_comes_from_the_pod() {
    let world = World::new();
    let mut fixture = world.pod();
    fixture.pod.selinux = options("pod_t", "s0:c4,c5");
    assert_eq!(label_of(&fixture, &world.isolator).await, format!("{FILE}:s0:c4,c5"));
    let plan = fixture.prepare(&world.isolator).await.unwrap();
    assert_eq!(plan.process.selinux.as_deref(), Some("system_u:system_r:pod_t:s0:c4,c5"));

    fixture.config.security.selinux = options("own_t", "");
    fixture.config.security.selinux.user = "user_u".into();
    let plan = fixture.prepare(&world.isolator).await.unwrap();
    assert_eq!(plan.process.selinux.as_deref(), Some("user_u:system_r:own_t:s0:c4,c5"));
    assert_eq!(plan.mount_label.as_deref(), Some("user_u:object_r:container_file_t:s0:c4,c5"));

    fixture.config.security.privileged = true;
    let plan = fixture.prepare(&world.isolator).await.unwrap();
    assert_eq!((plan.process.selinux, plan.mount_label.is_some()), (None, true));
}

#[tokio::test]
async fn a_node_without_labels_ignores_them_and_one_without_a_policy_for_containers_refuses() {
    let mut fixture = Fixture::new();
    fixture.config.security.selinux = options("spc_t", "");
    fixture.config.mounts = vec![VolumeMount { selinux_relabel: true, host_path: "/".into(), ..Default::default() }];
    let of = |node| Selinux::on(node, Path::new("/nonexistent"));
    let plan = fixture.prepare(&of(Node::Without)).await.unwrap();
    assert_eq!((plan.process.selinux, plan.mount_label), (None, None));
    let error = fixture.prepare(&of(Node::Unprepared)).await.unwrap_err();
    assert!(error.kind() == Kind::FailedPrecondition && error.to_string().contains("container-selinux"), "{error}");
    fixture.config.security.selinux = SelinuxOptions::default();
    assert_eq!(fixture.prepare(&of(Node::Unprepared)).await.unwrap().mount_label, None);
}

fn label(path: &Path) -> Option<String> {
    let mut value = [0; 128];
    let length = lgetxattr(path, "security.selinux", &mut value[..]).ok()?;
    String::from_utf8(value[..length].to_vec()).ok()
}

#[test]
fn volumes_are_labelled_with_all_that_is_in_them_and_nothing_beyond() {
    assert!(rustix::process::geteuid().is_root(), "this test labels files and needs root");
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    std::fs::create_dir_all(path("volume/a/b")).unwrap();
    for file in ["outside", "volume/file", "volume/a/b/file"] {
        std::fs::write(path(file), "").unwrap();
    }
    symlink(path("outside"), path("volume/a/link")).unwrap();
    symlink(path("volume"), path("way")).unwrap();
    let probe = lsetxattr(path("outside"), "security.selinux", b"old", rustix::fs::XattrFlags::empty());
    let stop = AtomicBool::new(false);
    relabel(&path("way"), "u:object_r:t:s0", &stop).unwrap();
    // A filesystem that keeps no labels is left alone, without an error.
    if probe.is_ok() {
        for file in ["volume", "volume/a/b", "volume/file", "volume/a/b/file", "volume/a/link"] {
            assert_eq!(label(&path(file)).as_deref(), Some("u:object_r:t:s0"), "{file}");
        }
        assert_eq!(label(&path("outside")).as_deref(), Some("old"));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(matches!(relabel(&path("volume"), "x", &stop), Err(relabel::Refused::Stopped)));
}

#[test]
fn what_belongs_to_the_node_is_never_relabelled() {
    let temp = tempfile::tempdir().unwrap();
    symlink("/etc", temp.path().join("link")).unwrap();
    let link = temp.path().join("link");
    for place in [Path::new("/"), Path::new("/usr/"), Path::new("/var/../home"), &link] {
        let error = relabel(place, "u:object_r:t:s0", &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, relabel::Refused::OfTheNode(_)), "{}: {error}", place.display());
    }
}
