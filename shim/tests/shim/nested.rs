//! Containers that make cgroups of their own in the unified tree. Every kernel of today has it, if not with all
//! controllers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tripod_shim_protocol::CgroupPlan;

use crate::support::*;

/// A cgroup, and a controller that it could give on to others; `None` where the tree has none to give.
fn cgroup() -> (PathBuf, Option<String>) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let tree = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|f| f[2] == "cgroup2").unwrap()[1];
    let name = format!("tripod-shim-nested-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let dir = Path::new(tree).join(name);
    fs::create_dir(&dir).unwrap();
    let first = |path: &Path| {
        let all = fs::read_to_string(path.join("cgroup.controllers")).unwrap();
        all.split_whitespace().next().map(str::to_owned)
    };
    let controller = first(&dir).or_else(|| {
        // As the daemon does where nobody has done it.
        let controller = first(Path::new(tree))?;
        fs::write(Path::new(tree).join("cgroup.subtree_control"), format!("+{controller}")).ok()?;
        first(&dir)
    });
    (dir, controller)
}

/// A container moves its processes down and gives a controller on, so that the kernel lets nobody into its own cgroup.
fn exec_follows_the_first_process(unified: bool) {
    let mut pod = Pod::new(|_| {});
    let (dir, controller) = cgroup();
    let inner = dir.join("inner");
    pod.remove_later(inner.clone());
    pod.remove_later(dir.clone());
    let mut plan = pod.plan("c1", "sleep 60");
    plan.cgroups = CgroupPlan { dirs: vec![dir.clone()], unified };
    let pid = Pod::pid_of(&pod.launch(plan).unwrap());
    let place = |pod: &mut Pod, name: &str| {
        let (code, out, _) = pod.exec("c1", name, &["grep", "^0:", "/proc/self/cgroup"]).unwrap();
        assert_eq!(code, 0);
        out.trim().to_owned()
    };
    let own = place(&mut pod, "e1");
    assert!(own.ends_with(dir.file_name().unwrap().to_str().unwrap()), "{own}");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("cgroup.procs"), pid.to_string()).unwrap();
    assert_eq!(place(&mut pod, "e2"), own, "what may be joined is joined");
    // The exec before has to be gone from there.
    wait_until("an empty cgroup", || fs::read_to_string(dir.join("cgroup.procs")).unwrap().is_empty());
    let Some(controller) = controller else {
        println!("the unified tree of this host has no controllers, so that nobody is kept from a cgroup");
        return;
    };
    fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    for name in ["e3", "e4"] {
        assert_eq!(place(&mut pod, name), format!("{own}/inner"));
    }
    // Whoever nobody can follow is refused with the kernel's own reason.
    fs::write(dir.parent().unwrap().join("cgroup.procs"), pid.to_string()).unwrap();
    let refused = pod.exec("c1", "e5", &["true"]).unwrap_err();
    assert!(refused.message.contains("busy"), "{refused}");
    fs::write(inner.join("cgroup.procs"), pid.to_string()).unwrap();
    assert_eq!(place(&mut pod, "e6"), format!("{own}/inner"));
}

#[test]
fn exec_is_born_where_the_first_process_went() {
    exec_follows_the_first_process(true);
}

/// A directory of the unified tree among those of v1.
#[test]
fn exec_joins_where_the_first_process_went() {
    exec_follows_the_first_process(false);
}
