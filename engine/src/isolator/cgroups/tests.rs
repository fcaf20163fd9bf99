//! These tests make real cgroups, so they need root and a host with cgroups.

mod devices;
mod ends;
mod limits;
mod places;

use std::{
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tripod_shim_protocol::{DeviceKind, DeviceRule};

use super::*;
use crate::{Kind, isolator::fixture::Fixture};

/// Cgroups below a base of the test's own, which must be gone at its end.
struct Own(Cgroups);

impl Own {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = format!("tripod-test-{}-{number}", std::process::id());
        Self(Cgroups::discover(&CgroupConfig { base, ..CgroupConfig::default() }).expect("cgroups"))
    }

    /// The unified tree alone, as on a host without v1; here it may have few controllers or none.
    fn unified() -> Self {
        let mut own = Self::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let only: String =
            mounts.lines().filter(|line| line.contains(" - cgroup2 ")).map(|l| format!("{l}\n")).collect();
        own.0.host = Host::of(&only).expect("this test needs a cgroup2 mount");
        own
    }

    fn is_gone(&self) -> bool {
        self.0.bases().all(|base| !base.exists())
    }

    /// Plans for a container whose request has these limits.
    async fn plan(&self, resources: Resources) -> LaunchPlan {
        let mut fixture = Fixture::new();
        fixture.config.resources = resources;
        let mut plan = LaunchPlan::default();
        plan.resources.devices = all_devices();
        fixture.prepare_into(&self.0, &mut plan).await.expect("a plan");
        plan
    }

    async fn create(&self, resources: Resources) -> LaunchPlan {
        let plan = self.plan(resources).await;
        self.0.create(&plan.cgroups, &plan.resources).expect("cgroups");
        plan
    }

    fn read(&self, plan: &LaunchPlan, controller: Controller, name: &str) -> String {
        let (dir, _) = self.0.host.dir(&plan.cgroups.dirs, controller).expect("the controller");
        file::read(&dir.join(name)).expect("the file")
    }

    /// The value of a limit, whichever tree it is in.
    fn limit(&self, plan: &LaunchPlan, controller: Controller, v1: &str, v2: &str) -> String {
        let name = if self.0.unified() { v2 } else { v1 };
        self.read(plan, controller, name)
    }

    async fn finish(self, plan: &LaunchPlan) {
        self.0.remove(&plan.cgroups).await.expect("removal");
        self.0.remove(&plan.cgroups).await.expect("removal of what is gone");
        assert!(self.is_gone(), "something is left");
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Only what a failed test left; a test that passed finds nothing here.
        let left = self.0.own();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
                runtime.block_on(self.0.remove_all(&left)).expect("removal of what is left");
            });
        });
    }
}

fn all_devices() -> Vec<DeviceRule> {
    vec![DeviceRule { allow: true, kind: None, major: None, minor: None, access: "rwm".to_owned() }]
}

/// A program that is in the container's cgroups.
fn spawn(plan: &LaunchPlan, script: &str) -> Child {
    let joins: String =
        plan.cgroups.dirs.iter().map(|dir| format!("echo 0 > '{}/cgroup.procs'; ", dir.display())).collect();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{joins}exec /bin/sh -c '{script}'")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("a shell")
}

/// Waits until `done`, at most a minute.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not happen");
}

fn limits() -> Resources {
    Resources {
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some("0".to_owned()),
        memory_limit: Some(64 << 20),
        pids_limit: Some(100),
        ..Resources::default()
    }
}
