//! Hooks: when, where and with what they run, and what their failures come to.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;
use tripod_shim_protocol::{
    ContainerReport, Failure, FailureKind, Hook, HookStage, HookedPlan, LaunchPlan, PidNamespace, Reply, Request,
};

use crate::support::{PATIENCE, Pod, write_program};

const STAGES: [HookStage; 5] = [
    HookStage::Prestart,
    HookStage::CreateRuntime,
    HookStage::CreateContainer,
    HookStage::StartContainer,
    HookStage::Poststart,
];

/// Where hooks of a container write what they see; those inside of it to a file of its root directory.
fn seen(pod: &Pod, id: &str) -> PathBuf {
    pod.path().join(format!("seen-{id}"))
}

fn bundle(pod: &Pod, id: &str) -> PathBuf {
    pod.path().join("bundle").join(id)
}

/// A hook that runs a script of the host's.
fn hook(pod: &Pod, stage: HookStage, script: &str) -> Hook {
    let path = pod.path().join(format!("hook-{}.sh", stage.name()));
    write_program(&path, &format!("#!/bin/sh\n{script}\n"));
    let (args, env) = (vec!["named".into(), stage.name().into()], vec!["PATH=/usr/bin:/bin".into(), "A=b c".into()]);
    Hook { path, args, env, timeout: Some(60), stages: vec![stage] }
}

/// The same for a program of the container's.
fn inside(script: &str) -> Hook {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    Hook { path: "/bin/sh".into(), args, stages: vec![HookStage::StartContainer], timeout: Some(60), ..Hook::default() }
}

fn start(pod: &mut Pod, plan: LaunchPlan, hooks: Vec<Hook>) -> Result<Reply, Failure> {
    let request = send(pod, plan, hooks);
    pod.client.answer(request).0
}

/// Asks for a start and does not wait.
fn send(pod: &mut Pod, plan: LaunchPlan, hooks: Vec<Hook>) -> u64 {
    let root = pod.rootfs(&plan.container);
    let bundle = bundle(pod, &plan.container);
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let mut fds = vec![Pod::detached(&root)];
    fds.extend(["net", "ipc", "uts"].map(|kind| File::open(format!("/proc/self/ns/{kind}")).unwrap().into()));
    let annotations = [("key".to_owned(), "value".to_owned())].into();
    let plan = HookedPlan { plan: LaunchPlan { hooks, ..plan }, bundle, annotations };
    pod.client.send(Request::LaunchHooked(Box::new(plan)), fds)
}

fn known(pod: &mut Pod) -> Vec<String> {
    match pod.client.ask(Request::List, vec![]).unwrap() {
        Reply::Report { containers, .. } => containers.into_keys().collect(),
        other => panic!("{other:?}"),
    }
}

/// Waits until a file has this many lines, and gives them.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if text.ends_with('\n') && lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < until, "{} has {lines:?}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn namespace(pid: &str, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn each_runs_at_its_stage_in_its_namespaces() {
    let mut pod = Pod::new(|_| {});
    let script = "echo \"$0|$1|$A|$(pwd)|$(readlink /proc/self/ns/mnt)|$(readlink /proc/self/ns/pid)|\
                  $(readlink /proc/self/ns/ipc)|$(ls rootfs/bin/sh bin/sh 2>/dev/null)|$(ls -d proc/1 2>/dev/null)|\
                  $(ls /proc/self/fd | wc -l)|$(umask)|$(cat)\" >>";
    let (out, root) = (seen(&pod, "c1"), pod.path().join("rootfs/c1"));
    let mut hooks: Vec<Hook> =
        STAGES.iter().map(|stage| hook(&pod, *stage, &format!("{script}{}", out.display()))).collect();
    hooks[3] = inside("echo $PATH:$HOME; id -u; cat; echo; ls /proc/self/fd | wc -l");
    hooks[3].args[2] = format!("({}) >/seen", hooks[3].args[2]);
    // In whatever order they come.
    hooks.reverse();
    let mut plan = pod.plan("c1", "cat /seen >/dev/null && sleep 1000");
    plan.cgroups = pod.cgroups();
    let started = start(&mut pod, plan, hooks).unwrap();
    let pid = Pod::pid_of(&started).to_string();

    let told: Vec<Vec<String>> =
        lines(&out, 4).iter().map(|line| line.split('|').map(str::to_owned).collect()).collect();
    let (bundle, bundle_root) = (bundle(&pod, "c1"), bundle(&pod, "c1").join("rootfs"));
    let own = |kind: &str| namespace("self", kind);
    for (line, stage) in told.iter().zip(["prestart", "createRuntime", "createContainer", "poststart"]) {
        let within = stage == "createContainer";
        assert!(line[0].ends_with(&format!("hook-{stage}.sh")) && line[1] == stage && line[2] == "b c", "{line:?}");
        assert_eq!(Path::new(&line[3]), if within { &bundle_root } else { &bundle });
        match stage {
            "poststart" => assert_eq!(line[4], own("mnt")),
            "createContainer" => assert_eq!(line[4], namespace(&pid, "mnt")),
            _ => assert!(line[4] != own("mnt") && line[4] != namespace(&pid, "mnt"), "{line:?}"),
        }
        assert_eq!(line[5], if within { namespace(&pid, "pid") } else { own("pid") });
        assert_eq!(line[6], if within { namespace(&pid, "ipc") } else { own("ipc") });
        // The root filesystem is in the bundle, with the container's mounts for those inside only.
        let shown = if within { "bin/sh" } else { "rootfs/bin/sh" };
        assert_eq!(line[7], if stage == "poststart" { "" } else { shown });
        assert_eq!(line[8], if within { "proc/1" } else { "" });
        // Standard input, output and error, and the directory that is being listed.
        assert_eq!((line[9].as_str(), line[10].as_str()), ("4", "0022"));
        let state: Value = serde_json::from_str(&line[11]).unwrap();
        assert_eq!(state["pid"].to_string(), if within { "1" } else { pid.as_str() });
        assert_eq!(state["status"], if stage == "poststart" { "running" } else { "creating" });
        assert_eq!((&state["id"], &state["annotations"]["key"]), (&"c1".into(), &"value".into()));
        assert_eq!(Path::new(state["bundle"].as_str().unwrap()), bundle);
    }
    let inside = lines(&root.join("seen"), 4);
    assert_eq!((inside[0].as_str(), inside[1].as_str()), ("/bin:/root", "0"), "the container's own environment");
    let state: Value = serde_json::from_str(&inside[2]).unwrap();
    assert!(state["status"] == "created" && state["pid"] == 1 && inside[3] == "4", "{inside:?}");
    // Nothing is left of what hooks were shown.
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(!mounts.contains("bundle") && mounts.lines().all(|line| !line.contains("master:")), "{mounts}");
    assert_eq!(fs::read_dir(&bundle_root).unwrap().count(), 0);
}

/// Starts a container whose hooks fail; nothing of it may be left.
fn failed(pod: &mut Pod, id: &str, hooks: Vec<Hook>) -> Failure {
    let (mut plan, ran) = (pod.plan(id, "touch /ran; sleep 1000"), pod.path().join("rootfs").join(id).join("ran"));
    plan.cgroups = pod.cgroups();
    let dirs = plan.cgroups.dirs.clone();
    let after = hooks.iter().any(|hook| hook.stages == [HookStage::Poststart]);
    let failure = start(pod, plan, hooks).unwrap_err();
    assert!(after || !ran.exists(), "the program did not run");
    assert!(!known(pod).contains(&id.to_owned()));
    for dir in dirs {
        assert_eq!(fs::read_to_string(dir.join("cgroup.procs")).unwrap(), "", "{}", dir.display());
    }
    failure
}

#[test]
fn a_hook_that_fails_fails_the_start() {
    let mut pod = Pod::new(|_| {});
    for stage in STAGES {
        let id = format!("c-{}", stage.name());
        let script = "echo noise; echo 'no luck' >&2; exit 3";
        let failing = if stage == HookStage::StartContainer { inside(script) } else { hook(&pod, stage, script) };
        let program = failing.path.display().to_string();
        let next = seen(&pod, &id);
        let args = vec!["touch".to_owned(), next.display().to_string()];
        let later = Hook { path: "/bin/touch".into(), args, stages: vec![stage], ..Hook::default() };
        let failure = failed(&mut pod, &id, vec![failing, later]);
        assert_eq!(failure.kind, FailureKind::Internal);
        let text = failure.to_string();
        assert_eq!(text, format!("run hook {program} ({}): ended with code 3: noise\nno luck", stage.name()));
        assert!(!next.exists(), "no other hook of the stage runs");
    }
    let absent = Hook { path: "/no/such/hook".into(), stages: vec![HookStage::CreateRuntime], ..Hook::default() };
    let text = failed(&mut pod, "absent", vec![absent]).to_string();
    assert!(text.contains("/no/such/hook (createRuntime)") && text.contains("No such file"), "{text}");
    // The pod is none the worse.
    assert_eq!(pod.run("fine", "exit 5").0, 5);
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_all_that_it_started() {
    let mut pod = Pod::new(|_| {});
    for stage in STAGES {
        let id = format!("c-{}", stage.name());
        let out = seen(&pod, &id);
        let slow = if stage == HookStage::StartContainer {
            inside("/bin/sleep 1234 & /bin/sleep 1234")
        } else {
            hook(&pod, stage, &format!("sleep 1234 & echo $! >{}; sleep 1234", out.display()))
        };
        let text = failed(&mut pod, &id, vec![Hook { timeout: Some(1), ..slow }]).to_string();
        assert!(text.contains(&format!("({}): did not end within 1 s and was killed", stage.name())), "{text}");
        // In the container's own PID namespace the number says nothing here, and the kernel has killed all.
        if out.exists() && stage != HookStage::CreateContainer {
            gone(lines(&out, 1)[0].parse().unwrap());
        }
    }
}

/// Waits for the end of a process. Whoever adopts it may not have reaped it: then it has no command line any more.
fn gone(pid: i32) {
    let command = Path::new("/proc").join(pid.to_string()).join("cmdline");
    crate::support::wait_until("the end of a process", || {
        fs::read(&command).is_ok_and(|line| line.is_empty()) || !command.exists()
    });
}

#[test]
fn a_start_that_waits_for_a_hook_can_be_killed() {
    let mut pod = Pod::new(|_| {});
    for stage in STAGES {
        let id = format!("c-{}", stage.name());
        let out = if stage == HookStage::StartContainer {
            pod.path().join("rootfs").join(&id).join("seen")
        } else {
            seen(&pod, &id)
        };
        let slow = match stage {
            HookStage::StartContainer => inside("echo begun >/seen; exec /bin/sleep 1234"),
            _ => hook(&pod, stage, &format!("echo $$ >{}; exec sleep 1234", out.display())),
        };
        let plan = pod.plan(&id, "sleep 1000");
        let request = send(&mut pod, plan, vec![slow]);
        let said = lines(&out, 1).remove(0);
        match pod.client.ask_beside(request, Request::List) {
            Reply::Report { containers, .. } => assert!(matches!(containers[&id], ContainerReport::Starting { .. })),
            other => panic!("{other:?}"),
        }
        let kill = Request::Signal { container: id.clone(), signal: 9 };
        assert_eq!(pod.client.ask_beside(request, kill), Reply::Done);
        assert!(pod.client.answer(request).0.is_err());
        // As the hook in the container's PID namespace counts, it is somebody else.
        if let (false, Ok(pid)) = (stage == HookStage::CreateContainer, said.parse()) {
            gone(pid);
        }
        assert!(!known(&mut pod).contains(&id));
    }
    // With the pod, too.
    let out = seen(&pod, "last");
    let slow = hook(&pod, HookStage::Prestart, &format!("echo $$ >{}; exec sleep 1234", out.display()));
    let plan = pod.plan("last", "sleep 1000");
    send(&mut pod, plan, vec![slow]);
    let pid = lines(&out, 1)[0].parse().unwrap();
    let answers = {
        pod.client.send(Request::Shutdown, vec![]);
        pod.client.answers(2)
    };
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(Reply::Done)).count(), 1, "{answers:?}");
    pod.wait_for_shim();
    gone(pid);
}

#[test]
fn a_program_may_end_before_the_hooks_after_its_start() {
    let mut pod = Pod::new(|_| {});
    let wait = r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); while [ -d "/proc/$pid" ]; do sleep 0.01; done; sleep 0.1"#;
    let hooks = vec![hook(&pod, HookStage::Poststart, wait)];
    let plan = pod.plan("c1", "echo out; exit 7");
    start(&mut pod, plan, hooks).unwrap();
    assert_eq!(pod.client.exit("c1").code, 7);
    assert_eq!(pod.text("c1"), "out\n");
    let hooks = vec![hook(&pod, HookStage::Poststart, &format!("{wait}; exit 2"))];
    let plan = pod.plan("c2", "exit 7");
    assert!(start(&mut pod, plan, hooks).unwrap_err().message.contains("ended with code 2"));
    assert!(!known(&mut pod).contains(&"c2".to_owned()));
}

#[test]
fn in_a_shared_pid_namespace_nobody_sees_who_waits_for_hooks() {
    let mut pod = Pod::new(|plan| plan.shared_pid = true);
    let shared = |pod: &Pod, id: &str, command: &str| {
        let mut plan = pod.plan(id, command);
        plan.pid = PidNamespace::Pod;
        plan
    };
    pod.launch(shared(&pod, "watcher", "sleep 1000")).unwrap();
    let out = seen(&pod, "c1");
    let script = format!("echo $(readlink /proc/self/ns/pid) $(cat) >>{}", out.display());
    let hooks = vec![hook(&pod, HookStage::CreateContainer, &script), inside("readlink /proc/self/ns/pid >/seen")];
    let plan = shared(&pod, "c1", "cat /seen; /bin/ps; readlink /proc/self/ns/pid; sleep 1000");
    let pid = Pod::pid_of(&start(&mut pod, plan, hooks).unwrap()).to_string();
    let told = lines(&out, 1).remove(0);
    assert!(told.starts_with(&namespace("self", "pid")), "outside until it has nothing of the host's: {told}");
    let joined = namespace(&pid, "pid");
    assert_ne!(joined, namespace("self", "pid"));
    crate::support::wait_until("the text", || pod.text("c1").matches(&joined).count() == 2);
    let text = pod.text("c1");
    let first = |line: &str| line.trim_start().starts_with("1 ") && line.contains("{tripod-reaper}");
    assert!(text.lines().any(first), "its procfs is that of the pod: {text}");
}
