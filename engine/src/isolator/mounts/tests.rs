use std::fs;

use tripod_shim_protocol::{MountFlags, MountSource, Propagation};

use super::*;
use crate::{Error, ImageVolume, Kind, VolumeMount, isolator::fixture::Fixture};

const DEFAULTS: [&str; 7] = ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys", "/sys/fs/cgroup"];

fn volume(host: impl Into<PathBuf>, container: &str) -> VolumeMount {
    VolumeMount { host_path: host.into(), container_path: container.into(), ..VolumeMount::default() }
}

fn image(container: &str) -> VolumeMount {
    VolumeMount { image: Some(ImageVolume::default()), container_path: container.into(), ..VolumeMount::default() }
}

fn targets(plan: &LaunchPlan) -> Vec<&str> {
    plan.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect()
}

async fn refused(fixture: &Fixture) -> Error {
    fixture.prepare(&Mounts { masked: Vec::new() }).await.unwrap_err()
}

#[tokio::test]
async fn defaults_come_first() {
    let mut fixture = Fixture::new();
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    assert_eq!(targets(&plan), DEFAULTS);
    assert!(plan.mounts[5].flags.read_only && plan.mounts[6].flags.read_only);
    assert!(!plan.mounts[1].flags.nodev && !plan.mounts[2].flags.nodev && plan.mounts[0].flags.nodev);
    fixture.config.security.privileged = true;
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    assert!(plan.mounts.iter().all(|mount| !mount.flags.read_only));
}

#[tokio::test]
async fn parents_are_mounted_before_children() {
    let mut fixture = Fixture::new();
    let host = fixture.dir();
    fixture.config.mounts = vec![volume(&host, "/a/b/c"), volume(&host, "/etc"), volume(&host, "//a/b/"), image("/a")];
    let mut plan = LaunchPlan::default();
    let file = Mount {
        target: "/etc/hosts".into(),
        source: MountSource::Bind { path: host, recursive: false },
        flags: MountFlags::default(),
        propagation: None,
        map_ids: false,
    };
    plan.mounts.push(file);
    fixture.prepare_into(&Mounts::new(), &mut plan).await.unwrap();
    assert_eq!(targets(&plan)[DEFAULTS.len()..], ["/etc", "/a", "/etc/hosts", "/a/b", "/a/b/c"]);
}

#[tokio::test]
async fn volumes_take_the_place_of_defaults() {
    let mut fixture = Fixture::new();
    fixture.config.mounts = vec![volume(fixture.dir(), "/dev/shm")];
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    assert_eq!(targets(&plan).iter().filter(|target| **target == "/dev/shm").count(), 1);
    assert!(matches!(plan.mounts.last().unwrap().source, MountSource::Bind { .. }));

    fixture.config.mounts = vec![volume("/dev", "/dev/"), volume("/sys", "/sys")];
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    assert_eq!(targets(&plan), ["/proc", "/sys/fs/cgroup", "/dev", "/sys"]);
}

#[tokio::test]
async fn image_volumes_are_numbered_as_they_appear() {
    let mut fixture = Fixture::new();
    fixture.config.mounts = vec![image("/x/deep"), volume(fixture.dir(), "/v"), image("/y")];
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    let number = |target: &str| plan.mounts.iter().find(|mount| mount.target == Path::new(target)).unwrap();
    assert_eq!(number("/x/deep").source, MountSource::Detached(1));
    assert_eq!(number("/y").source, MountSource::Detached(2));
    assert!(number("/y").flags.read_only && number("/y").flags.noexec);
}

#[tokio::test]
async fn absent_sources_are_named() {
    let mut fixture = Fixture::new();
    let absent = fixture.host("absent");
    fixture.config.mounts = vec![volume(&absent, "/data")];
    let error = refused(&fixture).await;
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.to_string().contains(absent.to_str().unwrap()), "{error}");
    assert!(!absent.exists(), "nothing is invented");

    let link = fixture.host("link");
    std::os::unix::fs::symlink(fixture.dir(), &link).unwrap();
    fixture.config.mounts = vec![volume(&link, "/data")];
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    let source = MountSource::Bind { path: link, recursive: true };
    assert_eq!(plan.mounts.last().unwrap().source, source, "links of the host are followed");
}

#[tokio::test]
async fn open_files_of_another_process_are_sources() {
    let mut fixture = Fixture::new();
    let file = fs::File::open(fixture.dir()).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    let path = format!("/proc/{}/fd/{fd}", std::process::id());
    fixture.config.mounts = vec![volume(path, "/sub")];
    fixture.prepare(&Mounts::new()).await.unwrap();
}

#[tokio::test]
async fn bad_volumes_are_refused() {
    let dir = "/";
    let changes: [fn(&mut VolumeMount); 10] = [
        |volume| volume.container_path = "relative".into(),
        |volume| volume.container_path = "/a/../b".into(),
        |volume| volume.container_path = "/".into(),
        |volume| volume.container_path = "/a\0b".into(),
        |volume| volume.container_path = "/proc/self/attr".into(),
        |volume| volume.container_path = "/proc".into(),
        |volume| volume.host_path = "relative".into(),
        |volume| volume.host_path = PathBuf::new(),
        |volume| volume.recursive_read_only = true,
        |volume| volume.image = Some(ImageVolume::default()),
    ];
    for change in changes {
        let mut fixture = Fixture::new();
        let mut bad = volume(dir, "/data");
        change(&mut bad);
        fixture.config.mounts = vec![bad.clone()];
        let error = refused(&fixture).await;
        assert_eq!(error.kind(), Kind::InvalidArgument, "{bad:?}: {error}");
    }
}

#[tokio::test]
async fn proc_takes_a_proc_and_the_files_of_lxcfs() {
    let mut fixture = Fixture::new();
    fixture.config.mounts = vec![volume("/proc", "/proc"), volume(fixture.dir(), "/proc/meminfo")];
    assert_eq!(targets(&fixture.prepare(&Mounts::new()).await.unwrap())[6..], ["/proc", "/proc/meminfo"]);
}

#[tokio::test]
async fn recursive_read_only_needs_the_rest() {
    let mut fixture = Fixture::new();
    let good = VolumeMount { read_only: true, recursive_read_only: true, ..volume("/", "/data") };
    fixture.config.mounts = vec![good.clone()];
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    assert!(plan.mounts.last().unwrap().flags.recursive_read_only);
    fixture.config.mounts = vec![VolumeMount { propagation: Some(Propagation::HostToContainer), ..good }];
    assert_eq!(refused(&fixture).await.kind(), Kind::InvalidArgument);
}

#[test]
fn propagation_needs_mounts_that_propagate() {
    let id = {
        let flags = rustix::fs::StatxFlags::MNT_ID;
        rustix::fs::statx(rustix::fs::CWD, "/", rustix::fs::AtFlags::empty(), flags).unwrap().stx_mnt_id
    };
    let run = |optional: &str, wanted: Propagation| {
        let table =
            format!("1 0 0:1 / /x rw - tmpfs tmpfs rw\n{id} 1 8:1 / / rw,relatime{optional} - ext4 /dev/x rw\n");
        let volumes = [VolumeMount { propagation: Some(wanted), ..volume("/", "/data") }];
        source::check(&volumes, &blocking::Progress::default(), || Ok(HostMounts::from(table.as_str())))
    };
    use Propagation::{Bidirectional, HostToContainer, Private};
    assert!(run("", Private).is_ok());
    assert!(run(" shared:7", HostToContainer).is_ok());
    assert!(run(" master:7", HostToContainer).is_ok());
    assert!(run(" shared:7 master:3", Bidirectional).is_ok());
    let error = run(" master:7", Bidirectional).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("make-rshared"), "{error}");
    assert!(run("", HostToContainer).is_err());
}

#[tokio::test]
async fn masked_paths_are_the_requests_but_for_privileged() {
    let mut fixture = Fixture::new();
    fixture.config.security.masked_paths = vec!["/proc/kcore".into()];
    fixture.config.security.read_only_paths = vec!["/proc/sys/".into()];
    // Without those that this host's kernel adds.
    let plan = fixture.prepare(&Mounts { masked: Vec::new() }).await.unwrap();
    assert_eq!((plan.masked_paths, plan.read_only_paths), (vec!["/proc/kcore".into()], vec!["/proc/sys".into()]));
    fixture.config.security.privileged = true;
    let plan = fixture.prepare(&Mounts::new()).await.unwrap();
    assert!(plan.masked_paths.is_empty() && plan.read_only_paths.is_empty());
    fixture.config.security.privileged = false;
    fixture.config.security.masked_paths = vec!["../etc".into()];
    assert_eq!(refused(&fixture).await.kind(), Kind::InvalidArgument);
}

proptest::proptest! {
    #[test]
    fn targets_are_absolute_and_never_climb(path in "/?([a-z./]{0,3}/){0,5}[a-z.]{0,3}") {
        if let Some(plain) = target(Path::new(&path)) {
            proptest::prop_assert!(plain.is_absolute());
            let text = plain.to_str().unwrap();
            proptest::prop_assert!(!text.split('/').skip(1).any(|part| part == "." || part == ".."), "{}", text);
            proptest::prop_assert!(!text.contains("//") && (text == "/" || !text.ends_with('/')), "{}", text);
        }
    }
}

#[tokio::test]
async fn older_lists_of_masked_paths_are_completed() {
    let mut fixture = Fixture::new();
    let mounts = Mounts { masked: vec!["/proc/interrupts".into(), "/proc/kcore".into()] };
    assert!(fixture.prepare(&mounts).await.unwrap().masked_paths.is_empty(), "none at all means none");
    fixture.config.security.masked_paths = vec!["/proc/kcore/".into(), "/own".into()];
    let plan = fixture.prepare(&mounts).await.unwrap();
    assert_eq!(plan.masked_paths, ["/proc/kcore", "/own", "/proc/interrupts"].map(PathBuf::from));
    fixture.config.security.privileged = true;
    assert!(fixture.prepare(&mounts).await.unwrap().masked_paths.is_empty());
}
