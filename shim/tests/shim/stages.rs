//! What a shim says of its starts, and what memory it keeps. Speed is measured in `bench/`.

use std::{fs, time::Duration};

use tripod_shim_protocol::{ExecPlan, Reply, Request};

use crate::support::*;

fn median<T: Ord + Copy>(values: &mut [T]) -> T {
    values.sort_unstable();
    values[values.len() / 2]
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
fn every_stage_of_a_start_is_timed() {
    let mut pod = Pod::new(|_| {});
    let Ok(Reply::Started { stages, .. }) = pod.launch(pod.plan("c1", "sleep 60")) else { panic!("not started") };
    let names: Vec<_> = stages.keys().map(String::as_str).collect();
    assert_eq!(names, ["cgroups", "clone", "credentials", "exec", "mounts", "prepare"]);
    assert!(stages["mounts"] > 0 && stages["exec"] > 0, "{stages:?}");

    let null = || fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let plan = ExecPlan { exec: "e1".into(), container: "c1".into(), process: process(&["/bin/true"]) };
    let reply = pod.client.ask(Request::Exec(Box::new(plan)), vec![null(), null(), null()]);
    let Ok(Reply::Started { stages, .. }) = reply else { panic!("not started") };
    assert!(stages.contains_key("clone") && stages.contains_key("exec"), "{stages:?}");
}

#[test]
fn memory_is_given_back() {
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
    wait_until("memory is given back", || show("after a burst of output and execs", &pods) < one + 200);
}
