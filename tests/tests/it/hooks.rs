//! Hooks of the operator's folder, with the built-in launcher and with an OCI runtime, which says what is right.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tripod_cri_api::v1::{ContainerConfig, ContainerState, NamespaceMode, PodSandboxConfig};
use tripod_tests::{Cri, Node, eventually, host_pod, mount, runtime, shell, tests};

use crate::userns;

tests![
    each_runs_at_its_stage_as_with_a_runtime,
    those_of_a_user_namespace_run_as_with_a_runtime,
    one_that_fails_or_hangs_fails_the_start,
    the_daemon_may_be_killed_while_one_runs,
    those_after_the_end_run_when_the_daemon_is_back,
];

const LIMIT: Duration = Duration::from_secs(60);

/// The folder for what hooks write.
fn seen(node: &Node) -> PathBuf {
    node.folder().join("seen")
}

/// Starts the daemon with an empty folder of hooks.
async fn ready(node: &mut Node) -> Cri {
    let folder = node.folder().join("hooks.d");
    fs::create_dir(&folder).unwrap();
    fs::create_dir(seen(node)).unwrap();
    node.settings.text("hooks_dir", &folder.to_string_lossy());
    runtime::configure(&mut node.settings, runtime::HANDLER, &runtime::program());
    node.ready().await
}

/// Adds a hook of a script, or exchanges it. It is for containers with the annotation `hooks`.
fn add(node: &Node, stage: &str, script: &str, timeout: u32) {
    // The container's shell is one of many programs in a file, and goes by its name.
    let name = if stage == "startContainer" { "sh" } else { "named" };
    let hook = json!({
        "version": "1.0.0",
        "hook": {
            "path": "/bin/sh", "args": [name, "-c", script], "timeout": timeout,
            "env": ["PATH=/usr/bin:/bin", "A=b c", format!("STAGE={stage}"), format!("SEEN={}", seen(node).display())],
        },
        "when": { "annotations": { "^hooks$": "^yes$" } },
        "stages": [stage],
    });
    fs::write(node.folder().join("hooks.d").join(format!("{stage}.json")), hook.to_string()).unwrap();
}

fn config(node: &Node, name: &str, script: &str) -> ContainerConfig {
    let mut config = shell(name, script);
    config.annotations.insert("hooks".into(), "yes".into());
    config.mounts = vec![mount(&seen(node).to_string_lossy(), "/seen")];
    config
}

/// What one hook has seen.
fn look(node: &Node, stage: &str) -> Value {
    let text = fs::read_to_string(seen(node).join(stage)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{stage}: {error}: {text}"))
}

/// The facts of a stage that do not depend on which container it is.
fn facts(node: &Node, stage: &str, id: &str) -> Value {
    let mut seen = look(node, stage);
    let state = seen["state"].take();
    assert_eq!((&state["id"], &state["annotations"]["hooks"]), (&json!(id), &json!("yes")), "{state}");
    let bundle = state["bundle"].as_str().unwrap();
    assert!(Path::new(bundle).is_absolute() && state["ociVersion"].is_string(), "{state}");
    let cwd = seen["cwd"].as_str().unwrap();
    seen["cwd"] = cwd.strip_prefix(bundle).unwrap_or(cwd).into();
    seen["status"] = state["status"].clone();
    // Inside it is 1, outside it may be anything else.
    seen["pid"] = state["pid"].as_i64().map(|pid| pid == 1).into();
    let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    for kind in ["mnt", "pid", "uts", "ipc", "user"] {
        seen[kind] = (seen[kind] == own(kind).as_str()).into();
    }
    seen
}

/// Writes what it sees as JSON, in a file named after the stage, and adds the stage to a list.
const LOOK: &str = r#"
    state=$(cat); bundle=$(echo "$state" | sed 's/.*"bundle": *"\([^"]*\)".*/\1/'); : "${SEEN:=/seen}"
    ns() { readlink /proc/self/ns/$1; }
    there() { if [ -e "$1" ]; then echo true; else echo false; fi; }
    echo "{\"name\":\"$0\",\"a\":\"$A\",\"cwd\":\"$(pwd)\",\"umask\":\"$(umask)\",\"mnt\":\"$(ns mnt)\",\"pid\":\"$(ns pid)\",
        \"uts\":\"$(ns uts)\",\"ipc\":\"$(ns ipc)\",\"user\":\"$(ns user)\",\"id\":\"$(id -u):$(id -g)\",\"fds\":$(ls /proc/self/fd | wc -l),\"config\":$(there "$bundle/config.json"),
        \"root\":$(there "$bundle/rootfs/bin/sh"),\"proc\":$(there "$bundle/rootfs/proc/1"),\"state\":$state}" >"$SEEN/$STAGE"
    echo "$STAGE" >>"$SEEN/order""#;

async fn each_runs_at_its_stage_as_with_a_runtime(node: &mut Node) {
    compare(node, host_pod).await;
}

/// Those of `createContainer` and `startContainer` are in it, as its root.
async fn those_of_a_user_namespace_run_as_with_a_runtime(node: &mut Node) {
    let user = || userns::ids(userns::BASE);
    compare(node, |name| userns::with(host_pod(name), user())).await;
    // A hook that fails fails the start, wherever the process is that waits for it.
    let cri = node.daemon().cri();
    let pod_config = userns::with(host_pod("failing"), user());
    let pod = cri.run_pod(&pod_config).await.unwrap();
    for stage in ["createRuntime", "createContainer"] {
        for file in fs::read_dir(node.folder().join("hooks.d")).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        add(node, stage, "echo no luck >&2; exit 3", 60);
        let id = cri.create(&pod, &pod_config, &config(node, stage, "sleep 1000")).await.unwrap();
        let error = cri.start(&id).await.unwrap_err();
        assert!(error.message().contains(&format!("/bin/sh ({stage})")), "{error}");
        assert!(error.message().contains("no luck"), "{error}");
        cri.remove(&id).await.unwrap();
    }
    // In a PID namespace that others are in, the container's process is born when no hook is to come.
    let mut pod_config = userns::with(host_pod("shared"), user());
    let context = pod_config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().pid = NamespaceMode::Pod.into();
    let pod = cri.run_pod(&pod_config).await.unwrap();
    add(node, "createContainer", "id -u >$SEEN/who", 60);
    match cri.run(&pod, &pod_config, &config(node, "main", "exit 5")).await {
        Ok(id) => {
            assert_eq!(cri.exited(&id).await.exit_code, 5);
            assert_eq!(fs::read_to_string(seen(node).join("who")).unwrap(), "0\n");
        }
        Err(error) => assert!(error.message().contains("take Linux 6.17"), "{error}"),
    }
    let bundles = Path::new("/run/tripod/bundles");
    let gone = async || bundles.read_dir().unwrap().next().is_none().then_some(());
    eventually("the end of all bundles", LIMIT, gone).await;
}

/// Compares what hooks see with the two launchers.
async fn compare(node: &mut Node, make: impl Fn(&str) -> PodSandboxConfig) {
    let cri = ready(node).await;
    // Who is in a user namespace is nobody here.
    for (folder, mode) in [(node.folder().to_owned(), 0o711), (seen(node), 0o777)] {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    }
    let stages = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    for stage in stages {
        // What is inside has a path of its own to the folder.
        let script = if stage == "startContainer" { LOOK.replace("$SEEN", "/seen") } else { LOOK.to_owned() };
        add(node, stage, &script, 60);
    }
    let mut all = Vec::new();
    for handler in ["", runtime::HANDLER] {
        let pod_config = make(&format!("pod-{handler}"));
        let pod = cri.run_pod_by(handler, &pod_config).await.unwrap();
        fs::write(seen(node).join("order"), "").unwrap();
        fs::set_permissions(seen(node).join("order"), fs::Permissions::from_mode(0o666)).unwrap();
        let id = cri.run(&pod, &pod_config, &config(node, "main", "echo program >>/seen/order; exit 3")).await.unwrap();
        assert_eq!(cri.exited(&id).await.exit_code, 3);
        let order = fs::read_to_string(seen(node).join("order")).unwrap();
        let facts: Vec<Value> = stages.iter().map(|stage| facts(node, stage, &id)).collect();
        all.push((order, facts));
        for file in fs::read_dir(seen(node)).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        // It is for those that it is meant for.
        let plain = cri.run(&pod, &pod_config, &shell("plain", "exit 4")).await.unwrap();
        assert_eq!(cri.exited(&plain).await.exit_code, 4);
        assert_eq!(fs::read_dir(seen(node)).unwrap().count(), 0);
    }
    let (theirs, ours) = (all.pop().unwrap(), all.pop().unwrap());
    if std::env::var_os("TRIPOD_TESTS_RUNTIME").is_some() {
        assert_eq!(ours, theirs);
        return;
    }
    // Runtimes run those after the start when the container has been created; by the specification the program runs.
    let mut words: Vec<_> = ours.0.split_whitespace().collect();
    let program = words.iter().position(|word| *word == "program").expect("the program ran");
    words.remove(program);
    assert_eq!(words, stages, "{}", ours.0);
    for (at, stage) in stages.into_iter().enumerate() {
        let (mut ours, mut theirs) = (ours.1[at].clone(), theirs.1[at].clone());
        if !["createContainer", "startContainer"].contains(&stage) {
            // A runtime is called in the pod's IPC namespace.
            assert_eq!(ours["ipc"], true);
            (ours["ipc"], theirs["ipc"]) = (Value::Null, Value::Null);
        }
        // Standard input, output and error, and the folder that is being listed. Others leave more open.
        assert_eq!(ours["fds"].take(), 4, "{stage}");
        theirs["fds"].take();
        if stage == "poststart" {
            assert_eq!(ours["status"], "running");
        } else {
            assert_eq!(ours, theirs, "{stage}");
        }
    }
    assert!(Path::new("/run/tripod/bundles").read_dir().unwrap().next().is_none(), "no bundle is left");
}

async fn one_that_fails_or_hangs_fails_the_start(node: &mut Node) {
    let cri = ready(node).await;
    let pod_config = host_pod("main");
    let pod = cri.run_pod(&pod_config).await.unwrap();
    let list = seen(node).join("order");
    add(node, "poststop", "echo $STAGE >>$SEEN/order", 60);
    let stages = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"];
    for (number, stage) in stages.into_iter().enumerate() {
        for (what, script, timeout, told) in [
            ("fails", "echo no luck >&2; exit 3", 60, "no luck"),
            ("hangs", "sleep 3456 & sleep 3456", 1, "did not end within 1 s"),
        ] {
            add(node, stage, script, timeout);
            let config = config(node, &format!("{what}{number}"), "sleep 1000");
            let id = cri.create(&pod, &pod_config, &config).await.unwrap();
            let error = cri.start(&id).await.unwrap_err();
            if std::env::var_os("TRIPOD_TESTS_RUNTIME").is_none() {
                assert!(error.message().contains(&format!("/bin/sh ({stage})")), "{error}");
                assert!(error.message().contains(told), "{error}");
                assert_eq!(fs::read_to_string(&list).unwrap(), "poststop\n", "{stage} {what}");
                fs::remove_file(&list).unwrap();
            }
            let status = cri.status(&id).await.unwrap();
            assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{status:?}");
            assert!(!Path::new("/run/tripod/bundles").join(&id).exists());
            cri.remove(&id).await.unwrap();
        }
        fs::remove_file(node.folder().join("hooks.d").join(format!("{stage}.json"))).unwrap();
    }
    let id = cri.run(&pod, &pod_config, &config(node, "fine", "exit 5")).await.unwrap();
    assert_eq!(cri.exited(&id).await.exit_code, 5);
}

async fn file(path: &Path) {
    eventually(&format!("file {}", path.display()), LIMIT, async || path.exists().then_some(())).await;
}

async fn the_daemon_may_be_killed_while_one_runs(node: &mut Node) {
    let cri = ready(node).await;
    let pod_config = host_pod("main");
    let pod = cri.run_pod(&pod_config).await.unwrap();
    let begun = seen(node).join("begun");
    // One that ends soon after the daemon did: the container runs.
    add(node, "createRuntime", "touch $SEEN/begun; until [ -e $SEEN/go ]; do sleep 0.02; done", 60);
    let start = |cri: Cri, id: String| tokio::spawn(async move { cri.start(&id).await });
    let id = cri.create(&pod, &pod_config, &config(node, "soon", "sleep 1000")).await.unwrap();
    let starting = start(node.daemon().cri(), id.clone());
    file(&begun).await;
    node.kill();
    fs::write(seen(node).join("go"), "").unwrap();
    let cri = node.start().await;
    let _ = starting.await;
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerRunning);
    assert_eq!(cri.sh(&id, "echo here").await, "here");
    fs::remove_file(&begun).unwrap();
    // One that does not end: it is ended, and the container can be started.
    add(node, "createRuntime", "[ -e $SEEN/begun ] && exit 0; touch $SEEN/begun; sleep 3456 & sleep 3456", 600);
    let id = cri.create(&pod, &pod_config, &config(node, "late", "sleep 1000")).await.unwrap();
    let starting = start(node.daemon().cri(), id.clone());
    file(&begun).await;
    let cri = node.restart().await;
    let _ = starting.await;
    assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerCreated);
    cri.start(&id).await.unwrap();
    assert_eq!(cri.sh(&id, "echo here").await, "here");
    // And it goes if it is not.
    fs::remove_file(&begun).unwrap();
    let id = cri.create(&pod, &pod_config, &config(node, "gone", "sleep 1000")).await.unwrap();
    let starting = start(node.daemon().cri(), id.clone());
    file(&begun).await;
    let cri = node.restart().await;
    let _ = starting.await;
    cri.remove(&id).await.unwrap();
    assert!(!Path::new("/run/tripod/bundles").join(&id).exists());
}

async fn those_after_the_end_run_when_the_daemon_is_back(node: &mut Node) {
    let cri = ready(node).await;
    let pod_config = host_pod("main");
    let pod = cri.run_pod(&pod_config).await.unwrap();
    let (begun, list) = (seen(node).join("begun"), seen(node).join("order"));
    add(
        node,
        "poststop",
        "[ -e $SEEN/begun ] || { touch $SEEN/begun; exec sleep 3456; }; echo $STAGE >>$SEEN/order",
        600,
    );
    let id = cri
        .run(&pod, &pod_config, &config(node, "main", "until [ -e /seen/go ]; do usleep 20000; done; exit 6"))
        .await
        .unwrap();
    fs::write(seen(node).join("go"), "").unwrap();
    file(&begun).await;
    let begin = Instant::now();
    let cri = node.restart().await;
    assert_eq!(cri.exited(&id).await.exit_code, 6);
    assert_eq!(fs::read_to_string(&list).unwrap(), "poststop\n");
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}
