//! Figures: how long a start and an exec take, by stage, and how much memory a shim has.
//!
//! The limits here are far above the targets, because tests run side by side on busy machines with a debug build. For
//! figures to report: `shim/build FILE`, then
//! `TRIPOD_SHIM=FILE cargo test -p tripod-shim --test shim -- --nocapture --test-threads 1 measure`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    time::{Duration, Instant},
};

use tripod_shim_protocol::{ExecPlan, Mount, MountFlags, MountSource, PodPlan, Reply, Request};

use crate::support::*;

const ROUNDS: usize = 40;

fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Sends `request` and gives the time until it is answered, and the stages.
fn timed(pod: &mut Pod, request: Request, fds: Vec<std::os::fd::OwnedFd>) -> (Duration, BTreeMap<String, u64>) {
    let begin = Instant::now();
    match pod.client.ask(request, fds) {
        Ok(Reply::Started { stages, .. }) => (begin.elapsed(), stages),
        other => panic!("not started: {other:?}"),
    }
}

fn report(what: &str, mut rounds: Vec<(Duration, BTreeMap<String, u64>)>) -> Duration {
    let total = median(&mut rounds.iter().map(|(total, _)| *total).collect::<Vec<_>>());
    let names: Vec<_> = rounds[0].1.keys().cloned().collect();
    let mut text = String::new();
    for name in names {
        let mut values: Vec<_> = rounds.iter_mut().map(|(_, stages)| stages[&name]).collect();
        text += &format!(" {name} {} µs", median(&mut values));
    }
    let best = rounds.iter().map(|(total, _)| *total).min().unwrap();
    println!("{what}: median {} µs, best {} µs:{text}", total.as_micros(), best.as_micros());
    total
}

/// Proportional and private memory of a process, in kB.
fn memory(pid: i32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum()
    };
    (field("Pss:"), field("Private_Dirty:") + field("Private_Clean:"))
}

#[test]
fn measure_starts_and_execs() {
    let mut pod = Pod::new(|_| {});
    let root = pod.rootfs("all");
    let cgroups = pod.cgroups();
    let launches = (0..ROUNDS)
        .map(|n| {
            let id = format!("c{n}");
            let mut plan = pod.plan(&id, "");
            plan.process.argv = vec!["/bin/sleep".into(), "60".into()];
            plan.mounts.push(Mount {
                target: "/sys/fs/cgroup".into(),
                source: MountSource::Cgroups,
                flags: MountFlags { read_only: true, ..MountFlags::default() },
                propagation: None,
            });
            plan.cgroups = cgroups.clone();
            plan.cgroup_namespace = true;
            let hidden = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"];
            plan.masked_paths = hidden.map(Into::into).into();
            plan.read_only_paths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"].map(Into::into).into();
            let figures = timed(&mut pod, Request::Launch(Box::new(plan)), vec![Pod::detached(&root)]);
            if n > 0 {
                pod.client.ask(Request::Signal { container: id.clone(), signal: 9 }, vec![]).unwrap();
                pod.client.exit(&id);
            }
            figures
        })
        .collect();
    assert!(report("launch", launches) < Duration::from_millis(100));

    let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let execs = (0..ROUNDS)
        .map(|n| {
            let exec = format!("e{n}");
            let plan = ExecPlan { exec: exec.clone(), container: "c0".into(), process: process(&["/bin/true"]) };
            let figures = timed(&mut pod, Request::Exec(Box::new(plan)), vec![null(), null(), null()]);
            pod.client.exec_exit(&exec);
            figures
        })
        .collect();
    assert!(report("exec", execs) < Duration::from_millis(100));
}

#[test]
fn measure_pods() {
    let mut figures: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            let mut pod = Pod::bare();
            let plan = PodPlan {
                dir: pod.path().to_owned(),
                private_ipc: true,
                hostname: Some("name".into()),
                shm_size: Some(64 << 20),
                ..PodPlan::default()
            };
            pod.client.ask(Request::List, vec![]).unwrap();
            let spawned = begin.elapsed();
            let begin = Instant::now();
            let empty = empty_namespace().try_clone_to_owned().unwrap();
            pod.client.ask(Request::Setup(Box::new(plan)), vec![empty]).unwrap();
            let set_up = begin.elapsed();
            let begin = Instant::now();
            pod.shutdown();
            (spawned, set_up, begin.elapsed())
        })
        .collect();
    let mut column = |pick: fn(&(Duration, Duration, Duration)) -> Duration| {
        median(&mut figures.iter_mut().map(|f| pick(f)).collect::<Vec<_>>()).as_micros()
    };
    let (spawned, set_up, gone) = (column(|f| f.0), column(|f| f.1), column(|f| f.2));
    println!("pod: median {spawned} µs until the shim answers, {set_up} µs set-up, {gone} µs shutdown");
}

#[test]
fn measure_memory() {
    let mut pods: Vec<_> = (0..8).map(|_| Pod::new(|_| {})).collect();
    let show = |what: &str, pods: &[Pod]| {
        let mut all: Vec<_> = pods.iter().map(|pod| memory(pod.shim.pid.as_raw_nonzero().get())).collect();
        let (pss, private) = median(&mut all);
        println!("{what}: PSS {pss} kB, private {private} kB");
        private
    };
    let idle = || std::thread::sleep(Duration::from_millis(300));
    idle();
    show("a pod", &pods);
    for pod in &mut pods {
        pod.launch(pod.plan("c1", "sleep 60")).unwrap();
    }
    idle();
    let one = show("with a container", &pods);
    for pod in &mut pods {
        pod.run("c2", "seq 1 50000");
        for n in 0..10 {
            pod.exec("c1", &format!("e{n}"), &["true"]).unwrap();
        }
    }
    idle();
    let after = show("after a burst of output and execs", &pods);
    assert!(after < one + 200, "memory is given back: {one} kB before, {after} kB after");
}
