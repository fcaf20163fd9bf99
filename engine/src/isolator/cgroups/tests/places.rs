//! Where cgroups are made: below kubelet's parents, in scopes of systemd's.

use super::*;

#[tokio::test]
async fn kubelets_parent_stays() {
    let own = Own::new();
    let parent = format!("{}-kubepods", own.0.base);
    let mut fixture = Fixture::new();
    fixture.pod.cgroup_parent = Some(format!("/{parent}/burstable/pod1"));
    let mut plan = LaunchPlan::default();
    plan.resources.devices = all_devices();
    fixture.prepare_into(&own.0, &mut plan).await.unwrap();
    let mount = own.0.host.trees[0].mount.join(&parent);
    assert_eq!(plan.cgroups.dirs[0], mount.join("burstable/pod1").join(&fixture.id));
    own.0.create(&plan.cgroups, &plan.resources).unwrap();
    own.0.remove(&plan.cgroups).await.unwrap();
    for dir in &plan.cgroups.dirs {
        assert!(!dir.exists() && dir.parent().unwrap().exists());
        for parent in dir.ancestors().skip(1).take(3) {
            fs::remove_dir(parent).unwrap();
        }
    }
}

#[tokio::test]
async fn parents_are_checked_with_the_pod() {
    let own = Own::new();
    for (parent, kind) in [
        ("relative", Kind::InvalidArgument),
        ("/", Kind::InvalidArgument),
        ("/a/../b", Kind::InvalidArgument),
        ("/a//b", Kind::InvalidArgument),
        ("kubepods-pod1.slice", Kind::InvalidArgument),
    ] {
        let mut fixture = Fixture::new();
        fixture.pod.cgroup_parent = Some(parent.to_owned());
        assert_eq!(fixture.prepare_pod(&own.0).await.unwrap_err().kind(), kind, "{parent}");
    }
    for bad in ["", "a/b", "..", "a b"] {
        let config = CgroupConfig { base: bad.to_owned(), ..CgroupConfig::default() };
        assert_eq!(Cgroups::discover(&config).unwrap_err().kind(), Kind::InvalidArgument);
    }
}

#[test]
fn the_systemd_driver_says_what_it_needs() {
    let host = Host::discover().unwrap();
    let config = CgroupConfig { driver: CgroupDriver::Systemd, ..CgroupConfig::default() };
    match Cgroups::with(host.clone(), &config) {
        Ok(_) => assert!(host.unified()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("v2") || text.contains("PID 1"), "{text}");
            assert_eq!(error.outward().kind(), Kind::FailedPrecondition, "{text}");
        }
    }
}

/// A pod's way through systemd, with a sleeping program as its shim. Without systemd as PID 1 and cgroup v2 there is
/// only the refusal to see.
#[tokio::test]
async fn a_pod_lives_in_a_scope_that_a_reload_leaves_alone() {
    let base = format!("tripodtest{}", std::process::id());
    let config = CgroupConfig { base: base.clone(), driver: CgroupDriver::Systemd, oom_group: true };
    let cgroups = match Cgroups::discover(&config) {
        Ok(cgroups) => cgroups,
        Err(error) => return assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}"),
    };
    let mut fixture = Fixture::new();
    fixture.pod.cgroup_parent = Some(format!("{base}-pod1.slice"));
    let mut shim = Command::new("sleep").arg("1000").spawn().unwrap();
    let mut setup = PodSetup { shim: shim.id().cast_signed(), ..PodSetup::default() };
    fixture.prepare_pod_into(&cgroups, &mut setup).await.unwrap();
    let mut plan = LaunchPlan::default();
    fixture.config.resources =
        Resources { memory_limit: Some(64 << 20), cpu_shares: Some(512), ..Resources::default() };
    let zero =
        DeviceRule { allow: true, kind: Some(DeviceKind::Char), major: Some(1), minor: Some(5), access: "r".into() };
    plan.resources.devices = vec![zero];
    fixture.prepare_into(&cgroups, &mut plan).await.unwrap();
    let dir = plan.cgroups.dirs[0].clone();
    let scope = dir.parent().unwrap().to_owned();
    let place = format!("{base}.slice/{base}-pod1.slice/{base}-{}.scope", fixture.pod_id);
    assert!(scope.ends_with(&place), "{} {place}", scope.display());
    assert_eq!(file::read(&scope.join("shim/cgroup.procs")).unwrap(), shim.id().to_string());

    cgroups.create(&plan.cgroups, &plan.resources).unwrap();
    let mut child = spawn(&plan, "exec sleep 1000");
    until("the process", || kill::processes(&dir).unwrap().len() == 1).await;
    let limits = || ["memory.max", "cpu.weight", "memory.swap.max"].map(|name| file::read(&dir.join(name)).unwrap());
    assert_eq!(limits(), ["67108864", "59", "0"]);
    let systemctl = |arguments: &[&str]| {
        let output = Command::new("systemctl").args(arguments).output().expect("systemctl");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let unit = scope.file_name().unwrap().to_str().unwrap();
    systemctl(&["set-property", "--runtime", unit, "MemoryMax=1G"]);
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", unit, "MemoryMax=infinity"]);
    assert_eq!(systemctl(&["show", "--property", "Delegate", "--value", unit]), "yes");
    assert_eq!(limits(), ["67108864", "59", "0"]);
    let read = |device: &str| spawn(&plan, &format!("head -c 1 {device} || exit 9")).wait().unwrap().code();
    assert_eq!((read("/dev/zero"), read("/dev/urandom")), (Some(0), Some(9)));
    let grow = Resources { memory_limit: Some(96 << 20), ..Resources::default() };
    cgroups.update(&plan, &grow, true).await.unwrap();
    assert_eq!(limits()[0], "100663296");

    // The end of a container leaves its counters, and the scope.
    cgroups.kill(&plan.cgroups).await.unwrap();
    child.wait().unwrap();
    systemctl(&["daemon-reload"]);
    assert_eq!(cgroups.oom_kills(&plan.cgroups), Some(0));
    cgroups.remove(&plan.cgroups).await.unwrap();
    assert!(!dir.exists() && scope.exists());
    shim.kill().unwrap();
    shim.wait().unwrap();
    cgroups.cleanup_pod(&fixture.pod_id).await.unwrap();
    cgroups.cleanup_pod(&fixture.pod_id).await.unwrap();
    until("the end of the scope", || !scope.exists()).await;
    // Kubelet removes its slices.
    systemctl(&["stop", &format!("{base}.slice")]);
    until("the end of the slice", || !scope.parent().unwrap().parent().unwrap().exists()).await;
}
